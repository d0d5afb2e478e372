//! What a node must have since it has a history, and the mark that something of it is damaged or missing.
//!
//! A node that has had a link has a journal, a state and a report key. One that is gone is no fresh start: a new key,
//! an empty journal or a fence of zero would pass for the node that they were of. What is amiss is marked before
//! anything is made anew, and the mark stays until a person takes it away, so that no restart forgets it
//! (security-and-delivery §2.5). Called by the executor at its start and by the agent's commands.

use std::fs;
use std::io;
use std::path::Path;

use crate::durable;
use crate::journal::frame;
use crate::state::SmallState;

/// Says since when this node has a history.
const HISTORY: &str = "history";
/// Says what is amiss, until a person removes it.
const MARK: &str = "journal.damage";
/// What a node with a history has.
const NEEDED: [&str; 3] = ["journal", "state.json", "report.key"];
/// What the way out of safe mode is.
pub const REMEDY: &str = "find out what happened to it, then run fleet-agent accept-damage with the agent stopped; \
                          or join anew with fleet-agent enrol --replace";

/// Notes that this node has a history. Called once its first link is accepted, and harmless later.
pub fn begin_history(directory: &Path) -> io::Result<()> {
    let path = directory.join(HISTORY);
    if path.exists() { Ok(()) } else { durable::write_atomically(&path, b"fleet/v1/history\n") }
}

/// Has this node a history? Asked of everything that tells, because anything may be missing.
pub fn has_history(directory: &Path) -> bool {
    let has_link = || SmallState::open(directory).is_ok_and(|state| state.get().generation.0 > 0);
    let has_reports =
        || fs::read_dir(directory.join("reports")).is_ok_and(|mut reports| reports.next().is_some());
    directory.join(HISTORY).exists() || has_link() || has_reports()
}

/// What a node with a history lacks, in words; none when all is there.
pub fn missing(directory: &Path) -> Option<String> {
    if !has_history(directory) {
        return None;
    }
    let is_there = |name: &str| match name {
        // From its first writing on it has a frame: a shorter file was cut, and would pass for a new one.
        "journal" => fs::metadata(directory.join(name)).is_ok_and(|file| file.len() >= frame::SHORTEST_BYTES),
        _ => directory.join(name).exists(),
    };
    let lacks: Vec<&str> = NEEDED.into_iter().filter(|name| !is_there(name)).collect();
    (!lacks.is_empty()).then(|| format!("{} is missing or empty, which this node had", lacks.join(" and ")))
}

/// What is marked as amiss.
pub fn marked(directory: &Path) -> io::Result<Option<String>> {
    let bytes = durable::read_if_there(&directory.join(MARK))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Adds to the mark; the same words stand in it once.
pub fn mark(directory: &Path, found: &str) -> io::Result<String> {
    let text = match marked(directory)? {
        Some(known) if known.contains(found) => return Ok(known),
        Some(known) => format!("{known}; {found}"),
        None => found.to_owned(),
    };
    durable::write_atomically(&directory.join(MARK), text.as_bytes())?;
    Ok(text)
}

/// Ends safe mode after a person has looked. The executor must not run.
pub fn accept(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => durable::sync_directory(directory),
    }
}

#[cfg(test)]
mod tests {
    use fleet_types::id::{Generation, LinkEpoch};

    use super::*;

    #[test]
    fn whatever_is_gone_is_noticed_by_what_is_left() {
        let node = |gone: &[&str]| {
            let directory = tempfile::tempdir().unwrap();
            SmallState::open(directory.path()).unwrap().raise_fence(Generation(1), LinkEpoch(1)).unwrap();
            begin_history(directory.path()).unwrap();
            fs::create_dir(directory.path().join("reports")).unwrap();
            for name in ["journal", "report.key", "reports/x"] {
                fs::write(directory.path().join(name), [b'x'; 40]).unwrap();
            }
            for name in gone {
                fs::remove_file(directory.path().join(name)).unwrap();
            }
            missing(directory.path())
        };
        assert_eq!(node(&[]), None);
        assert_eq!(node(&["history"]), None, "of before there was one");
        for name in NEEDED {
            let found = node(&[name]).unwrap();
            assert!(found.starts_with(&format!("{name} is missing or empty")), "{found}");
        }
        let cut = |length: usize| {
            let directory = tempfile::tempdir().unwrap();
            begin_history(directory.path()).unwrap();
            SmallState::open(directory.path()).unwrap().raise_fence(Generation(1), LinkEpoch(1)).unwrap();
            fs::write(directory.path().join("report.key"), "x").unwrap();
            let journal = [frame::MAGIC, &frame::encode(1, b"null")].concat();
            fs::write(directory.path().join("journal"), &journal[..length]).unwrap();
            missing(directory.path())
        };
        let shortest = usize::try_from(frame::SHORTEST_BYTES).unwrap();
        assert_eq!(cut(shortest), None);
        for length in 0..shortest {
            assert!(
                cut(length).is_some_and(|found| found.starts_with("journal is missing or empty")),
                "cut to {length}"
            );
        }
        assert!(node(&["history", "journal"]).is_some());
        assert!(node(&["history", "state.json"]).is_some(), "its reports are left");
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(missing(empty.path()), None, "a new node");
    }

    #[test]
    fn the_mark_keeps_everything_once_until_it_is_accepted() {
        let directory = tempfile::tempdir().unwrap();
        mark(directory.path(), "one").unwrap();
        mark(directory.path(), "two").unwrap();
        assert_eq!(mark(directory.path(), "one").unwrap(), "one; two");
        accept(directory.path()).unwrap();
        assert_eq!(marked(directory.path()).unwrap(), None);
        accept(directory.path()).unwrap();
    }
}
