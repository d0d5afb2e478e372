//! What the database's own files say of installed packages, without a program: the list that goes to the controller, and
//! whose a file is.
//!
//! dpkg writes them anew and puts them in place, so that they are whole at any instant (`dpkg(1)`, FILES). Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fleet_types::packages::Package;

use super::super::files::{Files, read_all};
use super::super::packages::{PackageError, PackageFault, PackageResult};
use super::database::{MAX_STATUS_BYTES, STATUS};

/// Where the lists of packages' files are.
const INFO: &str = "/var/lib/dpkg/info";
/// Largest list of files; that of kernel headers has 2 MiB.
const MAX_FILES_BYTES: u64 = 32 * 1024 * 1024;

/// The packages of which files are on the node, also those whose installation did not end.
pub(super) fn listed(files: &dyn Files) -> PackageResult<Vec<Package>> {
    let bytes = read_all(files, Path::new(STATUS), MAX_STATUS_BYTES)
        .map_err(|error| PackageError::new(PackageFault::Other, error.to_string()))?;
    Ok(packages(&String::from_utf8_lossy(&bytes)))
}

fn packages(status: &str) -> Vec<Package> {
    let of = |stanza: &str| {
        let field = |key: &str| {
            let value = stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            Some(value.trim().to_owned())
        };
        let (name, version) = (field("Package")?, field("Version")?);
        let state = field("Status")?;
        if matches!(state.split_whitespace().nth(2), None | Some("not-installed" | "config-files")) {
            return None;
        }
        let (source, source_version) = source(field("Source"), &name, &version);
        let architecture = field("Architecture").unwrap_or_default();
        Some(Package { source, source_version, name, version, architecture })
    };
    status.split("\n\n").filter_map(of).collect()
}

/// Source package and version: `deb-control(5)` names them where they are others than the package's own.
pub(super) fn source(field: Option<String>, name: &str, version: &str) -> (String, String) {
    let field = field.unwrap_or_else(|| name.to_owned());
    match field.split_once(" (").and_then(|(name, rest)| Some((name, rest.strip_suffix(')')?))) {
        Some((name, version)) => (name.to_owned(), version.to_owned()),
        None => (field, version.to_owned()),
    }
}

/// The packages that these files belong to. A file that none has is not in the answer.
pub(super) fn owners(files: &dyn Files, paths: &BTreeSet<String>) -> BTreeMap<String, String> {
    // dpkg may have noted a file under `/lib` that is seen under `/usr/lib`.
    let plain = |path: &str| path.strip_prefix("/usr").unwrap_or(path).to_owned();
    let wanted: BTreeMap<String, &String> = paths.iter().map(|path| (plain(path), path)).collect();
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return found;
    }
    for entry in files.list(Path::new(INFO)).unwrap_or_default() {
        let name = entry.path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| name.strip_suffix(".list")) else { continue };
        // One that goes while it is read belongs to a package that goes.
        let Ok(bytes) = read_all(files, &entry.path, MAX_FILES_BYTES) else { continue };
        let package = name.split(':').next().unwrap_or(name);
        for line in String::from_utf8_lossy(&bytes).lines() {
            if let Some(path) = wanted.get(&plain(line)) {
                found.insert((*path).clone(), package.to_owned());
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
    fn what_is_on_the_node_is_listed_with_its_source() {
        let status = "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl (3.0.9-1)\nVersion: 3.0.9-1+b1\n\
            Description: x\n Version: 9\n\nPackage: fw\nStatus: hold ok half-configured\nArchitecture: all\nVersion: 1:2-1\n\n\
            Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\nPackage: never\nStatus: unknown ok not-installed\n\n\
            Package: lib\nStatus: install ok installed\nSource: libs\nVersion: 2\nArchitecture: i386\n";
        let told: Vec<String> = packages(status)
            .into_iter()
            .map(|p| {
                format!("{} {} of {} {} {}", p.name, p.version, p.source, p.source_version, p.architecture)
            })
            .collect();
        assert_eq!(
            told,
            [
                "libssl3 3.0.9-1+b1 of openssl 3.0.9-1 amd64",
                "fw 1:2-1 of fw 1:2-1 all",
                "lib 2 of libs 2 i386"
            ]
        );
    }

    #[test]
    fn a_file_is_known_by_its_package_wherever_it_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let info = root.path().join("var/lib/dpkg/info");
        std::fs::create_dir_all(&info).unwrap();
        std::fs::write(info.join("libssl3:amd64.list"), "/.\n/lib/x86_64/libssl.so.3\n").unwrap();
        std::fs::write(info.join("fw.list"), "/usr/sbin/fw\n").unwrap();
        std::fs::write(info.join("fw.postinst"), "/usr/bin/other\n").unwrap();
        let files = LinuxFiles::open(root.path()).unwrap();
        let paths = ["/usr/lib/x86_64/libssl.so.3", "/usr/sbin/fw", "/usr/bin/other"].map(str::to_owned);
        let found = owners(&files, &paths.into());
        let found: Vec<(&str, &str)> = found.iter().map(|(path, of)| (path.as_str(), of.as_str())).collect();
        assert_eq!(found, [("/usr/lib/x86_64/libssl.so.3", "libssl3"), ("/usr/sbin/fw", "fw")]);
    }
}
