//! How a link begins: what the first message must be, and what the controller answers.

use std::time::Duration;

use fleet_proto::convert;
use fleet_proto::{PROTOCOL, pb};
use fleet_types::digest::Digest;
use fleet_types::id::NodeId;

use crate::context::{Context, Identities};
use crate::error::{ControllerError, Kind, Result};
use crate::service::inventory::HelloFacts;

/// What keeps a node from starting changes is one sentence.
const MAX_SAFE_MODE: usize = 300;
/// Names of actions are two or three words; each is held in memory for each node.
const MAX_ACTION_BYTES: usize = 64;

/// A hello that may be answered.
pub struct Greeting {
    /// What the node says of itself.
    pub facts: HelloFacts,
    /// The highest version that both sides speak.
    pub protocol: u32,
    /// The trust bundle that the node has.
    pub bundle_version: u64,
}

/// Takes the first message, if it is a hello that this controller can answer.
pub fn read(identities: &Identities, node: NodeId, message: pb::AgentMessage) -> Result<Greeting> {
    if message.seq != 1 {
        let why = format!("{} in the first message; it begins at 1", message.seq);
        return Err(ControllerError::invalid("seq", why));
    }
    let Some(pb::agent_message::Body::Hello(hello)) = message.body else {
        return Err(ControllerError::invalid("hello", "the first message must be Hello"));
    };
    if hello.protocol_max < *PROTOCOL.start() || hello.protocol_min > *PROTOCOL.end() {
        let why = format!(
            "the agent speaks protocol {} to {}, this controller {} to {}",
            hello.protocol_min,
            hello.protocol_max,
            PROTOCOL.start(),
            PROTOCOL.end()
        );
        return Err(ControllerError::new(Kind::Blocked, "protocol", why).fix("upgrade the older side"));
    }
    let long = |action: &String| action.len() > MAX_ACTION_BYTES;
    let short = [&hello.agent_version, &hello.boot_id, &hello.start_id].map(String::len);
    if hello.actions.len() > 1000
        || hello.actions.iter().any(long)
        || short.iter().any(|len| *len > 64)
        || hello.policy_mode.len() > 32
    {
        return Err(ControllerError::invalid("hello", "a field is over its limit"));
    }
    // The root keys may have said that the node is to forget it; it learns so with the bundle in the answer.
    let forgets = identities.trust.get().0.fence_reset(node).is_some_and(|at| at > hello.bundle_version);
    if hello.generation_seen > identities.fleet.generation.0 && !forgets {
        let why = format!(
            "the node has seen store generation {}, this store has {}: it is older than the node's knowledge",
            hello.generation_seen, identities.fleet.generation.0
        );
        return Err(ControllerError::new(Kind::Refused, "older-store", why).fix(
            "start the newer store; where it is gone for good, a holder of the root key lets the node begin anew: fleetctl node reset-fence NAME",
        ));
    }
    let facts = HelloFacts {
        facts: convert::json("hello.facts", &hello.facts)?,
        agent_version: hello.agent_version,
        actions: hello.actions,
        policy_mode: hello.policy_mode,
        journal_sequence: hello.journal_sequence,
        safe_mode: hello.safe_mode.chars().filter(|c| !c.is_control()).take(MAX_SAFE_MODE).collect(),
        start: Digest::of_parts(&[hello.boot_id.as_bytes(), b"\n", hello.start_id.as_bytes()]),
    };
    let protocol = hello.protocol_max.min(*PROTOCOL.end());
    Ok(Greeting { facts, protocol, bundle_version: hello.bundle_version })
}

/// The answer, with the trust bundle where the node's is older; and the version of the bundle it then knows of.
pub fn welcome(context: &Context, protocol: u32, bundle_version: u64) -> (pb::Welcome, u64) {
    let settings = &context.settings;
    let trust = context.identities.trust.get();
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let newer = trust.0.version > bundle_version;
    let welcome = pb::Welcome {
        protocol,
        generation: context.identities.fleet.generation.0,
        heartbeat_interval_ms: millis(settings.heartbeat),
        reconnect_spread_ms: millis(settings.reconnect_spread(context.memory.sessions.connected())),
        dispatch: convert::to_json(context.identities.wave_signer.statement().as_ref()),
        trust_bundle: if newer { convert::to_json(&trust.1) } else { Vec::new() },
        controller_version: env!("CARGO_PKG_VERSION").to_owned(),
        takes_packages: true,
    };
    (welcome, trust.0.version)
}
