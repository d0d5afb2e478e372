//! Starting and cancelling runs: check the signed request, write the intent, ring.
//!
//! Jobs are written before the run: until the run's own record is committed, with its audit leaf, nobody
//! looks at them, and a retry with the same request writes the same ones again (crash table, first row).

use std::collections::{BTreeMap, BTreeSet};

use fleet_store::MAX_VALUE_BYTES;
use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::document::procedure::Procedure;
use fleet_types::document::{Document, DocumentKind};
use fleet_types::id::{Attempt, NodeId, RunId, Stage};
use fleet_types::job::{JobState, Outcome};
use fleet_types::label::{Selector, request_means};
use fleet_types::request::{NodeList, Request, Verb};
use fleet_types::run::{RunState, Tally};
use fleet_types::seal::{Envelope, Kind as SealKind};
use fleet_types::view::{Presence, Skipped, Target, Targets};

use super::caller::Operator;
use super::idempotency::Once;
use super::rollouts::Rings;
use super::{documents, hints, limits, rollouts, signatures};
use crate::context::{Context, Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::node_cache::Known;
use crate::repo;
use crate::repo::audited::AuditEntry;
use crate::repo::codec;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::reader::{BatchExt as _, Stored};
use crate::repo::runs::{self, RunRecord};

/// Jobs a commit: two puts each, under the store's 1,024 operations a batch and 1 MiB with their sizes.
const JOBS_A_COMMIT: usize = 400;
/// Longest name of an operator.
const MAX_NAME_BYTES: usize = 128;
/// Nodes named in one message, and in a run's record.
const NAMED: usize = 10;
/// Longest request: its parameters are a few lines; the whole is fetched and kept by every node.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// Bytes of one detail of an audit record. Three of them, escaped at worst to twice their length, and the rest of the
/// record stay under its 4 KiB.
const DETAIL_BYTES: usize = 700;

/// Which nodes a selector and names mean now, sorted by id.
pub fn resolve(storage: &Storage, memory: &Memory, selector: &str, names: &[String]) -> Result<Targets> {
    let selector: Selector = selector.parse().map_err(|error| ControllerError::invalid("selector", error))?;
    let mut unknown = Vec::new();
    let mut nodes: Vec<Known> = Vec::new();
    if names.is_empty() {
        nodes = memory.node_cache.page(&selector, None, fleet_types::request::MAX_NODES + 1);
    } else {
        for name in names {
            match memory.node_cache.by_name(name) {
                Some(known) if selector.matches(&known.record.name, &known.record.labels) => {
                    nodes.push(known);
                }
                Some(_) => {}
                None => unknown.push(name.chars().filter(|c| !c.is_control()).take(128).collect()),
            }
        }
    }
    let (nodes, idle): (Vec<Known>, Vec<Known>) = nodes.into_iter().partition(Known::takes_work);
    let mut nodes: Vec<Target> = nodes
        .into_iter()
        .map(|known| Target {
            id: known.record.id,
            name: known.record.name.clone(),
            site: known.record.labels.site().to_owned(),
            pair: known.record.labels.pair().map(str::to_owned),
            presence: known.presence,
        })
        .collect();
    nodes.sort_by_key(|target| target.id);
    nodes.dedup_by_key(|target| target.id);
    let skipped: Vec<Skipped> = idle.iter().map(skipped).collect();
    let hints = match (unknown.is_empty(), nodes.is_empty()) {
        (false, _) => hints::of_names(memory, &unknown),
        (true, true) => hints::of_selector(memory, &selector),
        (true, false) => Vec::new(),
    };
    let now = storage.clock.now();
    let sites = memory.node_cache.sites(now);
    Ok(Targets {
        schema: "fleet/v1/targets".to_owned(),
        nodes,
        unknown,
        enrolled: sites.iter().map(|site| site.nodes - site.not_enrolled).sum(),
        as_of: Some(now),
        hints,
        skipped,
    })
}

/// A node that is meant and can get no work, with the reason.
fn skipped(known: &Known) -> Skipped {
    let why = known.record.hold().map_or_else(|| "not enrolled".to_owned(), ToString::to_string);
    Skipped { name: known.record.name.clone(), why }
}

/// What an operator sends to start a run.
pub struct Order {
    /// The signed request.
    pub request: Envelope,
    /// The signed procedure, where it was made for this run and never applied.
    pub procedure: Option<Envelope>,
    /// The nodes, sorted.
    pub nodes: Vec<NodeId>,
}

struct Start {
    request: Request,
    procedure: Procedure,
    nodes: Vec<Known>,
    rings: Option<Rings>,
}

/// Takes a signed request and makes its run.
pub async fn start(
    context: &Context,
    caller: &Operator,
    order: &Order,
    idempotency_key: &str,
) -> Result<RunId> {
    // The request names the procedure by its digest, so that this one stands for both.
    let digest = order.request.digest();
    let once = Once::new(caller, idempotency_key, "run.start", &[digest.as_bytes()])?;
    if let Some(answer) = once.answer(&context.storage).await? {
        return Ok(answer);
    }
    let start = check(context, caller, order).await?;
    let run = start.request.run;
    if exists(&context.storage, run, digest).await? {
        return Ok(run);
    }
    match write(&context.storage, &context.memory, caller, &start, order, &once, idempotency_key).await {
        Ok(()) => {
            context.memory.notifier.run_changed(run);
            Ok(run)
        }
        // The same call made twice at once: the other one was first.
        Err(error) if error.kind == Kind::Conflict && exists(&context.storage, run, digest).await? => Ok(run),
        Err(error) => Err(error),
    }
}

/// Is the run there for this very request? With or without its key, the same request is the same run.
async fn exists(storage: &Storage, run: RunId, request: Digest) -> Result<bool> {
    match storage.repo.get::<RunRecord>(&runs::key(run)?).await? {
        None => Ok(false),
        Some(existing) if existing.record.authority == Authority::Request(request) => Ok(true),
        Some(_) => Err(ControllerError::new(
            Kind::Conflict,
            "run-exists",
            format!("run {run} exists with another request"),
        )),
    }
}

async fn write(
    storage: &Storage,
    memory: &Memory,
    caller: &Operator,
    start: &Start,
    order: &Order,
    once: &Once,
    idempotency_key: &str,
) -> Result<()> {
    let (run, digest) = (start.request.run, order.request.digest());
    let record = run_record(storage, memory, caller, start, digest);
    // Before the first commit: jobs of a run that cannot be written would be left behind. And a run that could be
    // begun can be stopped and ended.
    let because = cancelled_by(&"x".repeat(MAX_NAME_BYTES), &"x".repeat(limits::MAX_REASON_BYTES));
    if !fits(&RunRecord { stopped_because: because, ..record.clone() })? {
        let why = "selector and reason are too long together, with the nodes that are left out";
        return Err(ControllerError::invalid("request", why));
    }
    write_jobs(storage, start).await?;
    let stored = serde_json::to_vec(&order.request).map_err(ControllerError::internal)?;
    let batch = runs::create(storage.audited.batch(), &record)?;
    let mut batch = batch.put_object(&repo::documents::content(&digest)?, &stored)?;
    if let Some(procedure) = &order.procedure {
        let stored = serde_json::to_vec(procedure).map_err(ControllerError::internal)?;
        batch = batch.put_object(&repo::documents::content(&procedure.digest())?, &stored)?;
    }
    batch = once.store(storage, batch, &run)?;
    let action = if record.verb == Verb::Run { "run.start" } else { "run.plan" };
    let leaf = AuditEntry::new(caller.actor(), action, format!("run/{run}"))
        .subject(digest)
        .nodes(record.nodes_root)
        .detail("procedure", procedure_in_words(&record))
        .detail("params", params_in_words(&start.request.params))
        .detail("policy", record.rollout.as_ref().map_or("", |rollout| &rollout.policy))
        .detail("plan", start.request.plan.as_ref().map_or_else(String::new, |plan| plan.run.to_string()))
        .detail("nodes", names_in_words(start.nodes.iter().map(|node| node.record.name.as_str())))
        .idempotency(idempotency_key)
        .text(&record.reason);
    storage.audited.commit(batch, vec![leaf]).await?;
    Ok(())
}

fn procedure_in_words(record: &RunRecord) -> String {
    match record.procedure_revision {
        Some(revision) => format!("{} revision {revision}", record.procedure),
        None => record.procedure.clone(),
    }
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

async fn check(context: &Context, caller: &Operator, order: &Order) -> Result<Start> {
    let (envelope, node_ids) = (&order.request, order.nodes.as_slice());
    signatures::check(&context.identities, caller, envelope, SealKind::Request, "the request")?;
    let request: Request = canonical::from_signed(&envelope.payload)
        .map_err(|error| ControllerError::invalid("request", error))?;
    request
        .check(context.identities.fleet.fleet)
        .and_then(|()| request.check_time(context.storage.clock.now().max(request.not_before)))
        .map_err(|error| ControllerError::invalid("request", error))?;
    limits::check_request(&request, context.storage.clock.now())?;
    if !node_ids.windows(2).all(|pair| pair[0] < pair[1]) || NodeList::of(node_ids) != request.nodes {
        return Err(ControllerError::invalid(
            "nodes",
            "they are not the nodes that the request was signed for",
        ));
    }
    let document = match &order.procedure {
        Some(made) if made.digest() != request.procedure => {
            return Err(ControllerError::invalid("procedure", "it is not the one that the request names"));
        }
        // Not applied under a name, and checked like what is.
        Some(made) => documents::check_signed(&context.identities, caller, made, "the procedure")?,
        None => documents::document(&context.storage, request.procedure).await?,
    };
    let Document::Procedure(procedure) = document else {
        return Err(ControllerError::invalid("request.procedure", "the digest is not of a procedure"));
    };
    let Document::Profile(profile) = documents::document(&context.storage, request.profile).await? else {
        return Err(ControllerError::invalid("request.profile", "the digest is not of a profile"));
    };
    if procedure.profile != profile.name {
        return Err(ControllerError::invalid(
            "request.profile",
            format!(
                "procedure \"{}\" belongs to profile \"{}\", not \"{}\"",
                procedure.name, procedure.profile, profile.name
            ),
        ));
    }
    for (kind, name, revision, digest) in [
        (DocumentKind::Procedure, procedure.name.as_str(), request.procedure_revision, request.procedure),
        (DocumentKind::Profile, profile.name.as_str(), request.profile_revision, request.profile),
    ] {
        if let Some(revision) = revision {
            documents::check_revision(&context.storage, kind, name, revision, digest).await?;
        }
    }
    if envelope.payload.len() > MAX_REQUEST_BYTES {
        let why = format!("{} bytes; at most {MAX_REQUEST_BYTES} are allowed", envelope.payload.len());
        return Err(ControllerError::invalid("request.params", why));
    }
    let nodes = check_nodes(&context.memory, node_ids, &procedure)?;
    let rings = rollouts::rings(&context.storage, &context.settings, &request, &profile, &nodes).await?;
    Ok(Start { request, procedure: *procedure, nodes, rings })
}

/// Every node exists, is enrolled, and has what the procedure needs; else all that are amiss, by name.
fn check_nodes(memory: &Memory, ids: &[NodeId], procedure: &Procedure) -> Result<Vec<Known>> {
    let needed: BTreeSet<&str> = procedure
        .steps
        .iter()
        .filter_map(|step| step.uses.as_deref())
        .chain(procedure.rollback.iter().chain(&procedure.finally).map(|undo| undo.uses.as_str()))
        .collect();
    let (mut nodes, mut faults) = (Vec::with_capacity(ids.len()), Vec::new());
    let (mut idle, mut lacking) = (false, false);
    for id in ids {
        let Some(known) = memory.node_cache.get(*id).filter(|known| known.presence != Presence::NotEnrolled)
        else {
            idle = true;
            faults.push(format!("node {id} does not exist or is not enrolled"));
            continue;
        };
        if let Some(hold) = known.record.hold() {
            idle = true;
            faults.push(format!("{} is {hold}", known.record.name));
        }
        // A node that never connected cannot say what it has; it refuses by itself.
        if !known.actions.is_empty() {
            let missing: Vec<&str> = needed
                .iter()
                .copied()
                .filter(|action| !known.actions.iter().any(|has| has == action))
                .collect();
            if !missing.is_empty() {
                lacking = true;
                faults.push(format!("{} cannot carry out {}", known.record.name, missing.join(", ")));
            }
        }
        nodes.push(known);
    }
    if faults.is_empty() {
        return Ok(nodes);
    }
    let count = faults.len();
    faults.truncate(NAMED);
    if count > NAMED {
        faults.push(format!("and {} more", count - NAMED));
    }
    let mut error = ControllerError::new(
        Kind::Blocked,
        "nodes-not-ready",
        format!("{count} of {} nodes cannot take part in \"{}\"", ids.len(), procedure.name),
    );
    error.detail.causes = faults;
    Err(error.fix(match (idle, lacking) {
        (true, false) => "leave these nodes out, or see to them: fleetctl node show NAME, fleetctl node release NAME",
        (false, _) => "leave these nodes out, or bring their agents to a version that has what is missing",
        (true, true) => "leave these nodes out; release those that are held, bring the agents of the others to a version that has what is missing",
    }))
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

fn run_record(
    storage: &Storage,
    memory: &Memory,
    caller: &Operator,
    start: &Start,
    digest: Digest,
) -> RunRecord {
    let request = &start.request;
    let left_out = left_out(memory, request);
    let changes = start.procedure.changes && request.verb == Verb::Run;
    let at_most = if changes { groups(&start.nodes) } else { u32::MAX };
    RunRecord {
        run: request.run,
        authority: Authority::Request(digest),
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
        started_by: caller.record.name.to_string(),
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
pub(super) fn fits(record: &RunRecord) -> Result<bool> {
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

fn cancelled_by(name: &str, reason: &str) -> String {
    if reason.is_empty() { format!("cancelled by {name}") } else { format!("cancelled by {name}: {reason}") }
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

/// A run's record.
pub async fn load(storage: &Storage, run: RunId) -> Result<Stored<RunRecord>> {
    storage
        .repo
        .get(&runs::key(run)?)
        .await?
        .ok_or_else(|| ControllerError::not_found("run", run).fix("list them: fleetctl run list"))
}

/// Stops new starts and asks what runs to stop. Needs no signature (§1.15), and goes on when space is short.
pub async fn cancel(
    storage: &Storage,
    memory: &Memory,
    caller: &Operator,
    run: RunId,
    reason: &str,
    idempotency_key: &str,
) -> Result<RunId> {
    let once =
        Once::new(caller, idempotency_key, "run.cancel", &[run.to_string().as_bytes(), reason.as_bytes()])?;
    loop {
        // Inside the loop: the same call may be under way a second time, and that one was first.
        if let Some(answer) = once.answer(storage).await? {
            return Ok(answer);
        }
        let stored = load(storage, run).await?;
        if stored.record.state.is_terminal() {
            return Err(ControllerError::new(
                Kind::Conflict,
                "run-ended",
                format!("run {run} has ended already: {}", stored.record.state.as_str()),
            ));
        }
        let stopped_because = cancelled_by(caller.record.name.as_str(), reason);
        let mut record = RunRecord { state: RunState::Halting, stopped_because, ..stored.record };
        // Signs that JSON escapes take up to six times their room. The audit log has the whole.
        while !fits(&record)? && !record.stopped_because.is_empty() {
            let text = &mut record.stopped_because;
            text.truncate(text.floor_char_boundary(text.len() * 3 / 4));
        }
        let batch = storage.audited.batch().using_reserve();
        let mut batch = runs::save(batch, stored.write_id, &record)?;
        batch = once.store(storage, batch, &run)?;
        let leaf = AuditEntry::new(caller.actor(), "run.cancel", format!("run/{run}"))
            .idempotency(idempotency_key)
            .text(reason);
        match storage.audited.commit(batch, vec![leaf]).await {
            Ok(_) => {
                memory.notifier.run_changed(run);
                return Ok(run);
            }
            // The runner wrote a phase in between: look again.
            Err(error) if error.kind == Kind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestContext, operator, run_record};

    #[tokio::test]
    async fn a_run_that_could_begin_can_be_cancelled_whatever_the_words() {
        let test = TestContext::new().await;
        let context = &test.context;
        let caller = operator();
        let (run, now) = (RunId::from_number(1), context.storage.clock.now());
        let reasons = ["why ".repeat(256), "\u{1}".repeat(1024), "\"".repeat(1024)];
        let mut longest = 0;
        for length in (0..7000).step_by(10) {
            let record = RunRecord { selector: "x".repeat(length), ..run_record(run, now) };
            let because = cancelled_by(&"x".repeat(MAX_NAME_BYTES), &reasons[0]);
            if fits(&RunRecord { stopped_because: because, ..record.clone() }).unwrap() {
                longest = length;
            }
        }
        assert!((4000..6000).contains(&longest), "{longest}");
        for reason in &reasons {
            let record = RunRecord { selector: "x".repeat(longest), ..run_record(run, now) };
            let batch = context.storage.audited.batch().put_record(runs::key(run).unwrap(), &record).unwrap();
            context.storage.audited.commit(batch, vec![]).await.unwrap();
            cancel(&context.storage, &context.memory, &caller, run, reason, "").await.unwrap();
            let stopped = load(&context.storage, run).await.unwrap().record;
            assert!(stopped.stopped_because.starts_with("cancelled by ada: "), "{stopped:?}");
            assert!(fits(&stopped).unwrap(), "and the runner can write its end");
        }
    }

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
