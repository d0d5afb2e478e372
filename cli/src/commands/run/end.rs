//! How a run ended, as an exit code and a line.

use fleet_types::job::Outcome;
use fleet_types::request::Verb;
use fleet_types::run::{RunState, Tally};
use fleet_types::view::RunView;

use crate::commands::job_cells;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block};
use crate::session::Session;

/// The exit code of a run's end: anything but all-succeeded is not 0 (design, "The life of a job"). A plan that a
/// node would refuse is blocked, whatever the others say.
pub fn exit_code(verb: Verb, state: RunState, tally: &Tally) -> ExitCode {
    if verb == Verb::Plan && state.is_terminal() && tally.count(&[Outcome::Refused]) > 0 {
        return ExitCode::Blocked;
    }
    match state {
        RunState::Succeeded => ExitCode::Done,
        RunState::Partly => ExitCode::Partly,
        RunState::Failed | RunState::RolledBack | RunState::Cancelled => ExitCode::RunFailed,
        RunState::Planned | RunState::Running | RunState::Waiting | RunState::Paused | RunState::Halting => {
            ExitCode::TimedOut
        }
    }
}

/// A run in one line.
pub fn one_line(view: &RunView) -> Answer {
    let item = &view.item;
    let text = format!(
        "{}  {}  {}, {}",
        item.run,
        item.procedure,
        item.state.as_str(),
        job_cells::tally(&item.tally)
    );
    Answer::of(view).name(item.run.to_string()).block(Block::Line(text))
}

/// Says that a run was started and how to follow it.
pub fn started(session: &mut Session<'_>, view: &RunView) -> Result<ExitCode, Failure> {
    session.print(&one_line(view))?;
    session.say(format!("follow it: fleetctl run wait {0}, or fleetctl run show {0} --watch", view.item.run));
    Ok(ExitCode::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_success_is_zero() {
        use RunState as S;
        let all = [S::Succeeded, S::Partly, S::Failed, S::RolledBack, S::Cancelled, S::Running, S::Halting];
        let code = |verb, state, tally: &Tally| exit_code(verb, state, tally).number();
        assert_eq!(all.map(|state| code(Verb::Run, state, &Tally::default())), [0, 3, 7, 7, 7, 8, 8]);
    }

    #[test]
    fn a_plan_that_a_node_would_refuse_is_blocked() {
        let mut tally = Tally::default();
        tally.ended.insert(Outcome::Refused, 1);
        for state in [RunState::Failed, RunState::Partly] {
            assert_eq!(exit_code(Verb::Plan, state, &tally), ExitCode::Blocked);
            assert_ne!(exit_code(Verb::Run, state, &tally), ExitCode::Blocked);
        }
        assert_eq!(exit_code(Verb::Plan, RunState::Running, &tally), ExitCode::TimedOut);
    }
}
