//! An order for a node: one step that runs the node's one program, as an operator signs it.

use std::time::Duration;

use fleet_agent::clock;
use fleet_proto::convert;
use fleet_proto::pb::{self, controller_message};
use fleet_types::assignment::{Assignment, sign_wave};
use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::document::Document;
use fleet_types::id::{Attempt, Generation, JobId, LinkEpoch, NodeId, RunId};
use fleet_types::request::{NodeList, REQUEST_SCHEMA, Request, Verb};
use fleet_types::seal::{Envelope, Kind};
use serde_json::json;

use crate::controller::{Controller, Session};
use crate::fleet::Fleet;

/// A run of its own: an order of it is never signed.
const STRANGER: RunId = RunId::from_number(99);

pub struct Order {
    pub run: RunId,
    /// Digest of the signed request.
    pub request: Digest,
    node: NodeId,
}

impl Order {
    /// Signs an order for `node`; the controller has its documents from now on.
    pub fn publish(fleet: &Fleet, node: NodeId, controller: &Controller) -> Self {
        let seal = |kind, bytes| fleet.operator.seal(kind, fleet.id, bytes);
        let document = |value| {
            let document: Document = serde_json::from_value(value).unwrap();
            seal(Kind::Document, canonical::to_vec(&document).unwrap())
        };
        let profile = document(json!({
            "kind": "profile", "schema": "fleet/v1", "name": "edge", "version": 1,
            "command": {"update": {"argv": ["/usr/bin/update"], "timeout": "1m", "changes": true}}
        }));
        let procedure = document(json!({
            "kind": "procedure", "schema": "fleet/v1", "name": "work", "version": 1, "profile": "edge",
            "changes": true, "timeout": "10m",
            "step": [{"id": "update", "kind": "task", "title": "Update", "uses": "command.run",
                "with": {"command": "update"}, "on_failure": "abort"}]
        }));
        let run = RunId::from_number(1);
        let request = Request {
            schema: REQUEST_SCHEMA.to_owned(),
            fleet: fleet.id,
            run,
            verb: Verb::Run,
            procedure: procedure.digest(),
            profile: profile.digest(),
            params: std::collections::BTreeMap::new(),
            selector: String::new(),
            nodes: NodeList::of(&[node]),
            plan: None,
            rollout_policy: None,
            max_parallel: 1,
            max_failures: None,
            procedure_revision: None,
            profile_revision: None,
            older_revisions: false,
            not_before: clock::now().minus(Duration::from_mins(1)),
            not_after: clock::now().plus(Duration::from_hours(1)),
            tick: None,
            reason: "test".to_owned(),
        };
        let request = seal(Kind::Request, canonical::to_vec(&request).unwrap());
        let order = Self { run, request: request.digest(), node };
        let keep = |envelope: &Envelope| {
            let digest = envelope.digest().as_bytes().to_vec();
            controller.documents.lock().unwrap().insert(digest, convert::to_json(envelope));
        };
        [&profile, &procedure, &request].into_iter().for_each(keep);
        order
    }

    /// Its first attempt, assigned over this session.
    pub fn assign(&self, fleet: &Fleet, session: &Session) -> controller_message::Body {
        self.assign_at(fleet, self.run, session.epoch)
    }

    /// An assignment of another run over a link that has ended: it is refused, journals nothing, and its
    /// answer says that everything sent before it was taken.
    pub fn question(&self, fleet: &Fleet, session: &Session) -> controller_message::Body {
        self.assign_at(fleet, STRANGER, session.epoch - 1)
    }

    /// Is this the answer to a question?
    pub fn answers(update: &pb::JobUpdate) -> bool {
        update.run == STRANGER.to_string()
    }

    fn assign_at(&self, fleet: &Fleet, run: RunId, epoch: u64) -> controller_message::Body {
        let assignment = Assignment {
            job: JobId::first(run, self.node),
            attempt: Attempt(1),
            authority: Authority::Request(self.request),
            // One node: the path is empty and its leaf the root.
            node_index: 0,
            node_path: vec![],
            generation: Generation(1),
            link_epoch: LinkEpoch(epoch),
        };
        let proof = sign_wave(std::slice::from_ref(&assignment), fleet.id, &fleet.waves).remove(0);
        controller_message::Body::Assign(pb::Assign {
            assignment: convert::to_json(&assignment),
            proof: convert::to_json(&proof),
        })
    }
}
