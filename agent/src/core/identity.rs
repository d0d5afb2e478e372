//! The identity in use: loaded, checked by the rules that controllers apply, published for new connections.
//!
//! Connections read the TLS settings from a watch channel at every dial, so a new certificate is used by the
//! next connection without a restart. **Renewal is not built yet**: its place is [`warn_before_end`], which wakes at the
//! moment when a renewal is due (security-and-delivery §1.8) and today says so in the log; a renewed identity
//! is to be written with [`IdentityDir::store`] and put in place with [`Published::replace`]. Until then an
//! agent is enrolled again before its certificate ends.

use std::path::Path;
use std::sync::Arc;

use fleet_certs::issue::renewal_due;
use fleet_certs::slots::{IdentityDir, SlotError, StoredIdentity};
use fleet_certs::tls::{ClientTls, MutualClient, TlsClock, TlsError, publish};
use fleet_certs::{CertFault, ClientConfig, PeerIdentity, ServerName};
use fleet_types::id::{FleetId, NodeId};
use fleet_types::time::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

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
        "the certificate of this node ended {not_after} and this machine's clock says {now}: set the clock if it is wrong, else join anew (fleet-agent enrol --replace) with a token for a new name (fleetctl join-token create)"
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

/// Who this node is.
#[derive(Debug, Clone)]
pub struct OwnIdentity {
    /// The record of the enrolment.
    pub record: NodeRecord,
    /// Facts of the certificate.
    pub certificate: PeerIdentity,
    stored: StoredIdentity,
}

impl OwnIdentity {
    /// Loads the identity; a damaged slot is told in the log and the other one used.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let loaded = IdentityDir::open(directory)?.load()?;
        if let Some(damage) = &loaded.damaged {
            warn!("an identity slot is damaged, the other one is used: {}", crate::error::chain(damage));
        }
        let certificate = loaded.identity.tls()?.describe()?;
        let node = certificate.identity.node().ok_or(IdentityError::NotAnAgent(certificate.identity))?;
        let record = NodeRecord::load(directory)?;
        if (record.node, record.fleet) != (node, certificate.identity.fleet()) {
            return Err(IdentityError::Mixed { record: record.node, certificate: node });
        }
        Ok(Self { record, certificate, stored: loaded.identity })
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
        client(&self.stored, self.fleet(), server_name).map_err(|error| match error {
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

/// Warns when the certificate is due for renewal and when it has ended. Runs as long as the agent does.
pub async fn warn_before_end(certificate: PeerIdentity) {
    // The jitter of a renewal has no use in a warning.
    let due = renewal_due(certificate.not_before, certificate.not_after, 0);
    sleep_until(instant(due)).await;
    warn!(
        not_after = %certificate.not_after,
        "the certificate of this node is due for renewal, which this build cannot do: before it ends, join anew (fleet-agent enrol --replace) with a token for a new name"
    );
    sleep_until(instant(certificate.not_after)).await;
    error!("the certificate of this node has ended: no new link is possible until it is enrolled again");
}

fn instant(at: Timestamp) -> Instant {
    Instant::now() + at.since(clock::now())
}
