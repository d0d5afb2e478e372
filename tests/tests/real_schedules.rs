//! Schedules that fire by themselves, with a real controller and real agents: one that only reads, one that changes nodes
//! under a rollout policy, over a kill of the controller, until somebody pauses them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet_tests::sandbox::Sandbox;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::run::RunState;
use fleet_types::time::Timestamp;
use fleet_types::view::{NotFired, Page, ScheduleItem, ScheduleState, TickItem};

const FILE: &str = r#"
schema = "fleet/v1"
kind = "schedule"
name = "minutely"
[[schedule]]
id = "look"
procedure = "look"
selector = "product=zehrasec"
cron = "* * * * *"
window = "5m"
[[schedule]]
id = "change"
procedure = "short"
selector = "product=zehrasec"
cron = "* * * * *"
window = "30m"
overlap = "queue"
rollout_policy = "both"
"#;

const LOOK: &str = r#"
schema = "fleet/v1"
kind = "procedure"
name = "look"
version = 1
description = "How healthy the nodes are"
profile = "dev-firewall"
changes = false
order = "per_node"
timeout = "5m"
[[step]]
id = "status"
kind = "task"
title = "Collect the status"
uses = "metrics.collect"
with = { set = "status" }
timeout = "1m"
on_failure = "warn"
"#;

const POLICY: &str = r#"
schema = "fleet/v1"
kind = "rollout_policy"
name = "both"
[[ring]]
name = "all"
selector = "product=zehrasec"
success_percent = 100
"#;

/// The next minute, and the time that anything else takes.
const A_MINUTE: Duration = Duration::from_mins(1).saturating_add(PATIENCE);

async fn history(sandbox: &Sandbox, schedule: &str) -> Result<Vec<TickItem>> {
    let page: Page<TickItem> = sandbox.operator.json(&["schedule", "history", schedule]).await?;
    Ok(page.items)
}

/// Waits until the newest run of a tick after `after` has succeeded.
async fn succeeded_after(sandbox: &Sandbox, schedule: &str, after: Option<Timestamp>) -> Result<TickItem> {
    wait_for(&format!("a tick of {schedule} after {after:?} to succeed"), A_MINUTE, async || {
        let ticks = history(sandbox, schedule).await?;
        let mut newer = ticks.iter().filter(|tick| after.is_none_or(|after| tick.at > after));
        let done = newer.rfind(|tick| tick.run_state == Some(RunState::Succeeded)).cloned();
        done.map_or_else(|| anyhow::bail!("{ticks:?}"), |tick| Ok(Some(tick)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_fire_by_themselves_once_each_over_a_kill_until_they_are_paused() -> Result<()> {
    let mut sandbox = Sandbox::start(2).await?;
    let words: [(&[&str], &str, &str); 3] = [
        (&["config", "apply"], "both.toml", POLICY),
        (&["config", "apply"], "look.toml", LOOK),
        (&["schedule", "apply"], "minutely.toml", FILE),
    ];
    for (command, name, text) in words {
        let path = sandbox.path(name);
        std::fs::write(&path, text)?;
        let path = path.to_str().context("a path that is no text")?;
        sandbox.operator.good(&[command, &[path, "--yes"]].concat()).await?;
    }
    let look = succeeded_after(&sandbox, "minutely/look", None).await?;
    let change = succeeded_after(&sandbox, "minutely/change", None).await?;
    assert!(sandbox.nodes.iter().all(|node| node.updates() >= 1), "it changed every node");

    sandbox.controller.kill().await?;
    sandbox.controller.start().await?;
    sandbox.all_online().await?;
    succeeded_after(&sandbox, "minutely/look", Some(look.at)).await?;
    succeeded_after(&sandbox, "minutely/change", Some(change.at)).await?;

    sandbox.operator.good(&["schedule", "pause", "--all", "--reason", "enough"]).await?;
    let paused = wait_for("a tick that does not fire", A_MINUTE, async || {
        let ticks = history(&sandbox, "minutely/look").await?;
        Ok(ticks.first().filter(|tick| tick.not_fired == Some(NotFired::Paused)).cloned())
    })
    .await?;
    let page: Page<ScheduleItem> = sandbox.operator.json(&["schedule", "list"]).await?;
    assert!(
        page.items
            .iter()
            .filter(|item| item.file.as_str() == "minutely")
            .all(|item| item.state == ScheduleState::Paused)
    );
    let status = sandbox.operator.good(&["status"]).await?;
    assert!(status.contains("paused by"), "{status}");
    for schedule in ["minutely/look", "minutely/change"] {
        let ticks = history(&sandbox, schedule).await?;
        let fired: Vec<_> = ticks.iter().filter(|tick| tick.not_fired.is_none()).collect();
        let at: BTreeSet<_> = fired.iter().map(|tick| tick.at).collect();
        assert_eq!(at.len(), fired.len(), "{schedule}: each once: {ticks:?}");
        assert!(fired.iter().all(|tick| tick.runs.len() == 1 && tick.at < paused.at), "{ticks:?}");
    }
    let log = sandbox.operator.good(&["audit", "list", "--action", "schedule.pause", "--limit", "5"]).await?;
    assert!(log.contains("schedule/all"), "{log}");
    sandbox.finish().await
}
