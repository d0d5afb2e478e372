//! Nodes as the controller knows them: filled at start, kept up at connects and transitions.

use std::sync::Arc;

use fleet_store::Direction;
use fleet_types::facts::{MAX_FACTS_BYTES, MAX_FACTS_ENTRIES, NodeFacts};
use fleet_types::id::{LinkEpoch, NodeId};
use fleet_types::view::{Health, Presence};

use super::caller::Agent;
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::node_cache::Known;
use crate::repo::keys;
use crate::repo::reader::{BatchExt as _, Repo};
use crate::repo::records::{JobRecord, Mark, NodeRecord, NodeState, OperatorRecord, SeenRecord};

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
    /// Its facts.
    pub facts: NodeFacts,
}

/// Reads every node and operator into memory; for starts.
pub async fn fill(context: &Context) -> Result<()> {
    for (_, stored) in context.repo.all::<OperatorRecord>(keys::OPERATORS).await? {
        context.operators.put(stored.record);
    }
    for (_, stored) in context.repo.all::<NodeRecord>(keys::NODES).await? {
        let mut known = Known::new(stored.record);
        let id = known.record.id;
        if let Some(seen) = context.repo.get::<SeenRecord>(&keys::seen(id)?).await? {
            known.last_seen = Some(seen.record.last_seen);
            known.agent_version = seen.record.agent_version;
            known.policy_mode = seen.record.policy_mode;
            known.actions = Arc::from(seen.record.actions);
        }
        known.health = newest_health(&context.repo, id).await?;
        context.node_cache.put(known);
    }
    Ok(())
}

/// Jobs looked through for the newest one that found a health: the checks run daily, other jobs between.
const HEALTH_SEARCH: usize = 20;

async fn newest_health(repo: &Repo, node: NodeId) -> Result<Option<Health>> {
    for job in newest_jobs(repo, node, HEALTH_SEARCH).await? {
        if job.health.is_some() {
            return Ok(job.health);
        }
    }
    Ok(None)
}

/// A node's newest jobs, newest first.
pub async fn newest_jobs(repo: &Repo, node: NodeId, limit: usize) -> Result<Vec<JobRecord>> {
    let prefix = keys::node_jobs(node);
    let mut jobs = Vec::new();
    for (key, _) in repo.page::<Mark>(&prefix, None, limit, Direction::Descending).await? {
        if let Some(run) = keys::run_in(&key, &prefix)
            && let Some(stored) = repo.get::<JobRecord>(&keys::job(run, node)?).await?
        {
            jobs.push(stored.record);
        }
    }
    Ok(jobs)
}

/// May this node's agent connect? Its record says so, not its certificate alone.
pub fn check_active(context: &Context, node: NodeId) -> Result<Known> {
    let known = context.node_cache.get(node).ok_or_else(|| {
        ControllerError::new(Kind::Refused, "node-unknown", "this controller has no record of the node")
    })?;
    match &known.record.state {
        NodeState::Active => Ok(known),
        NodeState::Pending => {
            Err(ControllerError::new(Kind::Refused, "node-pending", "the node is not enrolled"))
        }
        NodeState::Frozen { reason } => {
            Err(ControllerError::new(Kind::Refused, "node-frozen", format!("the node is frozen: {reason}")))
        }
    }
}

/// Notes a connect: issues the link epoch and stores what the hello says, in one write.
pub async fn connect(context: &Context, agent: &Agent, hello: &HelloFacts) -> Result<LinkEpoch> {
    check_active(context, agent.node)?;
    let facts = serde_json::to_vec(&hello.facts).map_err(ControllerError::internal)?;
    if facts.len() > MAX_FACTS_BYTES {
        return Err(ControllerError::invalid("hello.facts", "larger than 256 KiB"));
    }
    let entries = hello.facts.interfaces.len().max(hello.facts.flags.len()).max(hello.facts.simulated.len());
    if entries > MAX_FACTS_ENTRIES {
        return Err(ControllerError::invalid("hello.facts", "a list has more than 4,096 entries"));
    }
    let now = context.clock.now();
    loop {
        let key = keys::seen(agent.node)?;
        let before = context.repo.get::<SeenRecord>(&key).await?;
        let record = SeenRecord {
            link_epoch: LinkEpoch(before.as_ref().map_or(0, |b| b.record.link_epoch.0) + 1),
            connected: now,
            last_seen: now,
            agent_version: hello.agent_version.clone(),
            policy_mode: hello.policy_mode.clone(),
            actions: hello.actions.clone(),
            journal_sequence: hello.journal_sequence,
        };
        // A node restored from an image knows less than it once did: it may have forgotten finished jobs.
        if let Some(before) = &before
            && hello.journal_sequence < before.record.journal_sequence
        {
            return Err(ControllerError::new(
                Kind::Refused,
                "journal-went-back",
                format!(
                    "the node's journal ends at {}, {} was seen before: it was restored from an image or its state directory was lost",
                    hello.journal_sequence, before.record.journal_sequence
                ),
            )
            .fix("enrol the machine as a new node; accepting an old image is not built yet"));
        }
        // Reports are stored from the reserve when space is short, and they come over links.
        let batch = context.audited.batch().using_reserve();
        let batch = match &before {
            Some(before) => batch.replace_record(key, before.write_id, &record)?,
            None => batch.create_record(key, &record)?,
        };
        let batch = batch.put_object(&keys::facts(agent.node)?, &facts)?;
        match context.audited.commit(batch, vec![]).await {
            Ok(_) => {
                let epoch = record.link_epoch;
                context.node_cache.update(agent.node, |known| {
                    known.presence = Presence::Online;
                    known.last_seen = Some(now);
                    known.agent_version = record.agent_version;
                    known.policy_mode = record.policy_mode;
                    known.actions = Arc::from(record.actions);
                });
                return Ok(epoch);
            }
            // Another connect of the same node came between: take the next number.
            Err(error) if error.kind == Kind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
}

/// Notes that a node's link is gone.
pub fn disconnected(context: &Context, node: NodeId) {
    context.node_cache.update(node, |known| known.presence = Presence::Offline);
    context.notifier.node_changed(node);
}

/// A node's facts.
pub async fn facts(context: &Context, node: NodeId) -> Result<Option<NodeFacts>> {
    let Some(bytes) = context.repo.object(&keys::facts(node)?).await? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(ControllerError::internal)
}
