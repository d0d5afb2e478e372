//! The one decision: which tick of a lane fires now, which are not carried out, which waits.
//!
//! Ticks are decided in order. What is decided and saved is never looked at again, so that nothing fires twice; what was
//! never decided is, whatever happened meanwhile, so that nothing is lost without a word.

use fleet_types::document::schedule::{Misfire, Overlap};
use fleet_types::time::Timestamp;
use fleet_types::view::NotFired;

use crate::lane::{Decided, Fire, Lane, Running, STEP, Skip, Wait};

/// Ticks that are counted one by one; of a longer gap is said that there were so many.
const COUNTED: u32 = 10_000;

/// What to do about a lane at `now`.
pub fn decide(lane: &Lane<'_>, now: Timestamp) -> Decided {
    let mut out = Decided::default();
    // Nothing from before it was signed fires: a tick of an order before this one is given up.
    let before = lane.from.minus(STEP);
    if let Some(decided) = lane.decided {
        out.skip.extend(skip(lane, decided, before, NotFired::SignedAnew));
    }
    let decided = lane.decided.unwrap_or(before).max(before);
    let until = now.min(lane.end.minus(STEP));
    let newest = if until > decided { lane.times.newest_between(decided, until) } else { None };
    if let Some(newest) = newest {
        due(lane, now, decided, newest, &mut out);
    }
    let next = lane.times.next_after(now).filter(|next| *next < lane.end);
    out.look_again = [out.look_again, next].into_iter().flatten().min();
    out
}

/// At least one tick, the newest of them, is not decided.
fn due(lane: &Lane<'_>, now: Timestamp, decided: Timestamp, newest: Timestamp, out: &mut Decided) {
    if lane.paused {
        out.skip.extend(skip(lane, decided, newest, NotFired::Paused));
        return;
    }
    let limit = lane.rules.limit();
    // All before it are not carried out: by `run_all` those that are too late, else all but the newest.
    let candidate = if lane.rules.misfire == Misfire::RunAll {
        lane.times.next_after(decided.max(now.minus(limit).minus(STEP))).filter(|tick| *tick <= newest)
    } else {
        Some(newest).filter(|newest| now.since(*newest) <= limit)
    };
    let given_up = candidate.map_or(newest, |candidate| candidate.minus(STEP));
    let why = if lane.running.is_some() { NotFired::Overlap } else { NotFired::Missed };
    out.skip.extend(skip(lane, decided, given_up, why));
    let Some(at) = candidate else { return };
    let caught_up = now.since(at) > lane.rules.start_within || at < newest;
    let wait = |why| Wait { at, until: at.plus(limit), why };
    match lane.running {
        Some(running) if !waits(lane, running) => {
            out.skip.extend(skip(lane, at.minus(STEP), at, NotFired::Overlap));
        }
        Some(running) => {
            if lane.rules.overlap == Overlap::CancelRunning && !running.caught_up {
                out.cancel = Some(running.run);
            }
            out.wait = Some(wait(NotFired::Overlap));
        }
        None if lane.retry_at.is_some_and(|retry| retry > now) => {
            out.wait = Some(wait(NotFired::Refused));
            out.look_again = lane.retry_at;
        }
        None => out.fire = Some(fire(lane, now, at, caught_up)),
    }
    if let Some(wait) = out.wait {
        let given_up = wait.until.plus(STEP);
        out.look_again = Some(out.look_again.map_or(given_up, |look| look.min(given_up)));
    }
}

/// Does a tick wait for the run before it? Ticks that are made up for wait for each other, whatever overlaps.
fn waits(lane: &Lane<'_>, running: Running) -> bool {
    lane.rules.overlap != Overlap::Skip || (lane.rules.misfire == Misfire::RunAll && running.caught_up)
}

fn fire(lane: &Lane<'_>, now: Timestamp, at: Timestamp, caught_up: bool) -> Fire {
    let rules = lane.rules;
    let last = at.plus(rules.lasts).min(lane.end);
    let not_before = now.max(at.plus(rules.offset)).min(last.minus(STEP)).max(at);
    Fire { at, not_before, not_after: not_before.plus(rules.window).min(last), caught_up }
}

/// The ticks after `from` up to `to`, if there are any.
fn skip(lane: &Lane<'_>, from: Timestamp, to: Timestamp, why: NotFired) -> Option<Skip> {
    let mut ticks = lane.times.between(from, to);
    let first = ticks.next()?;
    let mut skip = Skip { first, last: first, count: 1, why };
    for tick in ticks.by_ref().take(COUNTED as usize) {
        (skip.last, skip.count) = (tick, skip.count + 1);
    }
    if skip.count > COUNTED {
        skip.last = lane.times.newest_between(skip.last, to).unwrap_or(skip.last);
    }
    Some(skip)
}
