//! `-o`: the formats of every output.

use std::str::FromStr;

use super::jsonpath::JsonPath;

/// How data is written to stdout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OutputFormat {
    /// For people, fitted to the terminal.
    #[default]
    Table,
    /// For people, all columns, nothing cut.
    Wide,
    /// One versioned object; lists stay lists under `items`.
    Json,
    /// One line an item.
    JsonLines,
    /// The same object as YAML.
    Yaml,
    /// Names alone, one a line.
    Name,
    /// What a path selects, one value a line.
    JsonPath(JsonPath),
}

impl OutputFormat {
    /// Are errors JSON too?
    pub const fn is_json(&self) -> bool {
        matches!(self, Self::Json | Self::JsonLines)
    }

    /// Is it a table for people?
    pub const fn is_human(&self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

impl FromStr for OutputFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("jsonpath=") {
            return path.parse().map(Self::JsonPath).map_err(|error: super::JsonPathError| error.to_string());
        }
        match text {
            "table" => Ok(Self::Table),
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::JsonLines),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            _ => Err("expected table, wide, json, jsonl, yaml, name or jsonpath=PATH".to_owned()),
        }
    }
}
