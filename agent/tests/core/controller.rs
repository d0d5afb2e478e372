//! A scripted controller: the test decides what is answered, and sees everything that arrives.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use fleet_certs::ServerConfig;
use fleet_certs::accept::handshake;
use fleet_certs::tls::publish;
use fleet_proto::pb;
use fleet_proto::pb::agent_service_server::{AgentService, AgentServiceServer};
use fleet_proto::pb::enrol_service_server::{EnrolService, EnrolServiceServer};
use fleet_proto::pb::{agent_message, controller_message};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::wait::within;

type Answer = Box<dyn FnMut(pb::EnrolRequest) -> Result<pb::EnrolReply, Status> + Send>;

pub struct Controller {
    pub address: SocketAddr,
    /// Connections whose handshake has succeeded.
    pub handshakes: Arc<AtomicUsize>,
    pub documents: Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>,
    pub fetches: Arc<AtomicUsize>,
    sessions: mpsc::Receiver<Session>,
    outputs: mpsc::Receiver<OutputCall>,
    renewals: mpsc::Receiver<RenewCall>,
    rejoins: mpsc::Receiver<RejoinCall>,
    _serving: AbortOnDropHandle<()>,
}

/// One session as the controller sees it.
pub struct Session {
    pub epoch: u64,
    pub seq: u64,
    pub from_agent: mpsc::Receiver<pb::AgentMessage>,
    pub to_agent: mpsc::Sender<Result<pb::ControllerMessage, Status>>,
    ending: oneshot::Receiver<bool>,
}

/// One output stream.
pub struct OutputCall {
    pub chunks: Streaming<pb::OutputChunk>,
    pub answers: mpsc::Sender<Result<pb::OutputStored, Status>>,
}

/// A request for a new certificate.
pub struct RenewCall {
    pub csr: Vec<u8>,
    pub answer: oneshot::Sender<Result<pb::RenewReply, Status>>,
}

/// Somebody comes back whose certificate has ended.
pub struct RejoinCall {
    pub request: pb::RejoinRequest,
    pub answer: oneshot::Sender<Result<pb::RenewReply, Status>>,
}

#[derive(Clone)]
struct Service {
    sessions: mpsc::Sender<Session>,
    outputs: mpsc::Sender<OutputCall>,
    renewals: mpsc::Sender<RenewCall>,
    rejoins: mpsc::Sender<RejoinCall>,
    documents: Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>,
    fetches: Arc<AtomicUsize>,
    answer: Arc<Mutex<Answer>>,
}

impl Controller {
    /// Serves both services with one TLS configuration on a free port.
    pub async fn start(tls: Arc<ServerConfig>) -> Self {
        Self::answering(tls, |_| Err(Status::unimplemented("no enrolment here"))).await
    }

    /// The same with an answer to enrolment.
    pub async fn answering(
        tls: Arc<ServerConfig>,
        answer: impl FnMut(pb::EnrolRequest) -> Result<pb::EnrolReply, Status> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sessions_in, sessions) = mpsc::channel(8);
        let (outputs_in, outputs) = mpsc::channel(8);
        let (renewals_in, renewals) = mpsc::channel(8);
        let (rejoins_in, rejoins) = mpsc::channel(8);
        let service = Service {
            sessions: sessions_in,
            outputs: outputs_in,
            renewals: renewals_in,
            rejoins: rejoins_in,
            documents: Arc::default(),
            fetches: Arc::default(),
            answer: Arc::new(Mutex::new(Box::new(answer))),
        };
        let handshakes = Arc::new(AtomicUsize::new(0));
        let (documents, fetches, count) =
            (service.documents.clone(), service.fetches.clone(), handshakes.clone());
        let serving = AbortOnDropHandle::new(tokio::spawn(async move {
            let (accepted, incoming) = mpsc::channel(8);
            let accepting = async move {
                let (_sender, tls) = publish(tls);
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    // One after another is enough for a test with one agent.
                    if let Ok(stream) = handshake(&tls, tcp).await {
                        count.fetch_add(1, Ordering::SeqCst);
                        if accepted.send(Ok::<_, std::io::Error>(Io(stream))).await.is_err() {
                            return;
                        }
                    }
                }
            };
            // As those of the real one: output that nobody takes holds up no session.
            let server = Server::builder()
                .initial_stream_window_size(128 * 1024)
                .initial_connection_window_size(512 * 1024)
                .add_service(AgentServiceServer::new(service.clone()))
                .add_service(EnrolServiceServer::new(service))
                .serve_with_incoming(ReceiverStream::new(incoming));
            tokio::select! {
                () = accepting => {}
                ended = server => ended.unwrap(),
            }
        }));
        Self {
            address,
            handshakes,
            documents,
            fetches,
            sessions,
            outputs,
            renewals,
            rejoins,
            _serving: serving,
        }
    }

    /// The next session that an agent opens.
    pub async fn session(&mut self) -> Session {
        within("an agent opens a session", self.sessions.recv()).await.unwrap()
    }

    /// The next session, with Hello taken and Welcome sent.
    pub async fn welcomed(&mut self, epoch: u64) -> Session {
        let mut session = self.session().await;
        session.hello().await;
        session.welcome(epoch).await;
        session
    }

    /// The next request for a new certificate.
    pub async fn renewal(&mut self) -> RenewCall {
        within("an agent asks for a new certificate", self.renewals.recv()).await.unwrap()
    }

    /// The next who comes back.
    pub async fn rejoin(&mut self) -> RejoinCall {
        within("an agent comes back", self.rejoins.recv()).await.unwrap()
    }

    pub async fn output(&mut self) -> OutputCall {
        within("an agent opens an output stream", self.outputs.recv()).await.unwrap()
    }
}

impl Session {
    /// The next message that is no heartbeat; heartbeats are answered.
    pub async fn next(&mut self) -> agent_message::Body {
        loop {
            let message =
                within("the agent sends a message", self.from_agent.recv()).await.expect("session is open");
            match message.body.expect("a body") {
                agent_message::Body::Heartbeat(_) => {
                    self.send(controller_message::Body::Heartbeat(pb::HeartbeatReply { time_ms: 0 })).await;
                }
                body => return body,
            }
        }
    }

    pub async fn hello(&mut self) -> pb::Hello {
        match self.next().await {
            agent_message::Body::Hello(hello) => hello,
            other => panic!("{other:?} instead of hello"),
        }
    }

    pub async fn welcome(&mut self, epoch: u64) {
        self.welcome_with(epoch, 200).await;
    }

    pub async fn welcome_with(&mut self, epoch: u64, heartbeat_interval_ms: u32) {
        let welcome = pb::Welcome { heartbeat_interval_ms, ..welcome() };
        self.epoch = epoch;
        self.send(controller_message::Body::Welcome(welcome)).await;
    }

    /// With a statement that a real executor believes.
    pub async fn welcome_signed(&mut self, epoch: u64, dispatch: Vec<u8>, heartbeat_interval_ms: u32) {
        self.epoch = epoch;
        let welcome = pb::Welcome { dispatch, heartbeat_interval_ms, ..welcome() };
        self.send(controller_message::Body::Welcome(welcome)).await;
    }

    /// Sends a body with the right epoch and number. A session that has ended takes nothing; the test sees
    /// that by its messages.
    pub async fn send(&mut self, body: controller_message::Body) {
        self.seq += 1;
        self.send_raw(self.epoch, self.seq, body).await;
    }

    pub async fn send_raw(&mut self, link_epoch: u64, seq: u64, body: controller_message::Body) {
        let _ = self.to_agent.send(Ok(pb::ControllerMessage { link_epoch, seq, body: Some(body) })).await;
    }

    /// Takes messages until the agent has closed its side in good order.
    pub async fn left(mut self) {
        self.ended().await;
        let orderly = within("the session's end is known", &mut self.ending).await;
        assert_eq!(orderly, Ok(true), "the link broke instead of being closed");
    }

    /// Answers heartbeats until the agent has ended the session; was that in good order?
    pub fn beating(mut self) -> AbortOnDropHandle<bool> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(message) = self.from_agent.recv().await {
                if matches!(message.body, Some(agent_message::Body::Heartbeat(_))) {
                    self.send(controller_message::Body::Heartbeat(pb::HeartbeatReply { time_ms: 0 })).await;
                }
            }
            self.ending.await.is_ok_and(|orderly| orderly)
        }))
    }

    /// Takes messages until the agent has ended the session.
    pub async fn ended(&mut self) {
        within("the agent ends the session", async { while self.from_agent.recv().await.is_some() {} }).await;
    }
}

fn welcome() -> pb::Welcome {
    pb::Welcome {
        protocol: 1,
        generation: 1,
        heartbeat_interval_ms: 200,
        reconnect_spread_ms: 20,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = ReceiverStream<Result<pb::ControllerMessage, Status>>;
    type OutputStream = ReceiverStream<Result<pb::OutputStored, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut stream = request.into_inner();
        let (to_test, from_agent) = mpsc::channel(1024);
        let (to_agent, outgoing) = mpsc::channel(64);
        let (ended, ending) = oneshot::channel();
        tokio::spawn(async move {
            let orderly = loop {
                match stream.message().await {
                    Ok(Some(message)) => {
                        if to_test.send(message).await.is_err() {
                            return;
                        }
                    }
                    ended => break ended.is_ok(),
                }
            };
            let _ = ended.send(orderly);
        });
        let _ = self.sessions.send(Session { epoch: 0, seq: 0, from_agent, to_agent, ending }).await;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn fetch_document(
        &self,
        request: Request<pb::FetchDocumentRequest>,
    ) -> Result<Response<pb::FetchDocumentReply>, Status> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let documents = self.documents.lock().unwrap();
        let envelope = documents.get(&request.get_ref().digest).cloned();
        Ok(Response::new(pb::FetchDocumentReply {
            envelope: envelope.ok_or_else(|| Status::unavailable("not yet"))?,
        }))
    }

    async fn confirm(
        &self,
        request: Request<pb::ConfirmRequest>,
    ) -> Result<Response<pb::ConfirmReply>, Status> {
        Ok(Response::new(pb::ConfirmReply { nonce: request.into_inner().nonce }))
    }

    async fn put_copy(&self, _: Request<pb::CopyPiece>) -> Result<Response<pb::CopyTaken>, Status> {
        Err(Status::unimplemented("no copies here"))
    }

    async fn put_packages(&self, _: Request<pb::Packages>) -> Result<Response<pb::PackagesTaken>, Status> {
        Err(Status::unimplemented("no packages here"))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewReply>, Status> {
        let (answer, answered) = oneshot::channel();
        let _ = self.renewals.send(RenewCall { csr: request.into_inner().csr, answer }).await;
        answered
            .await
            .unwrap_or_else(|_| Err(Status::unavailable("the test gives no answer")))
            .map(Response::new)
    }

    async fn output(
        &self,
        request: Request<Streaming<pb::OutputChunk>>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        let (answers, outgoing) = mpsc::channel(64);
        let _ = self.outputs.send(OutputCall { chunks: request.into_inner(), answers }).await;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

#[tonic::async_trait]
impl EnrolService for Service {
    async fn rejoin(&self, request: Request<pb::RejoinRequest>) -> Result<Response<pb::RenewReply>, Status> {
        let (answer, answered) = oneshot::channel();
        let _ = self.rejoins.send(RejoinCall { request: request.into_inner(), answer }).await;
        answered
            .await
            .unwrap_or_else(|_| Err(Status::unavailable("the test gives no answer")))
            .map(Response::new)
    }

    async fn enrol(&self, request: Request<pb::EnrolRequest>) -> Result<Response<pb::EnrolReply>, Status> {
        (self.answer.lock().unwrap())(request.into_inner()).map(Response::new)
    }

    async fn enrol_operator(
        &self,
        _: Request<pb::EnrolOperatorRequest>,
    ) -> Result<Response<pb::EnrolOperatorReply>, Status> {
        Err(Status::unimplemented("agents only"))
    }
}

/// A stream that tonic serves.
struct Io<T>(T);

impl<T> Connected for Io<T> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<T: AsyncRead + Unpin> AsyncRead for Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Io<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
