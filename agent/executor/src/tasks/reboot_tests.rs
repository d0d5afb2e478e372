//! `reboot` on a scripted machine whose boot loader's block is written by the real `grub-editenv` (package grub-common;
//! where it is not, these tests fail).

use std::collections::VecDeque;

use super::testing::Bench;
use super::{NotedUndo, Task, TaskError, find};
use crate::host::Mount;
use crate::host::scripted::Answer;

const MENU: &str = include_str!("boot_loader_test.cfg");
const OLD: &str = "6.1.0-25-amd64";
const NEW: &str = "6.1.0-28-amd64";
const BLOCK: &str = "/boot/grub/grubenv";

/// A machine that systemd runs, with a new kernel that is not booted yet, and a package that asks for it.
fn bench() -> Bench {
    let bench = Bench::new("");
    bench.file("/boot/grub/grub.cfg", MENU.as_bytes());
    bench.file("/run/reboot-required", b"");
    {
        let mut script = bench.host.script();
        script.unit_traits.systemd = true;
        script.kernel = OLD.to_owned();
        let (path, device) = ("/boot".to_owned(), "/dev/vda2".to_owned());
        script.mounts = vec![Mount { path, device, kind: "ext4".to_owned() }];
        script.programs.insert("grub-editenv".to_owned(), VecDeque::from([Answer::Real]));
    }
    let made =
        std::process::Command::new("grub-editenv").arg(bench.at(BLOCK)).arg("create").status().unwrap();
    assert!(made.success());
    bench
}

/// The variables of the boot loader, sorted.
fn block(bench: &Bench) -> Vec<String> {
    let listed =
        std::process::Command::new("grub-editenv").arg(bench.at(BLOCK)).arg("list").output().unwrap();
    let mut lines: Vec<_> = String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn saved(release: &str) -> String {
    format!("saved_entry=gnulinux-advanced-0f1e>gnulinux-{release}-advanced-0f1e")
}

fn once(release: &str) -> String {
    format!("next_entry=gnulinux-advanced-0f1e>gnulinux-{release}-advanced-0f1e")
}

impl Bench {
    /// Notes the step's undo and has it ask for the restart.
    fn asks(&mut self, with: &str) -> serde_json::Value {
        let with = self.with(with);
        let undo = self.undo("reboot", &with).unwrap();
        self.job.noted =
            vec![NotedUndo { step: "one".to_owned(), action: "reboot".to_owned(), undo: undo.clone() }];
        assert!(matches!(self.apply("reboot", &with), Err(TaskError::Restart)));
        undo
    }

    /// The machine comes up with this kernel.
    fn comes_up(&mut self, kernel: &str) {
        let mut script = self.host.script();
        self.job.restarted_from = Some(script.boot_id.clone());
        self.job.resumed = true;
        script.boot_id.push('+');
        kernel.clone_into(&mut script.kernel);
        script.unit_traits.booting = 2;
    }
}

#[test]
fn a_new_kernel_is_booted_once_and_stays_when_it_is_confirmed() {
    for before in [None, Some(saved(OLD))] {
        let mut bench = bench();
        if let Some(before) = &before {
            let set = std::process::Command::new("grub-editenv")
                .arg(bench.at(BLOCK))
                .args(["set", before])
                .status();
            assert!(set.unwrap().success());
        }
        let with = bench.with("{}");
        let plan = bench.plan("reboot", &with).unwrap();
        assert!(
            plan.summary.contains(&format!("with kernel {NEW} once; {OLD} comes back")),
            "{}",
            plan.summary
        );
        let undo = bench.asks("{}");
        assert_eq!(block(&bench), [once(NEW), saved(OLD)]);
        bench.comes_up(NEW);
        let report = bench.apply("reboot", &with).unwrap();
        assert_eq!(report.changes.len(), 2, "{report:?}");
        assert_eq!(bench.host.script().unit_traits.booting, 0, "its services are waited for");
        let Some(Task::Change(task)) = find("reboot") else { panic!("it changes") };
        for _ in 0..2 {
            task.keep(&bench.context(&with), &undo).unwrap();
            // Where the first entry was booted it is again: the new kernel's.
            assert_eq!(block(&bench), before.iter().map(|_| saved(NEW)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_kernel_that_does_not_come_up_is_told_and_not_booted_again() {
    let mut bench = bench();
    let undo = bench.asks("{}");
    bench.comes_up(OLD);
    let with = bench.with("{}");
    let (message, _) = bench.failure("reboot", &with);
    assert_eq!(message, format!("kernel {NEW} did not come up: {OLD} runs again"));
    let report = bench.revert("reboot", &with, &undo).unwrap();
    assert_eq!(report.problems[0].code, "kernel_pinned");
    assert_eq!(block(&bench), [saved(OLD)]);
}

#[test]
fn the_way_back_restarts_into_the_former_kernel_once() {
    let mut bench = bench();
    let undo = bench.asks("{}");
    bench.comes_up(NEW);
    let with = bench.with("{}");
    bench.job.restarted_from = None;
    assert!(matches!(bench.revert("reboot", &with, &undo), Err(TaskError::Restart)));
    assert_eq!(block(&bench), [saved(OLD)]);
    bench.comes_up(NEW);
    let again = bench.revert("reboot", &with, &undo).unwrap_err().to_string();
    assert!(again.contains("was restarted for kernel") && again.contains(NEW), "no second one: {again}");
    bench.host.script().kernel = OLD.to_owned();
    let report = bench.revert("reboot", &with, &undo).unwrap();
    assert!(report.summary.contains(&format!("kernel {OLD} runs again")), "{}", report.summary);
}

#[test]
fn what_was_prepared_and_not_restarted_is_forgotten() {
    let mut bench = bench();
    let undo = bench.asks("{}");
    let with = bench.with("{}");
    bench.revert("reboot", &with, &undo).unwrap();
    assert_eq!(block(&bench), [""; 0]);
    // A restart of the agent alone is none of the machine.
    bench.job.restarted_from = Some(bench.host.script().boot_id.clone());
    assert!(matches!(bench.apply("reboot", &with), Err(TaskError::Restart)));
    assert_eq!(block(&bench), [once(NEW), saved(OLD)]);
}

#[test]
fn nothing_is_restarted_that_nobody_asked_for_or_that_could_not_come_back() {
    type Break = fn(&Bench);
    let menu = |from: &str, to: &str| MENU.replace(from, to);
    let breaks: [(&str, Break, &str); 7] = [
        ("{}", |b| b.host.script().unit_traits.systemd = false, "only systemd"),
        ("{}", |b| b.host.script().package_damage = Some("half".to_owned()), "not installed whole: half"),
        (
            "{}",
            |b| b.host.script().unit_traits.against_restart = vec!["dpkg: works".to_owned()],
            "dpkg: works",
        ),
        ("{}", |b| b.host.script().mounts[0].device = "/dev/mapper/vg-boot".to_owned(), "GRUB cannot write"),
        ("{}", |b| b.host.script().mounts.clear(), "is not known"),
        ("{}", |b| b.host.script().kernel = "6.1.0-7-amd64".to_owned(), "no entry of its own"),
        ("{}", |b| std::fs::remove_file(b.at("/boot/grub/grub.cfg")).unwrap(), ""),
    ];
    for (with, damage, expected) in breaks {
        let bench = bench();
        damage(&bench);
        let with = bench.with(with);
        if expected.is_empty() {
            // Without a menu, and without another kernel's image, what runs is what comes back.
            assert!(bench.plan("reboot", &with).unwrap().summary.contains("would be restarted; kernel"));
            bench.file("/boot/vmlinuz-6.9.9", b"");
        }
        let refused = bench.undo("reboot", &with).unwrap_err().to_string();
        let expected = if expected.is_empty() { "kernel 6.9.9 is installed" } else { expected };
        assert!(refused.contains(expected) && refused.contains("nothing was done"), "{expected}: {refused}");
        assert_eq!(block(&bench), [""; 0]);
    }
    let bench = bench();
    bench.file("/boot/grub/grub.cfg", menu("${saved_entry}", "0").as_bytes());
    let refused = bench.undo("reboot", &bench.with("{}")).unwrap_err().to_string();
    assert!(refused.contains("GRUB_DEFAULT is not") && refused.contains("fallback"), "{refused}");
    let undo = bench.undo("reboot", &bench.with(r#"{"fallback":"none"}"#)).unwrap();
    assert!(undo["restart"]["trial"].is_null() && !undo["restart"]["boot_id"].is_null());
    std::fs::remove_file(bench.at("/run/reboot-required")).unwrap();
    let with = bench.with("{}");
    let undo = bench.undo("reboot", &with).unwrap();
    assert!(undo.is_object() && undo["restart"].is_null(), "a guard wants something to hold: {undo}");
    assert_eq!(bench.apply("reboot", &with).unwrap().changes, []);
    assert_eq!(bench.revert("reboot", &with, &undo).unwrap().changes, []);
    let always = bench.with(r#"{"only_if":"always","fallback":"none"}"#);
    assert!(matches!(bench.apply("reboot", &always), Err(TaskError::Restart)));
}
