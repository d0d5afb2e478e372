//! What a journal's bytes hold, what of it is kept by a compaction, and writing it anew.
//!
//! Entries that this agent does not know keep their bytes. Called by the journal's file alone.

use std::io;
use std::path::Path;

use fleet_types::time::Timestamp;

use super::entry::Entry;
use super::frame::{self, Ending};
use super::numbers::Numbers;
use super::table::JobTable;
use super::versions::{self, Read};
use crate::durable;

/// One entry with its bytes.
#[derive(Debug)]
pub struct Kept<'a> {
    payload: &'a [u8],
    /// None where it is of a newer agent.
    entry: Option<Entry>,
}

/// A journal as it was read.
#[derive(Debug)]
pub struct Contents<'a> {
    /// Its entries in order.
    pub kept: Vec<Kept<'a>>,
    /// Number of the last one.
    pub last: u64,
    /// How the file ends.
    pub ending: Ending,
    /// What is damaged in it, in words.
    pub damage: Option<String>,
    /// Which entries are of a newer agent.
    pub newer: Option<String>,
}

impl<'a> Contents<'a> {
    /// Reads all that can be read.
    pub fn read(bytes: &'a [u8]) -> Self {
        let (frames, ending) = frame::read_all(bytes);
        let last = frames.last().map_or(0, |frame| frame.sequence);
        let mut contents =
            Self { kept: Vec::with_capacity(frames.len()), last, ending, damage: None, newer: None };
        for frame in frames {
            let entry = match versions::read(frame.payload) {
                Read::Nothing => continue,
                Read::Entry(entry) => Some(*entry),
                Read::Newer(what) => {
                    contents.newer.get_or_insert_with(|| format!("entry {}: {what}", frame.sequence));
                    None
                }
                // Whole, but written by no agent.
                Read::Malformed => {
                    contents.damage = Some(format!("journal entry {} is not understood", frame.sequence));
                    continue;
                }
            };
            contents.kept.push(Kept { payload: frame.payload, entry });
        }
        if let Ending::Damaged { at } = ending {
            contents.damage = Some(format!("the journal is damaged at byte {at} of {}", bytes.len()));
        }
        contents
    }

    /// What the entries say of jobs.
    pub fn table(&self) -> JobTable {
        let mut table = JobTable::default();
        for entry in self.kept.iter().filter_map(|kept| kept.entry.as_ref()) {
            table.apply(entry);
        }
        table
    }

    /// Leaves out what may be forgotten, and the steps of jobs whose reports hold them.
    pub fn compact(&mut self, now: Timestamp) {
        let table = self.table();
        let gone = table.forgettable(now);
        self.kept.retain(|kept| {
            let Some(entry) = &kept.entry else { return true };
            let key = entry.job();
            let is_step = matches!(entry, Entry::StepBegin { .. } | Entry::StepEnd { .. });
            let has_ended = || table.get(&key).is_some_and(|job| job.finished.is_some());
            !(gone.contains(&key) || is_step && has_ended())
        });
    }
}

/// Writes a new file with these entries under new, higher numbers, and puts it in place; gives its length.
pub fn rewrite(
    path: &Path,
    entries: &[Kept<'_>],
    sequence: &mut u64,
    numbers: &mut Numbers,
) -> io::Result<u64> {
    let mut next = *sequence + 1;
    numbers.note(*sequence, next + entries.len() as u64)?;
    let mut bytes = frame::MAGIC.to_vec();
    // A frame that says nothing but its number: numbers go on even when no entry is kept.
    bytes.extend(frame::encode(next, b"null"));
    for kept in entries {
        next += 1;
        bytes.extend(frame::encode(next, kept.payload));
    }
    durable::write_atomically(path, &bytes)?;
    *sequence = next;
    Ok(bytes.len() as u64)
}
