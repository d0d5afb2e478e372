//! Protocol timers and limits: one validated set, so that tests run real processes at 1/50 of the scale.
//!
//! Each number stands here once, with its argument. Nobody reads an environment variable for it.

use std::time::Duration;

/// Timers and limits of the controller.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Told to agents; 30 s keeps 100,000 idle agents at 3,300 small messages a second (§2.7).
    pub heartbeat: Duration,
    /// An offer that was not answered is sent again after this (§2.7).
    pub offer: Duration,
    /// How long the runner may go without a look at everything, in case a ring was lost.
    pub pass_period: Duration,
    /// After losing an established link agents wait uniform(0, spread) (§2.13); the controller raises it with
    /// the number of its nodes.
    pub reconnect_spread_min: Duration,
    /// Handshakes a second that the spread reckons with: half of what one core measured, so that the
    /// other half is left for work.
    pub handshakes_per_second: u32,
    /// Handshakes under way at once: beyond, the kernel's backlog holds clients back.
    pub handshakes_at_once: usize,
    /// Connections at once on a listener: below the 20,000 open files that a process usually has.
    pub connections: usize,
    /// Calls that enrol a token or address may make in a minute.
    pub enrol_per_minute: u32,
    /// Life of an agent's certificate (§1.8).
    pub agent_certificate: Duration,
    /// Life of an operator's certificate.
    pub operator_certificate: Duration,
    /// Below this much free space no output of steps is written: twice the floor of the store, which as a rule
    /// lies on the same file system, so that output stops long before the store refuses new work.
    pub output_floor_bytes: u64,
    /// How long open connections may take to end at shutdown.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(30),
            offer: Duration::from_secs(30),
            pass_period: Duration::from_secs(15),
            reconnect_spread_min: Duration::from_secs(2),
            handshakes_per_second: 1500,
            handshakes_at_once: 256,
            connections: 15_000,
            enrol_per_minute: 30,
            agent_certificate: Duration::from_hours(72),
            operator_certificate: Duration::from_hours(12),
            output_floor_bytes: 512 * 1024 * 1024,
            drain: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// All timers divided by `by`, for tests with real processes; limits and certificates stay.
    #[must_use]
    pub fn scaled(mut self, by: u32) -> Self {
        let by = by.max(1);
        for timer in
            [&mut self.heartbeat, &mut self.offer, &mut self.pass_period, &mut self.reconnect_spread_min]
        {
            *timer /= by;
        }
        self
    }

    /// The spread that is told to agents when `connected` of them are here.
    pub fn reconnect_spread(&self, connected: usize) -> Duration {
        let by_rate = Duration::from_millis(
            (connected as u64).saturating_mul(1000) / u64::from(self.handshakes_per_second.max(1)),
        );
        by_rate.max(self.reconnect_spread_min)
    }
}
