//! Lays out the private root of a node: a small firewall installation with a past.
//!
//! Everything is written below the folder it is given and nothing is read from the machine. Called by
//! [`super::run()`] once for a node; a root that is there already is left as it is.

use std::fmt::Write as _;
use std::fs::{File, FileTimes};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fleet_types::time::Timestamp;

use super::embedded::FIREWALL;
use super::node_spec::NodeSpec;

/// The version that a root is laid out with.
pub const INSTALLED: &str = "1.0";
/// Folders that hold nothing yet.
const FOLDERS: [&str; 7] = [
    "run/zehrasec",
    "tmp",
    "var/backups/zehrasec",
    "var/lib/zehrasec/signatures",
    "var/log/zehrasec/archive",
    "var/log/zehrasec/audit",
    "var/log/zehrasec/threats",
];

/// Logs that are there from the start, with their age in days: a clean-up archives what is over 7 days old
/// and deletes archives of over 30 days, so that its plan has something of each kind to show.
const LOGS: [(&str, u32); 9] = [
    ("var/log/zehrasec/traffic.log", 0),
    ("var/log/zehrasec/system-1.log", 2),
    ("var/log/zehrasec/system-2.log", 9),
    ("var/log/zehrasec/system-3.log", 16),
    ("var/log/zehrasec/threats/threats.log", 1),
    ("var/log/zehrasec/threats/threats-old.log", 12),
    ("var/log/zehrasec/audit/audit.log", 3),
    ("var/log/zehrasec/archive/system-8.log.gz", 25),
    ("var/log/zehrasec/archive/system-9.log.gz", 45),
];
/// Lines of a log: enough for a size that is worth compressing.
const LOG_LINES: u32 = 400;
const PORTS: [u16; 5] = [22, 23, 445, 1433, 3389];
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// Writes the root of `node`, whose files' past ends at `now`.
pub fn lay_out(root: &Path, node: &NodeSpec, now: Timestamp) -> io::Result<()> {
    for folder in FOLDERS {
        make_folder(&root.join(folder))?;
    }
    for file in FIREWALL {
        write(&root.join(file.path), file.mode, filled(file.text, node).as_bytes())?;
    }
    for (path, days) in LOGS {
        let path = root.join(path);
        let written = now.minus(DAY * days);
        let text = log_text(node, written);
        // The archives are told apart by name and age alone; their content is text and says so.
        write(&path, 0o640, text.as_bytes())?;
        let since = Duration::from_millis(u64::try_from(written.as_millis()).unwrap_or(0));
        File::options()
            .write(true)
            .open(&path)?
            .set_times(FileTimes::new().set_modified(UNIX_EPOCH + since))?;
    }
    Ok(())
}

fn filled(text: &str, node: &NodeSpec) -> String {
    fill(
        text,
        [&node.name, node.site, node.pair.as_deref().unwrap_or("none"), &node.host.to_string()],
        INSTALLED,
    )
}

/// A file of the installation as its publisher delivers it: of a version, and of no node yet.
pub fn of_no_node(text: &str, version: &str) -> String {
    fill(text, ["unnamed", "unset", "none", "1"], version)
}

fn fill(text: &str, [node, site, ha_group, host]: [&str; 4], version: &str) -> String {
    text.replace("@NODE@", node)
        .replace("@SITE@", site)
        .replace("@HA_GROUP@", ha_group)
        .replace("@HOST@", host)
        .replace("@VERSION@", version)
}

fn log_text(node: &NodeSpec, last: Timestamp) -> String {
    let mut text = String::new();
    for line in 0..LOG_LINES {
        let at = last.minus(MINUTE * (LOG_LINES - line));
        let (source, port) = (line % 250 + 1, PORTS[line as usize % PORTS.len()]);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{at} {} DROP proto=tcp src=198.51.100.{source} dst=203.0.113.{} dport={port} (example data)",
            node.name, node.host
        );
    }
    text
}

fn make_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn write(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    // A root that is there already belongs to a node that has worked in it.
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests;
