//! A wall clock that jumps against the monotonic one (security-and-delivery §2.15, T15).
//!
//! Whoever looks hands in both clocks. The monotonic one must go on while the machine is suspended: then a machine that slept
//! has not jumped.

use std::time::Duration;

use fleet_types::time::Timestamp;

/// A jump of more than this pauses the scheduler.
pub const JUMP: Duration = Duration::from_mins(10);

/// Both clocks at the last look.
#[derive(Debug, Clone, Copy)]
pub struct ClockWatch {
    wall: Timestamp,
    mono: Duration,
}

impl ClockWatch {
    /// Begins to watch. Only differences of `mono` count.
    pub const fn new(wall: Timestamp, mono: Duration) -> Self {
        Self { wall, mono }
    }

    /// By how many milliseconds the wall clock went further than time did since the last look, if that is a jump; less than
    /// zero when it went back.
    pub fn look(&mut self, wall: Timestamp, mono: Duration) -> Option<i64> {
        let passed = i64::try_from(mono.saturating_sub(self.mono).as_millis()).unwrap_or(i64::MAX);
        let shown = wall.as_millis().saturating_sub(self.wall.as_millis());
        *self = Self::new(wall, mono);
        let by = shown.saturating_sub(passed);
        (u128::from(by.unsigned_abs()) > JUMP.as_millis()).then_some(by)
    }
}
