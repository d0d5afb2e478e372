//! What a node keeps, for how long, and how often it tidies: every period and bound of the executor's disk in one
//! place, each with its argument.
//!
//! Values only. What is open or not yet acknowledged is never removed; everything else has a bound that holds while
//! the executor runs, not only at its start. Read by the journal, the stores and `dispatcher/tidy.rs`.

use std::time::Duration;

/// Ended jobs are remembered this long, and past their request's end (security-and-delivery §2.5): a controller that
/// asks again is answered.
pub const REMEMBERED: Duration = Duration::from_hours(60 * 24);

/// Ended, acknowledged jobs that are remembered at most: three an hour for sixty days, at one and a half kilobytes
/// each. Beyond it the oldest go whose request has ended: such a request is refused by its time, so "once" holds.
pub const MAX_REMEMBERED_JOBS: usize = 4096;

/// Cancels of jobs that never came, kept at most. Each bars one late offer; an honest controller has a handful of
/// them, and one that floods the node could as well not cancel at all. The oldest go first.
pub const MAX_TOMBSTONES: usize = 512;

/// Reports that wait for their acknowledgement at most; beyond it nothing is taken up: the controller that offers more
/// must first take what is there. Four times what the core's outbox holds.
pub const MAX_UNACKNOWLEDGED: usize = 1024;

/// A journal is compacted when it is this long and twice as long as the last compaction left it: read in well under a
/// second, and compacted once in a thousand jobs.
pub const COMPACT_FROM_BYTES: u64 = 4 * 1024 * 1024;

/// Number and bytes of files that a store keeps beside those in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Files.
    pub files: usize,
    /// Bytes.
    pub bytes: u64,
}

/// Acknowledged reports: kept to answer a repeated offer with; without its report the answer is the job's end. A
/// report has twenty kilobytes as a rule and half a megabyte at most.
pub const ACKNOWLEDGED_REPORTS: Bounds = Bounds { files: 512, bytes: 32 * 1024 * 1024 };

/// Documents that no open job names: a request a run, and the profiles and procedures of a node, of which there are a
/// few dozen. One that is missing is asked for again.
pub const SPARE_DOCUMENTS: Bounds = Bounds { files: 256, bytes: 64 * 1024 * 1024 };

/// Tidied after so many ends, cancels and acknowledgements: a directory of a few hundred names is read once for them.
pub const TIDY_AFTER: u32 = 32;

/// And after this time, for what time alone makes removable.
pub const TIDY_EVERY: Duration = Duration::from_hours(1);

/// The reserve is made again when the disk has this much free beside it: making it must not fill the disk again.
pub const RESERVE_AGAIN_FROM_BYTES: u64 = 64 * 1024 * 1024;
