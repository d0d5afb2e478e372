//! `disk.report`: the largest trees below some folders, and what they grew since the last report. Reads only. Rows: W07, Z13.
//!
//! Space is what files take on the disk, a file of several names counted once. Links are not followed, other file systems are not
//! entered unless that is asked for. Memory is bounded by the number of folders that are told apart, time by the step's limit.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use fleet_types::report::{NOT_AVAILABLE, TaskReport};
use fleet_types::severity::Severity;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::args;
use super::contract::{Inspect, TaskContext, TaskError, TaskPlan};
use super::deadline::{Deadline, Halt};
use super::fill::Filler;
use super::part::{bounded, number, problem, sample};
use crate::host::{FileError, FileKind, FileProblem, Files, in_background};

/// The note with the last report.
const NOTE: &str = "disk-report.json";
/// Deepest folder that is told apart; what lies deeper counts for the one above it.
const DEPTH: usize = 8;
/// Folders that are told apart: with their paths some 20 MB. Beyond, what they hold counts for those above them.
const MAX_FOLDERS: usize = 100_000;
/// Files of several names that are remembered: 16 MB. Beyond, each name counts, which is said.
const MAX_LINKED: usize = 500_000;
/// Trees that are kept for the next report, and most that one lists.
const MAX_TREES: usize = 60;
/// Trees that are listed where the step says nothing.
const TREES: u64 = 20;
/// A tree of which one folder holds so many percent says no more than that folder.
const SAYS_NOTHING_PERCENT: u64 = 90;

/// The task.
pub(super) struct DiskReport;

/// What was seen at the last time, of this run and of the one before it: a step that is carried out again compares with the
/// latter.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Note {
    run: String,
    seen: Seen,
    before: Option<Seen>,
}

/// Bytes of the largest trees at a time.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Seen {
    at: Option<Timestamp>,
    trees: BTreeMap<String, u64>,
}

/// What a folder and all below it take.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Taken {
    bytes: u64,
    files: u64,
    /// The most that one folder directly below it takes.
    largest_below: u64,
}

/// Everything that was counted.
#[derive(Default)]
struct Count {
    folders: BTreeMap<PathBuf, Taken>,
    linked: HashSet<(u64, u64)>,
    unreadable: Vec<FileError>,
    passed_over: usize,
    other_systems: Vec<PathBuf>,
}

struct Order {
    paths: Vec<PathBuf>,
    trees: usize,
    other_systems: bool,
}

fn order(context: &TaskContext<'_>) -> Result<Order, TaskError> {
    let filler = Filler::new(context);
    let given = args::texts(context, "paths")?;
    let texts = if given.is_empty() { vec!["/"] } else { given };
    let paths = texts.iter().map(|path| filler.path("parameter paths", path)).collect::<Result<_, _>>()?;
    let trees = args::integer(context, "trees", TREES)?;
    let trees = usize::try_from(trees).unwrap_or(usize::MAX);
    if !(1..=MAX_TREES).contains(&trees) {
        return Err(TaskError::Declared(format!("parameter trees: {trees} is outside 1 to {MAX_TREES}")));
    }
    Ok(Order { paths, trees, other_systems: args::flag(context, "other_file_systems", false)? })
}

impl Inspect for DiskReport {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let order = order(context)?;
        let paths: Vec<_> = order.paths.iter().map(|path| path.display().to_string()).collect();
        Ok(TaskPlan {
            summary: format!("what takes the space below {}", paths.join(", ")),
            ..TaskPlan::default()
        })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let order = order(context)?;
        let files = context.host.files();
        let mut report = TaskReport::default();
        let (mut count, mut total) = (Count::default(), Taken::default());
        for path in &order.paths {
            let counted = in_background(|| count.tree(files, path, &order, Deadline::of(context)));
            match counted {
                Ok(taken) => {
                    total.bytes += taken.bytes;
                    total.files += taken.files;
                }
                Err(Stopped::Halted(halt)) => return Err(halt.end(report)),
                Err(Stopped::File(error)) => {
                    let shown = path.display().to_string();
                    report.problems.push(problem(
                        Severity::Medium,
                        "unreadable_file",
                        shown,
                        error.to_string(),
                    ));
                }
            }
        }
        let largest = largest(&count.folders, MAX_TREES);
        let before = remember(context, &largest, &mut report);
        describe(&order, &count, total, &largest, before.as_ref(), &mut report);
        let failed = report.problems.iter().filter(|problem| problem.severity >= Severity::Medium).count();
        let report = bounded(report);
        // Of what could not be looked at at all nobody knows how large it is.
        if failed >= order.paths.len() {
            return Err(TaskError::failed("none of the folders can be read", report));
        }
        Ok(report)
    }
}

/// Why the count of a tree has no end.
enum Stopped {
    Halted(Halt),
    File(FileError),
}

impl Count {
    /// Counts what is below a folder, one folder after the other; each is added to all above it.
    fn tree(
        &mut self,
        files: &dyn Files,
        top: &Path,
        order: &Order,
        deadline: Deadline<'_>,
    ) -> Result<Taken, Stopped> {
        let real = files.canonical(top).map_err(Stopped::File)?;
        let device = files.stat(&real).map_err(Stopped::File)?.device;
        let mut waiting = vec![real.clone()];
        let mut whole = Taken::default();
        while let Some(folder) = waiting.pop() {
            deadline.check().map_err(Stopped::Halted)?;
            let entries = match files.list(&folder) {
                // It went between being found and being listed.
                Err(error) if error.problem == FileProblem::NotFound && folder != real => continue,
                Err(error) if folder != real => {
                    self.passed_over += 1;
                    if self.unreadable.len() < 5 {
                        self.unreadable.push(error);
                    }
                    continue;
                }
                other => other.map_err(Stopped::File)?,
            };
            let mut here = Taken::default();
            for entry in entries {
                let stat = &entry.stat;
                if stat.device != device && !order.other_systems {
                    self.other_systems.push(entry.path);
                    continue;
                }
                // Below another path of the same step it is counted there.
                let is_other = order.paths.iter().any(|path| *path == entry.path && *path != real);
                if stat.kind == FileKind::Directory && !is_other {
                    waiting.push(entry.path.clone());
                }
                if stat.kind != FileKind::Directory && stat.names > 1 {
                    let is_known = self.linked.contains(&(stat.device, stat.inode));
                    if is_known {
                        continue;
                    }
                    if self.linked.len() < MAX_LINKED {
                        self.linked.insert((stat.device, stat.inode));
                    }
                }
                here.bytes += stat.allocated;
                here.files += u64::from(stat.kind != FileKind::Directory);
            }
            whole.bytes += here.bytes;
            whole.files += here.files;
            self.add(&real, &folder, here);
        }
        self.see_children(&real);
        Ok(whole)
    }

    /// Adds what lies in a folder to it and to all above it that are told apart, up to the top of its tree.
    fn add(&mut self, top: &Path, folder: &Path, here: Taken) {
        let depth = folder.strip_prefix(top).map_or(0, |below| below.components().count());
        for (up, above) in folder.ancestors().enumerate().take(depth + 1) {
            if depth - up > DEPTH {
                continue;
            }
            if self.folders.len() >= MAX_FOLDERS && !self.folders.contains_key(above) {
                continue;
            }
            let taken = self.folders.entry(above.to_owned()).or_default();
            taken.bytes += here.bytes;
            taken.files += here.files;
        }
    }

    /// Notes for each folder what the largest one in it takes.
    fn see_children(&mut self, top: &Path) {
        let below: Vec<(PathBuf, u64)> = self
            .folders
            .iter()
            .filter(|(path, _)| path.starts_with(top) && path.as_path() != top)
            .filter_map(|(path, taken)| Some((path.parent()?.to_owned(), taken.bytes)))
            .collect();
        for (parent, bytes) in below {
            if let Some(taken) = self.folders.get_mut(&parent) {
                taken.largest_below = taken.largest_below.max(bytes);
            }
        }
    }
}

/// The largest trees, largest first; without those that are nearly one folder in them.
fn largest(folders: &BTreeMap<PathBuf, Taken>, most: usize) -> Vec<(String, Taken)> {
    let says_something = |taken: &Taken| taken.largest_below * 100 < taken.bytes * SAYS_NOTHING_PERCENT;
    let mut trees: Vec<(&PathBuf, Taken)> = folders
        .iter()
        .map(|(path, taken)| (path, *taken))
        .filter(|(_, taken)| taken.bytes > 0 && says_something(taken))
        .collect();
    trees.sort_by(|a, b| b.1.bytes.cmp(&a.1.bytes).then_with(|| a.0.cmp(b.0)));
    trees.into_iter().take(most).map(|(path, taken)| (path.to_string_lossy().into_owned(), taken)).collect()
}

/// Keeps what was seen for the next report; gives what the last one saw.
fn remember(context: &TaskContext<'_>, largest: &[(String, Taken)], report: &mut TaskReport) -> Option<Seen> {
    let notes = context.host.notes();
    let known: Option<Note> =
        notes.read(NOTE).ok().flatten().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let run = context.step.run.to_string();
    let before = known.and_then(|note| if note.run == run { note.before } else { Some(note.seen) });
    let trees = largest.iter().map(|(path, taken)| (path.clone(), taken.bytes)).collect();
    let seen = Seen { at: Some(context.host.clock().now()), trees };
    let note = Note { run, seen, before: before.clone() };
    let written = serde_json::to_vec(&note)
        .map_err(|error| error.to_string())
        .and_then(|bytes| notes.write(NOTE, &bytes).map_err(|error| error.to_string()));
    if let Err(why) = written {
        let message = format!("the next report cannot say what has grown: {why}");
        report.problems.push(problem(Severity::Low, NOT_AVAILABLE, NOTE, message));
    }
    before
}

fn describe(
    order: &Order,
    count: &Count,
    total: Taken,
    largest: &[(String, Taken)],
    before: Option<&Seen>,
    report: &mut TaskReport,
) {
    report.samples.push(sample("disk_tree_total", "", number(total.bytes), "bytes"));
    for (path, taken) in largest.iter().take(order.trees) {
        report.samples.push(sample("disk_tree", path.as_str(), number(taken.bytes), "bytes"));
        if let Some(was) = before.and_then(|before| before.trees.get(path)) {
            let growth = number(taken.bytes) - number(*was);
            report.samples.push(sample("disk_tree_growth", path.as_str(), growth, "bytes"));
        }
    }
    let first =
        largest.first().map_or_else(String::new, |(path, taken)| format!("; {path} has {}", taken.bytes));
    let since = before
        .and_then(|before| before.at)
        .map_or_else(|| "; nothing to compare with yet".to_owned(), |at| format!("; growth is since {at}"));
    report.summary = format!("{} bytes in {} files{first}{since}", total.bytes, total.files);
    if count.linked.len() >= MAX_LINKED {
        let message =
            format!("more than {MAX_LINKED} files have several names: some are counted more than once");
        report.problems.push(problem(Severity::Low, "hard_links", "", message));
    }
    for error in &count.unreadable {
        let shown = error.path.display().to_string();
        report.problems.push(problem(Severity::Low, "unreadable_file", shown, error.to_string()));
    }
    let more = count.passed_over - count.unreadable.len();
    if more > 0 {
        report.summary = format!("{}; {more} more folders cannot be read", report.summary);
    }
    if !count.other_systems.is_empty() {
        let left = count.other_systems.len();
        report.summary = format!("{}; {left} places on other file systems were not entered", report.summary);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use fleet_types::id::RunId;
    use fleet_types::report::TaskReport;

    use crate::host::{FileProblem, Host};
    use crate::tasks::testing::Bench;

    fn bench() -> Bench {
        let bench = Bench::new("");
        bench.file("/var/log/fw/a.log", &vec![b'a'; 400_000]);
        bench.file("/var/log/fw/b.log", &vec![b'b'; 200_000]);
        bench.file("/var/lib/db", &vec![b'd'; 300_000]);
        bench.file("/var/lib/a\n\u{202e}b/x", &vec![b'x'; 100_000]);
        bench
    }

    fn sizes(report: &TaskReport, metric: &str) -> Vec<(String, i64)> {
        let of = report.samples.iter().filter(|sample| sample.metric == metric);
        #[allow(clippy::cast_possible_truncation)] // sizes of a test
        of.map(|sample| (sample.subject.clone(), sample.value as i64 / 100_000)).collect()
    }

    #[test]
    fn w07_the_largest_trees_are_told_and_what_they_grew() {
        let mut bench = bench();
        let with = bench.with(r#"{"paths":["/var"]}"#);
        let first = bench.apply("disk.report", &with).unwrap();
        let trees = sizes(&first, "disk_tree");
        // Nothing is said of /var/log, which is nothing but the folder in it.
        let names: Vec<_> = trees.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names, ["/var", "/var/log/fw", "/var/lib", "/var/lib/a\n\u{202e}b"]);
        assert_eq!(trees[1].1, 6);
        assert!(first.summary.contains("nothing to compare with yet"), "{}", first.summary);
        assert_eq!(sizes(&first, "disk_tree_growth"), []);
        // Carried out again in the same run it is still the first; the next run compares.
        let again = bench.apply("disk.report", &with).unwrap();
        assert_eq!(sizes(&again, "disk_tree_growth"), []);
        bench.host.clock().pause(Duration::from_hours(24), &bench.cancel);
        bench.step.run = RunId::from_number(8);
        bench.file("/var/lib/db", &vec![b'd'; 950_000]);
        for _ in 0..2 {
            let later = bench.apply("disk.report", &with).unwrap();
            let growth = sizes(&later, "disk_tree_growth");
            assert!(growth.contains(&("/var/lib".to_owned(), 6)), "{growth:?}");
            assert!(growth.contains(&("/var/log/fw".to_owned(), 0)), "{growth:?}");
        }
    }

    #[test]
    fn links_names_and_overlaps_are_counted_once() {
        let bench = bench();
        let of = |with: &str| {
            sizes(&bench.apply("disk.report", &bench.with(with)).unwrap(), "disk_tree_total")[0].1
        };
        let before = of(r#"{"paths":["/var"]}"#);
        std::fs::hard_link(bench.at("/var/lib/db"), bench.at("/var/lib/db2")).unwrap();
        symlink("/", bench.at("/var/lib/root")).unwrap();
        symlink("..", bench.at("/var/lib/up")).unwrap();
        assert_eq!(of(r#"{"paths":["/var"]}"#), before);
        assert_eq!(of(r#"{"paths":["/var","/var/log"]}"#), before);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_a_cancel_ends_it() {
        let bench = bench();
        bench.host.fail("list", "/var/lib", FileProblem::Denied);
        let report = bench.apply("disk.report", &bench.with(r#"{"paths":["/var"]}"#)).unwrap();
        assert_eq!(report.problems[0].subject, "/var/lib");
        assert_eq!(sizes(&report, "disk_tree_total")[0].1, 6);
        let (message, _) = bench.failure("disk.report", &bench.with(r#"{"paths":["/nowhere"]}"#));
        assert_eq!(message, "none of the folders can be read");
        let error = bench.apply("disk.report", &bench.with(r#"{"trees":0}"#)).unwrap_err();
        assert!(error.to_string().contains("outside 1 to"), "{error}");
        bench.cancel.cancel();
        let ended = bench.apply("disk.report", &bench.with(r#"{"paths":["/var"]}"#));
        assert!(matches!(ended, Err(crate::tasks::TaskError::Cancelled(_))), "{ended:?}");
    }
}
