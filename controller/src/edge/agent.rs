//! The agents' service: the session, documents by digest, output of steps, renewal of their certificates.
//!
//! An agent may only speak for the node of its certificate; which documents it may fetch follows from its
//! own inbox (security-and-delivery §1.12).

use std::sync::Arc;

use fleet_proto::convert::{self, FieldError};
use fleet_proto::pb;
use fleet_proto::pb::agent_service_server::AgentService;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, NodeId};
use fleet_types::time::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::session::Session;
use super::status::{to_status, unreadable};
use super::{peer, refusals::Refusals};
use crate::context::{Context, Storage};
use crate::error::{ControllerError, Kind, Result};
use crate::repo::copy_files::Progress;
use crate::repo::jobs::{self, InboxRecord};
use crate::repo::output_files::OutputOf;
use crate::repo::runs::{self, RunRecord};
use crate::service::output::{self, Allowed};
use crate::service::{caller::Agent, certificates, copies, documents, packages};

/// Messages to a node that are under way: more would only wait in HTTP/2's window.
const OUTGOING: usize = 32;
/// Answers under way.
const ANSWERS: usize = 8;
/// Largest piece of a copy.
const MAX_PIECE_BYTES: usize = 256 * 1024;
/// What nobody guesses, and no more than that.
const NONCE_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// Serves agents.
pub struct Agents {
    /// Shared handles.
    pub context: Arc<Context>,
    /// Counts what is refused inside a session.
    pub refusals: Arc<Refusals>,
    /// Ends every session.
    pub stop: CancellationToken,
    /// Sessions, so that a drain can wait for them.
    pub tracker: TaskTracker,
}

type Out<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = Out<pb::ControllerMessage>;
    type OutputStream = Out<pb::OutputStored>;

    async fn session(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (agent, identity) = peer::agent(&self.context.memory, &self.context.settings, &request)?;
        let (out, stream) = mpsc::channel(OUTGOING);
        let (context, refusals) = (Arc::clone(&self.context), Arc::clone(&self.refusals));
        let session = Session { context, agent, identity, out, refusals };
        self.tracker.spawn(session.run(request.into_inner(), self.stop.clone()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_document(
        &self,
        request: Request<pb::FetchDocumentRequest>,
    ) -> Result<Response<pb::FetchDocumentReply>, Status> {
        let (agent, _) = peer::agent(&self.context.memory, &self.context.settings, &request)?;
        let wanted = digest_field(&request.get_ref().digest).map_err(to_status)?;
        let envelope = fetch(&self.context.storage, agent.node, wanted).await.map_err(to_status)?;
        Ok(Response::new(pb::FetchDocumentReply { envelope }))
    }

    /// No store is asked: the question is whether the way is open, also while the store is busy.
    async fn confirm(
        &self,
        request: Request<pb::ConfirmRequest>,
    ) -> Result<Response<pb::ConfirmReply>, Status> {
        peer::agent(&self.context.memory, &self.context.settings, &request)?;
        let nonce = request.into_inner().nonce;
        if !NONCE_BYTES.contains(&nonce.len()) {
            return Err(Status::invalid_argument("nonce: give 16 to 64 bytes"));
        }
        Ok(Response::new(pb::ConfirmReply { nonce }))
    }

    async fn put_copy(&self, request: Request<pb::CopyPiece>) -> Result<Response<pb::CopyTaken>, Status> {
        let (agent, _) = peer::agent(&self.context.memory, &self.context.settings, &request)?;
        let taken = take_copy(&self.context, &agent, request.into_inner()).await.map_err(|error| {
            if error.kind == Kind::Refused {
                self.refusals.count_actor("copy", agent.actor(), &error.detail.message);
            }
            to_status(error)
        })?;
        Ok(Response::new(taken))
    }

    async fn put_packages(
        &self,
        request: Request<pb::Packages>,
    ) -> Result<Response<pb::PackagesTaken>, Status> {
        let (agent, _) = peer::agent(&self.context.memory, &self.context.settings, &request)?;
        let r = request.into_inner();
        let list = convert::digest("packages.list_sha256", &r.list_sha256);
        let list = list.map_err(|error| to_status(error.into()))?;
        let arrived = packages::Arrived { list, state: r.state, packed: r.list };
        let taken = packages::take(&self.context, &agent, arrived).await.map_err(to_status)?;
        Ok(Response::new(pb::PackagesTaken { wants_list: taken == packages::Taken::WantsList }))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewReply>, Status> {
        let (agent, _) = peer::agent(&self.context.memory, &self.context.settings, &request)?;
        let csr = request.into_inner().csr;
        let certificate_chain =
            certificates::renew_node(&self.context, &agent, &csr, "node.renew").await.map_err(to_status)?;
        Ok(Response::new(pb::RenewReply { certificate_chain }))
    }

    async fn output(
        &self,
        request: Request<Streaming<pb::OutputChunk>>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        let (agent, _) = peer::agent(&self.context.memory, &self.context.settings, &request)?;
        let permit = peer::permit(&self.context.storage, &self.context.identities, &request, &self.stop)?;
        let (out, stream) = mpsc::channel(ANSWERS);
        let (context, refusals) = (Arc::clone(&self.context), Arc::clone(&self.refusals));
        self.tracker.spawn(async move {
            let work = async {
                if let Err(status) =
                    store_output(&context, &agent, &refusals, request.into_inner(), &out).await
                {
                    // The agent has gone when nobody takes it.
                    let _ = out.send(Err(status)).await;
                }
            };
            permit.hold(&out, work).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn digest_field(bytes: &[u8]) -> Result<Digest> {
    convert::digest("digest", bytes).map_err(|error: FieldError| error.into())
}

/// A signed text, if one of the node's own jobs names it.
async fn fetch(storage: &Storage, node: NodeId, wanted: Digest) -> Result<Vec<u8>> {
    let prefix = jobs::inbox(node);
    for (key, entry) in storage.repo.all::<InboxRecord>(&prefix).await? {
        let mut named = entry.record.authority.digest() == wanted;
        if !named
            && let Some(run) = runs::run_in(&key, &prefix)
            && let Some(run) = storage.repo.get::<RunRecord>(&runs::key(run)?).await?
        {
            let (rollout, tick) = (run.record.rollout.as_ref(), run.record.schedule.as_ref());
            let named_by_run = [
                Some(run.record.procedure_digest),
                Some(run.record.profile_digest),
                rollout.map(|rollout| rollout.policy_digest),
                tick.map(|tick| tick.order),
                tick.map(|tick| tick.file),
            ];
            named = named_by_run.contains(&Some(wanted));
        }
        if named {
            let envelope = documents::envelope(storage, wanted).await?;
            return serde_json::to_vec(&envelope).map_err(ControllerError::internal);
        }
    }
    Err(ControllerError::new(
        Kind::Refused,
        "not-your-document",
        "none of this node's jobs names this document",
    ))
}

async fn store_output(
    context: &Context,
    agent: &Agent,
    refusals: &Refusals,
    mut chunks: Streaming<pb::OutputChunk>,
    out: &mpsc::Sender<Result<pb::OutputStored, Status>>,
) -> Result<(), Status> {
    let mut allowed = Allowed::default();
    while let Some(chunk) = chunks.next().await {
        let stored =
            take_chunk(context, agent, &mut allowed, chunk.map_err(unreadable)?).await.map_err(|error| {
                if error.kind == Kind::Refused {
                    refusals.count_actor("output", agent.actor(), &error.detail.message);
                }
                to_status(error)
            })?;
        if out.send(Ok(stored)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn take_copy(context: &Context, agent: &Agent, piece: pb::CopyPiece) -> Result<pb::CopyTaken> {
    if piece.data.len() > MAX_PIECE_BYTES {
        return Err(ControllerError::invalid("copy.data", "larger than 256 KiB"));
    }
    if Digest::of(&piece.data).as_bytes().as_slice() != piece.data_sha256 {
        return Err(ControllerError::invalid("copy.data_sha256", "not the digest of the data"));
    }
    let arrived = copies::Arrived {
        made: Timestamp::clamped(piece.made_ms),
        archive: convert::digest("copy.archive", &piece.archive)?,
        sha256: convert::digest("copy.sha256", &piece.sha256)?,
        offset: piece.offset,
        data: piece.data,
    };
    let progress = copies::take(context, agent, arrived).await?;
    let (offset, kept) = match progress {
        Progress::At(offset) => (offset, false),
        Progress::Whole => (0, true),
    };
    Ok(pb::CopyTaken { sha256: piece.sha256, offset, kept })
}

async fn take_chunk(
    context: &Context,
    agent: &Agent,
    allowed: &mut Allowed,
    chunk: pb::OutputChunk,
) -> Result<pb::OutputStored> {
    if chunk.data.len() > fleet_proto::MAX_CONTROL_BYTES {
        return Err(ControllerError::invalid("output.data", "larger than 64 KiB"));
    }
    let of = OutputOf {
        run: convert::text("output.run", &chunk.run)?,
        node: agent.node,
        attempt: Attempt(chunk.attempt),
        step: chunk.step,
    };
    allowed.check(context, agent, &of).await?;
    let offset = output::append(&context.files, &of, chunk.offset, chunk.data, chunk.last).await?;
    Ok(pb::OutputStored { run: chunk.run, attempt: chunk.attempt, step: of.step, offset })
}

#[cfg(test)]
mod tests {
    use fleet_types::authority::Authority;
    use fleet_types::id::{RunId, Stage};
    use fleet_types::seal::{Envelope, Kind as SealKind};

    use super::*;
    use crate::repo;
    use crate::repo::reader::BatchExt as _;
    use crate::repo::runs::TickRecord;
    use crate::testing::{TestContext, agent, run_record};

    #[tokio::test]
    async fn a_node_gets_what_its_own_jobs_name_and_nothing_else() {
        let test = TestContext::new().await;
        let (storage, run) = (&test.context.storage, RunId::from_number(1));
        let texts = ["request", "procedure", "profile", "order", "schedules", "of nobody"];
        let sealed = texts.map(|text| Envelope {
            kind: SealKind::Document,
            payload: text.as_bytes().to_vec(),
            key: Digest::of(b"key"),
            signature: vec![],
        });
        let digests = sealed.each_ref().map(Envelope::digest);
        let [request, procedure_digest, profile_digest, order, file, _] = digests;
        let now = storage.clock.now();
        let schedule = Some(TickRecord { schedule: "edge/daily".to_owned(), at: now, order, file });
        let authority = Authority::Tick(request);
        let record =
            RunRecord { authority, schedule, procedure_digest, profile_digest, ..run_record(run, now) };
        let job = InboxRecord {
            stage: Stage::FIRST,
            attempt: Attempt(1),
            authority,
            node_index: 0,
            node_path: vec![],
        };
        let mut batch = storage.audited.batch().put_record(runs::key(run).unwrap(), &record).unwrap();
        batch = batch.put_record(jobs::inbox_entry(agent(1).node, run).unwrap(), &job).unwrap();
        for (envelope, digest) in sealed.iter().zip(&digests) {
            let stored = serde_json::to_vec(envelope).unwrap();
            batch = batch.put_object(&repo::documents::content(digest).unwrap(), &stored).unwrap();
        }
        storage.audited.commit(batch, vec![]).await.unwrap();
        for (text, digest) in texts.iter().zip(digests) {
            let given = fetch(storage, agent(1).node, digest).await.map(|bytes| Digest::of(&bytes));
            assert_eq!(given.is_ok(), *text != "of nobody", "{text}");
            assert!(fetch(storage, agent(2).node, digest).await.is_err(), "{text}");
        }
    }
}
