//! Tests of `tuning.apply` and `tuning.revert` over files in the place of the kernel's.

use std::path::PathBuf;

use super::TaskError;
use super::testing::{Bench, With};
use crate::host::scripted::Answer;
use crate::host::{Exit, FileProblem};

const PROFILE: &str = r#"
    [tuning.memory]
    kind = "sysctl"
    file = "/etc/sysctl.d/60-fw.conf"
    set = { "vm.swappiness" = 10, "vm.min_free" = "1 2 3" }
    [tuning.tracking]
    kind = "sysctl"
    file = "/etc/sysctl.d/61-fw.conf"
    modules = ["nf_conntrack"]
    set = { "net.netfilter.nf_conntrack_max" = 1048576 }
    [tuning.off]
    kind = "sysctl"
    file = "/etc/sysctl.d/62-fw.conf"
    set = { "vm.nonsense" = 1 }
    enabled = false
    [tuning.disk]
    kind = "block"
    device_of = "/var/log"
    set = { scheduler = "mq-deadline", read_ahead_sectors = 4096 }
    persist = "udev"
    [tuning.mount]
    kind = "mount"
    path = "/var/log"
    options = ["noatime", "data=writeback"]
    apply = "at_next_mount"
    [tuning.live]
    kind = "mount"
    path = "/var/log"
    options = ["noatime"]
"#;
const FSTAB: &str = "# kept\n/dev/sda2 / ext4 defaults 0 1\n/dev/sdb1  /var/log ext4\tdefaults,nodev 0 2\n";
const MOUNTS: &str = "20 1 8:2 / / rw,relatime - ext4 /dev/sda2 rw\n\
    21 20 8:17 / /var/log rw,nodev,relatime - ext4 /dev/sdb1 rw\n";

fn bench() -> Bench {
    let bench = Bench::new(PROFILE);
    bench.file("/proc/sys/vm/swappiness", b"60\n");
    bench.file("/proc/sys/vm/min_free", b"1\t2\t4\n");
    bench.file("/proc/self/mountinfo", MOUNTS.as_bytes());
    bench.file("/etc/fstab", FSTAB.as_bytes());
    bench.file("/var/log/x", b"");
    bench
}

fn text(bench: &Bench, path: &str) -> String {
    std::fs::read_to_string(bench.at(path)).unwrap_or_else(|_| "absent".to_owned())
}

fn tunings(bench: &Bench, ids: &str) -> With {
    bench.with(&format!(r#"{{"tuning":[{ids}]}}"#))
}

/// A disk with a partition, as sysfs shows it.
fn with_disk(bench: &Bench) {
    bench.file("/sys/devices/pci/sdb/queue/scheduler", b"[none] mq-deadline\n");
    bench.file("/sys/devices/pci/sdb/queue/read_ahead_kb", b"128\n");
    bench.file("/sys/devices/pci/sdb/dev", b"8:16\n");
    bench.file("/sys/devices/pci/sdb/sdb1/partition", b"1\n");
    bench.file("/run/udev/data/b8:16", b"S:disk/by-id/x\nE:ID_PATH=pci-1\nE:ID_SERIAL=Disk_4711\n");
    for (link, to) in [
        ("/sys/dev/block/8:17", "/sys/devices/pci/sdb/sdb1"),
        ("/sys/class/block/sdb", "/sys/devices/pci/sdb"),
    ] {
        std::fs::create_dir_all(bench.at(link).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, bench.at(link)).unwrap();
    }
}

#[test]
fn settings_are_applied_once_and_put_back_exactly() {
    let bench = bench();
    let with = tunings(&bench, r#""memory","off""#);
    let plan = bench.plan("tuning.apply", &with).unwrap();
    assert_eq!(plan.summary, "3 settings would be changed; switched off: off");
    assert_eq!(text(&bench, "/etc/sysctl.d/60-fw.conf"), "absent", "a plan writes nothing");
    let undo = bench.undo("tuning.apply", &with).unwrap();
    let report = bench.apply("tuning.apply", &with).unwrap();
    assert_eq!(report.changes, plan.changes, "what was planned, and nothing else");
    assert_eq!(text(&bench, "/proc/sys/vm/swappiness"), "10");
    let drop_in = text(&bench, "/etc/sysctl.d/60-fw.conf");
    assert!(drop_in.ends_with("vm.min_free = 1 2 3\nvm.swappiness = 10\n"), "{drop_in}");
    assert!(bench.apply("tuning.apply", &with).unwrap().changes.is_empty());
    // What an agent that was killed in the middle of a write left beside the file.
    bench.file("/etc/sysctl.d/.60-fw.conf.fleet-tmp", b"# half");
    assert_eq!(bench.revert("tuning.apply", &with, &undo).unwrap().changes.len(), 3);
    assert_eq!(text(&bench, "/proc/sys/vm/swappiness"), "60");
    assert_eq!(text(&bench, "/proc/sys/vm/min_free"), "1\t2\t4");
    assert_eq!(bench.names("/etc/sysctl.d"), [""; 0]);
    assert!(bench.revert("tuning.apply", &with, &undo).unwrap().changes.is_empty());
    assert!(bench.apply("tuning.revert", &with).unwrap().changes.is_empty(), "nothing is left to put back");
}

#[test]
fn an_apply_that_is_taken_up_after_a_crash_still_knows_what_was_there_before() {
    let bench = bench();
    let with = tunings(&bench, r#""memory""#);
    let undo = bench.undo("tuning.apply", &with).unwrap();
    // It dies between two settings: the put-back of this life fails with the rest.
    bench.host.fail("set", "/proc/sys/vm/swappiness", FileProblem::Other);
    bench.host.fail("set", "/proc/sys/vm/min_free", FileProblem::Other);
    bench.failure("tuning.apply", &with);
    bench.host.heal();
    bench.file("/proc/sys/vm/min_free", b"1 2 3\n");
    bench.apply("tuning.apply", &with).unwrap();
    // By a [[rollback]] entry of the same job, by its stored undo, and by both.
    bench.apply("tuning.revert", &with).unwrap();
    bench.revert("tuning.apply", &with, &undo).unwrap();
    assert_eq!(text(&bench, "/proc/sys/vm/min_free"), "1\t2\t4");
    assert_eq!(text(&bench, "/proc/sys/vm/swappiness"), "60");
}

#[test]
fn a_job_puts_back_its_own_and_a_later_one_what_was_there_first() {
    let mut bench = bench();
    let with = tunings(&bench, r#""memory""#);
    bench.apply("tuning.apply", &with).unwrap();
    bench.step.run = fleet_types::id::RunId::from_number(8);
    bench.profile = toml::from_str(&format!(
        "schema = \"fleet/v1\"\nname = \"edge\"\nversion = 2\n{}",
        PROFILE.replace("\"vm.swappiness\" = 10", "\"vm.swappiness\" = 20")
    ))
    .unwrap();
    bench.apply("tuning.apply", &with).unwrap();
    bench.apply("tuning.revert", &with).unwrap();
    assert_eq!(text(&bench, "/proc/sys/vm/swappiness"), "10", "as before this job");
    assert!(text(&bench, "/etc/sysctl.d/60-fw.conf").ends_with("vm.swappiness = 10\n"));
    // An apply that changes nothing has nothing to put back.
    bench.apply("tuning.apply", &with).unwrap();
    bench.step.run = fleet_types::id::RunId::from_number(9);
    bench.apply("tuning.apply", &with).unwrap();
    assert!(bench.apply("tuning.revert", &with).unwrap().changes.is_empty());
    assert_eq!(text(&bench, "/proc/sys/vm/swappiness"), "20");
    bench.step.run = fleet_types::id::RunId::from_number(10);
    let plan = bench.plan("tuning.revert", &with).unwrap();
    assert_eq!(bench.apply("tuning.revert", &with).unwrap().changes, plan.changes);
    assert_eq!(text(&bench, "/proc/sys/vm/swappiness"), "60");
    assert_eq!(text(&bench, "/proc/sys/vm/min_free"), "1\t2\t4");
    assert_eq!(bench.names("/etc/sysctl.d"), [""; 0]);
    assert!(bench.apply("tuning.revert", &with).unwrap().changes.is_empty());
}

#[test]
fn what_fails_half_way_leaves_the_node_as_it_was() {
    let bench = bench();
    let with = tunings(&bench, r#""memory""#);
    bench.host.fail("create", "/etc/sysctl.d", FileProblem::Full);
    let (message, report) = bench.failure("tuning.apply", &with);
    assert!(message.ends_with("all is as before"), "{message}");
    assert_eq!(report.problems[0].code, "not_set");
    assert_eq!(text(&bench, "/proc/sys/vm/swappiness"), "60");
    bench.host.heal();
    // The kernel takes another value than asked for.
    let path = PathBuf::from("/proc/sys/vm/swappiness");
    bench.host.script().settings_taken.insert(path, b"100".to_vec());
    let (message, _) = bench.failure("tuning.apply", &with);
    assert!(message.contains("\"10\" was asked for and is \"100\""), "{message}");
    assert_eq!(text(&bench, "/proc/sys/vm/min_free"), "1\t2\t4");
    assert_eq!(bench.names("/etc/sysctl.d"), [""; 0]);
}

#[test]
fn what_this_node_does_not_have_is_refused_by_name_before_anything_is_set() {
    for (from, to, word) in [
        ("vm.swappiness", "vm.no_such", "this kernel has no such setting"),
        ("vm.swappiness", "vm.*", "is no key of one setting"),
        ("/etc/sysctl.d/60-fw.conf", "/etc/passwd", "is no file /etc/sysctl.d"),
        ("/etc/sysctl.d/60-fw.conf", "/etc/sysctl.d/sub/x.conf", "is no file /etc/sysctl.d"),
        ("\"1 2 3\"", "\"1\\n2\"", "one line of text"),
        ("\"1 2 3\"", "true", "expected a number or a text"),
    ] {
        let mut bench = bench();
        let text_of =
            format!("schema = \"fleet/v1\"\nname = \"edge\"\nversion = 1\n{}", PROFILE.replace(from, to));
        bench.profile = toml::from_str(&text_of).unwrap();
        let with = tunings(&bench, r#""memory""#);
        for result in [bench.plan("tuning.apply", &with).err(), bench.apply("tuning.apply", &with).err()] {
            let Some(TaskError::Declared(message)) = result else { panic!("{to}: {result:?}") };
            assert!(message.starts_with("tuning memory: ") && message.contains(word), "{message}");
        }
        assert_eq!(text(&bench, "/proc/sys/vm/min_free"), "1\t2\t4\n");
    }
    let bench = bench();
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    std::fs::set_permissions(bench.at("/proc/sys/vm/swappiness"), read_only).unwrap();
    let error = bench.apply("tuning.apply", &tunings(&bench, r#""memory""#)).unwrap_err();
    assert!(error.to_string().contains("vm.swappiness: it is read-only"), "{error}");
    // A root of its own is not the machine, whose modules are not its own.
    let error = bench.apply("tuning.apply", &tunings(&bench, r#""tracking""#)).unwrap_err();
    assert!(error.to_string().contains("nf_conntrack is not loaded"), "{error}");
    let error = bench.plan("tuning.apply", &tunings(&bench, r#""disk""#)).unwrap_err();
    assert!(error.to_string().contains("no disk lies under /var/log"), "{error}");
}

#[test]
fn modules_are_named_for_the_next_start() {
    let bench = bench();
    bench.file("/sys/module/nf_conntrack/refcnt", b"1\n");
    bench.file("/proc/sys/net/netfilter/nf_conntrack_max", b"262144\n");
    bench.apply("tuning.apply", &tunings(&bench, r#""tracking""#)).unwrap();
    assert_eq!(text(&bench, "/etc/modules-load.d/61-fw.conf"), "nf_conntrack\n");
    assert_eq!(bench.host.script().started, Vec::<Vec<String>>::new(), "it is loaded");
}

#[test]
fn the_disk_under_a_mount_point_is_found_and_named_for_the_next_start() {
    let bench = bench();
    with_disk(&bench);
    let with = tunings(&bench, r#""disk""#);
    let undo = bench.undo("tuning.apply", &with).unwrap();
    let report = bench.apply("tuning.apply", &with).unwrap();
    assert_eq!(report.changes.len(), 3, "{:?}", report.changes);
    assert_eq!(report.changes[1].before, "none", "of the words that are offered, the chosen one");
    assert_eq!(text(&bench, "/sys/devices/pci/sdb/queue/scheduler"), "mq-deadline");
    assert_eq!(text(&bench, "/sys/devices/pci/sdb/queue/read_ahead_kb"), "2048");
    let rule = text(&bench, "/etc/udev/rules.d/61-fleet-disk.rules");
    let named = "ENV{DEVTYPE}==\"disk\", ENV{ID_SERIAL}==\"Disk_4711\", ATTR{queue/read_ahead_kb}=\"2048\", \
                 ATTR{queue/scheduler}=\"mq-deadline\"\n";
    assert!(rule.ends_with(named), "{rule}");
    bench.revert("tuning.apply", &with, &undo).unwrap();
    assert_eq!(text(&bench, "/sys/devices/pci/sdb/queue/scheduler"), "none");
    assert_eq!(text(&bench, "/etc/udev/rules.d/61-fleet-disk.rules"), "absent");
    // A device that is gone has taken its settings with it.
    bench.apply("tuning.apply", &with).unwrap();
    std::fs::remove_dir_all(bench.at("/sys/devices/pci/sdb/queue")).unwrap();
    assert_eq!(bench.apply("tuning.revert", &with).unwrap().changes.len(), 1, "its rule");
}

#[test]
fn one_field_of_fstab_is_changed_and_put_back() {
    let bench = bench();
    let with = tunings(&bench, r#""mount""#);
    let undo = bench.undo("tuning.apply", &with).unwrap();
    let report = bench.apply("tuning.apply", &with).unwrap();
    assert_eq!(report.changes[0].subject, "/var/log: in fstab");
    let changed = FSTAB.replace("defaults,nodev", "nodev,noatime,data=writeback");
    assert_eq!(text(&bench, "/etc/fstab"), changed);
    // What others change meanwhile stays.
    bench.file("/etc/fstab", format!("{changed}/dev/sdc /srv ext4 defaults 0 2\n").as_bytes());
    bench.revert("tuning.apply", &with, &undo).unwrap();
    assert_eq!(text(&bench, "/etc/fstab"), format!("{FSTAB}/dev/sdc /srv ext4 defaults 0 2\n"));
}

#[test]
fn a_remount_gives_the_whole_list_and_is_read_back() {
    let bench = bench();
    let with = tunings(&bench, r#""live""#);
    bench.host.answer("mount", [Answer::Ends(Exit::Status(0), String::new())]);
    // The program says that it did it, and the kernel that it did not.
    let (message, _) = bench.failure("tuning.apply", &with);
    assert!(message.contains("was asked for"), "{message}");
    assert_eq!(
        bench.host.script().started[0],
        ["mount", "--options-mode", "ignore", "-o", "remount,rw,nodev,noatime", "/var/log"]
    );
    assert_eq!(text(&bench, "/etc/fstab"), FSTAB, "put back");
    bench.host.answer("mount", [Answer::Ends(Exit::Status(32), "mount: bad option\n".into())]);
    let (message, _) = bench.failure("tuning.apply", &with);
    assert!(message.contains("mount: exit status 32; mount: bad option"), "{message}");
}
