//! What the kernel says about the machine: the trait and its types. Reads only.
//!
//! Called by `metrics.collect`, `health.check` and `facts`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::files::Space;

/// Something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not available: {why}")]
pub struct SystemError {
    /// What was asked for.
    pub what: &'static str,
    /// Why it cannot be had.
    pub why: String,
}

/// Time the processors spent since boot, all together, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// Working.
    pub busy: u64,
    /// All of it.
    pub total: u64,
}

impl CpuTimes {
    /// Used share in percent between an earlier reading and this one; none when no tick has passed.
    #[allow(clippy::cast_precision_loss)] // differences of ticks are small
    pub fn used_percent_since(&self, earlier: &Self) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|t| *t > 0)?;
        Some(self.busy.saturating_sub(earlier.busy) as f64 * 100.0 / total as f64)
    }
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// All of it.
    pub total: u64,
    /// What programs may still have without swapping (`MemAvailable`): not the same as "free".
    pub available: u64,
}

impl MemoryUse {
    /// Share that is not available, in percent.
    #[allow(clippy::cast_precision_loss)] // a percentage needs no more than 52 bits
    pub fn used_percent(&self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        self.total.saturating_sub(self.available) as f64 * 100.0 / self.total as f64
    }
}

/// Load averages over 1, 5 and 15 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LoadAverages {
    /// One minute.
    pub one: f64,
    /// Five minutes.
    pub five: f64,
    /// Fifteen minutes.
    pub fifteen: f64,
}

/// Counters of a network interface since it came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct InterfaceCounters {
    /// Bytes in.
    pub received_bytes: u64,
    /// Packets in.
    pub received_packets: u64,
    /// Errors in.
    pub received_errors: u64,
    /// Drops in.
    pub received_drops: u64,
    /// Bytes out.
    pub sent_bytes: u64,
    /// Packets out.
    pub sent_packets: u64,
    /// Errors out.
    pub sent_errors: u64,
    /// Drops out.
    pub sent_drops: u64,
}

/// A mounted file system of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub path: String,
    /// From what.
    pub device: String,
    /// Its type.
    pub kind: String,
}

/// Use of a mounted file system.
pub type DiskUsage = (Mount, Space);

/// Readings of the kernel.
pub trait System: Send + Sync {
    /// Logical processors.
    fn cores(&self) -> u32;

    /// Processor time since boot.
    fn cpu_times(&self) -> Result<CpuTimes, SystemError>;

    /// Memory.
    fn memory(&self) -> Result<MemoryUse, SystemError>;

    /// Load averages.
    fn load(&self) -> Result<LoadAverages, SystemError>;

    /// Time since boot.
    fn uptime(&self) -> Result<Duration, SystemError>;

    /// Mounted file systems of disks, without pseudo file systems.
    fn mounts(&self) -> Result<Vec<Mount>, SystemError>;

    /// Counters of every interface, loopback too.
    fn interfaces(&self) -> Result<BTreeMap<String, InterfaceCounters>, SystemError>;

    /// Addresses on interfaces of this node.
    fn addresses(&self) -> Result<Vec<IpAddr>, SystemError>;

    /// Entries of the connection tracking table, and how many fit.
    fn conntrack(&self) -> Result<(u64, u64), SystemError>;

    /// Tries a TCP connection.
    fn connect(&self, address: std::net::SocketAddr, limit: Duration) -> Result<(), SystemError>;

    /// Services, else programs, that run files below `root` which an upgrade has replaced.
    fn running_old_files(&self, root: &Path) -> BTreeSet<String> {
        self.old_files_in_use(root).into_keys().collect()
    }

    /// The same with the files that each of them runs, as the node sees them.
    fn old_files_in_use(&self, root: &Path) -> BTreeMap<String, BTreeSet<String>>;

    /// Host name, kernel release and architecture.
    fn names(&self) -> (String, String, String);
}
