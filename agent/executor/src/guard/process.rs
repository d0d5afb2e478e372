//! Starting the guard's process: a transient unit of systemd where that runs, else a process that leaves its parent's
//! session. Either way it outlives the agent.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use super::keeper::StartGuard;
use crate::host::{UnitsKind, start_guard_unit};

/// The agent's binary as a guard.
#[derive(Debug, Clone)]
pub struct GuardProgram {
    /// What stands behind the program's name and before `--folder`.
    pub arguments: Vec<String>,
    /// Where units run.
    pub units: UnitsKind,
}

impl StartGuard for GuardProgram {
    fn start(&self, folder: &Path) -> io::Result<()> {
        let program = own_path()?;
        let mut arguments = self.arguments.clone();
        let text = folder.to_str().ok_or_else(|| io::Error::other("the folder's name is no UTF-8"))?;
        arguments.extend(["--folder".to_owned(), text.to_owned()]);
        if self.units == UnitsKind::Systemd {
            return start_guard_unit(&program, &arguments, folder).map_err(io::Error::other);
        }
        let mut child = Command::new(program)
            .arg0("fleet-agent")
            .args(&arguments)
            .current_dir("/")
            // No signal for the agent's group is for it; it makes a session of its own.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("guard.log"))?)
            .spawn()?;
        // Only so that it leaves no zombie where the agent lives longer.
        thread::Builder::new().name("guard".to_owned()).spawn(move || child.wait())?;
        Ok(())
    }
}

/// The path of this program, not of this process: the guard may start again when the agent is gone. Where the file was
/// replaced it is the newer version, which knows older orders.
fn own_path() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}
