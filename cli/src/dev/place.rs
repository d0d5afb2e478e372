//! The folder of a development fleet: where everything lies, who uses it now, and whether it may go.
//!
//! ```text
//! DIR/                       0700
//!   fleet.json               what this is: nodes, and whether it is removed at the end
//!   lock                     held while a `fleetctl dev` uses the folder
//!   processes.json           every process that was started (see `ledger`)
//!   controller.toml          configuration of the controller
//!   controller/              its data; ready.json once it serves
//!   operator/                root key; config.toml and contexts/ as in ~/.config/fleet
//!   documents/               profile, procedure and schedule, to be changed and applied again
//!   packages/                the archive that nodes get packages from (see `packages::archive`)
//!   nodes/NAME/              agent.toml, identity/, state/, work/ and root/: the node's private root
//!   logs/                    what controller and agents wrote
//! ```
//!
//! Called by [`super::run()`] and [`super::leftover`]. It removes nothing but a folder that it made itself.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use fleet_certs::files;
use serde::{Deserialize, Serialize};

use crate::error::{ExitCode, Failure};

/// Beginning of the names of folders that are made anew.
pub const PREFIX: &str = "fleet-dev-";
/// What the marker file says it is.
const SCHEMA: &str = "fleet/v1/dev";
/// A few readable characters that two fleets of one user do not share.
const RANDOM_CHARACTERS: usize = 6;

/// The marker file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// `fleet/v1/dev`.
    pub schema: String,
    /// How many nodes.
    pub nodes: u32,
    /// It was made under the temporary folder and goes at the end.
    pub is_temporary: bool,
    /// Enrolment and all that was finished once, so that it can be started again.
    #[serde(default)]
    pub is_complete: bool,
}

/// A folder in use by this process.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    marker: Marker,
    _lock: File,
}

impl Place {
    /// A new folder below `parent`; removed at the end unless `keep`.
    pub fn temporary(parent: &Path, nodes: u32, keep: bool) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM_CHARACTERS).tempdir_in(parent);
        let folder = folder.map_err(|error| unusable(parent, &error))?.keep();
        Self::begin(&folder, nodes, !keep)
    }

    /// The folder that somebody named: begun where it is missing or empty, used again where it holds a
    /// development fleet, refused where it holds anything else.
    pub fn named(folder: &Path, nodes: u32) -> Result<Self, Failure> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| unusable(folder, &error))?;
        if let Some(marker) = read_marker(folder) {
            let folder = folder.canonicalize().map_err(|error| unusable(folder, &error))?;
            let lock = lock(&folder)?;
            return Ok(Self { folder, marker, _lock: lock });
        }
        let is_empty = std::fs::read_dir(folder).map_err(|error| unusable(folder, &error))?.next().is_none();
        if !is_empty {
            let what = format!("{} holds something else than a development fleet", folder.display());
            return Err(Failure::new(ExitCode::Usage, "dev-folder", what)
                .fix("name a new or empty folder with --dir, or leave --dir away"));
        }
        Self::begin(folder, nodes, false)
    }

    /// One that a killed `fleetctl dev` left behind: temporary, of this user, and used by nobody.
    pub fn abandoned(folder: &Path) -> Option<Self> {
        let owner = std::fs::symlink_metadata(folder).ok().filter(std::fs::Metadata::is_dir)?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return None;
        }
        let marker = read_marker(folder)?;
        let lock = try_lock(folder).ok().flatten()?;
        Some(Self { folder: folder.to_owned(), marker, _lock: lock })
    }

    fn begin(folder: &Path, nodes: u32, is_temporary: bool) -> Result<Self, Failure> {
        let folder = folder.canonicalize().map_err(|error| unusable(folder, &error))?;
        let folder = folder.as_path();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(folder, private).map_err(|error| unusable(folder, &error))?;
        let lock = lock(folder)?;
        let marker = Marker { schema: SCHEMA.to_owned(), nodes, is_temporary, is_complete: false };
        let place = Self { folder: folder.to_owned(), marker, _lock: lock };
        place.write_marker()?;
        for inner in ["operator", "documents", "nodes", "logs"] {
            place.make(inner)?;
        }
        Ok(place)
    }

    fn write_marker(&self) -> Result<(), Failure> {
        // Three plain fields cannot fail to be written.
        let json = serde_json::to_vec_pretty(&self.marker).unwrap_or_default();
        self.write("fleet.json", &json)
    }

    /// Notes that the fleet can be started again.
    pub fn mark_complete(&mut self) -> Result<(), Failure> {
        self.marker.is_complete = true;
        self.write_marker()
    }

    /// What it is.
    pub const fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path in it.
    pub fn path(&self, inner: &str) -> PathBuf {
        self.folder.join(inner)
    }

    /// The folder of a node.
    pub fn node(&self, name: &str) -> PathBuf {
        self.folder.join("nodes").join(name)
    }

    /// The configuration of a node's agent.
    pub fn agent_config(&self, name: &str) -> PathBuf {
        self.node(name).join("agent.toml")
    }

    /// The log of a program.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// Makes a folder in it for nobody but this user.
    pub fn make(&self, inner: &str) -> Result<(), Failure> {
        let path = self.path(inner);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| unusable(&path, &error))
    }

    /// Replaces a file in it, mode 0600.
    pub fn write(&self, inner: &str, bytes: &[u8]) -> Result<(), Failure> {
        files::write_atomic(&self.path(inner), bytes, files::KEY_MODE).map_err(|error| {
            Failure::new(ExitCode::Unexpected, "dev-folder", error.to_string()).because(&error)
        })
    }

    /// Removes it, if it is a temporary one. Says whether it is gone.
    pub fn remove_if_temporary(&self) -> io::Result<bool> {
        if !self.marker.is_temporary {
            return Ok(false);
        }
        std::fs::remove_dir_all(&self.folder)?;
        Ok(true)
    }
}

/// Does a folder hold a development fleet?
pub fn is_fleet(folder: &Path) -> bool {
    read_marker(folder).is_some()
}

/// Does a `fleetctl dev` use the folder now?
pub fn is_in_use(folder: &Path) -> bool {
    matches!(try_lock(folder), Ok(None))
}

fn read_marker(folder: &Path) -> Option<Marker> {
    let text = files::read_text(&folder.join("fleet.json")).ok()?;
    serde_json::from_str(&text).ok().filter(|marker: &Marker| marker.schema == SCHEMA)
}

fn try_lock(folder: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn lock(folder: &Path) -> Result<File, Failure> {
    try_lock(folder).map_err(|error| unusable(folder, &error))?.ok_or_else(|| {
        let what = format!("the development fleet in {} runs already", folder.display());
        Failure::new(ExitCode::Conflict, "dev-running", what)
            .fix("use it from a second terminal, or stop it there with Ctrl-C; --dir names another folder")
    })
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(ExitCode::Unexpected, "dev-folder", format!("{} cannot be used", path.display()))
        .because(error)
        .fix("name another folder: --dir FOLDER, or TMPDIR=FOLDER for a temporary one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_temporary_one_is_private_and_goes() {
        let parent = tempfile::tempdir().unwrap();
        let place = Place::temporary(parent.path(), 6, false).unwrap();
        assert_eq!(std::fs::metadata(place.folder()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(Place::abandoned(place.folder()).is_none(), "it is in use");
        assert!(place.remove_if_temporary().unwrap());
        assert!(!place.folder().exists());
        let kept = Place::temporary(parent.path(), 6, true).unwrap();
        assert!(!kept.remove_if_temporary().unwrap() && kept.folder().exists());
    }

    #[test]
    fn a_named_one_is_used_again_and_by_one_only() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("fleet");
        let mut place = Place::named(&folder, 4).unwrap();
        place.mark_complete().unwrap();
        assert_eq!(Place::named(&folder, 6).unwrap_err().code, "dev-running");
        drop(place);
        let again = Place::named(&folder, 6).unwrap();
        assert_eq!((again.marker().nodes, again.marker().is_complete), (4, true));
        assert!(!again.remove_if_temporary().unwrap());
    }

    #[test]
    fn what_is_something_else_is_not_touched() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("thesis.tex"), "x").unwrap();
        let failure = Place::named(parent.path(), 6).unwrap_err();
        assert_eq!((failure.exit, failure.code.as_str()), (ExitCode::Usage, "dev-folder"));
        std::fs::write(parent.path().join("fleet.json"), "{\"schema\":\"other\"}").unwrap();
        assert!(Place::named(parent.path(), 6).is_err());
        assert!(Place::abandoned(parent.path()).is_none());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 2);
    }
}
