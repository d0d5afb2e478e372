//! `fleetctl audit list`.

use fleet_types::audit::{AuditRecord, Decision};
use fleet_types::job::Outcome;
use fleet_types::view::{AuditItem, Page};

use crate::commands::job_cells::outcome_tone;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Cell, Column, Table, Times, Tone};
use crate::session::Session;

/// Lists records, newest first.
pub async fn list(
    session: &mut Session<'_>,
    limit: u32,
    action: &str,
    object: &str,
) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let mut page = Page { schema: "fleet/v1/audit-list".to_owned(), items: Vec::new(), next: None };
    let mut before = 0u64;
    let limit = limit as usize;
    while page.items.len() < limit {
        let left = u32::try_from(limit - page.items.len()).unwrap_or(u32::MAX);
        let one = client.audit(before, left, action, object).await?;
        page.items.extend(one.items);
        let next = one.next.and_then(|next| next.parse::<u64>().ok());
        match next {
            // Indices only fall; anything else would be an endless loop.
            Some(next) if next > 0 && (before == 0 || next < before) => before = next,
            _ => break,
        }
    }
    session.print(&answer(&page, &session.times()))?;
    Ok(ExitCode::Done)
}

fn answer(page: &Page<AuditItem>, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::number("INDEX"),
        Column::whole("TIME"),
        Column::whole("WHO"),
        Column::whole("ACTION"),
        Column::text("OBJECT"),
        Column::whole("RESULT"),
        Column::text("TEXT"),
        Column::whole("FROM").wide(),
        Column::whole("SUBJECT DIGEST").wide(),
        Column::whole("DETAIL").wide(),
    ]);
    for item in &page.items {
        let record = &item.record;
        table.row([
            record.index.to_string().into(),
            times.show(record.time).into(),
            who(record).into(),
            record.action.as_str().into(),
            object(item).into(),
            result(record),
            item.free_text.clone().unwrap_or_else(|| record.reason.clone()).into(),
            record.actor.address.as_str().into(),
            record.subject_digest.map(|digest| digest.to_string()).unwrap_or_default().into(),
            detail(record).into(),
        ]);
    }
    Answer::of(page)
        .names(page.items.iter().map(|item| item.record.index.to_string()))
        .table(table, "no such records")
}

fn detail(record: &AuditRecord) -> String {
    record.detail.iter().map(|(key, words)| format!("{key}: {words}")).collect::<Vec<_>>().join("; ")
}

fn who(record: &AuditRecord) -> String {
    if record.actor.name.is_empty() { record.actor.role.clone() } else { record.actor.name.clone() }
}

fn object(item: &AuditItem) -> String {
    match (&item.node_name, item.record.job) {
        // A job's object names the node by its id; people know its name.
        (Some(name), Some(job)) => format!("{}/{name}", job.run),
        _ => item.record.object.clone(),
    }
}

fn result(record: &AuditRecord) -> Cell {
    match (record.decision, record.outcome) {
        (Decision::Refused, _) => Cell::toned(Tone::Bad, "refused"),
        (_, Some(outcome)) => Cell::toned(outcome_tone(outcome), Outcome::as_str(outcome)),
        (Decision::Allowed, None) => Cell::from("ok"),
    }
}
