//! The rings of a rollout: which step is wanted next, and how far a ring has soaked.
//!
//! A soak is measured on the monotonic clock, as time that this process has witnessed, and what was witnessed is saved
//! every [`SOAK_SAVED_EVERY`]. A step of the wall clock therefore changes nothing, a restart of the controller never
//! shortens a soak and makes it longer by the time that nobody watched and at most that period; docs/adr/0037.
//! Must never decide which nodes go; `rules` does. Called by this crate, and for showing.

use std::ops::Range;
use std::time::Duration;

use fleet_types::job::Outcome;
use fleet_types::job::Phase;
use fleet_types::run::{RingState, Verdict};

use crate::event::{Applied, EventError, Mode};
use crate::judging::{GateCounts, Judging};
use crate::moment::{Moment, Mono};
use crate::ring::{RingCounts, RingEvent, RingPlan, RingProgress, RingStep, ring_step};
use crate::rules::FAILED;
use crate::state::{Job, Rollout};

/// How much of a soak a restart may cost. One small write a minute while a ring soaks; a controller that dies more
/// often than that does no soaking that anybody could trust.
pub const SOAK_SAVED_EVERY: Duration = Duration::from_mins(1);

/// One ring as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) progress: RingProgress,
    /// From when time counts that is not saved yet. Present exactly while it soaks or is judged.
    pub(crate) since: Option<Mono>,
    pub(crate) counts: RingCounts,
    /// Present exactly while its gates are asked.
    pub(crate) judging: Option<Judging>,
}

impl Ring {
    pub(crate) const fn new(progress: RingProgress, since: Mono) -> Self {
        let runs = matches!(progress.state, RingState::Soaking | RingState::Judging);
        let since = if runs { Some(since) } else { None };
        let counts = RingCounts { in_flight: 0, ended: 0, succeeded: 0, failed: 0 };
        Self { progress, since, counts, judging: None }
    }

    /// Counts a job in (`true`) or out.
    pub(crate) fn count(&mut self, job: &Job, is_in: bool) {
        let change = |count: &mut u32| *count = if is_in { *count + 1 } else { *count - 1 };
        if job.in_flight() {
            change(&mut self.counts.in_flight);
        }
        if let Phase::Ended(outcome) = job.phase {
            change(&mut self.counts.ended);
            if matches!(outcome, Outcome::Succeeded | Outcome::SucceededWithWarnings) {
                change(&mut self.counts.succeeded);
            }
            if FAILED.contains(&outcome) {
                change(&mut self.counts.failed);
            }
        }
    }
}

/// A ring for whoever shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingStatus<'a> {
    /// What is asked of it.
    pub plan: &'a RingPlan,
    /// Where it stands.
    pub state: RingState,
    /// How long it has soaked.
    pub soaked: Duration,
    /// How many of its nodes are where.
    pub counts: RingCounts,
    /// Why it halted.
    pub because: &'a str,
    /// What its gates said last.
    pub verdict: Option<Verdict>,
    /// How many of its nodes have said what, while its gates are asked.
    pub gates: Option<GateCounts>,
}

impl Rollout {
    /// The rings in order.
    pub fn rings(&self, now: Moment) -> impl Iterator<Item = RingStatus<'_>> {
        self.plan.rings.iter().zip(&self.rings).enumerate().map(move |(number, (plan, ring))| RingStatus {
            plan,
            // Nothing comes after the last ring that it would have to wait for: it is done with its last node.
            state: match ring.progress.state {
                RingState::Open if self.is_last(number) && ring.counts.ended == plan.nodes => RingState::Done,
                state => state,
            },
            soaked: self.soaked(number, now),
            counts: ring.counts,
            because: &ring.progress.because,
            verdict: ring.progress.verdict,
            gates: self.gate_counts(number),
        })
    }

    /// What is stored of the rings and, of one that soaks, from when its time counts; for [`Rollout::restore`].
    pub fn known_rings(&self) -> impl Iterator<Item = (RingProgress, Mono)> {
        self.rings.iter().map(|ring| (ring.progress.clone(), ring.since.unwrap_or_default()))
    }

    /// The next step of a ring, if one is due. A halted rollout takes none, and neither does one that ends.
    pub fn ring_step(&self, now: Moment) -> Option<RingStep> {
        let is_halted = self.rings.iter().any(|ring| ring.progress.state == RingState::Halted);
        if self.mode != Mode::Going || self.is_done() || is_halted {
            return None;
        }
        let stop = self.must_halt().map(|(ring, because)| (ring, RingEvent::Stopped { because }));
        let (ring, event) = stop.or_else(|| self.next_event(now))?;
        let progress = self.progress_after(ring, &event, now)?;
        Some(RingStep { ring, event, progress })
    }

    /// Of the first ring that is not done.
    fn next_event(&self, now: Moment) -> Option<(usize, RingEvent)> {
        let ring = self.first_not_done();
        let Ring { progress, counts, since, .. } = self.rings.get(ring)?;
        let plan = &self.plan.rings[ring];
        let event = match progress.state {
            RingState::Pending => RingEvent::Opened,
            RingState::Open if self.is_last(ring) => return None,
            RingState::Open => {
                let is_over = plan.goes_on && counts.ended == plan.nodes;
                let enough = counts.succeeded + progress.excused >= plan.needed;
                (enough || is_over).then_some(RingEvent::Enough)?
            }
            RingState::Soaking if self.soaked(ring, now) >= plan.soak => RingEvent::Soaked,
            RingState::Soaking => {
                let unsaved = now.mono.since((*since)?);
                (unsaved >= SOAK_SAVED_EVERY).then_some(RingEvent::SoakNoted)?
            }
            RingState::Judging => self.judge(ring, now)?,
            RingState::AwaitingApproval => (!plan.is_manual).then_some(RingEvent::Approved)?,
            RingState::Done | RingState::Halted => return None,
        };
        Some((ring, event))
    }

    /// What is to be stored when `event` happens to a ring; `None` where it cannot.
    pub fn progress_after(&self, ring: usize, event: &RingEvent, now: Moment) -> Option<RingProgress> {
        let Ring { progress, counts, .. } = self.rings.get(ring)?;
        let state = ring_step(progress.state, event)?;
        // As it is stored, in whole milliseconds: memory and store say the same, and a soak is never the shorter for it.
        let soaked = self.soaked(ring, now);
        let soaked =
            soaked.saturating_sub(Duration::from_nanos(u64::from(soaked.subsec_nanos() % 1_000_000)));
        let mut after = RingProgress { state, soaked, ..progress.clone() };
        match event {
            RingEvent::Stopped { because } => after.because.clone_from(because),
            RingEvent::Soaked if self.plan.judging.is_some() => after.judgings += 1,
            RingEvent::Passed => after.verdict = self.plan.judging.map(|_| Verdict::Pass),
            RingEvent::Failed { because } => {
                after.because.clone_from(because);
                after.verdict = Some(Verdict::Fail);
            }
            RingEvent::Inconclusive { because } => {
                after.because.clone_from(because);
                after.verdict = Some(Verdict::Inconclusive);
            }
            RingEvent::Resumed => {
                // It soaks and is judged anew: what was healthy before it halted was not.
                after.soaked = Duration::ZERO;
                after.because.clear();
                after.verdict = None;
                after.excused_failed = counts.failed;
                after.excused = counts.ended - counts.succeeded;
            }
            _ => {}
        }
        Some(after)
    }

    pub(crate) fn on_ring(
        &mut self,
        now: Moment,
        ring: usize,
        event: &RingEvent,
    ) -> Result<Applied, EventError> {
        let refusal = || EventError::Ring {
            run: self.plan.run,
            ring,
            state: self.rings.get(ring).map(|ring| ring.progress.state),
            event: event.clone(),
        };
        let progress = self.progress_after(ring, event, now).ok_or_else(refusal)?;
        let counts = self.rings[ring].counts;
        self.rings[ring] = Ring { counts, ..Ring::new(progress, now.mono) };
        self.begin_judging(ring);
        Ok(Applied::Changed)
    }

    /// How long a ring has soaked at `now`.
    fn soaked(&self, ring: usize, now: Moment) -> Duration {
        let Ring { progress, since, .. } = &self.rings[ring];
        let since = since.filter(|_| progress.state == RingState::Soaking);
        progress.soaked + since.map_or(Duration::ZERO, |since| now.mono.since(since))
    }

    /// How long until a soak is over or is to be saved.
    pub(crate) fn soak_look(&self, now: Moment) -> Option<Duration> {
        let ring = self.first_not_done();
        let Ring { progress, since, .. } = self.rings.get(ring)?;
        let soaks = progress.state == RingState::Soaking && self.mode == Mode::Going && !self.is_done();
        let since = since.filter(|_| soaks)?;
        let left = self.plan.rings[ring].soak.saturating_sub(self.soaked(ring, now));
        Some(left.min(SOAK_SAVED_EVERY.saturating_sub(now.mono.since(since))))
    }

    /// Too many of a ring have failed, or too few can still succeed.
    fn too_many_failed(&self, ring: usize) -> Option<String> {
        let (plan, Ring { progress, counts, .. }) = (&self.plan.rings[ring], &self.rings[ring]);
        if plan.goes_on {
            return None;
        }
        let (failed, nodes) = (counts.failed - progress.excused_failed.min(counts.failed), plan.nodes);
        if let Some(may) = plan.may_fail.filter(|may| failed > *may) {
            return Some(format!("{failed} of {nodes} nodes failed, {may} may"));
        }
        let can = nodes - (counts.ended - counts.succeeded).saturating_sub(progress.excused);
        let excused =
            if progress.excused == 0 { String::new() } else { format!(", {} excused", progress.excused) };
        (can < plan.needed)
            .then(|| format!("{can} of {nodes} nodes can still succeed, {} must{excused}", plan.needed))
    }

    /// The ring that halted, or must, with its name and why: nothing starts from the failure on, and not only from when
    /// that was saved.
    pub(crate) fn halted(&self) -> Option<(&str, String)> {
        let halted = self.rings.iter().position(|ring| ring.progress.state == RingState::Halted);
        let halted = halted.map(|ring| (ring, self.rings[ring].progress.because.clone()));
        let (ring, because) = halted.or_else(|| self.must_halt())?;
        Some((&self.plan.rings[ring].name, because))
    }

    /// The first ring that must halt, and why.
    fn must_halt(&self) -> Option<(usize, String)> {
        let begun = |ring: &usize| self.rings[*ring].progress.state != RingState::Pending;
        (0..self.rings.len()).filter(begun).find_map(|ring| Some((ring, self.too_many_failed(ring)?)))
    }

    /// The number of the first ring that is not done; that of rings where all are.
    pub(crate) fn first_not_done(&self) -> usize {
        let done = |ring: &Ring| ring.progress.state == RingState::Done;
        self.rings.iter().position(|ring| !done(ring)).unwrap_or(self.rings.len())
    }

    /// May nodes of this ring begin? Those of a ring that is done may, too: they were offline, or had no slot.
    pub(crate) fn is_begun(&self, ring: usize) -> bool {
        ring <= self.first_not_done() && self.rings[ring].progress.state != RingState::Pending
    }

    /// Free slots of a ring.
    pub(crate) fn ring_slots(&self, ring: usize) -> usize {
        let left = self.plan.rings[ring].at_once.saturating_sub(self.rings[ring].counts.in_flight);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// The rings that have begun: where their nodes lie in the plan, and how many of each may begin now.
    pub(crate) fn begun(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let begun = (0..self.rings.len()).take_while(|ring| self.is_begun(*ring));
        begun.map(|ring| (self.plan.ring_range(ring), self.ring_slots(ring)))
    }

    fn is_last(&self, ring: usize) -> bool {
        ring + 1 == self.rings.len()
    }
}
