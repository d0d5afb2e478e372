//! What a node had before it was tuned, kept from one job to the next. Called by `tuning_apply` and `tuning_revert`.
//!
//! Two things are known of each tuning: what the newest `tuning.apply` changed, for the way back of its own job, and what
//! was there before the first one, for a `tuning.revert` of any other.

use fleet_types::document::ids::Id;
use fleet_types::id::RunId;
use fleet_types::report::{Change as ReportedChange, Problem, TaskReport};
use fleet_types::severity::Severity;
use serde::{Deserialize, Serialize};

use super::contract::{TaskContext, TaskError};
use super::part::problem;
use super::tuning_setting::Setting;

/// See the module.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    /// The run of the newest apply, until it is reverted. Another attempt of it goes on from what the first found.
    by: Option<RunId>,
    /// What that changed, with the values from before it.
    former: Vec<Setting>,
    /// What all of them changed, with the values from before the first.
    original: Vec<Setting>,
}

fn name(id: &str) -> String {
    format!("tuning-{id}.json")
}

impl Note {
    /// The note of a tuning.
    pub(super) fn load(context: &TaskContext<'_>, id: &str) -> Result<Self, TaskError> {
        let failed = |why: String| {
            let message =
                format!("tuning {id}: what it was before cannot be read, and nothing was done: {why}");
            TaskError::failed(message, TaskReport::default())
        };
        match context.host.notes().read(&name(id)).map_err(|e| failed(e.to_string()))? {
            None => Ok(Self::default()),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string())),
        }
    }

    fn save(&self, context: &TaskContext<'_>, id: &str) -> Result<(), TaskError> {
        let failed = |why: String| {
            TaskError::failed(
                format!("tuning {id}: what it was before cannot be noted: {why}"),
                TaskReport::default(),
            )
        };
        let bytes = serde_json::to_vec(self).map_err(|e| failed(e.to_string()))?;
        context.host.notes().write(&name(id), &bytes).map_err(|e| failed(e.to_string()))
    }

    /// Before this job's apply changes these settings, whose values are those of now. What it noted before a crash stays.
    pub(super) fn begin(
        mut self,
        context: &TaskContext<'_>,
        id: &Id,
        now: &[Setting],
    ) -> Result<(), TaskError> {
        if self.by != Some(context.step.run) {
            self.by = Some(context.step.run);
            self.former.clear();
        }
        for setting in now {
            for list in [&mut self.former, &mut self.original] {
                if !list.iter().any(|known| known.place == setting.place) {
                    list.push(setting.clone());
                }
            }
        }
        self.save(context, id.as_str())
    }

    /// What this job changed; none when it did not apply, or has put that back.
    pub(super) fn of_this_job(&self, context: &TaskContext<'_>) -> Option<&[Setting]> {
        (self.by == Some(context.step.run)).then_some(self.former.as_slice())
    }

    /// What was there before the node was tuned.
    pub(super) fn original(&self) -> &[Setting] {
        &self.original
    }

    /// After a way back: what is as it was at first needs no note any more.
    pub(super) fn end(mut self, context: &TaskContext<'_>, id: &str) -> Result<(), TaskError> {
        self.by = None;
        self.former.clear();
        self.original
            .retain(|setting| !setting.now(context).is_ok_and(|now| setting.is(now.value.as_deref())));
        self.save(context, id)
    }
}

/// What a way back did.
#[derive(Default)]
pub(super) struct PutBack {
    pub(super) changes: Vec<ReportedChange>,
    pub(super) problems: Vec<Problem>,
}

impl PutBack {
    /// Puts settings back, the last one first; one that fails keeps none of the others.
    pub(super) fn all(&mut self, context: &TaskContext<'_>, id: &str, settings: &[Setting]) {
        for setting in settings.iter().rev() {
            if let Err(why) = self.one(context, setting) {
                let message = format!("{}: {why}", setting.name);
                let mut found = problem(Severity::Critical, "not_put_back", id, message);
                found.remedy = setting.by_hand();
                self.problems.push(found);
            }
        }
    }

    fn one(&mut self, context: &TaskContext<'_>, setting: &Setting) -> Result<(), String> {
        setting.sweep(context)?;
        let now = setting.now(context)?.value;
        if setting.is(now.as_deref()) || setting.is_gone(now.as_deref()) {
            return Ok(());
        }
        setting.write(context)?;
        let after = setting.now(context)?.value;
        if !setting.is(after.as_deref()) {
            return Err(format!("it is \"{}\" all the same", after.unwrap_or_default().trim()));
        }
        self.changes.push(setting.change(now.as_deref()));
        Ok(())
    }
}
