//! A Linux machine: the real node, or a development node inside a private root folder.
//!
//! Made once by the agent binary at its start and handed to the run. It must be the only place that picks
//! backends.

use std::path::PathBuf;
use std::sync::Arc;

use super::apt::AptPackages;
use super::clock::LinuxClock;
use super::files::FileError;
use super::linux_files::LinuxFiles;
use super::notes::FolderNotes;
use super::proc_system::ProcSystem;
use super::runner::{LinuxProcesses, Supervisor};
use super::supervised::SupervisedUnits;
use super::systemd::SystemdUnits;
use super::units::UnitsKind;
use super::{Clock, Files, Host, Notes, Packages, Processes, System, Units};

/// What a host is made from.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// `/` on a real node, a private folder on a development node.
    pub root: PathBuf,
    /// The executor's state folder: records of processes and units, notes. Never below a private root.
    pub state: PathBuf,
    /// How the supervisor is started: usually the agent's binary with `supervise`.
    pub supervisor: Supervisor,
    /// Where units run.
    pub units: UnitsKind,
}

/// A host could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The root cannot be opened.
    #[error("the root of the node cannot be used")]
    Root(#[source] FileError),
    /// The state folder cannot be made.
    #[error("the state folder {} cannot be made: {why}", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
}

/// A Linux machine. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct LinuxHost {
    parts: Arc<Parts>,
}

struct Parts {
    files: Arc<dyn Files>,
    processes: Arc<LinuxProcesses>,
    packages: AptPackages,
    units: Box<dyn Units>,
    clock: LinuxClock,
    system: ProcSystem,
    notes: FolderNotes,
}

impl LinuxHost {
    /// Opens the machine. Looks that an earlier life of the agent left running are ended; effects are not.
    pub fn open(config: &HostConfig) -> Result<Self, HostError> {
        let host = Self::open_beside(config)?;
        host.parts.processes.sweep_looks();
        Ok(host)
    }

    /// The same for a process beside the agent, whose looks are not its to end.
    pub fn open_beside(config: &HostConfig) -> Result<Self, HostError> {
        std::fs::create_dir_all(&config.state)
            .map_err(|e| HostError::State { path: config.state.clone(), why: e.to_string() })?;
        let files: Arc<dyn Files> = Arc::new(LinuxFiles::open(&config.root).map_err(HostError::Root)?);
        let processes = Arc::new(LinuxProcesses::new(
            files.clone(),
            config.supervisor.clone(),
            &config.state,
            config.units,
        ));
        let packages = AptPackages::new(files.clone(), processes.clone(), &config.state);
        let units: Box<dyn Units> = match config.units {
            UnitsKind::Systemd => Box::new(SystemdUnits),
            UnitsKind::Supervised => {
                Box::new(SupervisedUnits::new(files.clone(), config.supervisor.clone(), &config.state))
            }
        };
        let notes = FolderNotes::new(&config.state.join("notes"));
        let clock = LinuxClock;
        let parts = Parts { files, processes, packages, units, clock, system: ProcSystem, notes };
        Ok(Self { parts: Arc::new(parts) })
    }
}

impl Host for LinuxHost {
    fn files(&self) -> &dyn Files {
        &*self.parts.files
    }

    fn processes(&self) -> &dyn Processes {
        &*self.parts.processes
    }

    fn packages(&self) -> &dyn Packages {
        &self.parts.packages
    }

    fn units(&self) -> &dyn Units {
        &*self.parts.units
    }

    fn clock(&self) -> &dyn Clock {
        &self.parts.clock
    }

    fn system(&self) -> &dyn System {
        &self.parts.system
    }

    fn notes(&self) -> &dyn Notes {
        &self.parts.notes
    }

    fn handle(&self) -> Arc<dyn Host> {
        Arc::new(self.clone())
    }

    fn simulated(&self) -> Vec<String> {
        let mut simulated = Vec::new();
        if super::program::is_rooted(&*self.parts.files) {
            simulated.push(format!("files and programs lie below {}", self.parts.files.root().display()));
            simulated.push("processor, memory, disks and interfaces are those of the machine".to_owned());
        }
        if self.parts.units.kind() == UnitsKind::Supervised {
            simulated.push("units are run by the agent's own supervisor".to_owned());
        }
        simulated
    }
}
