//! Facts and parameters as `when` conditions see them. Pure.

use std::collections::BTreeMap;

use fleet_types::document::expr::Context;
use fleet_types::document::{Key, Value};
use fleet_types::facts::NodeFacts;

/// `facts.x` is a declared fact; `params.x` a checked parameter.
#[derive(Debug)]
pub struct FactContext<'a> {
    /// Facts of the node, with those that the profile declares.
    pub facts: &'a NodeFacts,
    /// Checked parameters.
    pub params: &'a BTreeMap<Key, Value>,
}

impl Context for FactContext<'_> {
    fn fact(&self, name: &str) -> Option<Value> {
        self.facts.value(name)
    }

    fn param(&self, name: &str) -> Option<Value> {
        self.params.get(name).cloned()
    }
}
