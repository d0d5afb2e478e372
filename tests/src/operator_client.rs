//! An operator as fleetctl is one: redeems the invite, has its content key listed, signs, starts, reads.
//!
//! Keys stay in memory. A call whose controller is gone is made again until the limit, because every call is a
//! read or bears a key that makes a repetition harmless; [`OperatorClient::raw`] calls once and as it likes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use fleet_certs::csr::PrivateKey;
use fleet_certs::tls::TlsIdentity;
use fleet_certs::token::{Token, TokenKind};
use fleet_certs::{CertificateDer, ClientConfig, files};
use fleet_proto::pb::enrol_service_client::EnrolServiceClient;
use fleet_proto::pb::operator_service_client::OperatorServiceClient;
use fleet_proto::{MAX_MESSAGE_BYTES, convert, pb};
use fleet_types::digest::Digest;
use fleet_types::id::{FleetId, NodeId, OperatorId, RunId};
use fleet_types::seal::SigningKey;
use fleet_types::trust::{ContentKey, OperatorRole, RootKeys, SignedBundle, TrustBundle};
use fleet_types::view;
use serde::de::DeserializeOwned;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::channel;
use crate::clock;
use crate::controller_process::ControllerProcess;
use crate::orders::{self, Order, SignedOrder};
use crate::wait::{PATIENCE, wait_for};

/// The service's client.
pub type Service = OperatorServiceClient<Channel>;

/// One operator.
pub struct OperatorClient {
    service: Service,
    tls: Arc<ClientConfig>,
    content_key: SigningKey,
    /// The fleet.
    pub fleet: FleetId,
    /// The operator.
    pub operator: OperatorId,
    /// The operator's certificate and key.
    pub identity: TlsIdentity,
    /// Authorities of controllers.
    pub controllers: Vec<CertificateDer<'static>>,
    roots: RootKeys,
    name: String,
}

impl OperatorClient {
    /// Redeems an invite on the enrolment port and connects.
    pub async fn enrol(controller: &ControllerProcess, invite: &str) -> Result<Self> {
        let invite = Token::parse(TokenKind::Operator, invite)?;
        let key = PrivateKey::generate()?;
        let content_key = SigningKey::generate()?.0;
        let tls = channel::enrolment_tls(&invite)?;
        let channel = channel::connect(controller.enrol_address(), &tls).await?;
        let reply = EnrolServiceClient::new(channel)
            .enrol_operator(pb::EnrolOperatorRequest {
                invite_id: invite.id.to_string(),
                invite_secret: invite.secret.expose().to_vec(),
                csr: key.request()?,
                content_key: content_key.public().as_bytes().to_vec(),
            })
            .await?
            .into_inner();
        let fleet: FleetId = convert::text("fleet_id", &reply.fleet_id)?;
        let roots: RootKeys = convert::json("root_keys", &reply.root_keys)?;
        ensure!(roots.pin() == invite.root_pin, "the root keys are not those of the invite");
        let signed: SignedBundle = convert::json("trust_bundle", &reply.trust_bundle)?;
        let bundle = signed.open(&roots, fleet, 0)?;
        let chain = reply.certificate_chain.into_iter().map(CertificateDer::from).collect();
        let identity = TlsIdentity::new(chain, &key);
        let controllers = controllers(&bundle);
        let tls = channel::mutual_tls(fleet, identity.clone(), controllers.clone())?;
        Ok(Self {
            service: service(controller.agent_address(), &tls)?,
            tls,
            content_key,
            fleet,
            operator: convert::text("operator_id", &reply.operator_id)?,
            identity,
            controllers,
            roots,
            name: reply.operator_name,
        })
    }

    /// Publishes the next trust bundle with the own content key listed, signed with the root key of the file.
    pub async fn list_content_key(&self, root_key: &Path) -> Result<()> {
        let root = SigningKey::from_pem(&files::read_secret(root_key)?)?;
        let current: view::TrustView = self
            .view("get_trust_bundle", async |s| s.get_trust_bundle(pb::TrustBundleRequest {}).await)
            .await?;
        let bundle = current.bundle.open(&self.roots, self.fleet, 0)?;
        let mut next = TrustBundle { version: bundle.version + 1, issued: clock::now(), ..bundle };
        next.content_keys.push(ContentKey {
            key: self.content_key.public(),
            operator: self.operator,
            person: self.name.parse()?,
            role: OperatorRole::SecurityAdmin,
        });
        let request = pb::PublishTrustBundleRequest {
            reason: String::new(),
            trust_bundle: serde_json::to_vec(&next.sign(&root)?)?,
            idempotency_key: key(),
        };
        let _: view::Done = self
            .view("publish_trust_bundle", async |s| s.publish_trust_bundle(request.clone()).await)
            .await?;
        Ok(())
    }

    /// The client itself, for a call that is made once.
    pub fn raw(&self) -> Service {
        self.service.clone()
    }

    /// The TLS settings with the operator's certificate.
    pub fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// The key that signs documents and requests.
    pub const fn content_key(&self) -> &SigningKey {
        &self.content_key
    }

    /// Makes a call until the controller answers; refusals come back at once.
    pub async fn view<T: DeserializeOwned>(
        &self,
        what: &str,
        call: impl AsyncFn(&mut Service) -> Result<Response<pb::View>, Status>,
    ) -> Result<T> {
        let answer = wait_for(&format!("an answer to {what}"), PATIENCE, async || {
            match call(&mut self.service.clone()).await {
                Ok(response) => Ok(Some(Ok(response.into_inner().json))),
                Err(status) if is_gone(&status) => Err(status.into()),
                Err(status) => Ok(Some(Err(status))),
            }
        })
        .await??;
        convert::json("view", &answer).with_context(|| format!("the answer to {what}"))
    }

    /// A join token for a new node.
    pub async fn join_token(
        &self,
        node: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<view::JoinTokenView> {
        let request = pb::CreateJoinTokenRequest {
            node_name: node.to_owned(),
            labels: labels.clone().into_iter().collect(),
            lifetime_seconds: 3600,
            idempotency_key: key(),
            replace_labels: false,
        };
        self.view("create_join_token", async |s| s.create_join_token(request.clone()).await).await
    }

    /// Applies documents; each must stand on its own or on those before it. Returns their digests.
    pub async fn apply(&self, documents: &[(&str, &str)]) -> Result<Vec<Digest>> {
        let mut digests = Vec::new();
        let texts: Vec<&str> = documents.iter().map(|(_, text)| *text).collect();
        let mut signed = Vec::new();
        for (name, text) in documents {
            let others: Vec<&str> = texts.iter().copied().filter(|other| other != text).collect();
            let one = orders::sign_document(&self.content_key, self.fleet, name, text, &others)?;
            digests.push(one.envelope.digest());
            signed.push(pb::SignedDocument {
                envelope: serde_json::to_vec(&one.envelope)?,
                source: one.source.into_bytes(),
                source_name: one.name,
            });
        }
        let request = pb::ApplyDocumentsRequest {
            documents: signed,
            idempotency_key: key(),
            reason: "a story".to_owned(),
            dry_run: false,
        };
        let _: view::ApplyView =
            self.view("apply_documents", async |s| s.apply_documents(request.clone()).await).await?;
        Ok(digests)
    }

    /// Signs an order; nothing is sent.
    pub fn sign(&self, order: &Order) -> Result<SignedOrder> {
        orders::sign_request(&self.content_key, self.fleet, order, clock::now())
    }

    /// The message that starts a signed order.
    pub fn start_request(order: &SignedOrder) -> pb::StartRunRequest {
        pb::StartRunRequest {
            request: order.envelope.clone(),
            nodes: order.nodes.clone(),
            idempotency_key: order.idempotency_key.clone(),
            procedure: Vec::new(),
        }
    }

    /// Starts a signed order.
    pub async fn start(&self, order: &SignedOrder) -> Result<view::RunView> {
        let request = Self::start_request(order);
        self.view("start_run", async |s| s.start_run(request.clone()).await).await
    }

    /// One run.
    pub async fn run(&self, run: RunId) -> Result<view::RunView> {
        self.view("get_run", async |s| s.get_run(pb::RunRequest { run: run.to_string() }).await).await
    }

    /// All runs, newest first.
    pub async fn runs(&self) -> Result<Vec<view::RunItem>> {
        self.pages("list_runs", async |s, after| {
            s.list_runs(pb::ListRequest { after, limit: 500, selector: String::new() }).await
        })
        .await
    }

    /// All jobs of a run.
    pub async fn jobs(&self, run: RunId) -> Result<Vec<view::JobItem>> {
        self.pages("list_jobs", async |s, after| {
            s.list_jobs(pb::ListJobsRequest { run: run.to_string(), after, limit: 500 }).await
        })
        .await
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<view::NodeItem>> {
        self.pages("list_nodes", async |s, after| {
            s.list_nodes(pb::ListRequest { after, limit: 500, selector: String::new() }).await
        })
        .await
    }

    async fn pages<T: DeserializeOwned>(
        &self,
        what: &str,
        call: impl AsyncFn(&mut Service, String) -> Result<Response<pb::View>, Status>,
    ) -> Result<Vec<T>> {
        let (mut items, mut after) = (Vec::new(), String::new());
        loop {
            let page: view::Page<T> = self.view(what, async |s| call(s, after.clone()).await).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => after = next,
                None => return Ok(items),
            }
        }
    }

    /// One job with its report.
    pub async fn job(&self, run: RunId, node: &str) -> Result<view::JobView> {
        let request = pb::GetJobRequest { run: run.to_string(), node: node.to_owned() };
        self.view("get_job", async |s| s.get_job(request.clone()).await).await
    }

    /// One node.
    pub async fn node(&self, name: &str) -> Result<view::NodeView> {
        self.view("get_node", async |s| s.get_node(pb::NameRequest { name: name.to_owned() }).await).await
    }

    /// Gives a node work again.
    pub async fn release(&self, node: &str) -> Result<view::Done> {
        let request = node_order(node);
        self.view("release_node", async |s| s.release_node(request.clone()).await).await
    }

    /// Takes a node's record and certificate away.
    pub async fn remove(&self, node: &str) -> Result<view::Done> {
        let request = node_order(node);
        self.view("remove_node", async |s| s.remove_node(request.clone()).await).await
    }

    /// Stops a run; the call is made once.
    pub async fn cancel(&self, run: RunId) -> Result<Vec<u8>> {
        let request = pb::CancelRunRequest {
            run: run.to_string(),
            reason: "the story says so".to_owned(),
            idempotency_key: key(),
        };
        Ok(self.raw().cancel_run(request).await?.into_inner().json)
    }

    /// Size and root of the log.
    pub async fn audit_head(&self) -> Result<view::AuditHead> {
        self.view("get_audit_head", async |s| s.get_audit_head(pb::AuditHeadRequest {}).await).await
    }

    /// Stored bytes of records `from..to`.
    pub async fn audit_bytes(&self, from: u64, to: u64) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut stream = self.raw().read_audit(pb::ReadAuditRequest { from, to }).await?.into_inner();
        let mut records = Vec::new();
        while let Some(leaf) = stream.message().await? {
            records.push((leaf.index, leaf.record));
        }
        Ok(records)
    }

    /// Waits until a run has ended.
    pub async fn wait_run(&self, run: RunId) -> Result<view::RunView> {
        wait_for(&format!("run {run} to end"), PATIENCE, async || {
            let view = self.run(run).await?;
            if view.item.state.is_terminal() {
                return Ok(Some(view));
            }
            anyhow::bail!("it is {} with {:?} open", view.item.state.as_str(), view.open)
        })
        .await
    }
}

fn node_order(node: &str) -> pb::NodeOrderRequest {
    pb::NodeOrderRequest {
        name: node.to_owned(),
        reason: "the story says so".to_owned(),
        idempotency_key: key(),
    }
}

/// An order for `nodes` with documents that [`OperatorClient::apply`] returned digests of.
pub fn order(procedure: Digest, profile: Digest, nodes: Vec<NodeId>, max_parallel: u32) -> Order {
    Order { procedure, profile, nodes, max_parallel, valid_for: std::time::Duration::from_hours(1) }
}

/// Authorities of controllers that a bundle lists.
pub fn controllers(bundle: &TrustBundle) -> Vec<CertificateDer<'static>> {
    bundle.controller_authorities.iter().map(|a| CertificateDer::from(a.certificate.clone())).collect()
}

/// The operator service over a channel that connects by itself.
pub fn service(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Service> {
    Ok(OperatorServiceClient::new(channel::connect_lazily(address, tls)?)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// Did the call fail because nobody was there? A broken connection shows as `Unknown`, `Cancelled` or
/// `Internal` of the transport, whose source is not a status of the controller.
pub fn is_gone(status: &Status) -> bool {
    let from_controller = status.metadata().get_bin("fleet-error-bin").is_some();
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
        && !from_controller
}

/// A fresh idempotency key.
pub fn key() -> String {
    uuid::Uuid::new_v4().to_string()
}
