//! What operators follow: a run as it changes, output as it grows, the bytes of the audit log.
//!
//! Each stream is one task that looks again when something of its own moved, at most a few times a second, and then
//! at what moved alone. A reader that
//! does not take anything blocks its own task alone, and that no longer than its caller may hold it (`permit.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_proto::{convert, pb};
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::view::{JobItem, RunView, RunWatch};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::Status;

use super::status::to_status;
use crate::context::{Context, Files, Memory, Storage};
use crate::error::Result;
use crate::fleet::open_runs::OpenRun;
use crate::repo::jobs::{self, JobRecord};
use crate::repo::output_files::OutputOf;
use crate::service::{audit, output, run_views};

/// Four times a second is live enough for people.
const PAUSE: Duration = Duration::from_millis(250);
/// Looked at even when nothing moved.
const PERIOD: Duration = Duration::from_secs(5);
/// Output may come after its job's end, over a slow link. It is waited for this long and no longer: what a node
/// cut or dropped never becomes whole.
const LATE_OUTPUT: Duration = Duration::from_secs(10);
/// Jobs a message.
const JOBS_A_MESSAGE: usize = 500;

/// Sends a run and its changed jobs until it has ended.
pub async fn watch_run(context: Arc<Context>, run: RunId, out: mpsc::Sender<Result<pb::View, Status>>) {
    if let Err(error) = follow_run(&context.storage, &context.memory, run, &out).await {
        let _ = out.send(Err(to_status(error))).await;
    }
}

/// Until the run has ended or the reader has gone.
async fn follow_run(
    storage: &Storage,
    memory: &Memory,
    run: RunId,
    out: &mpsc::Sender<Result<pb::View, Status>>,
) -> Result<()> {
    let (mut seen, mut shown, mut last) = (0, None, None::<Arc<OpenRun>>);
    loop {
        let mut published = memory.open_runs.follow();
        // A run that ended is forgotten at once; how it ended is in what was held of it.
        let ended = last.filter(|open| open.read().run.record.state.is_terminal());
        last = memory.open_runs.of(run).or(ended);
        let Some(open) = &last else {
            let view = run_views::brief(storage, memory, run).await?;
            if view.item.state.is_terminal() {
                return send_ended(storage, memory, run, &view, out).await;
            }
            // The runner is about to read it.
            let _ = timeout(PERIOD, published.changed()).await;
            continue;
        };
        let mut newest = open.follow();
        let news = run_views::news(storage, memory, open, seen);
        seen = news.number;
        if !news.jobs.is_empty() || shown.as_ref() != Some(&news.view) {
            let mut parts = news.jobs.chunks(JOBS_A_MESSAGE);
            // Without a changed job the run alone.
            let first = parts.next().unwrap_or_default();
            for jobs in std::iter::once(first).chain(parts) {
                if !send(out, &news.view, jobs.to_vec()).await {
                    return Ok(());
                }
            }
        }
        let change = async {
            tokio::select! {
                _ = newest.changed() => {}
                // The run may have been read anew.
                _ = published.changed() => {}
            }
        };
        if news.view.item.state.is_terminal() || !moved(change, out).await {
            return Ok(());
        }
        // Let changes gather, so that a busy fleet does not mean a busy watcher; the end is told at once.
        let _ = timeout(PAUSE, newest.wait_for(|newest| newest.ended)).await;
        shown = Some(news.view);
    }
}

async fn send(out: &mpsc::Sender<Result<pb::View, Status>>, run: &RunView, jobs: Vec<JobItem>) -> bool {
    let message = RunWatch { schema: "fleet/v1/run-watch".to_owned(), run: run.clone(), jobs };
    out.send(Ok(pb::View { json: convert::to_json(&message) })).await.is_ok()
}

/// A run that had ended before it was looked at.
async fn send_ended(
    storage: &Storage,
    memory: &Memory,
    run: RunId,
    view: &RunView,
    out: &mpsc::Sender<Result<pb::View, Status>>,
) -> Result<()> {
    let mut after = String::new();
    loop {
        let page = run_views::jobs_page(storage, memory, run, &after, JOBS_A_MESSAGE).await?;
        if !send(out, view, page.items).await {
            return Ok(());
        }
        match page.next {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

/// Waits for a change, no longer than a period; false when the reader has gone.
async fn moved<T>(change: impl Future, out: &mpsc::Sender<T>) -> bool {
    tokio::select! {
        () = out.closed() => false,
        _ = timeout(PERIOD, change) => true,
    }
}

/// Which output to read.
pub struct OutputReader {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// One step, or empty for all.
    pub step: String,
    /// Where to begin, with one step.
    pub offset: u64,
    /// Go on until the job has ended?
    pub follow: bool,
}

/// Sends what is stored, and what comes while the job goes on when it is followed.
pub async fn read_output(
    context: Arc<Context>,
    reader: OutputReader,
    out: mpsc::Sender<Result<pb::OutputPart, Status>>,
) {
    let mut grown = context.files.output.follow();
    let mut offsets: BTreeMap<String, u64> = BTreeMap::new();
    let mut ended = None;
    loop {
        let open = context.memory.open_runs.of(reader.run);
        let mut newest = open.as_ref().map(|open| open.follow());
        grown.mark_unchanged();
        // Asked before reading: what arrived until the end is then certainly read.
        let going = if reader.follow {
            is_going(&context.storage, &context.files, &reader, &mut ended).await
        } else {
            Ok(false)
        };
        let sent = match going {
            Ok(going) => {
                send_new(&context.storage, &context.files, &reader, &mut offsets, &out).await.map(|()| going)
            }
            Err(error) => Err(error),
        };
        match sent {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                let _ = out.send(Err(to_status(error))).await;
                return;
            }
        }
        let job_moved = async {
            match &mut newest {
                Some(newest) => drop(newest.changed().await),
                None => std::future::pending().await,
            }
        };
        let change = async {
            tokio::select! {
                _ = grown.changed() => {}
                () = job_moved => {}
            }
        };
        // Let output gather.
        if !moved(change, &out).await || timeout(PAUSE, out.closed()).await.is_ok() {
            return;
        }
    }
}

async fn job(storage: &Storage, reader: &OutputReader) -> Result<Option<JobRecord>> {
    Ok(storage.repo.get::<JobRecord>(&jobs::key(reader.run, reader.node)?).await?.map(|stored| stored.record))
}

/// Until the job has ended and its output is whole; `ended` is when its end was seen first.
async fn is_going(
    storage: &Storage,
    files: &Files,
    reader: &OutputReader,
    ended: &mut Option<Instant>,
) -> Result<bool> {
    let Some(job) = job(storage, reader).await? else { return Ok(false) };
    if job.state.outcome().is_none() {
        return Ok(true);
    }
    let since = *ended.get_or_insert_with(Instant::now);
    let Some(report) = job.report.filter(|_| since.elapsed() < LATE_OUTPUT) else { return Ok(false) };
    Ok(!output::is_complete(storage, files, (reader.run, reader.node, job.attempt), report).await?)
}

async fn send_new(
    storage: &Storage,
    files: &Files,
    reader: &OutputReader,
    offsets: &mut BTreeMap<String, u64>,
    out: &mpsc::Sender<Result<pb::OutputPart, Status>>,
) -> Result<()> {
    let attempt = job(storage, reader).await?.map_or(Attempt(1), |job| job.attempt);
    let steps = if reader.step.is_empty() {
        output::steps(storage, files, reader.run, reader.node, attempt).await?
    } else {
        vec![reader.step.clone()]
    };
    for step in steps {
        let of = OutputOf { run: reader.run, node: reader.node, attempt, step: step.clone() };
        let start = if reader.step.is_empty() { 0 } else { reader.offset };
        let at = offsets.entry(step.clone()).or_insert(start);
        loop {
            let data = output::read(files, &of, *at).await?;
            if data.is_empty() {
                break;
            }
            let length = data.len() as u64;
            if out.send(Ok(pb::OutputPart { step: step.clone(), offset: *at, data })).await.is_err() {
                return Ok(());
            }
            *at += length;
        }
    }
    Ok(())
}

/// Sends the stored bytes of records `from..to`.
pub async fn read_audit(
    context: Arc<Context>,
    from: u64,
    to: u64,
    out: mpsc::Sender<Result<pb::AuditLeaf, Status>>,
) {
    let mut at = from;
    while at < to {
        match audit::bytes(&context.storage, at, to).await {
            Ok(page) if page.is_empty() => return,
            Ok(page) => {
                for (index, record) in page {
                    at = index + 1;
                    if out.send(Ok(pb::AuditLeaf { index, record })).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                let _ = out.send(Err(to_status(error))).await;
                return;
            }
        }
    }
}
