//! Global flags, merged: flag, then `FLEET_<NAME>`, then default. Raw, merged, validated; only
//! [`Settings`] travels on.

use std::str::FromStr;
use std::time::Duration;

use fleet_types::id::Name;
use fleet_types::label::Selector;
use fleet_types::time::Span;

use crate::args::GlobalFlags;
use crate::environment::Environment;
use crate::error::Failure;
use crate::render::{ColorChoice, OutputFormat, TimeStyle};

/// Longest wait for the answer to one call, unless `--timeout` says otherwise. A call that takes longer
/// than this on a healthy controller is a fault worth seeing.
pub const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for a run to end, unless `--timeout` says otherwise: the ux table's default.
pub const WAIT_LIMIT: Duration = Duration::from_mins(30);

/// Which nodes are meant, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetFlags {
    /// `-l`, each of which must hold.
    pub selectors: Vec<Selector>,
    /// `--site`, one of which must hold.
    pub sites: Vec<String>,
    /// `--node`.
    pub nodes: Vec<Name>,
    /// `--all`.
    pub all: bool,
}

impl TargetFlags {
    /// Was nothing said?
    pub const fn is_empty(&self) -> bool {
        self.selectors.is_empty() && self.sites.is_empty() && self.nodes.is_empty() && !self.all
    }
}

/// What the global flags mean in this invocation.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag that is typed by itself")]
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `--context`; none means the current one of the file.
    pub context: Option<Name>,
    /// Which nodes.
    pub targets: TargetFlags,
    /// `-o`.
    pub format: OutputFormat,
    /// `--watch`.
    pub watch: bool,
    /// `--timeout`.
    pub timeout: Option<Duration>,
    /// `--wait` or `--no-wait`, where said.
    pub wait: Option<bool>,
    /// `--dry-run`.
    pub dry_run: bool,
    /// `--yes`.
    pub yes: bool,
    /// `--confirm`.
    pub confirm: Option<String>,
    /// `--reason`.
    pub reason: Option<String>,
    /// `--no-input`.
    pub no_input: bool,
    /// `--quiet`.
    pub quiet: bool,
    /// `--verbose`.
    pub verbose: bool,
    /// `--color`.
    pub color: ColorChoice,
    /// `--time`.
    pub time: TimeStyle,
}

impl Settings {
    /// Merges and validates. A bad variable is named.
    pub fn merged(flags: &GlobalFlags, environment: &Environment) -> Result<Self, Failure> {
        let from = Variables(environment);
        let wait = match (flags.wait, flags.no_wait) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ if from.flag("NO_WAIT")? => Some(false),
            _ if from.flag("WAIT")? => Some(true),
            _ => None,
        };
        Ok(Self {
            context: match &flags.context {
                Some(text) => Some(parsed("--context", text)?),
                None => from.parsed("CONTEXT")?,
            },
            targets: targets(flags, &from)?,
            format: or(flags.output.clone(), || from.parsed("OUTPUT"))?.unwrap_or_default(),
            watch: flags.watch || from.flag("WATCH")?,
            timeout: or(flags.timeout.clone(), || from.parsed::<Span>("TIMEOUT"))?.map(|span| span.length()),
            wait,
            dry_run: flags.dry_run || from.flag("DRY_RUN")?,
            yes: flags.yes || from.flag("YES")?,
            confirm: flags.confirm.clone().or_else(|| from.text("CONFIRM")),
            reason: flags.reason.clone().or_else(|| from.text("REASON")),
            no_input: flags.no_input || from.flag("NO_INPUT")?,
            quiet: flags.quiet || from.flag("QUIET")?,
            verbose: flags.verbose || from.flag("VERBOSE")?,
            color: or(flags.color, || from.choice("COLOR"))?.unwrap_or_default(),
            time: or(flags.time, || from.choice("TIME"))?.unwrap_or_default(),
        })
    }

    /// Longest wait for one call.
    pub fn call_limit(&self) -> Duration {
        self.timeout.unwrap_or(CALL_LIMIT)
    }

    /// Longest wait for a run to end.
    pub fn wait_limit(&self) -> Duration {
        self.timeout.unwrap_or(WAIT_LIMIT)
    }
}

/// A target on the line replaces all targets of the variables: the two are never mixed.
fn targets(flags: &GlobalFlags, from: &Variables<'_>) -> Result<TargetFlags, Failure> {
    let typed = !(flags.selector.is_empty() && flags.site.is_empty() && flags.node.is_empty()) || flags.all;
    let list = |typed_ones: &[String], name| {
        if typed { typed_ones.to_vec() } else { from.text(name).into_iter().collect() }
    };
    let split = |typed_ones: &[String], name| -> Vec<String> {
        let texts = list(typed_ones, name);
        texts.iter().flat_map(|text| text.split(',')).map(|part| part.trim().to_owned()).collect()
    };
    let flags = TargetFlags {
        selectors: list(&flags.selector, "SELECTOR")
            .iter()
            .map(|text| selector(text))
            .collect::<Result<_, _>>()?,
        sites: split(&flags.site, "SITE"),
        nodes: split(&flags.node, "NODE")
            .iter()
            .map(|text| parsed("--node", text))
            .collect::<Result<_, _>>()?,
        // Never by a variable: a choice of everything is typed where it is meant.
        all: flags.all,
    };
    for site in &flags.sites {
        fleet_types::label::check_value(site).map_err(|error| Failure::usage(format!("--site: {error}")))?;
        if site.is_empty() {
            return Err(Failure::usage("--site: the name is empty"));
        }
    }
    Ok(flags)
}

/// A selector that says nothing matches every node; it is what an unset variable of a script leaves behind.
fn selector(text: &str) -> Result<Selector, Failure> {
    if text.trim().is_empty() {
        return Err(Failure::usage("--selector is empty, which would mean every node")
            .fix("see whether a variable of the script is unset; all nodes are meant by --all alone"));
    }
    parsed("--selector", text)
}

fn or<T>(
    flag: Option<T>,
    variable: impl FnOnce() -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    flag.map_or_else(variable, |value| Ok(Some(value)))
}

fn parsed<T: FromStr>(what: &str, text: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| Failure::usage(format!("{what}: {error}")))
}

/// `FLEET_<NAME>`.
struct Variables<'a>(&'a Environment);

impl Variables<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(&format!("FLEET_{name}")).map(str::to_owned)
    }

    fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, Failure>
    where
        T::Err: std::fmt::Display,
    {
        self.text(name).map(|text| parsed(&format!("FLEET_{name}"), &text)).transpose()
    }

    fn choice<T: clap::ValueEnum>(&self, name: &str) -> Result<Option<T>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let words: Vec<_> = T::value_variants()
            .iter()
            .filter_map(|v| Some(v.to_possible_value()?.get_name().to_owned()))
            .collect();
        T::from_str(&text, false)
            .map(Some)
            .map_err(|_| Failure::usage(format!("FLEET_{name}: \"{text}\" is none of {}", words.join(", "))))
    }

    fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name).as_deref() {
            None | Some("0" | "false" | "no") => Ok(false),
            Some("1" | "true" | "yes") => Ok(true),
            Some(other) => {
                Err(Failure::usage(format!("FLEET_{name}: \"{other}\" is neither true nor false")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::time::Timestamp;

    fn merged(flags: &GlobalFlags, variables: &[(&str, &str)]) -> Result<Settings, Failure> {
        Settings::merged(flags, &Environment::fixed(variables, || Timestamp::clamped(0)))
    }

    #[test]
    fn a_flag_wins_over_its_variable() {
        let variables =
            [("FLEET_CONTEXT", "b"), ("FLEET_OUTPUT", "json"), ("FLEET_TIMEOUT", "5m"), ("FLEET_YES", "1")];
        let settings = merged(&GlobalFlags::default(), &variables).unwrap();
        assert_eq!(settings.context.as_ref().map(Name::as_str), Some("b"));
        assert_eq!((settings.format, settings.yes), (OutputFormat::Json, true));
        assert_eq!(settings.timeout, Some(Duration::from_mins(5)));
        let flags = GlobalFlags {
            context: Some("a".into()),
            output: Some(OutputFormat::Yaml),
            timeout: Some("1s".parse().unwrap()),
            no_wait: true,
            ..GlobalFlags::default()
        };
        let settings = merged(&flags, &variables).unwrap();
        assert_eq!(settings.context.as_ref().map(Name::as_str), Some("a"));
        assert_eq!((settings.format.clone(), settings.wait), (OutputFormat::Yaml, Some(false)));
        assert_eq!(settings.call_limit(), Duration::from_secs(1));
    }

    #[test]
    fn targets_of_line_and_variables_are_never_mixed() {
        let variables = [("FLEET_SITE", "fra1,ams2"), ("FLEET_ALL", "true")];
        let settings = merged(&GlobalFlags::default(), &variables).unwrap();
        assert_eq!(
            (settings.targets.sites.len(), settings.targets.all),
            (2, false),
            "all is typed or not meant"
        );
        let flags = GlobalFlags { node: vec!["fw-1,fw-2".into()], ..GlobalFlags::default() };
        let settings = merged(&flags, &variables).unwrap();
        assert_eq!(
            (settings.targets.nodes.len(), settings.targets.sites.len(), settings.targets.all),
            (2, 0, false)
        );
    }

    #[test]
    fn an_empty_selector_is_an_unset_variable_and_not_the_whole_fleet() {
        for empty in ["", " ", "\t"] {
            let flags =
                GlobalFlags { selector: vec!["site=fra1".into(), empty.into()], ..GlobalFlags::default() };
            let failure = merged(&flags, &[]).unwrap_err();
            assert_eq!(failure.exit.number(), 2, "{empty:?}");
            assert!(failure.fixes[0].contains("--all"), "{failure:?}");
        }
        assert!(merged(&GlobalFlags::default(), &[("FLEET_SELECTOR", " ")]).is_err());
    }

    #[test]
    fn bad_values_are_named() {
        for (name, value) in [
            ("FLEET_OUTPUT", "xml"),
            ("FLEET_TIMEOUT", "5"),
            ("FLEET_YES", "maybe"),
            ("FLEET_COLOR", "blue"),
            ("FLEET_CONTEXT", "../x"),
            ("FLEET_SITE", "$(x)"),
        ] {
            let failure = merged(&GlobalFlags::default(), &[(name, value)]).unwrap_err();
            assert_eq!(failure.exit.number(), 2, "{name}");
            assert!(failure.what.contains(name) || name == "FLEET_SITE", "{failure:?}");
        }
    }
}
