//! What operators follow: a run as it changes, output as it grows, the bytes of the audit log.
//!
//! Each stream is one task that looks again when something moved, at most a few times a second. A reader that
//! does not take anything blocks its own task alone, and that no longer than its caller may hold it (`permit.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_proto::{convert, pb};
use fleet_types::id::{Attempt, NodeId, RunId};
use fleet_types::view::{JobItem, RunWatch};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

use super::status::to_status;
use crate::context::Context;
use crate::error::Result;
use crate::repo::keys;
use crate::repo::output_files::OutputOf;
use crate::repo::records::JobRecord;
use crate::service::{audit, output, run_views};

/// Looking again costs a read of all jobs: four times a second is live enough for people.
const PAUSE: Duration = Duration::from_millis(250);
/// Looked at even when nothing moved: output of a node arrives without a ring of the runner.
const PERIOD: Duration = Duration::from_secs(5);
/// Output may come after its job's end, over a slow link. It is waited for this long and no longer: what a node
/// cut or dropped never becomes whole.
const LATE_OUTPUT: Duration = Duration::from_secs(10);
/// Jobs a message.
const JOBS_A_MESSAGE: usize = 500;

/// Waits until something moved and the pause is over; false when the reader has gone.
async fn moved<T>(follow: &mut watch::Receiver<u64>, out: &mpsc::Sender<T>) -> bool {
    let earliest = Instant::now() + PAUSE;
    tokio::select! {
        () = out.closed() => return false,
        _ = timeout(PERIOD, follow.changed()) => {}
    }
    // Let changes gather, so that a busy fleet does not mean a busy watcher.
    timeout_at(earliest, out.closed()).await.is_err()
}

/// Sends a run and its changed jobs until it has ended.
pub async fn watch_run(context: Arc<Context>, run: RunId, out: mpsc::Sender<Result<pb::View, Status>>) {
    let mut follow = context.notifier.follow();
    let mut shown: BTreeMap<NodeId, JobItem> = BTreeMap::new();
    let mut last_view = None;
    loop {
        follow.mark_unchanged();
        let picture = match run_views::picture(&context, run).await {
            Ok(picture) => picture,
            Err(error) => {
                let _ = out.send(Err(to_status(error))).await;
                return;
            }
        };
        let ended = picture.view.item.state.is_terminal();
        let changed: Vec<JobItem> =
            picture.jobs.into_iter().filter(|job| shown.get(&job.node) != Some(job)).collect();
        if last_view.as_ref() != Some(&picture.view) || !changed.is_empty() {
            for job in &changed {
                shown.insert(job.node, job.clone());
            }
            last_view = Some(picture.view.clone());
            let mut chunks: Vec<Vec<JobItem>> =
                changed.chunks(JOBS_A_MESSAGE).map(<[JobItem]>::to_vec).collect();
            if chunks.is_empty() {
                chunks.push(Vec::new());
            }
            for jobs in chunks {
                let message =
                    RunWatch { schema: "fleet/v1/run-watch".to_owned(), run: picture.view.clone(), jobs };
                if out.send(Ok(pb::View { json: convert::to_json(&message) })).await.is_err() {
                    return;
                }
            }
        }
        if ended || !moved(&mut follow, &out).await {
            return;
        }
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
    let mut follow = context.notifier.follow();
    let mut offsets: BTreeMap<String, u64> = BTreeMap::new();
    let mut ended = None;
    loop {
        follow.mark_unchanged();
        // Asked before reading: what arrived until the end is then certainly read.
        let going = if reader.follow { is_going(&context, &reader, &mut ended).await } else { Ok(false) };
        let sent = match going {
            Ok(going) => send_new(&context, &reader, &mut offsets, &out).await.map(|()| going),
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
        if !moved(&mut follow, &out).await {
            return;
        }
    }
}

async fn job(context: &Context, reader: &OutputReader) -> Result<Option<JobRecord>> {
    Ok(context.repo.get::<JobRecord>(&keys::job(reader.run, reader.node)?).await?.map(|stored| stored.record))
}

/// Until the job has ended and its output is whole; `ended` is when its end was seen first.
async fn is_going(context: &Context, reader: &OutputReader, ended: &mut Option<Instant>) -> Result<bool> {
    let Some(job) = job(context, reader).await? else { return Ok(false) };
    if job.state.outcome().is_none() {
        return Ok(true);
    }
    let since = *ended.get_or_insert_with(Instant::now);
    let Some(report) = job.report.filter(|_| since.elapsed() < LATE_OUTPUT) else { return Ok(false) };
    Ok(!output::is_complete(context, (reader.run, reader.node, job.attempt), report).await?)
}

async fn send_new(
    context: &Context,
    reader: &OutputReader,
    offsets: &mut BTreeMap<String, u64>,
    out: &mpsc::Sender<Result<pb::OutputPart, Status>>,
) -> Result<()> {
    let attempt = job(context, reader).await?.map_or(Attempt(1), |job| job.attempt);
    let steps = if reader.step.is_empty() {
        output::steps(context, reader.run, reader.node, attempt).await?
    } else {
        vec![reader.step.clone()]
    };
    for step in steps {
        let of = OutputOf { run: reader.run, node: reader.node, attempt, step: step.clone() };
        let start = if reader.step.is_empty() { 0 } else { reader.offset };
        let at = offsets.entry(step.clone()).or_insert(start);
        loop {
            let data = output::read(context, &of, *at).await?;
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
        match audit::bytes(&context, at, to).await {
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
