//! The enrolment port: an invite for a certificate, or another one after the last has ended. The pin is compared before
//! anything is sent.

use std::time::Duration;

use fleet_certs::dial::Connector;
use fleet_certs::tls::{EnrolmentClient, TlsClock, publish};
use fleet_certs::token::Token;
use fleet_certs::{CertificateDer, ServerName};
use fleet_proto::pb::enrol_service_client::EnrolServiceClient;
use fleet_proto::{MAX_CONTROL_BYTES, convert, pb};
use fleet_types::digest::Digest;
use fleet_types::id::{FleetId, Name, OperatorId};
use fleet_types::seal::PublicKey;
use fleet_types::time::Timestamp;
use fleet_types::trust::{OperatorRole, RootKeys, SignedBundle};
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::connection::{endpoint, open, server_name};
use crate::context::Context;
use crate::error::{Dialled, ExitCode, Failure, from_status};

/// What is handed in.
#[derive(Debug)]
pub struct EnrolmentRequest<'a> {
    /// The invite.
    pub invite: &'a Token,
    /// Enrolment address, host:port.
    pub address: &'a str,
    /// Name in the controller's certificate.
    pub server_name: &'a str,
    /// Certificate request, DER.
    pub request: Vec<u8>,
    /// Public half of the content key.
    pub content_key: PublicKey,
    /// The context that it is for, for messages.
    pub context: &'a str,
    /// Longest wait.
    pub limit: Duration,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// What came back: well-formed, and not yet believed.
#[derive(Debug)]
pub struct EnrolledOperator {
    /// The fleet.
    pub fleet: FleetId,
    /// Who we are.
    pub operator: OperatorId,
    /// Our name.
    pub name: Name,
    /// Our role.
    pub role: OperatorRole,
    /// Our certificate and its authority's.
    pub chain: Vec<CertificateDer<'static>>,
    /// The fleet's root keys.
    pub roots: RootKeys,
    /// The trust bundle.
    pub bundle: SignedBundle,
}

/// Redeems an invite.
pub async fn redeem(redemption: EnrolmentRequest<'_>) -> Result<EnrolledOperator, Failure> {
    let EnrolmentRequest { invite, context, limit, .. } = redemption;
    let server = server_name(redemption.server_name)?;
    let settings = EnrolmentClient {
        pins: invite.controller_pins.clone(),
        fleet: None,
        server_name: server.clone(),
        clock: TlsClock::reading(redemption.now),
    };
    let mut service = connect(settings, server, redemption.address, context).await?;
    let mut request = Request::new(pb::EnrolOperatorRequest {
        invite_id: invite.id.to_string(),
        invite_secret: invite.secret.expose().to_vec(),
        csr: redemption.request,
        content_key: redemption.content_key.as_bytes().to_vec(),
    });
    request.set_timeout(limit);
    let outcome = tokio::time::timeout(limit, service.enrol_operator(request)).await.map_err(|_| late(limit));
    let reply = outcome.and_then(|reply| reply).map_err(|status| from_status(&status, context))?;
    read(&reply.into_inner()).map_err(|error| {
        Failure::new(ExitCode::Verification, "not-trusted", "the controller's answer cannot be read")
            .because(&error)
    })
}

/// What is handed in to come back with a certificate that has ended.
#[derive(Debug)]
pub struct RejoinRequest<'a> {
    /// The context.
    pub context: &'a Context,
    /// Pins of the controller authorities that it knows.
    pub pins: Vec<Digest>,
    /// The last certificate, DER.
    pub certificate: Vec<u8>,
    /// Certificate request, DER.
    pub request: Vec<u8>,
    /// By the key of the last certificate.
    pub signature: Vec<u8>,
    /// By the content key.
    pub content_signature: Vec<u8>,
    /// Longest wait.
    pub limit: Duration,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// Asks for another certificate; gives its chain, not yet believed.
pub async fn rejoin(asked: RejoinRequest<'_>) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let (context, limit) = (asked.context, asked.limit);
    let server = server_name(&context.server_name)?;
    let settings = EnrolmentClient {
        pins: asked.pins,
        fleet: Some(context.fleet),
        server_name: server.clone(),
        clock: TlsClock::reading(asked.now),
    };
    let name = context.name.as_str();
    let mut service = connect(settings, server, &context.enrol, name).await?;
    let mut request = Request::new(pb::RejoinRequest {
        certificate: asked.certificate,
        csr: asked.request,
        signature: asked.signature,
        content_signature: asked.content_signature,
    });
    request.set_timeout(limit);
    let outcome = tokio::time::timeout(limit, service.rejoin(request)).await.map_err(|_| late(limit));
    let reply = outcome.and_then(|reply| reply).map_err(|status| from_status(&status, name))?;
    Ok(reply.into_inner().certificate_chain.into_iter().map(CertificateDer::from).collect())
}

fn late(limit: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs()))
}

async fn connect(
    settings: EnrolmentClient,
    server: ServerName<'static>,
    address: &str,
    context: &str,
) -> Result<EnrolServiceClient<Channel>, Failure> {
    let config = settings.build().map_err(|error| Failure::unexpected("tls cannot be set up", &error))?;
    let (_publisher, tls) = publish(config);
    let channel = open(endpoint(address)?, Connector::new(tls, server), Dialled::Enrolment(context)).await?;
    Ok(EnrolServiceClient::new(channel)
        .max_decoding_message_size(MAX_CONTROL_BYTES)
        .max_encoding_message_size(MAX_CONTROL_BYTES))
}

fn read(reply: &pb::EnrolOperatorReply) -> Result<EnrolledOperator, convert::FieldError> {
    let role = serde_json::from_value(reply.role.clone().into());
    Ok(EnrolledOperator {
        fleet: convert::text("fleet_id", &reply.fleet_id)?,
        operator: convert::text("operator_id", &reply.operator_id)?,
        name: convert::text("operator_name", &reply.operator_name)?,
        role: role.map_err(|_| convert::FieldError::new("role", "is not known here"))?,
        chain: reply.certificate_chain.iter().map(|der| CertificateDer::from(der.clone())).collect(),
        roots: convert::json("root_keys", &reply.root_keys)?,
        bundle: convert::json("trust_bundle", &reply.trust_bundle)?,
    })
}
