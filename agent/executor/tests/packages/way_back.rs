//! The way back: exactly what was there before, whatever became of the upgrade.

use std::fs;
use std::path::PathBuf;

use fleet_executor::tasks::TaskError;
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Deb, Lab};
use crate::step::wait_to_see;

const FW: &str = r#"{"packages":["fw"]}"#;
const BACK: &str = r#"{"packages":["fw"],"to":"previous"}"#;

/// A node with fw 1.0 and its changed configuration, and a newer fw whose scripts are these.
fn lab(preinst: &str, postinst: &str) -> Lab {
    let lab = Lab::new();
    lab.install(&lab.build(Deb { name: "fw", version: "1.0", config: "rules = 1\n", ..Deb::default() }));
    fs::write(lab.at("/etc/fw.conf"), "mine\n").unwrap();
    lab.build(Deb { name: "fw", version: "1.3", depends: "fwlib", config: "rules = 3\n", preinst, postinst });
    lab.build(Deb { name: "fwlib", version: "1", config: "lib\n", ..Deb::default() });
    lab.publish("ZehraSec");
    lab.apply("package.refresh", "{}").unwrap();
    lab
}

/// The state of a node for a whole comparison.
fn state(lab: &Lab) -> (String, std::collections::BTreeMap<String, String>) {
    (lab.packages(), lab.snapshot())
}

/// Kills the dpkg that waits in a script, as a power cut or an administrator would.
fn kill_when_there(path: PathBuf) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let pid = wait_to_see("the script", || fs::read_to_string(&path).ok()?.trim().parse().ok());
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    })
}

/// Writes the number of its dpkg and waits to be killed, the first time.
const WAIT: &str = "[ -e $R/tmp/once ] && exit 0\ntouch $R/tmp/once\necho $PPID > $R/tmp/pid.new\nmv $R/tmp/pid.new $R/tmp/pid\nwhile [ -d /proc/$PPID ]; do sleep 0.05; done\nexit 1";

#[test]
fn a_failing_script_is_named_and_the_former_set_comes_back_exactly() {
    let lab = lab("", "exit 3");
    let before = state(&lab);
    lab.apply("package.download", FW).unwrap();
    let (code, message, report) = lab.failure("package.upgrade", FW);
    assert_eq!(code, "package_script_failed");
    assert!(
        message.contains("post-installation script subprocess returned error exit status 3"),
        "{message}"
    );
    assert!(
        report.problems.iter().any(|p| p.code == "package_database_inconsistent"),
        "what is left is said"
    );
    assert!(report.changes.iter().any(|c| c.after == "1.3, unfinished"), "{:?}", report.changes);
    assert!(lab.packages().contains("fw 1.3 install half-configured"));
    let report = lab.apply("package.downgrade", BACK).unwrap();
    assert_eq!(report.summary, "the former packages, their configuration and services are back");
    assert_eq!((state(&lab), lab.audit()), (before.clone(), String::new()));
    let report = lab.apply("package.downgrade", BACK).unwrap();
    assert_eq!((report.changes.len(), report.summary.as_str()), (0, "the former packages are there already"));
    assert_eq!(state(&lab), before);
}

#[test]
fn without_the_old_archive_the_installed_files_are_the_way_back() {
    let lab = lab("", "");
    fs::remove_file(lab.archive().join("fw_1.0_amd64.deb")).unwrap();
    lab.publish("ZehraSec");
    lab.apply("package.refresh", "{}").unwrap();
    let before = state(&lab);
    let kept = lab.apply("package.download", FW).unwrap();
    assert!(kept.summary.contains("1 repacked from the installed files"), "{}", kept.summary);
    assert!(lab.plan("package.upgrade", FW).unwrap().summary.contains("1 repacked from the installed files"));
    lab.apply("package.upgrade", FW).unwrap();
    assert_eq!(lab.read("/usr/share/fw/version"), "1.3");
    lab.revert().unwrap();
    assert_eq!((state(&lab), lab.audit()), (before, String::new()));
}

#[test]
fn dpkg_killed_between_unpacking_and_configuring_is_finished() {
    let lab = lab("", WAIT);
    lab.apply("package.download", FW).unwrap();
    let killer = kill_when_there(lab.at("/tmp/pid"));
    let report = lab.apply("package.upgrade", FW).unwrap();
    killer.join().unwrap();
    assert_eq!(report.summary, "2 packages were changed as planned");
    assert!(report.problems.iter().any(|p| p.code != "config_kept"), "that it was interrupted is said");
    assert_eq!(lab.audit(), "");
    assert!(lab.packages().contains("fw 1.3 install installed"));
}

#[test]
fn dpkg_killed_before_unpacking_leaves_a_way_back() {
    let lab = lab(WAIT, "");
    let before = state(&lab);
    lab.apply("package.download", FW).unwrap();
    let killer = kill_when_there(lab.at("/tmp/pid"));
    let ended = lab.apply("package.upgrade", FW);
    killer.join().unwrap();
    // Finished afterwards, or failed with a known state; never unknown.
    assert!(matches!(ended, Ok(_) | Err(TaskError::Failed { .. })), "{ended:?}");
    lab.apply("package.downgrade", BACK).unwrap();
    assert_eq!((state(&lab), lab.audit()), (before, String::new()));
}

#[test]
fn a_step_that_is_taken_up_again_goes_on_from_what_is_installed() {
    let lab = lab("", "");
    lab.apply("package.download", FW).unwrap();
    lab.note("upgrade", FW).unwrap();
    // Half of it was done when the machine went down.
    lab.install(&lab.archive().join("fwlib_1_amd64.deb"));
    lab.resumed.set(true);
    let report = lab.carry_out("upgrade", "package.upgrade", FW).unwrap();
    assert_eq!(report.changes.len(), 2);
    let report = lab.carry_out("upgrade", "package.upgrade", FW).unwrap();
    assert_eq!(report.summary, "2 packages were changed as planned");
    assert_eq!(lab.audit(), "");
}

#[test]
fn services_that_ran_run_again() {
    use fleet_executor::host::{Activity, Host};
    let lab = lab("", "");
    let unit = "[Service]\nExecStart=/usr/bin/fwd\n";
    fs::create_dir_all(lab.at("/usr/bin")).unwrap();
    fs::write(lab.at("/usr/bin/fwd"), "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(lab.at("/usr/bin/fwd"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(lab.at("/etc/systemd/system/fw.service"), unit).unwrap();
    lab.host.units().start("fw.service", std::time::Duration::from_secs(30)).unwrap();
    lab.apply("package.download", FW).unwrap();
    lab.apply("package.upgrade", FW).unwrap();
    lab.host.units().stop("fw.service", std::time::Duration::from_secs(30)).unwrap();
    let report = lab.apply("package.downgrade", BACK).unwrap();
    assert!(report.changes.iter().any(|c| c.subject == "fw.service" && c.action == "started"));
    assert_eq!(lab.host.units().state("fw.service").unwrap().activity, Activity::Active);
    lab.host.units().stop("fw.service", std::time::Duration::from_secs(30)).unwrap();
}

#[test]
fn nothing_that_this_job_upgraded_is_nothing_to_put_back() {
    let lab = lab("", "");
    let before = state(&lab);
    let report = lab.apply("package.downgrade", BACK).unwrap();
    assert_eq!((report.changes.len(), state(&lab)), (0, before));
}
