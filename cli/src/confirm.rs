//! Levels of danger: mild runs at once, moderate asks y/N, severe wants a name typed and a reason.
//!
//! Without a keyboard and without the flag, the answer is no: exit code 5, nothing done. Every change
//! passes through here before it is sent.

use crate::error::{ExitCode, Failure};
use crate::render::Answer;
use crate::session::Session;

/// How much may go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Danger {
    /// Asks nobody.
    Mild,
    /// Asks y/N, or `--yes`.
    Moderate,
    /// Wants this name typed, or `--confirm NAME`, and a `--reason`.
    Severe {
        /// The name to type.
        name: String,
        /// What makes it severe.
        why: String,
    },
}

/// Whoever names the fleet says more than yes: how dangerous a change of the same words is differs with what it hits.
fn names_the_fleet(session: &Session<'_>) -> bool {
    let typed = session.settings.confirm.as_deref();
    typed.is_some_and(|typed| session.context().is_ok_and(|context| context.name.as_str() == typed))
}

/// Asks whether to go on with `what`, such as `start "daily-checks" on 6 nodes`; `about` is what it is about, shown
/// to whoever is asked, and to everybody who reads tables.
pub async fn confirm(
    session: &mut Session<'_>,
    danger: &Danger,
    what: &str,
    about: &Answer,
) -> Result<(), Failure> {
    let is_said = match danger {
        Danger::Mild => true,
        Danger::Moderate => session.settings.yes || names_the_fleet(session),
        Danger::Severe { .. } => session.settings.confirm.is_some(),
    };
    let is_asked = !is_said && session.can_ask();
    if is_asked || (session.settings.format.is_human() && !session.settings.quiet) {
        session.show_aside(about)?;
    }
    let before = session.when_interrupted.replace("interrupted; nothing was done".to_owned());
    match danger {
        _ if is_said && !matches!(danger, Danger::Severe { .. }) => {}
        Danger::Mild | Danger::Moderate => {
            if !is_asked {
                return Err(needed(what, "nobody can be asked here").fix("add --yes"));
            }
            let answer = session.ask(&format!("{what}? [y/N]")).await?;
            if !matches!(answer.to_lowercase().as_str(), "y" | "yes") {
                return Err(refused(what));
            }
        }
        Danger::Severe { name, why } => {
            let fix = format!("add --confirm {name} --reason TEXT");
            if session.settings.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
                return Err(needed(what, &format!("{why}: a reason is required")).fix(fix));
            }
            match &session.settings.confirm {
                Some(typed) if typed == name => {}
                Some(typed) => {
                    let cause = format!("--confirm says \"{typed}\", expected \"{name}\"");
                    return Err(needed(what, &cause).fix(fix));
                }
                None if !is_asked => {
                    return Err(needed(what, &format!("{why}, and nobody can be asked here")).fix(fix));
                }
                None => {
                    let answer = session.ask(&format!("{what}? {why}; type \"{name}\" to go on:")).await?;
                    if answer != *name {
                        return Err(refused(what));
                    }
                }
            }
        }
    }
    session.when_interrupted = before;
    Ok(())
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
        let about = Answer::default().line("fw-1");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcome = runtime.block_on(confirm(&mut session, danger, "start it", &about));
        (outcome, String::from_utf8(err).unwrap())
    }

    #[test]
    fn moderate() {
        let (outcome, said) = tried(Settings::default(), None, &Danger::Moderate);
        assert_eq!(outcome.unwrap_err().exit.number(), 5);
        assert_eq!(said, "fw-1\n", "nobody is asked where nobody is");
        let yes = Settings { yes: true, ..Settings::default() };
        assert!(tried(yes, None, &Danger::Moderate).0.is_ok());
        assert!(tried(Settings::default(), Some("y\n"), &Danger::Moderate).0.is_ok());
        for no in ["\n", "n\n", "", "yep\n"] {
            let (outcome, said) = tried(Settings::default(), Some(no), &Danger::Moderate);
            assert_eq!(outcome.unwrap_err().exit.number(), 5, "{no:?}");
            assert_eq!(said, "fw-1\nstart it? [y/N] ");
        }
        let silent = Settings { no_input: true, ..Settings::default() };
        assert!(tried(silent, Some("y\n"), &Danger::Moderate).0.is_err());
    }

    #[test]
    fn programs_are_shown_no_table_and_whoever_is_asked_is() {
        let json = || Settings { format: "json".parse().unwrap(), ..Settings::default() };
        let silent = || Settings { quiet: true, ..Settings::default() };
        let yes = |settings| Settings { yes: true, ..settings };
        assert_eq!(tried(yes(Settings::default()), None, &Danger::Moderate).1, "fw-1\n");
        for quiet in [yes(json()), yes(silent())] {
            assert_eq!(tried(quiet, None, &Danger::Moderate).1, "");
        }
        for asked in [json(), silent()] {
            assert_eq!(tried(asked, Some("y\n"), &Danger::Moderate).1, "fw-1\nstart it? [y/N] ");
        }
        assert_eq!(tried(json(), None, &Danger::Mild), (Ok(()), String::new()));
    }

    #[test]
    fn severe() {
        let danger = Danger::Severe { name: "prod".into(), why: "all nodes change".into() };
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
