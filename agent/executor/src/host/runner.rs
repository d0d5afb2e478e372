//! Programs through the supervisor: starting them, finding them again, and what they left.
//!
//! Nothing starts a second time under one name: where a record exists the program is re-attached to
//! (security-and-delivery §2.5). It must never guess an outcome. Called by tasks through `Processes`.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet_types::id::RunId;
use rustix::process::Signal;

use super::clock::{Clock, LinuxClock};
use super::files::Files;
use super::process_id::ProcessId;
use super::processes::{
    Exit, Invocation, Living, ProcessError, ProcessOutcome, Processes, Purpose, Running, UnitName,
};
use super::program;
use super::record::{Ended, Record, Spec};
use super::supervise::TERM_GRACE;
use super::systemd::{AGAIN_AFTER, ANSWER_LIMIT};
use super::transient;
use super::units::{UnitError, UnitsKind};
use crate::tasks::CancelFlag;

/// How often a running program's record is looked at: a thirtieth of what people notice as a delay of output.
const LOOK_EVERY: Duration = Duration::from_millis(30);
/// The supervisor ends a program at its limit or when it is asked to, its grace and a SIGKILL later at the latest;
/// beyond this much more it is not trusted to do so any longer.
pub(super) const SUPERVISOR_GRACE: Duration = Duration::from_secs(TERM_GRACE.as_secs() * 3 / 2);
/// How often a program that should be gone is killed again.
const KILL_EVERY: Duration = Duration::from_secs(5);

/// This very program, also where another version has taken the place of its file: what is started while this agent
/// runs is of its version (`proc_pid_exe(5)`).
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// How the supervisor is started: the agent's own binary with its hidden subcommand.
#[derive(Debug, Clone)]
pub struct Supervisor {
    /// The binary.
    pub program: PathBuf,
    /// What stands before `--record`.
    pub arguments: Vec<String>,
}

impl Supervisor {
    /// This program's own subcommand.
    pub fn of_this_program() -> Self {
        Self { program: PathBuf::from(THIS_PROGRAM), arguments: vec!["supervise".to_owned()] }
    }

    /// Starts a supervisor for a prepared record.
    pub(crate) fn start(&self, record: &Record, nonce: &str) -> io::Result<Child> {
        let complaints = std::fs::File::create(record.complaints_path())?;
        Command::new(&self.program)
            .arg0("fleet-agent")
            .args(&self.arguments)
            .arg("--record")
            .arg(record.folder())
            .args(["--nonce", nonce])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(complaints)
            .spawn()
    }
}

/// Programs of a Linux machine.
pub(crate) struct LinuxProcesses {
    files: Arc<dyn Files>,
    supervisor: Supervisor,
    state: PathBuf,
    /// Where systemd runs, what changes the node is started in a transient unit. What only reads ends with the agent.
    units: UnitsKind,
}

/// Does the process live that a look is of? By the name of its record.
fn is_of_living(record: &str, boot_id: &str) -> bool {
    let mut words = record.splitn(3, '.').map(str::parse);
    let (Some(Ok(pid)), Some(Ok(start_ticks))) = (words.next(), words.next()) else { return false };
    let pid = u32::try_from(pid).unwrap_or_default();
    ProcessId { pid, start_ticks, boot_id: boot_id.to_owned() }.is_alive(boot_id)
}

/// What tells whether a supervisor lives.
enum Lifeline {
    /// It was started here.
    Child(Child),
    /// systemd started it; none where its process is not to be had, as when it has ended already.
    Unit(Option<ProcessId>),
    /// It was started by an earlier life of the agent: the lock tells.
    Lock,
}

impl Lifeline {
    fn is_alive(&mut self, record: &Record, boot_id: &str) -> bool {
        match self {
            Self::Child(child) => matches!(child.try_wait(), Ok(None)),
            Self::Unit(supervisor) => supervisor.as_ref().is_some_and(|process| process.is_alive(boot_id)),
            Self::Lock => matches!(record.try_lock(), Ok(None)),
        }
    }
}

impl LinuxProcesses {
    /// Records lie below `state`.
    pub(crate) fn new(files: Arc<dyn Files>, supervisor: Supervisor, state: &Path, units: UnitsKind) -> Self {
        Self { files, supervisor, state: state.to_owned(), units }
    }

    fn probes(&self) -> PathBuf {
        self.state.join("probes")
    }

    fn runs(&self) -> PathBuf {
        self.state.join("runs")
    }

    fn record_of(&self, name: &UnitName) -> Record {
        Record::at(&self.runs().join(UnitName::run_folder(name.run())).join(name.record_name()))
    }

    /// Where the record of a look of this process lies. The guard has looks beside those of the agent.
    fn probe(&self, nonce: &str) -> Record {
        let owner = ProcessId::of(std::process::id(), &LinuxClock.boot_id());
        let owner = owner.map(|own| format!("{}.{}.", own.pid, own.start_ticks)).unwrap_or_default();
        Record::at(&self.probes().join(format!("{owner}{nonce}")))
    }

    /// Ends what probes of processes that are gone left running, and removes their records.
    pub(crate) fn sweep_looks(&self) {
        let boot_id = LinuxClock.boot_id();
        for entry in std::fs::read_dir(self.probes()).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| is_of_living(name, &boot_id)) {
                continue;
            }
            let record = Record::at(&entry.path());
            kill_all(&record, &boot_id);
            if let Err(error) = record.remove() {
                tracing::warn!(record = %entry.path().display(), %error, "cannot remove an old record");
            }
        }
    }

    /// Starts the supervisor of a record whose program certainly never began.
    fn start(&self, record: &Record, spec: &Spec) -> Result<Lifeline, ProcessError> {
        record
            .prepare(spec)
            .and_then(|()| self.supervisor.start(record, &spec.nonce))
            .map(Lifeline::Child)
            .map_err(|e| not_started(spec, &format!("its supervisor: {e}")))
    }

    /// The same for what changes the node.
    fn start_effect(&self, name: &UnitName, record: &Record, spec: &Spec) -> Result<Lifeline, ProcessError> {
        if self.units != UnitsKind::Systemd {
            return self.start(record, spec);
        }
        let unit = transient::name_of(&name.run().to_string(), &name.record_name());
        let limit = spec.time_limit_ms.map(Duration::from_millis);
        let boot_id = LinuxClock.boot_id();
        let until = Instant::now() + ANSWER_LIMIT;
        let mut was_away = false;
        loop {
            record.prepare(spec).map_err(|e| not_started(spec, &e.to_string()))?;
            let error = match transient::start(&self.supervisor, &unit, record, &spec.nonce, limit, &boot_id)
            {
                Ok(supervisor) => return Ok(Lifeline::Unit(supervisor)),
                Err(error) => error,
            };
            // A bus that went away, or a manager that is late, may have started it all the same.
            match record.withdraw() {
                Ok(true) => {}
                Ok(false) => return Ok(Lifeline::Lock),
                Err(why) => return Err(unknown(spec, &format!("a unit for it: {error}; its record: {why}"))),
            }
            // It certainly never began. Of a systemd that executes itself anew the unit of the first try may still be
            // there for a moment.
            was_away |= matches!(error, UnitError::Away { .. });
            if !was_away || Instant::now() >= until {
                return Err(not_started(spec, &format!("a unit for it: {error}")));
            }
            std::thread::park_timeout(AGAIN_AFTER);
        }
    }

    fn run_effect(
        &self,
        spec: &Spec,
        name: &UnitName,
        attach: &Attach<'_>,
    ) -> Result<ProcessOutcome, ProcessError> {
        let record = self.record_of(name);
        let unknown = |e: io::Error| unknown(spec, &format!("its record {name} cannot be read: {e}"));
        if record.spec().map_err(unknown)?.is_none() {
            let supervisor = self.start_effect(name, &record, spec)?;
            return attach.follow(&record, spec, supervisor);
        }
        // Someone of our name was here. If nothing began and no supervisor lives, none will: the lock and the
        // new nonce see to that.
        if record.begun().map_err(unknown)?.is_none()
            && let Some(lock) = record.try_lock().map_err(unknown)?
            && record.begun().map_err(unknown)?.is_none()
        {
            record.prepare(spec).map_err(|e| not_started(spec, &e.to_string()))?;
            drop(lock);
            let supervisor = self.start_effect(name, &record, spec)?;
            return attach.follow(&record, spec, supervisor);
        }
        let begun = record.begun().map_err(unknown)?;
        if begun.is_some_and(|begun| begun.supervisor.boot_id == LinuxClock.boot_id()) {
            tracing::info!(%name, "re-attached to a program that an earlier life of the agent started");
        } else {
            tracing::info!(%name, "the machine restarted while a program of an earlier life of the agent ran");
        }
        attach.follow(&record, spec, Lifeline::Lock)
    }
}

impl Processes for LinuxProcesses {
    fn run(
        &self,
        invocation: &Invocation,
        purpose: Purpose<'_>,
        running: &Running<'_>,
    ) -> Result<ProcessOutcome, ProcessError> {
        let program = invocation.argv.first().cloned().unwrap_or_default();
        let spec = program::resolve(&*self.files, invocation, Some(invocation.time_limit));
        let spec = match (spec, &purpose) {
            (Ok(spec), _) => spec,
            // A program that was replaced by nothing while it ran: its record still says how it ended.
            (Err(_), Purpose::Effect(name)) if self.record_of(name).begun().is_ok_and(|b| b.is_some()) => {
                let kept = self.record_of(name).spec().ok().flatten();
                kept.ok_or_else(|| ProcessError::OutcomeUnknown {
                    program: program.clone(),
                    why: "its record is damaged".to_owned(),
                })?
            }
            (Err(why), _) => return Err(ProcessError::NotStarted { program, why }),
        };
        let attach = Attach { running, limit: invocation.time_limit + SUPERVISOR_GRACE };
        match purpose {
            Purpose::Effect(name) => self.run_effect(&spec, name, &attach),
            Purpose::ReadOnly => {
                let record = self.probe(&spec.nonce);
                let outcome = self
                    .start(&record, &spec)
                    .and_then(|supervisor| attach.follow(&record, &spec, supervisor));
                if let Err(error) = record.remove() {
                    tracing::warn!(record = %record.folder().display(), %error, "cannot remove a record");
                }
                outcome
            }
        }
    }

    fn has_program(&self, name: &str) -> bool {
        program::find_in_root(&*self.files, name).is_some()
    }

    fn living(&self) -> Vec<Living> {
        let mut living = Vec::new();
        for folder in std::fs::read_dir(self.runs()).into_iter().flatten().flatten() {
            let Some(run) = folder.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            for entry in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                // The lock is the supervisor's, which outlives its program.
                if matches!(Record::at(&entry.path()).try_lock(), Ok(None)) {
                    living.push(Living { run, record: entry.file_name().to_string_lossy().into_owned() });
                }
            }
        }
        living
    }

    fn keep_only(&self, runs: &BTreeSet<RunId>) -> io::Result<()> {
        let kept: BTreeSet<String> = runs.iter().map(|run| UnitName::run_folder(*run)).collect();
        let folders = match std::fs::read_dir(self.runs()) {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for folder in folders {
            let folder = folder?;
            if folder.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                continue;
            }
            for entry in std::fs::read_dir(folder.path())? {
                let record = Record::at(&entry?.path());
                // A held lock is a living supervisor; its record goes another time.
                if let Ok(Some(_free)) = record.try_lock() {
                    record.remove()?;
                }
            }
            // Not empty is right while something still runs.
            let _ = std::fs::remove_dir(folder.path());
        }
        Ok(())
    }
}

fn not_started(spec: &Spec, why: &str) -> ProcessError {
    ProcessError::NotStarted { program: shown(spec), why: why.to_owned() }
}

fn unknown(spec: &Spec, why: &str) -> ProcessError {
    ProcessError::OutcomeUnknown { program: shown(spec), why: why.to_owned() }
}

fn shown(spec: &Spec) -> String {
    spec.argv.first().cloned().unwrap_or_default()
}

/// Following a program to its end.
struct Attach<'a> {
    running: &'a Running<'a>,
    limit: Duration,
}

impl Attach<'_> {
    fn follow(
        &self,
        record: &Record,
        spec: &Spec,
        mut supervisor: Lifeline,
    ) -> Result<ProcessOutcome, ProcessError> {
        let boot_id = LinuxClock.boot_id();
        let mut until = Instant::now() + self.limit;
        let mut stop = Stop::default();
        let mut output = Tailed::default();
        loop {
            // Looked at before the record: a supervisor that is gone by now has written all it ever will.
            let supervisor_lives = supervisor.is_alive(record, &boot_id);
            output.forward(record, self.running);
            let broken = |e: io::Error| unknown(spec, &format!("its record cannot be read: {e}"));
            if let Some(ended) = record.ended().map_err(broken)? {
                // The supervisor's last act was writing this; it ends at once.
                if let Lifeline::Child(child) = &mut supervisor {
                    let _ = child.wait();
                }
                return output.finish(record, spec, &ended, stop.was_asked(), self.running);
            }
            let program = record.started().map_err(broken)?;
            if !supervisor_lives {
                let begun = record.begun().map_err(broken)?;
                if begun.is_none() {
                    let complaints = record.complaints();
                    if record.withdraw().map_err(broken)? {
                        return Err(not_started(spec, &format!("its supervisor ended: {complaints}")));
                    }
                    // One came after all: from here on its lock tells.
                    supervisor = Lifeline::Lock;
                } else if !program.as_ref().is_some_and(|p| p.is_alive(&boot_id)) {
                    let same_boot = begun.is_some_and(|begun| begun.supervisor.boot_id == boot_id);
                    let why = if same_boot {
                        "its supervisor was ended from outside"
                    } else {
                        "the machine restarted"
                    };
                    return Err(unknown(spec, why));
                }
            }
            if let Some(program) = &program {
                stop.look(self.running.cancel, record, program, supervisor_lives);
            }
            if Instant::now() >= until {
                if !program.as_ref().is_some_and(|p| p.is_alive(&boot_id)) {
                    return Err(unknown(spec, "its supervisor does not say how it ended"));
                }
                // What withstands SIGKILL hangs in the kernel and may still act: its end is waited for, and the
                // task that waits counts as one that overran.
                kill_all(record, &boot_id);
                until = Instant::now() + KILL_EVERY;
            }
            // This is not our own cancel: a stopped program still has to be seen to its end.
            LinuxClock.pause(LOOK_EVERY, &CancelFlag::default());
        }
    }
}

/// Ends a program whose supervisor does not: its unit; or its group, and what is still below it or its supervisor.
fn kill_all(record: &Record, boot_id: &str) {
    if let Ok(Some(begun)) = record.begun() {
        begun.supervisor.signal_below(boot_id, Signal::KILL);
        if let Some(invocation) = &begun.invocation {
            transient::kill(invocation);
        }
    }
    if let Ok(Some(program)) = record.started() {
        program.signal_below(boot_id, Signal::KILL);
        program.signal_group(boot_id, Signal::KILL);
    }
}

/// Stopping a program that was cancelled: the supervisor is asked to, and ends all that the program started.
#[derive(Default)]
struct Stop {
    kill_at: Option<Instant>,
}

impl Stop {
    fn look(&mut self, cancel: &CancelFlag, record: &Record, program: &ProcessId, supervisor_lives: bool) {
        if !cancel.is_cancelled() {
            return;
        }
        let boot_id = &program.boot_id;
        if let Some(kill_at) = &mut self.kill_at {
            if Instant::now() >= *kill_at {
                kill_all(record, boot_id);
                *kill_at = Instant::now() + KILL_EVERY;
            }
            return;
        }
        let grace = if supervisor_lives { SUPERVISOR_GRACE } else { TERM_GRACE };
        self.kill_at = Some(Instant::now() + grace);
        let is_asked = record.ask_to_cancel();
        if !supervisor_lives || is_asked.is_err() {
            // Nobody hears of it: at least the program itself is asked.
            program.signal_below(boot_id, Signal::TERM);
            program.signal_group(boot_id, Signal::TERM);
        }
    }

    const fn was_asked(&self) -> bool {
        self.kill_at.is_some()
    }
}

/// The beginning of the output, as far as it was read.
#[derive(Default)]
struct Tailed {
    bytes: Vec<u8>,
}

impl Tailed {
    fn forward(&mut self, record: &Record, running: &Running<'_>) {
        let Some(mut file) = record.open_output() else { return };
        let from = self.bytes.len();
        // What cannot be read now is read with the next look.
        if file.seek(SeekFrom::Start(from as u64)).is_ok() && file.read_to_end(&mut self.bytes).is_ok() {
            if self.bytes.len() > from {
                running.output.write(&self.bytes[from..]);
            }
        } else {
            self.bytes.truncate(from);
        }
    }

    fn finish(
        mut self,
        record: &Record,
        spec: &Spec,
        ended: &Ended,
        asked_to_stop: bool,
        running: &Running<'_>,
    ) -> Result<ProcessOutcome, ProcessError> {
        let Some(exit) = ended.exit else {
            return Err(not_started(spec, ended.not_started.as_deref().unwrap_or("no reason was noted")));
        };
        self.forward(record, running);
        let from = self.bytes.len();
        let tail = record.tail();
        let missing = ended.output_bytes.saturating_sub((from + tail.len()) as u64);
        if missing > 0 {
            self.bytes.extend(format!("\n[{missing} bytes left out]\n").into_bytes());
        }
        self.bytes.extend(tail);
        if self.bytes.len() > from {
            running.output.write(&self.bytes[from..]);
        }
        let exit = if asked_to_stop && matches!(exit, Exit::Signal(_)) { Exit::Cancelled } else { exit };
        Ok(ProcessOutcome {
            exit,
            output: self.bytes,
            output_bytes: ended.output_bytes,
            output_sha256: ended.output_sha256,
            started: ended.started,
            took: Duration::from_millis(ended.took_ms),
        })
    }
}
