//! Answers for gates: what they say, once, and only where somebody asked.

use fleet_types::authority::Authority;
use fleet_types::digest::Digest;
use fleet_types::id::{Attempt, RunId, Stage};
use fleet_types::job::JobState;
use serde_json::{Value, json};

use super::super::report;
use super::super::tests::Reporter;
use super::*;
use crate::context::Context;
use crate::repo::jobs::InboxRecord;
use crate::repo::nodes::NodeState;
use crate::repo::reader::BatchExt as _;
use crate::repo::runs;
use crate::testing::{TestContext, job_record, leaves, run_record};

/// A step of a gate, with these problems.
fn gate(state: &str, problems: &[(&str, &str)]) -> Value {
    let problem = |(severity, code): &(&str, &str)| json!({"severity": severity, "code": code, "subject": "disk", "message": "97 % are used"});
    let problems: Vec<Value> = problems.iter().map(problem).collect();
    json!([{"id": "health", "title": "health", "action": "health.check", "state": state, "took_ms": 1, "tries": 1,
        "summary": "looked", "problems": problems}])
}

/// A node whose job has succeeded and that is asked for the second time.
async fn asked(context: &Context) -> (Reporter, JobRecord) {
    let node = Reporter::new(context).await;
    let run = RunId::new(context.storage.clock.now(), 1);
    let job = job_record(run, &node.agent);
    let before = JobRecord { state: JobState::ended(Outcome::Succeeded, ""), ..job };
    let first = before.ask(1, context.storage.clock.now());
    let job = JobRecord { gates: Some(first), ..before };
    let job = JobRecord { gates: Some(job.ask(2, context.storage.clock.now())), ..job };
    let authority = Authority::Gates(Digest::of(b"request"));
    let entry =
        InboxRecord { stage: Stage(2), attempt: Attempt(3), authority, node_index: 0, node_path: vec![] };
    let batch = context.storage.audited.batch();
    let batch = batch.put_record(jobs::key(run, job.node).unwrap(), &job).unwrap();
    let batch = batch.put_record(jobs::inbox_entry(job.node, run).unwrap(), &entry).unwrap();
    let record = run_record(run, context.storage.clock.now());
    let batch = batch.put_record(runs::key(run).unwrap(), &record).unwrap();
    context.storage.audited.commit(batch, vec![]).await.unwrap();
    (node, job)
}

/// What the node answers.
fn says(node: &mut Reporter, context: &Context, job: &JobRecord, outcome: Outcome, steps: &Value) -> Arrived {
    let id = fleet_types::id::JobId { stage: Stage(2), ..job.id() };
    node.ended(context, id, (Attempt(3), Authority::Gates(Digest::of(b"request"))), outcome, steps)
}

async fn stored(context: &Context, job: &JobRecord) -> JobRecord {
    context
        .storage
        .repo
        .get::<JobRecord>(&jobs::key(job.run, job.node).unwrap())
        .await
        .unwrap()
        .unwrap()
        .record
}

#[tokio::test]
async fn a_report_says_pass_fail_or_what_it_lacks() {
    for (outcome, steps, verdict, because) in [
        (Outcome::Succeeded, gate("succeeded", &[("medium", "disk_used")]), Verdict::Pass, ""),
        (
            Outcome::Failed,
            gate("failed", &[("medium", "x"), ("high", "disk_used")]),
            Verdict::Fail,
            "gate health: check disk: 97 % are used",
        ),
        (Outcome::Failed, gate("failed", &[]), Verdict::Inconclusive, "gate health: looked"),
        (
            Outcome::Succeeded,
            gate("succeeded", &[("low", NOT_AVAILABLE)]),
            Verdict::Inconclusive,
            "gate health: check disk: 97 % are used",
        ),
        (
            Outcome::Succeeded,
            gate("succeeded", &[("low", "pending")]),
            Verdict::Inconclusive,
            "gate health: check disk: 97 % are used",
        ),
        (Outcome::Succeeded, json!([]), Verdict::Inconclusive, "no gate was looked at"),
        (Outcome::Refused, json!([]), Verdict::Inconclusive, "gates: refused: because"),
        (Outcome::Cancelled, json!([]), Verdict::Inconclusive, "gates: cancelled: because"),
    ] {
        let test = TestContext::new().await;
        let context = &test.context;
        let (mut node, job) = asked(context).await;
        let arrived = says(&mut node, context, &job, outcome, &steps);
        report(context, &node.agent, &arrived).await.unwrap();
        let found = stored(context, &job).await;
        let answer = found.gates.clone().unwrap().answer.unwrap();
        assert_eq!((answer.verdict, answer.because.as_str()), (verdict, because));
        assert_eq!(
            (found.state.clone(), found.stage, found.attempt),
            (job.state.clone(), Stage::FIRST, Attempt(1))
        );
        let entry = jobs::inbox_entry(job.node, job.run).unwrap();
        assert!(
            context.storage.repo.get::<InboxRecord>(&entry).await.unwrap().is_none(),
            "it is asked no more"
        );
        // Sent again, since the acknowledgement was lost; also when it was asked anew meanwhile.
        report(context, &node.agent, &arrived).await.unwrap();
        let anew = JobRecord { gates: Some(found.ask(3, context.storage.clock.now())), ..found };
        let batch = context.storage.audited.batch().put_record(jobs::key(job.run, job.node).unwrap(), &anew);
        context.storage.audited.commit(batch.unwrap(), vec![]).await.unwrap();
        report(context, &node.agent, &arrived).await.unwrap();
        assert_eq!(stored(context, &job).await, anew, "an old answer is none to a new question");
        assert_eq!(leaves(context, "job.gates").await.len(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_holds_its_node() {
    let not_asked = |job: &JobRecord| JobRecord { gates: None, ..job.clone() };
    let another_time = |job: &JobRecord| {
        let asked = job.gates.as_ref().unwrap().asked;
        JobRecord { gates: Some(job.ask(3, asked)), ..job.clone() }
    };
    for change in [&not_asked as &dyn Fn(&JobRecord) -> JobRecord, &another_time] {
        let test = TestContext::new().await;
        let context = &test.context;
        let (mut node, job) = asked(context).await;
        let key = jobs::key(job.run, job.node).unwrap();
        let batch = context.storage.audited.batch().put_record(key, &change(&job)).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        let arrived = says(&mut node, context, &job, Outcome::Succeeded, &gate("succeeded", &[]));
        report(context, &node.agent, &arrived).await.unwrap_err();
        let state = context.memory.node_cache.get(job.node).unwrap().record.state.clone();
        assert!(matches!(state, NodeState::Held(_)), "{state:?}");
    }
}
