//! The clock and the dice: the only file of the controller that reads the wall clock or draws randomness.
//!
//! Everything else is handed a [`Clock`], so that tests can stand still and simulations can repeat.

#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::{Duration, Instant};

use fleet_rollout::{Moment, Mono};
use fleet_types::id::RunId;
use fleet_types::time::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

/// Reads the time and draws random bytes.
#[derive(Clone)]
pub struct Clock {
    /// Monotonic time counts from here.
    start: Instant,
    random: SystemRandom,
    /// In tests the time may stand still.
    #[cfg(test)]
    manual: Option<Arc<Manual>>,
}

/// Milliseconds on the wall clock, and how many of them nobody lived through.
#[cfg(test)]
struct Manual {
    wall: AtomicI64,
    jumped: AtomicI64,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self {
            start: Instant::now(),
            random: SystemRandom::new(),
            #[cfg(test)]
            manual: None,
        }
    }

    /// A clock that stands still until it is moved.
    #[cfg(test)]
    pub fn manual(start: Timestamp) -> Self {
        let manual = Manual { wall: AtomicI64::new(start.as_millis()), jumped: AtomicI64::new(0) };
        Self { manual: Some(Arc::new(manual)), ..Self::system() }
    }

    /// Moves a manual clock; the machine's clock is left alone.
    #[cfg(test)]
    pub fn set(&self, to: Timestamp) {
        if let Some(manual) = &self.manual {
            manual.wall.store(to.as_millis(), Ordering::SeqCst);
        }
    }

    /// Sets a manual clock, as somebody sets the one on a wall: no time passes.
    #[cfg(test)]
    pub fn jump(&self, to: Timestamp) {
        if let Some(manual) = &self.manual {
            let before = manual.wall.swap(to.as_millis(), Ordering::SeqCst);
            manual.jumped.fetch_add(to.as_millis() - before, Ordering::SeqCst);
        }
    }

    /// Wall time now.
    #[allow(clippy::disallowed_methods)] // This is the file the ban points to.
    pub fn now(&self) -> Timestamp {
        #[cfg(test)]
        if let Some(manual) = &self.manual {
            return Timestamp::clamped(manual.wall.load(Ordering::SeqCst));
        }
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::clamped(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Now on both clocks. The monotonic one stands still while the machine is suspended.
    pub fn moment(&self) -> Moment {
        let wall = self.now();
        #[cfg(test)]
        if self.manual.is_some() {
            let mono = Duration::from_millis(wall.as_millis().unsigned_abs());
            return Moment { wall, mono: Mono::new(mono) };
        }
        Moment { wall, mono: Mono::new(self.start.elapsed()) }
    }

    /// The time since the machine was started; it goes on while the machine is suspended, and nobody sets it.
    pub fn since_boot(&self) -> Duration {
        #[cfg(test)]
        if let Some(manual) = &self.manual {
            let lived = manual.wall.load(Ordering::SeqCst) - manual.jumped.load(Ordering::SeqCst);
            return Duration::from_millis(lived.unsigned_abs());
        }
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
    }

    /// Random bytes from the operating system.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0u8; N];
        if self.random.fill(&mut bytes).is_err() {
            // getrandom(2) fails only on kernels without it; going on with predictable ids and secrets
            // would be worse than stopping.
            tracing::error!("the operating system gives no random bytes; stopping");
            std::process::abort();
        }
        bytes
    }

    /// A new UUID that sorts by time (RFC 9562 version 7).
    pub fn uuid(&self) -> Uuid {
        let millis = u64::try_from(self.now().as_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.random()).into_uuid()
    }

    /// A new run id.
    pub fn run_id(&self) -> RunId {
        RunId::new(self.now(), u32::from_be_bytes(self.random()))
    }

    /// A new id for a commit.
    pub fn write_id(&self) -> fleet_store::WriteId {
        fleet_store::WriteId::from_bytes(self.random())
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}
