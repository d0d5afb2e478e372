//! State as earlier agents wrote it: each sample in `data` is read by this one.
#![allow(clippy::unwrap_used)] // In a test a panic is the answer.

use std::path::{Path, PathBuf};

use fleet_executor::damage;
use fleet_executor::durable::Reserve;
use fleet_executor::journal::{Entry, Journal};
use fleet_executor::state::SmallState;
use fleet_types::id::{Attempt, Generation, LinkEpoch, RunId};
use fleet_types::job::Outcome;
use fleet_types::time::Timestamp;

/// A copy of a sample, so that opening it changes nothing here.
fn copy_of(sample: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(sample);
    for name in ["journal", "state.json"] {
        std::fs::copy(from.join(name), directory.path().join(name)).unwrap();
    }
    std::fs::write(directory.path().join("report.key"), "not looked at").unwrap();
    directory
}

fn open(directory: &Path) -> fleet_executor::journal::Opened {
    let now = Timestamp::clamped(1_795_900_000_000);
    Journal::open(directory, Reserve::keep(directory), now).unwrap()
}

/// Entries without versions, numbers that nobody noted, no mark of a history.
#[test]
fn state_of_0_1_0_is_read_and_gone_on_from() {
    let directory = copy_of("0.1.0");
    assert!(damage::has_history(directory.path()));
    assert_eq!(damage::missing(directory.path()), None);
    let state = SmallState::open(directory.path()).unwrap();
    let chain = (state.get().report_sequence, state.get().report_previous.unwrap());
    assert_eq!((state.get().generation, state.get().link_epoch), (Generation(1), LinkEpoch(1)));
    let opened = open(directory.path());
    assert_eq!((opened.damage, opened.table.newest_report()), (None, Some(chain)));
    let jobs: Vec<_> = opened.table.iter().map(|(_, job)| job).collect();
    assert_eq!(jobs.len(), 2);
    for job in jobs {
        assert!(job.acked && !job.is_open());
        assert_eq!(job.finished.as_ref().unwrap().outcome, Outcome::Succeeded);
    }
    let next = Entry::Acked { run: RunId::from_number(1), attempt: Attempt(1) };
    let number = opened.journal.append(&next).unwrap();
    drop(opened.journal);
    let again = open(directory.path());
    assert_eq!((again.damage, again.journal.sequence(), again.table.iter().count()), (None, number, 3));
}
