//! After a restart: the chain of reports, and every open job taken up where the journal left it.

use std::sync::Arc;

use fleet_types::canonical;
use fleet_types::document::Document;
use fleet_types::job::{EndCause, Outcome};
use fleet_types::request::Request;

use super::event::Effect;
use super::intake::params_of;
use super::state::{Dispatcher, Open, Parts};
use crate::causes::chain;
use crate::facts;
use crate::journal::{Accepted, JobKey, JobRecord};
use crate::policy::{self, Admitted};
use crate::resolve::ResolveInput;
use crate::run::End;
use crate::state::StateError;
use crate::tasks::CancelFlag;

impl Dispatcher {
    /// Takes up what was open. Called once, before the first event.
    pub fn recover(&mut self) -> Vec<Effect> {
        if let Err(error) = self.recover_state() {
            let why = chain(&error);
            tracing::error!(error = why, "the executor's state cannot be written");
            self.trouble = Some(format!("the executor's state cannot be written: {why}"));
        }
        let table = &self.parts.table;
        let is_open = |key| table.get(&key).is_some_and(JobRecord::is_open);
        for told in self.parts.guard.recover(is_open) {
            tracing::error!("{told}");
        }
        let open: Vec<(JobKey, JobRecord)> =
            self.parts.table.iter().filter(|(_, job)| job.is_open()).map(|(k, j)| (*k, j.clone())).collect();
        for (key, record) in open {
            self.take_up_again(key, &record);
        }
        self.expire_queued();
        self.start_next();
        self.tidy_if_due();
        self.tell_running();
        std::mem::take(&mut self.effects)
    }

    /// Fence and report chain from whichever of journal and state knows more.
    fn recover_state(&mut self) -> Result<(), StateError> {
        let Parts { table, state, .. } = &mut self.parts;
        if let Some((generation, epoch)) = table.newest_fence() {
            // Lower than what the state knows, as a rule.
            state.recall_fence(generation, epoch)?;
        }
        self.begin_fence_anew()?;
        let Parts { table, state, damage, .. } = &mut self.parts;
        let newest = table.newest_report();
        let known = state.get();
        let shadow = known.report_previous.map(|digest| (known.report_sequence, digest));
        match damage {
            // Where they differ a report may be lost that the controller waits for, or has.
            Some(damage) if newest.is_none() || newest != shadow => self.chain_break = Some(damage.clone()),
            _ => {
                if let Some((sequence, digest)) = newest {
                    state.raise_report(sequence, digest)?;
                }
            }
        }
        if self.chain_break.is_some() {
            self.report_again();
        } else {
            self.mend_reports();
        }
        Ok(())
    }

    /// Resets the fence where the trust bundle asks for it and it was not done yet: a stop may have come between taking
    /// the bundle and this.
    pub(super) fn begin_fence_anew(&mut self) -> Result<(), StateError> {
        let Parts { trust, state, node, .. } = &mut self.parts;
        if let Some(version) = trust.bundle().fence_reset(node.node)
            && state.reset_fence(version)?
        {
            tracing::warn!(version, "the fence begins anew: the root keys asked for it in the trust bundle");
        }
        Ok(())
    }

    fn take_up_again(&mut self, key: JobKey, record: &JobRecord) {
        let Some(accepted) = &record.accepted else { return };
        if accepted.changes
            && let Some(damage) = self.parts.damage.clone()
        {
            let end = End::new(Outcome::Failed, Some(EndCause::OutcomeUnknown), damage);
            let draft = self.draft(end, Vec::new());
            return self.finish_accepted(key, draft);
        }
        match self.admit_again(key, accepted, record) {
            Ok(admitted) => {
                let cancel = CancelFlag::default();
                if record.cancelled.is_some() {
                    cancel.cancel();
                }
                let (changes, state) = (accepted.changes, record.state());
                let grace = self.parts.overrun_grace;
                self.open.insert(key, Open::waiting(admitted, changes, cancel, state, grace));
                // What has begun goes before what has not.
                if record.steps.is_empty() { self.queue.push_back(key) } else { self.queue.push_front(key) }
            }
            Err(why) => {
                let unknown = (!record.steps.is_empty()).then_some(EndCause::OutcomeUnknown);
                let steps = record.steps.iter().filter_map(|step| step.report.clone()).collect();
                let end = End::new(Outcome::Failed, unknown, format!("it cannot be taken up again: {why}"));
                let draft = self.draft(end, steps);
                self.finish_accepted(key, draft);
            }
        }
    }

    /// Reads the job's documents again; their digests, checked on load, were checked with their signatures
    /// before the job was accepted.
    fn admit_again(&self, key: JobKey, accepted: &Accepted, record: &JobRecord) -> Result<Admitted, String> {
        let load = |what: &str, digest| {
            self.parts.documents.load(digest).ok_or_else(|| format!("the {what} is gone from this node"))
        };
        let request: Request =
            canonical::from_slice(&load("request", accepted.assignment.authority.digest())?.payload)
                .map_err(|e| e.to_string())?;
        let document = |what: &str, digest| {
            canonical::from_slice::<Document>(&load(what, digest)?.payload).map_err(|e| e.to_string())
        };
        let Document::Profile(profile) = document("profile", accepted.profile)? else {
            return Err("a document of another kind stands in its place".to_owned());
        };
        let (assignment, work) = (&accepted.assignment, document("procedure", accepted.procedure)?);
        let procedure =
            policy::procedure_of(assignment, work, &profile).map_err(|refusal| refusal.message)?;
        let params = params_of(assignment, &request);
        let input = ResolveInput {
            facts: facts::of_product(&*self.parts.host, &profile, (self.parts.facts)()),
            procedure: Arc::new(procedure),
            profile: Arc::new(*profile),
            params: &params,
            node: &self.parts.node,
            run: key.0,
            started: accepted.started,
            zone: self.parts.host.clock().zone(),
            tasks: &self.parts.tasks,
            begun: record.begun(),
        };
        let bound = if assignment.authority.is_gates() { None } else { self.bound_again(&request) };
        Admitted::again(accepted.verb, &input)
            .map(|admitted| admitted.bound_to(bound))
            .map_err(|refusals| refusals.first().map(|refusal| refusal.message.clone()).unwrap_or_default())
    }
}
