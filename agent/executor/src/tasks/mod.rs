//! Tasks: what the agent can do, one file each, reached by the name of their action.
//!
//! `contract` says what a task is, `registry` finds one. Helpers that several tasks share read parameters
//! (`args`), fill in placeholders (`fill`) and start declared commands (`programs`). Called by the run alone.

mod args;
mod contract;
mod fill;
mod programs;
mod registry;

pub use contract::{
    CancelFlag, Change, Inspect, OutputSink, RetryKind, StepIdentity, Task, TaskContext, TaskError, TaskPlan,
};
pub use registry::{built_actions, find};
