//! T18, T19 on a real node: a packet filter that cuts it off, with the real nft, systemd, and a power cut.

use anyhow::Result;
use fleet_tests::wait::{PATIENCE, wait_for};
use fleet_types::job::{EndCause, JobState, Outcome};

use super::restart;
use super::story::{LABELS, Story};

const UNIT: &str = include_str!("../../../deploy/systemd/fleet-guard.service");

/// New connections to the controller pass one rule set, and not the other.
const PROFILE: &str = r#"
schema = "fleet/v1"
kind = "profile"
name = "filter"
version = 1
[ruleset.good]
kind = "nftables"
file = "/etc/nftables.conf"
text = '''
flush ruleset
table inet filter {
  chain output { type filter hook output priority 0; policy drop;
    ct state established,related accept
    oif lo accept
    tcp dport { 7443, 7444 } counter accept
  }
}
'''
[ruleset.cuts]
kind = "nftables"
file = "/etc/nftables.conf"
text = '''
flush ruleset
table inet filter {
  chain output { type filter hook output priority 0; policy drop;
    ct state established,related accept
    oif lo accept
  }
}
'''
"#;

/// The lines that tell the rule sets from each other, and both files.
const STATE: &str = "nft -s list ruleset; cat /etc/nftables.conf; ls /etc/nftables.conf*";
const IS_CUT: &str = "nft list ruleset | grep -q 'policy drop' && ! nft list ruleset | grep -q 7443";

fn procedure(name: &str, ruleset: &str, within: &str) -> String {
    format!(
        "schema = \"fleet/v1\"\nkind = \"procedure\"\nname = \"{name}\"\nversion = 1\nprofile = \"filter\"\n\
         changes = true\ntimeout = \"30m\"\n[[step]]\nid = \"load\"\nkind = \"task\"\ntitle = \"Load {ruleset}\"\n\
         uses = \"ruleset.apply\"\nwith = {{ ruleset = \"{ruleset}\" }}\ntimeout = \"1m\"\n\
         guard = {{ confirm_within = \"{within}\" }}\non_failure = \"rollback\"\n"
    )
}

async fn put_back(story: &Story, run: &str, before: &str) -> Result<()> {
    match story.ended(run).await? {
        JobState::Ended { outcome: Outcome::RolledBack, cause: Some(EndCause::Unconfirmed), reason } => {
            assert!(reason.contains("the guard put it back"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(story.lab.shell("n1", STATE).await?, before, "to the byte");
    assert_eq!(story.lab.shell("n1", "ls /var/lib/fleet-agent/guard").await?, "", "nothing is pending");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn t18_t19_a_packet_filter_that_cuts_a_real_node_off_is_put_back() -> Result<()> {
    let Some(mut story) = Story::begin(&LABELS).await? else { return Ok(()) };
    let shell = async |script: &str| story.lab.shell("n1", script).await;
    story.lab.write("n1", "/etc/systemd/system/fleet-guard.service", UNIT).await?;
    shell("systemctl daemon-reload; systemctl enable fleet-guard").await?;
    let folder = story.folder.path().join("filter");
    std::fs::create_dir(&folder)?;
    for (name, text) in [
        ("profile", PROFILE.to_owned()),
        ("good", procedure("good", "good", "30s")),
        ("cuts", procedure("cuts", "cuts", "5s")),
        ("cuts-long", procedure("cuts-long", "cuts", "10m")),
    ] {
        std::fs::write(folder.join(format!("{name}.toml")), text)?;
    }
    story.say(&["config", "apply", &folder.to_string_lossy(), "--yes"]).await?;
    // What lets the controller through stays.
    assert_eq!(story.outcome("good").await?.0, Outcome::Succeeded);
    let before = shell(STATE).await?;
    assert!(before.contains("7443"), "{before}");
    // What does not is put back, though the link of before goes on all the time.
    let run = story.start("cuts").await?;
    put_back(&story, &run, &before).await?;
    // Agent, core and guard are killed together: systemd starts them again, and nothing is lost.
    let cut =
        async || wait_for("the node to be cut off", PATIENCE, async || Ok(shell(IS_CUT).await.ok())).await;
    let run = story.start("cuts").await?;
    cut().await?;
    shell("pkill -KILL -x fleet-agent").await?;
    put_back(&story, &run, &before).await?;
    // A power cut, and an agent that does not come back by itself: at the next start the guard puts the file back.
    let run = story.start("cuts-long").await?;
    cut().await?;
    shell("systemctl disable fleet-agent").await?;
    story.lab.power("n1", "cut").await?;
    story.lab.power("n1", "on").await?;
    wait_for("the guard to put the rules back", PATIENCE, async || {
        Ok((shell(STATE).await? == before).then_some(()))
    })
    .await?;
    shell("systemctl enable --now fleet-agent").await?;
    put_back(&story, &run, &before).await?;
    story.online().await?;
    assert_eq!(story.outcome("good").await?.0, Outcome::Succeeded, "and the node works on");
    restart::is_done_once_and_confirmed(&story).await?;
    story.controller.stop().await
}
