//! The machine: everything a task may do to a node, as capabilities behind one trait.
//!
//! `contract` holds the trait; the traits of the capabilities and their types are in one file each
//! (`files`, `processes`, `units`, `packages`, `clock`, `system`, `notes`), and so are their Linux backends. The host
//! must never decide whether something may be done: policy has done so before a task is called. Called by
//! the run, the tasks and `facts`.

mod apt;
mod background;
mod clock;
mod contract;
mod files;
mod glob;
mod linux;
mod linux_files;
mod notes;
mod old_files;
mod open_files;
mod packages;
mod proc_system;
mod process_id;
mod processes;
mod program;
mod record;
mod runner;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod scripted_packages;
#[cfg(test)]
pub(crate) mod scripted_units;
pub mod supervise;
mod supervised;
mod system;
mod systemd;
mod systemd_files;
mod systemd_restart;
mod transient;
mod unit_file;
mod units;
mod walk;

pub(crate) use files::temporary_beside;

pub use background::in_background;
pub use clock::{Clock, LinuxClock};
pub use contract::Host;
pub use files::{
    Dress, Entry, FileError, FileKind, FileProblem, Files, ReadFile, Space, Stat, WriteFile, read_all,
    write_atomic,
};
pub use glob::Glob;
pub use linux::{HostConfig, HostError, LinuxHost};
pub use notes::{NoteError, Notes};
pub use packages::{
    Build, Direction, InstalledPackage, InstalledPackages, Kept, KeptFrom, Marks, PackageChange,
    PackageError, PackageFault, PackageResult, PackageWork, Packages, SetAside, Standing, Wanted,
};
pub use processes::{
    Exit, Input, Invocation, Living, ProcessError, ProcessOutcome, Processes, Purpose, Running, UnitName,
};
pub use runner::{Supervisor, THIS_PROGRAM};
pub use system::{
    CpuTimes, DiskUsage, InterfaceCounters, LoadAverages, MemoryUse, Mount, System, SystemError,
};
pub use transient::start_guard as start_guard_unit;
pub use units::{Activity, LastRun, UnitError, UnitRelations, UnitState, Units, UnitsKind};
pub use walk::{Found, check_links, walk, walk_below, walk_trees};
