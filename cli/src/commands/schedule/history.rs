//! `fleetctl schedule history FILE/ID`: what became of its ticks, and that somebody has seen what was missed.

use fleet_types::view::{Page, TickItem};

use super::look::ended;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Cell, Column, Table, Tone};
use crate::session::Session;

/// Prints the newest ticks, newest first; with `seen` those that were missed are marked as seen.
pub async fn run(
    session: &mut Session<'_>,
    schedule: &str,
    limit: u32,
    seen: bool,
) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let page = client.ticks(schedule, limit).await?;
    session.print(&answer(&page))?;
    if seen && !session.would(&format!("count what {schedule} missed as seen"))? {
        let reason = session.settings.reason.clone().unwrap_or_default();
        let done = client.steer_schedules(Some(schedule), "seen", &reason).await?;
        session.say(done.message);
    }
    Ok(ExitCode::Done)
}

fn answer(page: &Page<TickItem>) -> Answer {
    let mut table = Table::new(&[
        Column::whole("TICK"),
        Column::number("TICKS"),
        Column::whole("RUN"),
        Column::text("ENDED"),
        Column::whole("SEEN"),
        Column::whole("ZONE").wide(),
        Column::whole("UTC").wide(),
    ]);
    for tick in &page.items {
        let how = ended(tick);
        let missed = tick.not_fired.is_some_and(fleet_types::view::NotFired::is_a_miss);
        table.row([
            tick.shown.as_str().into(),
            tick.count.to_string().into(),
            tick.runs.last().map_or_else(|| "-".to_owned(), ToString::to_string).into(),
            if missed { Cell::toned(Tone::Bad, how) } else { how.into() },
            if tick.unseen { Cell::toned(Tone::Bad, "no") } else { "yes".into() },
            tick.zone.as_str().into(),
            tick.at.to_string().into(),
        ]);
    }
    Answer::of(page).table(table, "nothing has come due yet")
}
