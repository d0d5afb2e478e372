//! `log.configure`: one file of logrotate for each log, and the node's timer that runs it. Rows: Z12, W07.
//!
//! logrotate judges a file before it is put in place, and all files together after it; until then it lies under a name
//! that logrotate passes over. The way back is the former files and the former timer.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::document::profile::RotateEvery;
use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;
use serde::{Deserialize, Serialize};

use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::deadline::Deadline;
use super::log_rotation::{ROTATION_TIMER, Rule, dry_run, errors, is_rooted, rules};
use super::part::{bounded, change, problem};
use super::programs;
use super::tuning_apply::ended;
use super::tuning_note::PutBack;
use super::tuning_setting::{Place, Setting};
use crate::host::{Activity, FileError, FileProblem, UnitsKind};

/// The timer of logrotate's package.
const TIMER: &str = "logrotate.timer";
/// A timer is started and stopped at once; this covers a machine that swaps.
const TIMER_LIMIT: Duration = Duration::from_secs(30);
/// What the machine's logrotate begins with.
const MAIN: &str = "/etc/logrotate.conf";
const HOURLY: &str = "# Written by fleet-agent, because a rule of this node is hourly.\n\
    [Timer]\nOnCalendar=\nOnCalendar=hourly\nAccuracySec=1m\n";

/// The task.
pub(super) struct LogConfigure;

/// What the way back needs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Former {
    /// Files that differ, with what stood in them.
    files: Vec<Setting>,
    /// The timer, where there is one.
    timer: Option<Timer>,
}

/// Does the timer run, and does it start with the machine?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Timer {
    enabled: bool,
    active: bool,
}

impl Timer {
    const ON: Self = Self { enabled: true, active: true };

    /// As it is; none where the package has none, or nothing runs timers.
    fn now(context: &TaskContext<'_>) -> Result<Option<Self>, String> {
        let units = context.host.units();
        if units.kind() != UnitsKind::Systemd {
            return Ok(None);
        }
        let state = units.state(TIMER).map_err(|e| e.to_string())?;
        if state.activity == Activity::NotFound {
            return Ok(None);
        }
        let enabled = units.is_enabled(TIMER).map_err(|e| e.to_string())?;
        Ok(Some(Self { enabled, active: state.activity == Activity::Active }))
    }

    /// Makes it so; `anew` where its files were changed.
    fn set(self, context: &TaskContext<'_>, now: Self, anew: bool) -> Result<(), String> {
        let units = context.host.units();
        let said = |e: crate::host::UnitError| e.to_string();
        if anew {
            units.load_files().map_err(said)?;
        }
        if self.enabled != now.enabled {
            units.set_enabled(TIMER, self.enabled).map_err(said)?;
        }
        match (self.active, now.active) {
            (true, true) if anew => units.restart(TIMER, TIMER_LIMIT).map_err(said),
            (true, false) => units.start(TIMER, TIMER_LIMIT).map_err(said),
            (false, true) => units.stop(TIMER, TIMER_LIMIT).map_err(said),
            _ => Ok(()),
        }
    }

    fn shown(self) -> String {
        let word = |yes: bool, word: &str| if yes { word.to_owned() } else { format!("not {word}") };
        format!("{}, {}", word(self.active, "active"), word(self.enabled, "enabled"))
    }
}

/// What the step wants.
struct Work<'a> {
    rules: Vec<Rule<'a>>,
    /// The files that differ, each with what stands in it.
    differing: Vec<(Setting, Setting)>,
    timer: Option<Timer>,
}

fn declared(why: &str) -> TaskError {
    TaskError::Declared(format!("{why}; nothing was written"))
}

impl<'a> Work<'a> {
    fn of(context: &TaskContext<'a>) -> Result<Self, TaskError> {
        let rules = rules(context)?;
        let timer = Timer::now(context).map_err(|why| declared(&why))?;
        let mut wanted: Vec<Setting> =
            rules.iter().map(|rule| Setting::file(rule.path.clone(), rule.content.clone())).collect();
        let hourly = is_hourly(context, &rules);
        if context.host.units().kind() == UnitsKind::Systemd {
            if hourly && timer.is_none() {
                return Err(declared("an hourly rule needs logrotate.timer, which this node does not have"));
            }
            let mut drop_in = Setting::file(PathBuf::from(ROTATION_TIMER), HOURLY.to_owned());
            drop_in.value = drop_in.value.filter(|_| hourly);
            wanted.push(drop_in);
        }
        let mut differing = Vec::new();
        for setting in wanted {
            let now = setting.now(context).map_err(|why| declared(&why))?;
            if !setting.is(now.value.as_deref()) {
                differing.push((setting, now));
            }
        }
        Ok(Self { rules, differing, timer })
    }

    fn former(&self) -> Former {
        Former { files: self.differing.iter().map(|(_, now)| now.clone()).collect(), timer: self.timer }
    }

    fn changes(&self) -> Vec<fleet_types::report::Change> {
        let mut changes: Vec<_> =
            self.differing.iter().map(|(wanted, now)| wanted.change(now.value.as_deref())).collect();
        if let Some(now) = self.timer.filter(|now| *now != Timer::ON) {
            changes.push(change(TIMER, "started", now.shown(), Timer::ON.shown()));
        }
        changes
    }

    fn changes_timer(&self) -> bool {
        self.differing.iter().any(|(setting, _)| is_timer(setting))
    }

    fn summary(&self, verb: &str) -> String {
        let by_hand = if self.timer.is_none() { "; without systemd only log.rotate rotates" } else { "" };
        format!(
            "{} of {} rules {verb}{by_hand}",
            self.differing.iter().filter(|(s, _)| !is_timer(s)).count(),
            self.rules.len()
        )
    }
}

fn is_timer(setting: &Setting) -> bool {
    setting.name == ROTATION_TIMER
}

/// Is a rule hourly that this step puts in place, or an earlier one did?
fn is_hourly(context: &TaskContext<'_>, rules: &[Rule<'_>]) -> bool {
    let mut hourly = context
        .profile
        .logs
        .iter()
        .filter(|(_, log)| log.rotate.as_ref().is_some_and(|r| r.every == RotateEvery::Hourly));
    hourly.any(|(id, _)| {
        let there =
            || context.host.files().stat(Path::new(&super::log_rotation::log_file(id.as_str()))).is_ok();
        rules.iter().any(|rule| rule.id == id) || there()
    })
}

impl Change for LogConfigure {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let work = Work::of(context)?;
        Ok(TaskPlan {
            summary: work.summary("would be written"),
            changes: work.changes(),
            ..TaskPlan::default()
        })
    }

    fn reversal(&self) -> Reversal {
        Reversal::Stored
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        serde_json::to_value(Work::of(context)?.former()).map_err(|e| declared(&e.to_string()))
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let work = Work::of(context)?;
        let before = whole(context)?;
        let mut candidates = Vec::new();
        for (setting, _) in work.differing.iter().filter(|(setting, _)| !is_timer(setting)) {
            let checked = Deadline::of(context)
                .check()
                .map_err(|halt| halt.end(TaskReport::default()))
                .and_then(|()| checked(context, setting));
            match checked {
                Ok(candidate) => candidates.push(candidate),
                Err(error) => {
                    drop_all(context, &candidates);
                    return Err(error);
                }
            }
        }
        let placed = place(context, &work, &candidates).and_then(|()| {
            let new: Vec<String> =
                whole(context).map_err(|e| e.to_string())?.difference(&before).cloned().collect();
            if new.is_empty() {
                Ok(())
            } else {
                Err(format!("beside the others of this node it is wrong: {}", new.join("; ")))
            }
        });
        if let Err(why) = placed {
            drop_all(context, &candidates);
            let back = put_back(context, &work.former());
            let end = if back.problems.is_empty() { "all is as before" } else { "not all could be put back" };
            let mut report = TaskReport { problems: back.problems, ..TaskReport::default() };
            report.problems.push(problem(Severity::High, "not_configured", "logrotate", why.clone()));
            return Err(TaskError::failed(format!("{why}; {end}"), bounded(report)));
        }
        let (changes, summary) = (work.changes(), work.summary("were written"));
        Ok(bounded(TaskReport { summary, changes, ..TaskReport::default() }))
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        let former: Former = serde_json::from_value(undo.clone())
            .map_err(|e| TaskError::Declared(format!("what was noted before does not read: {e}")))?;
        ended(put_back(context, &former))
    }
}

/// All rules of this machine together: what logrotate complains of.
fn whole(context: &TaskContext<'_>) -> Result<BTreeSet<String>, TaskError> {
    let files = context.host.files();
    // The main file names folders of the machine, so it says nothing about a root of its own.
    if is_rooted(files) || files.stat(Path::new(MAIN)).is_err() {
        return Ok(BTreeSet::new());
    }
    let outcome = dry_run(context, &["-d", "-s", "/dev/null"], &[Path::new(MAIN)]);
    Ok(errors(&outcome.map_err(|e| programs::broken(&e, TaskReport::default()))?.output))
}

/// Writes a file beside its place and lets logrotate judge it.
fn checked(context: &TaskContext<'_>, setting: &Setting) -> Result<(PathBuf, PathBuf), TaskError> {
    let files = context.host.files();
    let Place::File { path } = &setting.place else { return Err(declared("a rule is a file")) };
    // logrotate passes over names with this ending.
    let mut candidate = path.as_os_str().to_owned();
    candidate.push("~");
    let candidate = PathBuf::from(candidate);
    let failed = |e: FileError| TaskError::failed(format!("{e}; nothing was changed"), TaskReport::default());
    let folder = path.parent().unwrap_or(Path::new("/"));
    files.make_directories(folder, 0o755).map_err(failed)?;
    remove(context, &candidate).map_err(failed)?;
    let written = files.create(&candidate, 0o644).and_then(|mut file| {
        let bytes = setting.value.as_deref().unwrap_or_default().as_bytes();
        file.write_all(bytes).map_err(|e| FileError::of("write", &candidate, &e))?;
        file.sync()
    });
    let judged = written.map_err(failed).and_then(|()| {
        let outcome = dry_run(context, &["-d", "-s", "/dev/null"], &[&candidate]);
        let outcome = outcome.map_err(|e| programs::broken(&e, TaskReport::default()))?;
        let complaints = errors(&outcome.output);
        if complaints.is_empty() && outcome.exit.is_success() {
            return Ok(());
        }
        let said = complaints.into_iter().collect::<Vec<_>>().join("; ");
        let message =
            format!("logrotate refuses {}: {}; {said}; nothing was changed", setting.name, outcome.exit);
        let mut report = TaskReport { output_tail: programs::tail(&outcome.output), ..TaskReport::default() };
        report.problems.push(problem(Severity::High, "rule_refused", &setting.name, said));
        Err(TaskError::failed(message, report))
    });
    match judged {
        Ok(()) => Ok((candidate, path.clone())),
        Err(error) => {
            drop_all(context, &[(candidate, path.clone())]);
            Err(error)
        }
    }
}

fn remove(context: &TaskContext<'_>, path: &Path) -> Result<(), FileError> {
    match context.host.files().remove_file(path) {
        Err(error) if error.problem != FileProblem::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes candidates away that were not put in place; logrotate passes over one that stays, and the next run takes it.
fn drop_all(context: &TaskContext<'_>, candidates: &[(PathBuf, PathBuf)]) {
    for (candidate, _) in candidates {
        let _ = remove(context, candidate);
    }
}

/// Puts all in place: the rules, then the timer.
fn place(
    context: &TaskContext<'_>,
    work: &Work<'_>,
    candidates: &[(PathBuf, PathBuf)],
) -> Result<(), String> {
    let files = context.host.files();
    for (candidate, path) in candidates {
        files.rename(candidate, path).map_err(|e| e.to_string())?;
        files.sync_directory(path.parent().unwrap_or(Path::new("/"))).map_err(|e| e.to_string())?;
    }
    for (setting, _) in work.differing.iter().filter(|(setting, _)| is_timer(setting)) {
        setting.write(context)?;
    }
    if let Some(now) = work.timer {
        Timer::ON.set(context, now, work.changes_timer())?;
    }
    for (setting, _) in &work.differing {
        if !setting.is(setting.now(context)?.value.as_deref()) {
            return Err(format!("{} is not what was written", setting.name));
        }
    }
    match Timer::now(context)? {
        Some(now) if now != Timer::ON => Err(format!("{TIMER} was started, and is {}", now.shown())),
        _ => Ok(()),
    }
}

fn put_back(context: &TaskContext<'_>, former: &Former) -> PutBack {
    let mut back = PutBack::default();
    back.all(context, "logrotate", &former.files);
    let Some(timer) = former.timer else { return back };
    let anew = back.changes.iter().any(|change| change.subject == ROTATION_TIMER);
    let set = Timer::now(context).and_then(|now| {
        let now = now.unwrap_or(timer);
        timer.set(context, now, anew)?;
        Ok(now)
    });
    match set {
        Ok(now) if now != timer => back.changes.push(change(TIMER, "put back", now.shown(), timer.shown())),
        Ok(_) => {}
        Err(why) => {
            let mut found = problem(Severity::Critical, "not_put_back", TIMER, why);
            found.remedy = format!("systemctl daemon-reload; {TIMER} was {}", timer.shown());
            back.problems.push(found);
        }
    }
    back
}
