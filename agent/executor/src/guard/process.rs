//! Starting the guard's process: a transient unit of systemd where that runs, else a process that leaves its parent's
//! session. Either way it outlives the agent.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use super::keeper::StartGuard;
use crate::durable;
use crate::host::{THIS_PROGRAM, UnitsKind, start_guard_unit};

/// The guard's own program, in the folder of the state; `deploy/systemd/fleet-guard.service` knows the name.
const COPY: &str = "guard-program";
/// How much of two programs is compared at once.
const BLOCK: usize = 64 * 1024;

/// The agent's binary as a guard.
#[derive(Debug, Clone)]
pub struct GuardProgram {
    /// What stands behind the program's name and before `--folder`.
    pub arguments: Vec<String>,
    /// Where units run.
    pub units: UnitsKind,
}

impl StartGuard for GuardProgram {
    /// A copy of this very program, which no upgrade of the agent replaces: a version that does not run is put back by the
    /// one before, also after a power cut.
    fn prepare(&self, state: &Path) -> io::Result<()> {
        let copy = state.join(COPY);
        // Without systemd the program stays what it is: nothing there upgrades the agent.
        if self.units != UnitsKind::Systemd || is_no_exec(state)? {
            return match fs::remove_file(&copy) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        if is_same(Path::new(THIS_PROGRAM), &copy)? {
            return Ok(());
        }
        let new = state.join(format!(".{COPY}.new"));
        fs::copy(THIS_PROGRAM, &new)?;
        fs::set_permissions(&new, Permissions::from_mode(0o700))?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, &copy)?;
        durable::sync_directory(state)
    }

    fn start(&self, folder: &Path) -> io::Result<()> {
        let copy = folder.ancestors().nth(2).map(|state| state.join(COPY));
        let program = copy.filter(|copy| copy.exists()).map_or_else(own_path, Ok)?;
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

/// May no program be started from this folder's disk?
fn is_no_exec(folder: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statvfs(folder)?.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Do both files hold the same? One that is not there holds nothing.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let Ok(mut other) = File::open(other) else { return Ok(false) };
    let mut one = File::open(one)?;
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..read])?;
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

/// The path of this program, not of this process: the guard may start again when the agent is gone. Where the file was
/// replaced it is the newer version, which knows older orders.
fn own_path() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}
