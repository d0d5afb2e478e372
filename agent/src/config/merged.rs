//! The layers on top of each other: defaults, then the file, then the environment, then flags.
//!
//! Typed access with problems collected on the way, so that a reader sees all of them at once.

use std::time::Duration;

use fleet_types::time::Span;
use serde::de::DeserializeOwned;
use toml::Value;

use super::problem::{Place, Problem};
use super::raw::{Layer, Setting};

/// Keys of the reference configuration that this build honours at their default only.
const FIXED: [&str; 20] = [
    "network.proxy",
    "network.no_proxy",
    "network.bind",
    "link.class",
    "link.max_bytes_per_day",
    "link.max_download_rate",
    "link.download_ahead",
    "identity.labels",
    "trust.root_keys",
    "trust.threshold",
    "trust.content_keys",
    "runtime.max_parallel_steps",
    "runtime.isolate_steps",
    "runtime.offline.keep_schedules",
    "runtime.offline.max_age",
    "apt.frontend",
    "apt.conffile",
    "apt.lock_timeout",
    "apt.restart_services",
    "health.listen",
];

/// All settings, each from the strongest layer that has it, and the problems found so far.
#[derive(Debug)]
pub struct Merged {
    settings: Layer,
    /// Problems so far; validation adds to them.
    pub problems: Vec<Problem>,
}

impl Merged {
    /// Puts layers on top of each other, the first being the defaults.
    pub fn new(defaults: &Layer, layers: impl IntoIterator<Item = Layer>, problems: Vec<Problem>) -> Self {
        let mut settings = defaults.clone();
        for layer in layers {
            settings.extend(layer);
        }
        let mut merged = Self { settings, problems };
        for key in FIXED {
            merged.must_be_default(key, defaults.get(key));
        }
        merged
    }

    fn must_be_default(&mut self, key: &str, default: Option<&Setting>) {
        let (Some(found), Some(default)) = (self.settings.get(key), default) else { return };
        if found.value != default.value {
            let message = format!(
                "{key} = {} is not supported by this build yet: remove it, or write {}",
                found.value, default.value
            );
            let place = found.place.clone();
            self.problems.push(Problem::new(&place, message));
        }
    }

    /// Notes a problem with a key.
    pub fn problem(&mut self, key: &str, message: impl AsRef<str>) {
        let place = self.place(key);
        self.problems.push(Problem::new(&place, format!("{key}: {}", message.as_ref())));
    }

    /// Where a key was written.
    pub fn place(&self, key: &str) -> Place {
        self.settings.get(key).map_or(Place::Default, |setting| setting.place.clone())
    }

    /// The value as written.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.settings.get(key).map(|setting| &setting.value)
    }

    /// A value of any type that serde can read; its default after a problem, so that reading goes on.
    pub fn read<T: DeserializeOwned + Default>(&mut self, key: &str, expected: &str) -> T {
        let value = self.value(key).cloned().unwrap_or_else(|| Value::String(String::new()));
        T::deserialize(value).unwrap_or_else(|_| {
            self.problem(key, format!("expected {expected}"));
            T::default()
        })
    }

    /// A text.
    pub fn text(&mut self, key: &str) -> String {
        self.read(key, "a text in quotes")
    }

    /// A duration within limits.
    pub fn duration(&mut self, key: &str, least: Duration, most: Duration) -> Duration {
        let text = self.text(key);
        match text.parse::<Span>() {
            Ok(span) if (least..=most).contains(&span.length()) => span.length(),
            Ok(_) => {
                self.problem(key, format!("\"{text}\" must lie between {least:?} and {most:?}"));
                least
            }
            Err(error) => {
                self.problem(key, error.to_string());
                least
            }
        }
    }
}
