//! What still runs of a sandbox: processes whose command line names its folder. Reads `/proc`, signals nothing.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Result;

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
