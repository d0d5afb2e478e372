//! Readings of a Linux kernel, from `/proc` and, for addresses, sysinfo. Reads only.
//!
//! Formats: `proc(5)`, `proc_stat(5)`, `proc_meminfo(5)`, `proc_pid_net(5)`. Each parser is a pure function over the
//! text.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::system::{CpuTimes, InterfaceCounters, LoadAverages, MemoryUse, Mount, System, SystemError};

/// The kernel of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcSystem;

fn read(what: &'static str, path: &str) -> Result<String, SystemError> {
    let bytes = std::fs::read(path).map_err(|e| SystemError { what, why: format!("{path}: {e}") })?;
    // Paths of mounts may be of any bytes: one of them hides no other.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn malformed(what: &'static str, path: &str) -> SystemError {
    SystemError { what, why: format!("{path} does not read as expected") }
}

impl System for ProcSystem {
    fn cores(&self) -> u32 {
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
    }

    fn cpu_times(&self) -> Result<CpuTimes, SystemError> {
        cpu_times(&read("processor time", "/proc/stat")?)
            .ok_or_else(|| malformed("processor time", "/proc/stat"))
    }

    fn memory(&self) -> Result<MemoryUse, SystemError> {
        memory(&read("memory", "/proc/meminfo")?).ok_or_else(|| malformed("memory", "/proc/meminfo"))
    }

    fn load(&self) -> Result<LoadAverages, SystemError> {
        load(&read("load", "/proc/loadavg")?).ok_or_else(|| malformed("load", "/proc/loadavg"))
    }

    fn uptime(&self) -> Result<Duration, SystemError> {
        read("uptime", "/proc/uptime")?
            .split_whitespace()
            .next()
            .and_then(|text| text.parse().ok())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| malformed("uptime", "/proc/uptime"))
    }

    fn mounts(&self) -> Result<Vec<Mount>, SystemError> {
        Ok(mounts(&read("mounts", "/proc/self/mounts")?))
    }

    fn interfaces(&self) -> Result<BTreeMap<String, InterfaceCounters>, SystemError> {
        Ok(interfaces(&read("interface counters", "/proc/net/dev")?))
    }

    fn addresses(&self) -> Result<Vec<IpAddr>, SystemError> {
        let networks = sysinfo::Networks::new_with_refreshed_list()
            .map_err(|e| SystemError { what: "addresses", why: e.to_string() })?;
        Ok(networks.values().flat_map(|network| network.ip_networks().iter().map(|ip| ip.addr)).collect())
    }

    fn conntrack(&self) -> Result<(u64, u64), SystemError> {
        let number = |path: &str| -> Result<u64, SystemError> {
            let what = "connection tracking";
            read(what, path)?.trim().parse().map_err(|_| malformed(what, path))
        };
        Ok((
            number("/proc/sys/net/netfilter/nf_conntrack_count")?,
            number("/proc/sys/net/netfilter/nf_conntrack_max")?,
        ))
    }

    fn connect(&self, address: SocketAddr, limit: Duration) -> Result<(), SystemError> {
        TcpStream::connect_timeout(&address, limit)
            .map(|_| ())
            .map_err(|e| SystemError { what: "the port", why: e.to_string() })
    }

    fn old_files_in_use(&self, root: &Path) -> BTreeMap<String, BTreeSet<String>> {
        super::old_files::old_files_in_use(root)
    }

    fn names(&self) -> (String, String, String) {
        let names = rustix::system::uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        (text(names.nodename()), text(names.release()), text(names.machine()))
    }
}

/// `proc_stat(5)`: user nice system idle iowait irq softirq steal guest `guest_nice`; guest time is part of
/// user time already. Idle and waiting for disks is not work.
fn cpu_times(text: &str) -> Option<CpuTimes> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = line.split_whitespace().take(8).map(|t| t.parse().ok()).collect::<Option<_>>()?;
    let total: u64 = times.iter().sum();
    let idle = times.get(3)? + times.get(4)?;
    Some(CpuTimes { busy: total - idle, total })
}

fn memory(text: &str) -> Option<MemoryUse> {
    let field = |name: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(MemoryUse { total: field("MemTotal")?, available: field("MemAvailable")? })
}

fn load(text: &str) -> Option<LoadAverages> {
    let mut fields = text.split_whitespace().map(|t| t.parse().ok());
    Some(LoadAverages { one: fields.next()??, five: fields.next()??, fifteen: fields.next()?? })
}

/// File systems on devices and network shares; the first mount of each device, since others show the same.
fn mounts(text: &str) -> Vec<Mount> {
    const NOT_DISKS: [&str; 4] = ["squashfs", "iso9660", "fuse.portal", "nsfs"];
    let mut mounts: Vec<Mount> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(path), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let is_disk = (device.starts_with("/dev/") || kind.starts_with("nfs") || kind == "zfs")
            && !device.starts_with("/dev/loop")
            && !NOT_DISKS.contains(&kind);
        let path = unescape(path);
        if is_disk && !mounts.iter().any(|m| m.device == device || m.path == path) {
            mounts.push(Mount { path, device: device.to_owned(), kind: kind.to_owned() });
        }
    }
    mounts.sort_by(|a, b| a.path.cmp(&b.path));
    mounts
}

/// fstab(5): blanks and backslashes are written as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Columns of `/proc/net/dev`: bytes packets errs drop fifo frame compressed multicast, and the same out.
fn interfaces(text: &str) -> BTreeMap<String, InterfaceCounters> {
    text.lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let n: Vec<u64> = counters.split_whitespace().map(|t| t.parse().ok()).collect::<Option<_>>()?;
            let at = |index: usize| n.get(index).copied();
            let counters = InterfaceCounters {
                received_bytes: at(0)?,
                received_packets: at(1)?,
                received_errors: at(2)?,
                received_drops: at(3)?,
                sent_bytes: at(8)?,
                sent_packets: at(9)?,
                sent_errors: at(10)?,
                sent_drops: at(11)?,
            };
            Some((name.trim().to_owned(), counters))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_can_be_read() {
        let system = ProcSystem;
        assert!(system.memory().unwrap().available <= system.memory().unwrap().total);
        assert!(system.cpu_times().unwrap().total > 0);
        assert!(system.uptime().unwrap() > Duration::ZERO);
        assert!(system.interfaces().unwrap().contains_key("lo"));
        assert!(system.addresses().unwrap().iter().any(IpAddr::is_loopback));
        assert!(system.load().unwrap().one >= 0.0);
    }

    #[test]
    fn memory_is_available_not_free() {
        let text = "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 600 kB\n";
        let memory = memory(text).unwrap();
        assert_eq!((memory.total, memory.available), (1_024_000, 614_400));
        assert!((memory.used_percent() - 40.0).abs() < 1e-9);
    }

    #[test]
    fn guest_time_is_not_counted_twice_and_waiting_is_not_work() {
        let times = cpu_times("cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 1 1\n").unwrap();
        assert_eq!(times, CpuTimes { busy: 20, total: 100 });
        let later = CpuTimes { busy: 70, total: 200 };
        assert_eq!(later.used_percent_since(&times), Some(50.0));
        assert_eq!(times.used_percent_since(&times), None);
        assert_eq!(times.used_percent_since(&later), None);
    }

    #[test]
    fn mounts_are_disks_once() {
        let text = "proc /proc proc rw 0 0\n/dev/sda1 / ext4 rw 0 0\n/dev/sda1 /srv/bind ext4 rw 0 0\n\
                    /dev/sdb /var/log\\040x xfs rw 0 0\n/dev/loop0 /snap/x squashfs ro 0 0\n";
        let paths: Vec<_> = mounts(text).into_iter().map(|m| m.path).collect();
        assert_eq!(paths, ["/", "/var/log x"]);
    }

    #[test]
    fn counters_of_interfaces() {
        let text = "Inter-| Receive\n face |bytes\n  eth0: 100 2 3 4 0 0 0 0 200 5 6 7 0 0 0 0\n";
        let counters = interfaces(text)["eth0"];
        assert_eq!((counters.received_bytes, counters.received_drops), (100, 4));
        assert_eq!((counters.sent_bytes, counters.sent_errors, counters.sent_drops), (200, 6, 7));
    }
}
