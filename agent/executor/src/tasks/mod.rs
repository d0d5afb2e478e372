//! Tasks: what the agent can do, one file each, reached by the name of their action.
//!
//! `contract` says what a task is, `registry` finds one. Helpers that several tasks share read parameters
//! (`args`), fill in placeholders (`fill`), start declared commands (`programs`) and work out which packages are meant
//! (`packages`). Called by the run alone.

mod age;
mod archive;
mod archive_error;
mod args;
mod backup_copy;
mod backup_prune;
mod backup_restore;
mod backup_restore_test;
mod backup_run;
#[cfg(test)]
mod backup_tests;
mod backup_verify;
mod boot_loader;
mod certificate;
mod command_run;
mod config_validate;
mod contract;
mod database;
mod database_analyze;
mod database_purge;
mod database_reindex;
mod database_report;
mod database_restore;
mod database_vacuum;
mod deadline;
mod disk_report;
mod fill;
mod health_check;
mod health_probe;
mod health_repair;
mod hung;
mod log_configure;
mod log_prune;
mod log_rotate;
mod log_rotation;
#[cfg(test)]
mod log_rotation_tests;
mod log_rules;
#[cfg(test)]
mod log_tests;
mod metrics_collect;
mod package_downgrade;
mod package_download;
mod package_list_updates;
mod package_note;
mod package_refresh;
mod package_restore;
mod package_upgrade;
mod packages;
mod part;
mod programs;
mod reboot;
#[cfg(test)]
mod reboot_tests;
mod registry;
mod restore_listing;
mod restore_stage;
#[cfg(test)]
mod restore_tests;
mod restore_validate;
mod retention;
mod ruleset;
mod ruleset_apply;
mod ruleset_check;
mod ruleset_revert;
mod service_assert_active;
mod service_change;
mod service_restart;
mod service_start;
mod service_state;
mod service_stop;
#[cfg(test)]
mod service_tests;
mod syntax;
mod syntax_yaml;
#[cfg(test)]
mod testing;
mod tuning_apply;
mod tuning_block;
mod tuning_mount;
mod tuning_note;
mod tuning_revert;
mod tuning_setting;
mod tuning_sysctl;
#[cfg(test)]
mod tuning_tests;

pub use contract::{
    CancelFlag, Change, Inspect, JobView, Leaves, NotedUndo, OutputSink, RetryKind, Reversal, SERVICES,
    StepIdentity, Task, TaskContext, TaskError, TaskPlan,
};
pub use log_rotation::{ROTATION_TIMER, log_file};
pub use registry::{NEED_PACKAGES, NEED_SYSTEMD, NEED_UNITS, built, find};
pub use service_change::that_did_not_run;
pub use service_stop::stop_services;
pub use tuning_apply::tuning_files;
