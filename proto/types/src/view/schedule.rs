//! Schedules as they stand, and what became of their ticks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::document::Id;
use crate::id::{Name, RunId};
use crate::run::RunState;
use crate::time::Timestamp;

/// Why a tick was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotFired {
    /// Nothing could fire in time: the controller was down, or the scheduler paused itself.
    Missed,
    /// The run before it still went.
    Overlap,
    /// It was paused.
    Paused,
    /// It is from before its order was signed anew.
    SignedAnew,
    /// No node is meant that could get work.
    NoNodes,
    /// A blackout covers all of its nodes.
    Blackout,
    /// Its run was refused until it was too late; why is beside it.
    Refused,
}

impl NotFired {
    /// Does somebody have to see it? What an operator or the file asked for needs nobody.
    pub const fn is_a_miss(self) -> bool {
        matches!(self, Self::Missed | Self::Overlap | Self::NoNodes | Self::Refused)
    }

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Overlap => "the run before still went",
            Self::Paused => "paused",
            Self::SignedAnew => "before its order was signed anew",
            Self::NoNodes => "no node to work on",
            Self::Blackout => "blackout",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for NotFired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleState {
    /// Nothing has come due yet.
    New,
    /// The newest tick was carried out.
    Up,
    /// A tick is due and waits.
    Late,
    /// The newest tick was not carried out, its run failed, or it cannot fire.
    Down,
    /// It, or all of them, are paused.
    Paused,
}

impl ScheduleState {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Up => "up",
            Self::Late => "late",
            Self::Down => "down",
            Self::Paused => "paused",
        }
    }
}

impl fmt::Display for ScheduleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A tick to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextTick {
    /// The tick.
    pub at: Timestamp,
    /// Its zone.
    pub zone: String,
    /// The same as people of the zone write it.
    pub shown: String,
}

/// What became of a tick, or of several one after another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickItem {
    /// The tick; of several the newest.
    pub at: Timestamp,
    /// Its zone.
    pub zone: String,
    /// The same as people of the zone write it.
    pub shown: String,
    /// How many ticks it stands for.
    pub count: u32,
    /// The oldest of them, where it stands for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// When it was decided.
    pub decided: Timestamp,
    /// Why it was not carried out; nothing for one that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_fired: Option<NotFired>,
    /// More about that, such as the error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub because: String,
    /// Its runs: the first, and one for each further round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunId>,
    /// How the newest of them stands, as long as it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_state: Option<RunState>,
    /// Was it missed, and nobody has seen that yet?
    #[serde(default)]
    pub unseen: bool,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleItem {
    /// Its file.
    pub file: Name,
    /// Its id in the file.
    pub schedule: Id,
    /// The procedure.
    pub procedure: Name,
    /// How it stands.
    pub state: ScheduleState,
    /// What is to be known about it: why it cannot fire, what it waits for, who paused it, what ends soon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The next ticks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<NextTick>,
    /// What became of the newest tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<TickItem>,
    /// Ticks that were missed and that nobody has seen yet.
    #[serde(default)]
    pub unseen: u32,
    /// Does what was signed for it end within 30 days?
    #[serde(default)]
    pub ends_soon: bool,
    /// Who signed that it may start work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<Name>,
    /// No tick after this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl ScheduleItem {
    /// As people write it: `FILE/ID`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.file, self.schedule)
    }
}
