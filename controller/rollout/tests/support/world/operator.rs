//! What operators do with rollouts, and what is stored of rings.

use super::*;

impl Run {
    /// Its record was changed: it is read anew in the same process.
    pub(super) fn read_anew(&mut self, holds: &Holds) {
        let (anchor, since) = (self.engine.anchor(), self.engine.listening_since());
        let known: Vec<_> = self.engine.known_jobs().collect();
        let rings: Vec<_> = self.engine.known_rings().collect();
        let (plan, mode, held) = (self.plan.clone(), self.stored_mode.clone(), held(&self.plan, holds));
        self.engine = Rollout::restore(plan, mode, anchor, since, known, held, rings).unwrap();
        Self::tell_looks(&mut self.engine, &self.stored_looks, anchor);
    }
}

impl World {
    /// An operator pauses a rollout, lets it go on, lets the next ring begin, or excuses what has failed.
    pub(super) fn operate(&mut self) {
        let id = self.some_run_of_operator();
        let run = self.runs.get_mut(&id).unwrap();
        match run.stored_mode {
            Mode::Going if self.limiting.as_mut().unwrap().chance(40) => {
                run.stored_mode = Mode::Paused { reason: "lunch".to_owned() };
                run.read_anew(&self.holds);
            }
            Mode::Paused { .. } => {
                run.stored_mode = Mode::Going;
                run.read_anew(&self.holds);
            }
            _ => self.decide(id),
        }
    }

    /// Places of a limit that is new, for what the nodes are told to do already.
    pub(super) fn take_places(&mut self) {
        for (node, id, attempt) in self.inbox.clone() {
            let run = self.runs.get_mut(&id).unwrap();
            let site = Scope::Site(self.agents[&node].site.clone());
            let scopes = [self.limits.site.map(|_| site), self.limits.fleet.map(|_| Scope::Fleet)];
            let places = run.stored_places.entry(node).or_default();
            for scope in scopes.into_iter().flatten().filter(|_| run.work.changes) {
                if places.iter().all(|place| place.scope != scope) {
                    let place = self.holds.lowest_free(&scope);
                    let holder = Holder { run: id, node, name: format!("fw-{node}"), attempt };
                    self.stored_holds.insert(place.clone(), holder.clone());
                    self.holds.set(&place, Some(holder));
                    places.push(place);
                }
            }
        }
    }

    fn some_run_of_operator(&mut self) -> RunId {
        let ids: Vec<RunId> = self.runs.keys().copied().collect();
        self.limiting.as_mut().unwrap().pick(&ids)
    }

    /// At the end nobody is at lunch any more: what waits for an operator gets its answer.
    pub(super) fn let_go_on(&mut self) {
        for id in self.runs.keys().copied().collect::<Vec<_>>() {
            let run = self.runs.get_mut(&id).unwrap();
            if matches!(run.stored_mode, Mode::Paused { .. }) {
                run.stored_mode = Mode::Going;
                run.read_anew(&self.holds);
            }
            self.decide(id);
        }
    }

    /// What is stored changes as the engine says it would, and the run is read anew.
    fn decide(&mut self, id: RunId) {
        let (now, run) = (self.moment(), self.runs.get_mut(&id).unwrap());
        for ring in 0..run.stored_rings.len() {
            let event = match run.stored_rings[ring].state {
                RingState::AwaitingApproval => RingEvent::Approved,
                RingState::Halted => RingEvent::Resumed,
                _ => continue,
            };
            self.ring_events.insert(event.to_string());
            run.stored_rings[ring] = run.engine.progress_after(ring, &event, now).unwrap();
            run.engine.apply(now, &Event::Ring { ring, what: event }).unwrap();
            run.read_anew(&self.holds);
        }
    }

    /// Saves a step of a ring and applies it. `None` when the controller died between the two.
    pub(super) fn save_ring(&mut self, id: RunId, now: Moment, step: RingStep) -> Option<()> {
        let true_now = self.now;
        let run = self.runs.get_mut(&id).unwrap();
        let soak = run.engine.rings(now).nth(step.ring).unwrap().plan.soak;
        match step.event {
            RingEvent::Enough => run.soak_began = Some(true_now),
            RingEvent::Soaked => {
                let soaked = true_now.saturating_sub(run.soak_began.take().unwrap());
                assert!(soaked >= soak, "a soak of {soak:?} was over after {soaked:?}");
                assert!(step.progress.soaked <= soaked, "more was counted than there was");
            }
            _ => {}
        }
        self.ring_events.insert(step.event.to_string());
        run.stored_rings[step.ring] = step.progress;
        if step.event == RingEvent::Passed {
            self.check_passed(id, step.ring);
        }
        // Drawn beside the rest, so that a seed without rings is the world that it was.
        if self.limiting.as_mut().is_some_and(|limiting| limiting.chance(5)) {
            self.restart();
            return None;
        }
        let run = self.runs.get_mut(&id).unwrap();
        run.engine.apply(now, &Event::Ring { ring: step.ring, what: step.event }).unwrap();
        self.check();
        Some(())
    }

    /// By what is stored, and not by what the engine believes.
    pub(super) fn check_ring_order(&self, id: RunId, node: NodeId) {
        let run = &self.runs[&id];
        let ring = run.plan.nodes().iter().find(|planned| planned.node == node).unwrap().ring;
        let states: Vec<_> = run.stored_rings.iter().map(|ring| ring.state).collect();
        let in_order = states[..ring].iter().all(|state| *state == RingState::Done);
        let begun = !matches!(states[ring], RingState::Pending | RingState::Halted);
        assert!(
            in_order && begun && !states.contains(&RingState::Halted),
            "{node} of ring {ring}: {states:?}"
        );
        assert!(!matches!(run.stored_mode, Mode::Paused { .. }), "{node} starts in a paused rollout");
    }
}
