//! What a session does next: each input gives acts, and nothing else happens here. No I/O, no clock of its own.
//!
//! Called by `link` alone, which carries the acts out in their order and feeds what services answer back in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_proto::convert::{self, FieldError, JobUpdate};
use fleet_proto::{MAX_CONTROL_BYTES, pb};
use fleet_types::assignment::{Assignment, WaveProof};
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, LinkEpoch, RunId};
use fleet_types::job::JobState;
use fleet_types::time::Timestamp;
use fleet_types::view::Presence;
use prost::Message as _;
use tokio::time::Instant;

use crate::error::{ControllerError, Kind, Result};
use crate::fleet::sessions::ToNode;
use crate::runner::deliver::Inbox;
use crate::service::jobs::Decision;
use crate::service::reports::{self, Arrived};

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
const MAX_RECONCILE_JOBS: usize = 256;
/// A job's state names a step and two times, or a reason in one sentence. It is held in memory until the end.
const MAX_STATE_BYTES: usize = 4 * 1024;

/// What the controller says.
pub type ControllerBody = pb::controller_message::Body;
type AgentBody = pb::agent_message::Body;

/// What happened.
pub enum Input {
    /// The node said something, at this time of the wall clock.
    Message(Box<pb::AgentMessage>, Timestamp),
    /// The controller has something for the node.
    ToNode(ToNode),
    /// There is a newer trust bundle.
    Trust(Vec<u8>),
    /// A timer is due.
    Timer,
    /// Word was missed for want of room in the session's queue.
    Missed,
    /// An offer that was not answered was looked up.
    StillOffered {
        /// The run.
        run: RunId,
        /// Is it in the inbox still?
        offered: bool,
        /// Why it should stop, if it should.
        stop: Option<String>,
    },
    /// What the inbox holds.
    Inbox(Inbox),
    /// A page of the node's list was decided.
    Decided {
        /// Its jobs with what was decided.
        decided: Vec<(RunId, Attempt, Decision)>,
        /// Is it the last page?
        last: bool,
    },
    /// A report was stored, or could not be.
    Stored {
        /// Its run.
        run: RunId,
        /// Its attempt.
        attempt: Attempt,
        /// Its digest.
        stored: Result<Digest>,
    },
}

/// What is to be done, in the order given.
pub enum Act {
    /// Say this to the node.
    Send(ControllerBody),
    /// Show the node so.
    Show(Presence),
    /// The node was heard at this time.
    Touch(Timestamp),
    /// The node's journal stands at least here.
    RaiseSequence(u64),
    /// Note where a job stands.
    Note(Box<JobUpdate>),
    /// Store a report; feeds [`Input::Stored`].
    Store(Arrived),
    /// Decide on a page of the node's list; feeds [`Input::Decided`].
    Decide {
        /// The page.
        listed: Vec<JobUpdate>,
        /// Is it the last one?
        last: bool,
    },
    /// Look into the node's inbox; feeds [`Input::Inbox`].
    LookIntoInbox,
    /// Is this offer still to be made? Feeds [`Input::StillOffered`].
    IsStillOffered(RunId),
    /// Word may have been missed: feeds [`Input::Missed`], or nothing.
    TakeMissed,
    /// The node says something that this controller does not know.
    NotUnderstood(&'static str),
    /// A report could not be stored now: the node keeps it and sends it again.
    NotStored(RunId, ControllerError),
    /// A report is lost, and nothing behind it is taken: hold the node.
    ShutOut(String),
}

struct PendingOffer {
    assignment: Assignment,
    proof: WaveProof,
    again_at: Instant,
}

/// The timers of a session.
#[derive(Debug, Clone, Copy)]
pub struct Timers {
    /// How often the node says that it is there.
    pub heartbeat: Duration,
    /// How long an offer may go without an answer.
    pub offer: Duration,
}

/// One session's memory.
pub struct Machine {
    timers: Timers,
    epoch: LinkEpoch,
    seq_in: u64,
    seq_out: u64,
    /// Since when reports come without the one before them, and nothing else is told of them.
    gap_since: Option<Instant>,
    /// Does the node say that its journal cannot be relied on?
    is_safe_mode: bool,
    /// What the node said that this controller does not know.
    not_understood: u64,
    heard: Instant,
    offers: BTreeMap<RunId, PendingOffer>,
    reconcile_pages: u32,
    reconciled: bool,
    known: BTreeSet<(RunId, Attempt)>,
}

impl Machine {
    /// After the hello, which was message 1.
    pub const fn new(timers: Timers, epoch: LinkEpoch, is_safe_mode: bool, now: Instant) -> Self {
        Self {
            timers,
            epoch,
            seq_in: 1,
            seq_out: 0,
            gap_since: None,
            is_safe_mode,
            not_understood: 0,
            heard: now,
            offers: BTreeMap::new(),
            reconcile_pages: 0,
            reconciled: false,
            known: BTreeSet::new(),
        }
    }

    /// The link.
    pub const fn epoch(&self) -> LinkEpoch {
        self.epoch
    }

    /// How often the node said what this controller does not know.
    pub const fn not_understood(&self) -> u64 {
        self.not_understood
    }

    /// The next message to the node, numbered.
    pub fn message(&mut self, body: ControllerBody) -> pb::ControllerMessage {
        self.seq_out += 1;
        pb::ControllerMessage { link_epoch: self.epoch.0, seq: self.seq_out, body: Some(body) }
    }

    /// When [`Input::Timer`] is due.
    pub fn next_timer(&self, now: Instant) -> Instant {
        let stale = self.heard + self.timers.heartbeat * STALE_AFTER;
        let silent = if stale <= now { self.heard + self.timers.heartbeat * CLOSE_AFTER } else { stale };
        let deny = now + DENY_PERIOD;
        let offers = self.offers.values().map(|offer| offer.again_at).min();
        offers.unwrap_or(deny).min(silent).min(deny)
    }

    /// What is to be done now. An error ends the link.
    pub fn on(&mut self, now: Instant, input: Input) -> Result<Vec<Act>> {
        match input {
            Input::Message(message, wall) => self.on_message(now, *message, wall),
            Input::ToNode(message) => Ok(self.on_word(now, message)),
            Input::Trust(trust_bundle) => {
                Ok(vec![Act::Send(ControllerBody::Trust(pb::TrustUpdate { trust_bundle }))])
            }
            Input::Timer => self.on_timer(now),
            Input::Missed => Ok(vec![Act::LookIntoInbox]),
            Input::StillOffered { run, offered, stop } => Ok(self.on_still_offered(now, run, offered, stop)),
            Input::Inbox(inbox) => Ok(self.on_inbox(now, inbox)),
            Input::Decided { decided, last } => Ok(self.on_decided(&decided, last)),
            Input::Stored { run, attempt, stored } => self.on_stored(now, run, attempt, stored),
        }
    }

    fn on_timer(&mut self, now: Instant) -> Result<Vec<Act>> {
        let silent = now - self.heard;
        if silent >= self.timers.heartbeat * CLOSE_AFTER {
            let why = "the node has been silent for too long";
            return Err(ControllerError::new(Kind::Unavailable, "silent", why));
        }
        let mut acts = Vec::new();
        if silent >= self.timers.heartbeat * STALE_AFTER {
            acts.push(Act::Show(Presence::Stale));
        }
        if self.reconciled {
            acts.push(Act::TakeMissed);
        }
        let due = self.offers.iter().filter(|(_, offer)| offer.again_at <= now);
        acts.extend(due.map(|(run, _)| Act::IsStillOffered(*run)));
        Ok(acts)
    }

    fn on_still_offered(
        &mut self,
        now: Instant,
        run: RunId,
        offered: bool,
        stop: Option<String>,
    ) -> Vec<Act> {
        let Some(offer) = self.offers.remove(&run).filter(|_| offered) else { return Vec::new() };
        // What has ended here must not be begun there: the word to stop comes first, and answers the offer.
        let stop = stop.map(|reason| cancel(run, offer.assignment.attempt, reason));
        stop.into_iter().chain([self.offer(now, offer.assignment, offer.proof)]).collect()
    }

    fn offer(&mut self, now: Instant, assignment: Assignment, proof: WaveProof) -> Act {
        let assign =
            pb::Assign { assignment: convert::to_json(&assignment), proof: convert::to_json(&proof) };
        let again_at = now + self.timers.offer;
        self.offers.insert(assignment.job.run, PendingOffer { assignment, proof, again_at });
        Act::Send(ControllerBody::Assign(assign))
    }

    fn on_word(&mut self, now: Instant, message: ToNode) -> Vec<Act> {
        match message {
            // Signed for the link before this one: the inbox has it, to be signed anew.
            ToNode::Assign(offer) if offer.0.link_epoch != self.epoch => {
                if self.reconciled {
                    vec![Act::LookIntoInbox]
                } else {
                    Vec::new()
                }
            }
            ToNode::Assign(offer) => {
                let (assignment, proof) = *offer;
                vec![self.offer(now, assignment, proof)]
            }
            // An offer that was not answered stays: the node answers it by the cancel, with a report.
            ToNode::Cancel { run, attempt, reason } => vec![cancel(run, attempt, reason)],
        }
    }

    fn on_message(&mut self, now: Instant, message: pb::AgentMessage, wall: Timestamp) -> Result<Vec<Act>> {
        if message.link_epoch != self.epoch.0 {
            return Err(ControllerError::invalid(
                "link_epoch",
                format!("{} on link {}: a message of another link", message.link_epoch, self.epoch.0),
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
        self.heard = now;
        let mut acts = vec![Act::Touch(wall), Act::Show(Presence::Online)];
        match message.body {
            Some(AgentBody::Heartbeat(_)) => {
                let reply = pb::HeartbeatReply { time_ms: wall.as_millis() };
                acts.push(Act::Send(ControllerBody::Heartbeat(reply)));
            }
            Some(AgentBody::Job(job)) => self.on_job(&job, &mut acts)?,
            Some(AgentBody::Report(report)) => {
                let arrived = Arrived {
                    run: convert::text("report.run", &report.run)?,
                    attempt: Attempt(report.attempt),
                    payload: report.payload,
                    signature: report.signature,
                };
                self.offers.remove(&arrived.run);
                acts.push(Act::Store(arrived));
            }
            Some(AgentBody::Reconcile(page)) => self.on_reconcile(&page, &mut acts)?,
            // Facts are stored at connect; changes in between show in views at the next one.
            Some(AgentBody::Facts(_)) => {}
            Some(AgentBody::Hello(_)) => return Err(ControllerError::invalid("hello", "a second hello")),
            None => acts.extend(self.note_unknown("a message")),
        }
        Ok(acts)
    }

    fn on_job(&mut self, job: &pb::JobUpdate, acts: &mut Vec<Act>) -> Result<()> {
        if job.state.len() > MAX_STATE_BYTES {
            return Err(ControllerError::invalid("job.state", "larger than 4 KiB"));
        }
        let update = JobUpdate::try_from(job)?;
        acts.extend(self.sequence(update.journal_sequence));
        if update.state == JobState::Unknown {
            acts.extend(self.note_unknown("a state of a job"));
        }
        // A tombstone's answer bears no report: the offer still has to be answered by one.
        if update.state.outcome().is_none() || update.report.is_some() {
            self.offers.remove(&update.run);
        }
        acts.push(Act::Note(Box::new(update)));
        Ok(())
    }

    /// A newer node says more than this controller knows: told once a link, and the link stays.
    fn note_unknown(&mut self, what: &'static str) -> Option<Act> {
        self.not_understood += 1;
        (self.not_understood == 1).then_some(Act::NotUnderstood(what))
    }

    /// The node stands at least here: an older journal later is an old disk image.
    fn sequence(&self, sequence: u64) -> Option<Act> {
        (!self.is_safe_mode).then_some(Act::RaiseSequence(sequence))
    }

    fn on_stored(
        &mut self,
        now: Instant,
        run: RunId,
        attempt: Attempt,
        stored: Result<Digest>,
    ) -> Result<Vec<Act>> {
        let error = match stored {
            Ok(digest) => {
                self.gap_since = None;
                let digest = digest.as_bytes().to_vec();
                let ack = pb::ReportAck { run: run.to_string(), attempt: attempt.0, digest };
                return Ok(vec![Act::Send(ControllerBody::ReportAck(ack))]);
            }
            Err(error) if error.retryable() => error,
            Err(error) => return Err(error),
        };
        let is_gap = error.detail.code == reports::GAP;
        self.gap_since = is_gap.then(|| self.gap_since.unwrap_or(now));
        let limit = self.timers.heartbeat * GAP_HEARTBEATS;
        if self.gap_since.is_some_and(|since| now - since >= limit) {
            let why = format!("{}: it is lost, and nothing behind it is taken", error.detail.message);
            return Ok(vec![Act::ShutOut(why)]);
        }
        Ok(vec![Act::NotStored(run, error)])
    }

    fn on_reconcile(&mut self, page: &pb::ReconcilePage, acts: &mut Vec<Act>) -> Result<()> {
        self.reconcile_pages += 1;
        let too_much = self.reconcile_pages > MAX_RECONCILE_PAGES || page.jobs.len() > MAX_RECONCILE_JOBS;
        if self.reconciled || too_much {
            return Err(ControllerError::invalid("reconcile", "too many pages, or one too large"));
        }
        let listed: Vec<JobUpdate> =
            page.jobs.iter().map(JobUpdate::try_from).collect::<Result<_, FieldError>>()?;
        acts.extend(listed.iter().filter_map(|job| self.sequence(job.journal_sequence)));
        acts.push(Act::Decide { listed, last: page.last });
        Ok(())
    }

    fn on_decided(&mut self, decided: &[(RunId, Attempt, Decision)], last: bool) -> Vec<Act> {
        let decisions = decided.iter().map(|(run, attempt, decision)| pb::ReconcileDecision {
            run: run.to_string(),
            attempt: attempt.0,
            decision: wire_decision(*decision).into(),
        });
        let reply = pb::ReconcileReply { decisions: decisions.collect() };
        self.known.extend(decided.iter().map(|(run, attempt, _)| (*run, *attempt)));
        self.reconciled = last;
        let inbox = last.then_some(Act::LookIntoInbox);
        [Act::Send(ControllerBody::Reconcile(reply))].into_iter().chain(inbox).collect()
    }

    /// What the node should be doing and did not list: offers it never took, cancels it never saw.
    fn on_inbox(&mut self, now: Instant, inbox: Inbox) -> Vec<Act> {
        let known = std::mem::take(&mut self.known);
        let cancels = inbox.cancels.into_iter().map(|(run, attempt, reason)| cancel(run, attempt, reason));
        let mut acts: Vec<Act> = cancels.collect();
        for (assignment, proof) in inbox.offers {
            if !known.contains(&(assignment.job.run, assignment.attempt)) {
                acts.push(self.offer(now, assignment, proof));
            }
        }
        acts
    }
}

fn cancel(run: RunId, attempt: Attempt, reason: String) -> Act {
    Act::Send(ControllerBody::Cancel(pb::Cancel { run: run.to_string(), attempt: attempt.0, reason }))
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

#[cfg(test)]
mod tests;
