//! What a step can effect: does it change the node, can it cut it off, what does it run, stop and write.
//!
//! Pure, from the signed profile and the catalogue alone; the judge holds it against local policy. Where
//! something is not known, it is taken to be the worse.

use std::collections::BTreeSet;

use fleet_types::action::{Action, Answer, Table, Takes};
use fleet_types::document::Value;
use fleet_types::document::placeholder::{PlaceholderError, Sources, expand};
use fleet_types::document::profile::{Profile, Tuning};

use super::arguments::{Arguments, ids_of};
use crate::tasks::{ROTATION_TIMER, log_file, tuning_files};

/// The effects of one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a question of its own to local policy
pub struct Effects {
    /// Does it change the node?
    pub changes: bool,
    /// Can it cut the node off?
    pub touches_network: bool,
    /// Does it restart the machine?
    pub restarts: bool,
    /// Does it disturb what the node does for others?
    pub disruptive: bool,
    /// Ids of `[command.*]` that it runs.
    pub commands: BTreeSet<String>,
    /// Units that it stops or restarts.
    pub units_stopped: BTreeSet<String>,
    /// Directories and files that it writes into.
    pub writes: BTreeSet<String>,
    /// Trees that it replaces or deletes from: what is protected may not lie inside either.
    pub replaces: BTreeSet<String>,
}

/// Works out the effects of an action with checked arguments.
pub fn of(
    action: &Action,
    arguments: &Arguments,
    profile: &Profile,
    sources: &Sources<'_>,
) -> Result<Effects, PlaceholderError> {
    let ids = |table| ids_of(action, arguments, profile, table);
    let mut effects = Effects { commands: commands_of(action, arguments, profile), ..Effects::default() };
    let commands: Vec<_> =
        effects.commands.iter().filter_map(|id| profile.commands.get(id.as_str())).collect();
    let declared = match (action.changes, action.name) {
        // That of a command is by its id: counted below.
        (Answer::No, _) | (Answer::ById, "command.run") => false,
        (Answer::Yes, _) => true,
        (Answer::ById, _) => arguments.get("plan_only").and_then(Value::as_bool) != Some(true),
    };
    effects.changes = declared || commands.iter().any(|command| command.changes);
    effects.touches_network = action.guard == Answer::Yes
        || commands.iter().any(|command| command.touches_network)
        || (action.guard == Answer::ById && ids_touch_network(action, &ids, profile));
    effects.restarts = action.name == "reboot";
    // health.repair is not among them: it starts what is down and leaves alone what runs.
    let stops = matches!(action.name, "service.stop" | "service.restart");
    if stops {
        let services = ids(Table::Service);
        effects.units_stopped = services
            .iter()
            .filter_map(|id| profile.services.get(id.as_str()))
            .map(|s| s.unit.clone())
            .collect();
    }
    let heavy = ["package.upgrade", "package.downgrade", "tuning.apply", "tuning.revert", "snapshot.revert"];
    effects.disruptive = effects.touches_network || stops || heavy.contains(&action.name);
    collect_paths(action, arguments, profile, sources, &mut effects)?;
    Ok(effects)
}

fn ids_touch_network(action: &Action, ids: &dyn Fn(Table) -> Vec<String>, profile: &Profile) -> bool {
    // What is switched off is not applied; a revert looks at what was applied before.
    let on = |tuning: &Tuning| tuning.enabled || action.name != "tuning.apply";
    ids(Table::Service).iter().any(|id| profile.services.get(id.as_str()).is_none_or(|s| s.touches_network))
        || ids(Table::Backup)
            .iter()
            .any(|id| profile.backups.get(id.as_str()).is_none_or(|b| b.touches_network))
        || ids(Table::Package)
            .iter()
            .any(|id| profile.packages.get(id.as_str()).is_none_or(|p| p.touches_network))
        || ids(Table::Tuning)
            .iter()
            .any(|id| profile.tunings.get(id.as_str()).is_none_or(|t| on(t) && t.touches_network()))
}

/// Named directly, or by a check, validator or hardening item.
fn commands_of(action: &Action, arguments: &Arguments, profile: &Profile) -> BTreeSet<String> {
    let ids = |table| ids_of(action, arguments, profile, table);
    let mut commands: BTreeSet<String> = ids(Table::Command).into_iter().collect();
    let checks = ids(Table::Check);
    let by_check = checks.iter().filter_map(|id| profile.checks.get(id.as_str())?.command.as_ref());
    commands.extend(by_check.map(ToString::to_string));
    let validators = ids(Table::Validator);
    let by_validator =
        validators.iter().filter_map(|id| profile.validators.get(id.as_str())?.command.as_ref());
    commands.extend(by_validator.map(ToString::to_string));
    let items = ids(Table::Hardening);
    let by_item = items.iter().filter_map(|id| profile.hardening.get(id.as_str())?.command.as_ref());
    commands.extend(by_item.map(ToString::to_string));
    commands
}

fn collect_paths(
    action: &Action,
    arguments: &Arguments,
    profile: &Profile,
    sources: &Sources<'_>,
    effects: &mut Effects,
) -> Result<(), PlaceholderError> {
    let ids = |table| ids_of(action, arguments, profile, table);
    let mut writes: Vec<String> = Vec::new();
    let mut replaces: Vec<String> = Vec::new();
    for backup in ids(Table::Backup).iter().filter_map(|id| profile.backups.get(id.as_str())) {
        match action.name {
            "backup.restore" => replaces.extend(backup.sources.iter().cloned()),
            "backup.restore_test" => {
                // Else the name of a scratch database.
                let into = backup.restore_test.as_ref().map(|test| test.into.clone());
                replaces.extend(into.filter(|path| path.starts_with('/')));
            }
            "backup.run" => {
                writes.push(backup.directory.clone());
                writes.extend(
                    backup.copy.as_ref().map(|copy| copy.to.clone()).filter(|to| to.starts_with('/')),
                );
            }
            "backup.prune" => writes.push(backup.directory.clone()),
            _ => {}
        }
    }
    for id in ids(Table::Tuning) {
        writes.extend(profile.tunings.get(id.as_str()).iter().flat_map(|tuning| tuning_files(&id, tuning)));
    }
    let rulesets = ids(Table::Ruleset);
    let files = rulesets.iter().filter_map(|id| profile.rulesets.get(id.as_str()));
    writes.extend(files.map(|ruleset| ruleset.file.clone()));
    if action.name == "log.configure" {
        writes.extend(ids(Table::Log).iter().map(|id| log_file(id)));
        writes.push(ROTATION_TIMER.to_owned());
    } else if effects.changes {
        for log in ids(Table::Log).iter().filter_map(|id| profile.logs.get(id.as_str())) {
            replaces.extend(log.paths.iter().cloned());
            replaces.extend(log.archive.as_ref().map(|archive| archive.directory.clone()));
            replaces.extend(log.delete.iter().flat_map(|delete| delete.paths.iter().cloned()));
            replaces.extend(log.remove_empty_directories.as_ref().map(|empty| empty.under.clone()));
        }
        for parameter in action.parameters.iter().filter(|p| matches!(p.takes, Takes::Path | Takes::Paths)) {
            match arguments.get(parameter.name) {
                Some(Value::String(path)) => replaces.push(path.clone()),
                Some(Value::List(paths)) => replaces.extend(paths.iter().map(ToString::to_string)),
                _ => {}
            }
        }
    }
    effects.writes = writes.iter().map(|path| expand(path, sources)).collect::<Result<_, _>>()?;
    effects.replaces = replaces.iter().map(|path| expand(path, sources)).collect::<Result<_, _>>()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = r#"
        schema = "fleet/v1"
        name = "edge"
        version = 1
        [vars]
        name = "60-fw"
        [tuning.memory]
        kind = "sysctl"
        file = "/etc/sysctl.d/{name}.conf"
        set = { "vm.swappiness" = 10 }
        touches_network = false
        [tuning.buffers]
        kind = "sysctl"
        file = "/etc/sysctl.d/61-fw.conf"
        set = { "net.core.rmem_max" = 1 }
        touches_network = false
        [tuning.unsaid]
        kind = "sysctl"
        file = "/etc/sysctl.d/62-fw.conf"
        set = { "vm.swappiness" = 10 }
        [tuning.off]
        kind = "sysctl"
        file = "/etc/sysctl.d/63-fw.conf"
        set = { "net.core.rmem_max" = 1 }
        enabled = false
        [tuning.disk]
        kind = "block"
        device_of = "/var/log"
        set = { scheduler = "none" }
        [tuning.mount]
        kind = "mount"
        path = "/var/log"
        options = ["noatime"]
        [log.main]
        paths = ["/var/log/fw/*.log"]
        rotate = { every = "daily", keep = 3 }
    "#;

    fn effects(action: &str, parameter: &str, id: &str) -> Effects {
        let profile: Profile = toml::from_str(PROFILE).unwrap();
        let arguments = Arguments::from([(parameter.to_owned(), Value::List(vec![Value::from(id)]))]);
        let sources = Sources { vars: Some(&profile.vars), ..Sources::default() };
        of(Action::find(action).unwrap(), &arguments, &profile, &sources).unwrap()
    }

    #[test]
    fn a_tuning_of_the_network_needs_a_guard_whatever_its_author_says() {
        for (action, id, touches) in [
            ("tuning.apply", "memory", false),
            ("tuning.apply", "buffers", true),
            ("tuning.apply", "unsaid", true),
            ("tuning.apply", "off", false),
            ("tuning.revert", "off", true),
            ("tuning.apply", "disk", false),
            ("tuning.apply", "mount", false),
        ] {
            let effects = effects(action, "tuning", id);
            assert_eq!(effects.touches_network, touches, "{action} {id}");
            assert!(effects.changes && effects.disruptive, "{action} {id}");
        }
    }

    #[test]
    fn what_local_policy_protects_is_held_against_the_files_that_are_written() {
        for (action, parameter, id, file) in [
            ("tuning.apply", "tuning", "memory", "/etc/sysctl.d/60-fw.conf"),
            ("tuning.apply", "tuning", "disk", "/etc/udev/rules.d/61-fleet-disk.rules"),
            ("tuning.revert", "tuning", "mount", "/etc/fstab"),
            ("log.configure", "logs", "main", "/etc/logrotate.d/fleet-main"),
        ] {
            let effects = effects(action, parameter, id);
            assert!(effects.writes.contains(file), "{action} {id}: {:?}", effects.writes);
            assert!(effects.replaces.is_empty(), "{action} {id}");
        }
        assert!(effects("log.rotate", "logs", "main").replaces.contains("/var/log/fw/*.log"));
    }
}
