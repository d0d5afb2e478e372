//! Which services still run files that are gone from the disk, replaced by an upgrade: from `/proc/PID/maps`. Reads only.
//!
//! What `needrestart` finds by the same means. Called by `proc_system`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

/// Folders of programs and libraries. What is deleted elsewhere (temporary files, shared memory) was never a package's.
const FOLDERS: [&str; 6] = ["usr/", "bin/", "sbin/", "lib", "opt/", "app/"];
/// Largest list of mappings that is read of one process; large ones have a few hundred kilobytes.
const MAX_MAPS_BYTES: u64 = 4 * 1024 * 1024;
/// What the kernel puts behind the name of a file that has none any more (`proc_pid_maps(5)`).
const DELETED: &str = " (deleted)";

/// The services, else the programs, that run such files below `root`, with the files as the node sees them.
///
/// Processes that may not be looked into are passed over.
pub(super) fn old_files_in_use(root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // A process may end at any point of this; then it runs nothing.
        let Ok(file) = std::fs::File::open(process.path().join("maps")) else { continue };
        let mut maps = Vec::new();
        if file.take(MAX_MAPS_BYTES).read_to_end(&mut maps).is_err() {
            continue;
        }
        let old = old_code(&String::from_utf8_lossy(&maps), root);
        if !old.is_empty() {
            let text = |name: &str| {
                let bytes = std::fs::read(process.path().join(name)).unwrap_or_default();
                // The kernel cuts names after 15 bytes, also within a letter.
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let unit = unit_of(&text("cgroup")).map(str::to_owned);
            found.entry(unit.unwrap_or_else(|| text("comm").trim().to_owned())).or_default().extend(old);
        }
    }
    found.remove("");
    found
}

/// The files of packages that are gone and from which code is mapped.
fn old_code(maps: &str, root: &Path) -> BTreeSet<String> {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        let runs = words.nth(1).is_some_and(|permissions| permissions.contains('x'));
        let path = line.find('/').map(|at| &line[at..]).and_then(|path| path.strip_suffix(DELETED));
        let inside = path.and_then(|path| Path::new(path).strip_prefix(root).ok()?.to_str());
        let inside = inside.filter(|path| runs && FOLDERS.iter().any(|folder| path.starts_with(folder)))?;
        Some(format!("/{inside}"))
    };
    maps.lines().filter_map(of).collect()
}

/// The service of a process (`cgroups(7)`); none of a person's session.
fn unit_of(cgroup: &str) -> Option<&str> {
    let path = cgroup.lines().find_map(|line| {
        line.strip_prefix("0::").or_else(|| line.split_once("name=systemd:").map(|(_, path)| path))
    })?;
    path.split('/').rev().find(|part| part.ends_with(".service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_packages_that_is_gone_counts() {
        let line =
            |permissions: &str, path: &str| format!("7f00-7f01 {permissions} 00000000 fe:01 123  {path}\n");
        let has = |text: String| !old_code(&text, Path::new("/")).is_empty();
        assert!(has(line("r-xp", "/usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)")));
        assert!(has(line("r-xp", "/usr/sbin/fw d (deleted)")));
        assert!(!has(line("r--p", "/usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)")));
        assert!(!has(line("r-xp", "/usr/lib/x86_64-linux-gnu/libssl.so.3")));
        assert!(!has(line("r-xp", "/memfd:jit (deleted)")));
        assert!(!has(line("rwxs", "/dev/zero (deleted)")));
        let rooted = |path: &str| !old_code(&line("r-xp", path), Path::new("/srv/node")).is_empty();
        assert!(rooted("/srv/node/usr/bin/fw (deleted)") && !rooted("/usr/bin/fw (deleted)"));
    }

    #[test]
    fn a_process_is_named_by_its_service() {
        assert_eq!(unit_of("0::/system.slice/ssh.service\n"), Some("ssh.service"));
        assert_eq!(unit_of("1:name=systemd:/system.slice/a.service/b\n"), Some("a.service"));
        assert_eq!(unit_of("0::/user.slice/user-0.slice/session-1.scope\n"), None);
    }

    #[test]
    fn a_program_whose_file_was_replaced_is_found() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("usr/bin")).unwrap();
        let program = root.join("usr/bin/oldprogram");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        assert!(old_files_in_use(&root).is_empty());
        std::fs::remove_file(&program).unwrap();
        let found = old_files_in_use(&root);
        child.kill().unwrap();
        child.wait().unwrap();
        let files: Vec<&BTreeSet<String>> = found.values().collect();
        assert_eq!(files, [&BTreeSet::from(["/usr/bin/oldprogram".to_owned()])]);
    }
}
