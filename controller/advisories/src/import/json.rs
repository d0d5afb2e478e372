//! JSON as origins must write it: no key twice in a table, whatever the table is. Pure; for the readers beside it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, de};

/// A table in the order of the file, in which no key stands twice.
#[derive(Debug)]
pub(super) struct Table<V>(pub Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Table<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Table<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        let key: String = key.chars().take(80).collect();
                        return Err(de::Error::custom(format!("{key:?} is there twice")));
                    }
                    entries.push((key, map.next_value()?));
                }
                Ok(Table(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Reads a whole file. The parser bounds the depth of what is kept (128) and passes over the rest
/// without recursion; the caller bounds the size. An error has line and column.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_doubled_or_too_deep_is_refused_with_its_place() {
        let told = read::<Table<u8>>(b"{\"a\":1,\n\"a\":2}").unwrap_err();
        assert_eq!(told, "\"a\" is there twice at line 2 column 3");
        let deep = [b"[".repeat(200), b"]".repeat(200)].concat();
        assert!(read::<serde_json::Value>(&deep).unwrap_err().contains("recursion limit"));
        assert!(read::<Table<u8>>(b"{\"a\":1").unwrap_err().contains("EOF"));
    }
}
