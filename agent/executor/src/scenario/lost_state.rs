//! State that is gone is noticed like state that is damaged, and reports go on in a new chain.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet_proto::pb;
use fleet_proto::pb::core_message::Body as ToExecutor;
use fleet_proto::pb::executor_message::Body as FromExecutor;
use fleet_types::canonical;
use fleet_types::id::RunId;
use fleet_types::job::{JobState, Outcome};
use fleet_types::report::Report;
use fleet_types::request::Verb;
use serde_json::json;

use super::bench::{Bench, backups, checks, digest_of};
use super::core::Core;
use super::scripted::Does;
use crate::ExecutorHandle;
use crate::policy::LocalPolicy;

/// A node that has carried out one job, stopped; with the sequence that its journal had reached.
async fn with_history() -> (Bench, u64) {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (handle, mut core) = bench.start(3).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    core.assign(&bench, &order, 3).await;
    let report = core.sealed(&bench).await;
    core.ack(&report).await;
    core.send(ToExecutor::LinkDown(pb::LinkDown {})).await;
    let reached = core.ready().await.journal_sequence;
    handle.drain(Duration::from_secs(20)).await;
    (bench, reached)
}

/// Starts it again, with a link; gives what it says of itself.
async fn again(bench: &mut Bench) -> (ExecutorHandle, Core, pb::Hello) {
    let (handle, mut core) = bench.try_start().unwrap();
    let hello = core.ready().await;
    core.link_up(bench, 1, 4).await;
    core.reconcile().await;
    (handle, core, hello)
}

#[tokio::test]
async fn whatever_is_missing_stops_changes_until_a_person_has_looked() {
    for name in ["journal", "state.json"] {
        let (mut bench, reached) = with_history().await;
        fs::remove_file(bench.path("state").join(name)).unwrap();
        for number in 2..4 {
            let (handle, mut core, hello) = again(&mut bench).await;
            assert!(hello.safe_mode.contains(&format!("{name} is missing")), "{}", hello.safe_mode);
            assert!(hello.journal_sequence >= reached, "no number comes twice");
            let change = bench.order(number, Verb::Run, backups(&["two"]));
            core.assign(&bench, &change, 4).await;
            let sealed = core.sealed(&bench).await;
            let report: Report = canonical::from_slice(&sealed.payload).unwrap();
            assert!(report.reason.starts_with("safe-mode: "), "{}", report.reason);
            core.ack(&sealed).await;
            // Answered behind the acknowledgement, so that it has been taken.
            core.send(ToExecutor::LinkDown(pb::LinkDown {})).await;
            core.ready().await;
            handle.drain(Duration::from_secs(20)).await;
        }
        crate::damage::accept(&bench.path("state")).unwrap();
        let (_handle, mut core, hello) = again(&mut bench).await;
        assert_eq!(hello.safe_mode, "");
        let change = bench.order(9, Verb::Run, backups(&["two"]));
        assert_eq!(core.outcome(&bench, &change, 4).await.0, Outcome::Succeeded, "{name}");
    }
}

#[tokio::test]
async fn a_fence_that_is_gone_is_not_zero_where_the_journal_knows_better() {
    let (mut bench, _) = with_history().await;
    fs::remove_file(bench.path("state/state.json")).unwrap();
    let (_handle, mut core) = bench.try_start().unwrap();
    let hello = core.ready().await;
    assert_eq!((hello.generation_seen, hello.epoch_seen), (1, 3));
    core.link_up(&bench, 1, 2).await;
    let answer = core.next("a refusal of the older link").await;
    assert!(matches!(answer, Some(FromExecutor::LinkRefused(_))), "{answer:?}");
}

#[tokio::test]
async fn without_its_report_key_a_node_takes_nothing_up_and_makes_no_other() {
    let (mut bench, _) = with_history().await;
    fs::remove_file(bench.path("state/report.key")).unwrap();
    let (handle, mut core, hello) = again(&mut bench).await;
    assert!(hello.safe_mode.contains("report.key is missing"), "{}", hello.safe_mode);
    assert_eq!(handle.report_key(), None);
    let order = bench.order(2, Verb::Run, checks());
    core.assign(&bench, &order, 4).await;
    let state = core.state("a refusal", |state| state.outcome().is_some()).await;
    assert!(
        matches!(state, JobState::Ended { outcome: Outcome::Refused, reason, .. } if reason.contains("report key"))
    );
    assert!(!bench.path("state/report.key").exists());
    assert_eq!(bench.tasks.count("inspect look"), 0);
}

#[tokio::test]
async fn a_broken_chain_begins_anew_and_brings_what_nobody_has_acknowledged() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let (handle, mut core) = bench.start(1).await;
    for number in 1..=2 {
        let order = bench.order(number, Verb::Run, backups(&["one"]));
        core.assign(&bench, &order, 1).await;
        core.sealed(&bench).await;
    }
    handle.drain(Duration::from_secs(20)).await;
    // The end of the second job is lost, and with it the newest report of the chain.
    let path = bench.path("state/journal");
    let mut bytes = fs::read(&path).unwrap();
    let word = b"\"finished\"";
    let last = bytes.windows(word.len()).rposition(|at| at == word).unwrap();
    bytes[last] ^= 1;
    bytes.extend(crate::journal::encode_frame(99, b"null"));
    fs::write(&path, bytes).unwrap();
    let (_handle, mut core) = bench.try_start().unwrap();
    core.ready().await;
    core.link_up(&bench, 1, 2).await;
    assert_eq!(core.reconcile().await.len(), 2);
    let mut before = None;
    for number in 1..=2_u64 {
        let sealed = core.sealed(&bench).await;
        let report: Report = canonical::from_slice(&sealed.payload).unwrap();
        assert_eq!(report.job.run, RunId::from_number(number));
        assert!(report.sequence > 1_000_000_000_000, "above every number of the old chain");
        assert_eq!(report.previous, before);
        assert_eq!(report.new_chain.is_some(), number == 1, "{:?}", report.new_chain);
        before = Some(digest_of(&sealed));
    }
}

#[tokio::test]
async fn an_acknowledged_job_whose_end_is_lost_is_over() {
    let (mut bench, _) = with_history().await;
    let path = bench.path("state/journal");
    let mut bytes = fs::read(&path).unwrap();
    let word = b"\"finished\"";
    let end = bytes.windows(word.len()).position(|at| at == word).unwrap();
    bytes[end] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (_handle, mut core) = bench.try_start().unwrap();
    assert!(core.ready().await.safe_mode.contains("damaged"));
    core.link_up(&bench, 1, 4).await;
    assert!(core.reconcile().await.is_empty(), "nothing is open, nothing is reported twice");
    let reading = bench.order(2, Verb::Run, checks());
    core.assign(&bench, &reading, 4).await;
    let report = core.report(&bench).await;
    assert!(report.outcome == Outcome::Succeeded && report.new_chain.is_some());
}

#[tokio::test]
async fn the_owners_policy_counts_from_the_moment_it_is_written() {
    let mut bench = Bench::new("mode = \"enforce\"");
    let written = Arc::new(Mutex::new(Ok("enforce")));
    let file = Arc::clone(&written);
    bench.reader = Some(Arc::new(move || {
        let mode: Result<&str, &str> = *file.lock().unwrap();
        let text = format!("min_free_disk = \"0\"\nmode = \"{}\"", mode?);
        LocalPolicy::parse(&text).map_err(|error| error.to_string())
    }));
    let write = |mode| *written.lock().unwrap() = mode;
    bench.tasks.set("one", Does::Waits);
    let (_handle, mut core) = bench.start(1).await;
    let first = bench.order(1, Verb::Run, backups(&["one", "two"]));
    core.assign(&bench, &first, 1).await;
    core.state("its first step", |state| matches!(state, JobState::Running { .. })).await;
    write(Ok("locked"));
    bench.tasks.let_go();
    let report = core.report(&bench).await;
    assert_eq!(bench.tasks.count("apply two"), 0, "what has begun ends, nothing else begins");
    assert!(report.outcome == Outcome::Failed && report.reason.contains("locked"), "{}", report.reason);
    let mut refusal = 1;
    for (mode, words) in [(Ok("locked"), "mode-locked"), (Err("line 3"), "mode-locked")] {
        write(mode);
        refusal += 1;
        let order = bench.order(refusal, Verb::Run, backups(&["two"]));
        let (outcome, reason) = core.outcome(&bench, &order, 1).await;
        assert!(outcome == Outcome::Refused && reason.starts_with(words), "{reason}");
    }
    // Reading work too: what had not begun, and what waited for its turn.
    write(Ok("enforce"));
    bench.tasks.set("look", Does::Waits);
    let look = |id: &str| json!({"id": id, "kind": "task", "uses": "health.check"});
    let reading = json!({"changes": false, "step": [look("look"), look("again")]});
    let order = bench.order(7, Verb::Run, reading);
    core.assign(&bench, &order, 1).await;
    core.update("its acceptance", |update| update.run == order.run).await;
    bench.tasks.began("inspect look").await;
    write(Ok("locked"));
    bench.tasks.let_go();
    let report = core.report(&bench).await;
    assert!(report.job.run == order.run && report.reason.contains("mode-locked"), "{}", report.reason);
    assert_eq!(bench.tasks.count("inspect again"), 0);
    write(Err("line 3"));
    core.send(ToExecutor::LinkDown(pb::LinkDown {})).await;
    assert!(core.ready().await.safe_mode.contains("line 3"), "and the controller hears why");
    write(Ok("enforce"));
    core.link_up(&bench, 1, 2).await;
    core.reconcile().await;
    let order = bench.order(9, Verb::Run, backups(&["two"]));
    core.assign(&bench, &order, 2).await;
    let done = loop {
        let report = core.report(&bench).await;
        if report.job.run == order.run {
            break report;
        }
    };
    assert_eq!(done.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_core_that_says_nothing_is_given_up_and_the_next_one_is_served() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.beat = Duration::from_millis(20);
    let (mut handle, mut core) = bench.start(1).await;
    let limit = Duration::from_secs(30);
    // Twice as long as silence is borne, with a word now and then.
    for _ in 0..24 {
        core.alive().await;
        core.beat().await;
    }
    let news = tokio::time::timeout(limit, handle.news()).await.expect("the silent core is given up");
    assert_eq!(news, crate::News::CoreHung);
    let mut next = Bench::next_core(&handle);
    assert_eq!(next.ready().await.epoch_seen, 1);
    next.link_up(&bench, 1, 2).await;
    next.reconcile().await;
}
