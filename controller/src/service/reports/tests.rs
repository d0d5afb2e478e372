//! Chains of reports, reports on what is not kept any more, and the health in a report.

use serde_json::json;

use fleet_store::MemoryStore;
use fleet_types::authority::Authority;
use fleet_types::id::{JobId, Stage};
use fleet_types::seal::SigningKey;

use super::*;
use crate::clock::Clock;
use crate::repo::backups::{self, BackupRecord};
use crate::repo::jobs;
use crate::repo::nodes::{self, NodeState};
use crate::repo::reports;
use crate::repo::runs;
use crate::testing::{TestContext, agent, enrolled, job_record, run_record};

/// A node that has the fleet's reports signed by its own key, one behind the other.
pub(super) struct Reporter {
    pub(super) agent: Agent,
    key: SigningKey,
    previous: Option<Digest>,
    sequence: u64,
}

impl Reporter {
    pub(super) async fn new(context: &Context) -> Self {
        let agent = enrolled(context, 1).await;
        let (key, _) = SigningKey::generate().unwrap();
        let record = context.memory.node_cache.get(agent.node).unwrap().record;
        let revision = record.revision + 1;
        let record = NodeRecord { report_key: Some(key.public()), revision, ..NodeRecord::clone(&record) };
        let batch =
            context.storage.audited.batch().put_record(nodes::key(agent.node).unwrap(), &record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        context.memory.node_cache.advance(record);
        Self { agent, key, previous: None, sequence: 0 }
    }

    fn next(&mut self, context: &Context, run: RunId) -> Arrived {
        self.on(context, JobId::first(run, self.agent.node))
    }

    fn on(&mut self, context: &Context, job: JobId) -> Arrived {
        self.with_steps(context, job, &json!([]))
    }

    fn with_steps(&mut self, context: &Context, job: JobId, steps: &serde_json::Value) -> Arrived {
        let request = Authority::Request(Digest::of(b"request"));
        self.ended(context, job, (Attempt(1), request), Outcome::Succeeded, steps)
    }

    /// The report on an end of this job, next in the chain.
    pub(super) fn ended(
        &mut self,
        context: &Context,
        job: JobId,
        (attempt, authority): (Attempt, Authority),
        outcome: Outcome,
        steps: &serde_json::Value,
    ) -> Arrived {
        let run = job.run;
        self.sequence += 1;
        let mut report = json!({
            "schema": "fleet/v1/report", "job": job, "attempt": attempt,
            "sequence": self.sequence, "previous": self.previous,
            "outcome": outcome, "reason": "because", "started": 1_790_000_000_000_u64,
            "ended": 1_790_000_000_000_u64, "boot": {"id": "boot", "ended_ms": 1}, "working_ms": 1,
            "steps": steps,
        });
        report.as_object_mut().unwrap().append(json!(authority).as_object_mut().unwrap());
        let report: Report = serde_json::from_value(report).unwrap();
        let payload = canonical::to_vec(&report).unwrap();
        let digest = Digest::of(&payload);
        self.previous = Some(digest);
        let signature = self.key.sign(SealKind::Report, context.identities.fleet.fleet, digest);
        Arrived { run, attempt, payload, signature }
    }
}

#[tokio::test]
async fn a_report_on_a_run_that_is_not_kept_any_more_holds_nobody_and_fills_nothing() {
    let now = Timestamp::clamped(1_800_000_000_000);
    let test = TestContext::at(Arc::new(MemoryStore::new()), Clock::manual(now)).await;
    let context = &test.context;
    let mut node = Reporter::new(context).await;
    let long_ago = |number: u32| RunId::new(now.minus(Duration::from_hours(24 * 91)), number);
    let mut sent = Vec::new();
    for number in 0..5 {
        let arrived = node.next(context, long_ago(number));
        assert_eq!(report(context, &node.agent, &arrived).await.unwrap(), Digest::of(&arrived.payload));
        sent.push(arrived);
    }
    // Sent again, since the acknowledgement was lost.
    for arrived in &sent {
        assert_eq!(report(context, &node.agent, arrived).await.unwrap(), Digest::of(&arrived.payload));
    }
    let prefix = reports::of_chain(node.agent.node, 0);
    let page =
        context.storage.repo.store().scan(prefix.as_bytes(), None, 100, Direction::Ascending).await.unwrap();
    assert_eq!(page.len(), 1, "the one that the next one names");
    let state = || context.memory.node_cache.get(node.agent.node).unwrap().record.state.clone();
    assert_eq!(state(), NodeState::Active);
    // A run of last week that this store does not have is another matter.
    let arrived = node.next(context, RunId::new(now.minus(Duration::from_hours(24 * 7)), 1));
    report(context, &node.agent, &arrived).await.unwrap_err();
    assert!(matches!(
        context.memory.node_cache.get(node.agent.node).unwrap().record.state,
        NodeState::Held(_)
    ));
}

#[tokio::test]
async fn a_report_on_another_stage_than_was_given_holds_its_node() {
    let test = TestContext::new().await;
    let context = &test.context;
    let mut node = Reporter::new(context).await;
    let run = RunId::new(context.storage.clock.now(), 1);
    let batch = context.storage.audited.batch();
    let job = JobRecord { state: JobState::Offered, ..job_record(run, &node.agent) };
    let record = RunRecord {
        authority: Authority::Request(Digest::of(b"request")),
        ..run_record(run, context.storage.clock.now())
    };
    let batch = batch.put_record(jobs::key(run, node.agent.node).unwrap(), &job).unwrap();
    let batch = batch.put_record(runs::key(run).unwrap(), &record).unwrap();
    context.storage.audited.commit(batch, vec![]).await.unwrap();
    let arrived = node.on(context, JobId { stage: Stage(1), ..job.id() });
    report(context, &node.agent, &arrived).await.unwrap_err();
    assert!(matches!(
        context.memory.node_cache.get(node.agent.node).unwrap().record.state,
        NodeState::Held(_)
    ));
}

#[tokio::test]
async fn an_archive_that_is_listed_anew_stays_that_of_the_run_that_made_it() {
    let now = Timestamp::clamped(1_800_000_000_000);
    let test = TestContext::at(Arc::new(MemoryStore::new()), Clock::manual(now)).await;
    let context = &test.context;
    let mut node = Reporter::new(context).await;
    let runs = [1, 2, 3, 4].map(|number| RunId::new(now, number));
    let key = backups::key(node.agent.node, 1_700_000_000_000, &Digest::of(b"archive")).unwrap();
    let known = async || {
        let known = context.storage.repo.get::<BackupRecord>(&key).await.unwrap().unwrap().record;
        (known.run, known.listed_in)
    };
    // An agent of before lists nothing; a look that lists nothing changes nothing.
    let (made, listed) = (("backup.run", None), ("backup.verify", Some(Digest::of(b"listing"))));
    for (run, actions, expected) in [
        (runs[0], vec![made], (runs[0], None)),
        (runs[1], vec![listed], (runs[0], Some(runs[1]))),
        (runs[2], vec![("backup.verify", None)], (runs[0], Some(runs[1]))),
        // One job that does both, as the daily maintenance of a guide.
        (runs[3], vec![made, listed], (runs[0], Some(runs[3]))),
    ] {
        let batch = context.storage.audited.batch();
        let job = JobRecord { state: JobState::Offered, ..job_record(run, &node.agent) };
        let record =
            RunRecord { authority: Authority::Request(Digest::of(b"request")), ..run_record(run, now) };
        let batch = batch.put_record(jobs::key(run, node.agent.node).unwrap(), &job).unwrap();
        let batch = batch.put_record(runs::key(run).unwrap(), &record).unwrap();
        context.storage.audited.commit(batch, vec![]).await.unwrap();
        let step = |(action, output): &(&str, Option<Digest>)| {
            json!({
                "id": action, "title": "", "action": action, "state": "succeeded", "started": null, "took_ms": 1,
                "tries": 1, "output": output, "summary": "", "artifacts": [{
                    "kind": "backup", "name": "config", "path": "/b/x", "size": 1,
                    "sha256": Digest::of(b"archive"), "made": 1_700_000_000_000_u64, "verified": true,
                }],
            })
        };
        let steps = json!(actions.iter().map(step).collect::<Vec<_>>());
        let arrived = node.with_steps(context, job.id(), &steps);
        report(context, &node.agent, &arrived).await.unwrap();
        assert_eq!(known().await, expected, "{actions:?}");
    }
}

#[tokio::test]
async fn a_new_chain_begins_where_it_says_so_and_nowhere_else() {
    let test = TestContext::new().await;
    let agent = agent(1);
    let sequence = 1_790_000_000_000_u64;
    let report = |previous: Option<Digest>, new_chain: Option<&str>| -> Report {
        let job = JobId::first(RunId::from_number(1), agent.node);
        serde_json::from_value(json!({
            "schema": "fleet/v1/report", "job": job, "attempt": 1, "request": Digest::of(b"request"),
            "sequence": sequence, "previous": previous, "new_chain": new_chain,
            "outcome": "succeeded", "reason": "", "started": sequence, "ended": sequence,
            "boot": {"id": "boot", "ended_ms": 1}, "working_ms": 1, "steps": [],
        }))
        .unwrap()
    };
    let lost = Some("the journal is missing");
    let before = Some(Digest::of(b"before"));
    let at = StoredReport { chain: 0, sequence, digest: Digest::of(b"report") };
    let place = async |report: Report| match place_in_chain(
        &test.context.storage,
        &test.context.memory,
        &agent,
        &at,
        &report,
    )
    .await
    {
        Ok(Place::Next) => "next",
        Ok(Place::Stored) => "stored",
        Ok(Place::Contradicts(_)) => "contradicts",
        Err(error) if error.detail.code == GAP => GAP,
        Err(_) => "error",
    };
    assert_eq!(place(report(before, None)).await, GAP);
    assert_eq!(place(report(None, None)).await, GAP);
    assert_eq!(place(report(before, lost)).await, "contradicts");
    assert_eq!(place(report(None, lost)).await, "next");
}

#[test]
fn health_is_known_for_three_times_the_shortest_of_its_checks() {
    let started = Timestamp::clamped(1_790_000_000_000);
    let after = |seconds: u64| started.plus(Duration::from_secs(seconds));
    let health = |every: Option<f64>, ended: Timestamp| {
        let sample = |metric: &str, value: f64| json!({"metric": metric, "value": value, "unit": "x"});
        let samples: Vec<_> = [sample("health_score", 80.0)]
            .into_iter()
            .chain(every.map(|every| sample("health_every", every)))
            .collect();
        let problem = |severity: &str, code: &str| json!({"severity": severity, "code": code, "subject": "c", "message": code});
        let problems = [problem("medium", "load"), problem("low", "disk"), problem("high", NOT_AVAILABLE)];
        let report: Report = serde_json::from_value(json!({
            "schema": "fleet/v1/report",
            "job": JobId::first(RunId::from_number(1), agent(1).node),
            "attempt": 1, "request": Digest::of(b"request"), "sequence": 1, "previous": null,
            "outcome": "succeeded", "reason": "", "started": started, "ended": ended,
            "boot": {"id": "boot", "ended_ms": 1}, "working_ms": 1,
            "steps": [{
                "id": "s", "title": "s", "action": "health.check", "state": "succeeded",
                "started": started, "took_ms": 1, "tries": 1, "summary": "",
                "samples": samples, "problems": problems,
            }],
        }))
        .unwrap();
        health_of(&report, after(60)).unwrap()
    };
    let found = health(Some(60.0), after(30));
    assert_eq!((found.problems, found.unknown, found.worst.as_str()), (1, 1, "load"));
    assert_eq!((found.at, found.fresh_until), (after(30), Some(after(30 + 180))));
    // A clock that is ahead keeps nothing fresh, and neither does a number that is none.
    assert_eq!(health(Some(60.0), after(86_400)).fresh_until, Some(after(60 + 180)));
    for every in [None, Some(-1.0), Some(f64::MAX)] {
        assert_eq!(health(every, after(0)).fresh_until, Some(after(15 * 60)), "{every:?}");
    }
}
