//! The floor's side of a session: welcome, push, verify, commit, acknowledge. No rules, no views, no fencing.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context as _, Result};
use fleet_proto::pb::agent_service_server::AgentService;
use fleet_proto::{convert, pb};
use fleet_types::assignment::{Assignment, sign_wave};
use fleet_types::authority::Authority;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, FleetId, Generation, JobId, LinkEpoch, NodeId};
use fleet_types::merkle::Tree;
use fleet_types::request::node_leaf;
use fleet_types::seal::{Kind, PublicKey, SigningKey};
use fleet_types::trust::SignedDispatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::plan::Round;
use super::store_floor::Records;

/// Messages under way to one node, as on the controller.
const OUTGOING: usize = 32;

type ToAgent = Result<pb::ControllerMessage, Status>;
type ControllerBody = pb::controller_message::Body;
type AgentBody = pb::agent_message::Body;

/// A connection with the node of its certificate.
pub struct PeerStream {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Whose it is.
    pub node: NodeId,
}

impl Connected for PeerStream {
    type ConnectInfo = NodeId;

    fn connect_info(&self) -> NodeId {
        self.node
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// One node's stream with the number of its last message.
#[derive(Clone)]
struct Link(Arc<Mutex<(u64, mpsc::Sender<ToAgent>)>>);

impl Link {
    fn send(&self, body: ControllerBody) {
        let mut link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        link.0 += 1;
        let message = pb::ControllerMessage { link_epoch: 1, seq: link.0, body: Some(body) };
        // A node has few messages under way; one that takes none has gone, and the measurement fails by it.
        let _ = link.1.try_send(Ok(message));
    }
}

/// What all sessions share.
pub struct Shared {
    /// The fleet.
    pub fleet: FleetId,
    /// Signs waves.
    pub dispatch: SigningKey,
    /// Vouches for that key.
    pub statement: SignedDispatch,
    /// Where results go.
    pub records: Records,
    /// Keys of reports.
    pub report_keys: HashMap<NodeId, PublicKey>,
    /// Signed requests by digest.
    pub requests: HashMap<Digest, Vec<u8>>,
    links: Mutex<HashMap<NodeId, Link>>,
}

impl Shared {
    /// Nobody is connected yet.
    pub fn new(
        fleet: FleetId,
        (dispatch, statement): (SigningKey, SignedDispatch),
        records: Records,
        report_keys: HashMap<NodeId, PublicKey>,
        requests: HashMap<Digest, Vec<u8>>,
    ) -> Self {
        Self { fleet, dispatch, statement, records, report_keys, requests, links: Mutex::default() }
    }

    /// Writes the jobs and the offers of a round, signs one wave, sends it.
    pub async fn push(&self, round: &Round, request: Digest) -> Result<()> {
        let names: Vec<String> = round.nodes.iter().map(ToString::to_string).collect();
        let run = round.run.to_string();
        self.records.submit(&run, &names).await?;
        self.records.offer(&run, &names).await?;
        let tree = Tree::new(round.nodes.iter().map(|node| node_leaf(*node)).collect());
        let mut wave = Vec::with_capacity(round.nodes.len());
        for (n, node) in round.nodes.iter().enumerate() {
            wave.push(Assignment {
                job: JobId::first(round.run, *node),
                attempt: Attempt(1),
                authority: Authority::Request(request),
                node_index: u32::try_from(n)?,
                node_path: tree.proof(n).context("a node without a place")?,
                generation: Generation(1),
                link_epoch: LinkEpoch(1),
            });
        }
        let proofs = sign_wave(&wave, self.fleet, &self.dispatch);
        for (assignment, proof) in wave.iter().zip(&proofs) {
            let link =
                self.links.lock().unwrap_or_else(PoisonError::into_inner).get(&assignment.job.node).cloned();
            let body =
                pb::Assign { assignment: convert::to_json(assignment), proof: convert::to_json(proof) };
            link.context("a node is not connected")?.send(ControllerBody::Assign(body));
        }
        Ok(())
    }

    async fn serve(&self, node: NodeId, link: &Link, mut inbound: Streaming<pb::AgentMessage>) -> Result<()> {
        inbound.message().await?.context("no hello")?;
        link.send(ControllerBody::Welcome(pb::Welcome {
            protocol: 1,
            generation: 1,
            heartbeat_interval_ms: 30_000,
            reconnect_spread_ms: 2_000,
            dispatch: convert::to_json(&self.statement),
            ..Default::default()
        }));
        self.links.lock().unwrap_or_else(PoisonError::into_inner).insert(node, link.clone());
        while let Some(message) = inbound.message().await? {
            match message.body {
                Some(AgentBody::Reconcile(_)) => {
                    link.send(ControllerBody::Reconcile(pb::ReconcileReply::default()));
                }
                Some(AgentBody::Heartbeat(_)) => {
                    link.send(ControllerBody::Heartbeat(pb::HeartbeatReply::default()));
                }
                Some(AgentBody::Report(report)) => self.on_report(node, link, report).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn on_report(&self, node: NodeId, link: &Link, report: pb::SealedReport) -> Result<()> {
        let digest = Digest::of(&report.payload);
        let key = self.report_keys.get(&node).context("an unknown node")?;
        key.verify(Kind::Report, self.fleet, digest, &report.signature)?;
        let number = usize::from(digest.as_bytes()[0]);
        self.records.result(&report.run, &node.to_string(), number).await?;
        let ack =
            pb::ReportAck { run: report.run, attempt: report.attempt, digest: digest.as_bytes().to_vec() };
        link.send(ControllerBody::ReportAck(ack));
        Ok(())
    }
}

/// The service.
#[derive(Clone)]
pub struct Floor(pub Arc<Shared>);

#[tonic::async_trait]
impl AgentService for Floor {
    type SessionStream = ReceiverStream<ToAgent>;
    type OutputStream = ReceiverStream<Result<pb::OutputStored, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = *request.extensions().get::<NodeId>().ok_or_else(|| Status::unauthenticated("nobody"))?;
        let (out, stream) = mpsc::channel(OUTGOING);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            let link = Link(Arc::new(Mutex::new((0, out))));
            if let Err(error) = shared.serve(node, &link, request.into_inner()).await {
                tracing::debug!("{node}: {error:#}");
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_document(
        &self,
        request: Request<pb::FetchDocumentRequest>,
    ) -> Result<Response<pb::FetchDocumentReply>, Status> {
        let digest = convert::digest("digest", &request.get_ref().digest)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let envelope =
            self.0.requests.get(&digest).cloned().ok_or_else(|| Status::not_found("no such request"))?;
        Ok(Response::new(pb::FetchDocumentReply { envelope }))
    }

    async fn confirm(&self, _: Request<pb::ConfirmRequest>) -> Result<Response<pb::ConfirmReply>, Status> {
        Err(Status::unimplemented("the floor has no guards"))
    }

    async fn put_copy(&self, _: Request<pb::CopyPiece>) -> Result<Response<pb::CopyTaken>, Status> {
        Err(Status::unimplemented("the floor takes no copies"))
    }

    async fn put_packages(&self, _: Request<pb::Packages>) -> Result<Response<pb::PackagesTaken>, Status> {
        Err(Status::unimplemented("no packages here"))
    }

    async fn renew(&self, _: Request<pb::RenewRequest>) -> Result<Response<pb::RenewReply>, Status> {
        Err(Status::unimplemented("no certificates here"))
    }

    async fn output(
        &self,
        _: Request<Streaming<pb::OutputChunk>>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        Err(Status::unimplemented("the floor has no output"))
    }
}
