//! The care of a real `PostgreSQL` database while its product reads and writes: statistics, room, indexes, old rows, reports. Needs the
//! package postgresql; where it is not, these tests fail.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/step.rs"]
mod step;

use std::io::Write as _;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use cluster::Node;
use fleet_executor::tasks::{RetryKind, TaskError};
use fleet_types::report::TaskReport;
use step::{Step, wait_for};

const PROFILE: &str = r#"
    [database.main]
    engine = "postgresql"
    database = "edgefw"
    run_as = "postgres"
    analyze = true
    reindex = "database"
    vacuum = ["audit", "logs"]
    purge = [{ table = "audit", column = "at", keep = "30d" }, { table = "logs", column = "day", keep = "7d" }]
    [backup.database]
    kind = "database"
    database = "main"
    directory = "/var/backups/db"
    file_name = "edgefw-{timestamp}.dump"
    keep = { count = 2 }
"#;
/// Half of the rows of both tables are old; one table has partitions; two indexes are the same, one is never read.
const TABLES: &str = "
    CREATE ROLE product NOLOGIN;
    CREATE TABLE audit (id int PRIMARY KEY, at timestamptz NOT NULL, note text);
    INSERT INTO audit SELECT n, now() - CASE WHEN n % 2 = 0 THEN interval '60 days' ELSE interval '1 day' END, md5(n::text)
        FROM generate_series(1, 4000) n;
    CREATE INDEX audit_at ON audit (at);
    CREATE INDEX audit_at_too ON audit (at);
    CREATE TABLE gone (id int, who text);
    CREATE FUNCTION note_gone() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO gone VALUES (old.id, current_user); RETURN old; END';
    CREATE TRIGGER gone AFTER DELETE ON audit FOR EACH ROW EXECUTE FUNCTION note_gone();
    CREATE TABLE logs (day date NOT NULL, note text) PARTITION BY RANGE (day);
    CREATE TABLE logs_old PARTITION OF logs FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
    CREATE TABLE logs_new PARTITION OF logs FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
    INSERT INTO logs SELECT '2019-06-01', 'old' FROM generate_series(1, 300);
    INSERT INTO logs SELECT current_date, 'new' FROM generate_series(1, 50);
    ALTER TABLE audit OWNER TO product; ALTER TABLE gone OWNER TO product;
    ALTER TABLE logs OWNER TO product; ALTER TABLE logs_old OWNER TO product; ALTER TABLE logs_new OWNER TO product;
    GRANT ALL ON SCHEMA public TO product;
";
const WITH: &str = r#"{"database":"main"}"#;

fn codes(report: &TaskReport) -> Vec<&str> {
    report.problems.iter().map(|p| p.code.as_str()).collect()
}

/// A session of the product that stays open until it is dropped.
struct Product {
    client: Child,
    input: ChildStdin,
}

impl Product {
    /// One that has run these statements.
    fn new(node: &Node, statements: &str) -> Self {
        let mut client = node.client("edgefw").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        writeln!(input, "SET application_name = 'product';\n{statements}").unwrap();
        input.flush().unwrap();
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'product' AND state LIKE 'idle in%'";
        wait_for("the product's transaction", || node.sql("edgefw", waits) == "1");
        Self { client, input }
    }

    /// Ends its transaction.
    fn end(mut self) {
        drop(self.input);
        self.client.wait().unwrap();
    }
}

#[test]
fn old_rows_go_in_batches_after_a_backup_and_nobody_waits() {
    let node = Node::new(PROFILE, TABLES);
    let old = "SELECT count(*) FROM audit WHERE at < now() - interval '30 days'";
    let (message, report) = node.failure("database.purge", WITH);
    assert_eq!(codes(&report), ["no_backup"], "{message}");
    assert_eq!(node.sql("edgefw", old), "2000", "nothing goes without a backup");
    node.apply("backup.run", r#"{"backup":"database"}"#).unwrap();
    // The product holds one of the rows, and writes on meanwhile.
    let product = Product::new(&node, "BEGIN; UPDATE audit SET note = 'mine' WHERE id = 10;");
    let report = node.apply("database.purge", r#"{"database":"main","batch":7}"#).unwrap();
    assert_eq!(report.changes[0].subject, "public.audit", "{report:?}");
    assert!(report.changes[0].before.starts_with("1999 rows before "), "{report:?}");
    assert!(report.changes[1].before.starts_with("300 rows before "), "{report:?}");
    assert_eq!(report.summary, "database main: 2299 rows deleted");
    assert_eq!(node.sql("edgefw", old), "1", "a row that is in use stays for the next time");
    product.end();
    assert_eq!(node.sql("edgefw", "SELECT count(*) FROM logs"), "50");
    assert_eq!(
        node.sql("edgefw", "SELECT string_agg(DISTINCT who, ' ') FROM gone"),
        "product",
        "with the owner's rights"
    );
    let report = Step { try_number: 2, ..node.step(WITH) }.carry_out("database.purge").unwrap();
    assert_eq!(report.summary, "database main: 1 rows deleted");
    // What is not there is named, and nothing is touched.
    for (from, to, code) in [
        ("table = \"audit\"", "table = \"audits\"", "no_table"),
        ("column = \"at\"", "column = \"when\"", "no_column"),
        ("column = \"at\"", "column = \"note\"", "no_time"),
    ] {
        let profile = step::profile(&PROFILE.replace(from, to));
        let step = Step::new(&node.host, &profile, WITH);
        let Err(TaskError::Failed { message, report, .. }) = step.carry_out("database.purge") else {
            panic!("{code}")
        };
        assert_eq!(codes(&report), [code], "{message}");
    }
}

#[test]
fn a_purge_that_is_cancelled_says_what_is_gone() {
    let node = Node::new(PROFILE, TABLES);
    node.apply("backup.run", r#"{"backup":"database"}"#).unwrap();
    node.sql(
        "edgefw",
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN old; END';
         CREATE TRIGGER slow BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let step = Step {
        cancel: fleet_executor::tasks::CancelFlag::default(),
        ..node.step(r#"{"database":"main","batch":10}"#)
    };
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| step.carry_out("database.purge"));
        wait_for("the first rows to go", || node.sql("edgefw", "SELECT count(*) > 20 FROM gone") == "t");
        step.cancel.cancel();
        running.join().unwrap()
    });
    let Err(TaskError::Cancelled(report)) = outcome else { panic!("{outcome:?}") };
    let left: u64 = node.sql("edgefw", "SELECT count(*) FROM audit").parse().unwrap();
    let told: u64 = report.changes[0].before.split(' ').next().unwrap().parse().unwrap();
    // A batch that was at work at that very moment may have been told to nobody.
    assert!(left < 4000 && 4000 - left >= told && 4000 - left <= told + 10, "{left} left, {told} told");
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'fleet%'";
    assert_eq!(node.sql("edgefw", busy), "0", "nothing of it is still at work in the server");
}

#[test]
fn statistics_room_and_indexes_are_cared_for_beside_readers_and_writers() {
    let node = Node::new(PROFILE, TABLES);
    node.sql("edgefw", "DELETE FROM audit WHERE id % 3 = 0");
    // A left-over of a rebuild that broke; one that only looks like it.
    node.sql("edgefw", "CREATE INDEX audit_at_ccnew ON audit (at); CREATE INDEX valid_ccnew ON audit (id)");
    node.sql(
        "edgefw",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'audit_at_ccnew'::regclass",
    );
    let reader = Product::new(&node, "BEGIN; SELECT count(*) FROM audit;");
    let report = node.apply("database.vacuum", WITH).unwrap();
    assert_eq!(report.changes.len(), 2, "{report:?}");
    let report = node.apply("database.analyze", WITH).unwrap();
    assert!(codes(&report).is_empty(), "{report:?}");
    assert_ne!(node.sql("edgefw", "SELECT count(*) FROM pg_stats WHERE tablename = 'audit'"), "0");
    reader.end();
    let files =
        "SELECT string_agg(relfilenode::text, ' ') FROM pg_class WHERE relname IN ('audit_at', 'audit_pkey')";
    let before = node.sql("edgefw", files);
    let report = node.apply("database.reindex", WITH).unwrap();
    assert_ne!(node.sql("edgefw", files), before);
    let dropped: Vec<_> =
        report.changes.iter().filter(|c| c.action == "dropped").map(|c| c.subject.as_str()).collect();
    assert_eq!(dropped, ["public.audit_at_ccnew"], "{report:?}");
    assert_eq!(node.sql("edgefw", "SELECT count(*) FROM pg_class WHERE relname = 'valid_ccnew'"), "1");
    assert_eq!(node.sql("edgefw", "SELECT count(*) FROM pg_index WHERE NOT indisvalid"), "0");
}

#[test]
fn a_rebuild_waits_for_the_product_and_never_the_product_for_it() {
    let node = Node::new(PROFILE, TABLES);
    let product = Product::new(&node, "BEGIN; INSERT INTO audit VALUES (9001, now(), 'open');");
    // The rebuild waits for the open transaction; the product reads and writes on all the same, until the rebuild gives up.
    let step = Step { limit: Duration::from_secs(12), ..node.step(WITH) };
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| step.carry_out("database.reindex"));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'fleet%' AND wait_event_type = 'Lock'";
        wait_for("the rebuild to wait", || node.sql("edgefw", waits) == "1");
        node.sql("edgefw", "SET statement_timeout = '2s'; INSERT INTO audit VALUES (9002, now(), 'beside'); SELECT count(*) FROM audit");
        running.join().unwrap()
    });
    let Err(TaskError::Failed { retry, report, message }) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(retry, Some(RetryKind::LockBusy | RetryKind::Timeout)), "{message}");
    assert!(!report.problems.is_empty());
    product.end();
    // What the broken rebuild left goes with the next.
    Step { try_number: 2, ..node.step(WITH) }.carry_out("database.reindex").unwrap();
    assert_eq!(node.sql("edgefw", "SELECT count(*) FROM pg_class WHERE relname ~ '_cc(new|old)'"), "0");
}

#[test]
fn reports_tell_what_the_server_knows_and_name_what_it_does_not() {
    let node = Node::new(PROFILE, TABLES);
    let report = |kind: &str| {
        node.apply("database.report", &format!(r#"{{"database":"main","report":"{kind}"}}"#)).unwrap()
    };
    let unknown = report("bloat");
    assert!(codes(&unknown).contains(&"not_available"), "never analyzed: {unknown:?}");
    node.apply("database.analyze", WITH).unwrap();
    let sizes = report("sizes");
    assert!(sizes.samples.iter().any(|s| s.metric == "database_size" && s.value > 1e6), "{sizes:?}");
    let bloat = report("bloat");
    let of_audit =
        bloat.samples.iter().find(|s| s.metric == "table_bloat" && s.subject == "public.audit").unwrap();
    assert!(of_audit.value < 100_000.0, "a table that was only filled: {of_audit:?}");
    let usage = report("index_usage");
    let found: Vec<_> = usage.problems.iter().map(|p| (p.code.as_str(), p.subject.as_str())).collect();
    assert_eq!(
        found,
        [("unused_index", "public.audit_at"), ("duplicate_index", "public.audit_at_too")],
        "{usage:?}"
    );
    let slow = report("slow_queries");
    assert_eq!(codes(&slow), ["not_available"]);
    assert!(slow.samples.is_empty(), "no value is made up");
}
