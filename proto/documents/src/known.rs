//! What else is known while a document is checked: the other documents of the set and of the store.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_types::action::{Action, Answer, Table};
use fleet_types::document::procedure::{Procedure, Step, With};
use fleet_types::document::profile::Profile;
use fleet_types::document::{Document, Value};

/// Documents by kind and name. With `complete` a name that is not here does not exist.
#[derive(Debug, Default)]
pub(crate) struct Known<'a> {
    pub profiles: BTreeMap<&'a str, &'a Profile>,
    pub procedures: BTreeMap<&'a str, &'a Procedure>,
    pub complete: bool,
}

impl<'a> Known<'a> {
    pub fn add(&mut self, document: &'a Document) {
        match document {
            Document::Profile(profile) => {
                self.profiles.insert(profile.name.as_str(), profile);
            }
            Document::Procedure(procedure) => {
                self.procedures.insert(procedure.name.as_str(), procedure);
            }
            Document::Schedule(_) | Document::RolloutPolicy(_) => {}
        }
    }

    /// Whether a step changes the node; `None` when that cannot be known here.
    pub fn changes(&self, profile: Option<&Profile>, uses: &str, with: &With) -> Option<bool> {
        let action = Action::find(uses)?;
        let named = |key: &str| with.get(key).and_then(Value::as_str);
        match (action.changes, uses) {
            (Answer::ById, "command.run") => Some(profile?.commands.get(named("command")?)?.changes),
            (Answer::ById, "procedure.run") => Some(self.procedures.get(named("procedure")?)?.changes),
            _ => Some(action.changes_node(with, |_| None)),
        }
    }

    /// The working time of a step; a called procedure's own where the step names none.
    pub fn time_limit(&self, step: &Step) -> Duration {
        match (&step.timeout, step.uses.as_deref()) {
            (None, Some("procedure.run")) => {
                let name = step.with.get("procedure").and_then(Value::as_str);
                let called = name.and_then(|name| self.procedures.get(name));
                called.map_or(Step::DEFAULT_TIMEOUT, |called| called.timeout.length())
            }
            _ => step.time_limit(),
        }
    }

    /// Whether a step can cut the node off, so that it needs a guard.
    pub fn touches_network(&self, profile: Option<&Profile>, uses: &str, with: &With) -> bool {
        self.touches_network_to(profile, uses, with, 0)
    }

    fn touches_network_to(&self, profile: Option<&Profile>, uses: &str, with: &With, depth: u32) -> bool {
        let Some(action) = Action::find(uses) else { return false };
        match action.guard {
            Answer::Yes => return true,
            Answer::No => return false,
            Answer::ById => {}
        }
        if uses == "procedure.run" {
            // Procedures do not call in circles (checked elsewhere); eight deep is past any sense.
            let called =
                with.get("procedure").and_then(Value::as_str).and_then(|name| self.procedures.get(name));
            return depth < 8
                && called.is_some_and(|called| {
                    let inner = self.profiles.get(called.profile.as_str()).copied().or(profile);
                    called.steps.iter().any(|step| {
                        step.uses
                            .as_ref()
                            .is_some_and(|uses| self.touches_network_to(inner, uses, &step.with, depth + 1))
                    })
                });
        }
        let Some(profile) = profile else { return false };
        ids_of(action, with).into_iter().any(|(table, id)| match table {
            Table::Service => profile.services.get(id).is_some_and(|service| service.touches_network),
            Table::Command => profile.commands.get(id).is_some_and(|command| command.touches_network),
            Table::Package => profile.packages.get(id).is_some_and(|package| package.touches_network),
            Table::Backup => profile.backups.get(id).is_some_and(|backup| backup.touches_network),
            Table::Tuning => {
                profile.tunings.get(id).is_some_and(|tuning| tuning.enabled && tuning.touches_network())
            }
            _ => false,
        })
    }
}

/// The ids of a profile's tables that a step names.
pub(crate) fn ids_of<'w>(action: &Action, with: &'w With) -> Vec<(Table, &'w str)> {
    use fleet_types::action::Takes;
    let mut ids = Vec::new();
    for parameter in action.parameters {
        let (Takes::Id(table) | Takes::Ids(table) | Takes::IdsOrAll(table)) = parameter.takes else {
            continue;
        };
        match with.get(parameter.name) {
            Some(Value::String(id)) => ids.push((table, id.as_str())),
            Some(Value::List(members)) => {
                ids.extend(members.iter().filter_map(Value::as_str).map(|id| (table, id)));
            }
            _ => {}
        }
    }
    ids
}
