//! The record of a supervised process: a folder that says what was to be started, that it began, and how it
//! ended; each in a file of its own, written durably before the next thing happens.
//!
//! | file | written by | means |
//! |---|---|---|
//! | `spec` | agent | this is to be started |
//! | `begun` | supervisor | from here on the program may have run |
//! | `started` | supervisor | this is the program |
//! | `output`, `tail` | supervisor | what it printed: the first and the last of it |
//! | `room` | supervisor | becomes `exit`: laid down before the program starts, so that a full disk hides no end |
//! | `exit` | supervisor | how it ended |
//! | `stopped` | agent | it was stopped on purpose |
//! | `cancel` | agent | the supervisor is to end it, with all that it started |
//! | `lock` | supervisor | held while the supervisor lives: the kernel lets go of it, whatever happens |
//!
//! Called by `runner`, `supervised` and `supervise` alone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fleet_types::digest::Digest;
use fleet_types::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process_id::ProcessId;
use super::processes::{Exit, Input};

/// Kept of the beginning of a program's output, and as much of its end. Half a megabyte holds the whole output
/// of nearly every maintenance program; what is larger belongs in files it declares as outputs.
pub(crate) const HEAD_BYTES: u64 = 256 * 1024;
/// See [`HEAD_BYTES`].
pub(crate) const TAIL_BYTES: usize = 256 * 1024;
/// Room for `exit`, which has a few hundred bytes; one block of a file system.
const ROOM_BYTES: usize = 4096;
/// Largest small file of a record; a spec holds an argument vector of at most a few kilobytes.
const MAX_SMALL_BYTES: u64 = 1024 * 1024;

/// What is to be started, resolved to this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// Distinguishes this start from an earlier one in the same folder whose supervisor comes late.
    pub(crate) nonce: String,
    /// Program as it lies on this machine.
    pub(crate) program: PathBuf,
    /// Arguments, the name of the program first.
    pub(crate) argv: Vec<String>,
    /// Working directory on this machine.
    pub(crate) directory: PathBuf,
    /// All variables.
    pub(crate) environment: BTreeMap<String, String>,
    /// User and group to become; none stays.
    pub(crate) user: Option<(u32, u32)>,
    /// Limit on boot time in milliseconds; none for units.
    pub(crate) time_limit_ms: Option<u64>,
    /// What it reads, with a path of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<Input>,
    /// The file of this machine that takes its standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output_file: Option<PathBuf>,
}

/// From here on the program may have run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// The supervisor.
    pub(crate) supervisor: ProcessId,
    /// Wall time.
    pub(crate) at: Timestamp,
    /// The invocation of its transient unit (`systemd.exec(5)`, `INVOCATION_ID`); none where it has no unit of its own.
    #[serde(default)]
    pub(crate) invocation: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Exit; none when the program could not be started at all.
    pub(crate) exit: Option<Exit>,
    /// Why it could not be started.
    pub(crate) not_started: Option<String>,
    /// Wall time of the start.
    pub(crate) started: Timestamp,
    /// Wall time of the end.
    pub(crate) at: Timestamp,
    /// Milliseconds on boot time.
    pub(crate) took_ms: u64,
    /// Bytes of output.
    pub(crate) output_bytes: u64,
    /// Digest of the output.
    pub(crate) output_sha256: Digest,
}

/// A record folder.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    folder: PathBuf,
}

/// Held while a supervisor lives.
#[derive(Debug)]
pub(crate) struct RecordLock {
    _held: File,
}

impl Record {
    /// The record in this folder, which need not be there.
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Where it lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder with what is to be started; durable when it returns. Only the agent's user probes in.
    pub(crate) fn prepare(&self, spec: &Spec) -> io::Result<()> {
        make_durably(&self.folder)?;
        self.write("spec", spec)
    }

    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        write_durably(&self.folder.join(name), &serde_json::to_vec(value).map_err(io::Error::other)?)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let file = match File::open(self.folder.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_SMALL_BYTES).read_to_end(&mut bytes)?;
        serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other)
    }

    pub(crate) fn spec(&self) -> io::Result<Option<Spec>> {
        self.read("spec")
    }

    pub(crate) fn begun(&self) -> io::Result<Option<Begun>> {
        self.read("begun")
    }

    /// Fails where there is no room to tell the end: nothing has been started then.
    pub(crate) fn write_begun(&self, begun: &Begun) -> io::Result<()> {
        write_durably(&self.room(), &[b' '; ROOM_BYTES])?;
        self.write("begun", begun)
    }

    pub(crate) fn started(&self) -> io::Result<Option<ProcessId>> {
        self.read("started")
    }

    pub(crate) fn write_started(&self, program: &ProcessId) -> io::Result<()> {
        self.write("started", program)
    }

    pub(crate) fn ended(&self) -> io::Result<Option<Ended>> {
        self.read("exit")
    }

    /// Written into the room that is there, whose rest stays blank; the blocks are on the disk already.
    pub(crate) fn write_ended(&self, ended: &Ended) -> io::Result<()> {
        let bytes = serde_json::to_vec(ended).map_err(io::Error::other)?;
        let path = self.folder.join("exit");
        let room = match OpenOptions::new().write(true).open(self.room()) {
            Ok(room) if bytes.len() <= ROOM_BYTES => Some(room),
            // A record that an older agent began has none; a long reason does not fit.
            _ => None,
        };
        let Some(mut room) = room else { return write_durably(&path, &bytes) };
        room.write_all(&bytes)?;
        room.sync_all()?;
        std::fs::rename(self.room(), &path)?;
        sync_folder(&self.folder)
    }

    fn room(&self) -> PathBuf {
        self.folder.join("room")
    }

    /// Notes that the end to come is wanted.
    pub(crate) fn mark_stopped(&self) -> io::Result<()> {
        self.write("stopped", &true)
    }

    /// Is its end wanted?
    pub(crate) fn is_stopped(&self) -> bool {
        self.folder.join("stopped").exists()
    }

    /// Asks the supervisor to end the program with all that it started.
    pub(crate) fn ask_to_cancel(&self) -> io::Result<()> {
        self.write("cancel", &true)
    }

    /// Was the supervisor asked to end the program?
    pub(crate) fn is_asked_to_cancel(&self) -> bool {
        self.folder.join("cancel").exists()
    }

    /// Takes the supervisor's lock; none when a supervisor lives.
    pub(crate) fn try_lock(&self) -> io::Result<Option<RecordLock>> {
        let path = self.folder.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(RecordLock { _held: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes back what was to be started; a supervisor that comes later finds nothing. False where one has it: the program
    /// may have begun.
    pub(crate) fn withdraw(&self) -> io::Result<bool> {
        let Some(_lock) = self.try_lock()? else { return Ok(false) };
        if self.begun()?.is_some() {
            return Ok(false);
        }
        self.remove().map(|()| true)
    }

    /// Opens the file of the output's beginning for writing.
    pub(crate) fn create_output(&self) -> io::Result<File> {
        let path = self.folder.join("output");
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
    }

    /// Opens the beginning of the output for reading, once it is there.
    pub(crate) fn open_output(&self) -> Option<File> {
        File::open(self.folder.join("output")).ok()
    }

    pub(crate) fn write_tail(&self, tail: &[u8]) -> io::Result<()> {
        write_durably(&self.folder.join("tail"), tail)
    }

    pub(crate) fn tail(&self) -> Vec<u8> {
        std::fs::read(self.folder.join("tail")).unwrap_or_default()
    }

    /// Where the supervisor's own complaints go.
    pub(crate) fn complaints_path(&self) -> PathBuf {
        self.folder.join("supervisor.log")
    }

    /// What the supervisor complained of.
    pub(crate) fn complaints(&self) -> String {
        let text = std::fs::read_to_string(self.complaints_path()).unwrap_or_default();
        text.trim().chars().take(300).collect()
    }

    /// Removes the record.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Replaces a file of the agent's own state: temporary name, fsync, rename, fsync of the folder.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = super::files::temporary_beside(path);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes a folder and those above it, each known to its parent durably: a record that vanished with a power
/// failure would let its program start a second time.
fn make_durably(folder: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = folder.parent().ok_or(error)?;
            make_durably(parent)?;
            std::fs::DirBuilder::new().mode(0o700).create(folder)?;
            sync_folder(parent)
        }
        Err(error) => Err(error),
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn the_lock_tells_whether_a_supervisor_lives() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::at(folder.path());
        let held = record.try_lock().unwrap().expect("nobody holds it");
        assert!(record.try_lock().unwrap().is_none());
        drop(held);
        assert!(record.try_lock().unwrap().is_some());
    }

    #[test]
    fn what_somebody_may_have_begun_is_not_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::at(&folder.path().join("record"));
        std::fs::create_dir(record.folder()).unwrap();
        let supervisor = record.try_lock().unwrap();
        assert!(!record.withdraw().unwrap());
        drop(supervisor);
        let at = Timestamp::clamped(7);
        let supervisor = ProcessId::of(std::process::id(), "boot").unwrap();
        record.write_begun(&Begun { supervisor, at, invocation: None }).unwrap();
        assert!(!record.withdraw().unwrap());
        std::fs::remove_file(record.folder().join("begun")).unwrap();
        assert!(record.withdraw().unwrap() && !record.folder().exists());
    }

    #[test]
    fn the_end_goes_into_the_room_that_was_laid_down_before() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::at(folder.path());
        let at = Timestamp::clamped(7);
        let supervisor = ProcessId::of(std::process::id(), "boot").unwrap();
        record.write_begun(&Begun { supervisor, at, invocation: None }).unwrap();
        let room = std::fs::metadata(record.room()).unwrap();
        assert_eq!(room.len(), ROOM_BYTES as u64);
        let mut ended = Ended {
            exit: None,
            not_started: Some("no such file".to_owned()),
            started: at,
            at,
            took_ms: 3,
            output_bytes: 0,
            output_sha256: Digest::of(b""),
        };
        record.write_ended(&ended).unwrap();
        let exit = std::fs::metadata(folder.path().join("exit")).unwrap();
        assert_eq!((exit.ino(), exit.len()), (room.ino(), room.len()), "the same blocks");
        assert_eq!(record.ended().unwrap().as_ref(), Some(&ended));
        // Without room, and with more than fits.
        ended.not_started = Some("x".repeat(ROOM_BYTES));
        record.write_ended(&ended).unwrap();
        assert_eq!(record.ended().unwrap(), Some(ended));
    }
}
