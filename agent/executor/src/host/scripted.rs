//! A scripted machine for tests: real files in a folder, everything else as the test says.
//!
//! Faults of files, answers of programs, states of units, readings and the clock are set by the test; time
//! passes only when something waits. For the tests of this crate.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::time::Timestamp;
use jiff::tz::TimeZone;

use super::linux_files::LinuxFiles;
use super::notes::FolderNotes;
use super::scripted_units::UnitTraits;
use super::{
    Activity, Clock, CpuTimes, Dress, Entry, Exit, FileError, FileProblem, Files, Host, InterfaceCounters,
    Invocation, Living, LoadAverages, MemoryUse, Mount, Notes, Packages, ProcessError, ProcessOutcome,
    Processes, Purpose, ReadFile, Running, Space, Stat, System, SystemError, Units, WriteFile,
};
use crate::tasks::CancelFlag;

/// What a program answers: how it ends and what it prints; or that it hangs until its time limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Ends so, having printed this.
    Ends(Exit, String),
    /// The real program of this machine is run.
    Real,
    /// Cannot be started.
    NotStarted(String),
    /// Nobody saw how it ended.
    Unknown,
}

/// A fault of a file operation.
#[derive(Debug, Clone)]
struct Fault {
    operation: &'static str,
    path: PathBuf,
    problem: FileProblem,
}

/// What the test sets and probes at.
#[derive(Debug)]
pub struct Script {
    /// Wall time.
    pub now: Timestamp,
    /// How far the clock goes on at each look.
    pub tick: Duration,
    /// Time since boot.
    pub since_boot: Duration,
    /// Id of this boot.
    pub boot_id: String,
    /// Answers of programs by the first words of their argument vectors, joined by blanks; longest first. Each
    /// use takes the front one; the last one stays.
    pub programs: BTreeMap<String, VecDeque<Answer>>,
    /// Every argument vector that was started, in order.
    pub started: Vec<Vec<String>>,
    /// The runs that were last said to be the only ones whose records matter.
    pub kept_runs: BTreeSet<RunId>,
    /// Programs that still run.
    pub living: Vec<Living>,
    /// States of units.
    pub units: BTreeMap<String, Activity>,
    /// Units whose start does not help.
    pub broken_units: BTreeSet<String>,
    /// Units whose state is never answered: asking hangs until the script is dropped or told otherwise.
    pub hanging_units: BTreeSet<String>,
    /// Units cannot be asked at all, as on a machine with systemd.
    pub no_units: bool,
    /// The package manager.
    pub package_manager: Option<&'static str>,
    /// Why the database of packages is not consistent, if it is not.
    pub package_damage: Option<String>,
    /// What is installed.
    pub packages: Vec<fleet_types::packages::Package>,
    /// Every start and stop, in order: `start x.service`.
    pub unit_calls: Vec<String>,
    /// What else is special of units.
    pub unit_traits: UnitTraits,
    /// The kernel's release.
    pub kernel: String,
    /// Processors.
    pub cores: u32,
    /// Processor time at each reading; the last one stays.
    pub cpu: VecDeque<CpuTimes>,
    /// Memory.
    pub memory: MemoryUse,
    /// Load.
    pub load: LoadAverages,
    /// Mounted disks.
    pub mounts: Vec<Mount>,
    /// Counters of interfaces.
    pub interfaces: BTreeMap<String, InterfaceCounters>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Connection tracking.
    pub conntrack: Option<(u64, u64)>,
    /// Ports that answer.
    pub ports: BTreeSet<SocketAddr>,
    /// Room reported for every path; none is the real one.
    pub space: Option<Space>,
    /// Bytes that may still be written before the disk is full; none is no limit.
    pub disk_left: Option<u64>,
    /// Extended attributes of paths, instead of the real ones.
    pub attributes: BTreeMap<PathBuf, Vec<(String, Vec<u8>)>>,
    /// What settings of the kernel become, whatever is written.
    pub settings_taken: BTreeMap<PathBuf, Vec<u8>>,
    /// Cancelled as soon as a file is read: for what must end within one file.
    pub cancel_on_read: Option<CancelFlag>,
    faults: Vec<Fault>,
    open_paths: Vec<PathBuf>,
}

type Shared = Arc<Mutex<Script>>;

/// The scripted machine.
#[derive(Clone)]
pub struct ScriptedHost {
    script: Shared,
    files: Arc<ScriptedFiles>,
    notes: FolderNotes,
}

fn lock(script: &Shared) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScriptedHost {
    /// A machine whose files lie in `root` and whose notes in `state`.
    ///
    /// # Errors
    /// When the root cannot be opened.
    pub fn new(root: &Path, state: &Path) -> Result<Self, FileError> {
        let script = Arc::new(Mutex::new(Script {
            now: Timestamp::clamped(1_763_820_131_000),
            tick: Duration::ZERO,
            since_boot: Duration::from_secs(100_000),
            boot_id: "6d0bd7a7-0000-4000-8000-000000000001".to_owned(),
            programs: BTreeMap::new(),
            started: Vec::new(),
            kept_runs: BTreeSet::new(),
            living: Vec::new(),
            units: BTreeMap::new(),
            broken_units: BTreeSet::new(),
            hanging_units: BTreeSet::new(),
            no_units: false,
            package_manager: None,
            package_damage: None,
            packages: Vec::new(),
            unit_calls: Vec::new(),
            unit_traits: UnitTraits::default(),
            kernel: "6.1.0".to_owned(),
            cores: 4,
            cpu: VecDeque::from([CpuTimes { busy: 100, total: 1000 }, CpuTimes { busy: 110, total: 1100 }]),
            memory: MemoryUse { total: 8 << 30, available: 6 << 30 },
            load: LoadAverages { one: 0.5, five: 0.4, fifteen: 0.3 },
            mounts: vec![Mount { path: "/".into(), device: "/dev/vda1".into(), kind: "ext4".into() }],
            interfaces: BTreeMap::new(),
            addresses: Vec::new(),
            conntrack: None,
            ports: BTreeSet::new(),
            space: None,
            disk_left: None,
            attributes: BTreeMap::new(),
            settings_taken: BTreeMap::new(),
            cancel_on_read: None,
            faults: Vec::new(),
            open_paths: Vec::new(),
        }));
        let files = Arc::new(ScriptedFiles { real: LinuxFiles::open(root)?, script: script.clone() });
        Ok(Self { script, files, notes: FolderNotes::new(state) })
    }

    /// Looks at or changes the script.
    pub fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.script)
    }

    /// Lets an operation (`open`, `rename`, `fsync` …) on a path fail from now on.
    pub fn fail(&self, operation: &'static str, path: &str, problem: FileProblem) {
        self.script().faults.push(Fault { operation, path: PathBuf::from(path), problem });
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        self.script().faults.clear();
    }

    /// Lets programs whose argument vector begins with these words answer so.
    pub fn answer(&self, words: &str, answers: impl IntoIterator<Item = Answer>) {
        self.script().programs.insert(words.to_owned(), answers.into_iter().collect());
    }

    /// Says that some process holds this file open for writing.
    pub fn hold_open(&self, path: &str) {
        self.script().open_paths.push(PathBuf::from(path));
    }
}

impl Host for ScriptedHost {
    fn files(&self) -> &dyn Files {
        &*self.files
    }

    fn processes(&self) -> &dyn Processes {
        self
    }

    fn units(&self) -> &dyn Units {
        self
    }

    fn packages(&self) -> &dyn Packages {
        self
    }

    fn clock(&self) -> &dyn Clock {
        self
    }

    fn system(&self) -> &dyn System {
        self
    }

    fn notes(&self) -> &dyn Notes {
        &self.notes
    }

    fn handle(&self) -> Arc<dyn Host> {
        Arc::new(self.clone())
    }

    fn simulated(&self) -> Vec<String> {
        vec!["this machine is scripted".to_owned()]
    }
}

impl Clock for ScriptedHost {
    fn now(&self) -> Timestamp {
        let mut script = self.script();
        script.now = script.now.plus(script.tick);
        script.now
    }

    fn since_boot(&self) -> Duration {
        self.script().since_boot
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn boot_id(&self) -> String {
        self.script().boot_id.clone()
    }

    fn zone(&self) -> TimeZone {
        TimeZone::UTC
    }

    fn pause(&self, length: Duration, cancel: &CancelFlag) -> bool {
        if cancel.is_cancelled() {
            return false;
        }
        let mut script = self.script();
        script.now = script.now.plus(length);
        script.since_boot += length;
        true
    }
}

/// How the real program ends, and what it prints.
fn really(argv: &[String]) -> Answer {
    let output = match std::process::Command::new(&argv[0]).args(&argv[1..]).output() {
        Ok(output) => output,
        Err(error) => return Answer::NotStarted(error.to_string()),
    };
    let said = [output.stdout, output.stderr].concat();
    let status = output.status.code().unwrap_or(-1);
    Answer::Ends(Exit::Status(status), String::from_utf8_lossy(&said).into_owned())
}

impl Processes for ScriptedHost {
    fn run(
        &self,
        invocation: &Invocation,
        _purpose: Purpose<'_>,
        running: &Running<'_>,
    ) -> Result<ProcessOutcome, ProcessError> {
        let words = invocation.argv.join(" ");
        let program = invocation.argv.first().cloned().unwrap_or_default();
        let mut script = self.script();
        script.started.push(invocation.argv.clone());
        let started = script.now;
        let found = script.programs.iter_mut().rev().find(|(key, _)| words.starts_with(key.as_str()));
        let answer =
            found.and_then(
                |(_, answers)| {
                    if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
                },
            );
        drop(script);
        let answer = match answer {
            Some(Answer::Real) => Some(really(&invocation.argv)),
            answer => answer,
        };
        match answer {
            Some(Answer::Ends(exit, text)) => {
                running.output.write(text.as_bytes());
                Ok(ProcessOutcome {
                    exit,
                    output_bytes: text.len() as u64,
                    output_sha256: Digest::of(text.as_bytes()),
                    output: text.into_bytes(),
                    started,
                    took: Duration::from_millis(5),
                })
            }
            Some(Answer::Unknown) => {
                Err(ProcessError::OutcomeUnknown { program, why: "the script says so".to_owned() })
            }
            Some(Answer::NotStarted(why)) => Err(ProcessError::NotStarted { program, why }),
            None | Some(Answer::Real) => {
                Err(ProcessError::NotStarted { program, why: "no such program in the script".to_owned() })
            }
        }
    }

    fn has_program(&self, name: &str) -> bool {
        self.script().programs.keys().any(|key| key.split(' ').next() == Some(name))
    }

    fn living(&self) -> Vec<Living> {
        self.script().living.clone()
    }

    fn keep_only(&self, runs: &BTreeSet<RunId>) -> io::Result<()> {
        self.script().kept_runs.clone_from(runs);
        Ok(())
    }
}

impl System for ScriptedHost {
    fn cores(&self) -> u32 {
        self.script().cores
    }

    fn cpu_times(&self) -> Result<CpuTimes, SystemError> {
        let mut script = self.script();
        let times = if script.cpu.len() > 1 { script.cpu.pop_front() } else { script.cpu.front().copied() };
        times.ok_or_else(|| SystemError { what: "processor time", why: "the script has none".to_owned() })
    }

    fn memory(&self) -> Result<MemoryUse, SystemError> {
        Ok(self.script().memory)
    }

    fn load(&self) -> Result<LoadAverages, SystemError> {
        Ok(self.script().load)
    }

    fn uptime(&self) -> Result<Duration, SystemError> {
        Ok(self.script().since_boot)
    }

    fn mounts(&self) -> Result<Vec<Mount>, SystemError> {
        Ok(self.script().mounts.clone())
    }

    fn interfaces(&self) -> Result<BTreeMap<String, InterfaceCounters>, SystemError> {
        Ok(self.script().interfaces.clone())
    }

    fn addresses(&self) -> Result<Vec<IpAddr>, SystemError> {
        Ok(self.script().addresses.clone())
    }

    fn conntrack(&self) -> Result<(u64, u64), SystemError> {
        self.script()
            .conntrack
            .ok_or_else(|| SystemError { what: "connection tracking", why: "it is not loaded".to_owned() })
    }

    fn connect(&self, address: SocketAddr, _limit: Duration) -> Result<(), SystemError> {
        if self.script().ports.contains(&address) {
            Ok(())
        } else {
            Err(SystemError { what: "the port", why: "connection refused".to_owned() })
        }
    }

    fn old_files_in_use(&self, _root: &Path) -> BTreeMap<String, BTreeSet<String>> {
        [("old.service".to_owned(), BTreeSet::from(["/usr/lib/old.so".to_owned()]))].into()
    }

    fn names(&self) -> (String, String, String) {
        ("scripted".to_owned(), self.script().kernel.clone(), "x86_64".to_owned())
    }
}

/// Real files with the faults of the script.
struct ScriptedFiles {
    real: LinuxFiles,
    script: Shared,
}

impl ScriptedFiles {
    fn check(&self, operation: &'static str, path: &Path) -> Result<(), FileError> {
        let script = lock(&self.script);
        let fault = script.faults.iter().find(|f| f.operation == operation && path.starts_with(&f.path));
        match fault {
            Some(fault) => Err(FileError::new(operation, path, fault.problem, "the script says so")),
            None => Ok(()),
        }
    }
}

struct ScriptedRead {
    real: Box<dyn ReadFile>,
    broken: bool,
    cancel: Option<CancelFlag>,
}

impl Read for ScriptedRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.iter().for_each(CancelFlag::cancel);
        if self.broken { Err(io::Error::other("the script says so")) } else { self.real.read(buffer) }
    }
}

impl ReadFile for ScriptedRead {
    fn stat(&self) -> Result<Stat, FileError> {
        self.real.stat()
    }

    fn seek_to(&mut self, offset: u64) -> Result<(), FileError> {
        self.real.seek_to(offset)
    }
}

struct ScriptedWrite {
    real: Box<dyn WriteFile>,
    script: Shared,
}

impl Write for ScriptedWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut script = lock(&self.script);
        if let Some(left) = script.disk_left {
            let rest = left.checked_sub(bytes.len() as u64);
            script.disk_left = Some(rest.ok_or(io::ErrorKind::StorageFull)?);
        }
        drop(script);
        self.real.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.real.flush()
    }
}

impl WriteFile for ScriptedWrite {
    fn sync(&mut self) -> Result<(), FileError> {
        self.real.sync()
    }

    fn skip(&mut self, bytes: u64) -> Result<(), FileError> {
        self.real.skip(bytes)
    }

    fn take_after(&mut self, model: &Stat) -> Result<(), FileError> {
        self.real.take_after(model)
    }
}

impl Files for ScriptedFiles {
    fn root(&self) -> &Path {
        self.real.root()
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf, FileError> {
        self.real.canonical(path)
    }

    fn stat(&self, path: &Path) -> Result<Stat, FileError> {
        self.check("stat", path)?;
        self.real.stat(path)
    }

    fn open(&self, path: &Path) -> Result<Box<dyn ReadFile>, FileError> {
        self.check("open", path)?;
        let broken = self.check("read", path).is_err();
        let cancel = lock(&self.script).cancel_on_read.clone();
        Ok(Box::new(ScriptedRead { real: self.real.open(path)?, broken, cancel }))
    }

    fn attributes(&self, path: &Path) -> Result<Vec<(String, Vec<u8>)>, FileError> {
        Ok(lock(&self.script).attributes.get(path).cloned().unwrap_or_default())
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf, FileError> {
        self.real.read_link(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, FileError> {
        self.check("list", path)?;
        self.real.list(path)
    }

    fn space(&self, path: &Path) -> Result<Space, FileError> {
        match lock(&self.script).space {
            Some(space) => Ok(space),
            None => self.real.space(path),
        }
    }

    fn create(&self, path: &Path, mode: u32) -> Result<Box<dyn WriteFile>, FileError> {
        self.check("create", path)?;
        let real = self.real.create(path, mode)?;
        Ok(Box::new(ScriptedWrite { real, script: self.script.clone() }))
    }

    fn write_setting(&self, path: &Path, value: &[u8]) -> Result<(), FileError> {
        self.check("set", path)?;
        // The kernel may take a value for another one.
        let taken = lock(&self.script).settings_taken.get(path).cloned();
        self.real.write_setting(path, taken.as_deref().unwrap_or(value))
    }

    fn make_directories(&self, path: &Path, mode: u32) -> Result<(), FileError> {
        self.check("make folder", path)?;
        self.real.make_directories(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.check("rename", to)?;
        self.real.rename(from, to)
    }

    fn dress(&self, path: &Path, dress: &Dress) -> Result<(), FileError> {
        self.check("dress", path)?;
        self.real.dress(path, dress)
    }

    fn remove_file(&self, path: &Path) -> Result<(), FileError> {
        self.check("remove", path)?;
        self.real.remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> Result<(), FileError> {
        self.check("remove folder", path)?;
        self.real.remove_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> Result<(), FileError> {
        self.check("fsync", path)?;
        self.real.sync_directory(path)
    }

    fn open_for_writing(&self) -> Result<BTreeSet<(u64, u64)>, FileError> {
        let paths = lock(&self.script).open_paths.clone();
        let mut open = BTreeSet::new();
        for path in paths {
            let stat = self.real.stat(&path)?;
            open.insert((stat.device, stat.inode));
        }
        Ok(open)
    }
}
