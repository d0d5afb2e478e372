//! TLS configurations: TLS 1.3 only, the ring provider named everywhere, no resumption.
//!
//! A resumed handshake does not look at the certificate again, so tickets, session storage and early
//! data are off on both sides (security-and-delivery §1.10). A configuration is built, its own
//! certificate checked by the rules that the peer will apply, and only then published on a watch
//! channel ([`publish`]), from which [`crate::accept`] and [`crate::dial`] read it for every new
//! connection: so certificates, authorities and names are replaced while running (§1.22).

use std::sync::Arc;

use fleet_types::digest::Digest;
use fleet_types::id::FleetId;
use fleet_types::seal::Secret;
use fleet_types::time::Timestamp;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier as _;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;

use crate::ca::{CaError, certificates_from_pem};
use crate::csr::{PrivateKey, RequestError};
use crate::fault::CertFault;
use crate::name::Role;
use crate::revoke::{Denied, DenyList};
use crate::trust::{ControllerVerifier, FleetClientVerifier};
use crate::verify::{NameError, PeerIdentity, describe};

/// The only protocol spoken (RFC 9113 §3.3).
const ALPN_H2: &[u8] = b"h2";

/// Why a configuration could not be built. Nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate in the chain.
    #[error("the own certificate chain is empty")]
    EmptyChain,
    /// A PEM text or an authority's certificate is bad.
    #[error("certificate or authority cannot be used")]
    Authority(#[from] CaError),
    /// The key cannot be read.
    #[error("the own private key cannot be used")]
    Key(#[from] RequestError),
    /// The own certificate is not of the form that peers accept.
    #[error("the own certificate is not of the form that peers accept")]
    OwnName(#[from] NameError),
    /// Peers would refuse the own certificate.
    #[error("the own certificate would be refused by peers")]
    OwnCertificate(#[source] CertFault),
    /// An agent or operator certificate on a server, or a controller's on a client.
    #[error("a {0} certificate cannot be used on this side")]
    OwnRole(Role),
    /// No authority or pin to trust.
    #[error("no authority to trust is configured")]
    NoAuthorities,
    /// The trust anchors are refused by the verifier.
    #[error("authorities are refused: {0}")]
    Trust(String),
    /// rustls refuses the combination, for example a key of another certificate.
    #[error("tls settings are refused")]
    Rustls(#[from] rustls::Error),
    /// The clock gave no time.
    #[error("the clock gives no time")]
    NoTime,
}

/// Where handshakes take the time from.
///
/// Programs hand in their own clock file, which knows the lowest time it may report (§1.9: a node with
/// a dead clock never starts below its last persisted time).
#[derive(Clone)]
pub struct TlsClock(Arc<dyn Fn() -> Option<UnixTime> + Send + Sync>);

impl TlsClock {
    /// A clock of the program's own.
    pub fn reading(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || {
            let seconds = u64::try_from(now().as_millis() / 1000).ok()?;
            Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
        }))
    }
}

impl std::fmt::Debug for TlsClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsClock")
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        (self.0)()
    }
}

/// One's own certificate chain and key.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key_pem: Secret,
}

impl TlsIdentity {
    /// From a chain (end entity first, then its authority) and its key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKey) -> Self {
        Self { chain, key_pem: key.to_pem() }
    }

    /// From PEM texts as they are stored.
    pub fn from_pem(chain_pem: &str, key_pem: &Secret) -> Result<Self, TlsError> {
        let chain = certificates_from_pem(chain_pem)?;
        PrivateKey::from_pem(key_pem)?;
        Ok(Self { chain, key_pem: key_pem.clone() })
    }

    /// Name, serial and validity of the certificate.
    pub fn describe(&self) -> Result<PeerIdentity, TlsError> {
        Ok(describe(self.end_entity()?)?)
    }

    fn end_entity(&self) -> Result<&CertificateDer<'static>, TlsError> {
        self.chain.first().ok_or(TlsError::EmptyChain)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let key = PrivateKey::from_pem(&self.key_pem)?;
        Ok(PrivatePkcs8KeyDer::from(key.pair().serialize_der()).into())
    }
}

/// Settings of a listener where every client shows a certificate.
#[derive(Debug, Clone)]
pub struct MutualServer {
    /// Our fleet.
    pub fleet: FleetId,
    /// The controller's certificate.
    pub identity: TlsIdentity,
    /// A name that clients are configured with; the own certificate is checked against it.
    pub server_name: ServerName<'static>,
    /// Controller authorities, to check the own certificate as clients will.
    pub controller_authorities: Vec<CertificateDer<'static>>,
    /// Authorities of agents; empty: agents cannot connect here.
    pub agent_authorities: Vec<CertificateDer<'static>>,
    /// Authorities of operators; empty: operators cannot connect here.
    pub operator_authorities: Vec<CertificateDer<'static>>,
    /// Consulted in every handshake.
    pub denied: Arc<DenyList>,
    /// The time that certificates are compared with.
    pub clock: TlsClock,
}

impl MutualServer {
    /// Checks the own certificate and builds the configuration.
    pub fn build(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = ControllerVerifier::trusting(
            self.fleet,
            self.server_name.clone(),
            &self.controller_authorities,
            &provider(),
        )?;
        check_server_identity(&self.identity, &verifier, &self.server_name, &self.clock)?;
        self.config()
    }

    /// Builds without checking the own certificate: for tests that play a controller with a bad one.
    #[cfg(feature = "unchecked-tls")]
    pub fn build_unchecked(&self) -> Result<Arc<ServerConfig>, TlsError> {
        self.config()
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let issuers =
            [(Role::Agent, &self.agent_authorities[..]), (Role::Operator, &self.operator_authorities[..])];
        let clients = FleetClientVerifier::new(self.fleet, &issuers, Arc::clone(&self.denied), &provider())?;
        let config = ServerConfig::builder_with_details(provider(), Arc::new(self.clock.clone()))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(clients))
            .with_single_cert(self.identity.chain.clone(), self.identity.key()?)?;
        Ok(Arc::new(without_resumption(config)))
    }
}

/// Settings of the enrolment listener: no client certificate is asked for (§1.1).
#[derive(Debug, Clone)]
pub struct EnrolmentServer {
    /// Our fleet.
    pub fleet: FleetId,
    /// The controller's certificate, with its authority in the chain: clients compare that one's pin.
    pub identity: TlsIdentity,
    /// A name that clients are configured with.
    pub server_name: ServerName<'static>,
    /// Controller authorities, to check the own certificate as clients will.
    pub controller_authorities: Vec<CertificateDer<'static>>,
    /// The time that certificates are compared with.
    pub clock: TlsClock,
}

impl EnrolmentServer {
    /// Checks the own certificate, as a pinned client will, and builds the configuration.
    pub fn build(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let pins =
            self.controller_authorities.iter().map(crate::ca::pin_of).collect::<Result<Vec<_>, _>>()?;
        let verifier =
            ControllerVerifier::pinned(Some(self.fleet), self.server_name.clone(), pins, &provider())?;
        check_server_identity(&self.identity, &verifier, &self.server_name, &self.clock)?;
        self.config()
    }

    /// Builds without checking the own certificate: for tests that play a controller with a bad one.
    #[cfg(feature = "unchecked-tls")]
    pub fn build_unchecked(&self) -> Result<Arc<ServerConfig>, TlsError> {
        self.config()
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let config = ServerConfig::builder_with_details(provider(), Arc::new(self.clock.clone()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.identity.chain.clone(), self.identity.key()?)?;
        Ok(Arc::new(without_resumption(config)))
    }
}

/// Settings of an agent or operator that has a certificate.
#[derive(Debug, Clone)]
pub struct MutualClient {
    /// Our fleet.
    pub fleet: FleetId,
    /// The own certificate.
    pub identity: TlsIdentity,
    /// Authorities of the own role, to check the own certificate as the controller will; empty: the
    /// authority that stands in the own chain (what an agent or operator has).
    pub own_authorities: Vec<CertificateDer<'static>>,
    /// Authorities that vouch for controllers.
    pub controller_authorities: Vec<CertificateDer<'static>>,
    /// The configured name of the controller, whatever address is dialled (§1.4).
    pub server_name: ServerName<'static>,
    /// The time that certificates are compared with.
    pub clock: TlsClock,
}

impl MutualClient {
    /// Checks the own certificate (name, fleet, time) and builds the configuration.
    pub fn build(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.check_own()?;
        self.config()
    }

    /// Builds without checking the own certificate: for tests that play a client with a bad one.
    #[cfg(feature = "unchecked-tls")]
    pub fn build_unchecked(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.config()
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier = ControllerVerifier::trusting(
            self.fleet,
            self.server_name.clone(),
            &self.controller_authorities,
            &provider(),
        )?;
        let config = ClientConfig::builder_with_details(provider(), Arc::new(self.clock.clone()))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.identity.chain.clone(), self.identity.key()?)?;
        Ok(Arc::new(as_client(config)))
    }

    fn check_own(&self) -> Result<(), TlsError> {
        let end_entity = self.identity.end_entity()?;
        let role = describe(end_entity)?.identity.role();
        if role == Role::Controller {
            return Err(TlsError::OwnRole(role));
        }
        let rest = &self.identity.chain[1..];
        let authorities = if self.own_authorities.is_empty() { rest } else { &self.own_authorities[..] };
        let nobody = DenyList::new(Denied::default());
        let verifier = FleetClientVerifier::new(self.fleet, &[(role, authorities)], nobody, &provider())?;
        let now = self.clock.current_time().ok_or(TlsError::NoTime)?;
        verifier.verify_client_cert(end_entity, rest, now).map_err(own_fault)?;
        Ok(())
    }
}

/// Settings of somebody who joins with a token and has no certificate yet.
#[derive(Debug, Clone)]
pub struct EnrolmentClient {
    /// Pins of controller authorities from the token.
    pub pins: Vec<Digest>,
    /// Our fleet where it is known (rejoin); `None` on the first join.
    pub fleet: Option<FleetId>,
    /// The configured name of the controller.
    pub server_name: ServerName<'static>,
    /// The time that certificates are compared with.
    pub clock: TlsClock,
}

impl EnrolmentClient {
    /// Builds the configuration. The pin is compared while the handshake runs, before any byte of the
    /// caller's is sent (§1.6).
    pub fn build(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier =
            ControllerVerifier::pinned(self.fleet, self.server_name.clone(), self.pins.clone(), &provider())?;
        let config = ClientConfig::builder_with_details(provider(), Arc::new(self.clock.clone()))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Arc::new(as_client(config)))
    }
}

/// A published server configuration; the newest is used for each new connection.
pub type ServerTls = watch::Receiver<Arc<ServerConfig>>;
/// A published client configuration; the newest is used for each new connection.
pub type ClientTls = watch::Receiver<Arc<ClientConfig>>;

/// Publishes a first configuration; `send_replace` on the sender puts a later one in its place.
/// Connections that exist stay as they are.
pub fn publish<C>(config: Arc<C>) -> (watch::Sender<Arc<C>>, watch::Receiver<Arc<C>>) {
    watch::channel(config)
}

/// The crypto provider, named at every builder: the process-wide default is never touched, so that it
/// does not matter which other provider some dependency compiles in.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config
}

fn as_client(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config
}

fn check_server_identity(
    identity: &TlsIdentity,
    verifier: &ControllerVerifier,
    server_name: &ServerName<'static>,
    clock: &TlsClock,
) -> Result<(), TlsError> {
    let end_entity = identity.end_entity()?;
    let now = clock.current_time().ok_or(TlsError::NoTime)?;
    verifier
        .verify_server_cert(end_entity, &identity.chain[1..], server_name, &[], now)
        .map_err(own_fault)?;
    Ok(())
}

fn own_fault(error: rustls::Error) -> TlsError {
    CertFault::of(&error).map_or(TlsError::Rustls(error), TlsError::OwnCertificate)
}
