//! Services that a job has stopped and not started again, in a boot that is not the one in which it stopped them.
//!
//! The start of a machine brings up what is enabled, whatever job was under way. Were a job to go on beside services that run
//! again, they would go on with the former files: an update would be judged by daemons of the version before it, and a
//! way back would call daemons of the broken version well. So they are stopped again before anything else is done. After a
//! restart that the job itself asked for, what runs is what its author meant to run. Part of a run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::life::Run;
use super::step::Fault;
use crate::journal::StepRecord;
use crate::resolve::ResolvedStep;
use crate::tasks::{Leaves, SERVICES, Task, stop_services, that_did_not_run};

impl Run {
    /// Stops what this job holds down, once in the life of an executor and before its first step in it. `step` is the one that
    /// comes then, whose time it takes.
    pub(super) fn stop_again(&mut self, step: &ResolvedStep, limit: Duration) -> Result<(), Fault> {
        if std::mem::replace(&mut self.stopped_again, true) || !self.is_in_another_boot() {
            return Ok(());
        }
        let held = self.held_down();
        if held.is_empty() {
            return Ok(());
        }
        tracing::info!(run = %self.key.0, services = ?held, "the machine has started: what the job had stopped is stopped again");
        let with = BTreeMap::from([(SERVICES.to_owned(), Value::from(held))]);
        let stopping = ResolvedStep { with: Arc::new(with), ..step.clone() };
        let stopped = self.call(&stopping, (1, false), limit, true, stop_services);
        stopped.map(drop).map_err(|mut fault| {
            fault.message =
                format!("what the start of the machine brought up is not down again: {}", fault.message);
            fault
        })
    }

    /// Did a step of this job begin in another boot?
    fn is_in_another_boot(&self) -> bool {
        let now = self.surroundings.host.clock().boot_id();
        let mut begun = self.record.steps.iter().filter_map(|known| known.began_boot.as_ref());
        begun.any(|began| began.id != now)
    }

    /// The services that the steps and entries which began leave down, in the order in which they are started.
    fn held_down(&self) -> Vec<String> {
        let mut held = Vec::new();
        for known in self.record.steps.iter().filter(|known| known.try_number > 0) {
            if known.restarted_from.is_some() {
                held.clear();
            }
            let Some((down, services)) = self.left_by(known) else { continue };
            held.retain(|one| !services.contains(one));
            if down {
                held.extend(services);
            }
        }
        held
    }

    /// The services that one of them leaves down, or up.
    fn left_by(&self, known: &StepRecord) -> Option<(bool, Vec<String>)> {
        let resolution = self.admitted.resolution();
        let undone = known.id.strip_prefix("undo:");
        let id = undone.unwrap_or(&known.id);
        let entries = resolution.steps.iter().chain(&resolution.rollback).chain(&resolution.finally);
        let step = entries.into_iter().find(|entry| entry.id == id)?;
        let Some(Task::Change(change)) = step.task else { return None };
        let services = named(&step.with);
        Some(match (change.leaves()?, undone) {
            (Leaves::Down, None) => (true, services),
            (Leaves::Up, None) | (Leaves::Down, Some(_)) => (false, services),
            // What had not run before the start is stopped by its undo; the others are let run.
            (Leaves::Up, Some(_)) => (true, that_did_not_run(&self.record.step(id)?.undo)),
        })
    }
}

/// The services that a step names.
fn named(with: &BTreeMap<String, Value>) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match with.get(SERVICES) {
        Some(Value::Array(list)) => list.iter().filter_map(text).collect(),
        Some(one) => text(one).into_iter().collect(),
        None => Vec::new(),
    }
}
