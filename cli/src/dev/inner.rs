//! Calls fleetctl's own commands as an operator types them, in this process: the same parser, the same
//! calls, the same errors. Only the folder of contexts is the development fleet's own.
//!
//! Called by [`super::run()`]. Each call has a thread and a runtime of its own, because [`crate::app::run`] has.

use std::path::Path;

use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::clock;
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};
use crate::render::{ColorChoice, OutputFormat, TimeStyle, read_printed};
use crate::session::Session;

/// Variables that change how output looks; nothing else of the surroundings is passed on.
const PASSED_ON: [&str; 5] = ["NO_COLOR", "TERM", "LC_ALL", "LC_CTYPE", "LANG"];
/// Name of the fleet's context.
pub const CONTEXT: &str = "dev";

/// How the commands are surrounded.
#[derive(Debug, Clone)]
pub struct Inner {
    variables: Vec<(String, String)>,
    zone: jiff::tz::TimeZone,
    width: Option<usize>,
    is_terminal: (bool, bool),
    looks: Vec<String>,
}

/// What a call gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Exit code.
    pub code: u8,
    /// Standard output, where it was not shown.
    pub out: String,
    /// Standard error, where it was not shown.
    pub err: String,
}

/// A call under way.
pub type Call = oneshot::Receiver<Outcome>;

impl Inner {
    /// Surroundings of `session`, with contexts in `folder`.
    pub fn new(session: &Session<'_>, folder: &Path) -> Self {
        let environment = session.environment;
        let mut variables = vec![
            ("FLEET_CONFIG_DIR".to_owned(), folder.to_string_lossy().into_owned()),
            ("FLEET_CONTEXT".to_owned(), CONTEXT.to_owned()),
        ];
        variables.extend(
            PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), environment.get(name)?.to_owned()))),
        );
        let settings = &session.settings;
        let looks = [color(settings.color), time(settings.time), format(&settings.format)];
        Self {
            variables,
            zone: environment.zone.clone(),
            width: environment.width,
            is_terminal: (environment.stdout_is_terminal, environment.stderr_is_terminal),
            looks: looks.map(str::to_owned).into(),
        }
    }

    fn environment(&self) -> Environment {
        let variables: Vec<_> =
            self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut environment = Environment::fixed(&variables, clock::now);
        environment.zone = self.zone.clone();
        environment.width = self.width;
        environment
    }

    /// A call whose output is kept.
    pub fn ask(&self, arguments: &[&str]) -> Call {
        let environment = self.environment();
        start(&[], arguments, move |arguments| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = crate::app::run(arguments, &mut out, &mut err, &environment);
            Outcome { code, out: text(&out), err: text(&err) }
        })
    }

    /// A call that is shown on the process's own streams, in the format that was asked for.
    pub fn show(&self, arguments: &[&str]) -> Call {
        let mut environment = self.environment();
        (environment.stdout_is_terminal, environment.stderr_is_terminal) = self.is_terminal;
        let looks: Vec<_> = self.looks.iter().map(String::as_str).collect();
        start(&looks, arguments, move |arguments| {
            let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
            let code = crate::app::run(arguments, &mut out, &mut err, &environment);
            Outcome { code, out: String::new(), err: String::new() }
        })
    }
}

fn start(
    looks: &[&str],
    arguments: &[&str],
    work: impl FnOnce(Vec<String>) -> Outcome + Send + 'static,
) -> Call {
    let line =
        ["fleetctl"].iter().chain(arguments).chain(looks).map(|&argument| argument.to_owned()).collect();
    let (done, call) = oneshot::channel();
    // A thread that nobody waits for: when the fleet ends, what it was asking ends with an error of its own.
    std::thread::spawn(move || {
        let _ = done.send(work(line));
    });
    call
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Outcome {
    /// The JSON that was printed; a failure in words that say which call it was.
    pub fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T, Failure> {
        self.good(what)?;
        read_printed(&self.out)
            .map_err(|error| Failure::unexpected(format!("{what}: the answer cannot be read"), &error))
    }

    /// Nothing, or a failure that holds what the command said.
    pub fn good(&self, what: &str) -> Result<(), Failure> {
        if self.code == 0 {
            return Ok(());
        }
        let exit =
            ExitCode::ALL.into_iter().find(|exit| exit.number() == self.code).unwrap_or(ExitCode::Unexpected);
        let failure = Failure::new(exit, "dev-step", format!("{what} failed (exit code {})", self.code));
        Err(self.err.lines().map(str::trim).filter(|line| !line.is_empty()).fold(failure, told))
    }
}

/// Adds a line of a command's own error: what it says is the cause here, its fixes stay fixes.
fn told(failure: Failure, line: &str) -> Failure {
    match (line.strip_prefix("fix: "), line.strip_prefix("cause: ")) {
        (Some(fix), _) => failure.fix(fix),
        (_, Some(cause)) => failure.cause(cause),
        _ => failure.cause(line),
    }
}

const fn color(choice: ColorChoice) -> &'static str {
    match choice {
        ColorChoice::Auto => "--color=auto",
        ColorChoice::Always => "--color=always",
        ColorChoice::Never => "--color=never",
    }
}

const fn time(style: TimeStyle) -> &'static str {
    match style {
        TimeStyle::Relative => "--time=relative",
        TimeStyle::Local => "--time=local",
        TimeStyle::Utc => "--time=utc",
    }
}

/// A path into one answer means nothing for several answers of different kinds.
const fn format(format: &OutputFormat) -> &'static str {
    match format {
        OutputFormat::Table | OutputFormat::JsonPath(_) => "--output=table",
        OutputFormat::Wide => "--output=wide",
        OutputFormat::Json => "--output=json",
        OutputFormat::JsonLines => "--output=jsonl",
        OutputFormat::Yaml => "--output=yaml",
        OutputFormat::Name => "--output=name",
    }
}

#[cfg(test)]
mod tests {
    use super::super::embedded::documents;
    use super::*;
    use crate::settings::Settings;
    use fleet_types::time::Timestamp;

    fn inner(folder: &Path) -> Inner {
        let environment =
            Environment::fixed(&[("HOME", "/nowhere"), ("NO_COLOR", "1")], || Timestamp::clamped(0));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        Inner::new(&Session::new(Settings::default(), &environment, &mut out, &mut err), folder)
    }

    #[tokio::test]
    async fn the_documents_that_are_brought_along_are_valid() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in documents() {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let text = folder.path().to_str().unwrap();
        let outcome = inner(folder.path()).ask(&["config", "validate", text]).await.unwrap();
        outcome.good("validate").unwrap();
        assert!(outcome.out.contains("8 files valid"), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_failed_call_says_which_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = inner(folder.path()).ask(&["status"]).await.unwrap();
        let failure = outcome.good("fleetctl status").unwrap_err();
        assert_eq!(failure.exit, ExitCode::NotAllowed);
        assert_eq!(failure.what, "fleetctl status failed (exit code 10)");
        assert!(failure.causes[0].starts_with("error[not-signed-in]"), "{failure:?}");
        assert!(failure.fixes[0].starts_with("sign in first"), "{failure:?}");
    }
}
