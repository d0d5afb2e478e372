//! The program itself: what it says and how it exits when it cannot do what it is asked.
//!
//! Also the reason why a workspace test run builds the binary, which end-to-end tests start.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic; clippy.toml covers only the test functions themselves"
)]

use std::path::Path;
use std::process::{Command, Output};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleet-controller")).args(arguments).output().unwrap()
}

fn init(folder: &Path, root_key: &Path) -> Output {
    program(&[
        "init",
        "--data",
        folder.to_str().unwrap(),
        "--name",
        "test",
        "--operator",
        "ada",
        "--root-key",
        root_key.to_str().unwrap(),
        "--json",
    ])
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_fleet_is_made_once_and_its_root_key_stays_outside() {
    let folder = tempfile::tempdir().unwrap();
    let (data, root_key) = (folder.path().join("controller"), folder.path().join("root.key"));
    let inside = init(&data, &data.join("root.key"));
    assert!(!inside.status.success() && stderr(&inside).contains("keep it offline"), "{}", stderr(&inside));
    assert!(!data.join("pki").exists(), "nothing half-done stays");

    let made = init(&data, &root_key);
    assert!(made.status.success(), "{}", stderr(&made));
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert!(made["invite"].as_str().unwrap().starts_with("fi1."));

    let keys_before = std::fs::read(data.join("pki/agent-ca.key")).unwrap();
    let again = init(&data, &folder.path().join("root2.key"));
    assert!(stderr(&again).contains("a fleet exists"), "{}", stderr(&again));
    assert_eq!(std::fs::read(data.join("pki/agent-ca.key")).unwrap(), keys_before);
    assert!(!folder.path().join("root2.key").exists());
}

#[test]
fn a_controller_refuses_a_content_key_on_its_disk() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("controller");
    assert!(init(&data, &folder.path().join("root.key")).status.success());
    std::fs::write(data.join("content-key.pem"), "x").unwrap();
    let config = folder.path().join("controller.toml");
    let text = format!(
        "data_directory = {:?}\n[server]\nagent_listen = \"127.0.0.1:0\"\nenrol_listen = \"127.0.0.1:0\"\nserver_names = [\"localhost\"]\n",
        data.display().to_string()
    );
    std::fs::write(&config, text).unwrap();
    let run = program(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(1));
    assert!(stderr(&run).contains("must not have one"), "{}", stderr(&run));
}

#[test]
fn what_cannot_start_says_why_before_a_port_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("controller.toml");
    std::fs::write(&config, "[server]\nserver_names = [\"-\"]\nagent_listen = \"x\"\n").unwrap();
    let bad = program(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(stderr(&bad).contains("server.server_names") && stderr(&bad).contains("server.agent_listen"));

    let data = folder.path().join("nothing");
    let text = format!(
        "data_directory = {:?}\n[server]\nserver_names = [\"localhost\"]\nagent_listen = \"127.0.0.1:0\"\nenrol_listen = \"127.0.0.1:0\"\n",
        data.display().to_string()
    );
    std::fs::write(&config, text).unwrap();
    let empty = program(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!(empty.status.code(), Some(1));
    assert!(stderr(&empty).contains("fleet-controller init"), "{}", stderr(&empty));
}
