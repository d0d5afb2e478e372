//! `log.prune`: archives, compresses and deletes old log files, and drops empty folders. Row: Z13.
//!
//! Never a file that is open for writing, never through a link, never what is excluded. Each file goes to its
//! new place first and leaves the old one only then, so that a crash leaves both and the next run goes on.
//! Names in the archive carry path and time, so that logs of the same name do not replace each other; in place, one gets
//! its time where its name is taken.

use std::collections::BTreeSet;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::{Compression, GzBuilder};
use fleet_types::document::ids::Id;
use fleet_types::document::profile::Log;
use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::args;
use super::command_run::digest_of;
use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::deadline::{Deadline, Halt};
use super::fill::Filler;
use super::log_rules::{Move, Rules};
use super::part::{bounded, change, number, problem, sample};
use crate::host::{
    FileError, FileKind, FileProblem, Files, Found, Stat, WriteFile, temporary_beside, walk, walk_below,
};

/// So many files are worked on before the open files are looked up again; a look costs some 20 ms.
const FILES_A_LOOK: usize = 16;

/// The task.
pub(super) struct LogPrune;

/// What was, or would be, done.
#[derive(Default)]
struct Work {
    report: TaskReport,
    freed: u64,
    plan_only: bool,
    /// Files left alone because they are open.
    open: usize,
    look: Option<Look>,
}

/// Which files were open when that was last looked up, and for how many files it has served.
struct Look {
    open: BTreeSet<(u64, u64)>,
    files: usize,
}

impl Work {
    /// The word for what is done to a file; a report must not say that something happened which did not.
    fn word(&self, done: &str) -> String {
        if self.plan_only { format!("would be {done}") } else { done.to_owned() }
    }
}

fn logs<'a>(context: &TaskContext<'a>) -> Result<Vec<(&'a Id, &'a Log)>, TaskError> {
    args::ids(context, "logs", &context.profile.logs, false)
}

impl Change for LogPrune {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let report = prune(context, true)?;
        Ok(TaskPlan { summary: report.summary, changes: report.changes, moves: true, ..TaskPlan::default() })
    }

    fn reversal(&self) -> Reversal {
        // What is deleted is gone; the plan lists it beforehand.
        Reversal::None
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        prune(context, args::flag(context, "plan_only", false)?)
    }
}

fn prune(context: &TaskContext<'_>, plan_only: bool) -> Result<TaskReport, TaskError> {
    let mut work = Work { plan_only, ..Work::default() };
    for (id, log) in logs(context)? {
        let rules = Rules::new(&Filler::new(context), id, log)?;
        let done = rules_in_order(context, &rules, &mut work);
        match done {
            Ok(()) => {}
            Err(Stop::Halted(halt)) => {
                finish(&mut work);
                return Err(halt.end(work.report));
            }
            Err(Stop::File(error)) => {
                let message = format!("log {id}: {error}");
                let code = if error.problem == FileProblem::Full { "disk_full" } else { "log_failed" };
                work.report.problems.push(problem(Severity::High, code, id.as_str(), error.to_string()));
                finish(&mut work);
                return Err(TaskError::failed(message, bounded(work.report)));
            }
        }
    }
    finish(&mut work);
    Ok(bounded(work.report))
}

fn finish(work: &mut Work) {
    let verb = if work.plan_only { "would be freed" } else { "freed" };
    work.report.summary = format!("{} changes, {} bytes {verb}", work.report.changes.len(), work.freed);
    if work.open > 0 {
        let open = work.open;
        work.report.summary = format!("{}; {open} files are open for writing and stay", work.report.summary);
    }
    work.report.samples.push(sample("bytes_freed", "", number(work.freed), "bytes"));
}

enum Stop {
    Halted(Halt),
    File(FileError),
}

impl From<Halt> for Stop {
    fn from(halt: Halt) -> Self {
        Self::Halted(halt)
    }
}

impl From<FileError> for Stop {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

fn rules_in_order(context: &TaskContext<'_>, rules: &Rules, work: &mut Work) -> Result<(), Stop> {
    let files = context.host.files();
    let now = context.host.clock().now();
    let mut any = false;
    for glob in &rules.paths {
        let found = walk(files, glob)?;
        any |= !found.is_empty();
        let old = |one: &Found, after: Duration| now.since(one.stat.modified) > after;
        let moves: Vec<(Found, Move)> = found
            .into_iter()
            .filter(|one| one.stat.kind == FileKind::Regular)
            .filter_map(|one| rules.wanted(&one, glob, &old).map(|to| (one, to)))
            .collect();
        each_closed(
            context,
            moves,
            work,
            |(one, _)| &one.stat,
            |(one, to), work| relocate(files, &one, &to, work),
        )?;
    }
    if !any && !rules.missing_ok {
        let paths: Vec<_> = rules.paths.iter().map(crate::host::Glob::as_str).collect();
        let message = "no log file is there";
        work.report.problems.push(problem(Severity::Low, "empty_source", paths.join(", "), message));
    }
    if let Some(after) = rules.delete_after {
        for glob in &rules.delete {
            let mut found = walk(files, glob)?;
            found.retain(|one| {
                one.stat.kind == FileKind::Regular
                    && now.since(one.stat.modified) > after
                    && !rules.is_excluded_from_delete(&one.declared, glob)
            });
            each_closed(context, found, work, |one| &one.stat, |one, work| delete(files, &one, work))?;
        }
    }
    empty_folders(files, rules, work)
}

/// Calls `act` for those that nobody holds open for writing, looking that up again often.
fn each_closed<T>(
    context: &TaskContext<'_>,
    all: Vec<T>,
    work: &mut Work,
    stat: impl Fn(&T) -> &Stat,
    mut act: impl FnMut(T, &mut Work) -> Result<(), FileError>,
) -> Result<(), Stop> {
    for one in all {
        let known = stat(&one);
        let is_open = is_open(context, (known.device, known.inode), work)?;
        Deadline::of(context).check()?;
        if is_open {
            work.open += 1;
        } else {
            act(one, work)?;
        }
    }
    Ok(())
}

/// Does somebody hold this file open for writing? By a look that serves several files, also of different rules.
fn is_open(context: &TaskContext<'_>, file: (u64, u64), work: &mut Work) -> Result<bool, FileError> {
    let mut look = match work.look.take().filter(|look| look.files < FILES_A_LOOK) {
        Some(look) => look,
        None => Look { open: context.host.files().open_for_writing()?, files: 0 },
    };
    look.files += 1;
    Ok(work.look.insert(look).open.contains(&file))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Writes the file at its new place, then takes the old one away.
fn relocate(files: &dyn Files, from: &Found, to: &Move, work: &mut Work) -> Result<(), FileError> {
    let action = if to.archive { "archived" } else { "compressed" };
    let before = format!("{} bytes", from.stat.size);
    if work.plan_only {
        let to = if files.stat(&to.path).is_ok() { dated(&to.path, from) } else { to.path.clone() };
        // How small it will be nobody knows before; the freed bytes of a plan are those of deletions.
        work.report.changes.push(change(shown(&from.declared), &work.word(action), before, shown(&to)));
        return Ok(());
    }
    let target = in_place(files, &to.path)?;
    let temporary = temporary_beside(&target);
    match files.remove_file(&temporary) {
        Err(error) if error.problem != FileProblem::NotFound => return Err(error),
        _ => {}
    }
    let size = match copy(files, from, &temporary, to.compress) {
        Ok(Some(size)) => size,
        Ok(None) => {
            files.remove_file(&temporary)?;
            let message = "it changed while it was copied, and stays";
            work.report.problems.push(problem(Severity::Low, "changed_file", shown(&from.declared), message));
            return Ok(());
        }
        Err(error) => {
            // The copy failed; what there is of it goes, and the log itself stays.
            let _ = files.remove_file(&temporary);
            return Err(error);
        }
    };
    let Some(target) = free(files, &temporary, target, from)? else {
        files.remove_file(&temporary)?;
        let message = "another file has the name it would get, and it stays";
        work.report.problems.push(problem(Severity::Low, "name_taken", shown(&from.declared), message));
        return Ok(());
    };
    files.rename(&temporary, &target)?;
    files.sync_directory(target.parent().unwrap_or(Path::new("/")))?;
    files.remove_file(&from.path)?;
    work.freed += from.stat.size.saturating_sub(size);
    let name = to.path.with_file_name(target.file_name().unwrap_or_default());
    let after = format!("{} ({size} bytes)", shown(&name));
    work.report.changes.push(change(shown(&from.declared), action, before, after));
    Ok(())
}

/// A name that costs no other file: the wanted one where nothing is there or the same already, as after a crash, else the
/// one with the time of the log in it. A log that is compressed where it lies meets its predecessor of a week ago.
fn free(files: &dyn Files, made: &Path, wanted: PathBuf, from: &Found) -> Result<Option<PathBuf>, FileError> {
    for target in [dated(&wanted, from), wanted].into_iter().rev() {
        match files.stat(&target) {
            Err(error) if error.problem == FileProblem::NotFound => return Ok(Some(target)),
            Err(error) => return Err(error),
            Ok(stat) if stat.kind != FileKind::Regular => {}
            Ok(_) => {
                let content = |path: &Path| digest_of(files, path).map(|(size, digest, _)| (size, digest));
                if content(&target)? == content(made)? {
                    return Ok(Some(target));
                }
            }
        }
    }
    Ok(None)
}

/// `x.log-20250901T020000Z.gz`
fn dated(path: &Path, from: &Found) -> PathBuf {
    let time = from.stat.modified.compact();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(match name.strip_suffix(".gz") {
        Some(stem) => format!("{stem}-{time}.gz"),
        None => format!("{name}-{time}"),
    })
}

/// The target in a folder without links, which is made where it is missing.
fn in_place(files: &dyn Files, path: &Path) -> Result<PathBuf, FileError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let real = match files.canonical(folder) {
        Err(error) if error.problem == FileProblem::NotFound => {
            files.make_directories(folder, 0o750)?;
            files.canonical(folder)?
        }
        other => other?,
    };
    Ok(real.join(path.file_name().unwrap_or_default()))
}

/// Copies with owner, mode and time; none when the file was not the same at the end.
fn copy(files: &dyn Files, from: &Found, to: &Path, compress: bool) -> Result<Option<u64>, FileError> {
    let mut source = files.open(&from.path)?;
    let before = source.stat()?;
    let mut target = files.create(to, before.mode & 0o777)?;
    let copied = write(BufReader::with_capacity(128 * 1024, &mut source), &mut target, compress);
    let copied = copied.map_err(|e| FileError::of("write", to, &e))?;
    target.take_after(&before)?;
    target.sync()?;
    drop(target);
    let same = source.stat()? == before && copied == before.size && before.inode == from.stat.inode;
    Ok(if same { Some(files.stat(to)?.size) } else { None })
}

fn write(mut from: impl Read, to: &mut Box<dyn WriteFile>, compress: bool) -> std::io::Result<u64> {
    let mut to = BufWriter::with_capacity(128 * 1024, to);
    let copied = if compress {
        // No time and no name in the header: the same content gives the same bytes.
        let mut gzip = GzBuilder::new().write(&mut to, Compression::new(6));
        let copied = std::io::copy(&mut from, &mut gzip)?;
        gzip.finish()?;
        copied
    } else {
        std::io::copy(&mut from, &mut to)?
    };
    to.flush()?;
    Ok(copied)
}

fn delete(files: &dyn Files, one: &Found, work: &mut Work) -> Result<(), FileError> {
    if !work.plan_only {
        files.remove_file(&one.path)?;
    }
    work.freed += one.stat.size;
    let before = format!("{} bytes of {}", one.stat.size, one.stat.modified);
    work.report.changes.push(change(shown(&one.declared), &work.word("deleted"), before, ""));
    Ok(())
}

/// Removes folders that are empty, deepest first; never the top one, never one that stays.
fn empty_folders(files: &dyn Files, rules: &Rules, work: &mut Work) -> Result<(), Stop> {
    let Some((under, keep)) = &rules.empty_folders else { return Ok(()) };
    let mut folders = walk_below(files, under)?;
    folders.retain(|one| one.stat.kind == FileKind::Directory && one.declared != *under);
    // Longer paths first: a folder whose only member was an empty folder is empty by then.
    folders.sort_by(|a, b| b.path.cmp(&a.path));
    for folder in folders {
        if keep.iter().any(|kept| kept.starts_with(&folder.declared)) || rules.is_excluded(&folder.declared) {
            continue;
        }
        if !files.list(&folder.path)?.is_empty() {
            continue;
        }
        if !work.plan_only {
            match files.remove_directory(&folder.path) {
                // Something was put in meanwhile.
                Err(error) if error.problem == FileProblem::NotEmpty => continue,
                other => other?,
            }
        }
        work.report.changes.push(change(shown(&folder.declared), &work.word("deleted"), "empty folder", ""));
    }
    Ok(())
}
