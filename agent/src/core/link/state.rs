//! Everything that outlives a link: outbox, output on its way, wanted documents, and what Hello says.
//!
//! One owner, the link's loop. Synchronous: a message of the executor goes in.

use fleet_proto::convert;
use fleet_proto::pb;
use fleet_proto::pb::executor_message;
use tracing::{debug, warn};

use super::documents::Wanted;
use super::path::PathChecks;
use crate::clock;
use crate::config::Timers;
use crate::core::outbox::{Acked, JobKey, Outbox};
use crate::core::output::Waiting;

/// See the module.
#[derive(Debug)]
pub struct LinkState {
    /// What waits for the link.
    pub outbox: Outbox,
    /// Output that waits for room on its stream.
    pub output: Waiting,
    /// The piece of a copy that is to be sent; one at a time.
    pub copy: Option<pb::CopyPiece>,
    /// The node's packages, to be told; one message at a time.
    pub packages: Option<pb::Packages>,
    /// Documents that the executor needs.
    pub wanted: Wanted,
    /// Whether the way to a controller is open.
    pub paths: PathChecks,
    hello: pb::Hello,
    /// Which start of the core this is.
    start_id: String,
    /// Links that ended without the executor having taken note yet, which it does with a new Ready.
    ended_links: u32,
    jobs_open: std::collections::BTreeSet<JobKey>,
}

impl LinkState {
    /// Begins with what the executor's first message said.
    pub fn new(hello: pb::Hello, timers: &Timers) -> Self {
        Self {
            outbox: Outbox::new(timers.report_resend),
            output: Waiting::default(),
            copy: None,
            packages: None,
            wanted: Wanted::new(timers.document),
            paths: PathChecks::default(),
            hello,
            start_id: clock::start_id(),
            ended_links: 0,
            jobs_open: std::collections::BTreeSet::new(),
        }
    }

    /// What to say Hello with: the newest that is known.
    pub fn hello(&self) -> pb::Hello {
        pb::Hello { start_id: self.start_id.clone(), ..self.hello.clone() }
    }

    /// Jobs that are not finished, as the heartbeat tells.
    pub fn jobs_open(&self) -> u32 {
        u32::try_from(self.jobs_open.len()).unwrap_or(u32::MAX)
    }

    /// The executor took a link's fencing values: the next Hello names them.
    pub fn on_link_accepted(&mut self, generation: u64, epoch: u64) {
        self.hello.generation_seen = self.hello.generation_seen.max(generation);
        self.hello.epoch_seen = self.hello.epoch_seen.max(epoch);
    }

    /// A link has ended: what the executor still says about it is of no use to the next one.
    pub fn on_link_down(&mut self) {
        self.ended_links += 1;
        // The next link's list tells them anew.
        self.jobs_open.clear();
        self.outbox.on_link_down();
    }

    /// Is the executor still behind, speaking of a link that has ended?
    pub const fn executor_is_behind(&self) -> bool {
        self.ended_links > 0
    }

    /// Takes a message of the executor. Answers of a link (`LinkRefused`, and the pages after `LinkUp`) are handled by the
    /// link while one is up.
    pub fn on_executor(&mut self, body: executor_message::Body) {
        use executor_message::Body;
        let taken = match body {
            Body::Ready(ready) => {
                self.ended_links = self.ended_links.saturating_sub(1);
                if let Some(hello) = ready.hello {
                    self.hello = hello;
                }
                Ok(())
            }
            Body::Reconcile(_) if self.executor_is_behind() => Ok(()),
            Body::Reconcile(page) => {
                for job in &page.jobs {
                    self.note(job);
                }
                self.outbox.on_page(page);
                Ok(())
            }
            Body::Job(update) => {
                self.note(&update);
                self.outbox.on_update(update)
            }
            Body::Report(report) => {
                if let Ok(key) = JobKey::read(&report.run, report.attempt) {
                    self.jobs_open.remove(&key);
                }
                self.outbox.on_report(report)
            }
            Body::Facts(facts) => {
                self.hello.facts.clone_from(&facts.facts);
                self.outbox.on_facts(facts);
                Ok(())
            }
            Body::NeedDocument(need) => self.wanted.on_need(&need.digest),
            Body::Output(chunk) => {
                if !self.output.push(chunk) {
                    warn!("the executor sends more output than it may have under way; it is dropped");
                }
                Ok(())
            }
            Body::Copy(piece) => {
                self.copy = Some(piece);
                Ok(())
            }
            Body::Packages(message) => {
                self.packages = Some(message);
                Ok(())
            }
            Body::CheckPath(question) => {
                self.paths.ask(question);
                Ok(())
            }
            // The channel's own.
            Body::Alive(_) | Body::Leaving(_) => Ok(()),
            Body::LinkRefused(refused) => {
                debug!(reason = refused.reason, "executor refused a link that is gone already");
                Ok(())
            }
        };
        if let Err(error) = taken {
            warn!(%error, "executor sent a message that cannot be used; it is dropped");
        }
    }

    /// An acknowledgement of the controller; true when the executor should hear of it.
    pub fn on_report_ack(&mut self, ack: &pb::ReportAck) -> bool {
        let Ok(key) = JobKey::read(&ack.run, ack.attempt) else { return false };
        match self.outbox.on_ack(key, &ack.digest) {
            Acked::OtherDigest => {
                warn!(
                    run = ack.run,
                    "controller acknowledged another report than the one sent; it is sent again"
                );
                false
            }
            Acked::Removed | Acked::Unknown => true,
        }
    }

    fn note(&mut self, update: &pb::JobUpdate) {
        self.hello.journal_sequence = self.hello.journal_sequence.max(update.journal_sequence);
        // What cannot be read here is the controller's to refuse; it only is not counted.
        let Ok(update) = convert::JobUpdate::try_from(update) else { return };
        let key = JobKey { run: update.run, attempt: update.attempt };
        if update.state.outcome().is_none() {
            self.jobs_open.insert(key);
        } else {
            self.jobs_open.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_types::id::{Attempt, RunId};
    use fleet_types::job::{JobState, Outcome};

    use super::*;

    fn update(state: JobState) -> executor_message::Body {
        let run = RunId::from_number(1);
        let update = convert::JobUpdate {
            run,
            attempt: Attempt(1),
            state,
            journal_sequence: 3,
            report: None,
            request: None,
            limits: None,
        };
        executor_message::Body::Job((&update).into())
    }

    #[test]
    fn open_jobs_are_those_that_have_not_ended() {
        let second = Duration::from_secs(1);
        let timers = Timers {
            connect: second,
            backoff_min: second,
            backoff_max: second,
            stable_link: second,
            spread: second,
            keepalive: second,
            heartbeat: second,
            hello: second,
            report_resend: second,
            document: second,
            halves: second,
            drain: second,
        };
        let mut state = LinkState::new(pb::Hello::default(), &timers);
        for _ in 0..2 {
            state.on_executor(update(JobState::Accepted));
        }
        assert_eq!((state.jobs_open(), state.hello().journal_sequence), (1, 3));
        let refused = JobState::ended(Outcome::Refused, "policy");
        state.on_executor(update(refused));
        assert_eq!(state.jobs_open(), 0);
        state.on_executor(update(JobState::Accepted));
        state.on_link_down();
        assert_eq!(state.jobs_open(), 0);
        // The executor's next word is still of the link that has ended.
        state.on_executor(executor_message::Body::Reconcile(pb::ReconcilePage { jobs: vec![], last: true }));
        assert!(state.outbox.next(tokio::time::Instant::now()).is_none());
        assert!(state.executor_is_behind());
        let hello = Some(pb::Hello { boot_id: "next".to_owned(), ..Default::default() });
        state.on_executor(executor_message::Body::Ready(pb::Ready { hello }));
        assert!(!state.executor_is_behind() && state.hello().boot_id == "next");
    }
}
