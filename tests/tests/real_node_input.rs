//! Bad input at a real agent: a state that is in use, a token that was used, an identity of another fleet.

use anyhow::Result;
use fleet_tests::sandbox::Sandbox;
use fleet_tests::sandbox::node::SandboxNode;
use fleet_tests::wait::{PATIENCE, wait_until};
use fleetctl::dev::node_spec::nodes;

#[tokio::test(flavor = "multi_thread")]
async fn a_state_in_use_and_a_used_token_are_refused_by_name() -> Result<()> {
    let sandbox = Sandbox::start(1).await?;
    let (status, _, err) = sandbox.nodes[0].call(&["run"], &[]).await?;
    assert_eq!(status.code(), Some(75), "{err}");
    assert!(err.contains("held by another executor; stop that one first"), "{err}");
    let specs = nodes(3);
    let token = sandbox.token(&specs[2]).await?;
    let mut others = Vec::new();
    for spec in &specs[1..] {
        let other = SandboxNode::lay_out(&sandbox.path("others"), spec)?;
        other.configure(&sandbox.controller, "")?;
        others.push(other);
    }
    others[0].enrol(&token).await?;
    let error = others[1].enrol(&token).await.unwrap_err().to_string();
    assert!(error.contains("token"), "{error}");
    assert!(!others[1].identity().join("current").exists(), "nothing half-done");
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_fleet_gets_no_link_and_says_so() -> Result<()> {
    let (mut one, two) = (Sandbox::start(1).await?, Sandbox::without_nodes().await?);
    let node = &mut one.nodes[0];
    node.stop().await?;
    node.configure(&two.controller, "")?;
    node.start(&[])?;
    let refused = || node.log().lines().any(|line| line.contains("WARN") && line.contains("certificate"));
    wait_until("the agent to say that it trusts no such controller", PATIENCE, refused).await?;
    two.finish().await?;
    one.finish().await
}
