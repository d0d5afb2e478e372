//! The scripted controller's part about certificates: invites, renewals, coming back.

use fleet_certs::csr::RequestedKey;
use fleet_certs::issue::{self, Issued};
use fleet_certs::{CertificateDer, Role, rejoin};
use fleet_proto::pb::enrol_service_server::EnrolService;
use fleet_proto::{convert, pb};
use fleet_types::seal::{Kind, PublicKey};
use fleet_types::trust::OperatorRole;
use fleetctl::clock;
use tonic::{Code, Request, Response, Status};

use crate::answers::refusal;
use crate::fake::{Fake, operator};
use crate::world::YEAR;

/// How a renewal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The controller is of an earlier release.
    NotBuilt,
    /// It gives a good certificate.
    Good,
    /// It gives one, and does not accept it.
    Refused,
    /// It gives somebody else's.
    Anothers,
}

fn chain(issued: &Issued) -> Vec<Vec<u8>> {
    issued.chain.iter().map(|der| der.to_vec()).collect()
}

impl Fake {
    /// Answers a renewal as the script says.
    pub fn renewed(&self, request: &pb::RenewRequest) -> Result<Response<pb::RenewReply>, Status> {
        let key = RequestedKey::from_request(&request.csr).unwrap();
        let mut state = self.state.lock().unwrap();
        state.asked_for.push(key.digest());
        let who = match state.renewal {
            Renewal::NotBuilt => return Err(Status::unimplemented("an earlier release")),
            Renewal::Good | Renewal::Refused => operator(),
            Renewal::Anothers => "0192f0c1-0000-7000-8000-000000000004".parse().unwrap(),
        };
        let issued =
            issue::operator(&self.operators, self.fleet, who, &key, clock::now(), YEAR / 50).unwrap();
        Ok(Response::new(pb::RenewReply { certificate_chain: chain(&issued) }))
    }
}

#[tonic::async_trait]
impl EnrolService for Fake {
    async fn enrol(&self, _: Request<pb::EnrolRequest>) -> Result<Response<pb::EnrolReply>, Status> {
        Err(Status::unimplemented("not part of these stories"))
    }

    async fn rejoin(&self, request: Request<pb::RejoinRequest>) -> Result<Response<pb::RenewReply>, Status> {
        let r = request.into_inner();
        let subject = rejoin::subject(self.fleet, &r.certificate, &r.csr);
        let authorities = [self.operators.certificate().clone()];
        let issuers = [(Role::Operator, &authorities[..])];
        let certificate = CertificateDer::from(r.certificate);
        let proof = (subject, r.signature.as_slice());
        rejoin::verify(self.fleet, &issuers, &certificate, proof).unwrap();
        let mut state = self.state.lock().unwrap();
        let content_key = state.content_key.unwrap();
        content_key.verify(Kind::Rejoin, self.fleet, subject, &r.content_signature).unwrap();
        let key = RequestedKey::from_request(&r.csr).unwrap();
        state.asked_for.push(key.digest());
        if state.renewal != Renewal::Good {
            return Err(refusal(Code::Unauthenticated, "rejoin-refused", "it ended too long ago", ""));
        }
        // Longer than the clock of the story is ahead.
        let issued = issue::operator(&self.operators, self.fleet, operator(), &key, clock::now(), YEAR / 2);
        Ok(Response::new(pb::RenewReply { certificate_chain: chain(&issued.unwrap()) }))
    }

    async fn enrol_operator(
        &self,
        request: Request<pb::EnrolOperatorRequest>,
    ) -> Result<Response<pb::EnrolOperatorReply>, Status> {
        let r = request.into_inner();
        if r.invite_id != self.invite.id.to_string() || r.invite_secret != self.invite.secret.expose() {
            return Err(refusal(
                Code::PermissionDenied,
                "token-refused",
                "the invite is not known",
                "ask for a new one",
            ));
        }
        let key = RequestedKey::from_request(&r.csr).unwrap();
        let issued =
            issue::operator(&self.operators, self.fleet, operator(), &key, clock::now(), YEAR / 100).unwrap();
        let mut state = self.state.lock().unwrap();
        state.content_key = Some(PublicKey::from_slice(&r.content_key).unwrap());
        Ok(Response::new(pb::EnrolOperatorReply {
            fleet_id: self.fleet.to_string(),
            operator_id: operator().to_string(),
            operator_name: "ada".into(),
            role: OperatorRole::SecurityAdmin.as_str().into(),
            certificate_chain: chain(&issued),
            root_keys: convert::to_json(&self.roots),
            trust_bundle: convert::to_json(&state.signed),
        }))
    }
}
