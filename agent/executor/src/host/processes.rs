//! Programs: the trait, its types and the names under which programs are found again after a crash.
//!
//! Programs are started by argument vector, never through a shell. Called by tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, RunId};
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::tasks::{CancelFlag, OutputSink, StepIdentity};

/// What is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Program and arguments. A program with a slash is taken inside the root, one without is looked up in
    /// the root's folders of programs first.
    pub argv: Vec<String>,
    /// Working directory, a declared path; `/` when none.
    pub directory: Option<String>,
    /// Variables beside `PATH`, `LANG` and `HOME`.
    pub environment: BTreeMap<String, String>,
    /// User; none is the agent's own.
    pub run_as: Option<String>,
    /// Limit, measured on boot time, enforced even when the agent is gone.
    pub time_limit: Duration,
    /// What it reads; none is nothing.
    pub input: Option<Input>,
    /// An empty file, a declared path without links, that takes its standard output; what it prints is its errors alone then.
    pub output_file: Option<PathBuf>,
}

/// What a program reads from its standard input. Opened by the supervisor, so that a program that runs as another user
/// reads what only the agent may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// This text; a few dozen kilobytes at most, because the program's record holds it.
    Text(String),
    /// A file, a declared path without links.
    File(PathBuf),
}

impl Invocation {
    /// A program with its arguments and limit, and nothing else said.
    pub fn new(argv: Vec<String>, time_limit: Duration) -> Self {
        Self {
            argv,
            directory: None,
            environment: BTreeMap::new(),
            run_as: None,
            time_limit,
            input: None,
            output_file: None,
        }
    }
}

/// The name of a step's program: found again by it after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnitName {
    run: RunId,
    attempt: Attempt,
    step: String,
    try_number: u32,
    part: String,
}

impl UnitName {
    /// Names the program `part` of a step; a step that starts one program only says `main`.
    pub fn new(step: &StepIdentity, part: &str) -> Self {
        Self {
            run: step.run,
            attempt: step.attempt,
            step: step.step.clone(),
            try_number: step.try_number,
            part: part.to_owned(),
        }
    }

    /// The folder of the run that all its records lie in.
    pub(crate) fn run_folder(run: RunId) -> String {
        run.to_string()
    }

    /// The run.
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// The name of its record inside the folder of the run.
    pub(crate) fn record_name(&self) -> String {
        format!("{}.{}.{}.{}", self.attempt.0, plain(&self.step), self.try_number, plain(&self.part))
    }
}

/// A program that changes the node and still runs, whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Living {
    /// The run that it was started for.
    pub run: RunId,
    /// Its record's name.
    pub(crate) record: String,
}

impl Living {
    /// Is it a program of this step?
    pub fn is_of(&self, attempt: Attempt, step: &str) -> bool {
        self.record.starts_with(&format!("{}.{}.", attempt.0, plain(step)))
    }
}

/// Ids of steps are kebab-case by schema; any other byte is written as its number, so that a name is never a path and
/// two names never collide.
fn plain(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => char::from(b).to_string(),
            other => format!("_{other:02x}"),
        })
        .collect()
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.record_name())
    }
}

/// What a program is started for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// It reads only. It is done anew after a crash, and nothing of it is kept.
    ReadOnly,
    /// It may change something. When a record of this name exists, the program is re-attached to instead of
    /// being started a second time.
    Effect(&'a UnitName),
}

/// What watches a program while it runs.
pub struct Running<'a> {
    /// Its output, as it comes.
    pub output: &'a dyn OutputSink,
    /// Ask it to stop: the supervisor ends it with all its children.
    pub cancel: &'a CancelFlag,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By a signal.
    Signal(i32),
    /// Stopped at its time limit.
    TimedOut,
    /// Stopped because it was asked to.
    Cancelled,
}

impl Exit {
    /// Exit status 0?
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Status(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::TimedOut => f.write_str("stopped at its time limit"),
            Self::Cancelled => f.write_str("stopped on request"),
        }
    }
}

/// What a program left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessOutcome {
    /// How it ended.
    pub exit: Exit,
    /// Head and tail of its output, standard output and errors in order; with a line that says how much is
    /// missing between them.
    pub output: Vec<u8>,
    /// All bytes it printed.
    pub output_bytes: u64,
    /// Digest of all it printed.
    pub output_sha256: Digest,
    /// Wall time of the start.
    pub started: Timestamp,
    /// Time it took.
    pub took: Duration,
}

/// Why nothing, or nothing certain, can be said about a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started: nothing happened.
    #[error("cannot start {program}: {why}")]
    NotStarted {
        /// The program.
        program: String,
        /// Why.
        why: String,
    },
    /// It was started, and its end was not seen by anyone.
    #[error("{program} was started and nobody saw how it ended: {why}")]
    OutcomeUnknown {
        /// The program.
        program: String,
        /// What is known.
        why: String,
    },
}

/// Programs of the node.
pub trait Processes: Send + Sync {
    /// Runs a program to its end.
    fn run(
        &self,
        invocation: &Invocation,
        purpose: Purpose<'_>,
        running: &Running<'_>,
    ) -> Result<ProcessOutcome, ProcessError>;

    /// Is there a program of this name below the root's folders of programs?
    fn has_program(&self, name: &str) -> bool;

    /// Removes the records of all runs but these, which have not ended. Programs that still run are left alone with
    /// their records.
    fn keep_only(&self, runs: &BTreeSet<RunId>) -> io::Result<()>;

    /// The programs that may be changing the node now, those that an earlier life of the agent started too.
    fn living(&self) -> Vec<Living>;
}
