//! The walk over the spanned TOML tree against the schema.
//!
//! Makes the JSON value on the way and notes where everything stands, which ids are referred to and
//! which texts hold placeholders. What is wrong is reported and left out of the value, so that the
//! rest can still be checked in the same pass. It never stops at the first problem.

use std::ops::Range;

use fleet_types::action::{Table, nearest};
use fleet_types::document::Share;
use fleet_types::document::value::MAX_INTEGER;
use serde_json::{Map, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::position::{Lines, Places};
use crate::problem::Problem;
use crate::schema::{Field, FieldKind, TableSchema, ValueKind};
use crate::stand_in::stand_in;
use crate::text_check::quoted;
use crate::unbuilt::{Unbuilt, Why};
use crate::{action_check, kind_check};

/// An id that is used somewhere and must be declared in a table of the profile.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub path: String,
    pub table: Table,
    pub id: String,
}

/// A text that may hold placeholders.
#[derive(Debug, Clone)]
pub(crate) struct TemplateUse {
    pub path: String,
    pub text: String,
    /// Must it be an absolute path once variables are filled in?
    pub is_path: bool,
}

/// Everything the walk gathers.
pub(crate) struct Walk<'t> {
    pub file: String,
    pub lines: Lines<'t>,
    pub places: Places,
    pub problems: Vec<Problem>,
    pub references: Vec<Reference>,
    pub templates: Vec<TemplateUse>,
    pub unbuilt: Vec<Unbuilt>,
}

/// Whether a problem is about a key or about its value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    Key,
    Value,
}

type Key<'i> = Spanned<toml::de::DeString<'i>>;

impl<'t> Walk<'t> {
    pub fn new(file: &str, text: &'t str) -> Self {
        Self {
            file: file.to_owned(),
            lines: Lines::new(text),
            places: Places::default(),
            problems: Vec::new(),
            references: Vec::new(),
            templates: Vec::new(),
            unbuilt: Vec::new(),
        }
    }

    /// Notes what is wrong at a path.
    pub fn error(&mut self, path: &str, at: At, code: &'static str, message: String, fix: String) {
        let place = self.places.nearest(path);
        let position = if matches!(at, At::Key) { place.key } else { place.value };
        Problem::error(&self.file, position, code, message, fix).add_to(&mut self.problems);
    }

    /// Walks a table against its schema. `context` names it in messages, such as `[check.disk]`.
    pub fn table(
        &mut self,
        table: &DeTable<'_>,
        schema: &'static TableSchema,
        path: &str,
        context: &str,
    ) -> Json {
        let mut out = Map::new();
        let mut given: Vec<&str> = Vec::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let Some(field) = schema.field(name) else {
                self.unknown_key(key, value.span(), schema, path, context);
                continue;
            };
            given.push(&field.name);
            let below = join(path, name);
            self.places.insert(&below, &self.lines, Some(key.span()), value.span());
            if let Some(json) = self.value(value, field, &below, context) {
                self.note_idle(schema, field, &json, &below);
                out.insert(name.to_owned(), json);
            }
        }
        for field in
            schema.fields.iter().filter(|field| field.required && !given.contains(&field.name.as_str()))
        {
            let fix = format!("add {} = {}", field.name, field.kind.expects());
            self.error(
                path,
                At::Key,
                "missing-key",
                format!("key \"{}\" is missing in {context}", field.name),
                fix,
            );
        }
        kind_check::check(self, schema, &out, &given, path, context);
        if schema.fields.iter().any(|field| matches!(field.kind, FieldKind::One(ValueKind::Action))) {
            action_check::check(self, &mut out, path, context);
        }
        for field in schema.fields.iter().filter(|field| field.required) {
            if !out.contains_key(&field.name)
                && let Some(value) = stand_in(field, self.problems.len())
            {
                out.insert(field.name.clone(), value);
            }
        }
        Json::Object(out)
    }

    /// Notes what is kept of this and not acted on: the key, each table below it, or one of its words.
    fn note_idle(&mut self, schema: &TableSchema, field: &'static Field, value: &Json, path: &str) {
        let mut note = |what: String, path: String, why| self.unbuilt.push(Unbuilt { what, path, why });
        if !field.idle.is_empty() {
            let why = Why::Schema(&field.idle);
            match (&field.kind, value) {
                (FieldKind::ById(_), Json::Object(tables)) => {
                    tables.keys().for_each(|id| note(format!("[{}.*]", field.name), join(path, id), why));
                }
                (FieldKind::Tables(inner), Json::Array(tables)) => (0..tables.len())
                    .for_each(|at| note(format!("[[{}]]", inner.name), join(path, &at.to_string()), why)),
                _ => note(format!("{}.{}", schema.name, field.name), path.to_owned(), why),
            }
        }
        for (word, why) in &field.idle_words {
            let has = |value: &Json| value.as_str() == Some(word);
            if has(value) || value.as_array().is_some_and(|members| members.iter().any(has)) {
                let what = format!("{}.{} = \"{word}\"", schema.name, field.name);
                note(what, path.to_owned(), Why::Schema(why));
            }
        }
        if let (FieldKind::One(ValueKind::Action), Some(action)) = (&field.kind, value.as_str()) {
            note(action.to_owned(), path.to_owned(), Why::Action);
        }
    }

    fn unknown_key(
        &mut self,
        key: &Key<'_>,
        value: Range<usize>,
        schema: &'static TableSchema,
        path: &str,
        context: &str,
    ) {
        let name: &str = key.get_ref();
        let below = join(path, "?");
        self.places.insert(&below, &self.lines, Some(key.span()), value);
        let keys: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
        let fix = if let Some(meant) = nearest(name, keys.iter().copied()) {
            let words = schema.field(meant).and_then(|field| field.kind.words());
            let values = words.map_or_else(String::new, |words| format!(" values: {}", words.join(", ")));
            format!("did you mean \"{meant}\"?{values} (fleetctl explain {}.{meant})", schema.name)
        } else {
            format!("keys here: {}", keys.join(", "))
        };
        self.error(&below, At::Key, "unknown-key", format!("unknown key {} in {context}", quoted(name)), fix);
    }

    fn value(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        field: &'static Field,
        path: &str,
        context: &str,
    ) -> Option<Json> {
        match &field.kind {
            FieldKind::Table(schema) => {
                let table = self.as_table(value, field, path, context)?;
                Some(self.table(table, schema, path, &format!("{} of {context}", field.name)))
            }
            FieldKind::Tables(schema) => self.tables(value, schema, field, path, context),
            FieldKind::ById(schema) | FieldKind::ByKey(schema) => {
                let table = self.as_table(value, field, path, context)?;
                Some(self.by_name(table, schema, field, path, context))
            }
            FieldKind::One(ValueKind::Vars) => {
                let table = self.as_table(value, field, path, context)?;
                Some(self.vars(table, field, path))
            }
            FieldKind::One(ValueKind::SiteZones) => {
                let table = self.as_table(value, field, path, context)?;
                Some(self.site_zones(table, field, path))
            }
            FieldKind::One(ValueKind::Settings) => {
                let table = self.as_table(value, field, path, context)?;
                Some(self.settings(table, path, context))
            }
            FieldKind::One(ValueKind::With | ValueKind::ParamValues) => {
                self.as_table(value, field, path, context)?;
                self.plain(value, path, context)
            }
            FieldKind::One(ValueKind::Any) => self.plain(value, path, context),
            FieldKind::Integer(min, max) => self.integer(value, field, path, context).and_then(|number| {
                if (min..=max).contains(&&number) {
                    return Some(Json::from(number));
                }
                let message = format!("{number} is out of range for \"{}\" in {context}", field.name);
                self.error(path, At::Value, "bad-value", message, format!("write {}", field.kind.expects()));
                None
            }),
            FieldKind::Bool => match value.get_ref() {
                DeValue::Boolean(yes) => Some(Json::Bool(*yes)),
                other => self.wrong_type(other, field, path, context),
            },
            FieldKind::One(ValueKind::Share) if value.get_ref().is_integer() => {
                let number = self.integer(value, field, path, context)?;
                if Share::try_from(number).is_err() {
                    return self.wrong_type(value.get_ref(), field, path, context);
                }
                Some(Json::from(number))
            }
            FieldKind::One(ValueKind::Threshold) if value.get_ref().is_integer() => {
                self.integer(value, field, path, context).map(Json::from)
            }
            FieldKind::WordOrTexts(_) if value.get_ref().is_array() => {
                self.texts(value, field, path, context)
            }
            FieldKind::Many(_) => self.texts(value, field, path, context),
            FieldKind::One(_) | FieldKind::WordOrTexts(_) => match value.get_ref() {
                DeValue::String(text) => {
                    self.text(text, field, path, context).then(|| Json::String(text.to_string()))
                }
                other => self.wrong_type(other, field, path, context),
            },
        }
    }

    pub(crate) fn wrong_type(
        &mut self,
        found: &DeValue<'_>,
        field: &'static Field,
        path: &str,
        context: &str,
    ) -> Option<Json> {
        let found = found.type_str();
        let message = format!("\"{}\" in {context} is of type {found}", field.name);
        self.error(path, At::Value, "wrong-type", message, format!("write {}", field.kind.expects()));
        None
    }

    fn as_table<'v, 'i>(
        &mut self,
        value: &'v Spanned<DeValue<'i>>,
        field: &'static Field,
        path: &str,
        context: &str,
    ) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(value.get_ref(), field, path, context);
        }
        table
    }

    fn integer(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        field: &'static Field,
        path: &str,
        context: &str,
    ) -> Option<i64> {
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(value.get_ref(), field, path, context);
            return None;
        };
        self.number(number, path, context)
    }

    pub(crate) fn number(
        &mut self,
        number: &toml::de::DeInteger<'_>,
        path: &str,
        context: &str,
    ) -> Option<i64> {
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let good = parsed.filter(|number| (-MAX_INTEGER..=MAX_INTEGER).contains(number));
        if good.is_none() {
            let message = format!("{} in {context} is too large", quoted(number.as_str()));
            self.error(
                path,
                At::Value,
                "bad-value",
                message,
                "write an integer within ±(2^53 - 1)".to_owned(),
            );
        }
        good
    }

    fn tables(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        schema: &'static TableSchema,
        field: &'static Field,
        path: &str,
        context: &str,
    ) -> Option<Json> {
        let Some(members) = value.get_ref().as_array() else {
            return self.wrong_type(value.get_ref(), field, path, context);
        };
        let mut out = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let below = join(path, &index.to_string());
            self.places.insert(&below, &self.lines, None, member.span());
            let Some(table) = member.get_ref().as_table() else {
                self.wrong_type(member.get_ref(), field, &below, context);
                continue;
            };
            let id = table.get("id").and_then(|id| id.get_ref().as_str());
            let name = id.map_or_else(|| format!("number {}", index + 1), quoted);
            let of = if path.contains('/') { format!(" of {context}") } else { String::new() };
            out.push(self.table(table, schema, &below, &format!("[[{}]] {name}{of}", schema.name)));
        }
        Some(Json::Array(out))
    }

    fn by_name(
        &mut self,
        table: &DeTable<'_>,
        schema: &'static TableSchema,
        field: &'static Field,
        path: &str,
        context: &str,
    ) -> Json {
        let mut out = Map::new();
        let ids = matches!(field.kind, FieldKind::ById(_));
        for (key, value) in table {
            let name: &str = key.get_ref();
            let below = join(path, name);
            self.places.insert(&below, &self.lines, Some(key.span()), value.span());
            let checked = if ids {
                name.parse::<fleet_types::document::Id>().map(|_| ()).map_err(|error| error.why)
            } else {
                name.parse::<fleet_types::document::Key>().map(|_| ()).map_err(|error| error.why)
            };
            let good = checked.is_ok();
            if let Err(why) = checked {
                let message =
                    format!("{} is no name for {}", quoted(name), if ids { "an object" } else { "a key" });
                self.error(&below, At::Key, "bad-id", message, why.to_owned());
            }
            let below_context = if ids {
                format!("[{}.{}]", field.name, name.escape_debug())
            } else {
                format!(
                    "{} {} of {context}",
                    if field.name == "fact" { "fact" } else { "parameter" },
                    quoted(name)
                )
            };
            let Some(inner) = self.as_table(value, field, &below, &below_context) else { continue };
            let json = self.table(inner, schema, &below, &below_context);
            if good {
                out.insert(name.to_owned(), json);
            }
        }
        Json::Object(out)
    }

    fn texts(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        field: &'static Field,
        path: &str,
        context: &str,
    ) -> Option<Json> {
        let Some(members) = value.get_ref().as_array() else {
            return self.wrong_type(value.get_ref(), field, path, context);
        };
        let mut out = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let below = join(path, &index.to_string());
            self.places.insert(&below, &self.lines, None, member.span());
            match member.get_ref() {
                DeValue::String(text) => {
                    if self.text(text, field, &below, context) {
                        out.push(Json::String(text.to_string()));
                    }
                }
                other => {
                    self.wrong_type(other, field, &below, context);
                }
            }
        }
        Some(Json::Array(out))
    }
}

/// A path and one more part.
pub(crate) fn join(path: &str, part: &str) -> String {
    if path.is_empty() { part.to_owned() } else { format!("{path}/{part}") }
}
