//! Asks nodes whether the gates of their ring hold: saved first, then sent, like an offer; it takes no slot and no place.
//!
//! The answer comes as a report (`service/reports/gates.rs`). Called by a pass.

use fleet_rollout::{Ask, Event};
use fleet_types::authority::Authority;
use fleet_types::merkle;
use fleet_types::request::node_leaf;

use super::active::Active;
use super::{deliver, pass};
use crate::context::Context;
use crate::error::Result;
use crate::repo::audited::AuditEntry;
use crate::repo::jobs::{self, InboxRecord, JobRecord};
use crate::repo::runs;

/// One commit for a page of questions, with one leaf; then they go on their way.
pub async fn save_asks(context: &Context, active: &Active, asks: &[Ask]) -> Result<()> {
    let stored = active.run();
    let (run, request) = (stored.record.run, stored.record.authority.digest());
    let now = context.storage.clock.now();
    // Only while the run is as it was read: nobody is asked after a cancel was confirmed.
    let mut batch = context.storage.audited.batch().if_write_id(runs::key(run)?, stored.write_id);
    let (mut written, mut entries) = (Vec::new(), Vec::new());
    for ask in asks {
        let Some(known) = active.job(ask.node) else { continue };
        let gates = known.record.ask(ask.judging, now);
        let (stage, attempt) = (gates.stage, gates.attempt);
        let record = JobRecord { gates: Some(gates), ..known.record.clone() };
        let authority = Authority::Gates(request);
        let entry = InboxRecord { stage, attempt, authority, ..active.inbox(&record)? };
        batch = jobs::ask(batch, &known, &record, &entry)?;
        entries.push((ask.node, entry));
        written.push(record);
    }
    let mut nodes: Vec<_> = written.iter().map(|record| record.node).collect();
    nodes.sort_unstable();
    let leaf = AuditEntry::new(context.storage.audited.actor(), "rollout.gates", format!("run/{run}"))
        .subject(request)
        .nodes(merkle::root(&nodes.iter().map(|node| node_leaf(*node)).collect::<Vec<_>>()))
        .because(format!("{} nodes are asked", written.len()));
    let write_id = context.storage.audited.commit(batch, vec![leaf]).await?;
    for record in written {
        if let Some(gates) = &record.gates {
            let event = Event::Looked { node: record.node, look: gates.look() };
            pass::apply(&context.storage, active, &event)?;
        }
        active.open.write().put_job(record, write_id);
    }
    deliver::offers(&context.memory, &context.identities, run, entries);
    Ok(())
}
