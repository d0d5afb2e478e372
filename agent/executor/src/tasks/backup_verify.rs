//! `backup.verify`: archives read whole against their manifests, and young enough. Reads only. Row: Z04.

use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Backup, BackupKind};
use fleet_types::report::{Artifact, Problem, TaskReport};
use fleet_types::severity::Severity;

use super::archive;
use super::archive_error::ArchiveError;
use super::contract::{Inspect, TaskContext, TaskError, TaskPlan};
use super::database::{self, DatabaseError, Server};
use super::deadline::Deadline;
use super::fill::Filler;
use super::part::{bounded, problem};
use super::retention::{Kept, checksum_beside, list};
use super::{args, service_state};
use crate::host::read_all;

/// Largest checksum file: a digest and a name.
const MAX_CHECKSUM_BYTES: u64 = 4096;

/// The task.
pub(super) struct BackupVerify;

fn backups<'a>(context: &TaskContext<'a>) -> Result<Vec<(&'a Id, &'a Backup)>, TaskError> {
    args::ids(context, "backups", &context.profile.backups, false)
}

impl Inspect for BackupVerify {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let backups = backups(context)?;
        let summary = format!("verify {}", service_state::names(backups.iter().map(|(id, _)| *id)));
        Ok(TaskPlan { summary, ..TaskPlan::default() })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let mut report = TaskReport::default();
        let mut skipped = Vec::new();
        let backups = backups(context)?;
        for (id, backup) in &backups {
            if !Filler::new(context).holds(&format!("backup {id}"), backup.when.as_ref())? {
                skipped.push(id.as_str());
            } else if let Err(found) = verify(context, id, backup, &mut report)? {
                report.problems.push(*found);
            }
        }
        let bad = report.problems.len();
        report.summary = format!("{} of {} backups are good", report.artifacts.len(), backups.len());
        if !skipped.is_empty() {
            let names = skipped.join(", ");
            report.summary = format!("{}; skipped, `when` is false here: {names}", report.summary);
        }
        let report = bounded(report);
        if bad == 0 { Ok(report) } else { Err(TaskError::failed(report.summary.clone(), report)) }
    }
}

fn verify(
    context: &TaskContext<'_>,
    id: &Id,
    backup: &Backup,
    report: &mut TaskReport,
) -> Result<Result<(), Box<Problem>>, TaskError> {
    let files = context.host.files();
    let finding = |severity, code: &str, subject: String, message: String| {
        Ok(Err(Box::new(problem(severity, code, subject, message))))
    };
    let kept = list(context, id.as_str(), backup)?;
    let Some(one) = choose(context, &kept)? else {
        let message = "there is no such archive".to_owned();
        return finding(Severity::Critical, "no_backup", id.to_string(), message);
    };
    let path = one.path.display().to_string();
    let summary = match archive::verify(files, &one.path, Deadline::of(context)) {
        Ok(summary) => summary,
        Err(ArchiveError::Halted(halt)) => return Err(halt.end(std::mem::take(report))),
        Err(error) => return finding(Severity::Critical, "damaged_backup", path, error.to_string()),
    };
    // The digest says that the dump is what it was; that this node can read it is asked as well.
    if backup.kind == BackupKind::Database
        && let Some(server) =
            backup.database.as_ref().map(|id| Server::of(context, id.as_str())).transpose()?.flatten()
        && let Err(error) = database::list(&server, &one.path)
    {
        let DatabaseError::Halted(halt) = error else {
            return finding(Severity::Critical, "damaged_backup", path, error.to_string());
        };
        return Err(halt.end(std::mem::take(report)));
    }
    let beside = read_all(files, &checksum_beside(&one.path), MAX_CHECKSUM_BYTES);
    let written = beside.ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    if written.split_whitespace().next() != Some(summary.sha256.to_string().as_str()) {
        let message = "the checksum beside the archive is missing or another".to_owned();
        return finding(Severity::Critical, "damaged_backup", path, message);
    }
    let fresh_within = backup.fresh_within.as_ref().map(fleet_types::time::Span::length);
    let max_age: Option<Duration> = args::span(context, "max_age")?.or(fresh_within);
    let age = context.host.clock().now().since(one.label.made);
    if let Some(limit) = max_age.filter(|limit| age > *limit) {
        let message = format!("the archive is of {}, over {} s old", one.label.made, limit.as_secs());
        return finding(Severity::High, "stale_backup", path, message);
    }
    if args::flag(context, "listing", false)? {
        summary.list(context.output);
    }
    report.artifacts.push(Artifact {
        kind: "backup".to_owned(),
        name: id.to_string(),
        path,
        size: summary.size,
        sha256: summary.sha256,
        made: one.label.made,
        tag: one.label.tag.clone(),
        verified: true,
        copy: None,
    });
    Ok(Ok(()))
}

/// By tag, by day in the node's zone, or the newest.
pub(super) fn choose<'k>(context: &TaskContext<'_>, kept: &'k [Kept]) -> Result<Option<&'k Kept>, TaskError> {
    if let Some(tag) = args::text(context, "tag")? {
        let tag = Filler::new(context).text("parameter tag", tag)?;
        return Ok(kept.iter().find(|one| one.label.tag == tag));
    }
    match args::text(context, "date")?.unwrap_or("latest") {
        "latest" => Ok(kept.first()),
        day => {
            let zone = context.host.clock().zone();
            let of = |one: &&Kept| {
                let made = jiff::Timestamp::from_millisecond(one.label.made.as_millis()).unwrap_or_default();
                made.to_zoned(zone.clone()).strftime("%Y%m%d").to_string() == day
            };
            Ok(kept.iter().find(of))
        }
    }
}
