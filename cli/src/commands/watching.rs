//! `--watch`: the same answer again whenever it changes, until Ctrl-C.

use std::time::Duration;

use serde_json::Value;

use crate::error::{ExitCode, Failure};
use crate::render::{Answer, OutputFormat};
use crate::session::Session;

/// How often the controller is asked. The dashboard batches its updates in the same 2 s.
const PERIOD: Duration = Duration::from_secs(2);

/// Prints `ask`'s answer once, or with `--watch` whenever it differs from the one before. A controller
/// that is away for a while is told and waited for.
pub async fn print(
    session: &mut Session<'_>,
    mut ask: impl AsyncFnMut(&mut Session<'_>) -> Result<Answer, Failure>,
) -> Result<ExitCode, Failure> {
    let first = ask(session).await?;
    if !session.settings.watch {
        session.print(&first)?;
        return Ok(ExitCode::Done);
    }
    session.when_interrupted = None;
    session.clear()?;
    session.print(&first)?;
    let mut shown = without_time(&first.value);
    let mut is_lost = false;
    let mut period = tokio::time::interval(PERIOD);
    period.tick().await;
    let environment = session.environment;
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = environment.until_reader_gone() => return Err(Failure::reader_gone()),
        }
        let answer = match ask(session).await {
            Ok(answer) => answer,
            Err(failure) if matches!(failure.exit, ExitCode::NotReachable | ExitCode::TimedOut) => {
                if !is_lost {
                    session.say(format!("lost the controller ({}); trying again", failure.what));
                }
                is_lost = true;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        if is_lost {
            session.say("the controller is back");
            is_lost = false;
        }
        let now = without_time(&answer.value);
        // On a terminal relative times move on by themselves, so it is drawn each time.
        if now != shown || (session.environment.stdout_is_terminal && session.settings.format.is_human()) {
            session.clear()?;
            if session.settings.format == OutputFormat::Yaml {
                session.data("---\n")?;
            }
            session.print(&answer)?;
            shown = now;
        }
    }
}

/// The value without what changes with every look.
fn without_time(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Object(object) = &mut value {
        object.remove("as_of");
    }
    value
}
