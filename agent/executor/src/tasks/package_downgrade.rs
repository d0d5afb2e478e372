//! `package.downgrade`: back to the packages that this job's upgrades noted, all that changed with them included. Row: Z07.
//!
//! It goes to no other version: what the same job journaled comes back, from archives on the node.

use fleet_types::report::TaskReport;

use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::package_note::Note;
use super::package_restore::restore;
use super::packages::{declared, is_meant};
use super::programs::wait_for_own;

/// The action whose notes it reads.
const UPGRADE: &str = "package.upgrade";

/// The task.
pub(super) struct PackageDowngrade;

/// What this job's upgrades of the named packages noted, the oldest first.
fn noted(context: &TaskContext<'_>) -> Result<Vec<Note>, TaskError> {
    let declared = declared(context)?;
    let mut notes = Vec::new();
    for noted in context.job.noted.iter().filter(|noted| noted.action == UPGRADE) {
        let note = Note::read(&noted.undo)?;
        if note.changes.iter().any(|change| is_meant(&declared, change)) {
            notes.push(note);
        }
    }
    Ok(notes)
}

impl Change for PackageDowngrade {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let declared = declared(context)?;
        let names: Vec<&str> = declared.iter().map(|(_, package)| package.name.as_str()).collect();
        let summary = format!("put back what this job's upgrades change: {}", names.join(", "));
        Ok(TaskPlan { summary, ..TaskPlan::default() })
    }

    fn reversal(&self) -> Reversal {
        // It is the undo.
        Reversal::None
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let notes = noted(context)?;
        if context.job.resumed {
            wait_for_own(context)?;
        }
        if notes.is_empty() {
            let summary = "this job has upgraded none of these packages: nothing to put back".to_owned();
            return Ok(TaskReport { summary, ..TaskReport::default() });
        }
        restore(context, &notes)
    }
}
