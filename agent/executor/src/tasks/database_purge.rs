//! `database.purge`: rows past their declared age deleted, batch by batch, each in a transaction of its own. Row: Z10.
//!
//! Nothing brings the rows back, so a verified backup of the database comes first, or nothing is deleted. A batch takes no row that
//! somebody has locked; between batches a cancel and the step's time are honoured. It runs with the rights of each table's owner, so
//! that triggers of the product never run with those of the server's administrator.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleet_types::document::profile::{BackupKind, Purge};
use fleet_types::report::TaskReport;

use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::database::{self, DatabaseError, Listener, Server, Session, Table};
use super::deadline::Deadline;
use super::fill::Filler;
use super::part::{bounded, change, number, sample, skipped, skipped_plan};
use super::{archive, args, retention};

/// The task.
pub(super) struct DatabasePurge;

/// Batches of one session; the agent looks after each session whether it may go on.
const BATCHES: usize = 50;
/// Longest batch. What takes longer holds its rows too long: a smaller `batch` is asked for by name.
const BATCH_LIMIT: &str = "30s";
/// Largest batch: what a transaction of seconds can delete.
const MAX_BATCH: u64 = 1_000_000;
/// Age of a backup that counts where its `fresh_within` says nothing.
const FRESH: Duration = Duration::from_hours(7 * 24);

/// The column must hold a time.
const COLUMN: &str = "
SELECT json_build_object('type', format_type(a.atttypid, NULL),
    'is_time', a.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype))
FROM pg_attribute a WHERE a.attrelid = :'oid'::oid AND a.attname = :'column' AND a.attnum > 0 AND NOT a.attisdropped;
";
/// The table itself and all its partitions and children that hold rows.
const TREE: &str = "
WITH RECURSIVE tree AS (
    SELECT :'oid'::oid AS oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid)
SELECT json_build_object('schema', n.nspname, 'name', c.relname, 'owner', pg_get_userbyid(c.relowner), 'oid', c.oid::text)
FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' ORDER BY n.nspname, c.relname;
";
const OLD: &str = "
SELECT json_build_object('rows', count(*)) FROM :\"schema\".:\"table\" WHERE :\"column\" < :'cutoff'::timestamptz;
";
/// Qualified names: the path is the product's own here, for its triggers.
const BATCH: &str = "
WITH gone AS (DELETE FROM ONLY :\"schema\".:\"table\" WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM ONLY :\"schema\".:\"table\" WHERE :\"column\" < :'cutoff'::pg_catalog.timestamptz
    LIMIT :batch FOR UPDATE SKIP LOCKED)) RETURNING 1)
SELECT pg_catalog.json_build_object('gone', pg_catalog.count(*)) AS fleet_row, pg_catalog.count(*) = 0 AS fleet_done
FROM gone \\gset
\\echo :fleet_row
\\if :fleet_done
\\quit
\\endif
";

/// One entry of the profile, and what it means on this server.
struct Target<'a> {
    purge: &'a Purge,
    table: Table,
    cutoff: String,
}

fn targets<'a>(server: &Server<'a>) -> Result<Vec<Target<'a>>, DatabaseError> {
    let purges = &server.declared.purge;
    let names: Vec<String> = purges.iter().map(|purge| purge.table.clone()).collect();
    let mut targets = Vec::new();
    for (purge, table) in purges.iter().zip(database::named(server, &names)?) {
        let values = [("oid", table.oid.as_str()), ("column", purge.column.as_str())];
        let rows = server.run(&server.look(&values), COLUMN)?.rows;
        let Some(column) = rows.first() else {
            let message =
                format!("table {} has no column \"{}\"; correct the profile", table.shown(), purge.column);
            return Err(DatabaseError::named("no_column", message));
        };
        if column["is_time"] != true {
            let message = format!(
                "column {} of table {} is of type {}; an age is told by a date or a timestamp",
                purge.column,
                table.shown(),
                database::text(column, "type")
            );
            return Err(DatabaseError::named("no_time", message));
        }
        let started = server.context().step.job_started;
        let cutoff = started.minus(purge.keep.length()).to_string();
        targets.push(Target { purge, table, cutoff });
    }
    Ok(targets)
}

impl Target<'_> {
    /// Rows that are past their age now.
    fn old(&self, server: &Server<'_>) -> Result<u64, DatabaseError> {
        let values = [
            ("schema", self.table.schema.as_str()),
            ("table", &self.table.name),
            ("column", &self.purge.column),
            ("cutoff", &self.cutoff),
        ];
        let session = Session { limit: super::programs::left(server.context()), ..server.look(&values) };
        Ok(server.run(&session, OLD)?.only()?["rows"].as_u64().unwrap_or_default())
    }
}

impl Change for DatabasePurge {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let Some(server) = Server::asked(context)? else { return Ok(skipped_plan()) };
        let what = format!("database {}", server.id);
        // Rows grow old by themselves.
        let mut plan = TaskPlan { moves: true, ..TaskPlan::default() };
        let listed = (|| {
            for target in targets(&server)? {
                let before = format!("{} rows before {}", target.old(&server)?, target.cutoff);
                plan.changes.push(change(target.table.shown(), "deleted", before, ""));
            }
            Ok(())
        })();
        listed.map_err(|error: DatabaseError| error.end(&what, TaskReport::default()))?;
        plan.summary = format!("{what}: delete old rows of {} tables", plan.changes.len());
        Ok(plan)
    }

    fn reversal(&self) -> Reversal {
        // What is deleted is in the backup that comes first.
        Reversal::None
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let Some(server) = Server::asked(context)? else { return Ok(skipped()) };
        let what = format!("database {}", server.id);
        let batch = args::integer(context, "batch", 10_000)?;
        if !(1..=MAX_BATCH).contains(&batch) {
            return Err(TaskError::Declared(format!("parameter batch: expected 1 to {MAX_BATCH}")));
        }
        let mut report = TaskReport::default();
        let mut deleted = 0;
        let outcome = (|| {
            let targets = targets(&server)?;
            backed_up(&server)?;
            for (number, target) in targets.iter().enumerate() {
                purge(&server, number, target, batch, &mut deleted, &mut report)?;
            }
            Ok(())
        })();
        report.summary = format!("{what}: {deleted} rows deleted");
        match outcome {
            Ok(()) => Ok(bounded(report)),
            Err(error) => Err(DatabaseError::end(error, &what, report)),
        }
    }
}

/// Is there a backup of this database that is whole and young?
fn backed_up(server: &Server<'_>) -> Result<(), DatabaseError> {
    let context = server.context();
    let refused = |why: String| Err(DatabaseError::named("no_backup", format!("{why}; nothing was deleted")));
    let mut seen = Vec::new();
    for (id, backup) in &context.profile.backups {
        let filler = Filler::new(context);
        let counts = backup.kind == BackupKind::Database && backup.database.as_ref() == Some(server.id);
        if !counts || !filler.holds(&format!("backup {id}"), backup.when.as_ref()).unwrap_or(false) {
            continue;
        }
        let newest = match retention::list(context, id.as_str(), backup) {
            Ok(kept) => kept.into_iter().next(),
            Err(error) => return refused(error.to_string()),
        };
        let Some(newest) = newest else {
            seen.push(format!("backup {id} has no dump"));
            continue;
        };
        let age = context.host.clock().now().since(newest.label.made);
        let limit = backup.fresh_within.as_ref().map_or(FRESH, fleet_types::time::Span::length);
        if age > limit {
            seen.push(format!("the newest dump of backup {id} is of {}", newest.label.made));
            continue;
        }
        match archive::verify(context.host.files(), &newest.path, Deadline::of(context)) {
            Ok(_) => return Ok(()),
            Err(super::archive_error::ArchiveError::Halted(halt)) => return Err(halt.into()),
            Err(error) => seen.push(error.to_string()),
        }
    }
    if seen.is_empty() {
        return refused("the profile declares no backup of this database that counts here".to_owned());
    }
    refused(format!("there is no verified backup of it: {}", seen.join("; ")))
}

fn purge(
    server: &Server<'_>,
    number_of: usize,
    target: &Target<'_>,
    batch: u64,
    deleted: &mut u64,
    report: &mut TaskReport,
) -> Result<(), DatabaseError> {
    let tree = server.run(&server.look(&[("oid", target.table.oid.as_str())]), TREE)?.rows;
    let mut gone = 0;
    let outcome = tree.iter().map(Table::of).try_for_each(|leaf| {
        purge_leaf(server, &format!("purge-{number_of}-{}", leaf.oid), target, &leaf, batch, &mut gone)
    });
    *deleted += gone;
    let shown = target.table.shown();
    if gone > 0 {
        report.changes.push(change(&shown, "deleted", format!("{gone} rows before {}", target.cutoff), ""));
    }
    report.samples.push(sample("purged_rows", shown, number(gone), "count"));
    outcome
}

/// One table without its partitions, session by session, until a batch finds nothing that it may take.
fn purge_leaf(
    server: &Server<'_>,
    part: &str,
    target: &Target<'_>,
    leaf: &Table,
    batch: u64,
    gone: &mut u64,
) -> Result<(), DatabaseError> {
    let batch = batch.to_string();
    let values = [
        ("schema", leaf.schema.as_str()),
        ("table", &leaf.name),
        ("owner", &leaf.owner),
        ("column", &target.purge.column),
        ("cutoff", &target.cutoff),
        ("batch", &batch),
    ];
    let script =
        format!("SET ROLE :\"owner\";\nSET statement_timeout = '{BATCH_LIMIT}';\n{}", BATCH.repeat(BATCHES));
    // Bounded by the rows: each session deletes some, or is the last.
    for round in 0u64.. {
        server.check()?;
        let part = format!("{part}-{round}");
        let session = Session { own_path: true, ..server.work(&part, &values) };
        let batches: Mutex<Vec<u64>> = Mutex::default();
        // Heard as they come, so that what a session did is known where it ends half-way.
        let heard = Listener::new(|row: serde_json::Value| {
            let mut batches = batches.lock().unwrap_or_else(PoisonError::into_inner);
            batches.extend(row["gone"].as_u64());
        });
        let outcome = server.run_with(&session, &script, &heard);
        let batches = batches.lock().unwrap_or_else(PoisonError::into_inner);
        *gone += batches.iter().sum::<u64>();
        outcome.map_err(|error| match error {
            DatabaseError::TimeOver(why) => {
                let message =
                    format!("{why}; a batch of {batch} rows may take {BATCH_LIMIT}: write a smaller `batch`");
                DatabaseError::TimeOver(message)
            }
            other => other,
        })?;
        if batches.len() < BATCHES || batches.last() == Some(&0) {
            break;
        }
    }
    Ok(())
}
