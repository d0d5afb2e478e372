//! A simulated controller, its store, its links and its fleet, on a virtual clock and a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_rollout::invariant::{Witness, check_end};
use fleet_rollout::{
    Applied, Directive, Event, JobEvent, JobFact, LOST_GRACE, Mode, Plan, PlanInput, Rollout,
};
use fleet_types::id::{NodeId, RunId};
use fleet_types::job::Outcome;
use fleet_types::time::Timestamp;

use super::agent::{Agent, Stage};
use super::random::Random;
use super::{at, node, planned};

/// A message stays on a link that is up for no longer than this.
const LONGEST_DELAY: Duration = Duration::from_mins(1);
/// Enough passes for every job to run into every limit; more would be a run that never ends.
const PASSES_TO_THE_END: u32 = 5_000;

/// Everything.
pub struct World {
    random: Random,
    /// How many of a hundred deliveries to nodes get lost, also on a link that seems to be up.
    loss_percent: u64,
    now: Timestamp,
    plan: Plan,
    /// What survives the controller: job records and the run's mode.
    store: BTreeMap<NodeId, JobFact>,
    stored_mode: Mode,
    engine: Rollout,
    witness: Witness,
    agents: BTreeMap<NodeId, Agent>,
    wire: Vec<(Timestamp, Event)>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 1 + u32::try_from(random.below(9)).unwrap();
        let limit = Duration::from_secs(60 + random.below(900));
        let not_after = at(300 + random.below(5400));
        let pairs: Vec<Option<u64>> =
            (0..count).map(|_| if random.chance(60) { Some(random.below(3)) } else { None }).collect();
        let names: Vec<Option<String>> = pairs.iter().map(|p| p.map(|p| format!("pair-{p}"))).collect();
        let plan = Plan::new(PlanInput {
            run: RunId::from_number(seed),
            changes: random.chance(75),
            max_parallel: 1 + u32::try_from(random.below(4)).unwrap(),
            not_before: at(random.below(120)),
            not_after,
            job_deadline: limit + LOST_GRACE,
            nodes: (0..count).zip(&names).map(|(n, pair)| planned(n, pair.as_deref())).collect(),
        })
        .unwrap();
        let agent = |(n, pair)| {
            let id = node(n);
            (id, Agent { id, pair, link: false, journal: None, starts: 0, limit, not_after })
        };
        Self {
            // In every fourth world assignments hardly come through.
            loss_percent: if random.chance(25) { 95 } else { 20 },
            random,
            now: at(0),
            store: plan.nodes().iter().map(|n| (n.node, JobFact::Queued)).collect(),
            stored_mode: Mode::Going,
            engine: Rollout::new(plan.clone()),
            plan,
            witness: Witness::default(),
            agents: (0..count).zip(pairs).map(agent).collect(),
            wire: Vec::new(),
        }
    }

    /// One thing happens.
    pub fn step(&mut self) {
        let id = self.some_agent();
        let seconds = 1 + self.random.below(60);
        match self.random.below(100) {
            0..30 => self.advance(seconds),
            30..55 => self.pass(),
            55..65 => self.say(id),
            65..80 => self.deliver_one(),
            80..90 => self.connect(id),
            90..95 => self.disconnect(id),
            95..97 => self.restart(),
            97 => self.order(&Event::Pause { reason: "looking".to_owned() }),
            98 => self.order(&Event::Resume),
            _ if self.random.chance(30) => self.order(&Event::Cancel { reason: "enough".to_owned() }),
            _ => self.advance(600),
        }
        self.check();
    }

    /// No more accidents: the rollout must finish, whether everyone comes up or nobody ever does.
    pub fn finish(&mut self, everyone_comes_up: bool) {
        let all: Vec<NodeId> = self.agents.keys().copied().collect();
        for id in &all {
            if everyone_comes_up { self.connect(*id) } else { self.disconnect(*id) }
        }
        for _ in 0..PASSES_TO_THE_END {
            if self.engine.is_done() {
                check_end(&self.engine, self.now).unwrap_or_else(|violation| panic!("{violation}"));
                return;
            }
            self.pass();
            for id in &all {
                self.say(*id);
            }
            if everyone_comes_up {
                self.advance(60);
            } else if !self.engine.is_done() && self.engine.wanted(self.now).end.is_empty() {
                // Nothing will happen but the passing of time, and the engine knows when it matters.
                let next = self.engine.next_deadline(self.now).unwrap();
                self.advance(next.since(self.now).as_secs());
            }
            self.check();
        }
        panic!("the run does not end: {:?}", self.engine.summary(self.now));
    }

    /// How the jobs ended, for judging what the seeds reach.
    pub fn outcomes(&self) -> BTreeMap<Outcome, u32> {
        self.engine.summary(self.now).tally.ended
    }

    fn some_agent(&mut self) -> NodeId {
        let ids: Vec<NodeId> = self.agents.keys().copied().collect();
        self.random.pick(&ids)
    }

    fn advance(&mut self, seconds: u64) {
        let target = self.now.plus(Duration::from_secs(seconds));
        while self.now < target {
            self.now = target.min(self.now.plus(Duration::from_secs(20)));
            for agent in self.agents.values_mut() {
                agent.live_until(self.now, &mut self.random);
            }
            let overdue = self.now.minus(LONGEST_DELAY);
            while let Some(at) = self.wire.iter().position(|(sent, _)| *sent <= overdue) {
                let (_, event) = self.wire.swap_remove(at);
                self.on_report(&event);
            }
        }
    }

    /// One pass of the runner: save, apply, deliver; a crash may come between any two.
    fn pass(&mut self) {
        let wanted = self.engine.wanted(self.now);
        assert_eq!(wanted, self.engine.wanted(self.now), "asking again gives the same answer");
        for end in wanted.end {
            if end.outcome == Outcome::Lost {
                assert!(!self.agents[&end.node].is_working(), "{} is lost and working", end.node);
            }
            if self.save_and_apply(&Event::ended(end.node, end.attempt, end.outcome)).is_none() {
                return;
            }
        }
        for offer in wanted.offer {
            if self.save_and_apply(&Event::offered(offer.node, offer.attempt)).is_none() {
                return;
            }
        }
        let directives: Vec<_> = self.engine.directives(self.now).collect();
        for (id, directive) in directives {
            let agent = self.agents.get_mut(&id).unwrap();
            if agent.link && !self.random.chance(self.loss_percent) {
                match directive {
                    Directive::Work { attempt } => agent.on_work(self.now, attempt, &mut self.random),
                    Directive::Stop { attempt } => agent.on_stop(attempt),
                }
                self.say(id);
            }
        }
    }

    /// The node says where its job stands, once or twice, if its link is up.
    fn say(&mut self, id: NodeId) {
        let agent = &self.agents[&id];
        if !agent.link || agent.journal.is_none_or(|entry| entry.acked) {
            return;
        }
        if let Some(event) = agent.report(&mut self.random) {
            let copies = if self.random.chance(20) { 2 } else { 1 };
            self.wire.extend((0..copies).map(|_| (self.now, event.clone())));
        }
    }

    fn deliver_one(&mut self) {
        if !self.wire.is_empty() {
            let at = usize::try_from(self.random.below(self.wire.len() as u64)).unwrap();
            let (_, event) = self.wire.swap_remove(at);
            self.on_report(&event);
        }
    }

    fn on_report(&mut self, event: &Event) {
        let Event::Job { node, what } = event else { panic!("{event:?} is no report") };
        let acked = self.save_and_apply(event).is_some() && !self.random.chance(20);
        let agent = self.agents.get_mut(node).unwrap();
        if let (JobEvent::Ended { .. }, Some(entry)) = (what, &mut agent.journal) {
            entry.acked |= acked && agent.link && matches!(entry.stage, Stage::Finished(_));
        }
    }

    fn connect(&mut self, id: NodeId) {
        if !self.agents[&id].link {
            self.agents.get_mut(&id).unwrap().link = true;
            self.apply(&Event::online(id));
            self.say(id);
        }
    }

    fn disconnect(&mut self, id: NodeId) {
        if self.agents[&id].link {
            self.agents.get_mut(&id).unwrap().link = false;
            self.wire.retain(|(_, event)| !matches!(event, Event::Job { node, .. } if *node == id));
            self.apply(&Event::offline(id));
        }
    }

    fn order(&mut self, order: &Event) {
        // An order that makes no sense now is answered with an error, and nothing has changed.
        let mut next = self.engine.clone();
        if next.apply(self.now, order).is_ok() {
            self.stored_mode = next.mode().clone();
            self.engine = next;
        }
    }

    /// The controller dies and comes back: links and memory are gone, the store is not.
    fn restart(&mut self) {
        self.wire.clear();
        self.agents.values_mut().for_each(|agent| agent.link = false);
        let known = self.store.iter().map(|(id, fact)| (*id, (*fact).into()));
        self.engine = Rollout::restore(self.plan.clone(), self.stored_mode.clone(), self.now, known).unwrap();
    }

    fn apply(&mut self, event: &Event) -> Applied {
        self.engine.apply(self.now, event).unwrap_or_else(|error| panic!("{event}: {error}"))
    }

    /// Saves what the event says, then applies it. `None` when the controller died between the two.
    fn save_and_apply(&mut self, event: &Event) -> Option<Applied> {
        let Event::Job { node, what } = event else { panic!("{event:?} is no fact of a job") };
        let open = !matches!(self.store[node], JobFact::Ended { .. });
        match *what {
            JobEvent::Offered { attempt } => {
                self.store.insert(*node, JobFact::Offered { attempt, at: self.now });
            }
            JobEvent::Ended { attempt, outcome } if open => {
                self.store.insert(*node, JobFact::Ended { attempt, outcome });
            }
            JobEvent::Ended { .. } | JobEvent::Reported { .. } | JobEvent::Online | JobEvent::Offline => {}
        }
        if self.random.chance(2) {
            self.restart();
            return None;
        }
        let applied = self.apply(event);
        self.check();
        Some(applied)
    }

    /// The invariants, after each event.
    fn check(&mut self) {
        self.witness.check(&self.engine).unwrap_or_else(|violation| panic!("{violation}"));
        let known: Vec<_> = self.engine.known_jobs().collect();
        for (id, job) in &known {
            assert_eq!(job.fact, self.store[id], "memory and store say the same of {id}");
        }
        let again = Rollout::restore(
            self.plan.clone(),
            self.stored_mode.clone(),
            self.engine.listening_since(),
            known.iter().copied(),
        );
        assert_eq!(again.as_ref(), Ok(&self.engine), "events and records give the same state");
        let offered: BTreeSet<NodeId> =
            self.engine.wanted(self.now).offer.into_iter().map(|offer| offer.node).collect();
        for (id, job) in &known {
            let goes = self.engine.blocked(*id, self.now).is_empty();
            let should = offered.contains(id) || matches!(job.fact, JobFact::Offered { .. });
            assert_eq!(goes, should, "{id} goes, or there is a reason");
        }
        self.check_fleet();
    }

    /// What is really going on out there, whatever the controller believes.
    fn check_fleet(&self) {
        let working: Vec<&Agent> = self.agents.values().filter(|agent| agent.is_working()).collect();
        assert!(working.len() <= self.plan.max_parallel(), "more nodes work than allowed");
        let pairs: Vec<u64> = working.iter().filter_map(|agent| agent.pair).collect();
        let distinct: BTreeSet<&u64> = pairs.iter().collect();
        assert!(!self.plan.changes() || distinct.len() == pairs.len(), "both of a pair work");
        assert!(self.agents.values().all(|agent| agent.starts <= 1), "a node twice in one attempt");
    }
}
