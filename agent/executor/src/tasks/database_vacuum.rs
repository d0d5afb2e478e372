//! `database.vacuum`: room of deleted rows given free for new ones, in the tables of the profile or in all. Rows: Z10, W06.
//!
//! The plain kind, beside which the product reads and writes; never `VACUUM FULL`, which locks a table for as long as it takes.

use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;

use super::args;
use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::database::{self, DatabaseError, Server};
use super::part::{bounded, change, number, problem, sample, skipped, skipped_plan};

/// The task.
pub(super) struct DatabaseVacuum;

fn what(server: &Server<'_>) -> String {
    match server.declared.vacuum.as_slice() {
        [] => "all tables".to_owned(),
        tables => tables.join(", "),
    }
}

impl Change for DatabaseVacuum {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let Some(server) = Server::asked(context)? else { return Ok(skipped_plan()) };
        // A table that is not there is seen in the plan already.
        database::named(&server, &server.declared.vacuum)
            .map_err(|error| error.end(&format!("database {}", server.id), TaskReport::default()))?;
        let summary = format!("database {}: vacuum {}", server.id, what(&server));
        let mut plan = TaskPlan { summary, ..TaskPlan::default() };
        plan.changes.push(change(server.name(), "vacuumed", "", ""));
        Ok(plan)
    }

    fn reversal(&self) -> Reversal {
        // No row is another one than before.
        Reversal::Stays
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let Some(server) = Server::asked(context)? else { return Ok(skipped()) };
        let analyze = args::flag(context, "analyze", true)?;
        let mut report = TaskReport::default();
        match vacuum(&server, analyze, &mut report) {
            Ok(()) => Ok(bounded(report)),
            Err(error) => Err(error.end(&format!("database {}", server.id), report)),
        }
    }
}

fn vacuum(server: &Server<'_>, analyze: bool, report: &mut TaskReport) -> Result<(), DatabaseError> {
    let before = database::named(server, &server.declared.vacuum)?;
    let options: &[&str] = if analyze { &["ANALYZE"] } else { &[] };
    let notices = database::maintain(server, "VACUUM", options, &before)?;
    let after = database::named(server, &server.declared.vacuum)?;
    report.summary = format!("database {}: vacuumed {}", server.id, what(server));
    for (was, is) in before.iter().zip(&after) {
        let bytes = |bytes: u64| format!("{bytes} bytes");
        report.changes.push(change(was.shown(), "vacuumed", bytes(was.bytes), bytes(is.bytes)));
        report.samples.push(sample("table_size", is.shown(), number(is.bytes), "bytes"));
    }
    if before.is_empty() {
        report.changes.push(change(server.name(), "vacuumed", "", ""));
    }
    for notice in notices {
        report.problems.push(problem(Severity::Low, "left_out", server.name(), notice));
    }
    Ok(())
}
