//! `fleetctl run wait`: until a run has ended, with a limit; a lost controller is told and waited for.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_types::id::{NodeId, RunId};
use fleet_types::job::JobState;
use fleet_types::view::JobItem;
use tokio::time::{Instant, timeout_at};

use super::{end, show};
use crate::client::Client;
use crate::commands::job_cells;
use crate::error::{ExitCode, Failure};
use crate::session::Session;

/// Pause before the watch is opened again after it broke.
const RETRY: Duration = Duration::from_secs(1);

/// Waits for a run.
pub async fn run(session: &mut Session<'_>, run: RunId) -> Result<ExitCode, Failure> {
    session.when_interrupted = Some(format!("interrupted; run {run} goes on"));
    let client = session.connect().await?;
    until_ended(session, &client, run).await
}

/// Waits, tells each job's end on stderr, and prints the run at the end. The exit code is the run's.
pub async fn until_ended(
    session: &mut Session<'_>,
    client: &Client,
    run: RunId,
) -> Result<ExitCode, Failure> {
    let limit = session.settings.wait_limit();
    let deadline = Instant::now() + limit;
    let mut progress = Progress::default();
    let outcome = timeout_at(deadline, watch_again(session, client, run, &mut progress)).await;
    let Ok(outcome) = outcome else {
        let limit = crate::render::units::length(limit);
        let what = format!("run {run} is still running after {limit}; it goes on");
        return Err(Failure::new(ExitCode::TimedOut, "still-running", what)
            .fix(format!("fleetctl run wait {run} --timeout 2h, or fleetctl run show {run}")));
    };
    outcome?;
    let (view, answer) = show::run_answer(client, run, &session.times()).await?;
    session.print(&answer)?;
    Ok(end::exit_code(view.item.verb, view.item.state, &view.item.tally))
}

/// Which ends have been told.
#[derive(Default)]
struct Progress {
    told: BTreeSet<NodeId>,
}

/// Watches until the run has ended; opens the watch again when it breaks.
async fn watch_again(
    session: &mut Session<'_>,
    client: &Client,
    run: RunId,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut is_lost = false;
    let mut pause = tokio::time::interval(RETRY);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        match watch(session, client, run, progress, &mut is_lost).await {
            Ok(true) => return Ok(()),
            // The stream ended before the run: the controller is stopping.
            Ok(false) => is_lost = lost(session, is_lost, "the watch ended"),
            Err(failure) if matches!(failure.exit, ExitCode::NotReachable | ExitCode::TimedOut) => {
                is_lost = lost(session, is_lost, &failure.what);
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn lost(session: &mut Session<'_>, is_lost: bool, why: &str) -> bool {
    if !is_lost {
        session.say(format!("lost the controller ({why}); the run goes on, trying again"));
    }
    true
}

/// One watch; true when the run has ended.
async fn watch(
    session: &mut Session<'_>,
    client: &Client,
    run: RunId,
    progress: &mut Progress,
    is_lost: &mut bool,
) -> Result<bool, Failure> {
    let mut changes = client.watch_run(run).await?;
    while let Some(change) = changes.next().await? {
        if std::mem::take(is_lost) {
            session.say("the controller is back");
        }
        for job in &change.jobs {
            progress.tell(session, job);
        }
        if change.run.item.state.is_terminal() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Progress {
    /// One line for a job that has ended, once.
    fn tell(&mut self, session: &mut Session<'_>, job: &JobItem) {
        let JobState::Ended { outcome, cause, .. } = &job.state else { return };
        if !self.told.insert(job.node) {
            return;
        }
        let result = job_cells::result(job, &session.times());
        let gap = if result.is_empty() { "" } else { "  " };
        let end = job_cells::with_cause(outcome.as_str(), *cause);
        session.say(format!("{}  {end}{gap}{result}", job.node_name));
    }
}
