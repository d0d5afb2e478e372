//! A restart of a real node: held up, carried out once, confirmed in the next boot.

use anyhow::Result;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::job::Outcome;

use super::story::Story;

const PROCEDURE: &str = r#"
schema = "fleet/v1"
kind = "procedure"
name = "restart"
version = 1
profile = "filter"
changes = true
timeout = "30m"
[[step]]
id = "restart"
kind = "task"
title = "Restart the machine"
uses = "reboot"
with = { only_if = "always" }
timeout = "5m"
guard = { confirm_within = "2m" }
on_failure = "rollback"
[[step]]
id = "after"
kind = "task"
title = "Load the rules again"
uses = "ruleset.apply"
with = { ruleset = "good" }
timeout = "1m"
guard = { confirm_within = "30s" }
on_failure = "rollback"
"#;

const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";
const HOLD: &str = "systemd-run --quiet --unit=holds systemd-inhibit --what=shutdown --mode=block --who=story \
    --why='still writing' sleep infinity";

/// What the story of the guard goes on with: the node has the profile `filter` and the guard's unit.
pub async fn is_done_once_and_confirmed(story: &Story) -> Result<()> {
    let folder = story.folder.path().join("restart");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("restart.toml"), PROCEDURE)?;
    story.say(&["config", "apply", &folder.to_string_lossy(), "--yes"]).await?;
    let before = story.lab.shell("n1", BOOT).await?;

    story.lab.shell("n1", HOLD).await?;
    wait_for("the restart to be held up", PATIENCE, async || {
        let held = story.lab.shell("n1", "systemd-inhibit --list --no-legend").await?;
        Ok(held.contains("story").then_some(()))
    })
    .await?;
    let (outcome, reason) = story.outcome("restart").await?;
    assert_eq!(outcome, Outcome::Failed, "{reason}");
    assert!(reason.contains("a restart is held up: story: still writing; nothing was done"), "{reason}");
    story.lab.shell("n1", "systemctl stop holds").await?;
    assert_eq!(story.lab.shell("n1", BOOT).await?, before);

    let (outcome, reason) = story.outcome("restart").await?;
    assert_eq!(outcome, Outcome::Succeeded, "{reason}");
    let after = story.lab.shell("n1", BOOT).await?;
    assert_ne!(after, before);
    let boots =
        story.lab.shell("n1", "ls /var/lib/fleet-agent/guard; nft list ruleset | grep -c 7443").await?;
    assert_eq!(boots.trim(), "1", "nothing is pending, and the step after it was carried out");
    Ok(())
}
