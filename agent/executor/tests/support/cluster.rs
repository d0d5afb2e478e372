//! A `PostgreSQL` server of a test's own, and a node below a root whose `psql`, `pg_dump` and `pg_restore` are those of that server.
//!
//! The server runs as an ordinary user, listens on a socket in the test's folder alone, and ends with the test, also where the
//! test is killed. Where the machine has no `PostgreSQL` the tests fail and say what to install.

#![allow(dead_code)] // no test needs all of it
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use fleet_executor::host::LinuxHost;
use fleet_executor::tasks::TaskError;
use fleet_types::document::profile::Profile;
use fleet_types::report::TaskReport;

use super::step::{self, Step, wait_for};

/// Where Debian keeps the programs of a server, the newest version last.
const VERSIONS: &str = "/usr/lib/postgresql";
/// An account that every machine has and that owns nothing.
const NOBODY: u32 = 65_534;

pub struct Node {
    folder: tempfile::TempDir,
    programs: PathBuf,
    server: Child,
    pub host: LinuxHost,
    pub profile: Profile,
}

fn programs() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            Some((entry.as_ref().ok()?.file_name().to_str()?.parse().ok()?, entry.ok()?.path()))
        })
        .filter(|(_, path)| path.join("bin/initdb").exists())
        .collect();
    versions.sort();
    let (_, newest) = versions.pop().expect("there is no PostgreSQL: install the package postgresql");
    newest.join("bin")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Node {
    /// A node with this profile and a server with the database `edgefw` of these statements.
    pub fn new(tables: &str, statements: &str) -> Self {
        let programs = programs();
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        open_up(at);
        let cluster = at.join("cluster");
        std::fs::create_dir(&cluster).unwrap();
        if is_root() {
            chown(&cluster, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = cluster.join("data");
        let made = as_server(&programs.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .current_dir("/")
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let server = as_server(&programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&cluster)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB"])
            .args(["-c", "autovacuum=off", "-c", "unix_socket_permissions=0777"])
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(at.join("server.log")).unwrap())
            .spawn()
            .unwrap();
        for name in ["psql", "pg_dump", "pg_restore"] {
            let real = programs.join(name);
            let text = format!(
                "#!/bin/sh\nexport PGHOST='{}' PGUSER=postgres\nexec {} \"$@\"\n",
                cluster.display(),
                real.display()
            );
            program(at, name, &text);
        }
        let owner = if is_root() { NOBODY } else { rustix::process::geteuid().as_raw() };
        std::fs::create_dir_all(at.join("root/etc")).unwrap();
        std::fs::write(at.join("root/etc/passwd"), format!("postgres:x:{owner}:{owner}::/:/bin/sh\n"))
            .unwrap();
        let host = step::open(at);
        let node = Self { programs, server, host, profile: step::profile(tables), folder };
        wait_for("the database server", || node.psql("postgres", "SELECT 1").status.success());
        node.sql("postgres", "CREATE DATABASE edgefw");
        node.sql("edgefw", statements);
        node
    }

    /// Where a declared path lies.
    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Puts another program in the place of one.
    pub fn program(&self, name: &str, text: &str) {
        program(self.folder.path(), name, text);
    }

    /// The text of the program in its place.
    pub fn text_of_program(&self, name: &str) -> String {
        std::fs::read_to_string(self.at("/usr/bin").join(name)).unwrap()
    }

    /// psql on a database, ready to be started.
    pub fn client(&self, database: &str) -> Command {
        let mut client = Command::new(self.programs.join("psql"));
        client
            .env("PGHOST", self.folder.path().join("cluster"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database])
            .stdin(Stdio::null());
        client
    }

    fn psql(&self, database: &str, statements: &str) -> Output {
        self.client(database).args(["-c", statements]).output().unwrap()
    }

    /// Runs statements; what they answer.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let output = self.psql(database, statements);
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The databases there are.
    pub fn databases(&self) -> String {
        self.sql("postgres", "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database")
    }

    /// Names of the members of a folder, sorted.
    pub fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.at(path))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn step<'a>(&'a self, with: &str) -> Step<'a> {
        Step::new(&self.host, &self.profile, with)
    }

    pub fn apply(&self, action: &str, with: &str) -> Result<TaskReport, TaskError> {
        self.step(with).carry_out(action)
    }

    /// A failure that must be, with its message and report.
    pub fn failure(&self, action: &str, with: &str) -> (String, TaskReport) {
        match self.apply(action, with) {
            Err(TaskError::Failed { message, report, .. }) => (message, *report),
            other => panic!("expected a failure with a report, got {other:?}"),
        }
    }
}

impl Drop for Node {
    /// Also after a failure; at once, because nothing of it is to be kept.
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.server.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ = self.server.wait();
    }
}

/// Folders that the server's user goes through.
fn open_up(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(folder.join("root/usr/bin")).unwrap();
}

fn program(folder: &Path, name: &str, text: &str) {
    let path = folder.join("root/usr/bin").join(name);
    // Another file each time: the former one may be at work.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A program as the user of the server, which is never root; it ends with this test.
fn as_server(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "QUIT"]).arg(program);
    command
}
