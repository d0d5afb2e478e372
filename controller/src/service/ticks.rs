//! The run of a tick: made of a standing order as an operator's start is made of their request, with the same checks.
//!
//! Decides neither whether a tick is due nor which nodes it means; whoever does says with `more` what becomes true in the
//! same commit, so that a tick has one run. What it cannot start it names, as an operator would be told. Called by the
//! scheduler.

use fleet_store::Batch;
use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::id::{NodeId, RunId};
use fleet_types::request::NodeList;
use fleet_types::seal::{Envelope, Kind as SealKind};
use fleet_types::standing_order::TickRun;
use fleet_types::time::Timestamp;

use super::runs::checking;
use super::runs::making::{self, Starter};
use super::{documents, standing_orders};
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::repo::runs::TickRecord;
use crate::repo::standing_orders::{self as kept, OrderRecord};

/// What is to be started, and when it may begin on nodes.
#[derive(Debug, Clone, Copy)]
pub struct Firing<'a> {
    /// The time for which the schedule calls.
    pub at: Timestamp,
    /// The nodes, sorted by id.
    pub nodes: &'a [NodeId],
    /// Not before this instant; not before the tick.
    pub not_before: Timestamp,
    /// No first start on a node after this instant.
    pub not_after: Timestamp,
}

/// Makes the run of a tick, with the tick's own record in the same commit.
///
/// # Errors
/// When the order does not stand any more, its signer is not listed any more, or an operator's start of the same would be
/// refused; nothing is written then.
pub async fn fire(
    context: &Context,
    order: &OrderRecord,
    firing: Firing<'_>,
    more: impl FnOnce(Batch, RunId) -> Result<Batch>,
) -> Result<RunId> {
    let storage = &context.storage;
    let schedule = order.schedule();
    let (head, file) = standing_orders::newest(storage, &order.file).await?;
    let place = kept::key(&order.file, &order.order.schedule)?;
    let standing = storage.repo.get::<OrderRecord>(&place).await?;
    let standing = standing.filter(|standing| standing.record.digest == order.digest);
    let Some(standing) = standing.filter(|_| head.record.digest == order.order.file) else {
        let what = format!("what was signed for \"{schedule}\" does not stand any more");
        return Err(ControllerError::new(Kind::Blocked, "order-outdated", what).fix(format!(
            "sign for revision {} of \"{}\": fleetctl schedule apply FILE",
            head.record.revision, order.file
        )));
    };
    check_signer(context, order).await?;
    let Firing { at, nodes, not_before, not_after } = firing;
    if !nodes.is_sorted() {
        return Err(ControllerError::invalid("nodes", "they are not sorted"));
    }
    let run = storage.clock.run_id();
    let tick = TickRun { run, nodes: NodeList::of(nodes), not_before, not_after };
    let request = order.order.request(order.digest, &file, at, tick);
    let request = request.map_err(|error| ControllerError::invalid("tick", error))?;
    let payload = canonical::to_vec(&request).map_err(ControllerError::internal)?;
    // Nodes make it anew from the order, whose signature stands for it: it bears none of its own.
    let unsigned = Envelope { kind: SealKind::Request, payload, key: order.key, signature: vec![] };
    let start = checking::check(context, (request, unsigned.payload.len()), nodes, None).await?;
    let starter = Starter {
        actor: storage.audited.actor(),
        name: &format!("schedule {schedule}"),
        authority: Authority::Tick(unsigned.digest()),
        schedule: Some(TickRecord { schedule, at, order: order.digest, file: order.order.file }),
        idempotency_key: "",
    };
    // One that is withdrawn or replaced at this moment starts nothing.
    let more = |batch: Batch| more(batch.if_write_id(place, standing.write_id), run);
    making::write(storage, &context.memory, &starter, &start, &[&unsigned], more).await?;
    Ok(run)
}

/// Nodes take the order only as long as the key that signed it is listed, with a role that may sign work.
async fn check_signer(context: &Context, order: &OrderRecord) -> Result<()> {
    let envelope = documents::envelope(&context.storage, order.digest).await?;
    let trust = context.identities.trust.get();
    trust.0.verify_content(&envelope, SealKind::StandingOrder).map(drop).map_err(|error| {
        let what = format!(
            "nodes do not take what {} signed for \"{}\": {error}",
            order.signed_by,
            order.schedule()
        );
        ControllerError::new(Kind::Blocked, "signature-refused", what)
            .fix("have somebody sign whose key the trust bundle lists: fleetctl schedule apply FILE")
    })
}

#[cfg(test)]
mod tests;
