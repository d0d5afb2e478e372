//! Dumps of a real `PostgreSQL` server, their rehearsal in a scratch database, and what breaks in between. Needs the package
//! postgresql; where it is not, these tests fail.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/step.rs"]
mod step;

use std::time::Duration;

use cluster::Node;
use fleet_executor::tasks::TaskError;
use fleet_types::report::TaskReport;
use step::{Step, wait_for};

const PROFILE: &str = r#"
    [database.main]
    engine = "postgresql"
    database = "edgefw"
    run_as = "postgres"
    [backup.database]
    kind = "database"
    database = "main"
    directory = "/var/backups/db"
    file_name = "edgefw-{timestamp}.sql.gz"
    keep = { count = 2 }
    verify = ["checksum", "list"]
    restore_test = { every = "7d", into = "edgefw_test" }
"#;
const TABLES: &str = "
    CREATE TABLE audit (id int PRIMARY KEY, at timestamptz, note text);
    INSERT INTO audit SELECT n, now(), repeat(md5(n::text), 20) FROM generate_series(1, 5000) n;
    CREATE SCHEMA \"odd; schema\";
    CREATE TABLE \"odd; schema\".\"It's a \"\"table\"\"\" (x int);
    INSERT INTO \"odd; schema\".\"It's a \"\"table\"\"\" VALUES (1), (2);
";
const WITH: &str = r#"{"backup":"database"}"#;
const ALL: &str = "edgefw postgres template0 template1";

fn codes(report: &TaskReport) -> Vec<&str> {
    report.problems.iter().map(|p| p.code.as_str()).collect()
}

#[test]
fn a_dump_is_made_listed_rehearsed_and_kept_as_declared() {
    let node = Node::new(PROFILE, TABLES);
    for _ in 0..3 {
        let report = node.apply("backup.run", WITH).unwrap();
        assert!(codes(&report).is_empty(), "{report:?}");
        assert!(report.artifacts[0].verified && report.artifacts[0].size > 1000, "{report:?}");
        assert!(report.summary.starts_with("backup database: 2 tables, "), "{}", report.summary);
    }
    let names = node.names("/var/backups/db");
    assert_eq!(names.len(), 6, "two dumps, each with its checksum and its manifest: {names:?}");
    let report = node.apply("backup.verify", r#"{"backups":["database"]}"#).unwrap();
    let newest = report.artifacts[0].path.clone();
    let report = node.apply("backup.restore_test", WITH).unwrap();
    assert!(codes(&report).is_empty(), "{report:?}");
    assert!(
        report.summary.contains("2 tables with 5002 rows restored into edgefw_test"),
        "{}",
        report.summary
    );
    assert_eq!(node.databases(), ALL);
    // Nothing holds the server: no session of the agent is left.
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'fleet%'";
    wait_for("the end of the agent's sessions", || node.sql("postgres", left) == "0");
    // Cut off behind its list, or of one other byte: both are seen.
    let dump = node.at(&newest);
    let bytes = std::fs::read(&dump).unwrap();
    for damaged in [bytes[..bytes.len() - 100].to_vec(), [&bytes[..bytes.len() - 1], b"x"].concat()] {
        std::fs::write(&dump, damaged).unwrap();
        let (_, report) = node.failure("backup.verify", r#"{"backups":["database"]}"#);
        assert_eq!(codes(&report), ["damaged_backup"]);
        let (_, report) = node.failure("backup.restore_test", WITH);
        assert_eq!(codes(&report), ["damaged_backup"], "{report:?}");
        assert_eq!(node.databases(), ALL);
    }
}

#[test]
fn a_dump_that_breaks_leaves_nothing_and_says_why() {
    let node = Node::new(PROFILE, TABLES);
    let real = node.text_of_program("pg_dump");
    let nothing_left =
        || assert!(node.names("/var/backups/db").is_empty(), "{:?}", node.names("/var/backups/db"));
    // Half a dump, and an end that says so.
    let half = real
        .replace("exec ", "")
        .replace("\"$@\"\n", "\"$@\" | head -c 3000\necho 'pg_dump: error: it broke' >&2\nexit 1\n");
    node.program("pg_dump", &half);
    let (message, report) = node.failure("backup.run", WITH);
    assert!(message.contains("pg_dump failed: it broke"), "{message}");
    assert_eq!(codes(&report), ["database_failed"]);
    nothing_left();
    // Half a dump, and an end that does not.
    node.program("pg_dump", &half.replace("exit 1", "exit 0").replace("echo", ": "));
    let (message, _) = node.failure("backup.run", WITH);
    assert!(message.contains("pg_restore failed"), "{message}");
    nothing_left();
    // A full disk in the middle.
    node.program("pg_dump", "#!/bin/sh\necho 'pg_dump: error: could not write to output file: No space left on device' >&2\nexit 1\n");
    let (_, report) = node.failure("backup.run", WITH);
    assert_eq!(codes(&report), ["disk_full"]);
    nothing_left();
    // Asked to stop.
    node.program("pg_dump", "#!/bin/sh\nexec sleep 600\n");
    let step = Step { limit: Duration::from_secs(8), ..node.step(WITH) };
    let error = step.carry_out("backup.run").unwrap_err();
    assert!(matches!(error, TaskError::Failed { retry: Some(_), .. }), "{error:?}");
    nothing_left();
    node.program("pg_dump", &real);
    // Somebody changes a table for long: the dump gives way, and says so.
    let mut holder = node.client("edgefw");
    let mut holder = holder
        .args(["-c", "BEGIN; LOCK TABLE audit IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'audit'::regclass";
    wait_for("the lock", || node.sql("edgefw", held) == "1");
    let error = node.apply("backup.run", WITH).unwrap_err();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(error.to_string().contains("others hold a lock"), "{error}");
    nothing_left();
    node.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()");
    node.apply("backup.run", WITH).unwrap();
}

#[test]
fn a_scratch_database_always_goes_and_nobody_elses_does() {
    let node = Node::new(PROFILE, TABLES);
    node.apply("backup.run", WITH).unwrap();
    // Another's.
    node.sql("postgres", "CREATE DATABASE edgefw_test");
    node.sql("edgefw_test", "CREATE TABLE precious (x int)");
    let (message, report) = node.failure("backup.restore_test", WITH);
    assert_eq!(codes(&report), ["foreign_database"], "{message}");
    assert_eq!(node.sql("edgefw_test", "SELECT count(*) FROM precious"), "0");
    // One that an interrupted try left, before and after it was marked.
    node.sql(
        "postgres",
        "COMMENT ON DATABASE edgefw_test IS 'made by fleet-agent; it may drop this database'",
    );
    node.sql("postgres", "CREATE DATABASE \"edgefw_test.fleet-new\"");
    node.apply("backup.restore_test", WITH).unwrap();
    assert_eq!(node.databases(), ALL);
    // A restore that fails half-way, one that hangs, one that lacks a row.
    let real = node.text_of_program("pg_restore");
    let unless_listing = |text: &str| {
        let listing = real.trim_start_matches("#!/bin/sh\n").trim_end();
        format!("#!/bin/sh\ncase \"$1\" in --list|--file*) {} ;; esac\n{text}", listing.replace('\n', "; "))
    };
    node.program(
        "pg_restore",
        &unless_listing("echo 'pg_restore: error: could not execute query: no such role' >&2\nexit 1\n"),
    );
    let (message, _) = node.failure("backup.restore_test", WITH);
    assert!(message.contains("could not execute query"), "{message}");
    assert_eq!(node.databases(), ALL);
    node.program("pg_restore", &unless_listing("exec sleep 600\n"));
    let step = Step { limit: Duration::from_secs(6), ..node.step(WITH) };
    assert!(step.carry_out("backup.restore_test").is_err());
    assert_eq!(node.databases(), ALL);
    let cancelled = node.step(WITH);
    let flag = cancelled.cancel.clone();
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| cancelled.carry_out("backup.restore_test"));
        wait_for("the scratch database", || node.databases().contains("edgefw_test "));
        flag.cancel();
        running.join().unwrap()
    });
    assert!(matches!(outcome, Err(TaskError::Cancelled(_))), "{outcome:?}");
    assert_eq!(node.databases(), ALL);
    let loses = real.replace("exec ", "")
        + &format!(
            "for one; do case \"$one\" in dbname*) {} -X -q -d \"$one\" -c 'DELETE FROM public.audit WHERE id = 7' ;; esac; done\n",
            real.split("exec ").nth(1).unwrap().split(' ').next().unwrap().replace("pg_restore", "psql")
        );
    node.program("pg_restore", &loses);
    let (message, report) = node.failure("backup.restore_test", WITH);
    assert!(message.contains("1 of 2 tables are not as they were dumped"), "{message}");
    assert_eq!(report.problems[0].message, "dumped: 5000 rows, restored: 4999 rows");
    assert_eq!(node.databases(), ALL);
}

#[test]
fn a_dump_of_another_version_and_a_server_that_is_away_have_named_causes() {
    let node = Node::new(PROFILE, TABLES);
    node.apply("backup.run", WITH).unwrap();
    let folder = node.at("/var/backups/db");
    let manifest =
        node.names("/var/backups/db").into_iter().find(|name| name.contains(".manifest.")).unwrap();
    let text = std::fs::read_to_string(folder.join(&manifest)).unwrap();
    let server = node.sql("postgres", "SHOW server_version_num");
    assert!(text.contains(&format!("\"server\":{server}")), "{text}");
    std::fs::write(folder.join(&manifest), text.replace(&server, "990001")).unwrap();
    let (message, report) = node.failure("backup.restore_test", WITH);
    assert_eq!(codes(&report), ["dump_version"], "{message}");
    assert!(message.contains("made by PostgreSQL 99"), "{message}");
    node.program("psql", "#!/bin/sh\necho 'psql: error: connection to server on socket \"x\" failed: No such file' >&2\nexit 2\n");
    let (message, report) = node.failure("backup.run", WITH);
    assert_eq!(codes(&report), ["database_unreachable"], "{message}");
}

#[test]
fn a_database_is_restored_whole_and_the_former_one_comes_back() {
    let node = Node::new(PROFILE, TABLES);
    node.sql(
        "edgefw",
        "CREATE ROLE reader; COMMENT ON DATABASE edgefw IS 'the product''s';
         ALTER DATABASE edgefw SET search_path = public, \"odd; schema\"; ALTER DATABASE edgefw CONNECTION LIMIT 77;
         REVOKE ALL ON DATABASE edgefw FROM PUBLIC; GRANT CONNECT ON DATABASE edgefw TO reader",
    );
    node.apply("backup.run", WITH).unwrap();
    let properties = "SELECT d.datacl, d.datconnlimit, shobj_description(d.oid, 'pg_database'), s.setconfig
        FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE d.datname = 'edgefw'";
    let (before, rows) = (node.sql("postgres", properties), "SELECT count(*) FROM audit");
    node.sql(
        "edgefw",
        "DELETE FROM audit WHERE id > 10; DROP TABLE \"odd; schema\".\"It's a \"\"table\"\"\"",
    );
    let with = r#"{"backup":"database","date":"latest","mode":"recreate"}"#;
    let error = node.apply("backup.restore", r#"{"backup":"database","date":"latest"}"#).unwrap_err();
    assert!(error.to_string().contains("write mode = \"recreate\""), "{error}");
    // Who is connected is named, and nothing has changed.
    let mut product = node.client("edgefw");
    let mut product = product
        .args(["-c", "SET application_name = 'the product'", "-c", "SELECT pg_sleep(600)"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the product'";
    wait_for("the product's session", || node.sql("postgres", connected) == "1");
    let step = Step { limit: Duration::from_secs(20), ..node.step(with) };
    let Err(TaskError::Failed { message, report, .. }) = step.carry_out("backup.restore") else {
        panic!("it failed")
    };
    assert_eq!(codes(&report), ["sessions_open"]);
    assert!(message.contains("the product as postgres"), "{message}");
    assert_eq!((node.databases().as_str(), node.sql("edgefw", rows).as_str()), (ALL, "10"));
    product.kill().unwrap();
    product.wait().unwrap();
    node.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'the product'",
    );
    wait_for("the end of the session", || node.sql("postgres", connected) == "0");

    let task =
        |work: &dyn Fn(&dyn fleet_executor::tasks::Change, &fleet_executor::tasks::TaskContext<'_>)| {
            let Some(fleet_executor::tasks::Task::Change(task)) =
                fleet_executor::tasks::find("backup.restore")
            else {
                panic!("it changes")
            };
            node.step(with).act(|context| work(task, context));
        };
    let undo = std::cell::RefCell::new(serde_json::Value::Null);
    task(&|task, context| *undo.borrow_mut() = task.undo(context).unwrap());
    // The second time the swap is done already, as after a death right behind it.
    for _ in 0..2 {
        node.apply("backup.restore", with).unwrap();
        assert_eq!(node.sql("edgefw", rows), "5000");
        assert_eq!(node.sql("postgres", properties), before);
        assert_eq!(node.databases().split(' ').count(), 5, "{}", node.databases());
    }
    for _ in 0..2 {
        task(&|task, context| drop(task.revert(context, &undo.borrow()).unwrap()));
        assert_eq!(node.sql("edgefw", rows), "10");
        assert_eq!((node.databases().as_str(), node.sql("postgres", properties)), (ALL, before.clone()));
    }
    // What a run that has ended set aside goes with the next restore; what only has such a name stays.
    node.sql("postgres", "CREATE DATABASE \"edgefw.fleet-k-1\"; ");
    node.sql(
        "postgres",
        "COMMENT ON DATABASE \"edgefw.fleet-k-1\" IS '{\"fleet\":\"kept\",\"run\":\"r-0000000001\"}'",
    );
    node.sql("postgres", "CREATE DATABASE \"edgefw.fleet-k-2\"");
    node.apply("backup.restore", with).unwrap();
    let databases = node.databases();
    assert!(!databases.contains("fleet-k-1 ") && databases.contains("fleet-k-2 "), "{databases}");
    // A database that is lost altogether comes back as well.
    node.sql("postgres", "DROP DATABASE edgefw");
    Step { name: "lost", ..node.step(with) }.carry_out("backup.restore").unwrap();
    assert_eq!(node.sql("edgefw", rows), "5000");
}
