//! The two gRPC servers behind the listeners: services, guard, and HTTP/2 limits.

use std::sync::Arc;
use std::time::Duration;

use fleet_certs::tls::ServerTls;
use fleet_proto::pb::agent_service_server::AgentServiceServer;
use fleet_proto::pb::enrol_service_server::EnrolServiceServer;
use fleet_proto::pb::operator_service_server::OperatorServiceServer;
use fleet_proto::{MAX_CONTROL_BYTES, MAX_MESSAGE_BYTES};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use super::agent::Agents;
use super::enrol::Enrol;
use super::guard::GuardLayer;
use super::limits::EnrolLimits;
use super::listener::Listener;
use super::operator::Operators;
use super::refusals::{ENROLMENT, MAIN, Refusals};
use crate::context::Context;
use crate::service::audit;

/// HTTP/2 pings on both ends, also when idle (security-and-delivery §2.13).
const PING: Duration = Duration::from_secs(20);
/// Streams of one connection: an agent has three, a person with several watches a dozen.
pub const STREAMS: u16 = 64;
/// A request's headers are a path and a few names.
const HEADER_BYTES: u32 = 16 * 1024;
/// Resets of a client that are pending (CVE-2023-44487, rapid reset).
const PENDING_RESETS: usize = 20;

/// What a client may have under way on one stream: a large report in a few round trips.
const STREAM_WINDOW: u32 = 128 * 1024;
/// And on its connection. More than one stream's, so that output which is not taken (a slow disk) holds up no result; small
/// enough that ten thousand agents that all print at once stay within a few GiB at the very most.
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// A server ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("server ended")]
pub struct ServeError(#[from] tonic::transport::Error);

/// What both servers share.
pub struct Servers {
    /// Shared handles.
    pub context: Arc<Context>,
    /// Counts what is refused.
    pub refusals: Arc<Refusals>,
    /// The tree over the audit log.
    pub tree: Arc<audit::Tree>,
    /// Sessions, streams and calls, so that a drain can wait for them.
    pub tracker: TaskTracker,
    /// Ends accepting, streams and servers.
    pub stop: CancellationToken,
}

impl Servers {
    fn builder(&self) -> Server<tower::layer::util::Stack<GuardLayer, tower::layer::util::Identity>> {
        Server::builder()
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PING))
            .max_concurrent_streams(Some(STREAMS.into()))
            .http2_max_header_list_size(Some(HEADER_BYTES))
            .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .layer(GuardLayer {
                context: Arc::clone(&self.context),
                refusals: Arc::clone(&self.refusals),
                tracker: self.tracker.clone(),
            })
    }

    fn listener(&self, name: &'static str, socket: TcpListener, tls: ServerTls) -> Listener {
        Listener { name, socket, tls, fleet: None, refusals: Arc::clone(&self.refusals) }
    }

    /// Serves agents and operators until the stop.
    pub async fn main(&self, socket: TcpListener, tls: ServerTls) -> Result<(), ServeError> {
        let listener =
            Listener { fleet: Some(self.context.identities.fleet.fleet), ..self.listener(MAIN, socket, tls) };
        let incoming = listener.start(&self.context.settings.agent_port, self.stop.clone());
        let agents = Agents {
            context: Arc::clone(&self.context),
            refusals: Arc::clone(&self.refusals),
            stop: self.stop.clone(),
            tracker: self.tracker.clone(),
        };
        let operators = Operators {
            context: Arc::clone(&self.context),
            tree: Arc::clone(&self.tree),
            stop: self.stop.clone(),
            tracker: self.tracker.clone(),
        };
        let agents = AgentServiceServer::new(agents)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let operators = OperatorServiceServer::new(operators)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let router = self.builder().add_service(agents).add_service(operators);
        Ok(router.serve_with_incoming_shutdown(incoming, self.stop.cancelled()).await?)
    }

    /// Serves enrolment and health, without client certificates, until the stop.
    pub async fn enrolment(&self, socket: TcpListener, tls: ServerTls) -> Result<(), ServeError> {
        let incoming =
            self.listener(ENROLMENT, socket, tls).start(&self.context.settings.enrol_port, self.stop.clone());
        let enrol = Enrol {
            context: Arc::clone(&self.context),
            limits: EnrolLimits::new(self.context.settings.enrol_per_minute),
            refusals: Arc::clone(&self.refusals),
        };
        let enrol = EnrolServiceServer::new(enrol)
            .max_decoding_message_size(MAX_CONTROL_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<EnrolServiceServer<Enrol>>().await;
        let router = self.builder().add_service(enrol).add_service(health);
        Ok(router.serve_with_incoming_shutdown(incoming, self.stop.cancelled()).await?)
    }
}
