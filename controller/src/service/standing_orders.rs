//! Standing orders: what operators sign so that schedules may start work (security-and-delivery §1.15), taken a file at a time.
//!
//! An order counts for the newest revision of its file alone: who applies another one signs anew. Starts nothing and knows
//! no time of a schedule. Called by the edge; what stands is read by `ticks` and the scheduler, which is rung.

use std::collections::BTreeSet;

use fleet_types::canonical;
use fleet_types::document::rollout_policy::RolloutPolicy;
use fleet_types::document::schedule::ScheduleFile;
use fleet_types::document::{Document, DocumentKind};
use fleet_types::id::Name;
use fleet_types::scheduled_work::{self, Called};
use fleet_types::seal::{Envelope, Kind as SealKind};
use fleet_types::standing_order::StandingOrder;
use fleet_types::view::{AuthoriseItem, AuthoriseView, Authorised};

use super::caller::Operator;
use super::idempotency::Once;
use super::node_jobs::committed;
use super::runs::checking::{self, Named, Papers};
use super::{documents, limits, signatures};
use crate::context::{Context, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo;
use crate::repo::audited::AuditEntry;
use crate::repo::documents::DocumentRecord;
use crate::repo::reader::Stored;
use crate::repo::standing_orders::{self as kept, OrderRecord};

/// Orders of a file: each is a schedule that a person reads. One commit takes them all, with a leaf each.
const MAX_OF_FILE: usize = 128;
/// Orders of a fleet: all of them are read for each look at what is due.
const MAX_OF_FLEET: usize = 2000;
/// Bytes of a selector in an audit record of 4 KiB; the whole is in the signed order.
const DETAIL_BYTES: usize = 700;

/// What an operator sends for a file.
pub struct Call<'a> {
    /// Name of the file of schedules.
    pub file: &'a Name,
    /// The signed orders, one for a schedule; without any, those of schedules that are gone are taken away.
    pub orders: &'a [Envelope],
    /// The caller's key.
    pub idempotency_key: &'a str,
}

struct Signed<'a> {
    order: StandingOrder,
    envelope: &'a Envelope,
}

/// What is to be written for one order, or why it is not taken.
enum Judged<'a> {
    Stands(Box<OrderRecord>, &'a Envelope, Words),
    Refused(Vec<String>),
}

/// What an order's digests stand for, for the audit log.
struct Words {
    procedure: String,
    policy: String,
}

/// Takes orders for the schedules of a file. One that cannot stand is named with why, and the others are taken; what is
/// not signed by the caller, or for another file than the newest, refuses the call.
pub async fn authorise(context: &Context, caller: &Operator, call: Call<'_>) -> Result<AuthoriseView> {
    let storage = &context.storage;
    if call.orders.len() > MAX_OF_FILE {
        let why = format!("at most {MAX_OF_FILE} are taken for a file; divide it");
        return Err(ControllerError::invalid("orders", why));
    }
    let digests: Vec<_> = call.orders.iter().map(Envelope::digest).collect();
    let name = call.file.as_str().as_bytes();
    let arguments: Vec<&[u8]> =
        std::iter::once(name).chain(digests.iter().map(|digest| digest.as_bytes().as_slice())).collect();
    let once = Once::new(caller, call.idempotency_key, "schedule.authorise", &arguments)?;
    loop {
        // Inside the loop: the same call may be under way a second time, and that one was first.
        if let Some(answer) = once.answer(storage).await? {
            return Ok(answer);
        }
        if let Some(view) = take(context, caller, &call, &once).await? {
            context.memory.schedule_changes.notify_one();
            return Ok(view);
        }
    }
}

/// One turn; `None` when something changed meanwhile.
async fn take(
    context: &Context,
    caller: &Operator,
    call: &Call<'_>,
    once: &Once,
) -> Result<Option<AuthoriseView>> {
    let storage = &context.storage;
    let (head, file) = newest(storage, call.file).await?;
    let signed = signed(context, caller, call.orders, &head.record)?;
    let standing = storage.repo.all::<OrderRecord>(&kept::of_file(call.file.as_str())).await?;
    let standing: Vec<Stored<OrderRecord>> = standing.into_iter().map(|(_, stored)| stored).collect();
    let mut view = AuthoriseView::new(call.file.clone());
    let (mut leaves, mut added) = (Vec::new(), 0);
    // Whoever applies another file meanwhile makes this call look again.
    let place = repo::documents::head(&head.record.kind, &head.record.name)?;
    let mut batch = storage.audited.batch().if_write_id(place, head.write_id);
    for one in &signed {
        let order = &one.order;
        let seen = standing.iter().find(|stored| stored.record.order.schedule == order.schedule);
        let (what, why) = match judge(context, caller, call.file, &file, one).await? {
            Judged::Refused(why) => (Authorised::Refused, why),
            Judged::Stands(record, ..) if seen.is_some_and(|seen| seen.record.digest == record.digest) => {
                (Authorised::Unchanged, vec![])
            }
            Judged::Stands(record, envelope, words) => {
                batch = kept::put(batch, seen, &record, envelope)?;
                added += usize::from(seen.is_none());
                leaves.push(authorised(caller, call, &record, words));
                (Authorised::Authorised, vec![])
            }
        };
        let until = (what != Authorised::Refused).then_some(order.not_after);
        view.items.push(AuthoriseItem { schedule: order.schedule.clone(), what, until, why });
    }
    for gone in standing.iter().filter(|stored| stored.record.order.schedule_in(&file).is_err()) {
        batch = kept::remove(batch, gone)?;
        leaves.push(leaf(caller, call, "schedule.withdraw", &gone.record));
        let schedule = gone.record.order.schedule.clone();
        view.items.push(AuthoriseItem { schedule, what: Authorised::Withdrawn, until: None, why: vec![] });
    }
    if added > 0 && kept::all(&storage.repo).await?.len() + added > MAX_OF_FLEET {
        let what = format!("there would be more than {MAX_OF_FLEET} schedules that may start work");
        return Err(ControllerError::new(Kind::Exhausted, "too-many-schedules", what)
            .fix("switch schedules off that are not needed: enabled = false"));
    }
    if leaves.is_empty() {
        return Ok(Some(view));
    }
    let batch = once.store(storage, batch, &view)?;
    Ok(committed(storage.audited.commit(batch, leaves).await)?.then_some(view))
}

/// The newest revision of a file of schedules.
pub async fn newest(storage: &Storage, name: &Name) -> Result<(Stored<DocumentRecord>, ScheduleFile)> {
    let place = repo::documents::head(DocumentKind::Schedule.as_str(), name.as_str())?;
    let missing = || {
        ControllerError::not_found("schedule file", name).fix(
            "apply it first: fleetctl schedule apply FILE; those that are applied: fleetctl schedule list",
        )
    };
    let head = storage.repo.get::<DocumentRecord>(&place).await?.ok_or_else(missing)?;
    match documents::document(storage, head.record.digest).await? {
        Document::Schedule(file) => Ok((head, *file)),
        _ => Err(missing()),
    }
}

/// The orders in signed bytes: of the caller, beginning now, for this revision of the file, one for a schedule.
fn signed<'a>(
    context: &Context,
    caller: &Operator,
    envelopes: &'a [Envelope],
    head: &DocumentRecord,
) -> Result<Vec<Signed<'a>>> {
    let now = context.storage.clock.now();
    let mut schedules = BTreeSet::new();
    let mut orders = Vec::with_capacity(envelopes.len());
    for envelope in envelopes {
        signatures::check(
            &context.identities,
            caller,
            envelope,
            SealKind::StandingOrder,
            "the standing order",
        )?;
        let invalid = |why: &dyn std::fmt::Display| ControllerError::invalid("orders", why);
        let order: StandingOrder =
            canonical::from_signed(&envelope.payload).map_err(|error| invalid(&error))?;
        order.check(context.identities.fleet.fleet).map_err(|error| invalid(&error))?;
        limits::check_selector(&order.selector)?;
        // One that was signed long ago is an old one sent again after it was withdrawn.
        let begins = order.not_before;
        if begins > now.plus(limits::CLOCK_AHEAD) || now.since(begins) > limits::CLOCK_AHEAD {
            let schedule = &order.schedule;
            return Err(invalid(&format!("that of \"{schedule}\" does not begin now")).fix("sign it anew"));
        }
        if (order.file, order.file_revision) != (head.digest, head.revision) {
            let (name, newest) = (&head.name, head.revision);
            let what = format!(
                "the order of \"{}\" is for another text of file \"{name}\" than its revision {newest}, the newest",
                order.schedule
            );
            return Err(ControllerError::new(Kind::Conflict, "schedules-changed", what)
                .fix("look at the file again, and sign for it: fleetctl schedule apply FILE"));
        }
        if !schedules.insert(order.schedule.to_string()) {
            return Err(invalid(&format!("two are for \"{}\"", order.schedule)));
        }
        orders.push(Signed { order, envelope });
    }
    Ok(orders)
}

/// Do the documents that are signed for say what the schedule calls?
async fn judge<'a>(
    context: &Context,
    caller: &Operator,
    name: &Name,
    file: &ScheduleFile,
    signed: &Signed<'a>,
) -> Result<Judged<'a>> {
    let (storage, order) = (&context.storage, &signed.order);
    let refused = |why: String| Ok(Judged::Refused(vec![why]));
    let schedule = match order.schedule_in(file) {
        Ok(schedule) => schedule,
        Err(error) => return refused(error.to_string()),
    };
    let named = Named {
        what: "order",
        procedure: order.procedure,
        procedure_revision: Some(order.procedure_revision),
        profile: order.profile,
        profile_revision: Some(order.profile_revision),
    };
    let Papers { procedure, profile } = match checking::papers(storage, &named, None).await {
        Ok(papers) => papers,
        Err(error) if matches!(error.kind, Kind::Invalid | Kind::NotFound) => {
            return refused(error.detail.message.clone());
        }
        Err(error) => return Err(error),
    };
    let policy = match order.rollout_policy {
        Some(digest) => match applied_policy(storage, digest).await? {
            Some(policy) => Some(policy),
            None => return refused(format!("its rollout policy {digest} was never applied")),
        },
        None => None,
    };
    let work = Called { procedure: &procedure, profile: &profile, policy: policy.as_ref() };
    let mut why = scheduled_work::why_not(schedule, &work);
    let meant = scheduled_work::selector(schedule, &work);
    if why.is_empty() && meant.as_ref() != Some(&order.selector) {
        let meant = meant.unwrap_or_default();
        why.push(format!("it is for nodes with \"{meant}\", and \"{}\" is signed for", order.selector));
    }
    if !why.is_empty() {
        return Ok(Judged::Refused(why));
    }
    let words = Words {
        procedure: format!("{} revision {}", procedure.name, order.procedure_revision),
        policy: policy.map_or_else(String::new, |policy| policy.name.to_string()),
    };
    let record = OrderRecord {
        file: name.clone(),
        digest: signed.envelope.digest(),
        order: order.clone(),
        key: signed.envelope.key,
        signed_by: caller.record.name.clone(),
        taken: storage.clock.now(),
    };
    Ok(Judged::Stands(Box::new(record), signed.envelope, words))
}

/// The rollout policy of a digest, where it was applied under its name.
async fn applied_policy(
    storage: &Storage,
    digest: fleet_types::digest::Digest,
) -> Result<Option<RolloutPolicy>> {
    if storage.repo.write_id(&repo::documents::source(&digest)?).await?.is_none() {
        return Ok(None);
    }
    match documents::document(storage, digest).await? {
        Document::RolloutPolicy(policy) => Ok(Some(*policy)),
        _ => Ok(None),
    }
}

fn leaf(caller: &Operator, call: &Call<'_>, action: &'static str, record: &OrderRecord) -> AuditEntry {
    AuditEntry::new(caller.actor(), action, format!("schedule/{}", record.schedule()))
        .subject(record.digest)
        .idempotency(call.idempotency_key)
}

fn authorised(caller: &Operator, call: &Call<'_>, record: &OrderRecord, words: Words) -> AuditEntry {
    let mut selector = record.order.selector.clone();
    selector.truncate(selector.floor_char_boundary(DETAIL_BYTES));
    leaf(caller, call, "schedule.authorise", record)
        .detail("procedure", words.procedure)
        .detail("policy", words.policy)
        .detail("selector", selector)
        .detail("until", record.order.not_after.to_string())
}

#[cfg(test)]
mod tests;
