//! Whether a trust bundle counts: enough root keys signed it, or it changes nothing but the list of operators' keys and those
//! signed it to whom the root keys have left that list.

use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError};
use crate::digest::Digest;
use crate::id::FleetId;
use crate::seal::{KeyId, Kind, PublicKey, base64_bytes};

use super::bundle::{
    BUNDLE_SCHEMA, ContentKey, MAX_DELEGATION, OperatorKeyAuthority, OperatorRole, TrustBundle,
};

/// A change may stand on a change: a list that two people signed, and on it what one of them has taken away.
const MAX_CHANGES: u32 = 2;

/// A bundle with its signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedBundle {
    /// Canonical JSON of a [`TrustBundle`].
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// One entry a key that signed: root keys, and where it stands on another bundle, security-admins'.
    pub signatures: Vec<RootSignature>,
    /// The bundle that it changes in its operators' keys alone; none where the root keys signed this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Box<SignedBundle>>,
}

/// A bundle that would count with enough signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What it would be.
    pub bundle: TrustBundle,
    /// Who has signed it so far, each once.
    pub signers: Vec<KeyId>,
    /// How many must.
    pub needed: usize,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootSignature {
    /// Which key.
    pub key: KeyId,
    /// Ed25519 signature over kind `trust_bundle`, fleet and the payload's digest.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

/// The root keys of a fleet and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootKeys {
    /// Distinct keys.
    pub keys: Vec<PublicKey>,
    /// How many of them must sign.
    pub threshold: usize,
}

/// Why a bundle or a statement is refused.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Malformed.
    #[error("the trust bundle cannot be read")]
    Malformed(#[source] CanonicalError),
    /// Another schema.
    #[error("trust bundle schema {0:?} is not known here")]
    Schema(String),
    /// Another fleet.
    #[error("the trust bundle is of fleet {0}")]
    OtherFleet(FleetId),
    /// Not enough distinct keys signed it.
    #[error("the trust bundle bears {found} valid signatures of {needed}")]
    Threshold {
        /// Valid signatures of distinct keys.
        found: usize,
        /// Needed.
        needed: usize,
    },
    /// Older than one seen before.
    #[error("the trust bundle has version {found}, version {seen} was seen before")]
    Older {
        /// Version of the bundle.
        found: u64,
        /// Highest version seen.
        seen: u64,
    },
    /// It changes another one in a way that is for the root keys alone, or after their word has ended.
    #[error("the trust bundle is no change that its signers may make: {0}")]
    Change(&'static str),
    /// The dispatch statement is not signed by a listed controller authority, or for another fleet or time.
    #[error("the dispatch key's statement is refused: {0}")]
    Dispatch(&'static str),
}

impl RootKeys {
    /// The pin of a join token: SHA-256 over threshold and the sorted keys.
    pub fn pin(&self) -> Digest {
        let mut keys: Vec<_> = self.keys.iter().map(PublicKey::as_bytes).collect();
        keys.sort_unstable();
        let threshold = (self.threshold as u64).to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![b"fleet/v1/root-keys\n", &threshold];
        parts.extend(keys.into_iter().map(<[u8; 32]>::as_slice));
        Digest::of_parts(&parts)
    }
}

impl SignedBundle {
    /// Reads the bundle if enough distinct keys signed it and it is not older than `seen_version`.
    pub fn open(
        &self,
        roots: &RootKeys,
        fleet: FleetId,
        seen_version: u64,
    ) -> Result<TrustBundle, TrustError> {
        let proposal = self.judge(roots, fleet, None, MAX_CHANGES)?;
        not_older(proposal.complete()?, seen_version)
    }

    /// The same for whoever knows a bundle already: a security-admin whose key that one does not list any more adds nobody.
    pub fn open_after(
        &self,
        roots: &RootKeys,
        fleet: FleetId,
        known: &TrustBundle,
    ) -> Result<TrustBundle, TrustError> {
        let proposal = self.judge(roots, fleet, Some(known), MAX_CHANGES)?;
        not_older(proposal.complete()?, known.version)
    }

    /// What it would be with enough signatures; one good one it must bear.
    pub fn propose(
        &self,
        roots: &RootKeys,
        fleet: FleetId,
        known: &TrustBundle,
    ) -> Result<Proposal, TrustError> {
        self.judge(roots, fleet, Some(known), MAX_CHANGES)
    }

    /// What a change of this bundle, the newest one, stands on: keys are added to the bundle that the root keys signed, and
    /// taken away from the newest that has still room for a change on it.
    #[must_use]
    pub fn base_of_change(self, adds: bool) -> Self {
        let depth = self.depth();
        match self.base {
            Some(base) if adds || depth >= MAX_CHANGES => base.base_of_change(adds),
            _ => self,
        }
    }

    fn depth(&self) -> u32 {
        self.base.as_ref().map_or(0, |base| base.depth().saturating_add(1))
    }

    /// Which of these keys signed it, each once, however often it is listed or has signed.
    fn signers<'k>(&self, keys: impl Iterator<Item = &'k PublicKey>, fleet: FleetId) -> Vec<KeyId> {
        let digest = Digest::of(&self.payload);
        let mut signers = Vec::new();
        for key in keys {
            let id = key.id();
            let good = self
                .signatures
                .iter()
                .filter(|s| s.key == id)
                .any(|s| key.verify(Kind::TrustBundle, fleet, digest, &s.signature).is_ok());
            if good && !signers.contains(&id) {
                signers.push(id);
            }
        }
        signers
    }

    fn read(&self, fleet: FleetId) -> Result<TrustBundle, TrustError> {
        let bundle: TrustBundle = canonical::from_signed(&self.payload).map_err(TrustError::Malformed)?;
        if bundle.schema != BUNDLE_SCHEMA {
            return Err(TrustError::Schema(bundle.schema.chars().take(64).collect()));
        }
        if bundle.fleet != fleet {
            return Err(TrustError::OtherFleet(bundle.fleet));
        }
        Ok(bundle)
    }

    fn judge(
        &self,
        roots: &RootKeys,
        fleet: FleetId,
        known: Option<&TrustBundle>,
        changes: u32,
    ) -> Result<Proposal, TrustError> {
        let nobody = |needed| TrustError::Threshold { found: 0, needed };
        let Some(base) = &self.base else {
            let (signers, needed) = (self.signers(roots.keys.iter(), fleet), roots.threshold.max(1));
            // Nothing is read that nobody known has signed.
            if signers.is_empty() {
                return Err(nobody(needed));
            }
            let bundle = self.read(fleet)?;
            check_delegation(&bundle)?;
            return Ok(Proposal { bundle, signers, needed });
        };
        let changes = changes.checked_sub(1).ok_or(TrustError::Change("it stands on too many others"))?;
        let before = base.judge(roots, fleet, known, changes)?.complete()?;
        let authority = before.operator_key_authority.as_ref();
        let authority = authority.ok_or(TrustError::Change("the root keys have left the list to nobody"))?;
        // What the root keys have signed since is newer than what is known here.
        let known = known.filter(|known| known.version >= before.version);
        let may_sign = |entry: &&ContentKey| {
            let id = entry.key.id();
            entry.role == OperatorRole::SecurityAdmin
                && authority.keys.contains(&id)
                && known.is_none_or(|known| known.content_key(&id).is_some())
        };
        let keys = before.content_keys.iter().filter(may_sign).map(|entry| &entry.key);
        let signers = self.signers(keys, fleet);
        if signers.is_empty() {
            return Err(nobody(authority.threshold));
        }
        let bundle = self.read(fleet)?;
        check_change(&before, &bundle, authority)?;
        let takes_away = bundle.content_keys.iter().all(|key| before.content_keys.contains(key));
        let needed = if takes_away { 1 } else { authority.threshold };
        Ok(Proposal { bundle, signers, needed })
    }
}

impl Proposal {
    /// The bundle, when it bears enough signatures.
    fn complete(self) -> Result<TrustBundle, TrustError> {
        let (found, needed) = (self.signers.len(), self.needed);
        if found < needed { Err(TrustError::Threshold { found, needed }) } else { Ok(self.bundle) }
    }
}

fn not_older(bundle: TrustBundle, seen: u64) -> Result<TrustBundle, TrustError> {
    let found = bundle.version;
    if found < seen { Err(TrustError::Older { found, seen }) } else { Ok(bundle) }
}

/// What the root keys leave to others is bounded, whoever made the bundle for them.
fn check_delegation(bundle: &TrustBundle) -> Result<(), TrustError> {
    let Some(authority) = &bundle.operator_key_authority else { return Ok(()) };
    if authority.not_after.since(bundle.issued) > MAX_DELEGATION {
        return Err(TrustError::Change("the root keys leave the list to others for 90 days at most"));
    }
    if authority.threshold == 0 || authority.threshold > authority.keys.len() {
        return Err(TrustError::Change("as many signatures as it asks for can never come together"));
    }
    Ok(())
}

/// Nothing but the list of operators' keys is another one, and it has no security-admin more.
fn check_change(
    before: &TrustBundle,
    after: &TrustBundle,
    authority: &OperatorKeyAuthority,
) -> Result<(), TrustError> {
    if after.version <= before.version || after.issued < before.issued {
        return Err(TrustError::Change("it is not newer than what it changes"));
    }
    if after.issued > authority.not_after {
        return Err(TrustError::Change("the list is not left to them any more"));
    }
    let (version, issued) = (before.version, before.issued);
    let back = TrustBundle { version, issued, content_keys: before.content_keys.clone(), ..after.clone() };
    if back != *before {
        return Err(TrustError::Change("it changes more than the list of operators' keys"));
    }
    let is_new = |entry: &&ContentKey| !before.content_keys.contains(entry);
    if after.content_keys.iter().filter(is_new).any(|entry| entry.role == OperatorRole::SecurityAdmin) {
        return Err(TrustError::Change("only root keys make a security-admin"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::id::OperatorId;
    use crate::seal::SigningKey;
    use crate::time::Timestamp;

    fn fleet() -> FleetId {
        FleetId::from_uuid(Uuid::from_u128(1))
    }

    fn bundle(version: u64, content: &[(&SigningKey, OperatorRole)]) -> TrustBundle {
        TrustBundle {
            schema: BUNDLE_SCHEMA.to_owned(),
            fleet: fleet(),
            version,
            issued: Timestamp::clamped(1_790_000_000_000),
            controller_authorities: vec![],
            agent_authorities: vec![],
            operator_authorities: vec![],
            content_keys: content
                .iter()
                .map(|(key, role)| ContentKey {
                    key: key.public(),
                    operator: OperatorId::from_uuid(Uuid::from_u128(2)),
                    person: "ada".parse().unwrap(),
                    role: *role,
                })
                .collect(),
            audit_key: SigningKey::generate().unwrap().0.public(),
            fence_resets: vec![],
            operator_key_authority: None,
        }
    }

    #[test]
    fn a_threshold_counts_distinct_keys_each_once() {
        let (a, b) = (SigningKey::generate().unwrap().0, SigningKey::generate().unwrap().0);
        let roots = RootKeys { keys: vec![a.public(), b.public(), a.public()], threshold: 2 };
        let mut signed = bundle(3, &[]).sign(&a).unwrap();
        signed.signatures.push(signed.signatures[0].clone());
        assert!(matches!(
            signed.open(&roots, fleet(), 0),
            Err(TrustError::Threshold { found: 1, needed: 2 })
        ));
        signed.signatures.extend(bundle(3, &[]).sign(&b).unwrap().signatures);
        // The second signature is over another payload (another audit key), so it does not count.
        assert!(signed.open(&roots, fleet(), 0).is_err());
        let signature = b.sign(Kind::TrustBundle, fleet(), Digest::of(&signed.payload));
        signed.signatures.push(RootSignature { key: b.public().id(), signature });
        assert_eq!(signed.open(&roots, fleet(), 3).unwrap().version, 3);
        assert!(matches!(signed.open(&roots, fleet(), 4), Err(TrustError::Older { found: 3, seen: 4 })));
        let mut flipped = signed.clone();
        flipped.payload[10] ^= 1;
        assert!(flipped.open(&roots, fleet(), 0).is_err());
    }

    #[test]
    fn another_form_of_the_same_bundle_is_refused_although_it_is_signed() {
        let root = SigningKey::generate().unwrap().0;
        let roots = RootKeys { keys: vec![root.public()], threshold: 1 };
        let mut signed = bundle(1, &[]).sign(&root).unwrap();
        signed.payload.insert(1, b' ');
        let signature = root.sign(Kind::TrustBundle, fleet(), Digest::of(&signed.payload));
        signed.signatures = vec![RootSignature { key: root.public().id(), signature }];
        let refused = signed.open(&roots, fleet(), 0);
        assert!(matches!(refused, Err(TrustError::Malformed(CanonicalError::Form))), "{refused:?}");
    }

    #[test]
    fn a_viewers_key_signs_no_work() {
        let key = SigningKey::generate().unwrap().0;
        let sealed = key.seal(Kind::Request, fleet(), b"{}".to_vec());
        assert!(bundle(1, &[(&key, OperatorRole::Operator)]).verify_content(&sealed, Kind::Request).is_ok());
        assert!(bundle(1, &[(&key, OperatorRole::Viewer)]).verify_content(&sealed, Kind::Request).is_err());
        assert!(bundle(1, &[]).verify_content(&sealed, Kind::Request).is_err());
    }

    /// A fleet whose root key has left the list to three security-admins, two of whom must sign.
    struct Delegated {
        roots: RootKeys,
        base: SignedBundle,
        admins: [SigningKey; 3],
        bob: ContentKey,
    }

    fn entry(key: &SigningKey, person: &str, role: OperatorRole) -> ContentKey {
        let operator = OperatorId::from_uuid(Uuid::from_u128(9));
        ContentKey { key: key.public(), operator, person: person.parse().unwrap(), role }
    }

    impl Delegated {
        fn new() -> Self {
            let key = || SigningKey::generate().unwrap().0;
            let (root, admins) = (key(), [key(), key(), key()]);
            let listed: Vec<_> = admins.iter().map(|key| (key, OperatorRole::SecurityAdmin)).collect();
            let mut first = bundle(5, &listed);
            first.operator_key_authority = Some(OperatorKeyAuthority {
                keys: admins.iter().map(|key| key.public().id()).collect(),
                threshold: 2,
                not_after: first.issued.plus(MAX_DELEGATION),
            });
            let base = first.sign(&root).unwrap();
            let roots = RootKeys { keys: vec![root.public()], threshold: 1 };
            Self { roots, base, admins, bob: entry(&key(), "bob", OperatorRole::Operator) }
        }

        fn first(&self) -> TrustBundle {
            self.base.open(&self.roots, fleet(), 0).unwrap()
        }

        /// A change of `base`, signed by these of the security-admins.
        fn change(&self, base: &SignedBundle, bundle: &TrustBundle, by: &[usize]) -> SignedBundle {
            let mut signed = bundle.sign(&self.admins[by[0]]).unwrap();
            for admin in &by[1..] {
                signed.signatures.extend(bundle.sign(&self.admins[*admin]).unwrap().signatures);
            }
            signed.base = Some(Box::new(base.clone()));
            signed
        }

        fn with_bob(&self) -> TrustBundle {
            let first = self.first();
            let now = first.issued;
            let keys = first.content_keys.iter().cloned().chain([self.bob.clone()]).collect();
            first.with_content_keys(keys, now)
        }

        fn open(&self, signed: &SignedBundle) -> Result<TrustBundle, TrustError> {
            signed.open(&self.roots, fleet(), 0)
        }
    }

    #[test]
    fn two_security_admins_add_a_person_and_one_takes_them_away() {
        let fleet_of = Delegated::new();
        let with_bob = fleet_of.with_bob();
        let alone = fleet_of.change(&fleet_of.base, &with_bob, &[0]);
        assert!(matches!(fleet_of.open(&alone), Err(TrustError::Threshold { found: 1, needed: 2 })));
        let twice = fleet_of.change(&fleet_of.base, &with_bob, &[1, 1]);
        assert!(matches!(fleet_of.open(&twice), Err(TrustError::Threshold { found: 1, needed: 2 })));
        let proposal = alone.propose(&fleet_of.roots, fleet(), &fleet_of.first()).unwrap();
        assert_eq!((proposal.signers.len(), proposal.needed, proposal.bundle), (1, 2, with_bob.clone()));

        let listed = fleet_of.change(&fleet_of.base, &with_bob, &[0, 2]);
        assert_eq!(fleet_of.open(&listed).unwrap(), with_bob);
        // One of them is enough to take bob away again, and a second person on top of that.
        let without = |keys: &[ContentKey], gone: &ContentKey| -> Vec<ContentKey> {
            keys.iter().filter(|key| *key != gone).cloned().collect()
        };
        let now = with_bob.issued;
        let next = with_bob.clone().with_content_keys(without(&with_bob.content_keys, &fleet_of.bob), now);
        let base = listed.clone().base_of_change(false);
        assert_eq!(base, listed);
        let revoked = fleet_of.change(&base, &next, &[1]);
        assert_eq!(fleet_of.open(&revoked).unwrap().content_keys.len(), 3);
        let base = revoked.clone().base_of_change(false);
        assert_eq!(base, listed, "there is no room for a third");
        let gone = next.content_keys[2].clone();
        let next = next.clone().with_content_keys(without(&next.content_keys, &gone), now);
        let again = fleet_of.change(&base, &next, &[1]);
        assert_eq!(fleet_of.open(&again).unwrap().version, 8);
        assert_eq!(again.clone().base_of_change(true), fleet_of.base);
        let deep = fleet_of.change(&again, &next.clone().with_content_keys(vec![], now), &[1]);
        assert!(matches!(fleet_of.open(&deep), Err(TrustError::Change(_))), "a chain has an end");
    }

    #[test]
    fn what_is_not_the_list_stays_with_the_root_keys() {
        type Change<'c> = &'c dyn Fn(&mut TrustBundle);
        let fleet_of = Delegated::new();
        let (good, now) = (fleet_of.with_bob(), fleet_of.first().issued);
        let mallory = SigningKey::generate().unwrap().0;
        let changed = |change: Change<'_>| {
            let mut bundle = good.clone();
            change(&mut bundle);
            fleet_of.open(&fleet_of.change(&fleet_of.base, &bundle, &[0, 1, 2]))
        };
        assert!(changed(&|_| {}).is_ok());
        let admin = entry(&mallory, "mallory", OperatorRole::SecurityAdmin);
        let raised = ContentKey { role: OperatorRole::SecurityAdmin, ..fleet_of.bob.clone() };
        let late = now.plus(MAX_DELEGATION).plus(std::time::Duration::from_secs(1));
        let bad: [(&str, Change<'_>); 6] = [
            ("a security-admin", &|bundle| bundle.content_keys.push(admin.clone())),
            ("a role", &|bundle| bundle.content_keys[3] = raised.clone()),
            ("the audit key", &|bundle| bundle.audit_key = mallory.public()),
            ("itself", &|bundle| bundle.operator_key_authority.as_mut().unwrap().threshold = 1),
            ("its time", &|bundle| bundle.issued = late),
            ("its version", &|bundle| bundle.version = 5),
        ];
        for (what, change) in bad {
            assert!(matches!(changed(change), Err(TrustError::Change(_))), "{what}");
        }
        let mut stranger = good.sign(&mallory).unwrap();
        stranger.base = Some(Box::new(fleet_of.base.clone()));
        assert!(matches!(fleet_of.open(&stranger), Err(TrustError::Threshold { found: 0, needed: 2 })));
        let plain = SignedBundle { base: None, ..fleet_of.change(&fleet_of.base, &good, &[0, 1]) };
        assert!(fleet_of.open(&plain).is_err(), "without the word of the root keys they are nobody");
    }

    #[test]
    fn a_security_admin_who_was_taken_away_adds_nobody_where_that_is_known() {
        let fleet_of = Delegated::new();
        let first = fleet_of.first();
        let now = first.issued;
        let rest = first.content_keys[1..].to_vec();
        let known = fleet_of
            .open(&fleet_of.change(&fleet_of.base, &first.clone().with_content_keys(rest, now), &[1]))
            .unwrap();
        let back = TrustBundle { version: 7, ..fleet_of.with_bob() };
        let by_the_gone = fleet_of.change(&fleet_of.base, &back, &[0, 1]);
        let refused = by_the_gone.open_after(&fleet_of.roots, fleet(), &known);
        assert!(matches!(refused, Err(TrustError::Threshold { found: 1, needed: 2 })), "{refused:?}");
        let by_the_others = fleet_of.change(&fleet_of.base, &back, &[1, 2]);
        assert!(by_the_others.open_after(&fleet_of.roots, fleet(), &known).is_ok());
        // The root keys list them again: then they count again.
        let mut again = first.clone();
        again.version = 8;
        let root = SigningKey::generate().unwrap().0;
        let roots = RootKeys { keys: vec![root.public()], threshold: 1 };
        let base = again.sign(&root).unwrap();
        let mut signed = TrustBundle { version: 9, ..fleet_of.with_bob() }.sign(&fleet_of.admins[0]).unwrap();
        signed.signatures.extend(
            TrustBundle { version: 9, ..fleet_of.with_bob() }.sign(&fleet_of.admins[1]).unwrap().signatures,
        );
        signed.base = Some(Box::new(base));
        // Audit keys are random in these bundles: the same base as before, but for its version.
        assert!(signed.open_after(&roots, fleet(), &known).is_ok());
    }

    #[test]
    fn the_root_keys_word_is_bounded() {
        let root = SigningKey::generate().unwrap().0;
        let roots = RootKeys { keys: vec![root.public()], threshold: 1 };
        let key = SigningKey::generate().unwrap().0.public().id();
        let issued = bundle(1, &[]).issued;
        let day = std::time::Duration::from_hours(24);
        for (threshold, days, good) in [(1, 90, true), (1, 91, false), (0, 1, false), (2, 1, false)] {
            let not_after = issued.plus(day * days);
            let authority = OperatorKeyAuthority { keys: vec![key], threshold, not_after };
            let bundle = TrustBundle { operator_key_authority: Some(authority), ..bundle(1, &[]) };
            let opened = bundle.sign(&root).unwrap().open(&roots, fleet(), 0);
            assert_eq!(opened.is_ok(), good, "{threshold} of 1 for {days} days");
        }
    }
}
