//! Links: trust and fencing at their start, reconcile, acknowledgements.

use fleet_proto::pb::executor_message::Body as ToCore;
use fleet_proto::pb::reconcile_decision::Decision;
use fleet_proto::{convert, pb};
use fleet_types::digest::Digest;
use fleet_types::id::{Generation, LinkEpoch};
use fleet_types::trust::SignedDispatch;

use super::state::{Dispatcher, job_key};
use crate::causes::chain;
use crate::copies::CopyAnswer;
use crate::damage;
use crate::journal::{Entry, JobKey};
use crate::package_hub::PackagesAnswer;
use crate::policy::LinkTrust;
use crate::run::Way;
use crate::state::Fenced;

/// Jobs a page (security-and-delivery §2.8).
const PAGE_JOBS: usize = 256;

impl Dispatcher {
    pub(super) fn on_link_up(&mut self, link: &pb::LinkUp) {
        match self.check_link(link) {
            Ok(trust) => {
                self.link = Some(trust);
                self.write_unwritten();
                self.mend_reports();
                self.send_reconcile();
                self.parts.output.send_again(false);
                self.parts.copies.link_up();
                self.parts.packages.link_up(link.takes_packages);
            }
            Err(reason) => {
                tracing::error!(%reason, "the link is refused");
                self.link = None;
                self.send(ToCore::LinkRefused(pb::LinkRefused { reason }));
            }
        }
    }

    fn check_link(&mut self, link: &pb::LinkUp) -> Result<LinkTrust, String> {
        if !link.trust_bundle.is_empty() {
            self.parts.trust.update(&link.trust_bundle, &mut self.parts.state).map_err(|e| chain(&e))?;
        }
        self.begin_fence_anew().map_err(|e| chain(&e))?;
        let signed: SignedDispatch =
            convert::json("link_up.dispatch", &link.dispatch).map_err(|e| e.to_string())?;
        let statement = signed.open(self.parts.trust.bundle(), self.now()).map_err(|e| chain(&e))?;
        let (generation, epoch) = (Generation(link.generation), LinkEpoch(link.link_epoch));
        let seen = (self.parts.state.get().generation.0, self.parts.state.get().link_epoch.0);
        let how = match self.parts.state.raise_fence(generation, epoch).map_err(|e| chain(&e))? {
            Fenced::Taken => None,
            Fenced::Lower => Some("lower than"),
            Fenced::TooFar => Some("out of reach from"),
        };
        if let Some(how) = how {
            return Err(format!(
                "fencing: generation {} and link {} are {how} {} and {} seen before; if this is the right controller, a holder of the root key lets the node begin anew: fleetctl node reset-fence NAME",
                generation.0, epoch.0, seen.0, seen.1
            ));
        }
        damage::begin_history(&self.parts.state_dir)
            .map_err(|e| format!("its history cannot be noted: {e}"))?;
        Ok(LinkTrust { generation, epoch, dispatch: statement.key })
    }

    pub(super) fn on_link_down(&mut self) {
        self.end_link();
        self.on_core_came();
    }

    /// What waits for a link is kept; what only this link could bring is not waited for any more.
    pub(super) fn end_link(&mut self) {
        self.link = None;
        self.pending.clear();
        self.wanted.clear();
        self.parts.output.link_down();
        self.parts.copies.link_down();
        self.parts.packages.link_down();
    }

    /// The next Hello needs the newest numbers.
    pub(super) fn on_core_came(&mut self) {
        self.tell_running();
        let ready = self.ready();
        self.send(ready);
    }

    /// An answer about the way to a controller goes to the run that asked.
    pub(super) fn on_path(&self, answer: pb::PathChecked) {
        let pb::PathChecked { id, controller, witness, problem } = answer;
        let way = match (controller.is_empty(), witness.is_empty()) {
            (false, _) => Way::Controller(controller),
            (true, false) => Way::Witness(witness),
            (true, true) => Way::Nobody(problem),
        };
        self.parts.paths.answer(id, way);
    }

    /// What became of a piece of a copy.
    pub(super) fn on_copy(&self, answer: pb::CopyAnswer) {
        let pb::CopyAnswer { taken, error, refused } = answer;
        let pb::CopyTaken { sha256, offset, kept } = taken.unwrap_or_default();
        // One that names no copy is of none that waits.
        let Ok(sha256) = Digest::from_slice(&sha256) else { return };
        let error = Some(error).filter(|error| !error.is_empty());
        self.parts.copies.answered(&CopyAnswer { sha256, offset, kept, error, refused });
    }

    /// What became of the node's packages.
    pub(super) fn on_packages(&self, answer: pb::PackagesAnswer) {
        let pb::PackagesAnswer { taken, error, refused } = answer;
        let error = Some(error).filter(|error| !error.is_empty());
        let wants_list = taken.unwrap_or_default().wants_list;
        self.parts.packages.answered(&PackagesAnswer { wants_list, error, refused });
    }

    pub(super) fn on_trust_update(&mut self, update: &pb::TrustUpdate) {
        if let Err(error) = self.parts.trust.update(&update.trust_bundle, &mut self.parts.state) {
            tracing::error!(error = %chain(&error), "a trust bundle is refused");
        }
    }

    /// Lists what is unfinished or unacknowledged, then sends the reports that nobody acknowledged.
    fn send_reconcile(&mut self) {
        let listed: Vec<JobKey> = self
            .parts
            .table
            .iter()
            .filter(|(_, job)| job.is_open() || job.is_unacknowledged())
            .map(|(key, _)| *key)
            .collect();
        let jobs: Vec<_> =
            listed.iter().filter_map(|key| self.update_of(key)).map(|u| pb::JobUpdate::from(&u)).collect();
        let pages = jobs.chunks(PAGE_JOBS).count().max(1);
        for number in 0..pages {
            let page = jobs.chunks(PAGE_JOBS).nth(number).unwrap_or_default().to_vec();
            self.send(ToCore::Reconcile(pb::ReconcilePage { jobs: page, last: number + 1 == pages }));
        }
        // In the order of the chain: the controller takes each report only behind the one before it.
        let mut reports: Vec<(u64, JobKey)> = listed
            .iter()
            .filter_map(|key| Some((self.parts.table.get(key)?.finished.as_ref()?.sequence, *key)))
            .collect();
        reports.sort_unstable();
        for (_, key) in &reports {
            self.send_report(key);
        }
    }

    pub(super) fn on_reconcile_reply(&mut self, reply: &pb::ReconcileReply) {
        for decision in &reply.decisions {
            let Some(key) = job_key(&decision.run, decision.attempt) else { continue };
            match decision.decision() {
                // Adopted: recorded there now, and goes on as if it had been known all along.
                Decision::Unspecified | Decision::Continue | Decision::Adopt => {}
                Decision::Cancel => self.cancel(key, "cancelled while the node was away"),
                Decision::SendReport => drop(self.send_report(&key)),
                Decision::Forget => self.forget(key),
            }
        }
    }

    /// The controller does not want to hear of this job any more.
    fn forget(&mut self, key: JobKey) {
        let Some(job) = self.parts.table.get(&key) else { return };
        let (run, attempt) = key;
        if job.is_unacknowledged() {
            let _ = self.record(&Entry::Acked { run, attempt });
        } else if self.open.get(&key).is_some_and(|open| open.admitted.is_some()) && job.steps.is_empty() {
            let at = self.now();
            if self.record(&Entry::Abandoned { run, attempt, at }).is_ok() {
                self.open.remove(&key);
                self.queue.retain(|queued| *queued != key);
            }
        } else if job.is_open() {
            self.cancel(key, "the controller does not know this job");
        }
    }

    pub(super) fn on_report_ack(&mut self, ack: &pb::ReportAck) {
        let Some(key) = job_key(&ack.run, ack.attempt) else { return };
        let Some(job) = self.parts.table.get(&key).filter(|job| job.is_unacknowledged()) else { return };
        let expected = job.finished.as_ref().map(|finished| finished.report);
        match Digest::from_slice(&ack.digest) {
            Ok(digest) if Some(digest) == expected => {
                let (run, attempt) = key;
                // A failed write only means that the report is sent once more after a restart.
                let _ = self.record(&Entry::Acked { run, attempt });
                self.note_removable();
            }
            _ => tracing::warn!(run = %key.0, "an acknowledgement names another report"),
        }
    }
}
