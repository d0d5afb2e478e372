//! `health.repair`: starts services that are down, within `max_restarts` of the profile. Row: Z02.
//!
//! Every start is noted before it is tried, so that neither a crash nor a second job gives a service more
//! starts than allowed. Where nothing is down nothing is done. It must never be a gate.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{MaxRestarts, OnDown, Service, ServiceExpect, ServiceType};
use fleet_types::report::{NOT_AVAILABLE, TaskReport};
use fleet_types::severity::Severity;
use fleet_types::time::Timestamp;

use super::contract::{Change, Reversal, TaskContext, TaskError, TaskPlan};
use super::part::{bounded, change, problem};
use super::service_change::{Former, Verb, put_back, runs};
use super::service_state::{SETTLE, Standing, judge, names};
use super::{args, programs};
use crate::host::Host;

/// The name of the note with recent starts.
const NOTE: &str = "restarts.json";
/// Bounds where the profile writes none: three starts an hour are a repair, more are a loop.
const DEFAULT_COUNT: u32 = 3;
/// See [`DEFAULT_COUNT`].
const DEFAULT_WITHIN: Duration = Duration::from_hours(1);
/// Pause before each start but the first where the profile writes none.
const DEFAULT_BACKOFF: Duration = Duration::from_secs(30);

/// The task.
pub(super) struct HealthRepair;

/// Starts of each service, oldest first.
type Starts = BTreeMap<String, Vec<Timestamp>>;

fn services<'a>(context: &TaskContext<'a>) -> Result<Vec<(&'a Id, &'a Service)>, TaskError> {
    args::ids(context, "services", &context.profile.services, false)
}

fn may_start(service: &Service) -> bool {
    service.on_down == OnDown::Restart
        && service.expect == ServiceExpect::Active
        && service.service_type == ServiceType::Daemon
}

impl Change for HealthRepair {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        // What is down now may be up by then.
        let mut plan = TaskPlan { moves: true, ..TaskPlan::default() };
        for (id, service) in services(context)? {
            let verdict = judge(context.host, service, service.expect);
            if verdict.standing == Standing::Bad && may_start(service) {
                plan.changes.push(change(id.as_str(), "started", verdict.seen, "active"));
            }
        }
        plan.summary = format!("{} services would be started", plan.changes.len());
        Ok(plan)
    }

    fn reversal(&self) -> Reversal {
        // Stopping what should run is no improvement, but where it cuts the node off.
        Reversal::GuardOnly
    }

    fn undo(&self, context: &TaskContext<'_>) -> Result<serde_json::Value, TaskError> {
        let former = services(context)?.into_iter().filter(|(_, service)| may_start(service));
        // What cannot be asked is not started either.
        let former: Vec<_> = former
            .filter_map(|(id, service)| {
                let state = context.host.units().state(&service.unit).ok()?;
                Some(Former { id: id.to_string(), unit: service.unit.clone(), ran: runs(&state) })
            })
            .collect();
        serde_json::to_value(former).map_err(|e| TaskError::Declared(e.to_string()))
    }

    fn apply(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let mut report = TaskReport::default();
        let mut down = Vec::new();
        let services = services(context)?;
        for (id, service) in &services {
            if !repair(context, id, service, &mut report)? {
                down.push(*id);
            }
        }
        report.summary = match (report.changes.len(), down.is_empty()) {
            (0, true) => format!("{} services are as expected", services.len()),
            (started, true) => format!("{started} services were started"),
            (_, false) => format!("not repaired: {}", names(down.iter().copied())),
        };
        let report = bounded(report);
        if down.is_empty() { Ok(report) } else { Err(TaskError::failed(report.summary.clone(), report)) }
    }

    fn revert(&self, context: &TaskContext<'_>, undo: &serde_json::Value) -> Result<TaskReport, TaskError> {
        put_back(context, undo, &[Verb::Stop])
    }
}

/// Repairs one service; `true` when it is as expected in the end.
fn repair(
    context: &TaskContext<'_>,
    id: &Id,
    service: &Service,
    report: &mut TaskReport,
) -> Result<bool, TaskError> {
    let clock = context.host.clock();
    let bounds = Bounds::of(service.max_restarts.as_ref());
    loop {
        let verdict = judge(context.host, service, service.expect);
        if verdict.is_good() {
            return Ok(true);
        }
        let mut finding = |code: &str, message: String| {
            let mut found = problem(Severity::High, code, id.as_str(), message);
            found.evidence.clone_from(&verdict.seen);
            report.problems.push(found);
        };
        if verdict.standing == Standing::Unknown {
            // Nothing is started that may be running.
            finding(NOT_AVAILABLE, "it cannot be asked here, so it is left alone".to_owned());
            return Ok(false);
        }
        if !may_start(service) {
            finding("service_down", "it is down, and the profile does not let it be restarted".to_owned());
            return Ok(false);
        }
        let mut starts = load(context.host)?;
        let recent = starts.entry(id.to_string()).or_default();
        let now = clock.now();
        recent.retain(|start| now.since(*start) < bounds.within && *start <= now);
        if recent.len() >= bounds.count {
            finding("restart_limit", bounds.reached());
            return Ok(false);
        }
        if let Some(last) = recent.last() {
            let wait = bounds.backoff.saturating_sub(now.since(*last));
            if wait > programs::left(context) {
                finding(
                    "restart_postponed",
                    "its pause is longer than the time left of this step".to_owned(),
                );
                return Ok(false);
            }
            if !clock.pause(wait, context.cancel) {
                return Err(TaskError::Cancelled(Box::new(std::mem::take(report))));
            }
        }
        recent.push(clock.now());
        save(context.host, &starts)?;
        let before = verdict.seen.clone();
        match context.host.units().start(&service.unit, programs::left(context)) {
            Ok(()) => {
                clock.pause(SETTLE, context.cancel);
                let after = judge(context.host, service, service.expect);
                report.changes.push(change(id.as_str(), "started", before, after.seen));
            }
            Err(error) => {
                let mut found = problem(Severity::High, "start_failed", id.as_str(), error.to_string());
                found.remedy = format!("look at the log of {}", service.unit);
                report.problems.push(found);
            }
        }
        if context.cancel.is_cancelled() {
            return Err(TaskError::Cancelled(Box::new(std::mem::take(report))));
        }
    }
}

struct Bounds {
    count: usize,
    within: Duration,
    backoff: Duration,
}

impl Bounds {
    fn of(written: Option<&MaxRestarts>) -> Self {
        let count = written.map_or(DEFAULT_COUNT, |w| w.count);
        Self {
            count: usize::try_from(count).unwrap_or(usize::MAX),
            within: written.map_or(DEFAULT_WITHIN, |w| w.within.length()),
            backoff: written.map_or(DEFAULT_BACKOFF, |w| {
                w.backoff.as_ref().map_or(Duration::ZERO, fleet_types::time::Span::length)
            }),
        }
    }

    fn reached(&self) -> String {
        format!("it was started {} times within {} s; no further start", self.count, self.within.as_secs())
    }
}

fn load(host: &dyn Host) -> Result<Starts, TaskError> {
    let bytes = host.notes().read(NOTE).map_err(|e| unnoted(&e))?;
    // A note that does not read counts as none: it is a hint, and the start below is noted anew.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
}

fn save(host: &dyn Host, starts: &Starts) -> Result<(), TaskError> {
    let bytes = serde_json::to_vec(starts).unwrap_or_default();
    host.notes().write(NOTE, &bytes).map_err(|e| unnoted(&e))
}

/// Without a count there is no bound, so nothing is started.
fn unnoted(error: &crate::host::NoteError) -> TaskError {
    TaskError::failed(format!("starts cannot be counted: {error}"), TaskReport::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Activity;
    use crate::tasks::testing::Bench;

    const PROFILE: &str = "[service.a]\nunit = \"a.service\"\non_down = \"restart\"\n\
        max_restarts = { count = 2, within = \"1h\", backoff = \"30s\" }\n\
        [service.b]\nunit = \"b.service\"\n";

    #[test]
    fn a_second_time_changes_nothing() {
        let bench = Bench::new(PROFILE);
        bench.host.script().units.insert("a.service".into(), Activity::Failed);
        let with = bench.with(r#"{"services":["a"]}"#);
        assert_eq!(bench.plan("health.repair", &with).unwrap().changes.len(), 1);
        let report = bench.apply("health.repair", &with).unwrap();
        assert_eq!((report.changes.len(), report.summary.as_str()), (1, "1 services were started"));
        let report = bench.apply("health.repair", &with).unwrap();
        assert!(report.changes.is_empty());
        assert_eq!(bench.host.script().unit_calls, ["start a.service"]);
    }

    #[test]
    fn a_guard_stops_what_was_started_and_nothing_else() {
        let bench = Bench::new(PROFILE);
        bench.host.script().units.insert("a.service".into(), Activity::Failed);
        bench.host.script().units.insert("b.service".into(), Activity::Active);
        let with = bench.with(r#"{"services":["a","b"]}"#);
        let undo = bench.undo("health.repair", &with).unwrap();
        bench.apply("health.repair", &with).unwrap();
        bench.revert("health.repair", &with, &undo).unwrap();
        assert_eq!(bench.host.script().unit_calls, ["start a.service", "stop a.service"]);
        let ran = bench.undo("health.repair", &bench.with(r#"{"services":["b"]}"#)).unwrap();
        assert!(ran.is_array(), "a guard wants something to hold: {ran}");
    }

    #[test]
    fn starts_are_bounded_over_jobs_and_pause_in_between() {
        let bench = Bench::new(PROFILE);
        bench.host.script().units.insert("a.service".into(), Activity::Failed);
        bench.host.script().broken_units.insert("a.service".into());
        let with = bench.with(r#"{"services":["a"]}"#);
        let before = bench.host.clock().since_boot();
        let (message, report) = bench.failure("health.repair", &with);
        assert_eq!(message, "not repaired: a");
        assert!(report.problems.iter().any(|p| p.code == "restart_limit"));
        assert_eq!(bench.host.script().unit_calls.len(), 2);
        let took = bench.host.clock().since_boot().saturating_sub(before);
        assert!(took >= Duration::from_secs(30), "{took:?}");
        // Another job right after it gets no further start; after the hour it does.
        bench.failure("health.repair", &with);
        assert_eq!(bench.host.script().unit_calls.len(), 2);
        bench.host.clock().pause(Duration::from_secs(3601), &bench.cancel);
        bench.failure("health.repair", &with);
        assert_eq!(bench.host.script().unit_calls.len(), 4);
    }

    #[test]
    fn what_cannot_be_asked_is_not_started() {
        let bench = Bench::new(PROFILE);
        bench.host.script().no_units = true;
        let with = bench.with(r#"{"services":["a"]}"#);
        let (message, report) = bench.failure("health.repair", &with);
        assert_eq!(message, "not repaired: a");
        assert_eq!(report.problems[0].code, NOT_AVAILABLE);
        assert!(bench.plan("health.repair", &with).unwrap().changes.is_empty());
        assert!(bench.host.script().unit_calls.is_empty());
    }

    #[test]
    fn what_may_not_be_restarted_is_left_alone() {
        let bench = Bench::new(PROFILE);
        bench.host.script().units.insert("b.service".into(), Activity::Inactive);
        let with = bench.with(r#"{"services":["b"]}"#);
        let (_, report) = bench.failure("health.repair", &with);
        assert_eq!(report.problems[0].code, "service_down");
        assert!(bench.host.script().unit_calls.is_empty());
    }
}
