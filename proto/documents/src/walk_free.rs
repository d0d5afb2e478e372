//! The walk over values whose keys are not in the schema: variables, settings, parameters.

use fleet_types::label::check_value;
use serde_json::{Map, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::schema::Field;
use crate::source::MAX_NESTING;
use crate::text_check::{check_iana, is_plain, quoted};
use crate::walk::{At, TemplateUse, Walk, join};

impl Walk<'_> {
    pub(crate) fn vars(&mut self, table: &DeTable<'_>, field: &'static Field, path: &str) -> Json {
        let mut out = Map::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let below = join(path, name);
            self.places.insert(&below, &self.lines, Some(key.span()), value.span());
            if let Err(error) = name.parse::<fleet_types::document::Key>() {
                let message = format!("{} is no name for a variable", quoted(name));
                self.error(&below, At::Key, "bad-id", message, error.why.to_owned());
                continue;
            }
            match value.get_ref() {
                DeValue::String(text) if is_plain(text) => {
                    self.templates.push(TemplateUse { path: below, text: text.to_string(), is_path: false });
                    out.insert(name.to_owned(), Json::String(text.to_string()));
                }
                DeValue::String(_) => self.control_character(&below, name, "[vars]"),
                other => {
                    self.wrong_type(other, field, &below, "[vars]");
                }
            }
        }
        Json::Object(out)
    }

    /// Zones by the value of the label `site`.
    pub(crate) fn site_zones(&mut self, table: &DeTable<'_>, field: &'static Field, path: &str) -> Json {
        let mut out = Map::new();
        for (key, value) in table {
            let site: &str = key.get_ref();
            let below = join(path, site);
            self.places.insert(&below, &self.lines, Some(key.span()), value.span());
            if site.is_empty() || check_value(site).is_err() {
                let message = format!("{} is no value of the label site", quoted(site));
                self.error(
                    &below,
                    At::Key,
                    "bad-id",
                    message,
                    "write the site as nodes are labelled".to_owned(),
                );
                continue;
            }
            match value.get_ref() {
                DeValue::String(text) => match check_iana(text) {
                    Ok(()) => drop(out.insert(site.to_owned(), Json::String(text.to_string()))),
                    Err(why) => {
                        let message = format!("{} is no time zone in [zones]", quoted(text));
                        self.error(&below, At::Value, "bad-time-zone", message, why);
                    }
                },
                other => {
                    self.wrong_type(other, field, &below, "[zones]");
                }
            }
        }
        Json::Object(out)
    }

    pub(crate) fn settings(&mut self, table: &DeTable<'_>, path: &str, context: &str) -> Json {
        let mut out = Map::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let below = join(path, name);
            self.places.insert(&below, &self.lines, Some(key.span()), value.span());
            let shaped =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
            match value.get_ref() {
                _ if !shaped => {
                    let fix = "write letters, digits and . _ - /".to_owned();
                    self.error(
                        &below,
                        At::Key,
                        "bad-id",
                        format!("{} is no name for a setting", quoted(name)),
                        fix,
                    );
                }
                DeValue::Integer(_) | DeValue::String(_) => {
                    if let Some(json) = self.plain(value, &below, context) {
                        out.insert(name.to_owned(), json);
                    }
                }
                other => {
                    let message =
                        format!("setting {} in {context} is of type {}", quoted(name), other.type_str());
                    self.error(
                        &below,
                        At::Value,
                        "wrong-type",
                        message,
                        "write a string or an integer".to_owned(),
                    );
                }
            }
        }
        Json::Object(out)
    }

    /// A value of no declared type: strings, integers, booleans, lists and tables, nested at most
    /// [`MAX_NESTING`] deep.
    pub(crate) fn plain(&mut self, value: &Spanned<DeValue<'_>>, path: &str, context: &str) -> Option<Json> {
        if path.split('/').count() > MAX_NESTING {
            let message = format!("{context} nests over {MAX_NESTING} deep");
            self.error(path, At::Value, "too-deep", message, "write it flatter".to_owned());
            return None;
        }
        match value.get_ref() {
            DeValue::String(text) if is_plain(text) => Some(Json::String(text.to_string())),
            DeValue::String(_) => {
                self.control_character(path, path.rsplit('/').next().unwrap_or_default(), context);
                None
            }
            DeValue::Integer(number) => self.number(number, path, context).map(Json::from),
            DeValue::Boolean(yes) => Some(Json::Bool(*yes)),
            DeValue::Float(_) | DeValue::Datetime(_) => {
                let found = value.get_ref().type_str();
                let fix =
                    "write an integer or a string: signed documents hold no fractions and no TOML times"
                        .to_owned();
                self.error(
                    path,
                    At::Value,
                    "wrong-type",
                    format!("a value of type {found} in {context}"),
                    fix,
                );
                None
            }
            DeValue::Array(members) => {
                let mut out = Vec::new();
                for (index, member) in members.iter().enumerate() {
                    let below = join(path, &index.to_string());
                    self.places.insert(&below, &self.lines, None, member.span());
                    out.extend(self.plain(member, &below, context));
                }
                Some(Json::Array(out))
            }
            DeValue::Table(entries) => {
                let mut out = Map::new();
                for (key, entry) in entries {
                    let below = join(path, key.get_ref());
                    self.places.insert(&below, &self.lines, Some(key.span()), entry.span());
                    if let Some(json) = self.plain(entry, &below, context) {
                        out.insert(key.get_ref().to_string(), json);
                    }
                }
                Some(Json::Object(out))
            }
        }
    }

    pub fn control_character(&mut self, path: &str, name: &str, context: &str) {
        let message = format!("{} in {context} holds a control or direction character", quoted(name));
        self.error(path, At::Value, "bad-value", message, "take it out".to_owned());
    }
}
