//! The procedure's parameters: those of the request, checked, with defaults. Pure.

use std::collections::BTreeMap;

use fleet_types::document::procedure::Procedure;
use fleet_types::document::{Key, Value};

use crate::policy::Refusal;

const REMEDY: &str = "correct the parameters and start a new run";

/// Checks the request's parameters against their declarations; a wrong one is left out and refused.
pub fn check(
    procedure: &Procedure,
    given: &BTreeMap<String, serde_json::Value>,
    refusals: &mut Vec<Refusal>,
) -> BTreeMap<Key, Value> {
    let invalid = |message: String| Refusal::new("param-invalid", message, REMEDY);
    let mut typed: BTreeMap<&str, Value> = BTreeMap::new();
    for (name, value) in given {
        if !procedure.params.contains_key(name.as_str()) {
            let message = format!("procedure {} has no parameter {name:?}", procedure.name);
            refusals.push(Refusal::new("param-unknown", message, REMEDY));
            continue;
        }
        match serde_json::from_value::<Value>(value.clone()) {
            Ok(value) => drop(typed.insert(name, value)),
            Err(error) => refusals.push(invalid(format!("parameter {name}: {error}"))),
        }
    }
    let mut checked = BTreeMap::new();
    for (name, spec) in &procedure.params {
        match spec.resolve(typed.get(name.as_str())) {
            Ok(Some(value)) => drop(checked.insert(name.clone(), value)),
            Ok(None) => {}
            Err(error) => refusals.push(invalid(format!("parameter {name}: {error}"))),
        }
    }
    checked
}
