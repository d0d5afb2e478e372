//! One look of one check, whatever its kind. Reads only. Called by `health_check` on a thread of its own.
//!
//! What cannot be read is "not available": neither good nor bad.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Check, CheckKind, Service};
use fleet_types::document::threshold::Threshold;
use fleet_types::report::NOT_AVAILABLE;
use fleet_types::severity::Severity;

use super::contract::{CancelFlag, OutputSink, TaskContext, TaskError};
use super::fill::Filler;
use super::service_state::{Standing, judge};
use super::{certificate, programs};
use crate::host::{Exit, Host, Invocation, Purpose, Running, System, read_all};

/// Between the two readings of processor time. Half of what `top` waits at its first screen, twenty ticks.
const CPU_INTERVAL: Duration = Duration::from_millis(200);
/// Largest state file of keepalived's notify scripts; it holds one word.
const MAX_STATE_BYTES: u64 = 4096;
/// Largest certificate file; a chain of four has some 8 KiB.
const MAX_CERTIFICATE_BYTES: u64 = 1024 * 1024;

/// What one look saw.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Probe {
    /// How bad it is; none when it is good.
    pub(super) bad: Option<Severity>,
    /// Word of the problem.
    pub(super) code: &'static str,
    /// What is wrong, with value and threshold.
    pub(super) message: String,
    /// What was seen.
    pub(super) evidence: String,
    /// Name of the measurement.
    pub(super) metric: &'static str,
    /// The measured value.
    pub(super) value: Option<f64>,
    /// Its unit.
    pub(super) unit: &'static str,
    /// How long the look took.
    pub(super) took: Duration,
}

impl Probe {
    /// A look that did not end.
    pub(super) fn hung(message: &str, took: Duration) -> Self {
        Self { took, ..Self::bad(Severity::High, "check_hung", message.to_owned()) }
    }

    fn good(metric: &'static str) -> Self {
        Self {
            bad: None,
            code: metric,
            message: String::new(),
            evidence: String::new(),
            metric,
            value: None,
            unit: "",
            took: Duration::ZERO,
        }
    }

    fn bad(severity: Severity, code: &'static str, message: String) -> Self {
        Self { bad: Some(severity), message, ..Self::good(code) }
    }

    fn not_available(why: &dyn std::fmt::Display) -> Self {
        Self::bad(Severity::Medium, NOT_AVAILABLE, why.to_string())
    }
}

/// Everything a look needs, so that it can be made on a thread that outlives the step.
pub(super) struct Prober {
    id: Id,
    check: Check,
    path: Option<PathBuf>,
    address: Option<String>,
    services: Vec<(Id, Service)>,
    invocation: Option<Invocation>,
}

impl Prober {
    /// Fills in what the profile declares.
    pub(super) fn new(context: &TaskContext<'_>, id: &Id, check: &Check) -> Result<Self, TaskError> {
        let what = format!("check {id}");
        let missing = |table: &str, id: &Id| {
            TaskError::Declared(format!("{what}: the profile declares no {table} \"{id}\""))
        };
        let filler = Filler::new(context);
        let mut services = Vec::new();
        for service in check.all_services() {
            let found = context.profile.services.get(service).ok_or_else(|| missing("service", service))?;
            services.push((service.clone(), found.clone()));
        }
        let invocation = match &check.command {
            None => None,
            Some(command) => {
                let found =
                    context.profile.commands.get(command).ok_or_else(|| missing("command", command))?;
                if found.changes {
                    return Err(TaskError::Declared(format!("{what}: command {command} changes the node")));
                }
                Some(programs::ready(context, command, found, &std::collections::BTreeMap::new())?.invocation)
            }
        };
        Ok(Self {
            id: id.clone(),
            check: check.clone(),
            path: check.path.as_ref().map(|path| filler.path(&what, path)).transpose()?,
            address: check.address.as_ref().map(|address| filler.text(&what, address)).transpose()?,
            services,
            invocation,
        })
    }

    /// Which check.
    pub(super) const fn id(&self) -> &Id {
        &self.id
    }

    /// Limit of the look.
    pub(super) fn time_limit(&self) -> Duration {
        self.check.time_limit()
    }

    /// The program that it starts.
    pub(super) fn argv(self) -> Option<Vec<String>> {
        self.invocation.map(|invocation| invocation.argv)
    }

    /// Looks.
    pub(super) fn look(&self, host: &dyn Host, cancel: &CancelFlag) -> Probe {
        let since = host.clock().instant();
        let mut look = match self.check.kind {
            CheckKind::Service => self.service(host),
            CheckKind::DiskUsed => self.disk(host, "disk_used", |used| used),
            CheckKind::DiskFree => self.disk(host, "disk_free", |used| 100.0 - used),
            CheckKind::MemoryUsed => match host.system().memory() {
                Ok(memory) => self.limited("memory_used", memory.used_percent(), "percent", host.system()),
                Err(error) => Probe::not_available(&error),
            },
            CheckKind::CpuUsed => match cpu_used(host, cancel) {
                Ok(used) => self.limited("cpu_used", used, "percent", host.system()),
                Err(why) => Probe::not_available(&why),
            },
            CheckKind::Load => match host.system().load() {
                Ok(load) => self.limited("load", load.one, "count", host.system()),
                Err(error) => Probe::not_available(&error),
            },
            CheckKind::ConntrackUsed => self.conntrack(host),
            CheckKind::Command => self.command(host, cancel),
            CheckKind::CertExpiry => self.certificate(host),
            CheckKind::Port => self.port(host),
            CheckKind::FileAge => self.file_age(host),
            CheckKind::VrrpState => self.vrrp_state(host),
            CheckKind::Address => self.address(host),
        };
        look.took = host.clock().instant().saturating_duration_since(since);
        look
    }

    fn path(&self) -> Result<&Path, Box<Probe>> {
        self.path.as_deref().ok_or_else(|| Box::new(Probe::not_available(&"the check names no path")))
    }

    /// A value against `warn` and `critical`. Free space and days left must be more, all else not more.
    fn limited(&self, metric: &'static str, value: f64, unit: &'static str, system: &dyn System) -> Probe {
        let must_be_more = matches!(self.check.kind, CheckKind::DiskFree | CheckKind::CertExpiry);
        #[allow(clippy::cast_possible_truncation)] // percentages, loads and days are far below 2^53
        let thousandths = (value * 1000.0).round() as i64;
        let cores = system.cores();
        let beyond = |threshold: &Threshold| {
            let limit = threshold.thousandths(cores);
            if must_be_more { thousandths <= limit } else { thousandths > limit }
        };
        let over = [(&self.check.critical, Severity::Critical), (&self.check.warn, Severity::Medium)]
            .into_iter()
            .find_map(|(limit, severity)| Some((limit.as_ref().filter(|l| beyond(l))?, severity)));
        let mut look = Probe { value: Some(value), unit, ..Probe::good(metric) };
        if let Some((limit, severity)) = over {
            let word = if must_be_more { "not more than" } else { "more than" };
            look.bad = Some(severity);
            look.message = format!("{metric} is {value:.1} {unit}, {word} {limit}");
        }
        look
    }

    fn service(&self, host: &dyn Host) -> Probe {
        let verdicts: Vec<_> =
            self.services.iter().map(|(_, service)| judge(host, service, service.expect)).collect();
        let seen = |standing: Standing| {
            let of = verdicts.iter().filter(|verdict| verdict.standing == standing);
            of.map(|verdict| verdict.seen.as_str()).collect::<Vec<_>>().join(", ")
        };
        match (seen(Standing::Bad), seen(Standing::Unknown)) {
            (bad, _) if !bad.is_empty() => Probe::bad(Severity::High, "service", bad),
            (_, unknown) if !unknown.is_empty() => Probe::not_available(&unknown),
            _ => Probe::good("service"),
        }
    }

    fn disk(&self, host: &dyn Host, metric: &'static str, value: impl Fn(f64) -> f64) -> Probe {
        let path = match self.path() {
            Ok(path) => path,
            Err(look) => return *look,
        };
        match host.files().space(path) {
            Ok(space) => self.limited(metric, value(space.used_percent()), "percent", host.system()),
            Err(error) => Probe::not_available(&error),
        }
    }

    fn conntrack(&self, host: &dyn Host) -> Probe {
        match host.system().conntrack() {
            Ok((_, 0)) => Probe::not_available(&"the table has no size"),
            Ok((count, most)) => {
                let used = super::part::number(count) * 100.0 / super::part::number(most);
                self.limited("conntrack_used", used, "percent", host.system())
            }
            Err(error) => Probe::not_available(&error),
        }
    }

    fn command(&self, host: &dyn Host, cancel: &CancelFlag) -> Probe {
        let Some(invocation) = &self.invocation else {
            return Probe::not_available(&"the check names no command");
        };
        let mut bounded = invocation.clone();
        bounded.time_limit = bounded.time_limit.min(self.time_limit());
        match host.processes().run(&bounded, Purpose::ReadOnly, &Running { output: &Nowhere, cancel }) {
            Ok(outcome) if outcome.exit.is_success() => Probe::good("command"),
            Ok(outcome) => {
                let code = if outcome.exit == Exit::TimedOut { "check_hung" } else { "command" };
                let evidence = programs::tail(&outcome.output).trim().chars().take(300).collect();
                Probe { evidence, ..Probe::bad(Severity::High, code, outcome.exit.to_string()) }
            }
            Err(error) => Probe::bad(Severity::High, "command", error.to_string()),
        }
    }

    fn certificate(&self, host: &dyn Host) -> Probe {
        let path = match self.path() {
            Ok(path) => path,
            Err(look) => return *look,
        };
        let days = read_all(host.files(), path, MAX_CERTIFICATE_BYTES)
            .map_err(|e| e.to_string())
            .and_then(|bytes| certificate::days_left(&bytes, host.clock().now()));
        match days {
            Err(why) => Probe::not_available(&why),
            Ok(days) if days < 0.0 => Probe {
                value: Some(days),
                unit: "days",
                ..Probe::bad(Severity::Critical, "cert_expiry", format!("it ended {:.1} days ago", -days))
            },
            Ok(days) => self.limited("cert_expiry", days, "days", host.system()),
        }
    }

    fn port(&self, host: &dyn Host) -> Probe {
        let Some(port) = self.check.port else { return Probe::not_available(&"the check names no port") };
        let address = match &self.address {
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some(text) => match text.parse() {
                Ok(address) => address,
                Err(_) => return Probe::not_available(&format!("\"{text}\" is no address")),
            },
        };
        let address = SocketAddr::new(address, port);
        match host.system().connect(address, self.time_limit()) {
            Ok(()) => Probe::good("port"),
            Err(error) => Probe::bad(Severity::High, "port", format!("{address}: {}", error.why)),
        }
    }

    fn file_age(&self, host: &dyn Host) -> Probe {
        let path = match self.path() {
            Ok(path) => path,
            Err(look) => return *look,
        };
        let stat = match host.files().canonical(path).and_then(|real| host.files().stat(&real)) {
            Ok(stat) => stat,
            Err(error) => return Probe::bad(Severity::High, "file_age", error.to_string()),
        };
        let age = host.clock().now().since(stat.modified);
        let mut look = Probe { value: Some(age.as_secs_f64()), unit: "seconds", ..Probe::good("file_age") };
        if let Some(within) = self.check.within.as_ref().filter(|within| age > within.length()) {
            look.bad = Some(Severity::High);
            look.message =
                format!("{} was last written {}, over {within} ago", path.display(), stat.modified);
        }
        look
    }

    fn vrrp_state(&self, host: &dyn Host) -> Probe {
        let path = match self.path() {
            Ok(path) => path,
            Err(look) => return *look,
        };
        let bytes = match read_all(host.files(), path, MAX_STATE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) => return Probe::bad(Severity::High, "vrrp_state", error.to_string()),
        };
        // 1 is master and 0 is backup, so that a change of mastership is a step in the graph.
        let word = String::from_utf8_lossy(&bytes).trim().to_owned();
        let value = match word.as_str() {
            "MASTER" => 1.0,
            "BACKUP" => 0.0,
            other => {
                let shown: String = other.chars().filter(|c| !c.is_control()).take(32).collect();
                return Probe::bad(Severity::High, "vrrp_state", format!("the state is \"{shown}\""));
            }
        };
        Probe { value: Some(value), unit: "count", ..Probe::good("vrrp_state") }
    }

    fn address(&self, host: &dyn Host) -> Probe {
        let wanted = self.address.as_deref().unwrap_or_default();
        // A label may be written with its prefix length, as interfaces are configured.
        let plain = wanted.split('/').next().unwrap_or_default();
        let Ok(wanted) = plain.parse::<IpAddr>() else {
            return Probe::not_available(&format!("\"{wanted}\" is no address"));
        };
        match host.system().addresses() {
            Ok(addresses) if addresses.contains(&wanted) => Probe::good("address"),
            Ok(_) => Probe::bad(Severity::High, "address", format!("{wanted} is on no interface")),
            Err(error) => Probe::not_available(&error),
        }
    }
}

/// Used share of all processors, over a fifth of a second.
pub(super) fn cpu_used(host: &dyn Host, cancel: &CancelFlag) -> Result<f64, String> {
    let earlier = host.system().cpu_times().map_err(|e| e.to_string())?;
    host.clock().pause(CPU_INTERVAL, cancel);
    let later = host.system().cpu_times().map_err(|e| e.to_string())?;
    later.used_percent_since(&earlier).ok_or_else(|| "no tick has passed between two readings".to_owned())
}

/// Output of checks is shown only when they fail.
struct Nowhere;

impl OutputSink for Nowhere {
    fn write(&self, _bytes: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scripted::ScriptedHost;
    use crate::tasks::testing::Bench;

    fn look(bench: &Bench, id: &str) -> Probe {
        let with = bench.with("{}");
        let context = bench.context(&with);
        let (id, check) = bench.profile.checks.get_key_value(id).unwrap();
        let host: &ScriptedHost = &bench.host;
        Prober::new(&context, id, check).unwrap().look(host, &CancelFlag::default())
    }

    #[test]
    fn kinds_that_look_at_files_and_addresses() {
        let bench = Bench::new(
            r#"
            [check.report]
            kind = "file_age"
            path = "/r_{date}.html"
            within = "1h"
            every = "1h"
            [check.role]
            kind = "vrrp_state"
            path = "/run/edge.state"
            every = "10s"
            [check.vip]
            kind = "address"
            address = "192.0.2.1/24"
            every = "10s"
            [check.port]
            kind = "port"
            port = 443
            every = "10s"
            [check.cert]
            kind = "cert_expiry"
            path = "/cert.pem"
            warn = 30
            every = "1d"
            "#,
        );
        assert_eq!(look(&bench, "report").bad, Some(Severity::High));
        bench.file("/r_20251122.html", b"x");
        assert_eq!(look(&bench, "report").bad, None);
        bench.age("/r_20251122.html", Duration::from_secs(3700));
        assert!(look(&bench, "report").message.contains("over 1h ago"));

        for (word, bad) in [("MASTER\n", None), ("BACKUP", None), ("FAULT", Some(Severity::High))] {
            bench.file("/run/edge.state", word.as_bytes());
            assert_eq!(look(&bench, "role").bad, bad, "{word}");
        }
        assert_eq!(look(&bench, "vip").bad, Some(Severity::High));
        bench.host.script().addresses.push("192.0.2.1".parse().unwrap());
        assert_eq!(look(&bench, "vip").bad, None);
        assert_eq!(look(&bench, "port").bad, Some(Severity::High));
        bench.host.script().ports.insert("127.0.0.1:443".parse().unwrap());
        assert_eq!(look(&bench, "port").bad, None);
        bench.file("/cert.pem", b"nonsense");
        assert_eq!(look(&bench, "cert").code, "not_available");
    }
}
