//! JSON values as YAML 1.2, block style: small, and right for every value that we print.
//!
//! A string is left bare only when it cannot be read as anything else by YAML 1.1 and 1.2 readers; all
//! others are double-quoted with JSON's escapes, which YAML reads the same way (YAML 1.2.2 §5.7).

use serde_json::Value;

use super::escape;

/// The value as a YAML document.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut out),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

/// A non-empty object or list, each entry on lines of its own, the first line already indented.
fn block(value: &Value, indent: usize, out: &mut String) {
    let pad = "  ".repeat(indent);
    let mut first = true;
    let mut lead = |out: &mut String| {
        if !std::mem::take(&mut first) || indent == 0 || out.ends_with('\n') {
            out.push_str(&pad);
        }
    };
    match value {
        Value::Object(map) => {
            for (key, entry) in map {
                lead(out);
                out.push_str(&string(key));
                out.push(':');
                entry_of(entry, indent + 1, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                lead(out);
                out.push('-');
                if is_block(item) {
                    out.push(' ');
                    block(item, indent + 1, out);
                } else {
                    entry_of(item, indent + 1, out);
                }
            }
        }
        _ => {}
    }
}

fn is_block(value: &Value) -> bool {
    matches!(value, Value::Object(map) if !map.is_empty())
        || matches!(value, Value::Array(items) if !items.is_empty())
}

fn entry_of(value: &Value, indent: usize, out: &mut String) {
    if is_block(value) {
        out.push('\n');
        block(value, indent, out);
    } else {
        out.push(' ');
        out.push_str(&scalar(value));
        out.push('\n');
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        other => other.to_string(),
    }
}

fn string(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { escape::json(&Value::String(text.to_owned()).to_string()) }
}

/// Words that some reader takes for something else than a string (YAML 1.1 types).
const WORDS: [&str; 13] =
    ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "~", ".nan", ".inf", "nan"];

fn is_plain(text: &str) -> bool {
    // A letter or underscore first rules out numbers, times, signs and indicators; the rest is what can
    // begin neither a comment nor a mapping.
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/');
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '+' | '@');
    starts && text.chars().all(good) && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_every_shape() {
        let value = json!({
            "schema": "fleet/v1/node-list",
            "items": [
                { "name": "fw-1", "labels": { "site": "no", "ring": "1" }, "seen": null, "list": [1, "b c", []] },
                { "name": "", "nested": [[1, 2], [{ "a": true }]], "empty": {} },
                -3,
            ],
            "text": "a: b # c",
            "key: odd": "1e3",
            "hostile": "\u{1b}\u{202e}\n- x",
            "time": "2026-11-22",
            "float": 1.5,
        });
        insta::assert_snapshot!(to_yaml(&value));
    }

    #[test]
    fn words_that_look_like_other_types_are_quoted() {
        for text in [
            "", "no", "NULL", "~", "1", "-1", "0x1f", "1:30", " a", "a ", "a: b", "#a", "- a", "*a", "&a",
            "!a", "%a", "@a", "`a", "a#b", "é", "?", "|", ">", "\u{85}",
        ] {
            assert!(string(text).starts_with('"'), "{text:?}");
        }
        for text in ["fw-fra1-07", "fleet/v1/status", "a.b_c", "/etc/x", "succeeded"] {
            assert_eq!(string(text), text);
        }
        assert_eq!(to_yaml(&json!([])), "[]\n");
        assert_eq!(to_yaml(&json!("no")), "\"no\"\n");
    }
}
