//! What must hold of a simulated world after every event, on the controller's side and on the nodes.

use std::collections::{BTreeMap, BTreeSet};

use fleet_rollout::{JobFact, Rollout, Scope};
use fleet_types::id::NodeId;
use fleet_types::job::Outcome;

use super::{Run, World, held};
use crate::support::agent::Agent;

impl World {
    /// The invariants, after each event.
    pub(super) fn check(&mut self) {
        let now = self.moment();
        for run in self.runs.values_mut() {
            run.witness.check(&run.engine).unwrap_or_else(|violation| panic!("{violation}"));
            let known: Vec<_> = run.engine.known_jobs().collect();
            for (id, job) in &known {
                assert_eq!(job.fact, run.stored[id], "memory and store say the same of {id}");
            }
            let mut again = Rollout::restore(
                run.plan.clone(),
                run.stored_mode.clone(),
                run.engine.anchor(),
                run.engine.listening_since(),
                known.iter().copied(),
                held(&run.plan, &self.holds),
                run.engine.known_rings(),
            );
            let looks: BTreeMap<_, _> = run.engine.known_looks().collect();
            assert_eq!(looks, run.stored_looks, "memory and store say the same of the gates");
            if let Ok(again) = &mut again {
                Run::tell_looks(again, &looks, now);
            }
            let rings: Vec<_> = run.engine.known_rings().map(|(progress, _)| progress).collect();
            assert_eq!(rings, run.stored_rings, "memory and store say the same of the rings");
            assert_eq!(again.as_ref(), Ok(&run.engine), "events and records give the same state");
            let offered: BTreeSet<NodeId> =
                run.engine.wanted(now).offer.into_iter().map(|offer| offer.node).collect();
            for (id, job) in &known {
                let goes = run.engine.blocked(*id, now).is_empty();
                let should = offered.contains(id) || matches!(job.fact, JobFact::Offered { .. });
                assert_eq!(goes, should, "{id} goes, or there is a reason");
            }
        }
        self.check_fleet();
        self.check_limits();
    }

    /// What is really going on out there, whatever the controller believes.
    fn check_fleet(&self) {
        for (id, run) in &self.runs {
            let lost =
                |node: &NodeId| matches!(run.stored[node], JobFact::Ended { outcome: Outcome::Lost, .. });
            let working = self.agents.values().filter(|agent| agent.changing().any(|of| of == *id));
            let working = working.filter(|agent| !lost(&agent.id)).count();
            assert!(working <= run.plan.max_parallel(), "more nodes of {id} work than allowed");
        }
        let changing: Vec<_> =
            self.agents.values().filter_map(|agent| Some((agent.changing().next()?, agent.pair))).collect();
        let pairs: Vec<u64> = changing.iter().filter_map(|(_, pair)| *pair).collect();
        let distinct: BTreeSet<&u64> = pairs.iter().collect();
        assert_eq!(distinct.len(), pairs.len(), "both of a pair are in change");
    }

    /// Over all runs never more in change than a limit allows, whatever the controller believes, and no more taken.
    fn check_limits(&mut self) {
        for (scope, limit) in self.limited() {
            let held = self.held_of(&scope);
            let allowed = self.allowed.entry(scope.clone()).or_insert(limit);
            *allowed = limit.max(held.min(*allowed));
            let here = |agent: &&Agent| match &scope {
                Scope::Site(site) => agent.site == *site,
                _ => true,
            };
            let changing =
                self.agents.values().filter(here).filter(|agent| agent.changing().next().is_some());
            let changing = changing.count();
            assert!(
                changing <= *allowed && held <= *allowed,
                "{scope}: {changing} in change, {held} held, {allowed} allowed"
            );
        }
    }
}
