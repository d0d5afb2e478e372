//! F10 and O02 with real programs: people who are let in and shut out without a root key, and nodes that know whose word
//! counts.

use anyhow::{Context as _, Result, ensure};
use fleet_tests::sandbox::Sandbox;
use fleet_tests::sandbox::operator::Fleetctl;
use fleet_types::run::RunState;
use fleet_types::seal::PublicKey;
use fleet_types::view::{ApplyView, InviteView, OperatorItem, Page, RunView};
use fleetctl::dev::launch;
use serde::Deserialize;

/// What `login` says in JSON.
#[derive(Deserialize)]
struct SignedIn {
    content_key: PublicKey,
}

/// Somebody else with a machine of their own, and their content key as they read it out.
async fn person(sandbox: &Sandbox, name: &str, role: &str) -> Result<(Fleetctl, String)> {
    let words = ["operator", "invite", name, "--role", role, "--yes", "--reason", "a colleague"];
    let invite: InviteView = sandbox.operator.json(&words).await?;
    let theirs = Fleetctl::new(sandbox.path(name))?;
    let served = sandbox.controller.served();
    let login = launch::login(&invite.invite, &served, "");
    let without_root_key = &login[..login.len() - 2];
    let signed_in: SignedIn = theirs.json(without_root_key).await?;
    Ok((theirs, signed_in.content_key.id().to_string()))
}

/// A start by somebody, to its end: the run's state and what the nodes refused it for.
async fn run_by(sandbox: &Sandbox, who: &Fleetctl, procedure: &str) -> Result<(RunState, String)> {
    let words = ["run", "start", procedure, "--all", "--confirm", "dev", "--reason", "a story", "--no-wait"];
    let run = who.json::<RunView>(&words).await?.item.run;
    let state = sandbox.ended(run).await?.item.state;
    let jobs = sandbox.operator.good(&["run", "show", &run.to_string(), "-o", "json"]).await?;
    Ok((state, jobs))
}

#[tokio::test(flavor = "multi_thread")]
async fn o02_a_second_person_is_let_in_and_shut_out_without_a_root_key() -> Result<()> {
    let sandbox = Sandbox::start(2).await?;
    let ada = &sandbox.operator;
    let root = sandbox.controller.root_key_path();
    let root_key = root.to_str().context("the folder has an odd name")?;
    let (eve, eves_key) = person(&sandbox, "eve", "security-admin").await?;
    let admit = ["operator", "admit", "eve", "--key", &eves_key, "--root-key", root_key];
    ada.good(&[&admit[..], &["--confirm", "eve", "--reason", "a second one"]].concat()).await?;
    let delegate = ["operator", "delegate", "ada", "eve", "--root-key", root_key, "--confirm", "dev"];
    ada.good(&[&delegate[..], &["--reason", "the root key goes into the safe"]].concat()).await?;
    std::fs::remove_file(&root)?;

    // Bob can call and nobody does what he signs.
    let (bob, bobs_key) = person(&sandbox, "bob", "operator").await?;
    let start = ["run", "start", "short", "--all", "--confirm", "dev", "--reason", "a story"];
    let said = bob.ask(&start).await?;
    ensure!(said.code == Some(12) && said.err.contains("fleetctl operator admit"), "{said:?}");
    let admit = ["operator", "admit", "bob", "--key", &bobs_key, "--confirm", "bob", "--reason", "new"];
    let said = ada.good(&admit).await?;
    ensure!(said.contains("1 of 2 have signed it"), "{said}");
    let said = bob.ask(&["operator", "approve", "--yes"]).await?;
    ensure!(said.code == Some(6), "the list is not left to him: {said:?}");
    eve.good(&["operator", "approve", "--yes"]).await?;

    // He applies a procedure of his own and carries it out.
    let text = std::fs::read_to_string(sandbox.path("documents/procedures/short.toml"))?;
    let file = sandbox.path("bobs.toml");
    std::fs::write(&file, text.replace("\"short\"", "\"bobs\""))?;
    let file = file.to_str().context("the folder has an odd name")?;
    bob.good(&["config", "apply", file, "--yes"]).await?;
    let (state, _) = run_by(&sandbox, &bob, "bobs").await?;
    ensure!(state == RunState::Succeeded, "{state:?}");

    // One security-admin shuts him out: he opens nothing, and what he signed is worth nothing on the nodes.
    let revoke = ["operator", "revoke", "bob", "--confirm", "bob", "--reason", "lost laptop"];
    let said = eve.ask(&revoke).await?;
    ensure!(said.code == Some(0) && said.err.contains("procedure bobs"), "{said:?}");
    let said = bob.ask(&["status"]).await?;
    ensure!(said.code == Some(10), "{said:?}");
    let (state, jobs) = run_by(&sandbox, ada, "bobs").await?;
    ensure!(state == RunState::Failed && jobs.contains("signature-unknown-key"), "{state:?} {jobs}");

    // With ada's signature on the same revision it is carried out again.
    let applied: ApplyView = ada.json(&["config", "apply", file, "--yes"]).await?;
    let item = applied.items.first().context("one document was applied")?;
    ensure!((item.action.as_str(), item.revision) == ("signed", 1), "{item:?}");
    let (state, jobs) = run_by(&sandbox, ada, "bobs").await?;
    ensure!(state == RunState::Succeeded, "{state:?} {jobs}");
    let people: Page<OperatorItem> = ada.json(&["operator", "list"]).await?;
    let listed: Vec<_> = people.items.iter().map(|item| (item.name.as_str(), item.is_listed)).collect();
    ensure!(listed == [("ada", true), ("bob", false), ("eve", true)], "{listed:?}");
    ada.good(&["audit", "verify"]).await?;
    sandbox.finish().await
}
