//! A file system that is really full (T11): the store refuses or fails, and loses nothing that it acknowledged.
//!
//! A small tmpfs is mounted for it. Where that is not permitted the tests say so and check nothing.

use std::path::Path;
use std::process::Command;

use crate::keys::{fresh_write_id, key};
use crate::torture::{Acknowledged, Torture, verify};
use fleet_store::{Batch, KvStore, SledSettings, SledStore, StoreError};

const MIB: u64 = 1024 * 1024;

/// A tmpfs of its own, unmounted at the end.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "fleet-store-test"])
            .arg(dir.path())
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Self { dir }),
            other => {
                eprintln!("NOT CHECKED: a full disk; mounting a tmpfs is not permitted here: {other:?}");
                None
            }
        }
    }

    fn grow(&self, mib: u64) {
        let size = format!("remount,size={mib}m");
        assert!(Command::new("mount").args(["-o", &size]).arg(self.dir.path()).status().unwrap().success());
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "{} stays mounted",
            self.dir.path().display()
        );
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_store_and_a_new_process_recovers() {
    let Some(disk) = SmallDisk::mount(12) else { return };
    let directory = disk.path().join("store");
    let mut acknowledged = Acknowledged::new();
    let (status, said) = Torture::start(&directory, 0).wait(&mut acknowledged);
    assert_eq!(status.code(), Some(75), "{said:?}");
    let failed = said.iter().find(|line| line.starts_with("failed ")).unwrap();
    assert!(failed.contains("must be opened by a new process"), "{failed}");
    assert!(acknowledged.len() > 100, "{} acknowledged", acknowledged.len());
    disk.grow(64);
    let mut child = Torture::start(&directory, 0);
    assert_eq!(child.read(500, &mut acknowledged), 500, "{:?}", child.said);
    let seen = child.kill(&mut acknowledged);
    verify(&directory, &acknowledged, seen).await;
}

#[tokio::test]
async fn the_floor_stops_writing_before_the_disk_is_full_and_space_ends_it() {
    let Some(disk) = SmallDisk::mount(32) else { return };
    let mut settings = SledSettings::new(disk.path().join("store"));
    settings.free_space_floor_bytes = 8 * MIB;
    settings.reserve_floor_bytes = 4 * MIB;
    let store = SledStore::open(settings).await.unwrap();
    store.commit(Batch::new(fresh_write_id()).put(key("before"), "x")).await.unwrap();
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0; usize::try_from(25 * MIB).unwrap()]).unwrap();

    let refused = store.commit(Batch::new(fresh_write_id()).put(key("start"), "x")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full { floor_bytes, .. } if floor_bytes == 8 * MIB), "{refused}");
    assert!(store.get(&key("before")).await.unwrap().is_some());
    store.commit(Batch::new(fresh_write_id()).put(key("stop"), "x").using_reserve()).await.unwrap();

    std::fs::remove_file(&filler).unwrap();
    store.commit(Batch::new(fresh_write_id()).put(key("start"), "x")).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_named() {
    let Some(disk) = SmallDisk::mount(1) else { return };
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0; usize::try_from(MIB).unwrap()]).unwrap();
    let error = SledStore::open(SledSettings::new(disk.path().join("store"))).await.err().unwrap();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
}
