//! `JSONPath` (RFC 9535) as people know it from other tools: `{…}` around a path, a leading `$` and the first dot may be
//! there or not.
//!
//! Parsing and selecting is the crate's.

use std::str::FromStr;

use serde_json::Value;

/// Longest path; a longer one is a mistake.
const MAX_PATH_BYTES: usize = 1024;
/// Most brackets that are open at once: no path has more, and each costs the parser some stack.
const MAX_OPEN: usize = 16;

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(serde_json_path::JsonPath);

/// The text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("jsonpath \"{path}\": {why}; write such as .items[0].name or .items[*].state")]
pub struct JsonPathError {
    path: String,
    why: String,
}

impl FromStr for JsonPath {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        let fail = |why: String| JsonPathError { path: text.chars().take(64).collect(), why };
        if text.len() > MAX_PATH_BYTES {
            return Err(fail("longer than 1,024 bytes".to_owned()));
        }
        let mut open = 0_usize;
        for c in text.chars() {
            match c {
                '(' | '[' => open += 1,
                ')' | ']' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > MAX_OPEN {
                return Err(fail("more than 16 brackets are open at once".to_owned()));
            }
        }
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let lead = if inner.starts_with('$') {
            ""
        } else if inner.starts_with(['.', '[']) || inner.is_empty() {
            "$"
        } else {
            "$."
        };
        // A single dot is the whole value.
        let path = if matches!(inner, "." | "$.") { "$".to_owned() } else { format!("{lead}{inner}") };
        serde_json_path::JsonPath::parse(&path).map(Self).map_err(|error| {
            // Counted in bytes from 0 in what was parsed; people count characters of what they wrote.
            let at = error.position() + usize::from(inner.len() < text.len());
            let at = text.len().min(at.saturating_sub(lead.len()));
            let before = text.bytes().take(at).filter(|byte| byte & 0xc0 != 0x80).count();
            fail(format!("not understood at character {}", before + 1))
        })
    }
}

impl JsonPath {
    /// Every value that the path selects, in order; none where it leads nowhere.
    pub fn select<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        self.0.query(root).all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_as_people_write_them() {
        let value = json!({ "items": [{ "name": "a", "x.y": 1 }, { "name": "b" }], "n": { "k": 2 } });
        for (path, expected) in [
            (".items[0].name", json!(["a"])),
            ("{.items[*].name}", json!(["a", "b"])),
            ("$.items[-1].name", json!(["b"])),
            ("items[0]['x.y']", json!([1])),
            (".n.*", json!([2])),
            (".items[7].name", json!([])),
            (".items[-7]", json!([])),
            (".items.name", json!([])),
            (".n", json!([{ "k": 2 }])),
            ("{.n}", json!([{ "k": 2 }])),
            ("$..k", json!([2])),
            (".items[?@.name == 'b'].name", json!(["b"])),
        ] {
            let found: JsonPath = path.parse().unwrap();
            assert_eq!(json!(found.select(&value)), expected, "{path}");
        }
        for all in [".", "$", "$.", "{.}", ""] {
            assert_eq!(all.parse::<JsonPath>().unwrap().select(&value), [&value], "{all}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused_quickly() {
        let deep = format!(".a[?{}@.b{}]", "(".repeat(400), ")".repeat(400));
        let most = format!(".a[?{}@.b", "(!".repeat(15));
        for bad in [".items[", ".items[x]", ".a.", ".a]", &".a".repeat(1000), &deep, &most] {
            assert!(bad.parse::<JsonPath>().is_err(), "{bad}");
        }
        let error = ".items[x]".parse::<JsonPath>().unwrap_err().to_string();
        assert!(error.contains("at character 7"), "{error}");
    }
}
