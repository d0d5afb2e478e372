//! What this machine last saw of a fleet's documents and nodes, so that a controller cannot quietly show an older
//! revision as the newest, or another node under a name, and have that signed (docs/adr/0017).

use std::collections::BTreeMap;
use std::path::Path;

use fleet_types::digest::Digest;
use fleet_types::document::DocumentKind;
use fleet_types::id::{Name, NodeId};
use fleet_types::view::Target;
use serde::{Deserialize, Serialize};

use super::store::{locked, write};
use crate::error::{ExitCode, Failure};

/// Most nodes that are remembered: a file of about a megabyte, read in a few milliseconds before a signature. Of a
/// larger fleet the first ones seen are.
const MAX_NODES: usize = 20_000;
/// Nodes that are named in one message.
const NAMED: usize = 5;

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Newest revision of each `kind/name`.
    documents: BTreeMap<String, Revision>,
    /// Ids of nodes by name.
    nodes: BTreeMap<Name, NodeId>,
}

/// A revision of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Its number under its name.
    pub revision: u32,
    /// Its digest.
    pub digest: Digest,
}

/// What the controller shows now.
#[derive(Debug, Clone, Default)]
pub struct Sighting {
    /// Documents by kind and name.
    pub documents: Vec<(DocumentKind, String, Revision)>,
    /// Nodes.
    pub nodes: Vec<Target>,
    /// It counts also where it went back: `--accept-changed`.
    pub is_accepted: bool,
}

impl Seen {
    /// What was seen in a context; nothing before the first time.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let unreadable = |error: &dyn std::error::Error| {
            let what = format!("{} cannot be read", path.display());
            Failure::new(ExitCode::Verification, "seen-file", what).because(error).fix(
                "restore it from a backup; without it, an older document shown as the newest is not noticed",
            )
        };
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| unreadable(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// Refuses a document that is older than what was seen, or another of the same revision, and a node whose name
    /// was another node's.
    pub fn check(&self, shown: &Sighting) -> Result<(), Failure> {
        if shown.is_accepted {
            return Ok(());
        }
        self.check_nodes(&shown.nodes)?;
        shown
            .documents
            .iter()
            .try_for_each(|(kind, name, revision)| self.check_document(*kind, name, *revision))
    }

    /// Checks what is to be signed once more and keeps it. Another fleetctl may have seen something newer while this
    /// one asked its operator.
    pub fn check_and_keep(path: &Path, shown: &Sighting) -> Result<(), Failure> {
        locked(path, || {
            let mut seen = Self::load(path)?;
            seen.check(shown)?;
            seen.note(shown);
            seen.save(path)
        })
    }

    /// Keeps what was stored, unless a newer one was seen.
    pub fn keep(path: &Path, shown: &Sighting) -> Result<(), Failure> {
        locked(path, || {
            let mut seen = Self::load(path)?;
            seen.note(shown);
            seen.save(path)
        })
    }

    fn check_document(&self, kind: DocumentKind, name: &str, shown: Revision) -> Result<(), Failure> {
        let Some(seen) = self.documents.get(&key(kind, name)) else { return Ok(()) };
        let what = if shown.revision < seen.revision {
            format!(
                "{kind} \"{name}\" is shown as revision {}, and this machine has seen revision {}",
                shown.revision, seen.revision
            )
        } else if shown.revision == seen.revision && shown.digest != seen.digest {
            format!(
                "revision {} of {kind} \"{name}\" is not the one that this machine has seen",
                seen.revision
            )
        } else {
            return Ok(());
        };
        let show = format!("fleetctl {kind} show {name}");
        Err(went_back("document-went-back", &what, &show))
    }

    fn check_nodes(&self, nodes: &[Target]) -> Result<(), Failure> {
        let changed = |node: &&Target| self.nodes.get(&node.name).is_some_and(|id| *id != node.id);
        let changed: Vec<_> = nodes.iter().filter(changed).map(|node| format!("\"{}\"", node.name)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let more = changed.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let names = changed[..changed.len().min(NAMED)].join(", ");
        let what = format!("{names}{more}: not the node that this machine has seen under this name");
        Err(went_back("node-changed", &what, "fleetctl node show NAME"))
    }

    fn note(&mut self, shown: &Sighting) {
        for (kind, name, revision) in &shown.documents {
            let seen = self.documents.entry(key(*kind, name)).or_insert(*revision);
            if shown.is_accepted || revision.revision > seen.revision {
                *seen = *revision;
            }
        }
        for node in &shown.nodes {
            if self.nodes.len() < MAX_NODES || self.nodes.contains_key(&node.name) {
                self.nodes.insert(node.name.clone(), node.id);
            }
        }
    }

    fn save(&self, path: &Path) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Failure::unexpected("what was seen cannot be written", &error))?;
        write(path, &bytes)
    }
}

fn key(kind: DocumentKind, name: &str) -> String {
    format!("{kind}/{name}")
}

fn went_back(code: &str, what: &str, show: &str) -> Failure {
    Failure::new(ExitCode::Verification, code, format!("{what}; nothing was signed"))
        .cause("the store was restored or the node replaced, or the controller does not tell the truth")
        .fix(format!("look at it first: {show}"))
        .fix("if it is right, add --accept-changed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::view::Presence;

    fn target(name: &str, id: u128) -> Target {
        Target {
            id: NodeId::from_uuid(uuid::Uuid::from_u128(id)),
            name: name.parse().unwrap(),
            site: "fra1".to_owned(),
            pair: None,
            presence: Presence::Online,
        }
    }

    const KIND: DocumentKind = DocumentKind::Procedure;

    fn of(revision: u32, text: &[u8]) -> Sighting {
        let shown = Revision { revision, digest: Digest::of(text) };
        Sighting { documents: vec![(KIND, "look".to_owned(), shown)], ..Sighting::default() }
    }

    fn on(nodes: Vec<Target>) -> Sighting {
        Sighting { nodes, ..Sighting::default() }
    }

    #[test]
    fn what_goes_back_is_refused_and_what_is_newer_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.json");
        Seen::load(&path).unwrap().check(&of(1, b"a")).unwrap();
        Seen::keep(&path, &of(2, b"b")).unwrap();
        Seen::keep(&path, &on(vec![target("fw-1", 1), target("fw-2", 2)])).unwrap();
        let seen = Seen::load(&path).unwrap();
        for (shown, is_good) in
            [(of(1, b"a"), false), (of(2, b"b"), true), (of(2, b"x"), false), (of(3, b"c"), true)]
        {
            assert_eq!(seen.check(&shown).is_ok(), is_good, "{shown:?}");
            seen.check(&Sighting { is_accepted: true, ..shown }).unwrap();
        }
        let mut profile = of(1, b"a");
        profile.documents[0].0 = DocumentKind::Profile;
        seen.check(&profile).unwrap();
        seen.check(&on(vec![target("fw-1", 1), target("fw-3", 3)])).unwrap();
        let failure = seen.check(&on(vec![target("fw-1", 2), target("fw-2", 1)])).unwrap_err();
        assert_eq!(failure.exit.number(), 12);
        assert!(failure.what.starts_with("\"fw-1\", \"fw-2\": not the node"), "{failure:?}");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Seen::load(&path).unwrap_err().exit.number(), 12);
    }

    #[test]
    fn a_call_that_waited_neither_signs_nor_keeps_what_is_older_by_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.json");
        let waiting = of(2, b"b");
        Seen::load(&path).unwrap().check(&waiting).unwrap();
        // Meanwhile another terminal has seen a newer one, and a node.
        Seen::check_and_keep(&path, &of(3, b"c")).unwrap();
        Seen::check_and_keep(&path, &on(vec![target("fw-1", 1)])).unwrap();
        let failure = Seen::check_and_keep(&path, &waiting).unwrap_err();
        assert!(failure.what.contains("revision 2, and this machine has seen revision 3"), "{failure:?}");
        // What was stored before is stored, and not the newest.
        Seen::keep(&path, &waiting).unwrap();
        let seen = Seen::load(&path).unwrap();
        assert!(seen.check(&of(2, b"b")).is_err() && seen.nodes.len() == 1, "{seen:?}");
        Seen::check_and_keep(&path, &Sighting { is_accepted: true, ..waiting }).unwrap();
        let seen = Seen::load(&path).unwrap();
        assert!(seen.check(&of(2, b"b")).is_ok() && seen.nodes.len() == 1, "{seen:?}");
    }
}
