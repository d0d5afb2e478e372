//! The folder of contexts: finding, choosing, adding.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use fleet_certs::files::{self, FileError, KEY_MODE};
use fleet_types::id::Name;

use super::edit::{with_context, without_context};
use super::file::{ConfigFile, ContextEntry};
use super::keys::CONTENT_KEY;
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};

/// Name of the file of the root keys in the folder of a context.
pub const ROOT_KEYS: &str = "root-keys.json";

/// The folder of contexts.
#[derive(Debug, Clone)]
pub struct ContextStore {
    folder: PathBuf,
}

/// A chosen context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its name.
    pub name: Name,
    /// As in the file.
    pub entry: ContextEntry,
    /// Its folder, with identity and keys.
    pub folder: PathBuf,
}

impl std::ops::Deref for Context {
    type Target = ContextEntry;

    fn deref(&self) -> &ContextEntry {
        &self.entry
    }
}

impl Context {
    /// Folder of certificate and key.
    pub fn identity_folder(&self) -> PathBuf {
        self.folder.join("identity")
    }

    /// The content key.
    pub fn content_key_file(&self) -> PathBuf {
        self.folder.join(CONTENT_KEY)
    }

    /// The fleet's root keys, as the invite vouched for them.
    pub fn root_keys_file(&self) -> PathBuf {
        self.folder.join(ROOT_KEYS)
    }

    /// Newest documents and ids of nodes that were seen.
    pub fn seen_file(&self) -> PathBuf {
        self.folder.join("seen.json")
    }

    /// What was last seen of the audit log.
    pub fn audit_mark_file(&self) -> PathBuf {
        self.folder.join("audit-mark.json")
    }
}

impl ContextStore {
    /// The store of this user. Makes nothing yet.
    pub fn open(environment: &Environment) -> Result<Self, Failure> {
        let folder = environment.config_dir().ok_or_else(|| {
            Failure::usage("there is no place for contexts: neither FLEET_CONFIG_DIR nor HOME is set")
                .fix("set FLEET_CONFIG_DIR to a folder of yours")
        })?;
        Ok(Self { folder })
    }

    /// The file of contexts.
    pub fn file_path(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Where a context keeps its files, whether it exists or not.
    pub fn folder_of(&self, name: &Name) -> PathBuf {
        self.folder.join("contexts").join(name.as_str())
    }

    /// The file's content; empty where there is no file.
    pub fn load(&self) -> Result<ConfigFile, Failure> {
        self.read().map(|(_, file)| file)
    }

    /// Its text, and what it says.
    fn read(&self) -> Result<(String, ConfigFile), Failure> {
        let path = self.file_path();
        let text = match files::read_text(&path) {
            Ok(text) => text,
            Err(FileError::Missing { .. }) => String::new(),
            Err(error) => {
                return Err(Failure::new(ExitCode::Usage, "config-file", error.to_string()).because(&error));
            }
        };
        let file = toml::from_str(&text).map_err(|error| {
            let what = format!("{} cannot be read", path.display());
            Failure::new(ExitCode::Usage, "config-file", what).cause(error.to_string())
        })?;
        Ok((text, file))
    }

    /// The context of that name, else the current one, else the only one.
    pub fn choose(&self, wanted: Option<&Name>) -> Result<Context, Failure> {
        let file = self.load()?;
        let login = "sign in first: fleetctl login INVITE --context NAME";
        let only = || file.contexts.keys().next().filter(|_| file.contexts.len() == 1)?.parse().ok();
        let Some(name) = wanted.cloned().or_else(|| file.current.clone()).or_else(only) else {
            let path = self.file_path();
            let failure = |what| Failure::new(ExitCode::NotAllowed, "not-signed-in", what);
            if file.contexts.is_empty() {
                return Err(
                    failure(format!("no context is chosen, and {} has none", path.display())).fix(login)
                );
            }
            let names: Vec<_> = file.contexts.keys().map(String::as_str).collect();
            return Err(failure(format!("no context is chosen, and none is current in {}", path.display()))
                .fix(format!("add --context NAME, one of {}; or set current there", names.join(", "))));
        };
        let Some(entry) = file.contexts.get(name.as_str()) else {
            let known: Vec<_> = file.contexts.keys().map(|known| format!("\"{known}\"")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Failure::new(
                ExitCode::NotAllowed,
                "not-signed-in",
                format!("there is no context \"{name}\""),
            )
            .cause(format!("contexts in {}: {known}", self.file_path().display()))
            .fix(login));
        };
        Ok(Context { folder: self.folder_of(&name), entry: entry.clone(), name })
    }

    /// Makes the folders of a context, for nobody but this user.
    pub fn make_folder(&self, name: &Name) -> Result<PathBuf, Failure> {
        let folder = self.folder_of(name);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| {
            Failure::new(ExitCode::Unexpected, "config-file", format!("cannot make {}", folder.display()))
                .because(&error)
        })?;
        Ok(folder)
    }

    /// Adds or replaces a context; the first one becomes the current one, and any if `make_current`. One that is
    /// alone without being called current is meant by all commands that name none, which another does not take over.
    pub fn put(&self, name: &Name, entry: &ContextEntry, make_current: bool) -> Result<(), Failure> {
        self.make_folder(name)?;
        self.change(|text, file| {
            let is_current = make_current || file.contexts.is_empty();
            with_context(text, name, entry, is_current.then_some(name))
        })
    }

    /// Takes a context out of the file; its folder stays.
    pub fn remove(&self, name: &Name) -> Result<(), Failure> {
        self.change(|text, _| without_context(text, name))
    }

    fn change(
        &self,
        changed: impl FnOnce(&str, &ConfigFile) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        let path = self.file_path();
        locked(&path, || {
            let (text, file) = self.read()?;
            write(&path, changed(&text, &file)?.as_bytes())
        })
    }
}

/// Longest wait for another fleetctl: it holds the lock no longer than one small file is written and flushed.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// Reads, changes and replaces a file of this user while no other fleetctl does. The lock is a file of its own,
/// because the file itself is replaced.
pub(super) fn locked<T>(path: &Path, change: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let lock = path.with_file_name("lock");
    let failed = || {
        let what = format!("{} cannot be locked", lock.display());
        Failure::new(ExitCode::Unexpected, "config-file", what)
    };
    let file = File::options().create(true).truncate(false).write(true).mode(KEY_MODE).open(&lock);
    let file = file.map_err(|error| failed().because(&error))?;
    let (sender, locked) = mpsc::sync_channel(1);
    // A thread of its own, because the system's wait for a lock has no limit.
    std::thread::spawn(move || sender.send(file.lock().map(|()| file)));
    match locked.recv_timeout(LOCK_LIMIT) {
        Ok(Ok(_held)) => change(),
        Ok(Err(error)) => Err(failed().because(&error)),
        Err(_) => Err(failed().cause("another fleetctl holds it")),
    }
}

/// Replaces a file of this user, mode 0600.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    files::write_atomic(path, bytes, KEY_MODE)
        .map_err(|error| Failure::new(ExitCode::Unexpected, "config-file", error.to_string()).because(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::file::entry;
    use fleet_types::time::Timestamp;
    use std::os::unix::fs::PermissionsExt as _;

    fn store(folder: &Path) -> ContextStore {
        let folder = folder.join("fleet");
        let text = folder.to_str().unwrap();
        ContextStore::open(&Environment::fixed(&[("FLEET_CONFIG_DIR", text)], || Timestamp::clamped(0)))
            .unwrap()
    }

    #[test]
    fn the_named_context_wins_over_the_current_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let names: [Name; 2] = ["prod".parse().unwrap(), "dev".parse().unwrap()];
        assert_eq!(store.choose(None).unwrap_err().exit.number(), 10);
        store.put(&names[0], &entry("a:1"), false).unwrap();
        store.put(&names[1], &entry("b:1"), false).unwrap();
        assert_eq!(store.choose(None).unwrap().endpoint, "a:1");
        assert_eq!(store.choose(Some(&names[1])).unwrap().endpoint, "b:1");
        store.put(&names[1], &entry("c:1"), true).unwrap();
        assert_eq!(store.choose(None).unwrap().endpoint, "c:1");
        let failure = store.choose(Some(&"none".parse().unwrap())).unwrap_err();
        assert!(failure.causes[0].contains("\"dev\", \"prod\""), "{failure:?}");
    }

    #[test]
    fn the_only_context_needs_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let names: [Name; 2] = ["prod".parse().unwrap(), "test".parse().unwrap()];
        let uncurrent = |count: usize| {
            for name in &names[..count] {
                store.put(name, &entry("a:1"), false).unwrap();
            }
            let text = std::fs::read_to_string(store.file_path()).unwrap();
            let text: Vec<_> = text.lines().filter(|line| !line.starts_with("current")).collect();
            std::fs::write(store.file_path(), text.join("\n")).unwrap();
            store.choose(None)
        };
        assert_eq!(uncurrent(1).unwrap().name, names[0]);
        store.put(&names[1], &entry("b:1"), false).unwrap();
        assert!(store.choose(None).is_err(), "another one is not chosen in its place");
        let failure = uncurrent(2).unwrap_err();
        assert!(failure.fixes[0].contains("--context NAME, one of prod, test"), "{failure:?}");
    }

    #[test]
    fn files_are_for_their_owner_only_and_a_bad_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let name: Name = "prod".parse().unwrap();
        store.put(&name, &entry("a:1"), false).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store.file_path()), mode(&store.folder_of(&name))), (0o600, 0o700));
        std::fs::write(store.file_path(), "current = 5\nx = 1").unwrap();
        let failure = store.choose(None).unwrap_err();
        assert_eq!(failure.exit.number(), 2);
        assert!(failure.what.contains("config.toml"), "{failure:?}");
    }
}
