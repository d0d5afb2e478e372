//! Which files are open for writing, from `/proc/PID/fd` and `fdinfo`. Reads only. Called by `linux_files`.

use std::collections::BTreeSet;
use std::path::Path;

use super::files::FileError;
use super::linux_files::identity;

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
            let Ok(metadata) = std::fs::metadata(descriptor.path()) else { continue };
            if !metadata.is_file() {
                continue;
            }
            let info = process.path().join("fdinfo").join(descriptor.file_name());
            if std::fs::read_to_string(info).is_ok_and(|text| is_writing(&text)) {
                open.insert(identity(&metadata));
            }
        }
    }
    Ok(open)
}

/// proc(5): `flags:` holds the file's flags in octal; the lowest two bits are the access mode.
fn is_writing(info: &str) -> bool {
    info.lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| u64::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & 0o3 != 0)
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
    }

    #[test]
    fn flags_of_fdinfo() {
        assert!(is_writing("pos:\t0\nflags:\t0100001\n"));
        assert!(is_writing("pos:\t0\nflags:\t02100002\n"));
        assert!(!is_writing("pos:\t0\nflags:\t0100000\n"));
        assert!(!is_writing("nothing"));
    }
}
