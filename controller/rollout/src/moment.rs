//! An instant on both clocks: the wall clock for what people sign and write (first and last starts), a monotonic
//! one for how long something has lasted.
//!
//! A wall clock may step; silence and limits are never measured with it (DESIGN, "Silence"). Made by whoever has
//! the clocks: the controller's `clock.rs`, and the simulation.

use std::time::Duration;

use fleet_types::time::Timestamp;

/// Time on a monotonic clock since an instant that the process chose. Not to be stored, and not to be compared
/// with another process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(Duration);

impl Mono {
    /// So long after the chosen instant.
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Later by so much.
    #[must_use]
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// Earlier by so much, at most the chosen instant.
    #[must_use]
    pub const fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }

    /// How long after `earlier`; nothing when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Now, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// What people's clocks say.
    pub wall: Timestamp,
    /// What only ever rises.
    pub mono: Mono,
}

impl Moment {
    /// Where `wall` lies on the monotonic clock, as far as the wall clock is right now; now when it has passed.
    pub fn mono_of(self, wall: Timestamp) -> Mono {
        self.mono.plus(wall.since(self.wall))
    }
}
