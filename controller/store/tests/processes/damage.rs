//! Damaged files: a named error or the right values, never a panic through the API and never a wrong value.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::keys::{fresh_write_id, key};
use fleet_store::sled_store::open_with_probe;
use fleet_store::{Batch, Direction, Key, KvStore, LogName, SledSettings, SledStore, StoreError};

use crate::torture::probe_command;

type Content = BTreeMap<Key, Vec<u8>>;

/// A store with a few hundred commits, closed well.
async fn make_store(directory: &Path) -> Content {
    let store = SledStore::open(SledSettings::new(directory)).await.unwrap();
    let log = LogName::new("leaf").unwrap();
    let mut content = Content::new();
    for n in 0..300_u32 {
        let (k, value) = (key(format!("state/{n:04}")), format!("value {n} ").repeat(600).into_bytes());
        let record = format!("record {n}").into_bytes();
        content.insert(k.clone(), value.clone());
        content.insert(log.record_key(n.into()), record.clone());
        store
            .commit(Batch::new(fresh_write_id()).create(k, value).append(log.clone(), |_| record))
            .await
            .unwrap();
    }
    store.close().await.unwrap();
    content
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn spoil(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Opens a damaged copy as the controller would, reads everything that can be read, and says how it went.
async fn judge(directory: &Path, content: &Content, how: &str) -> &'static str {
    fs::write(directory.join("store.unclean"), "").unwrap();
    let store = match open_with_probe(directory, Some(probe_command(directory))).await {
        Ok(store) => store,
        Err(error @ StoreError::Corrupt { .. }) => {
            let text = error.to_string();
            assert!(text.contains("restore the newest backup"), "{how}: {text}");
            return "refused";
        }
        Err(other) => panic!("{how}: {other}"),
    };
    let mut verdict = "complete";
    for (k, value) in content {
        match store.get(k).await {
            Ok(Some(entry)) => assert_eq!(&entry.value, value, "{how}: {k} has a wrong value"),
            Ok(None) => verdict = "lossy",
            Err(StoreError::Corrupt { .. } | StoreError::Unavailable { .. }) => verdict = "noticed",
            Err(other) => panic!("{how}: {other}"),
        }
    }
    drop(store.scan(b"", None, 1000, Direction::Ascending).await);
    // A store that has failed on the damage says so here.
    drop(store.close().await);
    verdict
}

#[tokio::test]
async fn damaged_files_are_refused_or_read_rightly() {
    let original = tempfile::tempdir().unwrap();
    let content = make_store(original.path()).await;
    let length = fs::metadata(original.path().join("db")).unwrap().len();
    let used = fs::read(original.path().join("db")).unwrap().iter().rposition(|&byte| byte != 0).unwrap();
    let mut verdicts = BTreeMap::<&str, u32>::new();
    for n in 0..24_u64 {
        let dir = tempfile::tempdir().unwrap();
        copy_files(original.path(), dir.path());
        let db = dir.path().join("db");
        let how = match n % 3 {
            0 => {
                let place = usize::try_from(n * 7919 + 13).unwrap() * 97 % used;
                spoil(&db, |bytes| bytes[place] ^= 0x40);
                format!("bit {place} flipped")
            }
            1 => {
                let cut = length * n / 24;
                spoil(&db, |bytes| bytes.truncate(usize::try_from(cut).unwrap()));
                format!("cut to {cut} of {length}")
            }
            _ => {
                let place = usize::try_from(n).unwrap() * used / 24;
                let end = (place + 4096).min(used);
                spoil(&db, |bytes| bytes[place..end].fill(0));
                format!("zeros from {place}")
            }
        };
        *verdicts.entry(judge(dir.path(), &content, &how).await).or_default() += 1;
    }
    eprintln!("{verdicts:?}");
    assert_eq!(verdicts.values().sum::<u32>(), 24);
    assert!(verdicts.get("refused").is_some_and(|&refused| refused > 0), "{verdicts:?}");
    assert_eq!(verdicts.get("lossy"), None, "commits were lost without a word: {verdicts:?}");
}

#[tokio::test]
async fn lost_files_are_not_taken_for_a_new_store() {
    let original = tempfile::tempdir().unwrap();
    let content = make_store(original.path()).await;
    for (how, change) in [
        ("db removed", Box::new(|dir: &Path| fs::remove_file(dir.join("db")).unwrap()) as Box<dyn Fn(&Path)>),
        ("db emptied", Box::new(|dir: &Path| spoil(&dir.join("db"), Vec::clear))),
        ("db full of noise", Box::new(|dir: &Path| spoil(&dir.join("db"), |bytes| bytes.fill(0xa7)))),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy_files(original.path(), dir.path());
        change(dir.path());
        for snapshot in fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
            if snapshot.file_name().to_string_lossy().starts_with("snap.") {
                fs::remove_file(snapshot.path()).unwrap();
            }
        }
        // Without the mark of an unclean stop, so that this process itself meets the damage.
        let error = SledStore::open(SledSettings::new(dir.path())).await.err();
        assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{how}: {error:?}");
        assert_eq!(judge(dir.path(), &content, how).await, "refused", "{how}");
    }
}

#[tokio::test]
async fn a_probe_that_dies_or_never_ends_is_damage_and_a_missing_one_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("store.unclean"), "").unwrap();
    let shell = |script: &str| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    };
    let dies =
        open_with_probe(dir.path(), Some(shell("echo 'it hurts' >&2; kill -ABRT $$"))).await.err().unwrap();
    assert!(
        matches!(&dies, StoreError::Corrupt { what } if what.contains("it hurts") && what.contains("signal")),
        "{dies}"
    );

    let mut settings = SledSettings::new(dir.path())
        .with_probe_command(shell("read never < /dev/tty || exec tail -f /dev/null"));
    settings.probe_limit = Duration::from_millis(100);
    let hangs = SledStore::open(settings).await.err().unwrap();
    assert!(matches!(&hangs, StoreError::Corrupt { what } if what.contains("within")), "{hangs}");

    let missing = open_with_probe(dir.path(), Some(Command::new("/no/such/program"))).await.err().unwrap();
    assert!(matches!(missing, StoreError::Unavailable { .. }), "{missing}");
    open_with_probe(dir.path(), Some(probe_command(dir.path()))).await.unwrap().close().await.unwrap();
}
