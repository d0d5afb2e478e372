//! The identity of an agent or operator on disk: two slots and a pointer (security-and-delivery §1.8).
//!
//! ```text
//! identity/            mode 0700
//!   current            "a" or "b": which slot is in use
//!   a/ b/              key.pem, cert.pem (chain), controller-ca.pem
//!   pending.pem        key of a request that has not been answered yet
//! ```
//!
//! A new identity goes to the slot that is not in use; only when all of it is on the disk does the
//! pointer flip, by one rename. A crash at any point leaves the old or the new identity. Should the
//! slot in use be damaged all the same, the other one is used and the caller told. The other slot keeps the
//! identity that was in use before: should no controller accept the new one, its owner goes back to it
//! ([`IdentityDir::other`], [`IdentityDir::select`]).

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use fleet_types::seal::Secret;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::ca::{CaError, certificates_from_pem, certificates_to_pem};
use crate::csr::{PrivateKey, RequestError, p256_point};
use crate::files::{
    CERT_MODE, FileError, KEY_MODE, read_secret, read_text, remove_leftovers, sync_folder, write_atomic,
    write_secret,
};
use crate::tls::{TlsError, TlsIdentity};
use crate::verify::describe;

const POINTER: &str = "current";
const PENDING: &str = "pending.pem";
const KEY: &str = "key.pem";
const CHAIN: &str = "cert.pem";
const AUTHORITIES: &str = "controller-ca.pem";

/// Why no identity could be loaded or stored.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Nothing was ever stored here.
    #[error("{} holds no identity: join with a token first", .0.display())]
    NotEnrolled(PathBuf),
    /// A file is missing or cannot be used.
    #[error("identity file cannot be used")]
    File(#[from] FileError),
    /// A certificate cannot be read.
    #[error("certificate in {} cannot be read", .0.display())]
    Certificate(PathBuf, #[source] CaError),
    /// The key cannot be read or made.
    #[error("key in {} cannot be used", .0.display())]
    Key(PathBuf, #[source] RequestError),
    /// Key and certificate do not belong together.
    #[error("key and certificate in {} do not belong together", .0.display())]
    Mismatch(PathBuf),
    /// No authority is stored, so no controller could be trusted.
    #[error("{} names no controller authority", .0.display())]
    NoAuthorities(PathBuf),
    /// Both slots are damaged.
    #[error("both identity slots in {} are damaged: join again with a new token", folder.display())]
    BothDamaged {
        /// The identity folder.
        folder: PathBuf,
        /// What is wrong with the slot in use.
        #[source]
        source: Box<SlotError>,
    },
}

/// A key with its certificate chain and the controller authorities that it goes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredIdentity {
    /// The private key in PEM.
    pub key_pem: Secret,
    /// The chain, end entity first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Authorities that vouch for controllers.
    pub controller_authorities: Vec<CertificateDer<'static>>,
}

impl StoredIdentity {
    /// The form that [`crate::tls`] takes.
    pub fn tls(&self) -> Result<TlsIdentity, TlsError> {
        TlsIdentity::from_pem(&certificates_to_pem(&self.chain), &self.key_pem)
    }
}

/// One of the two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Folder `a`.
    A,
    /// Folder `b`.
    B,
}

impl Slot {
    const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The slot beside it.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What [`IdentityDir::load`] found.
#[derive(Debug)]
pub struct Loaded {
    /// The identity.
    pub identity: StoredIdentity,
    /// Where it was.
    pub slot: Slot,
    /// What is wrong with the slot that the pointer names, when the other one had to serve: worth a
    /// warning and an early renewal.
    pub damaged: Option<SlotError>,
}

/// The moments of [`IdentityDir::store`] between which a crash is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    SlotMade,
    KeyWritten,
    ChainWritten,
    AuthoritiesWritten,
    SlotChecked,
    PointerFlipped,
    PendingRemoved,
}

/// The identity folder of one agent or of one operator's context.
#[derive(Debug, Clone)]
pub struct IdentityDir {
    folder: PathBuf,
}

impl IdentityDir {
    /// Opens the folder, making it (mode 0700) where it is missing.
    pub fn open(folder: &Path) -> Result<Self, SlotError> {
        make_folder(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The key of the request in progress: made and on the disk before the request leaves, and the same
    /// one again after a crash or a lost reply, since a token answers only the key that it saw first
    /// (§1.6). [`Self::store`] removes it.
    pub fn pending_key(&self) -> Result<PrivateKey, SlotError> {
        let path = self.folder.join(PENDING);
        match read_secret(&path) {
            Ok(pem) => {
                let key = PrivateKey::from_pem(&pem).map_err(|e| SlotError::Key(path.clone(), e))?;
                if !self.is_in_use(&key) {
                    return Ok(key);
                }
                // A crash came between the pointer's flip and the end of this key, which has its certificate:
                // the next request is for another one.
            }
            Err(FileError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let key = PrivateKey::generate().map_err(|e| SlotError::Key(path.clone(), e))?;
        write_secret(&path, &key.to_pem())?;
        Ok(key)
    }

    fn is_in_use(&self, key: &PrivateKey) -> bool {
        let leaf = self.load().ok().and_then(|loaded| loaded.identity.chain.into_iter().next());
        leaf.is_some_and(|leaf| certifies(&leaf, key))
    }

    /// Drops the pending key: the request was refused for good.
    pub fn discard_pending(&self) -> Result<(), SlotError> {
        let path = self.folder.join(PENDING);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::io("remove", &path)(e).into()),
            _ => Ok(()),
        }
    }

    /// Puts a new identity in use. When this fails or the machine stops, the old one stays.
    pub fn store(&self, identity: &StoredIdentity) -> Result<Slot, SlotError> {
        self.store_watched(identity, &mut |_| Ok(()))
    }

    /// [`Self::store`] with a look between the steps; an error from it is a crash at that point.
    pub(crate) fn store_watched(
        &self,
        identity: &StoredIdentity,
        after: &mut dyn FnMut(Step) -> Result<(), SlotError>,
    ) -> Result<Slot, SlotError> {
        let target = self.target()?;
        let slot = self.slot(target);
        make_folder(&slot)?;
        remove_leftovers(&slot)?;
        remove_leftovers(&self.folder)?;
        after(Step::SlotMade)?;
        write_atomic(&slot.join(KEY), identity.key_pem.expose(), KEY_MODE)?;
        after(Step::KeyWritten)?;
        write_atomic(&slot.join(CHAIN), certificates_to_pem(&identity.chain).as_bytes(), CERT_MODE)?;
        after(Step::ChainWritten)?;
        let authorities = certificates_to_pem(&identity.controller_authorities);
        write_atomic(&slot.join(AUTHORITIES), authorities.as_bytes(), CERT_MODE)?;
        after(Step::AuthoritiesWritten)?;
        // What will be read at the next start is read now, before the old identity is given up.
        self.load_slot(target)?;
        sync_folder(&self.folder).map_err(FileError::io("flush", &self.folder))?;
        after(Step::SlotChecked)?;
        self.point_to(target)?;
        after(Step::PointerFlipped)?;
        self.discard_pending()?;
        after(Step::PendingRemoved)?;
        Ok(target)
    }

    /// The identity in use.
    pub fn load(&self) -> Result<Loaded, SlotError> {
        let slot = self.pointer()?.ok_or_else(|| SlotError::NotEnrolled(self.folder.clone()))?;
        let damage = match self.load_slot(slot) {
            Ok(identity) => return Ok(Loaded { identity, slot, damaged: None }),
            // A key that others may read is for a person to judge, not for a fallback.
            Err(open @ SlotError::File(FileError::TooOpen { .. })) => return Err(open),
            Err(damage) => damage,
        };
        match self.load_slot(slot.other()) {
            Ok(identity) => Ok(Loaded { identity, slot: slot.other(), damaged: Some(damage) }),
            Err(_) => Err(SlotError::BothDamaged { folder: self.folder.clone(), source: Box::new(damage) }),
        }
    }

    /// The identity in the slot beside `slot`, if there is one that can be read: what was in use before.
    pub fn other(&self, slot: Slot) -> Option<StoredIdentity> {
        self.load_slot(slot.other()).ok()
    }

    /// Puts a slot in use whose identity was loaded, and a controller has accepted.
    pub fn select(&self, slot: Slot) -> Result<(), SlotError> {
        if self.pointer()? == Some(slot) {
            return Ok(());
        }
        self.point_to(slot)
    }

    fn point_to(&self, slot: Slot) -> Result<(), SlotError> {
        Ok(write_atomic(&self.folder.join(POINTER), format!("{}\n", slot.name()).as_bytes(), CERT_MODE)?)
    }

    /// The slot to write to: the one that is not in use, which is not the one that had to serve for a
    /// damaged one.
    fn target(&self) -> Result<Slot, SlotError> {
        match self.load() {
            Ok(loaded) => Ok(loaded.slot.other()),
            Err(SlotError::NotEnrolled(_)) => Ok(Slot::A),
            Err(SlotError::BothDamaged { .. }) => Ok(self.pointer()?.map_or(Slot::A, Slot::other)),
            Err(other) => Err(other),
        }
    }

    /// Which slot is in use; `None` before the first identity. The pointer is one line, replaced whole;
    /// if it is not readable as such, the disk is damaged and the newest certificate tells: a retired one
    /// would lock the node when it is renewed (§1.8).
    fn pointer(&self) -> Result<Option<Slot>, SlotError> {
        match read_text(&self.folder.join(POINTER)) {
            Ok(text) if text.trim_end() == "b" => Ok(Some(Slot::B)),
            Ok(text) if text.trim_end() == "a" => Ok(Some(Slot::A)),
            Ok(_) | Err(FileError::NotText { .. } | FileError::TooLarge { .. }) => Ok(Some(self.newest())),
            Err(FileError::Missing { .. }) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    fn newest(&self) -> Slot {
        let since = |slot| {
            let identity = self.load_slot(slot).ok()?;
            Some(describe(identity.chain.first()?).ok()?.not_before)
        };
        if since(Slot::B) > since(Slot::A) { Slot::B } else { Slot::A }
    }

    fn slot(&self, slot: Slot) -> PathBuf {
        self.folder.join(slot.name())
    }

    fn load_slot(&self, slot: Slot) -> Result<StoredIdentity, SlotError> {
        let folder = self.slot(slot);
        let key_pem = read_secret(&folder.join(KEY))?;
        let key = PrivateKey::from_pem(&key_pem).map_err(|e| SlotError::Key(folder.clone(), e))?;
        let read = |name: &str| {
            let path = folder.join(name);
            certificates_from_pem(&read_text(&path)?).map_err(|e| SlotError::Certificate(path, e))
        };
        let chain = read(CHAIN)?;
        let controller_authorities = read(AUTHORITIES)?;
        if !chain.first().is_some_and(|first| certifies(first, &key)) {
            return Err(SlotError::Mismatch(folder));
        }
        if controller_authorities.is_empty() {
            return Err(SlotError::NoAuthorities(folder.join(AUTHORITIES)));
        }
        Ok(StoredIdentity { key_pem, chain, controller_authorities })
    }
}

fn certifies(certificate: &CertificateDer<'_>, key: &PrivateKey) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, parsed)| p256_point(parsed.public_key()) == Some(key.public_point()))
}

fn make_folder(folder: &Path) -> Result<(), SlotError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(FileError::io("make", folder))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_types::id::FleetId;
    use fleet_types::time::Timestamp;

    use super::*;
    use crate::ca::Authority;
    use crate::csr::RequestedKey;
    use crate::issue;
    use crate::name::Role;

    struct Maker {
        agents: Authority,
        controllers: Authority,
        fleet: FleetId,
        now: Timestamp,
    }

    impl Maker {
        fn new() -> Self {
            let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
            let fleet: FleetId = "0192f0c1-0000-7000-8000-000000000001".parse().unwrap();
            let make = |role| Authority::create(role, fleet, now, Duration::from_hours(24)).unwrap();
            Self { agents: make(Role::Agent), controllers: make(Role::Controller), fleet, now }
        }

        fn identity(&self, key: &PrivateKey) -> StoredIdentity {
            let node = "0192f0c1-0000-7000-8000-000000000002".parse().unwrap();
            let requested = RequestedKey::of(key).unwrap();
            let issued =
                issue::agent(&self.agents, self.fleet, node, &requested, self.now, issue::AGENT_LIFETIME);
            StoredIdentity {
                key_pem: key.to_pem(),
                chain: issued.unwrap().chain,
                controller_authorities: vec![self.controllers.certificate().clone()],
            }
        }
    }

    #[test]
    fn identities_alternate_between_slots() {
        let (maker, folder) = (Maker::new(), tempfile::tempdir().unwrap());
        let dir = IdentityDir::open(&folder.path().join("identity")).unwrap();
        assert!(matches!(dir.load(), Err(SlotError::NotEnrolled(_))));
        for expected in [Slot::A, Slot::B, Slot::A] {
            let key = dir.pending_key().unwrap();
            assert_eq!(dir.pending_key().unwrap().public_digest(), key.public_digest());
            let identity = maker.identity(&key);
            assert_eq!(dir.store(&identity).unwrap(), expected);
            let loaded = dir.load().unwrap();
            assert_eq!((loaded.identity, loaded.slot), (identity, expected));
            assert!(loaded.damaged.is_none());
            assert_ne!(dir.pending_key().unwrap().public_digest(), key.public_digest());
        }
    }

    #[test]
    fn a_crash_between_any_two_steps_leaves_a_usable_identity() {
        use Step::{
            AuthoritiesWritten, ChainWritten, KeyWritten, PendingRemoved, PointerFlipped, SlotChecked,
            SlotMade,
        };
        let maker = Maker::new();
        for rounds in 1..=2 {
            for crash in [
                SlotMade,
                KeyWritten,
                ChainWritten,
                AuthoritiesWritten,
                SlotChecked,
                PointerFlipped,
                PendingRemoved,
            ] {
                let folder = tempfile::tempdir().unwrap();
                let dir = IdentityDir::open(folder.path()).unwrap();
                let mut old = maker.identity(&PrivateKey::generate().unwrap());
                for _ in 0..rounds {
                    old = maker.identity(&PrivateKey::generate().unwrap());
                    dir.store(&old).unwrap();
                }
                let new = maker.identity(&dir.pending_key().unwrap());
                let died = dir.store_watched(&new, &mut |step| {
                    if step == crash { Err(SlotError::NotEnrolled(PathBuf::new())) } else { Ok(()) }
                });
                assert!(died.is_err());
                let flipped = matches!(crash, PointerFlipped | PendingRemoved);
                let loaded = dir.load().unwrap();
                assert_eq!(
                    loaded.identity,
                    if flipped { new.clone() } else { old },
                    "{crash:?} in round {rounds}"
                );
                assert!(loaded.damaged.is_none());
                // The next start does the normal thing again.
                dir.store(&new).unwrap();
                assert_eq!(dir.load().unwrap().identity, new);
            }
        }
    }

    #[test]
    fn a_key_that_has_its_certificate_is_not_asked_for_again() {
        let (maker, folder) = (Maker::new(), tempfile::tempdir().unwrap());
        let dir = IdentityDir::open(folder.path()).unwrap();
        let key = dir.pending_key().unwrap();
        let died = dir.store_watched(&maker.identity(&key), &mut |step| {
            if step == Step::PointerFlipped { Err(SlotError::NotEnrolled(PathBuf::new())) } else { Ok(()) }
        });
        assert!(died.is_err() && folder.path().join(PENDING).exists());
        assert_ne!(dir.pending_key().unwrap().public_digest(), key.public_digest());
    }

    #[test]
    fn the_identity_that_was_in_use_before_is_there_to_go_back_to() {
        let (maker, folder) = (Maker::new(), tempfile::tempdir().unwrap());
        let dir = IdentityDir::open(folder.path()).unwrap();
        let [old, refused, next] = [(); 3].map(|()| maker.identity(&PrivateKey::generate().unwrap()));
        let slot = dir.store(&old).unwrap();
        assert_eq!(dir.other(slot), None);
        let newer = dir.store(&refused).unwrap();
        assert_eq!(dir.other(newer), Some(old.clone()));
        dir.select(slot).unwrap();
        assert_eq!(dir.load().unwrap().identity, old);
        // What is stored next takes the place of the refused one, and not of the one in use.
        assert_eq!(dir.store(&next).unwrap(), newer);
        assert_eq!(dir.other(newer), Some(old));
    }

    #[test]
    fn a_truncated_file_in_the_slot_in_use_falls_back_to_the_other() {
        let maker = Maker::new();
        for name in [KEY, CHAIN, AUTHORITIES] {
            let folder = tempfile::tempdir().unwrap();
            let dir = IdentityDir::open(folder.path()).unwrap();
            let (old, new) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
            dir.store(&maker.identity(&old)).unwrap();
            let kept = dir.load().unwrap().identity;
            let slot = dir.store(&maker.identity(&new)).unwrap();
            let path = dir.slot(slot).join(name);
            let whole = std::fs::read(&path).unwrap();
            for length in [0, 1, whole.len() / 2] {
                std::fs::write(&path, &whole[..length]).unwrap();
                let loaded = dir.load().unwrap();
                assert_eq!((loaded.slot, &loaded.identity), (slot.other(), &kept), "{name} cut to {length}");
                assert!(loaded.damaged.is_some());
            }
            // A renewal repairs the damaged slot and never overwrites the one that serves.
            assert_eq!(dir.store(&maker.identity(&old)).unwrap(), slot);
            assert!(dir.load().unwrap().damaged.is_none());
        }
    }

    #[test]
    fn a_damaged_pointer_leads_to_the_newest_certificate() {
        let (mut maker, folder) = (Maker::new(), tempfile::tempdir().unwrap());
        let dir = IdentityDir::open(folder.path()).unwrap();
        for _ in 0..3 {
            let newest = maker.identity(&PrivateKey::generate().unwrap());
            let slot = dir.store(&newest).unwrap();
            for garbage in [&b""[..], b"c", b"\xff\xff"] {
                std::fs::write(folder.path().join(POINTER), garbage).unwrap();
                let loaded = dir.load().unwrap();
                assert_eq!((loaded.slot, loaded.identity), (slot, newest.clone()));
            }
            maker.now = maker.now.plus(Duration::from_hours(1));
        }
    }

    #[test]
    fn mixed_files_and_open_keys_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (maker, folder) = (Maker::new(), tempfile::tempdir().unwrap());
        let dir = IdentityDir::open(folder.path()).unwrap();
        let mut mixed = maker.identity(&PrivateKey::generate().unwrap());
        mixed.key_pem = PrivateKey::generate().unwrap().to_pem();
        assert!(matches!(dir.store(&mixed), Err(SlotError::Mismatch(_))));
        assert!(matches!(dir.load(), Err(SlotError::NotEnrolled(_))));
        let slot = dir.store(&maker.identity(&PrivateKey::generate().unwrap())).unwrap();
        std::fs::set_permissions(dir.slot(slot).join(KEY), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(dir.load(), Err(SlotError::File(FileError::TooOpen { .. }))));
        std::fs::remove_file(dir.slot(slot).join(KEY)).unwrap();
        assert!(matches!(dir.load(), Err(SlotError::BothDamaged { .. })));
    }
}
