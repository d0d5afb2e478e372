//! One node's session: hello, welcome, reconcile, then work down and reports up, until the link ends.
//!
//! One task owns it and waits on all sources. What it must do again after a loss stands in the store (the
//! node's inbox) or on the node (its journal), so the session itself keeps only timers. It is fenced: a
//! message of another link, or out of order, ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_certs::PeerIdentity;
use fleet_proto::convert::{self, FieldError, JobUpdate};
use fleet_proto::{MAX_CONTROL_BYTES, PROTOCOL, pb};
use fleet_types::assignment::{Assignment, WaveProof};
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, LinkEpoch, RunId};
use fleet_types::job::JobState;
use fleet_types::view::Presence;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::refusals::Refusals;
use super::status::to_status;
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::sessions::ToNode;
use crate::repo::records::InboxRecord;
use crate::runner::deliver;
use crate::service::caller::Agent;
use crate::service::holds;
use crate::service::inventory::{self, HelloFacts};
use crate::service::jobs::{self, Decision};
use crate::service::reports::{self, Arrived};

/// A client that opened a session says hello at once; longer waits are broken or hostile.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// A node that takes nothing for so long has a dead link; HTTP/2 pings find most of them sooner.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// Missed heartbeats after which a node is shown as stale, and after which its link is closed.
const STALE_AFTER: u32 = 3;
const CLOSE_AFTER: u32 = 10;
/// A deny list may have changed without a message: looked at this often (§1.10 asks for 5 s).
const DENY_PERIOD: Duration = Duration::from_secs(2);
/// A report that stays away for so many heartbeats, while those behind it come again and again, is gone for good: a
/// node sends each every 10 s. Until then it is a matter of order, or of a store that had no room for it.
const GAP_HEARTBEATS: u32 = 4;
/// Pages of one reconcile: 256 jobs each; more is a broken agent.
const MAX_RECONCILE_PAGES: u32 = 64;
/// What keeps a node from starting changes is one sentence.
const MAX_SAFE_MODE: usize = 300;

/// A job's state names a step and two times, or a reason in one sentence. It is held in memory until the end.
const MAX_STATE_BYTES: usize = 4 * 1024;

/// Names of actions are two or three words; each is held in memory for each node.
const MAX_ACTION_BYTES: usize = 64;

type Outgoing = mpsc::Sender<Result<pb::ControllerMessage, Status>>;
type ControllerBody = pb::controller_message::Body;
type AgentBody = pb::agent_message::Body;

struct PendingOffer {
    assignment: Assignment,
    proof: WaveProof,
    again_at: Instant,
}

/// One session.
pub struct Session {
    context: Arc<Context>,
    agent: Agent,
    identity: Arc<PeerIdentity>,
    out: Outgoing,
    refusals: Arc<Refusals>,
    epoch: LinkEpoch,
    seq_in: u64,
    seq_out: u64,
    /// Since when reports come without the one before them, and nothing else is told of them.
    gap_since: Option<Instant>,
    /// Does the node say that its journal cannot be relied on?
    is_safe_mode: bool,
    /// The highest version that both sides speak.
    protocol: u32,
    /// What the node said that this controller does not know.
    not_understood: u64,
    /// Version of the trust bundle that the node was told of at the welcome.
    told_trust: u64,
    heard: Instant,
    offers: BTreeMap<RunId, PendingOffer>,
    reconcile_pages: u32,
    reconciled: bool,
    known: BTreeSet<(RunId, Attempt)>,
}

/// What woke the loop.
enum Woken {
    Agent(Option<Result<pb::AgentMessage, Status>>),
    Send(Option<ToNode>),
    Trust,
    Timer,
    Stop,
}

impl Session {
    /// For a connection that the guard let through.
    pub fn new(
        context: Arc<Context>,
        agent: Agent,
        identity: Arc<PeerIdentity>,
        out: Outgoing,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self {
            context,
            agent,
            identity,
            out,
            refusals,
            epoch: LinkEpoch(0),
            seq_in: 0,
            seq_out: 0,
            gap_since: None,
            is_safe_mode: false,
            protocol: 0,
            not_understood: 0,
            told_trust: 0,
            heard: Instant::now(),
            offers: BTreeMap::new(),
            reconcile_pages: 0,
            reconciled: false,
            known: BTreeSet::new(),
        }
    }

    /// Lives as long as the link.
    pub async fn run(mut self, mut inbound: Streaming<pb::AgentMessage>, stop: CancellationToken) {
        let outbox = match self.begin(&mut inbound).await {
            Ok(outbox) => outbox,
            Err(error) => return self.refuse(error).await,
        };
        tracing::info!(node = %self.agent.name, epoch = self.epoch.0, "node connected");
        let outcome = self.serve(&mut inbound, outbox, &stop).await;
        if self.context.sessions.unregister(self.agent.node, self.epoch) {
            inventory::disconnected(&self.context, self.agent.node, stop.is_cancelled()).await;
        }
        match outcome {
            Ok(why) => {
                let (epoch, not_understood) = (self.epoch.0, self.not_understood);
                tracing::info!(node = %self.agent.name, epoch, not_understood, "node disconnected: {why}");
            }
            Err(error) => self.refuse(error).await,
        }
    }

    async fn refuse(&self, error: ControllerError) {
        tracing::warn!(node = %self.agent.name, "session ended: {error}");
        if matches!(error.kind, Kind::Refused | Kind::Invalid) {
            self.refusals.count_actor("session", self.agent.actor(), &error.detail.message);
        }
        // The node has gone when nobody takes it.
        let _ = timeout(SEND_LIMIT, self.out.send(Err(to_status(error)))).await;
    }

    async fn begin(&mut self, inbound: &mut Streaming<pb::AgentMessage>) -> Result<mpsc::Receiver<ToNode>> {
        let first = timeout(HELLO_LIMIT, inbound.message()).await;
        let Ok(Ok(Some(message))) = first else {
            return Err(ControllerError::new(Kind::Invalid, "no-hello", "no hello came"));
        };
        if message.seq != 1 {
            return Err(ControllerError::invalid(
                "seq",
                format!("{} in the first message; it begins at 1", message.seq),
            ));
        }
        self.seq_in = 1;
        let Some(AgentBody::Hello(hello)) = message.body else {
            return Err(ControllerError::invalid("hello", "the first message must be Hello"));
        };
        if hello.protocol_max < *PROTOCOL.start() || hello.protocol_min > *PROTOCOL.end() {
            return Err(ControllerError::new(
                Kind::Blocked,
                "protocol",
                format!(
                    "the agent speaks protocol {} to {}, this controller {} to {}",
                    hello.protocol_min,
                    hello.protocol_max,
                    PROTOCOL.start(),
                    PROTOCOL.end()
                ),
            )
            .fix("upgrade the older side"));
        }
        let long = |action: &String| action.len() > MAX_ACTION_BYTES;
        let short = [&hello.agent_version, &hello.boot_id, &hello.start_id].map(String::len);
        if hello.actions.len() > 1000
            || hello.actions.iter().any(long)
            || short.iter().any(|len| *len > 64)
            || hello.policy_mode.len() > 32
        {
            return Err(ControllerError::invalid("hello", "a field is over its limit"));
        }
        self.protocol = hello.protocol_max.min(*PROTOCOL.end());
        let bundle_version = hello.bundle_version;
        let facts = HelloFacts {
            facts: convert::json("hello.facts", &hello.facts)?,
            agent_version: hello.agent_version,
            actions: hello.actions,
            policy_mode: hello.policy_mode,
            journal_sequence: hello.journal_sequence,
            safe_mode: hello.safe_mode.chars().filter(|c| !c.is_control()).take(MAX_SAFE_MODE).collect(),
            start: Digest::of_parts(&[hello.boot_id.as_bytes(), b"\n", hello.start_id.as_bytes()]),
        };
        self.is_safe_mode = !facts.safe_mode.is_empty();
        if hello.generation_seen > self.context.fleet.generation.0 {
            return Err(ControllerError::new(
                Kind::Refused,
                "older-store",
                format!(
                    "the node has seen store generation {}, this store has {}: it is older than the node's knowledge",
                    hello.generation_seen, self.context.fleet.generation.0
                ),
            ));
        }
        self.epoch = inventory::connect(&self.context, &self.agent, &facts).await?;
        let outbox = self.context.sessions.register(self.agent.node, self.epoch).ok_or_else(|| {
            ControllerError::new(Kind::Conflict, "newer-link", "a newer link of this node came between")
        })?;
        // A hold either finds this session and closes it, or is found here.
        let welcomed = match inventory::check_active(&self.context, self.agent.node) {
            Ok(_) => self.welcome(bundle_version).await,
            Err(held) => Err(held),
        };
        if let Err(error) = welcomed {
            if self.context.sessions.unregister(self.agent.node, self.epoch) {
                inventory::disconnected(&self.context, self.agent.node, false).await;
            }
            return Err(error);
        }
        self.context.notifier.node_changed(self.agent.node);
        Ok(outbox)
    }

    async fn welcome(&mut self, bundle_version: u64) -> Result<()> {
        let settings = &self.context.settings;
        let trust = self.context.trust.get();
        self.told_trust = trust.0.version;
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let newer = trust.0.version > bundle_version;
        let welcome = pb::Welcome {
            protocol: self.protocol,
            generation: self.context.fleet.generation.0,
            heartbeat_interval_ms: millis(settings.heartbeat),
            reconnect_spread_ms: millis(settings.reconnect_spread(self.context.sessions.connected())),
            dispatch: convert::to_json(self.context.wave_signer.statement()),
            trust_bundle: if newer { convert::to_json(&trust.1) } else { Vec::new() },
            controller_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.send(ControllerBody::Welcome(welcome)).await
    }

    async fn send(&mut self, body: ControllerBody) -> Result<()> {
        self.seq_out += 1;
        let message = pb::ControllerMessage { link_epoch: self.epoch.0, seq: self.seq_out, body: Some(body) };
        match timeout(SEND_LIMIT, self.out.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(ControllerError::new(Kind::Unavailable, "link-stuck", "the node takes no messages")),
        }
    }

    async fn serve(
        &mut self,
        inbound: &mut Streaming<pb::AgentMessage>,
        mut outbox: mpsc::Receiver<ToNode>,
        stop: &CancellationToken,
    ) -> Result<String> {
        self.heard = Instant::now();
        // A bundle that came between the welcome and here is told now.
        let mut trust = self.context.trust.follow();
        if self.context.trust.get().0.version > self.told_trust {
            trust.mark_changed();
        }
        let expires = Instant::now() + self.identity.not_after.since(self.context.clock.now());
        loop {
            let wake = self.next_timer().min(expires);
            let woken = tokio::select! {
                () = stop.cancelled() => Woken::Stop,
                message = timeout_at(wake, inbound.message()) => match message {
                    Ok(Ok(message)) => Woken::Agent(message.map(Ok)),
                    Ok(Err(status)) => Woken::Agent(Some(Err(status))),
                    Err(_) => Woken::Timer,
                },
                message = outbox.recv() => Woken::Send(message),
                // The sender lives as long as the context.
                _ = trust.changed() => Woken::Trust,
            };
            // Asked on every message and on a timer: a live stream ends soon after its owner is shut out.
            if let Err(revoked) = self.context.denied.check(&self.identity) {
                return Err(ControllerError::new(Kind::Refused, "revoked", revoked.to_string()));
            }
            match woken {
                Woken::Stop => {
                    let spread = self.context.settings.reconnect_spread(self.context.sessions.connected());
                    let retry_after_ms = u32::try_from(spread.as_millis()).unwrap_or(u32::MAX);
                    let goodbye = pb::Goodbye { reason: "the controller stops".to_owned(), retry_after_ms };
                    self.send(ControllerBody::Goodbye(goodbye)).await?;
                    return Ok("the controller stops".to_owned());
                }
                Woken::Agent(None) => return Ok("the node closed the link".to_owned()),
                Woken::Agent(Some(Err(status))) => {
                    return Ok(format!("the link broke: {}", status.message()));
                }
                Woken::Agent(Some(Ok(message))) => self.on_message(message).await?,
                Woken::Send(None) => return Ok("this is not the node's link any more".to_owned()),
                Woken::Send(Some(message)) => self.on_outbox(message).await?,
                Woken::Trust => {
                    let trust_bundle = convert::to_json(&trust.borrow_and_update().1);
                    self.send(ControllerBody::Trust(pb::TrustUpdate { trust_bundle })).await?;
                }
                Woken::Timer if Instant::now() >= expires => {
                    return Err(ControllerError::new(
                        Kind::Unauthenticated,
                        "certificate-expired",
                        "the node's certificate has ended",
                    ));
                }
                Woken::Timer => self.on_timer().await?,
            }
        }
    }

    fn next_timer(&self) -> Instant {
        let heartbeat = self.heard + self.context.settings.heartbeat * STALE_AFTER;
        let heartbeat = if heartbeat <= Instant::now() {
            self.heard + self.context.settings.heartbeat * CLOSE_AFTER
        } else {
            heartbeat
        };
        let offers = self.offers.values().map(|offer| offer.again_at).min();
        let deny = Instant::now() + DENY_PERIOD;
        offers.unwrap_or(deny).min(heartbeat).min(deny)
    }

    async fn on_timer(&mut self) -> Result<()> {
        let now = Instant::now();
        let silent = now - self.heard;
        if silent >= self.context.settings.heartbeat * CLOSE_AFTER {
            return Err(ControllerError::new(
                Kind::Unavailable,
                "silent",
                "the node has been silent for too long",
            ));
        }
        if silent >= self.context.settings.heartbeat * STALE_AFTER {
            self.set_presence(Presence::Stale);
        }
        if self.reconciled && self.context.sessions.take_missed(self.agent.node, self.epoch) {
            self.send_inbox().await?;
        }
        let due: Vec<RunId> =
            self.offers.iter().filter(|(_, offer)| offer.again_at <= now).map(|(run, _)| *run).collect();
        for run in due {
            let Some(offer) = self.offers.remove(&run) else { continue };
            let entry = crate::repo::keys::inbox_entry(self.agent.node, run)?;
            if self.context.repo.get::<InboxRecord>(&entry).await?.is_none() {
                continue;
            }
            // What has ended here must not be begun there: the word to stop comes first, and answers the offer.
            if let Some(reason) = deliver::stop_reason(&self.context, self.agent.node, run).await? {
                self.cancel(run, offer.assignment.attempt, reason).await?;
            }
            self.offer(offer.assignment, offer.proof).await?;
        }
        Ok(())
    }

    fn set_presence(&self, presence: Presence) {
        let node = self.agent.node;
        if self.context.node_cache.get(node).is_some_and(|known| known.presence != presence) {
            self.context.node_cache.update(node, |known| known.presence = presence);
            self.context.notifier.node_changed(node);
        }
    }

    async fn offer(&mut self, assignment: Assignment, proof: WaveProof) -> Result<()> {
        let assign =
            pb::Assign { assignment: convert::to_json(&assignment), proof: convert::to_json(&proof) };
        self.send(ControllerBody::Assign(assign)).await?;
        let again_at = Instant::now() + self.context.settings.offer;
        self.offers.insert(assignment.job.run, PendingOffer { assignment, proof, again_at });
        Ok(())
    }

    async fn on_outbox(&mut self, message: ToNode) -> Result<()> {
        match message {
            ToNode::Assign(offer) => {
                let (assignment, proof) = *offer;
                // Signed for the link before this one: the inbox has it, to be signed anew.
                if assignment.link_epoch != self.epoch {
                    return if self.reconciled { self.send_inbox().await } else { Ok(()) };
                }
                self.offer(assignment, proof).await
            }
            ToNode::Cancel { run, attempt, reason } => {
                // An offer that was not answered stays: the node answers it by the cancel, with a report.
                self.cancel(run, attempt, reason).await
            }
        }
    }

    async fn cancel(&mut self, run: RunId, attempt: Attempt, reason: String) -> Result<()> {
        let cancel = pb::Cancel { run: run.to_string(), attempt: attempt.0, reason };
        self.send(ControllerBody::Cancel(cancel)).await
    }

    async fn on_message(&mut self, message: pb::AgentMessage) -> Result<()> {
        if message.link_epoch != self.epoch.0 {
            return Err(ControllerError::invalid(
                "link_epoch",
                format!("{} on link {}: a message of another link", message.link_epoch, self.epoch.0),
            ));
        }
        if !self.context.sessions.is_current(self.agent.node, self.epoch) {
            return Err(ControllerError::new(
                Kind::Conflict,
                "newer-link",
                "a newer link of this node took over",
            ));
        }
        let is_report = matches!(message.body, Some(AgentBody::Report(_)));
        if !is_report && message.encoded_len() > MAX_CONTROL_BYTES {
            return Err(ControllerError::invalid("message", "a control message is larger than 64 KiB"));
        }
        if message.seq != self.seq_in + 1 {
            return Err(ControllerError::invalid("seq", format!("{} after {}", message.seq, self.seq_in)));
        }
        self.seq_in = message.seq;
        self.heard = Instant::now();
        let now = self.context.clock.now();
        self.context.node_cache.touch(self.agent.node, now);
        self.set_presence(Presence::Online);
        match message.body {
            Some(AgentBody::Heartbeat(_)) => {
                self.send(ControllerBody::Heartbeat(pb::HeartbeatReply { time_ms: now.as_millis() })).await
            }
            Some(AgentBody::Job(job)) => {
                if job.state.len() > MAX_STATE_BYTES {
                    return Err(ControllerError::invalid("job.state", "larger than 4 KiB"));
                }
                let update = JobUpdate::try_from(&job)?;
                self.note_sequence(update.journal_sequence);
                if update.state == JobState::Unknown {
                    self.not_understood("a state of a job");
                }
                // A tombstone's answer bears no report: the offer still has to be answered by one.
                if update.state.outcome().is_none() || update.report.is_some() {
                    self.offers.remove(&update.run);
                }
                // Progress: what cannot be noted now comes again at the next reconcile.
                if let Err(error) = jobs::update(&self.context, &self.agent, &update).await {
                    tracing::warn!(node = %self.agent.name, run = %update.run, "state not noted: {error}");
                }
                Ok(())
            }
            Some(AgentBody::Report(report)) => self.on_report(report).await,
            Some(AgentBody::Reconcile(page)) => self.on_reconcile(page).await,
            // Facts are stored at connect; changes in between show in views at the next one.
            Some(AgentBody::Facts(_)) => Ok(()),
            Some(AgentBody::Hello(_)) => Err(ControllerError::invalid("hello", "a second hello")),
            None => {
                self.not_understood("a message");
                Ok(())
            }
        }
    }

    /// A newer node says more than this controller knows: told once a link, and the link stays.
    fn not_understood(&mut self, what: &str) {
        self.not_understood += 1;
        if self.not_understood == 1 {
            tracing::warn!(node = %self.agent.name, "the node sends {what} that this controller does not know: it is newer");
        }
    }

    async fn on_report(&mut self, report: pb::SealedReport) -> Result<()> {
        let arrived = Arrived {
            run: convert::text("report.run", &report.run)?,
            attempt: Attempt(report.attempt),
            payload: report.payload,
            signature: report.signature,
        };
        self.offers.remove(&arrived.run);
        match reports::report(&self.context, &self.agent, &arrived).await {
            Ok(digest) => {
                self.gap_since = None;
                let ack = pb::ReportAck {
                    run: arrived.run.to_string(),
                    attempt: arrived.attempt.0,
                    digest: digest.as_bytes().to_vec(),
                };
                self.send(ControllerBody::ReportAck(ack)).await
            }
            // Not stored now: the node keeps it and sends it again.
            Err(error) if error.retryable() => {
                let is_gap = error.detail.code == reports::GAP;
                let now = Instant::now();
                let since = is_gap.then(|| *self.gap_since.get_or_insert(now));
                self.gap_since = since;
                let limit = self.context.settings.heartbeat * GAP_HEARTBEATS;
                if since.is_some_and(|since| now - since >= limit) {
                    let why = format!("{}: it is lost, and nothing behind it is taken", error.detail.message);
                    let (actor, node) = (self.agent.actor(), self.agent.node);
                    return Err(holds::shut_out(&self.context, actor, node, &why).await?);
                }
                tracing::warn!(node = %self.agent.name, run = %arrived.run, "report not stored yet: {error}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The node stands at least here: an older journal later is an old disk image.
    fn note_sequence(&self, sequence: u64) {
        if !self.is_safe_mode {
            self.context.node_cache.raise_sequence(self.agent.node, sequence);
        }
    }

    async fn on_reconcile(&mut self, page: pb::ReconcilePage) -> Result<()> {
        self.reconcile_pages += 1;
        if self.reconciled || self.reconcile_pages > MAX_RECONCILE_PAGES || page.jobs.len() > 256 {
            return Err(ControllerError::invalid("reconcile", "too many pages, or one too large"));
        }
        let listed: Vec<JobUpdate> =
            page.jobs.iter().map(JobUpdate::try_from).collect::<Result<_, FieldError>>()?;
        let decided = jobs::reconcile(&self.context, &self.agent, &listed).await?;
        let mut decisions = Vec::with_capacity(listed.len());
        for (job, decision) in listed.iter().zip(decided) {
            self.note_sequence(job.journal_sequence);
            self.known.insert((job.run, job.attempt));
            decisions.push(pb::ReconcileDecision {
                run: job.run.to_string(),
                attempt: job.attempt.0,
                decision: wire_decision(decision).into(),
            });
        }
        self.send(ControllerBody::Reconcile(pb::ReconcileReply { decisions })).await?;
        if page.last {
            self.reconciled = true;
            self.send_inbox().await?;
        }
        Ok(())
    }

    /// What the node should be doing and did not list: offers it never took, cancels it never saw.
    async fn send_inbox(&mut self) -> Result<()> {
        let inbox = deliver::inbox(&self.context, self.agent.node, self.epoch).await?;
        for (run, attempt, reason) in inbox.cancels {
            self.cancel(run, attempt, reason).await?;
        }
        for (assignment, proof) in inbox.offers {
            if !self.known.contains(&(assignment.job.run, assignment.attempt)) {
                self.offer(assignment, proof).await?;
            }
        }
        self.known.clear();
        Ok(())
    }
}

const fn wire_decision(decision: Decision) -> pb::reconcile_decision::Decision {
    use pb::reconcile_decision::Decision as Wire;
    match decision {
        Decision::Continue => Wire::Continue,
        Decision::Cancel => Wire::Cancel,
        Decision::SendReport => Wire::SendReport,
        Decision::Forget => Wire::Forget,
        Decision::Adopt => Wire::Adopt,
    }
}
