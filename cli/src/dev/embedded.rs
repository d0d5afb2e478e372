//! Files that `fleetctl dev` brings along, so that it needs no checkout: the documents of the development
//! fleet and the small firewall installation of a node. Tests compare them with the folders they come from.
//!
//! Read by [`super::firewall`] and [`super::run()`]; must never be changed at run time.

use std::path::{Path, PathBuf};

/// A file with its place below the folder it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Where it goes, relative.
    pub path: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Its text.
    pub text: &'static str,
}

macro_rules! files {
    ($base:literal: $($mode:literal $path:literal,)*) => {
        &[$(Embedded { path: $path, mode: $mode, text: include_str!(concat!("../../../deploy/", $base, "/", $path)) }),*]
    };
}

/// Documents: `deploy/profiles/dev`.
const DOCUMENTS: &[Embedded] = files! { "profiles/dev":
    0o644 "profile.toml",
    0o644 "procedures/daily-checks.toml",
    0o644 "procedures/lock-out.toml",
    0o644 "procedures/update.toml",
    0o644 "rollout-policy.toml",
    0o644 "schedules.toml",
};

/// More documents: `deploy/dev/documents`, which stand in for what systemd does at boot.
const BOOT_DOCUMENTS: &[Embedded] = files! { "dev/documents":
    0o644 "profile.toml",
    0o644 "start-services.toml",
};

/// The root of a node: `deploy/dev/root`. `@NODE@`, `@SITE@`, `@HA_GROUP@`, `@HOST@` and `@VERSION@` are filled in.
pub const FIREWALL: &[Embedded] = files! { "dev/root":
    0o640 "etc/zehrasec/firewall.json",
    0o640 "etc/zehrasec/rules.json",
    0o755 "etc/zehrasec/scripts/blocklist.py",
    0o755 "etc/zehrasec/scripts/top_talkers.py",
    0o644 "usr/lib/systemd/system/zehrasec-firewall.service",
    0o644 "usr/lib/systemd/system/zehrasec-web.service",
    0o755 "usr/local/sbin/zehrasec-cli",
    0o755 "usr/local/sbin/zehrasec-firewalld",
    0o755 "usr/local/sbin/zehrasec-webd",
    0o755 "usr/sbin/nft",
    0o644 "var/lib/zehrasec/config/licence.txt",
    0o644 "var/lib/zehrasec/config/objects.json",
    0o644 "var/lib/zehrasec/events.db",
    0o644 "var/lib/zehrasec/signatures/signatures-base.sig",
};

/// Later versions of what lies in a root, each with the files that are different in it: `deploy/dev/packages`.
pub const RELEASES: &[(&str, &[Embedded])] = &[
    (
        "1.1",
        files! { "dev/packages/1.1":
            0o640 "etc/zehrasec/rules.json",
        },
    ),
    (
        "1.2",
        files! { "dev/packages/1.2":
            0o640 "etc/zehrasec/rules.json",
            0o755 "usr/local/sbin/zehrasec-firewalld",
        },
    ),
];

/// All documents: where each goes below their folder, and its text.
pub fn documents() -> impl Iterator<Item = (PathBuf, &'static str)> {
    let in_folder = |folder: &'static str, files: &'static [Embedded]| {
        files.iter().map(move |file| (Path::new(folder).join(file.path), file.text))
    };
    in_folder("", DOCUMENTS).chain(in_folder("boot", BOOT_DOCUMENTS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn below(folder: &Path) -> BTreeSet<String> {
        let mut open = vec![folder.to_owned()];
        let mut found = BTreeSet::new();
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
        found
    }

    #[test]
    fn nothing_of_the_folders_is_left_out() {
        let deploy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        for (folder, files) in
            [("profiles/dev", DOCUMENTS), ("dev/documents", BOOT_DOCUMENTS), ("dev/root", FIREWALL)]
        {
            let embedded: BTreeSet<_> = files.iter().map(|file| file.path.to_owned()).collect();
            assert_eq!(below(&deploy.join(folder)), embedded, "{folder}");
        }
        let releases: BTreeSet<_> = RELEASES
            .iter()
            .flat_map(|(version, files)| files.iter().map(move |file| format!("{version}/{}", file.path)))
            .collect();
        assert_eq!(below(&deploy.join("dev/packages")), releases);
    }
}
