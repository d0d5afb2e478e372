//! Acts: waits on the node, on the controller's word for it and on timers, and carries out what the machine says, one
//! act after the other. One task owns it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fleet_certs::PeerIdentity;
use fleet_proto::{convert, pb};
use fleet_types::view::Presence;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::hello;
use super::machine::{Act, ControllerBody, Input, Machine, Timers};
use crate::context::Context;
use crate::edge::refusals::Refusals;
use crate::edge::status::to_status;
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::sessions::ToNode;
use crate::repo;
use crate::repo::jobs::InboxRecord;
use crate::runner::deliver;
use crate::service::caller::Agent;
use crate::service::{holds, inventory, jobs, reports};

/// A client that opened a session says hello at once; longer waits are broken or hostile.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// A node that takes nothing for so long has a dead link; HTTP/2 pings find most of them sooner.
const SEND_LIMIT: Duration = Duration::from_secs(30);

type Outgoing = mpsc::Sender<Result<pb::ControllerMessage, Status>>;

/// One session.
pub struct Session {
    /// Shared handles.
    pub context: Arc<Context>,
    /// The node.
    pub agent: Agent,
    /// Its certificate.
    pub identity: Arc<PeerIdentity>,
    /// To the node.
    pub out: Outgoing,
    /// Refusals are counted there.
    pub refusals: Arc<Refusals>,
}

/// A link that was welcomed.
struct Begun {
    machine: Machine,
    outbox: mpsc::Receiver<ToNode>,
    /// Version of the trust bundle that the node was told of.
    told_trust: u64,
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
    /// Lives as long as the link.
    pub async fn run(self, mut inbound: Streaming<pb::AgentMessage>, stop: CancellationToken) {
        let mut begun = match self.begin(&mut inbound).await {
            Ok(begun) => begun,
            Err(error) => return self.refuse(error).await,
        };
        let epoch = begun.machine.epoch();
        tracing::info!(node = %self.agent.name, epoch = epoch.0, "node connected");
        let outcome = self.serve(&mut inbound, &mut begun, &stop).await;
        if self.context.memory.sessions.unregister(self.agent.node, epoch) {
            inventory::disconnected(
                &self.context.storage,
                &self.context.memory,
                self.agent.node,
                stop.is_cancelled(),
            )
            .await;
        }
        match outcome {
            Ok(why) => {
                let not_understood = begun.machine.not_understood();
                let node = &self.agent.name;
                tracing::info!(%node, epoch = epoch.0, not_understood, "node disconnected: {why}");
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

    async fn begin(&self, inbound: &mut Streaming<pb::AgentMessage>) -> Result<Begun> {
        let Ok(Ok(Some(message))) = timeout(HELLO_LIMIT, inbound.message()).await else {
            return Err(ControllerError::new(Kind::Invalid, "no-hello", "no hello came"));
        };
        let (context, node) = (&self.context, self.agent.node);
        let greeting = hello::read(&context.identities, node, message)?;
        let epoch = inventory::connect(context, &self.agent, &greeting.facts).await?;
        let outbox = context.memory.sessions.register(node, epoch).ok_or_else(|| {
            ControllerError::new(Kind::Conflict, "newer-link", "a newer link of this node came between")
        })?;
        let timers = Timers { heartbeat: context.settings.heartbeat, offer: context.settings.offer };
        let is_safe_mode = !greeting.facts.safe_mode.is_empty();
        let mut machine = Machine::new(timers, epoch, is_safe_mode, Instant::now());
        let (welcome, told_trust) = hello::welcome(context, greeting.protocol, greeting.bundle_version);
        // A hold either finds this session and closes it, or is found here.
        let welcomed = match inventory::check_active(&context.memory, &context.settings, node) {
            Ok(_) => self.send(&mut machine, ControllerBody::Welcome(welcome)).await,
            Err(held) => Err(held),
        };
        if let Err(error) = welcomed {
            if context.memory.sessions.unregister(node, epoch) {
                inventory::disconnected(&context.storage, &context.memory, node, false).await;
            }
            return Err(error);
        }
        context.memory.notifier.node_changed(node);
        Ok(Begun { machine, outbox, told_trust })
    }

    async fn send(&self, machine: &mut Machine, body: ControllerBody) -> Result<()> {
        match timeout(SEND_LIMIT, self.out.send(Ok(machine.message(body)))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(ControllerError::new(Kind::Unavailable, "link-stuck", "the node takes no messages")),
        }
    }

    async fn serve(
        &self,
        inbound: &mut Streaming<pb::AgentMessage>,
        Begun { machine, outbox, told_trust }: &mut Begun,
        stop: &CancellationToken,
    ) -> Result<String> {
        let (context, node) = (&self.context, self.agent.node);
        // A bundle that came between the welcome and here is told now.
        let mut trust = context.identities.trust.follow();
        if context.identities.trust.get().0.version > *told_trust {
            trust.mark_changed();
        }
        let expires = Instant::now() + self.identity.not_after.since(context.storage.clock.now());
        loop {
            let wake = machine.next_timer(Instant::now()).min(expires);
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
            if let Err(revoked) = context.identities.denied.check(&self.identity) {
                return Err(ControllerError::new(Kind::Refused, "revoked", revoked.to_string()));
            }
            let input = match woken {
                Woken::Stop => {
                    let spread = context.settings.reconnect_spread(context.memory.sessions.connected());
                    let retry_after_ms = u32::try_from(spread.as_millis()).unwrap_or(u32::MAX);
                    let goodbye = pb::Goodbye { reason: "the controller stops".to_owned(), retry_after_ms };
                    self.send(machine, ControllerBody::Goodbye(goodbye)).await?;
                    return Ok("the controller stops".to_owned());
                }
                Woken::Agent(None) => return Ok("the node closed the link".to_owned()),
                Woken::Agent(Some(Err(status))) => {
                    return Ok(format!("the link broke: {}", status.message()));
                }
                Woken::Agent(Some(Ok(message))) => {
                    if !context.memory.sessions.is_current(node, machine.epoch()) {
                        let why = "a newer link of this node took over";
                        return Err(ControllerError::new(Kind::Conflict, "newer-link", why));
                    }
                    Input::Message(Box::new(message), context.storage.clock.now())
                }
                Woken::Send(None) => return Ok("this is not the node's link any more".to_owned()),
                Woken::Send(Some(message)) => Input::ToNode(message),
                Woken::Trust => Input::Trust(convert::to_json(&trust.borrow_and_update().1)),
                Woken::Timer if Instant::now() >= expires => {
                    let why = "the node's certificate has ended";
                    return Err(ControllerError::new(Kind::Unauthenticated, "certificate-expired", why));
                }
                Woken::Timer => Input::Timer,
            };
            self.settle(machine, input).await?;
        }
    }

    /// Carries out what an input means, and what comes of that.
    async fn settle(&self, machine: &mut Machine, input: Input) -> Result<()> {
        let mut acts = VecDeque::from(machine.on(Instant::now(), input)?);
        while let Some(act) = acts.pop_front() {
            if let Some(answer) = self.act(machine, act).await? {
                // What comes of an act stands before what was to be done after it.
                for next in machine.on(Instant::now(), answer)?.into_iter().rev() {
                    acts.push_front(next);
                }
            }
        }
        Ok(())
    }

    async fn act(&self, machine: &mut Machine, act: Act) -> Result<Option<Input>> {
        let (context, agent, node) = (&self.context, &self.agent, self.agent.node);
        match act {
            Act::Send(body) => self.send(machine, body).await?,
            Act::Show(presence) => self.show(presence),
            Act::Touch(at) => context.memory.node_cache.touch(node, at),
            Act::RaiseSequence(sequence) => context.memory.node_cache.raise_sequence(node, sequence),
            Act::Note(update) => {
                // Progress: what cannot be noted now comes again at the next reconcile.
                if let Err(error) = jobs::update(&context.storage, &context.memory, agent, &update).await {
                    tracing::warn!(node = %agent.name, run = %update.run, "state not noted: {error}");
                }
            }
            Act::Store(arrived) => {
                let (run, attempt) = (arrived.run, arrived.attempt);
                let stored = reports::report(context, agent, &arrived).await;
                return Ok(Some(Input::Stored { run, attempt, stored }));
            }
            Act::Decide { listed, last } => {
                let decisions = jobs::reconcile(context, agent, &listed).await?;
                let names = listed.iter().map(|job| (job.run, job.attempt));
                let decided = names.zip(decisions).map(|((run, attempt), decision)| (run, attempt, decision));
                return Ok(Some(Input::Decided { decided: decided.collect(), last }));
            }
            Act::LookIntoInbox => {
                return Ok(Some(Input::Inbox(deliver::inbox(context, node, machine.epoch()).await?)));
            }
            Act::IsStillOffered(run) => {
                let entry =
                    context.storage.repo.get::<InboxRecord>(&repo::jobs::inbox_entry(node, run)?).await?;
                let stop = deliver::stop_reason(&context.storage, &context.memory, node, run).await?;
                return Ok(Some(Input::StillOffered { run, offered: entry.is_some(), stop }));
            }
            Act::TakeMissed if context.memory.sessions.take_missed(node, machine.epoch()) => {
                return Ok(Some(Input::Missed));
            }
            Act::TakeMissed => {}
            Act::NotUnderstood(what) => {
                tracing::warn!(node = %agent.name, "the node sends {what} that this controller does not know: it is newer");
            }
            Act::NotStored(run, error) => {
                tracing::warn!(node = %agent.name, %run, "report not stored yet: {error}");
            }
            Act::ShutOut(why) => return Err(holds::shut_out(context, agent.actor(), node, &why).await?),
        }
        Ok(None)
    }

    fn show(&self, presence: Presence) {
        let node = self.agent.node;
        if self.context.memory.node_cache.get(node).is_some_and(|known| known.presence != presence) {
            self.context.memory.node_cache.update(node, |known| known.presence = presence);
            self.context.memory.notifier.node_changed(node);
        }
    }
}
