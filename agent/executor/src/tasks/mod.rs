//! Tasks: what the agent can do, one file each, reached by the name of their action.
//!
//! `contract` says what a task is, `registry` finds one. Helpers that several tasks share read parameters
//! (`args`), fill in placeholders (`fill`), start declared commands (`programs`) and work out which packages are meant
//! (`packages`). Called by the run alone.

mod archive;
mod args;
mod backup_prune;
mod backup_run;
#[cfg(test)]
mod backup_tests;
mod backup_verify;
mod certificate;
mod command_run;
mod config_validate;
mod contract;
mod deadline;
mod fill;
mod health_check;
mod health_probe;
mod health_repair;
mod hung;
mod log_prune;
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
mod registry;
mod retention;
mod service_assert_active;
mod service_state;
mod syntax;
#[cfg(test)]
mod testing;

pub use contract::{
    CancelFlag, Change, Inspect, JobView, NotedUndo, OutputSink, RetryKind, Reversal, StepIdentity, Task,
    TaskContext, TaskError, TaskPlan,
};
pub use registry::{NEED_PACKAGES, NEED_UNITS, built, find};
