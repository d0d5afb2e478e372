//! The enrolment port's service.

use std::sync::Arc;

use fleet_proto::pb;
use fleet_proto::pb::enrol_service_server::EnrolService;
use fleet_types::seal::PublicKey;
use tonic::{Request, Response, Status};

use super::limits::EnrolLimits;
use super::peer;
use super::refusals::Refusals;
use super::status::to_status;
use crate::context::{Context, Identities};
use crate::error::{ControllerError, Kind, Result};
use crate::service::enrolment::{self, EnrolmentRequest};
use crate::service::operators;
use crate::service::rejoin::{self, RejoinRequest};

/// Serves tokens and invites.
pub struct Enrol {
    /// Shared handles.
    pub context: Arc<Context>,
    /// Rate.
    pub limits: EnrolLimits,
    /// Counts refused tries.
    pub refusals: Arc<Refusals>,
}

fn trust_bytes(identities: &Identities) -> (Vec<u8>, Vec<u8>) {
    let trust = identities.trust.get();
    (fleet_proto::convert::to_json(&identities.fleet.roots), fleet_proto::convert::to_json(&trust.1))
}

impl Enrol {
    fn refused(&self, address: std::net::IpAddr, error: ControllerError) -> Status {
        if matches!(error.kind, Kind::Unauthenticated | Kind::Exhausted) {
            if error.kind == Kind::Unauthenticated {
                self.limits.failed(address);
            }
            self.refusals.count("enrol", address, &error.detail.message);
        }
        to_status(error)
    }

    async fn check_rate(&self, token_id: &str, address: std::net::IpAddr) -> Result<()> {
        if enrolment::is_issued(&self.context.storage, token_id).await? {
            self.limits.check_token(token_id)
        } else {
            self.limits.check_address(address)
        }
    }

    async fn node(&self, request: &pb::EnrolRequest, address: std::net::IpAddr) -> Result<pb::EnrolReply> {
        self.check_rate(&request.token_id, address).await?;
        let text = address.to_string();
        let redemption = EnrolmentRequest {
            token_id: &request.token_id,
            secret: &request.token_secret,
            csr: &request.csr,
            second_key: PublicKey::from_slice(&request.report_key)
                .map_err(|error| ControllerError::invalid("report_key", error))?,
            address: &text,
        };
        let enrolled = enrolment::enrol_node(&self.context, &redemption).await?;
        let (root_keys, trust_bundle) = trust_bytes(&self.context.identities);
        Ok(pb::EnrolReply {
            fleet_id: self.context.identities.fleet.fleet.to_string(),
            node_id: enrolled.node.id.to_string(),
            node_name: enrolled.node.name.to_string(),
            certificate_chain: enrolled.chain,
            root_keys,
            trust_bundle,
            labels: enrolled.node.labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        })
    }

    async fn person(
        &self,
        request: &pb::EnrolOperatorRequest,
        address: std::net::IpAddr,
    ) -> Result<pb::EnrolOperatorReply> {
        self.check_rate(&request.invite_id, address).await?;
        let text = address.to_string();
        let redemption = EnrolmentRequest {
            token_id: &request.invite_id,
            secret: &request.invite_secret,
            csr: &request.csr,
            second_key: PublicKey::from_slice(&request.content_key)
                .map_err(|error| ControllerError::invalid("content_key", error))?,
            address: &text,
        };
        let enrolled = operators::enrol(&self.context, &redemption).await?;
        let (root_keys, trust_bundle) = trust_bytes(&self.context.identities);
        Ok(pb::EnrolOperatorReply {
            fleet_id: self.context.identities.fleet.fleet.to_string(),
            operator_id: enrolled.operator.id.to_string(),
            operator_name: enrolled.operator.name.to_string(),
            role: enrolled.operator.role.as_str().to_owned(),
            certificate_chain: enrolled.chain,
            root_keys,
            trust_bundle,
        })
    }
}

impl Enrol {
    async fn back(&self, request: &pb::RejoinRequest, address: std::net::IpAddr) -> Result<pb::RenewReply> {
        self.limits.check_address(address)?;
        let text = address.to_string();
        let asked = RejoinRequest {
            certificate: &request.certificate,
            csr: &request.csr,
            signature: &request.signature,
            content_signature: &request.content_signature,
            address: &text,
        };
        let holder = rejoin::prove(&self.context, &asked)?;
        // Whoever has the key is no guesser, and is limited alone.
        self.limits.check_token(&holder.id())?;
        let certificate_chain = rejoin::give(&self.context, &holder, &asked).await?;
        Ok(pb::RenewReply { certificate_chain })
    }
}

#[tonic::async_trait]
impl EnrolService for Enrol {
    async fn rejoin(&self, request: Request<pb::RejoinRequest>) -> Result<Response<pb::RenewReply>, Status> {
        let address = peer::of(&request)?.address.ip();
        let reply = self.back(request.get_ref(), address).await;
        reply.map(Response::new).map_err(|error| self.refused(address, error))
    }

    async fn enrol(&self, request: Request<pb::EnrolRequest>) -> Result<Response<pb::EnrolReply>, Status> {
        let address = peer::of(&request)?.address.ip();
        let reply = self.node(request.get_ref(), address).await;
        reply.map(Response::new).map_err(|error| self.refused(address, error))
    }

    async fn enrol_operator(
        &self,
        request: Request<pb::EnrolOperatorRequest>,
    ) -> Result<Response<pb::EnrolOperatorReply>, Status> {
        let address = peer::of(&request)?.address.ip();
        let reply = self.person(request.get_ref(), address).await;
        reply.map(Response::new).map_err(|error| self.refused(address, error))
    }
}
