//! The identity of a process that survives the reuse of its number: pid, start time and boot id.
//!
//! Source: security-and-delivery §1.16 and §2.5 (crash points). Called by the record, the supervisor and the
//! supervised units.

use std::path::Path;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// A process, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Its number.
    pub(crate) pid: u32,
    /// Its start, in ticks since boot (field 22 of `/proc/PID/stat`).
    pub(crate) start_ticks: u64,
    /// The boot that it belongs to.
    pub(crate) boot_id: String,
}

impl ProcessId {
    /// The identity of the process that has this number now.
    pub(crate) fn of(pid: u32, boot_id: &str) -> Option<Self> {
        let (_, start_ticks) = read(pid)?;
        Some(Self { pid, start_ticks, boot_id: boot_id.to_owned() })
    }

    /// Does it still run? A process that ended and was not waited for does not.
    pub(crate) fn is_alive(&self, boot_id: &str) -> bool {
        self.boot_id == boot_id
            && read(self.pid).is_some_and(|(state, start)| start == self.start_ticks && state != 'Z')
    }

    /// Signals this process alone; `false` when it does not run any more.
    pub(crate) fn signal(&self, boot_id: &str, signal: Signal) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).filter(|_| self.is_alive(boot_id));
        pid.is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
    }

    /// Signals its process group, if it still runs.
    pub(crate) fn signal_group(&self, boot_id: &str, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (true, Some(pid)) = (self.is_alive(boot_id), pid) {
            // It may end at this very moment; then there is nothing left to signal.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    /// Signals everything below this process, if it still runs: its children, theirs and so on, whatever
    /// sessions and groups they made for themselves.
    pub(crate) fn signal_below(&self, boot_id: &str, signal: Signal) {
        if self.is_alive(boot_id) {
            for pid in below(self.pid) {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }
}

/// Every living process below this one. A number that is given to another process between the look and a signal
/// would have to be used up and come round within microseconds.
pub(crate) fn below(pid: u32) -> Vec<Pid> {
    let parent_of = |entry: std::fs::DirEntry| -> Option<(u32, u32)> {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let (state, parent) = parse_parent(&stat(&entry.path())?)?;
        (state != 'Z').then_some((pid, parent))
    };
    let all: Vec<(u32, u32)> =
        std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(parent_of).collect();
    let (mut found, mut at) = (vec![pid], 0);
    while at < found.len() {
        let parent = found[at];
        // Numbers change hands while this reads: one that is there already is not taken again.
        let children: Vec<u32> = all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid).collect();
        found.extend(children.into_iter().filter(|child| !found.contains(child)).collect::<Vec<_>>());
        at += 1;
    }
    found[1..].iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)).collect()
}

/// State and start time.
fn read(pid: u32) -> Option<(char, u64)> {
    parse(&stat(Path::new(&format!("/proc/{pid}")))?)
}

/// What the kernel says of a process. The name in brackets may hold anything, so fields are counted after the last
/// bracket; and it is no UTF-8 where the kernel cut it after 15 bytes, within a letter.
fn stat(process: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&std::fs::read(process.join("stat")).ok()?).into_owned())
}

fn parse(text: &str) -> Option<(char, u64)> {
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3; the start time is field 22, so 18 lie between.
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

/// State and parent: fields 3 and 4.
fn parse_parent(text: &str) -> Option<(char, u32)> {
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse(text), Some(('S', 4242)));
        assert_eq!(parse_parent(text), Some(('S', 1)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("7 (x) S 1"), None);
    }

    #[test]
    fn a_process_whose_name_is_cut_within_a_letter_is_alive_and_below_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        // The kernel keeps 15 bytes: half of the ü.
        let program = folder.path().join("guard-of-wan-1übertragung");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let pid = child.id();
        let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap();
        let known = ProcessId::of(pid, "boot").is_some_and(|id| id.is_alive("boot"));
        let found = below(std::process::id()).contains(&Pid::from_child(&child));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(std::str::from_utf8(&comm).is_err(), "{comm:?}");
        assert!(known && found);
    }

    #[test]
    fn another_boot_or_start_is_another_process() {
        let own = ProcessId::of(std::process::id(), "boot").unwrap();
        assert!(own.is_alive("boot"));
        assert!(!own.is_alive("next boot"));
        assert!(!ProcessId { start_ticks: own.start_ticks + 1, ..own }.is_alive("boot"));
    }
}
