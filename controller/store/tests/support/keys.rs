//! Keys and write ids for the tests of both binaries.

use std::sync::atomic::{AtomicU64, Ordering};

use fleet_store::{Key, WriteId};

/// A write id that no other call in this process gets.
pub fn fresh_write_id() -> WriteId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&u64::from(std::process::id()).to_be_bytes());
    bytes[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    WriteId::from_bytes(bytes)
}

/// A key from text that is known to be good.
pub fn key(text: impl AsRef<str>) -> Key {
    Key::new(text.as_ref()).unwrap()
}
