//! The other end of the socket: a core as a test plays it.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_proto::convert::{self, JobUpdate};
use fleet_proto::pb;
use fleet_proto::pb::core_message::Body as ToExecutor;
use fleet_proto::pb::executor_message::Body as FromExecutor;
use fleet_types::assignment::Assignment;
use fleet_types::canonical;
use fleet_types::digest::Digest;
use fleet_types::id::RunId;
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::Report;
use fleet_types::seal::Kind;

use super::bench::{Bench, Order};
use crate::socket::{CorePort, Socket};

/// No answer of these tests takes a second; a machine under load may need much longer.
const LIMIT: Duration = Duration::from_secs(30);

pub struct Core {
    port: CorePort,
    documents: BTreeMap<Digest, Vec<u8>>,
    /// Documents that were asked for.
    pub asked: Vec<Digest>,
    /// States that were told, in order.
    pub states: Vec<(RunId, JobState)>,
    /// Output that came, by step.
    pub output: Vec<pb::OutputChunk>,
    /// So many more questions about the way to a controller are answered with yes; those after them with no.
    pub ways: usize,
    /// What the witnesses say; asked where no controller answers.
    pub witness: Option<String>,
}

impl Core {
    pub fn new(socket: Socket) -> Self {
        let port = CorePort::bind(socket).unwrap();
        Self {
            port,
            documents: BTreeMap::new(),
            asked: vec![],
            states: vec![],
            output: vec![],
            ways: usize::MAX,
            witness: None,
        }
    }

    async fn check_path(&mut self, question: pb::CheckPath) {
        let mut answer = pb::PathChecked { id: question.id, ..Default::default() };
        if self.ways > 0 {
            self.ways -= 1;
            answer.controller = "controller:7443".to_owned();
        } else {
            answer.problem = "no controller accepts a new connection".to_owned();
            answer.witness =
                self.witness.clone().filter(|of| question.witnesses.contains(of)).unwrap_or_default();
        }
        self.send(ToExecutor::Path(answer)).await;
    }

    pub async fn send(&mut self, body: ToExecutor) {
        self.port.sender.send(&pb::CoreMessage { body: Some(body) }).await.unwrap();
    }

    /// The next message that is not about documents or output; those are served and kept.
    pub async fn next(&mut self, what: &str) -> Option<FromExecutor> {
        loop {
            if let Some(other) = self.one(what).await? {
                return Some(other);
            }
        }
    }

    /// Takes one message in: the outer none is the executor's end, the inner one a message that was served.
    #[allow(clippy::option_option)]
    pub async fn one(&mut self, what: &str) -> Option<Option<FromExecutor>> {
        let received = tokio::time::timeout(LIMIT, self.port.receiver.receive()).await;
        let message = received.unwrap_or_else(|_| panic!("waited {LIMIT:?} for {what}")).unwrap();
        match message?.body.unwrap() {
            FromExecutor::Alive(_) | FromExecutor::Leaving(_) => {}
            FromExecutor::NeedDocument(need) => self.serve(&need.digest).await,
            FromExecutor::CheckPath(question) => self.check_path(question).await,
            FromExecutor::Output(chunk) => {
                let offset = chunk.offset + chunk.data.len() as u64;
                let (run, attempt, step) = (chunk.run.clone(), chunk.attempt, chunk.step.clone());
                self.output.push(chunk);
                let stored = pb::OutputStored { run, attempt, step, offset };
                self.send(ToExecutor::OutputStored(stored)).await;
            }
            FromExecutor::Job(job) => {
                let update = JobUpdate::try_from(&job).unwrap();
                self.states.push((update.run, update.state));
                return Some(Some(FromExecutor::Job(job)));
            }
            other => return Some(Some(other)),
        }
        Some(None)
    }

    async fn serve(&mut self, digest: &[u8]) {
        let wanted = Digest::from_slice(digest).unwrap();
        self.asked.push(wanted);
        let envelope = self.documents.get(&wanted).cloned().unwrap_or_default();
        let error = if envelope.is_empty() { "not found".to_owned() } else { String::new() };
        let arrived = pb::DocumentArrived { digest: digest.to_vec(), envelope, error };
        self.send(ToExecutor::Document(arrived)).await;
    }

    pub async fn ready(&mut self) -> pb::Hello {
        match self.next("ready").await {
            Some(FromExecutor::Ready(ready)) => ready.hello.unwrap(),
            other => panic!("expected ready, got {other:?}"),
        }
    }

    /// Says that it is alive.
    pub async fn alive(&mut self) {
        self.send(ToExecutor::Alive(pb::Alive {})).await;
    }

    /// Waits for the executor's next beat.
    pub async fn beat(&mut self) {
        loop {
            let received = tokio::time::timeout(LIMIT, self.port.receiver.receive()).await;
            let message = received.unwrap_or_else(|_| panic!("waited {LIMIT:?} for a beat")).unwrap();
            if matches!(message.unwrap().body, Some(FromExecutor::Alive(_))) {
                return;
            }
        }
    }

    /// Serves only what is held from here on.
    pub fn forget_documents(&mut self) {
        self.documents.clear();
    }

    pub async fn link_up(&mut self, bench: &Bench, generation: u64, epoch: u64) {
        let dispatch = convert::to_json(&bench.dispatch_statement());
        let link = pb::LinkUp {
            generation,
            link_epoch: epoch,
            dispatch,
            trust_bundle: vec![],
            takes_packages: false,
        };
        self.send(ToExecutor::LinkUp(link)).await;
    }

    pub async fn reconcile(&mut self) -> Vec<JobUpdate> {
        loop {
            match self.next("reconcile").await {
                Some(FromExecutor::Reconcile(page)) => {
                    assert!(page.last);
                    return page.jobs.iter().map(|job| JobUpdate::try_from(job).unwrap()).collect();
                }
                Some(FromExecutor::Job(_)) => {}
                other => panic!("expected a reconcile page, got {other:?}"),
            }
        }
    }

    pub fn hold(&mut self, order: &Order) {
        for envelope in order.documents.iter().chain([&order.request]) {
            self.documents.insert(envelope.digest(), convert::to_json(envelope));
        }
    }

    /// Assigns an order over a link of this epoch.
    pub async fn assign(&mut self, bench: &Bench, order: &Order, epoch: u64) {
        self.hold(order);
        let assignment = bench.assignment(order, 1, epoch);
        self.assign_exactly(bench, &assignment).await;
    }

    pub async fn assign_exactly(&mut self, bench: &Bench, assignment: &Assignment) {
        let proof = convert::to_json(&bench.wave(assignment));
        self.send(ToExecutor::Assign(pb::Assign { assignment: convert::to_json(assignment), proof })).await;
    }

    pub async fn cancel(&mut self, run: RunId) {
        let cancel = pb::Cancel { run: run.to_string(), attempt: 1, reason: "enough".to_owned() };
        self.send(ToExecutor::Cancel(cancel)).await;
    }

    /// The next sealed report, its signature checked.
    pub async fn sealed(&mut self, bench: &Bench) -> pb::SealedReport {
        loop {
            match self.next("a report").await {
                Some(FromExecutor::Report(report)) => {
                    let key = bench.report_key.unwrap();
                    let digest = Digest::of(&report.payload);
                    key.verify(Kind::Report, bench.node.fleet, digest, &report.signature).unwrap();
                    return report;
                }
                Some(FromExecutor::Job(_)) => {}
                other => panic!("expected a report, got {other:?}"),
            }
        }
    }

    pub async fn report(&mut self, bench: &Bench) -> Report {
        let sealed = self.sealed(bench).await;
        canonical::from_slice(&sealed.payload).unwrap()
    }

    pub async fn ack(&mut self, report: &pb::SealedReport) {
        let digest = Digest::of(&report.payload).as_bytes().to_vec();
        let ack = pb::ReportAck { run: report.run.clone(), attempt: report.attempt, digest };
        self.send(ToExecutor::ReportAck(ack)).await;
    }

    /// Assigns an order and gives outcome and reason of its report.
    pub async fn outcome(&mut self, bench: &Bench, order: &Order, epoch: u64) -> (Outcome, String) {
        self.assign(bench, order, epoch).await;
        let report = self.report(bench).await;
        assert_eq!(report.job.run, order.run);
        (report.outcome, report.reason)
    }

    /// Waits for a state of this kind.
    pub async fn state(&mut self, what: &str, matches: impl Fn(&JobState) -> bool) -> JobState {
        self.update(what, |update| matches(&update.state)).await.state
    }

    /// Waits for word of a job of this kind.
    pub async fn update(&mut self, what: &str, matches: impl Fn(&JobUpdate) -> bool) -> JobUpdate {
        loop {
            match self.next(what).await {
                Some(FromExecutor::Job(job)) => {
                    let update = JobUpdate::try_from(&job).unwrap();
                    if matches(&update) {
                        return update;
                    }
                }
                other => panic!("expected {what}, got {other:?}"),
            }
        }
    }

    /// Reads until the executor has left; gives the reports that came.
    pub async fn drain(&mut self) -> usize {
        let mut reports = 0;
        while let Some(message) = self.next("the executor's end").await {
            reports += usize::from(matches!(message, FromExecutor::Report(_)));
        }
        reports
    }
}
