//! How long things are kept, and the sweep that takes away what is older. All periods stand here.
//!
//! | what | kept |
//! |---|---|
//! | bodies of reports | 30 days from their arrival; then the job's summary and digest |
//! | output of steps | 30 days from the end of their run |
//! | runs with their jobs, their requests and the procedures made for them alone | 90 days from their end (DESIGN, "Store"), and until no node owes an answer |
//! | jobs without a run: adopted ones | 90 days from their end |
//! | jobs without a run: written for one that was never made | a day |
//! | answers to idempotency keys | 30 days |
//! | join tokens and invites | 30 days from their end |
//! | records of backup archives | 400 days: a year of monthly archives; longer where a copy is here |
//! | what became of ticks, seen or not | 400 days: a year of a yearly schedule |
//! | holds of findings | 90 days from their end |
//! | standing orders | 90 days from their end; their signed bytes like documents |
//! | encrypted copies of backups | as their profile says, never the newest of a backup |
//! | documents, the audit log | for ever: what was signed and what was done |
//!
//! A sweep works in small commits, oldest first, and can be stopped anywhere: what is half taken away is found again
//! by the next one. What a start, a list or a connect reads does not depend on how much was kept.
//! Called by the program's own timer; must never take away what is open, or the newest report of a node, which
//! the next one names.

mod bodies;
mod runs;

use std::time::Duration;

use fleet_store::{Direction, Key, chunks};
use fleet_types::id::RunId;
use fleet_types::time::Timestamp;

use super::copies;
use super::limits::CLOCK_AHEAD;
use crate::context::{Files, Storage};
use crate::error::Result;
use crate::repo::answers::{self, IdempotencyRecord};
use crate::repo::backups::{self, BackupRecord};
use crate::repo::codec::Record;
use crate::repo::finding_holds::{self, FindingHoldRecord};
use crate::repo::reader::PAGE;
use crate::repo::standing_orders::{self, OrderRecord};
use crate::repo::ticks::{self, DecidedTick};
use crate::repo::tokens::{self, InviteRecord, TokenRecord};

const DAY: Duration = Duration::from_hours(24);
const BODIES: Duration = DAY.saturating_mul(30);
const RUNS: Duration = DAY.saturating_mul(90);
/// An order is sent within seconds of its signature, and sent again within minutes.
const UNMADE: Duration = DAY;
const ANSWERS: Duration = DAY.saturating_mul(30);
const TOKENS: Duration = DAY.saturating_mul(30);
const FINDING_HOLDS: Duration = DAY.saturating_mul(90);
const STANDING_ORDERS: Duration = DAY.saturating_mul(90);
const BACKUPS: Duration = DAY.saturating_mul(400);
const TICKS: Duration = DAY.saturating_mul(400);

/// What a sweep took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Bodies of reports, and runs whose output went.
    pub bodies: usize,
    /// Runs that went as a whole, and those of which there were jobs alone.
    pub runs: usize,
    /// Answers, tokens, invites, holds of findings, standing orders and records of archives.
    pub others: usize,
}

/// Takes away what is older than its period at the present time.
pub async fn sweep(storage: &Storage, files: &Files) -> Result<Swept> {
    let now = storage.clock.now();
    let (outputs, runs) = runs::take(storage, files, now).await?;
    let mut swept = Swept { bodies: outputs, runs, others: 0 };
    swept.runs += runs::take_jobs_alone(storage, now).await?;
    swept.bodies += bodies::take(storage, now).await?;
    let token = |token: &TokenRecord| is_over(token.expires, TOKENS, now);
    let invite = |invite: &InviteRecord| is_over(invite.expires, TOKENS, now);
    let hold = |hold: &FindingHoldRecord| is_over(hold.until, FINDING_HOLDS, now);
    let order = |order: &OrderRecord| is_over(order.order.not_after, STANDING_ORDERS, now);
    let backup = |backup: &BackupRecord| is_over(backup.made, BACKUPS, now) && !backup.has_copy();
    swept.others += take_answers(storage, now).await?;
    swept.others += take_records(storage, tokens::JOIN_TOKENS, token).await?;
    swept.others += take_records(storage, tokens::INVITES, invite).await?;
    swept.others += take_records(storage, finding_holds::ALL, hold).await?;
    swept.others += take_records(storage, standing_orders::ALL, order).await?;
    swept.others += copies::sweep(storage, files, now).await?;
    swept.others += take_records(storage, backups::ALL, backup).await?;
    let tick = |tick: &DecidedTick| is_over(tick.decided, TICKS, now);
    swept.others += take_records(storage, ticks::TICKS, tick).await?;
    take_marks(storage, now).await?;
    Ok(swept)
}

/// May this run have been here and have gone after its period? Its id says when it was made, by the clock of an
/// operator.
pub fn may_be_gone(run: RunId, now: Timestamp) -> bool {
    is_over(run.time(), RUNS, now.plus(CLOCK_AHEAD))
}

fn is_over(from: Timestamp, period: Duration, now: Timestamp) -> bool {
    now >= from.plus(period)
}

/// Records below a prefix that are over. One that was replaced meanwhile fails its page, which the next turn takes.
async fn take_records<R: Record>(
    storage: &Storage,
    prefix: &str,
    over: impl Fn(&R) -> bool,
) -> Result<usize> {
    let mut taken = 0;
    let mut after: Option<Key> = None;
    loop {
        let page = storage.repo.page::<R>(prefix, after.as_ref(), PAGE, Direction::Ascending).await?;
        let last = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        let mut batch = storage.audited.batch().using_reserve();
        let mut gone = 0;
        for (key, stored) in page.into_iter().filter(|(_, stored)| over(&stored.record)) {
            batch = batch.remove(key, stored.write_id);
            gone += 1;
        }
        if gone > 0 {
            storage.audited.commit(batch, vec![]).await?;
            taken += gone;
        }
        if last {
            return Ok(taken);
        }
    }
}

/// Marks of ticks that nobody has seen in all that time; a page a sweep.
async fn take_marks(storage: &Storage, now: Timestamp) -> Result<()> {
    let mut marks = ticks::unseen(&storage.repo, None, PAGE).await?;
    marks.retain(|mark| ticks::time_of(mark).is_none_or(|at| is_over(at, TICKS, now)));
    if !marks.is_empty() {
        let batch = ticks::seen(storage.audited.batch().using_reserve(), marks);
        storage.audited.commit(batch, vec![]).await?;
    }
    Ok(())
}

/// Answers to idempotency keys; they are objects.
async fn take_answers(storage: &Storage, now: Timestamp) -> Result<usize> {
    let store = storage.repo.store().as_ref();
    let mut taken = 0;
    let mut after: Option<Key> = None;
    loop {
        let prefix = answers::ALL.as_bytes();
        let page = store.scan(prefix, after.as_ref(), PAGE, Direction::Ascending).await?;
        let last = page.len() < PAGE;
        after = page.last().map(|(key, _)| key.clone());
        for (key, _) in page.into_iter().filter(|(key, _)| answers::is_head(key)) {
            let answer = storage.repo.object_record::<IdempotencyRecord>(&key).await?;
            if answer.is_some_and(|answer| is_over(answer.at, ANSWERS, now)) {
                let batch = storage.audited.batch().using_reserve();
                let batch = chunks::delete_object(store, batch, &key).await?;
                storage.audited.commit(batch, vec![]).await?;
                taken += 1;
            }
        }
        if last {
            return Ok(taken);
        }
    }
}

#[cfg(test)]
mod tests;
