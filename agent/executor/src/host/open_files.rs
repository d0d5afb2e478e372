//! Which files are open for writing, from `/proc/PID/fd`. Reads only. Called by `linux_files`.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::files::FileError;
use super::linux_files::identity;

/// `S_IWUSR`: of a link in `/proc/PID/fd`, that the file is open for writing.
const OWNER_WRITES: u32 = 0o200;

/// Device and number of every regular file that a process holds open for writing.
///
/// Processes that may not be looked into (only when the agent is not root, on development nodes) are passed
/// over.
pub(super) fn open_for_writing() -> Result<BTreeSet<(u64, u64)>, FileError> {
    let proc = Path::new("/proc");
    let processes = std::fs::read_dir(proc).map_err(|e| FileError::of("list", proc, &e))?;
    let mut open = BTreeSet::new();
    for process in processes.flatten() {
        let name = process.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // A process may end at any point of this; then it holds nothing open.
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            // Most descriptors are sockets and pipes: those are told apart first.
            let Ok(metadata) = std::fs::metadata(descriptor.path()) else { continue };
            // The link's own mode says how the file was opened; lsof goes by it too.
            let is_written = || descriptor.metadata().is_ok_and(|link| link.mode() & OWNER_WRITES != 0);
            if metadata.is_file() && is_written() {
                open.insert(identity(&metadata));
            }
        }
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_seen_only_while_it_is_open_for_writing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = std::fs::File::create(&path).unwrap();
        let id = identity(&file.metadata().unwrap());
        assert!(open_for_writing().unwrap().contains(&id));
        drop(file);
        let reader = std::fs::File::open(&path).unwrap();
        assert!(!open_for_writing().unwrap().contains(&id));
        drop(reader);
        let both = std::fs::OpenOptions::new().read(true).append(true).open(&path).unwrap();
        assert!(open_for_writing().unwrap().contains(&id));
        drop(both);
    }
}
