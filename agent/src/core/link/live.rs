//! The life of one link, from Welcome to its end.
//!
//! The loop waits on everything at once and never for one thing alone: a slow controller, executor or output
//! stream holds up nothing else. Every message of the controller is checked for epoch, number and size
//! before it is looked at. What the controller sends for the executor is passed on unread.

use std::time::Duration;

use fleet_proto::pb::{self, agent_message, controller_message, core_message, executor_message};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use super::documents::Fetched;
use super::ending::{Ended, Lost};
use super::opened::Opened;
use super::output_stream::{Heard, OutputStream};
use super::owner::LinkError;
use super::session::SessionFault;
use crate::clock;
use crate::config::Timers;
use crate::core::door::Door;

/// Heartbeats without an answer after which the link counts as dead (T10).
const SILENT_BEATS: u32 = 3;

struct Live<'a> {
    desk: &'a mut Desk,
    door: &'a mut Door,
    timers: &'a Timers,
    link: Opened,
    beat: Duration,
    next_beat: Instant,
    last_reply: Instant,
    /// Until when the executor must have answered `LinkUp`; none once it has.
    answer_due: Option<Instant>,
    fetches: JoinSet<Fetched>,
    output: Option<OutputStream>,
    /// Not before this is a broken output stream opened again.
    output_after: Instant,
    /// Set when the agent stops: the end of the grace period.
    flush_until: Option<Instant>,
    executor_open: bool,
}

/// Lives over an opened link until it ends.
pub async fn run(
    link: Opened,
    desk: &mut Desk,
    door: &mut Door,
    timers: &Timers,
    stop: &CancellationToken,
) -> Result<Ended, LinkError> {
    let now = Instant::now();
    let beat = link.beat(timers.heartbeat);
    desk.outbox.on_link_up();
    desk.wanted.on_link_up(now);
    desk.spool.on_stream_lost();
    door.to.push(core_message::Body::LinkUp(pb::LinkUp {
        generation: link.welcome.generation,
        link_epoch: link.epoch,
        dispatch: link.welcome.dispatch.clone(),
        trust_bundle: link.welcome.trust_bundle.clone(),
    }));
    let mut live = Live {
        desk,
        door,
        timers,
        beat,
        next_beat: now + beat,
        last_reply: now,
        answer_due: Some(now + timers.hello),
        fetches: JoinSet::new(),
        output: None,
        output_after: now,
        flush_until: None,
        executor_open: true,
        link,
    };
    let ended = live.run(stop).await;
    if matches!(ended, Ok(Ended::Stopped)) {
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
    Look,
    /// There is room on the session.
    SessionReady,
    Fetched(Option<Fetched>),
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
            self.desk.wanted.start(now, &self.link.clients.documents, &mut self.fetches);
            if self.output.is_none() && self.desk.spool.has_next() && now >= self.output_after {
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
        let due = now >= self.next_beat || self.desk.outbox.due(now).is_some_and(|due| due <= now);
        // Of a session that the controller has closed only the rest is read: it says why.
        let to_send = due && !self.link.outgoing.is_closed();
        let next = self.next_look(now, due);
        let (pieces, credits) = self.output.as_mut().map(|o| (&o.pieces, &mut o.credits)).unzip();
        tokio::select! {
            () = stop.cancelled(), if self.flush_until.is_none() => Event::Stop,
            message = self.link.incoming.message(), if self.door.to.has_room() => Event::Controller(message),
            message = self.door.from.next(), if self.executor_open && self.desk.outbox.has_room() => {
                Event::Executor(message)
            }
            () = self.door.to.progress() => Event::Look,
            permit = self.link.outgoing.reserve(), if to_send => {
                if permit.is_ok() { Event::SessionReady } else { Event::Look }
            }
            Some(done) = self.fetches.join_next() => Event::Fetched(done.ok()),
            heard = recv(credits) => Event::Output(heard),
            ready = has_room(pieces), if self.desk.spool.has_next() => Event::OutputReady(ready),
            () = sleep_until(next) => Event::Look,
        }
    }

    fn on_event(&mut self, event: Event) -> Result<Option<Ended>, LinkError> {
        let now = Instant::now();
        match event {
            // One grace period for the executor's step, one for the reports that follow it.
            Event::Stop => self.flush_until = Some(now + self.timers.drain * 2),
            Event::Controller(message) => return Ok(self.on_controller(message)),
            Event::Executor(message) => return self.on_executor(message),
            Event::Look => {}
            Event::SessionReady => {
                if let Some(body) = self.next_body(now) {
                    // This loop alone sends, and it has just seen room; a closed stream shows by itself.
                    let _ = self.link.outgoing.try_send(self.link.session.stamp(body));
                }
            }
            Event::Fetched(fetched) => {
                let arrived = fetched.and_then(|fetched| self.desk.wanted.on_fetched(fetched, now));
                if let Some(arrived) = arrived {
                    self.door.to.push(core_message::Body::Document(arrived));
                }
            }
            Event::Output(heard) => self.on_output(heard),
            Event::OutputReady(false) => self.on_output(None),
            Event::OutputReady(true) => {
                if let (Some(open), Some(chunk)) = (&self.output, self.desk.spool.next_chunk()) {
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
            let jobs_open = self.desk.jobs_open();
            return Some(agent_message::Body::Heartbeat(pb::Heartbeat {
                time_ms: clock::now().as_millis(),
                jobs_open,
            }));
        }
        self.desk.outbox.next(now)
    }

    /// Ends that come with time alone.
    fn is_over(&self, now: Instant) -> Result<Option<Ended>, LinkError> {
        if self.door.to.stuck_at().is_some_and(|at| now >= at) {
            return Err(LinkError::ExecutorStuck);
        }
        let silence = now.saturating_duration_since(self.last_reply);
        let lost = if silence >= self.beat * SILENT_BEATS {
            Some(Lost::Silent(silence))
        } else if self.answer_due.is_some_and(|due| now >= due) {
            Some(Lost::NoAnswer)
        } else if self.desk.outbox.must_relist() {
            Some(Lost::Relist)
        } else {
            None
        };
        if let Some(until) = self.flush_until {
            let flushed = !self.executor_open && self.desk.outbox.is_flushed();
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
            self.desk.outbox.due(now).filter(|_| !due),
            self.desk.wanted.due(self.fetches.len()),
            self.answer_due,
            self.flush_until,
            self.door.to.stuck_at(),
            (self.output.is_none() && self.desk.spool.has_next()).then_some(self.output_after),
        ];
        wakes.into_iter().flatten().min().unwrap_or(now + self.beat)
    }

    fn on_controller(
        &mut self,
        message: Result<Option<pb::ControllerMessage>, tonic::Status>,
    ) -> Option<Ended> {
        use controller_message::Body;
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Some(Ended::Lost(Lost::Closed)),
            Err(status) => return Some(Ended::Lost(Lost::Broken(status))),
        };
        let body = match self.link.session.check(message) {
            Ok(body) => body,
            Err(fault) => return Some(Ended::Lost(fault.into())),
        };
        self.door.to.push(match body {
            Body::Heartbeat(_) => {
                self.last_reply = Instant::now();
                return None;
            }
            Body::Goodbye(goodbye) => {
                let reason = goodbye.reason.chars().filter(|c| !c.is_control()).take(200).collect();
                let retry_after = Duration::from_millis(goodbye.retry_after_ms.into());
                return Some(Ended::Goodbye { reason, retry_after });
            }
            Body::ReportAck(ack) => {
                if !self.desk.on_report_ack(&ack) {
                    return None;
                }
                core_message::Body::ReportAck(ack)
            }
            Body::Reconcile(reply) => core_message::Body::Reconcile(reply),
            // Stopping: no new work is taken; the controller offers it again on the next link.
            Body::Assign(_) if self.flush_until.is_some() => return None,
            Body::Assign(assign) => core_message::Body::Assign(assign),
            Body::Cancel(cancel) => core_message::Body::Cancel(cancel),
            Body::Trust(trust) => core_message::Body::Trust(trust),
            // Checked by the session.
            Body::Welcome(_) => return Some(Ended::Lost(SessionFault::SecondWelcome.into())),
        });
        None
    }

    fn on_executor(&mut self, message: Option<executor_message::Body>) -> Result<Option<Ended>, LinkError> {
        match message {
            None if self.flush_until.is_some() => self.executor_open = false,
            None => return Err(LinkError::ExecutorGone),
            Some(executor_message::Body::LinkRefused(refused)) if !self.desk.executor_is_behind() => {
                return Ok(Some(Ended::Lost(Lost::Refused(refused.reason))));
            }
            Some(body) => {
                let answers =
                    matches!(body, executor_message::Body::Reconcile(_)) && !self.desk.executor_is_behind();
                if answers && self.answer_due.take().is_some() {
                    self.desk.on_link_accepted(self.link.welcome.generation, self.link.epoch);
                }
                if let Some(answer) = self.desk.on_executor(body) {
                    self.door.to.push(answer);
                }
            }
        }
        Ok(None)
    }

    fn on_output(&mut self, heard: Option<Heard>) {
        match heard {
            Some(Heard::Credit(credit)) => {
                if let Some(answer) = self.desk.spool.on_credit(&credit) {
                    self.door.to.push(core_message::Body::OutputCredit(answer));
                }
            }
            Some(Heard::Refused) => self.desk.spool.on_stream_refused(),
            None => {
                self.output = None;
                self.desk.spool.on_stream_lost();
                self.output_after = Instant::now() + self.timers.report_resend;
            }
        }
    }
}

/// What the output stream says; waits for ever when no output stream is open.
async fn recv(credits: Option<&mut mpsc::Receiver<Heard>>) -> Option<Heard> {
    match credits {
        Some(credits) => credits.recv().await,
        None => std::future::pending().await,
    }
}

/// Room for a piece; waits for ever when no output stream is open, false when it has ended.
async fn has_room(pieces: Option<&mpsc::Sender<pb::OutputChunk>>) -> bool {
    match pieces {
        Some(pieces) => pieces.reserve().await.is_ok(),
        None => std::future::pending().await,
    }
}
