//! Makes the fleet's context known to this user while the fleet runs, so that `fleetctl --context dev status`
//! works in a second terminal.
//!
//! The entry goes into the user's `config.toml`; identity and keys stay in the fleet's folder, and a link
//! leads there, so that nothing of a development fleet is left in the user's folder when it is gone. A
//! context of the user's own is never replaced: the next free name is taken.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use fleet_types::id::Name;

use super::inner::CONTEXT;
use super::place;
use crate::context::{ContextEntry, ContextStore};
use crate::error::Failure;

/// More development fleets than this at once on one machine are not wanted by anybody.
const MAX_NAMES: u32 = 9;

/// A context that goes when this goes.
#[derive(Debug)]
pub struct ContextLink {
    store: ContextStore,
    name: Name,
    link: PathBuf,
    target: PathBuf,
}

impl ContextLink {
    /// Adds the context whose files lie in `target` under the first free name; none when all are taken.
    pub fn add(store: ContextStore, entry: &ContextEntry, target: &Path) -> Result<Option<Self>, Failure> {
        let known = store.load()?;
        for number in 1..=MAX_NAMES {
            let text = if number == 1 { CONTEXT.to_owned() } else { format!("{CONTEXT}-{number}") };
            let Ok(name) = text.parse::<Name>() else { continue };
            let link = store.folder_of(&name);
            let left = is_left(&link);
            let is_free = !known.contexts.contains_key(name.as_str()) && link.symlink_metadata().is_err();
            if !left && !is_free {
                continue;
            }
            if left {
                std::fs::remove_file(&link).map_err(|error| unusable(&link, &error))?;
            }
            let folder = link.parent().unwrap_or(Path::new("/"));
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.and_then(|()| std::os::unix::fs::symlink(target, &link))
                .map_err(|error| unusable(&link, &error))?;
            let added = Self { store, name, link, target: target.to_owned() };
            added.store.put(&added.name, entry, false)?;
            return Ok(Some(added));
        }
        Ok(None)
    }

    /// The name that was free.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    fn remove(&self) -> Result<(), Failure> {
        // Somebody may have made this name their own meanwhile.
        if std::fs::read_link(&self.link).ok().as_deref() != Some(&*self.target) {
            return Ok(());
        }
        self.store.remove(&self.name)?;
        std::fs::remove_file(&self.link).map_err(|error| unusable(&self.link, &error))
    }
}

impl Drop for ContextLink {
    fn drop(&mut self) {
        // What stays is a link to a fleet that is gone; the next development fleet takes its place.
        let _ = self.remove();
    }
}

/// Was it left by a development fleet that runs no more?
fn is_left(link: &Path) -> bool {
    let Ok(target) = std::fs::read_link(link) else { return false };
    // DIR/operator/contexts/dev
    let fleet = target.ancestors().nth(3);
    !target.exists() || fleet.is_some_and(|folder| place::is_fleet(folder) && !place::is_in_use(folder))
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::unexpected(format!("{} cannot be changed", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::super::place::Place;
    use super::*;
    use crate::environment::Environment;
    use fleet_types::id::{FleetId, OperatorId};
    use fleet_types::time::Timestamp;

    fn entry() -> ContextEntry {
        ContextEntry {
            endpoint: "127.0.0.1:1".to_owned(),
            enrol: "127.0.0.1:2".to_owned(),
            server_name: "localhost".to_owned(),
            fleet: FleetId::from_uuid(uuid::Uuid::from_u128(1)),
            operator: OperatorId::from_uuid(uuid::Uuid::from_u128(2)),
            operator_name: "ada".parse().unwrap(),
        }
    }

    fn store(folder: &Path) -> ContextStore {
        let text = folder.to_str().unwrap();
        ContextStore::open(&Environment::fixed(&[("FLEET_CONFIG_DIR", text)], || Timestamp::clamped(0)))
            .unwrap()
    }

    fn fleet(parent: &Path) -> (Place, PathBuf) {
        let place = Place::temporary(parent, 6, false).unwrap();
        let target = place.path("operator/contexts/dev");
        std::fs::create_dir_all(&target).unwrap();
        (place, target)
    }

    #[test]
    fn it_comes_and_goes_and_leaves_others_alone() {
        let user = tempfile::tempdir().unwrap();
        let fleets = tempfile::tempdir().unwrap();
        let (_one, first) = fleet(fleets.path());
        let (_two, second) = fleet(fleets.path());
        let prod: Name = "prod".parse().unwrap();
        store(user.path()).put(&prod, &entry(), true).unwrap();
        let before = store(user.path()).load().unwrap();
        let one = ContextLink::add(store(user.path()), &entry(), &first).unwrap().unwrap();
        let two = ContextLink::add(store(user.path()), &entry(), &second).unwrap().unwrap();
        assert_eq!((one.name().as_str(), two.name().as_str()), ("dev", "dev-2"));
        std::fs::write(first.join("content-key.pem"), "x").unwrap();
        let chosen = store(user.path()).choose(Some(one.name())).unwrap();
        assert!(chosen.content_key_file().exists(), "the files are reached through the link");
        drop(one);
        drop(two);
        assert_eq!(store(user.path()).load().unwrap(), before);
        assert!(first.join("content-key.pem").exists(), "only the link is removed");
    }

    #[test]
    fn the_only_context_is_current_while_it_lasts() {
        let user = tempfile::tempdir().unwrap();
        let fleets = tempfile::tempdir().unwrap();
        let (_place, target) = fleet(fleets.path());
        let link = ContextLink::add(store(user.path()), &entry(), &target).unwrap().unwrap();
        assert_eq!(store(user.path()).choose(None).unwrap().name, *link.name());
        drop(link);
        assert_eq!(store(user.path()).load().unwrap().current, None);
    }

    #[test]
    fn what_a_killed_one_left_is_taken_over_and_a_users_own_is_not() {
        let user = tempfile::tempdir().unwrap();
        let fleets = tempfile::tempdir().unwrap();
        let (gone, first) = fleet(fleets.path());
        std::mem::forget(ContextLink::add(store(user.path()), &entry(), &first).unwrap());
        drop(gone);
        let (_place, second) = fleet(fleets.path());
        let link = ContextLink::add(store(user.path()), &entry(), &second).unwrap().unwrap();
        assert_eq!(link.name().as_str(), "dev");
        drop(link);
        let own: Name = "dev".parse().unwrap();
        store(user.path()).put(&own, &entry(), true).unwrap();
        let link = ContextLink::add(store(user.path()), &entry(), &second).unwrap().unwrap();
        assert_eq!(link.name().as_str(), "dev-2");
    }
}
