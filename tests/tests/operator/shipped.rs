//! The profiles under `deploy/profiles`, applied as an operator does it: whole folders, warnings and all.

use std::path::Path;

use anyhow::{Context as _, Result};
use fleet_tests::sandbox::Sandbox;
use fleet_types::view::{ApplyView, DocumentItem, Page};

/// A procedure that would take the place of a shipped one.
const TAKING: &str = r#"schema = "fleet/v1"
kind = "procedure"
name = "daily-maintenance"
version = 1
description = "Another product's"
profile = "wan22"
changes = false
timeout = "15m"

[[step]]
id = "metrics"
title = "Collect metrics"
kind = "task"
uses = "metrics.collect"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_profiles_share_a_fleet_and_none_takes_the_others_procedures() -> Result<()> {
    let sandbox = Sandbox::without_nodes().await?;
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/profiles");
    for name in ["zehrasec", "wan22"] {
        let folder = profiles.join(name);
        let folder = folder.to_str().context("the folder has an odd name")?;
        let apply = ["config", "apply", folder, "--yes", "--reason", "a story"];
        let first: ApplyView = sandbox.operator.json(&apply).await?;
        // Their schedules and actions are ahead of this version, which says so in many words.
        assert!(first.warnings.len() > 10, "{name}: {}", first.warnings.len());
        assert!(first.items.len() > 10, "{name}: {:?}", first.items);
        assert!(first.items.iter().all(|item| item.action == "created"), "{name}: {:?}", first.items);
        let again: ApplyView = sandbox.operator.json(&apply).await?;
        assert!(again.items.iter().all(|item| item.action == "unchanged"), "{name}: {:?}", again.items);
    }
    let procedures = async || sandbox.operator.json::<Page<DocumentItem>>(&["procedure", "list"]).await;
    let before = procedures().await?.items;
    let taking = sandbox.path("taking.toml");
    std::fs::write(&taking, TAKING)?;
    let taking = taking.to_str().context("the folder has an odd name")?;
    let said = sandbox.operator.ask(&["config", "apply", taking, "--yes", "--reason", "a story"]).await?;
    assert_eq!(said.code, Some(11), "{said:?}");
    assert!(
        said.err.contains("error[other-profile]: procedure \"daily-maintenance\" belongs to"),
        "{said:?}"
    );
    assert_eq!(procedures().await?.items, before, "nothing was stored");
    sandbox.finish().await
}
