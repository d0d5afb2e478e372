//! Timers of the protocol: one validated settings struct, so that tests run real processes at 1/50.

use std::time::Duration;

use super::merged::Merged;

/// Timers may be 1/50 of the defaults in tests; below this a busy machine would fail by itself.
const LEAST: Duration = Duration::from_millis(5);
/// No protocol timer makes sense above this: it exceeds the lease (5 min, security-and-delivery §2.7).
const MOST: Duration = Duration::from_mins(10);

/// Timers of the protocol (security-and-delivery §2.7, §2.13), scaled as a whole in tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// For name resolution and TCP of one endpoint, and for its handshake.
    pub connect: Duration,
    /// Where the back-off begins.
    pub backoff_min: Duration,
    /// Where it ends.
    pub backoff_max: Duration,
    /// A link that lasted this long resets the back-off.
    pub stable_link: Duration,
    /// Spread after a lost link until the controller names one.
    pub spread: Duration,
    /// HTTP/2 ping after this idle time, and the wait for its answer.
    pub keepalive: Duration,
    /// Heartbeat until the controller names an interval.
    pub heartbeat: Duration,
    /// Longest wait for `Welcome`, and for the executor's answer to it.
    pub hello: Duration,
    /// A report without acknowledgement is sent again after this.
    pub report_resend: Duration,
    /// Longest wait for one document.
    pub document: Duration,
    /// How often core and executor say to each other that they are alive.
    pub halves: Duration,
    /// Grace period when stopping.
    pub drain: Duration,
}

/// After the grace period of a stop the last reports have this long to leave: a round trip on any link that is up.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

impl Timers {
    /// The time for the last reports after the grace period; not longer than that one.
    pub fn flush(&self) -> Duration {
        FLUSH_LIMIT.min(self.drain)
    }
}

/// Reads and checks them.
pub fn read(merged: &mut Merged) -> Timers {
    let timers = Timers {
        connect: merged.duration("controller.connect_timeout", LEAST, MOST),
        backoff_min: merged.duration("controller.backoff.min", LEAST, MOST),
        backoff_max: merged.duration("controller.backoff.max", LEAST, MOST),
        stable_link: merged.duration("timers.stable_link", LEAST, MOST),
        spread: merged.duration("timers.spread", Duration::ZERO, MOST),
        keepalive: merged.duration("timers.keepalive", LEAST, MOST),
        heartbeat: merged.duration("link.heartbeat", LEAST, Duration::from_mins(2)),
        hello: merged.duration("timers.hello", LEAST, MOST),
        report_resend: merged.duration("timers.report_resend", LEAST, MOST),
        document: merged.duration("timers.document", LEAST, MOST),
        halves: merged.duration("timers.halves", LEAST, Duration::from_mins(1)),
        drain: merged.duration("timers.drain", Duration::ZERO, MOST),
    };
    if timers.backoff_min > timers.backoff_max {
        merged.problem("controller.backoff.min", "must not exceed controller.backoff.max");
    }
    timers
}
