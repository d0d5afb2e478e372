//! `fleetctl schedule list|show`: how schedules stand, with the zone beside every time.

use fleet_types::view::{Page, ScheduleItem, ScheduleState, TickItem};

use crate::commands::watching;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Times, Tone};
use crate::session::Session;

/// Lists the schedules of all files.
pub async fn list(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    watching::print(session, async |_| Ok(list_answer(&client.schedules().await?))).await
}

/// Shows one schedule, `FILE/ID`.
pub async fn show(session: &mut Session<'_>, name: &str) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    watching::print(session, async |session| {
        Ok(show_answer(&client.schedule(name, 0).await?, &session.times()))
    })
    .await
}

/// The word of a state, in its tone.
fn state(state: ScheduleState) -> Cell {
    match state {
        ScheduleState::Up => Cell::toned(Tone::Good, state.as_str()),
        ScheduleState::New => state.as_str().into(),
        ScheduleState::Late | ScheduleState::Paused => Cell::toned(Tone::Warn, state.as_str()),
        ScheduleState::Down => Cell::toned(Tone::Bad, state.as_str()),
    }
}

/// How a tick ended, in a few words.
pub(super) fn ended(tick: &TickItem) -> String {
    match (tick.not_fired, tick.run_state, tick.runs.last()) {
        (Some(why), _, _) if tick.because.is_empty() => why.to_string(),
        (Some(why), _, _) => format!("{why}: {}", tick.because),
        (None, Some(state), _) => state.as_str().to_owned(),
        (None, None, Some(_)) => "run not kept any more".to_owned(),
        (None, None, None) => String::new(),
    }
}

fn list_answer(page: &Page<ScheduleItem>) -> Answer {
    let mut table = Table::new(&[
        Column::whole("SCHEDULE"),
        Column::whole("STATE"),
        Column::whole("NEXT"),
        Column::whole("LAST"),
        Column::whole("ENDED"),
        Column::number("UNSEEN"),
        Column::whole("PROCEDURE").wide(),
        Column::text("NOTE"),
    ]);
    for item in &page.items {
        let last = item.last.as_ref();
        table.row([
            item.name().into(),
            state(item.state),
            item.next.first().map_or_else(|| "-".to_owned(), |next| next.shown.clone()).into(),
            last.map_or_else(|| "-".to_owned(), |last| last.shown.clone()).into(),
            last.map_or_else(|| "-".to_owned(), |last| short(last).to_owned()).into(),
            item.unseen.to_string().into(),
            item.procedure.as_str().into(),
            item.notes.join("; ").into(),
        ]);
    }
    Answer::of(page)
        .names(page.items.iter().map(ScheduleItem::name))
        .table(table, "no schedules; fleetctl schedule apply FILE")
}

/// The same without the reason, which stands in the note.
fn short(tick: &TickItem) -> &'static str {
    tick.not_fired.map_or_else(|| tick.run_state.map_or("-", |state| state.as_str()), |why| why.as_str())
}

fn show_answer(item: &ScheduleItem, times: &Times) -> Answer {
    let mut fields = vec![
        ("schedule", Cell::from(item.name())),
        ("procedure", item.procedure.as_str().into()),
        ("state", state(item.state)),
    ];
    fields.extend(item.notes.iter().map(|note| ("note", Cell::from(note.as_str()))));
    fields
        .extend(item.next.iter().map(|next| ("next", Cell::from(format!("{} ({})", next.shown, next.zone)))));
    if let Some(last) = &item.last {
        fields.push(("last", format!("{} ({}): {}", last.shown, last.zone, ended(last)).into()));
        fields.extend(last.runs.iter().map(|run| ("run", Cell::from(run.to_string()))));
    }
    if item.unseen > 0 {
        fields.push(("missed, not seen", Cell::toned(Tone::Bad, item.unseen.to_string())));
    }
    if let (Some(signed_by), Some(until)) = (&item.signed_by, item.until) {
        fields.push(("signed by", format!("{signed_by}, until {}", times.show(until)).into()));
    }
    Answer::of(item).name(item.name()).block(Block::Fields(fields))
}
