//! The life of one link, from Welcome to its end.
//!
//! The loop waits on everything at once and never for one thing alone: a slow controller, executor or output
//! stream holds up nothing else. Every message of the controller is checked for epoch, number and size
//! before it is looked at. What the controller sends for the executor is passed on unread.

use std::time::Duration;

use fleet_proto::pb::{self, agent_message, core_message, executor_message};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::copies;
use super::dial::Dialer;
use super::documents::Fetched;
use super::ending::{Ended, Lost};
use super::opened::Opened;
use super::output_stream::{self, Heard, OutputStream};
use super::owner::LinkError;
use super::packages;
use super::state::LinkState;
use crate::clock;
use crate::config::Timers;
use crate::core::executor_channel::ExecutorChannel;
use crate::core::identity::Certified;
use crate::core::identity_in_use::IdentityInUse;
use crate::core::renewal::NotRenewed;

/// Heartbeats without an answer after which the link counts as dead (T10).
const SILENT_BEATS: u32 = 3;

/// A link that is up.
pub(super) struct Live<'a> {
    pub(super) state: &'a mut LinkState,
    pub(super) channel: &'a mut ExecutorChannel,
    pub(super) timers: &'a Timers,
    pub(super) dialer: &'a Dialer,
    pub(super) identity: &'a mut IdentityInUse,
    pub(super) link: Opened,
    pub(super) beat: Duration,
    pub(super) next_beat: Instant,
    pub(super) last_reply: Instant,
    /// Until when the executor must have answered `LinkUp`; none once it has.
    pub(super) answer_due: Option<Instant>,
    pub(super) fetches: JoinSet<Fetched>,
    /// The piece of a copy that is under way; one at most.
    pub(super) copies: JoinSet<pb::CopyAnswer>,
    /// The node's packages on their way; one message at most.
    pub(super) packages: JoinSet<pb::PackagesAnswer>,
    pub(super) output: Option<OutputStream>,
    /// Not before this is a broken output stream opened again.
    pub(super) output_after: Instant,
    /// Set when the agent stops: the end of the grace period.
    pub(super) flush_until: Option<Instant>,
    pub(super) executor_open: bool,
    /// Messages of the controller that this agent does not know.
    pub(super) not_understood: u64,
}

/// Lives over an opened link until it ends.
pub async fn run(
    link: Opened,
    state: &mut LinkState,
    channel: &mut ExecutorChannel,
    timers: &Timers,
    (dialer, identity): (&Dialer, &mut IdentityInUse),
    stop: &CancellationToken,
) -> Result<Ended, LinkError> {
    let now = Instant::now();
    let beat = link.beat(timers.heartbeat);
    state.outbox.on_link_up();
    state.wanted.on_link_up(now);
    state.output.clear();
    // The executor asks anew where to go on.
    state.copy = None;
    state.packages = None;
    channel.to.push(core_message::Body::LinkUp(pb::LinkUp {
        generation: link.welcome.generation,
        link_epoch: link.epoch,
        dispatch: link.welcome.dispatch.clone(),
        trust_bundle: link.welcome.trust_bundle.clone(),
        takes_packages: link.welcome.takes_packages,
    }));
    let mut live = Live {
        state,
        channel,
        timers,
        dialer,
        identity,
        beat,
        next_beat: now + beat,
        last_reply: now,
        answer_due: Some(now + timers.hello),
        fetches: JoinSet::new(),
        copies: JoinSet::new(),
        packages: JoinSet::new(),
        output: None,
        output_after: now,
        flush_until: None,
        executor_open: true,
        not_understood: 0,
        link,
    };
    let ended = live.run(stop).await;
    if matches!(ended, Ok(Ended::Stopped | Ended::Renewed)) {
        live.link.leave().await;
    }
    ended
}

/// What a wait of the loop brought.
enum Event {
    Stop,
    Controller(Result<Option<pb::ControllerMessage>, tonic::Status>),
    Executor(Option<executor_message::Body>),
    /// The executor took a message, or it is time to look.
    Check,
    /// There is room on the session.
    SessionReady,
    Fetched(Option<Fetched>),
    PathChecked(pb::PathChecked),
    Copy(Option<pb::CopyAnswer>),
    Packages(Option<pb::PackagesAnswer>),
    Renewal(Result<Certified, NotRenewed>),
    Output(Option<Heard>),
    /// There is room on the output stream; false when it has ended.
    OutputReady(bool),
}

impl Live<'_> {
    async fn run(&mut self, stop: &CancellationToken) -> Result<Ended, LinkError> {
        loop {
            let now = Instant::now();
            if let Some(ended) = self.is_over(now)? {
                return Ok(ended);
            }
            self.state.wanted.start(now, &self.link.clients.documents, &mut self.fetches);
            self.state.paths.start(self.dialer);
            if self.flush_until.is_none() {
                self.identity.start(&self.link.clients.control);
            }
            if self.copies.is_empty()
                && let Some(piece) = self.state.copy.take()
            {
                self.copies.spawn(copies::put(self.link.clients.documents.clone(), piece));
            }
            if self.packages.is_empty()
                && let Some(message) = self.state.packages.take()
            {
                self.packages.spawn(packages::put(self.link.clients.documents.clone(), message));
            }
            if self.output.is_none() && !self.state.output.is_empty() && now >= self.output_after {
                self.output = Some(OutputStream::open(self.link.clients.control.clone()));
            }
            let event = self.next_event(now, stop).await;
            if let Some(ended) = self.on_event(event)? {
                return Ok(ended);
            }
        }
    }

    /// Waits for everything at once. Each source is safe to be dropped at its await.
    async fn next_event(&mut self, now: Instant, stop: &CancellationToken) -> Event {
        let due = now >= self.next_beat || self.state.outbox.due(now).is_some_and(|due| due <= now);
        // Of a session that the controller has closed only the rest is read: it says why.
        let to_send = due && !self.link.outgoing.is_closed();
        let next = self.next_look(now, due);
        let (pieces, said) = self.output.as_mut().map(|o| (&o.pieces, &mut o.said)).unzip();
        tokio::select! {
            () = stop.cancelled(), if self.flush_until.is_none() => Event::Stop,
            message = self.link.incoming.message(), if self.channel.to.has_room() => Event::Controller(message),
            message = self.channel.from.next(), if self.executor_open && self.state.outbox.has_room() => {
                Event::Executor(message)
            }
            () = self.channel.to.progress() => Event::Check,
            permit = self.link.outgoing.reserve(), if to_send => {
                if permit.is_ok() { Event::SessionReady } else { Event::Check }
            }
            Some(done) = self.fetches.join_next() => Event::Fetched(done.ok()),
            answer = self.state.paths.answered() => Event::PathChecked(answer),
            Some(done) = self.copies.join_next() => Event::Copy(done.ok()),
            Some(done) = self.packages.join_next() => Event::Packages(done.ok()),
            ended = self.identity.tried() => Event::Renewal(ended),
            said = output_stream::heard(said) => Event::Output(said),
            ready = output_stream::has_room(pieces), if !self.state.output.is_empty() => Event::OutputReady(ready),
            () = sleep_until(next) => Event::Check,
        }
    }

    fn on_event(&mut self, event: Event) -> Result<Option<Ended>, LinkError> {
        let now = Instant::now();
        match event {
            // The grace period for the executor's step, and a moment for the reports that follow it.
            Event::Stop => self.flush_until = Some(now + self.timers.drain + self.timers.flush()),
            Event::Controller(message) => return Ok(self.on_controller(message)),
            Event::Executor(message) => return self.on_executor(message),
            Event::Check => {}
            Event::SessionReady => {
                if let Some(body) = self.next_body(now) {
                    // This loop alone sends, and it has just seen room; a closed stream shows by itself.
                    let _ = self.link.outgoing.try_send(self.link.session.stamp(body));
                }
            }
            Event::Fetched(fetched) => {
                let arrived = fetched.and_then(|fetched| self.state.wanted.on_fetched(fetched, now));
                if let Some(arrived) = arrived {
                    self.channel.to.push(core_message::Body::Document(arrived));
                }
            }
            Event::PathChecked(answer) => self.channel.to.push(core_message::Body::Path(answer)),
            Event::Copy(answer) => self.channel.to.push(core_message::Body::Copy(answer.unwrap_or_default())),
            Event::Packages(answer) => {
                self.channel.to.push(core_message::Body::Packages(answer.unwrap_or_default()));
            }
            // While the agent stops, what was stored is for the next start.
            Event::Renewal(ended) => {
                let is_new = self.identity.on_tried(ended);
                return Ok((is_new && self.flush_until.is_none()).then_some(Ended::Renewed));
            }
            Event::Output(heard) => self.on_output(heard),
            Event::OutputReady(false) => self.on_output(None),
            Event::OutputReady(true) => {
                if let (Some(open), Some(chunk)) = (&self.output, self.state.output.pop()) {
                    // As above; what is lost with a broken stream is sent again over the next.
                    let _ = open.pieces.try_send(chunk);
                }
            }
        }
        Ok(None)
    }

    fn next_body(&mut self, now: Instant) -> Option<agent_message::Body> {
        if now >= self.next_beat {
            self.next_beat = now + self.beat;
            // Nobody is told that a node is well whose executor hangs.
            if self.channel.to.is_silent() {
                return self.state.outbox.next(now);
            }
            let jobs_open = self.state.jobs_open();
            return Some(agent_message::Body::Heartbeat(pb::Heartbeat {
                time_ms: clock::now().as_millis(),
                jobs_open,
            }));
        }
        self.state.outbox.next(now)
    }

    /// Ends that come with time alone.
    fn is_over(&self, now: Instant) -> Result<Option<Ended>, LinkError> {
        if self.channel.to.stuck_at().is_some_and(|at| now >= at) {
            return Err(LinkError::ExecutorStuck);
        }
        let silence = now.saturating_duration_since(self.last_reply);
        let lost = if silence >= self.beat * SILENT_BEATS {
            Some(Lost::Silent(silence))
        } else if self.answer_due.is_some_and(|due| now >= due) {
            Some(Lost::NoAnswer)
        } else if self.state.outbox.must_relist() {
            Some(Lost::Relist)
        } else {
            None
        };
        if let Some(until) = self.flush_until {
            let flushed = !self.executor_open && self.state.outbox.is_flushed();
            return Ok((flushed || now >= until || lost.is_some()).then_some(Ended::Stopped));
        }
        Ok(lost.map(Ended::Lost))
    }

    /// When to look again though nothing arrives.
    fn next_look(&self, now: Instant, due: bool) -> Instant {
        let wakes = [
            Some(self.last_reply + self.beat * SILENT_BEATS),
            // What is due already waits for room on the stream, not for time.
            Some(self.next_beat).filter(|at| *at > now),
            self.state.outbox.due(now).filter(|_| !due),
            self.state.wanted.due(self.fetches.len()),
            self.answer_due,
            self.flush_until,
            self.channel.to.stuck_at(),
            (self.output.is_none() && !self.state.output.is_empty()).then_some(self.output_after),
        ];
        wakes.into_iter().flatten().min().unwrap_or(now + self.beat)
    }
}
