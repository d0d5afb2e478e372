//! Exit code 12: an audit log that somebody rewrote who owns the controller's disk, and who made everything fit
//! again but what this machine remembers.

use anyhow::{Context as _, Result, ensure};
use fleet_store::{Batch, Direction, LogName, WriteId};
use fleet_tests::sandbox::Sandbox;
use fleet_types::audit::AuditRecord;
use fleet_types::canonical;
use fleet_types::digest::Digest;

/// The log's name in the store; the layout is kept by the controller's `repo/keys.rs`.
const LOG: &str = "audit/leaf";
/// As many as a log of these stories never has.
const ALL: usize = 1000;

async fn broken(sandbox: &Sandbox) -> Result<String> {
    let said = sandbox.operator.ask(&["audit", "verify"]).await?;
    ensure!(said.code == Some(12), "it was to end with 12: {said:?}");
    for part in [
        "error[audit-broken]: ",
        "cause: the audit log is not whole",
        "fix: keep this machine's contexts folder",
    ] {
        ensure!(said.err.contains(part), "lacks {part:?}: {said:?}");
    }
    ensure!(said.out.is_empty(), "{said:?}");
    Ok(said.err)
}

/// Changes who did the first thing that an operator did; gives the record's place.
async fn rewrite(sandbox: &Sandbox) -> Result<u64> {
    let url = format!("sled:{}", sandbox.controller.data_directory().join("store").display());
    let store = fleet_store::open(&url, None).await?;
    let log = LogName::new(LOG)?;
    let page = store.scan(&log.record_prefix(), None, ALL, Direction::Ascending).await?;
    let mut rewritten = None;
    for (key, entry) in page {
        let mut record: AuditRecord = canonical::from_slice(&entry.value)?;
        if record.actor.role == "operator" {
            "mallory".clone_into(&mut record.actor.name);
            let id = WriteId::from_bytes(*uuid::Uuid::new_v4().as_bytes());
            store.commit(Batch::new(id).put(key, canonical::to_vec(&record)?)).await?;
            rewritten = Some(record.index);
            break;
        }
    }
    store.close().await?;
    rewritten.context("no record of an operator is in the log")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_rewritten_in_the_store_is_found_by_who_saw_it_before() -> Result<()> {
    let mut sandbox = Sandbox::start(1).await?;
    let run = sandbox.start_run("short").await?;
    sandbox.ended(run).await?;
    sandbox.operator.good(&["audit", "verify"]).await?;
    let mark = sandbox.operator.folder().join("contexts/dev/audit-mark.json");
    let remembered = std::fs::read_to_string(&mark)?;

    // A remembered root that does not fit: whoever is right, it is told.
    let mut other: serde_json::Value = serde_json::from_str(&remembered)?;
    let last = other["marks"].as_array_mut().and_then(|marks| marks.last_mut()).context("no mark")?;
    last["root"] = serde_json::to_value(Digest::of(b"another log"))?;
    std::fs::write(&mark, other.to_string())?;
    let said = broken(&sandbox).await?;
    assert!(said.contains("is not what was seen before"), "{said}");
    assert_eq!(std::fs::read_to_string(&mark)?, other.to_string(), "the evidence stays");
    std::fs::write(&mark, &remembered)?;
    sandbox.operator.good(&["audit", "verify"]).await?;

    // A rewritten record: the controller serves it, its own figures agree, and the root of before does not.
    sandbox.controller.stop().await?;
    let index = rewrite(&sandbox).await?;
    sandbox.controller.start().await?;
    let listed = sandbox.operator.good(&["audit", "list", "--limit", "500", "-o", "json"]).await?;
    assert!(listed.contains("mallory"), "the controller knows no better");
    let said = broken(&sandbox).await?;
    let range = said.split("record ").nth(1).and_then(|rest| rest.split(' ').next()).context("no record")?;
    assert!(range.parse::<u64>()? <= index, "{said}");

    // Who never saw it before cannot tell; that is why it is remembered.
    std::fs::remove_file(&mark)?;
    let first = sandbox.operator.good(&["audit", "verify"]).await?;
    assert!(first.contains("first check from this machine"), "{first}");
    sandbox.all_online().await?;
    sandbox.finish().await
}
