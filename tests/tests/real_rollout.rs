//! A run that follows the rings of a policy, with a real controller and real agents: halted by its first ring, gone on with by
//! an operator, over a kill of the controller.

use anyhow::{Context as _, Result};
use fleet_tests::sandbox::Sandbox;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::run::{RingState, RunState};
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
    let file = sandbox.path("careful.toml");
    std::fs::write(&file, POLICY)?;
    let file = file.to_str().context("a path that is no text")?.to_owned();
    sandbox.operator.good(&["config", "apply", &file, "--yes"]).await?;
    // Its backup has nothing to read: the canary fails.
    let root = sandbox.node(CANARY)?.root();
    for folder in ["var/lib/zehrasec/config", "etc/zehrasec"] {
        std::fs::remove_dir_all(root.join(folder))?;
    }
    let start = ["run", "start", "short", "--all", "--policy", "careful", "--confirm", "dev"];
    let how = ["--reason", "a story", "--no-wait"];
    let begun: RunView = sandbox.operator.json(&[start.as_slice(), &how].concat()).await?;
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
