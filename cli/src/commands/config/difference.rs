//! What differs between two documents, by the paths of their values.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

/// One value that is not the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Where, such as `check.disk.warn` or `step.backup.timeout`.
    pub path: String,
    /// What it was; nothing where it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is now; nothing where it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// All that differs, in order of the paths. Tables in lists are told apart by their `id`, and their order counts.
pub fn differences(before: &Value, after: &Value) -> Vec<Difference> {
    let mut out = Vec::new();
    compare("", Some(before), Some(after), &mut out);
    out
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, out: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, after) {
        return tables(path, before, after, out);
    }
    if let (Some(old), Some(new)) = (before.and_then(by_id), after.and_then(by_id)) {
        tables(path, &old.0, &new.0, out);
        let common = |ids: &[String], other: &Map<String, Value>| -> Vec<String> {
            ids.iter().filter(|id| other.contains_key(*id)).cloned().collect()
        };
        let (old, new) = (common(&old.1, &new.0), common(&new.1, &old.0));
        if old != new {
            let path = format!("{path} (order)");
            out.push(Difference { path, before: Some(old.into()), after: Some(new.into()) });
        }
        return;
    }
    out.push(Difference { path: path.to_owned(), before: before.cloned(), after: after.cloned() });
}

fn tables(path: &str, before: &Map<String, Value>, after: &Map<String, Value>, out: &mut Vec<Difference>) {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        compare(&below, before.get(key), after.get(key), out);
    }
}

/// The tables of a list by their ids, and the ids in order; nothing where one has none, or two have the same.
fn by_id(list: &Value) -> Option<(Map<String, Value>, Vec<String>)> {
    let members = list.as_array()?;
    let id = |member: &Value| Some(member.get("id")?.as_str()?.to_owned());
    let ids: Vec<String> = members.iter().map(id).collect::<Option<_>>()?;
    let tables: Map<String, Value> = ids.iter().cloned().zip(members.iter().cloned()).collect();
    (tables.len() == ids.len()).then_some((tables, ids))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_named_by_their_paths_and_steps_by_their_ids() {
        let before = json!({ "v": 1, "gone": true, "argv": ["a", "b"],
            "step": [{ "id": "a", "t": "1m" }, { "id": "b" }, { "id": "c", "deep": { "x": 1 } }] });
        let after = json!({ "v": 2, "argv": ["a", "c"], "new": { "x": 1 },
            "step": [{ "id": "c", "deep": { "x": 2 } }, { "id": "d" }, { "id": "a", "t": "1m" }] });
        let shown: Vec<String> = differences(&before, &after)
            .into_iter()
            .map(|one| {
                let show =
                    |value: Option<Value>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
                format!("{} {} {}", one.path, show(one.before), show(one.after))
            })
            .collect();
        let expected = [
            r#"argv ["a","b"] ["a","c"]"#,
            "gone true -",
            r#"new - {"x":1}"#,
            r#"step.b {"id":"b"} -"#,
            "step.c.deep.x 1 2",
            r#"step.d - {"id":"d"}"#,
            r#"step (order) ["a","c"] ["c","a"]"#,
            "v 1 2",
        ];
        assert_eq!(shown, expected);
        assert_eq!(differences(&before, &before), []);
    }
}
