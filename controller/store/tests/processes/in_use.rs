//! A directory that another process uses.

use fleet_store::sled_store::open_with_probe;
use fleet_store::{SledSettings, SledStore, StoreError};

use crate::torture::{Acknowledged, Torture, probe_command, verify};

#[tokio::test]
async fn another_process_in_the_directory_is_named_and_not_disturbed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    let mut child = Torture::start(dir.path(), 0);
    assert_eq!(child.read(50, &mut acknowledged), 50);
    let busy = StoreError::Busy { path: dir.path().to_owned() };
    assert_eq!(SledStore::open(SledSettings::new(dir.path())).await.err(), Some(busy.clone()));
    assert_eq!(open_with_probe(dir.path(), Some(probe_command(dir.path()))).await.err(), Some(busy));
    assert_eq!(child.read(200, &mut acknowledged), 200, "{:?}", child.said);
    let seen = child.kill(&mut acknowledged);
    assert!(
        dir.path().join("store.unclean").exists(),
        "a refused opening has removed the mark of the running store"
    );
    verify(dir.path(), &acknowledged, seen).await;
    assert!(!dir.path().join("store.unclean").exists());
}
