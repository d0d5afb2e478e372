//! One source of settings: the embedded defaults, a file, the environment, or flags.
//!
//! A source becomes a flat map from `section.key` to a value and the place where it was written. The keys
//! that exist are those of the embedded defaults, so that manual and parser cannot differ. Nothing is
//! judged here but form and key names.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_types::action::nearest;
use serde::Deserialize as _;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Value};

use super::problem::{Place, Problem};

/// The embedded defaults; also the manual.
pub const DEFAULTS: &str = include_str!("default.toml");
/// Largest configuration file, in bytes: a hundred times the manual.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The section that is the executor's: its keys are not looked at here.
const POLICY: &str = "policy";

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The value.
    pub value: Value,
    /// Its place.
    pub place: Place,
}

/// Settings of one source by `section.key`.
pub type Layer = BTreeMap<String, Setting>;

/// The defaults as a layer; they are part of the program and checked by a test.
pub fn defaults() -> Layer {
    let (table, _) = DeTable::parse_recoverable(DEFAULTS);
    let mut layer = Layer::new();
    flatten_defaults(table.get_ref(), "", &mut layer);
    layer
}

fn flatten_defaults(table: &DeTable<'_>, prefix: &str, layer: &mut Layer) {
    for (key, value) in table {
        let path = join(prefix, key.get_ref());
        match value.get_ref().as_table() {
            Some(inner) if !inner.is_empty() => flatten_defaults(inner, &path, layer),
            // An empty table is a key whose value is a table, such as `labels`.
            _ => {
                if let Ok(value) = plain(value) {
                    layer.insert(path, Setting { value, place: Place::Default });
                }
            }
        }
    }
}

/// Reads the text of a file; `path` is only for messages.
pub fn file(path: &str, text: &str, known: &Layer, problems: &mut Vec<Problem>) -> Layer {
    let (table, errors) = DeTable::parse_recoverable(text);
    let reader = Reader { path: path.into(), text, known };
    for error in errors {
        let start = error.span().map_or(0, |span| span.start);
        problems.push(Problem::new(&reader.place(start), error.message()));
    }
    let mut layer = Layer::new();
    reader.flatten(table.get_ref(), "", &mut layer, problems);
    layer
}

/// Reads variables named `FLEET_<SECTION>__<KEY>`; others (without a double underscore) are not ours.
pub fn environment(
    variables: impl IntoIterator<Item = (String, String)>,
    known: &Layer,
    problems: &mut Vec<Problem>,
) -> Layer {
    let mut layer = Layer::new();
    for (name, text) in variables {
        let Some(path) = variable_key(&name) else { continue };
        add(&path, &text, Place::Environment(name), known, &mut layer, problems);
    }
    layer
}

/// The key that a variable sets, if it is one of ours.
pub fn variable_key(name: &str) -> Option<String> {
    let path = name.strip_prefix("FLEET_").filter(|rest| rest.contains("__"))?;
    Some(path.to_ascii_lowercase().replace("__", "."))
}

/// Reads `--set section.key=value`.
pub fn flags(pairs: &[String], known: &Layer, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::new();
    for pair in pairs {
        let place = Place::Flag(format!("--set {}", shown(pair)));
        match pair.split_once('=') {
            Some((path, text)) => add(path.trim(), text, place, known, &mut layer, problems),
            None => problems.push(Problem::new(&place, "write --set section.key=value")),
        }
    }
    layer
}

fn add(path: &str, text: &str, place: Place, known: &Layer, layer: &mut Layer, problems: &mut Vec<Problem>) {
    if !known.contains_key(path) || path == POLICY {
        problems.push(Problem::new(&place, unknown(path, known)));
        return;
    }
    // A TOML value where it is one (a list, a number), else the text itself: no shell needs double quotes.
    let value = ValueDeserializer::parse(text).and_then(Value::deserialize);
    layer.insert(
        path.to_owned(),
        Setting { value: value.unwrap_or_else(|_| Value::String(text.to_owned())), place },
    );
}

struct Reader<'a> {
    path: Arc<str>,
    text: &'a str,
    known: &'a Layer,
}

impl Reader<'_> {
    fn flatten(&self, table: &DeTable<'_>, prefix: &str, layer: &mut Layer, problems: &mut Vec<Problem>) {
        for (key, value) in table {
            let path = join(prefix, key.get_ref());
            let inside = format!("{path}.");
            if self.known.contains_key(&path) {
                let place = self.place(value.span().start);
                match plain(value) {
                    Ok(value) => drop(layer.insert(path, Setting { value, place })),
                    Err(error) => problems.push(Problem::new(&place, error)),
                }
            } else if !self.known.keys().any(|known| known.starts_with(&inside)) {
                problems.push(Problem::new(&self.place(key.span().start), unknown(&path, self.known)));
            } else if let Some(inner) = value.get_ref().as_table() {
                self.flatten(inner, &path, layer, problems);
            } else {
                let message = format!("{path} must be a table");
                problems.push(Problem::new(&self.place(value.span().start), message));
            }
        }
    }

    /// Line and column of a byte offset.
    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place::File { path: Arc::clone(&self.path), line, column }
    }
}

fn plain(value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    Value::deserialize(ValueDeserializer::from(value.clone())).map_err(|error| error.message().to_owned())
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn unknown(path: &str, known: &Layer) -> String {
    let sections = known.keys().filter_map(|key| key.split_once('.').map(|(section, _)| section));
    let candidates = known.keys().map(String::as_str).chain(sections);
    let hint =
        nearest(path, candidates).map(|word| format!(", did you mean \"{word}\"?")).unwrap_or_default();
    format!("unknown key \"{}\"{hint}", shown(path))
}
