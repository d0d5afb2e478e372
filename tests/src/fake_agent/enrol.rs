//! Joining: a token redeemed on the enrolment port, as an agent does it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use fleet_certs::csr::PrivateKey;
use fleet_certs::tls::TlsIdentity;
use fleet_certs::token::{Token, TokenKind};
use fleet_certs::{CertificateDer, ClientConfig, Secret};
use fleet_proto::pb::enrol_service_client::EnrolServiceClient;
use fleet_proto::{convert, pb};
use fleet_types::id::{FleetId, NodeId};
use fleet_types::seal::SigningKey;
use fleet_types::trust::{RootKeys, SignedBundle, TrustBundle};
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::channel;

/// What a node has after it joined. Serialised by the simulator, into a folder of its own that goes with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// The fleet.
    pub fleet: FleetId,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its pair, as its labels say.
    pub pair: Option<String>,
    key_pem: String,
    chain: Vec<Vec<u8>>,
    report_pkcs8: Vec<u8>,
    bundle: TrustBundle,
}

/// The keys that a node makes before it joins.
pub struct NewKeys {
    /// For the certificate.
    pub key: PrivateKey,
    /// For reports.
    pub report: SigningKey,
    report_pkcs8: Vec<u8>,
}

impl NewKeys {
    /// Fresh keys.
    pub fn generate() -> Result<Self> {
        let (report, report_pkcs8) = SigningKey::generate()?;
        Ok(Self { key: PrivateKey::generate()?, report, report_pkcs8 })
    }
}

/// The message that redeems a token with these keys.
pub fn request(token: &Token, keys: &NewKeys) -> Result<pb::EnrolRequest> {
    Ok(pb::EnrolRequest {
        token_id: token.id.to_string(),
        token_secret: token.secret.expose().to_vec(),
        csr: keys.key.request()?,
        report_key: keys.report.public().as_bytes().to_vec(),
        agent_version: "0.1.0-fake".to_owned(),
    })
}

/// Redeems a token once; the outer error is of the connection.
pub async fn redeem(
    address: SocketAddr,
    source: Option<IpAddr>,
    token: &Token,
    keys: &NewKeys,
) -> Result<Result<pb::EnrolReply, Status>> {
    let tls = channel::enrolment_tls(token)?;
    let channel = match source {
        Some(source) => channel::connect_from(source, address, &tls).await?,
        None => channel::connect(address, &tls).await?,
    };
    let reply = EnrolServiceClient::new(channel).enrol(request(token, keys)?).await;
    Ok(reply.map(tonic::Response::into_inner))
}

impl Credentials {
    /// Joins with a token.
    pub async fn enrol(address: SocketAddr, source: Option<IpAddr>, token: &str) -> Result<Self> {
        let token = Token::parse(TokenKind::Node, token)?;
        let keys = NewKeys::generate()?;
        let reply = redeem(address, source, &token, &keys).await?.context("the token was refused")?;
        Self::from_reply(&token, keys, reply)
    }

    /// Checks the answer as an agent does.
    pub fn from_reply(token: &Token, keys: NewKeys, reply: pb::EnrolReply) -> Result<Self> {
        let fleet: FleetId = convert::text("fleet_id", &reply.fleet_id)?;
        let roots: RootKeys = convert::json("root_keys", &reply.root_keys)?;
        ensure!(roots.pin() == token.root_pin, "the root keys are not those of the token");
        let signed: SignedBundle = convert::json("trust_bundle", &reply.trust_bundle)?;
        Ok(Self {
            fleet,
            node: convert::text("node_id", &reply.node_id)?,
            name: reply.node_name,
            pair: reply.labels.get("ha_group").cloned(),
            key_pem: String::from_utf8(keys.key.to_pem().expose().to_vec())?,
            chain: reply.certificate_chain,
            report_pkcs8: keys.report_pkcs8,
            bundle: signed.open(&roots, fleet, 0)?,
        })
    }

    /// Certificate chain and key.
    pub fn identity(&self) -> Result<TlsIdentity> {
        let key = PrivateKey::from_pem(&Secret::new(self.key_pem.clone()))?;
        Ok(TlsIdentity::new(self.chain.iter().cloned().map(CertificateDer::from).collect(), &key))
    }

    /// TLS settings with the node's certificate.
    pub fn tls(&self) -> Result<Arc<ClientConfig>> {
        channel::mutual_tls(self.fleet, self.identity()?, self.controllers())
    }

    /// Authorities of controllers.
    pub fn controllers(&self) -> Vec<CertificateDer<'static>> {
        crate::operator_client::controllers(&self.bundle)
    }

    /// The bundle that came with the certificate.
    pub const fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// The report key.
    pub fn report_key(&self) -> Result<SigningKey> {
        Ok(SigningKey::from_pkcs8(&self.report_pkcs8)?)
    }
}
