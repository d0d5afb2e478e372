//! The `ZehraSec` guide on a real node: shipped procedures that this build can run, started as an operator would; then an update that is bad,
//! with a migration that loses rows, and one that works. What each leaves on the node is compared.

use anyhow::{Result, ensure};
use fleet_types::job::Outcome;
use fleetctl::dev::packages::product::{BROKEN, GOOD};

use super::firewall::{NAME, WATCHED};
use super::guides::{LeftOut, says_what_is_left_out};
use super::state::differences;
use super::story::Story;

/// Runs a procedure that has to succeed without the steps that the story knows it to lack.
async fn green(
    story: &Story,
    all: &[LeftOut],
    procedure: &str,
    lacks: &[&str],
    params: &[&str],
) -> Result<()> {
    says_what_is_left_out(all, procedure, lacks)?;
    let (outcome, report) = story.ran(procedure, params).await?;
    ensure!(outcome == Outcome::Succeeded, "{procedure}: {outcome:?}\n{report:#?}");
    Ok(())
}

/// Steps for people, and snapshots.
const UPDATE_LACKS: [&str; 5] =
    ["maintenance-window", "notify-stakeholders", "rollback-plan", "system-snapshot", "remove-snapshot"];

/// What the settings, the rotation of logs and the purge of old rows leave: files that are named so, and rows that are gone.
const BY_TUNING: [&str; 6] = [
    "/etc/logrotate.d/fleet-",
    "/etc/modules-load.d/60-zehrasec.conf",
    "/etc/sysctl.d/60-zehrasec.conf",
    "/etc/systemd/system/logrotate.timer.d",
    "- session_logs|",
    "- temp_data|",
];

/// What a restore set aside stays until the next one.
fn is_set_aside(line: &str) -> bool {
    line.contains("/.fleet-restore-") || line.contains("database zehrasec.fleet-k-")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zehrasec_guide_runs_on_a_real_node() -> Result<()> {
    let Some((mut story, all)) = Story::firewall().await? else { return Ok(()) };
    let fresh = story.look(&WATCHED).await?;
    green(&story, &all, "config-validate", &[], &[]).await?;
    let weekly = [
        "log-rotation",
        "database-optimization",
        "rules-review-output",
        "capacity-planning",
        "rootkits",
        "security-rule-review",
    ];
    green(&story, &all, "weekly-maintenance", &weekly, &[]).await?;
    green(&story, &all, "daily-maintenance", &["performance", "prune-metrics", "failed-logins"], &[]).await?;
    let daily = story.look(&WATCHED).await?;
    assert_eq!(differences(&fresh, &daily), [""; 0], "days and weeks leave nothing but logs and archives");

    green(&story, &all, "database-optimization", &[], &[]).await?;
    green(&story, &all, "log-rotation", &[], &[]).await?;
    green(&story, &all, "tune-node", &[], &[]).await?;
    let tuned = story.look(&WATCHED).await?;
    let changed = differences(&daily, &tuned);
    let (purged, rest): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|line| line.starts_with("- audit_logs|"));
    // Of 180 days the guide keeps 90: the row of this very moment is on its far side.
    assert_eq!(purged.len(), 91, "{purged:#?}");
    let other: Vec<_> =
        rest.iter().filter(|line| !BY_TUNING.iter().any(|known| line.contains(known))).collect();
    assert!(other.is_empty() && rest.len() > BY_TUNING.len(), "{other:#?}");

    // Rules are lost, a column goes, the daemon is not ready: all of it comes back.
    let target = format!("target_version={BROKEN}");
    let (outcome, report) = story.ran("update-zehrasec", &["--param", &target]).await?;
    ensure!(outcome == Outcome::RolledBack, "{outcome:?}\n{report:#?}");
    let mut back = differences(&tuned, &story.look(&WATCHED).await?);
    back.retain(|line| !is_set_aside(line));
    assert_eq!(back, [""; 0], "{report:#?}");

    let target = format!("target_version={GOOD}");
    green(&story, &all, "update-zehrasec", &UPDATE_LACKS, &["--param", &target]).await?;
    let updated = differences(&tuned, &story.look(&WATCHED).await?);
    for expected in [format!("+ {NAME} {GOOD} hi "), "+ schema_version|(2)".to_owned()] {
        assert!(updated.contains(&expected), "{expected} {updated:#?}");
    }
    // Rows have a column more and are all there; what is the site's own is untouched.
    let rules = |sign: &str| updated.iter().filter(|line| line.starts_with(sign)).count();
    assert_eq!((rules("- firewall_rules|"), rules("+ firewall_rules|")), (200, 200));
    assert!(!updated.iter().any(|line| line.contains("/var/lib/zehrasec/custom")), "{updated:#?}");
    story.controller.stop().await
}
