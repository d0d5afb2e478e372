//! Asked before every handler: the access table and the deny list. A call that is in no row of the table, or of a caller who
//! is shut out or comes with a certificate that was replaced, never reaches a handler, whatever its body
//! (security-and-delivery §1.8, §1.10, §1.12). What passes is carried out to its end ([`super::detached`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};

use fleet_certs::name::Identity;
use fleet_types::audit::Actor;
use fleet_types::id::OperatorId;
use http::Request;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::detached::carry_out;
use super::listener::known_actor;
use super::peer::Peer;
use super::refusals::Refusals;
use super::status::{blame_the_client, to_status};
use crate::access::{self, Caller};
use crate::context::Context;
use crate::error::{ControllerError, Kind};
use crate::service::certificates;

/// Puts the guard before a server's services.
#[derive(Clone)]
pub struct GuardLayer {
    /// For operators' roles and the deny list.
    pub context: Arc<Context>,
    /// Counts what is refused.
    pub refusals: Arc<Refusals>,
    /// Calls under way, so that a drain can wait for them.
    pub tracker: TaskTracker,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, layer: self.clone() }
    }
}

/// A service behind the guard.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    layer: GuardLayer,
}

impl GuardLayer {
    fn check<'a>(&self, path: &str, peer: Option<&'a Peer>) -> Result<&'a Peer, ControllerError> {
        let refuse = |code: &str, why: String, actor: Actor| {
            tracing::warn!(path, peer = actor.id, address = actor.address, "call refused: {why}");
            self.refusals.count_actor("call", actor, &format!("{path}: {why}"));
            ControllerError::new(Kind::Refused, code, why)
        };
        let no_peer = || ControllerError::new(Kind::Refused, "no-peer", "no identity");
        let peer = peer.ok_or_else(no_peer)?;
        let Some(identity) = &peer.identity else {
            return access::check(path, Caller::Nobody).map(|()| peer).map_err(|denied| {
                // Strangers choose the path: it is no part of what is counted.
                let address = peer.address.ip();
                tracing::debug!(path, %address, "call refused: {denied}");
                self.refusals.count("call", address, &denied.to_string());
                ControllerError::new(Kind::Refused, "not-allowed", denied.to_string())
            });
        };
        let mut actor = known_actor(identity, peer.address);
        if let Err(revoked) = self.context.identities.denied.check(identity) {
            return Err(refuse("revoked", revoked.to_string(), actor));
        }
        // Connections outlive certificates; calls and streams do not.
        if self.context.storage.clock.now() >= identity.not_after {
            return Err(refuse("certificate-expired", "the certificate has ended".to_owned(), actor));
        }
        let caller = match identity.identity {
            Identity::Agent(_, node) => {
                // A renewal by a retired one is for its handler, which locks the node.
                if path != access::RENEW_AGENT
                    && let Err(retired) = certificates::check(&self.context.memory, node, identity)
                {
                    let error = refuse(certificates::RETIRED, retired.to_string(), actor);
                    return Err(error.fix(retired.detail.fix));
                }
                Caller::Agent
            }
            Identity::Operator(_, id) => match self.context.identities.operators.get(id) {
                Some(operator) => {
                    actor.name = operator.name.to_string();
                    let now = self.context.storage.clock.now();
                    if !peer.is_known.load(Ordering::Relaxed) {
                        if let Err(retired) = certificates::check_operator(&operator, identity, now) {
                            let error = refuse(certificates::RETIRED, retired.to_string(), actor);
                            return Err(error.fix(retired.detail.fix));
                        }
                        peer.is_known.store(true, Ordering::Relaxed);
                    }
                    Caller::Operator(operator.role)
                }
                None => {
                    return Err(refuse("operator-unknown", "this operator has no record".to_owned(), actor));
                }
            },
            Identity::Controller(..) => Caller::Nobody,
        };
        access::check(path, caller).map(|()| peer).map_err(|denied| {
            let error = refuse("not-allowed", denied.to_string(), actor);
            error.fix("ask a security-admin for the role; fleetctl whoami shows yours")
        })
    }
}

impl GuardLayer {
    /// The operator whose renewed certificate comes for the first time.
    fn new_of_operator(&self, peer: &Peer) -> Option<OperatorId> {
        let identity = peer.identity.as_ref()?;
        let operator = self.context.identities.operators.get(identity.identity.operator()?)?;
        certificates::is_new_of_operator(&operator, identity).then_some(operator.id)
    }
}

impl<S, R> Service<Request<R>> for Guard<S>
where
    S: Service<Request<R>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let admitted = self.layer.check(request.uri().path(), peer).cloned();
        match admitted {
            Ok(peer) => {
                let new = self.layer.new_of_operator(&peer);
                let (context, tracker) = (Arc::clone(&self.layer.context), self.layer.tracker.clone());
                let (answer, places) = (self.inner.call(request), Arc::clone(&peer.calls));
                let call = async move {
                    if let Some((operator, identity)) = new.zip(peer.identity) {
                        certificates::seen_of_operator(&context, operator, &identity).await;
                    }
                    answer.await
                };
                let done = carry_out(tracker, places, call);
                Box::pin(async move {
                    let defect = || to_status(ControllerError::internal("the call ended without an answer"));
                    let mut done = done.await.unwrap_or_else(|| Ok(defect().into_http()))?;
                    blame_the_client(done.headers_mut());
                    Ok(done)
                })
            }
            Err(error) => {
                let status: Status = to_status(error);
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}
