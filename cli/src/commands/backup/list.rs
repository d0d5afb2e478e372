//! `fleetctl backup list`.

use fleet_types::view::{BackupItem, CopyItem, Page};

use crate::commands::{paging, watching};
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Cell, Column, Table, Times, Tone, units};
use crate::session::Session;
use crate::targets;

/// Most archives of one list.
pub(super) const MAX_LISTED: usize = 100_000;

/// Lists archives.
pub async fn list(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let selectors = targets::list_selectors(&session.settings.targets)?;
    watching::print(session, async |session| {
        let mut items = Vec::new();
        for selector in &selectors {
            let page = paging::all("", MAX_LISTED, async |after| client.backups(selector, after).await);
            items.extend(page.await?.items);
        }
        let page = Page { schema: "fleet/v1/backup-list".to_owned(), items, next: None };
        Ok(answer(&page, &session.times()))
    })
    .await
}

/// Whether its encrypted copy is off the node.
fn copy_of(backup: &BackupItem) -> Cell {
    match &backup.copy {
        None => "-".into(),
        Some(CopyItem { gone: Some(_), .. }) => "gone".into(),
        Some(CopyItem { stored: Some(_), .. }) => Cell::toned(Tone::Good, "stored"),
        Some(_) => Cell::toned(Tone::Warn, "waiting"),
    }
}

fn answer(page: &Page<BackupItem>, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::whole("NODE"),
        Column::whole("BACKUP"),
        Column::whole("MADE"),
        Column::number("SIZE"),
        Column::whole("VERIFIED"),
        Column::whole("RUN"),
        Column::whole("COPY").wide(),
        Column::text("PATH"),
        Column::whole("SHA256").wide(),
    ]);
    for backup in &page.items {
        let verified =
            if backup.verified { Cell::toned(Tone::Good, "yes") } else { Cell::toned(Tone::Warn, "no") };
        table.row([
            backup.node.as_str().into(),
            backup.backup.as_str().into(),
            times.show(backup.made).into(),
            units::bytes(backup.size).into(),
            verified,
            backup.run.to_string().into(),
            copy_of(backup),
            backup.path.as_str().into(),
            backup.sha256.to_string().into(),
        ]);
    }
    let names = page.items.iter().map(|backup| format!("{}:{}", backup.node, backup.path));
    Answer::of(page)
        .names(names)
        .table(table, "no backups yet; a run of a procedure with backup.run makes them")
}
