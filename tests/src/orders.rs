//! What an operator signs in stories: two small documents that need nothing of a node, and requests.
//!
//! The bytes are made the way `fleetctl` makes them: TOML through the front end, canonical JSON, one envelope.

use std::time::Duration;

use anyhow::{Result, anyhow};
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::{FleetId, NodeId, RunId};
use fleet_types::request::{NodeList, REQUEST_SCHEMA, Request, Verb};
use fleet_types::seal::{Envelope, Kind, SigningKey};
use fleet_types::time::Timestamp;

/// Profile of the scripted nodes.
pub const PROFILE: &str = r#"schema = "fleet/v1"
kind = "profile"
name = "scripted"
version = 1
description = "Nodes that are played by a test"
selector = "product=scripted"
"#;

/// A procedure that changes nothing: as many at once as the request allows.
pub const LOOK: &str = r#"schema = "fleet/v1"
kind = "procedure"
name = "look"
version = 1
description = "Reads"
profile = "scripted"
changes = false
timeout = "15m"

[[step]]
id = "metrics"
title = "Collect metrics"
kind = "task"
uses = "metrics.collect"
"#;

/// A procedure that changes nodes: the pair rule holds.
pub const CHANGE: &str = r#"schema = "fleet/v1"
kind = "procedure"
name = "change"
version = 1
description = "Changes"
profile = "scripted"
changes = true
timeout = "15m"

[[step]]
id = "prune"
title = "Prune metrics"
kind = "task"
uses = "metrics.prune"
"#;

/// A signed document with its source.
#[derive(Debug, Clone)]
pub struct SignedSource {
    /// The signed bytes.
    pub envelope: Envelope,
    /// What was written.
    pub source: String,
    /// Name for messages.
    pub name: String,
}

/// Parses and signs a document.
pub fn sign_document(
    key: &SigningKey,
    fleet: FleetId,
    name: &str,
    source: &str,
    applied: &[&str],
) -> Result<SignedSource> {
    let mut files = vec![fleet_documents::SourceFile { name, text: source }];
    files.extend(applied.iter().map(|text| fleet_documents::SourceFile { name: "applied.toml", text }));
    let set = fleet_documents::parse_set(&files, &fleet_documents::Lint::default()).map_err(|problems| {
        anyhow!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    let parsed = set.documents.first().ok_or_else(|| anyhow!("{name} holds no document"))?;
    let payload = fleet_documents::to_canonical_json(&parsed.document)?;
    Ok(SignedSource {
        envelope: key.seal(Kind::Document, fleet, payload),
        source: source.to_owned(),
        name: name.to_owned(),
    })
}

/// What to ask for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Digest of the procedure.
    pub procedure: Digest,
    /// Digest of the profile.
    pub profile: Digest,
    /// The nodes, in any order.
    pub nodes: Vec<NodeId>,
    /// At most so many at once.
    pub max_parallel: u32,
    /// No first start later than this from now.
    pub valid_for: Duration,
}

/// A signed request, ready to be sent again and again.
#[derive(Debug, Clone)]
pub struct SignedOrder {
    /// The run that it makes.
    pub run: RunId,
    /// JSON of the envelope.
    pub envelope: Vec<u8>,
    /// Sorted node ids, 16 bytes each.
    pub nodes: Vec<u8>,
    /// The key that makes a repetition harmless.
    pub idempotency_key: String,
}

/// Makes and signs a request.
pub fn sign_request(key: &SigningKey, fleet: FleetId, order: &Order, now: Timestamp) -> Result<SignedOrder> {
    let mut nodes = order.nodes.clone();
    nodes.sort_unstable();
    nodes.dedup();
    let [a, b, c, d, ..] = *uuid::Uuid::new_v4().as_bytes();
    let run = RunId::new(now, u32::from_be_bytes([a, b, c, d]));
    let request = Request {
        schema: REQUEST_SCHEMA.to_owned(),
        fleet,
        run,
        verb: Verb::Run,
        procedure: order.procedure,
        profile: order.profile,
        params: std::collections::BTreeMap::new(),
        selector: "product=scripted".to_owned(),
        nodes: NodeList::of(&nodes),
        plan: None,
        rollout_policy: None,
        max_parallel: order.max_parallel,
        max_failures: None,
        procedure_revision: None,
        profile_revision: None,
        older_revisions: false,
        // As fleetctl: clocks may be a little apart.
        not_before: now.minus(Duration::from_mins(5)),
        not_after: now.plus(order.valid_for),
        tick: None,
        reason: "a story".to_owned(),
    };
    let envelope = key.seal(Kind::Request, fleet, canonical::to_vec(&request)?);
    Ok(SignedOrder {
        run,
        envelope: serde_json::to_vec(&envelope)?,
        nodes: nodes.iter().flat_map(|node| *node.as_uuid().as_bytes()).collect(),
        idempotency_key: uuid::Uuid::new_v4().to_string(),
    })
}
