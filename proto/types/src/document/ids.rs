//! Ids and keys inside documents: `[check.disk-log]`, `{log_dir}`.
//!
//! An id names an object of a profile or a step; a key names a variable or a parameter. Both are
//! checked where they are made, so that neither can be read as an option, a path or markup.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::IdError;

/// Longest id or key in bytes; room for sentences is in `title`.
pub const MAX_ID_BYTES: usize = 63;

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.to_owned())),
                    Err(why) => {
                        let text = text.chars().filter(|c| !c.is_control()).take(64).collect();
                        Err(IdError { what: $what, text, why })
                    }
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

checked_text!(
    /// The id of an object of a document: kebab-case, 1 to 63 bytes of `a-z`, `0-9` and `-`, beginning
    /// with a letter or digit.
    Id,
    "id",
    check_id
);
checked_text!(
    /// The name of a variable or parameter: `snake_case`, 1 to 63 bytes of `a-z`, `0-9` and `_`,
    /// beginning with a letter.
    Key,
    "key",
    check_key
);

fn check_id(text: &str) -> Result<(), &'static str> {
    check_length(text)?;
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err("write it in kebab-case: small letters, digits and '-'");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("it begins and ends with a letter or digit");
    }
    Ok(())
}

fn check_key(text: &str) -> Result<(), &'static str> {
    check_length(text)?;
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Err("write it in snake_case: small letters, digits and '_'");
    }
    if !text.as_bytes()[0].is_ascii_lowercase() {
        return Err("it begins with a letter");
    }
    Ok(())
}

fn check_length(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > MAX_ID_BYTES { Err("expected 1 to 63 bytes") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_keys_have_one_form() {
        for good in ["a", "disk-log", "7d", "zehrasec-web"] {
            assert!(good.parse::<Id>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a_b", "A", "a.b", "$(x)", "{{7*7}}", "a\n", "\u{202e}a", &"a".repeat(64)]
        {
            assert!(bad.parse::<Id>().is_err(), "{bad:?}");
        }
        assert!("log_dir".parse::<Key>().is_ok());
        for bad in ["", "_a", "1a", "a-b", "A", "a b"] {
            assert!(bad.parse::<Key>().is_err(), "{bad:?}");
        }
    }
}
