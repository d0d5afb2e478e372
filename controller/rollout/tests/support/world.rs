//! A simulated controller, its store, its links and its fleet, on virtual clocks and a seed.
//!
//! The controller's part makes the calls that the runner makes: `wanted`, save, `apply`, tell every engine of the
//! holds that changed; `listening_from` after a standstill; `restore` after a death. What a node is sent is worked
//! out from the inbox, as a session does.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use fleet_rollout::invariant::{Witness, check_end};
use fleet_rollout::{
    Applied, Event, Holder, Holds, JobEvent, JobFact, Limits, Look, Mode, Moment, Mono, Place, Plan,
    PlanInput, PlannedNode, Presence, RingEvent, RingProgress, RingStep, Rollout, Scope,
};
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::job::Outcome;
use fleet_types::run::RingState;
use fleet_types::time::Timestamp;

use super::agent::{Agent, Stage, Work};
use super::random::Random;
use super::{at, node};

mod checks;
mod draw;
mod gates;
mod operator;

use draw::{run, run_input, some_limits, with_gates, with_rings};

/// A message stays on a link that is up for no longer than this.
const LONGEST_DELAY: Duration = Duration::from_mins(1);
/// Enough passes for every job to run into every limit; more would be a run that never ends.
const PASSES_TO_THE_END: u32 = 5_000;

/// One run: what is stored of it, and the engine in memory.
struct Run {
    input: PlanInput,
    plan: Plan,
    work: Work,
    stored: BTreeMap<NodeId, JobFact>,
    /// What was taken for a job with its offer.
    stored_places: BTreeMap<NodeId, Vec<Place>>,
    stored_mode: Mode,
    stored_rings: Vec<RingProgress>,
    /// The newest look of each node at the gates of its ring.
    stored_looks: BTreeMap<NodeId, Look>,
    /// When the present soak began, on the true clock.
    soak_began: Option<Duration>,
    engine: Rollout,
    witness: Witness,
}

/// Everything.
pub struct World {
    random: Random,
    /// Draws what is limited and when that changes; none where nothing ever is.
    limiting: Option<Random>,
    /// How many of a hundred deliveries to nodes get lost, also on a link that seems to be up.
    loss_percent: u64,
    /// The true clock, and the controller's monotonic one.
    now: Duration,
    /// How far the controller's wall clock is ahead, in seconds; behind when negative.
    skew: i64,
    runs: BTreeMap<RunId, Run>,
    /// What the store says is taken, and the runner's copy.
    stored_holds: BTreeMap<Place, Holder>,
    holds: Holds,
    limits: Limits,
    /// How many may be in change: more than the limit while there are more from the time before it was lowered.
    allowed: BTreeMap<Scope, usize>,
    /// What each node should have, in the store.
    inbox: BTreeSet<(NodeId, RunId, Attempt)>,
    agents: BTreeMap<NodeId, Agent>,
    wire: Vec<(Duration, RunId, Event)>,
    starts: BTreeMap<(NodeId, RunId), u32>,
    /// What nodes look at, for gates.
    questions: BTreeMap<(NodeId, RunId), gates::Question>,
    /// What happened to rings, for judging what the seeds reach.
    pub ring_events: BTreeSet<String>,
}

fn true_time(now: Duration) -> Timestamp {
    at(now.as_secs())
}

impl World {
    /// A world in which operators limit sites and fleet, or one in which they never do.
    pub fn new(seed: u64, is_limited: bool) -> Self {
        let mut random = Random::new(seed);
        let count = 1 + u32::try_from(random.below(8)).unwrap();
        let pairs: Vec<Option<u64>> =
            (0..count).map(|_| if random.chance(60) { Some(random.below(3)) } else { None }).collect();
        let runs = 1 + random.below(3);
        // Limits are drawn beside the rest, so that a seed is the same world without them.
        let mut limiting = is_limited.then(|| Random::new(!seed));
        let limits = limiting.as_mut().map_or_else(Limits::default, some_limits);
        let sites: Vec<String> = (0..count).map(|n| format!("site-{}", n % 3)).collect();
        let runs = (0..runs).map(|n| {
            let plain = run_input(seed * 4 + n, &pairs, &sites, limits, &mut random);
            run(limiting
                .as_mut()
                .map_or(plain.clone(), |limiting| with_gates(with_rings(plain, limiting), limiting)))
        });
        let runs = runs.collect();
        let says_limits = |n: u64| !(seed + n).is_multiple_of(4);
        let agent = |((n, pair), site): ((u32, Option<u64>), String)| {
            (node(n), Agent::new(node(n), pair, site, says_limits(u64::from(n))))
        };
        Self {
            // In every fourth world assignments hardly come through.
            loss_percent: if random.chance(25) { 95 } else { 20 },
            random,
            limiting,
            now: Duration::ZERO,
            skew: 0,
            runs,
            stored_holds: BTreeMap::new(),
            holds: Holds::default(),
            limits,
            allowed: BTreeMap::new(),
            inbox: BTreeSet::new(),
            agents: (0..count).zip(pairs).zip(sites).map(agent).collect(),
            wire: Vec::new(),
            starts: BTreeMap::new(),
            questions: BTreeMap::new(),
            ring_events: BTreeSet::new(),
        }
    }

    /// One thing happens.
    pub fn step(&mut self) {
        let id = self.some_agent();
        let seconds = 1 + self.random.below(60);
        match self.random.below(100) {
            0..25 => self.advance(seconds),
            25..50 => self.pass(),
            50..60 => self.say(id),
            60..75 => self.deliver_one(),
            75..84 => self.connect(id),
            84..88 => self.disconnect(id),
            88..90 => self.switch(id),
            90 => self.restart(),
            91 => self.stand_still(),
            92 => self.step_wall(),
            93 => self.release(),
            94 if self.random.chance(50) => self.hold_or_release(id),
            96 if self.random.chance(30) => self.cancel(),
            94..99 => self.advance(600),
            _ => self.advance(7_200),
        }
        let acts = self.limiting.as_mut().is_some_and(|limiting| limiting.chance(6));
        if acts {
            self.operate();
        }
        self.check();
    }

    /// No more accidents: every run must finish, whether everyone comes up or nobody ever does.
    pub fn finish(&mut self, everyone_comes_up: bool) {
        let all: Vec<NodeId> = self.agents.keys().copied().collect();
        self.skew = 0;
        for id in &all {
            if self.agents[id].held {
                self.hold_or_release(*id);
            }
            if everyone_comes_up { self.connect(*id) } else { self.disconnect(*id) }
        }
        for _ in 0..PASSES_TO_THE_END {
            if self.runs.values().all(|run| run.engine.is_done()) {
                return self.check_everything_ended(everyone_comes_up);
            }
            self.pass();
            self.let_go_on();
            for id in &all {
                self.say(*id);
            }
            if everyone_comes_up {
                self.advance(60);
            } else {
                // Nothing will happen but the passing of time, and the engines know when it matters.
                let now = self.moment();
                let open = self.runs.values().filter(|run| !run.engine.is_done());
                if let Some(next) = open.filter_map(|run| run.engine.next_look(now)).min() {
                    self.advance(next.as_secs());
                }
            }
            self.check();
        }
        let open = self.runs.values().map(|run| run.engine.summary(self.moment().wall));
        panic!("the runs do not end: {:?}", open.collect::<Vec<_>>());
    }

    /// How the jobs ended, for judging what the seeds reach.
    pub fn outcomes(&self) -> BTreeMap<Outcome, u32> {
        let mut ended = BTreeMap::new();
        for run in self.runs.values() {
            for (outcome, count) in run.engine.summary(self.moment().wall).tally.ended {
                *ended.entry(outcome).or_default() += count;
            }
        }
        ended
    }

    fn check_everything_ended(&mut self, everyone_comes_up: bool) {
        let now = self.moment();
        for run in self.runs.values() {
            check_end(&run.engine, now).unwrap_or_else(|violation| panic!("{violation}"));
        }
        if everyone_comes_up {
            // Lost jobs are answered once their nodes are back: told to stop, they end, and their pairs are free.
            for _ in 0..PASSES_TO_THE_END {
                if self.stored_holds.is_empty() && self.inbox.is_empty() {
                    return;
                }
                for id in self.agents.keys().copied().collect::<Vec<_>>() {
                    self.connect(id);
                    self.say(id);
                }
                self.deliver();
                self.advance(60);
                self.check();
            }
            panic!("held for ever: {:?}, {:?}", self.stored_holds, self.inbox);
        }
    }

    fn moment(&self) -> Moment {
        let ahead = Duration::from_secs(self.skew.unsigned_abs());
        let wall = true_time(self.now);
        let wall = if self.skew < 0 { wall.minus(ahead) } else { wall.plus(ahead) };
        Moment { wall, mono: Mono::new(self.now) }
    }

    fn some_agent(&mut self) -> NodeId {
        let ids: Vec<NodeId> = self.agents.keys().copied().collect();
        self.random.pick(&ids)
    }

    fn some_run(&mut self) -> RunId {
        let ids: Vec<RunId> = self.runs.keys().copied().collect();
        self.random.pick(&ids)
    }

    fn advance(&mut self, seconds: u64) {
        let target = self.now + Duration::from_secs(seconds);
        while self.now < target {
            self.now = target.min(self.now + Duration::from_secs(20));
            self.live();
            let overdue = self.now.saturating_sub(LONGEST_DELAY);
            while let Some(at) = self.wire.iter().position(|(sent, ..)| *sent <= overdue) {
                let (_, run, event) = self.wire.swap_remove(at);
                self.on_report(run, &event);
            }
        }
    }

    /// The nodes go on by themselves.
    fn live(&mut self) {
        for agent in self.agents.values_mut() {
            agent.live_until(self.now, &mut self.random);
            for run in agent.started.drain(..) {
                let fact = self.runs[&run].stored[&agent.id];
                assert!(
                    matches!(fact, JobFact::Offered { .. }),
                    "{} of {run} starts, and is {fact:?}",
                    agent.id
                );
                let starts = self.starts.entry((agent.id, run)).or_default();
                *starts += 1;
                assert_eq!(*starts, 1, "{} starts twice in {run}", agent.id);
            }
        }
    }

    /// One pass of the runner: what ends is saved and applied for every run, then the oldest run takes what is free
    /// first. A crash may come between any two steps.
    fn pass(&mut self) {
        for id in self.runs.keys().copied().collect::<Vec<_>>() {
            let now = self.moment();
            let wanted = self.runs[&id].engine.wanted(now);
            assert_eq!(wanted, self.runs[&id].engine.wanted(now), "asking again gives the same answer");
            for end in wanted.end {
                if end.outcome == Outcome::Lost {
                    let agent = &self.agents[&end.node];
                    assert!(
                        !(agent.link && agent.has_open(id)),
                        "{} has it, is connected, and lost",
                        end.node
                    );
                }
                let event = Event::ended(end.node, end.attempt, end.outcome);
                if self.save_and_apply(id, &event, vec![]).is_none() {
                    return;
                }
            }
        }
        for id in self.runs.keys().copied().collect::<Vec<_>>() {
            let now = self.moment();
            while let Some(step) = self.runs[&id].engine.wanted(now).ring {
                if self.save_ring(id, now, step).is_none() {
                    return;
                }
            }
            for ask in self.runs[&id].engine.wanted(now).ask {
                if self.save_ask(id, ask).is_none() {
                    return;
                }
            }
            for offer in self.runs[&id].engine.wanted(now).offer {
                self.check_ring_order(id, offer.node);
                assert!(!self.agents[&offer.node].held, "{} is held, and offered", offer.node);
                let event = Event::offered(offer.node, offer.attempt);
                if self.save_and_apply(id, &event, offer.places).is_none() {
                    return;
                }
            }
        }
        self.deliver();
        self.ask_and_answer();
    }

    /// What the sessions of connected nodes send from the inbox: assignments, and the word to stop.
    fn deliver(&mut self) {
        for (id, run, attempt) in self.inbox.clone() {
            let run = &self.runs[&run];
            let agent = self.agents.get_mut(&id).unwrap();
            if !agent.link || self.random.chance(self.loss_percent) {
                continue;
            }
            let ended = matches!(run.stored[&id], JobFact::Ended { .. });
            // A held node that never had it must not begin it.
            let unbegun = agent.held && !agent.jobs.contains_key(&run.work.run);
            if ended || unbegun || matches!(run.stored_mode, Mode::Halting { .. }) {
                agent.on_stop(self.now, run.work, attempt);
            } else {
                agent.on_work(self.now, run.work, attempt, &mut self.random);
            }
            self.say(id);
        }
    }

    /// The node says where its jobs stand, once or twice, if its link is up.
    fn say(&mut self, id: NodeId) {
        let agent = &self.agents[&id];
        if !agent.link {
            return;
        }
        for (run, entry) in &agent.jobs {
            if entry.acked {
                continue;
            }
            if let Some(event) = agent.report(self.now, *run, &mut self.random) {
                let copies = if self.random.chance(20) { 2 } else { 1 };
                self.wire.extend((0..copies).map(|_| (self.now, *run, event.clone())));
            }
        }
    }

    fn deliver_one(&mut self) {
        if !self.wire.is_empty() {
            let at = usize::try_from(self.random.below(self.wire.len() as u64)).unwrap();
            let (_, run, event) = self.wire.swap_remove(at);
            self.on_report(run, &event);
        }
    }

    fn on_report(&mut self, run: RunId, event: &Event) {
        let Event::Job { node, what } = event else { panic!("{event:?} is no report") };
        let acked = self.save_and_apply(run, event, vec![]).is_some() && !self.random.chance(20);
        let agent = self.agents.get_mut(node).unwrap();
        if let (JobEvent::Ended { .. }, Some(entry)) = (what, agent.jobs.get_mut(&run)) {
            entry.acked |= acked && agent.link && matches!(entry.stage, Stage::Finished(_));
        }
    }

    fn connect(&mut self, id: NodeId) {
        let agent = self.agents.get_mut(&id).unwrap();
        agent.switch_on(self.now);
        if !agent.link {
            agent.link = true;
            self.tell_all(&Event::presence(id, self.agents[&id].presence()));
            self.say(id);
        }
    }

    fn disconnect(&mut self, id: NodeId) {
        if self.agents[&id].link {
            self.agents.get_mut(&id).unwrap().link = false;
            self.wire.retain(|(_, _, event)| !matches!(event, Event::Job { node, .. } if *node == id));
            self.tell_all(&Event::presence(id, Presence::Offline));
        }
    }

    /// An operator holds a node, or lets it have work again; its link stays.
    fn hold_or_release(&mut self, id: NodeId) {
        let agent = self.agents.get_mut(&id).unwrap();
        agent.held = !agent.held;
        let presence = agent.presence();
        self.tell_all(&Event::presence(id, presence));
    }

    fn switch(&mut self, id: NodeId) {
        if self.agents[&id].off_since.is_some() {
            self.connect(id);
        } else {
            self.agents.get_mut(&id).unwrap().switch_off(self.now);
            self.disconnect(id);
        }
    }

    /// An operator ends a run that has not ended: its record says so, and it is read anew.
    fn cancel(&mut self) {
        let id = self.some_run();
        let run = self.runs.get_mut(&id).unwrap();
        if run.engine.is_done() {
            return;
        }
        run.stored_mode = Mode::Halting { reason: "enough".to_owned() };
        run.read_anew(&self.holds);
    }

    /// An operator releases a node of which they know that it does nothing.
    fn release(&mut self) {
        let idle = |holder: &Holder| self.agents[&holder.node].changing().next().is_none();
        let lost = |holder: &Holder| {
            matches!(
                self.runs[&holder.run].stored[&holder.node],
                JobFact::Ended { outcome: Outcome::Lost, .. }
            )
        };
        let found = self.stored_holds.values().find(|holder| idle(holder) && lost(holder));
        let Some(node) = found.map(|holder| holder.node) else { return };
        let of_node = |holder: &Holder| holder.node == node && lost(holder);
        let places = self.stored_holds.iter().filter(|(_, holder)| of_node(holder));
        for place in places.map(|(place, _)| place.clone()).collect::<Vec<_>>() {
            self.set_hold(&place, None);
        }
    }

    /// The controller's machine is suspended for an hour: links die meanwhile, and the first pass comes before
    /// anybody notices.
    fn stand_still(&mut self) {
        self.wire.clear();
        let target = self.now + Duration::from_hours(1);
        while self.now < target {
            self.now += Duration::from_secs(20);
            self.live();
        }
        for run in self.runs.values_mut() {
            run.engine.listening_from(Mono::new(self.now));
        }
        let now = self.moment();
        for run in self.runs.values() {
            let lost = run.engine.wanted(now).end.into_iter().find(|end| end.outcome == Outcome::Lost);
            assert_eq!(lost, None, "the silence was the controller's own");
        }
        self.pass();
        for id in self.agents.keys().copied().collect::<Vec<_>>() {
            self.disconnect(id);
        }
    }

    /// Somebody sets the controller's wall clock, by up to six hours; or sets it right.
    fn step_wall(&mut self) {
        let by = i64::try_from(self.random.below(43_200)).unwrap() - 21_600;
        self.skew = if self.random.chance(50) { by } else { 0 };
    }

    /// The controller dies and comes back on a right clock: links and memory are gone, the store is not.
    fn restart(&mut self) {
        self.wire.clear();
        self.agents.values_mut().for_each(|agent| agent.link = false);
        self.skew = 0;
        let now = self.moment();
        self.holds = Holds::default();
        self.holds.set_all(self.stored_holds.clone());
        // An operator may have set other limits.
        if let Some(limiting) = &mut self.limiting
            && limiting.chance(30)
        {
            self.limits = some_limits(limiting);
            self.take_places();
        }
        for run in self.runs.values_mut() {
            run.input.limits = self.limits;
            run.plan = Plan::new(run.input.clone()).unwrap();
            let known = run.stored.iter().map(|(id, fact)| (*id, (*fact).into()));
            let held = held(&run.plan, &self.holds);
            let rings: Vec<_> = run.stored_rings.iter().map(|ring| (ring.clone(), now.mono)).collect();
            let mode = run.stored_mode.clone();
            run.engine = Rollout::restore(run.plan.clone(), mode, now, now.mono, known, held, rings).unwrap();
            Run::tell_looks(&mut run.engine, &run.stored_looks, now);
        }
        let over = |(scope, limit): (Scope, usize)| (scope.clone(), limit.max(self.held_of(&scope)));
        self.allowed = self.limited().into_iter().map(over).collect();
    }

    /// Sites and fleet with their limits.
    fn limited(&self) -> Vec<(Scope, usize)> {
        let count = |limit: NonZeroU32| usize::try_from(limit.get()).unwrap();
        let sites: BTreeSet<&String> = self.agents.values().map(|agent| &agent.site).collect();
        let sites =
            sites.into_iter().filter_map(|site| Some((Scope::Site(site.clone()), count(self.limits.site?))));
        sites.chain(self.limits.fleet.map(|limit| (Scope::Fleet, count(limit)))).collect()
    }

    fn held_of(&self, scope: &Scope) -> usize {
        self.stored_holds.keys().filter(|place| place.scope == *scope).count()
    }

    fn tell_all(&mut self, event: &Event) {
        let now = self.moment();
        for run in self.runs.values_mut() {
            if let Event::Job { node, .. } = event
                && !run.stored.contains_key(node)
            {
                continue;
            }
            run.engine.apply(now, event).unwrap_or_else(|error| panic!("{event}: {error}"));
        }
    }

    /// Writes a hold, and tells every engine.
    fn set_hold(&mut self, place: &Place, holder: Option<Holder>) {
        self.store_hold(place, holder.as_ref());
        if self.holds.set(place, holder.clone()) {
            self.tell_all(&Event::Held { place: place.clone(), holder });
        }
    }

    fn store_hold(&mut self, place: &Place, holder: Option<&Holder>) {
        match holder {
            Some(holder) => {
                let before = self.stored_holds.insert(place.clone(), holder.clone());
                assert_eq!(before, None, "{place:?} is taken twice");
            }
            None => drop(self.stored_holds.remove(place)),
        }
    }

    /// Saves what the event says with everything that belongs into the same commit, then applies it. `None` when
    /// the controller died between the two.
    fn save_and_apply(&mut self, id: RunId, event: &Event, places: Vec<Place>) -> Option<Applied> {
        let Event::Job { node, what } = event else { panic!("{event:?} is no fact of a job") };
        let now = self.moment();
        let run = self.runs.get_mut(&id).unwrap();
        let open = !matches!(run.stored[node], JobFact::Ended { .. });
        let mut holds = Vec::new();
        match *what {
            JobEvent::Offered { attempt } => {
                assert!(run.work.changes || places.is_empty(), "a run that reads takes {places:?}");
                run.stored.insert(*node, JobFact::Offered { attempt, at: now.wall });
                run.stored_places.insert(*node, places.clone());
                self.inbox.insert((*node, id, attempt));
                let holder = Holder { run: id, node: *node, name: format!("fw-{node}"), attempt };
                holds.extend(places.into_iter().map(|place| (place, Some(holder.clone()))));
            }
            JobEvent::Ended { attempt, outcome } => {
                if open {
                    run.stored.insert(*node, JobFact::Ended { attempt, outcome });
                }
                // Nobody knows what a lost node is doing: what it holds stays taken and it is told to stop, until it
                // has answered.
                if outcome != Outcome::Lost {
                    self.inbox.remove(&(*node, id, attempt));
                    let own = |holder: &Holder| holder.run == id && holder.node == *node;
                    let places = run.stored_places.get(node).into_iter().flatten().cloned();
                    let places = places.filter(|place| self.stored_holds.get(place).is_some_and(own));
                    holds.extend(places.map(|place| (place, None)));
                }
            }
            JobEvent::Reported { .. } | JobEvent::Presence(_) => {}
        }
        if self.random.chance(2) {
            for (place, holder) in holds {
                self.store_hold(&place, holder.as_ref());
            }
            self.restart();
            return None;
        }
        let engine = &mut self.runs.get_mut(&id).unwrap().engine;
        let applied = engine.apply(now, event).unwrap_or_else(|error| panic!("{event}: {error}"));
        for (place, holder) in holds {
            self.set_hold(&place, holder);
        }
        self.check();
        Some(applied)
    }
}

/// What is taken of what a plan is bound by.
fn held(plan: &Plan, holds: &Holds) -> Vec<(Place, Holder)> {
    let held = |scope: Scope| holds.of(&scope).map(|(place, by)| (place, by.clone())).collect::<Vec<_>>();
    plan.scopes().flat_map(held).collect()
}
