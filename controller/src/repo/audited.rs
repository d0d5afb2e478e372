//! A commit together with its audit leaves: state and record are one write (security-and-delivery §3.4).
//!
//! Every mutating path of the controller goes through [`AuditedCommits::commit`]. The store's writer assigns the
//! index; the record's bytes are made in that instant, stored and hashed verbatim. Free text is committed to
//! by a salted hash and kept beside the log.

use std::collections::BTreeMap;

use fleet_store::{Batch, LogName, WriteId, commit_resolved};
use fleet_types::audit::{Actor, AuditRecord, Decision, RECORD_VERSION, text_commitment};
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, ControllerId, FleetId, Generation, JobId, RecordId};
use fleet_types::job::Outcome;
use fleet_types::merkle::Frontier;
use fleet_types::seal::base64_bytes;

use serde::{Deserialize, Serialize};

use super::codec::record;
use super::keys::{Made, make};
use super::reader::{BatchExt as _, Repo};
use crate::clock::Clock;
use crate::error::Result;

/// The tree over the audit log, as far as it was worked out: derived, so that no start reads the log from its
/// beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditTreeRecord {
    /// The tree.
    pub tree: Frontier,
}
record!(AuditTreeRecord, "audit tree", 1);

/// Free text of an audit record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditText {
    /// 32 bytes.
    #[serde(with = "base64_bytes")]
    pub salt: Vec<u8>,
    /// The text.
    pub text: String,
}
record!(AuditText, "audit text", 1);

/// The tree over the audit log, as far as it was worked out.
pub fn tree() -> Made {
    make("meta/audit-tree".to_owned())
}

/// The audit log.
pub fn log() -> Result<LogName> {
    Ok(LogName::new("audit/leaf")?)
}

/// Free text of an audit record, kept aside so that it can be erased.
pub fn text(id: RecordId) -> Made {
    make(format!("audit-text/{id}"))
}

/// What a leaf says, before it has a place.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    actor: Actor,
    action: &'static str,
    object: String,
    decision: Decision,
    reason: String,
    idempotency_key: Option<String>,
    subject_digest: Option<Digest>,
    job: Option<JobId>,
    attempt: Option<Attempt>,
    outcome: Option<Outcome>,
    nodes: Option<Digest>,
    detail: BTreeMap<String, String>,
    report: Option<Digest>,
    report_signature: Option<String>,
    text: Option<String>,
}

impl AuditEntry {
    /// Somebody did something to an object.
    pub fn new(actor: Actor, action: &'static str, object: impl Into<String>) -> Self {
        Self {
            actor,
            action,
            object: object.into(),
            decision: Decision::Allowed,
            reason: String::new(),
            idempotency_key: None,
            subject_digest: None,
            job: None,
            attempt: None,
            outcome: None,
            nodes: None,
            detail: BTreeMap::new(),
            report: None,
            report_signature: None,
            text: None,
        }
    }

    /// It was refused, for this reason.
    #[must_use]
    pub fn refused(mut self, reason: impl Into<String>) -> Self {
        self.decision = Decision::Refused;
        self.reason = reason.into();
        self
    }

    /// A stable phrase on how it came.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// The caller's idempotency key.
    #[must_use]
    pub fn idempotency(mut self, key: &str) -> Self {
        self.idempotency_key = (!key.is_empty()).then(|| key.to_owned());
        self
    }

    /// The signed thing that it concerns.
    #[must_use]
    pub fn subject(mut self, digest: Digest) -> Self {
        self.subject_digest = Some(digest);
        self
    }

    /// The job that it concerns.
    #[must_use]
    pub fn job(mut self, job: JobId, attempt: Attempt) -> Self {
        self.job = Some(job);
        self.attempt = Some(attempt);
        self
    }

    /// How a job ended.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// Root of the nodes of a run or wave.
    #[must_use]
    pub fn nodes(mut self, root: Digest) -> Self {
        self.nodes = Some(root);
        self
    }

    /// What a digest stands for, in words. The caller bounds it: a record has at most 4 KiB.
    #[must_use]
    pub fn detail(mut self, key: &str, words: impl Into<String>) -> Self {
        let words = words.into();
        if !words.is_empty() {
            self.detail.insert(key.to_owned(), words);
        }
        self
    }

    /// The node's signed report.
    #[must_use]
    pub fn report(mut self, digest: Digest, signature: &[u8]) -> Self {
        use base64::Engine as _;
        self.report = Some(digest);
        self.report_signature = Some(base64::engine::general_purpose::STANDARD.encode(signature));
        self
    }

    /// Free text, kept beside the log.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.text = (!text.is_empty()).then(|| text.to_owned());
        self
    }
}

/// The controller's own hand, for what it decides without a caller.
pub fn controller_actor(controller: ControllerId) -> Actor {
    Actor {
        role: "controller".to_owned(),
        id: controller.to_string(),
        name: String::new(),
        certificate: None,
        address: String::new(),
    }
}

/// Joins commits to the audit log.
#[derive(Clone)]
pub struct AuditedCommits {
    repo: Repo,
    clock: Clock,
    log: LogName,
    fleet: FleetId,
    controller: ControllerId,
    generation: Generation,
}

impl AuditedCommits {
    /// For one fleet and controller.
    pub fn new(
        repo: Repo,
        clock: Clock,
        fleet: FleetId,
        controller: ControllerId,
        generation: Generation,
    ) -> Result<Self> {
        Ok(Self { repo, clock, log: log()?, fleet, controller, generation })
    }

    /// An empty batch with a fresh id.
    pub fn batch(&self) -> Batch {
        Batch::new(self.clock.write_id())
    }

    /// The controller as an actor.
    pub fn actor(&self) -> Actor {
        controller_actor(self.controller)
    }

    /// Writes a batch and its leaves, or nothing. An unknown outcome is read back before this returns.
    /// Returns the write id, with which the batch's records can be changed later.
    pub async fn commit(&self, mut batch: Batch, leaves: Vec<AuditEntry>) -> Result<WriteId> {
        let time = self.clock.now();
        for leaf in leaves {
            let id = RecordId::from_uuid(self.clock.uuid());
            let text = match &leaf.text {
                Some(text) => {
                    let salt: [u8; 32] = self.clock.random();
                    let record = AuditText { salt: salt.to_vec(), text: text.clone() };
                    batch = batch.put_record(self::text(id)?, &record)?;
                    Some(text_commitment(&salt, text))
                }
                None => None,
            };
            let record = AuditRecord {
                version: RECORD_VERSION,
                log: self.fleet,
                index: 0,
                id,
                time,
                controller: self.controller,
                generation: self.generation,
                actor: leaf.actor,
                action: leaf.action.to_owned(),
                object: leaf.object,
                decision: leaf.decision,
                reason: leaf.reason,
                idempotency_key: leaf.idempotency_key,
                subject_digest: leaf.subject_digest,
                job: leaf.job,
                attempt: leaf.attempt,
                outcome: leaf.outcome,
                nodes: leaf.nodes,
                detail: leaf.detail,
                text,
                report: leaf.report,
                report_signature: leaf.report_signature,
            };
            // Made before the commit: what cannot be written fails here, and the writer adds the place alone.
            let record = record.unnumbered().map_err(crate::error::ControllerError::internal)?;
            batch = batch.append(self.log.clone(), move |index| record.at(index));
        }
        let write_id = batch.write_id;
        commit_resolved(self.repo.store().as_ref(), batch).await?;
        Ok(write_id)
    }
}
