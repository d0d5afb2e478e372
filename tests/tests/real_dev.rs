//! The story of `fleetctl dev`, as a newcomer starts it: all of its parts, what they leave on the nodes, and that it does
//! not call a success what is none.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet_tests::programs::program;
use fleet_tests::sandbox::processes;
use fleetctl::dev::packages::installed::Installed;
use tokio::process::Command;
use tokio::time::timeout;

/// Half a minute on a machine of its own; here it has company.
const LIMIT: Duration = Duration::from_mins(5);

/// Runs the story in a folder; gives its exit code and all that it said.
async fn story(folder: &Path, nodes: &str) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(program("fleetctl", "fleetctl")?);
    command.args(["dev", "--once", "--nodes", nodes, "--dir"]).arg(folder);
    command.env_remove("FLEET_CONTEXT").env("FLEET_CONFIG_DIR", folder.with_extension("config"));
    let call = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LIMIT, call).await.context("the story does not end")??;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.code(), said.concat()))
}

fn look(folder: &Path, node: &str) -> Result<Installed> {
    Ok(Installed::look(&folder.join("nodes").join(node).join("root"))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn six_nodes_are_checked_updated_and_put_back_as_they_were() -> Result<()> {
    let parent = tempfile::tempdir()?;
    let folder = parent.path().join("fleet");
    let (code, said) = story(&folder, "6").await?;
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "start daily-checks --all",
        "6 ok of 6",
        "version=1.1 -l 'ring!=rest'",
        "zehrasec 1.1 on 2 of 2 nodes",
        "version=1.2 --node fw-fra1-03",
        "rolled_back  1 of 7 checks are bad: security-status",
        "downgraded zehrasec: 1.2 -> 1.1",
        "exit code 7: rolled back, as it should be",
        "run start lock-out --node fw-ams2-01",
        "the guard of fw-ams2-01 heard nobody and undid it",
        "rules and file are byte for byte as before",
        "nothing needs attention",
        "log whole",
    ] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    // The node that was put back is like one that never had the broken version, byte for byte.
    let (never, back) = (look(&folder, "fw-ams2-03")?, look(&folder, "fw-fra1-03")?);
    assert_eq!(back.status, never.status);
    let own = "/etc/zehrasec/firewall.json";
    let files = |of: &Installed| {
        let mut files = of.files.clone();
        assert!(files.remove(own).is_some());
        files
    };
    assert_eq!(files(&back), files(&never));
    assert_eq!(back.version(), Some("1.1"));
    assert!(fs::read_to_string(folder.join("nodes/fw-fra1-03/root").join(&own[1..]))?.contains("fw-fra1-03"));
    // The others were left alone.
    for node in ["fw-ams2-01", "fw-ams2-02", "fw-fra1-01", "fw-fra1-02"] {
        assert_eq!(look(&folder, node)?.version(), Some("1.0"), "{node}");
    }
    assert_eq!(processes::below(&folder)?, Vec::<String>::new(), "everything was ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_version_that_stays_is_no_success() -> Result<()> {
    let parent = tempfile::tempdir()?;
    let folder = parent.path().join("fleet");
    let (code, said) = story(&folder, "2").await?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("version=1.1 --all") && said.contains("zehrasec 1.1 on 2 of 2 nodes"), "{said}");
    // A procedure that does not look at the new version leaves it in place.
    let file = folder.join("documents/procedures/update.toml");
    let text = fs::read_to_string(&file)?;
    let (before, rest) = text.split_once("[[step]]\nid    = \"healthy-after\"").context("no such step")?;
    let (_, after) = rest.split_once("# ---- the way back").context("no way back")?;
    fs::write(&file, format!("{before}# ---- the way back{after}"))?;
    let (code, said) = story(&folder, "2").await?;
    assert_eq!(code, Some(12), "{said}");
    for part in ["the run: exit code 0, succeeded", "zehrasec 1.1 -> 1.2", "the daemon firewall"] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    assert_eq!(look(&folder, "fw-fra1-01")?.version(), Some("1.2"));
    Ok(())
}
