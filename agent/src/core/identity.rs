//! The identity in use: loaded, checked by the rules that controllers apply, published for new connections.
//!
//! Connections read the TLS settings from a watch channel at every dial, so a renewed certificate is used by the
//! next connection without a restart. What changes them is in [`super::identity_in_use`].

use std::path::Path;
use std::sync::Arc;

use fleet_certs::slots::{IdentityDir, Slot, SlotError, StoredIdentity};
use fleet_certs::tls::{ClientTls, MutualClient, TlsClock, TlsError, publish};
use fleet_certs::{CertFault, ClientConfig, PeerIdentity, ServerName};
use fleet_types::id::{FleetId, NodeId};
use fleet_types::time::Timestamp;
use tokio::sync::watch;
use tracing::warn;

use crate::clock;
use crate::node::{NodeError, NodeRecord};

/// Why there is no identity to connect with.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nothing stored, or both slots damaged.
    #[error("this node has no usable identity")]
    Slots(#[from] SlotError),
    /// The record of the node.
    #[error("this node has no usable record of itself")]
    Record(#[from] NodeError),
    /// The certificate would be refused.
    #[error("the certificate of this node cannot be used")]
    Certificate(#[from] TlsError),
    /// The certificate's time is over.
    #[error(
        "the certificate of this node ended {not_after} and this machine's clock says {now}: set the clock if it is wrong, set controller.enrol so that it can come back, or join anew (fleet-agent enrol --replace) with a token for a new name (fleetctl join-token create)"
    )]
    Ended {
        /// End of the certificate.
        not_after: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// The certificate is of another role.
    #[error("the certificate of this node is {0}'s, not an agent's")]
    NotAnAgent(fleet_certs::Identity),
    /// Record and certificate are of different enrolments.
    #[error("the record of this node is of node {record}, its certificate of {certificate}: enrol again")]
    Mixed {
        /// In the record.
        record: NodeId,
        /// In the certificate.
        certificate: NodeId,
    },
}

/// A stored identity with the facts of its certificate.
#[derive(Debug, Clone)]
pub struct Certified {
    /// Key, chain and authorities.
    pub stored: StoredIdentity,
    /// Facts of the certificate.
    pub certificate: PeerIdentity,
    /// Where it lies.
    pub slot: Slot,
}

impl Certified {
    fn of(stored: StoredIdentity, slot: Slot) -> Result<Self, TlsError> {
        let certificate = stored.tls()?.describe()?;
        Ok(Self { stored, certificate, slot })
    }

    /// Is it good at this time?
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.certificate.not_before <= now && now < self.certificate.not_after
    }
}

/// Who this node is.
#[derive(Debug, Clone)]
pub struct OwnIdentity {
    /// The record of the enrolment.
    pub record: NodeRecord,
    /// In use.
    pub present: Certified,
    /// In use before, where it is still there: to go back to if no controller accepts the present one.
    pub before: Option<Certified>,
    /// Where both lie.
    pub directory: IdentityDir,
}

impl OwnIdentity {
    /// Loads the identity; a damaged slot is told in the log and the other one used.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let slots = IdentityDir::open(directory)?;
        let loaded = slots.load()?;
        if let Some(damage) = &loaded.damaged {
            warn!("an identity slot is damaged, the other one is used: {}", crate::error::chain(damage));
        }
        let present = Certified::of(loaded.identity, loaded.slot)?;
        let identity = present.certificate.identity;
        let node = identity.node().ok_or(IdentityError::NotAnAgent(identity))?;
        let record = NodeRecord::load(directory)?;
        if (record.node, record.fleet) != (node, identity.fleet()) {
            return Err(IdentityError::Mixed { record: record.node, certificate: node });
        }
        let before =
            slots.other(present.slot).and_then(|stored| Certified::of(stored, present.slot.other()).ok());
        // After the node was replaced, the other slot is another node's.
        let before = before.filter(|before| before.certificate.identity == identity);
        Ok(Self { record, present, before, directory: slots })
    }

    /// The fleet.
    pub const fn fleet(&self) -> FleetId {
        self.record.fleet
    }

    /// Is it the identity of this node? The executor's record says which node that is.
    pub fn belongs_to(&self, node: NodeId) -> Result<(), IdentityError> {
        if self.record.node == node {
            return Ok(());
        }
        Err(IdentityError::Mixed { record: node, certificate: self.record.node })
    }

    /// TLS settings with this identity, checked as a controller would.
    pub fn tls(&self, server_name: ServerName<'static>) -> Result<Arc<ClientConfig>, IdentityError> {
        client(&self.present.stored, self.fleet(), server_name).map_err(|error| match error {
            TlsError::OwnCertificate(CertFault::Expired { not_after, now }) => {
                IdentityError::Ended { not_after, now }
            }
            other => other.into(),
        })
    }
}

/// TLS settings of an agent's identity. Time is never below the start of the own certificate: the link waits until the
/// clock is past it, so that a machine that boots without a clock has settings to wait with.
pub fn client(
    identity: &StoredIdentity,
    fleet: FleetId,
    server_name: ServerName<'static>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let own = identity.tls()?;
    let not_before = own.describe()?.not_before;
    MutualClient {
        fleet,
        identity: own,
        own_authorities: Vec::new(),
        controller_authorities: identity.controller_authorities.clone(),
        server_name,
        clock: TlsClock::reading(move || clock::now().max(not_before)),
    }
    .build()
}

/// The published settings.
#[derive(Debug)]
pub struct Published {
    sender: watch::Sender<Arc<ClientConfig>>,
}

impl Published {
    /// Publishes the first settings; the receiver goes to the link.
    pub fn new(config: Arc<ClientConfig>) -> (Self, ClientTls) {
        let (sender, receiver) = publish(config);
        (Self { sender }, receiver)
    }

    /// Puts a renewed identity in place for new connections.
    pub fn replace(&self, config: Arc<ClientConfig>) {
        self.sender.send_replace(config);
    }
}
