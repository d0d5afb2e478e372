//! The fake's two ports: accept, shake hands with the project's own TLS settings, hand over to tonic.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fleet_certs::csr::{PrivateKey, RequestedKey};
use fleet_certs::revoke::{Denied, DenyList};
use fleet_certs::tls::{EnrolmentServer, MutualServer, ServerTls, TlsClock, TlsIdentity, publish};
use fleet_certs::{ServerConfig, ServerName, accept, issue};
use fleet_proto::pb::enrol_service_server::EnrolServiceServer;
use fleet_proto::pb::operator_service_server::OperatorServiceServer;
use fleetctl::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::fake::Fake;
use crate::world::{SERVER_NAME, YEAR};

/// Starts both ports; gives their addresses, enrolment first.
pub async fn start(fake: &Fake) -> (String, String) {
    let now = clock::now();
    let key = PrivateKey::generate().unwrap();
    let requested = RequestedKey::of(&key).unwrap();
    let id = "0192f0c1-0000-7000-8000-000000000004".parse().unwrap();
    let names = [SERVER_NAME.to_owned()];
    // Stories go some days ahead.
    let days = YEAR / 12;
    let issued =
        issue::controller(&fake.controllers, (fake.fleet, id), &names, &requested, now, days).unwrap();
    let identity = TlsIdentity::new(issued.chain, &key);
    let server_name = ServerName::try_from(SERVER_NAME).unwrap();
    let controllers = vec![fake.controllers.certificate().clone()];
    let enrolment = EnrolmentServer {
        fleet: fake.fleet,
        identity: identity.clone(),
        server_name: server_name.clone(),
        controller_authorities: controllers.clone(),
        clock: TlsClock::reading(clock::now),
    };
    let mutual = MutualServer {
        fleet: fake.fleet,
        identity,
        server_name,
        controller_authorities: controllers,
        agent_authorities: vec![],
        operator_authorities: vec![fake.operators.certificate().clone()],
        denied: DenyList::new(Denied::default()),
        clock: TlsClock::reading(clock::now),
    };
    let (enrol, enrol_streams) = listen(enrolment.build().unwrap()).await;
    let (endpoint, streams) = listen(mutual.build().unwrap()).await;
    let enrol_server = Server::builder().add_service(EnrolServiceServer::new(fake.clone()));
    tokio::spawn(enrol_server.serve_with_incoming(enrol_streams));
    let server = Server::builder().add_service(OperatorServiceServer::new(fake.clone()));
    tokio::spawn(server.serve_with_incoming(streams));
    (enrol, endpoint)
}

type Incoming = ReceiverStream<Result<Io, io::Error>>;

async fn listen(config: Arc<ServerConfig>) -> (String, Incoming) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        let (_publisher, tls): (_, ServerTls) = publish(config);
        while let Ok((stream, _)) = listener.accept().await {
            // A handshake that fails concerns one connection only.
            if let Ok(stream) = accept::handshake(&tls, stream).await {
                let _ = sender.send(Ok(Io(Box::pin(stream)))).await;
            }
        }
    });
    (address, ReceiverStream::new(receiver))
}

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A TLS connection as tonic takes it.
struct Io(Pin<Box<dyn Duplex>>);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}
