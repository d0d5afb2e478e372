//! From what was typed to a signed request: procedure and profile by digest, targets, parameters.
//!
//! A document is believed as far as its signed bytes hash to the digest that is signed here; which nodes and which
//! revisions the controller shows is compared with what this machine saw before (docs/adr/0017).

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_types::action::nearest;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::document::procedure::Procedure;
use fleet_types::document::profile::Profile;
use fleet_types::document::rollout_policy::RolloutPolicy;
use fleet_types::document::schedule::ScheduleFile;
use fleet_types::document::{Document, DocumentKind, Key};
use fleet_types::id::Name;
use fleet_types::request::{BoundPlan, Verb};
use fleet_types::seal::Envelope;
use fleet_types::view::{RunView, Target};
use serde::Serialize;

use crate::args::{HowToRun, MAX_VALID_FOR};
use crate::client::Client;
use crate::context::{Revision, Seen, Sighting};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, units};
use crate::session::Session;
use crate::signing::{BACK_DATED, Order, Signer};
use crate::targets::{self, Chosen};

/// Nodes that change at once where nobody says: a fleet of a few dozen is through in a handful of steps, and a
/// mistake is seen before most of it has begun.
pub const DEFAULT_PARALLEL: u32 = 5;

/// A document as the controller shows it, its bytes hashed here.
pub struct Shown<D> {
    /// The document.
    pub document: D,
    /// Its kind and name.
    name: (DocumentKind, String),
    /// Its number, and the digest of its signed bytes.
    revision: Revision,
}

impl<D> Shown<D> {
    /// Its number under its name.
    pub const fn number(&self) -> u32 {
        self.revision.revision
    }

    /// The digest of its signed bytes.
    pub const fn digest(&self) -> Digest {
        self.revision.digest
    }

    /// For what this machine remembers.
    pub fn sighted(&self) -> (DocumentKind, String, Revision) {
        let (kind, name) = &self.name;
        (*kind, name.clone(), self.revision)
    }
}

/// The procedure of an order.
pub enum Work {
    /// One that was applied.
    Applied(Box<Shown<Procedure>>),
    /// One that was made for this run alone; it is sent with the request.
    Made(Box<Procedure>, Envelope),
}

/// What is to be started, resolved and not yet signed.
pub struct Prepared {
    /// The procedure.
    pub procedure: Procedure,
    /// The nodes.
    pub chosen: Chosen,
    /// The signed procedure, where it was not applied.
    made: Option<Envelope>,
    order: Order,
    policy: Option<RolloutPolicy>,
    shown: Sighting,
}

/// Resolves names and targets, and checks what can be checked here.
pub async fn prepare(
    session: &mut Session<'_>,
    client: &Client,
    name: &Name,
    (params, profile_name): (&[(String, serde_json::Value)], Option<&Name>),
    how: &HowToRun,
    verb: Verb,
) -> Result<Prepared, Failure> {
    // Asked first: it is the most common mistake.
    let words = if verb == Verb::Plan { "run plan" } else { "run start" };
    let chosen = targets::resolve(client, &session.settings.targets, words).await?;
    let procedure = procedure(client, name).await?;
    check_parameters(&procedure.document, params)?;
    let profile = profile(client, profile_name.unwrap_or(&procedure.document.profile)).await?;
    let params = params.iter().cloned().collect();
    prepared(session, chosen, (Work::Applied(Box::new(procedure)), &profile), params, how, verb)
}

/// Joins targets and documents to an order, unless one of them is not what this machine saw before.
pub fn prepared(
    session: &mut Session<'_>,
    chosen: Chosen,
    (work, profile): (Work, &Shown<Profile>),
    params: BTreeMap<String, serde_json::Value>,
    how: &HowToRun,
    verb: Verb,
) -> Result<Prepared, Failure> {
    let mut documents = vec![profile.sighted()];
    let (procedure, digest, procedure_revision, made) = match work {
        Work::Applied(shown) => {
            documents.push(shown.sighted());
            (shown.document, shown.revision.digest, Some(shown.revision.revision), None)
        }
        Work::Made(procedure, envelope) => (*procedure, envelope.digest(), None, Some(envelope)),
    };
    let shown = Sighting { documents, nodes: chosen.nodes.clone(), is_accepted: how.accept_changed };
    Seen::load(&session.context()?.seen_file())?.check(&shown)?;
    say_clock(session, &chosen);
    let nodes: Vec<_> = chosen.nodes.iter().map(|node| node.id).collect();
    let all = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    // What only looks goes to all at once: nothing can be learnt from the first that would spare the others.
    let is_change = verb == Verb::Run && procedure.changes;
    let default = if is_change { DEFAULT_PARALLEL.min(all) } else { all };
    // The request begins a little before now, and both ends together may span no more than the limit.
    let valid_for = how.valid_for.length().min(MAX_VALID_FOR.saturating_sub(BACK_DATED));
    let order = Order {
        verb,
        procedure: digest,
        procedure_revision,
        profile: profile.revision.digest,
        profile_revision: profile.revision.revision,
        older_revisions: how.accept_changed,
        params,
        selector: chosen.selector.clone(),
        nodes,
        plan: None,
        rollout_policy: None,
        max_parallel: how.max_parallel.unwrap_or(default),
        max_failures: Some(how.max_failures.unwrap_or(u32::from(is_change))).filter(|limit| *limit > 0),
        valid_for,
        reason: session.settings.reason.clone().unwrap_or_default(),
    };
    Ok(Prepared { procedure, chosen, made, order, policy: None, shown })
}

/// Nodes begin by the controller's clock and their own, and the request says when by ours.
fn say_clock(session: &mut Session<'_>, chosen: &Chosen) {
    let now = (session.environment.now)();
    let Some(theirs) = chosen.as_of else { return };
    let waits = now.minus(BACK_DATED).since(theirs);
    if !waits.is_zero() {
        let (ahead, waits) = (units::length(now.since(theirs)), units::length(waits));
        session.say(format!(
            "warning: this machine's clock is {ahead} ahead of the controller's; nodes begin in {waits} at the earliest"
        ));
    }
}

/// What a start would do, for `--dry-run`.
#[derive(Serialize)]
struct Preview<'a> {
    would: &'a str,
    procedure: &'a Name,
    procedure_digest: Digest,
    profile_digest: Digest,
    changes: bool,
    params: &'a BTreeMap<String, serde_json::Value>,
    selector: &'a str,
    max_parallel: u32,
    max_failures: Option<u32>,
    nodes: &'a [Target],
}

impl Prepared {
    /// The same, of nothing but this plan.
    pub fn bound_to(mut self, plan: BoundPlan) -> Self {
        self.order.plan = Some(plan);
        self
    }

    /// The same, ring by ring. The policy says how many go at once and how many may fail, unless the operator does.
    pub fn by_policy(
        mut self,
        session: &Session<'_>,
        policy: &Shown<RolloutPolicy>,
        how: &HowToRun,
    ) -> Result<Self, Failure> {
        if !self.procedure.changes {
            return Err(Failure::usage(format!("\"{}\" changes nothing", self.procedure.name))
                .fix("leave --policy out: what only looks goes to all nodes at once"));
        }
        let all = u32::try_from(self.order.nodes.len()).unwrap_or(u32::MAX);
        self.order.rollout_policy = Some(policy.digest());
        self.order.max_parallel = how.max_parallel.unwrap_or(all);
        self.order.max_failures = how.max_failures.filter(|limit| *limit > 0);
        self.shown.documents.push(policy.sighted());
        self.policy = Some(policy.document.clone());
        Seen::load(&session.context()?.seen_file())?.check(&self.shown)?;
        Ok(self)
    }

    /// What is about to be done: `start "daily-checks" on 6 nodes at 2 sites, at most 5 at once`.
    pub fn in_words(&self, verb: &str) -> String {
        let (name, nodes) = (&self.procedure.name, self.chosen.in_words());
        let stops = match self.order.max_failures.filter(|_| self.chosen.nodes.len() > 1) {
            Some(limit) => format!(", none after {}", units::count(limit as usize, "failure")),
            None => String::new(),
        };
        let planned = match &self.order.plan {
            Some(plan) => format!(" as planned in {}", plan.run),
            None => String::new(),
        };
        let rings = self.policy.as_ref().map_or_else(String::new, |policy| {
            let rings: Vec<&str> = policy.rings.iter().map(|ring| ring.name.as_str()).collect();
            format!(", by rollout policy \"{}\": {}", policy.name, rings.join(" -> "))
        });
        format!("{verb} \"{name}\"{planned} on {nodes}, at most {} at once{stops}{rings}", self.at_once())
    }

    /// How many nodes begin before the request ends, when each takes all the time it has; none where all do.
    pub fn too_slow(&self) -> Option<String> {
        let nodes = self.chosen.nodes.len();
        let (at_once, timeout) = (self.at_once(), &self.procedure.timeout);
        let rounds = rounds_in_time(timeout.length(), self.order.valid_for);
        let begin = rounds.saturating_mul(at_once);
        (begin < nodes).then(|| {
            format!(
                "{} of {at_once} at once begin in the {} of the request, where each node takes its {timeout}: {begin} of {nodes} nodes; the others expire: --valid-for, --max-parallel",
                units::count(rounds, "round"),
                units::length(self.order.valid_for)
            )
        })
    }

    /// Of a pair that changes never more than one is under way, whatever the request allows.
    fn at_once(&self) -> usize {
        let allowed = usize::try_from(self.order.max_parallel).unwrap_or(usize::MAX);
        if self.procedure.changes && self.order.verb == Verb::Run {
            allowed.min(self.chosen.groups())
        } else {
            allowed
        }
    }

    /// What would be done, and on which nodes.
    pub fn preview(&self, would: &str) -> Answer {
        let preview = Preview {
            would,
            procedure: &self.procedure.name,
            procedure_digest: self.order.procedure,
            profile_digest: self.order.profile,
            changes: self.procedure.changes,
            params: &self.order.params,
            selector: &self.order.selector,
            max_parallel: self.order.max_parallel,
            max_failures: self.order.max_failures,
            nodes: &self.chosen.nodes,
        };
        Answer {
            value: Answer::local("fleet/v1/start-preview", &preview).value,
            names: self.chosen.nodes.iter().map(|node| node.name.to_string()).collect(),
            ..self.chosen.answer().line(self.in_words(would))
        }
    }

    /// Remembers what is signed, signs the request and sends it.
    pub async fn send(self, session: &mut Session<'_>, client: &Client) -> Result<RunView, Failure> {
        let context = session.context()?;
        match Seen::check_and_keep(&context.seen_file(), &self.shown) {
            Err(failure) if failure.exit == ExitCode::Verification => return Err(failure),
            // A full disk, or a folder that may only be read, is told and stops nobody.
            Err(failure) => session
                .say(format!("warning: what is signed is not remembered on this machine: {}", failure.what)),
            Ok(()) => {}
        }
        let signer = Signer::load(&context)?;
        let sealed = signer.request(self.order, (session.environment.now)())?;
        let run = sealed.run;
        let unknown = format!("interrupted; whether {run} was started is not known: fleetctl run show {run}");
        session.when_interrupted = Some(unknown);
        let started =
            client.start_run(sealed, self.made.as_ref()).await.map_err(|failure| match failure.exit {
                ExitCode::NotReachable | ExitCode::TimedOut => {
                    failure.fix(format!("see whether it was started: fleetctl run show {run}"))
                }
                _ => failure,
            })?;
        let going =
            format!("interrupted; run {run} goes on: fleetctl run wait {run}, or fleetctl run cancel {run}");
        session.when_interrupted = Some(going);
        Ok(started)
    }
}

/// How many nodes begin one after the other within `valid_for`, when each takes `limit`.
fn rounds_in_time(limit: Duration, valid_for: Duration) -> usize {
    usize::try_from(valid_for.as_millis().div_ceil(limit.as_millis().max(1))).unwrap_or(usize::MAX)
}

/// The newest revision of an applied procedure.
pub async fn procedure(client: &Client, name: &Name) -> Result<Shown<Procedure>, Failure> {
    let shown = document(client, DocumentKind::Procedure, name.as_str()).await?;
    let Document::Procedure(procedure) = shown.document else {
        return Err(not_what_was_asked(name.as_str()));
    };
    Ok(Shown { document: *procedure, name: shown.name, revision: shown.revision })
}

/// The newest revision of an applied profile.
pub async fn profile(client: &Client, name: &Name) -> Result<Shown<Profile>, Failure> {
    let shown = document(client, DocumentKind::Profile, name.as_str()).await?;
    let Document::Profile(profile) = shown.document else { return Err(not_what_was_asked(name.as_str())) };
    Ok(Shown { document: *profile, name: shown.name, revision: shown.revision })
}

/// The newest revision of an applied rollout policy.
pub async fn rollout_policy(client: &Client, name: &Name) -> Result<Shown<RolloutPolicy>, Failure> {
    let shown = document(client, DocumentKind::RolloutPolicy, name.as_str()).await?;
    let Document::RolloutPolicy(policy) = shown.document else {
        return Err(not_what_was_asked(name.as_str()));
    };
    Ok(Shown { document: *policy, name: shown.name, revision: shown.revision })
}

/// The newest revision of an applied file of schedules.
pub async fn schedule_file(client: &Client, name: &Name) -> Result<Shown<ScheduleFile>, Failure> {
    let shown = document(client, DocumentKind::Schedule, name.as_str()).await?;
    let Document::Schedule(file) = shown.document else { return Err(not_what_was_asked(name.as_str())) };
    Ok(Shown { document: *file, name: shown.name, revision: shown.revision })
}

/// A document from its signed bytes, which nobody writes again.
async fn document(client: &Client, kind: DocumentKind, name: &str) -> Result<Shown<Document>, Failure> {
    let view = client.document(kind, name, 0).await?;
    let unreadable = || {
        let what = format!("{kind} \"{name}\" cannot be read by this fleetctl");
        Failure::new(ExitCode::Unexpected, "not-understood", what)
            .fix("compare `fleetctl version` with the controller's")
    };
    let envelope = view.envelope.ok_or_else(unreadable)?;
    let digest = envelope.digest();
    let document: Document =
        canonical::from_signed(&envelope.payload).map_err(|error| unreadable().because(&error))?;
    if digest != view.item.digest || document.kind() != kind || document.name().as_str() != name {
        return Err(not_what_was_asked(name));
    }
    let revision = Revision { revision: view.item.revision, digest };
    Ok(Shown { document, name: (kind, name.to_owned()), revision })
}

fn not_what_was_asked(name: &str) -> Failure {
    let what =
        format!("what the controller shows as \"{name}\" is not what its digest says; nothing was signed");
    Failure::new(ExitCode::Verification, "digest-mismatch", what)
        .fix("compare `fleetctl version` with the controller's")
}

/// Names and required ones; values are checked by the node, which alone resolves.
fn check_parameters(procedure: &Procedure, given: &[(String, serde_json::Value)]) -> Result<(), Failure> {
    let known: Vec<&str> = procedure.params.keys().map(Key::as_str).collect();
    let mut seen = BTreeMap::new();
    for (key, value) in given {
        if !known.contains(&key.as_str()) {
            let failure =
                Failure::usage(format!("procedure \"{}\" has no parameter \"{key}\"", procedure.name));
            return Err(match nearest(key, known.iter().copied()) {
                Some(meant) => failure.fix(format!("did you mean \"{meant}\"?")),
                None if known.is_empty() => failure.cause("it has none at all"),
                None => failure.fix(format!("parameters: {}", known.join(", "))),
            });
        }
        if seen.insert(key, value).is_some() {
            return Err(Failure::usage(format!("parameter \"{key}\" is given twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_into_the_time_of_a_request() {
        let minutes = Duration::from_mins;
        // The first wave begins at once, and one that begins a moment before the end still begins.
        assert_eq!(rounds_in_time(minutes(3), minutes(60)), 20);
        assert_eq!(rounds_in_time(minutes(60), minutes(60)), 1);
        assert_eq!(rounds_in_time(minutes(59), minutes(60)), 2);
        assert_eq!(rounds_in_time(Duration::ZERO, minutes(60)), 3_600_000);
    }
}
