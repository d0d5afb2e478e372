//! Which tasks this executor has on this node, by the name of their action.
//!
//! Made once at start: from the registry of the build and what the machine can do, or in tests from scripted
//! tasks.

use std::collections::BTreeMap;

use crate::host::{Host, UnitsKind};
use crate::tasks::{self, Task};

/// The tasks by action.
#[derive(Clone, Default)]
pub struct TaskTable {
    tasks: BTreeMap<&'static str, Task>,
    no_units: Option<&'static str>,
    no_packages: bool,
    no_systemd: bool,
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

    /// Those of them that can do their work on this machine.
    #[must_use]
    pub fn on(mut self, host: &dyn Host) -> Self {
        self.no_units = host.units().unavailable();
        if self.no_units.is_some() {
            self.tasks.retain(|action, _| !tasks::NEED_UNITS.contains(action));
        }
        self.no_packages = host.packages().manager().is_none();
        if self.no_packages {
            self.tasks.retain(|action, _| !tasks::NEED_PACKAGES.contains(action));
        }
        self.no_systemd = host.units().kind() != UnitsKind::Systemd;
        if self.no_systemd {
            self.tasks.retain(|action, _| !tasks::NEED_SYSTEMD.contains(action));
        }
        self
    }

    /// These tasks and no others, on a machine whose units and packages can be asked.
    pub fn of(tasks: impl IntoIterator<Item = (&'static str, Task)>) -> Self {
        Self { tasks: tasks.into_iter().collect(), no_units: None, no_packages: false, no_systemd: false }
    }

    /// The task of an action.
    pub fn get(&self, action: &str) -> Option<Task> {
        self.tasks.get(action).copied()
    }

    /// Why units cannot be asked on this node; none where they can.
    pub const fn no_units(&self) -> Option<&'static str> {
        self.no_units
    }

    /// Does this node have no package manager that this build speaks to?
    pub const fn no_packages(&self) -> bool {
        self.no_packages
    }

    /// Is it not systemd that runs this node?
    pub const fn no_systemd(&self) -> bool {
        self.no_systemd
    }

    /// The actions, sorted.
    pub fn actions(&self) -> impl Iterator<Item = &'static str> {
        self.tasks.keys().copied()
    }
}
