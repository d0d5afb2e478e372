//! A run whose records contradict each other: it ends, and says why, because nobody could carry it out.
//!
//! Never for what may be read another time: a store that does not answer, or records of a newer program. Called by
//! the loop.

use fleet_store::Direction;
use fleet_types::id::RunId;
use fleet_types::job::{JobState, Outcome};
use fleet_types::run::{RunState, Tally};

use crate::context::{Memory, Storage};
use crate::error::Result;
use crate::fleet::sessions::ToNode;
use crate::repo::audited::AuditEntry;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::runs::{self, RunRecord};

/// Each is two or three operations of a commit, which takes 1,024.
const ENDS_A_COMMIT: usize = 256;

/// Ends the run. What was never offered is cancelled; of what was offered nobody knows, its nodes are told to stop
/// and what they hold stays taken.
pub async fn end(storage: &Storage, memory: &Memory, run: RunId, why: &str) -> Result<()> {
    let now = storage.clock.now();
    let reason: String = format!("the run cannot be carried out: {why}").chars().take(500).collect();
    let mut tally = Tally::new(0);
    let mut after = None;
    loop {
        let page = storage
            .repo
            .page::<JobRecord>(&jobs::of_run(run), after.as_ref(), ENDS_A_COMMIT, Direction::Ascending)
            .await?;
        let is_last = page.len() < ENDS_A_COMMIT;
        let (mut batch, mut stops) = (storage.audited.batch().using_reserve(), Vec::new());
        for (key, known) in page {
            let outcome = match &known.record.state {
                JobState::Ended { outcome, .. } => *outcome,
                JobState::Queued => Outcome::Cancelled,
                _ => Outcome::Lost,
            };
            tally.nodes += 1;
            tally.add(outcome);
            if known.record.state.outcome().is_none() {
                let state = JobState::ended(outcome, reason.clone());
                let record = JobRecord { state, ended: Some(now), ..known.record.clone() };
                batch = jobs::end(&storage.repo, batch, &known, &record).await?;
                stops.push((record.node, record.attempt));
            }
            after = Some(key);
        }
        storage.audited.commit(batch, vec![]).await?;
        for (node, attempt) in stops {
            memory.sessions.clear_live(node, run);
            memory.sessions.send(node, ToNode::Cancel { run, attempt, reason: reason.clone() });
        }
        if is_last {
            break;
        }
    }
    let key = runs::key(run)?;
    let Some(stored) = storage.repo.get::<RunRecord>(&key).await? else { return Ok(()) };
    let record = RunRecord {
        state: RunState::Failed,
        stopped_because: reason.clone(),
        tally,
        ended: Some(now),
        ..stored.record
    };
    let batch = runs::save(storage.audited.batch().using_reserve(), stored.write_id, &record)?;
    let leaf = AuditEntry::new(storage.audited.actor(), "run.end", format!("run/{run}"))
        .subject(record.authority.digest())
        .because(reason);
    storage.audited.commit(batch, vec![leaf]).await?;
    memory.open_runs.forget(run);
    Ok(())
}
