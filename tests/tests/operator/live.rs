//! `fleetctl status --watch` where it is no terminal: one screen after another, and nothing between them.

use anyhow::{Context as _, Result};
use fleet_tests::sandbox::Sandbox;
use fleet_tests::sandbox::operator::Running;
use fleet_tests::wait::{PATIENCE, wait_until};

/// Head of the table of sites, which each screen has once.
const HEAD: &str = "SITE  NODES  OK  WARN  STALE  OFFLINE  HELD  NEW  UNKNOWN";

/// Its row while the node is there; nobody has asked for its health yet.
const PRESENT: &str = "ams2      1   0     0      0        0     0    0        1";
/// Its row while the node is away.
const GONE: &str = "ams2      1   0     0      0        1     0    0        0";

fn screens(text: &str) -> usize {
    text.matches(HEAD).count()
}

/// Waits for a screen that was not there before and has this line.
async fn shows(watch: &Running, before: usize, line: &str) -> Result<()> {
    wait_until(&format!("a screen with {line:?}"), PATIENCE, || {
        let out = watch.out();
        let newest = out.rsplit(HEAD).next().unwrap_or_default();
        screens(&out) > before && newest.lines().any(|shown| shown.trim_end() == line)
    })
    .await
    .with_context(|| format!("it shows: {}\n{}", watch.out(), watch.err()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_status_tells_a_node_that_goes_and_comes_and_ends_with_ctrl_c() -> Result<()> {
    let mut sandbox = Sandbox::start(1).await?;
    let watch = sandbox.operator.begin(&["status", "--watch"])?;
    shows(&watch, 0, PRESENT).await?;
    let json = sandbox.operator.begin(&["status", "--watch", "-o", "jsonl"])?;
    wait_until("a first line of JSON", PATIENCE, || json.out().ends_with('\n')).await?;

    sandbox.nodes[0].kill().await?;
    shows(&watch, 1, GONE).await?;
    wait_until("a line of JSON that tells of it", PATIENCE, || json.out().contains("\"offline\":1")).await?;
    let seen = screens(&watch.out());
    sandbox.nodes[0].start(&[])?;
    shows(&watch, seen, PRESENT).await?;

    // The controller goes and comes: told on the side, and the screens go on.
    let mut watch = watch;
    sandbox.controller.kill().await?;
    wait_until("the loss to be told", PATIENCE, || watch.err().contains("lost the controller (")).await?;
    sandbox.controller.start().await?;
    wait_until("the return to be told", PATIENCE, || watch.err().contains("the controller is back")).await?;
    assert!(watch.is_running(), "{}", watch.err());
    sandbox.all_online().await?;

    let said = watch.interrupt().await?;
    assert_eq!(said.code, Some(130), "{said:?}");
    assert!(!said.err.contains("error["), "Ctrl-C is how a watch is ended: {said:?}");
    let shown = said.out + &said.err;
    assert!(!shown.contains('\u{1b}') && !shown.contains('\r'), "it animates where nobody looks: {shown}");
    assert!(shown.ends_with('\n'));
    let said = json.interrupt().await?;
    assert_eq!(said.code, Some(130), "{said:?}");
    for line in said.out.lines() {
        let _: serde_json::Value = serde_json::from_str(line)?;
    }
    sandbox.finish().await
}
