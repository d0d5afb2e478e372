//! Values without a fixed type: `with` of a step, parameters, settings of a tuning.
//!
//! There are no floats and no nulls, and integers stay within 2^53, because documents are RFC 8785
//! JSON (security-and-delivery §1.15).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The largest integer that every JSON reader keeps exactly: 2^53 - 1 (RFC 7493 §2.2).
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// A string, integer, boolean, list or table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A text.
    String(String),
    /// A whole number within ±(2^53 - 1).
    Integer(i64),
    /// Yes or no.
    Bool(bool),
    /// A list; its members may differ in type.
    List(Vec<Value>),
    /// A table.
    Table(BTreeMap<String, Value>),
}

impl Value {
    /// The text, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The number, when it is one.
    pub const fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// The boolean, when it is one.
    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(yes) = self { Some(*yes) } else { None }
    }

    /// The members, when it is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Self::List(members) = self { Some(members) } else { None }
    }

    /// The members as texts, when it is a list of texts and nothing else.
    pub fn as_strings(&self) -> Option<Vec<&str>> {
        self.as_list()?.iter().map(Value::as_str).collect()
    }

    /// The entries, when it is a table.
    pub const fn as_table(&self) -> Option<&BTreeMap<String, Value>> {
        if let Self::Table(entries) = self { Some(entries) } else { None }
    }

    /// Whether nothing is in it: an empty text, list or table, or `false`. A number is never empty.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::String(text) => text.is_empty(),
            Self::Integer(_) => false,
            Self::Bool(yes) => !yes,
            Self::List(members) => members.is_empty(),
            Self::Table(entries) => entries.is_empty(),
        }
    }

    /// What it is, for messages: "a string", "an integer" and so on.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl fmt::Display for Value {
    /// Texts, numbers and booleans as they are, so that they may stand in an argument; lists with
    /// commas; tables as `key=value` with commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Bool(yes) => write!(f, "{yes}"),
            Self::List(members) => {
                for (index, member) in members.iter().enumerate() {
                    write!(f, "{}{member}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::Table(entries) => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key}={value}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number.clamp(-MAX_INTEGER, MAX_INTEGER))
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

/// For `skip_serializing_if`: a boolean that is false when left out.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands references
pub(crate) const fn is_false(yes: &bool) -> bool {
    !*yes
}

/// For `skip_serializing_if`: a boolean that is true when left out.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands references
pub(crate) const fn is_true(yes: &bool) -> bool {
    *yes
}

/// For `default`: a boolean that is true when left out.
pub(crate) const fn yes() -> bool {
    true
}

struct Visitor;

impl<'de> serde::de::Visitor<'de> for Visitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an integer, a boolean, a list or a table")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_bool<E: serde::de::Error>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Bool(yes))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        if (-MAX_INTEGER..=MAX_INTEGER).contains(&number) {
            Ok(Value::Integer(number))
        } else {
            Err(E::custom(format!("{number} is outside of ±(2^53 - 1)")))
        }
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        i64::try_from(number)
            .map_err(|_| E::custom(format!("{number} is outside of ±(2^53 - 1)")))
            .and_then(|n| self.visit_i64(n))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_element()? {
            members.push(member);
        }
        Ok(Value::List(members))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = access.next_entry::<String, Value>()? {
            if entries.contains_key(&key) {
                return Err(serde::de::Error::custom(format!("duplicate key `{key}`")));
            }
            entries.insert(key, value);
        }
        Ok(Value::Table(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_nulls_duplicates_and_large_numbers_are_refused() {
        for bad in ["1.5", "null", "9007199254740992", "-9007199254740992", "1e3", r#"{"a":1,"a":2}"#] {
            assert!(serde_json::from_str::<Value>(bad).is_err(), "{bad}");
        }
        let value: Value = serde_json::from_str(r#"{"b":[1,"x",true],"a":{}}"#).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), r#"{"a":{},"b":[1,"x",true]}"#);
    }
}
