//! After a restart: the chain of reports, and every open job taken up where the journal left it.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleet_types::canonical;
use fleet_types::document::Document;
use fleet_types::job::Outcome;
use fleet_types::request::Request;

use super::event::Effect;
use super::state::{Dispatcher, Open};
use crate::facts;
use crate::journal::{Accepted, JobKey, JobRecord};
use crate::policy::Admitted;
use crate::resolve::ResolveInput;
use crate::tasks::CancelFlag;

impl Dispatcher {
    /// Takes up what was open. Called once, before the first event.
    pub fn recover(&mut self) -> Vec<Effect> {
        if let Some((sequence, digest)) = self.parts.table.newest_report()
            && let Err(error) = self.parts.state.raise_report(sequence, digest)
        {
            tracing::error!(%error, "the report chain cannot be written");
            self.trouble = Some(format!("the report chain cannot be written: {error}"));
        }
        self.tidy_stores();
        let open: Vec<(JobKey, JobRecord)> =
            self.parts.table.iter().filter(|(_, job)| job.is_open()).map(|(k, j)| (*k, j.clone())).collect();
        for (key, record) in open {
            self.take_up_again(key, &record);
        }
        self.start_next();
        std::mem::take(&mut self.effects)
    }

    fn take_up_again(&mut self, key: JobKey, record: &JobRecord) {
        let Some(accepted) = &record.accepted else { return };
        if accepted.changes
            && let Some(damage) = self.parts.damage.clone()
        {
            let reason = format!("outcome_unknown: {damage}");
            let draft = self.draft(Outcome::Failed, reason, Vec::new());
            return self.finish_accepted(key, draft);
        }
        match self.admit_again(key, accepted) {
            Ok(admitted) => {
                let cancel = CancelFlag::default();
                if record.cancelled.is_some() {
                    cancel.cancel();
                }
                let (changes, state) = (accepted.changes, record.state());
                self.open.insert(key, Open { admitted: Some(admitted), cancel, changes, state });
                // What has begun goes before what has not.
                if record.steps.is_empty() { self.queue.push_back(key) } else { self.queue.push_front(key) }
            }
            Err(why) => {
                let word = if record.steps.is_empty() { "not resumed" } else { "outcome_unknown" };
                let steps = record.steps.iter().filter_map(|step| step.report.clone()).collect();
                let draft = self.draft(Outcome::Failed, format!("{word}: {why}"), steps);
                self.finish_accepted(key, draft);
            }
        }
    }

    /// Reads the job's documents again; their digests, checked on load, were checked with their signatures
    /// before the job was accepted.
    fn admit_again(&self, key: JobKey, accepted: &Accepted) -> Result<Admitted, String> {
        let load = |what: &str, digest| {
            self.parts.documents.load(digest).ok_or_else(|| format!("the {what} is gone from this node"))
        };
        let request: Request = canonical::from_slice(&load("request", accepted.assignment.request)?.payload)
            .map_err(|e| e.to_string())?;
        let document = |what: &str, digest| {
            canonical::from_slice::<Document>(&load(what, digest)?.payload).map_err(|e| e.to_string())
        };
        let documents = (document("procedure", accepted.procedure)?, document("profile", accepted.profile)?);
        let (Document::Procedure(procedure), Document::Profile(profile)) = documents else {
            return Err("a document of another kind stands in its place".to_owned());
        };
        let input = ResolveInput {
            facts: facts::of_product(&*self.parts.host, &profile, (self.parts.facts)()),
            procedure: Arc::new(*procedure),
            profile: Arc::new(*profile),
            params: &request.params,
            node: &self.parts.node,
            run: key.0,
            started: accepted.started,
            zone: self.parts.host.clock().zone(),
            tasks: &self.parts.tasks,
        };
        Admitted::again(accepted.verb, &input)
            .map_err(|refusals| refusals.first().map(|refusal| refusal.message.clone()).unwrap_or_default())
    }

    fn tidy_stores(&self) {
        let mut documents = BTreeSet::new();
        let mut reports = BTreeSet::new();
        for (_, job) in self.parts.table.iter() {
            if let Some(accepted) = job.accepted.as_ref().filter(|_| job.is_open()) {
                documents.extend([accepted.assignment.request, accepted.procedure, accepted.profile]);
            }
            reports.extend(job.finished.as_ref().map(|finished| finished.report));
        }
        let tidied = self.parts.documents.tidy(&documents).and_then(|()| self.parts.reports.tidy(&reports));
        if let Err(error) = tidied {
            tracing::warn!(%error, "old documents and reports cannot be removed");
        }
    }
}
