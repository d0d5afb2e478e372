//! `database.report`: what a database needs, told from the server's own statistics; it only reads. Rows: Z10, W06.
//!
//! Bloat is estimated from the planner's statistics, as every tool does that does not read whole tables; what the server does not
//! keep is "not available" and never a made-up value.

use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;
use serde_json::Value;

use super::args;
use super::contract::{Inspect, TaskContext, TaskError, TaskPlan};
use super::database::{DatabaseError, Server, text};
use super::part::{bounded, number, problem, sample, skipped, skipped_plan};

/// The task.
pub(super) struct DatabaseReport;

/// A table of which so much is bloat is told as a finding: rewriting it is felt from there on.
const BLOAT_PERCENT: u64 = 40;
/// Less than this is not worth a rewrite, whatever its share.
const BLOAT_BYTES: u64 = 64 * 1024 * 1024;

/// The largest hundred: more say nothing to a person.
const SIZES: &str = "
SELECT json_build_object('database', pg_database_size(current_database()));
SELECT json_build_object('table', n.nspname || '.' || c.relname, 'rows', pg_table_size(c.oid), 'indexes', pg_indexes_size(c.oid),
    'total', pg_total_relation_size(c.oid))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY pg_total_relation_size(c.oid) DESC LIMIT 60;
";
/// Pages that the rows would fill, by their mean width with header (24 bytes) and pointer (4), against the pages there are.
/// Source: the page layout in `PostgreSQL`'s manual.
const BLOAT: &str = "
WITH widths AS (
    SELECT c.oid, c.reltuples, c.relpages, current_setting('block_size')::numeric AS page, count(s.attname) AS columns,
        28 + coalesce(sum((1 - s.null_frac) * s.avg_width), 0)::numeric AS width
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND NOT s.inherited
    WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    GROUP BY c.oid, c.reltuples, c.relpages)
SELECT json_build_object('table', n.nspname || '.' || c.relname, 'total', pg_table_size(c.oid),
    'known', w.columns > 0 AND w.reltuples >= 0, 'dead', coalesce(t.n_dead_tup, 0),
    'bloat', greatest(0, (w.relpages - ceil(greatest(w.reltuples, 0)::numeric * w.width / (w.page - 24))) * w.page)::bigint)
FROM widths w JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_stat_all_tables t ON t.relid = c.oid
WHERE w.relpages > 0 OR w.reltuples < 0 ORDER BY pg_table_size(c.oid) DESC LIMIT 60;
";
/// Never read since the statistics began, and not there to keep values unique; and those with a twin.
const INDEX_USAGE: &str = "
SELECT json_build_object('since', coalesce(to_char(d.stats_reset, 'YYYY-MM-DD'), 'the server was made'))
FROM pg_stat_database d WHERE d.datname = current_database();
WITH own AS (
    SELECT x.*, n.nspname || '.' || i.relname AS name, pg_relation_size(i.oid) AS bytes, coalesce(s.idx_scan, 0) AS scans
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_namespace n ON n.oid = i.relnamespace
        LEFT JOIN pg_stat_all_indexes s ON s.indexrelid = x.indexrelid
    WHERE i.relkind = 'i' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
SELECT json_build_object('index', o.name, 'bytes', o.bytes, 'scans', o.scans, 'valid', o.indisvalid,
    'unused', o.scans = 0 AND NOT o.indisunique AND NOT o.indisexclusion,
    'twin', (SELECT min(t.name) FROM own t WHERE t.indrelid = o.indrelid AND t.indexrelid <> o.indexrelid
        AND t.indkey::text = o.indkey::text AND t.indclass::text = o.indclass::text
        AND t.indcollation::text = o.indcollation::text AND t.indoption::text = o.indoption::text
        AND coalesce(pg_get_expr(t.indexprs, t.indrelid), '') = coalesce(pg_get_expr(o.indexprs, o.indrelid), '')
        AND coalesce(pg_get_expr(t.indpred, t.indrelid), '') = coalesce(pg_get_expr(o.indpred, o.indrelid), '')
        -- Of twins the one that keeps values unique stays, else the older one.
        AND (t.indisunique, -t.indexrelid::bigint) > (o.indisunique, -o.indexrelid::bigint)))
FROM own o ORDER BY o.bytes DESC LIMIT 60;
SELECT json_build_object('column', s.schemaname || '.' || s.tablename || '.' || s.attname, 'distinct', s.n_distinct,
    'correlation', s.correlation)
FROM pg_stats s WHERE s.schemaname !~ '^pg_' AND s.schemaname <> 'information_schema' AND s.correlation IS NOT NULL
ORDER BY s.schemaname, s.tablename, s.attname LIMIT 60;
";
/// Where the extension lies, which may be any schema.
const STATEMENTS: &str = "
SELECT json_build_object('schema', n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements';
";
/// Statements on rows alone: others are kept as they were written, with the password that a role was given.
const SLOW: &str = "
WITH calls AS (SELECT to_jsonb(s) AS s FROM :\"schema\".pg_stat_statements s
    WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND s.query ~* '^\\s*(select|insert|update|delete|merge|with)\\M')
SELECT json_build_object('query', left(regexp_replace(s ->> 'query', '\\s+', ' ', 'g'), 160), 'calls', s -> 'calls',
    'mean', coalesce(s -> 'mean_exec_time', s -> 'mean_time'), 'total', coalesce(s -> 'total_exec_time', s -> 'total_time'))
FROM calls ORDER BY coalesce(s ->> 'total_exec_time', s ->> 'total_time')::numeric DESC LIMIT 20;
";

impl Inspect for DatabaseReport {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let Some(server) = Server::asked(context)? else { return Ok(skipped_plan()) };
        let kind = args::required_text(context, "report")?;
        Ok(TaskPlan { summary: format!("database {}: report {kind}", server.id), ..TaskPlan::default() })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let Some(server) = Server::asked(context)? else { return Ok(skipped()) };
        let mut report = TaskReport::default();
        let made = match args::required_text(context, "report")? {
            "sizes" => sizes(&server, &mut report),
            "bloat" => bloat(&server, &mut report),
            "index_usage" => index_usage(&server, &mut report),
            "slow_queries" => slow_queries(&server, &mut report),
            other => {
                return Err(TaskError::Declared(format!("parameter report: there is no report \"{other}\"")));
            }
        };
        match made {
            Ok(()) => {
                report.summary = format!("database {}: {}", server.id, report.summary);
                Ok(bounded(report))
            }
            Err(error) => Err(error.end(&format!("database {}", server.id), report)),
        }
    }
}

fn count(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_default()
}

fn sizes(server: &Server<'_>, report: &mut TaskReport) -> Result<(), DatabaseError> {
    let rows = server.run(&server.look(&[]), SIZES)?.rows;
    for row in &rows {
        if let Some(bytes) = row["database"].as_u64() {
            report.summary = format!("{bytes} bytes in {} tables", rows.len() - 1);
            report.samples.push(sample("database_size", server.name(), number(bytes), "bytes"));
            continue;
        }
        for (metric, name) in [("table_size", "rows"), ("index_size", "indexes"), ("total_size", "total")] {
            report.samples.push(sample(metric, text(row, "table"), number(count(row, name)), "bytes"));
        }
    }
    Ok(())
}

fn bloat(server: &Server<'_>, report: &mut TaskReport) -> Result<(), DatabaseError> {
    let rows = server.run(&server.look(&[]), BLOAT)?.rows;
    let mut unknown = 0;
    for row in &rows {
        let (table, total, wasted) = (text(row, "table"), count(row, "total"), count(row, "bloat"));
        report.samples.push(sample("dead_rows", table, number(count(row, "dead")), "count"));
        report.samples.push(sample("table_size", table, number(total), "bytes"));
        if row["known"] != true {
            unknown += 1;
            let message = "its bloat is not available: it was never analyzed";
            report.problems.push(problem(Severity::Low, "not_available", table, message));
            continue;
        }
        report.samples.push(sample("table_bloat", table, number(wasted), "bytes"));
        if wasted >= BLOAT_BYTES && wasted * 100 >= total * BLOAT_PERCENT {
            let message = format!("about {wasted} of its {total} bytes hold nothing (an estimate)");
            report.problems.push(problem(Severity::Low, "bloat", table, message));
        }
    }
    report.summary = format!("bloat of {} tables estimated", rows.len() - unknown);
    Ok(())
}

fn index_usage(server: &Server<'_>, report: &mut TaskReport) -> Result<(), DatabaseError> {
    let rows = server.run(&server.look(&[]), INDEX_USAGE)?.rows;
    let since = rows.iter().find_map(|row| row["since"].as_str()).unwrap_or("an unknown time");
    let (mut indexes, mut unused, mut twins) = (0, 0, 0);
    for row in &rows {
        if row["column"].is_string() {
            for (metric, name) in [("distinct_values", "distinct"), ("correlation", "correlation")] {
                let value = row[name].as_f64().unwrap_or_default();
                report.samples.push(sample(metric, text(row, "column"), value, "ratio"));
            }
        }
        let Some(index) = row["index"].as_str() else { continue };
        indexes += 1;
        report.samples.push(sample("index_scans", index, number(count(row, "scans")), "count"));
        let bytes = count(row, "bytes");
        if row["valid"] == false {
            let message =
                format!("it is not valid: it is written and never read, {bytes} bytes; rebuild or drop it");
            report.problems.push(problem(Severity::Medium, "invalid_index", index, message));
        } else if let Some(twin) = row["twin"].as_str() {
            twins += 1;
            let message = format!("it is the same as {twin}, {bytes} bytes");
            report.problems.push(problem(Severity::Low, "duplicate_index", index, message));
        } else if row["unused"] == true {
            unused += 1;
            let message = format!("nothing has read it since {since}, {bytes} bytes");
            report.problems.push(problem(Severity::Low, "unused_index", index, message));
        }
    }
    report.summary = format!("of {indexes} indexes {unused} unused, {twins} duplicates, since {since}");
    Ok(())
}

fn slow_queries(server: &Server<'_>, report: &mut TaskReport) -> Result<(), DatabaseError> {
    let found = server.run(&server.look(&[]), STATEMENTS)?.rows;
    let Some(schema) = found.first().map(|row| text(row, "schema")) else {
        "slow queries are not available: pg_stat_statements is not installed here"
            .clone_into(&mut report.summary);
        let message = "slow queries are not available";
        let mut missing = problem(Severity::Low, "not_available", server.name(), message);
        "load pg_stat_statements with the server, and create the extension in this database"
            .clone_into(&mut missing.remedy);
        report.problems.push(missing);
        return Ok(());
    };
    let rows = server.run(&server.look(&[("schema", schema)]), SLOW)?.rows;
    for row in &rows {
        let query = text(row, "query");
        for (metric, name, unit) in
            [("query_total", "total", "ms"), ("query_mean", "mean", "ms"), ("query_calls", "calls", "count")]
        {
            report.samples.push(sample(metric, query, row[name].as_f64().unwrap_or_default(), unit));
        }
    }
    report.summary = format!("the {} statements that took the most time", rows.len());
    Ok(())
}
