//! Parameters of procedures and commands: their declaration and the check of a value.
//!
//! The same check runs on the controller when a run is made and on the node before anything starts.
//! A value that passes may stand in one argument of a program; it never begins with `-` (so it is not
//! an option, security-and-delivery §1.19) and holds no control character.

use serde::{Deserialize, Serialize};

use super::schema::JsonSchema;
use super::value::{MAX_INTEGER, Value, is_false};
use crate::id::RunId;
use crate::time::Span;

/// Longest text of a parameter in bytes: `PATH_MAX`, the longest thing that one argument sensibly is.
pub const MAX_TEXT_BYTES: usize = 4096;
/// Most members of a list parameter; sixty-four names of suites or packages are more than a screen.
pub const MAX_LIST: usize = 64;
/// Longest `pattern` in bytes, and its compiled size: keeps compiling below a millisecond.
pub const MAX_PATTERN_BYTES: usize = 256;
const MAX_PATTERN_COMPILED_BYTES: usize = 1 << 20;

/// A typed parameter, checked on the controller and again on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParamSpec {
    /// Its type.
    #[serde(rename = "type")]
    pub param_type: ParamType,
    /// Whether a run must give it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
    /// What it is when a run does not give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// enum, list: the allowed words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// `string`, `list`: a regular expression from ^ to $.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// integer: smallest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// integer: largest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// path: the folder it must lie under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
    /// One line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// A text.
    String,
    /// One of `values`.
    Enum,
    /// An absolute path, under `under` where that is given.
    Path,
    /// A day, `20250901`.
    Date,
    /// A version of a package.
    Version,
    /// The id of a run.
    Run,
    /// A whole number.
    Integer,
    /// Yes or no.
    Bool,
    /// `30s`, `5m`, `24h`, `7d`.
    Duration,
    /// A list of texts.
    List,
}

impl ParamType {
    /// Every type, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::String,
        Self::Enum,
        Self::Path,
        Self::Date,
        Self::Version,
        Self::Run,
        Self::Integer,
        Self::Bool,
        Self::Duration,
        Self::List,
    ];

    /// The word after `type =`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Enum => "enum",
            Self::Path => "path",
            Self::Date => "date",
            Self::Version => "version",
            Self::Run => "run",
            Self::Integer => "integer",
            Self::Bool => "bool",
            Self::Duration => "duration",
            Self::List => "list",
        }
    }
}

/// Why a value does not fit its parameter. The texts complete "parameter x: …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// Required and not given.
    #[error("it is required")]
    Missing,
    /// Another type.
    #[error("expected a value of type {expected}, found {found}")]
    Type {
        /// The declared type.
        expected: &'static str,
        /// What was given.
        found: &'static str,
    },
    /// Not one of the words.
    #[error("\"{value}\" is not one of: {allowed}")]
    NotAllowed {
        /// What was given.
        value: String,
        /// The allowed words.
        allowed: String,
    },
    /// It fails the rule of its type.
    #[error("\"{value}\": {why}")]
    Text {
        /// What was given, cut.
        value: String,
        /// The rule.
        why: String,
    },
    /// A number outside of its limits.
    #[error("{value} is outside of {min} to {max}")]
    Range {
        /// What was given.
        value: i64,
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Too many members.
    #[error("a list holds at most {MAX_LIST} members")]
    TooMany,
    /// The declaration itself is not usable.
    #[error("its declaration is wrong: {0}")]
    Declaration(String),
}

impl ParamSpec {
    /// Checks a given value, or settles on the default; `None` when it is neither given nor needed.
    pub fn resolve(&self, given: Option<&Value>) -> Result<Option<Value>, ParamError> {
        match given.or(self.default.as_ref()) {
            Some(value) => self.check(value).map(|()| Some(value.clone())),
            None if self.required => Err(ParamError::Missing),
            None => Ok(None),
        }
    }

    /// Whether a value fits.
    pub fn check(&self, value: &Value) -> Result<(), ParamError> {
        let wrong_type = || ParamError::Type { expected: self.param_type.as_str(), found: value.kind() };
        match self.param_type {
            ParamType::Integer => {
                let number = value.as_integer().ok_or_else(wrong_type)?;
                let (min, max) = (self.min.unwrap_or(-MAX_INTEGER), self.max.unwrap_or(MAX_INTEGER));
                if (min..=max).contains(&number) {
                    Ok(())
                } else {
                    Err(ParamError::Range { value: number, min, max })
                }
            }
            ParamType::Bool => value.as_bool().map(|_| ()).ok_or_else(wrong_type),
            ParamType::List => {
                let members = value.as_list().ok_or_else(wrong_type)?;
                if members.len() > MAX_LIST {
                    return Err(ParamError::TooMany);
                }
                members.iter().try_for_each(|member| self.check_text(member.as_str().ok_or_else(wrong_type)?))
            }
            _ => self.check_text(value.as_str().ok_or_else(wrong_type)?),
        }
    }

    fn check_text(&self, text: &str) -> Result<(), ParamError> {
        let fail = |why: &str| {
            let value = text.chars().filter(|c| !c.is_control()).take(64).collect();
            Err(ParamError::Text { value, why: why.to_owned() })
        };
        if text.len() > MAX_TEXT_BYTES {
            return fail("it is over 4096 bytes");
        }
        if text.chars().any(|c| c.is_control() || is_bidirectional(c)) {
            return fail("it holds a control character");
        }
        if text.starts_with('-') {
            return fail("it begins with '-' and would be read as an option");
        }
        if !self.values.is_empty() && !self.values.iter().any(|allowed| allowed == text) {
            let value = text.chars().take(64).collect();
            return Err(ParamError::NotAllowed { value, allowed: self.values.join(", ") });
        }
        if let Some(pattern) = &self.pattern
            && !compile(pattern).map_err(ParamError::Declaration)?.is_match(text)
        {
            return fail(&format!("it does not match {pattern}"));
        }
        match self.param_type {
            ParamType::Path => self.check_path(text).or_else(|why| fail(&why)),
            ParamType::Date if jiff::civil::Date::strptime("%Y%m%d", text).is_err() || text.len() != 8 => {
                fail("write a day as 20250901")
            }
            ParamType::Version if !is_version(text) => {
                fail("a version holds letters, digits and . + : ~ - and begins with a digit or letter")
            }
            ParamType::Run if text.parse::<RunId>().is_err() => {
                fail("write the id of a run, as `fleetctl run list` shows it")
            }
            ParamType::Duration if text.parse::<Span>().is_err() => {
                fail("write a duration such as 30s, 5m, 24h or 7d")
            }
            _ => Ok(()),
        }
    }

    /// Absolute, without `.`, `..` and empty parts, and under `under`. Links are the host's business.
    fn check_path(&self, text: &str) -> Result<(), String> {
        let parts = text.strip_prefix('/').ok_or("write an absolute path")?;
        if parts.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err("a path holds no empty part, no '.' and no '..'".to_owned());
        }
        match &self.under {
            Some(under)
                if !text
                    .strip_prefix(under.trim_end_matches('/'))
                    .is_some_and(|rest| rest.starts_with('/')) =>
            {
                Err(format!("it must lie under {under}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the declaration itself makes sense: values for an enum, a good pattern, a fitting default.
    pub fn check_declaration(&self) -> Result<(), ParamError> {
        let fail = |why: &str| Err(ParamError::Declaration(why.to_owned()));
        if self.param_type == ParamType::Enum && self.values.is_empty() {
            return fail("type enum needs values");
        }
        if !self.values.is_empty() && !matches!(self.param_type, ParamType::Enum | ParamType::List) {
            return fail("values belongs to type enum or list");
        }
        if self.pattern.is_some() && !matches!(self.param_type, ParamType::String | ParamType::List) {
            return fail("pattern belongs to type string or list");
        }
        if (self.min.is_some() || self.max.is_some()) && self.param_type != ParamType::Integer {
            return fail("min and max belong to type integer");
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return fail("min is more than max");
        }
        if self.under.is_some() && self.param_type != ParamType::Path {
            return fail("under belongs to type path");
        }
        if let Some(pattern) = &self.pattern {
            compile(pattern).map_err(ParamError::Declaration)?;
        }
        match &self.default {
            Some(_) if self.required => fail("a required parameter has no default"),
            Some(default) => self.check(default),
            None => Ok(()),
        }
    }
}

fn is_version(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b".+:~-_".contains(&b))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// The marks that turn the reading direction (security-and-delivery §1.24).
pub(crate) const fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Compiles a pattern of a parameter; it must be anchored, so that it speaks of the whole value.
fn compile(pattern: &str) -> Result<regex::Regex, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!("a pattern is at most {MAX_PATTERN_BYTES} bytes"));
    }
    if !pattern.starts_with('^') || !pattern.ends_with('$') || pattern.ends_with("\\$") {
        return Err("a pattern begins with ^ and ends with $".to_owned());
    }
    // The group keeps `^a|b$` from matching "xb": both anchors hold for every alternative.
    let whole = format!("^(?:{})$", &pattern[1..pattern.len() - 1]);
    regex::RegexBuilder::new(&whole).size_limit(MAX_PATTERN_COMPILED_BYTES).build().map_err(|_| {
        format!("\"{}\" is not a pattern", pattern.chars().filter(|c| !c.is_control()).collect::<String>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> ParamSpec {
        serde_json::from_str(json).unwrap()
    }

    fn refuses(spec: &ParamSpec, texts: &[&str]) {
        for text in texts {
            assert!(spec.check(&Value::from(*text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn values_are_checked_by_type() {
        let path = spec(r#"{"type":"path","under":"/var/lib/fleet-agent/artifacts"}"#);
        assert!(path.check(&Value::from("/var/lib/fleet-agent/artifacts/fix.patch")).is_ok());
        let outside =
            ["/etc/passwd", "/var/lib/fleet-agent/artifacts", "/var/lib/fleet-agent/artifacts/../x"];
        refuses(&path, &outside);
        refuses(
            &path,
            &["relative", "/var/lib/fleet-agent/artifacts//x", "/var/lib/fleet-agent/artifactsX/y"],
        );
        refuses(&spec(r#"{"type":"string"}"#), &["-rf", "a\nb", "a\0", "\u{202e}x"]);
        let suite = spec(r#"{"type":"list","values":["basic"],"default":["basic"]}"#);
        assert_eq!(suite.resolve(None).unwrap(), Some(Value::List(vec!["basic".into()])));
        assert!(suite.check(&Value::List(vec!["all".into()])).is_err());
        let date = spec(r#"{"type":"date"}"#);
        assert!(date.check(&Value::from("20250901")).is_ok());
        refuses(&date, &["20250931", "2025-09-01", "2025091", ""]);
        refuses(&spec(r#"{"type":"version"}"#), &["1.0;x", "", "~1", "$(x)", "1 2"]);
        let batch = spec(r#"{"type":"integer","min":1,"max":10}"#);
        assert!(batch.check(&Value::from(10)).is_ok() && batch.check(&Value::from(11)).is_err());
        assert_eq!(spec(r#"{"type":"bool","required":true}"#).resolve(None), Err(ParamError::Missing));
    }

    #[test]
    fn patterns_speak_of_the_whole_value() {
        let name = spec(r#"{"type":"string","pattern":"^[a-z.]+$"}"#);
        assert!(name.check(&Value::from("a.b")).is_ok());
        refuses(&name, &["a b", "A", "", "a\n"]);
        refuses(&spec(r#"{"type":"string","pattern":"^a|b$"}"#), &["xb", "ax"]);
        let long = format!(r#"{{"type":"string","pattern":"^{}$"}}"#, "a".repeat(300));
        for bad in [r#"{"type":"string","pattern":"a+"}"#, r#"{"type":"string","pattern":"^(a$"}"#, &long] {
            assert!(spec(bad).check_declaration().is_err(), "{bad}");
        }
        assert!(spec(r#"{"type":"string","pattern":"^(((a{99}){99}){99})$"}"#).check_declaration().is_err());
    }

    #[test]
    fn declarations_are_checked() {
        for bad in [
            r#"{"type":"enum"}"#,
            r#"{"type":"string","min":1}"#,
            r#"{"type":"integer","min":2,"max":1}"#,
            r#"{"type":"integer","default":"x"}"#,
            r#"{"type":"string","required":true,"default":"x"}"#,
            r#"{"type":"string","under":"/x"}"#,
            r#"{"type":"bool","values":["a"]}"#,
        ] {
            assert!(spec(bad).check_declaration().is_err(), "{bad}");
        }
        assert!(spec(r#"{"type":"enum","values":["a"],"default":"a"}"#).check_declaration().is_ok());
    }
}
