//! Which numbers the journal may have used, noted ahead in blocks, apart from the journal itself.
//!
//! The controller knows the highest number of a node's journal and holds a node whose number went down. A journal that
//! is lost or damaged cannot say what its own was: this file can, so that numbers go on above all that were used
//! and none is made up. It also tells when an older journal was put in the place of the last one.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable;

/// The file's name.
pub const FILE: &str = "journal.numbers";
/// Numbers noted ahead: one small write for so many entries, and the most by which numbers jump after damage.
const BLOCK: u64 = 1000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// Written in the journal when this was noted.
    reached: u64,
    /// May be used without noting more.
    until: u64,
}

/// The noted numbers.
#[derive(Debug)]
pub struct Numbers {
    path: PathBuf,
    noted: Noted,
}

impl Numbers {
    /// Reads what is noted in `directory`; nothing is noted before the first entry, nor by an older agent.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        let bytes = durable::read_if_there(&path)?;
        // What cannot be read is noted anew; the journal itself says how far it came.
        let noted = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Ok(Self { path, noted })
    }

    /// A journal that ends below this is not the one that was written last.
    pub const fn reached(&self) -> u64 {
        self.noted.reached
    }

    /// No number above this was used.
    pub const fn until(&self) -> u64 {
        self.noted.until
    }

    /// Notes that numbers up to `next` are about to be used, `reached` being written.
    pub fn note(&mut self, reached: u64, next: u64) -> io::Result<()> {
        if next > self.noted.until {
            let noted = Noted { reached, until: next + BLOCK };
            durable::write_atomically(&self.path, &serde_json::to_vec(&noted)?)?;
            self.noted = noted;
        }
        Ok(())
    }
}
