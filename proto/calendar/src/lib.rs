//! When a schedule fires: cron expressions, time zones, changes of the clocks.
//!
//! Pure: it reads no clock and no file but the machine's table of time zones. The lint, the controller's scheduler and
//! the node's check of a tick ask it, so that all three mean the same instants. It must never decide whether a tick runs.

mod cron;
mod times;
mod zone;

pub use cron::{Cron, CronError};
pub use times::{CalendarError, SEARCH, Ticks, Times};
pub use zone::{SITE, UTC, Zone, Zones, is_zone, suggestions};
