//! A small subset of `JSONPath` (RFC 9535): `.name`, `['name']`, `[n]`, `[*]` and `.*`.
//!
//! Enough for scripts that want one value; `jq` does the rest. `{…}` around the path and a leading `$`
//! are accepted, as people know them from other tools.

use std::str::FromStr;

use serde_json::Value;

/// Longest path; a longer one is a mistake.
const MAX_PATH_BYTES: usize = 1024;

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    /// Negative counts from the end.
    Index(i64),
    Every,
}

/// The text is no path of the subset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("jsonpath \"{path}\": {why} at character {at}; write such as .items[0].name or .items[*].state")]
pub struct JsonPathError {
    path: String,
    why: &'static str,
    at: usize,
}

impl FromStr for JsonPath {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        let fail = |rest: &str, why| JsonPathError {
            path: text.chars().take(64).collect(),
            why,
            at: text.chars().count() - rest.chars().count() + 1,
        };
        if text.len() > MAX_PATH_BYTES {
            return Err(fail(text, "longer than 1,024 bytes"));
        }
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let mut rest = inner.strip_prefix('$').unwrap_or(inner);
        // A bare `name` is read as `.name`.
        let bare = !rest.is_empty() && !rest.starts_with(['.', '[']);
        let mut steps = Vec::new();
        if bare {
            rest = key(rest, &mut steps).ok_or_else(|| fail(rest, "a name is missing"))?;
        }
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                // A single dot is the whole value.
                if after.is_empty() && steps.is_empty() {
                    break;
                }
                rest = key(after, &mut steps).ok_or_else(|| fail(after, "a name is missing"))?;
            } else if let Some(after) = rest.strip_prefix('[') {
                let Some((inside, after)) = after.split_once(']') else {
                    return Err(fail(rest, "\"[\" is not closed"));
                };
                steps.push(bracket(inside).ok_or_else(|| fail(rest, "expected [n], [*] or ['name']"))?);
                rest = after;
            } else {
                return Err(fail(rest, "expected \".\" or \"[\""));
            }
        }
        Ok(Self(steps))
    }
}

fn key<'a>(text: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    let end = text.find(['.', '[']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match name {
        "" => return None,
        name if name.contains([']', '\'', '"', '(', ')', '{', '}']) => return None,
        "*" => steps.push(Step::Every),
        name => steps.push(Step::Key(name.to_owned())),
    }
    Some(rest)
}

fn bracket(inside: &str) -> Option<Step> {
    if inside == "*" {
        return Some(Step::Every);
    }
    for quote in ['\'', '"'] {
        if let Some(name) = inside.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            return Some(Step::Key(name.to_owned()));
        }
    }
    inside.parse().ok().map(Step::Index)
}

impl JsonPath {
    /// Every value that the path selects, in order; none where it leads nowhere.
    pub fn select<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.of(value)).collect();
        }
        found
    }
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Key(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Index(n), Value::Array(items)) => {
                let index = if *n < 0 {
                    usize::try_from(n.unsigned_abs()).ok().and_then(|back| items.len().checked_sub(back))
                } else {
                    usize::try_from(*n).ok()
                };
                index.and_then(|index| items.get(index)).into_iter().collect()
            }
            (Self::Every, Value::Array(items)) => items.iter().collect(),
            (Self::Every, Value::Object(map)) => map.values().collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_subset() {
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
        ] {
            let found: JsonPath = path.parse().unwrap();
            assert_eq!(json!(found.select(&value)), expected, "{path}");
        }
        assert_eq!(".".parse::<JsonPath>().unwrap().select(&value), [&value]);
    }

    #[test]
    fn what_is_outside_is_refused() {
        for bad in [".items[", ".items[x]", "..a", ".a.", ".a[?(@.b)]", ".a]", &".a".repeat(1000)] {
            assert!(bad.parse::<JsonPath>().is_err(), "{bad}");
        }
        let error = ".items[x]".parse::<JsonPath>().unwrap_err().to_string();
        assert!(error.contains("at character 7"), "{error}");
    }
}
