//! Whose packages an advisory or an inventory is about. Pure; anyone may call it.

use std::fmt;

use fleet_types::package_version::PackageFormat;
use serde::{Deserialize, Serialize};

/// A distribution in one release: only packages of the same are ever compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// The `ID` of os-release: `debian`, `ubuntu`, `almalinux`.
    pub name: String,
    /// The part of its version that advisories name: `12`, `22.04`, `9`. `sid` for Debian's unstable.
    pub release: String,
}

/// What an origin calls the world that a package lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ecosystem {
    /// Packages of a distribution that nodes can run.
    Packages(Distribution, PackageFormat),
    /// Known, and nothing that a package manager of a node handles: its scores count, it matches no node.
    Elsewhere,
    /// Nothing we know, with the reason.
    Unknown(String),
}

/// Distributions by the name that OSV has for them, and by the one of os-release.
const PACKAGED: &[(&str, &str, PackageFormat)] = &[
    ("Debian", "debian", PackageFormat::Dpkg),
    ("Ubuntu", "ubuntu", PackageFormat::Dpkg),
    ("AlmaLinux", "almalinux", PackageFormat::Rpm),
    ("Rocky Linux", "rocky", PackageFormat::Rpm),
];

/// Ecosystems of OSV whose packages no dpkg and no rpm of ours installs.
const ELSEWHERE: &[&str] = &[
    "Bitnami",
    "Alpine",
    "Android",
    "Bioconductor",
    "Chainguard",
    "ConanCenter",
    "CRAN",
    "crates.io",
    "GHC",
    "GitHub Actions",
    "Go",
    "Hackage",
    "Hex",
    "Linux",
    "Maven",
    "MinimOS",
    "npm",
    "NuGet",
    "OSS-Fuzz",
    "Packagist",
    "Pub",
    "PyPI",
    "RubyGems",
    "SwiftURL",
    "Wolfi",
    "Kubernetes",
    "VSCode",
    "Julia",
    "Echo",
];

/// Releases of Debian, by the name that its tracker has for them.
const DEBIAN: &[(&str, &str)] = &[
    ("sid", "sid"),
    ("forky", "14"),
    ("trixie", "13"),
    ("bookworm", "12"),
    ("bullseye", "11"),
    ("buster", "10"),
    ("stretch", "9"),
    ("jessie", "8"),
    ("wheezy", "7"),
];

impl Distribution {
    /// A release of Debian by its code name.
    pub fn of_debian(code_name: &str) -> Option<Self> {
        let (_, release) = DEBIAN.iter().find(|(name, _)| *name == code_name)?;
        Some(Self { name: "debian".to_owned(), release: (*release).to_owned() })
    }

    /// From `ID` and `VERSION_ID` of a node's os-release. Distributions that follow Red Hat publish by major release.
    pub fn of_node(id: &str, version_id: &str) -> Self {
        let rpm = PACKAGED.iter().any(|(_, name, format)| *name == id && *format == PackageFormat::Rpm);
        let release = match version_id.split_once('.') {
            Some((major, _)) if rpm => major,
            _ if version_id.is_empty() && id == "debian" => "sid",
            _ => version_id,
        };
        Self { name: id.to_owned(), release: release.to_owned() }
    }
}

impl Ecosystem {
    /// Reads the `ecosystem` of an OSV document.
    pub fn read(text: &str) -> Self {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        if ELSEWHERE.contains(&name) {
            return Self::Elsewhere;
        }
        let Some((_, id, format)) = PACKAGED.iter().find(|(osv, _, _)| *osv == name) else {
            return Self::Unknown(format!("ecosystem {text:?} is not known"));
        };
        let rest: Vec<&str> = parts.collect();
        let release = match (*id, rest.as_slice()) {
            // OSV: without a release, an upload to unstable.
            ("debian", []) => "sid",
            // "Pro" is the archive for those who pay: the same packages in newer versions.
            ("debian", [release])
            | ("ubuntu", [release] | [release, "LTS"] | ["Pro", release] | ["Pro", release, "LTS"])
                if is_number(release) =>
            {
                *release
            }
            ("almalinux" | "rocky", [release]) if is_number(release) => {
                release.split_once('.').map_or(*release, |(major, _)| major)
            }
            _ => return Self::Unknown(format!("ecosystem {text:?} names no release that is known")),
        };
        Self::Packages(Distribution { name: (*id).to_owned(), release: release.to_owned() }, *format)
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.len() <= 8
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_and_nodes_mean_the_same_release() {
        for (osv, id, version_id) in [
            ("Debian:12", "debian", "12"),
            ("Debian", "debian", ""),
            ("Ubuntu:22.04:LTS", "ubuntu", "22.04"),
            ("Ubuntu:Pro:14.04:LTS", "ubuntu", "14.04"),
            ("Ubuntu:24.10", "ubuntu", "24.10"),
            ("AlmaLinux:9", "almalinux", "9.4"),
            ("Rocky Linux:8", "rocky", "8.10"),
        ] {
            let Ecosystem::Packages(distribution, _) = Ecosystem::read(osv) else { panic!("{osv}") };
            assert_eq!(distribution, Distribution::of_node(id, version_id), "{osv}");
        }
        assert_eq!(Ecosystem::read("Bitnami"), Ecosystem::Elsewhere);
        for unknown in ["", "Debian:", "Debian:bookworm", "Ubuntu:Pro:FIPS:22.04:LTS", "Gentoo", "AlmaLinux"]
        {
            assert!(matches!(Ecosystem::read(unknown), Ecosystem::Unknown(_)), "{unknown}");
        }
        assert_eq!(Distribution::of_debian("bookworm"), Some(Distribution::of_node("debian", "12")));
        assert_eq!(Distribution::of_debian("potato"), None);
    }
}
