//! Speaking to a declared database server: `psql` as the declared user over the local socket, one script at a time.
//!
//! Identifiers and values reach a script as variables of psql (`:"x"`, `:'x'`), which quotes them, and never as text of ours.
//! Every session has limits for locks and statements, so that the firewall's own queries never queue behind it, and the server
//! ends what its client no longer waits for. It must never ask for a password. Called by the tasks on databases.

use std::path::PathBuf;
use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::Database;

use super::answer::{DatabaseError, Rows, failure_of_program, failure_of_script, text};
use crate::host::{Exit, Input, Invocation, ProcessError, ProcessOutcome, Purpose, Running, UnitName};
use crate::tasks::contract::{CancelFlag, OutputSink, TaskContext, TaskError};
use crate::tasks::deadline::{Deadline, Halt};
use crate::tasks::fill::Filler;
use crate::tasks::{args, programs};

/// Where databases are made, renamed and dropped from: every cluster has it, and nothing of the firewall's is in it.
pub(in crate::tasks) const MAINTENANCE: &str = "postgres";
/// Longest wait for a lock. What waits for a strong lock stops everybody who comes after it: shorter than the time-out of a
/// query of any product, and longer than an ordinary transaction.
pub(in crate::tasks) const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Longest question that only looks into catalogues.
const LOOK_LIMIT: Duration = Duration::from_mins(2);
/// Longest wait for a connection; over the local socket it is there at once.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The server looks every second whether its client is still there; an ended statement is gone well within this.
const GONE_LIMIT: Duration = Duration::from_secs(15);
/// Between the end of a statement and that of the program that asked for it.
const MARGIN: Duration = Duration::from_secs(2);
/// Longest name of an application or of anything else that the server keeps.
pub(in crate::tasks) const MAX_NAME_BYTES: usize = 63;

/// Every script begins so. From version 14 the server notices by itself, in the middle of a statement, that its client is gone.
const BEGIN: &str = "SELECT pg_catalog.count(pg_catalog.set_config(name, '1000', false)) AS fleet_watch \
     FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval' \\gset\n";

/// What a script is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tasks) enum Work<'s> {
    /// It reads, and the server holds it to that.
    Read,
    /// It changes something, and is done anew after a crash.
    Again,
    /// It changes something; after a crash it is found again under this name, with what it answered.
    Once(&'s str),
}

/// One script in one database.
#[derive(Clone, Copy)]
pub(in crate::tasks) struct Session<'s> {
    /// The database.
    pub(in crate::tasks) into: &'s str,
    /// Variables of the script.
    pub(in crate::tasks) values: &'s [(&'s str, &'s str)],
    /// Longest wait for a lock.
    pub(in crate::tasks) lock_wait: Duration,
    /// Longest statement.
    pub(in crate::tasks) limit: Duration,
    /// What it is for.
    pub(in crate::tasks) work: Work<'s>,
    /// The names of the database's own path mean what they mean to the product; else those of the system alone.
    pub(in crate::tasks) own_path: bool,
    /// Ends it.
    pub(in crate::tasks) cancel: &'s CancelFlag,
}

/// A declared database and the server that it is in.
pub(in crate::tasks) struct Server<'a> {
    context: &'a TaskContext<'a>,
    /// Its id in the profile.
    pub(in crate::tasks) id: &'a Id,
    /// What is declared.
    pub(in crate::tasks) declared: &'a Database,
}

impl<'a> Server<'a> {
    /// The declared database of this id; none where its `when` is false.
    pub(in crate::tasks) fn of(context: &'a TaskContext<'a>, id: &str) -> Result<Option<Self>, TaskError> {
        let (id, declared) = context
            .profile
            .databases
            .get_key_value(id)
            .ok_or_else(|| TaskError::Declared(format!("the profile declares no database \"{id}\"")))?;
        let holds = Filler::new(context).holds(&format!("database {id}"), declared.when.as_ref())?;
        Ok(holds.then_some(Self { context, id, declared }))
    }

    /// The one that a step asks for; none where its `when` is false.
    pub(in crate::tasks) fn asked(context: &'a TaskContext<'a>) -> Result<Option<Self>, TaskError> {
        Self::of(context, args::required_text(context, "database")?)
    }

    /// The name of the database on the server.
    pub(in crate::tasks) fn name(&self) -> &'a str {
        &self.declared.database
    }

    /// The step.
    pub(in crate::tasks) const fn context(&self) -> &'a TaskContext<'a> {
        self.context
    }

    /// A session that looks into the database itself.
    pub(in crate::tasks) fn look<'s>(&self, values: &'s [(&'s str, &'s str)]) -> Session<'s>
    where
        'a: 's,
    {
        Session {
            into: self.name(),
            values,
            lock_wait: LOCK_WAIT,
            limit: LOOK_LIMIT.min(programs::left(self.context)),
            work: Work::Read,
            own_path: false,
            cancel: self.context.cancel,
        }
    }

    /// A session that changes something, with all of the step's time.
    pub(in crate::tasks) fn work<'s>(&self, part: &'s str, values: &'s [(&'s str, &'s str)]) -> Session<'s>
    where
        'a: 's,
    {
        Session { limit: programs::left(self.context), work: Work::Once(part), ..self.look(values) }
    }

    /// Runs a script to its end.
    pub(in crate::tasks) fn run(&self, session: &Session<'_>, script: &str) -> Result<Rows, DatabaseError> {
        self.run_with(session, script, self.context.output)
    }

    /// The same, and hands its output on as it comes.
    pub(in crate::tasks) fn run_with(
        &self,
        session: &Session<'_>,
        script: &str,
        output: &dyn OutputSink,
    ) -> Result<Rows, DatabaseError> {
        let mut arguments: Vec<String> =
            ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "--no-password"]
                .map(str::to_owned)
                .to_vec();
        for (name, value) in session.values {
            arguments.extend(["-v".to_owned(), format!("{name}={value}")]);
        }
        arguments.extend(["--dbname".to_owned(), conninfo(session.into), "--file=-".to_owned()]);
        let mut invocation = self.invocation("psql", arguments, session);
        invocation.input = Some(Input::Text(format!("{BEGIN}{script}\n")));
        let name = match session.work {
            Work::Once(part) => Some(UnitName::new(self.context.step, part)),
            Work::Read | Work::Again => None,
        };
        let outcome = self.start(&invocation, name.as_ref(), session.cancel, output)?;
        let said = String::from_utf8_lossy(&outcome.output);
        match outcome.exit {
            Exit::Status(0) if outcome.output_bytes > outcome.output.len() as u64 => {
                Err(DatabaseError::Program {
                    program: "psql".to_owned(),
                    message: "its answer is larger than what is kept of a program's output".to_owned(),
                })
            }
            Exit::Status(0) => Rows::read(&said),
            Exit::Status(status) => Err(failure_of_script(status, &said)),
            exit => Err(self.stopped(exit, session.work != Work::Read, &said)),
        }
    }

    /// A program of `PostgreSQL` on the database of the session: nothing of it is kept after a crash.
    pub(in crate::tasks) fn program(
        &self,
        program: &str,
        arguments: Vec<String>,
        session: &Session<'_>,
        with: impl FnOnce(&mut Invocation),
    ) -> Result<ProcessOutcome, DatabaseError> {
        let mut invocation = self.invocation(program, arguments, session);
        with(&mut invocation);
        let outcome = self.start(&invocation, None, session.cancel, self.context.output)?;
        let said = String::from_utf8_lossy(&outcome.output);
        match outcome.exit {
            Exit::Status(0) => Ok(outcome),
            Exit::Status(_) => Err(failure_of_program(program, &said)),
            exit => Err(self.stopped(exit, session.work != Work::Read, &said)),
        }
    }

    fn invocation(&self, program: &str, arguments: Vec<String>, session: &Session<'_>) -> Invocation {
        let mut argv = vec![program.to_owned()];
        argv.extend(arguments);
        // The server stops a statement itself, a little before its client is stopped. Nought would be no limit.
        let statement = session.limit.saturating_sub((session.limit / 10).min(MARGIN)).as_millis().max(1);
        let mut options = vec![
            format!("lock_timeout={}", session.lock_wait.as_millis()),
            format!("statement_timeout={statement}"),
            format!("idle_in_transaction_session_timeout={statement}"),
            "client_min_messages=warning".to_owned(),
        ];
        if !session.own_path {
            options.push("search_path=pg_catalog".to_owned());
        }
        if session.work == Work::Read {
            options.push("default_transaction_read_only=on".to_owned());
        }
        let options: Vec<String> = options.iter().map(|option| format!("-c {option}")).collect();
        let mut invocation = Invocation::new(argv, session.limit);
        invocation.run_as.clone_from(&self.declared.run_as);
        invocation.environment.extend([
            ("PGAPPNAME".to_owned(), self.application()),
            ("PGCONNECT_TIMEOUT".to_owned(), CONNECT_LIMIT.as_secs().to_string()),
            ("PGOPTIONS".to_owned(), options.join(" ")),
        ]);
        invocation
    }

    /// What the sessions of this step call themselves, so that people and a later look find them.
    fn application(&self) -> String {
        let step = self.context.step;
        format!("fleet-agent {} {}", step.run, step.step).chars().take(MAX_NAME_BYTES).collect()
    }

    fn start(
        &self,
        invocation: &Invocation,
        name: Option<&UnitName>,
        cancel: &CancelFlag,
        output: &dyn OutputSink,
    ) -> Result<ProcessOutcome, DatabaseError> {
        if cancel.is_cancelled() {
            return Err(Halt::Cancelled.into());
        }
        let purpose = name.map_or(Purpose::ReadOnly, Purpose::Effect);
        let running = Running { output, cancel };
        self.context.host.processes().run(invocation, purpose, &running).map_err(|error| match error {
            ProcessError::NotStarted { .. } => DatabaseError::NotStarted(error),
            // What only looked has changed nothing, whoever saw its end.
            ProcessError::OutcomeUnknown { .. } if name.is_none() => DatabaseError::Program {
                program: invocation.argv.first().cloned().unwrap_or_default(),
                message: error.to_string(),
            },
            ProcessError::OutcomeUnknown { .. } => DatabaseError::Unknown(error),
        })
    }

    /// The program was ended from outside. The statement of one that changes something must be gone from the server as well.
    fn stopped(&self, exit: Exit, changes: bool, said: &str) -> DatabaseError {
        let end = match exit {
            Exit::Cancelled => DatabaseError::Halted(Halt::Cancelled),
            Exit::TimedOut => DatabaseError::TimeOver("it was stopped".to_owned()),
            _ => return failure_of_program("its program", &format!("{exit}\n{said}")),
        };
        if !changes {
            return end;
        }
        match self.await_gone() {
            Ok(()) => end,
            Err(error) => DatabaseError::Unknown(ProcessError::OutcomeUnknown {
                program: "psql".to_owned(),
                why: format!("{exit}, and what it had begun may still be at work in the server: {error}"),
            }),
        }
    }

    /// Ends the sessions of this step in the server and sees them gone.
    pub(in crate::tasks) fn await_gone(&self) -> Result<(), DatabaseError> {
        let own = CancelFlag::default();
        let name = self.application();
        let values = [("name", name.as_str())];
        let session = Session { limit: CONNECT_LIMIT, cancel: &own, into: MAINTENANCE, ..self.look(&values) };
        let clock = self.context.host.clock();
        let until = clock.since_boot() + GONE_LIMIT;
        loop {
            let left = self.run(&session, STOP)?;
            if left.only()?["left"] == 0 {
                return Ok(());
            }
            if clock.since_boot() >= until {
                return Err(DatabaseError::TimeOver(format!("{} sessions are left", left.only()?["left"])));
            }
            clock.pause(Duration::from_millis(500), &own);
        }
    }

    /// The server's version as `server_version_num` has it: 150005.
    pub(in crate::tasks) fn version(&self, into: &str) -> Result<u32, DatabaseError> {
        let session = Session { into, ..self.look(&[]) };
        let rows = self
            .run(&session, "SELECT json_build_object('version', current_setting('server_version_num'));")?;
        let version = text(rows.only()?, "version").parse();
        version.map_err(|_| DatabaseError::named("server_version", "the server does not say its version"))
    }

    /// Where the server keeps its databases; none where the user may not be told.
    fn data_directory(&self) -> Result<Option<PathBuf>, DatabaseError> {
        let session = Session { into: MAINTENANCE, ..self.look(&[]) };
        let asked = "SELECT json_build_object('folder', current_setting('data_directory'));";
        match self.run(&session, asked) {
            Ok(rows) => Ok(Some(PathBuf::from(text(rows.only()?, "folder")))),
            Err(DatabaseError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A server whose disk is full stops the firewall. Where its folder is not seen from here nobody can say.
    pub(in crate::tasks) fn room(&self, needed: u64) -> Result<(), DatabaseError> {
        let Some(folder) = self.data_directory()? else { return Ok(()) };
        let Ok(space) = self.context.host.files().space(&folder) else { return Ok(()) };
        if needed <= space.available {
            return Ok(());
        }
        let available = space.available;
        let message = format!(
            "the server needs {needed} bytes for it, {available} are free at {}; make room",
            folder.display()
        );
        Err(DatabaseError::named("disk_full", message))
    }

    /// May it go on?
    pub(in crate::tasks) fn check(&self) -> Result<(), DatabaseError> {
        Ok(Deadline::of(self.context).check()?)
    }
}

/// Ends the sessions of this name but the own one, and counts them.
const STOP: &str = "SELECT json_build_object('left', count(pg_terminate_backend(pid)))\n\
     FROM pg_stat_activity WHERE application_name = :'name' AND pid <> pg_backend_pid();\n";

/// A database's name as a connection string, which is what programs of `PostgreSQL` take a name with `=` in it for.
pub(in crate::tasks) fn conninfo(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_name_whatever_stands_in_it() {
        assert_eq!(conninfo("edgefw"), "dbname='edgefw'");
        assert_eq!(conninfo("host=evil it's \\ "), "dbname='host=evil it\\'s \\\\ '");
    }
}
