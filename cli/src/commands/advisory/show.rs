//! `fleetctl advisory list|show`: the sources with their age, and one advisory.

use fleet_types::view::{AdvisorySource, AdvisoryView, Page};

use crate::commands::watching;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Cell, Column, Table, Times, Tone};
use crate::session::Session;

/// Lists the sources.
pub async fn list(session: &mut Session<'_>) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    watching::print(session, async |session| Ok(sources(&client.advisory_sources().await?, &session.times())))
        .await
}

fn sources(page: &Page<AdvisorySource>, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::whole("SOURCE"),
        Column::number("ENTRIES"),
        Column::whole("NEWEST IN IT"),
        Column::whole("IMPORTED"),
        Column::whole("BY"),
        Column::number("NOT USED"),
        Column::text("STATE"),
        Column::whole("SHA256").wide(),
    ]);
    for source in &page.items {
        table.row([
            source.name.as_str().into(),
            source.entries.to_string().into(),
            times.show_optional(source.newest).into(),
            times.show(source.imported).into(),
            source.by.as_str().into(),
            source.skipped_count.to_string().into(),
            match &source.damaged {
                Some(why) => Cell::toned(Tone::Bad, format!("cannot be read: {why}")),
                None => "whole".into(),
            },
            source.digest.to_string().into(),
        ]);
    }
    Answer::of(page)
        .names(page.items.iter().map(|source| source.name.clone()))
        .table(table, "no advisories yet; bring some: fleetctl advisory import PATH")
}

/// Shows one advisory.
pub async fn show(session: &mut Session<'_>, id: &str) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    watching::print(session, async |session| Ok(one(&client.advisory(id).await?, &session.times()))).await
}

fn one(advisory: &AdvisoryView, times: &Times) -> Answer {
    let mut fields = vec![
        ("advisory", Cell::from(advisory.id.as_str())),
        ("cves", advisory.cves.join(", ").into()),
        ("summary", advisory.summary.as_str().into()),
        ("published", times.show_optional(advisory.published).into()),
        ("modified", times.show_optional(advisory.modified).into()),
        ("file", advisory.file.as_str().into()),
        ("found on", format!("{} nodes", advisory.nodes).into()),
    ];
    if let Some(withdrawn) = advisory.withdrawn {
        fields.push(("withdrawn", Cell::toned(Tone::Warn, times.show(withdrawn))));
    }
    if let Some(since) = advisory.exploited {
        fields.push(("exploited", Cell::toned(Tone::Bad, format!("known since {}", times.show(since)))));
    }
    let mut scores = Table::new(&[
        Column::whole("SCORE"),
        Column::whole("COUNTS"),
        Column::whole("BY"),
        Column::text("VECTOR"),
    ]);
    for score in &advisory.scores {
        scores.row([
            score.score.clone().unwrap_or_else(|| "unreadable".to_owned()).into(),
            if score.counts { "yes".into() } else { "no".into() },
            score.by.as_str().into(),
            score.vector.as_str().into(),
        ]);
    }
    let mut affected = Table::new(&[Column::text("AFFECTED")]);
    for line in &advisory.affected {
        affected.row([line.as_str().into()]);
    }
    Answer::of(advisory)
        .name(advisory.id.as_str())
        .block(Block::Fields(fields))
        .block(Block::Gap)
        .table(scores, "no score: its deadline goes by the lane of unknown ones")
        .block(Block::Gap)
        .table(affected, "no package that nodes can have")
}
