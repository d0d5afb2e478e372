//! What should be so now. Worked out from the state each time; asking again gives the same answer.
//!
//! Decisions made here, with their reasons:
//! - Only nodes that are online are offered their job. An offline node stays queued, takes no slot, and
//!   goes when it comes back or ends as `expired` with the run's last start.
//! - A node in flight that goes offline keeps its slot until it answers or is lost, and what it holds of pair, site
//!   and fleet for longer: until it answers or an operator releases it, because a lost node may still be changing.
//! - An offer that was never answered ends as `lost`, not `expired`: whether the node began is not known.
//!   The node itself says `expired` when it receives an offer too late.
//! - A job that waits keeps its slot until there is a signed `Proceed`, because the node goes on by itself.
//!
//! Must never change the state. Called by the controller's runner.

use fleet_types::id::{Attempt, NodeId};
use fleet_types::job::{Outcome, Phase};
use fleet_types::time::Timestamp;

use crate::event::Mode;
use crate::holds::{Place, Scope};
use crate::judging::Ask;
use crate::moment::Moment;
use crate::ring::RingStep;
use crate::state::{Job, Rollout};

/// At most this many offers, and as many ends, in one answer. Each is up to five writes (record, inbox, pair, site,
/// fleet), so that a page fits one commit of 1,024 operations (DESIGN, "Store").
pub const PAGE: usize = 200;

/// What should be so now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Save this step of a ring, apply it at the same moment, and ask again: what it allows is offered then.
    pub ring: Option<RingStep>,
    /// Save these offers, apply `Offered`, then deliver. At most [`PAGE`].
    pub offer: Vec<Offer>,
    /// Save that these nodes are asked for the gates of their ring, apply it, then deliver. At most [`PAGE`].
    pub ask: Vec<Ask>,
    /// Save these ends, apply `Ended`. At most [`PAGE`].
    pub end: Vec<End>,
    /// In flight and to be asked to stop, until their end is reported. At most `max_parallel`.
    pub cancel: Vec<NodeId>,
}

impl Wanted {
    /// Is nothing to be done?
    pub fn is_empty(&self) -> bool {
        self.ring.is_none()
            && self.offer.is_empty()
            && self.ask.is_empty()
            && self.end.is_empty()
            && self.cancel.is_empty()
    }
}

/// A job to be offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// To whom.
    pub node: NodeId,
    /// Which try.
    pub attempt: Attempt,
    /// What to take for it in the same commit: each must be free.
    pub places: Vec<Place>,
}

/// A job to be ended by the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Whose.
    pub node: NodeId,
    /// Which try.
    pub attempt: Attempt,
    /// `expired`, `cancelled` or `lost`.
    pub outcome: Outcome,
    /// Why, in words.
    pub reason: String,
}

/// A node that may go, and the numbers of the places that it takes.
pub(crate) struct Turn {
    pub(crate) index: usize,
    site: Option<u32>,
    fleet: Option<u32>,
}

impl Rollout {
    /// What should be so at `now`. After its parts were saved and applied, ask again: answers are pages.
    pub fn wanted(&self, now: Moment) -> Wanted {
        let ring = self.ring_step(now);
        let offer = if self.is_shut(now.wall) {
            Vec::new()
        } else {
            self.in_turn().map(|turn| self.offer(&turn)).collect()
        };
        let cancel = match self.mode {
            Mode::Halting { .. } => self.in_flight.iter().map(|index| self.plan.nodes[*index].node).collect(),
            Mode::Going | Mode::Paused { .. } => Vec::new(),
        };
        Wanted { ring, offer, ask: self.asks(now), end: self.ends(now), cancel }
    }

    /// Slots that nobody holds.
    pub(crate) fn free_slots(&self) -> usize {
        self.plan.max_parallel.saturating_sub(self.in_flight.len())
    }

    /// The next page of nodes that may go, as far as presence, pairs, limits, rings and the cap say.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = Turn> {
        let mut fleet = self.fleet.numbers();
        let at_most = self.free_slots().min(self.fleet.free()).min(PAGE);
        let turns = self.ready.in_turn(self.begun()).take(at_most);
        turns.map(move |(index, site)| Turn { index, site, fleet: fleet.next() })
    }

    pub(crate) fn offer(&self, turn: &Turn) -> Offer {
        let planned = &self.plan.nodes[turn.index];
        let pair = planned.pair.clone().filter(|_| self.plan.changes).map(Place::pair);
        let site = turn.site.map(|number| Place { scope: Scope::Site(planned.site.clone()), number });
        let fleet = turn.fleet.map(|number| Place { scope: Scope::Fleet, number });
        let places = pair.into_iter().chain(site).chain(fleet).collect();
        Offer { node: planned.node, attempt: self.jobs[turn.index].attempt, places }
    }

    /// Lost ones first: they give slots back.
    fn ends(&self, now: Moment) -> Vec<End> {
        let lost = self.lost(now).map(|index| {
            let reason = lost_reason(&self.jobs[index], now);
            self.end(index, Outcome::Lost, reason)
        });
        let queued = match &self.mode {
            Mode::Halting { reason } => Some((Outcome::Cancelled, format!("the run was ended: {reason}"))),
            Mode::Going | Mode::Paused { .. } => self.starts_over(now.wall),
        };
        let never_began = queued.into_iter().flat_map(|(outcome, reason)| {
            self.queued.iter().map(move |index| {
                let offline =
                    if self.jobs[*index].presence.is_linked() { "" } else { "; the node is offline" };
                self.end(*index, outcome, format!("{reason}{offline}"))
            })
        });
        lost.chain(never_began).take(PAGE).collect()
    }

    /// How and why queued jobs end although the run goes on, if they do.
    fn starts_over(&self, now: Timestamp) -> Option<(Outcome, String)> {
        if let Some(reason) = self.failed_too_often() {
            return Some((Outcome::Cancelled, format!("not started: {reason}")));
        }
        let last_start = self.plan.not_after;
        (now >= last_start)
            .then(|| (Outcome::Expired, format!("not started before the last start {last_start}")))
    }

    fn end(&self, index: usize, outcome: Outcome, reason: String) -> End {
        End { node: self.plan.nodes[index].node, attempt: self.jobs[index].attempt, outcome, reason }
    }
}

fn lost_reason(job: &Job, now: Moment) -> String {
    let silent = job.contact.map_or(0, |contact| now.mono.since(contact.heard).as_secs());
    match (job.phase, job.contact) {
        (Phase::Offered, Some(contact)) => format!(
            "no answer since it was offered at {}, {silent} s without contact; whether it began is not known",
            contact.offered
        ),
        _ => format!("nothing heard for {silent} s, longer than it may take; how it ended is not known"),
    }
}
