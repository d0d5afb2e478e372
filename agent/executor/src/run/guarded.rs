//! A step that can cut the node off: armed before it, confirmed after it, or put back by the guard.
//!
//! The folder of the change says how far it is, whoever was killed meanwhile; the journal keeps the evidence. Nothing here
//! undoes anything: a change that nobody confirms, and one whose step failed, is the guard's (security-and-delivery §2.10,
//! docs/adr/0026). Part of a run.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use fleet_types::job::{EndCause, JobState};
use fleet_types::report::{Problem, StepReport, StepState, TaskReport};
use fleet_types::severity::Severity;

use super::life::Run;
use super::path::{ANSWER_LIMIT, Way};
use super::step::{Fault, millis};
use crate::guard::{Deadline, Decision, GuardOrder, ORDER_VERSION, Pending, UndoEntry};
use crate::journal::{Entry, JournalError};
use crate::resolve::ResolvedStep;
use crate::tasks::{CancelFlag, Reversal, Task};

/// Pause between two questions: a controller that was down for a moment is found, and one that is busy is left alone.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How often the guard's result is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The guard holds that lock for an instant when it looks, and an executor that ends lets it go.
const WORK_PATIENCE: Duration = Duration::from_secs(5);
/// What the guard has beyond the limits of its entries: starting anew after it was killed, and a disk that is slow.
const GUARD_MARGIN: Duration = Duration::from_mins(3);

/// Making a confirmed change lasting is writing a word somewhere.
const KEEP_LIMIT: Duration = Duration::from_mins(1);

/// What a change came to.
pub(super) enum Settled {
    /// It was confirmed, by this controller or witness.
    Confirmed,
    /// The guard put it back, or tried; why it had to.
    PutBack(String),
    /// The executor stops; the next one goes on.
    Suspended,
}

impl Run {
    /// Why nothing would confirm a guarded step, if that is so now: then it is not begun.
    pub(super) fn no_way_home(&self, step: &ResolvedStep) -> Option<String> {
        let window = step.guard?;
        let Way::Nobody(why) = self.ask_path(window.min(ANSWER_LIMIT)) else { return None };
        Some(format!("nothing was done: the change could not be confirmed afterwards: {why}"))
    }

    /// Who answers on a new connection.
    fn ask_path(&self, limit: Duration) -> Way {
        let witnesses = self.witnesses();
        let none = if witnesses.is_empty() { "no witness is configured" } else { "no witness answers" };
        match self.surroundings.paths.ask(&self.surroundings.events, witnesses, limit) {
            None => Way::Nobody("the agent's network half did not answer".to_owned()),
            Some(Way::Nobody(why)) => Way::Nobody(format!("{why}, and {none}")),
            Some(way) => way,
        }
    }

    /// What the plan says of a step's guard.
    pub(super) fn guard_in_words(&self, step: &ResolvedStep) -> Option<String> {
        let window = step.guard?;
        let witnesses = self.witnesses();
        let nobody = if witnesses.is_empty() {
            "no witness is configured, so it is put back as well when no controller can be reached by anybody"
                .to_owned()
        } else {
            format!("where no controller answers, {} confirms", witnesses.join(" or "))
        };
        Some(format!(
            "under the guard: put back unless a new connection to a controller confirms it within {} s; {nobody}",
            window.as_secs()
        ))
    }

    fn witnesses(&self) -> Vec<String> {
        self.surroundings.policy.now().witness.clone()
    }

    /// The folder of a step's change.
    fn pending(&self, step: &ResolvedStep) -> Pending {
        self.surroundings.guard.pending(self.key.0, self.key.1, &step.id)
    }

    /// Arms the guard for a step that may work for `limit`, unless an earlier life of the executor did. Gives how far it is,
    /// or why there is no guard.
    pub(super) fn arm(
        &mut self,
        step: &ResolvedStep,
        undo: &serde_json::Value,
        limit: Duration,
    ) -> Result<Result<Armed, String>, JournalError> {
        let pending = self.pending(step);
        let window = step.guard.unwrap_or_default();
        if pending.is_armed() {
            return Ok(match pending.decision() {
                Ok(Some(Decision::Undoing)) => Ok(Armed::Undoing),
                Ok(Some(Decision::Confirmed)) => Ok(Armed::Confirmed),
                Ok(None) => {
                    let again = self.begin_work(&pending);
                    let again = again.and_then(|()| self.surroundings.guard.look_after(&pending));
                    again.map(|()| Armed::Waiting)
                }
                Err(error) => Err(format!("the guard's decision cannot be read: {error}")),
            });
        }
        let order = self.order(step, undo);
        if order.entries.is_empty() {
            return Ok(Err("nothing puts this step back".to_owned()));
        }
        let until = self.deadline(limit + self.grace() + window);
        let (run, attempt) = self.key;
        self.journal(&Entry::GuardArmed { run, attempt, step: step.id.clone() })?;
        let armed = self.surroundings.guard.arm(&pending, &order, &until);
        let armed = armed.and_then(|()| self.begin_work(&pending));
        #[cfg(any(test, feature = "crash-points"))]
        self.surroundings.journal.reach(crate::crash::CrashPoint::AfterArmed)?;
        Ok(armed.map(|()| Armed::Waiting).map_err(|why| format!("the guard cannot be armed: {why}")))
    }

    /// From now on the guard knows that the executor is there. Without that it would put a change back that is being made.
    fn begin_work(&mut self, pending: &Pending) -> Result<(), String> {
        let until = Instant::now() + WORK_PATIENCE;
        while self.at_work.is_none() {
            self.at_work = pending
                .begin_work()
                .map_err(|error| format!("the guard cannot be told that work begins: {error}"))?;
            if self.at_work.is_none() {
                if Instant::now() >= until {
                    return Err("an executor of before is still at this change".to_owned());
                }
                thread::park_timeout(LOOK_EVERY);
            }
        }
        Ok(())
    }

    fn deadline(&self, from_now: Duration) -> Deadline {
        Deadline::at(self.surroundings.host.clock().boot_id(), self.since_boot() + from_now)
    }

    /// What puts a step back: what its task noted, else the procedure's own entries.
    fn order(&self, step: &ResolvedStep, undo: &serde_json::Value) -> GuardOrder {
        let resolution = self.admitted.resolution();
        let id = format!("{}{}", Self::GUARD, step.id);
        let entry = |entry: &ResolvedStep, id: String, undo: Option<serde_json::Value>| UndoEntry {
            id,
            title: format!("Put back by the guard: {}", entry.title),
            action: entry.action.clone(),
            with: entry.with.as_ref().clone(),
            undo,
            limit_ms: millis(entry.time_limit),
        };
        let entries = if undo.is_null() {
            let written = resolution.rollback.iter().filter(|written| written.undoes.contains(&step.id));
            written.map(|written| entry(written, format!("{id}:{}", written.id), None)).collect()
        } else {
            vec![entry(step, id, Some(undo.clone()))]
        };
        let view = self.job_view(true);
        GuardOrder {
            version: ORDER_VERSION,
            step: self.identity(&step.id, 1),
            profile: resolution.profile.as_ref().clone(),
            facts: resolution.facts.as_ref().clone(),
            placeholders: resolution.placeholders.as_ref().clone(),
            noted: view.noted,
            packages: view.packages,
            window_ms: millis(step.guard.unwrap_or_default()),
            restarts: step.effects.restarts,
            entries,
        }
    }

    /// Brings a guarded step to its end: what it did is confirmed, or put back.
    pub(super) fn settle(
        &mut self,
        step: &ResolvedStep,
        outcome: Result<TaskReport, Fault>,
    ) -> Result<Option<Result<TaskReport, Fault>>, JournalError> {
        // Nobody makes it any more: from here on the guard counts, too.
        self.at_work = None;
        let pending = self.pending(step);
        if step.guard.is_none() || !pending.is_armed() {
            return Ok(Some(outcome));
        }
        self.extend(step.guard.unwrap_or_default() + step.time_limit + self.grace() * 4);
        self.tell(JobState::Running { step: step.id.clone(), since: self.now() });
        let settled = match &outcome {
            // Of before a restart: it stays, however its second look at it went.
            _ if matches!(pending.decision(), Ok(Some(Decision::Confirmed))) => Settled::Confirmed,
            // How far it came nobody knows, so undoing could do harm: it stays for a person, if they can come.
            Ok(_) => {
                let (run, attempt) = self.key;
                self.journal(&Entry::Applied { run, attempt, step: step.id.clone() })?;
                #[cfg(any(test, feature = "crash-points"))]
                self.surroundings.journal.reach(crate::crash::CrashPoint::AfterApplied)?;
                self.confirm(step, &pending)?
            }
            Err(fault) if fault.cause == EndCause::OutcomeUnknown => self.confirm(step, &pending)?,
            // Half of a repair is better than none, where the node is still reached.
            Err(_) if step.reversal() == Reversal::GuardOnly => self.confirm(step, &pending)?,
            Err(_) => {
                // At once: there is nothing to wait for.
                self.shorten(&pending, Duration::ZERO);
                self.put_back(step, &pending, String::new())
            }
        };
        let why = match settled {
            Settled::Suspended => return Ok(None),
            Settled::Confirmed => {
                return Ok(Some(outcome.map(|body| self.lasting(step, kept(body, &pending)))));
            }
            Settled::PutBack(why) => {
                pending.said(Decision::Undoing).map_or(why, |said| format!("undone {said}"))
            }
        };
        if !self.take_result(&pending)? {
            let message = format!("it was not confirmed: {why}; the guard did not say what it put back");
            return Ok(Some(Err(Fault::new(EndCause::OutcomeUnknown, message))));
        }
        let how = if self.guard_undid(&step.id) {
            "the guard put it back"
        } else {
            "the guard could not put it back"
        };
        Ok(Some(Err(match outcome {
            Ok(body) => {
                let message = format!("it was not confirmed: {why}; {how}");
                Fault { body: Box::new(body), ..Fault::new(EndCause::Unconfirmed, message) }
            }
            Err(fault) => Fault { message: format!("{}; {how}", fault.message), ..fault },
        })))
    }

    /// Has a confirmed change made lasting; what is left undone of that stands in the report.
    fn lasting(&self, step: &ResolvedStep, mut body: TaskReport) -> TaskReport {
        let Some(Task::Change(change)) = step.task else { return body };
        let undo = self.record.step(&step.id).map(|known| known.undo.clone()).unwrap_or_default();
        let kept = self.call(step, (1, true), KEEP_LIMIT, true, move |context| change.keep(context, &undo));
        if let Err(fault) = kept {
            let found = Problem {
                severity: Severity::High,
                code: "not_lasting".to_owned(),
                subject: step.id.clone(),
                message: format!("it was confirmed, and not made lasting: {}", fault.message),
                evidence: String::new(),
                remedy: "look at the node before it is restarted".to_owned(),
            };
            body.problems.push(found);
        }
        body
    }

    /// Forgets a guarded change whose step's end is journaled, unless its guard may still be at work.
    pub(super) fn let_go(&self, step: &ResolvedStep) {
        if step.guard.is_none() {
            return;
        }
        let pending = self.pending(step);
        let at_work = matches!(pending.decision(), Ok(Some(Decision::Undoing)))
            && !matches!(pending.result(), Ok(Some(_)));
        if !at_work && let Err(error) = pending.remove() {
            tracing::warn!(%error, step = step.id, "the folder of a guarded change cannot be removed");
        }
    }

    /// Asks until somebody answers or the guard decides.
    fn confirm(&mut self, step: &ResolvedStep, pending: &Pending) -> Result<Settled, JournalError> {
        let window = step.guard.unwrap_or_default();
        self.shorten(pending, window);
        let began = self.since_boot();
        let mut why = String::new();
        loop {
            match pending.decision() {
                Ok(Some(Decision::Undoing)) => return Ok(self.put_back(step, pending, why)),
                Ok(Some(Decision::Confirmed)) => {
                    let said = pending.said(Decision::Confirmed);
                    let by = said.map_or_else(|| "before a restart".to_owned(), |said| said.to_string());
                    let (run, attempt) = self.key;
                    self.journal(&Entry::Confirmed { run, attempt, step: step.id.clone(), by })?;
                    return Ok(Settled::Confirmed);
                }
                Ok(None) | Err(_) => {}
            }
            if self.surroundings.suspend.is_cancelled() {
                return Ok(Settled::Suspended);
            }
            let waited = self.since_boot().saturating_sub(began);
            let by = match self.ask_path(window) {
                Way::Controller(endpoint) => Some(endpoint),
                // A controller is waited for as long as half of the time; it may only be starting.
                Way::Witness(witness) if waited >= window / 2 => Some(format!("witness {witness}")),
                Way::Witness(witness) => {
                    why = format!("no controller answered, only the witness {witness}");
                    None
                }
                Way::Nobody(problem) => {
                    why = problem;
                    None
                }
            };
            let Some(by) = by else {
                if let Err(fault) = self.surroundings.guard.look_after(pending) {
                    tracing::error!(fault, step = step.id, "the guard is not there");
                }
                self.surroundings.host.clock().pause(ASK_AGAIN, &self.surroundings.suspend);
                continue;
            };
            match pending.decide(Decision::Confirmed) {
                Ok(Decision::Confirmed) => {
                    let (run, attempt) = self.key;
                    self.journal(&Entry::Confirmed { run, attempt, step: step.id.clone(), by })?;
                    return Ok(Settled::Confirmed);
                }
                Ok(Decision::Undoing) => return Ok(self.put_back(step, pending, why)),
                Err(error) => {
                    why = format!("the confirmation could not be written: {error}");
                    self.surroundings.host.clock().pause(ASK_AGAIN, &CancelFlag::default());
                }
            }
        }
    }

    /// Moves the guard's deadline to so much from now, and never away: an agent that dies again and again must not hold an
    /// unconfirmed change up. Where it cannot be written the one before counts.
    fn shorten(&self, pending: &Pending, from_now: Duration) {
        let clock = self.surroundings.host.clock();
        let Some(before) = pending.deadline() else { return };
        if before.left(&clock.boot_id(), clock.since_boot()).is_none_or(|left| left <= from_now) {
            return;
        }
        let nearer = Deadline { anew: before.anew, ..self.deadline(from_now) };
        if let Err(error) = pending.set_deadline(&nearer) {
            tracing::error!(%error, "the guard's deadline cannot be moved; the one before counts");
        }
    }

    /// Waits until the guard has put a change back.
    fn put_back(&self, step: &ResolvedStep, pending: &Pending, why: String) -> Settled {
        let entries = pending.order().ok().flatten().map(|order| order.entries).unwrap_or_default();
        let limits = entries.iter().map(|entry| Duration::from_millis(entry.limit_ms) + self.grace());
        let until = Instant::now() + limits.sum::<Duration>() + GUARD_MARGIN;
        loop {
            if matches!(pending.result(), Ok(Some(_))) || Instant::now() >= until {
                return Settled::PutBack(why);
            }
            if self.surroundings.suspend.is_cancelled() {
                return Settled::Suspended;
            }
            if let Err(fault) = self.surroundings.guard.look_after(pending) {
                tracing::error!(fault, step = step.id, "the guard is not there");
            }
            thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Journals what the guard did, as steps of their own; false where it has not said.
    fn take_result(&mut self, pending: &Pending) -> Result<bool, JournalError> {
        let Ok(Some(steps)) = pending.result() else { return Ok(false) };
        for report in steps {
            if self.record.step(&report.id).is_none() {
                self.end_step(report)?;
            }
        }
        Ok(true)
    }

    /// Ids of what the guard did begin so.
    const GUARD: &'static str = "guard:";

    /// What the guard did for a step.
    pub(super) fn guard_reports(&self, step: &str) -> Vec<StepReport> {
        let (own, entries) = (format!("{}{step}", Self::GUARD), format!("{}{step}:", Self::GUARD));
        let of_step = |id: &str| id == own || id.starts_with(&entries);
        self.record
            .steps
            .iter()
            .filter(|known| of_step(&known.id))
            .filter_map(|known| known.report.clone())
            .collect()
    }

    /// The steps that the guard has put back.
    pub(super) fn undone_by_guard(&self) -> BTreeSet<String> {
        let steps = self.admitted.resolution().steps.iter();
        steps.filter(|step| self.guard_undid(&step.id)).map(|step| step.id.clone()).collect()
    }

    /// Did the guard put all of a step back?
    pub(super) fn guard_undid(&self, step: &str) -> bool {
        let reports = self.guard_reports(step);
        !reports.is_empty() && reports.iter().all(|report| report.state == StepState::Succeeded)
    }
}

/// How far a guarded change is when its step is taken up.
pub(super) enum Armed {
    /// Its guard lives and waits.
    Waiting,
    /// It was confirmed before the executor ended: what is left is its end.
    Confirmed,
    /// The guard has begun to put it back.
    Undoing,
}

/// A report that says who kept the change, where a person did.
fn kept(mut body: TaskReport, pending: &Pending) -> TaskReport {
    if let Some(said) = pending.said(Decision::Confirmed) {
        body.summary = format!("{}; kept {said}", body.summary);
    }
    body
}
