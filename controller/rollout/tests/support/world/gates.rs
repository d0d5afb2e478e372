//! Gates in a simulated world: nodes are asked, look for a while, and answer; questions and answers get lost and come
//! twice. Drawn beside the rest, as limits are.

use fleet_rollout::{Answer, Ask, Look};
use fleet_types::run::Verdict;

use super::*;

/// A node's look at the gates, on the node: it survives what a journal survives.
pub(super) struct Question {
    judging: u32,
    /// When it has its answer.
    ends: Duration,
    answer: Answer,
}

impl Run {
    /// What is stored of looks, told to an engine that was read.
    pub(super) fn tell_looks(engine: &mut Rollout, looks: &BTreeMap<NodeId, Look>, now: Moment) {
        for (node, look) in looks {
            engine.apply(now, &Event::Looked { node: *node, look: look.clone() }).unwrap();
        }
    }
}

impl World {
    /// Saves that a node is asked, and applies it. `None` when the controller died between the two.
    pub(super) fn save_ask(&mut self, id: RunId, ask: Ask) -> Option<()> {
        let look = Look { judging: ask.judging, answer: None };
        let run = self.runs.get_mut(&id).unwrap();
        let before = run.stored_looks.insert(ask.node, look.clone());
        let is_busy = before.as_ref().is_some_and(|before| before.answer.is_none());
        assert!(!is_busy, "{} is asked, and has not answered {before:?}", ask.node);
        assert!(before.is_none_or(|before| before.judging < ask.judging), "{} is asked twice", ask.node);
        self.apply_look(id, ask.node, look)
    }

    fn apply_look(&mut self, id: RunId, node: NodeId, look: Look) -> Option<()> {
        if self.limiting.as_mut().is_some_and(|limiting| limiting.chance(3)) {
            self.restart();
            return None;
        }
        let now = self.moment();
        self.runs.get_mut(&id).unwrap().engine.apply(now, &Event::Looked { node, look }).unwrap();
        self.check();
        Some(())
    }

    /// Questions reach nodes whose link is up, and answers the controller; neither always.
    pub(super) fn ask_and_answer(&mut self) {
        let asked: Vec<(RunId, NodeId, u32)> = self
            .runs
            .iter()
            .flat_map(|(id, run)| run.stored_looks.iter().map(move |(node, look)| (*id, *node, look.clone())))
            .filter(|(.., look)| look.answer.is_none())
            .map(|(id, node, look)| (id, node, look.judging))
            .collect();
        for (id, node, judging) in asked {
            let Some(limiting) = &mut self.limiting else { return };
            if !self.agents[&node].link || limiting.chance(self.loss_percent) {
                continue;
            }
            let known = self.questions.get(&(node, id)).filter(|question| question.judging == judging);
            let Some(question) = known else {
                let verdict = match limiting.below(10) {
                    0..2 => Verdict::Fail,
                    2 => Verdict::Inconclusive,
                    _ => Verdict::Pass,
                };
                let answer = Answer { verdict, because: String::new() };
                let ends = self.now + Duration::from_secs(limiting.below(300));
                self.questions.insert((node, id), Question { judging, ends, answer });
                continue;
            };
            if question.ends <= self.now {
                let look = Look { judging, answer: Some(question.answer.clone()) };
                let again = limiting.chance(20);
                self.runs.get_mut(&id).unwrap().stored_looks.insert(node, look.clone());
                if self.apply_look(id, node, look.clone()).is_some() && again {
                    let _ = self.apply_look(id, node, look);
                }
            }
        }
    }

    /// By what is stored, and not by what the engine believes: no ring is passed unless each of its nodes that succeeded
    /// said in this very judging that the gates hold, and one did.
    pub(super) fn check_passed(&self, id: RunId, ring: usize) {
        let run = &self.runs[&id];
        if run.input.judging.is_none() {
            return;
        }
        let judging = run.stored_rings[ring].judgings;
        let of_ring = run.plan.nodes().iter().filter(|planned| planned.ring == ring);
        let succeeded = of_ring.filter(|planned| {
            matches!(run.stored[&planned.node], JobFact::Ended { outcome, .. } if outcome.is_success())
        });
        let mut count = 0;
        for planned in succeeded {
            let look = run.stored_looks.get(&planned.node);
            let passes = look.is_some_and(|look| {
                look.judging == judging
                    && look.answer.as_ref().is_some_and(|answer| answer.verdict == Verdict::Pass)
            });
            assert!(passes, "ring {ring} passes judging {judging}, and {} said {look:?}", planned.name);
            count += 1;
        }
        assert!(count > 0, "ring {ring} passes, and nobody was asked");
    }
}
