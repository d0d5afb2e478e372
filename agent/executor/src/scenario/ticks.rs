//! Ticks of schedules: what an operator signed once is carried out, once for each tick, and nothing else is.

use std::time::Duration;

use fleet_proto::convert;
use fleet_proto::pb;
use fleet_proto::pb::core_message::Body as ToExecutor;
use fleet_types::assignment::Assignment;
use fleet_types::authority::Authority;
use fleet_types::canonical;
use fleet_types::document::Document;
use fleet_types::id::Stage;
use fleet_types::job::Outcome;
use fleet_types::request::{NodeList, Request, Verb};
use fleet_types::seal::{Envelope, Kind, SigningKey};
use fleet_types::standing_order::{STANDING_ORDER_SCHEMA, StandingOrder, TickRun};
use fleet_types::time::Timestamp;
use fleet_types::trust::OperatorRole;
use serde_json::json;

use super::bench::{Bench, Order, backups, checks};
use super::scripted::Does;
use crate::crash::{Crash, CrashPoint};

const ENFORCE: &str = "mode = \"enforce\"";
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// A schedule with what was signed for it; tests change any of it.
struct Scheduled {
    file: serde_json::Value,
    order: StandingOrder,
    documents: Vec<Envelope>,
    at: Timestamp,
    kind: Kind,
}

impl Scheduled {
    /// A schedule of each minute that carries out this procedure, and its newest tick.
    fn new(bench: &Bench, procedure: serde_json::Value) -> Self {
        let base = bench.order(1, Verb::Run, procedure);
        let at = Timestamp::clamped(bench.now().as_millis() / 60_000 * 60_000);
        let order = StandingOrder {
            schema: STANDING_ORDER_SCHEMA.to_owned(),
            fleet: bench.node.fleet,
            file: base.request.digest(),
            file_revision: 3,
            schedule: "daily".parse().unwrap(),
            procedure: base.documents[0].digest(),
            procedure_revision: 2,
            profile: base.documents[1].digest(),
            profile_revision: 1,
            rollout_policy: None,
            selector: "product=edgefw".to_owned(),
            max_parallel: 1,
            max_failures: None,
            not_before: at.minus(HOUR),
            not_after: at.plus(HOUR),
        };
        Self { file: good_file(), order, documents: base.documents, at, kind: Kind::StandingOrder }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The run of a tick as an honest controller makes it, with `key` under the order.
    fn run_by(&self, bench: &Bench, number: u64, at: Timestamp, key: &SigningKey) -> Order {
        let file = bench.seal(self.file.clone());
        let Document::Schedule(good) = serde_json::from_value(good_file()).unwrap() else { unreachable!() };
        let order = StandingOrder { file: file.digest(), ..self.order.clone() };
        let sealed = key.seal(self.kind, bench.node.fleet, canonical::to_vec(&order).unwrap());
        let run = fleet_types::id::RunId::from_number(number);
        let tick = TickRun {
            run,
            nodes: NodeList::of(&[bench.node.node]),
            not_before: at,
            not_after: at.plus(MINUTE * 30),
        };
        // One that no honest controller would make is made by one who does not look.
        let lax = StandingOrder { not_before: at, not_after: at.plus(HOUR), ..order };
        let request = lax.request(sealed.digest(), &good, at, tick).unwrap();
        let documents = [self.documents.clone(), vec![sealed, file]].concat();
        Order { request: unsigned(&request), documents, run }
    }

    fn run(&self, bench: &Bench, number: u64) -> Order {
        self.run_by(bench, number, self.at, &bench.operator)
    }
}

fn good_file() -> serde_json::Value {
    json!({"kind": "schedule", "schema": "fleet/v1", "name": "edge", "schedule": [
        {"id": "daily", "procedure": "work", "cron": "* * * * *", "window": "30m"}]})
}

/// A request as a controller hands out one that it made itself.
fn unsigned(request: &Request) -> Envelope {
    let payload = canonical::to_vec(request).unwrap();
    Envelope { kind: Kind::Request, key: fleet_types::digest::Digest::of(b""), payload, signature: vec![] }
}

fn altered(order: &Order, change: impl FnOnce(&mut Request)) -> Order {
    let mut request: Request = canonical::from_slice(&order.request.payload).unwrap();
    change(&mut request);
    Order { request: unsigned(&request), documents: order.documents.clone(), run: request.run }
}

fn assignment(bench: &Bench, order: &Order, attempt: u32) -> Assignment {
    Assignment { authority: Authority::Tick(order.request.digest()), ..bench.assignment(order, attempt, 1) }
}

/// How the node answers to the run of a tick, and what it called for it.
async fn answer(policy: &str, make: impl FnOnce(&mut Bench) -> Order) -> (Outcome, String) {
    let mut bench = Bench::new(policy);
    let order = make(&mut bench);
    let (_handle, mut core) = bench.start(1).await;
    core.hold(&order);
    core.assign_exactly(&bench, &assignment(&bench, &order, 1)).await;
    let report = core.report(&bench).await;
    assert_eq!(report.outcome == Outcome::Succeeded, !bench.tasks.calls().is_empty(), "{}", report.reason);
    (report.outcome, report.reason)
}

#[tokio::test]
async fn a_tick_is_carried_out_under_the_signature_of_its_order_alone() {
    for policy in [ENFORCE, "mode = \"enforce\"\nrequire_signature = \"all\""] {
        for procedure in [backups(&["one"]), checks()] {
            let (outcome, reason) =
                answer(policy, |bench| Scheduled::new(bench, procedure.clone()).run(bench, 1)).await;
            assert_eq!(outcome, Outcome::Succeeded, "{reason}");
        }
    }
    let relative = |bench: &mut Bench| {
        let later = |one: &mut Scheduled| {
            one.file["schedule"] = json!([
                {"id": "daily", "procedure": "work", "relative_to": {"schedule": "base", "by": "1h"}, "window": "30m"},
                {"id": "base", "procedure": "work", "cron": "* * * * *"}]);
        };
        Scheduled::new(bench, checks()).with(later).run(bench, 1)
    };
    assert_eq!(answer(ENFORCE, relative).await.0, Outcome::Succeeded);
}

#[tokio::test]
async fn what_the_order_does_not_make_of_a_tick_is_refused_by_name() {
    type Change = fn(&mut Request);
    let changes: [(&str, Change); 6] = [
        ("tick-differs", |r| r.reason = "by hand".to_owned()),
        ("tick-differs", |r| r.selector = "product=edgefw ".to_owned()),
        ("tick-differs", |r| r.max_parallel = 9),
        ("tick-differs", |r| r.older_revisions = true),
        ("tick-late", |r| r.not_after = r.not_after.plus(HOUR)),
        ("request-tick", |r| r.tick = None),
    ];
    for (rule, change) in changes {
        let make = |bench: &mut Bench| altered(&Scheduled::new(bench, checks()).run(bench, 1), change);
        let (outcome, reason) = answer(ENFORCE, make).await;
        assert_eq!(outcome, Outcome::Refused);
        assert!(reason.starts_with(&format!("{rule}: ")), "{rule}: {reason}");
    }
    // As an operator's request it has no signature, and a policy that lets reading ones pass does not let it pass.
    let mut bench = Bench::new(ENFORCE);
    let order = Scheduled::new(&bench, checks()).run(&bench, 1);
    let (_handle, mut core) = bench.start(1).await;
    core.assign(&bench, &order, 1).await;
    let report = core.report(&bench).await;
    assert!(report.reason.starts_with("request-tick: "), "{}", report.reason);
}

#[tokio::test]
async fn orders_and_files_that_are_not_good_are_refused_by_name() {
    type Change = fn(&mut Scheduled);
    let changes: [(&str, Change); 9] = [
        ("order-ended", |s| (s.at, s.order.not_after) = (s.at.minus(MINUTE * 10), s.at.minus(MINUTE * 5))),
        ("order-invalid", |s| s.order.not_after = s.at.plus(HOUR * 24 * 401)),
        ("tick-outside", |s| s.order.not_before = s.at.plus(MINUTE)),
        ("request-expired", |s| s.at = s.at.minus(MINUTE * 40)),
        ("tick-not-due", |s| s.file["schedule"][0]["cron"] = json!("61 * * * *")),
        ("schedule-off", |s| s.file["schedule"][0]["enabled"] = json!(false)),
        ("signature-kind", |s| s.kind = Kind::Document),
        ("not-selected", |s| s.order.selector = "product=other".to_owned()),
        ("document-kind", |s| {
            s.file = json!({"kind": "profile", "schema": "fleet/v1", "name": "edge", "version": 1});
        }),
    ];
    for (rule, change) in changes {
        let make = |bench: &mut Bench| Scheduled::new(bench, checks()).with(change).run(bench, 1);
        let (_, reason) = answer(ENFORCE, make).await;
        assert!(reason.starts_with(&format!("{rule}: ")), "{rule}: {reason}");
    }
    let seldom = |bench: &mut Bench| {
        let minute = (bench.now().as_millis() / 60_000 % 60 + 7) % 60;
        let cron = |one: &mut Scheduled| one.file["schedule"][0]["cron"] = json!(format!("{minute} * * * *"));
        Scheduled::new(bench, checks()).with(cron).run(bench, 1)
    };
    assert!(answer(ENFORCE, seldom).await.1.starts_with("tick-not-due: "));
    let stranger = |bench: &mut Bench| {
        let scheduled = Scheduled::new(bench, checks());
        scheduled.run_by(bench, 1, scheduled.at, &SigningKey::generate().unwrap().0)
    };
    assert!(answer(ENFORCE, stranger).await.1.starts_with("signature-unknown-key: "));
    let off = "mode = \"enforce\"\nrequire_signature = \"off\"";
    assert_eq!(answer(off, stranger).await.0, Outcome::Succeeded, "the owner asks for no signature");
}

#[tokio::test]
async fn a_tick_is_used_once_and_an_older_one_not_after_it() {
    let mut bench = Bench::new(ENFORCE);
    let scheduled = Scheduled::new(&bench, checks());
    let (_handle, mut core) = bench.start(1).await;
    let minute_ago = scheduled.at.minus(MINUTE);
    for (number, at, expected) in
        [(1, scheduled.at, ""), (2, scheduled.at, "tick-used"), (3, minute_ago, "tick-used")]
    {
        let order = scheduled.run_by(&bench, number, at, &bench.operator);
        core.hold(&order);
        core.assign_exactly(&bench, &assignment(&bench, &order, 1)).await;
        let report = core.report(&bench).await;
        assert!(report.reason.starts_with(expected), "{number}: {}", report.reason);
    }
    assert_eq!(bench.tasks.count("inspect look"), 1);
    // A minute later the next one.
    bench.host.script().now = bench.now().plus(MINUTE);
    let order = scheduled.run_by(&bench, 4, scheduled.at.plus(MINUTE), &bench.operator);
    core.hold(&order);
    core.assign_exactly(&bench, &assignment(&bench, &order, 1)).await;
    assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_tick_that_was_under_way_goes_on_after_a_restart() {
    let mut bench = Bench::new(ENFORCE);
    bench.crash = Crash::Halt(CrashPoint::BeforeStepEnd);
    let order = Scheduled::new(&bench, backups(&["one"])).run(&bench, 1);
    let (_dead, mut core) = bench.start(1).await;
    core.hold(&order);
    core.assign_exactly(&bench, &assignment(&bench, &order, 1)).await;
    assert_eq!(core.drain().await, 0, "no report before the death");
    bench.crash = Crash::Never;
    let (_handle, mut core) = bench.start(2).await;
    let report = core.report(&bench).await;
    assert_eq!(
        (report.outcome, report.authority),
        (Outcome::Succeeded, Authority::Tick(order.request.digest()))
    );
}

#[tokio::test]
async fn a_key_revoked_while_a_tick_waits_starts_nothing() {
    let mut bench = Bench::new(ENFORCE);
    bench.tasks.set("one", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let first = bench.order(7, Verb::Run, backups(&["one"]));
    core.assign(&bench, &first, 1).await;
    let order = Scheduled::new(&bench, backups(&["two"])).run(&bench, 1);
    core.hold(&order);
    core.assign_exactly(&bench, &assignment(&bench, &order, 1)).await;
    core.update("its acceptance", |update| update.run == order.run).await;
    let mut trust = bench.trust(2);
    trust.content_keys[0].role = OperatorRole::Viewer;
    let trust_bundle = convert::to_json(&trust.sign(&bench.root).unwrap());
    core.send(ToExecutor::Trust(pb::TrustUpdate { trust_bundle })).await;
    bench.tasks.let_go();
    let mut reports = vec![core.report(&bench).await, core.report(&bench).await];
    reports.retain(|report| report.job.run == order.run);
    assert_eq!(reports[0].outcome, Outcome::Cancelled);
    assert!(reports[0].reason.starts_with("signature-unknown-key: "), "{}", reports[0].reason);
    assert_eq!(bench.tasks.count("apply two"), 0);
}

#[tokio::test]
async fn the_gates_of_a_rollout_that_a_tick_began_are_looked_at_and_use_no_tick() {
    let mut bench = Bench::new(ENFORCE);
    let policy = bench.seal(json!({
        "kind": "rollout_policy", "schema": "fleet/v1", "name": "careful", "ring": [{"name": "all", "selector": "*"}],
        "gate": {"well": {"uses": "health.check", "with": {"checks": ["disk"], "stable_for": "1s"}}}
    }));
    let with_policy = |one: &mut Scheduled| {
        one.order.rollout_policy = Some(policy.digest());
        one.documents.push(policy.clone());
    };
    let order = Scheduled::new(&bench, backups(&["one"])).with(with_policy).run(&bench, 1);
    let (_handle, mut core) = bench.start(1).await;
    core.hold(&order);
    core.assign_exactly(&bench, &assignment(&bench, &order, 1)).await;
    assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded);
    let mut look = bench.assignment(&order, 2, 1);
    look.authority = Authority::Gates(order.request.digest());
    look.job.stage = Stage(1);
    core.assign_exactly(&bench, &look).await;
    let report = core.report(&bench).await;
    assert_eq!((report.outcome, report.job.stage), (Outcome::Succeeded, Stage(1)), "{}", report.reason);
    assert_eq!((bench.tasks.count("apply one"), bench.tasks.count("inspect well")), (1, 1));
}
