//! Services: the trait and its types.
//!
//! Two backends: `systemd` on machines that it runs; `supervised` starts units by itself for machines without it and for
//! development. Which one is used is part of the node's facts. A unit that cannot be asked is unknown, never down. Called by
//! tasks and, for what a node can do at all, by the table of tasks.

use std::time::Duration;

use fleet_types::time::Timestamp;

/// Where units run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitsKind {
    /// systemd.
    Systemd,
    /// The agent's own supervisor.
    Supervised,
}

impl UnitsKind {
    /// The word of the facts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Supervised => "supervised",
        }
    }
}

/// Does a unit run?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It runs.
    Active,
    /// It does not, and nothing is wrong with that.
    Inactive,
    /// It ended badly.
    Failed,
    /// There is no such unit.
    NotFound,
}

impl Activity {
    /// The word as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::NotFound => "not-found",
        }
    }
}

/// The end of a unit's last run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    /// When it ended.
    pub ended: Timestamp,
    /// Did it end well?
    pub success: bool,
    /// How, in words.
    pub how: String,
}

/// The state of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// Does it run?
    pub activity: Activity,
    /// Its main process.
    pub main_pid: Option<u32>,
    /// When it was last started.
    pub started: Option<Timestamp>,
    /// How its last run ended.
    pub last_run: Option<LastRun>,
}

/// What must be known of a unit before it is started, stopped or reloaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitRelations {
    /// Its own name: the one that was asked for may be another name of it.
    pub name: String,
    /// Its file says that it must not be started.
    pub masked: bool,
    /// Can it take up its configuration without a restart?
    pub can_reload: bool,
    /// Units that run, need it, and would be stopped with it; targets are not among them.
    pub needed_by: Vec<String>,
}

/// Why a unit could not be asked or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The backend cannot do this.
    #[error("unit {unit}: {why}")]
    Unsupported {
        /// The unit.
        unit: String,
        /// What is not possible, and what to do.
        why: String,
    },
    /// The name is no unit name.
    #[error("\"{0}\" is no name of a unit, such as nginx.service")]
    Name(String),
    /// There is no such unit.
    #[error("unit {0} is not installed")]
    NotFound(String),
    /// Its file cannot be used.
    #[error("unit {unit}: {why}")]
    File {
        /// The unit.
        unit: String,
        /// What is wrong with its file.
        why: String,
    },
    /// The service manager went away before it answered, as one does that executes itself anew.
    #[error("unit {unit}: {why}")]
    Away {
        /// The unit.
        unit: String,
        /// What the bus says.
        why: String,
    },
    /// The effect failed.
    #[error("unit {unit}: {why}")]
    Failed {
        /// The unit.
        unit: String,
        /// What happened.
        why: String,
    },
}

/// Services of the node.
pub trait Units: Send + Sync {
    /// Which backend this is.
    fn kind(&self) -> UnitsKind;

    /// Why no unit can be asked on this node; none where they can.
    fn unavailable(&self) -> Option<&'static str> {
        None
    }

    /// The state of a unit.
    fn state(&self, unit: &str) -> Result<UnitState, UnitError>;

    /// What must be known before it is changed.
    fn relations(&self, unit: &str) -> Result<UnitRelations, UnitError>;

    /// Starts it; one that runs is left alone.
    fn start(&self, unit: &str, limit: Duration) -> Result<(), UnitError>;

    /// Stops it and waits for its end; one that does not run is left alone.
    fn stop(&self, unit: &str, limit: Duration) -> Result<(), UnitError>;

    /// Stops and starts it.
    fn restart(&self, unit: &str, limit: Duration) -> Result<(), UnitError> {
        self.stop(unit, limit)?;
        self.start(unit, limit)
    }

    /// Lets it take up its configuration, or open its logs anew, without a restart.
    fn reload(&self, unit: &str, limit: Duration) -> Result<(), UnitError>;

    /// Is it started with the machine?
    fn is_enabled(&self, unit: &str) -> Result<bool, UnitError>;

    /// Has it started with the machine from now on, or not; the unit itself is left as it is.
    fn set_enabled(&self, unit: &str, enabled: bool) -> Result<(), UnitError>;

    /// Takes up unit files that were changed.
    fn load_files(&self) -> Result<(), UnitError>;

    /// What holds a restart of the machine up, in words of those who do (`systemd-inhibit(1)`).
    fn against_restart(&self) -> Result<Vec<String>, UnitError> {
        Err(no_restart())
    }

    /// Asks for an orderly restart of the machine and does not wait for it.
    fn restart_machine(&self) -> Result<(), UnitError> {
        Err(no_restart())
    }

    /// Is the machine still starting?
    fn is_booting(&self) -> Result<bool, UnitError> {
        Err(no_restart())
    }

    /// Stops every unit that this backend started: the end of a development fleet. A backend that does not
    /// own its units (systemd) stops none.
    fn stop_all(&self) -> Result<(), UnitError> {
        Ok(())
    }
}

/// A backend that does not own the machine neither restarts it nor knows of its start.
fn no_restart() -> UnitError {
    let why = "only systemd restarts the machine in order".to_owned();
    UnitError::Unsupported { unit: "reboot.target".to_owned(), why }
}

/// Is this the name of a unit? `systemd.unit(5)`: letters, digits and `:-_.\@`, with a suffix. No slash, so
/// that a name is never a path.
pub(crate) fn check_unit_name(unit: &str) -> Result<(), UnitError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let suffix = [".service", ".timer", ".socket", ".target", ".path", ".mount"];
    let good = unit.len() <= 255
        && unit.bytes().all(allowed)
        && !unit.starts_with(['.', '-'])
        && suffix.iter().any(|s| unit.len() > s.len() && unit.ends_with(s));
    if good { Ok(()) } else { Err(UnitError::Name(unit.chars().take(64).collect())) }
}
