//! T34 with real nodes: a join token that was used with two keys holds its node, and an operator sees it.

use anyhow::{Context as _, Result, ensure};
use fleet_tests::sandbox::node::SandboxNode;
use fleet_tests::sandbox::{ENFORCE, Sandbox};
use fleet_tests::wait::{PATIENCE, wait_until};
use fleet_types::audit::Decision;
use fleet_types::view::{AuditItem, Page, RunView};
use fleetctl::dev::node_spec::nodes;

const WHY: &str = "held: its join token was used with two keys";

/// What status and a start say of the held node.
async fn is_told(sandbox: &Sandbox, name: &str) -> Result<()> {
    let status = sandbox.operator.good(&["status"]).await?;
    let row = format!("  {name}  {WHY}");
    ensure!(status.lines().any(|line| line == row), "the status lacks {row:?}: {status}");
    let start = ["run", "start", "short", "--node", name, "--yes", "--reason", "a story"];
    let said = sandbox.operator.ask(&start).await?;
    ensure!(said.code == Some(6) && said.err.contains("error[nodes-not-ready]"), "{said:?}");
    ensure!(said.err.contains(&format!("{name} ({WHY})")), "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn t34_a_token_that_two_machines_show_holds_the_node_until_somebody_looks() -> Result<()> {
    let mut sandbox = Sandbox::start(1).await?;
    let spec = nodes(3).remove(2);
    let token = sandbox.token(&spec).await?;
    let mut node = SandboxNode::lay_out(&sandbox.path("nodes"), &spec)?;
    node.configure(&sandbox.controller, ENFORCE)?;
    node.enrol(&token).await?;
    // Once more by mistake: it has its identity, and no second key is shown to the controller.
    let (status, out, err) = node.call(&["enrol"], &[("FLEET_JOIN_TOKEN", &token)]).await?;
    ensure!(status.success() && out.contains("is enrolled already with this token"), "{out}{err}");
    node.start(&[])?;
    sandbox.online(&spec.name).await?;

    let thief = SandboxNode::lay_out(&sandbox.path("thief"), &spec)?;
    thief.configure(&sandbox.controller, ENFORCE)?;
    let refused = thief.enrol(&token).await.err().context("the token was used")?.to_string();
    ensure!(refused.contains("this token is unknown, used or expired"), "{refused}");
    ensure!(!thief.identity().join("current").exists(), "nothing half-done");
    is_told(&sandbox, &spec.name).await?;
    let page: Page<AuditItem> =
        sandbox.operator.json(&["audit", "list", "--action", "node.hold", "--limit", "10"]).await?;
    let [leaf] = &page.items[..] else { anyhow::bail!("one hold was to be told: {page:?}") };
    assert_eq!(leaf.record.decision, Decision::Refused);
    assert_eq!(leaf.record.object, format!("node/{}", spec.name));
    // Neither comes in: the first one's link is closed and stays so, also by a controller that starts anew.
    let turned_away = |node: &SandboxNode| node.log().matches("node is held").count();
    wait_until("the held node to be turned away", PATIENCE, || turned_away(&node) > 0).await?;
    sandbox.controller.kill_and_restart().await?;
    sandbox.all_online().await?;
    let before = turned_away(&node);
    wait_until("it to be turned away again", PATIENCE, || turned_away(&node) > before).await?;
    ensure!(thief.enrol(&token).await.is_err(), "the thief is refused again");
    is_told(&sandbox, &spec.name).await?;
    sandbox.nodes.push(node);
    // The others go on.
    let other = sandbox.nodes[0].name.as_str();
    let start = ["run", "start", "short", "--node", other, "--yes", "--reason", "a story", "--no-wait"];
    let run = sandbox.operator.json::<RunView>(&start).await?.item.run;
    assert!(sandbox.ended(run).await?.item.state.is_terminal());
    sandbox.finish().await
}
