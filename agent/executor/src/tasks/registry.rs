//! From the name of an action to its task.
//!
//! What is not in here is not built: a node announces [`built_actions`], and a run that needs another action
//! is refused by name before anything starts.

use super::backup_prune::BackupPrune;
use super::backup_run::BackupRun;
use super::backup_verify::BackupVerify;
use super::command_run::CommandRun;
use super::config_validate::ConfigValidate;
use super::contract::Task;
use super::health_check::HealthCheck;
use super::health_repair::HealthRepair;
use super::log_prune::LogPrune;
use super::metrics_collect::MetricsCollect;
use super::service_assert_active::ServiceAssertActive;

/// Every action that this build can do, sorted.
pub fn built_actions() -> &'static [&'static str] {
    &[
        "backup.prune",
        "backup.run",
        "backup.verify",
        "command.run",
        "health.check",
        "health.repair",
        "metrics.collect",
        "service.assert_active",
    ]
}

/// The task of an action; none when this build has none.
pub fn find(action: &str) -> Option<Task> {
    Some(match action {
        "backup.prune" => Task::Change(&BackupPrune),
        "backup.run" => Task::Change(&BackupRun),
        "backup.verify" => Task::Inspect(&BackupVerify),
        "command.run" => Task::Change(&CommandRun),
        "config.validate" => Task::Inspect(&ConfigValidate),
        "health.check" => Task::Inspect(&HealthCheck),
        "health.repair" => Task::Change(&HealthRepair),
        "log.prune" => Task::Change(&LogPrune),
        "metrics.collect" => Task::Inspect(&MetricsCollect),
        "service.assert_active" => Task::Inspect(&ServiceAssertActive),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::action::{Action, Answer};

    #[test]
    fn every_built_action_is_in_the_catalogue_and_of_its_kind() {
        assert!(built_actions().is_sorted());
        for name in built_actions() {
            let action = Action::find(name).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
            match find(name).unwrap_or_else(|| panic!("{name} has no task")) {
                Task::Inspect(_) => assert_eq!(action.changes, Answer::No, "{name}"),
                Task::Change(_) => assert_ne!(action.changes, Answer::No, "{name}"),
            }
        }
        assert!(find("backup.nonsense").is_none());
    }
}
