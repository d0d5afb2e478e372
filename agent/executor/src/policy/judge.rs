//! Local policy applied to a resolved procedure: every rule that stands against it, each by its name.
//!
//! Pure: the conditions of the machine are handed in. Undo entries are not judged by lists and modes,
//! because the way back of a node's own job is always allowed (security-and-delivery §1.17).

use std::path::Path;
use std::time::Duration;

use fleet_types::label::Labels;

use super::glob::any_matches;
use super::local::{LocalPolicy, Mode, Reboot};
use super::refusal::Refusal;
use crate::resolve::{Resolution, ResolvedStep};

/// What the machine and the executor are like at the instant of acceptance.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConditions {
    /// Room on the state directory's disk; none when it cannot be read.
    pub free_bytes: Option<u64>,
    /// Does the hold file exist?
    pub held: bool,
    /// Load of the last minute as a part of the processors; none when it cannot be read.
    pub load: Option<f64>,
    /// Disruptive jobs that began within the policy's time.
    pub disruptive_jobs: usize,
    /// Since when the machine is up.
    pub up_for: Duration,
    /// Why the database of packages is not consistent, if it is not.
    pub package_damage: Option<String>,
    /// Why the executor starts no changes, if it does not.
    pub safe_mode: Option<String>,
}

/// All rules that stand against this resolution.
pub fn judge(
    resolution: &Resolution,
    policy: &LocalPolicy,
    conditions: &NodeConditions,
    labels: &Labels,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if policy.mode == Mode::Locked {
        refusals.push(locked());
    }
    let changing = resolution.active().chain(&resolution.finally).find(|step| step.effects.changes);
    if let Some(step) = changing {
        against_changes(step, resolution, policy, conditions, &mut refusals);
    }
    for step in resolution.active().chain(&resolution.finally) {
        against_step(step, policy, &mut refusals);
    }
    // Undo and final entries need none: they lead back to what is known.
    for step in resolution.active() {
        refusals.extend(against_unguarded(step, resolution));
    }
    if let Some(step) = resolution.active().find(|step| step.effects.restarts) {
        against_restart(step, policy, conditions, &mut refusals);
    }
    if resolution.is_disruptive() {
        against_disruption(policy, conditions, labels, &mut refusals);
    }
    refusals
}

/// Rules against any change at all.
fn against_changes(
    step: &ResolvedStep,
    resolution: &Resolution,
    policy: &LocalPolicy,
    conditions: &NodeConditions,
    refusals: &mut Vec<Refusal>,
) {
    refusals.extend(against_mode(step, policy.mode).filter(|_| policy.mode != Mode::Locked));
    let mut refuse = |rule, message: String, remedy| refusals.push(Refusal::new(rule, message, remedy));
    if !resolution.procedure.changes {
        let message = format!("step {} changes the node, the procedure says changes = false", step.id);
        refuse("changes-not-declared", message, "set changes = true in the procedure");
    }
    for key in policy.not_built() {
        let message = format!("local policy sets {key}, which this build cannot honour");
        refuse(
            "policy-not-built",
            message,
            "take the key out of the node's agent.toml, or upgrade the agent",
        );
    }
    if let Some(why) = &conditions.safe_mode {
        refuse("safe-mode", format!("the node starts no changes: {why}"), "look at the node's journal");
    }
    if conditions.held {
        let message = format!("the hold file {} exists", policy.hold_file);
        refuse("hold-file", message, "remove the hold file when work on the node is done");
    }
    let floor = policy.min_free_disk.bytes();
    match conditions.free_bytes {
        Some(free) if free >= floor => {}
        Some(free) => {
            let message = format!("{free} bytes are free, local policy asks for {}", policy.min_free_disk);
            refuse("min-free-disk", message, "free space on the node");
        }
        None => {
            refuse("min-free-disk", "the free space cannot be read".to_owned(), "look at the node's disk");
        }
    }
    if let Some(highest) = policy.max_load_to_start {
        let found = conditions.load.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}"));
        if conditions.load.is_none_or(|load| load > highest) {
            let message = format!("the load is {found} of the processors, local policy allows {highest}");
            refuse("max-load", message, "start again when the node is less busy");
        }
    }
}

/// The mode that lets a step not be done.
pub(super) fn against_mode(step: &ResolvedStep, mode: Mode) -> Option<Refusal> {
    match mode {
        Mode::ReadOnly if step.effects.changes => {
            let message = format!("step {} changes the node, its local policy is read_only", step.id);
            let remedy = "set mode = \"enforce\" in the node's agent.toml";
            Some(Refusal::new("mode-read-only", message, remedy))
        }
        Mode::Enforce | Mode::ReadOnly => None,
        Mode::Locked => Some(locked()),
    }
}

pub(super) fn locked() -> Refusal {
    let message = "this node's local policy is locked: nothing from a controller";
    Refusal::new("mode-locked", message, "set mode in the node's agent.toml")
}

/// The rule about what can cut the node off: it has a guard, and the guard something to do.
fn against_unguarded(step: &ResolvedStep, resolution: &Resolution) -> Option<Refusal> {
    let id = &step.id;
    match step.guard {
        None if step.effects.touches_network => {
            let message = format!("step {id} can cut the node off and has no guard");
            let remedy = "give the step guard = { confirm_within = \"10m\" } and apply the procedure again";
            Some(Refusal::new("guard-missing", message, remedy))
        }
        Some(_) if !resolution.can_be_put_back(step) => {
            let message = format!("step {id} has a guard, and nothing by which the guard could put it back");
            let remedy = "write a [[rollback]] entry that undoes the step";
            Some(Refusal::new("guard-no-undo", message, remedy))
        }
        _ => None,
    }
}

/// Rules against one step.
pub(super) fn against_step(step: &ResolvedStep, policy: &LocalPolicy, refusals: &mut Vec<Refusal>) {
    const REMEDY: &str = "change the lists in the node's agent.toml, or take the step out";
    let mut refuse = |rule, message: String, remedy| refusals.push(Refusal::new(rule, message, remedy));
    let (id, action) = (&step.id, &step.action);
    if any_matches(&policy.deny_actions, action) {
        refuse("action-denied", format!("step {id}: deny_actions names {action}"), REMEDY);
    } else if !any_matches(&policy.allow_actions, action) {
        refuse("action-not-allowed", format!("step {id}: allow_actions does not name {action}"), REMEDY);
    }
    for command in step.effects.commands.iter().filter(|c| !any_matches(&policy.allow_commands, c)) {
        let message = format!("step {id}: allow_commands does not name {command}");
        refuse("command-not-allowed", message, REMEDY);
    }
    for unit in step.effects.units_stopped.iter().filter(|unit| policy.protected_services.contains(unit)) {
        refuse("protected-service", format!("step {id} would stop {unit}, which is protected"), REMEDY);
    }
    let written = step.effects.writes.iter().map(|path| (path, false));
    for (path, whole_tree) in written.chain(step.effects.replaces.iter().map(|path| (path, true))) {
        if let Some(protected) = policy.protected_paths.iter().find(|p| reaches(path, p, whole_tree)) {
            let message = format!("step {id} would write {path}, which reaches into {protected}");
            refuse("protected-path", message, REMEDY);
        }
    }
}

/// Rules against a restart of the machine (security-and-delivery §2.12).
fn against_restart(
    step: &ResolvedStep,
    policy: &LocalPolicy,
    conditions: &NodeConditions,
    refusals: &mut Vec<Refusal>,
) {
    let id = &step.id;
    let why = match policy.reboot {
        Reboot::Always => None,
        Reboot::Never => Some("never"),
        // Asked for here and answered by nobody: this build has neither windows on the node nor sign-offs.
        Reboot::Window => Some("inside a window alone, and this build knows none"),
        Reboot::Ask => Some("after a sign-off alone, and this build has none"),
    };
    if let Some(why) = why {
        let message = format!("step {id} restarts the machine, local policy allows that {why}");
        let remedy = "set reboot = \"always\" in the node's agent.toml";
        refusals.push(Refusal::new("reboot-not-allowed", message, remedy));
    }
    if conditions.up_for < policy.reboot_cooldown.length() {
        let (up, asked) = (conditions.up_for.as_secs(), policy.reboot_cooldown.as_str());
        let message =
            format!("the machine was started {up} s ago, local policy asks for {asked} between two restarts");
        refusals.push(Refusal::new("reboot-cooldown", message, "wait, or lower reboot_cooldown"));
    }
}

/// Rules against work that disturbs what the node does for others.
fn against_disruption(
    policy: &LocalPolicy,
    conditions: &NodeConditions,
    labels: &Labels,
    refusals: &mut Vec<Refusal>,
) {
    let limit = &policy.max_disruptive_jobs;
    if conditions.disruptive_jobs >= limit.count as usize {
        let message = format!(
            "{} disruptive jobs began within {}, local policy allows {}",
            conditions.disruptive_jobs,
            limit.within.as_str(),
            limit.count
        );
        refusals.push(Refusal::new("max-disruptive-jobs", message, "wait, or raise max_disruptive_jobs"));
    }
    if let Some(why) = &conditions.package_damage {
        let message = format!("the node's database of packages is not consistent: {why}");
        let remedy = "finish it with dpkg --configure -a, and look at dpkg --audit";
        refusals.push(Refusal::new("package-database", message, remedy));
    }
    if let Some(pair) = labels.pair().filter(|_| policy.require_healthy_partner) {
        let message = format!("the health of the partner in pair {pair} is not known to this build");
        let remedy = "check the partner by hand and set require_healthy_partner = false for the work";
        refusals.push(Refusal::new("partner-unknown", message, remedy));
    }
}

/// Would writing `path` effects into `protected`? Where a whole tree or a pattern is written, what lies below
/// its fixed part counts too.
fn reaches(path: &str, protected: &str, whole_tree: bool) -> bool {
    let pattern = path.find(['*', '?', '[']);
    let fixed = pattern.map_or(path, |at| path[..at].rsplit_once('/').map_or("", |(directory, _)| directory));
    let fixed = if fixed.is_empty() { "/" } else { fixed };
    let below = Path::new(fixed).starts_with(protected);
    // A pattern within one directory, such as /var/log/*.log, does not descend.
    let descends = match pattern {
        Some(at) => path[at..].contains('/'),
        None => whole_tree,
    };
    below
        || (descends && Path::new(protected).starts_with(fixed))
        || matches_directly(path, pattern, fixed, protected)
}

/// A pattern's last part may name the protected path itself: `/etc/*` names `/etc/fleet`.
fn matches_directly(path: &str, pattern: Option<usize>, fixed: &str, protected: &str) -> bool {
    pattern.is_some()
        && !path.is_empty()
        && Path::new(protected).parent().is_some_and(|parent| parent == Path::new(fixed))
}

#[cfg(test)]
mod tests {
    use super::reaches;

    #[test]
    fn protected_paths_are_met_from_above_and_below() {
        for (path, protected, tree, expected) in [
            ("/etc/fleet/agent.toml", "/etc/fleet", false, true),
            ("/etc/fleetly", "/etc/fleet", false, false),
            ("/etc", "/etc/fleet", false, false),
            ("/etc", "/etc/fleet", true, true),
            ("/", "/root", true, true),
            ("/var/log/*.log", "/root", true, false),
            ("/var/log/*/old/*.log", "/root", true, false),
            ("/etc/*", "/etc/fleet", true, true),
            ("/*/x", "/root", true, true),
            ("/home*/x", "/home", true, true),
            ("/opt/backups", "/home", false, false),
        ] {
            assert_eq!(reaches(path, protected, tree), expected, "{path} {protected} {tree}");
        }
    }
}
