//! Rollouts: from an applied policy to the rings of a run, and what operators say while one is under way.
//!
//! A policy is copied into the run's record when it starts. Whatever this build cannot do of it is refused by name: a
//! rollout is never less careful than its policy says. Pausing, resuming and promoting need no signature: they let
//! nothing begin that was not signed for with the run. Called by `runs` and the operators' edge.

mod gates;

use std::str::FromStr;

use fleet_rollout::{RingEvent, RingProgress};
use fleet_types::digest::Digest;
use fleet_types::document::profile::Profile;
use fleet_types::document::rollout_policy::{Advance, FailureAction, GroupBy, RolloutPolicy};
use fleet_types::document::{Document, Share};
use fleet_types::id::RunId;
use fleet_types::request::Request;
use fleet_types::run::{RingState, RunState};

use super::caller::Operator;
use super::idempotency::Once;
use super::{documents, runs};
use crate::context::{Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::node_cache::Known;
use crate::repo;
use crate::repo::audited::AuditEntry;
use crate::repo::rollouts::{RingRecord, RolloutRecord};
use crate::repo::runs::RunRecord;
use crate::settings::Settings;

/// Nodes named in one message.
const NAMED: usize = 10;

/// Room for the reason why a ring halted: the names of some nodes and a sentence, or one node and what a gate saw there.
pub(super) const MAX_BECAUSE_BYTES: usize = 300;

/// The rings of a run, and the ring of each of its nodes.
pub struct Rings {
    /// As the run's record has them.
    pub record: RolloutRecord,
    /// By the node's place in the request's list.
    pub of: Vec<u32>,
}

/// The rings that a request asks for; none for a plain run.
pub async fn rings(
    storage: &Storage,
    settings: &Settings,
    request: &Request,
    profile: &Profile,
    nodes: &[Known],
) -> Result<Option<Rings>> {
    let Some(digest) = request.rollout_policy else { return Ok(None) };
    let Document::RolloutPolicy(policy) = documents::document(storage, digest).await? else {
        let why = "the digest is not of a rollout policy";
        return Err(ControllerError::invalid("request.rollout_policy", why));
    };
    let rings = of_policy(&policy, digest, settings, nodes)?;
    gates::check(&policy, profile, nodes)?;
    check_time(&policy, request)?;
    Ok(Some(rings))
}

/// The rings of a policy over these nodes.
///
/// # Errors
/// When this build does not do all that the policy asks for, or the policy does not fit the nodes.
pub fn of_policy(
    policy: &RolloutPolicy,
    digest: Digest,
    settings: &Settings,
    nodes: &[Known],
) -> Result<Rings> {
    let missing = policy.not_built();
    if !missing.is_empty() {
        let what = format!("rollout policy \"{}\" asks for what this build does not do", policy.name);
        let mut error = ControllerError::new(Kind::Blocked, "policy-not-built", what);
        error.detail.causes = missing;
        return Err(error.fix("apply a policy without these, and start with that one"));
    }
    // Runs take places of a site only where sites are limited: a limit of this run alone would not see theirs.
    if max_per_site(policy).is_some() && settings.changing.site.is_none() {
        let what = format!("rollout policy \"{}\" limits sites, and this controller does not", policy.name);
        return Err(ControllerError::new(Kind::Blocked, "sites-not-limited", what)
            .fix("set max_changing_per_site in [limits] of the controller, at least as high"));
    }
    let of = assign(policy, nodes)?;
    check_sizes(policy, &of)?;
    let record = RolloutRecord {
        policy: policy.name.to_string(),
        policy_digest: digest,
        max_failed_nodes: policy.failure.max_failed_nodes,
        max_failed_percent: policy.failure.max_failed_percent,
        goes_on: policy.failure.action == FailureAction::Continue,
        max_per_site: max_per_site(policy),
        gates: policy.gates.keys().map(ToString::to_string).collect(),
        judging_ms: gates::judging(policy).map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        rings: policy.rings.iter().enumerate().map(|(number, ring)| ring_record(number, ring)).collect(),
    };
    Ok(Rings { record, of })
}

/// Members of a group never change together: where the group is the site, one node of a site at a time.
const fn max_per_site(policy: &RolloutPolicy) -> Option<u32> {
    match (policy.group_by, policy.max_unavailable_per_site) {
        (GroupBy::Site, _) => Some(1),
        (GroupBy::HaGroup, Some(Share::Nodes(number))) => Some(number.get()),
        (GroupBy::HaGroup, _) => None,
    }
}

fn ring_record(number: usize, ring: &fleet_types::document::rollout_policy::Ring) -> RingRecord {
    let soak = ring.soaks_for();
    let mut record = RingRecord {
        name: ring.name.to_string(),
        max_parallel: ring.max_parallel,
        soak_ms: u64::try_from(soak.as_millis()).unwrap_or(u64::MAX),
        success_percent: ring.success_percent.unwrap_or(100),
        is_manual: ring.advance == Advance::Manual,
        state: RingState::Pending,
        soaked_ms: 0,
        excused_failed: 0,
        excused: 0,
        because: String::new(),
        judgings: 0,
        verdict: None,
    };
    record.note(&RingProgress::begin(number));
    record
}

/// Each node goes with the first ring that means it; one that no ring means is named.
fn assign(policy: &RolloutPolicy, nodes: &[Known]) -> Result<Vec<u32>> {
    let selectors = policy
        .rings
        .iter()
        .map(|ring| ring.selector.selector())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|error| ControllerError::invalid("rollout_policy.ring.selector", error))?;
    let (mut of, mut strays) = (Vec::with_capacity(nodes.len()), Vec::new());
    for known in nodes {
        let matches = |selector: &fleet_types::label::Selector| {
            selector.matches(&known.record.name, &known.record.labels)
        };
        match selectors.iter().position(matches) {
            Some(ring) => of.push(u32::try_from(ring).unwrap_or(u32::MAX)),
            None => strays.push(known.record.name.to_string()),
        }
    }
    if strays.is_empty() {
        return Ok(of);
    }
    let count = strays.len();
    let what = format!("{count} nodes are in no ring of rollout policy \"{}\"", policy.name);
    strays.truncate(NAMED);
    strays.extend((count > NAMED).then(|| format!("and {} more", count - NAMED)));
    let mut error = ControllerError::new(Kind::Blocked, "node-in-no-ring", what);
    error.detail.causes = strays;
    Err(error.fix("give them the label of a ring, or let the last ring mean every node"))
}

/// A ring without nodes would be passed over, and what it was to try first would be tried on the next one.
fn check_sizes(policy: &RolloutPolicy, of: &[u32]) -> Result<()> {
    let is_empty = |number: usize| of.iter().all(|ring| usize::try_from(*ring) != Ok(number));
    let empty: Vec<_> =
        policy.rings.iter().enumerate().filter(|(n, _)| is_empty(*n)).map(|(_, ring)| &ring.name).collect();
    let Some(first) = empty.first() else { return Ok(()) };
    let what = format!("ring \"{first}\" of rollout policy \"{}\" has none of the chosen nodes", policy.name);
    Err(ControllerError::new(Kind::Blocked, "ring-empty", what).fix(
        "choose nodes of every ring, or start without a policy: nothing would be tried in this ring first",
    ))
}

/// Before the last ring every other one soaks and is judged: what takes longer than the request is valid could never end.
fn check_time(policy: &RolloutPolicy, request: &Request) -> Result<()> {
    let soaks = policy.before_last_ring();
    let valid = request.not_after.since(request.not_before);
    if soaks < valid {
        return Ok(());
    }
    let what = format!(
        "the rings of rollout policy \"{}\" soak and are judged for {} s, and the request is valid for {} s",
        policy.name,
        soaks.as_secs(),
        valid.as_secs()
    );
    Err(ControllerError::new(Kind::Blocked, "rollout-too-long", what)
        .fix("give it more time: --valid-for, at most 24h; or apply a policy with shorter soaks"))
}

/// What an operator says to a rollout that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// Nothing new starts for a while.
    Pause,
    /// It goes on, and what has failed so far is excused.
    Resume,
    /// The next ring may begin.
    Promote,
}

impl FromStr for Steer {
    type Err = ControllerError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "pause" => Ok(Self::Pause),
            "resume" => Ok(Self::Resume),
            "promote" => Ok(Self::Promote),
            _ => Err(ControllerError::invalid("action", "expected pause, resume or promote")),
        }
    }
}

impl Steer {
    const fn action(self) -> &'static str {
        match self {
            Self::Pause => "rollout.pause",
            Self::Resume => "rollout.resume",
            Self::Promote => "rollout.promote",
        }
    }
}

/// Writes what an operator said; the runner reads the run anew. Gives what was done, in words.
pub async fn steer(
    storage: &Storage,
    memory: &Memory,
    caller: &Operator,
    run: RunId,
    steer: Steer,
    (reason, idempotency_key): (&str, &str),
) -> Result<String> {
    let arguments = [run.to_string(), reason.to_owned()];
    let arguments = arguments.each_ref().map(String::as_bytes);
    let once = Once::new(caller, idempotency_key, steer.action(), &arguments)?;
    loop {
        // Inside the loop: the same call may be under way a second time, and that one was first.
        if let Some(answer) = once.answer(storage).await? {
            return Ok(answer);
        }
        let stored = runs::load(storage, run).await?;
        let mut record = stored.record;
        if record.state.is_terminal() || record.state == RunState::Halting {
            let what = format!("run {run} cannot be changed: it is {}", record.state.as_str());
            return Err(ControllerError::new(Kind::Conflict, "run-ended", what));
        }
        let done = match steer {
            Steer::Pause => pause(&mut record, caller, reason)?,
            Steer::Resume => resume(storage, memory, &mut record)?,
            Steer::Promote => promote(storage, memory, &mut record)?,
        };
        if !runs::making::fits(&record)? {
            return Err(ControllerError::invalid("reason", "it is too long for the record of this run"));
        }
        let mut batch = repo::runs::save(storage.audited.batch(), stored.write_id, &record)?;
        batch = once.store(storage, batch, &done)?;
        let leaf = AuditEntry::new(caller.actor(), steer.action(), format!("run/{run}"))
            .subject(record.authority.digest())
            .because(done.chars().take(200).collect::<String>())
            .idempotency(idempotency_key)
            .text(reason);
        match storage.audited.commit(batch, vec![leaf]).await {
            Ok(_) => {
                memory.notifier.run_changed(run);
                return Ok(done);
            }
            // The runner wrote a phase in between: look again.
            Err(error) if error.kind == Kind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
}

fn pause(record: &mut RunRecord, caller: &Operator, reason: &str) -> Result<String> {
    if !record.paused_because.is_empty() {
        return Err(nothing_to_do(record, &format!("it is paused already: {}", record.paused_because)));
    }
    let by = &caller.record.name;
    record.paused_because = if reason.is_empty() { format!("by {by}") } else { format!("by {by}: {reason}") };
    Ok("nothing new starts; what runs goes on".to_owned())
}

fn resume(storage: &Storage, memory: &Memory, record: &mut RunRecord) -> Result<String> {
    let was_paused = !std::mem::take(&mut record.paused_because).is_empty();
    match (step(storage, memory, record, RingState::Halted, &RingEvent::Resumed)?, was_paused) {
        (Some(ring), _) => Ok(format!("ring {ring} goes on with what has failed so far")),
        (None, true) => Ok("new starts are allowed again".to_owned()),
        (None, false) => Err(nothing_to_do(record, "it is not paused, and no ring has halted")),
    }
}

fn promote(storage: &Storage, memory: &Memory, record: &mut RunRecord) -> Result<String> {
    let ring = step(storage, memory, record, RingState::AwaitingApproval, &RingEvent::Approved)?;
    let why = "no ring awaits it";
    ring.map(|ring| format!("ring {ring} is done; the next one begins"))
        .ok_or_else(|| nothing_to_do(record, why))
}

/// Moves the ring that stands in `state`, as the engine would; gives its name.
fn step(
    storage: &Storage,
    memory: &Memory,
    record: &mut RunRecord,
    state: RingState,
    event: &RingEvent,
) -> Result<Option<String>> {
    let rings = record.rollout.iter_mut().flat_map(|rollout| &mut rollout.rings).enumerate();
    let Some((number, ring)) = rings.into_iter().find(|(_, ring)| ring.state == state) else {
        return Ok(None);
    };
    let open = memory.open_runs.of(record.run);
    let now = storage.clock.moment();
    let after = open.and_then(|open| open.read().rollout().progress_after(number, event, now));
    let after = after.ok_or_else(|| {
        ControllerError::new(Kind::Conflict, "run-not-read", format!("run {} is being read", record.run))
            .fix("say it again")
    })?;
    ring.note(&after);
    Ok(Some(ring.name.clone()))
}

fn nothing_to_do(record: &RunRecord, why: &str) -> ControllerError {
    ControllerError::new(Kind::Conflict, "nothing-to-do", format!("run {}: {why}", record.run))
        .fix(format!("see where it stands: fleetctl rollout status {}", record.run))
}
