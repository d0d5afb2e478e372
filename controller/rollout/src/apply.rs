//! Carrying out what the table says about an event.
//!
//! Must never leave a half-made change: an error has changed nothing. Called by the controller's runner,
//! after it has saved what the event says.

use std::time::Duration;

use fleet_types::id::{Attempt, NodeId};
use fleet_types::job::Phase;

use crate::event::{Applied, Event, EventError, JobEvent, Presence};
use crate::invariant::{self, Invariant};
use crate::moment::Moment;
use crate::state::{Contact, Job, Rollout};
use crate::table::{InvalidTransition, JobStep, job_step};

impl Rollout {
    /// Applies one event. Applying it again is harmless. O(log n) in the number of nodes.
    pub fn apply(&mut self, now: Moment, event: &Event) -> Result<Applied, EventError> {
        match event {
            Event::Held { place, holder } => {
                let changed = self.hold(place, holder.as_ref());
                Ok(if changed { Applied::Changed } else { Applied::Repeated })
            }
            Event::Ring { ring, what } => self.on_ring(now, *ring, what),
            Event::Looked { node, look } => self.on_look(*node, look),
            Event::Job { node, what } => self.on_job(now, *node, *what),
        }
    }

    fn on_job(&mut self, now: Moment, node: NodeId, event: JobEvent) -> Result<Applied, EventError> {
        let run = self.plan.run;
        let index = self.plan.index(node).ok_or(EventError::UnknownNode { run, node })?;
        let Job { phase, attempt, presence, .. } = self.jobs[index];
        let step = job_step(phase, attempt, event).map_err(|invalid| match invalid {
            InvalidTransition::Pair => EventError::Job { run, node, phase, event },
            InvalidTransition::Attempt(got) => {
                EventError::Attempt { run, node, phase, event, current: attempt, got }
            }
        })?;
        match step {
            JobStep::Offer => self.take_slot(now, index, attempt)?,
            JobStep::Move(to) => self.hear(now, index, Some(to), left_of(event)),
            JobStep::End(outcome) => self.change(index, |job| {
                *job = Job { phase: Phase::Ended(outcome), attempt: job.attempt, ..Job::queued() };
            }),
            JobStep::Presence(same) if same == presence => return Ok(Applied::Repeated),
            JobStep::Presence(presence) => self.note_presence(now, index, presence),
            JobStep::Heard => {
                self.hear(now, index, None, left_of(event));
                return Ok(Applied::Repeated);
            }
            JobStep::Repeated => return Ok(Applied::Repeated),
            JobStep::Late => return Ok(Applied::Late),
        }
        invariant::debug_check(self, index);
        Ok(Applied::Changed)
    }

    /// Queued to offered. Only the rules that protect the fleet are checked again (security-and-delivery
    /// §2.14): an offer that was saved just before a cancel is a fact and is taken.
    fn take_slot(&mut self, now: Moment, index: usize, attempt: Attempt) -> Result<(), EventError> {
        if let Some(reason) = self.refusal(index, attempt, now.wall) {
            let node = self.plan.nodes[index].node;
            return Err(EventError::NotAdmitted { run: self.plan.run, node, reason });
        }
        let ends = self.ends_if_begun_last(now);
        self.change(index, |job| {
            job.phase = Phase::Offered;
            job.attempt = attempt;
            job.contact = Some(Contact { offered: now.wall, ends, heard: now.mono });
        });
        debug_assert!(self.in_flight.len() <= self.plan.max_parallel, "{:?}", Invariant::CapHolds);
        debug_assert!(self.partner_in_flight(index).is_none(), "{:?}", Invariant::OneOfAPair);
        Ok(())
    }

    /// The node spoke of its job: it may have gone on, and its time ends where it says. A node that does not say
    /// has the time that the documents give it, from its first step on; until then it may wait for its turn.
    fn hear(&mut self, now: Moment, index: usize, to: Option<Phase>, left: Option<Duration>) {
        let last = self.ends_if_begun_last(now);
        let said = left.map(|left| self.ends_by_word(now, left));
        let begun = now.mono.plus(self.plan.job_limit);
        self.change(index, |job| {
            let first = matches!(job.phase, Phase::Offered | Phase::Accepted);
            job.phase = to.unwrap_or(job.phase);
            let waits = job.phase == Phase::Accepted;
            if let Some(contact) = &mut job.contact {
                contact.heard = contact.heard.max(now.mono);
                contact.ends = match said {
                    Some(said) => said,
                    None if waits => contact.ends.max(last),
                    None if first => begun,
                    None => contact.ends,
                };
            }
        });
    }

    fn note_presence(&mut self, now: Moment, index: usize, presence: Presence) {
        self.change(index, |job| {
            job.presence = presence;
            if let Some(contact) = &mut job.contact {
                contact.heard = contact.heard.max(now.mono);
            }
        });
    }
}

const fn left_of(event: JobEvent) -> Option<Duration> {
    match event {
        JobEvent::Reported { left, .. } => left,
        _ => None,
    }
}
