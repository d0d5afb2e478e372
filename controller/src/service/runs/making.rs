//! Makes a run of a request that was checked: its jobs first, then the run with its audit leaf in one commit.
//!
//! Jobs are written before the run: until the run's own record is committed, with its audit leaf, nobody
//! looks at them, and a retry with the same request writes the same ones again (crash table, first row).
//! Checks nothing about the caller. Called by `runs` and `ticks`.

use std::collections::{BTreeMap, BTreeSet};

use fleet_store::{Batch, MAX_VALUE_BYTES};
use fleet_types::audit::Actor;
use fleet_types::authority::Authority;
use fleet_types::document::procedure::Procedure;
use fleet_types::id::{Attempt, Stage};
use fleet_types::job::{JobState, Outcome};
use fleet_types::label::request_means;
use fleet_types::request::{Request, Verb};
use fleet_types::run::{RunState, Tally};
use fleet_types::seal::Envelope;
use fleet_types::view::Skipped;

use super::{MAX_NAME_BYTES, NAMED, cancelled_by, skipped};
use crate::context::{Memory, Storage};
use crate::error::{ControllerError, Result};
use crate::fleet::node_cache::Known;
use crate::repo;
use crate::repo::audited::AuditEntry;
use crate::repo::codec;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::reader::BatchExt as _;
use crate::repo::runs::{self, RunRecord, TickRecord};
use crate::service::limits;
use crate::service::rollouts::{self, Rings};

/// Jobs a commit: two puts each, under the store's 1,024 operations a batch and 1 MiB with their sizes.
const JOBS_A_COMMIT: usize = 400;
/// Bytes of one detail of an audit record. Three of them, escaped at worst to twice their length, and the rest of the
/// record stay under its 4 KiB.
const DETAIL_BYTES: usize = 700;

/// A run that may be made.
pub struct Start {
    /// Its request.
    pub request: Request,
    /// Its procedure.
    pub procedure: Procedure,
    /// Its nodes, sorted by id.
    pub nodes: Vec<Known>,
    /// The rings of its rollout policy.
    pub rings: Option<Rings>,
}

/// Who starts it, and why they may.
pub struct Starter<'a> {
    /// For the audit log.
    pub actor: Actor,
    /// For people.
    pub name: &'a str,
    /// Why.
    pub authority: Authority,
    /// The tick of a schedule that it is for.
    pub schedule: Option<TickRecord>,
    /// The key of an operator's call; empty without one.
    pub idempotency_key: &'a str,
}

/// Writes the run; `more` puts into the same commit what else becomes true with it.
pub async fn write(
    storage: &Storage,
    memory: &Memory,
    starter: &Starter<'_>,
    start: &Start,
    signed: &[&Envelope],
    more: impl FnOnce(Batch) -> Result<Batch>,
) -> Result<()> {
    let run = start.request.run;
    let record = run_record(storage, memory, starter, start);
    // Before the first commit: jobs of a run that cannot be written would be left behind. And a run that could be
    // begun can be stopped and ended.
    let because = cancelled_by(&"x".repeat(MAX_NAME_BYTES), &"x".repeat(limits::MAX_REASON_BYTES));
    if !fits(&RunRecord { stopped_because: because, ..record.clone() })? {
        let why = "selector and reason are too long together, with the nodes that are left out";
        return Err(ControllerError::invalid("request", why));
    }
    write_jobs(storage, start).await?;
    let mut batch = runs::create(storage.audited.batch(), &record)?;
    for envelope in signed {
        let stored = serde_json::to_vec(envelope).map_err(ControllerError::internal)?;
        batch = batch.put_object(&repo::documents::content(&envelope.digest())?, &stored)?;
    }
    let batch = more(batch)?;
    let action = if record.verb == Verb::Run { "run.start" } else { "run.plan" };
    let leaf = AuditEntry::new(starter.actor.clone(), action, format!("run/{run}"))
        .subject(starter.authority.digest())
        .nodes(record.nodes_root)
        .detail("procedure", procedure_in_words(&record))
        .detail("params", params_in_words(&start.request.params))
        .detail("policy", record.rollout.as_ref().map_or("", |rollout| &rollout.policy))
        .detail("schedule", record.schedule.as_ref().map_or_else(String::new, tick_in_words))
        .detail("plan", start.request.plan.as_ref().map_or_else(String::new, |plan| plan.run.to_string()))
        .detail("nodes", names_in_words(start.nodes.iter().map(|node| node.record.name.as_str())))
        .idempotency(starter.idempotency_key)
        .text(&record.reason);
    storage.audited.commit(batch, vec![leaf]).await?;
    memory.notifier.run_changed(run);
    Ok(())
}

fn procedure_in_words(record: &RunRecord) -> String {
    match record.procedure_revision {
        Some(revision) => format!("{} revision {revision}", record.procedure),
        None => record.procedure.clone(),
    }
}

fn tick_in_words(tick: &TickRecord) -> String {
    format!("{}, due {}", tick.schedule, tick.at)
}

/// Parameters as JSON, cut; their whole is in the signed request.
fn params_in_words(params: &BTreeMap<String, serde_json::Value>) -> String {
    if params.is_empty() {
        return String::new();
    }
    let mut text = serde_json::to_string(params).unwrap_or_default();
    if text.len() > DETAIL_BYTES {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES));
        text.push('…');
    }
    text
}

/// Names as far as they fit, and how many more there are.
fn names_in_words<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let (all, mut text) = (names.len(), String::new());
    for (shown, name) in names.enumerate() {
        if text.len() + name.len() > DETAIL_BYTES {
            return format!("{text} and {} more", all - shown);
        }
        text = if shown == 0 { name.to_owned() } else { format!("{text}, {name}") };
    }
    text
}

/// Writes the jobs, only as long as there is no run: a call repeated late must not set ended jobs back.
async fn write_jobs(storage: &Storage, start: &Start) -> Result<()> {
    for (chunk_index, chunk) in start.nodes.chunks(JOBS_A_COMMIT).enumerate() {
        let mut batch = storage.audited.batch().if_absent(runs::key(start.request.run)?);
        for (offset, known) in chunk.iter().enumerate() {
            let index = u32::try_from(chunk_index * JOBS_A_COMMIT + offset).unwrap_or(u32::MAX);
            let record = JobRecord {
                run: start.request.run,
                node: known.record.id,
                node_name: known.record.name.clone(),
                index,
                pair: known.record.labels.pair().map(str::to_owned),
                site: known.record.labels.site().to_owned(),
                ring: start
                    .rings
                    .as_ref()
                    .and_then(|rings| rings.of.get(index as usize))
                    .copied()
                    .unwrap_or(0),
                stage: Stage::FIRST,
                attempt: Attempt(1),
                state: JobState::Queued,
                places: vec![],
                offered: None,
                ended: None,
                took_ms: None,
                summary: String::new(),
                plan: None,
                report: None,
                late_report: None,
                health: None,
                gates: None,
            };
            batch = jobs::add(batch, &record)?;
        }
        storage.audited.commit(batch, vec![]).await?;
    }
    Ok(())
}

fn run_record(storage: &Storage, memory: &Memory, starter: &Starter<'_>, start: &Start) -> RunRecord {
    let request = &start.request;
    let left_out = left_out(memory, request);
    let changes = start.procedure.changes && request.verb == Verb::Run;
    let at_most = if changes { groups(&start.nodes) } else { u32::MAX };
    RunRecord {
        run: request.run,
        authority: starter.authority,
        schedule: starter.schedule.clone(),
        verb: request.verb,
        procedure: start.procedure.name.to_string(),
        procedure_digest: request.procedure,
        procedure_revision: request.procedure_revision,
        profile_digest: request.profile,
        changes,
        job_limit_ms: u64::try_from(start.procedure.longest().as_millis()).unwrap_or(u64::MAX),
        max_failures: request.max_failures,
        selector: request.selector.clone(),
        max_parallel: request.max_parallel.min(at_most),
        not_before: request.not_before,
        not_after: request.not_after,
        nodes_root: request.nodes.root,
        started_by: starter.name.to_owned(),
        started: storage.clock.now(),
        reason: request.reason.clone(),
        state: RunState::Planned,
        skipped_count: u32::try_from(left_out.len()).unwrap_or(u32::MAX),
        skipped: left_out.into_iter().take(NAMED).collect(),
        stopped_because: String::new(),
        tally: Tally::new(request.nodes.count),
        ended: None,
        bodies_gone: None,
        rollout: start.rings.as_ref().map(|rings| rings.record.clone()),
        paused_because: String::new(),
    }
}

/// Does a run's record fit into one value, also when the runner has written how it ended?
pub fn fits(record: &RunRecord) -> Result<bool> {
    let (end, mut tally) = (Some(record.started), record.tally.clone());
    tally.ended.extend(Outcome::ALL.map(|outcome| (outcome, tally.nodes)));
    let mut rollout = record.rollout.clone();
    // Of several rings that halt only one is told; its reason is numbers and words of ours.
    if let Some(ring) = rollout.iter_mut().flat_map(|rollout| &mut rollout.rings).next() {
        ring.because = "x".repeat(rollouts::MAX_BECAUSE_BYTES);
    }
    let longest = RunRecord {
        rollout,
        state: RunState::RolledBack,
        tally,
        ended: end,
        bodies_gone: end,
        ..record.clone()
    };
    Ok(codec::encode(&longest)?.len() <= MAX_VALUE_BYTES)
}

/// How many nodes may change at once whatever the request allows: one of each pair.
fn groups(nodes: &[Known]) -> u32 {
    let pairs: BTreeSet<_> = nodes.iter().filter_map(|known| known.record.labels.pair()).collect();
    let alone = nodes.iter().filter(|known| known.record.labels.pair().is_none()).count();
    u32::try_from(pairs.len() + alone).unwrap_or(u32::MAX)
}

/// Nodes that the words of a request mean and that get no work now, by name, with reasons that are short enough for
/// a run's record.
fn left_out(memory: &Memory, request: &Request) -> Vec<Skipped> {
    let means = |known: &Known| {
        !known.takes_work()
            && request_means(&request.selector, &known.record.name, &known.record.labels).unwrap_or(false)
    };
    let mut left_out: Vec<Skipped> = memory
        .node_cache
        .ids(means)
        .into_iter()
        .filter_map(|id| memory.node_cache.get(id))
        .map(|known| {
            let Skipped { name, why } = skipped(&known);
            Skipped { name, why: why.chars().take(60).collect() }
        })
        .collect();
    left_out.sort_by(|a, b| a.name.cmp(&b.name));
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_the_audit_record_are_cut_and_say_so() {
        let names: Vec<String> = (0..1000).map(|n| format!("fw-{n:03}")).collect();
        let text = names_in_words(names.iter().map(String::as_str));
        assert!(text.starts_with("fw-000, fw-001, ") && text.len() < DETAIL_BYTES + 300, "{text}");
        let shown = text.matches("fw-").count();
        assert!(text.ends_with(&format!(" and {} more", 1000 - shown)), "{text}");
        assert_eq!(names_in_words(["a", "b"].into_iter()), "a, b");
        let params = |text: String| BTreeMap::from([("note".to_owned(), serde_json::Value::from(text))]);
        assert_eq!(params_in_words(&BTreeMap::new()), "");
        assert_eq!(params_in_words(&params("ü".to_owned())), "{\"note\":\"ü\"}");
        let long = params_in_words(&params("ü\"".repeat(1000)));
        assert!(long.ends_with('…') && long.len() <= DETAIL_BYTES + '…'.len_utf8(), "{}", long.len());
    }
}
