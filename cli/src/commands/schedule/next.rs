//! `fleetctl schedule next FILE/ID`: when it fires next. For a file on this machine no controller is needed.

use std::path::Path;

use fleet_calendar::{Times, Zones};
use fleet_types::document::Document;
use fleet_types::document::schedule::ScheduleFile;
use fleet_types::time::Timestamp;
use fleet_types::view::{NextTick, Page};

use crate::clock;
use crate::commands::files;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Column, Table};
use crate::session::Session;

/// Prints the next ticks of a schedule `FILE/ID`, or of every schedule of a file `….toml`.
pub async fn run(session: &mut Session<'_>, schedule: &str, count: u32) -> Result<ExitCode, Failure> {
    let rows = if Path::new(schedule).extension().is_some_and(|end| end == "toml") {
        of_file(&read(Path::new(schedule))?, count as usize, clock::now())?
    } else {
        let item = session.connect().await?.schedule(schedule, count).await?;
        if item.next.is_empty() {
            for note in &item.notes {
                session.say(format!("note: {note}"));
            }
        }
        item.next.iter().map(|next| (item.name(), next.clone())).collect()
    };
    session.print(&answer(rows))?;
    Ok(ExitCode::Done)
}

fn read(path: &Path) -> Result<ScheduleFile, Failure> {
    let files = files::read(&[path.to_owned()])?;
    let parsed = files.first().filter(|file| file.unreadable.is_none());
    match parsed.map(|file| fleet_documents::parse(&file.name, &file.text)) {
        Some(Ok(parsed)) => match parsed.document {
            Document::Schedule(file) => Ok(*file),
            _ => Err(Failure::usage(format!("{} is no file of schedules", path.display()))),
        },
        _ => Err(Failure::usage(format!("{} has errors", path.display()))
            .fix(format!("fleetctl config validate {}", path.display()))),
    }
}

fn of_file(file: &ScheduleFile, count: usize, now: Timestamp) -> Result<Vec<(String, NextTick)>, Failure> {
    let wrong = |error| Failure::usage("a schedule has no times").because(&error);
    let mut rows = Vec::new();
    for schedule in &file.schedules {
        let zones = Zones::of(file, schedule).map_err(wrong)?;
        let mut next = Vec::new();
        for zone in zones.all() {
            let times = Times::of(file, schedule, zone.parse().map_err(wrong)?).map_err(wrong)?;
            next.extend(
                times.between(now, now.plus(fleet_calendar::SEARCH)).take(count).map(|at| NextTick {
                    at,
                    zone: zone.to_owned(),
                    shown: times.zone().show(at),
                }),
            );
        }
        next.sort_by(|a, b| (a.at, &a.zone).cmp(&(b.at, &b.zone)));
        rows.extend(
            next.into_iter().take(count).map(|next| (format!("{}/{}", file.name, schedule.id), next)),
        );
    }
    Ok(rows)
}

fn answer(rows: Vec<(String, NextTick)>) -> Answer {
    let mut table = Table::new(&[
        Column::whole("SCHEDULE"),
        Column::whole("AT"),
        Column::whole("ZONE"),
        Column::whole("UTC"),
    ]);
    for (name, next) in &rows {
        let utc = next.at.to_string().into();
        table.row([name.as_str().into(), next.shown.as_str().into(), next.zone.as_str().into(), utc]);
    }
    let items = rows.into_iter().map(|(_, next)| next).collect();
    let page = Page { schema: "fleet/v1/schedule-next".to_owned(), items, next: None };
    Answer::of(&page).table(table, "it does not fire")
}
