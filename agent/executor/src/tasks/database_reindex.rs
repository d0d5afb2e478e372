//! `database.reindex`: indexes rebuilt one by one, beside the product's reads and writes. Rows: Z10, W06.
//!
//! A rebuild that breaks leaves an index that is not valid and still costs every write; such left-overs, also of earlier tries
//! and of rebuilds by hand, are dropped and named. Only what has the name of a left-over is ever dropped.

use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::document::profile::ReindexScope;
use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;
use serde_json::Value;

use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::database::{self, DatabaseError, Server, Session, Work, text};
use super::part::{bounded, change, number, problem, sample, skipped, skipped_plan};
use super::{args, programs};

/// The task.
pub(super) struct DatabaseReindex;

/// From this version on indexes are rebuilt beside the product's work.
const CONCURRENTLY: u32 = 120_000;
/// A rebuild waits for transactions that began before it, holding nothing that anybody else waits for: longer than for a lock
/// that others queue behind, and not for ever, because a forgotten session stays open for days.
const TRANSACTION_WAIT: Duration = Duration::from_mins(5);

/// Indexes of the product, small ones first: what is done when the time is over is most of them.
const INDEXES: &str = "
SELECT json_build_object('schema', n.nspname, 'index', i.relname, 'table', t.oid::text, 'exclusion', x.indisexclusion,
    'bytes', pg_relation_size(i.oid), 'left_over', NOT x.indisvalid AND i.relname ~ '_cc(new|old)[0-9]*$')
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
    JOIN pg_namespace n ON n.oid = i.relnamespace
WHERE i.relkind = 'i' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY pg_relation_size(i.oid), n.nspname, i.relname;
";

/// An index.
struct Index {
    schema: String,
    name: String,
    table: String,
    is_exclusion: bool,
    is_left_over: bool,
    bytes: u64,
}

impl Index {
    fn of(row: &Value) -> Self {
        Self {
            schema: text(row, "schema").to_owned(),
            name: text(row, "index").to_owned(),
            table: text(row, "table").to_owned(),
            is_exclusion: row["exclusion"] == true,
            is_left_over: row["left_over"] == true,
            bytes: row["bytes"].as_u64().unwrap_or_default(),
        }
    }

    fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    fn values(&self) -> [(&str, &str); 2] {
        [("schema", &self.schema), ("index", &self.name)]
    }
}

/// Indexes in the profile's scope, and those that a broken rebuild left.
fn indexes(server: &Server<'_>) -> Result<(Vec<Index>, Vec<Index>), DatabaseError> {
    let all = server.run(&server.look(&[]), INDEXES)?.rows;
    let (left, mut good): (Vec<_>, Vec<_>) = all.iter().map(Index::of).partition(|index| index.is_left_over);
    if server.declared.reindex == Some(ReindexScope::Table) && !server.declared.vacuum.is_empty() {
        let tables = database::named(server, &server.declared.vacuum)?;
        good.retain(|index| tables.iter().any(|table| table.oid == index.table));
    }
    Ok((good, left))
}

fn is_off(server: &Server<'_>) -> bool {
    matches!(server.declared.reindex, None | Some(ReindexScope::None))
}

/// Why nothing is done, where the profile says so.
const SWITCHED_OFF: &str = "skipped: its `reindex` names no scope";

impl Change for DatabaseReindex {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let Some(server) = Server::asked(context)? else { return Ok(skipped_plan()) };
        if is_off(&server) {
            return Ok(TaskPlan { summary: SWITCHED_OFF.to_owned(), ..TaskPlan::default() });
        }
        let (good, left) = indexes(&server)
            .map_err(|error| error.end(&format!("database {}", server.id), TaskReport::default()))?;
        let how = if args::flag(context, "concurrently", true)? {
            "beside reads and writes"
        } else {
            "each locked against writes meanwhile"
        };
        let mut plan = TaskPlan {
            summary: format!("database {}: rebuild {} indexes, {how}", server.id, good.len()),
            ..TaskPlan::default()
        };
        plan.changes.extend(good.iter().map(|index| change(index.shown(), "rebuilt", "", "")));
        plan.changes.extend(left.iter().map(|index| change(index.shown(), "dropped", "not valid", "")));
        Ok(plan)
    }

    fn reversal(&self) -> Reversal {
        // The same index, written anew.
        Reversal::Stays
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let Some(server) = Server::asked(context)? else { return Ok(skipped()) };
        if is_off(&server) {
            return Ok(TaskReport { summary: SWITCHED_OFF.to_owned(), ..TaskReport::default() });
        }
        let concurrently = args::flag(context, "concurrently", true)?;
        let mut report = TaskReport::default();
        let outcome = reindex(&server, concurrently, &mut report);
        // Also after a failure: a left-over costs every write until somebody sees it.
        let swept = match &outcome {
            Err(DatabaseError::Halted(_) | DatabaseError::Unknown(_)) => Ok(()),
            _ => sweep(&server, &mut report),
        };
        match outcome.and(swept) {
            Ok(()) => Ok(bounded(report)),
            Err(error) => Err(error.end(&format!("database {}", server.id), report)),
        }
    }
}

fn reindex(server: &Server<'_>, concurrently: bool, report: &mut TaskReport) -> Result<(), DatabaseError> {
    let version = server.version(server.name())?;
    if concurrently && version < CONCURRENTLY {
        let message = format!(
            "PostgreSQL {} cannot rebuild indexes beside writes; set concurrently = false, or leave this step out",
            version / 10_000
        );
        return Err(DatabaseError::named("server_version", message));
    }
    // A session of an earlier life of the agent may still be at work.
    sweep(server, report)?;
    let (good, _) = indexes(server)?;
    let (mut done, mut before, mut failed) = (0, 0, None);
    for index in &good {
        server.check()?;
        let how = if concurrently && !index.is_exclusion { " CONCURRENTLY" } else { "" };
        if index.is_exclusion && concurrently {
            let message =
                "an index of an exclusion constraint cannot be rebuilt beside writes; it was left as it is";
            report.problems.push(problem(Severity::Low, "left_out", index.shown(), message));
            continue;
        }
        server.room(index.bytes)?;
        let part = format!("reindex-{}", &Digest::of(index.shown().as_bytes()).to_string()[..16]);
        let values = index.values();
        let session = server.work(&part, &values);
        let wait = TRANSACTION_WAIT.min(programs::left(server.context()) / 2);
        // Who held up one holds up the next: it is not waited for again and again.
        let short = how.is_empty() || failed.is_some();
        let session = Session { lock_wait: if short { session.lock_wait } else { wait }, ..session };
        match server.run(&session, &format!("REINDEX INDEX{how} :\"schema\".:\"index\";")) {
            Ok(_) => {
                done += 1;
                before += index.bytes;
                report.changes.push(change(index.shown(), "rebuilt", format!("{} bytes", index.bytes), ""));
            }
            Err(error @ (DatabaseError::LockBusy(_) | DatabaseError::Refused { .. })) => {
                let message = error.to_string();
                report.problems.push(problem(Severity::Medium, "not_rebuilt", index.shown(), message));
                failed.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let after: u64 = indexes(server)?.0.iter().map(|index| index.bytes).sum();
    report.samples.push(sample("index_size", server.id.as_str(), number(after), "bytes"));
    report.summary =
        format!("database {}: {done} of {} indexes rebuilt, {before} bytes before", server.id, good.len());
    failed.map_or(Ok(()), Err)
}

/// Drops what broken rebuilds left.
fn sweep(server: &Server<'_>, report: &mut TaskReport) -> Result<(), DatabaseError> {
    for index in indexes(server)?.1 {
        let values = index.values();
        let session = Session { work: Work::Again, ..server.work("sweep", &values) };
        server.run(&session, "DROP INDEX CONCURRENTLY IF EXISTS :\"schema\".:\"index\";")?;
        let before = format!("not valid, {} bytes, left by a rebuild that broke", index.bytes);
        report.changes.push(change(index.shown(), "dropped", before, ""));
    }
    Ok(())
}
