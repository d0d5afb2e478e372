//! The profiles under `deploy/profiles`, applied as an operator does it: whole folders, warnings and all.

use std::path::Path;

use anyhow::{Context as _, Result};
use fleet_tests::sandbox::Sandbox;
use fleet_types::view::{ApplyView, DocumentItem, Page};

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_profiles_are_applied_to_a_real_controller_and_again_without_a_change() -> Result<()> {
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/profiles");
    // A fleet each: both guides call their procedures by the same names.
    for name in ["zehrasec", "wan22"] {
        let sandbox = Sandbox::without_nodes().await?;
        let folder = profiles.join(name);
        let folder = folder.to_str().context("the folder has an odd name")?;
        let apply = ["config", "apply", folder, "--yes", "--reason", "a story"];
        let first: ApplyView = sandbox.operator.json(&apply).await?;
        // Their schedules and actions are ahead of this version, which says so in many words.
        assert!(first.warnings.len() > 20, "{name}: {}", first.warnings.len());
        assert!(first.items.len() > 10, "{name}: {:?}", first.items);
        assert!(first.items.iter().all(|item| item.action == "created"), "{name}: {:?}", first.items);
        let again: ApplyView = sandbox.operator.json(&apply).await?;
        assert!(again.items.iter().all(|item| item.action == "unchanged"), "{name}: {:?}", again.items);
        let listed: Page<DocumentItem> = sandbox.operator.json(&["procedure", "list"]).await?;
        assert!(listed.items.len() > 10, "{name}: {:?}", listed.items);
        sandbox.finish().await?;
    }
    Ok(())
}
