//! `backup.restore` of a dump: restored into a database beside, compared, and then swapped by name. Rows: Z07, W05.
//!
//! Both renames are one transaction, so that at every instant the name means a whole database, the former or the restored one. The
//! former is kept under another name until the next restore by another run, and is what the way back swaps in again. It must never
//! end a session of the product: who is still connected is waited for, and then named.

use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::document::ids::Id;
use fleet_types::report::TaskReport;
use fleet_types::severity::Severity;
use serde_json::{Value, json};

use super::archive;
use super::archive_error::ArchiveError;
use super::contract::TaskContext;
use super::database::{
    self, DatabaseError, MAINTENANCE, MAX_NAME_BYTES, Scratch, Server, Session, Work, text,
};
use super::deadline::Deadline;
use super::part::{change, problem};
use super::programs;
use super::retention::Kept;

/// Ends the name of the database that is restored beside.
const RESTORED: &str = ".fleet-r";
/// Stands in the name of a former one.
const KEPT: &str = ".fleet-k-";
/// Sessions that end by themselves, as those of a service that was just stopped, are gone within this.
const SESSIONS_LIMIT: Duration = Duration::from_secs(30);
/// See [`SESSIONS_LIMIT`].
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Former databases: the comment says whose and what their own comment was.
const FORMER: &str = "
SELECT json_build_object('name', d.datname, 'mark', shobj_description(d.oid, 'pg_database'))
FROM pg_database d WHERE starts_with(d.datname, :'prefix');
";
const THERE: &str = "
SELECT json_build_object('comment', shobj_description(d.oid, 'pg_database')) FROM pg_database d WHERE d.datname = :'name';
";
const SESSIONS: &str = "
SELECT json_build_object('who', format('%s as %s (process %s)', coalesce(nullif(application_name, ''), 'somebody'), usename, pid))
FROM pg_stat_activity WHERE datname = :'name' AND backend_type = 'client backend' ORDER BY pid LIMIT 20;
";
/// What a dump does not hold of its database: owner, limit, settings, rights. Values of lists stand in the catalogue as they are written.
const DRESS: &str = "
SELECT format('ALTER DATABASE %I OWNER TO %I', :'restored', pg_get_userbyid(d.datdba)) FROM pg_database d WHERE d.datname = :'name'
UNION ALL SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', :'restored', d.datconnlimit) FROM pg_database d WHERE d.datname = :'name'
\\gexec
SELECT CASE WHEN s.setrole = 0 THEN format('ALTER DATABASE %I', :'restored')
        ELSE format('ALTER ROLE %I IN DATABASE %I', pg_get_userbyid(s.setrole), :'restored') END
    || format(' SET %s TO ', split_part(c, '=', 1))
    || CASE WHEN split_part(c, '=', 1) IN ('search_path', 'temp_tablespaces', 'local_preload_libraries', 'session_preload_libraries')
        THEN substr(c, strpos(c, '=') + 1) ELSE quote_literal(substr(c, strpos(c, '=') + 1)) END
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c WHERE d.datname = :'name'
\\gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', :'restored') FROM pg_database d
WHERE d.datname = :'name' AND d.datacl IS NOT NULL
\\gexec
SELECT format('GRANT %s ON DATABASE %I TO %s', a.privilege_type, :'restored',
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
    || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = :'name'
\\gexec
";
/// All or nothing.
const SWAP: &str = "
BEGIN;
ALTER DATABASE :\"name\" RENAME TO :\"kept\";
ALTER DATABASE :\"restored\" RENAME TO :\"name\";
COMMENT ON DATABASE :\"kept\" IS :'mark';
COMMENT ON DATABASE :\"name\" IS :'comment';
COMMIT;
";
/// Where there was none, as after a loss.
const PUT: &str = "
BEGIN;
ALTER DATABASE :\"restored\" RENAME TO :\"name\";
ALTER DATABASE :\"name\" OWNER TO :\"owner\";
COMMENT ON DATABASE :\"name\" IS :'comment';
COMMIT;
";

/// A restore of one database, with the names that it goes by.
pub(super) struct DatabaseRestore<'a> {
    id: &'a Id,
    server: Server<'a>,
    restored: String,
    kept: String,
}

impl<'a> DatabaseRestore<'a> {
    /// Names are of this step alone, the same in every life of the agent.
    pub(super) fn new(id: &'a Id, server: Server<'a>) -> Self {
        let step = server.context().step;
        let of = Digest::of(format!("{}/{}/{}", step.run, step.attempt.0, step.step).as_bytes()).to_string();
        let (restored, kept) =
            (format!("{}{RESTORED}", server.name()), format!("{}{KEPT}{}", server.name(), &of[..8]));
        Self { id, server, restored, kept }
    }

    /// What the way back needs.
    pub(super) fn undo(&self) -> Value {
        json!({ "database": self.server.id, "kept": self.kept })
    }

    fn context(&self) -> &'a TaskContext<'a> {
        self.server.context()
    }

    /// In the database that every cluster has: from here the others are renamed.
    fn session<'s>(&'s self, values: &'s [(&'s str, &'s str)], work: Work<'s>) -> Session<'s> {
        let limit = programs::left(self.context());
        Session { into: MAINTENANCE, work, limit, ..self.server.look(values) }
    }

    /// The comment of a database, empty where it has none; none where there is no database of this name.
    fn comment(&self, name: &str) -> Result<Option<String>, DatabaseError> {
        let values = [("name", name)];
        let rows = self.server.run(&self.session(&values, Work::Read), THERE)?.rows;
        Ok(rows.first().map(|row| text(row, "comment").to_owned()))
    }

    /// Restores, compares, swaps. Where it fails, the database is the one that it was.
    pub(super) fn restore(&self, archive: &Kept, report: &mut TaskReport) -> Result<(), ArchiveError> {
        if self.kept.len() > MAX_NAME_BYTES {
            let message =
                format!("the name of database {} is too long for one beside it", self.server.name());
            return Err(DatabaseError::named("scratch_name", message).into());
        }
        // A life of the agent before this one has swapped already.
        if self.comment(&self.kept)?.is_none() {
            let scratch = Scratch::new(&self.server, &self.restored)?;
            let outcome = self.fill(&scratch, archive).and_then(|owner| Ok(self.swap(&owner, report)?));
            if let Err(error) = outcome {
                if let Err(left) = scratch.drop() {
                    let message = format!("it is left: {left}");
                    report.problems.push(problem(Severity::High, "scratch_left", &self.restored, message));
                }
                return Err(error);
            }
        }
        let name = self.server.name();
        report.changes.push(change(name, "restored", "", archive.path.display().to_string()));
        report.summary = format!(
            "backup {}: database {name} is that of {}; the former one is kept as {} until the next restore",
            self.id, archive.label.made, self.kept
        );
        Ok(())
    }

    /// Makes the database beside and fills it. Gives the owner that it had when it was dumped.
    fn fill(&self, scratch: &Scratch<'_>, archive: &Kept) -> Result<String, ArchiveError> {
        let files = self.context().host.files();
        let manifest = database::manifest_of(files, &archive.path)?.ok_or_else(|| {
            DatabaseError::named("no_backup", "the dump has no manifest beside it".to_owned())
        })?;
        archive::verify(files, &archive.path, Deadline::of(self.context()))?;
        database::check_version(&manifest, scratch.version())?;
        database::list(&self.server, &archive.path)?;
        self.drop_former()?;
        self.server.room(manifest.origin.bytes.saturating_mul(2))?;
        scratch.make(&manifest.origin)?;
        database::restore(
            &self.server,
            &archive.path,
            &self.restored,
            programs::left(self.context()),
            false,
        )?;
        let found = scratch.rows()?;
        match &manifest.rows {
            Some(dumped) if *dumped != found => {
                let message = "the restored tables are not as they were dumped; nothing was changed";
                Err(DatabaseError::named("restore_differs", message).into())
            }
            _ => Ok(manifest.origin.owner),
        }
    }

    /// Former databases of other runs, which have ended.
    fn drop_former(&self) -> Result<(), DatabaseError> {
        let prefix = format!("{}{KEPT}", self.server.name());
        let values = [("prefix", prefix.as_str())];
        let own = self.context().step.run.to_string();
        for row in self.server.run(&self.session(&values, Work::Read), FORMER)?.rows {
            let mark: Value = serde_json::from_str(text(&row, "mark")).unwrap_or_default();
            // Only what carries the mark of a restore, and not of this very job, whose way back it is.
            if mark["fleet"] == "kept" && mark["run"] != own.as_str() {
                let values = [("name", text(&row, "name"))];
                self.server.run(&self.session(&values, Work::Again), "DROP DATABASE :\"name\";")?;
            }
        }
        Ok(())
    }

    /// Waits until nobody is connected any more.
    fn await_sessions(&self) -> Result<(), DatabaseError> {
        let clock = self.context().host.clock();
        let values = [("name", self.server.name())];
        let until = clock.since_boot() + SESSIONS_LIMIT.min(programs::left(self.context()) / 2);
        loop {
            let rows = self.server.run(&self.session(&values, Work::Read), SESSIONS)?.rows;
            if rows.is_empty() {
                return Ok(());
            }
            if clock.since_boot() >= until {
                let who: Vec<_> = rows.iter().map(|row| text(row, "who")).collect();
                let message = format!(
                    "still connected to database {}: {}; stop the services that use it first",
                    self.server.name(),
                    who.join(", ")
                );
                return Err(DatabaseError::named("sessions_open", message));
            }
            self.server.check()?;
            clock.pause(LOOK_EVERY, self.context().cancel);
        }
    }

    fn swap(&self, owner: &str, report: &mut TaskReport) -> Result<(), DatabaseError> {
        let former = self.comment(self.server.name())?;
        let comment = former.clone().unwrap_or_default();
        let run = self.context().step.run;
        let mark = json!({ "fleet": "kept", "run": run, "comment": comment }).to_string();
        let values = [
            ("name", self.server.name()),
            ("restored", &self.restored),
            ("kept", &self.kept),
            ("mark", &mark),
            ("comment", &comment),
            ("owner", owner),
        ];
        if former.is_none() {
            self.server.run(&self.session(&values, Work::Again), PUT)?;
            return Ok(());
        }
        self.server.run(&self.session(&values, Work::Again), DRESS)?;
        self.await_sessions()?;
        self.server.run(&self.session(&values, Work::Again), SWAP)?;
        report.changes.push(change(&self.kept, "set aside", self.server.name(), ""));
        Ok(())
    }

    /// Swaps the former database in again; one that never went is left alone.
    pub(super) fn take_back(&self, undo: &Value, report: &mut TaskReport) -> Result<(), DatabaseError> {
        let kept = text(undo, "kept");
        let scratch = Scratch::new(&self.server, &self.restored)?;
        let Some(mark) = self.comment(kept)? else {
            scratch.drop()?;
            "the database is the one that it was".clone_into(&mut report.summary);
            return Ok(());
        };
        let mark: Value = serde_json::from_str(&mark).unwrap_or_default();
        scratch.drop()?;
        self.await_sessions()?;
        // The restored one goes by the name of what the agent may drop.
        let values = [
            ("name", self.server.name()),
            ("restored", kept),
            ("kept", self.restored.as_str()),
            ("mark", database::MARK),
            ("comment", text(&mark, "comment")),
        ];
        self.server.run(&self.session(&values, Work::Again), SWAP)?;
        scratch.drop()?;
        report.changes.push(change(self.server.name(), "put back", "", ""));
        report.summary = format!("database {} is the former one again", self.server.name());
        Ok(())
    }

    /// One line.
    pub(super) fn plan(&self, archive: &Kept) -> String {
        let (dump, name) = (archive.path.display(), self.server.name());
        format!("backup {}: restore {dump} beside database {name}, and swap the two by name", self.id)
    }
}
