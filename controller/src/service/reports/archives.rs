//! What a report says of archives of backups: those that a job made, and those that it looked at.
//!
//! Must not commit. Called by the storing of reports alone.

use std::collections::BTreeMap;

use fleet_store::{Batch, Key};
use fleet_types::report::{Report, StepReport, StepState};

use crate::context::Storage;
use crate::error::Result;
use crate::repo::backups::{self, BackupRecord, CopyRecord};
use crate::repo::reader::BatchExt as _;
use crate::service::caller::Agent;

/// Most archives that one report adds to the list of backups.
const MAX_BACKUPS: usize = 20;

/// Archives that were made, and those that were listed anew.
fn of_report(agent: &Agent, report: &Report) -> Vec<BackupRecord> {
    let names_archives = |step: &&StepReport| match step.action.as_str() {
        // Where the copy failed, the archive is a good one all the same: it is named only then.
        "backup.run" => step.state != StepState::Skipped,
        "backup.verify" => step.output.is_some(),
        _ => false,
    };
    report
        .steps
        .iter()
        .filter(names_archives)
        .flat_map(|step| step.body.artifacts.iter().map(move |artifact| (step, artifact)))
        .filter(|(_, artifact)| artifact.kind == "backup")
        .take(MAX_BACKUPS)
        .map(|(step, artifact)| BackupRecord {
            node: agent.node,
            node_name: agent.name.clone(),
            backup: artifact.name.clone(),
            path: artifact.path.clone(),
            size: artifact.size,
            sha256: artifact.sha256,
            made: artifact.made,
            verified: artifact.verified,
            run: report.job.run,
            listed_in: step.output.map(|_| report.job.run),
            copy: artifact.copy.as_ref().map(|copy| CopyRecord {
                sha256: copy.sha256,
                size: copy.size,
                keep_days: copy.keep_days,
                keep_count: copy.keep_count,
                stored: None,
                gone: None,
            }),
        })
        .collect()
}

/// Adds them to the commit of a report, each once, also where one step of a job made it and another looked at it.
pub(super) async fn add(
    mut batch: Batch,
    storage: &Storage,
    agent: &Agent,
    report: &Report,
) -> Result<Batch> {
    let mut archives: BTreeMap<Key, BackupRecord> = BTreeMap::new();
    for seen in of_report(agent, report) {
        let key = backups::key(agent.node, seen.made.as_millis(), &seen.sha256)?;
        let known = match archives.remove(&key) {
            Some(of_this_report) => Some(of_this_report),
            None => storage.repo.get::<BackupRecord>(&key).await?.map(|known| known.record),
        };
        let seen = match known {
            Some(known) => seen_again(known, seen),
            None => seen,
        };
        archives.insert(key, seen);
    }
    for (key, archive) in archives {
        batch = batch.put_record(key, &archive)?;
    }
    Ok(batch)
}

/// Who looked at an archive did not make it, nor its copy another one; one that is here stays known.
fn seen_again(known: BackupRecord, seen: BackupRecord) -> BackupRecord {
    let copy = match (known.copy, seen.copy) {
        (Some(known), Some(named)) if known.sha256 != named.sha256 => Some(named),
        (known, named) => known.or(named),
    };
    BackupRecord { run: known.run, listed_in: seen.listed_in.or(known.listed_in), copy, ..seen }
}
