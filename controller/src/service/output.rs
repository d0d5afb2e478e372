//! Output of steps: whose is taken, and what operators read. Never in the way of results.
//!
//! The bytes lie in files beside the store (`repo/output_files.rs`): the node sends head and tail and marks what
//! it dropped. Taken is only the output of a node's own jobs, of their present attempt, for steps that their
//! procedure has; so nobody can fill the disk under names of their making.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_types::action::nearest;
use fleet_types::digest::Digest;
use fleet_types::document::Document;
use fleet_types::id::{Attempt, NodeId, RunId};
use tokio::time::Instant;

use super::caller::Agent;
use super::{documents, inventory, reports};
use crate::context::{Context, Files, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo::jobs::{self, JobRecord};
use crate::repo::output_files::OutputOf;
use crate::repo::reports::StoredReport;
use crate::repo::runs::{self, RunRecord};

/// Attempts that a stream remembers: a node works on five jobs at a time, and the output of a few that ended may
/// lag behind. With more, all are looked up anew.
const REMEMBERED: usize = 16;
/// After this an attempt is looked up anew, so that a stream does not outlive it for long: as soon as a caller
/// who is shut out has to go.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What one stream of output may send, as it was looked up last.
#[derive(Default)]
pub struct Allowed {
    attempts: BTreeMap<(RunId, Attempt), (Instant, Vec<String>)>,
}

impl Allowed {
    /// Refuses what is not output of the node's own present attempt and of a step of its procedure.
    pub async fn check(&mut self, context: &Context, agent: &Agent, of: &OutputOf) -> Result<()> {
        let attempt = (of.run, of.attempt);
        let now = Instant::now();
        if self.attempts.get(&attempt).is_none_or(|(looked, _)| now - *looked >= LOOK_AGAIN) {
            let steps = steps_of(context, agent, of).await?;
            if self.attempts.len() >= REMEMBERED {
                self.attempts.clear();
            }
            self.attempts.insert(attempt, (now, steps));
        }
        if self.attempts.get(&attempt).is_some_and(|(_, steps)| steps.contains(&of.step)) {
            return Ok(());
        }
        Err(refused(format!("run {} has no step of this name on {}", of.run, agent.name)))
    }
}

fn refused(why: String) -> ControllerError {
    ControllerError::new(Kind::Refused, "output-refused", why)
}

async fn steps_of(context: &Context, agent: &Agent, of: &OutputOf) -> Result<Vec<String>> {
    // A node that was shut out since its stream began.
    inventory::check_active(&context.memory, &context.settings, agent.node)?;
    let Some(job) = context.storage.repo.get::<JobRecord>(&jobs::key(of.run, agent.node)?).await? else {
        return Err(ControllerError::not_found("job", format!("{}/{}", of.run, agent.name)));
    };
    let ended = job.record.state.outcome().is_some();
    if of.node != agent.node || job.record.attempt != of.attempt {
        let (sent, present) = (of.attempt.0, job.record.attempt.0);
        return Err(refused(format!("run {} is at attempt {present}, this is output of {sent}", of.run)));
    }
    if !ended {
        return order(&context.storage, of.run).await;
    }
    // What lags behind the report is the rest of what the report names.
    let report = match job.record.report {
        Some(at) => reports::stored_report(&context.storage, agent.node, at.chain, at.sequence).await?,
        None => None,
    };
    let steps = report.into_iter().flat_map(|(report, _)| report.steps);
    Ok(steps.filter(|step| step.output.is_some()).map(|step| step.id).collect())
}

/// Appends a chunk; returns up to where the output is stored. Behind the `last` one nothing is taken.
pub async fn append(files: &Files, of: &OutputOf, offset: u64, data: Vec<u8>, last: bool) -> Result<u64> {
    files.output.append(of, offset, data, last).await
}

/// Steps of a job that have output, in the order of their procedure.
pub async fn steps(
    storage: &Storage,
    files: &Files,
    run: RunId,
    node: NodeId,
    attempt: Attempt,
) -> Result<Vec<String>> {
    let mut steps = files.output.steps(run, node, attempt).await?;
    let order = order(storage, run).await?;
    steps.sort_by_cached_key(|step| {
        (order.iter().position(|id| id == step).unwrap_or(usize::MAX), step.clone())
    });
    Ok(steps)
}

/// Ids of a run's steps, undo and final entries in the order written; empty when the run is unknown here.
async fn order(storage: &Storage, run: RunId) -> Result<Vec<String>> {
    let Some(record) = storage.repo.get::<RunRecord>(&runs::key(run)?).await? else { return Ok(Vec::new()) };
    let Document::Procedure(procedure) = documents::document(storage, record.record.procedure_digest).await?
    else {
        return Ok(Vec::new());
    };
    let undo = procedure.rollback.iter().chain(&procedure.finally).map(|entry| entry.id.to_string());
    Ok(procedure.steps.iter().map(|step| step.id.to_string()).chain(undo).collect())
}

/// Refuses a step that the run does not have; empty means all.
pub async fn check_step(storage: &Storage, run: RunId, step: &str) -> Result<()> {
    let known = order(storage, run).await?;
    // Of a run that is not here nothing is known, and its output is empty.
    if step.is_empty() || known.is_empty() || known.iter().any(|id| id == step) {
        return Ok(());
    }
    let shown: String = step.chars().filter(|c| !c.is_control()).take(64).collect();
    let fix = nearest(&shown, known.iter().map(String::as_str)).map_or_else(
        || format!("its steps: {}", known.join(", ")),
        |meant| format!("did you mean \"{meant}\"? its steps: {}", known.join(", ")),
    );
    Err(ControllerError::not_found("step", shown).fix(fix))
}

/// Is everything here that the report says its steps printed? The report may be faster than the output.
pub async fn is_complete(
    storage: &Storage,
    files: &Files,
    (run, node, attempt): (RunId, NodeId, Attempt),
    at: StoredReport,
) -> Result<bool> {
    let Some((report, _)) = reports::stored_report(storage, node, at.chain, at.sequence).await? else {
        return Ok(true);
    };
    for step in &report.steps {
        let Some(printed) = step.sent_output() else { continue };
        let of = OutputOf { run, node, attempt, step: step.id.clone() };
        let stored = files.output.read(&of, 0, usize::MAX).await?;
        if Digest::of(&stored) != printed {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Up to 32 KiB from an offset; empty at the end of what is stored.
pub async fn read(files: &Files, of: &OutputOf, offset: u64) -> Result<Vec<u8>> {
    files.output.read(of, offset, fleet_proto::MAX_CONTROL_BYTES / 2).await
}

#[cfg(test)]
mod tests {
    use fleet_types::id::JobId;

    use super::*;
    use crate::fleet::node_cache::Known;
    use crate::repo;
    use crate::repo::nodes::{NodeRecord, NodeState};
    use crate::repo::reader::BatchExt as _;
    use crate::repo::reports::ReportRecord;
    use crate::testing::{TestContext, agent};
    use fleet_types::view::Hold;

    #[tokio::test]
    async fn output_is_whole_when_it_has_the_digest_that_the_report_names() {
        let test = TestContext::new().await;
        let (run, node) = (RunId::from_number(1), agent(1).node);
        let digest = Digest::of(b"x");
        let step = serde_json::json!({
            "id": "s", "title": "", "action": "command.run", "state": "succeeded", "started": null,
            "took_ms": 1, "tries": 1, "output": Digest::of(b"one two"), "summary": "",
        });
        let report = serde_json::json!({
            "schema": fleet_types::report::REPORT_SCHEMA,
            "job": JobId::first(run, node), "attempt": 1, "request": digest, "sequence": 1, "previous": null,
            "outcome": "succeeded", "reason": "", "started": 1_790_000_000_000i64, "ended": 1_790_000_000_001i64,
            "boot": { "id": "", "ended_ms": 2 }, "working_ms": 1, "steps": [step],
        });
        let record = ReportRecord {
            payload: serde_json::to_vec(&report).unwrap(),
            signature: vec![],
            received: test.context.storage.clock.now(),
            journal_sequence: 1,
        };
        let batch = test.context.storage.audited.batch();
        let batch = batch.put_object_record(&repo::reports::key(node, 0, 1).unwrap(), &record).unwrap();
        test.context.storage.audited.commit(batch, vec![]).await.unwrap();
        let of = OutputOf { run, node, attempt: Attempt(1), step: "s".to_owned() };
        let is_whole = async || {
            let at = StoredReport { chain: 0, sequence: 1, digest };
            is_complete(&test.context.storage, &test.context.files, (run, node, Attempt(1)), at)
                .await
                .unwrap()
        };
        assert!(!is_whole().await, "the report was faster");
        append(&test.context.files, &of, 0, b"one ".to_vec(), false).await.unwrap();
        assert!(!is_whole().await);
        append(&test.context.files, &of, 4, b"two".to_vec(), true).await.unwrap();
        assert!(is_whole().await);
    }

    #[tokio::test]
    async fn a_node_that_is_shut_out_while_its_output_flows_sends_no_more() {
        let test = TestContext::new().await;
        let a = agent(1);
        let record = |state| {
            let labels = fleet_types::label::Labels::default();
            NodeRecord::pending(a.node, a.name.clone(), labels, test.context.storage.clock.now())
                .with_state(state)
        };
        let of =
            OutputOf { run: RunId::from_number(1), node: a.node, attempt: Attempt(1), step: "s".to_owned() };
        let code = async |state| {
            test.context.memory.node_cache.put(Known::new(record(state)));
            let mut allowed = Allowed::default();
            allowed.check(&test.context, &a, &of).await.unwrap_err().detail.code.clone()
        };
        assert_eq!(code(NodeState::Active).await, "not-found", "there is no such job");
        assert_eq!(
            code(NodeState::Held(Hold { reason: "two keys".to_owned(), since: None, by: None })).await,
            "node-held"
        );
    }
}
