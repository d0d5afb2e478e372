//! Making a dump: `pg_dump` straight into a file, checked, and only then given its name.
//!
//! The dump is in `PostgreSQL`'s custom format, whatever its name ends in: it is the one that `pg_restore` can list, read in part
//! and check. Where restores are rehearsed, a second session counts the rows of every table in the very snapshot that is dumped.
//! It must never leave a half dump under a final name, nor hold a lock that anybody waits for. Called by `backup.run`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleet_types::document::profile::Backup;
use serde_json::Value;

use super::answer::{DatabaseError, Listener, text};
use super::manifest::{DumpManifest, Origin, digest, manifest_beside};
use super::server::{LOCK_WAIT, Server, Session, conninfo};
use crate::host::{FileError, FileProblem, Input, in_background, temporary_beside, write_atomic};
use crate::tasks::archive::{Label, Summary};
use crate::tasks::archive_error::ArchiveError;
use crate::tasks::contract::CancelFlag;
use crate::tasks::deadline::Deadline;
use crate::tasks::programs;
use crate::tasks::retention::{checksum_beside, write_checksum};

/// How often a wait looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A snapshot is taken at once; longer takes only a server that hangs.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(30);

/// What the database is.
const ORIGIN: &str = "
SELECT json_build_object('server', current_setting('server_version_num')::int,
    'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
    'icu', CASE WHEN to_jsonb(d) ->> 'datlocprovider' = 'i'
        THEN coalesce(to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale') END,
    'owner', pg_get_userbyid(d.datdba), 'bytes', pg_database_size(d.oid),
    'dumped', (SELECT coalesce(sum(pg_table_size(c.oid)), 0) FROM pg_class c WHERE c.relkind IN ('r', 'm')),
    'tables', (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'))
FROM pg_database d WHERE d.datname = current_database();
";

/// Counts the rows of every table whose rows a dump holds: not those that belong to an extension, which makes them itself.
pub(super) const COUNT: &str = "
SELECT format('SELECT json_build_object(''table'', %L, ''rows'', count(*)) FROM ONLY %I.%I',
    format('%I.%I', n.nspname, c.relname), n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend e
        WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
ORDER BY n.nspname, c.relname
\\gexec
";

/// Holds the snapshot until the dump is done; psql waits by itself, and the server sees at once when it is ended.
const HOLD: &str = "
SET idle_in_transaction_session_timeout = 0;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT json_build_object('snapshot', pg_export_snapshot());
";
/// See [`HOLD`].
const UNTIL_ENDED: &str = "
SELECT json_build_object('counted', true);
SELECT 1 \\watch 60
";

/// Tables whose rows are counted: as many lines fit into what is kept of a program's output.
const MAX_COUNTED: usize = 2000;

/// What is dumped: the database, bytes of its tables, and how many there are.
pub(in crate::tasks) fn origin(server: &Server<'_>) -> Result<(Origin, u64, usize), DatabaseError> {
    let rows = server.run(&server.look(&[]), ORIGIN)?;
    let row = rows.only()?;
    let number = |name: &str| row[name].as_u64().unwrap_or_default();
    let origin = Origin {
        database: server.name().to_owned(),
        server: u32::try_from(number("server")).unwrap_or_default(),
        encoding: text(row, "encoding").to_owned(),
        collate: text(row, "collate").to_owned(),
        ctype: text(row, "ctype").to_owned(),
        icu: row["icu"].as_str().map(str::to_owned),
        owner: text(row, "owner").to_owned(),
        bytes: number("bytes"),
    };
    Ok((origin, number("dumped"), usize::try_from(number("tables")).unwrap_or(usize::MAX)))
}

/// Rows of the tables, as [`COUNT`] tells them.
pub(super) fn counted<'r>(rows: impl IntoIterator<Item = &'r Value>) -> BTreeMap<String, u64> {
    let count = |row: &Value| Some((row["table"].as_str()?.to_owned(), row["rows"].as_u64()?));
    rows.into_iter().filter_map(count).collect()
}

/// Dumps, checks, names. Whatever fails, nothing remains.
pub(in crate::tasks) fn make(
    server: &Server<'_>,
    backup: &Backup,
    path: &Path,
    label: &Label,
) -> Result<Summary, ArchiveError> {
    let files = server.context().host.files();
    let (origin, bytes, tables) = origin(server)?;
    // Nobody knows how well rows compress, so there must be room for all of them; indexes are not dumped.
    let folder = path.parent().unwrap_or(Path::new("/"));
    let available = files.space(folder)?.available;
    if bytes > available {
        let why = format!(
            "the tables take {bytes} bytes, {available} are free; make room, or choose another directory"
        );
        return Err(FileError::new("begin the dump in", folder, FileProblem::Full, why).into());
    }
    let temporary = temporary_beside(path);
    let made = (|| {
        let mut file = files.create(&temporary, 0o600)?;
        let rows = if backup.restore_test.is_some() && tables <= MAX_COUNTED {
            Some(dump_and_count(server, path, &temporary)?)
        } else {
            dump(server, path, &temporary, None)?;
            None
        };
        file.sync()?;
        drop(file);
        list(server, &temporary)?;
        read_through(server, &temporary)?;
        let deadline = Deadline::of(server.context());
        let digest = in_background(|| digest(files, &temporary, deadline))?;
        let manifest = DumpManifest::new(label, digest, origin, tables, rows);
        let bytes = serde_json::to_vec(&manifest).map_err(|e| ArchiveError::Write(e.into()))?;
        write_atomic(files, &manifest_beside(path), &bytes, 0o600)?;
        let summary = manifest.summary();
        write_checksum(files, path, summary.sha256)?;
        files.rename(&temporary, path)?;
        files.sync_directory(folder)?;
        Ok(summary)
    })();
    if made.is_err() {
        // The reason stands in the error already; what cannot be removed now is removed by the next run.
        let _ = files.remove_file(&temporary);
        if files.stat(path).is_err() {
            let _ = files.remove_file(&manifest_beside(path));
            let _ = files.remove_file(&checksum_beside(path));
        }
    }
    made
}

fn dump(server: &Server<'_>, path: &Path, to: &Path, snapshot: Option<&str>) -> Result<(), DatabaseError> {
    // A name that promises plain text is not compressed, so that other tools compress it as well as they may expect to.
    let plain = path.extension().is_some_and(|ending| ending == "sql");
    let mut arguments: Vec<String> = vec![
        "--format=custom".to_owned(),
        format!("--compress={}", if plain { 0 } else { 6 }),
        format!("--lock-wait-timeout={}", LOCK_WAIT.as_millis()),
        "--no-password".to_owned(),
    ];
    arguments.extend(snapshot.map(|snapshot| format!("--snapshot={snapshot}")));
    arguments.extend(["--dbname".to_owned(), conninfo(server.name())]);
    let session = Session { limit: programs::left(server.context()), ..server.look(&[]) };
    server
        .program("pg_dump", arguments, &session, |invocation| invocation.output_file = Some(to.to_owned()))
        .map(|_| ())
}

/// Dumps in a snapshot in which another session counts meanwhile.
fn dump_and_count(
    server: &Server<'_>,
    path: &Path,
    to: &Path,
) -> Result<BTreeMap<String, u64>, DatabaseError> {
    let end = CancelFlag::default();
    let (tell, heard) = sync_channel(2);
    let session = Session { limit: programs::left(server.context()), cancel: &end, ..server.look(&[]) };
    let script = format!("{HOLD}{COUNT}{UNTIL_ENDED}");
    std::thread::scope(|scope| {
        let session = &session;
        let counting = scope.spawn(move || server.run_with(session, &script, &listening(tell)));
        let outcome = (|| {
            let Heard::Snapshot(snapshot) = hear(server, &heard, SNAPSHOT_LIMIT)? else { return Ok(None) };
            dump(server, path, to, Some(&snapshot))?;
            match hear(server, &heard, session.limit)? {
                Heard::Counted(rows) => Ok(Some(rows)),
                Heard::Snapshot(_) | Heard::Nothing => Ok(None),
            }
        })();
        end.cancel();
        let counted = counting.join();
        match (outcome, counted) {
            (Ok(Some(rows)), _) => Ok(rows),
            (Err(error), _) | (Ok(None), Ok(Err(error))) => Err(error),
            (Ok(None), _) => Err(DatabaseError::Program {
                program: "psql".to_owned(),
                message: "the session that counts rows ended before it had counted".to_owned(),
            }),
        }
    })
}

/// What the counting session says.
enum Heard {
    Snapshot(String),
    Counted(BTreeMap<String, u64>),
    /// It has ended.
    Nothing,
}

fn hear(server: &Server<'_>, heard: &Receiver<Heard>, limit: Duration) -> Result<Heard, DatabaseError> {
    let clock = server.context().host.clock();
    let until = clock.instant() + limit;
    loop {
        server.check()?;
        match heard.recv_timeout(LOOK_EVERY) {
            Ok(said) => return Ok(said),
            Err(RecvTimeoutError::Disconnected) => return Ok(Heard::Nothing),
            Err(RecvTimeoutError::Timeout) if clock.instant() >= until => {
                return Err(DatabaseError::TimeOver(
                    "the session that counts rows does not answer".to_owned(),
                ));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Gathers what the counting session says.
fn listening(tell: SyncSender<Heard>) -> Listener<impl Fn(Value) + Send + Sync> {
    let rows: Mutex<BTreeMap<String, u64>> = Mutex::default();
    Listener::new(move |row| {
        let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
        let said = if let Some(snapshot) = row["snapshot"].as_str() {
            Heard::Snapshot(snapshot.to_owned())
        } else if row["counted"] == true {
            Heard::Counted(std::mem::take(&mut rows))
        } else {
            rows.extend(counted([&row]));
            return;
        };
        // Room for both that it ever says; nobody listens any more after an error.
        let _ = tell.try_send(said);
    })
}

/// Has `pg_restore` list a dump.
pub(in crate::tasks) fn list(server: &Server<'_>, dump: &Path) -> Result<(), DatabaseError> {
    read(server, dump, "--list")
}

/// Reads a dump to its end, every block of it: its list stands at its beginning and is whole where the rest is cut off.
fn read_through(server: &Server<'_>, dump: &Path) -> Result<(), DatabaseError> {
    read(server, dump, "--file=/dev/null")
}

fn read(server: &Server<'_>, dump: &Path, how: &str) -> Result<(), DatabaseError> {
    let session = Session { limit: programs::left(server.context()), ..server.look(&[]) };
    let input = Some(Input::File(dump.to_owned()));
    server
        .program("pg_restore", vec![how.to_owned()], &session, |invocation| invocation.input = input)
        .map(|_| ())
}
