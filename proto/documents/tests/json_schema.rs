//! The JSON Schema for editors: shipped documents fit it, and mistakes do not.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure

use std::path::{Path, PathBuf};

use fleet_documents::json_schema;
use regex::Regex;
use serde_json::{Value, json};

/// Words that say nothing about what fits.
const NOTES: [&str; 5] = ["$schema", "title", "description", "default", "format"];

/// Why a value does not fit a schema. It knows the words that our schemas use, and panics at any other.
fn misfit(schema: &Value, value: &Value, path: &str) -> Option<String> {
    if let Some(fits) = schema.as_bool() {
        return (!fits).then(|| format!("{path}: not allowed"));
    }
    let schema = schema.as_object().unwrap();
    let fail = |what: &str| Some(format!("{path}: {what} {value}"));
    for (word, says) in schema {
        let found = match word.as_str() {
            "type" => {
                let fits = match says.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64(),
                    "boolean" => value.is_boolean(),
                    other => panic!("type {other} at {path}"),
                };
                if fits { None } else { fail(word) }
            }
            "const" if says != value => fail(word),
            "enum" if !says.as_array().unwrap().contains(value) => fail(word),
            "minimum" if value.as_i64() < says.as_i64() => fail(word),
            "maximum" if value.as_i64() > says.as_i64() => fail(word),
            "pattern"
                if value
                    .as_str()
                    .is_some_and(|text| !Regex::new(says.as_str().unwrap()).unwrap().is_match(text)) =>
            {
                fail(word)
            }
            "required" => {
                let missing =
                    says.as_array().unwrap().iter().find(|key| value.get(key.as_str().unwrap()).is_none());
                missing.and_then(|key| fail(&format!("lacks {key}")))
            }
            "items" => value.as_array().into_iter().flatten().find_map(|member| misfit(says, member, path)),
            "oneOf" | "anyOf" => {
                let fitting =
                    says.as_array().unwrap().iter().filter(|one| misfit(one, value, path).is_none()).count();
                if fitting == 1 || (fitting > 1 && word == "anyOf") { None } else { fail(word) }
            }
            // Those that fit, and the words about keys, which are looked at below.
            "const"
            | "enum"
            | "minimum"
            | "maximum"
            | "pattern"
            | "properties"
            | "patternProperties"
            | "additionalProperties" => None,
            word if NOTES.contains(&word) || word.starts_with("x-") => None,
            other => panic!("word {other} at {path}"),
        };
        if found.is_some() {
            return found;
        }
    }
    value.as_object().into_iter().flatten().find_map(|(key, inner)| {
        let below = format!("{path}/{key}");
        let named = schema.get("properties").and_then(|keys| keys.get(key));
        let patterns = schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
        let matching =
            patterns.filter(|(pattern, _)| Regex::new(pattern).unwrap().is_match(key)).map(|(_, of)| of);
        let mut schemas = named.into_iter().chain(matching).peekable();
        if schemas.peek().is_none() {
            return schema.get("additionalProperties").and_then(|of| misfit(of, inner, &below));
        }
        schemas.find_map(|of| misfit(of, inner, &below))
    })
}

fn fits(value: &Value) -> Option<String> {
    misfit(&json_schema(value["kind"].as_str().unwrap().parse().unwrap()), value, "")
}

fn below(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            out.push(path);
        }
    }
}

#[test]
fn every_shipped_document_fits() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    below(&here.join("../../deploy/profiles"), &mut files);
    below(&here.join("tests/reference"), &mut files);
    let mut seen = 0;
    for file in &files {
        let value: Value = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(fits(&value), None, "{}", file.display());
        seen += 1;
    }
    assert!(seen > 35, "{seen}");
}

#[test]
fn mistakes_do_not_fit() {
    let good = json!({ "schema": "fleet/v1", "kind": "profile", "name": "edge", "version": 1,
        "check": { "c": { "kind": "load", "warn": "cores * 2", "every": "1m" } },
        "status": { "network": { "interfaces": "all_but_loopback", "counters": ["errors_in"] } } });
    assert_eq!(fits(&good), None);
    for (path, bad) in [
        ("/version", json!(0)),
        ("/version", json!("1")),
        ("/name", json!("-x")),
        ("/check", json!({ "C": { "kind": "load", "every": "1m" } })),
        ("/check/c", json!({ "kind": "load" })),
        ("/check/c/kind", json!("lod")),
        ("/check/c/every", json!("1 minute")),
        ("/check/c", json!({ "kind": "load", "every": "1m", "evry": "1m" })),
        ("/status/network/counters", json!(["errors"])),
        ("/status/network/interfaces", json!("eth0")),
        ("/name", json!(null)),
    ] {
        let mut value = good.clone();
        *value.pointer_mut(path).unwrap() = bad.clone();
        assert!(fits(&value).is_some(), "{path} = {bad}");
    }
}

#[test]
fn a_key_that_an_entry_of_the_way_back_does_not_take_is_none_of_its_schema() {
    let with = |list: &str, key: &str| {
        let mut entry = json!({ "id": "back", "uses": "health.check", "undoes": ["one"] });
        entry[key] = json!(["cancelled"]);
        let mut value = json!({ "schema": "fleet/v1", "kind": "procedure", "name": "p", "version": 1,
            "profile": "edge", "changes": true, "timeout": "1h" });
        value[list] = json!([entry]);
        fits(&value)
    };
    assert_eq!(with("rollback", "undoes"), None);
    assert_eq!(with("finally", "except"), None);
    let why = with("rollback", "except").unwrap();
    assert!(why.contains("/rollback/except: not allowed"), "{why}");
}
