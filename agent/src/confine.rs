//! What the core gives up before it speaks to anybody (security-and-delivery §1.16): rights that it could gain,
//! its memory to others of its account, and nearly all files.
//!
//! For the calling thread and those that it starts; called by `fleet-agent core` before there are others. None of
//! it can be taken back.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{DumpableBehavior, getegid, geteuid, set_dumpable_behavior};
use rustix::thread::set_no_new_privs;

/// What resolving a name reads on a machine of any make: the resolver's files and libraries.
const READABLE: [&str; 5] = ["/etc", "/usr", "/lib", "/lib64", "/run"];
/// The newest rules that are asked for; an older kernel enforces what it knows of them.
const RULES: ABI = ABI::V6;

/// Why the core is not confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// It has rights that nothing here could take.
    #[error("the core does not run as root: fleet-agent run starts it under an account of its own")]
    Root,
    /// The system refused.
    #[error("the core cannot give up its rights")]
    System(#[from] rustix::io::Errno),
    /// The rules for files were refused.
    #[error("the core cannot be fenced in")]
    Rules(#[from] RulesetError),
}

/// How far the kernel enforces the fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// All of it.
    Whole,
    /// What this kernel knows.
    Partly,
    /// Nothing: the kernel has no Landlock.
    Absent,
}

/// Refuses to be root; gives up every way to new rights, and its memory to debuggers and core files.
pub fn give_up_rights() -> Result<(), ConfineError> {
    if geteuid().is_root() || getegid().is_root() {
        return Err(ConfineError::Root);
    }
    // No program with setuid or file capabilities gives it rights again.
    set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// From here on only `own` can be written, only what resolving names needs can be read, nothing can be executed,
/// no port can be opened, and no process outside can be signalled (Landlock).
pub fn sandbox_in(own: &Path) -> Result<Sandbox, ConfineError> {
    let look: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let all = AccessFs::from_all(RULES);
    let status = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(READABLE, look))?
        .add_rules(path_beneath_rules([own], all & !AccessFs::Execute))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Sandbox::Whole,
        RulesetStatus::PartiallyEnforced => Sandbox::Partly,
        RulesetStatus::NotEnforced => Sandbox::Absent,
    })
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::{fs, thread};

    use super::*;

    #[test]
    fn behind_the_fence_only_its_own_folder_is_written_and_little_is_read() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("secret"), "x").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (folder, secret) = (own.path().to_owned(), other.path().join("secret"));
        // A thread of its own: the fence holds for it alone and ends with it.
        let fenced = thread::spawn(move || {
            let fence = sandbox_in(&folder).unwrap();
            if fence == Sandbox::Absent {
                eprintln!("NOT PROVED HERE: this kernel has no Landlock");
                return;
            }
            let denied = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            denied(fs::read(&secret).unwrap_err());
            denied(fs::write(&secret, "y").unwrap_err());
            denied(fs::write("/etc/fleet-confine-test", "y").unwrap_err());
            denied(std::process::Command::new("/bin/true").status().unwrap_err());
            fs::write(folder.join("key"), "z").unwrap();
            assert!(fs::read_dir("/etc").is_ok());
            TcpStream::connect(address).unwrap();
            if fence == Sandbox::Whole {
                denied(TcpListener::bind("127.0.0.1:0").unwrap_err());
            }
        });
        fenced.join().unwrap();
        assert_eq!(fs::read(own.path().join("key")).unwrap(), b"z");
    }
}
