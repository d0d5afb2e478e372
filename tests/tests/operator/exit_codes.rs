//! Exit codes that want something to be in the way: blocked, out of time, not allowed, in conflict, interrupted.
//! The others are told in `real_operator`.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleet_certs::Role;
use fleet_certs::ca::Authority;
use fleet_tests::clock;
use fleet_tests::sandbox::operator::{Fleetctl, Said};
use fleet_tests::sandbox::{Sandbox, agreement, identity};
use fleet_tests::wait::{PATIENCE, wait_until};
use fleet_types::job::Outcome;

/// A procedure of an action that no agent of this version has.
const PRUNING: &str = r#"schema = "fleet/v1"
kind = "procedure"
name = "pruning"
version = 1
description = "Prune metrics"
profile = "dev-firewall"
changes = true
timeout = "15m"

[[step]]
id = "prune"
kind = "task"
title = "Prune metrics"
uses = "metrics.prune"
"#;

async fn ends_with(sandbox: &Sandbox, code: i32, arguments: &[&str], parts: &[&str]) -> Result<Said> {
    let said = sandbox.operator.ask(arguments).await?;
    has(&said, code, parts)?;
    Ok(said)
}

fn has(said: &Said, code: i32, parts: &[&str]) -> Result<()> {
    ensure!(said.code == Some(code), "it was to end with {code}: {said:?}");
    for part in parts {
        ensure!(said.err.contains(part), "standard error lacks {part:?}: {said:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_6_8_11_and_130_are_those_of_the_table_and_say_what_goes_on() -> Result<()> {
    let sandbox = Sandbox::start(1).await?;
    let node = &sandbox.nodes[0];
    // 11: the name is taken.
    ends_with(&sandbox, 11, &["join-token", "create", &node.name], &["error[node-exists]"]).await?;
    // 6: a node that lacks an action can take no part, and is named.
    let procedures = sandbox.path("documents/procedures");
    std::fs::write(procedures.join("pruning.toml"), PRUNING)?;
    let documents = sandbox.path("documents");
    let documents = documents.to_str().unwrap_or_else(|| panic!("the folder has an odd name"));
    sandbox.operator.good(&["config", "apply", documents, "--yes", "--reason", "a story"]).await?;
    let start = ["run", "start", "pruning", "--yes", "--reason", "a story", "--node", &node.name];
    ends_with(&sandbox, 6, &start, &["error[nodes-not-ready]", &node.name, "metrics.prune"]).await?;

    // 8: the limit is over and the run goes on.
    node.hold()?;
    let here = ["run", "start", "short", "--yes", "--reason", "a story", "--node", &node.name];
    let said = ends_with(
        &sandbox,
        8,
        &[&here[..], &["--wait", "--timeout", "2s"]].concat(),
        &["error[still-running]: run ", " is still running after 2s; it goes on", "fix: fleetctl run wait "],
    )
    .await?;
    let run = said.err.split("error[still-running]: run ").nth(1).and_then(|rest| rest.split(' ').next());
    let run = run.unwrap_or_else(|| panic!("no run is named: {said:?}"));
    node.updating(1).await?;

    // 130: Ctrl-C ends the waiting, not the run.
    let mut waiting = sandbox.operator.begin(&["run", "wait", run, "-v"])?;
    wait_until("it to be waiting", PATIENCE, || waiting.err().contains("context dev")).await?;
    assert!(waiting.is_running(), "{}", waiting.err());
    let said = waiting.interrupt().await?;
    has(&said, 130, &[&format!("error[interrupted]: interrupted; run {run} goes on")])?;
    assert!(said.out.is_empty(), "{said:?}");

    // The work went on all the time, and ends as if nobody had waited.
    node.release()?;
    ends_with(&sandbox, 0, &["run", "wait", run], &[]).await?;
    // 11: what has ended cannot be stopped.
    ends_with(&sandbox, 11, &["run", "cancel", run, "--yes", "--reason", "too late"], &["error[run-ended]"])
        .await?;

    // 130 while a run is started and waited for.
    node.hold()?;
    let started = sandbox.operator.begin(&[&here[..], &["--wait"]].concat())?;
    node.updating(2).await?;
    wait_until("the run to be told", PATIENCE, || started.err().contains(" started")).await?;
    let said = started.interrupt().await?;
    has(&said, 130, &["error[interrupted]: interrupted; run ", " goes on"])?;
    let run = said.err.split("interrupted; run ").nth(1).and_then(|rest| rest.split(' ').next());
    let run = run.unwrap_or_else(|| panic!("no run is named: {said:?}")).to_owned();
    node.release()?;
    ends_with(&sandbox, 0, &["run", "wait", &run], &[]).await?;
    let agreed = agreement::check(&sandbox).await?;
    assert_eq!(agreed.outcomes.get(&Outcome::Succeeded), Some(&2), "{agreed:?}");
    assert_eq!(agreed.updates, 2);
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_code_10_is_for_who_is_not_signed_in_or_of_another_fleet() -> Result<()> {
    let sandbox = Sandbox::without_nodes().await?;
    let nobody = Fleetctl::new(sandbox.path("nobody"))?;
    let login = "fix: sign in first: fleetctl login INVITE --context NAME";
    has(&nobody.ask(&["status"]).await?, 10, &["error[not-signed-in]", login])?;
    let said = sandbox.operator.ask(&["status", "--context", "elsewhere"]).await?;
    has(&said, 10, &["error[not-signed-in]: there is no context \"elsewhere\"", "\"dev\""])?;
    // A certificate of an authority that the fleet does not know, however well it is made.
    let stranger =
        Authority::create(Role::Operator, sandbox.controller.fleet, clock::now(), Duration::from_hours(24))?;
    identity::reissue_by(&sandbox, &stranger, clock::now(), Duration::from_hours(1))?;
    let said = sandbox.operator.ask(&["status"]).await?;
    has(
        &said,
        10,
        &["error[cert-refused]", "does not know the authority of our certificate", "fix: sign in again"],
    )?;
    identity::reissue(&sandbox, clock::now(), Duration::from_hours(1))?;
    sandbox.finish().await
}
