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
use super::renewal::{Enrolment, NotRenewed, Schedule, Try, Way};
use crate::clock;
use crate::error::chain;

/// See the module.
#[derive(Debug)]
pub struct IdentityInUse {
    directory: IdentityDir,
    server_name: ServerName<'static>,
    /// Where the node comes back when its certificate has ended.
    enrolment: Option<Enrolment>,
    present: Certified,
    /// What was in use before, or, after going back, what was refused.
    before: Option<Certified>,
    published: Published,
    schedule: Schedule,
    /// The try under way; one at most.
    trying: JoinSet<Result<Certified, NotRenewed>>,
}

impl IdentityInUse {
    /// Publishes the settings of an identity that is good now, or will be once this machine's clock is set, or with which
    /// the node can come back.
    pub fn new(
        own: &OwnIdentity,
        server_name: ServerName<'static>,
        enrolment: Option<Enrolment>,
    ) -> Result<(Self, ClientTls), IdentityError> {
        let settings = match own.tls(server_name.clone()) {
            // Nothing is dialled with these before there is another certificate.
            Err(IdentityError::Ended { .. }) if enrolment.is_some() => {
                Enrolment::tls(&own.present, &server_name)?
            }
            settings => settings?,
        };
        let (published, tls) = Published::new(settings);
        let present = own.present.clone();
        let schedule = Schedule::new(&present.certificate, clock::jitter());
        let (directory, before) = (own.directory.clone(), own.before.clone());
        let trying = JoinSet::new();
        let own = Self { directory, server_name, enrolment, present, before, published, schedule, trying };
        Ok((own, tls))
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
        self.trying.spawn(self.attempt(Way::Link(client.clone())).carry_out());
    }

    fn attempt(&self, way: Way) -> Try {
        Try {
            way,
            directory: self.directory.clone(),
            present: self.present.clone(),
            server_name: self.server_name.clone(),
        }
    }

    /// The certificate has ended: a try to come back with it. None where no enrolment service is configured.
    pub fn come_back(&self) -> Option<Try> {
        let enrolment = self.enrolment.clone()?;
        info!(not_after = %self.valid_until(), "the certificate of this node has ended; asking for another one");
        Some(self.attempt(Way::Enrolment(enrolment)))
    }

    /// Takes what a try to come back came to. True when there is a new identity to dial with.
    pub fn on_back(&mut self, ended: Result<Certified, NotRenewed>) -> bool {
        match ended.and_then(|new| self.put_in_use(new)) {
            Ok(()) => true,
            Err(why) => {
                warn!("this node does not come back yet: {}", chain(&why));
                false
            }
        }
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
        match ended.and_then(|new| self.put_in_use(new)) {
            Ok(()) => true,
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

    fn put_in_use(&mut self, new: Certified) -> Result<(), NotRenewed> {
        self.publish(&new)?;
        info!(serial = %new.certificate.serial, not_after = %new.certificate.not_after, "a new certificate is stored; the next connection uses it");
        self.schedule = Schedule::new(&new.certificate, clock::jitter());
        self.before = Some(std::mem::replace(&mut self.present, new));
        Ok(())
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
