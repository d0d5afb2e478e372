//! What this machine last saw of a fleet's documents and nodes, so that a controller cannot quietly show an older
//! revision as the newest, or another node under a name, and have that signed (docs/adr/0017).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fleet_types::digest::Digest;
use fleet_types::document::DocumentKind;
use fleet_types::id::{Name, NodeId};
use fleet_types::view::Target;
use serde::{Deserialize, Serialize};

use super::store::write;
use crate::error::{ExitCode, Failure};
use crate::session::Session;

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
    #[serde(skip)]
    path: PathBuf,
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

impl Seen {
    /// What was seen in a context; nothing before the first time.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let unreadable = |error: &dyn std::error::Error| {
            let what = format!("{} cannot be read", path.display());
            Failure::new(ExitCode::Verification, "seen-file", what).because(error).fix(
                "restore it from a backup; without it, an older document shown as the newest is not noticed",
            )
        };
        let mut seen: Self = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(unreadable(&error)),
        };
        path.clone_into(&mut seen.path);
        Ok(seen)
    }

    /// Refuses a document that is older than what was seen, or another of the same revision.
    pub fn check_document(&self, kind: DocumentKind, name: &str, shown: Revision) -> Result<(), Failure> {
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

    /// Refuses nodes whose name was another node's.
    pub fn check_nodes(&self, nodes: &[Target]) -> Result<(), Failure> {
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

    /// Notes a document, unless a newer one was seen.
    pub fn note_document(&mut self, kind: DocumentKind, name: &str, shown: Revision) {
        self.documents.insert(key(kind, name), shown);
    }

    /// Notes nodes.
    pub fn note_nodes(&mut self, nodes: &[Target]) {
        for node in nodes {
            if self.nodes.len() < MAX_NODES || self.nodes.contains_key(&node.name) {
                self.nodes.insert(node.name.clone(), node.id);
            }
        }
    }

    /// Keeps what was noted. What it was noted for is done, so that a full disk is told and is no failure of it.
    pub fn save_or_say(&self, session: &mut Session<'_>) {
        if let Err(failure) = self.save() {
            session.say(format!("warning: what was seen is not remembered: {}", failure.what));
        }
    }

    fn save(&self) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Failure::unexpected("what was seen cannot be written", &error))?;
        write(&self.path, &bytes)
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

    #[test]
    fn what_goes_back_is_refused_and_what_is_newer_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.json");
        let of = |revision, text: &[u8]| Revision { revision, digest: Digest::of(text) };
        let mut seen = Seen::load(&path).unwrap();
        let kind = DocumentKind::Procedure;
        seen.check_document(kind, "look", of(1, b"a")).unwrap();
        seen.note_document(kind, "look", of(2, b"b"));
        seen.note_nodes(&[target("fw-1", 1), target("fw-2", 2)]);
        seen.save().unwrap();
        let seen = Seen::load(&path).unwrap();
        for (shown, is_good) in
            [(of(1, b"a"), false), (of(2, b"b"), true), (of(2, b"x"), false), (of(3, b"c"), true)]
        {
            let checked = seen.check_document(kind, "look", shown);
            assert_eq!(checked.is_ok(), is_good, "{shown:?}");
        }
        seen.check_document(DocumentKind::Profile, "look", of(1, b"a")).unwrap();
        seen.check_nodes(&[target("fw-1", 1), target("fw-3", 3)]).unwrap();
        let failure = seen.check_nodes(&[target("fw-1", 2), target("fw-2", 1)]).unwrap_err();
        assert_eq!(failure.exit.number(), 12);
        assert!(failure.what.starts_with("\"fw-1\", \"fw-2\": not the node"), "{failure:?}");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Seen::load(&path).unwrap_err().exit.number(), 12);
    }
}
