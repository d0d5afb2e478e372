//! What `PostgreSQL`'s programs answer: rows as JSON, one a line, and errors by their SQLSTATE. Pure; called by `server`.
//!
//! It must never judge by an error's words where the server gave its code: messages come in the server's language.

use std::sync::{Mutex, PoisonError};

use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;
use serde_json::Value;

use crate::host::ProcessError;
use crate::tasks::contract::{OutputSink, RetryKind, TaskError};
use crate::tasks::deadline::Halt;
use crate::tasks::part::{bounded, problem};

/// `lock_not_available`: the wait for a lock was over.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// `deadlock_detected`: the server chose this side to give way.
const DEADLOCK: &str = "40P01";
/// `query_canceled`: the statement's time was over.
const QUERY_CANCELED: &str = "57014";
/// `object_in_use`: a database that somebody is connected to.
const OBJECT_IN_USE: &str = "55006";
/// `disk_full`.
const DISK_FULL: &str = "53100";

/// Why the server did not do it.
#[derive(Debug, thiserror::Error)]
pub(in crate::tasks) enum DatabaseError {
    /// The program is not there, or may not be run.
    #[error("{0}; PostgreSQL's client programs (package postgresql-client) must be on the node")]
    NotStarted(ProcessError),
    /// It was started and nobody saw its end.
    #[error("{0}")]
    Unknown(ProcessError),
    /// Nobody answers, or nobody is let in.
    #[error("the database server cannot be reached: {0}")]
    Unreachable(String),
    /// A lock that others hold was not to be had in time; nothing was waited for any longer.
    #[error("others hold a lock that it needs: {0}")]
    LockBusy(String),
    /// Its time was over, and the server has stopped it.
    #[error("its time was over: {0}")]
    TimeOver(String),
    /// The server refused.
    #[error("the database server says: {message} ({code})")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// The server's words.
        message: String,
    },
    /// A program of `PostgreSQL` failed.
    #[error("{program} failed: {message}")]
    Program {
        /// Which.
        program: String,
        /// Its last words.
        message: String,
    },
    /// Something that is named in the profile or in the dump does not fit what is there.
    #[error("{message}")]
    Named {
        /// Code of the problem.
        code: &'static str,
        /// What and what to do.
        message: String,
    },
    /// It had to stop.
    #[error(transparent)]
    Halted(#[from] Halt),
}

impl DatabaseError {
    /// One with a name of its own.
    pub(in crate::tasks) fn named(code: &'static str, message: impl Into<String>) -> Self {
        Self::Named { code, message: message.into() }
    }

    /// Was it the disk?
    fn is_disk_full(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code == DISK_FULL,
            Self::Program { message, .. } => message.contains("No space left on device"),
            _ => false,
        }
    }

    /// The code of the problem that tells it.
    fn code(&self) -> &'static str {
        match self {
            _ if self.is_disk_full() => "disk_full",
            Self::NotStarted(_) => "program_missing",
            Self::Unknown(_) => "outcome_unknown",
            Self::Unreachable(_) => "database_unreachable",
            Self::LockBusy(_) => "lock_busy",
            Self::TimeOver(_) => "time_over",
            Self::Refused { .. } => "database_refused",
            Self::Program { .. } => "database_failed",
            Self::Named { code, .. } => code,
            Self::Halted(_) => "halted",
        }
    }

    /// The end of a task on `subject`, with what was found until then.
    pub(in crate::tasks) fn end(self, subject: &str, mut report: TaskReport) -> TaskError {
        let message = format!("{subject}: {self}");
        if !matches!(self, Self::Halted(_)) {
            report.problems.push(problem(Severity::High, self.code(), subject, self.to_string()));
        }
        if report.summary.is_empty() {
            report.summary.clone_from(&message);
        }
        let report = Box::new(bounded(report));
        let retry = match self {
            Self::Halted(halt) => return halt.end(*report),
            Self::Unknown(_) => return TaskError::OutcomeUnknown { message, report, retry: None },
            Self::LockBusy(_) => Some(RetryKind::LockBusy),
            Self::TimeOver(_) => Some(RetryKind::Timeout),
            _ => None,
        };
        TaskError::Failed { message, report, retry }
    }
}

/// What a script answered.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::tasks) struct Rows {
    /// Its rows, each an object.
    pub(in crate::tasks) rows: Vec<Value>,
    /// Warnings of the server.
    pub(in crate::tasks) notices: Vec<String>,
}

impl Rows {
    /// Sorts the lines of a script's output.
    pub(super) fn read(output: &str) -> Result<Self, DatabaseError> {
        let mut read = Self::default();
        for line in output.lines().filter(|line| !line.trim().is_empty()) {
            if line.starts_with('{') {
                let row = serde_json::from_str(line)
                    .map_err(|e| program("psql", format!("its answer cannot be read: {e}")))?;
                read.rows.push(row);
            } else if let Some((_, message)) = coded(line) {
                read.notices.push(message.to_owned());
            }
        }
        Ok(read)
    }

    /// The only row.
    pub(in crate::tasks) fn only(&self) -> Result<&Value, DatabaseError> {
        match self.rows.as_slice() {
            [row] => Ok(row),
            rows => Err(program("psql", format!("one row was expected, {} came", rows.len()))),
        }
    }
}

/// A text of a row; empty where it is none.
pub(in crate::tasks) fn text<'r>(row: &'r Value, name: &str) -> &'r str {
    row[name].as_str().unwrap_or_default()
}

/// Hears the rows of a script while it runs.
pub(in crate::tasks) struct Listener<F> {
    line: Mutex<Vec<u8>>,
    hear: F,
}

/// Lines are kept whole while they arrive; a longer one is none of ours.
const MAX_LINE_BYTES: usize = 64 * 1024;

impl<F: Fn(Value) + Send + Sync> Listener<F> {
    /// One that hands each row to this.
    pub(in crate::tasks) const fn new(hear: F) -> Self {
        Self { line: Mutex::new(Vec::new()), hear }
    }
}

impl<F: Fn(Value) + Send + Sync> OutputSink for Listener<F> {
    fn write(&self, bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in bytes {
            if *byte != b'\n' {
                if line.len() < MAX_LINE_BYTES {
                    line.push(*byte);
                }
            } else if let Ok(row) = serde_json::from_slice(&std::mem::take(&mut *line)) {
                (self.hear)(row);
            }
        }
    }
}

fn program(program: &str, message: String) -> DatabaseError {
    DatabaseError::Program { program: program.to_owned(), message }
}

/// SQLSTATE and message of a line as psql prints it with `VERBOSITY` verbose: `…: ERROR:  55P03: canceling statement …`.
fn coded(line: &str) -> Option<(&str, &str)> {
    line.match_indices(":  ").find_map(|(at, blank)| {
        let rest = &line[at + blank.len()..];
        let (code, message) = rest.split_once(": ")?;
        let is_code = code.len() == 5 && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        is_code.then_some((code, message))
    })
}

/// What a script that failed says; psql ends with 2 where there is no connection, or no longer.
pub(super) fn failure_of_script(status: i32, output: &str) -> DatabaseError {
    match output.lines().rev().find_map(coded) {
        // The last that was said before the connection went may be a warning.
        Some((code, message)) if status != 2 => of_code(code, message),
        _ => {
            let last = last_words(output);
            if status == 2 { DatabaseError::Unreachable(last) } else { program("psql", last) }
        }
    }
}

fn of_code(code: &str, message: &str) -> DatabaseError {
    let text = message.to_owned();
    match code {
        LOCK_NOT_AVAILABLE | DEADLOCK | OBJECT_IN_USE => DatabaseError::LockBusy(text),
        QUERY_CANCELED => DatabaseError::TimeOver(text),
        _ => DatabaseError::Refused { code: code.to_owned(), message: text },
    }
}

/// What `pg_dump` or `pg_restore` says; they know no codes, and their own words are English in the language C.
pub(super) fn failure_of_program(name: &str, output: &str) -> DatabaseError {
    let error = output.lines().find_map(|line| line.split_once("error: ").map(|(_, words)| words));
    let words = error.map_or_else(|| last_words(output), tame);
    if words.contains("server version mismatch")
        || output.contains("aborting because of server version mismatch")
    {
        let versions = output.lines().find(|line| line.contains("server version:")).unwrap_or_default();
        let message = format!(
            "{name} is older than the server ({}); install the client programs of the server's version",
            tame(versions.trim_start_matches(&format!("{name}: detail: ")))
        );
        return DatabaseError::named("version_mismatch", message);
    }
    if words.contains("unsupported version") {
        let message = format!(
            "{words}: the dump was made by a newer PostgreSQL; restore it with programs of that version"
        );
        return DatabaseError::named("dump_version", message);
    }
    if words.contains("connection to server") {
        return DatabaseError::Unreachable(words);
    }
    // `--lock-wait-timeout` and a kill by the server's own limits.
    if output.contains("due to lock timeout") || output.contains("due to statement timeout") {
        return DatabaseError::LockBusy(words);
    }
    program(name, words)
}

fn last_words(output: &str) -> String {
    tame(output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing"))
}

/// Short, and without what could act on a terminal.
fn tame(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_by_their_code_in_any_language() {
        let said = "{\"gone\":5}\npsql:<stdin>:9: FEHLER:  55P03: storniere Anfrage wegen Zeitüberschreitung\n\
                    ORT:  ProcessInterrupts, postgres.c:3349\n";
        assert!(matches!(failure_of_script(3, said), DatabaseError::LockBusy(_)));
        let said = "psql:<stdin>:2: ERROR:  42P01: relation \"a:  b\" does not exist\nLOCATION:  x, y.c:1\n";
        let DatabaseError::Refused { code, message } = failure_of_script(3, said) else { panic!("refused") };
        assert_eq!((code.as_str(), message.as_str()), ("42P01", "relation \"a:  b\" does not exist"));
        let said =
            "psql: error: connection to server on socket \"/run/x\" failed: No such file or directory\n";
        assert!(matches!(failure_of_script(2, said), DatabaseError::Unreachable(_)));
    }

    #[test]
    fn rows_and_warnings_are_told_apart() {
        let read = Rows::read(
            "{\"a\":1}\n\npsql:<stdin>:3: WARNING:  01000: skipping \"t\"\nLOCATION:  v.c\n{\"a\":2}\n",
        );
        let read = read.unwrap();
        assert_eq!(read.rows.len(), 2);
        assert_eq!(read.notices, ["skipping \"t\""]);
        assert!(read.only().is_err() && Rows::read("{\"a\":").is_err());
    }

    #[test]
    fn programs_of_other_versions_have_a_named_cause() {
        let said = "pg_dump: error: aborting because of server version mismatch\n\
                    pg_dump: detail: server version: 16.1; pg_dump version: 15.5\n";
        let text = failure_of_program("pg_dump", said).to_string();
        assert!(text.contains("(server version: 16.1; pg_dump version: 15.5)"), "{text}");
        let said = "pg_restore: error: unsupported version (1.16) in file header\n";
        let error = failure_of_program("pg_restore", said);
        assert!(matches!(&error, DatabaseError::Named { code: "dump_version", .. }), "{error}");
    }
}
