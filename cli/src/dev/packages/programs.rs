//! The machine's own programs that make packages and sign: which are needed, and how they are called.
//!
//! Each is called by its argument vector, with nothing of the surroundings but a search path, a limit, and a log; one that
//! is given up is ended with its group. Blocking.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::process::{Process, tail};

/// Where they are looked for. dpkg wants those of the administrator too.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// What apt and dpkg are, and what signs an archive for them.
const NEEDED: [&str; 6] = ["apt-get", "dpkg", "dpkg-deb", "gpg", "gpg-agent", "gpgconf"];
/// Each takes a tenth of a second; a machine that builds something beside it may take very much longer.
const LIMIT: Duration = Duration::from_mins(1);

/// Why packages could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PackagingError {
    /// A program failed.
    #[error("{program} ended badly: {said}")]
    Program {
        /// Which.
        program: String,
        /// How it ended, and its last words.
        said: String,
    },
    /// A file could not be written or read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody wants them any more.
    #[error("given up")]
    GivenUp,
}

impl PackagingError {
    /// For `map_err`.
    pub fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

/// Those of the needed programs that this machine does not have.
pub fn missing() -> Vec<&'static str> {
    let is_there = |name: &str| FOLDERS.iter().any(|folder| Path::new(folder).join(name).exists());
    NEEDED.into_iter().filter(|name| !is_there(name)).collect()
}

/// How programs are called.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Where they write what they say.
    pub log: PathBuf,
    /// Set when nobody waits for them any more.
    pub given_up: Arc<AtomicBool>,
}

impl Caller {
    /// One that nobody gives up.
    pub fn new(log: &Path) -> Self {
        Self { log: log.to_owned(), given_up: Arc::default() }
    }

    /// A call of a program, to be given its arguments.
    pub fn command(program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", FOLDERS.join(":")).env("LC_ALL", "C");
        command
    }

    /// Runs a program to its good end.
    pub fn run(&self, command: &mut Command) -> Result<(), PackagingError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut process =
            Process::start(command, &self.log).map_err(PackagingError::at(Path::new(&program)))?;
        let said = match process.wait(LIMIT, &|| self.given_up.load(Ordering::Relaxed)) {
            Some(status) if status.success() => return Ok(()),
            Some(status) => status.to_string(),
            None if self.given_up.load(Ordering::Relaxed) => return Err(PackagingError::GivenUp),
            None => format!("not within {} s", LIMIT.as_secs()),
        };
        let words = tail(&self.log).join("; ");
        Err(PackagingError::Program { program, said: format!("{said}; {words}") })
    }
}
