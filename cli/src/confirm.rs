//! Levels of danger: mild runs at once, moderate asks y/N, severe wants a name typed and a reason.
//!
//! Without a keyboard and without the flag, the answer is no: exit code 5, nothing done. Every change
//! passes through here before it is sent.

use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// How much may go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Danger {
    /// Asks y/N, or `--yes`.
    Moderate,
    /// Wants this name typed, or `--confirm NAME`, and a `--reason`.
    Severe {
        /// The name to type.
        name: String,
    },
}

/// Asks whether to go on with `what`, such as `start "daily-checks" on 6 nodes`.
pub fn confirm(session: &mut Session<'_>, danger: &Danger, what: &str) -> Result<(), Failure> {
    match danger {
        Danger::Moderate if session.settings.yes => Ok(()),
        Danger::Moderate => {
            if !session.can_ask() {
                return Err(needed(what, "nobody can be asked here").fix("add --yes"));
            }
            let answer = session.ask(&format!("{what}? [y/N]"))?;
            if matches!(answer.to_lowercase().as_str(), "y" | "yes") { Ok(()) } else { Err(refused(what)) }
        }
        Danger::Severe { name } => {
            let fix = format!("add --confirm {name} --reason TEXT");
            if session.settings.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
                return Err(needed(what, "a reason is required").fix(fix));
            }
            match &session.settings.confirm {
                Some(typed) if typed == name => Ok(()),
                Some(typed) => {
                    Err(needed(what, &format!("--confirm says \"{typed}\", expected \"{name}\"")).fix(fix))
                }
                None if !session.can_ask() => Err(needed(what, "nobody can be asked here").fix(fix)),
                None => {
                    let answer = session.ask(&format!("{what}? Type \"{name}\" to go on:"))?;
                    if answer == *name { Ok(()) } else { Err(refused(what)) }
                }
            }
        }
    }
}

fn needed(what: &str, cause: &str) -> Failure {
    let text = format!("{what}: confirmation is needed; nothing was done");
    Failure::new(ExitCode::Confirmation, "confirmation-needed", text).cause(cause)
}

fn refused(what: &str) -> Failure {
    Failure::new(ExitCode::Confirmation, "not-confirmed", format!("{what}: not confirmed; nothing was done"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::settings::Settings;
    use fleet_types::time::Timestamp;

    fn tried(settings: Settings, answers: Option<&str>, danger: &Danger) -> (Result<(), Failure>, String) {
        let mut environment = Environment::fixed(&[], || Timestamp::clamped(0));
        if let Some(answers) = answers {
            environment = environment.with_answers(answers);
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut session = Session::new(settings, &environment, &mut out, &mut err);
        let outcome = confirm(&mut session, danger, "start it");
        (outcome, String::from_utf8(err).unwrap())
    }

    #[test]
    fn moderate() {
        let (outcome, said) = tried(Settings::default(), None, &Danger::Moderate);
        assert_eq!(outcome.unwrap_err().exit.number(), 5);
        assert_eq!(said, "", "nobody is asked where nobody is");
        let yes = Settings { yes: true, ..Settings::default() };
        assert!(tried(yes, None, &Danger::Moderate).0.is_ok());
        assert!(tried(Settings::default(), Some("y\n"), &Danger::Moderate).0.is_ok());
        for no in ["\n", "n\n", "", "yep\n"] {
            let (outcome, said) = tried(Settings::default(), Some(no), &Danger::Moderate);
            assert_eq!(outcome.unwrap_err().exit.number(), 5, "{no:?}");
            assert_eq!(said, "start it? [y/N] ");
        }
        let silent = Settings { no_input: true, ..Settings::default() };
        assert!(tried(silent, Some("y\n"), &Danger::Moderate).0.is_err());
    }

    #[test]
    fn severe() {
        let danger = Danger::Severe { name: "prod".into() };
        let with = |yes, confirm: Option<&str>, reason: Option<&str>| Settings {
            yes,
            confirm: confirm.map(str::to_owned),
            reason: reason.map(str::to_owned),
            ..Settings::default()
        };
        assert!(tried(with(true, None, Some("r")), None, &danger).0.is_err(), "--yes is not enough");
        assert!(tried(with(false, Some("prod"), None), None, &danger).0.is_err(), "a reason is required");
        assert!(tried(with(false, Some("dev"), Some("r")), None, &danger).0.is_err());
        assert!(tried(with(false, Some("prod"), Some("r")), None, &danger).0.is_ok());
        assert!(tried(with(false, None, Some("r")), Some("prod\n"), &danger).0.is_ok());
        assert!(tried(with(false, None, Some("r")), Some("y\n"), &danger).0.is_err());
    }
}
