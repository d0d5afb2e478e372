//! Filling in placeholders of the profile, and asking `when`. Called by tasks.
//!
//! The rules are those of `fleet_types::document::placeholder`; here is only where the values come from. What
//! has no value refuses the step by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fleet_types::document::expr::{self, When};
use fleet_types::document::ids::Key;
use fleet_types::document::placeholder::{Sources, expand};
use fleet_types::document::value::Value;

use super::contract::{TaskContext, TaskError};
use crate::host::Glob;

/// Values of one step, kept for the borrowing [`Sources`].
pub(super) struct Filler<'a> {
    context: &'a TaskContext<'a>,
    labels: BTreeMap<String, String>,
    params: BTreeMap<Key, Value>,
    builtin: BTreeMap<&'static str, String>,
}

impl<'a> Filler<'a> {
    /// Values of this step.
    pub(super) fn new(context: &'a TaskContext<'a>) -> Self {
        let step = context.step;
        let labels = step.labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let started = step.job_started;
        let day = |back: i64| {
            let at = jiff::Timestamp::from_millisecond(started.as_millis()).unwrap_or_default();
            let date = at.to_zoned(context.host.clock().zone()).date();
            let date = date.checked_sub(jiff::Span::new().days(back)).unwrap_or(date);
            date.strftime("%Y%m%d").to_string()
        };
        let job = format!("{}/{}", step.run, step.node);
        let mut builtin = BTreeMap::from([
            ("node.name", step.node_name.to_string()),
            ("run.id", step.run.to_string()),
            ("job.id", job),
            ("timestamp", started.compact()),
            ("date", day(0)),
            ("yesterday", day(1)),
        ]);
        // What the run settled on when it resolved the procedure goes before what is worked out here.
        for (name, value) in &mut builtin {
            if let Some(settled) = context.placeholders.get(*name) {
                value.clone_from(settled);
            }
        }
        let params = context
            .placeholders
            .iter()
            .filter_map(|(name, value)| Some((name.parse().ok()?, Value::from(value.as_str()))))
            .collect();
        Self { context, labels, params, builtin }
    }

    /// The same with parameters of a command in place of the procedure's.
    pub(super) fn with_params(mut self, params: BTreeMap<Key, Value>) -> Self {
        self.params.extend(params);
        self
    }

    /// A text with its placeholders filled in; `what` names it in the error.
    pub(super) fn text(&self, what: &str, text: &str) -> Result<String, TaskError> {
        let builtin = |name: &str| self.builtin.get(name).map(String::as_str);
        let sources = Sources {
            vars: Some(&self.context.profile.vars),
            params: Some(&self.params),
            labels: Some(&self.labels),
            node_name: builtin("node.name"),
            run_id: builtin("run.id"),
            job_id: builtin("job.id"),
            timestamp: builtin("timestamp"),
            date: builtin("date"),
            yesterday: builtin("yesterday"),
        };
        expand(text, &sources).map_err(|e| TaskError::Declared(format!("{what}: {e}")))
    }

    /// A declared path with its placeholders filled in; it must be absolute and hold no `..`.
    pub(super) fn path(&self, what: &str, text: &str) -> Result<PathBuf, TaskError> {
        let filled = PathBuf::from(self.text(what, text)?);
        let good =
            filled.is_absolute() && !filled.components().any(|part| part == std::path::Component::ParentDir);
        if good {
            Ok(filled)
        } else {
            Err(TaskError::Declared(format!("{what}: {} is not an absolute path", filled.display())))
        }
    }

    /// The same as a pattern.
    pub(super) fn glob(&self, what: &str, text: &str) -> Result<Glob, TaskError> {
        glob(what, &self.path(what, text)?)
    }

    /// The same for each of several.
    pub(super) fn globs(&self, what: &str, texts: &[String]) -> Result<Vec<Glob>, TaskError> {
        texts.iter().map(|text| self.glob(what, text)).collect()
    }

    /// Is a condition true on this node? None written is true; one that cannot be decided is an error.
    pub(super) fn holds(&self, what: &str, when: Option<&When>) -> Result<bool, TaskError> {
        let Some(when) = when else { return Ok(true) };
        when.eval(self).map_err(|unknown| TaskError::Declared(format!("{what}: {unknown}")))
    }
}

/// A filled-in path as a pattern.
pub(super) fn glob(what: &str, path: &Path) -> Result<Glob, TaskError> {
    Glob::new(&path.to_string_lossy()).map_err(|e| TaskError::Declared(format!("{what}: {e}")))
}

impl expr::Context for Filler<'_> {
    fn fact(&self, name: &str) -> Option<Value> {
        self.context.facts.value(name)
    }

    fn param(&self, name: &str) -> Option<Value> {
        self.params.get(name).cloned()
    }
}
