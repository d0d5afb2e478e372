//! The five states of a schedule, as people are shown them.

use fleet_types::view::ScheduleState;

/// What is known of the newest tick of a schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Facts that are looked up apart from each other.
pub struct Seen {
    /// It is paused, or the scheduler is.
    pub paused: bool,
    /// No tick was decided yet.
    pub new: bool,
    /// A tick is due and waits.
    pub late: bool,
    /// The newest tick was not carried out though it should have been, or its run failed, or nothing can fire.
    pub failed: bool,
}

/// The state.
pub const fn state(seen: Seen) -> ScheduleState {
    match seen {
        Seen { paused: true, .. } => ScheduleState::Paused,
        Seen { failed: true, .. } => ScheduleState::Down,
        Seen { late: true, .. } => ScheduleState::Late,
        Seen { new: true, .. } => ScheduleState::New,
        _ => ScheduleState::Up,
    }
}
