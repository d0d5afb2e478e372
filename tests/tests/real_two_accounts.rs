//! A node as on a real machine: the executor is root and has no network, the core has an account of its own.
//!
//! Giving a process another account needs root; without it these stories say so and prove nothing.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use fleet_tests::sandbox::node::SandboxNode;
use fleet_tests::sandbox::{ENFORCE, Sandbox, agreement, processes};
use fleet_tests::wait::{PATIENCE, wait_for, wait_until};
use fleet_types::run::RunState;
use fleetctl::dev::node_spec::nodes;
use rustix::process::{Pid, Signal, geteuid, kill_process};

/// On every Debian; owns nothing.
const CORE_USER: &str = "nobody";
const CORE_UID: u32 = 65534;

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("NOT PROVED HERE: core and executor under two accounts; run the tests as root for that");
    }
    is_root
}

async fn core_of(node: &SandboxNode) -> Result<u32> {
    let agent = node.pid()?;
    wait_for("the core's process", PATIENCE, async || processes::child_of(agent, "core")).await
}

async fn one_node_apart() -> Result<Sandbox> {
    let mut sandbox = Sandbox::without_nodes().await?;
    let spec = nodes(1).remove(0);
    sandbox.join_apart(&spec, ENFORCE, CORE_USER).await?.start(&[])?;
    sandbox.all_online().await?;
    sandbox.apply_documents().await?;
    Ok(sandbox)
}

/// What lies in `state`, but for the identity, and may be used by others than root in any way.
fn open_to_others(state: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(state)? {
        let (entry, about) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        if !entry.ends_with("identity") && (about.mode() & 0o077 != 0 || about.uid() != 0) {
            found.push(format!("{} {:o} of {}", entry.display(), about.mode(), about.uid()));
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_core_has_no_right_that_the_executor_has_and_the_executor_no_network() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let sandbox = one_node_apart().await?;
    let node = &sandbox.nodes[0];
    let (executor, core) = (node.pid()?, core_of(node).await?);
    for (name, expected) in [
        ("Uid", "65534 65534 65534 65534"),
        ("Groups", ""),
        ("NoNewPrivs", "1"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        assert_eq!(processes::status(core, name)?, expected, "{name} of the core");
    }
    assert_eq!(processes::status(executor, "Uid")?, "0 0 0 0");
    assert_eq!(processes::internet_sockets(core)?, 1, "the link");
    assert_eq!(processes::internet_sockets(executor)?, 0, "the executor has no network");
    let environment = std::fs::read(format!("/proc/{core}/environ"))?;
    assert_eq!(environment, format!("FLEET_RUNTIME__CORE_USER={CORE_USER}\0").into_bytes());
    let identity = std::fs::metadata(node.identity())?;
    assert_eq!((identity.uid(), identity.mode() & 0o777), (CORE_UID, 0o700));
    assert_eq!(std::fs::metadata(node.state())?.mode() & 0o777, 0o711, "a way through, nothing to read");
    assert_eq!(open_to_others(&node.state())?, Vec::<String>::new(), "the executor's state is its own");
    // Work goes the whole way, and the program that it starts is not the core's.
    let run = sandbox.start_run("short").await?;
    assert_eq!(sandbox.ended(run).await?.item.state, RunState::Succeeded);
    agreement::check(&sandbox).await?;
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_killed_in_mid_step_costs_nothing_and_none_outlives_its_executor() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut sandbox = one_node_apart().await?;
    sandbox.nodes[0].hold()?;
    let run = sandbox.start_run("signatures").await?;
    sandbox.nodes[0].updating(1).await?;
    let executor = sandbox.nodes[0].pid()?;
    let mut core = core_of(&sandbox.nodes[0]).await?;
    for _ in 0..3 {
        send(core, Signal::KILL)?;
        let last = core;
        core = wait_for("another core", PATIENCE, async || {
            Ok(processes::child_of(executor, "core")?.filter(|core| *core != last))
        })
        .await?;
    }
    sandbox.all_online().await?;
    // One that hangs is ended and replaced like one that died.
    let hung = core;
    send(hung, Signal::STOP)?;
    wait_for("another core than the one that hangs", PATIENCE, async || {
        Ok(processes::child_of(executor, "core")?.filter(|core| *core != hung))
    })
    .await?;
    assert!(!processes::is_there(hung));
    sandbox.all_online().await?;
    sandbox.nodes[0].release()?;
    assert_eq!(sandbox.ended(run).await?.item.state, RunState::Succeeded);
    assert_eq!((sandbox.nodes[0].updates(), sandbox.nodes[0].pid()?), (1, executor));
    // The executor killed: its core finds the socket closed and ends by itself.
    let core = core_of(&sandbox.nodes[0]).await?;
    sandbox.nodes[0].kill().await?;
    wait_until("the core to end with its executor", PATIENCE, || !processes::is_there(core)).await?;
    sandbox.nodes[0].start(&[])?;
    sandbox.all_online().await?;
    let core = core_of(&sandbox.nodes[0]).await?;
    sandbox.nodes[0].stop().await?;
    assert!(!processes::is_there(core), "told to stop, both stop");
    sandbox.nodes[0].start(&[])?;
    sandbox.all_online().await?;
    agreement::check(&sandbox).await?;
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_start_of_the_core_cannot_mend_ends_the_agent_with_its_code() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut sandbox = one_node_apart().await?;
    let node = &mut sandbox.nodes[0];
    node.stop().await?;
    let pointer = node.identity().join("current");
    let kept = std::fs::read(&pointer)?;
    std::fs::remove_file(&pointer)?;
    node.start(&[])?;
    assert_eq!(node.wait_end().await?.code(), Some(10));
    assert!(node.log().contains("join with a token first"), "{}", node.log_tail());
    std::fs::write(&pointer, kept)?;
    let (status, _, err) = node.call(&["run"], &[("FLEET_RUNTIME__CORE_USER", "no-such-account")]).await?;
    assert_eq!(status.code(), Some(2), "{err}");
    assert!(err.contains("there is no account \"no-such-account\": make it (useradd "), "{err}");
    let (status, _, err) = node.call(&["run"], &[("FLEET_RUNTIME__CORE_USER", "root")]).await?;
    assert_eq!(status.code(), Some(2), "{err}");
    // The other half by hand: not as root, and not without the socket.
    let (status, _, err) = node.call(&["core"], &[]).await?;
    assert_eq!(status.code(), Some(2), "{err}");
    assert!(err.contains("does not run as root"), "{err}");
    node.start(&[])?;
    sandbox.all_online().await?;
    sandbox.finish().await
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
    Ok(kill_process(pid, signal)?)
}
