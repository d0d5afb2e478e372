//! Answers that come in pieces.

use fleet_proto::pb;
use fleet_types::id::{Name, RunId};
use fleet_types::view::RunWatch;
use tonic::Streaming;

use super::connection::{Client, read_view};
use crate::error::Failure;

/// Changes of a run until it ends.
pub struct RunChanges {
    client: Client,
    stream: Streaming<pb::View>,
}

/// Output of a job.
pub struct OutputParts {
    client: Client,
    stream: Streaming<pb::OutputPart>,
}

/// Stored records of the audit log.
pub struct AuditRecords {
    client: Client,
    stream: Streaming<pb::AuditLeaf>,
}

/// Bytes that a step wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The step.
    pub step: String,
    /// Where in the step's output they stand.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Client {
    /// Watches a run; begins with its present state.
    pub async fn watch_run(&self, run: RunId) -> Result<RunChanges, Failure> {
        let mut service = self.service();
        let stream = self.streamed(service.watch_run(pb::RunRequest { run: run.to_string() })).await?;
        Ok(RunChanges { client: self.clone(), stream })
    }

    /// Reads a job's output: one step from an offset, or with an empty `step` all of them from their beginning.
    pub async fn read_output(
        &self,
        job: (RunId, &Name),
        step: &str,
        offset: u64,
        follow: bool,
    ) -> Result<OutputParts, Failure> {
        let request = pb::ReadOutputRequest {
            run: job.0.to_string(),
            node: job.1.to_string(),
            step: step.to_owned(),
            offset,
            follow,
        };
        let mut service = self.service();
        let stream = self.streamed(service.read_output(request)).await?;
        Ok(OutputParts { client: self.clone(), stream })
    }

    /// Reads the stored bytes of records `from..to`.
    pub async fn read_audit(&self, from: u64, to: u64) -> Result<AuditRecords, Failure> {
        let mut service = self.service();
        let stream = self.streamed(service.read_audit(pb::ReadAuditRequest { from, to })).await?;
        Ok(AuditRecords { client: self.clone(), stream })
    }
}

impl RunChanges {
    /// The next change, however long it takes; none at the end.
    pub async fn next(&mut self) -> Result<Option<RunWatch>, Failure> {
        let message = self.client.next_of_quiet(&mut self.stream).await?;
        message.map(|message| read_view(&message.json)).transpose()
    }
}

impl OutputParts {
    /// The next part, however long it takes; none at the end.
    pub async fn next(&mut self) -> Result<Option<Part>, Failure> {
        let message = self.client.next_of_quiet(&mut self.stream).await?;
        Ok(message.map(|part| Part { step: part.step, offset: part.offset, data: part.data }))
    }
}

impl AuditRecords {
    /// The next record with its index, within the limit of a call; none at the end.
    pub async fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, Failure> {
        let message = self.client.next(&mut self.stream).await?;
        Ok(message.map(|leaf| (leaf.index, leaf.record)))
    }
}
