//! What apt and dpkg print, read into types. Pure; a line that does not read is passed over where it is one among
//! messages, and is an error of the caller where it was asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::super::packages::{Build, InstalledPackage, InstalledPackages, Standing};

/// The format that [`installed`] reads, for `dpkg-query -W -f`.
pub(super) const INSTALLED_FORMAT: &str = "pkg\\t${Package}\\t${Architecture}\\t${Version}\\t${db:Status-Want}\\t${db:Status-Eflag}\\t${db:Status-Status}\\n";

/// A package's name as apt writes it: qualified where it is of another architecture.
pub(super) fn qualified(name: &str, architecture: &str, native: &str) -> String {
    if architecture == "all" || architecture == native {
        name.to_owned()
    } else {
        format!("{name}:{architecture}")
    }
}

/// Packages that the database knows in any state but "not installed".
pub(super) fn installed(text: &str, native: &str) -> InstalledPackages {
    let mut packages = InstalledPackages::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let ["pkg", name, architecture, version, want, error, status] = fields.as_slice() else { continue };
        let standing = match (*error, *status) {
            (_, "not-installed") => continue,
            ("ok", "installed") => Standing::Installed,
            ("ok", "config-files") => Standing::Removed,
            ("ok", word) => Standing::Unfinished(word.to_owned()),
            (error, word) => Standing::Unfinished(format!("{word}, {error}")),
        };
        let name = qualified(name, architecture, native);
        let build = Build {
            name: name.clone(),
            version: (*version).to_owned(),
            architecture: (*architecture).to_owned(),
        };
        packages.insert(name, InstalledPackage { build, standing, held: *want == "hold" });
    }
    packages
}

/// What a simulation would do to one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Simulated {
    /// Its name.
    pub(super) name: String,
    /// The new build; none when it is removed.
    pub(super) to: Option<(String, String)>,
}

/// `Inst name [old] (new archive [architecture])` and `Remv name [old]` of `apt-get -s`.
pub(super) fn simulation(text: &str) -> Vec<Simulated> {
    let mut found: Vec<Simulated> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let simulated = match (words.next(), words.next()) {
            (Some("Remv" | "Purg"), Some(name)) => Simulated { name: name.to_owned(), to: None },
            (Some("Inst"), Some(name)) => {
                let Some((inner, _)) = line.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'))
                else {
                    continue;
                };
                let version = inner.split_whitespace().next().unwrap_or_default();
                let architecture = inner
                    .rsplit_once('[')
                    .and_then(|(_, rest)| rest.split_once(']'))
                    .map_or("", |(architecture, _)| architecture);
                if version.is_empty() || architecture.is_empty() {
                    continue;
                }
                let to = Some((version.to_owned(), architecture.to_owned()));
                Simulated { name: name.to_owned(), to }
            }
            _ => continue,
        };
        found.retain(|other| other.name != simulated.name);
        found.push(simulated);
    }
    found
}

/// Who publishes an archive, and as what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Release {
    /// `Origin` of its signed index.
    pub(super) origin: String,
    /// Is it one of security updates?
    pub(super) security: bool,
}

/// The archives of `apt-cache policy` without names, by the words that stand for each in version tables.
pub(super) fn releases(text: &str) -> BTreeMap<String, Release> {
    let mut releases = BTreeMap::new();
    let mut archive = None;
    for line in text.lines() {
        let line = line.trim_start();
        if let Some(fields) = line.strip_prefix("release ") {
            let Some(archive) = archive.take() else { continue };
            // Values may hold commas ("o=A, B"): a new field begins with a letter and an equals sign.
            let mut release = Release::default();
            let mut key = "";
            for part in fields.split(',') {
                match part.split_once('=').filter(|(key, _)| key.len() == 1) {
                    Some((found, value)) => {
                        key = found;
                        match key {
                            "o" => value.clone_into(&mut release.origin),
                            "a" | "n" => release.security |= value.ends_with("-security"),
                            "l" => release.security |= value.ends_with("-Security"),
                            _ => {}
                        }
                    }
                    None if key == "o" => {
                        release.origin.push(',');
                        release.origin.push_str(part);
                    }
                    None => {}
                }
            }
            releases.insert(archive, release);
        } else if let Some((priority, rest)) = line.split_once(' ')
            && priority.parse::<i32>().is_ok()
        {
            archive = Some(rest.trim().to_owned());
        }
    }
    releases
}

/// From name and version to the archives that have it, of `apt-cache policy NAME…`.
pub(super) fn archives(text: &str) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut found: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let (mut name, mut version, mut in_table) = (String::new(), String::new(), false);
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if indent == 0 {
            in_table = false;
            trimmed.trim_end_matches(':').clone_into(&mut name);
            continue;
        }
        if trimmed.starts_with("Version table:") {
            in_table = true;
            continue;
        }
        if !in_table {
            continue;
        }
        let words = trimmed.strip_prefix("*** ").unwrap_or(trimmed);
        // Versions stand at column 5, archives at column 8 or further in (priorities are right-aligned to four).
        let is_version = indent <= 5 && !words.starts_with('-') || trimmed.starts_with("*** ");
        match words.split_once(' ') {
            Some((first, _)) if is_version => first.clone_into(&mut version),
            Some((priority, archive)) if priority.parse::<i32>().is_ok() => {
                let archive = archive.trim().to_owned();
                found.entry((name.clone(), version.clone())).or_default().insert(archive);
            }
            _ => {}
        }
    }
    found
}

/// Size of the archive and of what it installs, in bytes, of `apt-cache show`, by name and version.
pub(super) fn sizes(text: &str) -> BTreeMap<(String, String), (u64, u64)> {
    let mut found = BTreeMap::new();
    for stanza in text.split("\n\n") {
        let field = |key: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim)
        };
        let (Some(name), Some(version)) = (field("Package"), field("Version")) else { continue };
        let number = |key| field(key).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
        // Installed-Size is in KiB (deb-control(5)).
        let sizes = (number("Size"), number("Installed-Size").saturating_mul(1024));
        found.insert((name.to_owned(), version.to_owned()), sizes);
    }
    found
}

/// What `apt-cache show` says of the source where it is another than the package itself, by name and version.
pub(super) fn sources(text: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for stanza in text.split("\n\n") {
        let field = |key: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim)
        };
        if let (Some(name), Some(version), Some(source)) =
            (field("Package"), field("Version"), field("Source"))
        {
            found.insert((name.to_owned(), version.to_owned()), source.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_packages_are_told_apart() {
        let text = "pkg\tfw\tamd64\t1.0\thold\tok\tinstalled\n\
                    pkg\tgone\tall\t2\tdeinstall\tok\tconfig-files\n\
                    pkg\tlib\ti386\t1:3-1\tinstall\tok\thalf-configured\n\
                    pkg\tbad\tamd64\t1\tinstall\treinstreq\thalf-installed\n\
                    pkg\tnever\tamd64\t\tunknown\tok\tnot-installed\n\
                    dpkg-query: warning: something\n";
        let found = installed(text, "amd64");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["bad", "fw", "gone", "lib:i386"]);
        assert!(found["fw"].held && found["fw"].standing == Standing::Installed);
        assert_eq!(found["gone"].standing, Standing::Removed);
        assert_eq!(found["lib:i386"].standing, Standing::Unfinished("half-configured".into()));
        assert_eq!(found["bad"].standing, Standing::Unfinished("half-installed, reinstreq".into()));
    }

    #[test]
    fn simulations_are_read_with_all_that_stands_in_a_line() {
        let text = "NOTE: This is only a simulation!\n\
            Inst libssl3 [3.0.9-1] (3.0.11-1~deb12u2 Debian:12.4/stable, Debian-Security:12/stable-security [amd64]) []\n\
            Inst fw (1:1.1 local-deb [all])\n\
            Remv old [1.0] [fw:amd64 ]\n\
            Conf fw (1:1.1 local-deb [all])\n";
        let one = |name: &str, to: Option<(&str, &str)>| Simulated {
            name: name.into(),
            to: to.map(|(version, arch)| (version.into(), arch.into())),
        };
        assert_eq!(
            simulation(text),
            [
                one("libssl3", Some(("3.0.11-1~deb12u2", "amd64"))),
                one("fw", Some(("1:1.1", "all"))),
                one("old", None)
            ]
        );
    }

    #[test]
    fn origins_come_from_the_signed_index_of_the_archive() {
        let all = "Package files:\n 100 /var/lib/dpkg/status\n     release a=now\n \
            500 http://security.debian.org/debian-security bookworm-security/main amd64 Packages\n     \
            release v=12,o=Debian,a=stable-security,n=bookworm-security,l=Debian-Security,c=main,b=amd64\n     \
            origin security.debian.org\n 500 file:/srv/ar ./ Packages\n     release o=Lab, Inc.,a=stable,n=lab,l=LabLabel,c=\n\
            Pinned packages:\n";
        let releases = releases(all);
        let security = "http://security.debian.org/debian-security bookworm-security/main amd64 Packages";
        assert_eq!(releases[security], Release { origin: "Debian".into(), security: true });
        assert_eq!(
            releases["file:/srv/ar ./ Packages"],
            Release { origin: "Lab, Inc.".into(), security: false }
        );
        let one = "fw:\n  Installed: 1.0\n  Candidate: 1.4\n  Version table:\n     1.4 500\n        500 file:/srv/ar ./ Packages\n \
            *** 1.0 100\n        100 /var/lib/dpkg/status\n     0.9 -10\n        -10 file:/srv/ar ./ Packages\nlib:i386:\n  Installed: (none)\n  \
            Candidate: 2\n  Version table:\n     2 500\n        500 file:/srv/ar ./ Packages\n";
        let found = archives(one);
        let at = |name: &str, version: &str| {
            found.get(&(name.to_owned(), version.to_owned())).cloned().unwrap_or_default()
        };
        assert!(at("fw", "1.4").contains("file:/srv/ar ./ Packages"));
        assert_eq!(at("fw", "1.0").into_iter().collect::<Vec<_>>(), ["/var/lib/dpkg/status"]);
        assert!(at("fw", "0.9").contains("file:/srv/ar ./ Packages"));
        assert!(at("lib:i386", "2").contains("file:/srv/ar ./ Packages"));
    }

    #[test]
    fn sizes_are_in_bytes() {
        let text = "Package: fw\nVersion: 1.1\nInstalled-Size: 12\nSize: 848\nDescription: x\n Size: 9\n\nPackage: lib\nVersion: 2\n";
        let found = sizes(text);
        assert_eq!(found[&("fw".to_owned(), "1.1".to_owned())], (848, 12 * 1024));
        assert_eq!(found[&("lib".to_owned(), "2".to_owned())], (0, 0));
    }
}
