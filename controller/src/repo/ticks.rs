//! Ticks: what became of each, how far every lane is decided, what nobody has seen yet, and what is paused.
//!
//! A lane is one schedule in one time zone. Its record and those of its ticks are written in one commit, the one that makes
//! the run where there is one: a tick whose record exists cannot be decided again. Decides nothing; called by the scheduler,
//! `service/schedules` and retention.

use std::fmt;

use fleet_store::{Batch, Direction, Key, WriteId};
use fleet_types::document::Id;
use fleet_types::id::{Name, RunId};
use fleet_types::time::Timestamp;
use fleet_types::view::NotFired;
use serde::{Deserialize, Serialize};

use super::codec::{Mark, record};
use super::keys::{Made, make};
use super::reader::{BatchExt as _, Repo, Stored};
use crate::error::Result;

/// A schedule in a zone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lane {
    /// The file of schedules.
    pub file: Name,
    /// The schedule, by its id in the file.
    pub schedule: Id,
    /// Name of the zone.
    pub zone: String,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.file, self.schedule, self.zone)
    }
}

/// How far a lane is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneRecord {
    /// The lane.
    pub lane: Lane,
    /// Every tick up to this one is decided.
    pub decided: Timestamp,
    /// The newest tick that was carried out.
    pub fired: Option<Fired>,
}
record!(LaneRecord, "lane of a schedule", 1);

/// The newest tick of a lane that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// The tick.
    pub at: Timestamp,
    /// Its newest run.
    pub run: RunId,
    /// Was it a missed one?
    pub caught_up: bool,
    /// Rounds after its first run.
    pub rounds: u32,
    /// May there be another one?
    pub open: bool,
}

/// What became of a tick, or of several one after another that were not carried out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedTick {
    /// The lane.
    pub lane: Lane,
    /// The tick; of several the newest.
    pub at: Timestamp,
    /// The oldest of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// How many it stands for.
    pub count: u32,
    /// When it was decided.
    pub decided: Timestamp,
    /// Why it was not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_fired: Option<NotFired>,
    /// More about that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub because: String,
    /// Its runs, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunId>,
}
record!(DecidedTick, "tick", 1);

/// That a schedule, or all of them, are paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRecord {
    /// Who paused; empty for the controller.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when, by the clock of that time.
    pub at: Timestamp,
    /// By how many milliseconds the clock jumped, where that is why: nothing is decided until somebody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jumped_ms: Option<i64>,
}
record!(PauseRecord, "pause", 1);

/// Prefix of the lanes.
pub const LANES: &str = "schedule-lane/";
/// Prefix of what became of ticks.
pub const TICKS: &str = "tick/";
/// Prefix of the marks of what was missed and not seen.
pub const UNSEEN: &str = "tick-unseen/";
/// Prefix of what is paused.
const PAUSES: &str = "schedule-pause/";

fn lane_key(lane: &Lane) -> Made {
    make(format!("{LANES}{lane}"))
}

/// Ticks of a schedule, behind a prefix: oldest first, whatever their zone.
fn of_schedule(prefix: &str, file: &Name, schedule: &Id) -> String {
    format!("{prefix}{file}/{schedule}/")
}

fn tick_key(prefix: &str, lane: &Lane, at: Timestamp) -> Made {
    let schedule = of_schedule(prefix, &lane.file, &lane.schedule);
    make(format!("{schedule}{:014}/{}", at.as_millis(), lane.zone))
}

fn pause_key(schedule: Option<(&Name, &Id)>) -> Made {
    make(schedule.map_or_else(|| format!("{PAUSES}all"), |(file, id)| format!("{PAUSES}{file}/{id}")))
}

/// Every lane that was decided on.
pub async fn lanes(repo: &Repo) -> Result<Vec<Stored<LaneRecord>>> {
    Ok(repo.all::<LaneRecord>(LANES).await?.into_iter().map(|(_, stored)| stored).collect())
}

/// One lane.
pub async fn lane(repo: &Repo, lane: &Lane) -> Result<Option<Stored<LaneRecord>>> {
    repo.get(&lane_key(lane)?).await
}

/// What became of a tick.
pub async fn tick(repo: &Repo, lane: &Lane, at: Timestamp) -> Result<Option<Stored<DecidedTick>>> {
    repo.get(&tick_key(TICKS, lane, at)?).await
}

/// The newest ticks of a schedule, newest first.
pub async fn newest(repo: &Repo, file: &Name, schedule: &Id, limit: usize) -> Result<Vec<DecidedTick>> {
    let prefix = of_schedule(TICKS, file, schedule);
    let page = repo.page::<DecidedTick>(&prefix, None, limit, Direction::Descending).await?;
    Ok(page.into_iter().map(|(_, stored)| stored.record).collect())
}

/// What was missed and nobody has seen, of a schedule or of all: the lane's part of the key with the tick, oldest first.
pub async fn unseen(repo: &Repo, schedule: Option<(&Name, &Id)>, limit: usize) -> Result<Vec<Key>> {
    let prefix = schedule.map_or_else(|| UNSEEN.to_owned(), |(file, id)| of_schedule(UNSEEN, file, id));
    let page = repo.page::<Mark>(&prefix, None, limit, Direction::Ascending).await?;
    Ok(page.into_iter().map(|(key, _)| key).collect())
}

/// The schedule of a mark, as `FILE/ID`.
pub fn schedule_of(mark: &Key) -> Option<String> {
    let text = std::str::from_utf8(mark.as_bytes().strip_prefix(UNSEEN.as_bytes())?).ok()?;
    let mut parts = text.splitn(3, '/');
    Some(format!("{}/{}", parts.next()?, parts.next()?))
}

/// The tick of a mark.
pub fn time_of(mark: &Key) -> Option<Timestamp> {
    let text = std::str::from_utf8(mark.as_bytes().strip_prefix(UNSEEN.as_bytes())?).ok()?;
    Timestamp::from_millis(text.split('/').nth(2)?.parse().ok()?).ok()
}

/// Is this the mark of that tick?
pub fn is_mark_of(mark: &Key, tick: &DecidedTick) -> bool {
    tick_key(UNSEEN, &tick.lane, tick.at).is_ok_and(|key| key == *mark)
}

/// Somebody has seen these.
pub fn seen(batch: Batch, marks: Vec<Key>) -> Batch {
    marks.into_iter().fold(batch, Batch::delete)
}

/// Writes ticks that are new, and the lane as it is then. `seen` is the lane as it was read.
pub fn decide(
    batch: Batch,
    seen: Option<WriteId>,
    lane: &LaneRecord,
    ticks: &[DecidedTick],
) -> Result<Batch> {
    let mut batch = put_lane(batch, seen, lane)?;
    for tick in ticks {
        batch = batch.create_record(tick_key(TICKS, &tick.lane, tick.at)?, tick)?;
        if tick.not_fired.is_some_and(NotFired::is_a_miss) {
            batch = batch.put_record(tick_key(UNSEEN, &tick.lane, tick.at)?, &Mark {})?;
        }
    }
    Ok(batch)
}

/// Writes another round of a tick, and the lane as it is then.
pub fn another_round(
    batch: Batch,
    seen: WriteId,
    lane: &LaneRecord,
    tick: &Stored<DecidedTick>,
    run: RunId,
) -> Result<Batch> {
    let mut record = tick.record.clone();
    record.runs.push(run);
    put_lane(batch, Some(seen), lane)?.replace_record(
        tick_key(TICKS, &record.lane, record.at)?,
        tick.write_id,
        &record,
    )
}

fn put_lane(batch: Batch, seen: Option<WriteId>, lane: &LaneRecord) -> Result<Batch> {
    match seen {
        Some(seen) => batch.replace_record(lane_key(&lane.lane)?, seen, lane),
        None => batch.create_record(lane_key(&lane.lane)?, lane),
    }
}

/// What is paused.
#[derive(Debug, Clone, Default)]
pub struct Pauses {
    /// All of them.
    pub all: Option<PauseRecord>,
    /// By schedule, as `FILE/ID`.
    pub schedules: std::collections::BTreeMap<String, PauseRecord>,
}

/// What is paused now.
pub async fn pauses(repo: &Repo) -> Result<Pauses> {
    let mut pauses = Pauses::default();
    for (key, stored) in repo.all::<PauseRecord>(PAUSES).await? {
        let text = String::from_utf8_lossy(&key.as_bytes()[PAUSES.len()..]).into_owned();
        if text == "all" {
            pauses.all = Some(stored.record);
        } else {
            pauses.schedules.insert(text, stored.record);
        }
    }
    Ok(pauses)
}

/// Pauses a schedule, or all of them.
pub fn pause(batch: Batch, schedule: Option<(&Name, &Id)>, pause: &PauseRecord) -> Result<Batch> {
    batch.put_record(pause_key(schedule)?, pause)
}

/// Lets it go on.
pub fn resume(batch: Batch, schedule: Option<(&Name, &Id)>) -> Result<Batch> {
    Ok(batch.delete(pause_key(schedule)?))
}
