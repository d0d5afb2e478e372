//! The services of a scripted machine: they run, fail and stand in each other's way as the test says. Tests only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_types::time::Timestamp;

use super::scripted::ScriptedHost;
use super::{Activity, Clock as _, UnitError, UnitRelations, UnitState, Units, UnitsKind};

/// Why a machine whose units cannot be asked says that they cannot.
const NO_UNITS: &str = "this machine has no system bus";

/// What is special of units.
#[derive(Debug, Default)]
pub struct UnitTraits {
    /// It is systemd that runs them.
    pub systemd: bool,
    /// Units that may not be started.
    pub masked: BTreeSet<String>,
    /// Units that are only other names of these.
    pub aliases: BTreeMap<String, String>,
    /// Units that run and need this one.
    pub needed_by: BTreeMap<String, Vec<String>>,
    /// Units that do not stop.
    pub stuck: BTreeSet<String>,
    /// Units that end right after their start.
    pub short_lived: BTreeSet<String>,
    /// Units that start with the machine.
    pub enabled: BTreeSet<String>,
    /// Units that cannot be reloaded.
    pub no_reload: BTreeSet<String>,
    /// Who holds a restart of the machine up.
    pub against_restart: Vec<String>,
    /// How often it is still starting when it is asked.
    pub booting: u32,
    /// When units were started.
    pub started: BTreeMap<String, Timestamp>,
}

fn failed(unit: &str, why: &str) -> UnitError {
    UnitError::Failed { unit: unit.to_owned(), why: why.to_owned() }
}

impl Units for ScriptedHost {
    fn kind(&self) -> UnitsKind {
        if self.script().unit_traits.systemd { UnitsKind::Systemd } else { UnitsKind::Supervised }
    }

    fn unavailable(&self) -> Option<&'static str> {
        if self.script().no_units { Some(NO_UNITS) } else { None }
    }

    fn state(&self, unit: &str) -> Result<UnitState, UnitError> {
        if self.script().no_units {
            return Err(UnitError::Unsupported { unit: unit.to_owned(), why: NO_UNITS.to_owned() });
        }
        // A hang ends with the test's process at the latest: the thread of a hung check is not joined.
        while self.script().hanging_units.contains(unit) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let script = self.script();
        let activity = script.units.get(unit).copied().unwrap_or(Activity::NotFound);
        let started = script.unit_traits.started.get(unit).copied();
        Ok(UnitState { activity, main_pid: None, started, last_run: None })
    }

    fn relations(&self, unit: &str) -> Result<UnitRelations, UnitError> {
        let script = self.script();
        let traits = &script.unit_traits;
        Ok(UnitRelations {
            name: traits.aliases.get(unit).map_or_else(|| unit.to_owned(), Clone::clone),
            masked: traits.masked.contains(unit),
            can_reload: !traits.no_reload.contains(unit),
            needed_by: traits.needed_by.get(unit).cloned().unwrap_or_default(),
        })
    }

    fn start(&self, unit: &str, _limit: Duration) -> Result<(), UnitError> {
        let now = self.now();
        let mut script = self.script();
        script.unit_calls.push(format!("start {unit}"));
        if !script.units.contains_key(unit) {
            return Err(UnitError::NotFound(unit.to_owned()));
        }
        if script.broken_units.contains(unit) {
            return Err(failed(unit, "exit status 1"));
        }
        let lives = !script.unit_traits.short_lived.contains(unit);
        let activity = if lives { Activity::Active } else { Activity::Failed };
        script.units.insert(unit.to_owned(), activity);
        script.unit_traits.started.insert(unit.to_owned(), now);
        Ok(())
    }

    fn stop(&self, unit: &str, _limit: Duration) -> Result<(), UnitError> {
        let mut script = self.script();
        script.unit_calls.push(format!("stop {unit}"));
        if script.unit_traits.stuck.contains(unit) {
            return Err(failed(unit, "its stop did not end within 60 s"));
        }
        script.units.insert(unit.to_owned(), Activity::Inactive);
        Ok(())
    }

    fn reload(&self, unit: &str, _limit: Duration) -> Result<(), UnitError> {
        self.script().unit_calls.push(format!("reload {unit}"));
        Ok(())
    }

    fn is_enabled(&self, unit: &str) -> Result<bool, UnitError> {
        Ok(self.script().unit_traits.enabled.contains(unit))
    }

    fn set_enabled(&self, unit: &str, enabled: bool) -> Result<(), UnitError> {
        let mut script = self.script();
        let word = if enabled { "enable" } else { "disable" };
        script.unit_calls.push(format!("{word} {unit}"));
        if enabled {
            script.unit_traits.enabled.insert(unit.to_owned());
        } else {
            script.unit_traits.enabled.remove(unit);
        }
        Ok(())
    }

    fn load_files(&self) -> Result<(), UnitError> {
        self.script().unit_calls.push("load files".to_owned());
        Ok(())
    }

    fn against_restart(&self) -> Result<Vec<String>, UnitError> {
        Ok(self.script().unit_traits.against_restart.clone())
    }

    fn restart_machine(&self) -> Result<(), UnitError> {
        let mut script = self.script();
        script.unit_calls.push("restart the machine".to_owned());
        if script.unit_traits.stuck.contains("reboot.target") {
            return Err(failed("reboot.target", "access denied"));
        }
        Ok(())
    }

    fn is_booting(&self) -> Result<bool, UnitError> {
        let traits = &mut self.script().unit_traits;
        let left = traits.booting;
        traits.booting = left.saturating_sub(1);
        Ok(left > 0)
    }
}
