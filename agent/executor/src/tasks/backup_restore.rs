//! `backup.restore`: an archive of files put back where it came from. Rows: Z07, W03, W04, W05, W15.
//!
//! The archive is read whole and its listing checked before anything is written; everything is unpacked beside its place; what was
//! there is set aside, and comes back when the step fails, when the job goes back, and after a crash. What was set aside is
//! kept until the next restore by another run. It must never write outside of the declared sources, nor through a link.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Backup, BackupKind, Validator};
use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;
use serde_json::{Value, json};

use super::archive_error::ArchiveError;
use super::backup_verify::choose;
use super::config_validate::{Candidate, takes_candidates};
use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::database::{DatabaseError, Server};
use super::database_restore::DatabaseRestore;
use super::deadline::Deadline;
use super::fill::Filler;
use super::part::{bounded, change, problem, skipped, skipped_plan};
use super::restore_listing::{self, Item, Scope};
use super::restore_stage::{self, Move, STAGE, Step};
use super::retention::{self, Kept};
use super::{archive, args, restore_validate};
use crate::host::{FileError, FileKind, FileProblem, Files, Found, check_links, in_background, walk_trees};

/// The task.
pub(super) struct BackupRestore;

/// What is to be restored.
struct Order<'a> {
    context: &'a TaskContext<'a>,
    id: &'a Id,
    backup: &'a Backup,
    scope: Scope,
    /// Files that are not in the archive go.
    recreate: bool,
    /// What looks at the files before they are put in place.
    validators: Vec<(&'a Id, &'a Validator)>,
}

fn order<'a>(context: &'a TaskContext<'a>) -> Result<Option<Order<'a>>, TaskError> {
    let (id, backup) = args::id(context, "backup", &context.profile.backups)?;
    let what = format!("backup {id}");
    let filler = Filler::new(context);
    if !filler.holds(&what, backup.when.as_ref())? {
        return Ok(None);
    }
    let sources = filler.globs(&what, &backup.sources)?;
    let bases: Vec<PathBuf> = sources.iter().map(crate::host::Glob::base).collect();
    let only = args::texts(context, "only")?
        .iter()
        .map(|part| {
            let part = filler.text("parameter only", part)?;
            part_of(&bases, &part).ok_or_else(|| {
                TaskError::Declared(format!(
                    "parameter only: \"{part}\" is no source of backup {id} and in none"
                ))
            })
        })
        .collect::<Result<_, _>>()?;
    let recreate = match args::text(context, "mode")?.unwrap_or("over") {
        "over" => false,
        "recreate" => true,
        other => return Err(TaskError::Declared(format!("parameter mode: there is no mode \"{other}\""))),
    };
    let mut validators = Vec::new();
    if context.with.contains_key("validators") {
        validators = args::ids(context, "validators", &context.profile.validators, false)?;
    }
    for (id, validator) in &validators {
        takes_candidates(id, validator)?;
    }
    Ok(Some(Order { context, id, backup, scope: Scope { sources, only }, recreate, validators }))
}

/// A source or what is in it: an absolute path, or one that begins with the last names of a source, as `config/rules` does below
/// a source `/opt/fw/config`.
fn part_of(bases: &[PathBuf], part: &str) -> Option<PathBuf> {
    let part = Path::new(part.trim_end_matches('/'));
    if part.components().any(|name| name == std::path::Component::ParentDir) {
        return None;
    }
    if part.is_absolute() {
        return bases.iter().any(|base| part.starts_with(base)).then(|| part.to_owned());
    }
    bases.iter().find_map(|base| {
        let names: Vec<_> = base.iter().collect();
        let known = (1..names.len()).rev().map(|from| names[from..].iter().collect::<PathBuf>());
        known.into_iter().find_map(|known| {
            let below = part.strip_prefix(known).ok()?;
            // Joined with nothing it would end in a slash.
            Some(base.iter().chain(below).collect())
        })
    })
}

impl Order<'_> {
    fn files(&self) -> &dyn Files {
        self.context.host.files()
    }

    fn what(&self) -> String {
        format!("backup {}", self.id)
    }

    /// The archive that is asked for.
    fn archive(&self) -> Result<Option<Kept>, TaskError> {
        let kept = retention::list(self.context, self.id.as_str(), self.backup)?;
        Ok(choose(self.context, &kept)?.cloned())
    }

    /// The name of this step's hidden folders: the same in every life of the agent.
    fn stage_name(&self) -> String {
        let step = self.context.step;
        format!("{STAGE}{}-{}-{}", step.run, step.attempt.0, step.step)
    }

    /// The hidden folder for what lies below a source: beside it, or in it where it is a file system of its own.
    fn stage_of(&self, path: &Path) -> Result<PathBuf, FileError> {
        let files = self.files();
        let source = self.scope.sources.iter().find(|source| source.covers(path));
        let base = source.map_or_else(|| path.to_owned(), crate::host::Glob::base);
        let mut folder = base.parent().unwrap_or(Path::new("/")).to_owned();
        // What is not there yet will lie on the file system of the first folder above it.
        while files.stat(&folder).is_err() && folder.parent().is_some() {
            folder.pop();
        }
        match files.stat(&base) {
            Ok(stat) if stat.kind == FileKind::Directory && stat.device != files.stat(&folder)?.device => {
                folder = base;
            }
            _ => {}
        }
        Ok(files.canonical(&folder)?.join(self.stage_name()))
    }

    /// All hidden folders that this step may have.
    fn stages(&self) -> Result<Vec<PathBuf>, FileError> {
        let bases = self.scope.sources.iter().map(|source| self.stage_of(&source.base()));
        let stages: BTreeSet<PathBuf> = bases.collect::<Result<_, _>>()?;
        Ok(stages.into_iter().collect())
    }

    /// Where a member goes. Links above its source are followed, because whoever owns those folders made them; below it there may be
    /// none, because whoever writes there could lead the restore away.
    fn place(&self, declared: &Path) -> Result<PathBuf, FileError> {
        let files = self.files();
        let source = self.scope.sources.iter().find(|source| source.covers(declared));
        let base = source.map_or_else(|| declared.to_owned(), crate::host::Glob::base);
        let is_folder = |path: &PathBuf| files.stat(path).is_ok_and(|stat| stat.kind == FileKind::Directory);
        let mut place = match files.canonical(&base) {
            Ok(real) if is_folder(&real) => real,
            _ => below_what_is_there(files, &base)?,
        };
        let below: Vec<_> = declared.strip_prefix(&base).unwrap_or(Path::new("")).iter().collect();
        for (number, name) in below.iter().enumerate() {
            place.push(name);
            let is_last = number + 1 == below.len();
            if !is_last && files.stat(&place).is_ok_and(|stat| stat.kind == FileKind::Link) {
                return Err(through_a_link(&place));
            }
        }
        Ok(place)
    }

    /// Reads the archive whole, checks its listing, and works out the moves. Writes nothing.
    fn moves(&self, archive: &Kept) -> Result<(Vec<Item>, Vec<Step>), ArchiveError> {
        let (files, deadline) = (self.files(), Deadline::of(self.context));
        for source in &self.scope.sources {
            check_links(files, &source.base())?;
        }
        archive::verify(files, &archive.path, deadline)?;
        let mut digests = BTreeMap::new();
        let items = restore_listing::read(files, &archive.path, &self.scope, deadline, |item, content| {
            let mut hasher = fleet_types::digest::Hasher::new();
            let mut chunk = vec![0; 64 * 1024];
            loop {
                deadline.check()?;
                match content.read(&mut chunk).map_err(|e| FileError::of("unpack", &archive.path, &e))? {
                    0 => break,
                    count => hasher.update(&chunk[..count]),
                }
            }
            digests.insert(item.path.clone(), hasher.finish());
            Ok(())
        })?;
        if items.is_empty() {
            let why = "it holds nothing of what is asked for".to_owned();
            return Err(ArchiveError::Damaged { path: archive.path.clone(), why });
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut add = |declared: &Path, path: PathBuf, change: Move| -> Result<(), FileError> {
            let (stage, number) = (self.stage_of(declared)?, steps.len());
            let sha256 = digests.get(declared).copied().filter(|_| change == Move::Put);
            steps.push(Step { path, stage, number, change, sha256 });
            Ok(())
        };
        // Folders before what lies in them.
        let mut sorted: Vec<&Item> = items.iter().collect();
        sorted.sort_by(|a, b| (!a.is_folder, &a.path).cmp(&(!b.is_folder, &b.path)));
        for item in &sorted {
            deadline.check()?;
            let path = self.place(&item.path)?;
            let found = match files.stat(&path) {
                Err(error) if error.problem == FileProblem::NotFound => None,
                other => Some(other?),
            };
            let was = match &found {
                Some(stat) if matches!(stat.kind, FileKind::Regular | FileKind::Directory) => {
                    Some(restore_stage::dress_of(files, &path, stat)?)
                }
                _ => None,
            };
            match (item.is_folder, found.as_ref().map(|stat| stat.kind)) {
                (true, None) => add(&item.path, path, Move::Folder { dress: item.dress.clone(), was: None })?,
                (true, Some(FileKind::Directory)) => {
                    // Its time follows from what is done in it.
                    let differs = was.as_ref().is_some_and(|was| {
                        (was.uid, was.gid, was.mode & 0o777)
                            != (item.dress.uid, item.dress.gid, item.dress.mode)
                    });
                    if differs {
                        add(&item.path, path, Move::Folder { dress: item.dress.clone(), was })?;
                    }
                }
                (false, Some(FileKind::Regular)) => {
                    let same = found.as_ref().is_some_and(|stat| stat.size == item.size)
                        && was.as_ref().is_some_and(|was| {
                            (was.uid, was.gid, was.mode & 0o777)
                                == (item.dress.uid, item.dress.gid, item.dress.mode)
                                && item.dress.attributes.iter().all(|one| was.attributes.contains(one))
                        })
                        && digests.get(&item.path) == Some(&restore_stage::digest(files, &path, deadline)?);
                    if !same {
                        add(&item.path, path, Move::Put)?;
                    }
                }
                (false, None | Some(FileKind::Link)) => add(&item.path, path, Move::Put)?,
                (true, Some(FileKind::Link)) => return Err(through_a_link(&path).into()),
                (_, Some(_)) => {
                    let why =
                        "a folder is where a file is to be, or a file where a folder; clear it away by hand";
                    return Err(FileError::new("restore", &path, FileProblem::WrongKind, why).into());
                }
            }
        }
        if self.recreate {
            self.add_removals(&items, &mut add)?;
        }
        Ok((items, steps))
    }

    /// What is there and not in the archive. What was left out of the backup, links among it, is left alone.
    fn add_removals(
        &self,
        items: &[Item],
        add: &mut dyn FnMut(&Path, PathBuf, Move) -> Result<(), FileError>,
    ) -> Result<(), ArchiveError> {
        let files = self.files();
        let filler = Filler::new(self.context);
        let exclude = filler
            .globs(&self.what(), &self.backup.exclude)
            .map_err(|e| ArchiveError::Damaged { path: PathBuf::new(), why: e.to_string() })?;
        let archived: BTreeSet<&Path> = items.iter().map(|item| item.path.as_path()).collect();
        let mut folders = Vec::new();
        for source in &self.scope.sources {
            for found in walk_trees(files, source)? {
                let declared = &found.declared;
                let is_stage = declared.iter().any(|name| name.to_string_lossy().starts_with(STAGE));
                let left = exclude.iter().any(|glob| glob.covers(declared)) || is_stage;
                if left || archived.contains(declared.as_path()) || !self.scope.wants(declared) {
                    continue;
                }
                match found.stat.kind {
                    FileKind::Regular => add(declared, found.path.clone(), Move::Remove)?,
                    FileKind::Directory => folders.push(found),
                    FileKind::Link | FileKind::Special => {}
                }
            }
        }
        // Those inside others first.
        folders.sort_by(|a, b| b.path.cmp(&a.path));
        for found in folders {
            let was = restore_stage::dress_of(files, &found.path, &found.stat)?;
            add(&found.declared, found.path.clone(), Move::RemoveFolder { was })?;
        }
        Ok(())
    }

    /// Unpacks what is to be put in place, beside it.
    fn stage(&self, archive: &Kept, items: &[Item], steps: &[Step]) -> Result<(), ArchiveError> {
        let (files, deadline) = (self.files(), Deadline::of(self.context));
        let mut needed: BTreeMap<&Path, u64> = BTreeMap::new();
        let sizes: BTreeMap<PathBuf, u64> = items
            .iter()
            .map(|item| Ok((self.place(&item.path)?, item.on_disk.unwrap_or(item.size))))
            .collect::<Result<_, FileError>>()?;
        for step in steps.iter().filter(|step| step.change == Move::Put) {
            *needed.entry(&step.stage).or_default() += sizes.get(&step.path).copied().unwrap_or_default();
        }
        for (stage, bytes) in needed {
            let folder = stage.parent().unwrap_or(Path::new("/"));
            let available = files.space(folder)?.available;
            if bytes > available {
                let why =
                    format!("{bytes} bytes are needed beside what is there, {available} are free; make room");
                return Err(FileError::new("restore into", folder, FileProblem::Full, why).into());
            }
        }
        for stage in self.stages()? {
            files.make_directories(&stage, 0o700)?;
        }
        let puts: BTreeMap<&Path, &Step> = steps
            .iter()
            .filter(|step| step.change == Move::Put)
            .map(|step| (step.path.as_path(), step))
            .collect();
        restore_listing::read(files, &archive.path, &self.scope, deadline, |item, content| {
            match puts.get(self.place(&item.path)?.as_path()) {
                Some(step) => restore_listing::unpack(files, item, content, &step.new_file(), deadline),
                None => Ok(()),
            }
        })?;
        Ok(())
    }

    /// The files that are to be put in place, where they were unpacked.
    fn candidates(&self, items: &[Item], steps: &[Step]) -> Result<Vec<Candidate>, FileError> {
        let puts = steps.iter().filter(|step| step.change == Move::Put);
        let staged: BTreeMap<&Path, PathBuf> =
            puts.map(|step| (step.path.as_path(), step.new_file())).collect();
        let mut candidates = Vec::new();
        for item in items {
            if let Some(path) = staged.get(self.place(&item.path)?.as_path()) {
                let stat = self.files().stat(path)?;
                let file = Found { declared: item.path.clone(), path: path.clone(), stat };
                candidates.push(Candidate { place: item.path.clone(), file });
            }
        }
        Ok(candidates)
    }

    /// Carries it out. Where it fails, what was there is there again.
    fn restore(&self, report: &mut TaskReport) -> Result<(), ArchiveError> {
        let files = self.files();
        let stages = self.stages()?;
        let first = stages.first().cloned().unwrap_or_default();
        // A life of the agent before this one has written its moves down: they are carried on.
        let steps = if let Some(steps) = restore_stage::read_moves(files, &first)? {
            steps
        } else {
            let archive = self.archive().map_err(|e| DatabaseError::named("no_backup", e.to_string()))?;
            let Some(archive) = archive else {
                return Err(DatabaseError::named("no_backup", "there is no such archive").into());
            };
            let (items, steps) = in_background(|| self.moves(&archive))?;
            self.remove_former()?;
            for stage in &stages {
                restore_stage::remove(files, stage)?;
            }
            let unpacked = in_background(|| self.stage(&archive, &items, &steps))
                .and_then(|()| {
                    let candidates = self.candidates(&items, &steps)?;
                    restore_validate::check(self.context, &self.validators, &candidates, report)
                })
                .and_then(|()| restore_stage::write_moves(files, &first, &steps));
            if let Err(error) = unpacked {
                // Nothing is in place yet; what cannot be removed now is removed by the next restore.
                for stage in &stages {
                    let _ = restore_stage::remove(files, stage);
                }
                return Err(error);
            }
            let of = archive.path.display().to_string();
            report.summary = format!("{}: {} members of {of}", self.what(), items.len());
            steps
        };
        let deadline = Deadline::of(self.context);
        let outcome = restore_stage::carry_out(files, &steps)
            .map_err(ArchiveError::from)
            .and_then(|()| restore_stage::check(files, &steps, deadline));
        if let Err(error) = outcome {
            if let Err(why) = self.take_back(&stages, &steps) {
                let mut left =
                    problem(Severity::Critical, "not_put_back", &*first.to_string_lossy(), why.to_string());
                "what was there lies in that folder, by the list in it".clone_into(&mut left.remedy);
                report.problems.push(left);
            }
            return Err(error);
        }
        describe(&steps, &first, report);
        Ok(())
    }

    fn take_back(&self, stages: &[PathBuf], steps: &[Step]) -> Result<(), FileError> {
        restore_stage::take_back(self.files(), steps)?;
        stages.iter().try_for_each(|stage| restore_stage::remove(self.files(), stage))
    }

    /// What restores of other runs set aside is not needed any more: those runs have ended.
    fn remove_former(&self) -> Result<(), FileError> {
        let own = format!("{STAGE}{}-", self.context.step.run);
        for stage in self.stages()? {
            let folder = stage.parent().unwrap_or(Path::new("/"));
            for entry in self.files().list(folder)? {
                let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if name.starts_with(STAGE) && !name.starts_with(&own) {
                    restore_stage::remove(self.files(), &entry.path)?;
                }
            }
        }
        Ok(())
    }
}

fn through_a_link(path: &Path) -> FileError {
    let why = "a link is where the archive has a folder; clear it away by hand";
    FileError::new("restore through", path, FileProblem::Link, why)
}

/// A path whose folders are not all there: below the first that is, without its links.
fn below_what_is_there(files: &dyn Files, path: &Path) -> Result<PathBuf, FileError> {
    let mut above = path.parent().unwrap_or(Path::new("/"));
    loop {
        match files.canonical(above) {
            Err(error) if error.problem == FileProblem::NotFound && above.parent().is_some() => {
                above = above.parent().unwrap_or(Path::new("/"));
            }
            other => return Ok(other?.join(path.strip_prefix(above).unwrap_or(path))),
        }
    }
}

fn describe(steps: &[Step], first: &Path, report: &mut TaskReport) {
    for step in steps {
        let (action, after) = match &step.change {
            Move::Put => {
                ("restored", step.sha256.map_or_else(String::new, |digest| format!("sha256 {digest}")))
            }
            Move::Remove | Move::RemoveFolder { .. } => ("removed", String::new()),
            Move::Folder { dress, .. } => ("restored", format!("folder, mode {:o}", dress.mode)),
        };
        report.changes.push(change(step.path.display().to_string(), action, "", after));
    }
    let changed = steps.len();
    if report.summary.is_empty() {
        "carried on after an interruption".clone_into(&mut report.summary);
    }
    report.summary = if changed == 0 {
        format!("{}; all is as it was archived", report.summary)
    } else {
        let first = first.display();
        format!(
            "{}; {changed} paths changed, what was there is kept in {first} until the next restore",
            report.summary
        )
    };
}

/// The restore of a dump; none where files are restored. A database is restored whole and anew.
fn of_database<'a>(order: &Order<'a>) -> Result<Option<DatabaseRestore<'a>>, TaskError> {
    if order.backup.kind == BackupKind::Files {
        return Ok(None);
    }
    let what = order.what();
    let declared = |why: &str| TaskError::Declared(format!("{what}: {why}"));
    if !order.recreate {
        return Err(declared("a dump cannot be loaded over what is there; write mode = \"recreate\""));
    }
    let database = order.backup.database.as_ref().ok_or_else(|| declared("it names no database"))?;
    let server = Server::of(order.context, database.as_str())?
        .ok_or_else(|| declared("the `when` of its database is false here"))?;
    Ok(Some(DatabaseRestore::new(order.id, server)))
}

impl Change for BackupRestore {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let Some(order) = order(context)? else { return Ok(skipped_plan()) };
        let of_database = of_database(&order)?;
        // Which archive it will be, and what is there then, follows from the steps before it.
        let mut plan = TaskPlan { moves: true, ..TaskPlan::default() };
        let Some(archive) = order.archive()? else {
            plan.summary = format!("{}: restore an archive that is not there yet", order.what());
            return Ok(plan);
        };
        if let Some(restore) = of_database {
            plan.summary = restore.plan(&archive);
            plan.changes.push(change(order.what(), "restored", "", archive.path.display().to_string()));
            return Ok(plan);
        }
        let (_, steps) = in_background(|| order.moves(&archive))
            .map_err(|error| error.end(&order.what(), TaskReport::default()))?;
        let mut report = TaskReport::default();
        describe(&steps, Path::new(""), &mut report);
        plan.summary = format!("{}: restore {}, {} paths", order.what(), archive.path.display(), steps.len());
        plan.changes = report.changes;
        Ok(plan)
    }

    fn reversal(&self) -> Reversal {
        Reversal::Stored
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<Value, TaskError> {
        let Some(order) = order(context)? else { return Ok(Value::Null) };
        if let Some(restore) = of_database(&order)? {
            return Ok(restore.undo());
        }
        let stages = order.stages();
        let stages =
            stages.map_err(|error| ArchiveError::File(error).end(&order.what(), TaskReport::default()))?;
        Ok(json!({ "stages": stages }))
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let Some(order) = order(context)? else { return Ok(skipped()) };
        let mut report = TaskReport::default();
        let restored = match of_database(&order)? {
            None => order.restore(&mut report),
            Some(restore) => match order.archive()? {
                Some(archive) => restore.restore(&archive, &mut report),
                None => Err(DatabaseError::named("no_backup", "there is no such dump").into()),
            },
        };
        match restored {
            Ok(()) => Ok(bounded(report)),
            Err(error) => Err(error.end(&order.what(), report)),
        }
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &Value) -> Result<TaskReport, TaskError> {
        const WHAT: &str = "the restore cannot be taken back";
        let mut report = TaskReport::default();
        let taken_back = if undo["kept"].is_string() {
            let Some(order) = order(context)? else { return Ok(skipped()) };
            let Some(restore) = of_database(&order)? else { return Ok(skipped()) };
            restore.take_back(undo, &mut report).map_err(ArchiveError::from)
        } else {
            put_back_files(context, undo, &mut report)
        };
        match taken_back {
            Ok(()) => Ok(bounded(report)),
            Err(error) => Err(error.end(WHAT, report)),
        }
    }
}

fn put_back_files(
    context: &TaskContext<'_>,
    undo: &Value,
    report: &mut TaskReport,
) -> Result<(), ArchiveError> {
    let stages: Vec<PathBuf> = serde_json::from_value(undo["stages"].clone()).unwrap_or_default();
    let Some(first) = stages.first() else { return Ok(()) };
    let files = context.host.files();
    let steps = restore_stage::read_moves(files, first)?.unwrap_or_default();
    restore_stage::take_back(files, &steps)?;
    for stage in &stages {
        restore_stage::remove(files, stage)?;
    }
    report.summary = format!("{} paths are as they were before the restore", steps.len());
    for step in &steps {
        report.changes.push(change(step.path.display().to_string(), "put back", "", ""));
    }
    Ok(())
}

/// Everything up to the first move, as a life of the agent that dies there leaves it.
#[cfg(test)]
pub(super) fn staged_for_tests(context: &TaskContext<'_>) -> Vec<Step> {
    let order = order(context).unwrap().unwrap();
    let archive = order.archive().unwrap().unwrap();
    let (items, steps) = order.moves(&archive).unwrap();
    order.stage(&archive, &items, &steps).unwrap();
    restore_stage::write_moves(order.files(), &order.stages().unwrap()[0], &steps).unwrap();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_inside_a_source_or_nothing() {
        let bases = [PathBuf::from("/opt/fw/config"), PathBuf::from("/etc/fw")];
        let part = |text: &str| part_of(&bases, text).map(|path| path.display().to_string());
        assert_eq!(part("config").unwrap(), "/opt/fw/config");
        assert_eq!(part("config/rules/").unwrap(), "/opt/fw/config/rules");
        assert_eq!(part("fw/config").unwrap(), "/opt/fw/config");
        assert_eq!(part("/etc/fw/a").unwrap(), "/etc/fw/a");
        for bad in ["logs", "/etc", "/etc/fwx", "config/../../x", "/etc/fw/../passwd"] {
            assert_eq!(part(bad), None, "{bad}");
        }
    }
}
