//! Which certificates speak for an identity, as its record names them, and the answer to its newest renewal.
//!
//! Of a node or operator at most two are good: the one in use, and one that was issued and has not come yet. Every other
//! one is retired; none of them is kept, so that a record has one size however often it was renewed. Decides
//! nothing about who may ask; called by enrolment, renewal and connects.

use fleet_certs::issue::Issued;
use fleet_certs::{PeerIdentity, Role, Serial};
use fleet_store::Batch;
use fleet_types::digest::Digest;
use fleet_types::id::Name;
use fleet_types::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::codec::record;
use super::keys::{Made, make};
use super::reader::BatchExt as _;
use super::tokens::Bytes;
use crate::error::Result;

/// A certificate as the record of its holder names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its serial.
    pub serial: Serial,
    /// When it ends; not known of operators of earlier releases.
    pub not_after: Option<Timestamp>,
    /// Digest of its public key; not known of certificates of earlier releases.
    pub key: Option<Digest>,
}

/// The certificates of one identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// In use: the newest that was seen on a connection, or the one of the enrolment.
    pub current: Option<Certificate>,
    /// Issued by a renewal and not seen yet.
    pub next: Option<Certificate>,
    /// The latest beginning of any that this store has issued to it.
    pub newest_start: Option<Timestamp>,
    /// What the one in use has replaced.
    pub replaced: Option<Replaced>,
}

/// A certificate that was retired last, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Its serial.
    pub serial: Serial,
    /// When the one after it was seen.
    pub at: Timestamp,
}

/// What a certificate is to its holder's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In use.
    Current,
    /// Issued, and seen for the first time: it retires the one in use.
    Next,
    /// Issued after anything that this store knows of, by our authority: the store is older than the certificate, as
    /// after a restore.
    Newer,
    /// Replaced by a newer one that was seen, or never given by this store.
    Retired,
}

impl Certificates {
    /// After an enrolment.
    pub fn of_enrolment(issued: &Issued, key: Digest) -> Self {
        Self {
            current: Some(Certificate::of(issued, key)),
            next: None,
            newest_start: Some(issued.not_before),
            replaced: None,
        }
    }

    /// After a renewal: another one is awaited, and the one in use stays good until it comes. One that was awaited
    /// before and never came is not awaited any more.
    #[must_use]
    pub fn with_next(self, issued: &Issued, key: Digest) -> Self {
        let newest_start = self.newest_start.max(Some(issued.not_before));
        Self { next: Some(Certificate::of(issued, key)), newest_start, ..self }
    }

    /// What a certificate is to this record. A record that names none was made by hand.
    pub fn standing(&self, peer: &PeerIdentity) -> Standing {
        let is =
            |known: &Option<Certificate>| known.as_ref().is_some_and(|known| known.serial == peer.serial);
        if is(&self.current) || self.current.is_none() {
            Standing::Current
        } else if is(&self.next) {
            Standing::Next
        } else if self.newest_start.is_some_and(|newest| peer.not_before > newest) {
            Standing::Newer
        } else {
            Standing::Retired
        }
    }

    /// After a certificate was seen that is [`Standing::Next`] or [`Standing::Newer`]: it is the one in use, all others
    /// are retired.
    #[must_use]
    pub fn seen(self, peer: &PeerIdentity, now: Timestamp) -> Self {
        let awaited = self.next.filter(|next| next.serial == peer.serial);
        let of_peer =
            || Certificate { serial: peer.serial.clone(), not_after: Some(peer.not_after), key: None };
        Self {
            current: Some(awaited.unwrap_or_else(of_peer)),
            next: None,
            newest_start: self.newest_start.max(Some(peer.not_before)),
            replaced: self.current.map(|current| Replaced { serial: current.serial, at: now }),
        }
    }

    /// When the last of them ends; none where there is none.
    pub fn end(&self) -> Option<Timestamp> {
        [&self.current, &self.next].into_iter().flatten().filter_map(|known| known.not_after).max()
    }
}

impl Certificate {
    fn of(issued: &Issued, key: Digest) -> Self {
        Self { serial: issued.serial.clone(), not_after: Some(issued.not_after), key: Some(key) }
    }
}

/// The body of [`Certificates`] for the one certificate that a record of an earlier release names.
pub(super) fn of_one(serial: &Value, not_after: &Value) -> Value {
    let current =
        if serial.is_null() { Value::Null } else { json!({ "serial": serial, "not_after": not_after }) };
    json!({ "current": current })
}

/// The certificate that the newest renewal of an identity gave, for a reply that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalRecord {
    /// Its serial.
    pub serial: Serial,
    /// Leaf first, DER.
    pub chain: Vec<Bytes>,
}
record!(RenewalRecord, "renewal", 1);

/// A node or operator who is shut out for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedRecord {
    /// Who it is; its role is part of the key.
    pub id: uuid::Uuid,
    /// Their name.
    pub name: Name,
    /// Who shut them out.
    pub by: Name,
    /// When.
    pub at: Timestamp,
}
record!(RevokedRecord, "revocation", 1);

/// Prefix of what was revoked of a role.
pub fn all_revoked(role: Role) -> String {
    format!("revoked/{role}/")
}

/// The revocation of an identity.
pub fn revoked(role: Role, id: uuid::Uuid) -> Made {
    make(format!("{}{}", all_revoked(role), id.as_hyphenated()))
}

/// The newest renewal of an identity.
pub fn renewal(role: Role, id: uuid::Uuid) -> Made {
    make(format!("renewal/{role}/{}", id.as_hyphenated()))
}

/// Notes what a renewal gave; the holder's own record is written by the caller in the same batch.
pub fn put_renewal(batch: Batch, issued: &Issued) -> Result<Batch> {
    let chain = issued.chain.iter().map(|der| Bytes(der.to_vec())).collect();
    let key = renewal(issued.identity.role(), issued.identity.uuid())?;
    batch.put_record(key, &RenewalRecord { serial: issued.serial.clone(), chain })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_certs::ca::Authority;
    use fleet_certs::csr::{PrivateKey, RequestedKey};
    use fleet_certs::{issue, verify};
    use fleet_types::id::{FleetId, NodeId};

    use super::*;

    /// Certificates of one node, each issued an hour after the one before.
    fn issued(count: u64) -> Vec<(Issued, PeerIdentity, Digest)> {
        let begin: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let fleet: FleetId = "0192f0c1-0000-7000-8000-000000000001".parse().unwrap();
        let node: NodeId = "0192f0c1-0000-7000-8000-000000000002".parse().unwrap();
        let authority = Authority::create(Role::Agent, fleet, begin, Duration::from_hours(999)).unwrap();
        let one = |hour| {
            let requested = RequestedKey::of(&PrivateKey::generate().unwrap()).unwrap();
            let now = begin.plus(Duration::from_hours(hour));
            let issued =
                issue::agent(&authority, fleet, node, &requested, now, issue::AGENT_LIFETIME).unwrap();
            let peer = verify::describe(&issued.chain[0]).unwrap();
            (issued, peer, requested.digest())
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn the_one_before_is_good_until_the_new_one_was_seen() {
        use Standing::{Current, Newer, Next, Retired};
        let (certificates, now) = (issued(5), Timestamp::clamped(0));
        let of = |known: &Certificates| -> Vec<Standing> {
            certificates.iter().map(|(_, peer, _)| known.standing(peer)).collect()
        };
        let enrolled = Certificates::of_enrolment(&certificates[0].0, certificates[0].2);
        assert_eq!(of(&enrolled), [Current, Newer, Newer, Newer, Newer]);
        let renewed = enrolled.with_next(&certificates[1].0, certificates[1].2);
        assert_eq!(of(&renewed), [Current, Next, Newer, Newer, Newer]);
        // The reply was lost with the key; the third takes the place of the second, which never came.
        let again = renewed.with_next(&certificates[2].0, certificates[2].2);
        assert_eq!(of(&again), [Current, Retired, Next, Newer, Newer]);
        assert_eq!(again.end(), Some(certificates[2].0.not_after));
        let seen = again.seen(&certificates[2].1, now);
        assert_eq!(of(&seen), [Retired, Retired, Current, Newer, Newer]);
        assert_eq!(seen.current.as_ref().unwrap().key, Some(certificates[2].2));
        assert_eq!(seen.replaced.as_ref().unwrap().serial, certificates[0].0.serial);
        // A store that was restored from before the fifth was issued: it is taken, and what is older than it is not.
        let restored = seen.seen(&certificates[4].1, now);
        assert_eq!(of(&restored), [Retired, Retired, Retired, Retired, Current]);
    }

    /// A controller whose clock was ahead for an hour issued one that begins later than its successor.
    #[test]
    fn a_retired_one_that_begins_later_than_the_one_in_use_stays_retired() {
        let (certificates, now) = (issued(3), Timestamp::clamped(0));
        let known = Certificates::of_enrolment(&certificates[0].0, certificates[0].2)
            .with_next(&certificates[2].0, certificates[2].2)
            .seen(&certificates[2].1, now)
            .with_next(&certificates[1].0, certificates[1].2)
            .seen(&certificates[1].1, now);
        assert_eq!(known.standing(&certificates[2].1), Standing::Retired);
    }
}
