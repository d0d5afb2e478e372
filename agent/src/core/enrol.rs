//! Redeeming a join token: the one call that an agent makes without a certificate.
//!
//! The controller's authority is compared with the token's pins while the handshake runs, before a byte of
//! the request is sent (security-and-delivery §1.6). What comes back is believed only as far as it can be
//! checked: root keys by the token's pin, the bundle by the root keys, the certificate by its name, its key
//! and the rules that a controller will apply. Nothing is written here; the caller stores the result.

use fleet_certs::ca::pin_of;
use fleet_certs::csr::{PrivateKey, RequestError};
use fleet_certs::dial::{Connector, DialError};
use fleet_certs::slots::StoredIdentity;
use fleet_certs::tls::{EnrolmentClient, TlsClock, TlsError, publish};
use fleet_certs::token::Token;
use fleet_certs::verify::{NameError, describe};
use fleet_certs::{CertificateDer, Identity, ServerName};
use fleet_proto::convert::{self, FieldError};
use fleet_proto::pb::enrol_service_client::EnrolServiceClient;
use fleet_proto::{MAX_CONTROL_BYTES, pb};
use fleet_types::label::Labels;
use fleet_types::seal::PublicKey;
use fleet_types::time::Timestamp;
use fleet_types::trust::{RootKeys, SignedBundle, TrustBundle, TrustError};
use tokio::time::timeout;
use tonic::transport::Endpoint;

use super::identity;

use crate::clock;
use crate::config::Timers;
use crate::error::chain;
use crate::node::NodeRecord;

/// Why the node did not join.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No connection.
    #[error("cannot connect to the enrolment service: {0}")]
    Dial(String),
    /// Not the controller that the token names. No byte of the request was sent.
    #[error("nothing was sent: {0}")]
    WrongController(String),
    /// The transport failed for another reason.
    #[error("cannot connect to the enrolment service at {address}")]
    Transport {
        /// As configured.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// No answer in time; the token may be used: the same command again brings the same certificate.
    #[error("the enrolment service did not answer in time: run the same command again")]
    Timeout,
    /// The controller said no.
    #[error("the controller refused the join token: {0}")]
    Refused(String),
    /// The call broke; the token may be used: the same command again brings the same certificate.
    #[error("the answer of the enrolment service was lost ({0}): run the same command again")]
    Lost(String),
    /// The key or the request.
    #[error("the certificate request cannot be made")]
    Request(#[from] RequestError),
    /// TLS settings, or the certificate does not hold our key or would be refused.
    #[error("the certificate cannot be used")]
    Tls(#[from] TlsError),
    /// A field of the reply.
    #[error("the controller's answer cannot be understood")]
    Reply(#[from] FieldError),
    /// The certificate's form.
    #[error("the certificate that the controller issued is not of an agent's form")]
    Name(#[from] NameError),
    /// The certificate names somebody else.
    #[error("the certificate that the controller issued is {found}'s, expected was {expected}'s")]
    OtherIdentity {
        /// Expected.
        expected: Identity,
        /// Found.
        found: Identity,
    },
    /// The root keys are not those of the token.
    #[error(
        "the controller sent root keys that the token does not name: another fleet answered, or the token is damaged"
    )]
    RootPin,
    /// The bundle does not open.
    #[error("the trust bundle of the controller is refused")]
    Bundle(#[from] TrustError),
    /// The bundle does not list the authority that the token pins.
    #[error(
        "the trust bundle does not list the controller authority that the token names: ask for a new token"
    )]
    Unlisted,
}

/// Everything to be stored.
#[derive(Debug)]
pub struct Enrolled {
    /// The node's record.
    pub record: NodeRecord,
    /// Key, certificate and controller authorities.
    pub identity: StoredIdentity,
    /// End of the certificate.
    pub not_after: Timestamp,
    /// The fleet's root keys.
    pub roots: RootKeys,
    /// The trust bundle.
    pub bundle: SignedBundle,
}

/// Redeems `token` with `key` at `address`. The report key is the executor's; only its public half is known here.
pub async fn redeem(
    address: &str,
    server_name: ServerName<'static>,
    token: &Token,
    key: &PrivateKey,
    report_key: &PublicKey,
    timers: &Timers,
) -> Result<Enrolled, EnrolError> {
    let request = pb::EnrolRequest {
        token_id: token.id.to_string(),
        token_secret: token.secret.expose().to_vec(),
        csr: key.request()?,
        report_key: report_key.as_bytes().to_vec(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let reply = call(address, server_name.clone(), token, request, timers).await?;
    check(&reply, server_name, token, key)
}

async fn call(
    address: &str,
    server_name: ServerName<'static>,
    token: &Token,
    request: pb::EnrolRequest,
    timers: &Timers,
) -> Result<pb::EnrolReply, EnrolError> {
    let config = EnrolmentClient {
        pins: token.controller_pins.clone(),
        fleet: None,
        server_name: server_name.clone(),
        clock: TlsClock::reading(clock::now),
    };
    let (_published, tls) = publish(config.build()?);
    let connector = Connector::new(tls, server_name).with_limits(timers.connect, timers.connect);
    let transport = |source| EnrolError::Transport { address: address.to_owned(), source };
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .map_err(transport)?
        .connect_timeout(timers.connect * 3)
        .connect_with_connector(connector)
        .await
        .map_err(|error| dial_error(address, error))?;
    let mut client = EnrolServiceClient::new(channel).max_decoding_message_size(MAX_CONTROL_BYTES);
    match timeout(timers.document, client.enrol(request)).await {
        Err(_) => Err(EnrolError::Timeout),
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(refusal(&status)),
    }
}

/// The connector's own words where it has some: tonic's own say nothing.
fn dial_error(address: &str, error: tonic::transport::Error) -> EnrolError {
    match DialError::find(&error) {
        Some(dial @ DialError::TheirCertificate { .. }) => EnrolError::WrongController(chain(dial)),
        Some(dial) => EnrolError::Dial(chain(dial)),
        None => EnrolError::Transport { address: address.to_owned(), source: error },
    }
}

fn refusal(status: &tonic::Status) -> EnrolError {
    use tonic::Code;
    let text: String = status.message().chars().filter(|c| !c.is_control()).take(300).collect();
    match status.code() {
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::InvalidArgument
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::ResourceExhausted => EnrolError::Refused(text),
        code => EnrolError::Lost(format!("{code}: {text}")),
    }
}

fn check(
    reply: &pb::EnrolReply,
    server_name: ServerName<'static>,
    token: &Token,
    key: &PrivateKey,
) -> Result<Enrolled, EnrolError> {
    let fleet = convert::text("fleet_id", &reply.fleet_id)?;
    let node = convert::text("node_id", &reply.node_id)?;
    let roots: RootKeys = convert::json("root_keys", &reply.root_keys)?;
    if roots.pin() != token.root_pin {
        return Err(EnrolError::RootPin);
    }
    let bundle: SignedBundle = convert::json("trust_bundle", &reply.trust_bundle)?;
    let opened = bundle.open(&roots, fleet, 0)?;
    let controller_authorities = controller_authorities(&opened, token)?;
    let chain: Vec<_> = reply.certificate_chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let leaf = chain.first().ok_or_else(|| FieldError::new("certificate_chain", "is empty"))?;
    let certificate = describe(leaf)?;
    let expected = Identity::Agent(fleet, node);
    if certificate.identity != expected {
        return Err(EnrolError::OtherIdentity { expected, found: certificate.identity });
    }
    let identity = StoredIdentity { key_pem: key.to_pem(), chain, controller_authorities };
    // As a controller will look at it; also refuses a certificate of another key than ours.
    identity::client(&identity, fleet, server_name)?;
    let labels = Labels::new(reply.labels.clone()).map_err(|e| FieldError::new("labels", e))?;
    let name = convert::text("node_name", &reply.node_name)?;
    let record =
        NodeRecord::new((fleet, node), (name, labels), token.id.to_string(), certificate.fingerprint);
    Ok(Enrolled { record, identity, not_after: certificate.not_after, roots, bundle })
}

/// The authorities of the root-signed bundle, one of which the token must have named.
fn controller_authorities(
    bundle: &TrustBundle,
    token: &Token,
) -> Result<Vec<CertificateDer<'static>>, EnrolError> {
    let authorities: Vec<_> =
        bundle.controller_authorities.iter().map(|a| CertificateDer::from(a.certificate.clone())).collect();
    let pinned = authorities.iter().any(|a| pin_of(a).is_ok_and(|pin| token.controller_pins.contains(&pin)));
    if pinned { Ok(authorities) } else { Err(EnrolError::Unlisted) }
}
