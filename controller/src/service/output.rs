//! Output of steps: kept in files beside the store, head and tail, never in the way of results.
//!
//! One file a step holds what arrived in order; offsets make resends harmless. At most
//! [`MAX_STEP_BYTES`] a step are kept here: the node sends head and tail and marks what it dropped.

use std::io::SeekFrom;
use std::path::PathBuf;

use fleet_types::document::Document;
use fleet_types::id::{Attempt, NodeId, RunId};
use tokio::fs::{self, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::documents;
use crate::context::Context;
use crate::error::{ControllerError, Kind, Result};
use crate::repo::keys;
use crate::repo::records::RunRecord;

/// Kept of one step's output; the node's own limit is the same by default.
pub const MAX_STEP_BYTES: u64 = 2 * 1024 * 1024;
/// Bytes an agent may have under way for one step: a few chunks, so that ten thousand agents that talk at
/// once stay within a few hundred MiB of socket buffers.
pub const CREDIT: u32 = 256 * 1024;

/// Which output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputOf {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: NodeId,
    /// The attempt.
    pub attempt: Attempt,
    /// The step's id.
    pub step: String,
}

impl OutputOf {
    fn directory(&self, context: &Context) -> PathBuf {
        directory(context, self.run, self.node, self.attempt)
    }

    /// Ids of steps are kebab-case; anything else would be a path of somebody's making.
    fn file(&self, context: &Context) -> Result<PathBuf> {
        let good = (1..=128).contains(&self.step.len())
            && self
                .step
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if !good {
            return Err(ControllerError::invalid("output.step", "not the id of a step"));
        }
        Ok(self.directory(context).join(format!("{}.log", self.step)))
    }
}

fn directory(context: &Context, run: RunId, node: NodeId, attempt: Attempt) -> PathBuf {
    context.output_directory.join(run.to_string()).join(node.to_string()).join(attempt.0.to_string())
}

fn io(error: std::io::Error) -> ControllerError {
    ControllerError {
        source: Some(Box::new(error)),
        ..ControllerError::new(Kind::Unavailable, "output-failed", "the output of a step cannot be kept")
    }
}

/// Appends a chunk; returns up to where the output is stored. A chunk that was stored before, or that lies
/// beyond what is stored, changes nothing: the caller sends from the returned offset.
pub async fn append(context: &Context, of: &OutputOf, offset: u64, data: &[u8]) -> Result<u64> {
    let path = of.file(context)?;
    fs::create_dir_all(of.directory(context)).await.map_err(io)?;
    let mut file = OpenOptions::new().create(true).append(true).open(&path).await.map_err(io)?;
    let length = file.metadata().await.map_err(io)?.len();
    // Beyond the limit everything counts as taken, so that the node goes on; else a gap is asked for again.
    if length >= MAX_STEP_BYTES {
        return Ok(offset + data.len() as u64);
    }
    if offset > length {
        return Ok(length);
    }
    let skip = usize::try_from(length - offset).unwrap_or(usize::MAX);
    let room = usize::try_from(MAX_STEP_BYTES.saturating_sub(length)).unwrap_or(usize::MAX);
    let fresh = data.get(skip..).unwrap_or_default();
    let kept = &fresh[..fresh.len().min(room)];
    file.write_all(kept).await.map_err(io)?;
    file.flush().await.map_err(io)?;
    Ok(length.max(offset + data.len() as u64))
}

/// Steps of a job that have output, in the order of their procedure.
pub async fn steps(context: &Context, run: RunId, node: NodeId, attempt: Attempt) -> Result<Vec<String>> {
    let mut steps = Vec::new();
    let Ok(mut entries) = fs::read_dir(directory(context, run, node, attempt)).await else {
        return Ok(steps);
    };
    while let Some(entry) = entries.next_entry().await.map_err(io)? {
        if let Some(step) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".log")) {
            steps.push(step.to_owned());
        }
    }
    let order = order(context, run).await?;
    steps.sort_by_cached_key(|step| {
        (order.iter().position(|id| id == step).unwrap_or(usize::MAX), step.clone())
    });
    Ok(steps)
}

/// Ids of a run's steps, undo and final entries in the order written; empty when the run is unknown here.
async fn order(context: &Context, run: RunId) -> Result<Vec<String>> {
    let Some(record) = context.repo.get::<RunRecord>(&keys::run(run)?).await? else { return Ok(Vec::new()) };
    let Document::Procedure(procedure) = documents::document(context, record.record.procedure_digest).await?
    else {
        return Ok(Vec::new());
    };
    let undo = procedure.rollback.iter().chain(&procedure.finally).map(|entry| entry.id.to_string());
    Ok(procedure.steps.iter().map(|step| step.id.to_string()).chain(undo).collect())
}

/// Up to 64 KiB from an offset; empty at the end of what is stored.
pub async fn read(context: &Context, of: &OutputOf, offset: u64) -> Result<Vec<u8>> {
    let Ok(mut file) = fs::File::open(of.file(context)?).await else { return Ok(Vec::new()) };
    file.seek(SeekFrom::Start(offset)).await.map_err(io)?;
    let mut data = vec![0; fleet_proto::MAX_CONTROL_BYTES / 2];
    let read = file.read(&mut data).await.map_err(io)?;
    data.truncate(read);
    Ok(data)
}
