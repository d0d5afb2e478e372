//! Schedules for operators: how each stands and why, what became of its ticks; pausing, resuming, and that somebody has
//! seen what was missed.
//!
//! Fires nothing. Called by the edge; the scheduler reads what is written here.

pub mod prepared;
mod standing;

use fleet_types::document::Id;
use fleet_types::id::Name;
use fleet_types::time::Timestamp;
use fleet_types::view::{Attention, Page, ScheduleItem, ScheduleState, TickItem};

use super::caller::Operator;
use super::idempotency::Once;
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::repo::audited::AuditEntry;
use crate::repo::runs::{self, RunRecord};
use crate::repo::ticks::{self, DecidedTick, PauseRecord};

/// Ticks to come that a list shows (ux.md, "Schedule").
const NEXT: usize = 3;
/// Most ticks to come of one answer.
const MAX_NEXT: usize = 100;
/// Most ticks of a history.
const MAX_HISTORY: usize = 500;
/// Marks that one commit takes away; there are more only where nobody looked for years.
const MARKS: usize = 500;

/// A schedule, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// One.
    One(Name, Id),
}

impl Which {
    /// Of `FILE/ID`; `None` for all.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::All) };
        let parsed = text.split_once('/').and_then(|(file, id)| Some((file.parse().ok()?, id.parse().ok()?)));
        let (file, id) = parsed.ok_or_else(|| {
            ControllerError::invalid("schedule", "it is not written as FILE/ID")
                .fix("fleetctl schedule list shows them")
        })?;
        Ok(Self::One(file, id))
    }

    fn one(&self) -> Option<(&Name, &Id)> {
        match self {
            Self::All => None,
            Self::One(file, id) => Some((file, id)),
        }
    }

    fn object(&self) -> String {
        self.one().map_or_else(|| "schedule/all".to_owned(), |(file, id)| format!("schedule/{file}/{id}"))
    }
}

/// Every schedule of every file, by file and in its order, or one; with so many ticks to come.
pub async fn list(context: &Context, which: &Which, next: usize) -> Result<Page<ScheduleItem>> {
    let next = if next == 0 { NEXT } else { next.min(MAX_NEXT) };
    let items = match which {
        Which::All => items(context, next).await?,
        Which::One(..) => {
            let standing = standing::Standing::read(context).await?;
            let (file, schedule) = find(&standing, which)?;
            vec![standing.item(context, file, schedule, next).await?]
        }
    };
    Ok(Page { schema: "fleet/v1/schedule-list".to_owned(), items, next: None })
}

async fn items(context: &Context, next: usize) -> Result<Vec<ScheduleItem>> {
    let standing = standing::Standing::read(context).await?;
    let mut items = Vec::new();
    for file in &standing.files {
        for schedule in &file.document.schedules {
            items.push(standing.item(context, file, schedule, next).await?);
        }
    }
    Ok(items)
}

fn find<'s>(
    standing: &'s standing::Standing,
    which: &Which,
) -> Result<(&'s standing::File, &'s fleet_types::document::schedule::Schedule)> {
    let missing = |name: String| {
        ControllerError::not_found("schedule", name).fix("those that are applied: fleetctl schedule list")
    };
    let Some((name, id)) = which.one() else { return Err(missing("all".to_owned())) };
    let named = || missing(format!("{name}/{id}"));
    let file = standing.files.iter().find(|file| file.document.name == *name).ok_or_else(named)?;
    let schedule = file.document.schedules.iter().find(|one| one.id == *id).ok_or_else(named)?;
    Ok((file, schedule))
}

/// What became of the newest ticks of a schedule, newest first. It may be gone from its file: its history stays.
pub async fn history(context: &Context, which: &Which, limit: usize) -> Result<Page<TickItem>> {
    let repo = &context.storage.repo;
    let Some((file, id)) = which.one() else {
        return Err(ControllerError::invalid("schedule", "name one, as FILE/ID"));
    };
    let ticks = ticks::newest(repo, file, id, limit.clamp(1, MAX_HISTORY)).await?;
    if ticks.is_empty() {
        find(&standing::Standing::read(context).await?, which)?;
    }
    let marks = ticks::unseen(repo, which.one(), MARKS).await?;
    let mut items = Vec::with_capacity(ticks.len());
    for tick in ticks {
        let unseen = marks.iter().any(|mark| ticks::is_mark_of(mark, &tick));
        items.push(tick_item(context, tick, unseen).await?);
    }
    Ok(Page { schema: "fleet/v1/schedule-history".to_owned(), items, next: None })
}

async fn tick_item(context: &Context, tick: DecidedTick, unseen: bool) -> Result<TickItem> {
    let run = match tick.runs.last() {
        Some(run) => context.storage.repo.get::<RunRecord>(&runs::key(*run)?).await?,
        None => None,
    };
    let zone = tick.lane.zone;
    let shown = shown(&zone, tick.at);
    Ok(TickItem {
        at: tick.at,
        shown,
        zone,
        count: tick.count,
        first: tick.first,
        decided: tick.decided,
        not_fired: tick.not_fired,
        because: tick.because,
        runs: tick.runs,
        run_state: run.map(|stored| stored.record.state),
        unseen,
    })
}

/// An instant as people of a zone write it; as UTC where this machine does not have the zone any more.
fn shown(zone: &str, at: Timestamp) -> String {
    zone.parse::<fleet_calendar::Zone>().map_or_else(|_| at.to_string(), |zone| zone.show(at))
}

/// What an operator does with a schedule, or with all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// No tick fires; runs go on.
    Pause,
    /// Ticks fire again; those of meanwhile are gone.
    Resume,
    /// What was missed has been seen.
    Seen,
}

impl std::str::FromStr for Steer {
    type Err = ControllerError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "pause" => Ok(Self::Pause),
            "resume" => Ok(Self::Resume),
            "seen" => Ok(Self::Seen),
            _ => Err(ControllerError::invalid("action", "it is none of pause, resume, seen")),
        }
    }
}

impl Steer {
    const fn action(self) -> &'static str {
        match self {
            Self::Pause => "schedule.pause",
            Self::Resume => "schedule.resume",
            Self::Seen => "schedule.seen",
        }
    }
}

/// Pauses, resumes or marks as seen; says what is so now.
pub async fn steer(
    context: &Context,
    caller: &Operator,
    (which, steer): (&Which, Steer),
    reason: &str,
    idempotency_key: &str,
) -> Result<String> {
    let storage = &context.storage;
    if let Some((file, id)) = which.one()
        && ticks::newest(&storage.repo, file, id, 1).await?.is_empty()
    {
        find(&standing::Standing::read(context).await?, which)?;
    }
    let object = which.object();
    let words = [object.as_bytes(), reason.as_bytes()];
    let once = Once::new(caller, idempotency_key, steer.action(), &words)?;
    if let Some(answer) = once.answer(storage).await? {
        return Ok(answer);
    }
    let (mut batch, said) = match steer {
        Steer::Pause => pause(context, caller, which, reason).await?,
        Steer::Resume => resume(context, which).await?,
        Steer::Seen => {
            let marks = ticks::unseen(&storage.repo, which.one(), MARKS).await?;
            let said = format!("{} missed ticks are seen", marks.len());
            (ticks::seen(storage.audited.batch(), marks), said)
        }
    };
    batch = once.store(storage, batch, &said)?;
    let leaf =
        AuditEntry::new(caller.actor(), steer.action(), object).idempotency(idempotency_key).text(reason);
    storage.audited.commit(batch, vec![leaf]).await?;
    context.memory.schedule_changes.notify_one();
    Ok(said)
}

async fn pause(
    context: &Context,
    caller: &Operator,
    which: &Which,
    reason: &str,
) -> Result<(fleet_store::Batch, String)> {
    let storage = &context.storage;
    let jumped = ticks::pauses(&storage.repo).await?.all.and_then(|pause| pause.jumped_ms);
    let pause = PauseRecord {
        by: caller.record.name.to_string(),
        reason: reason.to_owned(),
        at: storage.clock.now(),
        // Whoever pauses while the clock is in doubt has not looked at it yet.
        jumped_ms: jumped.filter(|_| *which == Which::All),
    };
    let batch = ticks::pause(storage.audited.batch(), which.one(), &pause)?;
    Ok((batch, "no tick fires until it is resumed; runs under way go on".to_owned()))
}

async fn resume(context: &Context, which: &Which) -> Result<(fleet_store::Batch, String)> {
    let storage = &context.storage;
    let pauses = ticks::pauses(&storage.repo).await?;
    let is_held = match which.one() {
        None => pauses.all.is_some(),
        Some((file, id)) => pauses.schedules.contains_key(&format!("{file}/{id}")),
    };
    if !is_held {
        let mut error = ControllerError::new(Kind::Conflict, "not-paused", "it is not paused");
        if pauses.all.is_some() {
            error = error.fix("all schedules are paused together: fleetctl schedule resume --all");
        }
        return Err(error);
    }
    let mut batch = ticks::resume(storage.audited.batch(), which.one())?;
    let jumped = which.one().is_none() && pauses.all.is_some_and(|pause| pause.jumped_ms.is_some());
    if jumped {
        // What a clock that went ahead decided is not to hold for the days to come. No tick can be decided twice: each has
        // its record.
        let now = storage.clock.now();
        for stored in ticks::lanes(&storage.repo).await? {
            if stored.record.decided > now {
                let lane = ticks::LaneRecord { decided: now, ..stored.record };
                batch = ticks::decide(batch, Some(stored.write_id), &lane, &[])?;
            }
        }
    }
    Ok((batch, "ticks fire again from now on".to_owned()))
}

/// Lines for `status`: what was missed and not seen, what is late, what cannot fire, and what is paused. At most so many.
pub async fn attention(context: &Context, limit: usize) -> Result<Vec<Attention>> {
    let mut lines = Vec::new();
    let ticks::Pauses { all, schedules: paused } = ticks::pauses(&context.storage.repo).await?;
    if let Some(pause) = all {
        let by = if pause.by.is_empty() { "the controller" } else { &pause.by };
        lines.push(Attention {
            subject: "scheduler".to_owned(),
            message: format!("paused by {by} since {}: {}", pause.at, pause.reason),
            command: "fleetctl schedule resume --all".to_owned(),
        });
    }
    for item in items(context, 0).await? {
        let name = item.name();
        if item.unseen > 0 {
            let s = if item.unseen == 1 { "" } else { "s" };
            lines.push(Attention {
                message: format!("{} tick{s} missed that nobody has seen", item.unseen),
                command: format!("fleetctl schedule history {name} --seen"),
                subject: format!("schedule {name}"),
            });
        }
        // One that is switched off in its file, or that nobody has signed for yet, is as somebody wants it.
        let stands = match item.state {
            ScheduleState::Late | ScheduleState::Down => true,
            ScheduleState::Paused => paused.contains_key(&name),
            ScheduleState::New | ScheduleState::Up => false,
        };
        if (stands || item.ends_soon) && !item.notes.is_empty() {
            lines.push(Attention {
                message: format!("{}: {}", item.state, item.notes.join("; ")),
                command: format!("fleetctl schedule show {name}"),
                subject: format!("schedule {name}"),
            });
        }
    }
    lines.truncate(limit);
    Ok(lines)
}
