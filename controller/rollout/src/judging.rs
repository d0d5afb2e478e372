//! The gates of a ring: whom to ask, what they said, and what follows for the ring.
//!
//! A ring that has soaked is judged by every one of its nodes that succeeded. Each is asked once in a judging and says
//! whether the gates hold there; one that is still busy with an earlier judging is asked when it has answered that. A
//! judging has a limit on the monotonic clock. Asking takes no slot and no place: it changes nothing.
//! Must never read a clock or know what a gate looks at. Called by this crate; [`Look`] is made by the runner.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_types::id::NodeId;
use fleet_types::job::{Outcome, Phase};
use fleet_types::run::{RingState, Verdict};

use crate::event::{Applied, EventError, Mode};
use crate::moment::Moment;
use crate::ring::RingEvent;
use crate::state::Rollout;
use crate::wanted::PAGE;

/// Nodes named in one reason; the others are counted.
const NAMED: usize = 3;

/// The newest look of a node at the gates of its ring, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// For which judging of the ring it was asked, from 1.
    pub judging: u32,
    /// What it said; `None` until it has.
    pub answer: Option<Answer>,
}

/// What a node said of the gates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// In one word.
    pub verdict: Verdict,
    /// Which gate, and what it saw or lacks; empty where they hold.
    pub because: String,
}

/// A node that is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Whom.
    pub node: NodeId,
    /// For which judging of its ring.
    pub judging: u32,
}

/// How many nodes of a ring that is judged have said what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateCounts {
    /// The gates hold there.
    pub passed: u32,
    /// Not asked yet, or no answer yet.
    pub awaited: u32,
}

/// The succeeded nodes of a ring that is judged, by place in the plan and by what they have said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Judging {
    /// To be asked.
    ask: BTreeSet<usize>,
    /// No answer yet, to this judging or to an earlier one.
    awaited: BTreeSet<usize>,
    passed: BTreeSet<usize>,
    /// The gates do not hold there, or cannot say.
    against: BTreeSet<usize>,
}

impl Rollout {
    /// A node was asked, or has answered; saved before. Applying it again is harmless.
    pub(crate) fn on_look(&mut self, node: NodeId, look: &Look) -> Result<Applied, EventError> {
        let run = self.plan.run;
        let index = self.plan.index(node).ok_or(EventError::UnknownNode { run, node })?;
        let (old, has_answer) = match self.looks.get(&index) {
            Some(known) if known == look => return Ok(Applied::Repeated),
            Some(known) => (known.judging, known.answer.is_some()),
            None => (0, false),
        };
        if look.judging < old || (look.judging == old && has_answer) {
            return Ok(Applied::Late);
        }
        self.looks.insert(index, look.clone());
        self.classify(index);
        Ok(Applied::Changed)
    }

    /// The newest look of each node that was ever asked; for a rollout that is restored.
    pub fn known_looks(&self) -> impl Iterator<Item = (NodeId, Look)> {
        self.looks.iter().map(|(index, look)| (self.plan.nodes[*index].node, look.clone()))
    }

    /// Sorts the nodes of a ring that is judged from now on. O(n log n), once a judging.
    pub(crate) fn begin_judging(&mut self, ring: usize) {
        let is_judged = self.rings[ring].progress.state == RingState::Judging && self.plan.judging.is_some();
        self.rings[ring].judging = is_judged.then(Judging::default);
        if is_judged {
            self.plan.ring_range(ring).for_each(|index| self.classify(index));
        }
    }

    /// Puts a node where its job and its look say, if its ring is judged. O(log n).
    pub(crate) fn classify(&mut self, index: usize) {
        let ring = &mut self.rings[self.plan.nodes[index].ring];
        let Some(judging) = &mut ring.judging else { return };
        for set in [&mut judging.ask, &mut judging.awaited, &mut judging.passed, &mut judging.against] {
            set.remove(&index);
        }
        if !matches!(
            self.jobs[index].phase,
            Phase::Ended(Outcome::Succeeded | Outcome::SucceededWithWarnings)
        ) {
            return;
        }
        let set = match self.looks.get(&index) {
            Some(Look { answer: None, .. }) => &mut judging.awaited,
            Some(Look { judging: of, answer: Some(answer) }) if *of == ring.progress.judgings => {
                match answer.verdict {
                    Verdict::Pass => &mut judging.passed,
                    Verdict::Fail | Verdict::Inconclusive => &mut judging.against,
                }
            }
            _ => &mut judging.ask,
        };
        set.insert(index);
    }

    /// The next page of nodes that are to be asked. Not of a rollout that starts nothing: a node would say that its
    /// request is over, or ask in vain.
    pub(crate) fn asks(&self, now: Moment) -> Vec<Ask> {
        let ring = self.first_not_done();
        let Some(judging) = self.judged_ring(ring).filter(|_| !self.is_done()) else { return Vec::new() };
        if self.is_shut(now.wall) {
            return Vec::new();
        }
        let of = self.rings[ring].progress.judgings;
        let ask = |index: &usize| Ask { node: self.plan.nodes[*index].node, judging: of };
        judging.ask.iter().take(PAGE).map(ask).collect()
    }

    /// What follows for a ring that is judged; `None` while answers are awaited.
    pub(crate) fn judge(&self, ring: usize, now: Moment) -> Option<RingEvent> {
        let Some(judging) = &self.rings[ring].judging else { return Some(RingEvent::Passed) };
        if let Some(index) = self.worst(judging) {
            let Answer { verdict, because } = self.looks.get(&index)?.answer.as_ref()?;
            let because = format!("{}: {because}", self.plan.nodes[index].name);
            return Some(match verdict {
                Verdict::Fail => RingEvent::Failed { because },
                Verdict::Pass | Verdict::Inconclusive => RingEvent::Inconclusive { because },
            });
        }
        if !judging.ask.is_empty() || !judging.awaited.is_empty() {
            return self.judging_left(ring, now)?.is_zero().then(|| self.out_of_time(judging));
        }
        if judging.passed.is_empty() {
            let because = "gates: no node of the ring succeeded, there is nothing to judge".to_owned();
            return Some(RingEvent::Inconclusive { because });
        }
        Some(RingEvent::Passed)
    }

    /// A node where a gate does not hold, else one where it cannot say.
    fn worst(&self, judging: &Judging) -> Option<usize> {
        let fails = |index: &&usize| {
            let answer = self.looks.get(*index).and_then(|look| look.answer.as_ref());
            answer.is_some_and(|answer| answer.verdict == Verdict::Fail)
        };
        judging.against.iter().find(fails).or_else(|| judging.against.first()).copied()
    }

    fn out_of_time(&self, judging: &Judging) -> RingEvent {
        let silent = || judging.awaited.iter().chain(&judging.ask);
        let mut names: Vec<&str> =
            silent().take(NAMED).map(|index| self.plan.nodes[*index].name.as_str()).collect();
        let count = silent().count();
        let more = format!("{} more", count.saturating_sub(NAMED));
        names.extend((count > NAMED).then_some(more.as_str()));
        let minutes = self.plan.judging.unwrap_or_default().as_secs().div_ceil(60);
        let because = format!("gates: no answer within {minutes} minutes from {}", names.join(", "));
        RingEvent::Inconclusive { because }
    }

    /// How long until a judging is out of time.
    pub(crate) fn judging_look(&self, now: Moment) -> Option<Duration> {
        let ring = self.first_not_done();
        self.judged_ring(ring).filter(|_| self.mode == Mode::Going && !self.is_done())?;
        self.judging_left(ring, now)
    }

    fn judging_left(&self, ring: usize, now: Moment) -> Option<Duration> {
        Some(self.plan.judging?.saturating_sub(now.mono.since(self.rings[ring].since?)))
    }

    fn judged_ring(&self, ring: usize) -> Option<&Judging> {
        self.rings.get(ring)?.judging.as_ref()
    }

    /// How many nodes of a ring that is judged have said what; none of another one.
    pub(crate) fn gate_counts(&self, ring: usize) -> Option<GateCounts> {
        let judging = self.judged_ring(ring)?;
        let count = |set: &BTreeSet<usize>| u32::try_from(set.len()).unwrap_or(u32::MAX);
        Some(GateCounts {
            passed: count(&judging.passed),
            awaited: count(&judging.ask) + count(&judging.awaited),
        })
    }
}
