//! Facts and parameters as `when` conditions see them. Pure.

use std::collections::BTreeMap;

use fleet_types::document::expr::Context;
use fleet_types::document::{Key, Value};
use fleet_types::facts::NodeFacts;

/// `facts.x` is a flag, else a field of the facts; `params.x` a checked parameter.
#[derive(Debug)]
pub struct FactContext<'a> {
    facts: &'a NodeFacts,
    fields: serde_json::Value,
    params: &'a BTreeMap<Key, Value>,
}

impl<'a> FactContext<'a> {
    /// The context of one job.
    pub fn new(facts: &'a NodeFacts, params: &'a BTreeMap<Key, Value>) -> Self {
        // Facts have string keys and no failing serialisers.
        Self { facts, fields: serde_json::to_value(facts).unwrap_or_default(), params }
    }
}

impl Context for FactContext<'_> {
    fn fact(&self, name: &str) -> Option<Value> {
        if let Some(flag) = self.facts.flags.get(name) {
            return Some(Value::Bool(*flag));
        }
        let field = name.split('.').try_fold(&self.fields, |at, part| at.get(part))?;
        serde_json::from_value(field.clone()).ok()
    }

    fn param(&self, name: &str) -> Option<Value> {
        self.params.get(name).cloned()
    }
}
