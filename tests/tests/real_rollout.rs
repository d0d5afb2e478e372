//! A run that follows the rings of a policy, with a real controller and real agents: halted by its first ring or by its
//! gate, gone on with by an operator, over a kill of the controller.

use anyhow::{Context as _, Result};
use fleet_tests::sandbox::Sandbox;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::run::{RingState, RunState, Verdict};
use fleet_types::view::RunView;

const CANARY: &str = "fw-fra1-02";
const POLICY: &str = r#"
schema = "fleet/v1"
kind = "rollout_policy"
name = "careful"
[[ring]]
name = "canary"
selector = "ring=canary"
soak = "2s"
success_percent = 100
[[ring]]
name = "rest"
selector = "product=zehrasec"
success_percent = 100
[failure]
max_failed_nodes = 0
action = "pause"
rollback_node = true
"#;

/// What its gate looks at has its state in this file of a node.
const DATABASE: &str = "var/lib/zehrasec/events.db";
const GATE: &str = r#"
[gate.health]
uses = "health.check"
with = { checks = ["database"], stable_for = "1s" }
"#;

/// Applies this policy as `careful`.
async fn apply(sandbox: &Sandbox, policy: &str) -> Result<()> {
    let file = sandbox.path("careful.toml");
    std::fs::write(&file, policy)?;
    let file = file.to_str().context("a path that is no text")?;
    sandbox.operator.good(&["config", "apply", file, "--yes"]).await?;
    Ok(())
}

/// Starts a procedure that changes every node, by the policy.
async fn start(sandbox: &Sandbox) -> Result<RunView> {
    let start = ["run", "start", "short", "--all", "--policy", "careful", "--confirm", "dev"];
    let how = ["--reason", "a story", "--no-wait"];
    sandbox.operator.json(&[start.as_slice(), &how].concat()).await
}

/// Waits until the first ring is in this state.
async fn first_ring_is(sandbox: &Sandbox, run: &str, state: RingState) -> Result<RunView> {
    wait_for(&format!("the first ring to be {state}"), PATIENCE, async || {
        let view: RunView = sandbox.operator.json(&["run", "show", run]).await?;
        let first = view.rings.first().context("no rings are shown")?.state;
        Ok((first == state).then_some(view))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_halts_at_its_canary_and_goes_on_when_an_operator_says_so() -> Result<()> {
    let mut sandbox = Sandbox::start(4).await?;
    apply(&sandbox, POLICY).await?;
    // Its backup has nothing to read: the canary fails.
    let root = sandbox.node(CANARY)?.root();
    for folder in ["var/lib/zehrasec/config", "etc/zehrasec"] {
        std::fs::remove_dir_all(root.join(folder))?;
    }
    let begun = start(&sandbox).await?;
    let run = begun.item.run.to_string();
    let halted = first_ring_is(&sandbox, &run, RingState::Halted).await?;
    assert!(!halted.rings[0].because.is_empty(), "{halted:?}");
    let status = sandbox.operator.good(&["rollout", "status", &run]).await?;
    assert!(status.contains("canary") && status.contains("halted"), "{status}");
    assert!(sandbox.nodes.iter().all(|node| node.updates() == 0), "nobody else began");

    sandbox.operator.good(&["rollout", "resume", &run, "--reason", "known", "--yes"]).await?;
    // What was said outlives the controller, and so does what has soaked.
    sandbox.controller.kill().await?;
    sandbox.controller.start().await?;
    sandbox.all_online().await?;
    let ended = sandbox.ended(begun.item.run).await?;
    assert_eq!(ended.item.state, RunState::Partly, "{ended:?}");
    for node in &sandbox.nodes {
        assert_eq!(node.updates(), usize::from(node.name != CANARY), "{}", node.name);
    }
    let log = sandbox.operator.good(&["audit", "list", "--action", "rollout.resume", "--limit", "5"]).await?;
    assert!(log.contains("known") || log.contains("rollout.resume"), "{log}");
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_does_not_hold_on_the_canary_keeps_the_others_as_they_are() -> Result<()> {
    let mut sandbox = Sandbox::start(4).await?;
    apply(&sandbox, &format!("{POLICY}{GATE}")).await?;
    // The job itself goes well there; a check of the profile does not.
    let database = sandbox.node(CANARY)?.root().join(DATABASE);
    let aside = database.with_extension("aside");
    std::fs::rename(&database, &aside)?;
    let begun = start(&sandbox).await?;
    let run = begun.item.run.to_string();
    let halted = first_ring_is(&sandbox, &run, RingState::Halted).await?;
    let expected = format!("{CANARY}: gate health: check database: ");
    assert!(halted.rings[0].because.starts_with(&expected), "{halted:?}");
    let gates = halted.rings[0].gates.clone().context("its gates are not shown")?;
    assert_eq!((gates.ids, gates.verdict), (vec!["health".to_owned()], Some(Verdict::Fail)));
    assert_eq!(halted.rings[1].gates, None, "nothing waits for the gates of the last ring");
    let status = sandbox.operator.good(&["rollout", "status", &run]).await?;
    assert!(status.contains("GATES") && status.contains("fail"), "{status}");
    for node in &sandbox.nodes {
        assert_eq!(node.updates(), usize::from(node.name == CANARY), "{}", node.name);
    }

    // What was said outlives the controller. It is mended, and judged anew.
    sandbox.controller.kill().await?;
    sandbox.controller.start().await?;
    sandbox.all_online().await?;
    std::fs::rename(&aside, &database)?;
    sandbox.operator.good(&["rollout", "resume", &run, "--reason", "mended", "--yes"]).await?;
    let ended = sandbox.ended(begun.item.run).await?;
    assert_eq!(ended.item.state, RunState::Succeeded, "{ended:?}");
    assert_eq!(ended.rings[0].gates.as_ref().and_then(|gates| gates.verdict), Some(Verdict::Pass));
    for node in &sandbox.nodes {
        assert_eq!(node.updates(), 1, "{}: a look at the gates carries nothing out again", node.name);
    }
    let log = sandbox.operator.good(&["audit", "list", "--action", "job.gates", "--limit", "5"]).await?;
    assert!(log.contains("fail: gate") && log.contains("pass"), "{log}");
    sandbox.finish().await
}
