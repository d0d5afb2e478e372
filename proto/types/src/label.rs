//! Labels: what operators assign to nodes, and the selectors that choose nodes by them.
//!
//! Only labels decide rings, pairs, sites and targets; facts never do (security-and-delivery §1.13).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::Name;

/// At most this many labels a node (security-and-delivery §1.24).
pub const MAX_LABELS: usize = 64;
/// At most this many bytes of selector text; a page of terms is a mistake.
const MAX_SELECTOR_BYTES: usize = 1024;

/// What is wrong with a label or selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The key breaks `[a-z0-9][a-z0-9._/-]{0,62}`.
    #[error("label key {0:?} is not allowed: 1 to 63 of a-z 0-9 . _ / -, starting with a letter or digit")]
    Key(String),
    /// The value breaks its pattern.
    #[error(
        "label value {0:?} is not allowed: empty, or 1 to 63 of A-Z a-z 0-9 . _ -, starting with a letter or digit"
    )]
    Value(String),
    /// More than [`MAX_LABELS`].
    #[error("{0} labels: a node has at most {MAX_LABELS}")]
    TooMany(usize),
    /// The selector text is malformed.
    #[error("selector {text:?}: {why}; write key=value, key!=value, key or !key, separated by commas")]
    Selector {
        /// The text, cut.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Checks a label key.
pub fn check_key(key: &str) -> Result<(), LabelError> {
    let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let rest = |b: u8| first(b) || matches!(b, b'.' | b'_' | b'/' | b'-');
    let bytes = key.as_bytes();
    let good = (1..=63).contains(&bytes.len()) && first(bytes[0]) && bytes.iter().all(|b| rest(*b));
    if good { Ok(()) } else { Err(LabelError::Key(cut(key))) }
}

/// Checks a label value.
pub fn check_value(value: &str) -> Result<(), LabelError> {
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let bytes = value.as_bytes();
    let good = bytes.is_empty()
        || (bytes.len() <= 63 && bytes[0].is_ascii_alphanumeric() && bytes.iter().all(|b| rest(*b)));
    if good { Ok(()) } else { Err(LabelError::Value(cut(value))) }
}

/// The labels of one node, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Checks keys, values and their number.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, LabelError> {
        let map: BTreeMap<_, _> = pairs.into_iter().collect();
        if map.len() > MAX_LABELS {
            return Err(LabelError::TooMany(map.len()));
        }
        for (key, value) in &map {
            check_key(key)?;
            check_value(value)?;
        }
        Ok(Self(map))
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All labels in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The site, `-` where none is assigned.
    pub fn site(&self) -> &str {
        self.get("site").filter(|s| !s.is_empty()).unwrap_or("-")
    }

    /// The pair that this node belongs to, if any: the unit of safety.
    pub fn pair(&self) -> Option<&str> {
        self.get("ha_group").filter(|g| !g.is_empty())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(BTreeMap::<String, String>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Chooses nodes by their labels: `product=edgefw,ring!=test,ha_group`. Every term must hold.
///
/// `name=…` is a term over the node's name. The empty selector matches every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    text: String,
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Equals(String, String),
    Differs(String, String),
    Present(String),
    Absent(String),
}

impl Selector {
    /// Matches every node.
    pub fn all() -> Self {
        Self { text: String::new(), terms: Vec::new() }
    }

    /// Does the node match?
    pub fn matches(&self, name: &Name, labels: &Labels) -> bool {
        let value = |key: &str| if key == "name" { Some(name.as_str()) } else { labels.get(key) };
        self.terms.iter().all(|term| match term {
            Term::Equals(k, v) => value(k) == Some(v),
            Term::Differs(k, v) => value(k) != Some(v),
            Term::Present(k) => value(k).is_some(),
            Term::Absent(k) => value(k).is_none(),
        })
    }

    /// The labels that a node must have, with their value where one is asked for.
    pub fn asked(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.terms.iter().filter_map(|term| match term {
            Term::Equals(key, value) => Some((key.as_str(), Some(value.as_str()))),
            Term::Present(key) => Some((key.as_str(), None)),
            Term::Differs(..) | Term::Absent(_) => None,
        })
    }

    /// How specific the selector is: the number of its terms.
    pub fn specificity(&self) -> usize {
        self.terms.len()
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Selector {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let bad = |why| LabelError::Selector { text: cut(text), why };
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(bad("it is longer than 1,024 bytes"));
        }
        if text.trim().is_empty() {
            return Ok(Self { text: text.to_owned(), terms: Vec::new() });
        }
        if text.contains(['(', ')']) {
            return Err(bad(
                "\"in (…)\" is not known; for one of several values, name the nodes or run it once a value",
            ));
        }
        let terms = text
            .split(',')
            .map(|part| {
                let part = part.trim();
                if part.is_empty() {
                    return Err(bad("a term is empty"));
                }
                let pair = |key: &str, value: &str| {
                    check_key(key.trim())?;
                    check_value(value.trim())?;
                    Ok::<_, LabelError>((key.trim().to_owned(), value.trim().to_owned()))
                };
                if let Some((key, value)) = part.split_once("!=") {
                    pair(key, value).map(|(k, v)| Term::Differs(k, v))
                } else if let Some((key, value)) = part.split_once('=') {
                    pair(key, value).map(|(k, v)| Term::Equals(k, v))
                } else if let Some(key) = part.strip_prefix('!') {
                    check_key(key).map(|()| Term::Absent(key.to_owned()))
                } else {
                    check_key(part).map(|()| Term::Present(part.to_owned()))
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), terms })
    }
}

/// Does the selector of a request mean this node? It is written as the operator chose the nodes: selectors with
/// " | " between them, any of which may hold, or `name=` with names and "|" between them.
pub fn request_means(text: &str, name: &Name, labels: &Labels) -> Result<bool, LabelError> {
    if let Some(names) = text.strip_prefix("name=")
        && !names.contains([',', ' '])
    {
        return Ok(names.split('|').any(|one| one == name.as_str()));
    }
    for selector in text.split(" | ") {
        if selector.parse::<Selector>()?.matches(name, labels) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).unwrap()
    }

    #[test]
    fn every_term_must_hold() {
        let node: Name = "fw-1".parse().unwrap();
        let edge = labels(&[("product", "edgefw"), ("ring", "test")]);
        for (text, expected) in [
            ("", true),
            ("product=edgefw", true),
            ("product=edgefw, ring!=test", false),
            ("ha_group", false),
            ("!ha_group,ring", true),
            ("name=fw-1", true),
            ("name=fw-2", false),
            ("missing!=x", true),
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().matches(&node, &edge), expected, "{text}");
        }
    }

    #[test]
    fn a_request_means_the_nodes_that_its_words_say() {
        let node: Name = "fw-1".parse().unwrap();
        let edge = labels(&[("product", "edgefw"), ("site", "fra1")]);
        for (text, expected) in [
            ("", true),
            ("name=fw-1", true),
            ("name=fw-0|fw-1", true),
            ("name=fw-0|fw-11", false),
            ("name=fw-1,site=ams2", false),
            ("site=ams2 | site=fra1", true),
            ("product=edgefw,site=ams2 | product=other,site=fra1", false),
        ] {
            assert_eq!(request_means(text, &node, &edge), Ok(expected), "{text}");
        }
        assert!(request_means("site=ams2 | ;x", &node, &edge).is_err());
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for bad in [",", "a=b,", "=b", "a=$(x)", "A=b", "a=b=c", "a in (b)", &"a".repeat(2000)] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hostile_labels_are_refused() {
        for value in ["$(x)", ";x", "{{7*7}}", "-x", "a\nb", "a\0", "\u{202e}", &"v".repeat(64)] {
            assert!(Labels::new([("k".to_owned(), value.to_owned())]).is_err(), "{value:?}");
        }
        let many = (0..65).map(|n| (format!("k{n}"), String::new()));
        assert_eq!(Labels::new(many), Err(LabelError::TooMany(65)));
    }
}
