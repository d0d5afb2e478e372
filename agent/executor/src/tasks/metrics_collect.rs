//! `metrics.collect`: what the node measures of itself, for status, history and trends. Reads only. Row: Z03.
//!
//! Interfaces are given as counters and as rates. Rates come from the reading before this one, kept in a note,
//! or from two readings a second apart where there is none of this boot. Loopback is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{CheckKind, Interfaces};
use fleet_types::report::{NOT_AVAILABLE, TaskReport};
use fleet_types::severity::Severity;
use serde::{Deserialize, Serialize};

use super::contract::{Inspect, TaskContext, TaskError, TaskPlan};
use super::fill::Filler;
use super::health_probe::cpu_used;
use super::part::{bounded, number, problem, sample};
use super::service_state::{Standing, judge};
use super::{args, programs};
use crate::host::{Activity, Host, InterfaceCounters, Purpose};

/// The name of the note with the last reading of interfaces.
const NOTE: &str = "interfaces.json";
/// Shortest time between two readings that gives a rate worth showing.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest: a rate over more than an hour says nothing about now.
const LONGEST: Duration = Duration::from_hours(1);

/// The task.
pub(super) struct MetricsCollect;

#[derive(Serialize, Deserialize)]
struct Reading {
    boot_id: String,
    since_boot_ms: u64,
    interfaces: BTreeMap<String, InterfaceCounters>,
}

impl Inspect for MetricsCollect {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let set = args::text(context, "set")?.unwrap_or("all");
        Ok(TaskPlan { summary: format!("metrics of set {set}"), ..TaskPlan::default() })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let everything = match args::text(context, "set")?.unwrap_or("all") {
            "all" => true,
            "status" => false,
            other => return Err(TaskError::Declared(format!("parameter set: \"{other}\" is no set"))),
        };
        let mut report = TaskReport::default();
        machine(context, &mut report);
        disks(context, &mut report)?;
        services(context, everything, &mut report);
        interfaces(context, &mut report);
        security(context, &mut report)?;
        if context.cancel.is_cancelled() {
            return Err(TaskError::cancelled());
        }
        report.summary = format!("{} measurements", report.samples.len());
        Ok(bounded(report))
    }
}

/// Something that cannot be read: said, never guessed.
fn missing(report: &mut TaskReport, metric: &str, why: &dyn std::fmt::Display) {
    report.problems.push(problem(Severity::Low, NOT_AVAILABLE, metric, why.to_string()));
}

fn machine(context: &TaskContext<'_>, report: &mut TaskReport) {
    let system = context.host.system();
    match cpu_used(context.host, context.cancel) {
        Ok(used) => report.samples.push(sample("cpu_used", "", used, "percent")),
        Err(why) => missing(report, "cpu_used", &why),
    }
    match system.memory() {
        Ok(memory) => {
            report.samples.push(sample("memory_used", "", memory.used_percent(), "percent"));
            report.samples.push(sample("memory_available", "", number(memory.available), "bytes"));
            report.samples.push(sample("memory_total", "", number(memory.total), "bytes"));
        }
        Err(error) => missing(report, "memory_used", &error),
    }
    match system.load() {
        Ok(load) => {
            for (metric, value) in [("load1", load.one), ("load5", load.five), ("load15", load.fifteen)] {
                report.samples.push(sample(metric, "", value, "count"));
            }
        }
        Err(error) => missing(report, "load1", &error),
    }
    match system.uptime() {
        Ok(uptime) => report.samples.push(sample("uptime", "", uptime.as_secs_f64(), "seconds")),
        Err(error) => missing(report, "uptime", &error),
    }
    report.samples.push(sample("cores", "", f64::from(system.cores()), "count"));
    // Nodes without connection tracking are common; its absence is no finding.
    if let Ok((count, most)) = system.conntrack()
        && most > 0
    {
        report.samples.push(sample("conntrack_entries", "", number(count), "count"));
        report.samples.push(sample("conntrack_used", "", number(count) * 100.0 / number(most), "percent"));
    }
}

/// Every mounted disk, and the places that status and checks of the profile name.
fn disks(context: &TaskContext<'_>, report: &mut TaskReport) -> Result<(), TaskError> {
    let mut places: BTreeSet<String> = BTreeSet::new();
    match context.host.system().mounts() {
        Ok(mounts) => places.extend(mounts.into_iter().map(|mount| mount.path)),
        Err(error) => missing(report, "disk_used", &error),
    }
    let filler = Filler::new(context);
    let named = context.profile.status.iter().flat_map(|status| &status.system);
    for place in named.filter_map(|word| word.strip_prefix("disk_used:")) {
        places.insert(filler.text("status", place)?);
    }
    for (id, check) in &context.profile.checks {
        if let (CheckKind::DiskUsed | CheckKind::DiskFree, Some(path)) = (check.kind, &check.path) {
            places.insert(filler.text(&format!("check {id}"), path)?);
        }
    }
    for place in places {
        match context.host.files().space(place.as_ref()) {
            Ok(space) => {
                report.samples.push(sample("disk_used", &place, space.used_percent(), "percent"));
                report.samples.push(sample("disk_available", &place, number(space.available), "bytes"));
                report.samples.push(sample("disk_total", &place, number(space.total), "bytes"));
            }
            Err(error) => missing(report, &format!("disk_used:{place}"), &error),
        }
    }
    Ok(())
}

fn services(context: &TaskContext<'_>, everything: bool, report: &mut TaskReport) {
    let profile = context.profile;
    let named: Vec<&Id> = match &profile.status {
        Some(status) if !everything => status.services.iter().collect(),
        _ => profile.services.keys().collect(),
    };
    for id in named {
        let Some(service) = profile.services.get(id) else { continue };
        let verdict = judge(context.host, service, service.expect);
        if let Some(activity) = verdict.activity {
            let active = f64::from(u8::from(activity == Activity::Active));
            report.samples.push(sample("service_active", id.as_str(), active, "count"));
        }
        match verdict.standing {
            Standing::Good => {}
            Standing::Bad => {
                report.problems.push(problem(Severity::Medium, "service_down", id.as_str(), verdict.seen));
            }
            Standing::Unknown => missing(report, &format!("service_active:{id}"), &verdict.seen),
        }
    }
}

fn interfaces(context: &TaskContext<'_>, report: &mut TaskReport) {
    let host = context.host;
    let wanted = context.profile.status.as_ref().and_then(|s| s.network.as_ref()).map(|n| &n.interfaces);
    let is_wanted = |name: &str| match wanted {
        Some(Interfaces::Named(names)) => names.iter().any(|n| n == name),
        Some(Interfaces::Word(_)) | None => name != "lo",
    };
    let first = match read(host) {
        Ok(reading) => reading,
        Err(why) => return missing(report, "network", &why),
    };
    let kept = kept(host).filter(|before| {
        let apart = first.since_boot_ms.saturating_sub(before.since_boot_ms);
        let usable = SHORTEST.as_millis()..LONGEST.as_millis();
        before.boot_id == first.boot_id && usable.contains(&u128::from(apart))
    });
    let (before, now) = if let Some(before) = kept {
        (before, first)
    } else {
        if !host.clock().pause(SHORTEST, context.cancel) {
            return;
        }
        match read(host) {
            Ok(second) => (first, second),
            Err(why) => return missing(report, "network", &why),
        }
    };
    let seconds = number(now.since_boot_ms.saturating_sub(before.since_boot_ms)) / 1000.0;
    for (name, counters) in now.interfaces.iter().filter(|(name, _)| is_wanted(name)) {
        push_counters(report, name, counters);
        if let Some(earlier) = before.interfaces.get(name) {
            push_rates(report, name, earlier, counters, seconds);
        }
    }
    let bytes = serde_json::to_vec(&now).unwrap_or_default();
    if let Err(error) = host.notes().write(NOTE, &bytes) {
        missing(report, "network", &error);
    }
}

fn read(host: &dyn Host) -> Result<Reading, String> {
    let clock = host.clock();
    Ok(Reading {
        boot_id: clock.boot_id(),
        interfaces: host.system().interfaces().map_err(|e| e.to_string())?,
        since_boot_ms: u64::try_from(clock.since_boot().as_millis()).unwrap_or(u64::MAX),
    })
}

fn kept(host: &dyn Host) -> Option<Reading> {
    serde_json::from_slice(&host.notes().read(NOTE).ok()??).ok()
}

fn push_counters(report: &mut TaskReport, name: &str, counters: &InterfaceCounters) {
    for (metric, value, unit) in [
        ("network_received_bytes", counters.received_bytes, "bytes"),
        ("network_sent_bytes", counters.sent_bytes, "bytes"),
        ("network_received_packets", counters.received_packets, "count"),
        ("network_sent_packets", counters.sent_packets, "count"),
        ("network_errors_in", counters.received_errors, "count"),
        ("network_errors_out", counters.sent_errors, "count"),
        ("network_drops_in", counters.received_drops, "count"),
        ("network_drops_out", counters.sent_drops, "count"),
    ] {
        report.samples.push(sample(metric, name, number(value), unit));
    }
}

/// Rates, and a finding where errors or drops rose. A counter that fell was reset; it gives no rate.
fn push_rates(
    report: &mut TaskReport,
    name: &str,
    before: &InterfaceCounters,
    now: &InterfaceCounters,
    seconds: f64,
) {
    for (metric, earlier, later) in [
        ("network_received_rate", before.received_bytes, now.received_bytes),
        ("network_sent_rate", before.sent_bytes, now.sent_bytes),
    ] {
        if let Some(bytes) = later.checked_sub(earlier).filter(|_| seconds > 0.0) {
            report.samples.push(sample(metric, name, number(bytes) / seconds, "bytes_per_second"));
        }
    }
    for (code, what, earlier, later) in [
        ("interface_errors", "errors in", before.received_errors, now.received_errors),
        ("interface_errors", "errors out", before.sent_errors, now.sent_errors),
        ("interface_drops", "drops in", before.received_drops, now.received_drops),
        ("interface_drops", "drops out", before.sent_drops, now.sent_drops),
    ] {
        if let Some(more) = later.checked_sub(earlier).filter(|more| *more > 0) {
            let message = format!("{more} {what} in the last {seconds:.0} s");
            report.problems.push(problem(Severity::Medium, code, name, message));
        }
    }
}

/// The product's own view of its security, as declared under `[status]`.
fn security(context: &TaskContext<'_>, report: &mut TaskReport) -> Result<(), TaskError> {
    let Some(security) = context.profile.status.as_ref().and_then(|s| s.security.as_ref()) else {
        return Ok(());
    };
    let id = &security.command;
    let command = context.profile.commands.get(id).filter(|command| !command.changes).ok_or_else(|| {
        TaskError::Declared(format!("status: the profile declares no command \"{id}\" that only reads"))
    })?;
    let ready = programs::ready(context, id, command, &BTreeMap::new())?;
    match programs::run(context, &ready.invocation, Purpose::ReadOnly) {
        Ok(outcome) => {
            let good = outcome.exit.is_success();
            report.samples.push(sample("security_status", id.as_str(), f64::from(u8::from(good)), "count"));
            report.output_tail = programs::tail(&outcome.output);
            if !good {
                let message = outcome.exit.to_string();
                report.problems.push(problem(Severity::Medium, "security_status", id.as_str(), message));
            }
        }
        Err(error) => missing(report, "security_status", &error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Exit;
    use crate::host::scripted::Answer;
    use crate::tasks::testing::Bench;

    const PROFILE: &str = r#"
        [service.fw]
        unit = "fw.service"
        [command.db]
        argv = ["db"]
        timeout = "5s"
        changes = false
        [status]
        system = ["cpu_used", "disk_used:/"]
        services = ["fw"]
        security = { command = "db" }
    "#;

    fn value(report: &TaskReport, metric: &str, subject: &str) -> Option<f64> {
        report.samples.iter().find(|s| s.metric == metric && s.subject == subject).map(|s| s.value)
    }

    fn counters(bytes: u64, errors: u64) -> InterfaceCounters {
        InterfaceCounters {
            received_bytes: bytes,
            sent_bytes: bytes * 2,
            received_errors: errors,
            ..Default::default()
        }
    }

    #[test]
    fn counters_are_also_rates_and_errors_are_flagged() {
        let bench = Bench::new(PROFILE);
        bench.host.answer("db", [Answer::Ends(Exit::Status(0), "3 blocked\n".into())]);
        let set = |bytes, errors| {
            let mut script = bench.host.script();
            script.interfaces.insert("lo".into(), counters(9, 9));
            script.interfaces.insert("eth0".into(), counters(bytes, errors));
        };
        set(1000, 5);
        let with = bench.with("{}");
        let report = bench.apply("metrics.collect", &with).unwrap();
        // Two readings a second apart, with nothing in between.
        assert_eq!(value(&report, "network_received_rate", "eth0"), Some(0.0));
        assert_eq!(value(&report, "network_received_bytes", "eth0"), Some(1000.0));
        assert!(report.samples.iter().all(|s| s.subject != "lo"));
        assert_eq!(report.output_tail, "3 blocked\n");
        for metric in ["cpu_used", "memory_available", "load1", "load5", "load15", "uptime"] {
            assert!(value(&report, metric, "").is_some(), "{metric}");
        }
        assert!(value(&report, "disk_used", "/").is_some());
        assert_eq!(value(&report, "service_active", "fw"), Some(0.0));
        // Where units cannot be asked there is no value, instead of a made-up one.
        bench.host.script().no_units = true;
        let blind = bench.apply("metrics.collect", &with).unwrap();
        assert_eq!(value(&blind, "service_active", "fw"), None);
        assert!(blind.problems.iter().any(|p| p.subject == "service_active:fw" && p.code == NOT_AVAILABLE));
        bench.host.script().no_units = false;

        set(11_000, 7);
        bench.host.clock().pause(Duration::from_millis(9_800), &bench.cancel);
        let report = bench.apply("metrics.collect", &with).unwrap();
        // The kept reading is ten seconds old, the fifth of a second of the processor included.
        assert_eq!(value(&report, "network_received_rate", "eth0"), Some(1000.0));
        assert_eq!(value(&report, "network_sent_rate", "eth0"), Some(2000.0));
        assert!(report.problems.iter().any(|p| p.code == "interface_errors" && p.message.starts_with("2 ")));

        // A counter that fell gives no rate.
        set(10, 0);
        bench.host.clock().pause(Duration::from_secs(10), &bench.cancel);
        let report = bench.apply("metrics.collect", &with).unwrap();
        assert_eq!(value(&report, "network_received_rate", "eth0"), None);
    }
}
