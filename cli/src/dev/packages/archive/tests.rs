//! The archive with the real dpkg and gpg: what nodes get is what a real installation would have left.

use std::process::Command;

use super::super::super::firewall::lay_out;
use super::super::super::node_spec::nodes;
use super::super::installed::Installed;
use super::super::product::{GOOD, NAME, releases};
use super::super::programs::missing;
use super::*;

fn now() -> Timestamp {
    Timestamp::clamped(1_767_600_000_000)
}

fn made(folder: &Path) -> Archive {
    assert_eq!(missing(), Vec::<&str>::new(), "tests/run.sh installs them");
    let caller = Caller::new(&folder.join("log"));
    Archive::make(folder, &releases(), now(), &caller).unwrap()
}

fn dpkg(root: &Path, arguments: &[&str]) -> String {
    let mut command = Caller::command("dpkg");
    command.arg(format!("--root={}", root.display())).args(["--force-not-root", "--force-confold"]);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_laid_out_root_becomes_one_that_dpkg_finds_whole() {
    let folder = tempfile::tempdir().unwrap();
    let archive = made(folder.path());
    let root = folder.path().join("root");
    lay_out(&root, &nodes(6)[0], now()).unwrap();
    archive.install(&root).unwrap();
    let look = Installed::look(&root).unwrap();
    assert_eq!(look.version(), Some("1.0"));
    assert_eq!(dpkg(&root, &["--audit"]), "");
    // Every file is there as the package brought it, but for the one that is of the node.
    let verified = dpkg(&root, &["--verify", NAME]);
    assert_eq!(verified.lines().count(), 1, "{verified}");
    assert!(verified.contains("c /etc/zehrasec/firewall.json"), "{verified}");
    // The next version comes in as on any system: changed configuration stays, the other follows the package.
    let own = fs::read(root.join("etc/zehrasec/firewall.json")).unwrap();
    let next = archive.packages().join(format!("{NAME}_{GOOD}_all.deb"));
    dpkg(&root, &["--force-script-chrootless", "--log=/dev/null", "-i", next.to_str().unwrap()]);
    let after = Installed::look(&root).unwrap();
    assert_eq!(after.version(), Some(GOOD));
    assert_eq!(fs::read(root.join("etc/zehrasec/firewall.json")).unwrap(), own);
    let differences = look.differences(&after);
    assert!(differences.contains(&"the file /etc/zehrasec/rules.json".to_owned()), "{differences:?}");
    assert!(!differences.contains(&"the file /etc/zehrasec/firewall.json".to_owned()), "{differences:?}");
    assert_eq!(look.differences(&look), Vec::<String>::new());
}

#[test]
fn the_archive_is_signed_by_the_key_that_nodes_trust_and_the_key_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Archive::open(folder.path()).is_none());
    let archive = made(folder.path());
    let mut gpgv = Command::new("gpgv");
    gpgv.arg("--keyring").arg(folder.path().join("key.gpg")).arg(archive.packages().join("InRelease"));
    let output = gpgv.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let statement = fs::read_to_string(archive.packages().join("InRelease")).unwrap();
    assert!(statement.contains("Date: Mon, 05 Jan 2026 08:00:00 UTC"), "{statement}");
    assert!(Archive::open(folder.path()).is_some());
}

#[test]
fn a_failing_program_is_named_with_its_words_and_nothing_counts_as_made() {
    let folder = tempfile::tempdir().unwrap();
    let caller = Caller::new(&folder.path().join("log"));
    let bad = releases()[0].renamed("not a version");
    let error = Archive::make(folder.path(), &[bad], now(), &caller).unwrap_err().to_string();
    assert!(error.starts_with("dpkg-deb ended badly") && error.contains("version"), "{error}");
    assert!(Archive::open(folder.path()).is_none());
    caller.given_up.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = Archive::make(folder.path(), &releases(), now(), &caller).unwrap_err();
    assert!(matches!(error, PackagingError::GivenUp), "{error}");
}

#[test]
fn folders_whose_names_apt_would_misread_are_told_apart() {
    for (path, good) in
        [("/tmp/fleet-dev-x1", true), ("/tmp/my fleet", false), ("/tmp/\"x", false), ("x", false)]
    {
        assert_eq!(Archive::can_be_in(Path::new(path)), good, "{path}");
    }
}
