//! When a finding must be gone: from score to hours and tests, and how much of them is left. Pure rules.
//!
//! For: the controller, and whoever shows a deadline. Must never: read a clock, stop one because somebody wishes it, or
//! show what is held or not known as being in time.
//!
//! | file | holds |
//! |---|---|
//! | `tier` | which lane a score is in, and what each lane asks for |
//! | `deadline` | where a clock starts, when it ends, and how it stands |
//! | `lag` | an archive that does not have what its origin has published |

mod deadline;
mod lag;
mod tier;

pub use deadline::{Deadline, Start, StartedBy, Verdict, deadline, verdict};
pub use lag::{MirrorLag, mirror_lag};
pub use tier::{ClockStarts, KnownExploitedRule, Lane, Rules, Testing, Tier, lane};
