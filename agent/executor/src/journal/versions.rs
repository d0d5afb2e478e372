//! Entries of other versions: older ones are brought up to date, newer ones passed over or named.
//!
//! Every entry carries the version of its shape in `v`; those of before that was written have none and count as 0. An
//! entry whose version or kind this agent does not know is passed over if its writer marked it `"skip": true`, which it
//! may do where a reader loses nothing that it needs. Any other one stops changes until an agent that knows it
//! runs again; it stays in the journal for that one. Pure; called by the journal's file.

use serde::Serialize;
use serde_json::Value;

use super::entry::Entry;

/// Version of the entries that this agent writes.
const VERSION: u64 = 1;

/// What an entry's bytes are.
#[derive(Debug, PartialEq)]
pub enum Read {
    /// An entry.
    Entry(Box<Entry>),
    /// Nothing that this agent needs.
    Nothing,
    /// Of a newer agent, in words.
    Newer(String),
    /// Not what any agent writes.
    Malformed,
}

#[derive(Serialize)]
struct Versioned<'a> {
    v: u64,
    #[serde(flatten)]
    entry: &'a Entry,
}

/// The bytes of an entry.
pub fn write(entry: &Entry) -> Vec<u8> {
    // Entries have string keys and no failing serialisers.
    serde_json::to_vec(&Versioned { v: VERSION, entry }).unwrap_or_default()
}

/// Reads the bytes of an entry.
pub fn read(payload: &[u8]) -> Read {
    let value: Value = match serde_json::from_slice(payload) {
        Ok(Value::Null) => return Read::Nothing,
        Ok(value) => value,
        Err(_) => return Read::Malformed,
    };
    let version = value.get("v").map_or(Some(0), Value::as_u64);
    let Some(version) = version else { return Read::Malformed };
    let may_skip = value.get("skip").and_then(Value::as_bool).unwrap_or(false);
    let kind: String =
        value.get("entry").and_then(Value::as_str).unwrap_or("without a kind").chars().take(40).collect();
    if version > VERSION {
        return if may_skip { Read::Nothing } else { Read::Newer(format!("{kind}, version {version}")) };
    }
    match serde_json::from_value(upgrade(version, value)) {
        Ok(entry) => Read::Entry(Box::new(entry)),
        Err(_) if may_skip => Read::Nothing,
        Err(_) => Read::Malformed,
    }
}

/// Brings the shape of an older version to the present one, one step a version.
fn upgrade(from: u64, mut value: Value) -> Value {
    if from == 0
        && let Some(fields) = value.as_object_mut()
    {
        // Version 1 only names itself.
        fields.insert("v".to_owned(), VERSION.into());
    }
    value
}

#[cfg(test)]
mod tests {
    use fleet_types::id::{Attempt, RunId};

    use super::*;

    #[test]
    fn older_entries_are_read_and_newer_ones_skipped_or_named() {
        let acked = Entry::Acked { run: RunId::from_number(3), attempt: Attempt(1) };
        let known = |bytes: &[u8]| read(bytes) == Read::Entry(Box::new(acked.clone()));
        assert!(known(&write(&acked)), "our own");
        assert!(known(&serde_json::to_vec(&acked).unwrap()), "of before versions were written");
        let mut newer = serde_json::to_value(&acked).unwrap();
        newer["v"] = 2.into();
        newer["entry"] = "guard_extended".into();
        assert_eq!(
            read(&serde_json::to_vec(&newer).unwrap()),
            Read::Newer("guard_extended, version 2".to_owned())
        );
        newer["skip"] = true.into();
        assert_eq!(read(&serde_json::to_vec(&newer).unwrap()), Read::Nothing);
        newer["v"] = 1.into();
        assert_eq!(read(&serde_json::to_vec(&newer).unwrap()), Read::Nothing);
        assert_eq!(read(b"null"), Read::Nothing);
        for bad in [&b"{}"[..], b"{\"entry\":\"acked\"}", b"{\"v\":\"x\"}", b"7", b"x"] {
            assert_eq!(read(bad), Read::Malformed, "{}", String::from_utf8_lossy(bad));
        }
    }
}
