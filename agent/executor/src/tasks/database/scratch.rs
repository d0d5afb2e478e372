//! Databases that the agent makes beside those of the firewall: marked as its own, and dropped by the mark alone.
//!
//! A name is never taken from a database that somebody else made. One is made under a name of its own, marked, and renamed
//! then, so that whatever has the name has the mark, also after a crash at any instant. Called by what restores dumps.

use std::path::Path;
use std::time::Duration;

use super::answer::{DatabaseError, text};
use super::dump::{COUNT, counted};
use super::manifest::{DumpManifest, Origin};
use super::server::{LOCK_WAIT, MAINTENANCE, MAX_NAME_BYTES, Server, Session, Work, conninfo};
use crate::host::Input;
use crate::tasks::contract::CancelFlag;

/// The comment that tells a database of the agent.
pub(in crate::tasks) const MARK: &str = "made by fleet-agent; it may drop this database";
/// Ends the name under which a database is made before it is marked.
const FRESH: &str = ".fleet-new";
/// Dropping a database waits for a checkpoint; half a minute is a slow disk.
const DROP_LIMIT: Duration = Duration::from_secs(30);
/// Sessions end by a forced drop from this version on.
const FORCED_DROP: u32 = 130_000;

/// Whose a database is.
const STANDING: &str = "
SELECT json_build_object('name', d.datname, 'mark', shobj_description(d.oid, 'pg_database'))
FROM pg_database d WHERE d.datname IN (:'name', :'fresh');
";
const MAKE: &str = "CREATE DATABASE :\"fresh\" TEMPLATE template0 ENCODING :'encoding' LC_COLLATE :'collate' LC_CTYPE :'ctype'";
const MADE: &str = "
COMMENT ON DATABASE :\"fresh\" IS :'mark';
ALTER DATABASE :\"fresh\" RENAME TO :\"name\";
";
const DROP: &str = "
SELECT count(pg_terminate_backend(pid)) AS fleet_ended FROM pg_stat_activity WHERE datname = :'name' \\gset
DROP DATABASE IF EXISTS :\"name\"";

/// A database of the agent, by its name.
pub(in crate::tasks) struct Scratch<'s> {
    server: &'s Server<'s>,
    name: &'s str,
    version: u32,
}

impl<'s> Scratch<'s> {
    /// A name that may be used: of no database that is declared, and of none that every cluster has.
    pub(in crate::tasks) fn new(server: &'s Server<'s>, name: &'s str) -> Result<Self, DatabaseError> {
        let declared = server.context().profile.databases.values().any(|declared| declared.database == name);
        let refused = |why: &str| Err(DatabaseError::named("scratch_name", format!("\"{name}\" {why}")));
        if declared || matches!(name, "postgres" | "template0" | "template1") {
            return refused("is no scratch database but one that is used; choose another name");
        }
        if name.is_empty() || name.len() + FRESH.len() > MAX_NAME_BYTES || name.contains('\0') {
            return refused("is no name of a database, or too long for one that is made beside others");
        }
        Ok(Self { server, name, version: server.version(MAINTENANCE)? })
    }

    /// The server's version.
    pub(in crate::tasks) const fn version(&self) -> u32 {
        self.version
    }

    /// Is a database of this name there? One that somebody else made is an error.
    pub(in crate::tasks) fn is_there(&self) -> Result<bool, DatabaseError> {
        self.look(self.server.look(&[]))
    }

    fn look(&self, session: Session<'_>) -> Result<bool, DatabaseError> {
        let fresh = self.fresh();
        let values = [("name", self.name), ("fresh", fresh.as_str())];
        let session = Session { into: MAINTENANCE, values: &values, ..session };
        let rows = self.server.run(&session, STANDING)?.rows;
        let mut there = false;
        for row in &rows {
            let is_fresh = text(row, "name") == fresh;
            let mark = row["mark"].as_str();
            // Between being made and being marked it has no comment at all.
            if mark != Some(MARK) && !(is_fresh && mark.is_none()) {
                let message = format!(
                    "there is a database \"{}\" that the agent did not make; it is left alone: choose another name, or drop it",
                    text(row, "name")
                );
                return Err(DatabaseError::named("foreign_database", message));
            }
            there = true;
        }
        Ok(there)
    }

    /// Makes it, empty. What an earlier try left of it goes first.
    pub(in crate::tasks) fn make(&self, origin: &Origin) -> Result<(), DatabaseError> {
        if self.is_there()? {
            self.server.await_gone()?;
            self.drop()?;
        }
        let fresh = self.fresh();
        let icu = origin.icu.clone().unwrap_or_default();
        let values = [
            ("name", self.name),
            ("fresh", fresh.as_str()),
            ("mark", MARK),
            ("encoding", &origin.encoding),
            ("collate", &origin.collate),
            ("ctype", &origin.ctype),
            ("icu", &icu),
        ];
        let provider = if icu.is_empty() { "" } else { " LOCALE_PROVIDER icu ICU_LOCALE :'icu'" };
        let session = Session { into: MAINTENANCE, ..self.working(&values) };
        self.server.run(&session, &format!("{MAKE}{provider};{MADE}")).map(|_| ())
    }

    /// Drops it, whatever else is asked to stop: it is the agent's own, and seconds of work.
    pub(in crate::tasks) fn drop(&self) -> Result<(), DatabaseError> {
        let own = CancelFlag::default();
        self.look(Session { limit: DROP_LIMIT, cancel: &own, ..self.server.look(&[]) })?;
        for name in [self.name, &self.fresh()] {
            let values = [("name", name)];
            let session =
                Session { into: MAINTENANCE, limit: DROP_LIMIT, cancel: &own, ..self.working(&values) };
            let force = if self.version >= FORCED_DROP { " WITH (FORCE)" } else { "" };
            self.server.run(&session, &format!("{DROP}{force};"))?;
        }
        Ok(())
    }

    /// Rows of its tables.
    pub(in crate::tasks) fn rows(&self) -> Result<std::collections::BTreeMap<String, u64>, DatabaseError> {
        let session = Session { work: Work::Read, into: self.name, ..self.working(&[]) };
        Ok(counted(&self.server.run(&session, COUNT)?.rows))
    }

    fn fresh(&self) -> String {
        format!("{}{FRESH}", self.name)
    }

    fn working<'v>(&self, values: &'v [(&'v str, &'v str)]) -> Session<'v>
    where
        's: 'v,
    {
        Session {
            work: Work::Again,
            limit: crate::tasks::programs::left(self.server.context()),
            ..self.server.look(values)
        }
    }
}

/// Loads a dump into an empty database; the first error ends it.
pub(in crate::tasks) fn restore(
    server: &Server<'_>,
    dump: &Path,
    into: &str,
    limit: Duration,
    is_rehearsal: bool,
) -> Result<(), DatabaseError> {
    let mut arguments =
        vec!["--exit-on-error".to_owned(), "--no-password".to_owned(), "--dbname".to_owned(), conninfo(into)];
    if is_rehearsal {
        // Beside the product's own they would take its changes, or hand them on.
        arguments.extend(["--no-subscriptions".to_owned(), "--no-publications".to_owned()]);
    }
    let session = Session { work: Work::Again, limit, lock_wait: LOCK_WAIT, ..server.look(&[]) };
    let input = Some(Input::File(dump.to_owned()));
    server.program("pg_restore", arguments, &session, |invocation| invocation.input = input).map(|_| ())
}

/// Can this server take the dump? One of a newer major version may say what an older one does not understand.
pub(in crate::tasks) fn check_version(manifest: &DumpManifest, server: u32) -> Result<(), DatabaseError> {
    let (dump, here) = (manifest.origin.server / 10_000, server / 10_000);
    if dump <= here {
        return Ok(());
    }
    let message = format!(
        "the dump was made by PostgreSQL {dump}, the server is PostgreSQL {here}: a dump is restored into its own version or a newer one"
    );
    Err(DatabaseError::named("dump_version", message))
}
