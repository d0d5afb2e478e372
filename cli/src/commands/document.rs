//! `fleetctl procedure|profile|schedule list|show`.

use fleet_types::document::DocumentKind;
use fleet_types::view::{DocumentItem, DocumentView, Page};

use crate::args::DocumentCommand;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Column, Table, Times};
use crate::session::Session;

/// Lists or shows documents of one kind.
pub async fn run(
    session: &mut Session<'_>,
    kind: DocumentKind,
    command: &DocumentCommand,
) -> Result<ExitCode, Failure> {
    let client = session.connect().await?;
    let answer = match command {
        DocumentCommand::List => {
            let page = client.documents(Some(kind)).await?;
            list_answer(&page, kind, &session.times())
        }
        DocumentCommand::Show { name, revision } => {
            let document = client.document(kind, name.as_str(), revision.unwrap_or_default()).await?;
            show_answer(&document, &session.times())
        }
    };
    session.print(&answer)?;
    Ok(ExitCode::Done)
}

fn list_answer(page: &Page<DocumentItem>, kind: DocumentKind, times: &Times) -> Answer {
    let mut table = Table::new(&[
        Column::whole("NAME"),
        Column::number("REVISION"),
        Column::number("VERSION"),
        Column::whole("APPLIED"),
        Column::whole("SIGNED BY"),
        Column::text("DESCRIPTION"),
        Column::whole("DIGEST").wide(),
    ]);
    for document in &page.items {
        table.row([
            document.name.as_str().into(),
            document.revision.to_string().into(),
            document.version.map_or_else(|| "-".to_owned(), |version| version.to_string()).into(),
            times.show(document.applied).into(),
            document.signed_by.as_str().into(),
            document.description.as_str().into(),
            document.digest.to_string().into(),
        ]);
    }
    let empty = format!("no {kind} is applied; fleetctl config apply FILES");
    Answer::of(page).names(page.items.iter().map(|document| document.name.clone())).table(table, &empty)
}

fn show_answer(document: &DocumentView, times: &Times) -> Answer {
    let item = &document.item;
    let head = format!(
        "# {} {} revision {}, applied {} by {}, digest {}",
        item.kind,
        item.name,
        item.revision,
        times.show(item.applied),
        item.signed_by,
        item.digest.short(),
    );
    // The head is a comment, so that the whole can be saved as a file again.
    let answer = Answer::of(document).name(&item.name).block(Block::Line(head));
    document.source.lines().fold(answer, |answer, line| answer.block(Block::Line(line.replace('\t', "    "))))
}
