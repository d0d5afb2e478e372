//! `fleetctl backup diff`: what differs between two archives, by the listings that their nodes printed.
//!
//! No node is asked: the listing is output of the step that made the archive, and the node's signed report has its digest
//! (docs/adr/0033). It must never pass a listing that is not whole for a whole one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::listing::{self, Entry, EntryKind};
use fleet_types::report::StepReport;
use fleet_types::view::BackupItem;
use serde::Serialize;

use super::which::{Which, day_of};
use crate::client::Client;
use crate::error::{ExitCode, Failure};
use crate::render::{Answer, Block, Times, Tone, units};
use crate::session::Session;

/// Most that is read of a step: what controllers keep of one.
const MAX_OUTPUT_BYTES: usize = 2 * 1024 * 1024;

#[derive(Serialize)]
struct Diff {
    from: BackupItem,
    to: BackupItem,
    added: usize,
    gone: usize,
    changed: usize,
    same: usize,
    items: Vec<Item>,
}

/// An entry that is not the same in both.
#[derive(Serialize)]
struct Item {
    path: String,
    /// `added`, `gone` or `changed`.
    action: &'static str,
    /// What differs: `kind`, `mode`, `owner`, `size`, `content`, `target`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Entry>,
}

/// Compares two archives, or one with the one before it.
pub async fn diff(
    session: &mut Session<'_>,
    from: &str,
    to: Option<&str>,
    detailed: bool,
) -> Result<ExitCode, Failure> {
    let (first, second) = (Which::parse(from)?, to.map(Which::parse).transpose()?);
    let client = session.connect().await?;
    let (archives, place) = first.find(&client).await?;
    let (from, to) = match second {
        Some(second) => {
            let (others, other) = second.find(&client).await?;
            (archives.into_iter().nth(place), others.into_iter().nth(other))
        }
        // Newest first: what lies behind it is older.
        None => (archives.get(place + 1).cloned(), archives.into_iter().nth(place)),
    };
    let (Some(from), Some(to)) = (from, to) else {
        let what = "there is no archive before it to compare it with";
        return Err(Failure::new(ExitCode::NotFound, "not-found", what).fix("name two archives"));
    };
    let (before, after) = (entries(&client, &from).await?, entries(&client, &to).await?);
    let diff = compared((from, before), (to, after));
    let differs = !diff.items.is_empty();
    session.print(&answer(&diff, &session.times()))?;
    Ok(if detailed && differs { ExitCode::Differences } else { ExitCode::Done })
}

/// What an archive holds, as its node said in the output of the newest run that may have listed it, or of the one that made it.
async fn entries(client: &Client, archive: &BackupItem) -> Result<Vec<Entry>, Failure> {
    let listed = match archive.listed_in.filter(|run| *run != archive.run) {
        Some(run) => listed_in(client, archive, run).await.ok(),
        None => None,
    };
    match listed {
        Some(entries) => Ok(entries),
        None => listed_in(client, archive, archive.run).await,
    }
}

async fn listed_in(client: &Client, archive: &BackupItem, run: RunId) -> Result<Vec<Entry>, Failure> {
    let missing = |why: String| {
        let shown = format!("{}/{} of {}", archive.node, archive.backup, day_of(archive.made));
        Failure::new(ExitCode::NotFound, "no-listing", format!("{shown} cannot be compared: {why}"))
            .fix(anew(archive))
    };
    let job = match client.job(run, &archive.node).await {
        Err(failure) if failure.exit == ExitCode::NotFound => {
            return Err(missing(format!("{run}, which listed it, is not kept any more")));
        }
        other => other?,
    };
    let lists = |step: &&StepReport| {
        let names = step.body.artifacts.iter().any(|artifact| artifact.sha256 == archive.sha256);
        names && step.output.is_some()
    };
    let Some(report) = job.report else {
        return Err(missing(format!("the report of {run} is not kept any more")));
    };
    let Some(step) = report.steps.iter().rev().find(lists) else {
        return Err(missing(format!("{run} did not list it")));
    };
    let output = output(client, run, archive, &step.id).await?;
    if output.is_empty() {
        return Err(missing(format!("the output of {run} is not here")));
    }
    if Some(Digest::of(&output)) != step.sent_output() {
        let of = format!("step {} of {run}/{}", step.id, archive.node);
        let what = format!("the output of {of} does not match the report");
        return Err(Failure::new(ExitCode::Verification, "digest-mismatch", what).fix(anew(archive)));
    }
    listing::read(&String::from_utf8_lossy(&output), archive.sha256)
        .map_err(|error| missing(error.to_string()))
}

/// How an archive is listed anew.
fn anew(archive: &BackupItem) -> String {
    let day = day_of(archive.made).strftime("%Y%m%d");
    format!(
        "let the node list it anew: fleetctl run task backup.verify --node {} --with backups={} --with date={day} \
         --with listing=true",
        archive.node, archive.backup
    )
}

async fn output(client: &Client, run: RunId, archive: &BackupItem, step: &str) -> Result<Vec<u8>, Failure> {
    let mut parts = client.read_output((run, &archive.node), step, 0, false).await?;
    let mut output = Vec::new();
    while let Some(part) = parts.next().await? {
        // What does not fit, or is too much, does not have the digest of the report either.
        let fits = part.step == step && part.offset == output.len() as u64;
        if fits && output.len() + part.data.len() <= MAX_OUTPUT_BYTES {
            output.extend(part.data);
        }
    }
    Ok(output)
}

fn compared((from, before): (BackupItem, Vec<Entry>), (to, after): (BackupItem, Vec<Entry>)) -> Diff {
    let by_path = |entries: Vec<Entry>| -> BTreeMap<String, Entry> {
        entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect()
    };
    let (mut before, after) = (by_path(before), by_path(after));
    let (mut items, mut same) = (Vec::new(), 0);
    for (path, now) in after {
        match before.remove(&path) {
            None => {
                items.push(Item { path, action: "added", differs: vec![], before: None, after: Some(now) });
            }
            Some(was) if was == now => same += 1,
            Some(was) => {
                let differs = differs(&was, &now);
                items.push(Item { path, action: "changed", differs, before: Some(was), after: Some(now) });
            }
        }
    }
    items.extend(before.into_iter().map(|(path, was)| Item {
        path,
        action: "gone",
        differs: vec![],
        before: Some(was),
        after: None,
    }));
    items.sort_by(|a, b| a.path.cmp(&b.path));
    let count = |action| items.iter().filter(|item| item.action == action).count();
    let (added, gone, changed) = (count("added"), count("gone"), count("changed"));
    Diff { from, to, added, gone, changed, same, items }
}

fn differs(was: &Entry, now: &Entry) -> Vec<&'static str> {
    let all = [
        ("kind", was.kind != now.kind),
        ("mode", was.mode != now.mode),
        ("owner", was.owner != now.owner),
        ("size", was.size != now.size),
        ("content", was.sha256 != now.sha256),
        ("target", was.target != now.target),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
}

fn answer(diff: &Diff, times: &Times) -> Answer {
    let archive = |item: &BackupItem| format!("{}/{}, {}", item.node, item.backup, times.absolute(item.made));
    let mut answer = Answer::local("fleet/v1/backup-diff", diff)
        .names(diff.items.iter().map(|item| item.path.clone()))
        .line(format!("from {}", archive(&diff.from)))
        .line(format!("to   {}", archive(&diff.to)));
    for Item { path, differs, before, after, .. } in &diff.items {
        let (tone, line) = match (before, after) {
            (Some(was), Some(now)) => (Tone::Warn, format!("  ~ {path}: {}", changes(differs, was, now))),
            (Some(was), None) => (Tone::Bad, format!("  - {path} ({})", described(was))),
            (None, now) => {
                (Tone::Good, format!("  + {path} ({})", now.as_ref().map(described).unwrap_or_default()))
            }
        };
        answer = answer.block(Block::Toned(tone, line));
    }
    let Diff { added, gone, changed, same, .. } = diff;
    answer.line(match diff.items.len() {
        0 => format!("no difference; {} the same", are(*same)),
        _ => format!("{added} added, {gone} gone, {changed} changed; {} the same", are(*same)),
    })
}

fn are(count: usize) -> String {
    if count == 1 { "1 entry is".to_owned() } else { format!("{count} entries are") }
}

fn described(entry: &Entry) -> String {
    let mut text = entry.kind.as_str().to_owned();
    match entry.kind {
        EntryKind::File => text = format!("{text}, {}", units::bytes(entry.size)),
        EntryKind::Table => text = format!("{text}, {} rows", entry.size),
        EntryKind::Directory | EntryKind::Link => {}
    }
    for more in [&entry.mode, &entry.owner].into_iter().flatten() {
        let _ = write!(text, ", {more}");
    }
    match &entry.target {
        Some(target) => format!("{text}, to {target}"),
        None => text,
    }
}

fn changes(differs: &[&'static str], was: &Entry, now: &Entry) -> String {
    let digest = |entry: &Entry| entry.sha256.map(|sha256| sha256.short());
    let value = |entry: &Entry, what: &str| match what {
        "kind" => Some(entry.kind.as_str().to_owned()),
        "mode" => entry.mode.clone(),
        "owner" => entry.owner.clone(),
        "size" => Some(entry.size.to_string()),
        "content" => digest(entry),
        _ => entry.target.clone(),
    };
    let one = |what: &&'static str| {
        let show = |entry| value(entry, what).unwrap_or_else(|| "-".to_owned());
        let word = if *what == "size" && now.kind == EntryKind::Table { "rows" } else { what };
        format!("{word} {} -> {}", show(was), show(now))
    };
    differs.iter().map(one).collect::<Vec<_>>().join(", ")
}
