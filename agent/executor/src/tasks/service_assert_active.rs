//! `service.assert_active`: services run, and go on running for `stable_for`. Reads only. Row: Z07.

use std::time::Duration;

use fleet_types::document::ids::Id;
use fleet_types::document::profile::{Service, ServiceExpect};
use fleet_types::report::{NOT_AVAILABLE, TaskReport};
use fleet_types::severity::Severity;

use super::contract::{Inspect, RetryKind, TaskContext, TaskError, TaskPlan};
use super::part::{bounded, problem, sample};
use super::service_state::{Standing, judge, names};
use super::{args, programs};

/// How often services are looked at while they must stay up. A crash loop with systemd's default pause of 100 ms
/// shows within a few probes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The task.
pub(super) struct ServiceAssertActive;

fn services<'a>(context: &TaskContext<'a>) -> Result<Vec<(&'a Id, &'a Service)>, TaskError> {
    args::ids(context, "services", &context.profile.services, false)
}

impl Inspect for ServiceAssertActive {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let services = services(context)?;
        let summary = format!("services run: {}", names(services.iter().map(|(id, _)| *id)));
        Ok(TaskPlan { summary, ..TaskPlan::default() })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let services = services(context)?;
        let stable_for = args::span(context, "stable_for")?.unwrap_or_default();
        let clock = context.host.clock();
        let since = clock.since_boot();
        loop {
            let report = look(context, &services);
            if !report.problems.is_empty() {
                return Err(TaskError::failed(report.summary.clone(), report));
            }
            let left = stable_for.saturating_sub(clock.since_boot().saturating_sub(since));
            if left.is_zero() {
                return Ok(report);
            }
            if programs::left(context).is_zero() {
                let message = "the step's time ended before stable_for had passed".to_owned();
                let retry = Some(RetryKind::Timeout);
                return Err(TaskError::Failed { message, report: Box::new(report), retry });
            }
            if !clock.pause(left.min(LOOK_EVERY), context.cancel) {
                return Err(TaskError::cancelled());
            }
        }
    }
}

fn look(context: &TaskContext<'_>, services: &[(&Id, &Service)]) -> TaskReport {
    let mut report = TaskReport::default();
    let (mut down, mut unknown) = (Vec::new(), Vec::new());
    for (id, service) in services {
        let verdict = judge(context.host, service, ServiceExpect::Active);
        if verdict.standing == Standing::Unknown {
            // What nobody can see is not asserted; it is no measurement either.
            unknown.push(*id);
            report.problems.push(problem(Severity::High, NOT_AVAILABLE, id.as_str(), verdict.seen));
            continue;
        }
        let good = verdict.is_good();
        report.samples.push(sample("service_active", id.as_str(), f64::from(u8::from(good)), "count"));
        if !good {
            down.push(*id);
            let mut found = problem(Severity::High, "service_down", id.as_str(), verdict.seen);
            found.remedy = format!("look at the log of {}, then start it", service.unit);
            report.problems.push(found);
        }
    }
    let of = services.len();
    report.summary = match (down.is_empty(), unknown.is_empty()) {
        (true, true) => format!("{of} services run"),
        (true, false) => format!("{} of {of} services cannot be asked: {}", unknown.len(), names(unknown)),
        (false, _) => format!("{} of {of} services do not run: {}", down.len(), names(down)),
    };
    bounded(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Activity, Host};
    use crate::tasks::testing::Bench;

    const PROFILE: &str = "[service.a]\nunit = \"a.service\"\n[service.b]\nunit = \"b.service\"\n";

    #[test]
    fn all_must_run_for_the_whole_time() {
        let bench = Bench::new(PROFILE);
        bench.host.script().units.insert("a.service".into(), Activity::Active);
        bench.host.script().units.insert("b.service".into(), Activity::Active);
        let with = bench.with(r#"{"services":["a","b"],"stable_for":"10s"}"#);
        let before = bench.host.clock().since_boot();
        let report = bench.apply("service.assert_active", &with).unwrap();
        assert_eq!(report.summary, "2 services run");
        assert_eq!(bench.host.clock().since_boot().saturating_sub(before), Duration::from_secs(10));

        bench.host.script().units.insert("b.service".into(), Activity::Failed);
        let (message, report) = bench.failure("service.assert_active", &with);
        assert_eq!(message, "1 of 2 services do not run: b");
        assert_eq!(report.problems[0].subject, "b");
    }

    #[test]
    fn what_cannot_be_asked_is_neither_up_nor_down() {
        let bench = Bench::new(PROFILE);
        bench.host.script().no_units = true;
        let (message, report) = bench.failure("service.assert_active", &bench.with(r#"{"services":["a"]}"#));
        assert_eq!(message, "1 of 1 services cannot be asked: a");
        assert_eq!(report.problems[0].code, NOT_AVAILABLE);
        assert_eq!(report.samples, []);
    }

    #[test]
    fn a_cancel_ends_the_wait() {
        let bench = Bench::new(PROFILE);
        bench.host.script().units.insert("a.service".into(), Activity::Active);
        bench.cancel.cancel();
        let with = bench.with(r#"{"services":["a"],"stable_for":"10s"}"#);
        assert!(matches!(bench.apply("service.assert_active", &with), Err(TaskError::Cancelled(_))));
        let with = bench.with(r#"{"services":["missing"]}"#);
        assert!(matches!(bench.apply("service.assert_active", &with), Err(TaskError::Declared(_))));
    }
}
