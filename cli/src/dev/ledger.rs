//! `processes.json`: every process that a development fleet started, so that the next start can end what a
//! `fleetctl dev` that was killed left running.
//!
//! A child is not told by the system when its parent is killed unless it asks for that itself, which the
//! programs of a production fleet rightly do not. So each is noted here as soon as it runs, by pid, start
//! time and boot, and is ended by exactly these. What the nodes' agents started (units and steps) is found by
//! `FLEET_ROOT`, which names the private root that it belongs to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_certs::files;
use rustix::process::{Pid, Signal};

use super::process::{ProcessMark, boot_id, wait_for};

/// Between SIGTERM and SIGKILL of what was left behind: agents end within their drain time of 3 s.
const GRACE: Duration = Duration::from_secs(5);
/// SIGKILL takes effect within milliseconds on any machine that still works.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// Most processes that are noted: restarts of 200 agents would have to go on for hours to reach it.
const MAX_NOTED: usize = 2_000;

/// The list and its file.
#[derive(Debug)]
pub struct ProcessLedger {
    file: PathBuf,
    marks: Vec<ProcessMark>,
}

impl ProcessLedger {
    /// The list in a file; empty where there is none or it cannot be read.
    pub fn open(file: &Path) -> Self {
        let marks =
            files::read_text(file).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self { file: file.to_owned(), marks }
    }

    /// Notes a process; those that have ended are forgotten.
    pub fn note(&mut self, mark: &ProcessMark) -> Result<(), files::FileError> {
        self.marks.retain(ProcessMark::is_alive);
        self.marks.truncate(MAX_NOTED - 1);
        self.marks.push(mark.clone());
        // Marks are plain data, which cannot fail to be written.
        let json = serde_json::to_vec(&self.marks).unwrap_or_default();
        files::write_atomic(&self.file, &json, files::KEY_MODE)
    }

    /// Ends what still runs; says how many that were.
    pub fn end_all(&self, hurry: &dyn Fn() -> bool) -> usize {
        end(&self.marks, hurry, ProcessMark::signal_group)
    }
}

/// Ends what agents of nodes below this folder left running; says how many that were.
pub fn end_below(nodes: &Path, hurry: &dyn Fn() -> bool) -> usize {
    end(&rooted_below(nodes), hurry, ProcessMark::signal)
}

fn end(marks: &[ProcessMark], hurry: &dyn Fn() -> bool, signal: fn(&ProcessMark, Signal)) -> usize {
    let alive: Vec<_> = marks.iter().filter(|mark| mark.is_alive()).collect();
    let gone = || (!alive.iter().any(|mark| mark.is_alive())).then_some(());
    for (what, grace) in [(Signal::TERM, GRACE), (Signal::KILL, KILL_GRACE)] {
        for mark in alive.iter().filter(|mark| mark.is_alive()) {
            signal(mark, what);
        }
        // A hurry shortens the wait for SIGTERM only.
        let hurried = || what == Signal::TERM && hurry();
        if wait_for(grace, &hurried, gone).is_some() {
            break;
        }
    }
    alive.len()
}

/// Processes whose `FLEET_ROOT` lies below a folder. Other users' cannot be read, and are not ours.
fn rooted_below(nodes: &Path) -> Vec<ProcessMark> {
    let boot_id = boot_id();
    let own = Pid::as_raw(Some(rustix::process::getpid()));
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|pid| *pid != own)
        .filter_map(|pid| ProcessMark::of(pid).filter(|mark| mark.boot_id == boot_id))
        .filter(|mark| {
            let variables = std::fs::read(format!("/proc/{}/environ", mark.pid)).unwrap_or_default();
            let roots =
                variables.split(|byte| *byte == 0).filter_map(|line| line.strip_prefix(b"FLEET_ROOT="));
            roots.into_iter().any(|root| Path::new(&*String::from_utf8_lossy(root)).starts_with(nodes))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::process::{Process, tail};
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn what_was_noted_is_ended_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("processes.json");
        let log = folder.path().join("log");
        // The first ends at SIGTERM, the second wants SIGKILL; a hurry does not wait for it.
        let mut left = [
            Process::start(Command::new("/bin/sh").args(["-c", "sleep 600"]), &log).unwrap(),
            Process::start(
                Command::new("/bin/sh").args(["-c", "trap '' TERM; echo up; sleep 600 & wait"]),
                &log,
            )
            .unwrap(),
        ];
        wait_for(LIMIT, &|| false, || tail(&log).first().cloned()).unwrap();
        for process in &left {
            ProcessLedger::open(&file).note(process.mark().unwrap()).unwrap();
        }
        assert_eq!(ProcessLedger::open(&file).end_all(&|| true), 2);
        for process in &mut left {
            assert!(process.wait(LIMIT, &|| false).is_some());
        }
        assert_eq!(ProcessLedger::open(&file).end_all(&|| true), 0);
    }

    #[test]
    fn a_number_that_was_given_to_another_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("processes.json");
        let log = folder.path().join("log");
        let mut process = Process::start(Command::new("/bin/sh").args(["-c", "sleep 600"]), &log).unwrap();
        let mark = process.mark().unwrap();
        let other = ProcessMark { start_ticks: mark.start_ticks + 1, ..mark.clone() };
        std::fs::write(&file, serde_json::to_vec(&[other]).unwrap()).unwrap();
        assert_eq!(ProcessLedger::open(&file).end_all(&|| false), 0);
        assert!(process.ended().is_none());
    }

    #[test]
    fn what_belongs_to_a_root_is_found_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("nodes/fw-1/root");
        let variables = [("FLEET_ROOT", root.to_str().unwrap())];
        let log = folder.path().join("log");
        let mut inside =
            Process::start(Command::new("/bin/sh").args(["-c", "sleep 600"]).envs(variables), &log).unwrap();
        let mut outside =
            Process::start(Command::new("/bin/sh").args(["-c", "sleep 600"]).env("FLEET_ROOT", "/"), &log)
                .unwrap();
        assert!(end_below(&folder.path().join("nodes"), &|| false) >= 1);
        assert!(inside.wait(LIMIT, &|| false).is_some());
        assert!(outside.ended().is_none());
    }
}
