//! From the JSON Schema that the structs derive to the tables that the walk reads.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use fleet_types::document::value::MAX_INTEGER;
use fleet_types::document::{Document, DocumentKind};
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde::Deserialize;
use serde_json::Value as Json;

use super::field::{Field, FieldKind, KindRule, TableSchema, ValueKind};

/// One for each kind, made once.
static ROOTS: LazyLock<[TableSchema; 4]> = LazyLock::new(|| {
    DocumentKind::ALL.map(|kind| {
        // Without a schema every key is unknown and every file is refused; a test reads them all.
        let node: Node = serde_json::from_value(json_schema(kind)).unwrap_or_default();
        let name = if node.name.is_empty() { kind.as_str().to_owned() } else { node.name.clone() };
        table(name, node)
    })
});

/// The schema of a kind of document.
pub(crate) fn root(kind: DocumentKind) -> &'static TableSchema {
    &ROOTS[kind as usize]
}

/// The JSON Schema (draft 2020-12) of a kind of document, for editors. What the types cannot say stands in it as
/// `x-` words, which editors pass over.
pub fn json_schema(kind: DocumentKind) -> Json {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let settings = settings.with_transform(RecursiveTransform(without_null));
    let generator = settings.with_transform(RecursiveTransform(without_keys)).into_generator();
    let mut all = generator.into_root_schema_for::<Document>().to_value();
    let dialect = all["$schema"].take();
    let of_kind = |one: &&mut Json| one["properties"]["kind"]["const"] == kind.as_str();
    let one = all["oneOf"].as_array_mut().and_then(|kinds| kinds.iter_mut().find(of_kind));
    let mut schema = one.map(Json::take).unwrap_or_default();
    schema["$schema"] = dialect;
    schema["title"] = kind.as_str().into();
    schema["properties"]["kind"]["description"] = "Kind of the file.".into();
    schema
}

/// A key that may be left out is left out: TOML has no null.
fn without_null(schema: &mut Schema) {
    let null = |one: &Json| one == "null" || one["type"] == "null";
    for key in ["type", "anyOf", "enum"] {
        let Some(Json::Array(members)) = schema.get_mut(key) else { continue };
        members.retain(|one| !null(one) && !one.is_null());
        if let ("type" | "anyOf", [one]) = (key, members.as_mut_slice()) {
            let one = one.take();
            schema.remove(key);
            match one {
                Json::Object(of_one) => of_one.into_iter().for_each(|(key, value)| {
                    schema.ensure_object().entry(key).or_insert(value);
                }),
                word => drop(schema.insert(key.to_owned(), word)),
            }
        }
    }
}

/// A key of the type of a list's members that does not belong into this list is no key of it.
fn without_keys(schema: &mut Schema) {
    let Some(Json::Array(keys)) = schema.remove("x-without") else { return };
    let properties = schema.get_mut("items").and_then(|items| items.get_mut("properties"));
    if let Some(properties) = properties.and_then(Json::as_object_mut) {
        properties.retain(|name, _| !keys.iter().any(|key| key == name));
    }
}

/// What is read of a JSON Schema.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    #[serde(rename = "type")]
    kind: String,
    description: String,
    default: Json,
    #[serde(rename = "const")]
    word: Option<String>,
    #[serde(rename = "enum")]
    words: Vec<String>,
    #[serde(alias = "anyOf")]
    one_of: Vec<Node>,
    minimum: Option<i64>,
    maximum: Option<i64>,
    format: String,
    items: Option<Box<Node>>,
    properties: BTreeMap<String, Node>,
    pattern_properties: BTreeMap<String, Node>,
    required: Vec<String>,
    #[serde(rename = "x-name")]
    name: String,
    #[serde(rename = "x-takes")]
    takes: Option<ValueKind>,
    #[serde(rename = "x-default")]
    default_words: String,
    #[serde(rename = "x-idle")]
    idle: String,
    /// Groups of keys of which this word of `kind` needs one each.
    #[serde(rename = "x-needs")]
    needs: Vec<Vec<String>>,
    /// Further keys of this word of `kind`.
    #[serde(rename = "x-may")]
    may: Vec<String>,
}

impl Node {
    /// The words that it allows, each with what is said of it.
    fn words(&self) -> Vec<(&String, &Self)> {
        let inner = self.one_of.iter().chain(self.items.as_deref()).flat_map(Self::words);
        self.word.iter().chain(&self.words).map(|word| (word, self)).chain(inner).collect()
    }

    /// Its first paragraph as one line, without the marks and the full stop of a doc comment.
    fn help(&self) -> String {
        let line = self.description.split("\n\n").next().unwrap_or_default();
        let line = line.replace('`', "").replace('\n', " ");
        let line = line.trim_end_matches('.');
        let mut letters = line.chars();
        match (letters.next(), letters.next()) {
            (Some(first), second) if !second.is_some_and(char::is_uppercase) => {
                format!("{}{}", first.to_lowercase(), &line[first.len_utf8()..])
            }
            _ => line.to_owned(),
        }
    }
}

fn table(name: String, mut node: Node) -> TableSchema {
    let rule = |(word, node): (&String, &Node)| KindRule {
        word: word.clone(),
        needs: node.needs.clone(),
        takes: node.may.clone(),
    };
    let kinds = node.properties.get("kind").map(|kind| kind.words().into_iter().map(rule).collect());
    let place = |name: &String| node.required.iter().position(|required| required == name);
    let keys = std::mem::take(&mut node.properties).into_iter();
    let mut fields: Vec<Field> = keys.map(|(name, key)| field(place(&name).is_some(), name, key)).collect();
    fields.sort_by_key(|field| place(&field.name).unwrap_or(usize::MAX));
    TableSchema { name, help: node.help(), fields, kinds: kinds.unwrap_or_default() }
}

fn field(required: bool, name: String, node: Node) -> Field {
    let idle_words = node.words().into_iter().filter(|(_, word)| !word.idle.is_empty());
    let idle_words = idle_words.map(|(word, said)| (word.clone(), said.idle.clone())).collect();
    let default = match &node.default {
        _ if required || !node.default_words.is_empty() => node.default_words.clone(),
        Json::Null if node.kind == "boolean" => "false".to_owned(),
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    let words = node.words().into_iter().map(|(word, _)| word.clone()).collect();
    let (help, idle) = (node.help(), node.idle.clone());
    Field { kind: kind(&name, node, words), name, required, default, help, idle, idle_words }
}

fn kind(name: &str, mut node: Node, words: Vec<String>) -> FieldKind {
    let (json_type, items) = (std::mem::take(&mut node.kind), node.items.take());
    let value = |takes: Option<ValueKind>| match takes {
        Some(takes) => takes,
        None if words.is_empty() => ValueKind::Text,
        None => ValueKind::Word(words.clone()),
    };
    let inner = |of: Node| Box::new(table(name.to_owned(), of));
    match (json_type.as_str(), items) {
        ("boolean", _) => FieldKind::Bool,
        ("integer", _) => {
            let most = if node.format == "uint32" { i64::from(u32::MAX) } else { MAX_INTEGER };
            FieldKind::Integer(node.minimum.unwrap_or(-MAX_INTEGER), node.maximum.unwrap_or(most))
        }
        ("array", Some(items)) if items.kind == "object" => FieldKind::Tables(inner(*items)),
        ("array", Some(items)) => FieldKind::Many(value(node.takes.or(items.takes))),
        ("object", _) if node.takes.is_none() => match node.pattern_properties.pop_first() {
            // The pattern of keys alone has the low line.
            Some((pattern, of)) if pattern.contains('_') => FieldKind::ByKey(inner(of)),
            Some((_, of)) => FieldKind::ById(inner(of)),
            None => FieldKind::Table(inner(node)),
        },
        _ if node.one_of.iter().any(|one| one.kind == "array") => FieldKind::WordOrTexts(words),
        _ => FieldKind::One(value(node.takes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of ours in a schema, at any depth.
    fn own_words(schema: &Json, out: &mut std::collections::BTreeSet<String>) {
        match schema {
            Json::Object(entries) => entries.iter().for_each(|(key, value)| {
                out.extend(key.starts_with("x-").then(|| key.clone()));
                own_words(value, out);
            }),
            Json::Array(members) => members.iter().for_each(|member| own_words(member, out)),
            _ => {}
        }
    }

    #[test]
    fn every_word_of_a_schema_is_read() {
        let mut words = std::collections::BTreeSet::new();
        for kind in DocumentKind::ALL {
            let schema = json_schema(kind);
            own_words(&schema, &mut words);
            serde_json::from_value::<Node>(schema).unwrap();
            assert!(root(kind).fields.len() > 5, "{kind}");
        }
        let read = ["x-default", "x-idle", "x-may", "x-name", "x-needs", "x-takes"];
        assert_eq!(words.iter().map(String::as_str).collect::<Vec<_>>(), read);
    }
}
