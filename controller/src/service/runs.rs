//! Starting and cancelling runs: check the signed request, write the intent, ring.
//!
//! | file | what lives there |
//! |---|---|
//! | [`checking`] | what every run is checked for, whoever starts it |
//! | [`making`] | its jobs, its record and its audit leaf |

pub mod checking;
pub mod making;

use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::{NodeId, RunId};
use fleet_types::label::Selector;
use fleet_types::request::Request;
use fleet_types::run::RunState;
use fleet_types::seal::{Envelope, Kind as SealKind};
use fleet_types::view::{Skipped, Target, Targets};

use self::making::{Start, Starter};
use super::caller::Operator;
use super::idempotency::Once;
use super::{documents, hints, signatures};
use crate::context::{Context, Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::node_cache::Known;
use crate::repo::audited::AuditEntry;
use crate::repo::reader::Stored;
use crate::repo::runs::{self, RunRecord};

/// Longest name of an operator.
const MAX_NAME_BYTES: usize = 128;
/// Nodes named in one message, and in a run's record.
const NAMED: usize = 10;

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
    let starter = Starter {
        actor: caller.actor(),
        name: caller.record.name.as_str(),
        authority: Authority::Request(digest),
        schedule: None,
        idempotency_key,
    };
    let signed: Vec<&Envelope> =
        [Some(&order.request), order.procedure.as_ref()].into_iter().flatten().collect();
    let more = |batch| once.store(&context.storage, batch, &run);
    match making::write(&context.storage, &context.memory, &starter, &start, &signed, more).await {
        Ok(()) => Ok(run),
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

async fn check(context: &Context, caller: &Operator, order: &Order) -> Result<Start> {
    let envelope = &order.request;
    signatures::check(&context.identities, caller, envelope, SealKind::Request, "the request")?;
    let request: Request = canonical::from_signed(&envelope.payload)
        .map_err(|error| ControllerError::invalid("request", error))?;
    if request.tick.is_some() {
        let why = "a tick of a schedule is started by the controller alone, under its standing order";
        return Err(ControllerError::invalid("request.tick", why)
            .fix("start the schedule now: fleetctl schedule trigger FILE/ID"));
    }
    let made = match &order.procedure {
        Some(made) if made.digest() != request.procedure => {
            return Err(ControllerError::invalid("procedure", "it is not the one that the request names"));
        }
        // Not applied under a name, and checked like what is.
        Some(made) => Some(documents::check_signed(&context.identities, caller, made, "the procedure")?),
        None => None,
    };
    checking::check(context, (request, envelope.payload.len()), &order.nodes, made).await
}

/// A run's record.
pub async fn load(storage: &Storage, run: RunId) -> Result<Stored<RunRecord>> {
    storage
        .repo
        .get(&runs::key(run)?)
        .await?
        .ok_or_else(|| ControllerError::not_found("run", run).fix("list them: fleetctl run list"))
}

fn cancelled_by(name: &str, reason: &str) -> String {
    if reason.is_empty() { format!("cancelled by {name}") } else { format!("cancelled by {name}: {reason}") }
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
        while !making::fits(&record)? && !record.stopped_because.is_empty() {
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
    use crate::repo::reader::BatchExt as _;
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
            if making::fits(&RunRecord { stopped_because: because, ..record.clone() }).unwrap() {
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
            assert!(making::fits(&stopped).unwrap(), "and the runner can write its end");
        }
    }
}
