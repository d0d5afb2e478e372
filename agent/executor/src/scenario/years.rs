//! A node over months: what it keeps stays within its bounds while it runs, without a restart.

use std::path::Path;
use std::time::Duration;

use fleet_types::id::RunId;
use fleet_types::job::Outcome;
use fleet_types::request::Verb;

use super::bench::{Bench, backups, checks};
use super::scripted::Does;
use crate::retention::{COMPACT_FROM_BYTES, MAX_TOMBSTONES, SPARE_DOCUMENTS, TIDY_AFTER};

fn files_in(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[tokio::test]
async fn a_job_every_two_hours_for_half_a_year_leaves_the_disk_flat() {
    let mut bench = Bench::in_memory("mode = \"enforce\"");
    bench.tasks.set("one", Does::Well);
    let (_handle, mut core) = bench.start(1).await;
    let slack = TIDY_AFTER as usize;
    for number in 1..=2100_u64 {
        bench.host.script().now = bench.now().plus(Duration::from_hours(2));
        bench.host.script().since_boot += Duration::from_hours(2);
        if number % 10 == 0 {
            core.link_up(&bench, 1, 1 + number).await;
            assert!(core.reconcile().await.len() <= 1);
        }
        let epoch = 1 + number - number % 10;
        let order =
            bench.order(number, Verb::Run, if number % 2 == 0 { backups(&["one"]) } else { checks() });
        core.assign(&bench, &order, epoch).await;
        let report = core.sealed(&bench).await;
        assert_eq!(report.run, order.run.to_string());
        core.ack(&report).await;
        core.states.clear();
        core.asked.clear();
        core.forget_documents();
        if number % 300 == 0 {
            assert!(
                files_in(&bench.path("state/documents")) <= SPARE_DOCUMENTS.files + slack,
                "after {number}"
            );
            assert!(files_in(&bench.path("state/reports")) <= 512 + slack, "after {number}");
            let journal = std::fs::metadata(bench.path("state/journal")).unwrap().len();
            assert!(journal < COMPACT_FROM_BYTES + 64 * 1024, "{journal} bytes after {number}");
            let kept = &bench.host.script().kept_runs;
            assert!(kept.len() <= 1, "records of programs of {} runs", kept.len());
        }
    }
}

#[tokio::test]
async fn a_flood_of_cancels_is_forgotten_again_and_the_newest_still_count() {
    let mut bench = Bench::in_memory("mode = \"enforce\"");
    let (handle, mut core) = bench.start(1).await;
    let flood = MAX_TOMBSTONES as u64 + 500;
    for number in 1..=flood {
        core.cancel(RunId::from_number(number)).await;
        core.state("the answer to a cancel", |state| state.outcome() == Some(Outcome::Cancelled)).await;
    }
    let order = bench.order(flood, Verb::Run, backups(&["one"]));
    assert_eq!(core.outcome(&bench, &order, 1).await, (Outcome::Cancelled, "enough".to_owned()));
    drop(core);
    let drained = handle.drain(Duration::from_secs(20)).await;
    assert_eq!(drained, crate::Drained::Quietly);
    let opened = bench.journal();
    let known = opened.table.forgettable(bench.now()).len();
    assert!(opened.table.iter().count() - known <= MAX_TOMBSTONES + 1);
    assert_eq!(bench.tasks.calls(), Vec::<String>::new());
}
