//! From a declared program to one on this machine: where it lies, which user, which variables.
//!
//! It must never let a declared program be one outside of the root of a development node when its path was
//! written out; a plain name is looked up in the root's folders first, then in the machine's. Called by
//! `runner` and `supervised`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::files::{Files, read_all};
use super::processes::{Input, Invocation};
use super::record::Spec;

/// Folders of programs, in the order of Debian's own `PATH` for root.
pub(crate) const PROGRAM_FOLDERS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Largest user database that is read; 64 KiB holds a thousand users.
const MAX_PASSWD_BYTES: u64 = 1024 * 1024;

/// Is the root another folder than the machine's own?
pub(crate) fn is_rooted(files: &dyn Files) -> bool {
    files.root() != Path::new("/")
}

/// Where a declared path lies on this machine.
fn on_machine(files: &dyn Files, declared: &Path) -> PathBuf {
    files.root().join(declared.strip_prefix("/").unwrap_or(declared))
}

/// Where a program of this name lies, inside the root only.
pub(crate) fn find_in_root(files: &dyn Files, name: &str) -> Option<PathBuf> {
    PROGRAM_FOLDERS.iter().find_map(|folder| executable(files, &Path::new(folder).join(name)))
}

fn executable(files: &dyn Files, declared: &Path) -> Option<PathBuf> {
    let real = on_machine(files, &files.canonical(declared).ok()?);
    if !is_executable(&real) {
        return None;
    }
    // A script knows its name by its path alone, and some are several programs by it, as psql of Debian is.
    let named = on_machine(files, declared);
    let leads_there = named.canonicalize().is_ok_and(|end| real.canonicalize().is_ok_and(|real| real == end));
    Some(if leads_there { named } else { real })
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn find(files: &dyn Files, name: &str) -> Result<PathBuf, String> {
    if name.starts_with('/') {
        return executable(files, Path::new(name))
            .ok_or_else(|| format!("there is no program {name} on this node"));
    }
    if name.contains('/') || name.is_empty() {
        return Err(format!("\"{name}\" is neither an absolute path nor a plain name"));
    }
    let outside = || {
        let folders = PROGRAM_FOLDERS.iter().filter(|_| is_rooted(files));
        folders.map(|folder| Path::new(folder).join(name)).find(|path| is_executable(path))
    };
    find_in_root(files, name)
        .or_else(outside)
        .ok_or_else(|| format!("there is no program {name} in {}", PROGRAM_FOLDERS.join(", ")))
}

/// Resolves what is declared into what the supervisor starts.
pub(crate) fn resolve(
    files: &dyn Files,
    invocation: &Invocation,
    time_limit: Option<std::time::Duration>,
) -> Result<Spec, String> {
    let name = invocation.argv.first().ok_or("the argument vector is empty")?;
    if invocation.argv.iter().any(|argument| argument.contains('\0')) {
        return Err("an argument holds a NUL byte".to_owned());
    }
    let directory = Path::new(invocation.directory.as_deref().unwrap_or("/"));
    let directory = files.canonical(directory).map_err(|e| format!("the working directory: {e}"))?;
    let (user, home) = user(files, invocation.run_as.as_deref())?;
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), search_path(files)),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("HOME".to_owned(), home),
    ]);
    if is_rooted(files) {
        environment.insert("FLEET_ROOT".to_owned(), files.root().display().to_string());
    }
    environment.extend(invocation.environment.clone());
    Ok(Spec {
        nonce: uuid::Uuid::new_v4().to_string(),
        program: find(files, name)?,
        argv: invocation.argv.clone(),
        directory: on_machine(files, &directory),
        environment,
        user,
        time_limit_ms: time_limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        input: match &invocation.input {
            Some(Input::File(path)) => Some(Input::File(on_machine(files, path))),
            other => other.clone(),
        },
        output_file: invocation.output_file.as_ref().map(|path| on_machine(files, path)),
    })
}

fn search_path(files: &dyn Files) -> String {
    let plain = PROGRAM_FOLDERS.join(":");
    if !is_rooted(files) {
        return plain;
    }
    let inside: Vec<_> = PROGRAM_FOLDERS
        .iter()
        .map(|folder| on_machine(files, Path::new(folder)).display().to_string())
        .collect();
    format!("{}:{plain}", inside.join(":"))
}

/// A user and a group by number.
type UserAndGroup = (u32, u32);

/// The account to become, and its home. Nobody but root can become another user; on a development node `root` means
/// the account that owns it, because everything in its root is theirs.
fn user(files: &dyn Files, name: Option<&str>) -> Result<(Option<UserAndGroup>, String), String> {
    let own = rustix::process::geteuid().as_raw();
    let Some(name) = name else { return Ok((None, "/".to_owned())) };
    if name == "root" && (own == 0 || is_rooted(files)) {
        return Ok((None, "/root".to_owned()));
    }
    let bytes = read_all(files, Path::new("/etc/passwd"), MAX_PASSWD_BYTES)
        .map_err(|e| format!("user {name} cannot be looked up: {e}"))?;
    let (uid, gid, home) = find_user(&String::from_utf8_lossy(&bytes), name)
        .ok_or_else(|| format!("there is no user {name} on this node"))?;
    if uid == own {
        return Ok((None, home));
    }
    if own != 0 {
        return Err(format!("it is to run as {name}, and the agent is not root: it can only run as itself"));
    }
    Ok((Some((uid, gid)), home))
}

/// passwd(5): name, password, user, group, comment, home, shell.
fn find_user(passwd: &str, name: &str) -> Option<(u32, u32, String)> {
    let fields: Vec<&str> =
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f.first() == Some(&name))?;
    let [_, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
    Some((uid.parse().ok()?, gid.parse().ok()?, (*home).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::linux_files::LinuxFiles;
    use std::time::Duration;

    #[test]
    fn a_written_out_program_is_never_one_outside_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        let files = LinuxFiles::open(root.path()).unwrap();
        let resolve = |name: &str| {
            let invocation = Invocation::new(vec![name.to_owned()], Duration::from_secs(1));
            resolve(&files, &invocation, None).map(|spec| spec.program)
        };
        assert!(resolve("/bin/sh").unwrap_err().contains("no program /bin/sh on this node"));
        assert!(resolve("../bin/sh").is_err());
        assert!(resolve("").is_err());
        // A plain name falls back to the machine's folders.
        assert!(resolve("sh").unwrap().ends_with("sh"));
        std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        let own = root.path().join("usr/bin/sh");
        std::fs::write(&own, "#!/bin/true\n").unwrap();
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(resolve("sh").unwrap(), own);
        // A script that is several programs is called by the name that was asked for, where that leads to it.
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, root.path().join("usr/bin").join(name)).unwrap();
            resolve(name).unwrap()
        };
        assert_eq!(link("sh", "one-of-many"), root.path().join("usr/bin/one-of-many"));
        assert_eq!(link("/usr/bin/sh", "by-the-root"), own, "for the machine it would lead elsewhere");
        // A link that would lead out leads nowhere.
        std::os::unix::fs::symlink("/bin/cat", root.path().join("usr/bin/escape")).unwrap();
        assert!(resolve("/usr/bin/escape").is_err());
    }

    #[test]
    fn users_come_from_the_node() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\npostgres:x:113:120::/var/lib/postgresql:/bin/sh\nbroken\n";
        assert_eq!(find_user(passwd, "postgres"), Some((113, 120, "/var/lib/postgresql".to_owned())));
        assert_eq!(find_user(passwd, "post"), None);
        assert_eq!(find_user(passwd, "broken"), None);
    }
}
