//! Time of the machine. This is the executor's clock file: nothing else on the host side reads the wall clock.
//!
//! Deadlines are measured on boot time, which goes on while the machine sleeps and never jumps; wall time
//! serves names, ages and reports (security-and-delivery §2.7). Called by tasks, the host and the supervisor.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use fleet_types::time::Timestamp;
use jiff::tz::TimeZone;
use rustix::time::{ClockId, clock_gettime};

use crate::tasks::CancelFlag;

/// How long a wait lets a cancel wait. A tenth of a second is unnoticed by people and costs nothing.
const SLICE: Duration = Duration::from_millis(100);

/// Time and waiting.
pub trait Clock: Send + Sync {
    /// Wall time.
    fn now(&self) -> Timestamp;

    /// Time since boot.
    fn since_boot(&self) -> Duration;

    /// The instant of deadlines inside this process.
    fn instant(&self) -> Instant;

    /// Id of this boot.
    fn boot_id(&self) -> String;

    /// Zone of the node, for `{date}`.
    fn zone(&self) -> TimeZone;

    /// Waits so long, or until cancelled; `false` when cancelled.
    fn pause(&self, length: Duration, cancel: &CancelFlag) -> bool;
}

/// The clocks of Linux.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinuxClock;

impl Clock for LinuxClock {
    #[allow(clippy::disallowed_methods)] // this is the clock file
    fn now(&self) -> Timestamp {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::clamped(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
    }

    fn since_boot(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn boot_id(&self) -> String {
        // No process outlives its boot.
        static BOOT_ID: LazyLock<String> = LazyLock::new(|| {
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
        });
        BOOT_ID.clone()
    }

    fn zone(&self) -> TimeZone {
        TimeZone::try_system().unwrap_or(TimeZone::UTC)
    }

    fn pause(&self, length: Duration, cancel: &CancelFlag) -> bool {
        let end = Instant::now() + length;
        loop {
            if cancel.is_cancelled() {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::park_timeout(left.min(SLICE));
        }
    }
}
