//! What is on a node. Pure; made from what nodes report, asked by the matching.
//!
//! The packages are one value, kept once for all nodes that have the same; what differs from node to node with the
//! same packages stands beside it. Must never: be trusted; it is what a node says of itself.

use fleet_types::digest::Digest;
use fleet_types::package_version::{PackageFormat, VersionProblem};
pub use fleet_types::packages::{Available, MAX_PACKAGES, NodeState, OldFiles, Package, PackageList};
use serde::{Deserialize, Serialize};

use crate::advisory::Distribution;

/// The packages of a node: equal ones are one value with one digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    format: PackageFormat,
    distribution: Distribution,
    /// Sorted by source, source version, name, architecture.
    packages: Vec<Package>,
}

/// Why a report of packages is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryProblem {
    /// More than [`MAX_PACKAGES`].
    #[error("the node reports {0} packages; at most {MAX_PACKAGES} are kept")]
    TooMany(usize),
    /// A version that its package manager does not take.
    #[error("package {name:?}: version {version:?}: {problem}")]
    Version {
        /// The package.
        name: String,
        /// Its version.
        version: String,
        /// What is wrong with it.
        problem: VersionProblem,
    },
    /// One that is there twice, in the same version and architecture.
    #[error("package {0:?} is reported twice")]
    Twice(String),
}

impl Inventory {
    /// From what a node reports.
    pub fn of_list(list: PackageList) -> Result<Self, InventoryProblem> {
        let PackageList { format, os, os_version, packages } = list;
        Self::new(format, Distribution::of_node(&os, &os_version), packages)
    }

    /// Checks, puts in order and joins what a node reports, so that equal packages make an equal digest.
    pub fn new(
        format: PackageFormat,
        distribution: Distribution,
        mut packages: Vec<Package>,
    ) -> Result<Self, InventoryProblem> {
        if packages.len() > MAX_PACKAGES {
            return Err(InventoryProblem::TooMany(packages.len()));
        }
        for package in &packages {
            for version in [&package.version, &package.source_version] {
                format.check(version).map_err(|problem| InventoryProblem::Version {
                    name: package.name.clone(),
                    version: version.clone(),
                    problem,
                })?;
            }
        }
        packages.sort();
        match packages.windows(2).find(|two| two[0] == two[1]) {
            Some(two) => Err(InventoryProblem::Twice(two[0].name.clone())),
            None => Ok(Self { format, distribution, packages }),
        }
    }

    /// The package manager.
    pub const fn format(&self) -> PackageFormat {
        self.format
    }

    /// The distribution and its release.
    pub const fn distribution(&self) -> &Distribution {
        &self.distribution
    }

    /// The packages, in order.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// What it is kept under.
    pub fn digest(&self) -> Digest {
        let Distribution { name, release } = &self.distribution;
        let mut parts = vec![self.format.as_str(), name, release];
        for Package { source, source_version, name, version, architecture } in &self.packages {
            parts.extend([source.as_str(), source_version, name, version, architecture]);
        }
        // A byte that no name and no version has keeps the parts apart.
        Digest::of(parts.join("\u{1f}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            source: name.to_owned(),
            source_version: version.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
        }
    }

    fn inventory(packages: Vec<Package>) -> Result<Inventory, InventoryProblem> {
        Inventory::new(PackageFormat::Dpkg, Distribution::of_node("debian", "12"), packages)
    }

    #[test]
    fn equal_packages_are_one_value_in_whatever_order_they_come() {
        let (a, b) = (package("a", "1"), package("b", "2"));
        let one = inventory(vec![a.clone(), b.clone()]).unwrap();
        assert_eq!(one.digest(), inventory(vec![b.clone(), a.clone()]).unwrap().digest());
        assert_ne!(one.digest(), inventory(vec![a.clone()]).unwrap().digest());
        assert_eq!(inventory(vec![a.clone(), b, a]), Err(InventoryProblem::Twice("a".to_owned())));
        let told = inventory(vec![package("a", "x1")]).unwrap_err().to_string();
        assert_eq!(told, "package \"a\": version \"x1\": the version does not start with a digit");
    }
}
