//! What is known of a lane when it is decided on, and what is decided.

use std::time::Duration;

use fleet_calendar::Times;
use fleet_types::id::RunId;
use fleet_types::time::Timestamp;
use fleet_types::view::NotFired;

use crate::rules::Rules;

/// One schedule in one zone, as it stands.
#[derive(Debug, Clone)]
pub struct Lane<'a> {
    /// When it ticks.
    pub times: &'a Times,
    /// What the file says.
    pub rules: &'a Rules,
    /// The standing order holds from here.
    pub from: Timestamp,
    /// And no tick at or after this instant.
    pub end: Timestamp,
    /// Every tick up to this one is decided; none yet for a lane that is new.
    pub decided: Option<Timestamp>,
    /// The run of an earlier tick that still goes.
    pub running: Option<Running>,
    /// An operator has paused it.
    pub paused: bool,
    /// Firing failed, and is tried again then.
    pub retry_at: Option<Timestamp>,
}

/// A run that still goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The run.
    pub run: RunId,
    /// Was its tick a missed one?
    pub caught_up: bool,
}

/// What to do about a lane now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decided {
    /// Ticks that are not carried out, oldest first.
    pub skip: Vec<Skip>,
    /// The run to cancel.
    pub cancel: Option<RunId>,
    /// The tick to fire. The lane is asked again once it has.
    pub fire: Option<Fire>,
    /// The tick that is due and waits.
    pub wait: Option<Wait>,
    /// When to ask again, if nothing changes before.
    pub look_again: Option<Timestamp>,
}

/// Ticks one after another that are not carried out for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// The oldest.
    pub first: Timestamp,
    /// The newest.
    pub last: Timestamp,
    /// How many; after a limit no more are counted.
    pub count: u32,
    /// Why.
    pub why: NotFired,
}

/// A tick to fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fire {
    /// The tick.
    pub at: Timestamp,
    /// No node before this instant.
    pub not_before: Timestamp,
    /// No first start on a node after this instant.
    pub not_after: Timestamp,
    /// Is it a missed one?
    pub caught_up: bool,
}

/// A tick that is due and waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The tick.
    pub at: Timestamp,
    /// It is given up then.
    pub until: Timestamp,
    /// What it is given up for.
    pub why: NotFired,
}

/// The smallest step between two instants.
pub(crate) const STEP: Duration = Duration::from_millis(1);
