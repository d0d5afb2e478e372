//! F02 with real programs: agents, a controller and an operator whose certificates last seconds outlive them, also when
//! a program is killed in the middle of a renewal.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_certs::Serial;
use fleet_certs::slots::IdentityDir;
use fleet_tests::controller_process::Options;
use fleet_tests::sandbox::Sandbox;
use fleet_tests::sandbox::node::SandboxNode;
use fleet_tests::wait::{PATIENCE, pass, wait_for, wait_until};
use fleet_tests::{channel, clock};
use fleet_types::run::RunState;
use fleet_types::time::Timestamp;
use fleet_types::view::{AuditItem, CertificateItem, CertificateState, NodeItem, Page, Presence};
use tokio::time::Instant;

/// Renewal is due after 12 to 15 s, and a busy machine has 5 s for it.
const LIFE_S: u32 = 20;
/// Where a controller is to start anew in between.
const LONGER_LIFE_S: u32 = 40;
/// After it was seen that a renewal has begun, which takes up to 20 ms by itself: the key is written, its request under way, its answer stored, the next
/// connection made.
const MOMENTS_MS: [u64; 4] = [0, 5, 15, 50];

async fn sandbox(life_s: u32) -> Result<Sandbox> {
    Sandbox::start_with(Options { lives: vec![("agent_certificate_s", life_s)], ..Options::default() }, 1)
        .await
}

fn serial(identity: &Path) -> Result<Serial> {
    Ok(IdentityDir::open(identity)?.load()?.identity.tls()?.describe()?.serial)
}

async fn renewals(sandbox: &Sandbox, action: &str) -> Result<Vec<AuditItem>> {
    let page: Page<AuditItem> = sandbox.operator.json(&["audit", "list", "--action", action]).await?;
    Ok(page.items)
}

async fn works(sandbox: &Sandbox) -> Result<()> {
    let run = sandbox.start_run("short").await?;
    let view = sandbox.ended(run).await?;
    ensure!(view.item.state == RunState::Succeeded, "{:?}", view.item);
    Ok(())
}

/// Waits until the node begins another renewal. By its log, which stays: what it writes on the way is there for milliseconds only.
async fn renewing(node: &SandboxNode) -> Result<()> {
    let begun = || node.log().matches("renewing the certificate of this node").count();
    let before = begun();
    wait_until("a renewal to begin", PATIENCE * 2, || begun() > before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f02_an_agent_outlives_three_lives_of_its_certificate() -> Result<()> {
    let sandbox = sandbox(LIFE_S).await?;
    let (began, identity) = (Instant::now(), sandbox.nodes[0].identity());
    let (life, mut serials) = (Duration::from_secs(LIFE_S.into()), BTreeSet::new());
    wait_for("three lives to pass", PATIENCE * 4, async || {
        serials.insert(serial(&identity)?);
        let page: Page<NodeItem> = sandbox.operator.json(&["node", "list"]).await?;
        ensure!(page.items[0].hold.is_none(), "{:?}", page.items[0].hold);
        Ok((began.elapsed() > life * 3).then_some(()))
    })
    .await?;
    sandbox.all_online().await?;
    works(&sandbox).await?;
    let told = renewals(&sandbox, "node.renew").await?;
    ensure!(serials.len() >= 4 && told.len() >= 3, "{} serials, {} renewals", serials.len(), told.len());
    // One link after the other, and no gap between them in which the node would have been missed.
    let log = sandbox.nodes[0].log();
    ensure!(!log.contains("link is lost"), "a renewal ends its link in good order");
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_in_the_middle_of_a_renewal_comes_back() -> Result<()> {
    let mut sandbox = sandbox(LIFE_S).await?;
    for after in MOMENTS_MS {
        let node = &mut sandbox.nodes[0];
        renewing(node).await?;
        pass(Duration::from_millis(after)).await;
        node.kill().await?;
        node.start(&[])?;
        let name = node.name.clone();
        sandbox
            .online(&name)
            .await
            .with_context(|| format!("killed {after} ms after a renewal had begun"))?;
    }
    works(&sandbox).await?;
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_killed_in_the_middle_of_a_renewal_locks_nobody_out() -> Result<()> {
    let mut sandbox = sandbox(LONGER_LIFE_S).await?;
    for after in [0, 10] {
        let identity = sandbox.nodes[0].identity();
        let before = serial(&identity)?;
        renewing(&sandbox.nodes[0]).await?;
        pass(Duration::from_millis(after)).await;
        sandbox.controller.kill_and_restart().await?;
        sandbox.all_online().await.with_context(|| format!("killed {after} ms after a renewal had begun"))?;
        wait_for("the renewal to be made", PATIENCE, async || {
            Ok((serial(&identity)? != before).then_some(()))
        })
        .await?;
    }
    works(&sandbox).await?;
    sandbox.finish().await
}

/// The serial that the controller shows to a new connection.
async fn shown(sandbox: &Sandbox) -> Result<Serial> {
    let context = IdentityDir::open(&sandbox.operator.folder().join("contexts/dev/identity"))?;
    let identity = context.load()?.identity;
    let own = identity.tls()?;
    let fleet = own.describe()?.identity.fleet();
    let tls = channel::mutual_tls(fleet, own, identity.controller_authorities)?;
    let uri = format!("http://{}", sandbox.controller.agent_address()).parse()?;
    Ok(channel::connector(&tls).dial(&uri).await?.controller()?.serial)
}

#[tokio::test(flavor = "multi_thread")]
async fn f02_the_controllers_own_certificate_is_renewed_while_it_runs_and_links_stay() -> Result<()> {
    let options = Options { lives: vec![("controller_certificate_s", LIFE_S)], ..Options::default() };
    let sandbox = Sandbox::start_with(options, 1).await?;
    let (began, life, mut serials) = (Instant::now(), Duration::from_secs(LIFE_S.into()), BTreeSet::new());
    wait_for("two lives to pass", PATIENCE * 4, async || {
        serials.insert(shown(&sandbox).await?);
        Ok((began.elapsed() > life * 2).then_some(()))
    })
    .await?;
    ensure!(serials.len() >= 3, "{serials:?}");
    works(&sandbox).await?;
    let links = sandbox.nodes[0].log().matches("link is up").count();
    ensure!(links == 1, "the agent's link was made {links} times");
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn f02_fleetctl_outlives_three_lives_of_its_certificate_also_side_by_side() -> Result<()> {
    let options = Options { lives: vec![("operator_certificate_s", LIFE_S)], ..Options::default() };
    let sandbox = Sandbox::start_with(options, 1).await?;
    let (began, life) = (Instant::now(), Duration::from_secs(LIFE_S.into()));
    while began.elapsed() < life * 3 {
        let call = || sandbox.operator.good(&["node", "list"]);
        tokio::try_join!(call(), call(), call(), call())?;
    }
    works(&sandbox).await?;
    let told = renewals(&sandbox, "operator.renew").await?;
    ensure!(told.len() >= 3, "{} renewals", told.len());
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn f02_a_node_that_is_revoked_is_gone_within_five_seconds_and_stays_so() -> Result<()> {
    let mut sandbox = Sandbox::start(2).await?;
    let name = sandbox.nodes[1].name.clone();
    let holder = format!("node/{name}");
    let listed = async |sandbox: &Sandbox| -> Result<Vec<CertificateState>> {
        let page: Page<CertificateItem> = sandbox.operator.json(&["cert", "list"]).await?;
        Ok(page.items.into_iter().filter(|item| item.holder == holder).map(|item| item.state).collect())
    };
    ensure!(listed(&sandbox).await? == [CertificateState::InUse]);
    sandbox.operator.good(&["cert", "revoke", &holder, "--confirm", &name, "--reason", "stolen"]).await?;
    let is_gone = async |sandbox: &Sandbox| -> Result<Option<()>> {
        let page: Page<NodeItem> = sandbox.operator.json(&["node", "list"]).await?;
        let gone = |node: &NodeItem| node.name.as_str() == name && node.presence == Presence::Offline;
        Ok(page.items.iter().any(gone).then_some(()))
    };
    wait_for("the node to be gone", Duration::from_secs(5), async || is_gone(&sandbox).await).await?;
    let log = || sandbox.nodes[1].log();
    wait_until("its agent to be told", PATIENCE, || log().contains("our certificate was revoked")).await?;
    ensure!(listed(&sandbox).await? == [CertificateState::Revoked]);
    // Neither a restart of the controller nor one of the agent changes that; the other node is not touched.
    sandbox.controller.kill_and_restart().await?;
    let node = &mut sandbox.nodes[1];
    node.kill().await?;
    let told = node.log().matches("our certificate was revoked").count();
    node.start(&[])?;
    let log = || sandbox.nodes[1].log();
    let again = || log().matches("our certificate was revoked").count() > told;
    wait_until("its agent to be told again", PATIENCE, again).await?;
    is_gone(&sandbox).await?.context("it is offline")?;
    let other = sandbox.nodes[0].name.clone();
    sandbox.online(&other).await?;
    sandbox.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn f02_a_node_and_a_person_whose_certificates_have_ended_come_back_by_themselves() -> Result<()> {
    let lives = vec![("agent_certificate_s", LIFE_S), ("operator_certificate_s", LIFE_S)];
    let mut sandbox = Sandbox::start_with(Options { lives, ..Options::default() }, 1).await?;
    let identity = sandbox.nodes[0].identity();
    sandbox.nodes[0].stop().await?;
    let before = serial(&identity)?;
    let person = sandbox.operator.folder().join("contexts/dev/identity");
    let ends = |folder: &Path| -> Result<Timestamp> {
        Ok(IdentityDir::open(folder)?.load()?.identity.tls()?.describe()?.not_after)
    };
    let last = ends(&identity)?.max(ends(&person)?);
    wait_until("both certificates to end", PATIENCE * 2, || clock::now() > last).await?;
    sandbox.nodes[0].start(&[])?;
    sandbox.all_online().await?;
    ensure!(serial(&identity)? != before);
    works(&sandbox).await?;
    for action in ["node.rejoin", "operator.rejoin"] {
        ensure!(renewals(&sandbox, action).await?.len() == 1, "{action}");
    }
    sandbox.finish().await
}
