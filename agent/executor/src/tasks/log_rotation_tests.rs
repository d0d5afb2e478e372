//! Tests of `log.configure` and `log.rotate` on a scripted machine; those with the real program are in
//! `tests/rotation.rs`.

use super::TaskError;
use super::testing::Bench;
use crate::host::scripted::Answer;
use crate::host::{Activity, Exit};

const PROFILE: &str = r#"
    [service.fw]
    unit = "fw.service"
    [log.main]
    paths = ["/var/log/fw/*.log"]
    rotate = { every = "daily", keep = 30 }
    compress = true
    delay_compress = true
    missing_ok = true
    skip_empty = true
    create = { mode = "0640", user = "fw", group = "adm" }
    after = { reload = ["fw"] }
    [log.threats]
    paths = ["/var/log/fw/threats/*.log"]
    rotate = { every = "hourly", keep = 168 }
    [log.deep]
    paths = ["/var/log/**/*.log"]
    rotate = { every = "daily", keep = 1 }
    [log.plain]
    paths = ["/var/log/x"]
    compress_after = "1d"
"#;
const TIMER: &str = "/etc/systemd/system/logrotate.timer.d/fleet.conf";

fn bench() -> Bench {
    let bench = Bench::new(PROFILE);
    bench.host.answer("logrotate", [Answer::Ends(Exit::Status(0), String::new())]);
    let mut script = bench.host.script();
    script.units.insert("fw.service".into(), Activity::Active);
    script.units.insert("logrotate.timer".into(), Activity::Active);
    script.unit_traits.enabled.insert("logrotate.timer".into());
    script.unit_traits.systemd = true;
    drop(script);
    bench
}

fn text(bench: &Bench, path: &str) -> String {
    std::fs::read_to_string(bench.at(path)).unwrap_or_else(|_| "absent".to_owned())
}

#[test]
fn a_rule_says_every_switch_and_is_written_once() {
    let bench = bench();
    let with = bench.with(r#"{"logs":["main"]}"#);
    let plan = bench.plan("log.configure", &with).unwrap();
    assert_eq!(bench.names("/etc"), [""; 0], "a plan writes nothing");
    let undo = bench.undo("log.configure", &with).unwrap();
    let report = bench.apply("log.configure", &with).unwrap();
    assert_eq!(report.changes, plan.changes);
    let root = bench.at("/").display().to_string();
    let rule = text(&bench, "/etc/logrotate.d/fleet-main").replace(root.trim_end_matches('/'), "");
    let expected = "\"/var/log/fw/*.log\" {\n    daily\n    rotate 30\n    compress\n    delaycompress\n    \
        missingok\n    notifempty\n    nodateext\n    noolddir\n    nomail\n    create 0640 fw adm\n    \
        sharedscripts\n    postrotate\n    if systemctl -q is-active 'fw.service'; then systemctl reload \
        'fw.service'; fi\n    endscript\n}\n";
    assert!(rule.ends_with(expected), "{rule}");
    assert_eq!(bench.names("/etc/logrotate.d"), ["fleet-main"]);
    assert_eq!(text(&bench, TIMER), "absent", "no rule is hourly");
    assert!(bench.apply("log.configure", &with).unwrap().changes.is_empty());
    // What somebody altered is shown, and written anew.
    bench.file("/etc/logrotate.d/fleet-main", b"\"/x\" {\n weekly\n}\n");
    let plan = bench.plan("log.configure", &with).unwrap();
    assert_eq!(plan.changes[0].before, "\"/x\" {; weekly; }");
    bench.apply("log.configure", &with).unwrap();
    bench.revert("log.configure", &with, &undo).unwrap();
    assert_eq!(bench.names("/etc/logrotate.d"), [""; 0]);
    assert!(bench.revert("log.configure", &with, &undo).unwrap().changes.is_empty());
}

#[test]
fn an_hourly_rule_brings_its_timer_and_takes_it_along() {
    let bench = bench();
    let with = bench.with(r#"{"logs":["main","threats"]}"#);
    bench.host.script().units.insert("logrotate.timer".into(), Activity::Inactive);
    bench.host.script().unit_traits.enabled.clear();
    let undo = bench.undo("log.configure", &with).unwrap();
    let plan = bench.plan("log.configure", &with).unwrap();
    let report = bench.apply("log.configure", &with).unwrap();
    assert_eq!(report.changes, plan.changes);
    assert_eq!(report.changes.len(), 4, "two rules, the drop-in, the timer");
    assert!(text(&bench, TIMER).ends_with("OnCalendar=\nOnCalendar=hourly\nAccuracySec=1m\n"));
    let calls = std::mem::take(&mut bench.host.script().unit_calls);
    assert_eq!(calls, ["load files", "enable logrotate.timer", "start logrotate.timer"]);
    assert!(bench.apply("log.configure", &with).unwrap().changes.is_empty());
    assert_eq!(bench.host.script().unit_calls, [""; 0]);
    bench.revert("log.configure", &with, &undo).unwrap();
    assert_eq!(text(&bench, TIMER), "absent");
    let calls = std::mem::take(&mut bench.host.script().unit_calls);
    assert_eq!(calls, ["load files", "disable logrotate.timer", "stop logrotate.timer"]);
}

#[test]
fn without_systemd_it_is_said_that_no_timer_runs() {
    let bench = bench();
    bench.host.script().unit_traits.systemd = false;
    let report = bench.apply("log.configure", &bench.with(r#"{"logs":["main","threats"]}"#)).unwrap();
    assert!(report.summary.ends_with("without systemd only log.rotate rotates"), "{}", report.summary);
    assert_eq!(text(&bench, TIMER), "absent");
    assert!(!text(&bench, "/etc/logrotate.d/fleet-main").contains("postrotate"));
}

#[test]
fn what_logrotate_refuses_is_not_put_in_place() {
    let bench = bench();
    let refusal = "error: fleet-main~:8 unknown user 'fw'\n";
    bench.host.answer("logrotate", [Answer::Ends(Exit::Status(0), refusal.into())]);
    bench.file("/etc/logrotate.d/fleet-main", b"former\n");
    let (message, _) = bench.failure("log.configure", &bench.with(r#"{"logs":["main","threats"]}"#));
    assert!(message.contains("unknown user 'fw'") && message.ends_with("nothing was changed"), "{message}");
    assert_eq!(bench.names("/etc/logrotate.d"), ["fleet-main"]);
    assert_eq!(text(&bench, "/etc/logrotate.d/fleet-main"), "former\n");
}

#[test]
fn a_rule_that_cannot_be_is_refused_by_name() {
    let bench = bench();
    bench.host.script().unit_traits.no_reload.insert("fw.service".into());
    for (id, word) in
        [("deep", "does not take the path"), ("plain", "no `rotate`"), ("main", "cannot be reloaded")]
    {
        let with = bench.with(&format!(r#"{{"logs":["{id}"]}}"#));
        let Err(TaskError::Declared(message)) = bench.plan("log.configure", &with) else { panic!("{id}") };
        assert!(message.contains(word), "{message}");
    }
    let with = bench.with(r#"{"logs":["threats"]}"#);
    bench.host.script().programs.clear();
    let (message, _) = bench.failure("log.configure", &with);
    assert!(message.contains("logrotate"), "{message}");
    bench.host.script().units.remove("logrotate.timer");
    let error = bench.plan("log.configure", &with).unwrap_err();
    assert!(error.to_string().contains("needs logrotate.timer"), "{error}");
}

#[test]
fn a_log_that_is_said_to_be_rotated_and_is_not_is_a_failure() {
    let bench = bench();
    let with = bench.with(r#"{"logs":["main"],"only_due":false}"#);
    let (message, _) = bench.failure("log.rotate", &with);
    assert!(message.contains("run log.configure first"), "{message}");
    bench.apply("log.configure", &with).unwrap();
    bench.file("/var/log/fw/a.log", b"text");
    let log = bench.at("/var/log/fw/a.log").display().to_string();
    let said = format!("considering log {log}\n  log needs rotating\n");
    bench.host.answer("logrotate", [Answer::Ends(Exit::Status(0), said)]);
    assert_eq!(bench.plan("log.rotate", &with).unwrap().changes[0].subject, "/var/log/fw/a.log");
    let (message, _) = bench.failure("log.rotate", &with);
    assert_eq!(message, "/var/log/fw/a.log is due, and was not rotated");
    let started = bench.host.script().started.last().cloned().unwrap();
    assert_eq!(started[..3], ["logrotate", "-v", "-f"]);
    bench
        .host
        .answer("logrotate", [Answer::Ends(Exit::Status(3), "error: state is already locked\n".into())]);
    let Err(TaskError::Failed { retry, message, .. }) = bench.apply("log.rotate", &with) else {
        panic!("locked")
    };
    assert_eq!(retry, Some(super::RetryKind::LockBusy), "{message}");
}
