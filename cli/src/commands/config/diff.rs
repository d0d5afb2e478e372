//! `fleetctl config diff`.

use std::path::PathBuf;

use fleet_documents::{Parsed, ParsedSet, to_canonical_json};
use fleet_types::digest::Digest;
use fleet_types::document::DocumentKind;
use fleet_types::view::DocumentItem;
use serde::Serialize;

use super::difference::{Difference, differences};
use super::read::{applied_documents, checked};
use crate::client::Client;
use crate::commands::files;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Tone, units};
use crate::session::Session;

#[derive(Serialize)]
struct Diff {
    items: Vec<Item>,
}

/// A document of the files beside the newest that is applied.
#[derive(Serialize)]
struct Item {
    kind: DocumentKind,
    name: String,
    /// What apply would say: `created`, `updated`, `unchanged`.
    action: &'static str,
    /// The newest revision; 0 where there is none.
    revision: u32,
    changes: Vec<Difference>,
}

/// Shows what apply would change; signs and stores nothing.
pub async fn diff(session: &mut Session<'_>, paths: &[PathBuf], detailed: bool) -> Result<ExitCode, Failure> {
    let texts = files::read(paths)?;
    let client = session.connect().await?;
    let set = checked(&texts, &applied_documents(&client).await?)?;
    let (answer, changed) = of_documents(&client, &set).await?;
    session.print(&answer)?;
    Ok(if detailed && changed > 0 { ExitCode::Differences } else { ExitCode::Done })
}

/// What applying them would change, value by value, and in how many of them.
pub async fn of_documents(client: &Client, set: &ParsedSet) -> Result<(Answer, usize), Failure> {
    let mut applied: Vec<DocumentItem> = Vec::new();
    for kind in DocumentKind::ALL {
        applied.extend(client.documents(Some(kind)).await?.items);
    }
    let mut items = Vec::new();
    for parsed in &set.documents {
        items.push(item(client, &applied, parsed).await?);
    }
    let changed = items.iter().filter(|item| item.action != "unchanged").count();
    Ok((answer(Diff { items }, changed), changed))
}

async fn item(client: &Client, applied: &[DocumentItem], parsed: &Parsed) -> Result<Item, Failure> {
    let (kind, name) = (parsed.document.kind(), parsed.document.name().to_string());
    let is_it = |item: &&DocumentItem| item.kind == kind.as_str() && item.name == name;
    let Some(newest) = applied.iter().find(is_it) else {
        return Ok(Item { kind, name, action: "created", revision: 0, changes: Vec::new() });
    };
    let bytes = to_canonical_json(&parsed.document)
        .map_err(|error| Failure::usage(format!("{} cannot be written", parsed.file)).because(&error))?;
    let revision = newest.revision;
    if Digest::of(&bytes) == newest.digest {
        return Ok(Item { kind, name, action: "unchanged", revision, changes: Vec::new() });
    }
    let before = client.document(kind, &name, revision).await?.content;
    let changes = differences(&before, &parsed.value);
    Ok(Item { kind, name, action: "updated", revision, changes })
}

fn answer(diff: Diff, changed: usize) -> Answer {
    let of = units::count(diff.items.len(), "document");
    let changing = diff.items.iter().filter(|item| item.action != "unchanged");
    let names = changing.map(|item| format!("{}/{}", item.kind, item.name));
    let mut answer = Answer::local("fleet/v1/diff", &diff).names(names);
    for Item { kind, name, action, revision, changes } in diff.items {
        let (tone, head) = match action {
            "created" => (Tone::Good, format!("created {kind} {name}")),
            "updated" => (Tone::Head, format!("updated {kind} {name}, now revision {revision}")),
            _ => (Tone::Dim, format!("{action} {kind} {name}, revision {revision}")),
        };
        answer = answer.block(Block::Toned(tone, head));
        for Difference { path, before, after } in changes {
            let (tone, line) = match (before, after) {
                (Some(before), Some(after)) => (Tone::Warn, format!("  ~ {path}: {before} -> {after}")),
                (Some(before), None) => (Tone::Bad, format!("  - {path}: {before}")),
                (None, after) => (Tone::Good, format!("  + {path}: {}", after.unwrap_or_default())),
            };
            answer = answer.block(Block::Toned(tone, line));
        }
    }
    answer.line(format!("{changed} of {of} would change"))
}
