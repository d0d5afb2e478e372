//! `tuning.apply`: kernel settings, queues of disks and mount options as the profile wants them. Rows: Z14, Z15.
//!
//! What is as wanted is left alone. Before anything is set, all of it is looked at and noted; what had been set when
//! something fails is put back at once. The way back puts back exactly what this step changed.

use std::collections::BTreeMap;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Tuning, TuningKind};
use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::args;
use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::deadline::{Deadline, Halt};
use super::part::{bounded, problem};
use super::tuning_note::{Note, PutBack};
use super::tuning_setting::{Place, Setting};
use super::{tuning_block, tuning_mount, tuning_sysctl};

/// The task.
pub(super) struct TuningApply;

/// The files that a tuning writes, as declared; local policy is asked about them.
pub fn tuning_files(id: &str, tuning: &Tuning) -> Vec<String> {
    match tuning.kind {
        TuningKind::Sysctl => tuning.file.iter().cloned().collect(),
        TuningKind::Block => vec![tuning_block::rule_file(id).display().to_string()],
        TuningKind::Mount => vec![tuning_mount::FSTAB.to_owned()],
    }
}

/// A tuning of the step with what it wants.
struct Wanted<'a> {
    id: &'a Id,
    settings: Vec<Setting>,
    /// Modules that are not loaded yet.
    missing: Vec<String>,
}

/// All that the step wants.
struct Work<'a> {
    wanted: Vec<Wanted<'a>>,
    /// Ids that are switched off.
    off: Vec<&'a Id>,
}

impl<'a> Work<'a> {
    /// Finds out what is wanted, and refuses by name what this node cannot do.
    fn of(context: &TaskContext<'a>) -> Result<Self, TaskError> {
        let mut work = Self { wanted: Vec::new(), off: Vec::new() };
        for (id, tuning) in args::ids(context, "tuning", &context.profile.tunings, false)? {
            if !tuning.enabled {
                work.off.push(id);
                continue;
            }
            let (settings, missing) = wanted(context, id, tuning).map_err(|why| refused(id, &why))?;
            work.wanted.push(Wanted { id, settings, missing });
        }
        let all: Vec<(&Id, &Setting)> = work.settings().collect();
        for (at, (id, setting)) in all.iter().enumerate() {
            if all[..at].iter().any(|(_, other)| other.place == setting.place && other.value != setting.value)
            {
                return Err(refused(id, &format!("{} is set to two values by this step", setting.name)));
            }
        }
        work.check(context, true)?;
        Ok(work)
    }

    fn settings(&self) -> impl Iterator<Item = (&'a Id, &Setting)> {
        self.wanted.iter().flat_map(|one| one.settings.iter().map(|setting| (one.id, setting)))
    }

    /// Can each value be set and put back? Those of modules that are still missing are there later.
    fn check(&self, context: &TaskContext<'_>, before_modules: bool) -> Result<(), TaskError> {
        for one in &self.wanted {
            let missing: &[String] = if before_modules { &one.missing } else { &[] };
            for setting in &one.settings {
                let Place::Kernel { path } = &setting.place else { continue };
                if let Some(why) = tuning_sysctl::unfit(context, path, missing) {
                    return Err(refused(one.id, &format!("{}: {why}", setting.name)));
                }
            }
        }
        Ok(())
    }

    /// What differs from what is wanted: each such setting with the value it has.
    fn differing(&self, context: &TaskContext<'_>) -> Result<Vec<(&'a Id, &Setting, Setting)>, TaskError> {
        let mut differing = Vec::new();
        for (id, setting) in self.settings() {
            let now = setting.now(context).map_err(|why| refused(id, &format!("{}: {why}", setting.name)))?;
            if !setting.is(now.value.as_deref()) {
                differing.push((id, setting, now));
            }
        }
        Ok(differing)
    }

    fn summary(&self, count: usize, verb: &str) -> String {
        let off: Vec<&str> = self.off.iter().map(|id| id.as_str()).collect();
        let off = if off.is_empty() { String::new() } else { format!("; switched off: {}", off.join(", ")) };
        format!("{count} settings {verb}{off}")
    }
}

fn wanted(
    context: &TaskContext<'_>,
    id: &Id,
    tuning: &Tuning,
) -> Result<(Vec<Setting>, Vec<String>), String> {
    match tuning.kind {
        TuningKind::Sysctl => {
            let settings = tuning_sysctl::settings(context, id, tuning)?;
            Ok((settings, tuning_sysctl::missing_modules(context, tuning)?))
        }
        TuningKind::Block => Ok((tuning_block::settings(context, id, tuning)?, Vec::new())),
        TuningKind::Mount => Ok((tuning_mount::settings(context, tuning)?, Vec::new())),
    }
}

fn refused(id: &Id, why: &str) -> TaskError {
    TaskError::Declared(format!("tuning {id}: {why}; nothing was set"))
}

impl Change for TuningApply {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let work = Work::of(context)?;
        let changes: Vec<_> = work
            .differing(context)?
            .into_iter()
            .map(|(_, wanted, now)| wanted.change(now.value.as_deref()))
            .collect();
        let modules = work.wanted.iter().flat_map(|one| &one.missing);
        Ok(TaskPlan {
            summary: work.summary(changes.len(), "would be changed"),
            commands: modules.map(|module| tuning_sysctl::load_command(module)).collect(),
            changes,
            ..TaskPlan::default()
        })
    }

    fn reversal(&self) -> Reversal {
        Reversal::Stored
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        let mut former: BTreeMap<String, Vec<Setting>> = BTreeMap::new();
        for (id, _, now) in Work::of(context)?.differing(context)? {
            former.entry(id.to_string()).or_default().push(now);
        }
        serde_json::to_value(former).map_err(|e| TaskError::Declared(format!("nothing can be noted: {e}")))
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let work = Work::of(context)?;
        for one in &work.wanted {
            for module in &one.missing {
                // One that is loaded stays: what uses it by then nobody knows.
                tuning_sysctl::load(context, module).map_err(|why| {
                    TaskError::failed(
                        format!("tuning {}: {why}; nothing was set", one.id),
                        TaskReport::default(),
                    )
                })?;
            }
        }
        work.check(context, false)?;
        let differing = work.differing(context)?;
        for one in &work.wanted {
            let now: Vec<Setting> =
                differing.iter().filter(|(id, ..)| *id == one.id).map(|(.., now)| now.clone()).collect();
            Note::load(context, one.id.as_str())?.begin(context, one.id, &now)?;
        }
        let mut report = TaskReport::default();
        let mut former: Vec<(&Id, Setting)> = Vec::new();
        for (id, wanted, now) in differing {
            let set = Deadline::of(context).check().map_err(Stop::Halted).and_then(|()| {
                former.push((id, now.clone()));
                wanted.write(context).map_err(Stop::Failed)
            });
            if let Err(stop) = set {
                return Err(put_back(context, id, &wanted.name, stop, &former));
            }
            report.changes.push(wanted.change(now.value.as_deref()));
        }
        if let Err((id, name, why)) = verified(context, &work) {
            return Err(put_back(context, id, &name, Stop::Failed(why), &former));
        }
        report.summary = work.summary(report.changes.len(), "were changed");
        Ok(bounded(report))
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        let noted: BTreeMap<String, Vec<Setting>> = serde_json::from_value(undo.clone())
            .map_err(|e| TaskError::Declared(format!("the values noted before do not read: {e}")))?;
        let mut done = PutBack::default();
        for (id, settings) in noted.iter().rev() {
            // The note knows more where a module brought values that were not there when the undo was made. Without it
            // the undo stands.
            let note = Note::load(context, id).unwrap_or_default();
            done.all(context, id, note.of_this_job(context).unwrap_or(settings));
            note.end(context, id)?;
        }
        ended(done)
    }
}

/// The end of a way back.
pub(super) fn ended(done: PutBack) -> Result<TaskReport, TaskError> {
    let mut report = TaskReport { changes: done.changes, problems: done.problems, ..TaskReport::default() };
    report.summary = format!("{} settings were put back", report.changes.len());
    if report.problems.is_empty() {
        return Ok(bounded(report));
    }
    let message = format!("{} settings could not be put back", report.problems.len());
    Err(TaskError::failed(message, bounded(report)))
}

enum Stop {
    Halted(Halt),
    Failed(String),
}

/// Reads everything back. A value that another one moved is set once more.
fn verified<'a>(context: &TaskContext<'_>, work: &Work<'a>) -> Result<(), (&'a Id, String, String)> {
    for last in [false, true] {
        let mut wrong = None;
        for (id, setting) in work.settings() {
            let fault = |why: String| (id, setting.name.clone(), why);
            let now = setting.now(context).map_err(fault)?;
            if setting.is(now.value.as_deref()) {
                continue;
            }
            if !last {
                setting.write(context).map_err(fault)?;
            }
            let (got, asked) = (now.value.unwrap_or_default(), setting.value.as_deref().unwrap_or_default());
            wrong = Some(fault(format!("\"{}\" was asked for and is \"{}\"", asked.trim(), got.trim())));
        }
        match wrong {
            None => return Ok(()),
            Some(wrong) if last => return Err(wrong),
            Some(_) => {}
        }
    }
    Ok(())
}

/// Puts back what the step had set, and says so.
fn put_back(
    context: &TaskContext<'_>,
    id: &Id,
    name: &str,
    stop: Stop,
    former: &[(&Id, Setting)],
) -> TaskError {
    let mut done = PutBack::default();
    for (of, setting) in former.iter().rev() {
        done.all(context, of.as_str(), std::slice::from_ref(setting));
    }
    let mut report = TaskReport { problems: done.problems, ..TaskReport::default() };
    let end = if report.problems.is_empty() { "all is as before" } else { "not all could be put back" };
    match stop {
        Stop::Halted(halt) if report.problems.is_empty() => halt.end(report),
        Stop::Halted(halt) => TaskError::failed(format!("{halt}; {end}"), bounded(report)),
        Stop::Failed(why) => {
            let mut found = problem(Severity::High, "not_set", id.as_str(), format!("{name}: {why}"));
            "correct the value in the profile, or look at the node".clone_into(&mut found.remedy);
            report.problems.push(found);
            TaskError::failed(format!("tuning {id}: {name}: {why}; {end}"), bounded(report))
        }
    }
}
