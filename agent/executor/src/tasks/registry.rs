//! From the name of an action to its task.
//!
//! What is not in here is not built: a node announces [`built`], and a run that needs another action
//! is refused by name before anything starts.

use super::backup_prune::BackupPrune;
use super::backup_restore::BackupRestore;
use super::backup_restore_test::BackupRestoreTest;
use super::backup_run::BackupRun;
use super::backup_verify::BackupVerify;
use super::command_run::CommandRun;
use super::config_validate::ConfigValidate;
use super::contract::Task;
use super::database_analyze::DatabaseAnalyze;
use super::database_purge::DatabasePurge;
use super::database_reindex::DatabaseReindex;
use super::database_report::DatabaseReport;
use super::database_vacuum::DatabaseVacuum;
use super::disk_report::DiskReport;
use super::health_check::HealthCheck;
use super::health_repair::HealthRepair;
use super::log_configure::LogConfigure;
use super::log_prune::LogPrune;
use super::log_rotate::LogRotate;
use super::metrics_collect::MetricsCollect;
use super::package_downgrade::PackageDowngrade;
use super::package_download::PackageDownload;
use super::package_list_updates::PackageListUpdates;
use super::package_refresh::PackageRefresh;
use super::package_upgrade::PackageUpgrade;
use super::reboot::Reboot;
use super::ruleset_apply::RulesetApply;
use super::ruleset_check::RulesetCheck;
use super::ruleset_revert::RulesetRevert;
use super::service_assert_active::ServiceAssertActive;
use super::service_restart::ServiceRestart;
use super::service_start::ServiceStart;
use super::service_stop::ServiceStop;
use super::tuning_apply::TuningApply;
use super::tuning_revert::TuningRevert;

/// Every task of this build, by its action, sorted.
const TASKS: &[(&str, Task)] = &[
    ("backup.prune", Task::Change(&BackupPrune)),
    ("backup.restore", Task::Change(&BackupRestore)),
    ("backup.restore_test", Task::Change(&BackupRestoreTest)),
    ("backup.run", Task::Change(&BackupRun)),
    ("backup.verify", Task::Inspect(&BackupVerify)),
    ("command.run", Task::Change(&CommandRun)),
    ("config.validate", Task::Inspect(&ConfigValidate)),
    ("database.analyze", Task::Change(&DatabaseAnalyze)),
    ("database.purge", Task::Change(&DatabasePurge)),
    ("database.reindex", Task::Change(&DatabaseReindex)),
    ("database.report", Task::Inspect(&DatabaseReport)),
    ("database.vacuum", Task::Change(&DatabaseVacuum)),
    ("disk.report", Task::Inspect(&DiskReport)),
    ("health.check", Task::Inspect(&HealthCheck)),
    ("health.repair", Task::Change(&HealthRepair)),
    ("log.configure", Task::Change(&LogConfigure)),
    ("log.prune", Task::Change(&LogPrune)),
    ("log.rotate", Task::Change(&LogRotate)),
    ("metrics.collect", Task::Inspect(&MetricsCollect)),
    ("package.downgrade", Task::Change(&PackageDowngrade)),
    ("package.download", Task::Inspect(&PackageDownload)),
    ("package.list_updates", Task::Inspect(&PackageListUpdates)),
    ("package.refresh", Task::Inspect(&PackageRefresh)),
    ("package.upgrade", Task::Change(&PackageUpgrade)),
    ("reboot", Task::Change(&Reboot)),
    ("ruleset.apply", Task::Change(&RulesetApply)),
    ("ruleset.check", Task::Inspect(&RulesetCheck)),
    ("ruleset.revert", Task::Change(&RulesetRevert)),
    ("service.assert_active", Task::Inspect(&ServiceAssertActive)),
    ("service.restart", Task::Change(&ServiceRestart)),
    ("service.start", Task::Change(&ServiceStart)),
    ("service.stop", Task::Change(&ServiceStop)),
    ("tuning.apply", Task::Change(&TuningApply)),
    ("tuning.revert", Task::Change(&TuningRevert)),
];

/// Actions that do nothing but ask, start and stop units.
pub const NEED_UNITS: &[&str] =
    &["health.repair", "service.assert_active", "service.restart", "service.start", "service.stop"];

/// Actions on packages.
pub const NEED_PACKAGES: &[&str] =
    &["package.downgrade", "package.download", "package.list_updates", "package.refresh", "package.upgrade"];

/// Actions that only systemd carries out.
pub const NEED_SYSTEMD: &[&str] = &["reboot"];

/// Every task of this build with its action.
pub fn built() -> impl Iterator<Item = (&'static str, Task)> {
    TASKS.iter().copied()
}

/// The task of an action; none when this build has none.
pub fn find(action: &str) -> Option<Task> {
    TASKS.iter().find(|(name, _)| *name == action).map(|(_, task)| *task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Reversal;
    use fleet_types::action::{Action, Answer, BUILT, MEANT_TO_STAY, UNDOES_ITSELF};

    #[test]
    fn the_registry_is_what_the_release_says_and_each_task_is_of_its_kind() {
        let names: Vec<_> = built().map(|(name, _)| name).collect();
        assert_eq!(names, BUILT, "the list that documents are checked against");
        for (name, task) in built() {
            let action = Action::find(name).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
            match task {
                Task::Inspect(_) => assert_eq!(action.changes, Answer::No, "{name}"),
                Task::Change(_) => assert_ne!(action.changes, Answer::No, "{name}"),
            }
        }
        for (reversal, listed) in [(Reversal::Stored, UNDOES_ITSELF), (Reversal::Stays, MEANT_TO_STAY)] {
            let is = |task: &Task| matches!(task, Task::Change(change) if change.reversal() == reversal);
            let names: Vec<_> = built().filter(|(_, task)| is(task)).map(|(name, _)| name).collect();
            assert_eq!(names, listed, "what documents are told of ways back");
        }
        assert!(find("backup.nonsense").is_none());
        assert!(NEED_UNITS.iter().chain(NEED_PACKAGES).chain(NEED_SYSTEMD).all(|name| find(name).is_some()));
        assert!(names.iter().all(|name| !name.starts_with("package.") || NEED_PACKAGES.contains(name)));
    }
}
