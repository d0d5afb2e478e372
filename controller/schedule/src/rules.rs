//! What a file says about the ticks of a schedule, with what counts where nothing is written (reference/schedule.toml).

use std::time::Duration;

use fleet_types::digest::Digest;
use fleet_types::document::schedule::{LateNodes, Misfire, Overlap, Schedule};
use fleet_types::standing_order;
use fleet_types::time::Span;

/// How late a tick may start where neither `start_within` nor `window` is written: a restart of the controller, not more.
pub const UNWRITTEN: Duration = Duration::from_mins(10);

/// The rules of one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What happens with ticks that were missed.
    pub misfire: Misfire,
    /// What happens while the run before still goes.
    pub overlap: Overlap,
    /// What happens with nodes that were not reached.
    pub late_nodes: LateNodes,
    /// How late a tick may start that was not missed.
    pub start_within: Duration,
    /// How late a missed one may start.
    pub catch_up: Duration,
    /// From its start: when nodes may begin.
    pub window: Duration,
    /// So long after its time nothing of a tick begins any more; the node looks at it too.
    pub lasts: Duration,
    /// Nodes begin so long after the tick: the share of `jitter` that is this lane's, the same every time.
    pub offset: Duration,
}

impl Rules {
    /// The rules of a schedule. `lane` tells lanes apart, `policy` is `late_nodes` of the rollout policy, `longest` is how long
    /// its procedure may change a node, way back included; nothing for one that reads only.
    pub fn of(schedule: &Schedule, lane: &str, policy: Option<LateNodes>, longest: Option<Duration>) -> Self {
        let length = |span: &Option<Span>| span.as_ref().map(Span::length);
        let written = length(&schedule.start_within).or_else(|| length(&schedule.window));
        let start_within = written.unwrap_or(UNWRITTEN);
        let jitter = length(&schedule.jitter).unwrap_or_default();
        let window = standing_order::window(schedule);
        Self {
            misfire: schedule.misfire.unwrap_or(Misfire::RunOnce),
            overlap: schedule.overlap,
            late_nodes: schedule.late_nodes.or(policy).unwrap_or(LateNodes::NextWindow),
            start_within,
            catch_up: length(&schedule.catch_up).unwrap_or(start_within),
            // What begins at its very end would change the node after it. One that is longer than its window has been
            // said to be by the lint; each of its segments fits.
            window: window
                .checked_sub(longest.unwrap_or_default())
                .filter(|left| !left.is_zero())
                .unwrap_or(window),
            lasts: standing_order::lasts(schedule),
            offset: share(jitter, lane),
        }
    }

    /// How late a tick may start at most.
    pub fn limit(&self) -> Duration {
        match self.misfire {
            Misfire::Skip => self.start_within,
            Misfire::RunOnce | Misfire::RunAll => self.start_within.max(self.catch_up),
        }
    }
}

/// A part of `jitter` that is the lane's own.
fn share(jitter: Duration, lane: &str) -> Duration {
    let drawn = Digest::of(lane.as_bytes());
    let number = drawn.as_bytes().iter().take(4).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let ms = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    // Seconds: instants are shown so.
    Duration::from_secs(ms / 1000 * number / u64::from(u32::MAX))
}
