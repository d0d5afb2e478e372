//! What stays after how long.

use std::sync::Arc;

use fleet_store::MemoryStore;
use fleet_types::authority::Authority;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, NodeId, Stage};
use fleet_types::job::{JobState, Outcome};
use fleet_types::run::RunState;

use super::*;
use crate::clock::Clock;
use crate::context::Context;
use crate::repo::answers;
use crate::repo::codec::Mark;
use crate::repo::documents;
use crate::repo::jobs::{self, InboxRecord, JobRecord};
use crate::repo::nodes::{self, NodeRecord};
use crate::repo::output_files::OutputOf;
use crate::repo::reader::BatchExt as _;
use crate::repo::reports::{self, ReportRecord, StoredReport};
use crate::repo::runs::{self, RunRecord};
use crate::testing::{TestContext, agent, enrolled, job_record, run_record};

/// A store with an enrolled node, and when it began.
async fn begin() -> (TestContext, Timestamp) {
    let start = Timestamp::clamped(1_800_000_000_000);
    let test = TestContext::at(Arc::new(MemoryStore::new()), Clock::manual(start)).await;
    enrolled(&test.context, 1).await;
    (test, start)
}

/// Writes a run that ended now, with one job, its report and some output.
async fn ended_run(context: &Context, number: u64, sequence: u64) -> RunId {
    let (now, node) = (context.storage.clock.now(), agent(1));
    let run = RunId::new(now, u32::try_from(number).unwrap());
    let payload = vec![7; 20_000];
    let report = StoredReport { chain: 0, sequence, digest: Digest::of(&payload) };
    let record = RunRecord {
        authority: Authority::Request(Digest::of(&number.to_be_bytes())),
        state: RunState::Succeeded,
        ended: Some(now),
        ..run_record(run, now)
    };
    let job = JobRecord {
        state: JobState::ended(Outcome::Succeeded, ""),
        ended: Some(now),
        report: Some(report),
        ..job_record(run, &node)
    };
    let body = ReportRecord { payload, signature: vec![1; 64], received: now, journal_sequence: 1 };
    let answer =
        IdempotencyRecord { arguments: record.authority.digest(), answer: serde_json::Value::Null, at: now };
    let operator = crate::testing::operator().record.id;
    let batch = context
        .storage
        .audited
        .batch()
        .put_record(runs::key(run).unwrap(), &record)
        .and_then(|batch| batch.put_record(jobs::key(run, node.node)?, &job))
        .and_then(|batch| batch.put_record(jobs::node_index(node.node, run)?, &Mark {}))
        .and_then(|batch| batch.put_record(runs::by_time(record.started, run)?, &Mark {}))
        .and_then(|batch| batch.put_object(&documents::content(&record.authority.digest())?, b"request"))
        .and_then(|batch| batch.put_object_record(&reports::key(node.node, 0, sequence)?, &body))
        .and_then(|batch| {
            batch.put_object_record(&answers::key(operator, &record.authority.digest())?, &answer)
        })
        .unwrap();
    context.storage.audited.commit(batch, vec![]).await.unwrap();
    let of = OutputOf { run, node: node.node, attempt: Attempt(1), step: "s".to_owned() };
    context.files.output.append(&of, 0, vec![1; 100], true).await.unwrap();
    run
}

async fn keys_below(context: &Context, prefix: &str) -> usize {
    let store = context.storage.repo.store();
    let (mut count, mut after) = (0, None);
    loop {
        let page = store.scan(prefix.as_bytes(), after.as_ref(), PAGE, Direction::Ascending).await.unwrap();
        count += page.len();
        match page.last() {
            Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
            _ => return count,
        }
    }
}

#[tokio::test]
async fn ten_months_leave_what_ninety_days_leave() {
    let (test, start) = begin().await;
    let context = &test.context;
    let mut sizes = Vec::new();
    for day in 0..300 {
        context.storage.clock.set(start.plus(DAY * day));
        ended_run(context, u64::from(day), u64::from(day) + 1).await;
        sweep(&context.storage, &context.files).await.unwrap();
        let mut size = 0;
        for prefix in ["run/", "job/", "node-job/", "content/", "report/", answers::ALL] {
            size += keys_below(context, prefix).await;
        }
        sizes.push(size);
    }
    assert_eq!(sizes[120], sizes[299], "flat once the longest period is over");
    assert_eq!(keys_below(context, "run/").await, 90);
    assert_eq!(keys_below(context, "job/").await, 90);
    // A report of 20,000 bytes, base 64 in JSON, has a head and three parts.
    assert_eq!(keys_below(context, "report/").await, 30 * 4);
    assert_eq!(keys_below(context, answers::ALL).await, 30);
    assert_eq!(context.files.output.runs().await.unwrap(), 30);
    // The newest report stays however old it is: the next one names it.
    context.storage.clock.set(start.plus(DAY * 1_000));
    sweep(&context.storage, &context.files).await.unwrap();
    sweep(&context.storage, &context.files).await.unwrap();
    assert_eq!(keys_below(context, "report/").await, 4);
    assert_eq!((keys_below(context, "run/").await, keys_below(context, "job/").await), (0, 0));
    assert_eq!(sweep(&context.storage, &context.files).await.unwrap(), Swept::default());
}

/// The numbers of the reports that are kept of a chain.
async fn kept(context: &Context, node: NodeId, chain: u32) -> Vec<u64> {
    let prefix = reports::of_chain(node, chain);
    let page =
        context.storage.repo.store().scan(prefix.as_bytes(), None, 1000, Direction::Ascending).await.unwrap();
    let mut numbers: Vec<u64> =
        page.iter().filter_map(|(key, _)| reports::sequence_in(key, &prefix)).collect();
    numbers.dedup();
    numbers
}

#[tokio::test]
async fn of_reports_that_come_seldom_the_newest_of_the_present_chain_stays_alone() {
    let (test, start) = begin().await;
    let (context, node) = (&test.context, agent(1).node);
    for number in 0..4 {
        context.storage.clock.set(start.plus(DAY * 31 * u32::try_from(number).unwrap()));
        ended_run(context, number, number + 1).await;
        sweep(&context.storage, &context.files).await.unwrap();
        assert_eq!(kept(context, node, 0).await, [number + 1], "one period after another");
    }
    // Released: its reports begin anew, and nothing names the last one of before.
    let key = nodes::key(node).unwrap();
    let known = context.storage.repo.get::<NodeRecord>(&key).await.unwrap().unwrap().record;
    let batch =
        context.storage.audited.batch().put_record(key.clone(), &NodeRecord { chain: 2, ..known }).unwrap();
    let body = ReportRecord {
        payload: vec![7],
        signature: vec![],
        received: context.storage.clock.now(),
        journal_sequence: 1,
    };
    let batch = batch.put_object_record(&reports::key(node, 1, 9).unwrap(), &body).unwrap();
    let batch = batch.put_object_record(&reports::key(node, 2, 4).unwrap(), &body).unwrap();
    let batch = batch.put_object_record(&reports::key(node, 2, 5).unwrap(), &body).unwrap();
    context.storage.audited.commit(batch, vec![]).await.unwrap();
    sweep(&context.storage, &context.files).await.unwrap();
    assert_eq!([kept(context, node, 0).await, kept(context, node, 1).await], [[4], [9]], "young yet");
    context.storage.clock.set(start.plus(DAY * 124));
    assert_eq!(
        sweep(&context.storage, &context.files).await.unwrap().bodies,
        3 + 1,
        "three bodies, and the output of a run"
    );
    assert_eq!(kept(context, node, 2).await, [5]);
    // Removed: there is no present chain.
    context.storage.audited.commit(context.storage.audited.batch().delete(key), vec![]).await.unwrap();
    sweep(&context.storage, &context.files).await.unwrap();
    assert_eq!(keys_below(context, reports::ALL).await, 0);
}

#[tokio::test]
async fn a_run_stays_as_long_as_a_lost_job_of_it_may_come_back() {
    let (test, start) = begin().await;
    let (context, node) = (&test.context, agent(1).node);
    let run = ended_run(context, 1, 1).await;
    let job = JobRecord { state: JobState::ended(Outcome::Lost, ""), ..job_record(run, &agent(1)) };
    let authority = Authority::Request(Digest::of(b"x"));
    let entry =
        InboxRecord { stage: Stage::FIRST, attempt: Attempt(1), authority, node_index: 0, node_path: vec![] };
    let inbox = jobs::inbox_entry(node, run).unwrap();
    let batch = context.storage.audited.batch().put_record(jobs::key(run, node).unwrap(), &job).unwrap();
    let batch = batch.put_record(inbox.clone(), &entry).unwrap();
    context.storage.audited.commit(batch, vec![]).await.unwrap();
    for day in [30, 91, 300] {
        context.storage.clock.set(start.plus(DAY * day));
        assert_eq!(sweep(&context.storage, &context.files).await.unwrap().runs, 0);
    }
    assert!(context.storage.repo.get::<RunRecord>(&runs::key(run).unwrap()).await.unwrap().is_some());
    assert_eq!(keys_below(context, jobs::ALL).await, 1);
    // Its report has come, or an operator has removed it.
    context.storage.audited.commit(context.storage.audited.batch().delete(inbox), vec![]).await.unwrap();
    assert_eq!(sweep(&context.storage, &context.files).await.unwrap().runs, 1);
    assert_eq!(keys_below(context, jobs::ALL).await + keys_below(context, "node-job/").await, 0);
    assert!(may_be_gone(run, context.storage.clock.now()) && !may_be_gone(run, start.plus(DAY * 89)));
}

#[tokio::test]
async fn what_nothing_refers_to_goes_and_nothing_else() {
    let (test, start) = begin().await;
    let context = &test.context;
    let put = async |key: Key, job: &JobRecord| {
        let mark = jobs::node_index(job.node, job.run).unwrap();
        let batch =
            context.storage.audited.batch().put_record(key, job).unwrap().put_record(mark, &Mark {}).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
    };
    // A start that failed between jobs and run; and a job that was adopted, of a run that this store never had.
    let [unmade, adopted] = [1, 2].map(|number| RunId::new(start, number));
    put(jobs::key(unmade, agent(1).node).unwrap(), &job_record(unmade, &agent(1))).await;
    let ended = JobState::ended(Outcome::Succeeded, "");
    let job = JobRecord { state: ended, ended: Some(start), ..job_record(adopted, &agent(1)) };
    put(jobs::key(adopted, agent(1).node).unwrap(), &job).await;
    // Three procedures that two runs have: made for one of them, for both, and applied.
    let digests: [Digest; 3] = [b"one", b"two", b"all"].map(|name| Digest::of(name));
    let mut batch = context.storage.audited.batch();
    for digest in &digests {
        batch = batch.put_object(&documents::content(digest).unwrap(), b"procedure").unwrap();
    }
    batch = batch.put_object(&documents::source(&digests[2]).unwrap(), b"source").unwrap();
    for (number, days, procedure_digest) in
        [(3, 0, digests[0]), (4, 0, digests[1]), (5, 9, digests[1]), (6, 0, digests[2])]
    {
        let ended = start.plus(DAY * days);
        let run = RunId::new(start, number);
        let state = RunState::Succeeded;
        let record = RunRecord { state, ended: Some(ended), procedure_digest, ..run_record(run, start) };
        batch = batch.put_record(runs::key(run).unwrap(), &record).unwrap();
    }
    context.storage.audited.commit(batch, vec![]).await.unwrap();
    let mut left = Vec::new();
    for day in [0, 1, 40, 90, 99] {
        context.storage.clock.set(start.plus(DAY * day));
        sweep(&context.storage, &context.files).await.unwrap();
        let jobs = keys_below(context, jobs::ALL).await;
        assert_eq!(keys_below(context, "node-job/").await, jobs);
        left.push((day, jobs, keys_below(context, "content/").await));
    }
    // The context has no documents of its own: all content is of this test.
    assert_eq!(left, [(0, 2, 3), (1, 1, 3), (40, 1, 3), (90, 0, 2), (99, 0, 1)]);
}
