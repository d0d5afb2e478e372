//! From the name of an action to its task.
//!
//! What is not in here is not built: a node announces [`built_actions`], and a run that needs another action
//! is refused by name before anything starts.

use super::contract::Task;

/// Every action that this build can do, sorted.
pub fn built_actions() -> &'static [&'static str] {
    &[]
}

/// The task of an action; none when this build has none.
pub fn find(_action: &str) -> Option<Task> {
    None
}
