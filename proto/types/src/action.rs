//! The catalogue of actions: the names that may stand after `uses`, and what each asks and does.
//!
//! There is one task in the agent for each action, and no other way to name it. The catalogue says
//! nothing about which tasks a build has: a node announces its tasks, and a run that needs one it
//! lacks is refused by name. Source: the project's action catalogue and ADR 0003.

mod catalogue;
mod nearest;

pub use catalogue::CATALOGUE;
pub use nearest::nearest;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::document::Value;

/// One action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// Its name, such as `health.check`.
    pub name: &'static str,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// Groups of parameters of which exactly one must be given.
    pub one_of: &'static [&'static [&'static str]],
    /// Whether it changes the node.
    pub changes: Answer,
    /// Whether a step with it needs a guard.
    pub guard: Answer,
    /// Where it runs.
    pub runs_on: Where,
}

/// Yes, no, or as the ids it is given are declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Never.
    No,
    /// Always.
    Yes,
    /// As declared at the id it is given.
    ById,
}

/// Where an action runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// On the node.
    Node,
    /// On the controller (or its probes); needs no leave on the node.
    Controller,
    /// On either.
    Both,
}

/// One parameter of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its key in `with`.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// Whether it must be given.
    pub required: bool,
    /// What it is when left out, as one would write it; empty when there is no fixed default.
    pub default: &'static str,
}

/// What a parameter of an action takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// A text, placeholders allowed.
    Text,
    /// A whole number.
    Integer,
    /// Yes or no.
    Bool,
    /// A duration.
    Duration,
    /// A day `20250901` or `latest`.
    Date,
    /// One of the words, or a duration.
    WordOrDuration(&'static [&'static str]),
    /// One of the words.
    Word(&'static [&'static str]),
    /// A list of the words.
    Words(&'static [&'static str]),
    /// One id of a table of the profile.
    Id(Table),
    /// A list of ids of a table of the profile.
    Ids(Table),
    /// A list of ids, or the word `all`.
    IdsOrAll(Table),
    /// An id of `[report.*]`, or `run_summary`.
    ReportId,
    /// The name of a procedure.
    Procedure,
    /// The name of a rollout policy.
    RolloutPolicy,
    /// Names of notifiers.
    Notifiers,
    /// A path of a file, placeholders allowed.
    Path,
    /// A list of paths.
    Paths,
    /// A list of texts.
    Texts,
    /// A table of parameters of the named command or procedure.
    Params,
}

/// A table of the profile that ids come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// `[service.*]`
    Service,
    /// `[check.*]`
    Check,
    /// `[command.*]`
    Command,
    /// `[database.*]`
    Database,
    /// `[backup.*]`
    Backup,
    /// `[log.*]`
    Log,
    /// `[tuning.*]`
    Tuning,
    /// `[ruleset.*]`
    Ruleset,
    /// `[package.*]`
    Package,
    /// `[validator.*]`
    Validator,
    /// `[hardening.*]`
    Hardening,
    /// `[metric.*]`
    Metric,
    /// `[alert.*]`
    Alert,
}

impl Table {
    /// The word in the header of the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Check => "check",
            Self::Command => "command",
            Self::Database => "database",
            Self::Backup => "backup",
            Self::Log => "log",
            Self::Tuning => "tuning",
            Self::Ruleset => "ruleset",
            Self::Package => "package",
            Self::Validator => "validator",
            Self::Hardening => "hardening",
            Self::Metric => "metric",
            Self::Alert => "alert",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The actions that agents of this release can carry out, sorted. The rest of the catalogue is a warning when a
/// document is applied, and refused by name when a run is started. A test of the executor holds its registry
/// against this list.
pub const BUILT: &[&str] = &[
    "backup.prune",
    "backup.restore",
    "backup.restore_test",
    "backup.run",
    "backup.verify",
    "command.run",
    "config.validate",
    "database.analyze",
    "database.purge",
    "database.reindex",
    "database.report",
    "database.vacuum",
    "disk.report",
    "health.check",
    "health.repair",
    "log.configure",
    "log.prune",
    "log.rotate",
    "metrics.collect",
    "package.downgrade",
    "package.download",
    "package.list_updates",
    "package.refresh",
    "package.upgrade",
    "reboot",
    "ruleset.apply",
    "ruleset.check",
    "ruleset.revert",
    "service.assert_active",
    "service.restart",
    "service.start",
    "service.stop",
    "tuning.apply",
    "tuning.revert",
];

/// The built actions that put back by themselves what they changed, where a procedure has no `[[rollback]]`; sorted.
pub const UNDOES_ITSELF: &[&str] = &[
    "backup.restore",
    "log.configure",
    "package.upgrade",
    "reboot",
    "ruleset.apply",
    "service.restart",
    "service.start",
    "service.stop",
    "tuning.apply",
];

/// The built actions whose changes are meant to stay whatever comes after them: an archive is no harm.
pub const MEANT_TO_STAY: &[&str] = &[
    "backup.restore_test",
    "backup.run",
    "database.analyze",
    "database.reindex",
    "database.vacuum",
    "log.rotate",
];

impl Action {
    /// The action of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        CATALOGUE.iter().find(|action| action.name == name)
    }

    /// The action whose name is nearest to a mistyped one.
    pub fn nearest(name: &str) -> Option<&'static str> {
        nearest(name, CATALOGUE.iter().map(|action| action.name))
    }

    /// The parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&'static Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// Whether a step of this action with these parameters changes the node. `declared` answers for an id
    /// of a table: does that command, or procedure, say `changes = true`? Unknown ids count as changing.
    ///
    /// The one place for this question: it looks at `plan_only` of `log.prune` too (ADR 0003).
    pub fn changes_node(
        &self,
        with: &BTreeMap<String, Value>,
        declared: impl Fn(&str) -> Option<bool>,
    ) -> bool {
        let named = |key: &str| with.get(key).and_then(Value::as_str).and_then(&declared).unwrap_or(true);
        match (self.changes, self.name) {
            (Answer::No, _) => false,
            (Answer::ById, "log.prune") => with.get("plan_only").and_then(Value::as_bool) != Some(true),
            (Answer::ById, "command.run") => named("command"),
            (Answer::ById, "procedure.run") => named("procedure"),
            (Answer::Yes | Answer::ById, _) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_sorted_and_well_formed() {
        assert!(CATALOGUE.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(CATALOGUE.len(), 58);
        for action in CATALOGUE {
            assert!(
                action.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'.' || b == b'_'),
                "{}",
                action.name
            );
            for parameter in action.parameters {
                assert!(
                    !parameter.required || parameter.default.is_empty(),
                    "{}.{}",
                    action.name,
                    parameter.name
                );
            }
            for name in action.one_of.iter().copied().flatten() {
                assert!(action.parameter(name).is_some_and(|p| !p.required), "{}.{name}", action.name);
            }
        }
    }

    #[test]
    fn whether_a_step_changes_the_node_depends_on_its_parameters() {
        let with = |key: &str, value: Value| BTreeMap::from([(key.to_owned(), value)]);
        let prune = Action::find("log.prune").unwrap();
        assert!(prune.changes_node(&BTreeMap::new(), |_| None));
        assert!(prune.changes_node(&with("plan_only", "true".into()), |_| None));
        assert!(!prune.changes_node(&with("plan_only", true.into()), |_| None));
        let run = Action::find("command.run").unwrap();
        assert!(!run.changes_node(&with("command", "status".into()), |_| Some(false)));
        assert!(run.changes_node(&with("command", "status".into()), |_| None));
    }

    #[test]
    fn actions_are_found_and_suggested() {
        let run = Action::find("backup.run").unwrap();
        assert!(run.parameter("backup").unwrap().required);
        assert_eq!(Action::nearest("helth.check"), Some("health.check"));
        assert_eq!(Action::nearest("backup.runn"), Some("backup.run"));
        assert_eq!(Action::nearest("zzzzzzzzz"), None);
    }
}
