//! Starts that must fail, clearly and with nothing half-done; and ends that must be clean.

use std::net::TcpListener;
use std::process::Output;

use anyhow::{Context as _, Result};
use fleet_tests::controller_process::{ControllerProcess, Options};
use fleet_tests::programs::program;
use fleet_tests::test_fleet::TestFleet;
use tokio::process::Command;

/// Runs a second controller with the configuration of `controller`, changed by `change`, until it ends.
async fn second(controller: &ControllerProcess, change: impl Fn(&str) -> String) -> Result<(i32, String)> {
    let config = std::fs::read_to_string(controller.folder().join("controller.toml"))?;
    let path = controller.folder().join("second.toml");
    std::fs::write(&path, change(&config))?;
    let output: Output = Command::new(program("fleet-controller", "fleet-controller")?)
        .args(["run", "--config"])
        .arg(path)
        .output()
        .await?;
    let code = output.status.code().context("it was killed")?;
    Ok((code, String::from_utf8(output.stderr)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_and_a_port_in_use_are_told_apart_and_the_first_controller_goes_on() -> Result<()> {
    let fleet = TestFleet::start(1).await?;
    let (code, text) = second(&fleet.controller, str::to_owned).await?;
    assert_eq!(code, 75, "a store that cannot be opened: {text}");
    assert!(text.contains("store") && !text.contains("panicked"), "{text}");
    let run = fleet.start_run(fleet.look, 1).await?;
    fleet.operator.wait_run(run).await?;
    fleet.finish().await?;

    let mut other = ControllerProcess::make(&Options::default()).await?;
    let taken = TcpListener::bind(other.agent_address())?;
    let error = other.start().await.unwrap_err().to_string();
    let address = other.agent_address().to_string();
    assert!(error.contains("cannot listen on") && error.contains(&address), "{error}");
    drop(taken);
    // Nothing was half-done: the same data starts when the port is free.
    other.start().await?;
    other.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_of_a_configuration_is_listed_before_a_port_is_opened() -> Result<()> {
    let controller = ControllerProcess::make(&Options::default()).await?;
    let (code, text) = second(&controller, |config| {
        config
            .replace("[\"localhost\"]", "[]")
            .replace("agent_listen = \"127.0.0.1:", "agent_listen = \"here:")
    })
    .await?;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("server_names") && text.contains("agent_listen"), "both at once: {text}");
    let (code, text) = second(&controller, |config| format!("colour = \"red\"\n{config}")).await?;
    assert!(code == 2 && text.contains("colour"), "{text}");
    let (code, text) = second(&controller, |config| config.replace("/data\"", "/nowhere/data\"")).await?;
    assert!(code != 0 && !text.contains("panicked"), "a directory without a fleet: {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_in_the_controllers_directory_keeps_it_from_starting() -> Result<()> {
    let mut controller = ControllerProcess::make(&Options::default()).await?;
    let inside = controller.data_directory().join("root.key");
    std::fs::rename(controller.root_key_path(), &inside)?;
    let error = controller.start().await.unwrap_err().to_string();
    assert!(error.contains("root.key"), "{error}");
    std::fs::rename(&inside, controller.root_key_path())?;
    controller.start().await?;
    controller.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_refused_with_words_and_stays_as_it_is() -> Result<()> {
    let mut fleet = TestFleet::start(1).await?;
    let run = fleet.start_run(fleet.look, 1).await?;
    fleet.operator.wait_run(run).await?;
    fleet.controller.kill().await?;
    let file = fleet.controller.data_directory().join("store/db");
    let file =
        if file.is_file() { file } else { find_largest(&fleet.controller.data_directory().join("store"))? };
    let sound = std::fs::read(&file)?;
    std::fs::write(&file, vec![0x5a; sound.len()])?;
    let error = fleet.controller.start().await.unwrap_err().to_string();
    assert!(error.contains("error[store]"), "{error}");
    // Put right, everything is there again.
    std::fs::write(&file, &sound)?;
    fleet.controller.start().await?;
    assert!(fleet.operator.run(run).await?.item.state.is_terminal());
    fleet.all_online().await?;
    fleet.finish().await?;
    Ok(())
}

fn find_largest(folder: &std::path::Path) -> Result<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        if data.is_dir() {
            if let Ok(inner) = find_largest(&entry.path()) {
                files.push((std::fs::metadata(&inner)?.len(), inner));
            }
        } else {
            files.push((data.len(), entry.path()));
        }
    }
    files.into_iter().max().map(|(_, path)| path).context("an empty store")
}
