//! A fleet's authorities, a forge for odd certificates, and a server that reports every handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use fleet_certs::accept::{self, AcceptError};
use fleet_certs::ca::Authority;
use fleet_certs::csr::{PrivateKey, RequestedKey};
use fleet_certs::dial::{Connector, DialError, DialedStream};
use fleet_certs::revoke::{Denied, DenyList};
use fleet_certs::tls::{ClientTls, MutualClient, MutualServer, ServerTls, TlsClock, TlsIdentity, publish};
use fleet_certs::{CertFault, OwnFault, PeerIdentity, Role, Secret, ServerConfig, ServerName, issue};
use fleet_types::id::{ControllerId, FleetId, NodeId, OperatorId};
use fleet_types::time::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub const SERVER_NAME: &str = "fleet.example";
pub const YEAR: Duration = Duration::from_hours(24 * 365);
/// Longest wait of a test for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).unwrap()
}

/// A clock that a test can turn.
#[derive(Debug, Clone)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.as_millis())))
    }

    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }

    pub fn tls(&self) -> TlsClock {
        let cell = Arc::clone(&self.0);
        TlsClock::reading(move || Timestamp::clamped(cell.load(Ordering::SeqCst)))
    }
}

/// One fleet.
pub struct World {
    pub fleet: FleetId,
    pub now: Timestamp,
    pub controllers: Authority,
    pub agents: Authority,
    pub operators: Authority,
    pub denied: Arc<DenyList>,
    pub clock: Clock,
}

impl World {
    pub fn new() -> Self {
        Self::of("0192f0c1-0000-7000-8000-000000000001")
    }

    pub fn of(fleet: &str) -> Self {
        let fleet: FleetId = fleet.parse().unwrap();
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let make = |role| Authority::create(role, fleet, now, YEAR).unwrap();
        Self {
            fleet,
            now,
            controllers: make(Role::Controller),
            agents: make(Role::Agent),
            operators: make(Role::Operator),
            denied: DenyList::new(Denied::default()),
            clock: Clock::at(now),
        }
    }

    pub fn node() -> NodeId {
        "0192f0c1-0000-7000-8000-000000000002".parse().unwrap()
    }

    pub fn person() -> OperatorId {
        "0192f0c1-0000-7000-8000-000000000003".parse().unwrap()
    }

    pub fn controller() -> ControllerId {
        "0192f0c1-0000-7000-8000-000000000004".parse().unwrap()
    }

    pub fn name(&self, role: Role) -> String {
        let uuid = match role {
            Role::Agent => Self::node().to_string(),
            Role::Operator => Self::person().to_string(),
            Role::Controller => Self::controller().to_string(),
        };
        format!("fleet://{}/{role}/{uuid}", self.fleet)
    }

    /// An honestly issued identity.
    pub fn honest(&self, role: Role) -> TlsIdentity {
        let key = PrivateKey::generate().unwrap();
        let requested = RequestedKey::from_request(&key.request().unwrap()).unwrap();
        let (now, life) = (self.now, issue::AGENT_LIFETIME);
        let issued = match role {
            Role::Agent => issue::agent(&self.agents, self.fleet, Self::node(), &requested, now, life),
            Role::Operator => {
                issue::operator(&self.operators, self.fleet, Self::person(), &requested, now, life)
            }
            Role::Controller => {
                let names = [SERVER_NAME.to_owned()];
                let name = (self.fleet, Self::controller());
                issue::controller(&self.controllers, name, &names, &requested, now, life)
            }
        };
        TlsIdentity::new(issued.unwrap().chain, &key)
    }

    /// What an honest certificate of the role says, for a test to spoil.
    pub fn params(&self, role: Role) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "forged");
        params.subject_alt_names = vec![uri(&self.name(role))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Controller {
            params.subject_alt_names.push(dns(SERVER_NAME));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        params.serial_number = Some(SerialNumber::from_slice(&[0x41; 16]));
        params.not_before = self.day(-1);
        params.not_after = self.day(1);
        params
    }

    pub fn day(&self, days: i64) -> time::OffsetDateTime {
        time::OffsetDateTime::from_unix_timestamp(self.now.as_millis() / 1000 + days * 86_400).unwrap()
    }

    pub fn mutual_server(&self, identity: TlsIdentity) -> MutualServer {
        MutualServer {
            fleet: self.fleet,
            identity,
            server_name: server_name(),
            controller_authorities: vec![self.controllers.certificate().clone()],
            agent_authorities: vec![self.agents.certificate().clone()],
            operator_authorities: vec![self.operators.certificate().clone()],
            denied: Arc::clone(&self.denied),
            clock: TlsClock::reading({
                let now = self.now;
                move || now
            }),
        }
    }

    pub fn mutual_client(&self, identity: TlsIdentity) -> MutualClient {
        MutualClient {
            fleet: self.fleet,
            identity,
            own_authorities: vec![],
            controller_authorities: vec![self.controllers.certificate().clone()],
            server_name: server_name(),
            clock: self.clock.tls(),
        }
    }

    /// An honest server for agents and operators.
    pub async fn serve(&self) -> Server {
        Server::start(self.mutual_server(self.honest(Role::Controller)).build().unwrap(), self.fleet).await
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

pub fn dns(text: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(text).unwrap())
}

/// Signs whatever it is told with an authority's real key.
pub fn forge(authority: &Authority, params: &CertificateParams) -> TlsIdentity {
    let pem = String::from_utf8(authority.key_pem().expose().to_vec()).unwrap();
    let issuer = Issuer::from_ca_cert_der(authority.certificate(), KeyPair::from_pem(&pem).unwrap()).unwrap();
    let key = PrivateKey::generate().unwrap();
    let pair = KeyPair::from_pem(std::str::from_utf8(key.to_pem().expose()).unwrap()).unwrap();
    let certificate = params.signed_by(&pair, &issuer).unwrap();
    TlsIdentity::new(vec![certificate.der().clone(), authority.certificate().clone()], &key)
}

/// A key pair of the forge that signs as if it were an authority.
pub fn key_of(secret: &Secret) -> KeyPair {
    KeyPair::from_pem(std::str::from_utf8(secret.expose()).unwrap()).unwrap()
}

/// How the server saw one connection: the peer (none on an enrolment listener), or the refusal.
pub type Seen = Result<Option<PeerIdentity>, AcceptError>;

/// Accepts one connection after the other; a failed handshake must not end it.
pub struct Server {
    pub port: u16,
    pub tls: tokio::sync::watch::Sender<Arc<ServerConfig>>,
    seen: mpsc::Receiver<Seen>,
}

impl Server {
    pub async fn start(config: Arc<ServerConfig>, fleet: FleetId) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tls, published) = publish(config);
        // One test connects a few dozen times at most and takes each report before the next connection.
        let (report, seen) = mpsc::channel(64);
        tokio::spawn(serve(listener, published, fleet, report));
        Self { port, tls, seen }
    }

    pub async fn seen(&mut self) -> Seen {
        within("the server's report", self.seen.recv()).await.unwrap()
    }

    pub fn uri(&self) -> http::Uri {
        format!("https://127.0.0.1:{}", self.port).parse().unwrap()
    }
}

async fn serve(listener: TcpListener, tls: ServerTls, fleet: FleetId, report: mpsc::Sender<Seen>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let seen = match accept::handshake(&tls, tcp).await {
            Err(error) => Err(error),
            Ok(mut stream) => {
                let peer = accept::peer(&stream, fleet).ok();
                // One byte to read, so that the client sees more than its own half of the handshake.
                let _ = stream.write_all(b"k").await;
                let _ = stream.shutdown().await;
                Ok(peer)
            }
        };
        if report.send(seen).await.is_err() {
            return;
        }
    }
}

/// What a client got: the connection with the server's byte, or the reason.
#[derive(Debug)]
pub enum Met {
    Served(Box<DialedStream>),
    Refused(OwnFault),
    Failed(DialError),
}

pub fn connector(client: &Arc<fleet_certs::ClientConfig>) -> Connector {
    let tls: ClientTls = publish(Arc::clone(client)).1;
    Connector::new(tls, server_name())
}

/// Dials, reads one byte, and tells how it went.
pub async fn meet(server: &Server, connector: &Connector) -> Met {
    let mut stream = match within("the connection", connector.dial(&server.uri())).await {
        Ok(stream) => stream,
        Err(error) => return Met::Failed(error),
    };
    let mut byte = [0];
    match within("the server's byte", stream.read_exact(&mut byte)).await {
        Ok(_) => Met::Served(Box::new(stream)),
        Err(error) => {
            Met::Refused(connector.refusals().take().unwrap_or_else(|| panic!("no alert but {error}")))
        }
    }
}

/// The fault for which the server refused a client.
pub fn refused(seen: Seen) -> CertFault {
    match seen {
        Err(AcceptError::Certificate { fault, .. }) => fault,
        other => panic!("expected a refused certificate, got {other:?}"),
    }
}
