//! What runs of a sandbox, as `/proc` tells: processes whose command line names its folder, and what rights and
//! sockets one of them has. Signals nothing.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Command lines of processes that name `folder`.
pub fn below(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.as_os_str().as_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // One that ended just now cannot be read; one that was not waited for has no command line.
        let Ok(line) = std::fs::read(path.join("cmdline")) else { continue };
        if line.windows(folder.len()).any(|part| part == folder) {
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    Ok(found)
}

/// The child of `parent` whose first argument is `argument`; none when there is none now.
pub fn child_of(parent: u32, argument: &str) -> Result<Option<u32>> {
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_it = line.split(|byte| *byte == 0).nth(1) == Some(argument.as_bytes());
        if is_it && status(pid, "PPid").is_ok_and(|of| of == parent.to_string()) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Is this process there?
pub fn is_there(pid: u32) -> bool {
    // One that has ended and was not waited for yet has no rights left to look at, but its line is there.
    status(pid, "State").is_ok_and(|state| !state.starts_with('Z'))
}

/// A line of `/proc/PID/status`, its white space folded.
pub fn status(pid: u32, name: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let words = line.with_context(|| format!("no {name} in the status of {pid}"))?.split_whitespace();
    Ok(words.collect::<Vec<_>>().join(" "))
}

/// How many sockets of the internet families it holds.
pub fn internet_sockets(pid: u32) -> Result<usize> {
    let mut inodes = std::collections::BTreeSet::new();
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
        // A kernel without IPv6 has no such table.
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        inodes.extend(
            text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(9).map(str::to_owned)),
        );
    }
    let mut count = 0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(link) = std::fs::read_link(entry?.path()) else { continue };
        let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'));
        count += usize::from(inode.is_some_and(|inode| inodes.contains(inode)));
    }
    Ok(count)
}
