//! Connecting: identity of the context, mutual TLS, limits on messages and waits.

use std::sync::Arc;
use std::time::Duration;

use fleet_certs::dial::{Connector, Refusals};
use fleet_certs::slots::{IdentityDir, SlotError, StoredIdentity};
use fleet_certs::tls::{MutualClient, TlsClock, TlsError, publish};
use fleet_certs::{CertFault, ClientConfig, PeerIdentity, ServerName};
use fleet_proto::pb::operator_service_client::OperatorServiceClient;
use fleet_proto::{MAX_MESSAGE_BYTES, convert};
use fleet_types::time::Timestamp;
use serde::de::DeserializeOwned;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::context::Context;
use crate::error::{Dialled, ExitCode, Failure, from_dial_error, from_status, own_fault};

/// HTTP/2 pings, also when idle: a dead link is noticed within 45 s (security-and-delivery §2.13, T10).
const PING: Duration = Duration::from_secs(20);

/// A connection to the controller of one context.
#[derive(Debug, Clone)]
pub struct Client {
    inner: OperatorServiceClient<Channel>,
    refusals: Refusals,
    context: String,
    limit: Duration,
    certificate: PeerIdentity,
}

/// A name for TLS from text.
pub(super) fn server_name(text: &str) -> Result<ServerName<'static>, Failure> {
    ServerName::try_from(text.to_owned())
        .map_err(|_| Failure::usage(format!("\"{text}\" is no host name or address for a certificate")))
}

/// An endpoint for `host:port`, with pings and a limit for the connection.
pub(super) fn endpoint(address: &str) -> Result<Endpoint, Failure> {
    // The scheme is for HTTP/2 only; TLS is the connector's.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
        Failure::new(
            ExitCode::Usage,
            "bad-address",
            format!("\"{address}\" is no address such as ctl.example:7443"),
        )
        .because(&error)
    })?;
    Ok(endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PING).keep_alive_while_idle(true))
}

/// The channel over `connector`; dial errors become failures.
pub(super) async fn open(
    endpoint: Endpoint,
    connector: Connector,
    dialled: Dialled<'_>,
) -> Result<Channel, Failure> {
    endpoint.connect_with_connector(connector).await.map_err(
        |error| match fleet_certs::dial::DialError::find(&error) {
            Some(dial) => from_dial_error(dial, dialled),
            None => {
                Failure::new(ExitCode::NotReachable, "not-reachable", "the connection failed").because(&error)
            }
        },
    )
}

impl Client {
    /// Connects with the identity of the context, which is checked first as the controller will.
    pub async fn connect(
        context: &Context,
        limit: Duration,
        now: fn() -> Timestamp,
    ) -> Result<Self, Failure> {
        let name = context.name.as_str();
        let loaded = IdentityDir::open(&context.identity_folder()).and_then(|folder| folder.load());
        let identity = loaded.map_err(|error| identity_failure(&error, name))?.identity;
        let server = server_name(&context.server_name)?;
        let tls_identity = identity.tls().map_err(|error| tls_failure(&error, name))?;
        let certificate = tls_identity.describe().map_err(|error| tls_failure(&error, name))?;
        let (_publisher, tls) = publish(tls(context, &identity, now)?);
        let connector = Connector::new(tls, server);
        let refusals = connector.refusals();
        let channel = open(endpoint(&context.endpoint)?, connector, Dialled::Context(name)).await?;
        let inner = OperatorServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { inner, refusals, context: name.to_owned(), limit, certificate })
    }

    /// Our own certificate: name and validity.
    pub const fn certificate(&self) -> &PeerIdentity {
        &self.certificate
    }

    /// The generated client; cheap to clone.
    pub(super) fn service(&self) -> OperatorServiceClient<Channel> {
        self.inner.clone()
    }

    /// Longest wait for one answer.
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn failed(&self, status: &Status) -> Failure {
        match self.refusals.take() {
            Some(fault) => own_fault(fault, &self.context),
            None => from_status(status, &self.context),
        }
    }

    pub(super) async fn unary<R, T, F>(
        &self,
        message: R,
        call: impl Fn(Request<R>) -> F,
    ) -> Result<T, Failure>
    where
        R: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut is_repeated = false;
        loop {
            match self.limited(call(self.request(message.clone()))).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if status.code() == Code::Unavailable && !is_repeated => is_repeated = true,
                Err(status) => return Err(self.failed(&status)),
            }
        }
    }

    pub(super) async fn streamed<T>(
        &self,
        call: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
    ) -> Result<Streaming<T>, Failure> {
        self.limited(call).await.map(Response::into_inner).map_err(|status| self.failed(&status))
    }

    fn request<R>(&self, message: R) -> Request<R> {
        let mut request = Request::new(message);
        // The controller stops working for us when we stop waiting.
        request.set_timeout(self.limit);
        request
    }

    async fn limited<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let late = || Status::deadline_exceeded(format!("no answer within {} s", self.limit.as_secs()));
        tokio::time::timeout(self.limit, call).await.unwrap_or_else(|_| Err(late()))
    }

    /// The next message of a stream within the limit of a call; none at its end.
    pub(super) async fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, Failure> {
        self.limited(stream.message()).await.map_err(|status| self.failed(&status))
    }

    /// The next message of a stream that may be silent for long; pings notice a dead link.
    pub(super) async fn next_of_quiet<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, Failure> {
        stream.message().await.map_err(|status| self.failed(&status))
    }
}

/// TLS settings with an identity of a context, which is checked as the controller will.
pub fn tls(
    context: &Context,
    identity: &StoredIdentity,
    now: fn() -> Timestamp,
) -> Result<Arc<ClientConfig>, Failure> {
    let failed = |error| tls_failure(&error, context.name.as_str());
    let settings = MutualClient {
        fleet: context.fleet,
        identity: identity.tls().map_err(failed)?,
        own_authorities: Vec::new(),
        controller_authorities: identity.controller_authorities.clone(),
        server_name: server_name(&context.server_name)?,
        clock: TlsClock::reading(now),
    };
    settings.build().map_err(failed)
}

/// Reads the JSON of a view.
pub(super) fn read_view<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    convert::json("view.json", bytes).map_err(|error| {
        Failure::new(ExitCode::Unexpected, "not-understood", "the controller's answer cannot be read")
            .because(&error)
            .fix("compare `fleetctl version` with the controller's in `fleetctl whoami`")
    })
}

fn identity_failure(error: &SlotError, context: &str) -> Failure {
    if matches!(error, SlotError::NotEnrolled(_)) {
        let what = format!("you are not signed in to \"{context}\"");
        return Failure::new(ExitCode::NotAllowed, "not-signed-in", what)
            .fix(format!("sign in: fleetctl login INVITE --context {context}"));
    }
    bad_identity(error, context)
}

fn tls_failure(error: &TlsError, context: &str) -> Failure {
    let TlsError::OwnCertificate(fault) = error else { return bad_identity(error, context) };
    let login = format!("sign in again: fleetctl login INVITE --context {context}");
    let refused = |code, what: String, now: &Timestamp| {
        Failure::new(ExitCode::NotAllowed, code, what)
            .cause(format!("checked on this side before connecting; this machine's clock says {now}"))
    };
    match fault {
        CertFault::Expired { not_after, now } => {
            let what = format!("your certificate for context \"{context}\" ended at {not_after}");
            refused("cert-expired", what, now).fix(login).fix("or set this machine's clock, if it is wrong")
        }
        // Signing in again would help nobody: a certificate begins when it is made.
        CertFault::NotYetValid { not_before, now } => {
            let what = format!("your certificate for context \"{context}\" begins at {not_before}");
            refused("cert-not-yet-valid", what, now).fix("set this machine's clock")
        }
        _ => bad_identity(error, context),
    }
}

fn bad_identity(error: &dyn std::error::Error, context: &str) -> Failure {
    let what = format!("your identity for \"{context}\" cannot be used");
    Failure::new(ExitCode::NotAllowed, "bad-identity", what)
        .because(error)
        .fix(format!("sign in again: fleetctl login INVITE --context {context}"))
}
