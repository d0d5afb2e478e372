//! Units without systemd: each runs under a supervisor process of its own and is known by its record.
//!
//! For machines without systemd and for development nodes. Units go on when the agent ends and are found again
//! by pid, start time and boot id (security-and-delivery §1.16). Timers are not run; asking for one is an
//! error that says so. Called by tasks through `Units`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::clock::{Clock, LinuxClock};
use super::files::{FileProblem, Files, read_all};
use super::process_id::ProcessId;
use super::processes::{Exit, Invocation};
use super::program;
use super::record::Record;
use super::runner::Supervisor;
use super::unit_file::{self, UnitFile};
use super::units::{
    Activity, LastRun, UnitError, UnitRelations, UnitState, Units, UnitsKind, check_unit_name,
};
use crate::tasks::CancelFlag;

/// Where unit files lie, the administrator's first.
const UNIT_FOLDERS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// Largest unit file.
const MAX_UNIT_BYTES: u64 = 256 * 1024;
/// A supervisor begins within milliseconds; this much covers a machine that is swapping.
const START_LIMIT: Duration = Duration::from_secs(10);
/// A oneshot unit is waited for so long, as a step would be by default.
const ONESHOT_LIMIT: Duration = Duration::from_mins(10);
/// Between SIGTERM and SIGKILL when a unit is stopped.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// After SIGKILL the supervisor has this long to note the end.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// How often a record is looked at while its unit starts or stops.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Units that this agent starts itself.
pub(crate) struct SupervisedUnits {
    files: Arc<dyn Files>,
    supervisor: Supervisor,
    state: PathBuf,
    /// One start or stop at a time: two at once would start a unit twice.
    changing: Mutex<()>,
}

impl SupervisedUnits {
    /// Records lie below `state`.
    pub(crate) fn new(files: Arc<dyn Files>, supervisor: Supervisor, state: &Path) -> Self {
        Self { files, supervisor, state: state.join("units"), changing: Mutex::new(()) }
    }

    fn record(&self, unit: &str) -> Record {
        Record::at(&self.state.join(unit))
    }

    fn file(&self, unit: &str) -> Result<Option<UnitFile>, UnitError> {
        check_unit_name(unit)?;
        for folder in UNIT_FOLDERS {
            match read_all(&*self.files, &Path::new(folder).join(unit), MAX_UNIT_BYTES) {
                Ok(_) if !unit.ends_with(".service") => {
                    return Err(UnitError::Unsupported {
                        unit: unit.to_owned(),
                        why: "supervised units run services only, no timers, sockets or targets".to_owned(),
                    });
                }
                Ok(bytes) => {
                    return unit_file::parse(&String::from_utf8_lossy(&bytes))
                        .map(Some)
                        .map_err(|why| UnitError::File { unit: unit.to_owned(), why });
                }
                Err(error) if error.problem == FileProblem::NotFound => {}
                Err(error) => {
                    return Err(UnitError::File { unit: unit.to_owned(), why: error.to_string() });
                }
            }
        }
        Ok(None)
    }

    /// systemd.unit(5): a link to `/dev/null` in a file's place.
    fn is_masked(&self, unit: &str) -> Result<bool, UnitError> {
        check_unit_name(unit)?;
        let link = self.files.read_link(&Path::new(UNIT_FOLDERS[0]).join(unit));
        Ok(link.is_ok_and(|to| to == Path::new("/dev/null")))
    }

    fn start_locked(&self, unit: &str, limit: Duration) -> Result<(), UnitError> {
        if self.is_masked(unit)? {
            let why = "it is masked".to_owned();
            return Err(UnitError::File { unit: unit.to_owned(), why });
        }
        let file = self.file(unit)?.ok_or_else(|| UnitError::NotFound(unit.to_owned()))?;
        let record = self.record(unit);
        if look(&record, &file).activity == Activity::Active {
            return Ok(());
        }
        let failed = |why: String| UnitError::Failed { unit: unit.to_owned(), why };
        let invocation = Invocation {
            directory: file.directory.clone(),
            environment: file.environment.clone(),
            run_as: file.user.clone(),
            ..Invocation::new(file.argv.clone(), ONESHOT_LIMIT)
        };
        let spec = program::resolve(&*self.files, &invocation, file.oneshot.then_some(ONESHOT_LIMIT))
            .map_err(failed)?;
        wait_for_predecessor(&record).map_err(failed)?;
        record.remove().and_then(|()| record.prepare(&spec)).map_err(|e| failed(e.to_string()))?;
        let mut child = self
            .supervisor
            .start(&record, &spec.nonce)
            .map_err(|e| failed(format!("its supervisor: {e}")))?;
        let limit = limit.min(if file.oneshot { ONESHOT_LIMIT + STOP_GRACE } else { START_LIMIT });
        let until = Instant::now() + limit;
        loop {
            let gone = !matches!(child.try_wait(), Ok(None));
            let ended = record.ended().map_err(|e| failed(e.to_string()))?;
            let began = record.started().map_err(|e| failed(e.to_string()))?.is_some();
            match ended {
                Some(ended) => {
                    reap(child);
                    return match ended.exit {
                        None => Err(failed(ended.not_started.unwrap_or_default())),
                        Some(exit) if exit.is_success() || file.any_exit_is_good => Ok(()),
                        Some(exit) => Err(failed(exit.to_string())),
                    };
                }
                None if gone => return Err(failed(format!("its supervisor ended: {}", record.complaints()))),
                None if began && !file.oneshot => {
                    reap(child);
                    return Ok(());
                }
                None if Instant::now() >= until => {
                    return Err(failed(format!("it did not start within {} s", limit.as_secs())));
                }
                None => pause(),
            }
        }
    }

    fn stop_locked(&self, unit: &str) -> Result<(), UnitError> {
        check_unit_name(unit)?;
        let record = self.record(unit);
        let failed = |why: String| UnitError::Failed { unit: unit.to_owned(), why };
        let boot_id = LinuxClock.boot_id();
        let Some(program) = record.started().map_err(|e| failed(e.to_string()))? else { return Ok(()) };
        if !program.is_alive(&boot_id) {
            return Ok(());
        }
        record.mark_stopped().map_err(|e| failed(e.to_string()))?;
        program.signal_group(&boot_id, Signal::TERM);
        if !wait_for_end(&record, &program, &boot_id, STOP_GRACE) {
            program.signal_group(&boot_id, Signal::KILL);
            if !wait_for_end(&record, &program, &boot_id, KILL_GRACE) {
                return Err(failed("it withstands SIGKILL".to_owned()));
            }
        }
        Ok(())
    }
}

impl Units for SupervisedUnits {
    fn kind(&self) -> UnitsKind {
        UnitsKind::Supervised
    }

    fn state(&self, unit: &str) -> Result<UnitState, UnitError> {
        if self.is_masked(unit)? {
            let record = self.record(unit);
            // It may have run before it was masked; what its file says is not known any more.
            let runs = record.started().ok().flatten().filter(|p| p.is_alive(&LinuxClock.boot_id()));
            let activity = if runs.is_some() { Activity::Active } else { Activity::Inactive };
            return Ok(UnitState { activity, main_pid: runs.map(|p| p.pid), started: None, last_run: None });
        }
        match self.file(unit)? {
            Some(file) => Ok(look(&self.record(unit), &file)),
            None => {
                Ok(UnitState { activity: Activity::NotFound, main_pid: None, started: None, last_run: None })
            }
        }
    }

    fn relations(&self, unit: &str) -> Result<UnitRelations, UnitError> {
        let masked = self.is_masked(unit)?;
        let file = if masked { None } else { self.file(unit)? };
        // Each of these units stands for itself; nobody stops one because of another.
        Ok(UnitRelations {
            name: unit.to_owned(),
            masked,
            can_reload: file.is_some_and(|file| file.reload.is_some()),
            needed_by: Vec::new(),
        })
    }

    fn start(&self, unit: &str, limit: Duration) -> Result<(), UnitError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.start_locked(unit, limit)
    }

    // A stop takes as long as its two graces at most.
    fn stop(&self, unit: &str, _limit: Duration) -> Result<(), UnitError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.stop_locked(unit)
    }

    fn reload(&self, unit: &str, _limit: Duration) -> Result<(), UnitError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |why: &str| UnitError::Failed { unit: unit.to_owned(), why: why.to_owned() };
        let file = self.file(unit)?.ok_or_else(|| UnitError::NotFound(unit.to_owned()))?;
        let signal = file.reload.ok_or_else(|| UnitError::Unsupported {
            unit: unit.to_owned(),
            why: "supervised units are reloaded by ExecReload=kill -HUP $MAINPID only".to_owned(),
        })?;
        let program = self.record(unit).started().map_err(|e| failed(&e.to_string()))?;
        let reached = program.is_some_and(|program| program.signal(&LinuxClock.boot_id(), signal));
        if reached { Ok(()) } else { Err(failed("it does not run")) }
    }

    // Nothing starts these units with the machine.
    fn is_enabled(&self, unit: &str) -> Result<bool, UnitError> {
        self.file(unit).map(|_| false)
    }

    fn set_enabled(&self, unit: &str, enabled: bool) -> Result<(), UnitError> {
        if !enabled {
            return Ok(());
        }
        let why = "supervised units are not started with the machine".to_owned();
        Err(UnitError::Unsupported { unit: unit.to_owned(), why })
    }

    // They are read each time.
    fn load_files(&self) -> Result<(), UnitError> {
        Ok(())
    }

    fn stop_all(&self) -> Result<(), UnitError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = Ok(());
        for entry in std::fs::read_dir(&self.state).into_iter().flatten().flatten() {
            // One that cannot be stopped does not keep the others running.
            let stopped = self.stop_locked(&entry.file_name().to_string_lossy());
            first = first.and(stopped);
        }
        first
    }
}

fn look(record: &Record, file: &UnitFile) -> UnitState {
    let boot_id = LinuxClock.boot_id();
    let ended = record.ended().ok().flatten();
    let program = record.started().ok().flatten().filter(|program| program.is_alive(&boot_id));
    let started = record.begun().ok().flatten().map(|begun| begun.at);
    let good = |exit: Exit| exit.is_success() || file.any_exit_is_good || record.is_stopped();
    let last_run = ended.as_ref().map(|ended| LastRun {
        ended: ended.at,
        success: ended.exit.is_some_and(good),
        how: ended.exit.map_or_else(|| "could not be started".to_owned(), |exit| exit.to_string()),
    });
    let activity = match (&program, &last_run) {
        (Some(_), None) => Activity::Active,
        (_, Some(run)) if run.success && file.remains && !record.is_stopped() => Activity::Active,
        (_, Some(run)) if run.success => Activity::Inactive,
        (_, Some(_)) => Activity::Failed,
        // Nobody saw it end: the machine restarted, or the supervisor was killed with it.
        (None, None) if started.is_some() && !record.is_stopped() && same_boot(record, &boot_id) => {
            Activity::Failed
        }
        (None, None) => Activity::Inactive,
    };
    UnitState { activity, main_pid: program.map(|p| p.pid), started, last_run }
}

/// After a restart of the machine nothing has failed; nothing was started yet.
fn same_boot(record: &Record, boot_id: &str) -> bool {
    record.begun().ok().flatten().is_some_and(|begun| begun.supervisor.boot_id == boot_id)
}

/// The supervisor of a unit that has just ended may still be about to note that. It must not do so in the record
/// of the next start, so its end is awaited.
fn wait_for_predecessor(record: &Record) -> Result<(), String> {
    let until = Instant::now() + KILL_GRACE;
    loop {
        match record.try_lock() {
            Ok(Some(_free)) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.to_string()),
            Ok(None) if Instant::now() >= until => {
                return Err("the supervisor of its last start does not end".to_owned());
            }
            Ok(None) => pause(),
        }
    }
}

fn wait_for_end(record: &Record, program: &ProcessId, boot_id: &str, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let noted = record.ended().is_ok_and(|ended| ended.is_some());
        let supervisor_gone = matches!(record.try_lock(), Ok(Some(_)));
        if noted || (supervisor_gone && !program.is_alive(boot_id)) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        pause();
    }
}

fn pause() {
    LinuxClock.pause(LOOK_EVERY, &CancelFlag::default());
}

/// Waits for a supervisor in the background, so that no dead process stays; one thread a started unit, and a
/// profile has a handful of units.
fn reap(mut child: std::process::Child) {
    std::thread::spawn(move || child.wait());
}
