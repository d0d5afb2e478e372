//! The log lies on a disk that is full, or nobody reads it: its lines are lost, and nothing else is.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fleet_tests::controller_process::{ControllerProcess, Options};
use fleet_tests::sandbox::node::SandboxNode;
use fleet_tests::sandbox::{ENFORCE, Sandbox, agreement};
use fleet_types::job::Outcome;
use fleetctl::dev::node_spec::nodes;

/// Takes nothing: every write fails for lack of space (full(4)).
const FULL: &str = "/dev/full";

fn without_log() -> Options {
    Options { log_to: Some(PathBuf::from(FULL)), log: "debug".to_owned(), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_room_stops_neither_controller_nor_agent() -> Result<()> {
    let mut sandbox = Sandbox::without_nodes_with(without_log()).await?;
    for spec in nodes(2) {
        let node = SandboxNode::lay_out(&sandbox.path("nodes"), &spec)?.logging_to(Path::new(FULL));
        sandbox.join_as(node, &spec, ENFORCE).await?.start(&[])?;
    }
    sandbox.all_online().await?;
    sandbox.apply_documents().await?;
    let run = sandbox.start_run("short").await?;
    sandbox.ended(run).await?;
    sandbox.controller.kill_and_restart().await?;
    sandbox.all_online().await?;
    let agreed = agreement::check(&sandbox).await?;
    assert_eq!(agreed.outcomes.get(&Outcome::Succeeded), Some(&2), "{agreed:?}");
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_of_a_controller_do_not_depend_on_its_log() -> Result<()> {
    let mut controller = ControllerProcess::make(&without_log()).await?;
    let taken = TcpListener::bind(controller.agent_address())?;
    assert_eq!(controller.start_in_vain().await?, Some(1), "a port that is taken");
    drop(taken);
    let store = controller.data_directory().join("store");
    let elsewhere = controller.data_directory().join("elsewhere");
    std::fs::rename(&store, &elsewhere)?;
    std::fs::write(&store, "no folder")?;
    assert_eq!(controller.start_in_vain().await?, Some(75), "a store that cannot be opened");
    std::fs::remove_file(&store)?;
    std::fs::rename(&elsewhere, &store)?;
    let config = controller.folder().join("controller.toml");
    let sound = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("colour = \"red\"\n{sound}"))?;
    assert_eq!(controller.start_in_vain().await?, Some(2), "a configuration with a mistake");
    std::fs::write(&config, sound)?;
    controller.start().await?;
    controller.stop().await
}
