//! One procedure, resolved for one job on this node.
//!
//! Pure. Everything that stands against it is collected, not the first only, so that an operator sees all
//! at once. A job whose resolution has refusals is never started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_types::action::{Action, Table, Where};
use fleet_types::document::Value;
use fleet_types::document::procedure::{
    OnFailure, Order, Outcome, Procedure, Retries, Step, StepKind, UndoStep, With,
};
use fleet_types::document::profile::{CheckKind, Profile};
use fleet_types::facts::NodeFacts;
use fleet_types::id::RunId;
use fleet_types::time::Timestamp;
use jiff::tz::TimeZone;

use super::arguments::Arguments;
use super::conditions::FactContext;
use super::effects::{self, Effects};
use super::task_table::TaskTable;
use super::values::PlaceholderValues;
use super::{arguments, parameters};
use crate::identity::NodeIdentity;
use crate::policy::Refusal;
use crate::tasks::{NEED_PACKAGES, NEED_SYSTEMD, NEED_UNITS, Reversal, Task};

/// What is resolved.
#[derive(Debug)]
pub struct ResolveInput<'a> {
    /// The signed procedure.
    pub procedure: Arc<Procedure>,
    /// The signed profile.
    pub profile: Arc<Profile>,
    /// Parameters of the request.
    pub params: &'a BTreeMap<String, serde_json::Value>,
    /// This node.
    pub node: &'a NodeIdentity,
    /// Facts of this node.
    pub facts: NodeFacts,
    /// The run.
    pub run: RunId,
    /// Start of the job.
    pub started: Timestamp,
    /// Zone of the node.
    pub zone: TimeZone,
    /// The tasks there are.
    pub tasks: &'a TaskTable,
    /// Steps that began in an earlier life of the executor.
    pub begun: BTreeSet<String>,
}

/// A step, undo entry or final entry, ready to be called.
#[derive(Clone)]
pub struct ResolvedStep {
    /// Its id.
    pub id: String,
    /// Its title, or its id where there is none.
    pub title: String,
    /// Name of its action.
    pub action: String,
    /// Its task; a step that is skipped may have none.
    pub task: Option<Task>,
    /// Why it is skipped, if it is.
    pub skipped: Option<String>,
    /// Arguments, as tasks take them.
    pub with: Arc<BTreeMap<String, serde_json::Value>>,
    /// Working time, all tries together.
    pub time_limit: Duration,
    /// Further tries.
    pub retries: Option<Retries>,
    /// What a failure does.
    pub on_failure: OnFailure,
    /// Undo and final entries: the steps of which one must have begun.
    pub undoes: Vec<String>,
    /// Final entries: outcomes after which it does not run.
    pub except: Vec<Outcome>,
    /// What it can effects.
    pub effects: Effects,
    /// It is put back unless confirmed within this time after it was made.
    pub guard: Option<Duration>,
}

impl ResolvedStep {
    /// What a way back can do about it.
    pub fn reversal(&self) -> Reversal {
        match self.task {
            Some(Task::Change(change)) => change.reversal(),
            Some(Task::Inspect(_)) | None => Reversal::None,
        }
    }
}

impl std::fmt::Debug for ResolvedStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResolvedStep")
            .field("id", &self.id)
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}

/// A resolved procedure, and what stands against it.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The signed procedure.
    pub procedure: Arc<Procedure>,
    /// The signed profile.
    pub profile: Arc<Profile>,
    /// Facts at resolution.
    pub facts: Arc<NodeFacts>,
    /// The job's start, which its placeholders tell: of acceptance and every later life it is the same.
    pub started: Timestamp,
    /// Values of placeholders by name.
    pub placeholders: Arc<BTreeMap<String, String>>,
    /// The steps in order.
    pub steps: Vec<ResolvedStep>,
    /// The way back.
    pub rollback: Vec<ResolvedStep>,
    /// What runs last.
    pub finally: Vec<ResolvedStep>,
    /// What stands against it; empty when it can run.
    pub refusals: Vec<Refusal>,
}

impl Resolution {
    /// The steps that will run.
    pub fn active(&self) -> impl Iterator<Item = &ResolvedStep> {
        self.steps.iter().filter(|step| step.skipped.is_none())
    }

    /// Does any step that will run, or final entry, change the node?
    pub fn changes(&self) -> bool {
        self.active().chain(&self.finally).any(|step| step.effects.changes)
    }

    /// Steps that will change the node and that neither a rollback entry nor an undo of their own undoes.
    pub fn nothing_undoes(&self) -> impl Iterator<Item = &ResolvedStep> {
        let written = !self.procedure.rollback.is_empty();
        self.active().filter(move |step| {
            let undone = match (written, step.reversal()) {
                (_, Reversal::Stays) => true,
                (true, _) => self.rollback.iter().any(|entry| entry.undoes.contains(&step.id)),
                (false, reversal) => reversal == Reversal::Stored,
            };
            step.effects.changes && !undone
        })
    }

    /// Is there anything by which the guard could put a step back?
    pub fn can_be_put_back(&self, step: &ResolvedStep) -> bool {
        matches!(step.reversal(), Reversal::Stored | Reversal::GuardOnly)
            || self.rollback.iter().any(|entry| entry.undoes.contains(&step.id))
    }

    /// Is any of them disruptive?
    pub fn is_disruptive(&self) -> bool {
        self.active().chain(&self.finally).any(|step| step.effects.disruptive)
    }
}

/// What a step and an undo entry have in common.
struct Parts<'a> {
    id: String,
    title: &'a str,
    uses: &'a str,
    with: &'a With,
    time_limit: Duration,
    is_gate: bool,
}

struct Resolver<'a> {
    input: &'a ResolveInput<'a>,
    values: PlaceholderValues,
    refusals: Vec<Refusal>,
}

/// Resolves a procedure.
pub fn resolve(input: &ResolveInput<'_>) -> Resolution {
    let mut refusals = Vec::new();
    let params = parameters::check(&input.procedure, input.params, &mut refusals);
    if input.procedure.order == Order::Lockstep {
        let message = "the procedure's order is lockstep, which this build cannot do";
        refusals.push(Refusal::new("lockstep-not-built", message, "use order = \"per_node\""));
    }
    let values = PlaceholderValues::new(input.node, input.run, input.started, &input.zone, params);
    let placeholders = Arc::new(values.by_name());
    let mut resolver = Resolver { input, values, refusals };
    let steps = input.procedure.steps.iter().filter_map(|step| resolver.step(step)).collect();
    let rollback = input.procedure.rollback.iter().filter_map(|entry| resolver.undo_step(entry)).collect();
    let finally = input.procedure.finally.iter().filter_map(|entry| resolver.undo_step(entry)).collect();
    Resolution {
        procedure: Arc::clone(&input.procedure),
        profile: Arc::clone(&input.profile),
        facts: Arc::new(input.facts.clone()),
        started: input.started,
        placeholders,
        steps,
        rollback,
        finally,
        refusals: resolver.refusals,
    }
}

impl Resolver<'_> {
    fn refuse(&mut self, rule: &'static str, message: String, remedy: &'static str) {
        self.refusals.push(Refusal::new(rule, message, remedy));
    }

    fn step(&mut self, step: &Step) -> Option<ResolvedStep> {
        let context = FactContext { facts: &self.input.facts, params: &self.values.params };
        // Of a step that began in an earlier life of the executor it was true then, and its program may be running.
        let when = step.when.as_ref().filter(|_| !self.input.begun.contains(step.id.as_str()));
        let skipped = match when.map(|when| (when, when.eval(&context))) {
            None | Some((_, Ok(true))) => None,
            Some((when, Ok(false))) => Some(format!("skipped: {} is not true here", when.as_str())),
            Some((when, Err(unknown))) => {
                // Neither done nor skipped: a backup that is skipped because of a slip is missed when it is needed.
                let message = format!("step {}: {unknown}, and {} depends on it", step.id, when.as_str());
                self.refuse("fact-unknown", message, "declare the fact in the profile, or upgrade the agent");
                return None;
            }
        };
        if skipped.is_none() && step.kind == StepKind::Manual {
            let message = format!("step {} is a sign-off, which this build cannot ask for", step.id);
            self.refuse("manual-not-built", message, "take the manual step out and do it before the run");
            return None;
        }
        let no_arguments = With::new();
        let parts = Parts {
            id: step.id.to_string(),
            title: &step.title,
            uses: step.uses.as_deref().unwrap_or_default(),
            // A skipped step may name parameters that nobody gave; they are never looked at.
            with: if skipped.is_some() { &no_arguments } else { &step.with },
            time_limit: step.time_limit(),
            is_gate: step.kind == StepKind::Gate,
        };
        let mut resolved = self.resolve(&parts, skipped)?;
        resolved.retries.clone_from(&step.retries);
        resolved.on_failure = step.on_failure;
        // What only reads needs none.
        let guard = step.guard.as_ref().filter(|_| resolved.effects.changes);
        resolved.guard = guard.map(|guard| guard.confirm_within.length());
        if resolved.skipped.is_none() && parts.is_gate && resolved.effects.changes {
            let message = format!("gate {} uses {}, which would change the node", step.id, parts.uses);
            self.refuse("gate-changes", message, "make it a task");
        }
        Some(resolved)
    }

    /// A gate must not pass because what it asks for cannot be seen here.
    fn gate_can_see(&mut self, gate: &Parts<'_>, action: &Action, arguments: &Arguments) {
        let Some(why) = self.input.tasks.no_units() else { return };
        let profile = &self.input.profile;
        let checks = arguments::ids_of(action, arguments, profile, Table::Check);
        let asks =
            |id: &&String| profile.checks.get(id.as_str()).is_some_and(|c| c.kind == CheckKind::Service);
        if let Some(check) = checks.iter().find(asks) {
            self.refusals.push(no_units(format!("gate {}: check {check} asks a unit, and {why}", gate.id)));
        }
    }

    fn undo_step(&mut self, entry: &UndoStep) -> Option<ResolvedStep> {
        let parts = Parts {
            id: entry.id.to_string(),
            title: &entry.title,
            uses: &entry.uses,
            with: &entry.with,
            time_limit: entry.time_limit(),
            is_gate: false,
        };
        let mut resolved = self.resolve(&parts, None)?;
        resolved.undoes = entry.undoes.iter().map(ToString::to_string).collect();
        resolved.except.clone_from(&entry.except);
        Some(resolved)
    }

    fn resolve(&mut self, parts: &Parts<'_>, skipped: Option<String>) -> Option<ResolvedStep> {
        let mut resolved = ResolvedStep {
            id: parts.id.clone(),
            title: if parts.title.is_empty() { parts.id.clone() } else { parts.title.to_owned() },
            action: parts.uses.to_owned(),
            task: None,
            skipped,
            with: Arc::default(),
            time_limit: parts.time_limit,
            retries: None,
            on_failure: OnFailure::Abort,
            undoes: Vec::new(),
            except: Vec::new(),
            effects: Effects::default(),
            guard: None,
        };
        if resolved.skipped.is_some() {
            return Some(resolved);
        }
        let action = match self.task_of(parts) {
            Ok((action, task)) => {
                resolved.task = Some(task);
                action
            }
            Err(refusal) => {
                self.refusals.push(refusal);
                return None;
            }
        };
        let profile = &self.input.profile;
        let sources = self.values.sources(&profile.vars);
        let filled = arguments::fill(action, parts.with, profile, &sources).and_then(|arguments| {
            let effects = effects::of(action, &arguments, profile, &sources);
            effects.map(|effects| (arguments, effects)).map_err(|e| ("placeholder", e.to_string()))
        });
        match filled {
            Ok((arguments, effects)) => {
                if parts.is_gate {
                    self.gate_can_see(parts, action, &arguments);
                }
                resolved.with = Arc::new(arguments.iter().map(|(k, v)| (k.clone(), as_json(v))).collect());
                resolved.effects = effects;
                Some(resolved)
            }
            Err((rule, why)) => {
                let message = format!("step {}: {why}", parts.id);
                self.refuse(rule, message, "correct the procedure or the profile and apply it again");
                None
            }
        }
    }

    fn task_of(&self, parts: &Parts<'_>) -> Result<(&'static Action, Task), Refusal> {
        let refuse = |rule, what: &str| {
            let message = format!("step {}: action {} {what}", parts.id, parts.uses);
            Refusal::new(rule, message, "use an action that the node announces, or upgrade its agent")
        };
        let action = Action::find(parts.uses).ok_or_else(|| refuse("action-unknown", "does not exist"))?;
        if let Some(why) = self.input.tasks.no_units().filter(|_| NEED_UNITS.contains(&action.name)) {
            return Err(no_units(format!("step {}: {} asks units, and {why}", parts.id, action.name)));
        }
        if self.input.tasks.no_packages() && NEED_PACKAGES.contains(&action.name) {
            let message = format!(
                "step {}: {} needs a package manager, and this node has none that its agent speaks to",
                parts.id, action.name
            );
            return Err(Refusal::new("no-package-manager", message, "take the step out for this node"));
        }
        if self.input.tasks.no_systemd() && NEED_SYSTEMD.contains(&action.name) {
            let message =
                format!("step {}: {} needs systemd, which does not run this node", parts.id, action.name);
            return Err(Refusal::new("no-systemd", message, "take the step out for this node"));
        }
        let built = self.input.tasks.get(action.name).filter(|_| action.runs_on != Where::Controller);
        let task = built.ok_or_else(|| refuse("action-not-built", "is not built into this agent"))?;
        Ok((action, task))
    }
}

fn no_units(message: String) -> Refusal {
    Refusal::new("no-unit-backend", message, "take the step out, or look at the node's services by hand")
}

fn as_json(value: &Value) -> serde_json::Value {
    // Document values have string keys and no failing serialisers.
    serde_json::to_value(value).unwrap_or_default()
}
