//! Starting the core: configuration, identity and the executor's socket become a running link.

use fleet_certs::ServerName;
use fleet_executor::socket::Socket;
use tokio_util::sync::CancellationToken;

use super::executor_channel::ExecutorChannel;
use super::identity::{IdentityError, OwnIdentity};
use super::identity_in_use::IdentityInUse;
use super::link::dial::Dialer;
use super::link::{Link, LinkError};
use super::renewal::Enrolment;
use crate::config::{Config, Timers};

/// Why the core does not run, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// A key that only `run` needs is missing.
    #[error("configuration: {0} is missing: write it to the configuration file")]
    Missing(&'static str),
    /// No identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The socket cannot be used.
    #[error("the socket to the executor cannot be used")]
    Socket(#[source] std::io::Error),
    /// The executor failed.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Looks at the keys that only a running core needs.
pub fn check(config: &Config) -> Result<ServerName<'static>, CoreError> {
    let server_name = config.server_name.clone().ok_or(CoreError::Missing("controller.server_name"))?;
    if config.endpoints.is_empty() {
        return Err(CoreError::Missing("controller.endpoints"));
    }
    Ok(server_name)
}

/// A core whose settings are good, before it speaks to anybody.
#[derive(Debug)]
pub struct Core {
    dialer: Dialer,
    timers: Timers,
    identity: IdentityInUse,
}

impl Core {
    /// Checks what only a running core needs: endpoints, server name, a certificate that is good now, or will be once this
    /// machine's clock is set, or with which the node can come back.
    pub fn new(config: &Config, identity: &OwnIdentity) -> Result<Self, CoreError> {
        let server_name = check(config)?;
        let endpoints = config.endpoints.iter().map(|endpoint| endpoint.address.clone()).collect();
        let connect = config.timers.connect;
        let enrolment = config.enrol.clone().map(|address| Enrolment { address, connect });
        let (identity, tls) = IdentityInUse::new(identity, server_name.clone(), enrolment)?;
        let dialer = Dialer::new(endpoints, tls, server_name, &config.timers);
        Ok(Self { dialer, timers: config.timers.clone(), identity })
    }

    /// Runs until `stop`, or until the executor fails.
    pub async fn run(self, socket: Socket, stop: CancellationToken) -> Result<(), CoreError> {
        let channel = ExecutorChannel::open(socket, self.timers.halves).map_err(CoreError::Socket)?;
        let link = tokio::select! {
            link = Link::new(self.dialer, self.timers, channel, self.identity) => link?,
            () = stop.cancelled() => return Ok(()),
        };
        Ok(link.run(stop).await?)
    }
}
