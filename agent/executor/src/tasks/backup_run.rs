//! `backup.run`: one archive, verified, then the retention of this backup. Rows: Z04, W05.
//!
//! The archive is written under a temporary name, read back, and only then gets its name. An unreadable or
//! changing file fails the backup; nothing half remains, and nothing older goes. Carried out again after a
//! crash, a finished archive of this very run is verified and taken; there is never a second one.

use std::path::{Path, PathBuf};

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Backup, BackupKind, VerifyMethod};
use fleet_types::report::{Artifact, TaskReport};
use fleet_types::severity::Severity;

use super::age::Recipient;
use super::archive::{self, Label, Summary};
use super::archive_error::ArchiveError;
use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::database::{self, Server};
use super::deadline::Deadline;
use super::fill::Filler;
use super::part::{bounded, change, number, problem, sample, skipped, skipped_plan};
use super::restore_stage::STAGE;
use super::retention::{self, checksum_beside, write_checksum};
use super::{args, backup_copy};
use crate::host::{
    FileError, FileKind, FileProblem, Files, Found, check_links, in_background, temporary_beside, walk_trees,
};

/// The task.
pub(super) struct BackupRun;

/// Names tried for archives of runs that began on this node within one second; more than start in one.
const SAME_SECOND: u32 = 20;

/// What this step is to make.
struct Order<'a> {
    id: &'a Id,
    backup: &'a Backup,
    /// The archive, in a folder without links.
    path: PathBuf,
    /// What `{timestamp}` is: seconds, so that another run may have taken the name.
    stamp: String,
    label: Label,
    prune: bool,
    /// Whom its copy is encrypted to, where one is to be made.
    recipients: Option<Vec<Recipient>>,
}

fn order<'a>(context: &TaskContext<'a>) -> Result<Option<Order<'a>>, TaskError> {
    let (id, backup) = args::id(context, "backup", &context.profile.backups)?;
    let filler = Filler::new(context);
    let what = format!("backup {id}");
    if !filler.holds(&what, backup.when.as_ref())? {
        return Ok(None);
    }
    retention::pattern(context, id.as_str(), backup)?;
    let name = filler.text(&what, &backup.file_name)?;
    let path = filler.path(&what, &backup.directory)?.join(name);
    let step = context.step;
    let tag = match args::text(context, "tag")? {
        Some(tag) => filler.text("parameter tag", tag)?,
        None => step.run.to_string(),
    };
    let label = Label::new(id.as_str(), &tag, step.run, step.node, step.job_started);
    let stamp = filler.text(&what, "{timestamp}")?;
    let recipients = backup_copy::recipients(context, id, backup)?;
    let prune = args::flag(context, "prune", true)?;
    Ok(Some(Order { id, backup, path, stamp, label, prune, recipients }))
}

impl Change for BackupRun {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let Some(order) = order(context)? else {
            return Ok(skipped_plan());
        };
        let path = order.path.display().to_string();
        let what = format!("backup {}", order.id);
        let within = if let Some(server) = database_of(context, &order)? {
            let (origin, bytes, tables) =
                database::origin(&server).map_err(|error| error.end(&what, TaskReport::default()))?;
            format!("database {} with {tables} tables, {bytes} bytes", origin.database)
        } else {
            let found = sources(context, &order, &mut TaskReport::default())?;
            let files = found.iter().filter(|one| one.stat.kind == FileKind::Regular);
            let (count, bytes) = (files.clone().count(), files.clone().map(|one| one.stat.size).sum::<u64>());
            match files.filter_map(|one| Some(one.stat.size - one.stat.sparse()?)).sum::<u64>() {
                0 => format!("{count} files, {bytes} bytes"),
                holes => format!(
                    "{count} files, {bytes} bytes, {holes} of them holes that are read and take no room"
                ),
            }
        };
        let mut plan = TaskPlan {
            summary: format!("{what}: {within} into {path}"),
            // The archive's name has the run and the time in it.
            moves: true,
            ..TaskPlan::default()
        };
        plan.changes.push(change(path, "created", "", ""));
        Ok(plan)
    }

    fn reversal(&self) -> Reversal {
        // A good archive is no harm; an unfinished one is removed by the step itself.
        Reversal::Stays
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let mut report = TaskReport::default();
        let Some(mut order) = order(context)? else {
            return Ok(skipped());
        };
        let server = database_of(context, &order)?;
        let files = context.host.files();
        let id = order.id.clone();
        let outcome = place(files, &mut order)
            .map_err(ArchiveError::from)
            .and_then(|()| settle(context, &mut order))
            .map(|summary| summary.map(|summary| (summary, "taken")));
        let outcome = match outcome {
            Ok(Some(done)) => Ok(done),
            Ok(None) => if let Some(server) = &server {
                database::make(server, order.backup, &order.path, &order.label)
            } else {
                let found = sources(context, &order, &mut report)?;
                room(files, &order, &found).map_err(ArchiveError::from).and_then(|()| {
                    let deadline = Deadline::of(context);
                    in_background(|| make(files, &order, &found, deadline))
                })
            }
            .map(|summary| (summary, "created")),
            Err(error) => Err(error),
        };
        match outcome {
            Ok((summary, action)) => {
                describe(context, &order, &summary, action, &mut report);
                summary.list(context.output);
                if let Err(error) = copy(context, &order, &summary, &mut report) {
                    return Err(error.end(&format!("backup {id}: the archive is good, its copy"), report));
                }
                if order.prune {
                    prune(context, &order, &mut report)?;
                }
                Ok(bounded(report))
            }
            Err(error) => Err(error.end(&format!("backup {id}"), report)),
        }
    }
}

/// The database that is dumped; none where files are backed up. Where the database itself does not count on this node,
/// neither does its backup: both are declared with the same `when`, or it is a slip that must be seen.
fn database_of<'a>(context: &'a TaskContext<'a>, order: &Order<'_>) -> Result<Option<Server<'a>>, TaskError> {
    let id = match (order.backup.kind, &order.backup.database) {
        (BackupKind::Files, _) => return Ok(None),
        (BackupKind::Database, Some(id)) => id,
        (BackupKind::Database, None) => {
            return Err(TaskError::Declared(format!("backup {}: it names no database", order.id)));
        }
    };
    Server::of(context, id.as_str())?.map(Some).ok_or_else(|| {
        let message =
            format!("backup {}: the `when` of database {id} is false here, its own is true", order.id);
        TaskError::Declared(message)
    })
}

/// Makes the folder, without links from here on, and removes what an interrupted try left in it.
fn place(files: &dyn Files, order: &mut Order<'_>) -> Result<(), FileError> {
    let name = order.path.file_name().unwrap_or_default().to_owned();
    let declared = order.path.parent().unwrap_or(Path::new("/")).to_owned();
    let folder = match files.canonical(&declared) {
        Err(error) if error.problem == FileProblem::NotFound => {
            files.make_directories(&declared, 0o700)?;
            files.canonical(&declared)?
        }
        other => other?,
    };
    order.path = folder.join(name);
    for path in order.names() {
        match files.remove_file(&temporary_beside(&path)) {
            Err(error) if error.problem != FileProblem::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Order<'_> {
    /// The names that the archive may have, the plain one first; just that one where no time is in it.
    fn names(&self) -> Vec<PathBuf> {
        let plain = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut names = vec![self.path.clone()];
        if plain.contains(&self.stamp) {
            names.extend((2..=SAME_SECOND).map(|number| {
                self.path.with_file_name(plain.replace(&self.stamp, &format!("{}-{number}", self.stamp)))
            }));
        }
        names
    }
}

/// Chooses the archive's name: that of the finished archive of this very run, which is given, else the first
/// that is free. An archive of another run is never replaced.
fn settle(context: &TaskContext<'_>, order: &mut Order<'_>) -> Result<Option<Summary>, ArchiveError> {
    let files = context.host.files();
    let mut free = None;
    for path in order.names() {
        match files.stat(&path) {
            Err(error) if error.problem == FileProblem::NotFound => {
                free.get_or_insert(path);
                continue;
            }
            other => other?,
        };
        if archive::label(files, &path)?.as_ref() == Some(&order.label) {
            order.path = path;
            return taken(context, order).map(Some);
        }
    }
    let Some(path) = free else {
        let why = "it is of another run; put {timestamp} into file_name".to_owned();
        return Err(ArchiveError::Damaged { path: order.path.clone(), why });
    };
    order.path = path;
    Ok(None)
}

/// The finished archive of this very run.
fn taken(context: &TaskContext<'_>, order: &Order<'_>) -> Result<Summary, ArchiveError> {
    let files = context.host.files();
    let summary = archive::verify(files, &order.path, Deadline::of(context))?;
    write_checksum(files, &order.path, summary.sha256)?;
    Ok(summary)
}

/// Everything that belongs into the archive, in order of path.
fn sources(
    context: &TaskContext<'_>,
    order: &Order<'_>,
    report: &mut TaskReport,
) -> Result<Vec<Found>, TaskError> {
    let filler = Filler::new(context);
    let what = format!("backup {}", order.id);
    let exclude = filler.globs(&what, &order.backup.exclude)?;
    let mut all: Vec<Found> = Vec::new();
    for source in filler.globs(&what, &order.backup.sources)? {
        let files = context.host.files();
        let found = check_links(files, &source.base())
            .and_then(|()| walk_trees(files, &source))
            .map_err(|error| ArchiveError::File(error).end(&what, std::mem::take(report)))?;
        if found.is_empty() {
            let message = "the source matches nothing".to_owned();
            report.problems.push(problem(Severity::Medium, "empty_source", source.as_str(), message));
        }
        all.extend(found.into_iter().filter(|one| !exclude.iter().any(|glob| glob.covers(&one.declared))));
    }
    // A source inside another one is taken once; archives of this backup are never taken into themselves.
    all.sort_by(|a, b| a.declared.cmp(&b.declared));
    all.dedup_by(|a, b| a.declared == b.declared);
    let own = retention::pattern(context, order.id.as_str(), order.backup)?;
    // Nor is what a restore has set aside.
    let set_aside = |path: &Path| path.iter().any(|name| name.to_string_lossy().starts_with(STAGE));
    all.retain(|one| !own.matches(&one.declared) && one.path != order.path && !set_aside(&one.declared));
    for one in &all {
        let shown = one.declared.display().to_string();
        match one.stat.kind {
            FileKind::Special => report.problems.push(problem(
                Severity::Low,
                "special_file",
                shown,
                "a device, pipe or socket has no content to back up",
            )),
            FileKind::Link => report.problems.push(problem(
                Severity::Low,
                "link",
                shown,
                "the link is noted in the manifest and not in the archive",
            )),
            FileKind::Regular | FileKind::Directory => {}
        }
    }
    if all.iter().any(|one| one.stat.kind == FileKind::Regular) {
        Ok(all)
    } else {
        let message = format!("backup {}: there is no file to back up", order.id);
        Err(TaskError::failed(message, std::mem::take(report)))
    }
}

/// A disk that an archive fills stops the firewall's logs. Nobody knows how well the content compresses, so there must
/// be room for all of it.
fn room(files: &dyn Files, order: &Order<'_>, found: &[Found]) -> Result<(), FileError> {
    let folder = order.path.parent().unwrap_or(Path::new("/"));
    let needed: u64 =
        found.iter().filter(|one| one.stat.kind == FileKind::Regular).map(|one| one.stat.allocated).sum();
    let available = files.space(folder)?.available;
    if needed <= available {
        return Ok(());
    }
    let why = format!(
        "the files take {needed} bytes, {available} are free; make room, or choose another directory"
    );
    Err(FileError::new("begin the archive in", folder, FileProblem::Full, why))
}

/// Writes, reads back, names. Whatever fails, nothing remains.
fn make(
    files: &dyn Files,
    order: &Order<'_>,
    found: &[Found],
    deadline: Deadline<'_>,
) -> Result<Summary, ArchiveError> {
    let temporary = temporary_beside(&order.path);
    let made = (|| {
        let file = files.create(&temporary, 0o600)?;
        let written = archive::write(files, found, &order.label, file, deadline)?;
        let read = archive::verify(files, &temporary, deadline)?;
        if written != read {
            let why = "it does not read back as it was written".to_owned();
            return Err(ArchiveError::Damaged { path: temporary.clone(), why });
        }
        write_checksum(files, &order.path, written.sha256)?;
        files.rename(&temporary, &order.path)?;
        files.sync_directory(order.path.parent().unwrap_or(Path::new("/")))?;
        Ok(written)
    })();
    if made.is_err() {
        // The reason stands in the error already; what cannot be removed now is removed by the next run.
        let _ = files.remove_file(&temporary);
        if files.stat(&order.path).is_err() {
            let _ = files.remove_file(&checksum_beside(&order.path));
        }
    }
    made
}

fn describe(
    context: &TaskContext<'_>,
    order: &Order<'_>,
    summary: &Summary,
    action: &str,
    report: &mut TaskReport,
) {
    let id = order.id.as_str();
    let path = order.path.display().to_string();
    let (things, archive) = match order.backup.kind {
        BackupKind::Files => ("files", "archive"),
        BackupKind::Database => ("tables", "dump"),
    };
    report.summary = format!(
        "backup {id}: {} {things}, {} bytes in {} {archive} of {} bytes",
        summary.files,
        summary.content,
        if archive == "archive" { "an" } else { "a" },
        summary.size
    );
    if action == "taken" {
        report.summary.push_str(", finished by an earlier try");
    } else {
        report.changes.push(change(&path, action, "", format!("sha256 {}", summary.sha256)));
    }
    for left in summary.left_out.iter().filter(|left| left.why == "vanished") {
        let message = "it went away while the backup was made";
        report.problems.push(problem(Severity::Low, "vanished", &left.path, message));
    }
    if summary.same > 0 {
        let message =
            format!("{} files are hard links of others; a restore makes files of their own", summary.same);
        report.problems.push(problem(Severity::Low, "hard_links", id, message));
    }
    report.samples.push(sample("backup_size", id, number(summary.size), "bytes"));
    report.samples.push(sample(&format!("backup_{things}"), id, number(summary.files as u64), "count"));
    report.artifacts.push(Artifact {
        kind: "backup".to_owned(),
        name: id.to_owned(),
        path,
        size: summary.size,
        sha256: summary.sha256,
        made: context.step.job_started,
        tag: order.label.tag.clone(),
        verified: true,
        copy: None,
    });
    let mut not_built = |code: &str, message: &str| {
        report.problems.push(problem(Severity::Medium, code, id, message));
    };
    if order.backup.verify.contains(&VerifyMethod::RestoreTest) {
        not_built(
            "not_built",
            "checksum and list were verified; a step with backup.restore_test rehearses the restore",
        );
    }
}

/// Makes the encrypted copy, where one is declared.
fn copy(
    context: &TaskContext<'_>,
    order: &Order<'_>,
    summary: &Summary,
    report: &mut TaskReport,
) -> Result<(), ArchiveError> {
    let (Some(copy), Some(recipients)) = (&order.backup.copy, &order.recipients) else { return Ok(()) };
    let archive = (order.path.as_path(), summary.size);
    let made = in_background(|| backup_copy::make(context, copy, recipients, archive))?;
    report.summary = format!("{}; a copy of {} bytes is encrypted", report.summary, made.size);
    if let Some(artifact) = report.artifacts.last_mut() {
        artifact.copy = Some(made);
    }
    Ok(())
}

/// Retention after a good new archive, which is the last good one.
fn prune(context: &TaskContext<'_>, order: &Order<'_>, report: &mut TaskReport) -> Result<(), TaskError> {
    let kept = retention::list(context, order.id.as_str(), order.backup)?;
    let made: Vec<_> = kept.iter().map(|one| one.label.made).collect();
    let own = kept.iter().position(|one| one.path == order.path);
    let doomed = retention::doomed(&made, own, &order.backup.keep, context.host.clock().now());
    let doomed: Vec<_> = doomed.into_iter().map(|index| &kept[index]).collect();
    let freed = retention::remove(context.host.files(), &doomed, report).map_err(|error| {
        ArchiveError::File(error).end(&format!("backup {}", order.id), std::mem::take(report))
    })?;
    if !doomed.is_empty() {
        let gone = doomed.len();
        report.summary = format!("{}; {gone} old archives removed, {freed} bytes", report.summary);
    }
    Ok(())
}
