//! The signed parts of an assignment: which of them are here, which are asked for, which are in use.
//!
//! A request names its documents, one of a tick its standing order too, and that the file of schedules. What is read here
//! before its signature is checked only says what to ask for. Called at intake, before a start, and by the tidying.

use std::collections::BTreeSet;

use fleet_types::assignment::Assignment;
use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::request::Request;
use fleet_types::standing_order::{StandingOrder, Tick};

use super::state::Dispatcher;
use crate::journal::Accepted;
use crate::policy::{self, Due, Refusal, Sealed, Standing};

/// What an assignment still lacks.
pub(super) enum Gathered {
    Complete(Box<Sealed>),
    Missing(Vec<Digest>),
}

impl Dispatcher {
    pub(super) fn gather(&self, assignment: &Assignment) -> Result<Gathered, Refusal> {
        let load = |digest| self.parts.documents.load(digest);
        let Some(request) = load(assignment.authority.digest()) else {
            return Ok(Gathered::Missing(vec![assignment.authority.digest()]));
        };
        let opened = policy::open_request(assignment, &request, &self.parts.node, self.now())?;
        let wanted = policy::work_of(assignment, &opened)?;
        let order = opened.tick.map(|tick| (tick.order, load(tick.order)));
        let file = match &order {
            Some((_, Some(order))) => Some(policy::file_of(order)?),
            _ => None,
        };
        let (work, profile, file) = (load(wanted), load(opened.profile), file.map(|file| (file, load(file))));
        let all = [Some((wanted, work)), Some((opened.profile, profile)), order, file];
        let missing = all.iter().flatten().filter(|(_, found)| found.is_none()).map(|(digest, _)| *digest);
        let missing: Vec<Digest> = missing.collect();
        if !missing.is_empty() {
            return Ok(Gathered::Missing(missing));
        }
        let [work, profile, order, file] = all.map(|one| one.and_then(|(_, found)| found));
        let (Some(work), Some(profile)) = (work, profile) else { return Ok(Gathered::Missing(missing)) };
        let standing = order.zip(file).map(|(order, file)| Standing { order, file });
        Ok(Gathered::Complete(Box::new(Sealed { request, work, profile, standing })))
    }

    /// All that a request names, as far as it is here and can be read, and the request itself.
    pub(super) fn named_by(&self, request: Digest) -> Vec<Digest> {
        let mut named = vec![request];
        if let Some(opened) = self.read::<Request>(request) {
            let order = opened.tick.map(|tick| tick.order);
            let file = order.and_then(|order| Some(self.read::<StandingOrder>(order)?.file));
            named.extend([opened.procedure, opened.profile]);
            named.extend([opened.rollout_policy, order, file].into_iter().flatten());
        }
        named
    }

    fn read<T: serde::de::DeserializeOwned>(&self, digest: Digest) -> Option<T> {
        canonical::from_slice(&self.parts.documents.load(digest)?.payload).ok()
    }

    /// Keeps no envelope with a refused signature in the way of a better one; what open jobs use stays.
    pub(super) fn drop_badly_signed(&self, assignment: &Assignment) {
        let open = self.parts.table.iter().filter(|(_, job)| job.is_open());
        let open = open.filter_map(|(_, job)| job.accepted.as_ref());
        let used: BTreeSet<Digest> = open.flat_map(|accepted| self.used_by(accepted)).collect();
        let named = self.named_by(assignment.authority.digest());
        for digest in named.into_iter().filter(|digest| !used.contains(digest)) {
            self.parts.documents.remove(digest);
        }
    }

    /// What an accepted job may still read.
    pub(super) fn used_by(&self, accepted: &Accepted) -> Vec<Digest> {
        let mut used = self.named_by(accepted.assignment.authority.digest());
        used.extend([accepted.procedure, accepted.profile]);
        used
    }

    /// Do the keys that signed a waiting job's request and documents still stand in the trust bundle?
    pub(super) fn still_vouched(&self, accepted: &Accepted) -> Result<(), Refusal> {
        let parts = &self.parts;
        let load = |digest| parts.documents.load(digest);
        let sealed =
            (load(accepted.assignment.authority.digest()), load(accepted.procedure), load(accepted.profile));
        let (Some(request), Some(work), Some(profile)) = sealed else { return Err(gone()) };
        let opened: Request = canonical::from_slice(&request.payload)
            .map_err(|error| Refusal::new("request-malformed", error.to_string(), "start a new run"))?;
        let standing = opened.tick.map(|tick| self.standing(tick)).transpose()?;
        policy::open_documents(
            &accepted.assignment,
            &opened,
            &Sealed { request, work, profile, standing },
            parts.trust.bundle(),
            &parts.policy.now(),
            &parts.node,
        )
        .map(drop)
    }

    fn standing(&self, tick: Tick) -> Result<Standing, Refusal> {
        let load = |digest| self.parts.documents.load(digest).ok_or_else(gone);
        let order = load(tick.order)?;
        let file = load(policy::file_of(&order)?)?;
        Ok(Standing { order, file })
    }

    /// A tick is one run on a node: refused where another one, or one of a later tick, has begun. Its gates only look.
    pub(super) fn check_unused(&self, assignment: &Assignment, due: &Due) -> Result<(), Refusal> {
        if assignment.authority.is_gates() {
            return Ok(());
        }
        let by = self.parts.state.tick_used(&due.schedule, due.at, assignment.job.run);
        by.map_or(Ok(()), |by| Err(policy::used(due, &format!("run {by}"))))
    }

    /// Uses the tick of a job that is about to begin.
    pub(super) fn use_tick(&mut self, accepted: &Accepted) -> Result<(), Refusal> {
        let Authority::Tick(request) = accepted.assignment.authority else { return Ok(()) };
        let request: Request = self.read(request).ok_or_else(gone)?;
        let tick = request.tick.ok_or_else(gone)?;
        let due = policy::due_again(tick, &self.standing(tick)?)?;
        self.check_unused(&accepted.assignment, &due)?;
        if let Err(error) = self.parts.state.use_tick(&due.schedule, due.at, request.run) {
            // The journal stands on the same disk, and says whether the job can begin.
            tracing::error!("the tick of run {} is not remembered: {error}", request.run);
        }
        Ok(())
    }
}

fn gone() -> Refusal {
    Refusal::new("document-missing", "a document of the job is gone from this node", "start a new run")
}
