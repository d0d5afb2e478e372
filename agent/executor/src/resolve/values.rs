//! The values of placeholders for one job: identity, run, times, labels and parameters.
//!
//! Pure; the same job gives the same values after a restart, because its start is journaled.

use std::collections::BTreeMap;

use fleet_types::document::placeholder::Sources;
use fleet_types::document::{Key, Value};
use fleet_types::id::RunId;
use fleet_types::time::Timestamp;
use jiff::tz::TimeZone;

use crate::identity::NodeIdentity;

/// Everything beside the profile's `[vars]`.
#[derive(Debug, Clone)]
pub struct PlaceholderValues {
    labels: BTreeMap<String, String>,
    node_name: String,
    run_id: String,
    job_id: String,
    timestamp: String,
    date: String,
    yesterday: String,
    /// Checked parameters of the procedure.
    pub params: BTreeMap<Key, Value>,
}

impl PlaceholderValues {
    /// The values of a job that started at `started`, on a node in `zone`.
    pub fn new(
        node: &NodeIdentity,
        run: RunId,
        started: Timestamp,
        zone: &TimeZone,
        params: BTreeMap<Key, Value>,
    ) -> Self {
        // The range of timestamps lies well inside jiff's.
        let day = jiff::Timestamp::from_millisecond(started.as_millis())
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_zoned(zone.clone())
            .date();
        let text = |day: jiff::civil::Date| day.strftime("%Y%m%d").to_string();
        Self {
            labels: node.labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            node_name: node.name.to_string(),
            run_id: run.to_string(),
            job_id: format!("{run}/{}", node.node),
            timestamp: started.compact(),
            date: text(day),
            yesterday: text(day.yesterday().unwrap_or(day)),
            params,
        }
    }

    /// As sources of expansion, with the profile's variables.
    pub fn sources<'a>(&'a self, vars: &'a BTreeMap<Key, String>) -> Sources<'a> {
        Sources {
            vars: Some(vars),
            params: Some(&self.params),
            labels: Some(&self.labels),
            node_name: Some(&self.node_name),
            run_id: Some(&self.run_id),
            job_id: Some(&self.job_id),
            timestamp: Some(&self.timestamp),
            date: Some(&self.date),
            yesterday: Some(&self.yesterday),
        }
    }

    /// By name, as tasks are handed them.
    pub fn by_name(&self) -> BTreeMap<String, String> {
        let mut values: BTreeMap<String, String> = [
            ("node.name", &self.node_name),
            ("run.id", &self.run_id),
            ("job.id", &self.job_id),
            ("timestamp", &self.timestamp),
            ("date", &self.date),
            ("yesterday", &self.yesterday),
        ]
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .into();
        values.extend(self.labels.iter().map(|(k, v)| (format!("label.{k}"), v.clone())));
        values.extend(self.params.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        values
    }
}
