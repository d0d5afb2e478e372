//! The session of a scripted agent: hello, welcome, reconcile, then work and reports; again after a loss.
//!
//! One task owns it. It checks what a real agent checks of the controller (fencing, numbering, the signature of
//! a wave, the signed request) and notes a breach in the journal's faults instead of ending quietly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fleet_certs::ClientConfig;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use fleet_proto::{MAX_MESSAGE_BYTES, convert, pb};
use fleet_types::assignment::{Assignment, WaveProof, verify_wave};
use fleet_types::canonical;
use fleet_types::facts::NodeFacts;
use fleet_types::id::{Attempt, Generation, LinkEpoch, RunId};
use fleet_types::job::Outcome;
use fleet_types::request::Request;
use fleet_types::seal::{Envelope, Kind, PublicKey};
use fleet_types::trust::{SignedDispatch, TrustBundle};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::agent::Shared;
use super::journal::{JobKey, Offered};
use crate::{channel, clock};

/// Messages under way to the controller.
const OUTGOING: usize = 256;
/// Longest wait for the welcome and for a document.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Jobs a page of reconcile, as the protocol bounds it.
const PAGE: usize = 256;

type AgentBody = pb::agent_message::Body;
type ControllerBody = pb::controller_message::Body;

/// Something that an honest agent never does, put in by a story.
#[derive(Debug, Clone)]
pub enum Raw {
    /// A body with the right link and number.
    Body(AgentBody),
    /// A body on a link that is off by so much.
    WithEpoch(i64, AgentBody),
    /// A body with a number that is off by so much.
    WithSeq(i64, AgentBody),
    /// The link breaks.
    Break,
}

/// Connects again and again, as long as the script says so.
pub async fn run(shared: Arc<Shared>, tls: Arc<ClientConfig>, mut raw: mpsc::Receiver<Raw>) {
    loop {
        if shared.script(|script| script.connects) {
            let ended = session(&shared, &tls, &mut raw).await;
            let (code, why) = match ended {
                Ok(why) => (None, why.to_owned()),
                Err(error) => (error.downcast_ref::<Status>().map(Status::code), format!("{error:#}")),
            };
            shared.links(|links| {
                links.up = false;
                links.ends.push((code, why));
            });
        }
        let pause = shared.script(|script| script.pause);
        let _ = timeout(pause, shared.changed.notified()).await;
        crate::wait::pass(pause).await;
    }
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    service: AgentServiceClient<Channel>,
    out: mpsc::Sender<pb::AgentMessage>,
    seq_out: u64,
    seq_in: u64,
    epoch: LinkEpoch,
    generation: Generation,
    bundle: TrustBundle,
    dispatch: Option<PublicKey>,
    sent: BTreeMap<JobKey, Instant>,
    received: u32,
}

async fn session(
    shared: &Arc<Shared>,
    tls: &Arc<ClientConfig>,
    raw: &mut mpsc::Receiver<Raw>,
) -> Result<&'static str> {
    let channel = match shared.source {
        Some(source) => channel::connect_from(source, shared.address, tls).await?,
        None => channel::connect(shared.address, tls).await?,
    };
    let service = AgentServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(2 * MAX_MESSAGE_BYTES);
    let (out, outgoing) = mpsc::channel(OUTGOING);
    let mut session = Session {
        shared,
        service: service.clone(),
        out,
        seq_out: 0,
        seq_in: 0,
        epoch: LinkEpoch(0),
        generation: Generation(0),
        bundle: shared.credentials.bundle().clone(),
        dispatch: None,
        sent: BTreeMap::new(),
        received: 0,
    };
    session.hello().await?;
    let mut service = service;
    let mut inbound = service.session(ReceiverStream::new(outgoing)).await?.into_inner();
    let heartbeat = session.welcomed(&mut inbound).await?;
    session.reconcile().await?;
    session.serve(&mut inbound, raw, heartbeat).await
}

impl Session<'_> {
    async fn send(&mut self, body: AgentBody) -> Result<()> {
        self.seq_out += 1;
        self.send_as(self.epoch.0, self.seq_out, body).await
    }

    async fn send_as(&self, link_epoch: u64, seq: u64, body: AgentBody) -> Result<()> {
        let message = pb::AgentMessage { link_epoch, seq, body: Some(body) };
        self.out.send(message).await.ok().context("the link takes no more")
    }

    async fn hello(&mut self) -> Result<()> {
        let (frames, seen) = self.shared.journal(|journal| (journal.frames, journal.seen));
        let facts = NodeFacts { hostname: self.shared.credentials.name.clone(), ..NodeFacts::default() };
        let hello = pb::Hello {
            protocol_min: 1,
            protocol_max: 1,
            agent_version: "0.1.0-fake".to_owned(),
            actions: self.shared.script(|script| script.actions.clone()),
            boot_id: "00000000-0000-4000-8000-000000000000".to_owned(),
            journal_sequence: frames,
            generation_seen: seen.0.0,
            epoch_seen: seen.1.0,
            bundle_version: self.bundle.version,
            facts: convert::to_json(&facts),
            policy_mode: "enforce".to_owned(),
            safe_mode: String::new(),
            start_id: self.shared.script(|script| script.start_id.clone()),
        };
        self.send(AgentBody::Hello(hello)).await
    }

    async fn next(&mut self, inbound: &mut Streaming<pb::ControllerMessage>) -> Result<ControllerBody> {
        let message = inbound.message().await?.context("the controller ended the session")?;
        self.accept(message)
    }

    fn accept(&mut self, message: pb::ControllerMessage) -> Result<ControllerBody> {
        self.seq_in += 1;
        let (seq, expected) = (message.seq, self.seq_in);
        if seq != expected || (self.epoch.0 != 0 && message.link_epoch != self.epoch.0) {
            self.fault(format!(
                "message {seq} of link {} came where {expected} of link {} was due",
                message.link_epoch, self.epoch.0
            ));
        }
        if self.epoch.0 == 0 {
            self.epoch = LinkEpoch(message.link_epoch);
        }
        message.body.context("a message without a body")
    }

    fn fault(&self, text: String) {
        self.shared.journal(|journal| journal.faults.push(text));
    }

    async fn welcomed(&mut self, inbound: &mut Streaming<pb::ControllerMessage>) -> Result<Duration> {
        let first = timeout(ANSWER_LIMIT, self.next(inbound)).await.context("no welcome came")??;
        let ControllerBody::Welcome(welcome) = first else { bail!("{first:?} instead of a welcome") };
        self.generation = Generation(welcome.generation);
        let now = (self.generation, self.epoch);
        let seen = self.shared.journal(|journal| std::mem::replace(&mut journal.seen, now));
        if now.0 < seen.0 || now.1 <= seen.1 {
            self.fault(format!("a welcome with {now:?} came after {seen:?}"));
        }
        let statement: SignedDispatch = convert::json("dispatch", &welcome.dispatch)?;
        self.dispatch = Some(statement.open(&self.bundle, clock::now())?.key);
        if !welcome.trust_bundle.is_empty() {
            self.take_bundle(&welcome.trust_bundle)?;
        }
        self.shared.links(|links| {
            links.welcomed += 1;
            links.welcomed_us = clock::micros();
        });
        Ok(Duration::from_millis(welcome.heartbeat_interval_ms.into()))
    }

    /// A newer bundle; its root signatures were checked when the node joined, its fleet and version here.
    fn take_bundle(&mut self, bytes: &[u8]) -> Result<()> {
        let signed: fleet_types::trust::SignedBundle = convert::json("trust_bundle", bytes)?;
        let bundle: TrustBundle = canonical::from_slice(&signed.payload)?;
        ensure!(bundle.fleet == self.bundle.fleet, "a bundle of another fleet came");
        ensure!(bundle.version > self.bundle.version, "an older bundle came");
        self.bundle = bundle;
        Ok(())
    }

    async fn reconcile(&mut self) -> Result<()> {
        let open = self.shared.journal(|journal| {
            journal.open().into_iter().filter_map(|key| journal.update(key)).collect::<Vec<_>>()
        });
        let mut pages: Vec<Vec<pb::JobUpdate>> = open.chunks(PAGE).map(<[pb::JobUpdate]>::to_vec).collect();
        if pages.is_empty() {
            pages.push(Vec::new());
        }
        let count = pages.len();
        for (index, jobs) in pages.into_iter().enumerate() {
            self.send(AgentBody::Reconcile(pb::ReconcilePage { jobs, last: index + 1 == count })).await?;
        }
        Ok(())
    }

    async fn serve(
        &mut self,
        inbound: &mut Streaming<pb::ControllerMessage>,
        raw: &mut mpsc::Receiver<Raw>,
        heartbeat: Duration,
    ) -> Result<&'static str> {
        let mut heartbeats = interval(heartbeat.max(Duration::from_millis(50)));
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(self.shared);
        let mut reconciled = false;
        loop {
            let again = shared.script(|script| script.resend);
            tokio::select! {
                message = inbound.message() => {
                    let Some(message) = message? else { return Ok("the controller ended the session") };
                    let body = self.accept(message)?;
                    reconciled |= matches!(body, ControllerBody::Reconcile(_));
                    self.received += 1;
                    if shared.script(|s| s.disconnect_after.take_if(|n| *n <= self.received)).is_some() {
                        return Ok("the script broke the link");
                    }
                    if let Some(why) = self.on_message(body).await? {
                        return Ok(why);
                    }
                }
                Some(raw) = raw.recv() => {
                    if let Some(why) = self.on_raw(raw).await? {
                        return Ok(why);
                    }
                }
                _ = heartbeats.tick() => {
                    if shared.script(|script| script.heartbeats) {
                        let beat = pb::Heartbeat { time_ms: clock::now().as_millis(), jobs_open: 0 };
                        self.send(AgentBody::Heartbeat(beat)).await?;
                    }
                }
                _ = timeout(again, shared.changed.notified()) => {}
            }
            if reconciled {
                self.flush().await?;
            }
            if !shared.script(|script| script.connects) {
                return Ok("the script keeps it offline");
            }
        }
    }

    async fn on_raw(&mut self, raw: Raw) -> Result<Option<&'static str>> {
        match raw {
            Raw::Break => return Ok(Some("the story broke the link")),
            Raw::Body(body) => self.send(body).await?,
            Raw::WithEpoch(off, body) => {
                self.seq_out += 1;
                self.send_as(self.epoch.0.saturating_add_signed(off), self.seq_out, body).await?;
            }
            Raw::WithSeq(off, body) => {
                self.seq_out += 1;
                self.send_as(self.epoch.0, self.seq_out.saturating_add_signed(off), body).await?;
            }
        }
        Ok(None)
    }

    /// Sends reports that wait: new ones at once, others again after a while.
    async fn flush(&mut self) -> Result<()> {
        let (sends, copies, resend) =
            self.shared.script(|script| (script.sends_reports, script.report_copies, script.resend));
        if !sends {
            return Ok(());
        }
        for key in self.shared.journal(|journal| journal.unacknowledged()) {
            if self.sent.get(&key).is_some_and(|at| at.elapsed() < resend) {
                continue;
            }
            self.sent.insert(key, Instant::now());
            self.send_report(key, copies).await?;
        }
        Ok(())
    }

    async fn send_report(&mut self, key: JobKey, copies: u32) -> Result<()> {
        let message = self.shared.journal(|journal| {
            let job = journal.jobs.get_mut(&key)?;
            job.sent += copies;
            job.report.as_ref().map(|report| report.message(key))
        });
        let Some(message) = message else { return Ok(()) };
        for _ in 0..copies {
            self.send(AgentBody::Report(message.clone())).await?;
        }
        Ok(())
    }

    async fn on_message(&mut self, body: ControllerBody) -> Result<Option<&'static str>> {
        match body {
            ControllerBody::Assign(assign) => self.on_assign(&assign).await?,
            ControllerBody::Cancel(cancel) => {
                let run: RunId = cancel.run.parse().map_err(|error| anyhow!("{error}"))?;
                self.shared.links(|links| links.cancels.push((run, std::time::Instant::now())));
                self.on_cancel(&cancel)?;
            }
            ControllerBody::ReportAck(ack) => self.on_ack(&ack)?,
            ControllerBody::Reconcile(reply) => self.on_reconciled(&reply)?,
            ControllerBody::Trust(update) => self.take_bundle(&update.trust_bundle)?,
            ControllerBody::Goodbye(_) => return Ok(Some("the controller said goodbye")),
            ControllerBody::Heartbeat(_) => {}
            ControllerBody::Welcome(_) => self.fault("a second welcome came".to_owned()),
        }
        Ok(None)
    }

    async fn on_assign(&mut self, assign: &pb::Assign) -> Result<()> {
        if !self.shared.script(|script| script.answers) {
            return Ok(());
        }
        self.shared.links(|links| {
            if links.assigned_us == 0 {
                links.assigned_us = clock::micros();
            }
        });
        let assignment: Assignment = convert::json("assignment", &assign.assignment)?;
        let proof: WaveProof = convert::json("proof", &assign.proof)?;
        let key = self.dispatch.as_ref().context("no dispatch key")?;
        let fleet = self.shared.credentials.fleet;
        if verify_wave(&assignment, &proof, fleet, key).is_err()
            || assignment.job.node != self.shared.credentials.node
            || (assignment.generation, assignment.link_epoch) != (self.generation, self.epoch)
        {
            self.fault(format!("a bad assignment came: {assignment:?}"));
            return Ok(());
        }
        let key = (assignment.job.run, assignment.attempt);
        let is_new = self.shared.journal(|journal| !journal.jobs.contains_key(&key));
        if is_new && self.shared.script(|script| script.fetches) {
            self.check_request(&assignment).await?;
        }
        match self.shared.journal(|journal| journal.on_assign(key, assignment.authority.digest()))? {
            Offered::Accepted => {
                self.tell(key).await?;
                self.shared.journal(|journal| journal.on_running(key));
                self.tell(key).await?;
                self.shared.begin(key);
            }
            Offered::InHand => self.tell(key).await?,
            Offered::Ended => {
                self.sent.remove(&key);
            }
        }
        Ok(())
    }

    /// Fetches the signed request and checks it as a node does.
    async fn check_request(&mut self, assignment: &Assignment) -> Result<()> {
        let digest = assignment.authority.digest().as_bytes().to_vec();
        let fetching = self.service.fetch_document(pb::FetchDocumentRequest { digest });
        let reply = timeout(ANSWER_LIMIT, fetching).await.context("no document came")??.into_inner();
        let envelope: Envelope = convert::json("envelope", &reply.envelope)?;
        let signed = envelope.digest() == assignment.authority.digest()
            && self.bundle.verify_content(&envelope, Kind::Request).is_ok();
        let request: Request = canonical::from_slice(&envelope.payload)?;
        let node = self.shared.credentials.node;
        if !signed
            || request.run != assignment.job.run
            || !request.nodes.contains(node, assignment.node_index, &assignment.node_path)
        {
            self.fault(format!("run {} was assigned with a request that is not for this node", request.run));
        }
        Ok(())
    }

    async fn tell(&mut self, key: JobKey) -> Result<()> {
        match self.shared.journal(|journal| journal.update(key)) {
            Some(update) => self.send(AgentBody::Job(update)).await,
            None => Ok(()),
        }
    }

    fn on_cancel(&mut self, cancel: &pb::Cancel) -> Result<()> {
        let run: RunId = cancel.run.parse().map_err(|error| anyhow!("{error}"))?;
        let key = (run, Attempt(cancel.attempt));
        let obeys = self.shared.script(|script| script.obeys_cancel);
        let going = self.shared.journal(|journal| {
            let Some(job) = journal.jobs.get_mut(&key) else {
                journal.tombstones.insert(run);
                return false;
            };
            job.cancelled = true;
            job.report.is_none()
        });
        if going && obeys {
            self.shared.finish_with(key, Outcome::Cancelled);
        }
        Ok(())
    }

    fn on_ack(&mut self, ack: &pb::ReportAck) -> Result<()> {
        let run: RunId = ack.run.parse().map_err(|error| anyhow!("{error}"))?;
        let digest = convert::digest("digest", &ack.digest)?;
        let lost = self.shared.script(|script| {
            let lost = script.acks_to_drop > 0;
            script.acks_to_drop = script.acks_to_drop.saturating_sub(1);
            lost
        });
        self.shared.journal(|journal| journal.on_ack((run, Attempt(ack.attempt)), digest, lost));
        if !lost {
            self.shared.links(|links| links.acked_us = clock::micros());
        }
        Ok(())
    }

    fn on_reconciled(&mut self, reply: &pb::ReconcileReply) -> Result<()> {
        use pb::reconcile_decision::Decision;
        for decision in &reply.decisions {
            let run: RunId = decision.run.parse().map_err(|error| anyhow!("{error}"))?;
            let key = (run, Attempt(decision.attempt));
            self.shared.links(|links| links.decisions.push((run, decision.decision())));
            match decision.decision() {
                Decision::Forget => self.shared.journal(|journal| {
                    if let Some(job) = journal.jobs.get_mut(&key) {
                        job.acked = true;
                    }
                }),
                Decision::Cancel => self.on_cancel(&pb::Cancel {
                    run: decision.run.clone(),
                    attempt: decision.attempt,
                    reason: String::new(),
                })?,
                Decision::SendReport => {
                    self.sent.remove(&key);
                }
                Decision::Continue | Decision::Adopt => {}
                Decision::Unspecified => self.fault("a decision without a meaning came".to_owned()),
            }
        }
        self.shared.links(|links| {
            links.reconciled += 1;
            links.up = true;
        });
        Ok(())
    }
}
