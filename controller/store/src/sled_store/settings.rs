//! What can be set about a sled store, and why the defaults are what they are.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// What happens when the writer is stuck; gets a text that says since when. The default ends the process.
pub type StuckAction = Arc<dyn Fn(&str) + Send + Sync>;

/// Settings of a [`crate::SledStore`].
pub struct SledSettings {
    /// The store's directory; made when it is missing.
    pub path: PathBuf,
    /// sled's page cache. 64 MiB: the default of 1 GiB is meant for machines that do nothing else, and real use is
    /// higher than the setting (security-and-delivery §4.6).
    pub cache_bytes: u64,
    /// Below this much free space only batches from the reserve are written. 256 MiB: sled was seen to grow to a
    /// hundred times a small live set before it reclaims space, and the operator needs time to react.
    pub free_space_floor_bytes: u64,
    /// Below this much free space nothing is written. 64 MiB: a full queue of ordinary batches (256 of a few KiB)
    /// with sled's growth fits in, so that the store becomes read-only before the file system is really full.
    pub reserve_floor_bytes: u64,
    /// How long one group may take to become durable. 60 s: a slow disk needs about a second (two syncs of 500 ms),
    /// a deadlocked sled never ends (security-and-delivery §4.2).
    pub stuck_limit: Duration,
    /// What to do then.
    pub on_stuck: StuckAction,
    /// Opens the store on trial after an unclean stop; the store's path is already among its arguments.
    pub probe_command: Option<Command>,
    /// How long the probe may take. 5 min: opening times of 200 s were seen at the size where one should have moved
    /// to `PostgreSQL` (upstream issue 1531).
    pub probe_limit: Duration,
}

impl SledSettings {
    /// The defaults for a directory, without a probe.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cache_bytes: 64 * 1024 * 1024,
            free_space_floor_bytes: 256 * 1024 * 1024,
            reserve_floor_bytes: 64 * 1024 * 1024,
            stuck_limit: Duration::from_mins(1),
            on_stuck: Arc::new(abort_process),
            probe_command: None,
            probe_limit: Duration::from_mins(5),
        }
    }

    /// With a command that opens the store on trial after an unclean stop, such as
    /// `fleet-controller store-probe PATH`; it ends with [`super::run_probe`].
    #[must_use]
    pub fn with_probe_command(mut self, command: Command) -> Self {
        self.probe_command = Some(command);
        self
    }
}

impl fmt::Debug for SledSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledSettings")
            .field("path", &self.path)
            .field("cache_bytes", &self.cache_bytes)
            .field("free_space_floor_bytes", &self.free_space_floor_bytes)
            .field("reserve_floor_bytes", &self.reserve_floor_bytes)
            .field("stuck_limit", &self.stuck_limit)
            .field("probe_command", &self.probe_command)
            .field("probe_limit", &self.probe_limit)
            .finish_non_exhaustive()
    }
}

/// The default [`StuckAction`]: says so and aborts. Nothing less helps against a deadlock inside sled; what was
/// acknowledged is on the disk, and the supervisor starts the process again.
pub fn abort_process(text: &str) {
    tracing::error!("{text}; the process aborts so that its supervisor starts it anew");
    std::process::abort();
}
