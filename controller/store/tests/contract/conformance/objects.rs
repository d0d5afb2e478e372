//! Cases about objects larger than one value.

use std::sync::Arc;

use super::fixture::{must, page_of, refused, value_of};
use crate::keys::{fresh_write_id, key};
use fleet_store::batch::Batch;
use fleet_store::chunks::{MAX_OBJECT_BYTES, StoredObject, delete_object, get_object, put_object};
use fleet_store::contract::{Direction, KvStore, MAX_VALUE_BYTES};
use fleet_store::error::StoreError;

fn object_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31 + i / 251) % 256).try_into().unwrap_or_default()).collect()
}

/// Nothing, one byte, around the borders of parts, and the largest.
pub async fn objects_of_all_sizes_come_back(store: Arc<dyn KvStore>) {
    let head_room = MAX_VALUE_BYTES - 41;
    let lengths = [0, 1, head_room, head_room + 1, head_room + MAX_VALUE_BYTES, 100_000, MAX_OBJECT_BYTES];
    for length in lengths {
        let (object, bytes) = (key(format!("object/{length}")), object_bytes(length));
        let batch = must(put_object(
            Batch::new(fresh_write_id()).if_absent(object.clone()),
            &object,
            &[7; 32],
            &bytes,
        ));
        must(store.commit(batch).await);
        let expected = StoredObject { digest: [7; 32], bytes };
        assert_eq!(must(get_object(&*store, &object).await), Some(expected), "{length} bytes");
    }
    assert_eq!(must(get_object(&*store, &key("object/none")).await), None);
    let too_large = put_object(
        Batch::new(fresh_write_id()),
        &key("object/huge"),
        &[0; 32],
        &object_bytes(MAX_OBJECT_BYTES + 1),
    );
    assert!(matches!(refused(too_large), StoreError::TooLarge { .. }));
}

/// A part that is missing or of another commit.
pub async fn damaged_objects_are_named(store: Arc<dyn KvStore>) {
    let bytes = object_bytes(40_000);
    for (name, spoil) in [
        ("damaged/missing", Batch::new(fresh_write_id()).delete(key("damaged/missing/\0\u{2}"))),
        ("damaged/foreign", Batch::new(fresh_write_id()).put(key("damaged/foreign/\0\u{1}"), vec![0; 7168])),
        ("damaged/head", Batch::new(fresh_write_id()).put(key("damaged/head"), "\u{1}short")),
    ] {
        let batch = must(put_object(Batch::new(fresh_write_id()), &key(name), &[1; 32], &bytes));
        must(store.commit(batch).await);
        must(store.commit(spoil).await);
        let error = refused(get_object(&*store, &key(name)).await);
        assert!(matches!(&error, StoreError::Corrupt { what } if what.contains(name)), "{name}: {error}");
    }
}

/// Head and parts go together, and only if the object is still the same.
pub async fn objects_are_deleted_whole(store: Arc<dyn KvStore>) {
    let object = key("gone/a");
    let put =
        |length| must(put_object(Batch::new(fresh_write_id()), &object, &[2; 32], &object_bytes(length)));
    must(store.commit(put(30_000)).await);
    let stale = must(delete_object(&*store, Batch::new(fresh_write_id()), &object).await);
    must(store.commit(put(30_000)).await);
    assert!(refused(store.commit(stale).await).is_conflict());
    let delete = must(delete_object(&*store, Batch::new(fresh_write_id()), &object).await);
    must(store.commit(delete).await);
    assert!(page_of(&*store, "gone/", None, 100, Direction::Ascending).await.is_empty());
    assert_eq!(value_of(&*store, &object).await, None);
    assert!(must(delete_object(&*store, Batch::new(fresh_write_id()), &object).await).ops.is_empty());
}

/// A shorter object replaces a longer one, also where both have parts, and what that one left goes with it.
pub async fn objects_may_become_shorter_and_longer(store: Arc<dyn KvStore>) {
    let object = key("changing/a");
    for length in [40_000, 15_000, 22_000, 100, 8_000, 40_001] {
        let bytes = object_bytes(length);
        must(store.commit(must(put_object(Batch::new(fresh_write_id()), &object, &[3; 32], &bytes))).await);
        let read = must(get_object(&*store, &object).await).map(|object| object.bytes);
        assert!(read == Some(bytes), "{length} bytes did not come back");
    }
    let bytes = object_bytes(9_000);
    must(store.commit(must(put_object(Batch::new(fresh_write_id()), &object, &[3; 32], &bytes))).await);
    let delete = must(delete_object(&*store, Batch::new(fresh_write_id()), &object).await);
    must(store.commit(delete).await);
    assert!(page_of(&*store, "changing/", None, 100, Direction::Ascending).await.is_empty());
}
