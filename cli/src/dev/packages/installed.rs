//! What of a node's packages can be compared before and after work on them: dpkg's database, files, daemons.
//!
//! Looks at the root itself and asks no program, so that it says the same whatever an agent claims. Never changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fleet_types::digest::Digest;

use super::super::process::ProcessMark;
use super::product::NAME;

/// Where packages put files on a development node.
const FOLDERS: [&str; 2] = ["etc/zehrasec", "usr"];
/// dpkg's database (deb-status).
const STATUS: &str = "var/lib/dpkg/status";
/// Where daemons write their process numbers.
const RUN: &str = "run/zehrasec";

/// A look at a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The database, byte for byte.
    pub status: String,
    /// Every file with its permission bits and digest; what an upgrade leaves lying beside one is among them.
    pub files: BTreeMap<String, String>,
    /// The daemons that run.
    pub daemons: BTreeSet<String>,
}

impl Installed {
    /// Looks.
    pub fn look(root: &Path) -> io::Result<Self> {
        let status = fs::read_to_string(root.join(STATUS))?;
        let mut files = BTreeMap::new();
        for folder in FOLDERS {
            collect(root, &root.join(folder), &mut files)?;
        }
        Ok(Self { status, files, daemons: daemons(&root.join(RUN))? })
    }

    /// The version of the firewall, where it is installed and configured.
    pub fn version(&self) -> Option<&str> {
        let package = format!("Package: {NAME}");
        let paragraph = self.status.split("\n\n").find(|text| text.lines().any(|line| line == package))?;
        let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name));
        field("Status: ").filter(|status| status.ends_with(" ok installed")).and_then(|_| field("Version: "))
    }

    /// What is different in `other`, in words; nothing when all is the same.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.status != other.status {
            let version = |of: &Self| of.version().unwrap_or("not whole").to_owned();
            found.push(format!("the database of packages: {NAME} {} -> {}", version(self), version(other)));
        }
        let paths: BTreeSet<_> = self.files.keys().chain(other.files.keys()).collect();
        let differs = |path: &&&String| self.files.get(**path) != other.files.get(**path);
        found.extend(paths.iter().filter(differs).map(|path| format!("the file {path}")));
        found.extend(
            self.daemons.symmetric_difference(&other.daemons).map(|name| format!("the daemon {name}")),
        );
        found
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = fs::symlink_metadata(&path)?;
        if kind.is_dir() {
            collect(root, &path, files)?;
            continue;
        }
        let content = if kind.is_symlink() {
            fs::read_link(&path)?.into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path)?
        };
        let seen = format!("{:o} {}", kind.permissions().mode() & 0o7777, Digest::of(&content));
        let shown = path.strip_prefix(root).unwrap_or(&path);
        files.insert(format!("/{}", shown.display()), seen);
    }
    Ok(())
}

fn daemons(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut running = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let number = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        if number.and_then(ProcessMark::of).is_some_and(|mark| mark.is_alive()) {
            running.insert(name);
        }
    }
    Ok(running)
}
