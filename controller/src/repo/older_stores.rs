//! Stores as earlier controllers wrote them: every record of each sample in `tests/data` is read by this one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fleet_store::Direction;

use super::audited::AuditText;
use super::backups::BackupRecord;
use super::codec::{Mark, Record, decode, encode};
use super::documents::DocumentRecord;
use super::fleet::FleetRecord;
use super::holds::HoldRecord;
use super::jobs::{InboxRecord, JobRecord};
use super::nodes::{HealthRecord, NodePointer, NodeRecord, SeenRecord};
use super::operators::{OperatorPointer, OperatorRecord};
use super::reader::{PAGE, Repo};
use super::reports::ReportRecord;
use super::runs::RunRecord;
use super::tokens::{InviteRecord, TokenRecord};

/// Opens a copy of a sample.
async fn open(sample: &str) -> (tempfile::TempDir, Repo) {
    let directory = tempfile::tempdir().unwrap();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(sample);
    let archive = flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap());
    tar::Archive::new(archive).unpack(directory.path()).unwrap();
    let url = format!("sled:{}", directory.path().join("store").display());
    let repo = Repo::new(fleet_store::open(&url, None).await.unwrap());
    (directory, repo)
}

/// Reads a value, and writes it as it is written now: where its version is today's, the same bytes.
fn check<R: Record>(key: &str, value: &[u8]) {
    let record: R = decode(value)
        .unwrap_or_else(|error| panic!("{key}: {error}: {:?}", std::error::Error::source(&error)));
    if value[0] == R::VERSION {
        let now = encode(&record).unwrap();
        assert_eq!(String::from_utf8_lossy(&now), String::from_utf8_lossy(value), "{key}");
    }
}

/// Reads the value of a key by the record that lies there; false for objects, which are read whole.
fn read(key: &str, value: &[u8]) -> bool {
    let check = match key.split_once('/').map_or(key, |(kind, _)| kind) {
        "node" => check::<NodeRecord>,
        "node-name" => check::<NodePointer>,
        "seen" => check::<SeenRecord>,
        "health" => check::<HealthRecord>,
        "join-token" => check::<TokenRecord>,
        "invite" => check::<InviteRecord>,
        "operator" => check::<OperatorRecord>,
        "operator-name" => check::<OperatorPointer>,
        "document" | "document-head" => check::<DocumentRecord>,
        "run" => check::<RunRecord>,
        "job" => check::<JobRecord>,
        "inbox" => check::<InboxRecord>,
        "hold" => check::<HoldRecord>,
        "backup" => check::<BackupRecord>,
        "audit-text" => check::<AuditText>,
        "run-by-time" | "open-run" | "node-job" => check::<Mark>,
        "meta" if key == "meta/fleet" => check::<FleetRecord>,
        "meta" if key == "meta/runs-by-time" => check::<Mark>,
        _ => return false,
    };
    check(key, value);
    true
}

#[tokio::test]
async fn a_store_of_0_1_0_is_read_whole() {
    let (_directory, repo) = open("store-0.1.0.tar.gz").await;
    let (mut after, mut kinds) = (None, BTreeMap::new());
    loop {
        let page = repo.store().scan(b"", after.as_ref(), PAGE, Direction::Ascending).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (key, entry) in page {
            let key = String::from_utf8(key.as_bytes().to_vec()).unwrap_or_default();
            if read(&key, &entry.value) {
                *kinds.entry(key.split('/').next().unwrap_or_default().to_owned()).or_insert(0) += 1;
            }
        }
    }
    // Two runs that ended, a third under way on a pair, a held node.
    let counted =
        ["run", "job", "inbox", "hold", "node", "health", "backup", "document", "operator", "invite"];
    let counts = counted.map(|kind| kinds.get(kind).copied().unwrap_or(0));
    assert_eq!(counts, [3, 15, 2, 1, 6, 6, 6, 5, 1, 1]);
    let reports = repo.store().scan(b"report/", None, PAGE, Direction::Ascending).await.unwrap();
    let mut read = 0;
    for (key, _) in &reports {
        if repo.object_record::<ReportRecord>(key).await.ok().flatten().is_some() {
            read += 1;
        }
    }
    assert_eq!(read, 12);
    repo.store().close().await.unwrap();
}

#[test]
fn a_frozen_node_of_version_1_is_held() {
    let body = r#"{"id":"01a22061-ca79-7bbc-aa98-ff381454cd49","name":"fw-1","labels":{},"state":{"state":"frozen","reason":"two machines","since":null,"by":null},"report_key":null,"serial":null,"certificate_not_after":null,"created":1795839619576}"#;
    let bytes: Vec<u8> = std::iter::once(1).chain(body.bytes()).collect();
    let node: NodeRecord = decode(&bytes).unwrap();
    assert_eq!(node.hold().map(|hold| hold.reason.as_str()), Some("two machines"));
    let newer: Vec<u8> = std::iter::once(NodeRecord::VERSION + 1).chain(body.bytes()).collect();
    let refused = decode::<NodeRecord>(&newer).unwrap_err().to_string();
    assert_eq!(refused, "a node record has version 4, this program knows up to 3; start the newer program");
}
