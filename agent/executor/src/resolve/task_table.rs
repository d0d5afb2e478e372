//! Which tasks this executor has, by the name of their action.
//!
//! Made once at start: from the registry of the build, or in tests from scripted tasks.

use std::collections::BTreeMap;

use crate::tasks::{self, Task};

/// The tasks by action.
#[derive(Clone, Default)]
pub struct TaskTable {
    tasks: BTreeMap<&'static str, Task>,
}

impl std::fmt::Debug for TaskTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.tasks.keys()).finish()
    }
}

impl TaskTable {
    /// All tasks of this build.
    pub fn built() -> Self {
        Self::of(tasks::built())
    }

    /// These tasks and no others.
    pub fn of(tasks: impl IntoIterator<Item = (&'static str, Task)>) -> Self {
        Self { tasks: tasks.into_iter().collect() }
    }

    /// The task of an action.
    pub fn get(&self, action: &str) -> Option<Task> {
        self.tasks.get(action).copied()
    }

    /// The actions, sorted.
    pub fn actions(&self) -> impl Iterator<Item = &'static str> {
        self.tasks.keys().copied()
    }
}
