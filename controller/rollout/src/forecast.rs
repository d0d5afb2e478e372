//! When each node of a rollout will be done, if nothing fails: the engine itself, run ahead on a clock of its own.
//!
//! It says what [`Rollout::wanted`] would say then, so that order, pairs, limits, soaks and rings can't be read in two ways.
//! Must never be taken for a promise: every job is taken to last as long as `takes` says from its offer, or from now where it is under way,
//! and to succeed; gates hold wherever
//! they are asked, after `looks`; who is offline stays offline; what other runs hold stays held. An operator who has to let a ring go is taken to do so
//! at once, and the ring says that it waits for one. Called by the controller's services.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use fleet_types::id::NodeId;
use fleet_types::job::Outcome;
use fleet_types::run::{RingState, Verdict};

use crate::event::{Event, EventError, Mode, Reported};
use crate::holds::{Holder, Place, Scope};
use crate::judging::{Answer, Ask, Look};
use crate::moment::Moment;
use crate::ring::RingEvent;
use crate::state::Rollout;

/// Nobody plans further ahead: one signature covers a rollout for at most 35 days (REQUIREMENTS, O01).
pub const HORIZON: Duration = Duration::from_hours(35 * 24);
/// The shortest time that goes by between two looks, so that a forecast ends.
const STEP: Duration = Duration::from_secs(1);

/// When what will be done, counted from now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forecast {
    /// By node. One that is not there does not get done within [`HORIZON`], as far as is known now.
    pub done: BTreeMap<NodeId, Duration>,
    /// By ring.
    pub rings: Vec<RingForecast>,
}

/// When a ring will begin and end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RingForecast {
    /// When its first node may go; nothing for one that has begun.
    pub begins: Option<Duration>,
    /// When the next one may begin, or, of the last ring, when its nodes are done. None: not as far as is known now.
    pub ends: Option<Duration>,
    /// An operator has to let the next one begin, and is taken to do so at once.
    pub waits_for_operator: bool,
}

impl Rollout {
    /// Runs the rollout ahead from `now`; `takes` says how long a job lasts on a node, `looks` how long a node looks at the gates
    /// of its ring.
    ///
    /// # Errors
    /// When the engine does not take what it wanted itself: a fault of the engine.
    pub fn forecast(
        &self,
        now: Moment,
        takes: impl Fn(NodeId) -> Duration,
        looks: Duration,
    ) -> Result<Forecast, EventError> {
        let mut ahead = Ahead::new(self.clone(), now, &takes, looks);
        if self.mode == Mode::Going {
            ahead.run(&takes, looks)?;
        }
        Ok(ahead.forecast)
    }
}

struct Ahead {
    rollout: Rollout,
    began: Moment,
    now: Moment,
    /// When whose job ends, or whose answer for a judging comes; the next one first.
    ends: BinaryHeap<Reverse<(Duration, NodeId, Option<u32>)>>,
    forecast: Forecast,
}

impl Ahead {
    fn new(mut rollout: Rollout, now: Moment, takes: impl Fn(NodeId) -> Duration, looks: Duration) -> Self {
        rollout.listening_from(now.mono);
        let node = |index: &usize| rollout.plan.nodes[*index].node;
        let jobs = rollout.in_flight.iter().map(node).map(|node| Reverse((takes(node), node, None)));
        let awaited = rollout.looks.iter().filter(|(_, look)| look.answer.is_none());
        let answers = awaited.map(|(index, look)| Reverse((looks, node(index), Some(look.judging))));
        let ends = jobs.chain(answers).collect();
        let rings = vec![RingForecast::default(); rollout.rings.len()];
        let forecast = Forecast { done: BTreeMap::new(), rings };
        Self { rollout, began: now, now, ends, forecast }
    }

    fn gone(&self) -> Duration {
        self.now.mono.since(self.began.mono)
    }

    fn apply(&mut self, event: &Event) -> Result<(), EventError> {
        self.rollout.apply(self.now, event).map(drop)
    }

    fn run(&mut self, takes: impl Fn(NodeId) -> Duration, looks: Duration) -> Result<(), EventError> {
        self.note_rings();
        loop {
            while self.act(&takes, looks)? {
                self.note_rings();
            }
            if self.rollout.is_done() || self.gone() >= HORIZON {
                return Ok(());
            }
            let gone = self.gone();
            let end = self.ends.peek().map(|Reverse((at, ..))| at.saturating_sub(gone));
            let look = self.rollout.next_look(self.now).map(|look| look.max(STEP));
            // Nothing comes any more of which the engine knows.
            let Some(pause) = [end, look].into_iter().flatten().min() else { return Ok(()) };
            self.now = Moment { wall: self.now.wall.plus(pause), mono: self.now.mono.plus(pause) };
            self.hear()?;
            self.note_rings();
        }
    }

    /// Does what is wanted now; was there anything?
    fn act(&mut self, takes: impl Fn(NodeId) -> Duration, looks: Duration) -> Result<bool, EventError> {
        let wanted = self.rollout.wanted(self.now);
        if let Some(step) = wanted.ring {
            self.apply(&Event::Ring { ring: step.ring, what: step.event })?;
            return Ok(true);
        }
        let gone = self.gone();
        let offered = !wanted.offer.is_empty() || !wanted.ask.is_empty();
        for Ask { node, judging } in wanted.ask {
            self.apply(&Event::Looked { node, look: Look { judging, answer: None } })?;
            self.ends.push(Reverse((gone + looks, node, Some(judging))));
        }
        for offer in wanted.offer {
            let holder = Holder {
                run: self.rollout.plan.run,
                node: offer.node,
                name: String::new(),
                attempt: offer.attempt,
            };
            for place in offer.places {
                self.apply(&Event::Held { place, holder: Some(holder.clone()) })?;
            }
            self.apply(&Event::offered(offer.node, offer.attempt))?;
            // A node that says that it works is never lost, however long it takes.
            self.apply(&Event::reported(offer.node, offer.attempt, Reported::Running, None))?;
            self.ends.push(Reverse((gone + takes(offer.node), offer.node, None)));
        }
        if offered {
            return Ok(true);
        }
        let ended = !wanted.end.is_empty();
        for end in wanted.end {
            self.apply(&Event::ended(end.node, end.attempt, end.outcome))?;
        }
        Ok(ended || self.let_go()?)
    }

    /// An operator lets the ring go that waits for one.
    fn let_go(&mut self) -> Result<bool, EventError> {
        let waits =
            self.rollout.rings.iter().position(|ring| ring.progress.state == RingState::AwaitingApproval);
        let Some(ring) = waits else { return Ok(false) };
        self.forecast.rings[ring].waits_for_operator = true;
        self.apply(&Event::Ring { ring, what: RingEvent::Approved })?;
        Ok(true)
    }

    /// Jobs whose time has come succeed, and what they held is free; gates that were looked at hold.
    fn hear(&mut self) -> Result<(), EventError> {
        let gone = self.gone();
        while let Some(Reverse((at, node, look))) = self.ends.peek().copied()
            && at <= gone
        {
            self.ends.pop();
            if let Some(judging) = look {
                let answer = Some(Answer { verdict: Verdict::Pass, because: String::new() });
                self.apply(&Event::Looked { node, look: Look { judging, answer } })?;
                continue;
            }
            let Some(index) = self.rollout.plan.index(node) else { continue };
            let attempt = self.rollout.jobs[index].attempt;
            self.apply(&Event::ended(node, attempt, Outcome::Succeeded))?;
            for place in self.held_by(index) {
                self.apply(&Event::Held { place, holder: None })?;
            }
            self.forecast.done.insert(node, at);
        }
        Ok(())
    }

    /// What is held for the job of a node.
    fn held_by(&self, index: usize) -> Vec<Place> {
        let plan = &self.rollout.plan;
        let planned = &plan.nodes[index];
        let is_own = |holder: &Holder| holder.run == plan.run && holder.node == planned.node;
        let pair = plan.pairs.of[index].and_then(|pair| self.rollout.pairs[pair].held.as_ref());
        let pair = pair.filter(|holder| is_own(holder)).and(planned.pair.clone()).map(Place::pair);
        let site = plan.sites.of[index].into_iter().flat_map(|site| {
            let numbers = self.rollout.ready.taken(Some(site)).of(is_own);
            numbers.map(|number| Place { scope: Scope::Site(planned.site.clone()), number })
        });
        let fleet = self.rollout.fleet.of(is_own).map(|number| Place { scope: Scope::Fleet, number });
        pair.into_iter().chain(site).chain(fleet).collect()
    }

    fn note_rings(&mut self) {
        let gone = self.gone();
        let states: Vec<RingState> = self.rollout.rings(self.now).map(|ring| ring.state).collect();
        for (state, ring) in states.into_iter().zip(&mut self.forecast.rings) {
            if state != RingState::Pending {
                ring.begins.get_or_insert(gone);
            }
            if state == RingState::Done {
                ring.ends.get_or_insert(gone);
            }
        }
    }
}
