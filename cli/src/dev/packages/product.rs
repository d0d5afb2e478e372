//! The stand-in of the firewall as a package: what is in each version. Pure.
//!
//! The first version is what lies in a freshly laid out root ([`super::super::firewall`]); the others say what is different
//! in them (`deploy/dev/packages`). Data of a node, such as its licence and signatures, is of no package.

use std::collections::BTreeMap;

use super::super::embedded::{Embedded, FIREWALL, RELEASES};
use super::super::firewall::{INSTALLED, of_no_node};

/// The package's name.
pub const NAME: &str = "zehrasec";
/// Who publishes it: one of the origins that a node's policy knows without being told.
pub const ORIGIN: &str = "ZehraSec";
/// The version that works.
pub const GOOD: &str = "1.1";
/// The version whose daemon starts and never becomes ready.
pub const BROKEN: &str = "1.2";
/// Where a package has its files; all else in a root is the node's own.
const PACKAGED: [&str; 3] = ["etc/", "usr/lib/", "usr/local/"];
/// Below it lie files that an administrator may change.
const CONFIGURATION: &str = "etc/";

/// One version of the package.
#[derive(Debug, Clone)]
pub struct Product {
    /// The package's name: [`NAME`], but where a story makes another product of the same files.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Its script after unpacking, where it has one; `$DPKG_ROOT` is the root that it works on.
    pub postinst: Option<String>,
    files: BTreeMap<&'static str, Embedded>,
}

/// All versions that were published, the oldest first. Each has the changes of those before it.
pub fn releases() -> Vec<Product> {
    let in_package = |file: &&Embedded| PACKAGED.iter().any(|folder| file.path.starts_with(folder));
    let mut files: BTreeMap<_, _> =
        FIREWALL.iter().filter(in_package).map(|file| (file.path, *file)).collect();
    let mut releases =
        vec![Product { name: NAME, version: INSTALLED.to_owned(), postinst: None, files: files.clone() }];
    for (version, changed) in RELEASES {
        files.extend(changed.iter().map(|file| (file.path, *file)));
        releases.push(Product {
            name: NAME,
            version: (*version).to_owned(),
            postinst: None,
            files: files.clone(),
        });
    }
    releases
}

impl Product {
    /// The same files as another version.
    #[must_use]
    pub fn renamed(&self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self.clone() }
    }

    /// The same with a file more, or with another in its place.
    #[must_use]
    pub fn with(mut self, file: Embedded) -> Self {
        self.files.insert(file.path, file);
        self
    }

    /// The same with a file at another place.
    #[must_use]
    pub fn with_moved(mut self, from: &str, to: &'static str) -> Self {
        if let Some(file) = self.files.remove(from) {
            self.files.insert(to, Embedded { path: to, ..file });
        }
        self
    }

    /// The name of its archive's file.
    pub fn file_name(&self) -> String {
        format!("{}_{}_all.deb", self.name, self.version)
    }

    /// What a package says of itself (deb-control(5)); also its paragraph in the list of an archive.
    pub fn control(&self) -> String {
        let kib: usize = self.files().map(|(_, _, text)| text.len().div_ceil(1024)).sum();
        format!(
            "Package: {}\n\
             Version: {}\n\
             Architecture: all\n\
             Maintainer: {ORIGIN} stand-in <dev@fleet.invalid>\n\
             Installed-Size: {kib}\n\
             Section: net\n\
             Priority: optional\n\
             Description: stand-in of a firewall, for development fleets\n Real files and daemons that filter nothing.\n",
            self.name, self.version
        )
    }

    /// Its files: where each goes, its permission bits, its text.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, u32, String)> {
        self.files.values().map(|file| (file.path, file.mode, of_no_node(file.text, &self.version)))
    }

    /// The list of its configuration files (deb-conffiles(5)).
    pub fn conffiles(&self) -> String {
        let paths = self.files.keys().filter(|path| path.starts_with(CONFIGURATION));
        paths.flat_map(|path| ["/", path, "\n"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_told_apart_by_its_files_and_none_has_data_of_a_node() {
        let releases = releases();
        let versions: Vec<_> = releases.iter().map(|product| product.version.as_str()).collect();
        assert_eq!(versions, [INSTALLED, GOOD, BROKEN]);
        for product in &releases {
            for (path, mode, text) in product.files() {
                assert!(!path.starts_with("var/") && mode & 0o400 != 0, "{path}");
                for left in ["@NODE@", "@SITE@", "@HA_GROUP@", "@HOST@", "@VERSION@"] {
                    assert!(!text.contains(left), "{path}: {left}");
                }
            }
            let text = |wanted: &str| product.files().find(|(path, ..)| *path == wanted).unwrap().2;
            assert!(text("usr/local/sbin/zehrasec-cli").contains(&format!("version={}\n", product.version)));
            assert!(product.conffiles().contains("/etc/zehrasec/rules.json\n"));
        }
        let rules: Vec<_> = releases
            .iter()
            .map(|product| product.files().find(|(path, ..)| path.ends_with("rules.json")).unwrap().2)
            .collect();
        assert!(rules[0] != rules[1] && rules[1] != rules[2], "each has configuration of its own");
    }
}
