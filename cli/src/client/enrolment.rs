//! The enrolment port: an invite for a certificate. The pin is compared before anything is sent.

use std::time::Duration;

use fleet_certs::CertificateDer;
use fleet_certs::dial::Connector;
use fleet_certs::tls::{EnrolmentClient, TlsClock, publish};
use fleet_certs::token::Token;
use fleet_proto::pb::enrol_service_client::EnrolServiceClient;
use fleet_proto::{MAX_CONTROL_BYTES, convert, pb};
use fleet_types::id::{FleetId, Name, OperatorId};
use fleet_types::seal::PublicKey;
use fleet_types::time::Timestamp;
use fleet_types::trust::{OperatorRole, RootKeys, SignedBundle};
use tonic::{Request, Status};

use super::connection::{endpoint, open, server_name};
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
    let config = settings.build().map_err(|error| Failure::unexpected("tls cannot be set up", &error))?;
    let (_publisher, tls) = publish(config);
    let channel =
        open(endpoint(redemption.address)?, Connector::new(tls, server), Dialled::Enrolment(context)).await?;
    let mut service = EnrolServiceClient::new(channel)
        .max_decoding_message_size(MAX_CONTROL_BYTES)
        .max_encoding_message_size(MAX_CONTROL_BYTES);
    let mut request = Request::new(pb::EnrolOperatorRequest {
        invite_id: invite.id.to_string(),
        invite_secret: invite.secret.expose().to_vec(),
        csr: redemption.request,
        content_key: redemption.content_key.as_bytes().to_vec(),
    });
    request.set_timeout(limit);
    let late = |_| Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs()));
    let outcome = tokio::time::timeout(limit, service.enrol_operator(request)).await.map_err(late);
    let reply = outcome.and_then(|reply| reply).map_err(|status| from_status(&status, context))?;
    read(&reply.into_inner()).map_err(|error| {
        Failure::new(ExitCode::Verification, "not-trusted", "the controller's answer cannot be read")
            .because(&error)
    })
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
