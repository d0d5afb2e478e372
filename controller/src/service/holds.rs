//! Nodes that get no work: held by an operator, or by the controller when it cannot tell whether a machine is the
//! node that it says it is (docs/adr/0016). Also how they are released, and how a node is removed for good.
//!
//! A hold is a state of the node's record, so it is written and told to the audit log once, however often the
//! machine dials. What the hold means for open jobs is written behind it, and taken up again where that was not
//! finished: when the same is asked once more, at every start, and from time to time.

use fleet_types::audit::Actor;
use fleet_types::id::NodeId;
use fleet_types::view::{Done, Hold};

use super::caller::Operator;
use super::idempotency::Once;
use super::node_jobs::{Ends, committed, end_jobs};
use super::{inventory, limits, packages, views};
use crate::context::{Context, Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::jobs::{self, InboxRecord};
use crate::repo::nodes::{self, NodePointer, NodeRecord, NodeState, RemovedRecord, SeenRecord};
use crate::repo::packages as repo_packages;
use crate::repo::reader::{BatchExt as _, PAGE, Stored};
use crate::settings::Settings;

/// Code of the error for a node that is held.
pub const HELD: &str = "node-held";

/// An operator's word about one node.
pub struct Order<'a> {
    /// Who says it.
    pub caller: &'a Operator,
    /// The node's name.
    pub name: &'a str,
    /// Why; never empty.
    pub reason: &'a str,
    /// The call's key.
    pub idempotency_key: &'a str,
}

impl Order<'_> {
    fn once(&self, method: &'static str) -> Result<Once> {
        limits::check_node_reason(self.reason)?;
        Once::new(self.caller, self.idempotency_key, method, &[self.name.as_bytes(), self.reason.as_bytes()])
    }

    fn leaf(&self, action: &'static str) -> AuditEntry {
        AuditEntry::new(self.caller.actor(), action, format!("node/{}", self.name))
            .idempotency(self.idempotency_key)
            .text(self.reason)
    }
}

/// A node's record as it is stored.
pub async fn load(storage: &Storage, id: NodeId) -> Result<Stored<NodeRecord>> {
    storage.repo.get(&nodes::key(id)?).await?.ok_or_else(|| ControllerError::not_found("node", id))
}

/// The error for whoever comes as a node that is held.
pub fn held(settings: &Settings, hold: &Hold) -> ControllerError {
    let mut error = ControllerError::new(Kind::Blocked, HELD, format!("the node is {hold}"))
        .fix("an operator looks at it, then: fleetctl node release NAME --reason TEXT");
    error.detail.retry_after_ms = u64::try_from(settings.held_retry.as_millis()).unwrap_or(u64::MAX);
    error
}

/// Holds a node on the controller's own judgement: its agent is shut out, its open jobs end. Returns the error for
/// the caller who gave rise to it. A node that is shut out already stays as it is.
pub async fn shut_out(
    context: &Context,
    caused_by: Actor,
    node: NodeId,
    reason: &str,
) -> Result<ControllerError> {
    loop {
        let stored = load(&context.storage, node).await?;
        if let Some(hold) = stored.record.hold().filter(|hold| !hold.keeps_link()) {
            end_jobs(&context.storage, &context.memory, node, &hold.reason, Ends::All).await?;
            return Ok(held(&context.settings, hold));
        }
        let hold = Hold { reason: reason.to_owned(), since: Some(context.storage.clock.now()), by: None };
        let error = held(&context.settings, &hold);
        let record = stored.record.with_state(NodeState::Held(hold));
        let leaf = AuditEntry::new(caused_by.clone(), "node.hold", format!("node/{}", record.name));
        // Holding goes on from the reserve when space is short (security-and-delivery §3.4).
        let batch = context.storage.audited.batch().using_reserve();
        let batch = nodes::save(batch, stored.write_id, &record)?;
        match context.storage.audited.commit(batch, vec![leaf.refused(reason)]).await {
            // Somebody changed the record in between: look again. A hold must not be lost to that.
            Err(error) if error.kind == Kind::Conflict => continue,
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        tracing::error!(node = %record.name, address = caused_by.address, "the node is held: {reason}");
        context.memory.node_cache.advance(record);
        // Whoever has the live link may be the wrong one.
        if context.memory.sessions.close(node) {
            inventory::disconnected(&context.storage, &context.memory, node, false).await;
        }
        end_jobs(&context.storage, &context.memory, node, reason, Ends::All).await?;
        return Ok(error);
    }
}

/// Holds a node: it is offered nothing more. What it has begun goes on.
pub async fn hold(context: &Context, order: &Order<'_>) -> Result<Done> {
    let once = order.once("node.hold")?;
    loop {
        if let Some(answer) = once.answer(&context.storage).await? {
            take_up_again(context).await?;
            return Ok(answer);
        }
        let stored = find(&context.storage, order.name).await?;
        let refuse = |code, why| Err(ControllerError::new(Kind::Conflict, code, why));
        match &stored.record.state {
            NodeState::Active => {}
            NodeState::Held(hold) => return refuse(HELD, format!("node \"{}\" is {hold}", order.name)),
            NodeState::Pending => {
                let why = format!("node \"{}\" is not enrolled: it gets no work as it is", order.name);
                return refuse("node-pending", why);
            }
        }
        let hold = Hold {
            reason: order.reason.to_owned(),
            since: Some(context.storage.clock.now()),
            by: Some(order.caller.record.name.clone()),
        };
        let reason = format!("the node is {hold}");
        let record = stored.record.with_state(NodeState::Held(hold));
        let done =
            Done::new(format!("{} is held: it starts nothing new, what it has begun goes on", order.name));
        let batch = context.storage.audited.batch().using_reserve();
        let batch = nodes::save(batch, stored.write_id, &record)?;
        let batch = once.store(&context.storage, batch, &done)?;
        if committed(context.storage.audited.commit(batch, vec![order.leaf("node.hold")]).await)? {
            let id = record.id;
            context.memory.node_cache.advance(record);
            context.memory.notifier.node_changed(id);
            end_jobs(&context.storage, &context.memory, id, &reason, Ends::Unbegun).await?;
            return Ok(done);
        }
    }
}

/// Releases a node. After a hold of the controller's, the node is taken as it is now: its journal may be shorter
/// than it was, and its reports begin a new chain.
pub async fn release(storage: &Storage, memory: &Memory, order: &Order<'_>) -> Result<Done> {
    let once = order.once("node.release")?;
    loop {
        if let Some(answer) = once.answer(storage).await? {
            return Ok(answer);
        }
        let stored = find(storage, order.name).await?;
        let id = stored.record.id;
        // What stays taken because nobody knows what the node is doing is freed as well.
        let (mut batch, freed) = jobs::free_holds_of(&storage.repo, storage.audited.batch(), id).await?;
        let hold = stored.record.hold().cloned();
        if hold.is_none() && freed.is_empty() {
            let why = format!("node \"{}\" is not held, and nothing is held for it", order.name);
            return Err(ControllerError::new(Kind::Conflict, "node-not-held", why));
        }
        let mut record = match hold {
            Some(_) => stored.record.with_state(NodeState::Active),
            None => stored.record,
        };
        let mut leaf = order.leaf("node.release");
        let begins_anew = hold.as_ref().filter(|hold| !hold.keeps_link());
        if let Some(hold) = begins_anew {
            record.chain += 1;
            record.released = Some(storage.clock.now());
            leaf =
                leaf.because(format!("was held: {}; its reports begin chain {}", hold.reason, record.chain));
            if let Some(seen) = storage.repo.get::<SeenRecord>(&nodes::seen(id)?).await? {
                let forgotten = SeenRecord { journal_sequence: 0, ..seen.record };
                batch = batch.replace_record(nodes::seen(id)?, seen.write_id, &forgotten)?;
            }
        }
        batch = nodes::save(batch, stored.write_id, &record)?;
        let done = Done::new(format!("{} is released: it gets work again", order.name));
        let batch = once.store(storage, batch, &done)?;
        if committed(storage.audited.commit(batch, vec![leaf]).await)? {
            for run in freed {
                memory.notifier.run_changed(run);
            }
            if begins_anew.is_some() {
                memory.instances.forget(id);
                memory.report_heads.forget(id);
                memory.node_cache.update(id, |known| known.journal_sequence = None);
            }
            memory.node_cache.advance(record);
            memory.notifier.node_changed(id);
            return Ok(done);
        }
    }
}

/// Removes a node: its record goes, its certificate opens nothing any more, its open jobs end. What it did stays in
/// runs and log. Its name is free for another machine.
pub async fn remove(context: &Context, order: &Order<'_>) -> Result<Done> {
    let once = order.once("node.remove")?;
    loop {
        if let Some(answer) = once.answer(&context.storage).await? {
            take_up_again(context).await?;
            return Ok(answer);
        }
        let known = find(&context.storage, order.name).await?;
        let (id, record) = (known.record.id, &known.record);
        let removed = RemovedRecord {
            node: id,
            name: record.name.clone(),
            certificate_not_after: record.certificates.end(),
            by: order.caller.record.name.clone(),
            at: context.storage.clock.now(),
        };
        let batch = context.storage.audited.batch().using_reserve();
        let batch = nodes::remove(&context.storage.repo, batch, &known, &removed).await?;
        let batch = repo_packages::remove(&context.storage.repo, batch, id).await?;
        let done = Done::new(format!("{} is removed; its name is free for another machine", order.name));
        let batch = once.store(&context.storage, batch, &done)?;
        if committed(context.storage.audited.commit(batch, vec![order.leaf("node.remove")]).await)? {
            context.identities.denied.deny_node(id);
            context.memory.node_cache.remove(id);
            context.memory.instances.forget(id);
            context.memory.report_heads.forget(id);
            context.memory.sessions.close(id);
            context.memory.notifier.node_changed(id);
            packages::forget(context, id).await?;
            end_removed(&context.storage, &context.memory, &removed).await?;
            return Ok(done);
        }
    }
}

/// What was not finished between a hold or a removal and the end of the node's jobs, and certificates that open nothing.
pub async fn take_up_again(context: &Context) -> Result<()> {
    let now = context.storage.clock.now();
    for (_, stored) in context.storage.repo.all::<RemovedRecord>(nodes::REMOVED).await? {
        let removed = stored.record;
        end_removed(&context.storage, &context.memory, &removed).await?;
        // Without a certificate that lasts there is nothing to deny: node ids are never given twice.
        if removed.certificate_not_after.is_none_or(|end| end <= now) {
            let key = nodes::removed(removed.node)?;
            context
                .storage
                .audited
                .commit(context.storage.audited.batch().remove(key, stored.write_id), vec![])
                .await?;
            continue;
        }
        context.identities.denied.deny_node(removed.node);
    }
    for id in context.memory.node_cache.ids(|known| known.record.hold().is_some()) {
        let Some(known) = context.memory.node_cache.get(id) else { continue };
        let Some(hold) = known.record.hold() else { continue };
        end_jobs(&context.storage, &context.memory, id, &format!("the node is {hold}"), Ends::of(hold))
            .await?;
    }
    Ok(())
}

/// Ends the jobs of a node that was removed, empties its inbox and frees what it held: it will not answer any more.
async fn end_removed(storage: &Storage, memory: &Memory, removed: &RemovedRecord) -> Result<()> {
    end_jobs(storage, memory, removed.node, &format!("the node was removed by {}", removed.by), Ends::All)
        .await?;
    let entries = storage.repo.all::<InboxRecord>(&jobs::inbox(removed.node)).await?;
    for page in entries.chunks(PAGE) {
        let batch = storage.audited.batch().using_reserve();
        let batch = page.iter().fold(batch, |batch, (key, _)| batch.delete(key.clone()));
        storage.audited.commit(batch, vec![]).await?;
    }
    let batch = storage.audited.batch().using_reserve();
    let (batch, freed) = jobs::free_holds_of(&storage.repo, batch, removed.node).await?;
    if !freed.is_empty() {
        storage.audited.commit(batch, vec![]).await?;
        for run in freed {
            memory.notifier.run_changed(run);
        }
    }
    Ok(())
}

/// A node's record as it is stored, by its name.
pub(super) async fn find(storage: &Storage, name: &str) -> Result<Stored<NodeRecord>> {
    let pointer = match name.parse::<fleet_types::id::Name>() {
        Ok(name) => storage.repo.get::<NodePointer>(&nodes::name(name.as_str())?).await?,
        Err(_) => None,
    };
    match pointer {
        Some(pointer) => load(storage, pointer.record.node).await,
        None => Err(views::no_node(name)),
    }
}

#[cfg(test)]
mod tests;
