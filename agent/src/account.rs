//! The account that the core runs under, where it has a process of its own (security-and-delivery §1.16).
//!
//! Looked up by the root half before it starts the other one. Makes no account: whoever installs the agent does.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use rustix::process::geteuid;

use crate::config::Config;

/// Others may walk through a folder of this mode, but neither list nor change it.
const WALK_THROUGH: u32 = 0o711;

/// Why the core cannot have its account.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Nobody else can give a process another account.
    #[error(
        "the agent of a real machine is started as root: its executor works on the machine, and gives its core the account \"{0}\""
    )]
    NotRoot(String),
    /// No such account.
    #[error(
        "there is no account \"{0}\": make it (useradd --system --no-create-home --shell /usr/sbin/nologin {0}), or name another in runtime.core_user"
    )]
    Unknown(String),
    /// The account is root's.
    #[error("runtime.core_user \"{0}\" is root: the half that speaks to the network must not be")]
    Root(String),
    /// The accounts cannot be read.
    #[error("the account \"{name}\" cannot be looked up")]
    LookUp {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The folder cannot be made.
    #[error("the folder {path} cannot be given to the account \"{name}\"")]
    Folder {
        /// The folder.
        path: String,
        /// The account.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The folder is somebody else's.
    #[error("{path} belongs to user {found}, not to \"{name}\": run chown -R {name}: {path}")]
    Foreign {
        /// The folder.
        path: String,
        /// The account.
        name: String,
        /// Whose it is.
        found: u32,
    },
}

/// An account that is not root's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

impl Account {
    /// The account of the core; none where both halves share a process.
    pub fn of_core(config: &Config) -> Result<Option<Self>, AccountError> {
        let Some(name) = config.core_user.clone() else { return Ok(None) };
        if !geteuid().is_root() {
            return Err(AccountError::NotRoot(name));
        }
        let user = nix::unistd::User::from_name(&name)
            .map_err(|errno| AccountError::LookUp { name: name.clone(), source: errno.into() })?
            .ok_or_else(|| AccountError::Unknown(name.clone()))?;
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        if uid == 0 || gid == 0 {
            return Err(AccountError::Root(name));
        }
        Ok(Some(Self { name, uid, gid }))
    }

    /// Makes a private folder of this account; one that is there must be its own.
    pub fn own_folder(&self, path: &Path) -> Result<(), AccountError> {
        let failed = |source| AccountError::Folder {
            path: path.display().to_string(),
            name: self.name.clone(),
            source,
        };
        match fs::symlink_metadata(path) {
            Ok(found) if found.uid() != self.uid => {
                return Err(AccountError::Foreign {
                    path: path.display().to_string(),
                    name: self.name.clone(),
                    found: found.uid(),
                });
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Err(_) => {}
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
        chown(path, Some(self.uid), Some(self.gid)).map_err(failed)
    }

    /// The way to a folder of this account that lies in the executor's state: others may walk through the
    /// state's own folder; what lies in it stays private.
    pub fn way_through(&self, state: &Path, folder: &Path) -> Result<(), AccountError> {
        if !folder.starts_with(state) {
            return Ok(());
        }
        fs::set_permissions(state, fs::Permissions::from_mode(WALK_THROUGH)).map_err(|source| {
            AccountError::Folder { path: state.display().to_string(), name: self.name.clone(), source }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::validated;

    fn named(user: &str) -> Config {
        validated::load(None, [], &[format!("runtime.core_user={user}")]).unwrap()
    }

    #[test]
    fn an_account_must_be_there_and_must_not_be_roots() {
        if !geteuid().is_root() {
            let error = Account::of_core(&named("nobody")).unwrap_err();
            assert!(matches!(error, AccountError::NotRoot(_)), "{error}");
            return;
        }
        let error = Account::of_core(&named("no-such-account")).unwrap_err();
        assert!(matches!(error, AccountError::Unknown(_)), "{error}");
        assert!(matches!(Account::of_core(&named("root")).unwrap_err(), AccountError::Root(_)));
        let nobody = Account::of_core(&named("nobody")).unwrap().unwrap();
        assert!(nobody.uid != 0 && nobody.gid != 0);
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("a/identity");
        nobody.own_folder(&own).unwrap();
        nobody.own_folder(&own).unwrap();
        let about = fs::metadata(&own).unwrap();
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o777), (nobody.uid, nobody.gid, 0o700));
        let error = nobody.own_folder(folder.path()).unwrap_err();
        assert!(matches!(error, AccountError::Foreign { found: 0, .. }), "{error}");
    }

    #[test]
    fn a_development_node_has_one_process() {
        let dev = validated::load(None, [], &["dev.root=/nowhere".to_owned()]).unwrap();
        assert_eq!(Account::of_core(&dev).unwrap(), None);
    }
}
