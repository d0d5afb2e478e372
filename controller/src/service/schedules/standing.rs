//! How each schedule stands: its file, what was signed for it, what its newest tick became, and what is to be known about it.
//!
//! Reads, decides nothing. Called by `schedules`.

use std::collections::BTreeMap;

use fleet_schedule::Seen;
use fleet_types::document::schedule::{Schedule, ScheduleFile};
use fleet_types::document::{Document, DocumentKind};
use fleet_types::run::RunState;
use fleet_types::standing_order::WARN_BEFORE_END;
use fleet_types::time::Timestamp;
use fleet_types::trust::TrustBundle;
use fleet_types::view::{NextTick, NotFired, ScheduleItem, TickItem};

use super::prepared::Prepared;
use super::tick_item;
use crate::context::Context;
use crate::error::Result;
use crate::repo::documents::{self as kept, DocumentRecord};
use crate::repo::standing_orders::{self, OrderRecord};
use crate::repo::ticks::{self, Pauses};
use crate::service::documents;

/// Marks that are counted; whoever has more sees that many.
const MARKS: usize = 1000;

/// The newest revision of a file of schedules.
pub struct File {
    /// Its record.
    pub record: DocumentRecord,
    /// Its text.
    pub document: ScheduleFile,
}

/// Everything that one answer reads once.
pub struct Standing {
    /// Files, by name.
    pub files: Vec<File>,
    orders: BTreeMap<String, OrderRecord>,
    pauses: Pauses,
    /// Missed and not seen, by `FILE/ID`.
    unseen: BTreeMap<String, u32>,
    now: Timestamp,
}

impl Standing {
    /// Reads it.
    pub async fn read(context: &Context) -> Result<Self> {
        let storage = &context.storage;
        let repo = &storage.repo;
        let mut files = Vec::new();
        for (_, stored) in
            repo.all::<DocumentRecord>(&kept::heads_of(DocumentKind::Schedule.as_str())).await?
        {
            if let Document::Schedule(file) = documents::document(storage, stored.record.digest).await? {
                files.push(File { record: stored.record, document: *file });
            }
        }
        let mut unseen = BTreeMap::new();
        for mark in ticks::unseen(repo, None, MARKS).await? {
            *unseen.entry(ticks::schedule_of(&mark).unwrap_or_default()).or_default() += 1;
        }
        let orders = standing_orders::all(repo).await?.into_iter().map(|stored| stored.record);
        Ok(Self {
            files,
            orders: orders.map(|order| (order.schedule(), order)).collect(),
            pauses: ticks::pauses(repo).await?,
            unseen,
            now: storage.clock.now(),
        })
    }

    /// One schedule as it stands, with so many ticks to come.
    pub async fn item(
        &self,
        context: &Context,
        file: &File,
        schedule: &Schedule,
        count: usize,
    ) -> Result<ScheduleItem> {
        let name = format!("{}/{}", file.document.name, schedule.id);
        let mut notes = Vec::new();
        let pause = self.pauses.all.as_ref().or_else(|| self.pauses.schedules.get(&name));
        if let Some(pause) = pause {
            let by = if pause.by.is_empty() { "the controller" } else { &pause.by };
            notes.push(format!("paused by {by} since {}: {}", pause.at, pause.reason));
        }
        let order = self.orders.get(&name);
        let trust = context.identities.trust.get();
        let stands = self.stands((file, schedule), order, &trust.0, &mut notes);
        let prepared = match order.filter(|_| stands) {
            Some(order) => match Prepared::of(&context.storage, order.clone()).await {
                Ok(prepared) => Some(prepared),
                Err(error) => {
                    notes.push(error.to_string());
                    None
                }
            },
            None => None,
        };
        let cannot = schedule.enabled && order.is_some() && prepared.is_none();
        let mut ends_soon = false;
        if let Some(prepared) = &prepared {
            ends_soon = self.ends(prepared, &mut notes);
            newer(context, prepared, &mut notes).await?;
            if prepared.by_site && prepared.file.zones.is_empty() {
                notes.push("its file has no [zones]: every site is in UTC".to_owned());
            }
        }
        let waits = context
            .memory
            .waiting_ticks
            .of(|lane| lane.file == file.document.name && lane.schedule == schedule.id);
        let late = !waits.is_empty();
        notes.extend(waits);
        let unseen = self.unseen.get(&name).copied().unwrap_or(0);
        let newest = ticks::newest(&context.storage.repo, &file.document.name, &schedule.id, 1).await?;
        let last = match newest.into_iter().next() {
            Some(tick) => Some(tick_item(context, tick, unseen > 0).await?),
            None => None,
        };
        if let Some(last) = last.as_ref().filter(|last| failed(last)) {
            notes.push(match last.not_fired {
                Some(why) if last.because.is_empty() => {
                    format!("the tick of {} did not fire: {why}", last.shown)
                }
                Some(why) => format!("the tick of {} did not fire: {why}: {}", last.shown, last.because),
                None => format!("the run of {} {}", last.shown, last.run_state.map_or("", RunState::as_str)),
            });
        }
        let seen = Seen {
            paused: pause.is_some() || !schedule.enabled,
            new: last.is_none(),
            late,
            failed: cannot || last.as_ref().is_some_and(failed),
        };
        let next = prepared.as_ref().map(|prepared| self.next(context, prepared, count)).unwrap_or_default();
        Ok(ScheduleItem {
            file: file.document.name.clone(),
            schedule: schedule.id.clone(),
            procedure: schedule.procedure.clone(),
            state: fleet_schedule::state(seen),
            notes,
            next: if pause.is_some() { vec![] } else { next },
            last,
            unseen,
            ends_soon,
            signed_by: order.map(|order| order.signed_by.clone()),
            until: order.map(|order| order.order.not_after),
        })
    }

    /// Is there an order that stands for this text of the file? What is missing is noted.
    fn stands(
        &self,
        (file, schedule): (&File, &Schedule),
        order: Option<&OrderRecord>,
        trust: &TrustBundle,
        notes: &mut Vec<String>,
    ) -> bool {
        let why = match order {
            _ if !schedule.enabled => "switched off in its file: enabled = false".to_owned(),
            None => "nobody has signed that it may start work: fleetctl schedule apply FILE".to_owned(),
            Some(order) if order.order.file != file.record.digest => format!(
                "revision {} of its file is newer than what was signed: fleetctl schedule apply FILE",
                file.record.revision
            ),
            Some(order) if order.order.not_after <= self.now => format!(
                "what {} signed has ended on {}: fleetctl schedule apply FILE",
                order.signed_by, order.order.not_after
            ),
            Some(order) if trust.signer(&order.key).is_none() => {
                format!(
                    "nodes do not take what {} signed any more: fleetctl schedule apply FILE",
                    order.signed_by
                )
            }
            Some(_) => return true,
        };
        notes.push(why);
        false
    }

    /// Does the order end soon? Then it is noted.
    fn ends(&self, prepared: &Prepared, notes: &mut Vec<String>) -> bool {
        let end = prepared.record.order.not_after;
        let soon = end.minus(WARN_BEFORE_END) <= self.now;
        if soon {
            notes.push(format!("what was signed for it ends on {end}: fleetctl schedule apply FILE"));
        }
        soon
    }

    /// The next ticks, over all zones that have a node; over all zones where none has.
    fn next(&self, context: &Context, prepared: &Prepared, count: usize) -> Vec<NextTick> {
        if count == 0 {
            return vec![];
        }
        let lived: Vec<_> =
            prepared.lanes.iter().filter(|lane| !prepared.nodes(context, &lane.lane).is_empty()).collect();
        let lanes = if lived.is_empty() { prepared.lanes.iter().collect() } else { lived };
        let end = prepared.record.order.not_after;
        let mut next: Vec<NextTick> = lanes
            .into_iter()
            .flat_map(|lane| {
                lane.times.between(self.now, end).take(count).map(|at| NextTick {
                    at,
                    zone: lane.lane.zone.clone(),
                    shown: lane.times.zone().show(at),
                })
            })
            .collect();
        next.sort_by(|a, b| (a.at, &a.zone).cmp(&(b.at, &b.zone)));
        next.truncate(count);
        next
    }
}

/// Documents of which there is a newer revision than the one that was signed for.
async fn newer(context: &Context, prepared: &Prepared, notes: &mut Vec<String>) -> Result<()> {
    let order = &prepared.record.order;
    let procedure = (DocumentKind::Procedure, prepared.procedure.to_string(), order.procedure);
    let policy =
        prepared.schedule().and_then(|schedule| schedule.rollout_policy.clone()).zip(order.rollout_policy);
    let policy = policy.map(|(name, digest)| (DocumentKind::RolloutPolicy, name.to_string(), digest));
    for (kind, name, digest) in std::iter::once(procedure).chain(policy) {
        let head = context.storage.repo.get::<DocumentRecord>(&kept::head(kind.as_str(), &name)?).await?;
        if let Some(head) = head.filter(|head| head.record.digest != digest) {
            notes.push(format!(
                "{kind} {name} has revision {} now, and an older one was signed for: fleetctl schedule apply FILE",
                head.record.revision
            ));
        }
    }
    Ok(())
}

/// Did the newest tick go wrong?
fn failed(last: &TickItem) -> bool {
    let run = matches!(last.run_state, Some(RunState::Failed | RunState::RolledBack));
    last.not_fired.is_some_and(NotFired::is_a_miss) || run
}
