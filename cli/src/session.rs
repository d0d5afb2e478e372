//! What every command is handed: settings, surroundings, the two streams, the chosen context.
//!
//! Data goes out through [`Session::print`] and [`Session::data`], talk through [`Session::say`]; no
//! command writes to a stream itself.

use std::io::Write;

use crate::client::Client;
use crate::context::{Context, ContextStore};
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};
use crate::render::{self, Answer, Look, OutputFormat, Times, escape};
use crate::renewal;
use crate::settings::Settings;

/// One invocation.
pub struct Session<'a> {
    /// The global flags.
    pub settings: Settings,
    /// What the process gives.
    pub environment: &'a Environment,
    /// What to say when Ctrl-C ends the command: whether work goes on. None where Ctrl-C is how it is ended.
    pub when_interrupted: Option<String>,
    is_asking: bool,
    look: Look,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<'a> Session<'a> {
    /// A session that writes to `out` and `err`.
    pub fn new(
        settings: Settings,
        environment: &'a Environment,
        out: &'a mut dyn Write,
        err: &'a mut dyn Write,
    ) -> Self {
        let is_terminal = environment.stdout_is_terminal;
        let look = Look::new(settings.format.clone(), settings.color, is_terminal, environment);
        Self {
            settings,
            environment,
            when_interrupted: Some("interrupted".to_owned()),
            is_asking: false,
            look,
            out,
            err,
        }
    }

    /// Shows times as asked for, from now on this machine.
    pub fn times(&self) -> Times {
        let now = (self.environment.now)();
        Times { style: self.settings.time, now, zone: self.environment.zone.clone() }
    }

    /// Prints an answer to stdout.
    pub fn print(&mut self, answer: &Answer) -> Result<(), Failure> {
        render::print(answer, &self.look, self.out)?;
        if let OutputFormat::JsonPath(path) = &self.look.format
            && path.select(&answer.value).is_empty()
        {
            self.say("nothing is at this jsonpath; -o json shows what is there");
        }
        Ok(())
    }

    /// With `--dry-run` prints what would be done, which is then not to be done.
    pub fn would(&mut self, doing: &str) -> Result<bool, Failure> {
        if self.settings.dry_run {
            let would = format!("would {doing}");
            let body = serde_json::json!({ "would": would });
            self.print(&Answer::local("fleet/v1/dry-run", &body).line(would))?;
        }
        Ok(self.settings.dry_run)
    }

    /// Prints an answer to stderr as people see it: what a question is about.
    pub fn show_aside(&mut self, answer: &Answer) -> Result<(), Failure> {
        let (format, is_terminal) = (OutputFormat::Table, self.environment.stderr_is_terminal);
        let look = Look::new(format, self.settings.color, is_terminal, self.environment);
        Ok(render::print(answer, &look, self.err)?)
    }

    /// Writes text of a node to stdout, its lines kept and all else escaped.
    pub fn data(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(escape::lines(text).as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// Clears the terminal before the same answer is printed again; nothing off a terminal.
    pub fn clear(&mut self) -> Result<(), Failure> {
        if self.environment.stdout_is_terminal && self.settings.format.is_human() {
            self.out.write_all(b"\x1b[H\x1b[2J")?;
        }
        Ok(())
    }

    /// Says something to people, unless `--quiet`. Nobody listening is no reason to fail.
    pub fn say(&mut self, text: impl AsRef<str>) {
        if !self.settings.quiet {
            let _ = writeln!(self.err, "{}", self.look.charset.fit(&escape::lines(text.as_ref())));
        }
    }

    /// Says something with `--verbose` only.
    pub fn say_more(&mut self, text: impl AsRef<str>) {
        if self.settings.verbose {
            self.say(text);
        }
    }

    /// Asks on stderr and reads the answer, whether quiet or not.
    pub async fn ask(&mut self, question: &str) -> Result<String, Failure> {
        let _ = write!(self.err, "{} ", self.look.charset.fit(&escape::line(question)));
        let _ = self.err.flush();
        self.is_asking = true;
        let answer = self.environment.read_answer().await;
        self.is_asking = false;
        answer.map_err(|error| Failure::unexpected("the answer cannot be read", &error))
    }

    /// The failure of a command that Ctrl-C ended.
    pub fn interrupted(&mut self) -> Failure {
        if self.is_asking {
            // What is said next does not stand behind the question.
            let _ = writeln!(self.err);
        }
        match &self.when_interrupted {
            Some(what) => Failure::new(ExitCode::Interrupted, "interrupted", what),
            None => Failure::silent(ExitCode::Interrupted),
        }
    }

    /// Can a question be answered?
    pub const fn can_ask(&self) -> bool {
        self.environment.stdin_is_terminal && !self.settings.no_input
    }

    /// Where contexts are kept.
    pub fn contexts(&self) -> Result<ContextStore, Failure> {
        ContextStore::open(self.environment)
    }

    /// The context of this invocation: flag, variable, then the file's current one.
    pub fn context(&self) -> Result<Context, Failure> {
        self.contexts()?.choose(self.settings.context.as_ref())
    }

    /// Connects to the controller of the context. Its certificate is renewed on the way where that is due; where it cannot
    /// be, the present one serves as long as it lasts.
    pub async fn connect(&mut self) -> Result<Client, Failure> {
        let context = self.context()?;
        self.say_more(format!("context {}: {}", context.name, context.endpoint));
        let (limit, now) = (self.settings.call_limit(), self.environment.now);
        let client = match Client::connect(&context, limit, now).await {
            Err(ended) if ended.code == "cert-expired" => {
                let back = renewal::come_back(&context, limit, now).await;
                let client = back.map_err(|why| ended.cause(format!("it is not renewed: {}", why.what)))?;
                self.say_more(format!(
                    "your certificate for context {} had ended and is renewed",
                    context.name
                ));
                client
            }
            connected => connected?,
        };
        match renewal::if_due(&context, &client, limit, now).await {
            Ok(None) => Ok(client),
            Ok(Some(renewed)) => {
                let until = renewed.certificate().not_after;
                self.say_more(format!(
                    "your certificate for context {} is renewed, until {until}",
                    context.name
                ));
                Ok(renewed)
            }
            Err(failure) => {
                let text = format!("your certificate is not renewed: {}", failure.what);
                if renewal::ends_soon(client.certificate(), now()) {
                    self.say(format!("warning: {text}; it ends {}", client.certificate().not_after));
                } else {
                    self.say_more(text);
                }
                Ok(client)
            }
        }
    }
}
