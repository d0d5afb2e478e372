//! Checks of a file of schedules that need more than one key.

use std::collections::{BTreeMap, BTreeSet};

use fleet_types::document::schedule::{Schedule, ScheduleFile};
use fleet_types::time::Timestamp;

use crate::known::Known;
use crate::profile_lint::check_procedure;
use crate::reporter::Reporter;
use crate::text_check::{did_you_mean, quoted};
use crate::{params_lint, window_lint};

pub(crate) fn check(reporter: &mut Reporter<'_>, file: &ScheduleFile, known: &Known<'_>) {
    let mut seen = BTreeSet::new();
    for (index, schedule) in file.schedules.iter().enumerate() {
        let path = format!("schedule/{index}");
        if !seen.insert(schedule.id.as_str()) {
            let message = format!("the id {} stands twice in this file", quoted(schedule.id.as_str()));
            reporter.error(&format!("{path}/id"), "duplicate-id", message, "give each schedule its own id");
        }
        check_one(reporter, file, schedule, &path);
        check_called(reporter, schedule, known, &path);
    }
    let by_site = |schedule: &Schedule| schedule.timezone.as_deref() == Some(fleet_calendar::SITE);
    if let Some(index) = file.schedules.iter().position(by_site).filter(|_| file.zones.is_empty()) {
        let message = "timezone = \"site\" in a file without [zones]: every site is in UTC".to_owned();
        let fix = "write [zones] with a line for each site, such as fra1 = \"Europe/Berlin\"";
        reporter.warn(&format!("schedule/{index}/timezone"), "no-zones", message, fix);
    }
    let mut seen = BTreeSet::new();
    for (index, blackout) in file.blackouts.iter().enumerate() {
        let path = format!("blackout/{index}");
        if !seen.insert(blackout.id.as_str()) {
            let message = format!("the id {} stands twice in this file", quoted(blackout.id.as_str()));
            reporter.error(&format!("{path}/id"), "duplicate-id", message, "give each blackout its own id");
        }
        if let (Ok(from), Ok(to)) = (blackout.from.parse::<Timestamp>(), blackout.to.parse::<Timestamp>())
            && to <= from
        {
            let message = format!("blackout {} ends before it begins", quoted(blackout.id.as_str()));
            reporter.error(&format!("{path}/to"), "bad-value", message, "write a later instant");
        }
    }
}

fn check_one(reporter: &mut Reporter<'_>, file: &ScheduleFile, schedule: &Schedule, path: &str) {
    let id = quoted(schedule.id.as_str());
    // A cron text that was refused is left out of the value; its place says that it was written.
    match (&schedule.cron, &schedule.relative_to) {
        (Some(_), Some(_)) => {
            let message = format!("[[schedule]] {id} has both cron and relative_to");
            reporter.error(&format!("{path}/relative_to"), "bad-value", message, "take one of them out");
        }
        (None, None)
            if !reporter.places.has(&format!("{path}/cron"))
                && !reporter.places.has(&format!("{path}/relative_to")) =>
        {
            let message = format!("[[schedule]] {id} has neither cron nor relative_to");
            reporter.error(path, "missing-key", message, "add cron = \"0 3 * * SUN\"");
        }
        _ => {}
    }
    let Some(relative) = &schedule.relative_to else { return };
    if schedule.timezone.is_some() {
        let message = format!("[[schedule]] {id} has a timezone of its own beside relative_to");
        let fix = "take it out: it is in the zone of the schedule that it is relative to";
        reporter.error(&format!("{path}/timezone"), "bad-value", message, fix);
    }
    let by_id: BTreeMap<&str, &Schedule> =
        file.schedules.iter().map(|other| (other.id.as_str(), other)).collect();
    let target = format!("{path}/relative_to/schedule");
    if !by_id.contains_key(relative.schedule.as_str()) {
        let otherwise = || "write the id of a schedule of this file".to_owned();
        let fix = did_you_mean(relative.schedule.as_str(), by_id.keys().copied(), otherwise);
        let message = format!("no schedule of this file has the id {}", quoted(relative.schedule.as_str()));
        reporter.error(&target, "unknown-reference", message, fix);
        return;
    }
    let mut at = schedule;
    for _ in 0..=file.schedules.len() {
        match at.relative_to.as_ref().and_then(|relative| by_id.get(relative.schedule.as_str())) {
            Some(next) => at = next,
            None => return,
        }
    }
    let message = format!("[[schedule]] {id} is relative to itself, through others");
    reporter.error(&target, "unknown-reference", message, "give one of them a cron expression");
}

fn check_called(reporter: &mut Reporter<'_>, schedule: &Schedule, known: &Known<'_>, path: &str) {
    let name = schedule.procedure.as_str();
    check_procedure(reporter, &format!("{path}/procedure"), name, known);
    let Some(procedure) = known.procedures.get(name) else { return };
    window_lint::check(reporter, schedule, procedure, known, path);
    let given = schedule.params.iter().map(|(key, value)| (key.as_str(), value));
    params_lint::given(reporter, &procedure.params, given, (path, name), false);
}
