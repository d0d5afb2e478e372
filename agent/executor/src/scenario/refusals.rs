//! Refusals: each by the name of its rule, and nothing called.

use std::time::Duration;

use fleet_proto::pb;
use fleet_proto::pb::core_message::Body as ToExecutor;
use fleet_proto::pb::executor_message::Body as FromExecutor;
use fleet_types::id::{Generation, LinkEpoch, NodeId};
use fleet_types::job::{JobState, Outcome};
use fleet_types::request::{NodeList, Verb};
use fleet_types::seal::{Kind, SigningKey};
use serde_json::json;
use uuid::Uuid;

use super::bench::{Bench, Order, backups, checks};
use crate::host::scripted::ScriptedHost;
use crate::resolve::TaskTable;
use crate::state::{Revision, SmallState};

/// The rule that refused an order on a node with this policy.
async fn rule_of(policy: &str, order: impl FnOnce(&mut Bench) -> Order) -> String {
    let mut bench = Bench::new(policy);
    let order = order(&mut bench);
    let (_handle, mut core) = bench.start(1).await;
    core.assign(&bench, &order, 1).await;
    let report = core.report(&bench).await;
    assert!(matches!(report.outcome, Outcome::Refused | Outcome::Expired), "{}", report.reason);
    assert_eq!(bench.tasks.calls(), Vec::<String>::new());
    let problems: Vec<_> = report.steps[0].body.problems.iter().map(|p| p.code.clone()).collect();
    let first = format!("{}: ", problems[0]);
    assert!(report.reason.starts_with(&first), "{}", report.reason);
    problems.join(" ")
}

#[tokio::test]
async fn orders_of_nobody_who_may_are_refused_each_by_its_rule() {
    const ENFORCE: &str = "mode = \"enforce\"";
    let unknown = |bench: &mut Bench| {
        let mut order = bench.order(1, Verb::Run, backups(&["one"]));
        let stranger = SigningKey::generate().unwrap().0;
        order.request = stranger.seal(Kind::Request, bench.node.fleet, order.request.payload);
        order
    };
    assert_eq!(rule_of(ENFORCE, unknown).await, "signature-unknown-key");
    let flipped = |bench: &mut Bench| {
        let mut order = bench.order(1, Verb::Run, backups(&["one"]));
        order.request.signature[7] ^= 1;
        order
    };
    assert_eq!(rule_of(ENFORCE, flipped).await, "signature-bad");
    let flipped_document = |bench: &mut Bench| {
        let mut order = bench.order(1, Verb::Run, backups(&["one"]));
        order.documents[0].signature[7] ^= 1;
        order
    };
    assert_eq!(rule_of(ENFORCE, flipped_document).await, "signature-bad");
    let unsigned = |bench: &mut Bench| {
        let mut order = bench.order(1, Verb::Run, backups(&["one"]));
        order.request.signature.clear();
        order
    };
    assert_eq!(rule_of(ENFORCE, unsigned).await, "signature-missing");
    let expired = |bench: &mut Bench| {
        let order = bench.order(1, Verb::Run, backups(&["one"]));
        bench.host.script().now = bench.now().plus(Duration::from_hours(3));
        order
    };
    assert_eq!(rule_of(ENFORCE, expired).await, "request-expired");
    let early = |bench: &mut Bench| {
        bench.order_with(1, Verb::Run, backups(&["one"]), |r| {
            r.not_before = r.not_before.plus(Duration::from_hours(1));
        })
    };
    assert_eq!(rule_of(ENFORCE, early).await, "request-too-early");
    let elsewhere = |bench: &mut Bench| {
        let other = NodeId::from_uuid(Uuid::from_u128(99));
        bench.order_with(1, Verb::Run, backups(&["one"]), |r| r.nodes = NodeList::of(&[other]))
    };
    assert_eq!(rule_of(ENFORCE, elsewhere).await, "node-not-listed");
    let not_selected = |bench: &mut Bench| {
        bench.order_with(1, Verb::Run, backups(&["one"]), |r| r.selector = "name=fw-2".to_owned())
    };
    assert_eq!(rule_of(ENFORCE, not_selected).await, "not-selected");
    let other_labels = |bench: &mut Bench| {
        bench.order_with(1, Verb::Run, backups(&["one"]), |r| r.selector = "product=other".to_owned())
    };
    assert_eq!(rule_of(ENFORCE, other_labels).await, "not-selected");
    let other_fleet = |bench: &mut Bench| {
        bench.order_with(1, Verb::Run, backups(&["one"]), |r| {
            r.fleet = fleet_types::id::FleetId::from_uuid(Uuid::from_u128(8));
        })
    };
    assert_eq!(rule_of(ENFORCE, other_fleet).await, "other-fleet");
    let other_run = |bench: &mut Bench| {
        let mut order = bench.order(1, Verb::Run, backups(&["one"]));
        order.run = fleet_types::id::RunId::from_number(2);
        order
    };
    assert_eq!(rule_of(ENFORCE, other_run).await, "other-run");
    let for_others = |bench: &mut Bench| {
        let mut procedure = backups(&["one"]);
        procedure["selector"] = json!("product=other");
        bench.order(1, Verb::Run, procedure)
    };
    assert_eq!(rule_of(ENFORCE, for_others).await, "selector-mismatch");
    let gone = |bench: &mut Bench| {
        let mut order = bench.order(1, Verb::Run, backups(&["one"]));
        order.documents.pop();
        order
    };
    assert_eq!(rule_of(ENFORCE, gone).await, "document-missing");
}

#[tokio::test]
async fn the_node_owner_has_the_last_word() {
    let work = |bench: &mut Bench| bench.order(1, Verb::Run, backups(&["one"]));
    assert_eq!(rule_of("", work).await, "mode-read-only");
    assert_eq!(rule_of("mode = \"locked\"", work).await, "mode-locked");
    assert_eq!(rule_of("mode = \"enforce\"\ndeny_actions = [\"backup.*\"]", work).await, "action-denied");
    assert_eq!(
        rule_of("mode = \"enforce\"\nallow_actions = [\"health.*\"]", work).await,
        "action-not-allowed"
    );
    assert_eq!(
        rule_of("mode = \"enforce\"\nprotected_paths = [\"/opt/data\"]", work).await,
        "protected-path"
    );
    let full = "mode = \"enforce\"\nmax_load_to_start = 0.1";
    assert_eq!(rule_of(full, work).await, "max-load");
    let window = "mode = \"enforce\"\nlocal_window = { days = [\"MON\"], opens = \"22:00\", closes = \"06:00\", timezone = \"site\" }";
    assert_eq!(rule_of(window, work).await, "policy-not-built");
    let held = |bench: &mut Bench| {
        let hold = bench.path("root/run/fleet-agent");
        std::fs::create_dir_all(&hold).unwrap();
        std::fs::write(hold.join("hold"), "").unwrap();
        bench.order(1, Verb::Run, backups(&["one"]))
    };
    assert_eq!(rule_of("mode = \"enforce\"", held).await, "hold-file");
    let no_room = |bench: &mut Bench| {
        bench.policy.min_free_disk = "1024TiB".parse().unwrap();
        bench.order(1, Verb::Run, backups(&["one"]))
    };
    assert_eq!(rule_of("mode = \"enforce\"", no_room).await, "min-free-disk");
}

/// A procedure of one step with this action and arguments.
fn one(uses: &str, with: &serde_json::Value) -> serde_json::Value {
    json!({"step": [{"id": "one", "kind": "task", "uses": uses, "with": with}]})
}

#[tokio::test]
async fn what_this_build_cannot_do_is_refused_by_name() {
    const ENFORCE: &str = "mode = \"enforce\"";
    for (uses, with, rule) in [
        ("signoff.x", json!({}), "action-unknown"),
        ("scan.listening", json!({}), "action-not-built"),
        ("alerts.watch", json!({"for": "1m"}), "action-not-built"),
        ("backup.run", json!({"backup": "nothing"}), "with-invalid"),
        ("backup.run", json!({"backup": "config", "shell": "rm"}), "with-unknown"),
        ("backup.run", json!({}), "with-missing"),
        ("backup.run", json!({"backup": "config", "tag": "{label.none}"}), "placeholder"),
        ("command.run", json!({"command": "nft"}), "guard-missing"),
    ] {
        let order = |bench: &mut Bench| bench.order(1, Verb::Run, one(uses, &with));
        assert_eq!(rule_of(ENFORCE, order).await, rule, "{uses} {with}");
    }
    let undecided = |b: &mut Bench| {
        let mut procedure = backups(&["one"]);
        procedure["step"][0]["when"] = json!("facts.edgefw");
        b.order(1, Verb::Run, procedure)
    };
    assert_eq!(rule_of(ENFORCE, undecided).await, "fact-unknown");
    let manual = json!({"step": [{"id": "sign", "kind": "manual", "prompt": "?", "role": "operator"}]});
    assert_eq!(rule_of(ENFORCE, |b: &mut Bench| b.order(1, Verb::Run, manual)).await, "manual-not-built");
    let commands = "mode = \"enforce\"\nallow_commands = [\"safe-*\"]";
    let wipe = |b: &mut Bench| b.order(1, Verb::Run, one("command.run", &json!({"command": "wipe"})));
    assert_eq!(rule_of(commands, wipe).await, "command-not-allowed");
    let service =
        |b: &mut Bench| b.order(1, Verb::Run, one("service.restart", &json!({"services": ["ssh"]})));
    assert_eq!(rule_of(ENFORCE, service).await, "protected-service");
    let undeclared = |b: &mut Bench| {
        let mut procedure = backups(&["one"]);
        procedure["changes"] = json!(false);
        b.order(1, Verb::Run, procedure)
    };
    assert_eq!(rule_of(ENFORCE, undeclared).await, "changes-not-declared");
    let typed = |b: &mut Bench| {
        let mut procedure = backups(&["one"]);
        procedure["params"] = json!({"count": {"type": "integer", "min": 1, "max": 5}});
        b.order_with(1, Verb::Run, procedure, |r| {
            r.params.insert("count".to_owned(), json!(9));
            r.params.insert("other".to_owned(), json!("x"));
        })
    };
    assert_eq!(rule_of(ENFORCE, typed).await, "param-unknown param-invalid");
}

#[tokio::test]
async fn a_node_without_a_package_manager_says_so_and_does_not_announce_what_needs_one() {
    let refresh = |bench: &mut Bench| {
        let step = json!({"id": "lists", "kind": "task", "uses": "package.refresh"});
        bench.order(1, Verb::Run, json!({"changes": false, "step": [step]}))
    };
    assert_eq!(rule_of("", refresh).await, "no-package-manager");
    let root = tempfile::tempdir().unwrap();
    let host = ScriptedHost::new(root.path(), root.path()).unwrap();
    let announces = || TaskTable::built().on(&host).actions().any(|action| action.starts_with("package."));
    assert!(!announces());
    host.script().package_manager = Some("apt");
    assert!(announces());
}

#[tokio::test]
async fn where_units_cannot_be_asked_what_needs_them_is_refused_before_it_begins() {
    let blind = |step: serde_json::Value| {
        move |bench: &mut Bench| {
            bench.host.script().no_units = true;
            bench.order(1, Verb::Run, json!({"changes": false, "step": [step]}))
        }
    };
    let asserted =
        json!({"id": "up", "kind": "task", "uses": "service.assert_active", "with": {"services": ["web"]}});
    assert_eq!(rule_of("", blind(asserted)).await, "no-unit-backend");
    let gate =
        |checks| json!({"id": "gate", "kind": "gate", "uses": "health.check", "with": {"checks": checks}});
    assert_eq!(rule_of("", blind(gate(json!("all")))).await, "no-unit-backend");

    let mut bench = Bench::new("");
    let order = blind(gate(json!(["disk"])))(&mut bench);
    let (_handle, mut core) = bench.try_start().unwrap();
    assert!(!core.ready().await.actions.contains(&"service.assert_active".to_owned()));
    core.link_up(&bench, 1, 1).await;
    core.reconcile().await;
    assert_eq!(core.outcome(&bench, &order, 1).await.0, Outcome::Succeeded, "a gate that asks no unit");
}

#[tokio::test]
async fn reading_work_runs_on_a_read_only_node_even_unsigned() {
    let mut bench = Bench::new("");
    let (_handle, mut core) = bench.start(1).await;
    let mut order = bench.order(1, Verb::Run, checks());
    order.request.signature.clear();
    assert_eq!(core.outcome(&bench, &order, 1).await.0, Outcome::Succeeded);
    assert_eq!(bench.tasks.calls(), ["inspect look"]);
}

#[tokio::test]
async fn lower_fencing_values_and_older_bundles_refuse_the_link() {
    let mut bench = Bench::new("");
    let (handle, mut core) = bench.start(5).await;
    for (generation, epoch, good) in
        [(1, 4, false), (0, 9, false), (1, 5, true), (2, 1, true), (1, 99, false)]
    {
        core.link_up(&bench, generation, epoch).await;
        match core.next("the answer to a link").await {
            Some(FromExecutor::Reconcile(_)) => assert!(good, "{generation} {epoch}"),
            Some(FromExecutor::LinkRefused(refused)) => {
                assert!(!good && refused.reason.starts_with("fencing"), "{}", refused.reason);
            }
            other => panic!("{other:?}"),
        }
    }
    handle.drain(Duration::from_secs(20)).await;
    let (_handle, mut core) = bench.try_start().unwrap();
    assert_eq!(core.ready().await.generation_seen, 2, "remembered over a restart");
    for (version, good) in [(3, true), (2, false)] {
        let bundle = fleet_proto::convert::to_json(&bench.bundle(version));
        let dispatch = fleet_proto::convert::to_json(&bench.dispatch_statement());
        let link = pb::LinkUp {
            generation: 2,
            link_epoch: 2,
            dispatch,
            trust_bundle: bundle,
            takes_packages: false,
        };
        core.send(ToExecutor::LinkUp(link)).await;
        let answer = core.next("the answer to a bundle").await;
        assert_eq!(matches!(answer, Some(FromExecutor::Reconcile(_))), good, "{answer:?}");
    }
}

#[tokio::test]
async fn the_root_keys_let_a_fence_begin_anew_once() {
    let mut bench = Bench::new("");
    let (handle, mut core) = bench.start(5).await;
    core.link_up(&bench, 900, 1).await;
    core.reconcile().await;
    let reset = |node, version: u64| {
        let bundle = bench.trust(version - 1).with_fence_reset(node, bench.now());
        let dispatch = fleet_proto::convert::to_json(&bench.dispatch_statement());
        let trust_bundle = fleet_proto::convert::to_json(&bundle.sign(&bench.root).unwrap());
        ToExecutor::LinkUp(pb::LinkUp {
            generation: 1,
            link_epoch: 6,
            dispatch,
            trust_bundle,
            takes_packages: false,
        })
    };
    let other = NodeId::from_uuid(Uuid::from_u128(99));
    for (node, version, good) in [(other, 3, false), (bench.node.node, 4, true)] {
        core.send(reset(node, version)).await;
        let answer = core.next("the answer to a reset").await;
        assert_eq!(matches!(answer, Some(FromExecutor::Reconcile(_))), good, "{answer:?}");
    }
    // Whoever raises it again is not undone by the same bundle, neither over a link nor at a start.
    core.link_up(&bench, 800, 1).await;
    core.reconcile().await;
    handle.drain(Duration::from_secs(20)).await;
    let (_handle, mut core) = bench.try_start().unwrap();
    assert_eq!(core.ready().await.generation_seen, 800);
}

#[tokio::test]
async fn assignments_that_the_link_does_not_vouch_for_are_refused_without_a_trace() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (_handle, mut core) = bench.start(5).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    core.hold(&order);
    let good = bench.assignment(&order, 1, 5);
    let mut of_older_link = good.clone();
    of_older_link.link_epoch = LinkEpoch(4);
    let mut of_other_store = good.clone();
    of_other_store.generation = Generation(2);
    let mut for_other_node = good.clone();
    for_other_node.job.node = NodeId::from_uuid(Uuid::from_u128(99));
    for (assignment, rule) in
        [(of_older_link, "fencing"), (of_other_store, "fencing"), (for_other_node, "other-node")]
    {
        core.assign_exactly(&bench, &assignment).await;
        let state = core.state("a refusal", |state| state.outcome().is_some()).await;
        let JobState::Ended { outcome: Outcome::Refused, reason, .. } = state else { panic!("{state:?}") };
        assert!(reason.starts_with(&format!("{rule}: ")), "{reason}");
    }
    let proof = fleet_proto::convert::to_json(&bench.wave(&good));
    let mut replayed = good.clone();
    replayed.attempt = fleet_types::id::Attempt(2);
    let assignment = fleet_proto::convert::to_json(&replayed);
    core.send(ToExecutor::Assign(pb::Assign { assignment, proof })).await;
    let state = core.state("a refusal", |state| state.outcome().is_some()).await;
    assert!(matches!(state, JobState::Ended { reason, .. } if reason.starts_with("wave-proof: ")));
    // None of them stands in the way of the real one.
    assert_eq!(core.outcome(&bench, &order, 5).await.0, Outcome::Succeeded);
}

#[tokio::test]
async fn disruptive_work_is_counted_and_waits_for_a_known_partner() {
    let restart = || one("service.restart", &json!({"services": ["web"]}));
    let in_pair = |bench: &mut Bench| {
        let labels = [("product", "edgefw"), ("ha_group", "fra1-edge")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        bench.node.labels = fleet_types::label::Labels::new(labels).unwrap();
        bench.order(1, Verb::Run, restart())
    };
    assert_eq!(rule_of("mode = \"enforce\"", in_pair).await, "partner-unknown");
    let damaged = |bench: &mut Bench| {
        bench.host.script().package_damage = Some("fw is half-configured".to_owned());
        bench.order(1, Verb::Run, restart())
    };
    assert_eq!(rule_of("mode = \"enforce\"", damaged).await, "package-database");

    let mut bench = Bench::new("mode = \"enforce\"\nmax_disruptive_jobs = { count = 2, within = \"24h\" }");
    let (_handle, mut core) = bench.start(1).await;
    for (number, expected) in [(1, Outcome::Succeeded), (2, Outcome::Succeeded), (3, Outcome::Refused)] {
        let order = bench.order(number, Verb::Run, restart());
        let (outcome, reason) = core.outcome(&bench, &order, 1).await;
        assert_eq!(outcome, expected, "{number}: {reason}");
        assert!(number < 3 || reason.starts_with("max-disruptive-jobs: "), "{reason}");
    }
    // Work that disturbs nobody is not held up by it, and a day later there is room again.
    let quiet = bench.order(4, Verb::Run, backups(&["one"]));
    assert_eq!(core.outcome(&bench, &quiet, 1).await.0, Outcome::Succeeded);
    let later = bench.now().plus(Duration::from_hours(25));
    bench.host.script().now = later;
    let next_day = bench.order(5, Verb::Run, restart());
    assert_eq!(core.outcome(&bench, &next_day, 1).await.0, Outcome::Succeeded);
}

#[tokio::test]
async fn a_revision_older_than_one_carried_out_is_refused_unless_it_is_meant() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let order = |bench: &mut Bench, number, revision, meant| {
        bench.order_with(number, Verb::Run, backups(&["one"]), |request| {
            (request.procedure_revision, request.profile_revision) = (Some(revision), Some(2));
            request.older_revisions = meant;
        })
    };
    // A plan carries nothing out, and an unsigned request may name any number.
    let plan =
        bench.order_with(1, Verb::Plan, backups(&["one"]), |request| request.procedure_revision = Some(9));
    let newest = order(&mut bench, 2, 5, false);
    let (_handle, mut core) = bench.start(1).await;
    for order in [&plan, &newest] {
        core.assign(&bench, order, 1).await;
        assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded);
    }
    // It outlives the executor.
    let work = Revision { document: "procedure/work".to_owned(), number: 4 };
    assert_eq!(SmallState::open(&bench.path("state")).unwrap().newer_than(&work), Some(5));
    let behind = order(&mut bench, 3, 4, false);
    core.assign(&bench, &behind, 1).await;
    let report = core.report(&bench).await;
    assert_eq!(report.outcome, Outcome::Refused);
    let why = "older-revision: procedure work is revision 4, and this node has carried out revision 5";
    assert!(report.reason.starts_with(why), "{}", report.reason);
    for (number, revision, meant) in [(4, 4, true), (5, 5, false), (6, 6, false)] {
        let order = order(&mut bench, number, revision, meant);
        core.assign(&bench, &order, 1).await;
        assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded, "run {number}");
    }
}
