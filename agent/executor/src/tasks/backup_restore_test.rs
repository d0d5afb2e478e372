//! `backup.restore_test`: the newest dump restored into a scratch database, its tables and rows compared with what was dumped,
//! and the scratch database dropped. Rows: Z11, W03, W04.
//!
//! The scratch database goes whatever happens: after a failure, a cancel, a limit, and, because the step is carried out again, after
//! the death of the agent. A database that the agent did not make is never touched.

use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Backup, BackupKind};
use fleet_types::report::{Artifact, TaskReport};
use fleet_types::severity::Severity;

use super::archive;
use super::archive_error::ArchiveError;
use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::database::{self, DatabaseError, DumpManifest, Scratch, Server};
use super::deadline::Deadline;
use super::fill::Filler;
use super::part::{bounded, number, problem, sample, skipped, skipped_plan};
use super::retention::Kept;
use super::{args, programs, retention};

/// The task.
pub(super) struct BackupRestoreTest;

/// Kept of the step's time for dropping the scratch database.
const DROP_RESERVE: Duration = Duration::from_secs(30);

/// What is rehearsed.
struct Rehearsal<'a> {
    id: &'a Id,
    backup: &'a Backup,
    server: Server<'a>,
    into: &'a str,
}

fn rehearsal<'a>(context: &'a TaskContext<'a>) -> Result<Option<Rehearsal<'a>>, TaskError> {
    let (id, backup) = args::id(context, "backup", &context.profile.backups)?;
    let what = format!("backup {id}");
    if !Filler::new(context).holds(&what, backup.when.as_ref())? {
        return Ok(None);
    }
    let declared = |why: &str| TaskError::Declared(format!("{what}: {why}"));
    let test = backup.restore_test.as_ref().ok_or_else(|| declared("it declares no restore_test"))?;
    if backup.kind != BackupKind::Database {
        return Err(declared("this build rehearses restores of databases only"));
    }
    let database = backup.database.as_ref().ok_or_else(|| declared("it names no database"))?;
    let server = Server::of(context, database.as_str())?;
    Ok(server.map(|server| Rehearsal { id, backup, server, into: &test.into }))
}

impl Change for BackupRestoreTest {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let Some(rehearsal) = rehearsal(context)? else { return Ok(skipped_plan()) };
        let newest = retention::list(context, rehearsal.id.as_str(), rehearsal.backup)?;
        let newest =
            newest.first().map_or_else(|| "no dump".to_owned(), |one| one.path.display().to_string());
        Ok(TaskPlan {
            summary: format!(
                "backup {}: restore {newest} into the scratch database {}, compare, drop it",
                rehearsal.id, rehearsal.into
            ),
            moves: true,
            ..TaskPlan::default()
        })
    }

    fn reversal(&self) -> Reversal {
        // Nothing of it is left at its end.
        Reversal::Stays
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let Some(rehearsal) = rehearsal(context)? else { return Ok(skipped()) };
        let what = format!("backup {}", rehearsal.id);
        let mut report = TaskReport::default();
        let kept = retention::list(context, rehearsal.id.as_str(), rehearsal.backup)?;
        let Some(newest) = kept.first() else {
            let error = DatabaseError::named("no_backup", "there is no dump to rehearse with");
            return Err(error.end(&what, report));
        };
        let done = (|| {
            let scratch = Scratch::new(&rehearsal.server, rehearsal.into)?;
            let outcome = rehearse(context, &rehearsal, &scratch, newest, &mut report);
            // Before anything was made there may still be what an earlier life of the agent left.
            let dropped = match &outcome {
                Err(ArchiveError::Database(DatabaseError::Named { code: "foreign_database", .. })) => Ok(()),
                _ => scratch.drop(),
            };
            if let Err(error) = dropped {
                let mut left = problem(Severity::Critical, "scratch_left", rehearsal.into, error.to_string());
                left.remedy = format!("drop the database {} by hand", rehearsal.into);
                report.problems.push(left);
                outcome?;
                return Err(error.into());
            }
            outcome
        })();
        match done {
            Ok(()) => Ok(bounded(report)),
            Err(error) => Err(error.end(&what, report)),
        }
    }
}

fn rehearse(
    context: &TaskContext<'_>,
    rehearsal: &Rehearsal<'_>,
    scratch: &Scratch<'_>,
    newest: &Kept,
    report: &mut TaskReport,
) -> Result<(), ArchiveError> {
    let (files, server) = (context.host.files(), &rehearsal.server);
    let path = newest.path.display().to_string();
    // Asked before the dump is read: minutes of work for nothing otherwise.
    scratch.is_there()?;
    let manifest = database::manifest_of(files, &newest.path)?
        .ok_or_else(|| DatabaseError::named("no_backup", format!("{path} has no manifest beside it")))?;
    let summary = archive::verify(files, &newest.path, Deadline::of(context))?;
    database::check_version(&manifest, scratch.version())?;
    database::list(server, &newest.path)?;
    // As large as it was, with its log of changes.
    server.room(manifest.origin.bytes.saturating_mul(2))?;
    let began = context.host.clock().instant();
    scratch.make(&manifest.origin)?;
    let left = programs::left(context);
    let limit = left.checked_sub(DROP_RESERVE).unwrap_or(left / 2);
    database::restore(server, &newest.path, rehearsal.into, limit, true)?;
    let took = context.host.clock().instant().duration_since(began);
    let found = scratch.rows()?;
    compare(rehearsal.id, &manifest, &found, report)?;
    let rows: u64 = found.values().sum();
    report.summary = format!(
        "backup {}: {} tables with {rows} rows restored into {} as they were dumped, and dropped again",
        rehearsal.id,
        found.len(),
        rehearsal.into
    );
    let id = rehearsal.id.as_str();
    report.samples.push(sample("restore_test_duration", id, took.as_secs_f64(), "seconds"));
    report.samples.push(sample("restore_test_tables", id, number(found.len() as u64), "count"));
    report.samples.push(sample("restore_test_rows", id, number(rows), "count"));
    report.artifacts.push(Artifact {
        kind: "backup".to_owned(),
        name: id.to_owned(),
        path,
        size: summary.size,
        sha256: summary.sha256,
        made: newest.label.made,
        tag: newest.label.tag.clone(),
        verified: true,
        copy: None,
    });
    Ok(())
}

fn compare(
    id: &Id,
    manifest: &DumpManifest,
    found: &std::collections::BTreeMap<String, u64>,
    report: &mut TaskReport,
) -> Result<(), DatabaseError> {
    let Some(dumped) = &manifest.rows else {
        let message =
            "the rows were not counted when the dump was made; tables were restored, their rows not compared";
        report.problems.push(problem(Severity::Medium, "not_compared", id.as_str(), message));
        return Ok(());
    };
    let mut differ = 0;
    for table in dumped.keys().chain(found.keys().filter(|table| !dumped.contains_key(*table))) {
        let (was, is) = (dumped.get(table), found.get(table));
        if was != is {
            differ += 1;
            let shown =
                |rows: Option<&u64>| rows.map_or_else(|| "no table".to_owned(), |n| format!("{n} rows"));
            let message = format!("dumped: {}, restored: {}", shown(was), shown(is));
            report.problems.push(problem(Severity::Critical, "restore_differs", table, message));
        }
    }
    if differ == 0 {
        return Ok(());
    }
    let message = format!("{differ} of {} tables are not as they were dumped", dumped.len().max(found.len()));
    Err(DatabaseError::named("restore_differs", message))
}
