//! A look at dpkg's database without a program: is it consistent? For decisions that may not wait.
//!
//! It reads the database's own files (`deb-status`, `dpkg(1)`): states of packages, and updates that an interrupted dpkg
//! did not merge. It decides nothing.

use std::path::Path;

use super::super::files::{FileProblem, Files, read_all};

/// Where the states of packages are.
pub(super) const STATUS: &str = "/var/lib/dpkg/status";
/// Where a running dpkg notes changes before it merges them.
const UPDATES: &str = "/var/lib/dpkg/updates";
/// Largest database that is read; that of a node with 5,000 packages has 10 MiB.
pub(super) const MAX_STATUS_BYTES: u64 = 64 * 1024 * 1024;
/// Most packages that are named.
const MAX_NAMED: usize = 5;

/// Why the database is not consistent; none when it is, or when there is none.
pub(super) fn damage(files: &dyn Files) -> Option<String> {
    let bytes = match read_all(files, Path::new(STATUS), MAX_STATUS_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.problem == FileProblem::NotFound => return None,
        Err(error) => return Some(error.to_string()),
    };
    let unfinished = unfinished(&String::from_utf8_lossy(&bytes));
    if !unfinished.is_empty() {
        let more = unfinished.len().saturating_sub(MAX_NAMED);
        let named: Vec<_> = unfinished.into_iter().take(MAX_NAMED).collect();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Some(format!("{}{more}", named.join(", ")));
    }
    let updates = files.list(Path::new(UPDATES)).unwrap_or_default();
    let is_update = |name: Option<&str>| name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let open = updates.iter().any(|entry| is_update(entry.path.file_name().and_then(|name| name.to_str())));
    open.then(|| "dpkg was interrupted, or works at this moment".to_owned())
}

/// Packages whose installation did not end, with their state.
fn unfinished(status: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut name = "";
    for line in status.lines() {
        if let Some(value) = line.strip_prefix("Package: ") {
            name = value.trim();
        } else if let Some(value) = line.strip_prefix("Status: ") {
            let mut words = value.split_whitespace().skip(1);
            let state = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if !matches!(state, ("ok", "installed" | "config-files" | "not-installed")) {
                found.push(format!("{name} is {}", state.1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::linux_files::LinuxFiles;

    #[test]
    fn what_did_not_end_is_named_and_a_clean_database_is_clean() {
        let root = tempfile::tempdir().unwrap();
        let files = LinuxFiles::open(root.path()).unwrap();
        assert_eq!(damage(&files), None, "no database, no damage");
        std::fs::create_dir_all(root.path().join("var/lib/dpkg/updates")).unwrap();
        let write = |status: &str| {
            let text = format!(
                "Package: fw\nStatus: {status}\nVersion: 1\n\nPackage: lib\nStatus: hold ok installed\n"
            );
            std::fs::write(root.path().join("var/lib/dpkg/status"), text).unwrap();
            damage(&files)
        };
        assert_eq!(write("install ok installed"), None);
        assert_eq!(write("deinstall ok config-files"), None);
        assert_eq!(write("install ok half-configured").unwrap(), "fw is half-configured");
        assert_eq!(write("install reinstreq half-installed").unwrap(), "fw is half-installed");
        assert_eq!(write("install ok triggers-pending").unwrap(), "fw is triggers-pending");
        assert_eq!(write("install ok installed"), None);
        std::fs::write(root.path().join("var/lib/dpkg/updates/0001"), "").unwrap();
        assert!(damage(&files).unwrap().contains("interrupted"));
    }
}
