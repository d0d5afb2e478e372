//! Upgrades: that they do what the plan said, once; and how each thing that stands against one ends.

use std::fs;
use std::process::Command;
use std::time::Duration;

use fleet_executor::host::Host;
use fleet_executor::tasks::{RetryKind, TaskError};

use crate::lab::{Deb, Lab, code_of};
use crate::step::wait_for;

const FW: &str = r#"{"packages":["fw"]}"#;

/// A node with fw 1.0, and fw 1.1 that needs a library in its archive.
fn lab() -> Lab {
    let lab = Lab::new();
    let old = lab.build(Deb { name: "fw", version: "1.0", config: "rules = 1\n", ..Deb::default() });
    lab.install(&old);
    lab.build(Deb {
        name: "fw",
        version: "1.1",
        depends: "fwlib (>= 1)",
        config: "rules = 2\n",
        ..Deb::default()
    });
    lab.build(Deb { name: "fwlib", version: "1:1-1", config: "lib\n", ..Deb::default() });
    lab.publish("ZehraSec");
    lab.apply("package.refresh", "{}").unwrap();
    lab
}

#[test]
fn an_upgrade_does_what_its_plan_said_and_a_second_time_nothing() {
    let lab = lab();
    let listed = lab.apply("package.list_updates", "{}").unwrap();
    assert_eq!(listed.summary, "1 updates are pending, 0 of them for security");
    let plan = lab.plan("package.upgrade", FW).unwrap();
    let shown: Vec<_> =
        plan.changes.iter().map(|c| (c.subject.as_str(), c.action.as_str(), c.after.as_str())).collect();
    assert_eq!(shown, [("fwlib", "installed", "1:1-1 (ZehraSec)"), ("fw", "upgraded", "1.1 (ZehraSec)")]);
    assert!(
        plan.summary.contains("2 archives have to be fetched") && plan.summary.contains("1 repacked"),
        "{}",
        plan.summary
    );
    // From the cache only, which is empty: nothing is touched.
    let before = lab.snapshot();
    let (code, message, _) = lab.failure("package.upgrade", FW);
    assert_eq!((code.as_str(), lab.snapshot()), ("package_not_kept", before), "{message}");
    let kept = lab.apply("package.download", FW).unwrap();
    assert!(
        kept.summary.starts_with(
            "2 new archives are kept (2 from the publisher), and 1 former ones (1 from the publisher)"
        ),
        "{}",
        kept.summary
    );
    // The archive may be gone from here on.
    fs::rename(lab.archive(), lab.archive().with_extension("gone")).unwrap();
    fs::create_dir_all(lab.at("/run")).unwrap();
    fs::write(lab.at("/run/reboot-required"), "").unwrap();
    let report = lab.apply("package.upgrade", FW).unwrap();
    assert_eq!(report.changes, plan.changes);
    assert_eq!(report.problems.iter().map(|p| p.code.as_str()).collect::<Vec<_>>(), ["reboot_required"]);
    assert_eq!(lab.packages(), "fw 1.1 install installed\nfwlib 1:1-1 install installed\n");
    assert_eq!(lab.read("/etc/fw.conf"), "rules = 2\n");
    assert!(lab.read("/var/lib/apt/extended_states").contains("fwlib"), "it is there for fw only");
    let report = lab.apply("package.upgrade", FW).unwrap();
    assert_eq!((report.changes.len(), report.summary.as_str()), (0, "the packages are as they should be"));
}

#[test]
fn a_changed_configuration_stays_and_that_is_said() {
    let lab = lab();
    fs::write(lab.at("/etc/fw.conf"), "mine\n").unwrap();
    lab.apply("package.download", FW).unwrap();
    let report = lab.apply("package.upgrade", FW).unwrap();
    assert_eq!(lab.read("/etc/fw.conf"), "mine\n");
    assert_eq!(report.problems.iter().map(|p| p.code.as_str()).collect::<Vec<_>>(), ["config_kept"]);
    lab.revert().unwrap();
    assert_eq!(lab.read("/etc/fw.conf"), "mine\n");
    assert!(!lab.at("/etc/fw.conf.dpkg-dist").exists(), "what it put beside is gone");
}

#[test]
fn what_cannot_be_had_is_named_and_nothing_is_touched() {
    let lab = lab();
    lab.build(Deb { name: "fw", version: "1.4", depends: "nowhere", ..Deb::default() });
    lab.publish("ZehraSec");
    lab.apply("package.refresh", "{}").unwrap();
    let before = (lab.packages(), lab.snapshot());
    for (with, expected) in [
        (r#"{"packages":["fw"],"version":"9.9"}"#, "package_version_unknown"),
        (r#"{"packages":["fw"],"version":"1.4"}"#, "package_dependencies"),
        (r#"{"packages":["fw"],"version":"1.1;x"}"#, "package_version_unknown"),
        (r#"{"packages":["fw"],"version":"-oX=y"}"#, "package_version_unknown"),
        (r#"{"packages":["system"],"version":"1.1"}"#, "declared"),
    ] {
        let (code, message, _) = lab.failure("package.upgrade", with);
        assert_eq!(code, expected, "{with}: {message}");
    }
    assert_eq!((lab.packages(), lab.snapshot()), before);
}

#[test]
fn the_owners_rules_are_asked_before_anything_changes() {
    let lab = lab();
    lab.policy.borrow_mut().package_origins = vec!["Debian".to_owned()];
    let (_, message, _) = lab.failure("package.upgrade", FW);
    assert!(message.starts_with("package-origin: fwlib 1:1-1 is of ZehraSec"), "{message}");
    assert!(lab.plan("package.upgrade", FW).is_err());
    assert!(lab.apply("package.download", FW).is_err(), "nor is it fetched");
    lab.policy.borrow_mut().package_origins = vec!["ZehraSec".to_owned()];
    lab.apply("package.download", FW).unwrap();
    lab.apply("package.upgrade", FW).unwrap();
    let (_, message, _) = lab.failure("package.upgrade", r#"{"packages":["fw"],"version":"1.0"}"#);
    assert!(message.starts_with("package-downgrade: fw would go from 1.1 down to 1.0"), "{message}");
}

#[test]
fn a_hold_counts_unless_the_profile_says_so_and_stays_a_hold() {
    let lab = lab();
    let mut mark = Command::new("dpkg");
    mark.arg(format!("--root={}", lab.at("/").display())).arg("--set-selections");
    let mut child = mark.stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"fw hold\n").unwrap();
    assert!(child.wait().unwrap().success());
    let (code, message, _) = lab.failure("package.upgrade", FW);
    assert_eq!((code.as_str(), message.as_str()), ("package_held", "fw is on hold on this node"));
    lab.profile.borrow_mut().packages.get_mut("fw").unwrap().hold = true;
    lab.apply("package.download", FW).unwrap();
    lab.apply("package.upgrade", FW).unwrap();
    assert_eq!(lab.packages(), "fw 1.1 hold installed\nfwlib 1:1-1 install installed\n");
    lab.revert().unwrap();
    assert_eq!(lab.packages(), "fw 1.0 hold installed\n");
}

#[test]
fn all_of_the_distribution_leaves_alone_what_is_of_others_or_on_hold() {
    let lab = lab();
    for version in ["1.0", "1.2"] {
        let deb = lab.build(Deb { name: "tool", version, ..Deb::default() });
        if version == "1.0" {
            lab.install(&deb);
        }
    }
    lab.profile.borrow_mut().packages.get_mut("fw").unwrap().hold = true;
    lab.publish("ZehraSec");
    lab.apply("package.refresh", "{}").unwrap();
    let listed = lab.apply("package.list_updates", "{}").unwrap();
    let tool = listed.problems.iter().find(|found| found.subject == "tool").unwrap();
    assert_eq!(tool.message, "1.0 -> 1.2 (ZehraSec)");
    let all = r#"{"packages":["system"]}"#;
    lab.apply("package.download", all).unwrap();
    let report = lab.apply("package.upgrade", all).unwrap();
    assert_eq!(report.changes.iter().map(|c| c.subject.as_str()).collect::<Vec<_>>(), ["tool"]);
    // What is published under another name is not taken as the same archive, and others' packages are not the distribution's.
    lab.build(Deb { name: "tool", version: "1.3", ..Deb::default() });
    lab.publish("Elsewhere");
    assert_eq!(lab.failure("package.refresh", "{}").0, "archive_renamed");
    lab.publish("ZehraSec");
    lab.apply("package.refresh", "{}").unwrap();
    assert_eq!(lab.plan("package.upgrade", all).unwrap().changes.len(), 1);
    lab.profile.borrow_mut().packages.get_mut("system").unwrap().origin = Some("Elsewhere".to_owned());
    assert!(lab.plan("package.upgrade", all).unwrap().changes.is_empty());
}

#[test]
fn t20_a_held_lock_is_told_as_such_and_may_be_tried_again() {
    let lab = lab();
    lab.apply("package.download", FW).unwrap();
    let before = lab.packages();
    lab.time.set(Duration::from_secs(12));
    let path = lab.at("/var/lib/dpkg/lock-frontend");
    let file = fs::File::options().create(true).truncate(false).write(true).open(path).unwrap();
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    match lab.apply("package.upgrade", FW) {
        Err(TaskError::Failed { message, retry: Some(RetryKind::LockBusy), report }) => {
            assert!(message.contains("held by process"), "{message}");
            assert_eq!(report.problems.last().unwrap().code, "package_lock_held");
            assert!(report.changes.is_empty());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(lab.packages(), before);
}

#[test]
fn t21_an_inconsistent_database_is_never_built_upon() {
    let lab = lab();
    lab.apply("package.download", FW).unwrap();
    let status = lab.read("/var/lib/dpkg/status");
    let broken = status.replace("install ok installed", "install ok half-configured");
    fs::write(lab.at("/var/lib/dpkg/status"), broken).unwrap();
    let (code, _, report) = lab.failure("package.upgrade", FW);
    assert_eq!(code, "package_database_inconsistent");
    assert!(report.problems[0].evidence.contains("fw"), "{:?}", report.problems);
    assert!(lab.packages().contains("fw 1.0 install half-configured"), "left for a person");
    assert_eq!(lab.host.packages().damage().unwrap(), "fw is half-configured");
}

#[test]
fn what_an_administrator_changed_meanwhile_ends_the_step_before_anything_is_touched() {
    let lab = lab();
    lab.apply("package.download", FW).unwrap();
    lab.note("upgrade", FW).unwrap();
    let other = lab.build(Deb { name: "fw", version: "1.05", config: "rules = 1\n", ..Deb::default() });
    lab.install(&other);
    let (code, message, _) = code_of(lab.carry_out("upgrade", "package.upgrade", FW));
    assert_eq!(code, "package_plan_differs");
    assert_eq!(message, "fw is 1.05 now, when it was planned it was 1.0; nothing was changed");
    assert_eq!(lab.packages(), "fw 1.05 install installed\n");
}

#[test]
fn a_cancel_ends_it_before_and_never_in_the_middle() {
    let lab = lab();
    lab.apply("package.download", FW).unwrap();
    lab.note("first", FW).unwrap();
    lab.cancel.cancel();
    assert!(matches!(lab.carry_out("first", "package.upgrade", FW), Err(TaskError::Cancelled(_))));
    assert_eq!(lab.packages(), "fw 1.0 install installed\n");

    let lab = Lab::new();
    lab.install(&lab.build(Deb { name: "fw", version: "1.0", ..Deb::default() }));
    let wait = "touch $R/tmp/there\nwhile [ ! -e $R/tmp/go ]; do sleep 0.05; done";
    lab.build(Deb { name: "fw", version: "1.1", postinst: wait, ..Deb::default() });
    lab.publish("ZehraSec");
    lab.apply("package.refresh", "{}").unwrap();
    lab.apply("package.download", FW).unwrap();
    lab.note("second", FW).unwrap();
    let (there, go, cancel) = (lab.at("/tmp/there"), lab.at("/tmp/go"), lab.cancel.clone());
    let watcher = std::thread::spawn(move || {
        wait_for("the script", || there.exists());
        cancel.cancel();
        fs::write(go, "").unwrap();
    });
    let report = lab.carry_out("second", "package.upgrade", FW).unwrap();
    watcher.join().unwrap();
    assert_eq!(report.changes.len(), 1);
    assert_eq!((lab.packages().as_str(), lab.audit().as_str()), ("fw 1.1 install installed\n", ""));
}

#[test]
fn versions_that_apt_never_saw_are_no_way_around_the_store() {
    // An archive that was changed after it was kept is refused, and what is there stays.
    let lab = lab();
    lab.apply("package.download", FW).unwrap();
    let kept = lab.state().join("packages/archives/fw_1.1_amd64.deb");
    let mut bytes = fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&kept, bytes).unwrap();
    let (code, _, _) = lab.failure("package.upgrade", FW);
    assert_eq!(code, "archive_altered");
    assert_eq!(lab.packages(), "fw 1.0 install installed\n");
    // Fetched anew it is good again.
    lab.apply("package.download", FW).unwrap();
    lab.apply("package.upgrade", FW).unwrap();
}
