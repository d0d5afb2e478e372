//! `database.analyze`: fresh statistics for the planner of queries. Rows: Z10, W06.

use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::database::{self, Server};
use super::part::{bounded, change, problem, skipped, skipped_plan};

/// The task.
pub(super) struct DatabaseAnalyze;

/// Why nothing is done, where the profile says so.
const SWITCHED_OFF: &str = "skipped: its `analyze` is not true";

impl Change for DatabaseAnalyze {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let Some(server) = Server::asked(context)? else { return Ok(skipped_plan()) };
        if !server.declared.analyze {
            return Ok(TaskPlan { summary: SWITCHED_OFF.to_owned(), ..TaskPlan::default() });
        }
        let summary = format!("database {}: refresh the statistics of all tables", server.id);
        let mut plan = TaskPlan { summary, ..TaskPlan::default() };
        plan.changes.push(change(server.name(), "analyzed", "", ""));
        Ok(plan)
    }

    fn reversal(&self) -> Reversal {
        // Statistics are of what is there now; older ones would be wrong.
        Reversal::Stays
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let Some(server) = Server::asked(context)? else { return Ok(skipped()) };
        if !server.declared.analyze {
            return Ok(TaskReport { summary: SWITCHED_OFF.to_owned(), ..TaskReport::default() });
        }
        let mut report = TaskReport::default();
        match database::maintain(&server, "ANALYZE", &[], &[]) {
            Ok(notices) => {
                report.summary = format!("database {}: the statistics of all tables are fresh", server.id);
                report.changes.push(change(server.name(), "analyzed", "", ""));
                for notice in notices {
                    report.problems.push(problem(Severity::Low, "left_out", server.name(), notice));
                }
                Ok(bounded(report))
            }
            Err(error) => Err(error.end(&format!("database {}", server.id), report)),
        }
    }
}
