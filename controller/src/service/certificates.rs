//! Which certificates are good, and how they are renewed (security-and-delivery §1.8, docs/adr/0044).
//!
//! A renewal gives a certificate for a new key to whoever comes with one that is good, for the same name and no
//! other. The one before stays good until the new one was seen on a connection; from then on it is retired. A
//! retired one opens nothing, and when it asks to be renewed, its key is in two places: the node is held.

use std::time::Duration;

use fleet_certs::csr::RequestedKey;
use fleet_certs::issue::{self, Issued, issued_at};
use fleet_certs::{CertificateDer, PeerIdentity, Role, verify};
use fleet_store::Batch;
use fleet_types::id::{NodeId, OperatorId};
use fleet_types::time::Timestamp;
use uuid::Uuid;

use super::caller::{Agent, Operator};
use super::node_jobs::committed;
use super::{holds, inventory};
use crate::context::{Context, Memory, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::certificates::{self, Certificates, RenewalRecord, Replaced, Standing};
use crate::repo::nodes::{self, NodeRecord};
use crate::repo::operators::{self, OperatorRecord};
use crate::repo::reader::Stored;

/// Code of the error for a certificate that was replaced.
pub const RETIRED: &str = "certificate-retired";
/// Between two issues to one identity lies at least this part of a certificate's life: 90 min of an agent's three days.
/// An honest one asks once in half of its life, and a few times more when its answers or its key get lost.
const ISSUES_A_LIFE: u32 = 48;
/// So long an operator's certificate that was replaced still opens connections: programs that were started side by side
/// have all read it when one of them renews it.
const GRACE: Duration = Duration::from_mins(1);

/// Refuses an agent whose certificate was replaced by a newer one that has come. Of a node without a record nothing
/// is said here.
pub fn check(memory: &Memory, node: NodeId, peer: &PeerIdentity) -> Result<()> {
    match memory.node_cache.record(node).map(|record| record.certificates.standing(peer)) {
        Some(Standing::Retired) => Err(retired_of_node()),
        Some(Standing::Current | Standing::Next | Standing::Newer) | None => Ok(()),
    }
}

fn retired() -> ControllerError {
    ControllerError::new(Kind::Refused, RETIRED, "this certificate was replaced by a newer one")
}

/// Refuses an operator who opens a connection with a certificate that was replaced a while ago.
pub fn check_operator(record: &OperatorRecord, peer: &PeerIdentity, now: Timestamp) -> Result<()> {
    let certificates = &record.certificates;
    let is_fresh = |replaced: &Replaced| replaced.serial == peer.serial && now < replaced.at.plus(GRACE);
    if certificates.standing(peer) == Standing::Retired
        && !certificates.replaced.as_ref().is_some_and(is_fresh)
    {
        return Err(retired()
            .fix("a copy of this context has renewed it; sign in there, or here with a new invite: fleetctl login INVITE"));
    }
    Ok(())
}

/// Is this certificate of an operator seen for the first time?
pub fn is_new_of_operator(record: &OperatorRecord, peer: &PeerIdentity) -> bool {
    matches!(record.certificates.standing(peer), Standing::Next | Standing::Newer)
}

/// A renewed certificate of an operator has come: it is the one in use from now on. It is good whether that could be
/// stored or not; the next call tries again.
pub async fn seen_of_operator(context: &Context, operator: OperatorId, peer: &PeerIdentity) {
    if let Err(error) = note_of_operator(context, operator, peer).await {
        tracing::warn!(%operator, "that a renewed certificate is in use is not stored: {error}");
    }
}

async fn note_of_operator(context: &Context, operator: OperatorId, peer: &PeerIdentity) -> Result<()> {
    loop {
        let stored = operator_record(context, operator).await?;
        if !is_new_of_operator(&stored.record, peer) {
            context.identities.operators.put(stored.record);
            return Ok(());
        }
        let certificates = stored.record.certificates.clone().seen(peer, context.storage.clock.now());
        let record = OperatorRecord { certificates, ..stored.record };
        let batch = context.storage.audited.batch().using_reserve();
        let batch = operators::save(batch, stored.write_id, &record)?;
        if committed(context.storage.audited.commit(batch, vec![]).await)? {
            tracing::info!(operator = %record.name, serial = %peer.serial, "their renewed certificate is in use");
            context.identities.operators.put(record);
            return Ok(());
        }
    }
}

async fn operator_record(context: &Context, operator: OperatorId) -> Result<Stored<OperatorRecord>> {
    let stored = context.storage.repo.get::<OperatorRecord>(&operators::key(operator)?).await?;
    stored.ok_or_else(|| ControllerError::not_found("operator", operator))
}

fn retired_of_node() -> ControllerError {
    retired().fix(
        "where nobody has copied the node's key, its newer one is lost: fleetctl node remove NAME, then join it anew",
    )
}

/// Adds to the batch of a connect what is new about the certificate: one that was awaited has come. Gives the node's
/// record as it will be; none where nothing changes.
pub async fn seen(context: &Context, batch: Batch, agent: &Agent) -> Result<(Batch, Option<NodeRecord>)> {
    let (node, peer) = (agent.node, &agent.certificate);
    let known = context.memory.node_cache.record(node).map(|record| record.certificates.standing(peer));
    if known == Some(Standing::Current) {
        return Ok((batch, None));
    }
    let stored = holds::load(&context.storage, node).await?;
    match stored.record.certificates.standing(peer) {
        Standing::Current => return Ok((batch, None)),
        Standing::Retired => return Err(retired_of_node()),
        Standing::Newer => tracing::warn!(
            node = %stored.record.name, serial = %peer.serial,
            "a certificate comes that this store never gave: the store is older than it, and takes it"
        ),
        Standing::Next => {}
    }
    let certificates = stored.record.certificates.clone().seen(peer, context.storage.clock.now());
    let record = stored.record.with_certificates(certificates);
    Ok((nodes::save(batch, stored.write_id, &record)?, Some(record)))
}

/// An agent asks for a certificate for a new key; leaf first, DER. `action` is what the audit log calls it.
pub async fn renew_node(
    context: &Context,
    agent: &Agent,
    csr: &[u8],
    action: &'static str,
) -> Result<Vec<Vec<u8>>> {
    let requested = requested(csr)?;
    let (storage, peer) = (&context.storage, &agent.certificate);
    loop {
        let stored = holds::load(storage, agent.node).await?;
        if stored.record.certificates.standing(peer) == Standing::Retired {
            let why = "a certificate of it that was replaced asks to be renewed: its key is in two places, or an old copy of its disk runs";
            return Err(holds::shut_out(context, agent.actor(), agent.node, why).await?);
        }
        inventory::check_state(&context.settings, &stored.record)?;
        let now = storage.clock.now();
        let certificates = as_seen(&stored.record.certificates, peer, now);
        let asked = Asked { certificates: &certificates, requested: &requested, now };
        if let Some(chain) = asked.answered(storage, Role::Agent, *agent.node.as_uuid()).await? {
            // Whoever made the commit may not have come to tell memory.
            context.memory.node_cache.advance(stored.record);
            return Ok(chain);
        }
        let lifetime = context.settings.agent_certificate;
        asked.check(lifetime)?;
        let issued = issue::agent(
            &context.identities.keyring.agent_ca,
            context.identities.fleet.fleet,
            agent.node,
            &requested,
            now,
            lifetime,
        )
        .map_err(ControllerError::internal)?;
        // What keeps a node in the fleet goes on from the reserve, like its reports.
        let batch = certificates::put_renewal(storage.audited.batch().using_reserve(), &issued)?;
        let certificates = certificates.with_next(&issued, requested.digest());
        let record = stored.record.with_certificates(certificates);
        let batch = nodes::save(batch, stored.write_id, &record)?;
        let leaf = leaf(AuditEntry::new(agent.actor(), action, format!("node/{}", record.name)), &issued);
        if committed(storage.audited.commit(batch, vec![leaf]).await)? {
            context.memory.node_cache.advance(record);
            return Ok(issued.chain.iter().map(|der| der.to_vec()).collect());
        }
    }
}

/// An operator asks for a certificate for a new key; leaf first, DER. `action` is what the audit log calls it.
pub async fn renew_operator(
    context: &Context,
    caller: &Operator,
    csr: &[u8],
    action: &'static str,
) -> Result<Vec<Vec<u8>>> {
    let requested = requested(csr)?;
    let (storage, operator) = (&context.storage, caller.record.id);
    loop {
        let stored = operator_record(context, operator).await?;
        if stored.record.certificates.standing(&caller.certificate) == Standing::Retired {
            return Err(
                retired().fix("repeat the command: another program of yours has renewed it a moment ago")
            );
        }
        let now = storage.clock.now();
        let certificates = as_seen(&stored.record.certificates, &caller.certificate, now);
        let asked = Asked { certificates: &certificates, requested: &requested, now };
        if let Some(chain) = asked.answered(storage, Role::Operator, *operator.as_uuid()).await? {
            context.identities.operators.put(stored.record);
            return Ok(chain);
        }
        let lifetime = context.settings.operator_certificate;
        asked.check(lifetime)?;
        let issued = issue::operator(
            &context.identities.keyring.operator_ca,
            context.identities.fleet.fleet,
            operator,
            &requested,
            now,
            lifetime,
        )
        .map_err(ControllerError::internal)?;
        let batch = certificates::put_renewal(storage.audited.batch().using_reserve(), &issued)?;
        let certificates = certificates.with_next(&issued, requested.digest());
        let record = OperatorRecord { certificates, ..stored.record };
        let batch = operators::save(batch, stored.write_id, &record)?;
        let entry = AuditEntry::new(caller.actor(), action, format!("operator/{}", record.name));
        if committed(storage.audited.commit(batch, vec![leaf(entry, &issued)]).await)? {
            context.identities.operators.put(record);
            return Ok(issued.chain.iter().map(|der| der.to_vec()).collect());
        }
    }
}

fn requested(csr: &[u8]) -> Result<RequestedKey> {
    RequestedKey::from_request(csr).map_err(|error| ControllerError::invalid("csr", error))
}

fn leaf(entry: AuditEntry, issued: &Issued) -> AuditEntry {
    let words = format!("serial {}, until {}", issued.serial, issued.not_after);
    entry.subject(issued.fingerprint).detail("certificate", words)
}

/// Whoever asks with the certificate that was awaited has it.
fn as_seen(known: &Certificates, peer: &PeerIdentity, now: Timestamp) -> Certificates {
    match known.standing(peer) {
        Standing::Next | Standing::Newer => known.clone().seen(peer, now),
        Standing::Current | Standing::Retired => known.clone(),
    }
}

/// A request for a certificate, held against those that there are.
struct Asked<'a> {
    certificates: &'a Certificates,
    requested: &'a RequestedKey,
    now: Timestamp,
}

impl Asked<'_> {
    /// The answer given before, where the same key has a certificate that is awaited and good now.
    async fn answered(&self, storage: &Storage, role: Role, id: Uuid) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(next) =
            self.certificates.next.as_ref().filter(|next| next.key == Some(self.requested.digest()))
        else {
            return Ok(None);
        };
        let key = certificates::renewal(role, id)?;
        let stored = storage.repo.get::<RenewalRecord>(&key).await?.map(|stored| stored.record);
        let Some(renewal) = stored.filter(|renewal| renewal.serial == next.serial) else { return Ok(None) };
        let chain: Vec<Vec<u8>> = renewal.chain.into_iter().map(|bytes| bytes.0).collect();
        let leaf = chain.first().map(|der| verify::describe(&CertificateDer::from(der.as_slice())));
        // One that was issued while this clock was wrong is of no use to anybody.
        let is_good = leaf.is_some_and(|leaf| {
            leaf.is_ok_and(|leaf| leaf.not_before <= self.now && self.now < leaf.not_after)
        });
        Ok(is_good.then_some(chain))
    }

    /// May one be issued now?
    fn check(&self, lifetime: Duration) -> Result<()> {
        let in_use = self.certificates.current.as_ref().and_then(|current| current.key);
        if in_use == Some(self.requested.digest()) {
            return Err(ControllerError::invalid(
                "csr",
                "it is for the key of the certificate in use; renew with a new key",
            ));
        }
        // A newest one that begins in the future was issued while this clock was wrong, and delays nobody.
        let newest = self.certificates.newest_start.filter(|start| *start <= self.now);
        let Some(again) = newest.map(|start| issued_at(start).plus(lifetime / ISSUES_A_LIFE)) else {
            return Ok(());
        };
        if self.now < again {
            let why = format!("the newest certificate was issued a moment ago; another one is from {again}");
            let mut error = ControllerError::new(Kind::Exhausted, "renewed-just-now", why);
            error.detail.retry_after_ms =
                u64::try_from(again.since(self.now).as_millis()).unwrap_or(u64::MAX);
            return Err(error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
