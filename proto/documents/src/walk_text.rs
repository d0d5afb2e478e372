//! The walk's checks of one text by what the schema says stands there.

use fleet_calendar::Cron;
use fleet_types::action::{Action, nearest};
use fleet_types::document::Id;
use fleet_types::document::Share;
use fleet_types::document::expr::{AlertRule, AlertWhen, When};
use fleet_types::document::threshold::Threshold;
use fleet_types::id::Name;
use fleet_types::label::Selector;
use fleet_types::time::Span;

use crate::schema::{Field, FieldKind, ValueKind};
use crate::text_check::{check_day, check_instant, check_offset, check_unit, check_zone, is_plain, quoted};
use crate::walk::{At, Reference, TemplateUse, Walk};

impl Walk<'_> {
    /// Whether the text may stand there; what is wrong is reported.
    pub(crate) fn text(&mut self, text: &str, field: &'static Field, path: &str, context: &str) -> bool {
        if !is_plain(text) {
            self.control_character(path, &field.name, context);
            return false;
        }
        if let Some(words) = field.kind.words() {
            // A list of free texts under WordOrTexts has a numbered path.
            let free = matches!(field.kind, FieldKind::WordOrTexts(_)) && !path.ends_with(&field.name);
            return free
                || words.iter().any(|word| word == text)
                || self.not_a_word(text, words, field, path, context);
        }
        let (FieldKind::One(kind) | FieldKind::Many(kind)) = &field.kind else { return true };
        match check(text, kind, &field.kind) {
            Ok(()) => {
                self.note(text, kind, path);
                true
            }
            Err(why) => {
                let message = format!("{} is no value for \"{}\" in {context}", quoted(text), field.name);
                self.error(path, At::Value, code(kind), message, why);
                false
            }
        }
    }

    fn not_a_word(&mut self, text: &str, words: &[String], field: &Field, path: &str, context: &str) -> bool {
        let values = format!("values: {}", words.join(", "));
        let fix = match nearest(text, words.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean \"{meant}\"? {values}"),
            None => values,
        };
        let message = format!("{} is no value for \"{}\" in {context}", quoted(text), field.name);
        self.error(path, At::Value, "bad-value", message, fix);
        false
    }

    /// Notes what must be checked against the rest of the document or set.
    fn note(&mut self, text: &str, kind: &ValueKind, path: &str) {
        match kind {
            ValueKind::Template | ValueKind::Path => {
                let is_path = matches!(kind, ValueKind::Path);
                self.templates.push(TemplateUse { path: path.to_owned(), text: text.to_owned(), is_path });
            }
            ValueKind::IdOf(table) => {
                self.references.push(Reference { path: path.to_owned(), table: *table, id: text.to_owned() });
            }
            _ => {}
        }
    }
}

const fn code(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Cron => "bad-cron",
        ValueKind::Zone => "bad-time-zone",
        ValueKind::Selector | ValueKind::AnySelector => "bad-selector",
        ValueKind::Duration | ValueKind::Offset => "bad-duration",
        ValueKind::When | ValueKind::AlertWhen => "bad-condition",
        ValueKind::Id | ValueKind::IdOf(_) | ValueKind::StepId | ValueKind::Contact => "bad-id",
        ValueKind::Action => "unknown-action",
        _ => "bad-value",
    }
}

/// Why a text cannot stand there.
fn check(text: &str, kind: &ValueKind, field: &FieldKind) -> Result<(), String> {
    match kind {
        ValueKind::Duration => {
            text.parse::<Span>().map(drop).map_err(|_| format!("write {}", field.expects()))
        }
        ValueKind::Offset => check_offset(text),
        ValueKind::Name | ValueKind::Procedure | ValueKind::RolloutPolicy => {
            text.parse::<Name>().map(drop).map_err(|error| error.why.to_owned())
        }
        ValueKind::Id | ValueKind::IdOf(_) | ValueKind::StepId | ValueKind::Contact => {
            text.parse::<Id>().map(drop).map_err(|error| error.why.to_owned())
        }
        ValueKind::AnySelector if text == "*" => Ok(()),
        ValueKind::Share => text.parse::<Share>().map(drop).map_err(|_| format!("write {}", field.expects())),
        ValueKind::Selector if text == "*" => {
            Err("leave the selector out, or write terms such as \"product=edgefw\"".to_owned())
        }
        ValueKind::Selector | ValueKind::AnySelector => {
            text.parse::<Selector>().map(drop).map_err(|error| error.to_string())
        }
        ValueKind::Cron => text.parse::<Cron>().map(drop).map_err(|error| error.to_string()),
        ValueKind::Zone => check_zone(text),
        ValueKind::Day => check_day(text),
        ValueKind::Instant => check_instant(text).map(drop),
        ValueKind::When => text.parse::<When>().map(drop).map_err(|error| error.to_string()),
        ValueKind::AlertWhen => check_alert(text),
        ValueKind::Threshold => {
            text.parse::<Threshold>().map(drop).map_err(|_| format!("write {}", field.expects()))
        }
        ValueKind::Unit => check_unit(text),
        ValueKind::Action => check_action(text),
        ValueKind::Path => check_path(text),
        ValueKind::MetricSource => check_metric_source(text),
        _ => Ok(()),
    }
}

fn check_action(text: &str) -> Result<(), String> {
    if Action::find(text).is_some() {
        return Ok(());
    }
    Err(match Action::nearest(text) {
        Some(meant) => format!("did you mean \"{meant}\"? (fleetctl explain {meant})"),
        None => "no action has this name; `fleetctl explain actions` lists them".to_owned(),
    })
}

/// Absolute, or beginning with a placeholder; no part is `..`. What the placeholder stands for is
/// checked on the node.
pub(crate) fn check_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') && !text.starts_with('{') {
        return Err("write an absolute path, or begin with a variable such as {log_dir}".to_owned());
    }
    if text.len() > 4096 || text.split('/').any(|part| part == "..") {
        return Err("a path is at most 4096 bytes and holds no \"..\"".to_owned());
    }
    Ok(())
}

/// Sources of metrics that stand alone.
const SOURCES: [&str; 16] = [
    "cpu_used",
    "memory_used",
    "load1",
    "disk_read_bytes",
    "disk_write_bytes",
    "disk_io",
    "network_sent_bytes",
    "network_received_bytes",
    "connections",
    "conntrack_used",
    "service.availability",
    "alerts.false_positive_rate",
    "alerts.response_time",
    "alerts.escalations",
    "alerts.resolution_time",
    "disk_used",
];

/// Values that only an alert may name, beside the sources of metrics.
const ALERT_VALUES: [&str; 2] = ["disk_free", "health_score"];

/// A limit must be one on something that is measured; ids of checks are looked at with the other references.
fn check_alert(text: &str) -> Result<(), String> {
    let alert = text.parse::<AlertWhen>().map_err(|error| error.to_string())?;
    match alert.rule() {
        AlertRule::Limit { metric, .. } if !ALERT_VALUES.contains(&metric.as_str()) => {
            check_metric_source(metric).map_err(|why| match nearest(metric, ALERT_VALUES) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => why,
            })
        }
        _ => Ok(()),
    }
}

fn check_metric_source(text: &str) -> Result<(), String> {
    let (word, rest) = text.split_once(':').map_or((text, None), |(word, rest)| (word, Some(rest)));
    let good = match (word, rest) {
        ("disk_used", Some(path)) => check_path(path).is_ok(),
        ("command_duration", Some(id)) => id.parse::<Id>().is_ok(),
        ("command", Some(rest)) => {
            rest.split_once('#').is_some_and(|(id, field)| id.parse::<Id>().is_ok() && !field.is_empty())
        }
        (word, None) => SOURCES.contains(&word) && word != "disk_used",
        _ => false,
    };
    if good {
        return Ok(());
    }
    Err(match nearest(word, SOURCES) {
        Some("disk_used") => "write \"disk_used:/path\"".to_owned(),
        Some(meant) if meant != word => format!("did you mean \"{meant}\"? (fleetctl explain metric.source)"),
        _ => format!(
            "sources: {}, disk_used:<path>, command_duration:<id>, command:<id>#<field>",
            SOURCES[..15].join(", ")
        ),
    })
}
