//! `health.check`: declared checks, side by side, each with a time limit; and a health score. Reads only.
//!
//! A check that hangs is a failed check: its thread is left behind and its check is not started again until that
//! thread has ended, so that probes every ten seconds do not pile threads up. Row: Z02.
//!
//! *Score.* 100, less 40 for each critical, 25 for each high, 10 for each medium and 5 for each low problem, never
//! below 0. So one critical check keeps a node below 75, and warnings alone take ten to reach 0. A check that
//! nobody could look at is unknown: it takes nothing, and where all are unknown there is no score.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use fleet_types::document::ids::Id;
use fleet_types::document::profile::Check;
use fleet_types::report::{NOT_AVAILABLE, Problem, TaskReport};
use fleet_types::severity::Severity;
use fleet_types::time::Timestamp;

use super::contract::{CancelFlag, Inspect, RetryKind, TaskContext, TaskError, TaskPlan};
use super::health_probe::{Probe, Prober};
use super::hung::{self, Token};
use super::part::{bounded, problem, sample};
use super::{args, programs};
use crate::host::Host;

/// Checks that look at once. Each waits more than it works; 32 threads cost 256 KiB of stack in use.
const AT_ONCE: usize = 32;
/// How often waiting for checks probes at a cancel.
const SLICE: Duration = Duration::from_millis(100);
/// Between probes of `stable_for`.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The name of the note that says since when checks are bad.
const NOTE: &str = "checks.json";

/// Held from reading the note to writing it.
static NOTES: Mutex<()> = Mutex::new(());

/// The task.
pub(super) struct HealthCheck;

fn checks<'a>(context: &TaskContext<'a>) -> Result<Vec<(&'a Id, &'a Check)>, TaskError> {
    args::ids(context, "checks", &context.profile.checks, true)
}

impl Inspect for HealthCheck {
    fn plan(&self, context: &TaskContext<'_>) -> Result<TaskPlan, TaskError> {
        let checks = checks(context)?;
        let lookers = lookers(context, &checks)?;
        Ok(TaskPlan {
            summary: format!("{} checks", checks.len()),
            commands: lookers.into_iter().filter_map(Prober::argv).collect(),
            ..TaskPlan::default()
        })
    }

    fn inspect(&self, context: &TaskContext<'_>) -> Result<TaskReport, TaskError> {
        let checks = checks(context)?;
        let stable_for = args::span(context, "stable_for")?.unwrap_or_default();
        let clock = context.host.clock();
        let since = clock.since_boot();
        loop {
            let report = round(context, &checks)?;
            if report.problems.iter().any(|found| found.severity >= Severity::High) {
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

fn lookers(context: &TaskContext<'_>, checks: &[(&Id, &Check)]) -> Result<Vec<Prober>, TaskError> {
    checks.iter().map(|(id, check)| Prober::new(context, id, check)).collect()
}

/// One look of all checks.
fn round(context: &TaskContext<'_>, checks: &[(&Id, &Check)]) -> Result<TaskReport, TaskError> {
    let mut report = TaskReport::default();
    let (mut bad, mut unknown) = (Vec::new(), Vec::new());
    let mut rest = lookers(context, checks)?;
    let mut probes = BTreeMap::new();
    while !rest.is_empty() {
        let later = rest.split_off(rest.len().min(AT_ONCE));
        probes.extend(side_by_side(context, rest)?);
        rest = later;
    }
    // Two jobs may check at once: what one notes between the other's reading and writing would be lost.
    let one_at_a_time = NOTES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lasting = Lasting::load(context.host);
    for (id, check) in checks {
        let Some(look) = probes.remove(id.as_str()) else { continue };
        if let Some(value) = look.value {
            report.samples.push(sample(look.metric, id.as_str(), value, look.unit));
        }
        let duration = look.took.as_secs_f64();
        report.samples.push(sample("check_duration", id.as_str(), duration, "seconds"));
        if let Some(found) = lasting.judge(id, check, look) {
            match found.code.as_str() {
                NOT_AVAILABLE => unknown.push(id.as_str()),
                "pending" => {}
                _ => bad.push(id.as_str()),
            }
            report.problems.push(found);
        }
    }
    lasting.save(context.host);
    drop(one_at_a_time);
    let of = checks.len();
    report.summary = match (bad.is_empty(), unknown.is_empty()) {
        (true, true) => format!("{of} checks are good"),
        (true, false) => format!("{} of {of} checks are good", of - unknown.len()),
        (false, _) => format!("{} of {of} checks are bad: {}", bad.len(), bad.join(", ")),
    };
    if !unknown.is_empty() {
        report.summary = format!("{}; unknown: {}", report.summary, unknown.join(", "));
    }
    if unknown.len() < of {
        let score = score(&report.problems);
        report.samples.insert(0, sample("health_score", "", f64::from(score), "score"));
        // How soon it must be measured again to stay known.
        if let Some(every) = checks.iter().map(|(_, check)| check.every.length()).min() {
            report.samples.insert(1, sample("health_every", "", every.as_secs_f64(), "seconds"));
        }
        report.summary = format!("{}; health score {score}", report.summary);
    }
    Ok(bounded(report))
}

/// See the formula at the top of the file.
fn score(problems: &[Problem]) -> u32 {
    let cost = |found: &Problem| match found.severity {
        _ if found.code == NOT_AVAILABLE => 0,
        Severity::Critical => 40,
        Severity::High => 25,
        Severity::Medium => 10,
        Severity::Low if found.code == "pending" => 0,
        Severity::Low => 5,
    };
    100u32.saturating_sub(problems.iter().map(cost).sum())
}

/// A check that is under way.
struct Pending {
    until: Instant,
    limit: Duration,
    cancel: CancelFlag,
    look: Weak<()>,
}

fn side_by_side(
    context: &TaskContext<'_>,
    lookers: Vec<Prober>,
) -> Result<BTreeMap<String, Probe>, TaskError> {
    // One answer a check: nobody ever waits to send, so a late thread ends as soon as its look does.
    let (send, receive) = sync_channel(lookers.len().max(1));
    let mut probes = BTreeMap::new();
    let mut pending = BTreeMap::new();
    for looker in lookers {
        let id = looker.id().to_string();
        if hung::is_hung(&name_of(context, &id)) {
            probes.insert(id, Probe::hung("it still hangs from an earlier look", Duration::ZERO));
            continue;
        }
        let limit = looker.time_limit().min(programs::left(context));
        let cancel = CancelFlag::default();
        let token = Token::default();
        let look = Arc::downgrade(&token);
        pending.insert(id, Pending { until: Instant::now() + limit, limit, cancel: cancel.clone(), look });
        start(context, looker, token, cancel, &send);
    }
    drop(send);
    collect(context, &receive, &mut pending, &mut probes)?;
    Ok(probes)
}

/// A check of this node, among those of all nodes of a process.
fn name_of(context: &TaskContext<'_>, check: &str) -> String {
    format!("{}/{check}", context.step.node)
}

fn start(
    context: &TaskContext<'_>,
    looker: Prober,
    token: Token,
    cancel: CancelFlag,
    send: &SyncSender<(String, Probe)>,
) {
    let host = context.host.handle();
    let send = send.clone();
    std::thread::spawn(move || {
        let look = looker.look(&*host, &cancel);
        drop(token);
        // Nobody waits any longer for a look that came after its limit.
        let _ = send.send((looker.id().to_string(), look));
    });
}

fn collect(
    context: &TaskContext<'_>,
    receive: &Receiver<(String, Probe)>,
    pending: &mut BTreeMap<String, Pending>,
    probes: &mut BTreeMap<String, Probe>,
) -> Result<(), TaskError> {
    while !pending.is_empty() {
        match receive.recv_timeout(SLICE) {
            Ok((id, look)) => {
                if pending.remove(&id).is_some() {
                    probes.insert(id, look);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            // A thread that panicked has sent nothing; what is pending then is reported below.
            Err(RecvTimeoutError::Disconnected) => {
                for late in pending.values_mut() {
                    late.until = Instant::now();
                }
            }
        }
        let now = Instant::now();
        let over: Vec<String> =
            pending.iter().filter(|(_, p)| p.until <= now).map(|(id, _)| id.clone()).collect();
        for id in over {
            let Some(late) = pending.remove(&id) else { continue };
            late.cancel.cancel();
            hung::overran(name_of(context, &id), late.look);
            let message = format!("it did not answer within {} s", late.limit.as_secs_f32());
            probes.insert(id, Probe::hung(&message, late.limit));
        }
        if context.cancel.is_cancelled() {
            for late in pending.values() {
                late.cancel.cancel();
            }
            return Err(TaskError::cancelled());
        }
    }
    Ok(())
}

/// Since when checks are bad, for those that must be bad for some time before it counts.
struct Lasting {
    seen: BTreeMap<String, Seen>,
    now: Timestamp,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Seen {
    last_look: Timestamp,
    bad_since: Option<Timestamp>,
}

impl Lasting {
    fn load(host: &dyn Host) -> Self {
        let bytes = host.notes().read(NOTE).ok().flatten();
        let seen = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { seen, now: host.clock().now() }
    }

    /// A note that cannot be kept makes the next bad look count at once, which is the safe side.
    fn save(&self, host: &dyn Host) {
        let saved = serde_json::to_vec(&self.seen)
            .map_err(|e| e.to_string())
            .and_then(|bytes| host.notes().write(NOTE, &bytes).map_err(|e| e.to_string()));
        if let Err(error) = saved {
            tracing::warn!(%error, "cannot keep since when checks are bad");
        }
    }

    /// The problem of a look. With `for`, one that was good at the look before and has not been bad long enough
    /// is pending; where nobody looked regularly, nothing is known of before and it counts at once.
    fn judge(&mut self, id: &Id, check: &Check, look: Probe) -> Option<Problem> {
        let now = self.now;
        let before = self.seen.remove(id.as_str());
        let Some(severity) = look.bad else {
            self.seen.insert(id.to_string(), Seen { last_look: now, bad_since: None });
            return None;
        };
        let watched = before.filter(|seen| {
            seen.last_look <= now && now.since(seen.last_look) <= check.every.length().saturating_mul(3)
        });
        // Not watched before: as if it had been bad for ever.
        let since = watched.map_or(Timestamp::clamped(0), |seen| seen.bad_since.unwrap_or(now));
        self.seen.insert(id.to_string(), Seen { last_look: now, bad_since: Some(since) });
        let mut found = problem(severity, look.code, id.as_str(), &look.message);
        found.evidence = look.evidence;
        if let Some(lasting) = check.lasting.as_ref()
            && now.since(since) < lasting.length()
        {
            found.severity = Severity::Low;
            "pending".clone_into(&mut found.code);
            found.message = format!("{} (counts after {lasting})", found.message);
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scripted::Answer;
    use crate::host::{Activity, CpuTimes, Exit, MemoryUse, Space};
    use crate::tasks::testing::Bench;

    fn codes(report: &TaskReport) -> Vec<(&str, &str, Severity)> {
        report.problems.iter().map(|p| (p.subject.as_str(), p.code.as_str(), p.severity)).collect()
    }

    #[test]
    fn each_kind_gives_value_threshold_severity_and_duration() {
        let bench = Bench::new(
            r#"
            [service.fw]
            unit = "fw.service"
            [command.db]
            argv = ["db", "status"]
            timeout = "5s"
            changes = false
            [check.disk]
            kind = "disk_used"
            path = "/"
            warn = 80
            critical = 90
            every = "1m"
            [check.memory]
            kind = "memory_used"
            warn = 85
            every = "1m"
            [check.cpu]
            kind = "cpu_used"
            warn = 90
            every = "1m"
            [check.load]
            kind = "load"
            warn = "cores * 1"
            every = "1m"
            [check.service]
            kind = "service"
            service = "fw"
            every = "1m"
            [check.db]
            kind = "command"
            command = "db"
            every = "1m"
            [check.conntrack]
            kind = "conntrack_used"
            warn = 80
            every = "1m"
            "#,
        );
        {
            let mut script = bench.host.script();
            script.space = Some(Space { total: 100, used: 85, available: 15 });
            script.memory = MemoryUse { total: 100, available: 50 };
            script.cpu = [CpuTimes { busy: 0, total: 0 }, CpuTimes { busy: 10, total: 100 }].into();
            script.load.one = 4.5;
            script.units.insert("fw.service".into(), Activity::Active);
        }
        bench.host.answer("db", [Answer::Ends(Exit::Status(0), "ok".into())]);
        let with = bench.with("{}");
        let report = bench.apply("health.check", &with).unwrap();
        assert_eq!(
            codes(&report),
            [
                ("conntrack", "not_available", Severity::Medium),
                ("disk", "disk_used", Severity::Medium),
                ("load", "load", Severity::Medium),
            ]
        );
        assert!(report.problems[1].message.contains("85") && report.problems[1].message.contains("80"));
        assert!(report.samples.iter().any(|s| s.metric == "health_score" && (s.value - 80.0).abs() < 1e-9));
        assert!(report.samples.iter().any(|s| s.metric == "cpu_used" && (s.value - 10.0).abs() < 1e-9));
        assert!(report.samples.iter().any(|s| s.metric == "check_duration" && s.subject == "db"));
        assert!(report.samples.iter().any(|s| s.metric == "health_every" && (s.value - 60.0).abs() < 1e-9));

        bench.host.script().space = Some(Space { total: 100, used: 95, available: 5 });
        bench.host.script().cpu = [CpuTimes { busy: 0, total: 0 }, CpuTimes { busy: 10, total: 100 }].into();
        bench.host.answer("db", [Answer::Ends(Exit::Status(2), "no connection".into())]);
        bench.host.script().units.insert("fw.service".into(), Activity::Failed);
        let (message, report) = bench.failure("health.check", &with);
        assert!(message.starts_with("4 of 7 checks are bad"), "{message}");
        assert!(message.contains("; unknown: conntrack; health score"), "{message}");
        assert_eq!(codes(&report)[0], ("disk", "disk_used", Severity::Critical));
        let db = report.problems.iter().find(|p| p.subject == "db").unwrap();
        assert_eq!((db.severity, db.evidence.as_str()), (Severity::High, "no connection"));
    }

    #[test]
    fn a_service_that_cannot_be_asked_is_unknown_and_costs_no_points() {
        let bench = Bench::new(
            "[service.fw]\nunit = \"fw.service\"\n\
             [check.fw]\nkind = \"service\"\nservice = \"fw\"\nevery = \"1m\"\n\
             [check.load]\nkind = \"load\"\nwarn = 9\nevery = \"1m\"\n",
        );
        bench.host.script().no_units = true;
        let report = bench.apply("health.check", &bench.with("{}")).unwrap();
        assert_eq!(report.summary, "1 of 2 checks are good; unknown: fw; health score 100");
        assert_eq!(codes(&report), [("fw", NOT_AVAILABLE, Severity::Medium)]);
        // Of nothing that was seen there is no score.
        let report = bench.apply("health.check", &bench.with(r#"{"checks":["fw"]}"#)).unwrap();
        assert_eq!(report.summary, "0 of 1 checks are good; unknown: fw");
        assert!(report.samples.iter().all(|sample| sample.metric != "health_score"));
    }

    #[test]
    fn a_hung_check_fails_alone_and_is_not_started_again() {
        let bench = Bench::new(
            "[service.stuck]\nunit = \"stuck.service\"\n[service.fw]\nunit = \"fw.service\"\n\
             [check.stuck]\nkind = \"service\"\nservice = \"stuck\"\nevery = \"1m\"\ntimeout = \"300ms\"\n\
             [check.fw]\nkind = \"service\"\nservice = \"fw\"\nevery = \"1m\"\n",
        );
        bench.host.script().units.insert("fw.service".into(), Activity::Active);
        bench.host.script().units.insert("stuck.service".into(), Activity::Active);
        bench.host.script().hanging_units.insert("stuck.service".into());
        let with = bench.with("{}");
        let before = Instant::now();
        let (_, report) = bench.failure("health.check", &with);
        assert!(before.elapsed() < Duration::from_secs(5));
        assert_eq!(codes(&report), [("stuck", "check_hung", Severity::High)]);
        let (_, report) = bench.failure("health.check", &with);
        assert!(report.problems[0].message.contains("still hangs"));
        // Once it answers again it is looked at again.
        bench.host.script().hanging_units.clear();
        let until = Instant::now() + Duration::from_secs(10);
        while bench.apply("health.check", &with).is_err() {
            assert!(Instant::now() < until, "the check did not recover");
        }
    }

    #[test]
    fn two_jobs_at_once_keep_what_the_other_noted() {
        let bench = Bench::new(
            "[check.a]\nkind = \"load\"\nwarn = 9\nevery = \"1m\"\n[check.b]\nkind = \"load\"\nwarn = 9\nevery = \"1m\"\n",
        );
        let (a, b) = (bench.with(r#"{"checks":["a"]}"#), bench.with(r#"{"checks":["b"]}"#));
        std::thread::scope(|scope| {
            for with in [&a, &b] {
                let bench = &bench;
                scope.spawn(move || (0..20).for_each(|_| drop(bench.apply("health.check", with))));
            }
        });
        let seen = Lasting::load(&bench.host).seen;
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn with_for_a_watched_check_must_be_bad_for_so_long() {
        let bench = Bench::new(
            "[check.disk]\nkind = \"disk_used\"\npath = \"/\"\ncritical = 90\nfor = \"10m\"\nevery = \"5m\"\n",
        );
        let with = bench.with("{}");
        let use_disk =
            |used| bench.host.script().space = Some(Space { total: 100, used, available: 100 - used });
        let pass = |minutes: u64| bench.host.clock().pause(Duration::from_secs(minutes * 60), &bench.cancel);
        use_disk(95);
        // Nobody has watched it: it counts.
        bench.failure("health.check", &with);
        use_disk(50);
        pass(5);
        assert!(bench.apply("health.check", &with).unwrap().problems.is_empty());
        use_disk(95);
        for _ in 0..2 {
            pass(5);
            let report = bench.apply("health.check", &with).unwrap();
            assert_eq!(codes(&report), [("disk", "pending", Severity::Low)]);
        }
        pass(5);
        bench.failure("health.check", &with);
    }
}
