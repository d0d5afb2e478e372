//! Assignments: known ones are answered, new ones go through every check, then the journal, then the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet_proto::pb::executor_message::Body as ToCore;
use fleet_proto::{convert, pb};
use fleet_types::assignment::{Assignment, WaveProof};
use fleet_types::digest::Digest;
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::{StepReport, StepState, TaskReport};
use fleet_types::request::{Request, Verb};
use fleet_types::time::Timestamp;

use super::bound::check_skipped;
use super::gather::Gathered;
use super::state::{Dispatcher, Open, Pending, Vouching};
use crate::documents::DOCUMENT_WAIT;
use crate::durable;
use crate::facts;
use crate::journal::{Accepted, Entry, JobKey};
use crate::policy::{self, Admitted, Candidate, LocalPolicy, NodeConditions, Opened, Refusal, Sealed};
use crate::resolve::ResolveInput;
use crate::retention::MAX_UNACKNOWLEDGED;
use crate::run::{Draft, End};
use crate::tasks::CancelFlag;

/// Assignments that wait for documents, and jobs that are accepted and not over. One node's share of any
/// wave is one job; sixty-four is room for every schedule of a node to fall due at once.
const MAX_OPEN: usize = 64;

impl Dispatcher {
    pub(super) fn on_assign(&mut self, assign: &pb::Assign) {
        let parsed = convert::json::<Assignment>("assign.assignment", &assign.assignment)
            .and_then(|a| Ok((a, convert::json::<WaveProof>("assign.proof", &assign.proof)?)));
        let (assignment, proof) = match parsed {
            Ok(parts) => parts,
            Err(error) => return tracing::error!(%error, "an assignment cannot be read"),
        };
        let key = (assignment.job.run, assignment.attempt);
        let Some(link) = &self.link else {
            return tracing::warn!(run = %key.0, "an assignment came without a link");
        };
        if let Err(refusal) = policy::check_assignment(&assignment, &proof, link, &self.parts.node) {
            tracing::error!(rule = refusal.rule, %refusal, run = %key.0, "an assignment is refused");
            // Not known to be from the controller: nothing is journaled for it, and a job that is known is
            // not spoken of.
            if self.parts.table.get(&key).is_none() {
                let state = JobState::ended(Outcome::Refused, refusal.reason());
                self.answer_unknown(&key, state);
            }
            return;
        }
        self.take_up(key, assignment);
    }

    fn take_up(&mut self, key: JobKey, assignment: Assignment) {
        if let Some(job) = self.parts.table.get(&key) {
            let cancelled_before =
                job.accepted.is_none() && job.finished.is_none() && job.cancelled.is_some();
            if cancelled_before {
                let reason = job.cancelled.clone().unwrap_or_default();
                let draft = self.draft(End::plain(Outcome::Cancelled, reason), Vec::new());
                let ends = self.now();
                self.finish(key, &assignment, ends, draft);
            } else {
                self.answer(&key);
            }
            return;
        }
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.asked += 1;
            return;
        }
        let others: Vec<_> = self
            .parts
            .table
            .of_run(key.0)
            .map(|(key, job)| {
                (*key, job.is_open(), job.stage().filter(|_| job.accepted.is_some() && !job.abandoned))
            })
            .collect();
        if let Some((older, ..)) = others.iter().find(|(_, is_open, _)| *is_open) {
            // Busy: the answer is the attempt that is under way (security-and-delivery §2.4).
            return self.answer(&older.clone());
        }
        // Each stage is carried out once, and none after a later one.
        if others.iter().any(|(_, _, spent)| *spent >= Some(assignment.job.stage)) {
            let message = format!("run {} was carried out on this node already", key.0);
            let refusal = Refusal::new("use-spent", message, "start a new run");
            return self.refuse(key, &assignment, None, &[refusal]);
        }
        if self.parts.report_key.is_none() {
            let reason =
                "policy safe-mode: the node's report key is missing, nothing could be reported".to_owned();
            return self.answer_unknown(&key, JobState::ended(Outcome::Refused, reason));
        }
        let is_full = self.pending.len() + self.open.len() >= MAX_OPEN
            || self.parts.table.unacknowledged() >= MAX_UNACKNOWLEDGED;
        if self.is_stopping() || is_full {
            return tracing::warn!(run = %key.0, "not taken now; the controller will offer it again");
        }
        let until = self.since_boot() + DOCUMENT_WAIT;
        self.pending.insert(key, Pending { assignment, asked: 1, fetched_again: false, until });
        self.go_on_with(key);
    }

    pub(super) fn on_document(&mut self, document: &pb::DocumentArrived) {
        let digest = match convert::digest("document.digest", &document.digest) {
            Ok(digest) => digest,
            Err(error) => return tracing::warn!(%error, "a document without a digest"),
        };
        if !self.wanted.remove(&digest) {
            return;
        }
        let stored = if document.envelope.is_empty() {
            Err(missing(digest, &format!("the controller does not give it: {}", document.error)))
        } else {
            self.parts.documents.store(digest, &document.envelope).map(drop).map_err(|error| {
                if error.is_full() { no_room(digest) } else { missing(digest, &error.to_string()) }
            })
        };
        let waiting: Vec<JobKey> = self.pending.keys().copied().collect();
        for key in waiting {
            match &stored {
                Ok(()) => self.go_on_with(key),
                Err(refusal) => self.document_failed(key, digest, refusal),
            }
        }
    }

    /// A document of an assignment did not come: it is refused if it is this one's.
    fn document_failed(&mut self, key: JobKey, digest: Digest, refusal: &Refusal) {
        let Some(pending) = self.pending.get(&key) else { return };
        let is_missing = match self.gather(&pending.assignment) {
            Ok(Gathered::Missing(missing)) => missing.contains(&digest),
            Ok(Gathered::Complete(_)) | Err(_) => false,
        };
        if is_missing && let Some(pending) = self.pending.remove(&key) {
            self.refuse(key, &pending.assignment, None, std::slice::from_ref(refusal));
        }
    }

    /// Checks and accepts a pending assignment once its documents are here; asks for those that are not.
    fn go_on_with(&mut self, key: JobKey) {
        let Some(assignment) = self.pending.get(&key).map(|pending| pending.assignment.clone()) else {
            return;
        };
        let gathered = match self.gather(&assignment) {
            Ok(Gathered::Missing(missing)) => {
                for digest in missing {
                    if self.wanted.insert(digest) {
                        self.send(ToCore::NeedDocument(pb::NeedDocument {
                            digest: digest.as_bytes().to_vec(),
                        }));
                    }
                }
                return;
            }
            Ok(Gathered::Complete(sealed)) => self.admit(key, &assignment, &sealed),
            Err(refusal) => Err((None, vec![refusal])),
        };
        let is_badly_signed = |(_, refusals): &(_, Vec<Refusal>)| {
            refusals.iter().any(|refusal| refusal.rule.starts_with("signature-"))
        };
        if gathered.as_ref().is_err_and(is_badly_signed) {
            self.drop_badly_signed(&assignment);
            // What lay here may bear the word of somebody who is gone, and the controller's the word of somebody else by now.
            if let Some(pending) = self.pending.get_mut(&key).filter(|pending| !pending.fetched_again) {
                pending.fetched_again = true;
                return self.go_on_with(key);
            }
        }
        let asked = self.pending.remove(&key).map_or(1, |pending| pending.asked);
        match gathered {
            Ok((request, admitted, vouched)) => {
                self.accept(key, assignment, &request, admitted, vouched, asked);
            }
            Err((ends, refusals)) => self.refuse(key, &assignment, ends, &refusals),
        }
    }

    #[allow(clippy::type_complexity)] // the two ends of one decision, used in one place
    fn admit(
        &mut self,
        key: JobKey,
        assignment: &Assignment,
        sealed: &Sealed,
    ) -> Result<(Request, Admitted, Vouching), (Option<Timestamp>, Vec<Refusal>)> {
        let parts = &self.parts;
        let owners = parts.policy.now();
        let request = policy::open_request(assignment, &sealed.request, &parts.node, self.now())
            .map_err(|refusal| (None, vec![refusal]))?;
        let against = |refusals| (Some(request.not_after), refusals);
        let opened =
            policy::open_documents(assignment, &request, sealed, parts.trust.bundle(), &owners, &parts.node)
                .map_err(|refusal| against(vec![refusal]))?;
        if let Some(due) = &opened.due {
            let now = due.check_now(self.now()).and_then(|()| self.check_unused(assignment, due));
            now.map_err(|refusal| against(vec![refusal]))?;
        }
        let revisions = policy::revisions(assignment, &request, &sealed.request, &opened, &owners);
        policy::check_revisions(&request, &revisions, &parts.state)
            .map_err(|refusal| against(vec![refusal]))?;
        let is_gates = assignment.authority.is_gates();
        let bound = if is_gates { Ok(None) } else { self.bound_plan(&request) };
        let bound = bound.map_err(|refusal| against(vec![refusal]))?;
        let params = params_of(assignment, &request);
        let Opened { procedure, profile, .. } = opened;
        let input = ResolveInput {
            facts: facts::of_product(&*parts.host, &profile, (parts.facts)()),
            procedure: Arc::new(procedure),
            profile: Arc::new(profile),
            params: &params,
            node: &parts.node,
            run: key.0,
            started: self.now(),
            zone: parts.host.clock().zone(),
            tasks: &parts.tasks,
            begun: BTreeSet::new(),
        };
        let candidate = Candidate { request: &request, input };
        let admitted = policy::admit(&candidate, &owners, &self.conditions(&owners)).map_err(against)?;
        if let Some(plan) = &bound {
            check_skipped(plan, admitted.resolution()).map_err(|refusal| against(vec![refusal]))?;
        }
        let admitted = admitted.bound_to(bound.map(|plan| Ok(Arc::new(plan))));
        if request.verb == Verb::Run
            && let Err(error) = self.parts.state.raise_revisions(&revisions)
        {
            // The journal stands on the same disk, and says whether the job can be accepted.
            tracing::error!("the revisions of run {} are not remembered: {error}", key.0);
        }
        let vouched = self.vouching(&owners);
        Ok((request, admitted, vouched))
    }

    pub(super) fn vouching(&self, owners: &LocalPolicy) -> Vouching {
        Vouching { bundle: self.parts.trust.bundle().version, required: owners.require_signature }
    }

    fn conditions(&self, owners: &LocalPolicy) -> NodeConditions {
        let parts = &self.parts;
        let within = owners.max_disruptive_jobs.within.length();
        NodeConditions {
            free_bytes: durable::free_bytes(&parts.state_dir),
            // Through the host: on a development node the file lies below its root.
            held: is_held(parts.host.as_ref(), &owners.hold_file),
            load: load_part(parts.host.as_ref()),
            disruptive_jobs: parts.table.disruptive_since(self.now().minus(within)),
            up_for: parts.host.clock().since_boot(),
            package_damage: parts.host.packages().damage(),
            safe_mode: self.safe_mode(),
        }
    }

    /// Journals the acceptance, then answers, then queues.
    fn accept(
        &mut self,
        key: JobKey,
        assignment: Assignment,
        request: &Request,
        admitted: Admitted,
        vouched: Vouching,
        asked: u32,
    ) {
        let accepted = Accepted {
            // Whatever was admitted has one.
            procedure: policy::work_of(&assignment, request).unwrap_or(request.procedure),
            assignment,
            verb: request.verb,
            profile: request.profile,
            changes: admitted.changes(),
            disruptive: admitted.is_disruptive(),
            // Not the clock again: a second later the placeholders of the next life would be others.
            started: admitted.resolution().started,
            request_ends: request.not_after,
            boot_id: self.parts.host.clock().boot_id(),
            boot_ms: self.boot_ms(),
        };
        let changes = accepted.changes;
        if self.record(&Entry::Accepted(Box::new(accepted))).is_err() {
            // Not accepted: nothing is answered, the controller offers it again.
            return;
        }
        #[cfg(any(test, feature = "crash-points"))]
        if self.parts.journal.reach(crate::crash::CrashPoint::AfterAccepted).is_err() {
            return;
        }
        let grace = self.parts.overrun_grace;
        let mut open = Open::waiting(admitted, changes, CancelFlag::default(), JobState::Accepted, grace);
        open.vouched = Some(vouched);
        self.open.insert(key, open);
        self.queue.push_back(key);
        for _ in 0..asked {
            self.answer(&key);
        }
    }

    /// Ends a job that may not begin, with every reason.
    fn refuse(
        &mut self,
        key: JobKey,
        assignment: &Assignment,
        ends: Option<Timestamp>,
        refusals: &[Refusal],
    ) {
        let Some(first) = refusals.first() else { return };
        tracing::warn!(rule = first.rule, run = %key.0, count = refusals.len(), "a job is refused: {first}");
        let reasons: Vec<String> = refusals.iter().map(Refusal::reason).collect();
        let reason = reasons.join("; ");
        let problems = refusals.iter().map(Refusal::problem).collect();
        let step = StepReport {
            id: "policy".to_owned(),
            title: "Local policy and checks before the start".to_owned(),
            action: "policy".to_owned(),
            state: StepState::Failed,
            cause: None,
            started: None,
            took_ms: 0,
            tries: 0,
            output: None,
            output_kept: None,
            body: TaskReport { summary: reason.clone(), problems, ..TaskReport::default() },
        };
        let draft = self.draft(End::plain(first.outcome(), reason), vec![step]);
        let ends = ends.unwrap_or_else(|| self.now());
        self.finish(key, assignment, ends, draft);
    }

    /// The draft of a job that did not begin.
    pub(super) fn draft(&self, end: End, steps: Vec<StepReport>) -> Draft {
        let now = self.now();
        Draft { end, started: now, ended: now, working_ms: 0, steps, plan: None }
    }
}

/// Parameters are of the procedure; gates have none.
pub(super) fn params_of(assignment: &Assignment, request: &Request) -> BTreeMap<String, serde_json::Value> {
    if assignment.authority.is_gates() { BTreeMap::new() } else { request.params.clone() }
}

/// What cannot be seen counts as held.
fn is_held(host: &dyn crate::host::Host, path: &str) -> bool {
    match host.files().stat(path.as_ref()) {
        Ok(_) => true,
        Err(error) => error.problem != crate::host::FileProblem::NotFound,
    }
}

fn missing(digest: Digest, why: &str) -> Refusal {
    let message = format!("document {} cannot be had: {why}", digest.short());
    Refusal::new("document-missing", message, "apply the documents again, then start a new run")
}

/// The disk is so full that local policy was not even asked.
fn no_room(digest: Digest) -> Refusal {
    let message = format!("the disk is full: there is no room for document {}", digest.short());
    Refusal::new("min-free-disk", message, "free space on the node, then start a new run")
}

fn load_part(host: &dyn crate::host::Host) -> Option<f64> {
    let load = host.system().load().ok()?;
    let cores = host.system().cores().max(1);
    Some(load.one / f64::from(cores))
}
