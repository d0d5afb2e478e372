//! Carrying out what the table says about an event.
//!
//! Must never leave a half-made change: an error has changed nothing. Called by the controller's runner,
//! after it has saved what the event says.

use fleet_types::id::{Attempt, NodeId};
use fleet_types::job::Phase;
use fleet_types::time::Timestamp;

use crate::blocked::BlockReason;
use crate::event::{Applied, Event, EventError, JobEvent};
use crate::invariant::{self, Invariant};
use crate::state::{Clock, Job, Rollout};
use crate::table::{InvalidTransition, JobStep, job_step, mode_step};

impl Rollout {
    /// Applies one event. Applying it again is harmless. O(log n) in the number of nodes.
    pub fn apply(&mut self, now: Timestamp, event: &Event) -> Result<Applied, EventError> {
        match event {
            Event::Job { node, what } => self.on_job(now, *node, *what),
            Event::Pause { .. } | Event::Resume | Event::Cancel { .. } => self.on_order(event),
        }
    }

    fn on_order(&mut self, event: &Event) -> Result<Applied, EventError> {
        let run = self.plan.run;
        let step = mode_step(&self.mode, event);
        let event = match (&step, event) {
            (Ok(None), _) => return Ok(Applied::Repeated),
            (_, Event::Pause { .. }) => "pause",
            (_, Event::Cancel { .. }) => "cancel",
            (_, Event::Resume | Event::Job { .. }) => "resume",
        };
        match (self.terminal_state(), step) {
            (Some(state), _) => Err(EventError::RunEnded { run, state, event }),
            (None, Err(InvalidTransition::Pair | InvalidTransition::Attempt(_))) => {
                Err(EventError::Mode { run, mode: self.mode.clone(), event })
            }
            (None, Ok(mode)) => {
                self.mode = mode.unwrap_or_else(|| self.mode.clone());
                Ok(Applied::Changed)
            }
        }
    }

    fn on_job(&mut self, now: Timestamp, node: NodeId, event: JobEvent) -> Result<Applied, EventError> {
        let run = self.plan.run;
        let index = self.plan.index(node).ok_or(EventError::UnknownNode { run, node })?;
        let Job { phase, attempt, online, .. } = self.jobs[index];
        let step = job_step(phase, attempt, event).map_err(|invalid| match invalid {
            InvalidTransition::Pair => EventError::Job { run, node, phase, event },
            InvalidTransition::Attempt(got) => {
                EventError::Attempt { run, node, phase, event, current: attempt, got }
            }
        })?;
        match step {
            JobStep::Offer => self.take_slot(now, index, attempt)?,
            JobStep::Move(to) => self.change(index, |job| {
                // Working time counts from the acceptance, then from the first step; a later phase does
                // not start it again.
                let restart = matches!(job.phase, Phase::Offered | Phase::Accepted);
                job.phase = to;
                if let Some(clock) = &mut job.clock {
                    clock.heard = clock.heard.max(now);
                    if restart {
                        clock.since = clock.since.max(now);
                    }
                }
            }),
            JobStep::End(outcome) => self.change(index, |job| {
                *job = Job { phase: Phase::Ended(outcome), attempt: job.attempt, online: false, clock: None };
            }),
            JobStep::Presence { online: same } if same == online => return Ok(Applied::Repeated),
            JobStep::Presence { online } => self.note_presence(now, index, online),
            JobStep::Heard => {
                self.change(index, |job| {
                    if let Some(clock) = &mut job.clock {
                        clock.heard = clock.heard.max(now);
                    }
                });
                return Ok(Applied::Repeated);
            }
            JobStep::Repeated => return Ok(Applied::Repeated),
            JobStep::Late => return Ok(Applied::Late),
        }
        invariant::debug_check(self, index);
        Ok(Applied::Changed)
    }

    /// Queued to offered. Only the rules that protect the fleet are checked again (security-and-delivery
    /// §2.14): an offer that was saved just before a pause is a fact and is taken.
    fn take_slot(&mut self, now: Timestamp, index: usize, attempt: Attempt) -> Result<(), EventError> {
        let refusal = |reason| EventError::NotAdmitted {
            run: self.plan.run,
            node: self.plan.nodes[index].node,
            reason,
        };
        if self.in_flight.len() >= self.plan.max_parallel {
            return Err(refusal(BlockReason::CapReached {
                in_flight: self.in_flight.len(),
                at_most: self.plan.max_parallel,
            }));
        }
        if let Some(partner) = self.partner_in_flight(index) {
            return Err(refusal(BlockReason::PartnerInFlight { partner }));
        }
        self.change(index, |job| {
            job.phase = Phase::Offered;
            job.attempt = attempt;
            job.clock = Some(Clock { since: now, heard: now, offered: now });
        });
        debug_assert!(self.in_flight.len() <= self.plan.max_parallel, "{:?}", Invariant::CapHolds);
        debug_assert!(self.partner_in_flight(index).is_none(), "{:?}", Invariant::OneOfAPair);
        Ok(())
    }

    /// While an offer is unanswered, the node may have received it for as long as its link was up, and may
    /// have begun until the last start: working time is counted from the last contact.
    fn note_presence(&mut self, now: Timestamp, index: usize, online: bool) {
        let last_contact = now.min(self.plan.not_after);
        self.change(index, |job| {
            job.online = online;
            if let Some(clock) = &mut job.clock {
                clock.heard = clock.heard.max(now);
                if job.phase == Phase::Offered {
                    clock.since = clock.since.max(last_contact);
                }
            }
        });
    }
}
