//! Holds and waivers: findings that may stay for a while, because somebody answers for it. Signed, one for a finding and a
//! selection of nodes; a later one replaces it, a release ends it. The clock runs on below.
//!
//! Changes no deadline and no node: a rollout that would fix it goes on as its plan says. Called by the edge; read by
//! `patches`.

use std::collections::HashMap;
use std::sync::Arc;

use fleet_advisories::advisory::Cve;
use fleet_types::canonical;
use fleet_types::finding_hold::FindingHold;
use fleet_types::id::Name;
use fleet_types::label::{Labels, Selector};
use fleet_types::seal::{Envelope, Kind as SealKind};
use fleet_types::time::Timestamp;
use fleet_types::view::{Done, FindingHoldItem, HeldBy, Page};

use super::caller::Operator;
use super::idempotency::Once;
use super::node_jobs::committed;
use super::{limits, patches, signatures};
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::fleet::findings::About;
use crate::repo::audited::AuditEntry;
use crate::repo::finding_holds::{self as kept, FindingHoldRecord};
use crate::repo::reader::{BatchExt as _, Repo};

/// Holds of a fleet at a time: each is somebody's decision, and all of them are read for each list.
const MAX_HOLDS: usize = 1000;

/// A hold with who signed it.
#[derive(Debug)]
pub struct Held {
    hold: FindingHold,
    signed_by: Name,
}

impl Held {
    /// As a view shows it.
    pub fn by(&self) -> HeldBy {
        let FindingHold { kind, owner, reason, from, until, .. } = self.hold.clone();
        HeldBy { kind, owner, reason, from, until, signed_by: self.signed_by.clone() }
    }
}

/// The holds that count now.
pub struct FindingHolds(Vec<Arc<Held>>);

/// Those of them that are of one node, by finding: of several the one that ends last.
#[derive(Default)]
pub struct NodeHolds(HashMap<String, Arc<Held>>);

impl FindingHolds {
    /// Those of now.
    pub async fn read(repo: &Repo, now: Timestamp) -> Result<Self> {
        let all = all(repo).await?;
        Ok(Self(all.into_iter().filter(|held| held.hold.holds(now)).map(Arc::new).collect()))
    }

    /// Those of a node.
    pub fn of(&self, node: &Name, labels: &Labels) -> NodeHolds {
        let mut of: HashMap<String, Arc<Held>> = HashMap::new();
        for held in self.0.iter().filter(|held| held.hold.selector.matches(node, labels)) {
            let known = of.entry(held.hold.finding.clone()).or_insert_with(|| Arc::clone(held));
            if known.hold.until < held.hold.until {
                *known = Arc::clone(held);
            }
        }
        NodeHolds(of)
    }
}

impl NodeHolds {
    /// What lets a finding stay, as one of this CVE: a hold of the CVE or of the advisory.
    pub fn of_cve(&self, about: &About, cve: &str) -> Option<&Arc<Held>> {
        let both = [self.0.get(cve), self.0.get(&about.id)];
        both.into_iter().flatten().max_by_key(|held| held.hold.until)
    }

    /// What lets a finding stay as a whole: a hold of its advisory, or of every CVE of it; then the one that ends first.
    pub fn of_all(&self, about: &About) -> Option<&Arc<Held>> {
        if let Some(held) = self.0.get(&about.id) {
            return Some(held);
        }
        let each: Option<Vec<_>> = about.cves.iter().map(|cve: &Cve| self.0.get(&cve.to_string())).collect();
        each?.into_iter().min_by_key(|held| held.hold.until)
    }
}

impl Held {
    /// Until when.
    pub const fn until(&self) -> Timestamp {
        self.hold.until
    }
}

async fn all(repo: &Repo) -> Result<Vec<Held>> {
    let all = repo.all::<FindingHoldRecord>(kept::ALL).await?;
    let read = |record: FindingHoldRecord| {
        let hold = canonical::from_slice(&record.envelope.payload).map_err(ControllerError::internal)?;
        Ok(Held { hold, signed_by: record.signed_by })
    };
    all.into_iter().map(|(_, stored)| read(stored.record)).collect()
}

/// Takes a signed hold.
pub async fn hold(context: &Context, caller: &Operator, envelope: Envelope, key: &str) -> Result<Done> {
    let storage = &context.storage;
    let once = Once::new(caller, key, "finding.hold", &[envelope.digest().as_bytes()])?;
    if let Some(answer) = once.answer(storage).await? {
        return Ok(answer);
    }
    let hold = signed(context, caller, &envelope)?;
    let nodes = patches::nodes_with(context, &hold.finding, &hold.selector);
    if nodes == 0 {
        return Err(ControllerError::not_found("finding", &hold.finding)
            .fix("no chosen node has it, as far as is known: fleetctl patch list"));
    }
    let place = kept::key(&hold.finding, &hold.selector)?;
    loop {
        let before = storage.repo.get::<FindingHoldRecord>(&place).await?;
        if before.is_none() && storage.repo.all::<FindingHoldRecord>(kept::ALL).await?.len() >= MAX_HOLDS {
            let what = format!("there are {MAX_HOLDS} holds of findings, and no more are kept");
            return Err(ControllerError::new(Kind::Exhausted, "too-many-holds", what)
                .fix("release some: fleetctl patch holds; or hold more nodes by one: -l SELECTOR"));
        }
        let (kind, until) = (hold.kind.as_str(), hold.until);
        let done = Done::new(format!("{} may stay on {nodes} nodes until {until} ({kind})", hold.finding));
        let record =
            FindingHoldRecord { envelope: envelope.clone(), signed_by: caller.record.name.clone(), until };
        let batch = storage.audited.batch();
        let batch = match &before {
            Some(stored) => batch.replace_record(place.clone(), stored.write_id, &record)?,
            None => batch.create_record(place.clone(), &record)?,
        };
        let batch = once.store(storage, batch, &done)?;
        let leaf = leaf(caller, "finding.hold", &hold.finding, key)
            .subject(envelope.digest())
            .detail("kind", kind)
            .detail("selector", hold.selector.to_string())
            .detail("owner", hold.owner.clone())
            .detail("until", until.to_string())
            .text(&hold.reason);
        if committed(storage.audited.commit(batch, vec![leaf]).await)? {
            context.memory.findings.news.notify_one();
            return Ok(done);
        }
    }
}

fn leaf(caller: &Operator, action: &'static str, finding: &str, key: &str) -> AuditEntry {
    AuditEntry::new(caller.actor(), action, format!("finding/{finding}")).idempotency(key)
}

/// The hold in signed bytes: of the caller, whole, and beginning now.
fn signed(context: &Context, caller: &Operator, envelope: &Envelope) -> Result<FindingHold> {
    signatures::check(&context.identities, caller, envelope, SealKind::FindingHold, "the hold")?;
    let hold: FindingHold =
        canonical::from_signed(&envelope.payload).map_err(|error| ControllerError::invalid("hold", error))?;
    hold.check(context.identities.fleet.fleet).map_err(|error| ControllerError::invalid("hold", error))?;
    let now = context.storage.clock.now();
    // One that was signed long ago is somebody else's idea of now, or an old one sent again after its release.
    if hold.from > now.plus(limits::CLOCK_AHEAD) || now.since(hold.from) > limits::CLOCK_AHEAD {
        return Err(ControllerError::invalid("hold", "it does not begin now").fix("hold it anew"));
    }
    Ok(hold)
}

/// What ends a hold.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// The finding.
    pub finding: &'a str,
    /// The selection as it was held.
    pub selector: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The caller's key.
    pub idempotency_key: &'a str,
}

/// Ends a hold.
pub async fn release(context: &Context, caller: &Operator, order: Release<'_>) -> Result<Done> {
    let Release { finding, selector, reason, idempotency_key } = order;
    let storage = &context.storage;
    limits::check_node_reason(reason)?;
    let arguments = [finding.as_bytes(), selector.as_bytes(), reason.as_bytes()];
    let once = Once::new(caller, idempotency_key, "finding.release", &arguments)?;
    let meant: Selector = selector.parse().map_err(|error| ControllerError::invalid("selector", error))?;
    let place = kept::key(finding, &meant)?;
    loop {
        if let Some(answer) = once.answer(storage).await? {
            return Ok(answer);
        }
        let Some(stored) = storage.repo.get::<FindingHoldRecord>(&place).await? else {
            let shown: String = finding.chars().filter(|c| !c.is_control()).take(80).collect();
            return Err(ControllerError::not_found("hold of finding", shown)
                .fix("name the finding and the selection as they were held: fleetctl patch holds"));
        };
        let done = Done::new(format!("{finding} is not held any more"));
        let batch = storage.audited.batch().remove(place.clone(), stored.write_id);
        let batch = once.store(storage, batch, &done)?;
        let leaf = leaf(caller, "finding.release", finding, idempotency_key)
            .subject(stored.record.envelope.digest())
            .detail("selector", selector)
            .text(reason);
        if committed(storage.audited.commit(batch, vec![leaf]).await)? {
            context.memory.findings.news.notify_one();
            return Ok(done);
        }
    }
}

/// All holds, the next one to end first; those that have ended among them.
pub async fn list(context: &Context) -> Result<Page<FindingHoldItem>> {
    let now = context.storage.clock.now();
    let mut items = Vec::new();
    for held in all(&context.storage.repo).await? {
        let FindingHold { finding, selector, .. } = &held.hold;
        items.push(FindingHoldItem {
            finding: finding.clone(),
            selector: selector.to_string(),
            nodes: patches::nodes_with(context, finding, selector),
            is_over: !held.hold.holds(now),
            held: held.by(),
        });
    }
    items.sort_by(|a, b| (a.is_over, a.held.until, &a.finding).cmp(&(b.is_over, b.held.until, &b.finding)));
    Ok(Page { schema: "fleet/v1/finding-hold-list".to_owned(), items, next: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::finding_hold::{FINDING_HOLD_SCHEMA, HoldKind};
    use fleet_types::id::FleetId;

    fn at(hour: i64) -> Timestamp {
        Timestamp::clamped(1_795_000_000_000 + hour * 3_600_000)
    }

    fn held(finding: &str, selector: &str, until: i64) -> Arc<Held> {
        let hold = FindingHold {
            schema: FINDING_HOLD_SCHEMA.to_owned(),
            fleet: FleetId::from_uuid(uuid::Uuid::from_u128(7)),
            finding: finding.to_owned(),
            selector: selector.parse().unwrap(),
            kind: HoldKind::Hold,
            owner: "ada".to_owned(),
            reason: "later".to_owned(),
            from: at(0),
            until: at(until),
        };
        Arc::new(Held { hold, signed_by: "ada".parse().unwrap() })
    }

    fn until(held: Option<&Arc<Held>>) -> Option<Timestamp> {
        held.map(|held| held.until())
    }

    #[test]
    fn a_finding_stays_as_a_whole_only_where_each_of_its_cves_may_stay() {
        let about = About {
            id: "DSA-1".to_owned(),
            cves: vec!["CVE-2026-0001".parse().unwrap(), "CVE-2026-0002".parse().unwrap()],
            summary: String::new(),
            score: None,
            exploited: false,
            published: None,
        };
        let labels = Labels::new([("site".to_owned(), "ams2".to_owned())]).unwrap();
        let of = |holds: &[Arc<Held>]| FindingHolds(holds.to_vec()).of(&"fw-1".parse().unwrap(), &labels);
        let (one, two) = (held("CVE-2026-0001", "", 5), held("CVE-2026-0002", "site=ams2", 3));
        let half = of(&[Arc::clone(&one)]);
        assert_eq!(until(half.of_all(&about)), None, "the other one is still to be fixed");
        assert_eq!(until(half.of_cve(&about, "CVE-2026-0001")), Some(at(5)));
        assert_eq!(until(half.of_cve(&about, "CVE-2026-0002")), None);
        let both = of(&[Arc::clone(&one), two]);
        assert_eq!(until(both.of_all(&about)), Some(at(3)), "until the first of them ends");
        let advisory = of(&[held("DSA-1", "", 7), held("DSA-1", "site=other", 9), one]);
        assert_eq!(until(advisory.of_all(&about)), Some(at(7)), "one of other nodes does not count");
        assert_eq!(until(advisory.of_cve(&about, "CVE-2026-0001")), Some(at(7)), "the one that ends last");
    }
}
