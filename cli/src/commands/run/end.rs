//! How a run ended, as an exit code and a line.

use fleet_types::run::RunState;
use fleet_types::view::RunView;

use crate::commands::job_cells;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block};
use crate::session::Session;

/// The exit code of a run's end: anything but all-succeeded is not 0 (design, "The life of a job").
pub const fn exit_code(state: RunState) -> ExitCode {
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
        assert_eq!(all.map(|state| exit_code(state).number()), [0, 3, 7, 7, 7, 8, 8]);
    }
}
