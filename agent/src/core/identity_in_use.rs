//! The identity that the link dials with, the one to go back to, and what a renewal changes about them.
//!
//! A renewed identity is stored, then tried by the next connection. Should no controller accept it, the one before is used
//! again as long as it lasts, and put back in its place on the disk once a link with it is up: the controller retires
//! it only when it has seen the new one. Owned by the link; nobody else changes the published settings.

use fleet_certs::ServerName;
use fleet_certs::slots::IdentityDir;
use fleet_certs::tls::ClientTls;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use fleet_types::time::Timestamp;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;
use tracing::{error, info, warn};

use super::identity::{Certified, IdentityError, OwnIdentity, Published, client};
use super::renewal::{NotRenewed, Schedule, Try};
use crate::clock;
use crate::error::chain;

/// See the module.
#[derive(Debug)]
pub struct IdentityInUse {
    directory: IdentityDir,
    server_name: ServerName<'static>,
    present: Certified,
    /// What was in use before, or, after going back, what was refused.
    before: Option<Certified>,
    published: Published,
    schedule: Schedule,
    /// The try under way; one at most.
    trying: JoinSet<Result<Certified, NotRenewed>>,
}

impl IdentityInUse {
    /// Publishes the settings of an identity that is good now, or will be once this machine's clock is set.
    pub fn new(
        own: &OwnIdentity,
        server_name: ServerName<'static>,
    ) -> Result<(Self, ClientTls), IdentityError> {
        let (published, tls) = Published::new(own.tls(server_name.clone())?);
        let present = own.present.clone();
        let schedule = Schedule::new(&present.certificate, clock::jitter());
        let (directory, before) = (own.directory.clone(), own.before.clone());
        let trying = JoinSet::new();
        Ok((Self { directory, server_name, present, before, published, schedule, trying }, tls))
    }

    /// Start of the certificate.
    pub const fn valid_from(&self) -> Timestamp {
        self.present.certificate.not_before
    }

    /// End of the certificate.
    pub const fn valid_until(&self) -> Timestamp {
        self.present.certificate.not_after
    }

    /// A link is up with it: from now on the controller knows it as the one in use.
    pub fn on_link_up(&mut self) {
        self.before = None;
        if let Err(error) = self.directory.select(self.present.slot) {
            warn!("the identity in use cannot be put in its place: {}", chain(&error));
        }
    }

    /// Starts a try where one is due.
    pub fn start(&mut self, client: &AgentServiceClient<Channel>) {
        if !self.trying.is_empty() || !self.schedule.is_due(clock::now(), Instant::now()) {
            return;
        }
        info!(not_after = %self.valid_until(), "renewing the certificate of this node");
        let attempt = Try {
            client: client.clone(),
            directory: self.directory.clone(),
            present: self.present.clone(),
            server_name: self.server_name.clone(),
        };
        self.trying.spawn(attempt.carry_out());
    }

    /// Waits for the end of the try under way; for ever where there is none. Safe to drop at its await.
    pub async fn tried(&mut self) -> Result<Certified, NotRenewed> {
        match self.trying.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(defect)) => Err(defect.into()),
            None => std::future::pending().await,
        }
    }

    /// Takes what a try came to. True when there is a new identity for the next connection to use.
    pub fn on_tried(&mut self, ended: Result<Certified, NotRenewed>) -> bool {
        let renewed = ended.and_then(|new| {
            self.publish(&new)?;
            Ok(new)
        });
        match renewed {
            Ok(new) => {
                info!(serial = %new.certificate.serial, not_after = %new.certificate.not_after, "a new certificate is stored; the next connection uses it");
                self.schedule = Schedule::new(&new.certificate, clock::jitter());
                self.before = Some(std::mem::replace(&mut self.present, new));
                true
            }
            Err(why) => {
                let pause = self.schedule.failed(&why, Instant::now(), clock::uniform);
                warn!(
                    not_after = %self.valid_until(), again_in_s = pause.as_secs(),
                    "the certificate of this node is not renewed yet: {}", chain(&why)
                );
                false
            }
        }
    }

    /// The controller does not accept the certificate: the other one is tried next, where there is one that lasts.
    pub fn on_refused(&mut self) {
        let now = clock::now();
        let Some(other) = self.before.take_if(|other| other.lasts(now)) else { return };
        if let Err(why) = self.publish(&other) {
            error!("the identity that was in use before cannot be used: {}", chain(&why));
            return;
        }
        warn!(serial = %other.certificate.serial, "the certificate is refused; the other one of this node is tried");
        self.schedule = Schedule::new(&other.certificate, clock::jitter());
        self.before = Some(std::mem::replace(&mut self.present, other));
    }

    fn publish(&self, identity: &Certified) -> Result<(), fleet_certs::tls::TlsError> {
        let fleet = identity.certificate.identity.fleet();
        self.published.replace(client(&identity.stored, fleet, self.server_name.clone())?);
        Ok(())
    }
}
