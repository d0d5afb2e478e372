//! One program that `fleetctl dev` starts: in a process group of its own, its output in a log file, known by
//! pid and start time so that no number that was given to another process is ever signalled.
//!
//! Blocking; called by [`super::crew`] and [`super::ledger`]. Must never signal a process by name.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::launch::{end_of, into_log};

/// How often a process that should end is looked at: shorter than anybody notices.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Read from the end of a log: more than the lines that are shown.
const TAIL_BYTES: u64 = 8 * 1024;
/// Lines of a log that an error shows: a chain of causes and what led to it.
const TAIL_LINES: usize = 8;

/// A process for ever: numbers are given to others again, start times are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    /// Its number, which is that of its group too.
    pub pid: i32,
    /// Its start in ticks since boot (field 22 of `/proc/PID/stat`, proc(5)).
    pub start_ticks: u64,
    /// The boot that this counts from.
    pub boot_id: String,
}

/// The boot that the machine is in; empty where it is not told.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl ProcessMark {
    /// The mark of the process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        let (_, start_ticks) = state_and_start(pid)?;
        Some(Self { pid, start_ticks, boot_id: boot_id() })
    }

    /// Does it still run? One that ended and was not waited for does not.
    pub fn is_alive(&self) -> bool {
        self.boot_id == boot_id()
            && state_and_start(self.pid)
                .is_some_and(|(state, start)| start == self.start_ticks && state != 'Z')
    }

    /// Signals it and its group, if it still runs.
    pub fn signal_group(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
            // It may end at this very moment; then there is nothing left to signal.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    /// Signals it alone, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// State and start time. The name in brackets may hold anything, so fields are counted after the last bracket.
fn state_and_start(pid: i32) -> Option<(char, u64)> {
    // Bytes: the kernel cuts names after 15 of them, also within a letter.
    let bytes = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    // The state is field 3; the start time is field 22, so 18 lie between.
    Some((fields.next()?.chars().next()?, fields.nth(18)?.parse().ok()?))
}

/// A running program with its log.
#[derive(Debug)]
pub struct Process {
    child: Child,
    mark: Option<ProcessMark>,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output is added to `log`.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        // So that Ctrl-C reaches fleetctl alone, which then ends the others in order.
        let child = into_log(command, log)?.process_group(0).spawn()?;
        let mark = ProcessMark::of(Pid::from_child(&child).as_raw_nonzero().get());
        Ok(Self { child, mark, log: log.to_owned() })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its mark; none when it had ended and gone before it could be looked at.
    pub const fn mark(&self) -> Option<&ProcessMark> {
        self.mark.as_ref()
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Signals it and its group while it has not been waited for: its number cannot be another's before that.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), signal);
        }
    }

    /// Waits for its end, at most so long or until `hurry` says so.
    pub fn wait(&mut self, limit: Duration, hurry: &dyn Fn() -> bool) -> Option<ExitStatus> {
        wait_for(limit, hurry, || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whoever lets go of a process has ended it before; this is for the paths where they could not.
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Looks again and again until there is something, at most so long or until `hurry`.
pub fn wait_for<T>(
    limit: Duration,
    hurry: &dyn Fn() -> bool,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end || hurry() {
            return None;
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> Vec<String> {
    let text = end_of(log, TAIL_BYTES);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn shell(script: &str, folder: &Path) -> Process {
        Process::start(Command::new("/bin/sh").args(["-c", script]), &folder.join("log")).unwrap()
    }

    fn never() -> bool {
        false
    }

    #[test]
    fn output_is_added_to_the_log_and_the_tail_is_its_end() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let mut process = shell(
                "i=0; while [ $i -lt 9 ]; do i=$((i+1)); echo line $i; done; echo >&2; echo bad >&2; exit 3",
                folder.path(),
            );
            assert_eq!(process.wait(LIMIT, &never).unwrap().code(), Some(3));
        }
        let log = folder.path().join("log");
        assert_eq!(std::fs::read_to_string(&log).unwrap().matches("line 1\n").count(), 2);
        let tail = tail(&log);
        assert_eq!(
            (tail.len(), tail.first().unwrap().as_str(), tail.last().unwrap().as_str()),
            (8, "line 3", "bad")
        );
        assert!(super::tail(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn a_process_ends_with_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell("sleep 600 & echo $!; wait", folder.path());
        let inner = wait_for(LIMIT, &never, || tail(&folder.path().join("log")).first()?.parse::<i32>().ok())
            .unwrap();
        let inner = ProcessMark::of(inner).unwrap();
        assert!(inner.is_alive() && process.mark().unwrap().is_alive());
        process.signal(Signal::TERM);
        assert!(process.wait(LIMIT, &never).is_some());
        assert!(wait_for(LIMIT, &never, || (!inner.is_alive()).then_some(())).is_some());
    }

    #[test]
    fn one_that_is_let_go_of_ends_whatever_it_ignores() {
        let folder = tempfile::tempdir().unwrap();
        let process = shell("trap '' TERM; echo up; sleep 600 & wait", folder.path());
        let mark = process.mark().unwrap().clone();
        wait_for(LIMIT, &never, || tail(&folder.path().join("log")).first().cloned()).unwrap();
        drop(process);
        assert!(!mark.is_alive());
    }

    #[test]
    fn waiting_has_a_limit_and_can_be_hurried() {
        assert_eq!(wait_for(Duration::ZERO, &never, || None::<()>), None);
        assert_eq!(wait_for(LIMIT, &|| true, || None::<()>), None);
    }

    #[test]
    fn another_start_is_another_process() {
        let own = ProcessMark::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessMark { start_ticks: own.start_ticks + 1, ..own.clone() }.is_alive());
        assert!(!ProcessMark { boot_id: "other".into(), ..own }.is_alive());
    }
}
