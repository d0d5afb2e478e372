//! What waits to be sent to the controller: sealed reports until they are acknowledged, progress until it
//! is overtaken. Pure: time is handed in.
//!
//! The executor keeps the durable copy of every report and lists it again on the next link, so nothing here
//! is written to disk and a bound may be enforced by dropping. Order on the link: reconcile pages, then
//! reports, then facts, then progress. Progress is one entry a job, the latest wins: a slow link never
//! grows memory. Used by the link's owner only.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fleet_proto::convert::{self, FieldError};
use fleet_proto::pb;
use fleet_proto::pb::agent_message::Body;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, RunId};
use tokio::time::Instant;

/// Reports kept at most: a node runs one changing job at a time, so this is days of silence.
const MAX_REPORTS: usize = 256;
/// Bytes of reports kept at most; 16 of the largest reports.
const MAX_REPORT_BYTES: usize = 8 * 1024 * 1024;
/// Jobs with progress to tell at most; reconcile tells the rest.
const MAX_UPDATES: usize = 256;
/// Reconcile pages (256 jobs each) that may wait; beyond it the executor is not read (see [`Outbox::has_room`]).
const MAX_PAGES: usize = 8;

/// A job of this node in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobKey {
    /// The run.
    pub run: RunId,
    /// The attempt.
    pub attempt: Attempt,
}

impl JobKey {
    /// Reads the two fields of a message.
    pub fn read(run: &str, attempt: u32) -> Result<Self, FieldError> {
        Ok(Self { run: convert::text("run", run)?, attempt: Attempt(attempt) })
    }
}

#[derive(Debug)]
struct Waiting {
    sealed: pb::SealedReport,
    digest: Digest,
    /// When it was last sent over the present link.
    sent: Option<Instant>,
    /// Its place among those that came: reports go in the order in which the executor made them, because
    /// the controller takes each only behind the one before it.
    place: u64,
}

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// The report is durable at the controller and gone from here.
    Removed,
    /// No such report waits here; the executor may still want to know.
    Unknown,
    /// The digest is not that of the report: it stays and is sent again.
    OtherDigest,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    resend: Duration,
    reports: BTreeMap<JobKey, Waiting>,
    report_bytes: usize,
    places: u64,
    updates: VecDeque<(JobKey, pb::JobUpdate)>,
    facts: Option<pb::Facts>,
    pages: VecDeque<pb::ReconcilePage>,
    /// The last reconcile page of this link was sent.
    listed: bool,
    /// Reports were dropped for want of room: the executor must list them again.
    withheld: bool,
}

impl Outbox {
    /// Reports are sent again after `resend` without an acknowledgement.
    pub fn new(resend: Duration) -> Self {
        Self {
            resend,
            reports: BTreeMap::new(),
            report_bytes: 0,
            places: 0,
            updates: VecDeque::new(),
            facts: None,
            pages: VecDeque::new(),
            listed: false,
            withheld: false,
        }
    }

    /// A new link is up: nothing counts as sent, and the executor's list goes first.
    pub fn on_link_up(&mut self) {
        self.pages.clear();
        self.listed = false;
        self.withheld = false;
        for waiting in self.reports.values_mut() {
            waiting.sent = None;
        }
    }

    /// The link has ended: its list is of no use to the next one.
    pub fn on_link_down(&mut self) {
        self.pages.clear();
        self.listed = false;
    }

    /// Takes a page of the executor's list.
    pub fn on_page(&mut self, page: pb::ReconcilePage) {
        // The list is newer than any progress that waited for a link.
        for job in &page.jobs {
            if let Ok(key) = JobKey::read(&job.run, job.attempt) {
                self.updates.retain(|(waiting, _)| *waiting != key);
            }
        }
        self.pages.push_back(page);
    }

    /// Takes a report; one that waits already stays as it is.
    pub fn on_report(&mut self, sealed: pb::SealedReport) -> Result<(), FieldError> {
        let key = JobKey::read(&sealed.run, sealed.attempt)?;
        // The report says more than any progress of its job.
        self.updates.retain(|(waiting, _)| *waiting != key);
        let digest = Digest::of(&sealed.payload);
        if self.reports.get(&key).is_some_and(|waiting| waiting.digest == digest) {
            return Ok(());
        }
        let bytes = sealed.payload.len();
        if self.reports.len() >= MAX_REPORTS || self.report_bytes + bytes > MAX_REPORT_BYTES {
            self.withheld = true;
            return Ok(());
        }
        self.report_bytes += bytes;
        self.places += 1;
        let waiting = Waiting { sealed, digest, sent: None, place: self.places };
        if let Some(old) = self.reports.insert(key, waiting) {
            self.report_bytes -= old.sealed.payload.len();
        }
        Ok(())
    }

    /// Takes progress of a job; the latest wins and keeps the place of the first.
    pub fn on_update(&mut self, update: pb::JobUpdate) -> Result<(), FieldError> {
        let key = JobKey::read(&update.run, update.attempt)?;
        if self.reports.contains_key(&key) {
            return Ok(());
        }
        if let Some((_, waiting)) = self.updates.iter_mut().find(|(waiting, _)| *waiting == key) {
            *waiting = update;
            return Ok(());
        }
        if self.updates.len() >= MAX_UPDATES {
            self.updates.pop_front();
        }
        self.updates.push_back((key, update));
        Ok(())
    }

    /// Takes new facts.
    pub fn on_facts(&mut self, facts: pb::Facts) {
        self.facts = Some(facts);
    }

    /// The controller has made a report durable.
    pub fn on_ack(&mut self, key: JobKey, digest: &[u8]) -> Acked {
        match self.reports.get(&key) {
            None => Acked::Unknown,
            Some(waiting) if waiting.digest.as_bytes() != digest => Acked::OtherDigest,
            Some(_) => {
                if let Some(gone) = self.reports.remove(&key) {
                    self.report_bytes -= gone.sealed.payload.len();
                }
                Acked::Removed
            }
        }
    }

    /// What to send now over a link that is up.
    pub fn next(&mut self, now: Instant) -> Option<Body> {
        if let Some(page) = self.pages.pop_front() {
            self.listed |= page.last;
            return Some(Body::Reconcile(page));
        }
        if !self.listed {
            return None;
        }
        let resend = self.resend;
        let due = |waiting: &&mut Waiting| waiting.sent.is_none_or(|sent| now >= sent + resend);
        if let Some(waiting) = self.reports.values_mut().filter(due).min_by_key(|waiting| waiting.place) {
            waiting.sent = Some(now);
            return Some(Body::Report(waiting.sealed.clone()));
        }
        if let Some(facts) = self.facts.take() {
            return Some(Body::Facts(facts));
        }
        self.updates.pop_front().map(|(_, update)| Body::Job(update))
    }

    /// When [`Self::next`] has something though nothing arrives; none when only an event can bring it.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        if !self.pages.is_empty() {
            return Some(now);
        }
        if !self.listed {
            return None;
        }
        if self.facts.is_some() || !self.updates.is_empty() {
            return Some(now);
        }
        self.reports.values().map(|waiting| waiting.sent.map_or(now, |sent| sent + self.resend)).min()
    }

    /// May the executor send more? Progress and reports always fit; pages wait for the link.
    pub fn has_room(&self) -> bool {
        self.pages.len() < MAX_PAGES
    }

    /// Everything that was taken is acknowledged, and what was dropped must be listed again: a new link
    /// makes the executor do that.
    pub fn must_relist(&self) -> bool {
        self.withheld && self.reports.is_empty()
    }

    /// Nothing that matters is left: no report without acknowledgement.
    pub fn is_flushed(&self) -> bool {
        self.reports.is_empty() && self.updates.is_empty() && self.pages.is_empty()
    }

    /// Reports without acknowledgement.
    pub fn waiting_reports(&self) -> usize {
        self.reports.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: u64) -> String {
        RunId::from_number(n).to_string()
    }

    fn report(n: u64) -> pb::SealedReport {
        pb::SealedReport {
            run: run(n),
            attempt: 1,
            payload: vec![u8::try_from(n).unwrap_or(0); 8],
            signature: vec![],
        }
    }

    fn update(n: u64, sequence: u64) -> pb::JobUpdate {
        pb::JobUpdate { run: run(n), attempt: 1, journal_sequence: sequence, ..Default::default() }
    }

    fn last_page() -> pb::ReconcilePage {
        pb::ReconcilePage { jobs: vec![], last: true }
    }

    fn listed() -> Outbox {
        let mut outbox = Outbox::new(Duration::from_secs(10));
        outbox.on_link_up();
        outbox.on_page(last_page());
        assert!(matches!(outbox.next(Instant::now()), Some(Body::Reconcile(_))));
        outbox
    }

    #[test]
    fn nothing_goes_before_the_list_and_reports_go_before_progress() {
        let mut outbox = Outbox::new(Duration::from_secs(10));
        outbox.on_link_up();
        outbox.on_update(update(1, 1)).unwrap();
        outbox.on_report(report(2)).unwrap();
        let now = Instant::now();
        assert!(outbox.next(now).is_none() && outbox.due(now).is_none());
        outbox.on_page(last_page());
        assert!(matches!(outbox.next(now), Some(Body::Reconcile(_))));
        assert!(matches!(outbox.next(now), Some(Body::Report(_))));
        assert!(matches!(outbox.next(now), Some(Body::Job(_))));
        assert!(outbox.next(now).is_none());
    }

    #[test]
    fn a_report_is_resent_until_its_own_digest_is_acknowledged() {
        let mut outbox = listed();
        outbox.on_report(report(2)).unwrap();
        let start = Instant::now();
        let key = JobKey::read(&run(2), 1).unwrap();
        for round in 0..5u32 {
            let now = start + round * Duration::from_secs(10);
            assert!(matches!(outbox.next(now), Some(Body::Report(_))), "round {round}");
            assert!(outbox.next(now + Duration::from_secs(9)).is_none());
            assert_eq!(outbox.due(now), Some(now + Duration::from_secs(10)));
        }
        assert_eq!(outbox.on_ack(key, b"other"), Acked::OtherDigest);
        assert_eq!(outbox.on_ack(key, Digest::of(&[2; 8]).as_bytes()), Acked::Removed);
        assert_eq!(outbox.on_ack(key, Digest::of(&[2; 8]).as_bytes()), Acked::Unknown);
        assert!(outbox.next(start + Duration::from_mins(10)).is_none() && outbox.is_flushed());
    }

    #[test]
    fn progress_is_coalesced_and_gives_way_to_the_report() {
        let mut outbox = listed();
        for sequence in 0..10_000 {
            outbox.on_update(update(sequence % 3, sequence)).unwrap();
        }
        outbox.on_report(report(1)).unwrap();
        let now = Instant::now();
        assert!(matches!(outbox.next(now), Some(Body::Report(_))));
        let mut sequences = Vec::new();
        while let Some(Body::Job(update)) = outbox.next(now) {
            sequences.push(update.journal_sequence);
        }
        assert_eq!(sequences, [9_999, 9_998]);
    }

    #[test]
    fn a_full_outbox_asks_for_a_new_list_once_it_is_empty() {
        let mut outbox = listed();
        let most = MAX_REPORTS as u64;
        for n in 0..=most {
            outbox.on_report(report(n)).unwrap();
        }
        assert_eq!(outbox.waiting_reports(), MAX_REPORTS);
        assert!(!outbox.must_relist());
        for n in 0..most {
            let digest = Digest::of(&report(n).payload);
            assert_eq!(outbox.on_ack(JobKey::read(&run(n), 1).unwrap(), digest.as_bytes()), Acked::Removed);
        }
        assert!(outbox.must_relist());
    }
}
