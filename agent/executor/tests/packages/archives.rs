//! Archives that cannot be trusted or reached: each has its named cause, and nothing comes in.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fleet_executor::tasks::{RetryKind, TaskError};

use crate::lab::{Deb, Lab, run};

const FW: &str = r#"{"packages":["fw"]}"#;

/// A lab with an archive that must be signed, and its keys.
struct Signed {
    lab: Lab,
    keys: tempfile::TempDir,
}

impl Signed {
    fn new() -> Self {
        let lab = Lab::new();
        lab.sources("");
        lab.install(&lab.build(Deb { name: "fw", version: "1.0", ..Deb::default() }));
        lab.build(Deb { name: "fw", version: "1.1", ..Deb::default() });
        // The socket of gpg's agent has a short path at most.
        let keys = tempfile::Builder::new().prefix("k").tempdir_in("/tmp").unwrap();
        let signed = Self { lab, keys };
        for name in ["lab", "other"] {
            let user = format!("{name}@example.org");
            run(signed.gpg().args([
                "--passphrase",
                "",
                "--quick-generate-key",
                &user,
                "ed25519",
                "sign",
                "never",
            ]));
        }
        run(signed.gpg().args(["--output"]).arg(signed.trusted()).args(["--export", "lab@example.org"]));
        signed.lab.publish("ZehraSec");
        signed
    }

    fn trusted(&self) -> PathBuf {
        self.lab.at("/etc/apt/trusted.gpg.d/lab.gpg")
    }

    fn gpg(&self) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(self.keys.path()).args(["--batch", "--yes", "--quiet"]);
        gpg
    }

    fn sign(&self, by: &str) {
        let archive = self.lab.archive();
        let mut gpg = self.gpg();
        gpg.args(["-u", &format!("{by}@example.org"), "--clearsign", "-o"]).arg(archive.join("InRelease"));
        run(gpg.arg(archive.join("Release")));
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.lab.archive().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    fn refused(&self, expected: &str) {
        let (code, message, _) = self.lab.failure("package.refresh", "{}");
        assert_eq!(code, expected, "{message}");
    }
}

impl Drop for Signed {
    fn drop(&mut self) {
        // Its agent would live on.
        let _ =
            Command::new("gpgconf").arg("--homedir").arg(self.keys.path()).args(["--kill", "all"]).status();
    }
}

#[test]
fn only_what_the_right_key_signed_lately_is_taken() {
    let signed = Signed::new();
    signed.refused("archive_unsigned");
    signed.sign("lab");
    signed.lab.apply("package.refresh", "{}").unwrap();
    signed.sign("other");
    signed.refused("archive_wrongly_signed");
    signed.sign("lab");
    signed.edit("InRelease", "Origin: ZehraSec", "Origin: Zehrasec");
    signed.refused("archive_wrongly_signed");
    signed.edit("Release", "Date:", "Valid-Until: Sun, 02 Nov 2025 00:00:00 UTC\nDate:");
    signed.sign("lab");
    signed.refused("archive_expired");
    // What was fetched before is still there, and its packages are good.
    signed.lab.apply("package.download", FW).unwrap();
    signed.lab.apply("package.upgrade", FW).unwrap();
    assert_eq!(signed.lab.packages(), "fw 1.1 install installed\n");
}

#[test]
fn an_altered_package_or_list_does_not_come_in() {
    let signed = Signed::new();
    signed.sign("lab");
    signed.lab.apply("package.refresh", "{}").unwrap();
    let path = signed.lab.archive().join("fw_1.1_amd64.deb");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (code, message, _) = signed.lab.failure("package.download", FW);
    assert_eq!(code, "archive_altered", "{message}");
    let (code, ..) = signed.lab.failure("package.upgrade", r#"{"packages":["fw"],"offline":false}"#);
    assert_eq!(code, "archive_altered");
    assert_eq!(signed.lab.packages(), "fw 1.0 install installed\n");
    fs::remove_dir_all(signed.lab.at("/var/lib/apt/lists")).unwrap();
    fs::create_dir_all(signed.lab.at("/var/lib/apt/lists/partial")).unwrap();
    signed.edit("Packages", "Version: 1.1", "Version: 1.9");
    signed.refused("archive_altered");
}

#[test]
fn an_archive_that_is_gone_may_be_tried_again() {
    let lab = Lab::new();
    lab.install(&lab.build(Deb { name: "fw", version: "1.0", ..Deb::default() }));
    lab.build(Deb { name: "fw", version: "1.1", ..Deb::default() });
    lab.publish("ZehraSec");
    lab.apply("package.refresh", "{}").unwrap();
    fs::rename(lab.archive(), lab.archive().with_extension("gone")).unwrap();
    for (action, with) in [("package.download", FW), ("package.refresh", "{}")] {
        match lab.apply(action, with) {
            Err(TaskError::Failed { report, retry: Some(RetryKind::Network), .. }) => {
                assert_eq!(report.problems[0].code, "archive_unreachable");
            }
            other => panic!("{action}: {other:?}"),
        }
    }
}

#[test]
fn a_node_without_packages_says_so() {
    let lab = Lab::new();
    fs::remove_file(lab.at("/var/lib/dpkg/status")).unwrap();
    for action in ["package.refresh", "package.list_updates"] {
        let (code, ..) = lab.failure(action, "{}");
        assert_eq!(code, "package_manager_missing", "{action}");
    }
}
