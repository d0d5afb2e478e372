//! Refused calls and handshakes: counted, and written to the audit log at most once in a while each, so that
//! an attacker cannot fill the log (security-and-delivery §3.4).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_types::audit::Actor;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::repo::audited::AuditEntry;
use crate::service::caller::nobody;

/// How often counts are written: soon enough for a person who looks, seldom enough for a log.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// Different refusals kept between two writes; beyond, they are counted together.
const MAX_KINDS: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Refusal {
    action: &'static str,
    who: String,
    reason: String,
}

/// Counts of refusals since they were last written.
#[derive(Default)]
pub struct Refusals {
    counts: Mutex<HashMap<Refusal, (u64, Actor)>>,
}

impl Refusals {
    /// Counts a refused caller without an identity.
    pub fn count(&self, action: &'static str, address: &str, reason: &str) {
        self.count_actor(action, nobody(address), reason);
    }

    /// Counts a refused caller.
    pub fn count_actor(&self, action: &'static str, actor: Actor, reason: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let who = format!("{}/{}/{}", actor.role, actor.id, actor.address);
        let mut refusal = Refusal { action, who, reason: reason.chars().take(200).collect() };
        let mut actor = actor;
        if counts.len() >= MAX_KINDS && !counts.contains_key(&refusal) {
            refusal =
                Refusal { action: "call", who: String::new(), reason: "many different refusals".to_owned() };
            actor = nobody("");
        }
        counts.entry(refusal).or_insert((0, actor)).0 += 1;
    }

    /// Writes the counts until told to stop, and once more then.
    pub async fn write(self: Arc<Self>, context: Arc<Context>, stop: CancellationToken) {
        loop {
            let stopped = tokio::time::timeout(WRITE_EVERY, stop.cancelled()).await.is_ok();
            let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
            if !counts.is_empty() {
                let leaves = counts
                    .into_iter()
                    .map(|(refusal, (count, actor))| {
                        let object = format!("{}/{count}", refusal.action);
                        AuditEntry::new(actor, "refused", object).refused(refusal.reason)
                    })
                    .collect();
                let batch = context.audited.batch().using_reserve();
                if let Err(error) = context.audited.commit(batch, leaves).await {
                    tracing::error!("refusals could not be written to the audit log: {error}");
                }
            }
            if stopped {
                return;
            }
        }
    }
}
