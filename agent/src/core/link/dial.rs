//! Dialling: endpoints in their order, one connection, keepalive on, errors in words.
//!
//! The certificate is checked against the configured server name whatever address was dialled; that and the
//! TLS settings are the connector's. Nothing is retried here: pauses belong to the link's owner.

use std::time::Duration;

use fleet_certs::ServerName;
use fleet_certs::dial::{Connector, DialError};
use fleet_certs::tls::ClientTls;
use fleet_proto::pb::agent_service_client::AgentServiceClient;
use fleet_proto::{MAX_CONTROL_BYTES, MAX_MESSAGE_BYTES};
use tonic::transport::{Channel, Endpoint};
use tracing::warn;

use crate::config::Timers;
use crate::error::chain;

/// Flow-control windows: a few control messages and one document fit; a controller cannot make the agent
/// hold more.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Header lists of the controller (security-and-delivery §1.22).
const HEADER_LIST_BYTES: u32 = 16 * 1024;

/// The service over one connection.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the session and the output: control messages only.
    pub control: AgentServiceClient<Channel>,
    /// For documents.
    pub documents: AgentServiceClient<Channel>,
    /// The endpoint that answered.
    pub endpoint: String,
}

/// Dials controllers.
#[derive(Debug, Clone)]
pub struct Dialer {
    endpoints: Vec<String>,
    connector: Connector,
    connect: Duration,
    keepalive: Duration,
}

impl Dialer {
    /// `tls` is read anew for every connection, so that a renewed certificate is used by the next.
    pub fn new(
        endpoints: Vec<String>,
        tls: ClientTls,
        server_name: ServerName<'static>,
        timers: &Timers,
    ) -> Self {
        Self {
            endpoints,
            connector: Connector::new(tls, server_name).with_limits(timers.connect, timers.connect),
            connect: timers.connect,
            keepalive: timers.keepalive,
        }
    }

    /// The first endpoint that answers; `None` when none did, each with its reason in the log.
    pub async fn dial(&self) -> Option<Clients> {
        for address in &self.endpoints {
            match self.connect(address).await {
                Ok(channel) => return Some(clients(&channel, address)),
                Err(error) => {
                    let words = DialError::find(&error).map_or_else(|| chain(&error), |dial| chain(dial));
                    warn!(endpoint = address, "cannot connect: {words}");
                }
            }
        }
        None
    }

    /// What the controller said about our certificate after a call failed: in TLS 1.3 that comes late.
    pub fn refusal(&self) -> Option<fleet_certs::OwnFault> {
        self.connector.refusals().take()
    }

    async fn connect(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        // The scheme is only a form: TLS is the connector's.
        Endpoint::from_shared(format!("http://{address}"))?
            .user_agent(concat!("fleet-agent/", env!("CARGO_PKG_VERSION")))?
            // Both limits of the connector, and a moment.
            .connect_timeout(self.connect * 3)
            .http2_keep_alive_interval(self.keepalive)
            .keep_alive_timeout(self.keepalive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_header_list_size(HEADER_LIST_BYTES)
            .connect_with_connector(self.connector.clone())
            .await
    }
}

fn clients(channel: &Channel, address: &str) -> Clients {
    let client = |limit| {
        AgentServiceClient::new(channel.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    };
    Clients {
        control: client(MAX_CONTROL_BYTES),
        documents: client(MAX_MESSAGE_BYTES),
        endpoint: address.to_owned(),
    }
}
