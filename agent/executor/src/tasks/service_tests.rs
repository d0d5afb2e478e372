//! Tests of `service.start`, `service.stop` and `service.restart` on a scripted machine.

use fleet_types::report::TaskReport;

use super::TaskError;
use super::testing::{Bench, With};
use crate::host::{Activity, Host as _};

const PROFILE: &str = "[service.a]\nunit = \"a.service\"\n[service.b]\nunit = \"b.service\"\n\
    [service.c]\nunit = \"c.service\"\n";

fn bench(states: [Activity; 3]) -> (Bench, With) {
    let bench = Bench::new(PROFILE);
    for (unit, state) in ["a.service", "b.service", "c.service"].into_iter().zip(states) {
        bench.host.script().units.insert(unit.to_owned(), state);
    }
    let with = bench.with(r#"{"services":["a","b","c"]}"#);
    (bench, with)
}

fn calls(bench: &Bench) -> Vec<String> {
    std::mem::take(&mut bench.host.script().unit_calls)
}

fn states(bench: &Bench) -> Vec<Activity> {
    bench.host.script().units.values().copied().collect()
}

fn subjects(report: &TaskReport) -> Vec<&str> {
    report.changes.iter().map(|change| change.subject.as_str()).collect()
}

use Activity::{Active, Failed, Inactive};

#[test]
fn starts_in_order_what_is_down_and_the_way_back_stops_only_that() {
    let (bench, with) = bench([Inactive, Active, Failed]);
    let plan = bench.plan("service.start", &with).unwrap();
    let undo = bench.undo("service.start", &with).unwrap();
    assert_eq!(calls(&bench), [""; 0], "looking starts nothing");
    let report = bench.apply("service.start", &with).unwrap();
    assert_eq!(report.changes, plan.changes, "what was planned, and nothing else");
    assert_eq!(subjects(&report), ["a", "c"]);
    assert_eq!(calls(&bench), ["start a.service", "start c.service"]);
    assert!(bench.apply("service.start", &with).unwrap().changes.is_empty());
    let report = bench.revert("service.start", &with, &undo).unwrap();
    assert_eq!(subjects(&report), ["c", "a"]);
    assert_eq!(calls(&bench), ["stop c.service", "stop a.service"]);
    assert_eq!(states(&bench), [Inactive, Active, Inactive]);
    assert!(bench.revert("service.start", &with, &undo).unwrap().changes.is_empty());
}

#[test]
fn stops_in_reverse_order_and_the_way_back_starts_only_what_ran() {
    let (bench, with) = bench([Active, Inactive, Active]);
    let plan = bench.plan("service.stop", &with).unwrap();
    let undo = bench.undo("service.stop", &with).unwrap();
    let report = bench.apply("service.stop", &with).unwrap();
    assert_eq!(report.changes, plan.changes);
    assert_eq!(calls(&bench), ["stop c.service", "stop a.service"]);
    assert!(bench.apply("service.stop", &with).unwrap().changes.is_empty());
    // Its undo survives the step: what it says is from before it, also after a crash.
    bench.revert("service.stop", &with, &undo).unwrap();
    assert_eq!(calls(&bench), ["start a.service", "start c.service"]);
    assert_eq!(states(&bench), [Active, Inactive, Active]);
    assert!(bench.revert("service.stop", &with, &undo).unwrap().changes.is_empty());
}

#[test]
fn one_that_fails_and_is_started_again_and_again_is_stopped_too() {
    let (bench, with) = bench([Failed, Inactive, Inactive]);
    let report = bench.apply("service.stop", &with).unwrap();
    assert!(report.changes.is_empty(), "it did not run");
    assert_eq!(calls(&bench), ["stop a.service"]);
}

#[test]
fn a_restart_is_done_once_by_a_step_that_is_taken_up_again() {
    let (mut bench, with) = bench([Active, Active, Active]);
    for unit in ["a.service", "b.service", "c.service"] {
        let now = bench.host.script().now;
        bench.host.script().unit_traits.started.insert(unit.to_owned(), now);
    }
    bench.host.clock().pause(std::time::Duration::from_mins(1), &bench.cancel);
    let undo = bench.undo("service.restart", &with).unwrap();
    bench.host.script().unit_traits.stuck.insert("b.service".to_owned());
    let (message, report) = bench.failure("service.restart", &with);
    assert!(message.starts_with("service b: unit b.service: its stop did not end"), "{message}");
    assert_eq!(subjects(&report), ["a"]);
    calls(&bench);
    bench.host.script().unit_traits.stuck.clear();
    // The same try again, as after a crash: a has been restarted.
    let report = bench.apply("service.restart", &with).unwrap();
    assert_eq!(subjects(&report), ["a", "b", "c"]);
    assert_eq!(calls(&bench), ["stop b.service", "start b.service", "stop c.service", "start c.service"]);
    // Another try is another restart.
    bench.step.try_number = 2;
    bench.apply("service.restart", &with).unwrap();
    assert_eq!(calls(&bench).len(), 6);
    assert!(bench.revert("service.restart", &with, &undo).unwrap().changes.is_empty(), "all run as before");
}

#[test]
fn what_stays_down_after_a_restart_is_started_on_the_way_back() {
    let (bench, with) = bench([Active, Inactive, Active]);
    let undo = bench.undo("service.restart", &with).unwrap();
    bench.host.script().unit_traits.short_lived.insert("c.service".to_owned());
    let (message, _) = bench.failure("service.restart", &with);
    assert_eq!(message, "service c: unit c.service: it was restarted, and is failed 1 s later");
    let error = bench.revert("service.restart", &with, &undo).unwrap_err();
    assert_eq!(error.to_string(), "not as before: c", "b is stopped again all the same");
    assert_eq!(states(&bench), [Active, Inactive, Failed]);
    bench.host.script().unit_traits.short_lived.clear();
    bench.revert("service.restart", &with, &undo).unwrap();
    assert_eq!(states(&bench), [Active, Inactive, Active]);
}

#[test]
fn what_cannot_be_done_is_refused_by_name_before_anything_is_touched() {
    let (bench, with) = bench([Inactive, Inactive, Active]);
    bench.host.script().units.remove("b.service");
    bench.host.script().unit_traits.masked.insert("a.service".to_owned());
    let message = bench.plan("service.start", &with).unwrap_err().to_string();
    assert_eq!(
        message,
        "service a: a.service is masked; service b: unit b.service is not installed; nothing was touched"
    );
    for action in ["service.start", "service.restart", "service.stop"] {
        assert!(bench.undo(action, &with).is_err(), "{action}");
        let (_, report) = bench.failure(action, &with);
        assert!(report.problems.iter().any(|p| p.code == "unit_absent" && !p.remedy.is_empty()), "{action}");
    }
    assert_eq!(calls(&bench), [""; 0]);
}

#[test]
fn no_unit_is_stopped_that_policy_has_not_judged() {
    let (bench, _) = bench([Active, Active, Active]);
    let only_a = bench.with(r#"{"services":["a"]}"#);
    let both = bench.with(r#"{"services":["a","b"]}"#);
    bench.host.script().unit_traits.needed_by.insert("a.service".into(), vec!["b.service".into()]);
    for action in ["service.stop", "service.restart"] {
        let (message, report) = bench.failure(action, &only_a);
        assert!(message.contains("b.service need a.service"), "{message}");
        assert_eq!(report.problems[0].code, "unit_needed");
    }
    assert!(bench.apply("service.start", &only_a).unwrap().changes.is_empty(), "a start stops nobody");
    bench.apply("service.stop", &both).unwrap();
    assert_eq!(calls(&bench), ["stop b.service", "stop a.service"]);
    // Another name of a unit would go round the list of protected ones.
    bench.host.script().unit_traits.aliases.insert("c.service".into(), "ssh.service".into());
    let (message, _) = bench.failure("service.stop", &bench.with(r#"{"services":["c"]}"#));
    assert!(message.contains("c.service is another name of ssh.service"), "{message}");
    assert_eq!(calls(&bench), [""; 0]);
}

#[test]
fn a_cancel_ends_between_two_services_and_says_what_was_done() {
    let (bench, with) = bench([Inactive, Inactive, Inactive]);
    bench.cancel.cancel();
    let Err(TaskError::Cancelled(report)) = bench.apply("service.start", &with) else { panic!("cancelled") };
    assert!(report.changes.is_empty() && calls(&bench).is_empty());
}
