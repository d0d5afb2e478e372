//! Starting, waiting for, showing and stopping runs.

use fleet_types::digest::Digest;
use fleet_types::report::{KeptOutput, StepReport};
use fleet_types::request::Verb;
use fleet_types::run::RunState;

use crate::documents::{PROCEDURE, applied};
use crate::fixtures::{HOSTILE, is_harmless};
use crate::script::Watch;
use crate::world::World;

fn started(world: &World) -> usize {
    world.state(|state| state.started.len())
}

#[test]
fn nothing_starts_without_targets_and_a_yes() {
    let world = World::signed_in();
    applied(&world, true);
    for (args, code, word) in [
        (&["run", "start", "look"][..], 2, "error[no-target]"),
        (&["run", "start", "look", "-l", "site=nowhere"], 4, "error[no-match]"),
        (&["run", "start", "look", "--node", "fw-9"], 4, "error[not-found]"),
        (&["run", "start", "look", "--node", "fw-1", "--all"], 2, "exclude each other"),
        (&["run", "start", "none", "--all"], 4, "procedure \"none\" does not exist"),
        (&["run", "start", "look", "--all", "--param", "dept=2", "--yes"], 2, "did you mean \"depth\"?"),
        (&["run", "start", "look", "--site", "fra1"], 5, "error[confirmation-needed]"),
        (&["run", "start", "look", "--site", "fra1", "--no-input"], 5, "fix: add --yes"),
        // All nodes and something changes: yes is not enough.
        (&["run", "start", "look", "--all", "--yes"], 5, "--confirm prod --reason TEXT"),
        (&["run", "start", "look", "--all", "--yes", "--confirm", "prod"], 5, "a reason is required"),
        (&["run", "start", "look", "--node", "fw-1", "--valid-for", "25h", "--yes"], 2, "expected 1s to 24h"),
        // An unset variable, and a selector that happens to match everything, are all nodes too.
        (&["run", "start", "look", "-l", "", "--yes"], 2, "--selector is empty"),
        (&["run", "start", "look", "-l", "ha_group", "--yes"], 5, "--confirm prod --reason TEXT"),
        (&["run", "start", "look", "--node", "fw-1,fw-2", "--yes"], 5, "it changes all nodes of the fleet"),
    ] {
        let ended = world.run(args);
        assert_eq!(ended.code, code, "{args:?}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains(word), "{args:?}: {}", ended.err);
    }
    let ended = world.run(&["run", "start", "look", "--all", "--dry-run"]);
    assert!(
        ended.out.contains("would start \"look\" on 2 nodes at 2 sites, at most 1 at once"),
        "{}",
        ended.out
    );
    let ended = world.run(&["run", "start", "look", "--all", "--dry-run", "-o", "json"]);
    let preview: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (preview["procedure"].as_str(), preview["nodes"].as_array().unwrap().len()),
        (Some("look"), 2)
    );
    assert_eq!(started(&world), 0);
    let ended = world.run(&["run", "start", "look", "--all", "--confirm", "prod", "--reason", "drill"]);
    assert_eq!((ended.code, started(&world)), (0, 1), "{}", ended.err);
    world.state(|state| {
        let request = &state.started[0];
        assert_eq!((request.nodes.count, request.reason.as_str(), request.verb), (2, "drill", Verb::Run));
        assert_eq!((request.selector.as_str(), request.max_parallel), ("", 2));
    });
}

#[test]
fn the_flag_that_chose_the_nodes_makes_nothing_severe() {
    let world = World::signed_in();
    applied(&world, true);
    // The others are held, or not enrolled: what is hit is two nodes of many.
    world.state(|state| state.enrolled = 400);
    let ended = world.run(&["run", "start", "look", "--all", "--yes"]);
    assert_eq!((ended.code, started(&world)), (0, 1), "{}", ended.err);
    // Whoever names the fleet need not know how many it will be.
    let ended = world.run(&["run", "start", "look", "--all", "--confirm", "prod"]);
    assert_eq!((ended.code, started(&world)), (0, 2), "{}", ended.err);
    let ended = world.run(&["run", "start", "look", "--all", "--confirm", "prd"]);
    assert_eq!((ended.code, started(&world)), (5, 2), "{}", ended.err);
}

#[test]
fn the_exit_code_is_that_of_the_runs_end() {
    let world = World::signed_in();
    applied(&world, false);
    for (end, code) in
        [(RunState::Succeeded, 0), (RunState::Partly, 3), (RunState::Failed, 7), (RunState::Cancelled, 7)]
    {
        world.state(|state| state.end = end);
        let ended = world.run(&["run", "start", "look", "--all", "--yes", "--wait", "--param", "depth=2"]);
        assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
        assert!(ended.out.contains(end.as_str()), "{}", ended.out);
        assert!(
            ended.err.contains("fw-1  ") && is_harmless(&ended.err) && is_harmless(&ended.out),
            "{}",
            ended.err
        );
    }
    let json = world.run(&["run", "plan", "look", "--node", "fw-1", "-o", "json", "-q"]);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, value["verb"].as_str(), json.err.as_str()), (7, Some("plan"), ""));
    assert!(value["jobs"].is_array() && value["schema"] == "fleet/v1/run", "{value}");
}

#[test]
fn a_wait_outlives_the_controller_and_has_an_end_of_its_own() {
    let world = World::signed_in();
    applied(&world, false);
    let ended = world.run(&["run", "start", "look", "--node", "fw-1", "--yes", "-o", "name"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let run = ended.out.trim();
    world.state(|state| state.watches.push_back(Watch::Breaks));
    let ended = world.run(&["run", "wait", run]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(
        ended.err.contains("lost the controller") && ended.err.contains("the controller is back"),
        "{}",
        ended.err
    );
    world.state(|state| state.watches.push_back(Watch::Hangs));
    let ended = world.run(&["run", "wait", run, "--timeout", "200ms"]);
    assert_eq!(ended.code, 8, "{}", ended.err);
    assert!(ended.err.contains("error[still-running]") && ended.err.contains("it goes on"), "{}", ended.err);
    let ended = world.run(&["run", "cancel", run]);
    assert_eq!(
        (ended.code, world.state(|state| state.cancelled.clone())),
        (0, vec![run.to_owned()]),
        "{}",
        ended.err
    );
    assert_eq!(world.run(&["run", "show", "r-0000000009"]).code, 4);
}

#[test]
fn a_task_is_a_signed_procedure_of_one_step_and_asks_only_when_it_changes() {
    let world = World::signed_in();
    applied(&world, false);
    let ended = world.run(&["run", "task", "health.check", "--with", "checks=load", "--all"]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    assert!(ended.out.contains("fw-1") && ended.out.contains("fw-2"), "it waits: {}", ended.out);
    world.state(|state| {
        let (request, made) = (&state.started[0], &state.made[0]);
        assert_eq!((request.verb, request.max_parallel, request.nodes.count), (Verb::Run, 2, 2));
        assert_eq!(
            (made.name.as_str(), made.profile.as_str(), made.changes),
            ("task.health.check", "edge", false)
        );
        assert_eq!(made.steps[0].uses.as_deref(), Some("health.check"));
        assert!(state.documents.len() == 2, "nothing is applied");
    });
    for (args, code, word) in [
        (&["run", "task", "health.check", "--with", "checks=load"][..], 2, "error[no-target]"),
        (&["run", "task", "health.check", "--with", "checks=laod", "--all"], 2, "did you mean \"load\"?"),
        (&["run", "task", "helth.check", "--all"], 4, "did you mean \"health.check\"?"),
        (&["run", "task", "hardening.run", "--all"], 6, "error[not-built]"),
        (
            &["run", "task", "command.run", "--with", "command=set", "--all"],
            5,
            "it changes all nodes of the fleet",
        ),
        (&["run", "task", "command.run", "--with", "command=set", "--node", "fw-1"], 5, "fix: add --yes"),
    ] {
        let ended = world.run(args);
        assert_eq!(ended.code, code, "{args:?}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains(word), "{args:?}: {}", ended.err);
    }
    assert_eq!(started(&world), 1);
    let set = ["run", "task", "command.run", "--with", "command=set", "--node", "fw-1"];
    let plan = world.run(&[&set[..], &["--plan", "--no-wait"]].concat());
    assert_eq!(plan.code, 0, "{}", plan.err);
    world.state(|state| assert_eq!((state.started[1].verb, state.made[1].changes), (Verb::Plan, true)));
}

#[test]
fn an_older_document_and_another_node_are_not_signed_for() {
    let world = World::signed_in();
    applied(&world, false);
    let start = ["run", "start", "look", "--node", "fw-1", "--yes"];
    assert_eq!(world.run(&start).code, 0);
    let older = world.state(|state| state.documents.clone());
    let procedure =
        world.file("look.toml", &PROCEDURE.replace("CHANGES", "false").replace("Look", "Look well"));
    assert_eq!(world.run(&["config", "apply", &procedure, "--yes", "--reason", "newer"]).code, 0);
    assert_eq!(world.run(&start).code, 0);
    // The controller shows what was signed before, with everything right but its age.
    world.state(|state| state.documents = older);
    let ended = world.run(&start);
    assert_eq!((ended.code, started(&world)), (12, 2), "{}", ended.err);
    assert!(ended.err.contains("error[document-went-back]"), "{}", ended.err);
    assert_eq!(world.run(&[&start[..], &["--accept-changed"]].concat()).code, 0);
    world.state(|state| state.swapped = true);
    let ended = world.run(&start);
    assert_eq!((ended.code, started(&world)), (12, 3), "{}", ended.err);
    assert!(ended.err.contains("error[node-changed]: \"fw-1\""), "{}", ended.err);
}

#[test]
fn what_was_run_stands_in_the_run() {
    let world = World::signed_in();
    applied(&world, false);
    let start = ["run", "start", "look", "--all", "--yes", "--param", "depth=2", "-o", "name"];
    let run = world.run(&start).out.trim().to_owned();
    let shown = world.run(&["run", "show", &run]);
    assert!(shown.out.contains("look revision 1") && shown.out.contains("depth=2"), "{}", shown.out);
    let json = world.run(&["run", "show", &run, "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((value["procedure_revision"].as_u64(), value["params"]["depth"].as_u64()), (Some(1), Some(2)));
}

#[test]
fn output_is_one_document_where_one_is_asked_for() {
    let world = World::signed_in();
    world
        .state(|state| state.output = vec![("one".into(), b"a\n".to_vec()), ("two".into(), b"b\n".to_vec())]);
    let ended = world.run(&["run", "logs", "r-0000000005/fw-1", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(value["items"][1]["text"], "b\n", "{}", ended.out);
    let lines = world.run(&["run", "logs", "r-0000000005/fw-1", "-o", "jsonl", "-f"]);
    assert_eq!(lines.out.lines().count(), 2, "{}", lines.out);
    assert_eq!(world.run(&["run", "logs", "r-0000000005/fw-1", "-o", "yaml", "-f"]).code, 2);
}

#[test]
fn output_is_resumed_where_the_connection_broke() {
    let world = World::signed_in();
    world.state(|state| {
        state.output = vec![
            ("one".into(), b"first\n".to_vec()),
            ("two".into(), format!("second {HOSTILE}").into_bytes()),
        ];
        state.output_breaks_after = Some(1);
    });
    let ended = world.run(&["run", "logs", "r-0000000005/fw-1", "--follow"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("lost the controller") && ended.err.contains("resumed"), "{}", ended.err);
    assert_eq!(ended.out.matches("first").count(), 1, "{}", ended.out);
    assert!(
        ended.out.starts_with("--> one\nfirst\n--> two\nsecond ") && is_harmless(&ended.out),
        "{}",
        ended.out
    );
}

#[test]
fn output_that_the_nodes_report_does_not_bear_is_told_and_exits_with_12() {
    const CUT: &[u8] = b"head\n[4900 bytes left out]\ntail";
    let world = World::signed_in();
    world.state(|state| {
        state.output = vec![("one".into(), b"first\n".to_vec()), ("two".into(), CUT.to_vec())];
        state.edit_report = |steps| {
            let two = steps.iter_mut().find(|step| step.id == "two").unwrap();
            two.output = Some(Digest::of(b"all of it"));
            two.output_kept = Some(KeptOutput { left_out: 4900, digest: Digest::of(CUT) });
        };
    });
    let good = world.run(&["run", "logs", "r-0000000005/fw-1"]);
    assert_eq!((good.code, good.err.as_str()), (0, ""), "{}", good.err);
    // What is printed cannot say of itself that it was cut.
    world.state(|state| {
        state.edit_report = |steps| {
            steps.retain(|step| step.id != "one");
            steps.iter_mut().find(|step| step.id == "two").unwrap().output = Some(Digest::of(b"all of it"));
        };
    });
    let forged = world.run(&["run", "logs", "r-0000000005/fw-1"]);
    assert_eq!(forged.code, 12, "{}", forged.err);
    for step in ["one", "two"] {
        let told = format!("fw-1: the output of step {step} does not match the report");
        assert!(forged.err.contains(&told), "{}", forged.err);
    }
}

#[test]
fn output_that_is_withheld_or_that_no_report_knows_is_told_and_exits_with_12() {
    let world = World::signed_in();
    world.state(|state| {
        state.output = vec![("one".into(), b"first\n".to_vec())];
        state.edit_report = |steps| {
            let one = steps.iter_mut().find(|step| step.id == "one").unwrap();
            let withheld = StepReport { id: "two".into(), ..one.clone() };
            one.output = None;
            steps.push(withheld);
        };
    });
    let ended = world.run(&["run", "logs", "r-0000000005/fw-1"]);
    assert_eq!(ended.code, 12, "{}", ended.err);
    for told in
        ["the report says nothing of the output of step one", "step two has output by the report, and none"]
    {
        assert!(ended.err.contains(told), "{}", ended.err);
    }
}
