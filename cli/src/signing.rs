//! What this operator signs: documents and requests, with the content key of the context.
//!
//! The bytes are made once, here (security-and-delivery §1.15). The key is read when something is signed
//! and dropped after; nothing else uses it.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::finding_hold::FindingHold;
use fleet_types::id::{FleetId, NodeId, RunId};
use fleet_types::request::{BoundPlan, NodeList, REQUEST_SCHEMA, Request, Verb};
use fleet_types::seal::{Envelope, Kind, PublicKey, SigningKey};
use fleet_types::standing_order::StandingOrder;
use fleet_types::time::Timestamp;
use serde::Serialize;

use crate::clock;
use crate::context::{Context, load_signing_key};
use crate::error::{ExitCode, Failure};

/// How far before now a request begins to be valid: nodes' clocks may lag behind ours by this much, as
/// much as certificates are back-dated.
pub const BACK_DATED: Duration = Duration::from_mins(5);

/// Signs for one fleet.
#[derive(Debug)]
pub struct Signer {
    key: SigningKey,
    fleet: FleetId,
}

/// What is asked for, before it is signed.
#[derive(Debug, Clone)]
pub struct Order {
    /// Run or plan.
    pub verb: Verb,
    /// Digest of the procedure.
    pub procedure: Digest,
    /// Its number under its name; none for one made for this run.
    pub procedure_revision: Option<u32>,
    /// Digest of the profile.
    pub profile: Digest,
    /// Its number under its name.
    pub profile_revision: u32,
    /// Are these meant, also where a node has carried out newer ones?
    pub older_revisions: bool,
    /// Parameters.
    pub params: BTreeMap<String, serde_json::Value>,
    /// How the nodes were chosen, for people.
    pub selector: String,
    /// The nodes, in any order.
    pub nodes: Vec<NodeId>,
    /// The plan that it starts, if it is one.
    pub plan: Option<BoundPlan>,
    /// Digest of the rollout policy that it follows, if there is one.
    pub rollout_policy: Option<Digest>,
    /// At most so many at once.
    pub max_parallel: u32,
    /// No new starts after so many failures.
    pub max_failures: Option<u32>,
    /// No first start later than this from now.
    pub valid_for: Duration,
    /// Why.
    pub reason: String,
}

/// A signed request, ready to be sent.
#[derive(Debug, Clone)]
pub struct SignedOrder {
    /// The run that it makes.
    pub run: RunId,
    /// The envelope's JSON.
    pub envelope: Vec<u8>,
    /// Sorted node ids, 16 bytes each.
    pub nodes: Vec<u8>,
}

impl Signer {
    /// Reads the content key of a context.
    pub fn load(context: &Context) -> Result<Self, Failure> {
        Ok(Self { key: load_signing_key(&context.content_key_file())?, fleet: context.fleet })
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Signs a document's canonical JSON.
    pub fn document(&self, canonical_json: Vec<u8>) -> Envelope {
        self.key.seal(Kind::Document, self.fleet, canonical_json)
    }

    /// Signs a hold of a finding.
    pub fn finding_hold(&self, hold: &FindingHold) -> Result<Envelope, Failure> {
        let payload = canonical::to_vec(hold)
            .map_err(|error| Failure::usage("the hold cannot be written").because(&error))?;
        Ok(self.key.seal(Kind::FindingHold, self.fleet, payload))
    }

    /// Signs what a schedule may start.
    pub fn standing_order(&self, order: &StandingOrder) -> Result<Envelope, Failure> {
        order
            .check(self.fleet)
            .map_err(|error| Failure::usage("the order would be refused").because(&error))?;
        let payload = canonical::to_vec(order)
            .map_err(|error| Failure::usage("the order cannot be written").because(&error))?;
        Ok(self.key.seal(Kind::StandingOrder, self.fleet, payload))
    }

    /// Makes and signs a request. `now` is this machine's time.
    pub fn request(&self, order: Order, now: Timestamp) -> Result<SignedOrder, Failure> {
        let random = clock::random_u32().ok_or_else(|| {
            Failure::new(ExitCode::Unexpected, "no-random", "the system gave no random numbers for a run id")
        })?;
        let mut nodes = order.nodes;
        nodes.sort_unstable();
        nodes.dedup();
        let request = Request {
            schema: REQUEST_SCHEMA.to_owned(),
            fleet: self.fleet,
            run: RunId::new(now, random),
            verb: order.verb,
            procedure: order.procedure,
            procedure_revision: order.procedure_revision,
            profile: order.profile,
            profile_revision: Some(order.profile_revision),
            older_revisions: order.older_revisions,
            params: order.params,
            selector: order.selector,
            nodes: NodeList::of(&nodes),
            plan: order.plan,
            rollout_policy: order.rollout_policy,
            max_parallel: order.max_parallel,
            max_failures: order.max_failures,
            not_before: now.minus(BACK_DATED),
            not_after: now.plus(order.valid_for),
            tick: None,
            reason: order.reason,
        };
        request.check(self.fleet).map_err(|error| {
            Failure::usage("the request would be refused")
                .because(&error)
                .fix("--valid-for takes up to 23h55m, as nodes' clocks may lag by 5m")
        })?;
        let payload = canonical::to_vec(&request)
            .map_err(|error| Failure::usage("the request cannot be written").because(&error))?;
        let envelope = self.key.seal(Kind::Request, self.fleet, payload);
        Ok(SignedOrder {
            run: request.run,
            envelope: to_json(&envelope),
            nodes: nodes.iter().flat_map(|node| *node.as_uuid().as_bytes()).collect(),
        })
    }
}

/// JSON of an envelope or bundle for a message.
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    fleet_proto::convert::to_json(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_binds_the_sorted_nodes_and_its_time() {
        let fleet = FleetId::from_uuid(uuid::Uuid::from_u128(1));
        let signer = Signer { key: SigningKey::generate().unwrap().0, fleet };
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let node = |n| NodeId::from_uuid(uuid::Uuid::from_u128(n));
        let mut order = Order {
            verb: Verb::Run,
            procedure: Digest::of(b"p"),
            profile: Digest::of(b"q"),
            params: BTreeMap::from([("n".to_owned(), 5.into())]),
            selector: "ring=test".to_owned(),
            nodes: vec![node(3), node(1), node(2), node(1)],
            plan: None,
            rollout_policy: None,
            max_parallel: 2,
            max_failures: Some(1),
            procedure_revision: Some(3),
            profile_revision: 2,
            older_revisions: false,
            valid_for: Duration::from_hours(1),
            reason: "routine".to_owned(),
        };
        let sealed = signer.request(order.clone(), now).unwrap();
        let envelope: Envelope = canonical::from_slice(&sealed.envelope).unwrap();
        envelope.verify(Kind::Request, fleet, &signer.public()).unwrap();
        let request: Request = canonical::from_slice(&envelope.payload).unwrap();
        assert_eq!(canonical::to_vec(&request).unwrap(), envelope.payload, "canonical");
        assert_eq!(request.nodes, NodeList::of(&[node(1), node(2), node(3)]));
        assert_eq!((sealed.nodes.len(), sealed.run), (48, request.run));
        assert_eq!(request.check_time(now), Ok(()));
        assert!(request.check_time(now.plus(Duration::from_hours(1))).is_err());
        order.valid_for = Duration::from_secs(24 * 3600 + 1);
        assert_eq!(signer.request(order.clone(), now).unwrap_err().exit, ExitCode::Usage);
        order.nodes.clear();
        assert!(signer.request(order, now).is_err());
    }
}
