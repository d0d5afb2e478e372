//! Output and other bounds.

use fleet_proto::pb;
use fleet_proto::pb::core_message::Body as ToExecutor;
use fleet_proto::pb::executor_message::Body as FromExecutor;
use fleet_proto::pb::reconcile_decision::Decision;
use fleet_types::job::{EndCause, JobState, Outcome};
use fleet_types::request::Verb;
use fleet_types::seal::SigningKey;

use super::bench::{Bench, backups, checks};
use super::scripted::Does;

#[tokio::test]
async fn much_output_is_cut_in_the_middle_and_never_delays_the_report() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Prints(3000));
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    assert_eq!(core.outcome(&bench, &order, 1).await.0, Outcome::Succeeded);
    while !core.output.last().is_some_and(|chunk| chunk.last) {
        core.one("the end of the output").await.unwrap();
    }
    let mut next = 0;
    let mut text = Vec::new();
    for chunk in &core.output {
        assert_eq!(chunk.offset, next);
        assert!(chunk.data.len() <= 64 * 1024);
        next += chunk.data.len() as u64;
        text.extend(&chunk.data);
    }
    assert!(text.len() < 1100 * 1024);
    assert!(String::from_utf8_lossy(&text).contains("bytes left out"));
}

#[tokio::test]
async fn a_lost_link_brings_fresh_numbers_for_the_next_hello() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (_handle, mut core) = bench.start(3).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    assert_eq!(core.outcome(&bench, &order, 3).await.0, Outcome::Succeeded);
    core.send(ToExecutor::LinkDown(pb::LinkDown {})).await;
    let hello = core.ready().await;
    assert_eq!((hello.generation_seen, hello.epoch_seen), (1, 3));
    assert!(hello.journal_sequence >= 5 && hello.policy_mode == "enforce" && hello.safe_mode.is_empty());
    assert!(hello.actions.contains(&"backup.run".to_owned()));
    // Without a link nothing is taken.
    let second = bench.order(2, Verb::Run, checks());
    core.assign(&bench, &second, 3).await;
    core.link_up(&bench, 1, 4).await;
    assert_eq!(core.reconcile().await.len(), 1);
    assert_eq!(bench.tasks.count("inspect look"), 0);
}

#[tokio::test]
async fn a_document_whose_signer_is_gone_is_asked_for_again_and_taken_with_another_signature() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (_handle, mut core) = bench.start(1).await;
    let first = bench.order(1, Verb::Run, backups(&["one"]));
    core.assign(&bench, &first, 1).await;
    assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded);
    bench.operator = SigningKey::generate().unwrap().0;
    let trust_bundle = fleet_proto::convert::to_json(&bench.bundle(2));
    core.send(ToExecutor::Trust(pb::TrustUpdate { trust_bundle })).await;
    let second = bench.order(2, Verb::Run, backups(&["one"]));
    let digest = second.documents[0].digest();
    assert_eq!(digest, first.documents[0].digest(), "the same text, signed by somebody else");
    core.asked.clear();
    core.assign(&bench, &second, 1).await;
    let report = core.report(&bench).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{}", report.reason);
    assert!(core.asked.contains(&digest), "{:?}", core.asked);
    // Where the controller has nothing better, it is asked once.
    let mut third = bench.order(3, Verb::Run, backups(&["two"]));
    third.documents[0].signature[7] ^= 1;
    let digest = third.documents[0].digest();
    core.asked.clear();
    core.assign(&bench, &third, 1).await;
    let report = core.report(&bench).await;
    assert!(report.reason.starts_with("signature-bad"), "{}", report.reason);
    assert_eq!(core.asked.iter().filter(|asked| **asked == digest).count(), 2);
}

#[tokio::test]
async fn a_key_revoked_while_its_job_waits_starts_nothing() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let first = bench.order(1, Verb::Run, backups(&["one"]));
    let second = bench.order(2, Verb::Run, backups(&["two"]));
    core.assign(&bench, &first, 1).await;
    core.state("the first job's step", |s| matches!(s, JobState::Running { .. })).await;
    core.assign(&bench, &second, 1).await;
    core.state("the second job's acceptance", |s| matches!(s, JobState::Accepted)).await;
    bench.operator = SigningKey::generate().unwrap().0;
    let trust_bundle = fleet_proto::convert::to_json(&bench.bundle(2));
    core.send(ToExecutor::Trust(pb::TrustUpdate { trust_bundle })).await;
    // Answered behind the update, so that it has been taken.
    core.cancel(fleet_types::id::RunId::from_number(77)).await;
    core.state("an answer behind the update", |s| s.outcome() == Some(Outcome::Cancelled)).await;
    bench.tasks.let_go();
    assert_eq!(core.report(&bench).await.outcome, Outcome::Succeeded, "what has begun ends");
    let report = core.report(&bench).await;
    assert_eq!(report.outcome, Outcome::Cancelled);
    assert!(report.reason.starts_with("signature-unknown-key"), "{}", report.reason);
    assert_eq!(bench.tasks.count("apply two"), 0);
}

#[tokio::test]
async fn reconcile_decisions_are_followed() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let orders: Vec<_> = (1..=3).map(|n| bench.order(n, Verb::Run, backups(&["one"]))).collect();
    for order in &orders {
        core.assign(&bench, order, 1).await;
        core.state("its acceptance", |s| matches!(s, JobState::Accepted)).await;
    }
    core.link_up(&bench, 1, 2).await;
    assert_eq!(core.reconcile().await.len(), 3);
    let decide = |order: &super::bench::Order, decision: Decision| pb::ReconcileDecision {
        run: order.run.to_string(),
        attempt: 1,
        decision: decision.into(),
    };
    let decisions = vec![
        decide(&orders[0], Decision::Adopt),
        decide(&orders[1], Decision::Cancel),
        decide(&orders[2], Decision::Forget),
    ];
    core.send(ToExecutor::Reconcile(pb::ReconcileReply { decisions })).await;
    let cancelled = core.sealed(&bench).await;
    assert_eq!(cancelled.run, orders[1].run.to_string());
    bench.tasks.let_go();
    assert_eq!(core.report(&bench).await.job.run, orders[0].run);
    // What was given up before it began may come again as a new attempt.
    let again = bench.assignment(&orders[2], 2, 2);
    core.assign_exactly(&bench, &again).await;
    core.state("its acceptance", |s| matches!(s, JobState::Accepted)).await;
    bench.tasks.let_go();
    assert_eq!(core.report(&bench).await.attempt.0, 2);
    let decisions = vec![decide(&orders[1], Decision::SendReport)];
    core.send(ToExecutor::Reconcile(pb::ReconcileReply { decisions })).await;
    assert_eq!(core.sealed(&bench).await, cancelled);
}

#[tokio::test]
async fn without_a_core_the_executor_waits_and_can_be_stopped() {
    let mut bench = Bench::new("");
    let (handle, core) = bench.start(1).await;
    drop(core);
    assert_eq!(handle.drain(std::time::Duration::from_secs(20)).await, crate::Drained::Quietly);
    assert!(bench.try_start().is_ok(), "its journal is free again");
}

#[tokio::test]
async fn malformed_messages_change_nothing() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (_handle, mut core) = bench.start(1).await;
    for bytes in [&b""[..], b"{}", b"{\"a\":1,\"a\":2}", &[0xff; 64]] {
        let (assignment, proof) = (bytes.to_vec(), bytes.to_vec());
        core.send(ToExecutor::Assign(pb::Assign { assignment, proof })).await;
        let (run, reason) = (String::from_utf8_lossy(bytes).into_owned(), String::new());
        core.send(ToExecutor::Cancel(pb::Cancel { run: run.clone(), attempt: 1, reason })).await;
        core.send(ToExecutor::ReportAck(pb::ReportAck { run, attempt: 1, digest: bytes.to_vec() })).await;
        core.send(ToExecutor::Trust(pb::TrustUpdate { trust_bundle: bytes.to_vec() })).await;
        let arrived =
            pb::DocumentArrived { digest: bytes.to_vec(), envelope: bytes.to_vec(), error: String::new() };
        core.send(ToExecutor::Document(arrived)).await;
        let link = pb::LinkUp {
            generation: 1,
            link_epoch: 1,
            dispatch: bytes.to_vec(),
            trust_bundle: vec![],
            takes_packages: false,
        };
        core.send(ToExecutor::LinkUp(link)).await;
        assert!(matches!(core.next("a refusal").await, Some(FromExecutor::LinkRefused(_))));
    }
    core.link_up(&bench, 1, 2).await;
    core.reconcile().await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    assert_eq!(core.outcome(&bench, &order, 2).await.0, Outcome::Succeeded);
}

#[tokio::test]
async fn a_badly_signed_copy_does_not_stand_in_the_way_of_a_good_one() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (_handle, mut core) = bench.start(1).await;
    let mut bad = bench.order(1, Verb::Run, backups(&["one"]));
    bad.documents[0].signature[3] ^= 1;
    assert_eq!(core.outcome(&bench, &bad, 1).await.0, Outcome::Refused);
    let good = bench.order(2, Verb::Run, backups(&["one"]));
    assert_eq!(good.documents[0].digest(), bad.documents[0].digest());
    assert_eq!(core.outcome(&bench, &good, 1).await.0, Outcome::Succeeded);
}

#[tokio::test]
async fn four_tasks_that_do_not_come_back_stop_further_changes() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.overrun_grace = std::time::Duration::from_millis(20);
    bench.tasks.set("look", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let mut procedure = checks();
    procedure["step"][0]["timeout"] = serde_json::json!("50ms");
    for number in 1..=4 {
        let order = bench.order(number, Verb::Run, procedure.clone());
        core.assign(&bench, &order, 1).await;
        let report = core.report(&bench).await;
        assert_eq!((report.outcome, report.cause), (Outcome::Failed, Some(EndCause::TimedOut)));
    }
    let fifth = bench.order(5, Verb::Run, backups(&["one"]));
    let (outcome, reason) = core.outcome(&bench, &fifth, 1).await;
    assert!(outcome == Outcome::Refused && reason.starts_with("safe-mode: "), "{reason}");
    for _ in 0..4 {
        bench.tasks.let_go();
    }
}
