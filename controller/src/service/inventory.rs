//! Nodes as the controller knows them: filled at start, kept up at connects and transitions.

use std::sync::Arc;

use fleet_store::Direction;
use fleet_types::digest::Digest;
use fleet_types::facts::{MAX_FACTS_BYTES, MAX_FACTS_ENTRIES, NodeFacts};
use fleet_types::id::{LinkEpoch, NodeId};
use fleet_types::view::Presence;
use tokio::time::Instant;

use super::caller::Agent;
use super::{certificates, holds, presence, reports};
use crate::context::{Context, Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::node_cache::Known;
use crate::repo::codec::Mark;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::nodes::{self, HealthRecord, NodeRecord, NodeState, SeenRecord};
use crate::repo::operators::{self, OperatorRecord};
use crate::repo::reader::{BatchExt as _, Repo};
use crate::repo::runs;
use crate::settings::Settings;

/// What an agent says of itself in its hello.
#[derive(Debug, Clone)]
pub struct HelloFacts {
    /// Version of the agent.
    pub agent_version: String,
    /// Actions that it can carry out.
    pub actions: Vec<String>,
    /// Mode of its local policy.
    pub policy_mode: String,
    /// Newest journal frame.
    pub journal_sequence: u64,
    /// What keeps it from starting changes; empty when nothing does.
    pub safe_mode: String,
    /// Which start of the agent speaks.
    pub start: Digest,
    /// Its facts.
    pub facts: NodeFacts,
}

/// Reads every node and operator into memory; for starts.
pub async fn fill(context: &Context) -> Result<()> {
    for (_, stored) in context.storage.repo.all::<OperatorRecord>(operators::ALL).await? {
        context.identities.operators.put(stored.record);
    }
    let alive = presence::last_alive(&context.storage).await?;
    for (_, stored) in context.storage.repo.all::<NodeRecord>(nodes::ALL).await? {
        let mut known = Known::new(stored.record);
        let id = known.record.id;
        if let Some(seen) = context.storage.repo.get::<SeenRecord>(&nodes::seen(id)?).await? {
            // A link that was up ended with the controller: the node was there as long as that.
            let linked_until = alive.filter(|_| seen.record.linked);
            known.last_seen = Some(seen.record.last_seen).max(linked_until);
            if seen.record.linked {
                known.presence = Presence::Reconnecting;
            }
            known.agent_version = seen.record.agent_version;
            known.policy_mode = seen.record.policy_mode;
            known.actions = Arc::from(seen.record.actions);
            known.safe_mode = seen.record.safe_mode;
        }
        known.health = context
            .storage
            .repo
            .get::<HealthRecord>(&nodes::health(id)?)
            .await?
            .map(|stored| stored.record.health);
        context.memory.node_cache.put(known);
    }
    Ok(())
}

/// A node's newest jobs, newest first.
pub async fn newest_jobs(repo: &Repo, node: NodeId, limit: usize) -> Result<Vec<JobRecord>> {
    let prefix = jobs::of_node(node);
    let mut jobs = Vec::new();
    for (key, _) in repo.page::<Mark>(&prefix, None, limit, Direction::Descending).await? {
        if let Some(run) = runs::run_in(&key, &prefix)
            && let Some(stored) = repo.get::<JobRecord>(&jobs::key(run, node)?).await?
        {
            jobs.push(stored.record);
        }
    }
    Ok(jobs)
}

/// May this node's agent connect? Its record says so, not its certificate alone.
pub fn check_active(memory: &Memory, settings: &Settings, node: NodeId) -> Result<Known> {
    let known = memory.node_cache.get(node).ok_or_else(|| {
        ControllerError::new(Kind::Refused, "node-unknown", "this controller has no record of the node")
    })?;
    check_state(settings, &known.record)?;
    Ok(known)
}

/// The same of a record: is the node enrolled, and not shut out?
pub fn check_state(settings: &Settings, record: &NodeRecord) -> Result<()> {
    match &record.state {
        NodeState::Active => Ok(()),
        NodeState::Held(hold) if hold.keeps_link() => Ok(()),
        NodeState::Held(hold) => Err(holds::held(settings, hold)),
        NodeState::Pending => {
            Err(ControllerError::new(Kind::Refused, "node-pending", "the node is not enrolled"))
        }
    }
}

/// Notes a connect: issues the link epoch and stores what the hello says, in one write. A machine of which the
/// controller cannot tell whether it is the node is held instead.
///
/// A renewed certificate that comes for the first time is the one in use from then on, in the same write.
pub async fn connect(context: &Context, agent: &Agent, hello: &HelloFacts) -> Result<LinkEpoch> {
    let known = check_active(&context.memory, &context.settings, agent.node)?;
    let facts = serde_json::to_vec(&hello.facts).map_err(ControllerError::internal)?;
    if facts.len() > MAX_FACTS_BYTES {
        return Err(ControllerError::invalid("hello.facts", "larger than 256 KiB"));
    }
    let of = &hello.facts;
    let lists = [of.interfaces.len(), of.flags.len(), of.simulated.len(), of.running_old_files.len()];
    if lists.into_iter().any(|entries| entries > MAX_FACTS_ENTRIES) {
        return Err(ControllerError::invalid("hello.facts", "a list has more than 4,096 entries"));
    }
    if context.memory.instances.note(agent.node, hello.start, Instant::now()) {
        let why = "two machines connect as it in turns: one of them is a copy, or its key was stolen";
        return Err(holds::shut_out(context, agent.actor(), agent.node, why).await?);
    }
    let now = context.storage.clock.now();
    loop {
        let key = nodes::seen(agent.node)?;
        let before = context.storage.repo.get::<SeenRecord>(&key).await?;
        let stored = before.as_ref().map_or(0, |before| before.record.journal_sequence);
        let heard = match known.journal_sequence {
            Some(heard) => heard,
            None => {
                reports::newest_journal_sequence(&context.storage, agent.node, known.record.chain).await?
            }
        };
        let newest = stored.max(heard);
        // A damaged journal ends anywhere; its node starts no changes, and what it says is not believed.
        let is_sound = hello.safe_mode.is_empty();
        // A node restored from an image knows less than it once did: it may have forgotten finished jobs.
        if is_sound && hello.journal_sequence < newest {
            let why = format!(
                "its journal ends at {}, and was at {newest} before: it was restored from an image, or its state was lost",
                hello.journal_sequence
            );
            return Err(holds::shut_out(context, agent.actor(), agent.node, &why).await?);
        }
        let record = SeenRecord {
            link_epoch: LinkEpoch(before.as_ref().map_or(0, |b| b.record.link_epoch.0) + 1),
            connected: now,
            last_seen: now,
            agent_version: hello.agent_version.clone(),
            policy_mode: hello.policy_mode.clone(),
            actions: hello.actions.clone(),
            journal_sequence: if is_sound { hello.journal_sequence } else { newest },
            linked: true,
            safe_mode: hello.safe_mode.clone(),
        };
        // Reports are stored from the reserve when space is short, and they come over links.
        let batch = context.storage.audited.batch().using_reserve();
        let batch = match &before {
            Some(before) => batch.replace_record(key, before.write_id, &record)?,
            None => batch.create_record(key, &record)?,
        };
        let batch = batch.put_object(&nodes::facts(agent.node)?, &facts)?;
        let (batch, renewed) = certificates::seen(context, batch, agent).await?;
        match context.storage.audited.commit(batch, vec![]).await {
            Ok(_) => {
                let epoch = record.link_epoch;
                if let Some(renewed) = renewed {
                    tracing::info!(node = %agent.name, serial = %agent.certificate.serial, "its renewed certificate is in use");
                    context.memory.node_cache.advance(renewed);
                }
                context.memory.node_cache.update(agent.node, |known| {
                    known.presence = Presence::Online;
                    known.last_seen = Some(now);
                    known.agent_version = record.agent_version;
                    known.policy_mode = record.policy_mode;
                    known.actions = Arc::from(record.actions);
                    known.safe_mode = record.safe_mode;
                    known.journal_sequence = known.journal_sequence.max(Some(record.journal_sequence));
                });
                return Ok(epoch);
            }
            // Another connect of the same node, or a change of its record, came between: look again.
            Err(error) if error.kind == Kind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
}

/// Notes that a node's link is gone. With `by_stop` it is the controller that goes, and the node is still there.
pub async fn disconnected(storage: &Storage, memory: &Memory, node: NodeId, by_stop: bool) {
    if memory.sessions.epoch(node).is_some() {
        return;
    }
    memory.node_cache.update(node, |known| known.presence = Presence::Offline);
    memory.notifier.node_changed(node);
    if let Err(error) = presence::note_end_of_link(storage, memory, node, by_stop).await {
        tracing::warn!(%node, "when the node was last seen is not stored: {error}");
    }
}

/// A node's facts.
pub async fn facts(storage: &Storage, node: NodeId) -> Result<Option<NodeFacts>> {
    let Some(bytes) = storage.repo.object(&nodes::facts(node)?).await? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(ControllerError::internal)
}
