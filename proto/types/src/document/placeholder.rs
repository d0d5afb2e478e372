//! Placeholders: `{log_dir}`, `{label.ha_address}`, `{run.id}`, `{timestamp}`.
//!
//! Expansion is done on the node, once, inside one string: it never splits an argument and what was
//! put in is never looked at again, so a label or parameter cannot bring in a placeholder of its own.
//! Only variables of the profile, which are signed, may hold placeholders themselves. A placeholder
//! that is unknown or has no value is an error that names it: it refuses the plan.

use std::collections::BTreeMap;

use super::ids::Key;
use super::value::Value;

/// How deep variables may refer to variables; the samples use two.
const MAX_DEPTH: u32 = 8;
/// Longest result in bytes; paths and arguments stay far below.
pub const MAX_EXPANDED_BYTES: usize = 16 * 1024;

/// Where the values come from. Left-out sources are "no value here", not unknown names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// `[vars]` of the profile; looked at first, because they are signed.
    pub vars: Option<&'a BTreeMap<Key, String>>,
    /// Checked parameters of the procedure or command: `{name}`.
    pub params: Option<&'a BTreeMap<Key, Value>>,
    /// Labels of the node: `{label.x}`.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// `{node.name}`.
    pub node_name: Option<&'a str>,
    /// `{run.id}`.
    pub run_id: Option<&'a str>,
    /// `{job.id}`.
    pub job_id: Option<&'a str>,
    /// `{timestamp}`: start of the job in UTC, `20250901T020000Z`.
    pub timestamp: Option<&'a str>,
    /// `{date}`: day of the job's start in the zone of the node, `20250901`.
    pub date: Option<&'a str>,
    /// `{yesterday}`: the day before.
    pub yesterday: Option<&'a str>,
}

/// Why a text could not be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// No such name.
    #[error("placeholder {{{0}}} is unknown")]
    Unknown(String),
    /// The name is known and has no value, or an empty one.
    #[error("placeholder {{{0}}} has no value")]
    Empty(String),
    /// A brace without its other half, or around something that is no name.
    #[error("at byte {0}: a brace must stand around the name of a placeholder")]
    Malformed(usize),
    /// Variables refer to each other in a circle, or too deep.
    #[error("variable {{{0}}} refers to itself, or through more than {MAX_DEPTH} others")]
    TooDeep(String),
    /// The result is too long.
    #[error("the expanded text is over {MAX_EXPANDED_BYTES} bytes")]
    TooLong,
}

/// One piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text to take as it is.
    Text(&'a str),
    /// The name of a placeholder.
    Name(&'a str),
}

/// Cuts a text into texts and names of placeholders.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, PlaceholderError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let at = |rest: &str| text.len() - rest.len();
    while let Some(open) = rest.find(['{', '}']) {
        if rest.as_bytes()[open] == b'}' {
            return Err(PlaceholderError::Malformed(at(rest) + open));
        }
        if open > 0 {
            pieces.push(Piece::Text(&rest[..open]));
        }
        let inside = &rest[open + 1..];
        let close = inside.find(['{', '}']).filter(|close| inside.as_bytes()[*close] == b'}');
        match close.map(|close| &inside[..close]).filter(|name| is_name(name)) {
            Some(name) => {
                pieces.push(Piece::Name(name));
                rest = &inside[name.len() + 1..];
            }
            None => return Err(PlaceholderError::Malformed(at(rest) + open)),
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/'))
}

/// Replaces every placeholder of a text by its value.
pub fn expand(text: &str, sources: &Sources<'_>) -> Result<String, PlaceholderError> {
    let var = |name: &str| sources.vars.and_then(|vars| vars.get(name)).map(String::as_str);
    expand_with(text, var, |name, _| value_of(name, sources))
}

/// Replaces variables by their texts, at any depth, and every other placeholder by what `value` says of its name and
/// of the text before it.
pub fn expand_with<'v>(
    text: &str,
    var: impl Fn(&str) -> Option<&'v str>,
    value: impl Fn(&str, &str) -> Result<String, PlaceholderError>,
) -> Result<String, PlaceholderError> {
    let mut out = String::with_capacity(text.len());
    expand_into(&mut out, text, (&var, &value), 0)?;
    Ok(out)
}

/// Replaces every placeholder in the texts of a value, at any depth.
pub fn expand_value(value: &Value, sources: &Sources<'_>) -> Result<Value, PlaceholderError> {
    Ok(match value {
        Value::String(text) => match whole_parameter(text, sources) {
            Some(parameter) => parameter.clone(),
            None => Value::String(expand(text, sources)?),
        },
        Value::List(members) => {
            Value::List(members.iter().map(|member| expand_value(member, sources)).collect::<Result<_, _>>()?)
        }
        Value::Table(entries) => Value::Table(
            entries
                .iter()
                .map(|(key, entry)| Ok((key.clone(), expand_value(entry, sources)?)))
                .collect::<Result<_, PlaceholderError>>()?,
        ),
        Value::Integer(_) | Value::Bool(_) => value.clone(),
    })
}

/// A text that is one parameter and nothing else keeps that parameter's type: `batch = "{batch}"`.
fn whole_parameter<'a>(text: &str, sources: &Sources<'a>) -> Option<&'a Value> {
    let name = text.strip_prefix('{')?.strip_suffix('}')?;
    let is_var = sources.vars.is_some_and(|vars| vars.contains_key(name));
    let value = if is_var { None } else { sources.params?.get(name) }?;
    if matches!(value, Value::String(_)) { None } else { Some(value) }
}

fn expand_into<'v>(
    out: &mut String,
    text: &str,
    (var, value): (
        &impl Fn(&str) -> Option<&'v str>,
        &impl Fn(&str, &str) -> Result<String, PlaceholderError>,
    ),
    depth: u32,
) -> Result<(), PlaceholderError> {
    for piece in pieces(text)? {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name(name) => {
                if let Some(inner) = var(name) {
                    if depth == MAX_DEPTH {
                        return Err(PlaceholderError::TooDeep(name.to_owned()));
                    }
                    let before = out.len();
                    expand_into(out, inner, (var, value), depth + 1)?;
                    if out.len() == before {
                        return Err(PlaceholderError::Empty(name.to_owned()));
                    }
                } else {
                    out.push_str(&value(name, out)?);
                }
            }
        }
        if out.len() > MAX_EXPANDED_BYTES {
            return Err(PlaceholderError::TooLong);
        }
    }
    Ok(())
}

fn value_of(name: &str, sources: &Sources<'_>) -> Result<String, PlaceholderError> {
    let known = match name {
        "node.name" => sources.node_name.map(str::to_owned),
        "run.id" => sources.run_id.map(str::to_owned),
        "job.id" => sources.job_id.map(str::to_owned),
        "timestamp" => sources.timestamp.map(str::to_owned),
        "date" => sources.date.map(str::to_owned),
        "yesterday" => sources.yesterday.map(str::to_owned),
        _ => match name.strip_prefix("label.") {
            Some(label) => sources.labels.and_then(|labels| labels.get(label)).cloned(),
            None => match sources.params.and_then(|params| params.get(name)) {
                Some(value) => Some(value.to_string()),
                None => return Err(PlaceholderError::Unknown(name.to_owned())),
            },
        },
    };
    known.filter(|value| !value.is_empty()).ok_or_else(|| PlaceholderError::Empty(name.to_owned()))
}

/// The names that every document may use beside its variables and parameters; `label.` takes any label.
pub const BUILT_IN: [&str; 6] = ["node.name", "run.id", "job.id", "timestamp", "date", "yesterday"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_nest_and_labels_stay_inert() {
        let vars = BTreeMap::from([
            ("root".parse().unwrap(), "/opt/x".to_owned()),
            ("tool".parse().unwrap(), "{root}/tools".to_owned()),
            ("loop".parse().unwrap(), "{loop}".to_owned()),
            ("none".parse().unwrap(), String::new()),
        ]);
        let labels =
            BTreeMap::from([("site".to_owned(), "{root}".to_owned()), ("empty".to_owned(), String::new())]);
        let sources = Sources {
            vars: Some(&vars),
            labels: Some(&labels),
            run_id: Some("r-0000000001"),
            ..Sources::default()
        };
        assert_eq!(expand("{tool}/a-{run.id}", &sources).unwrap(), "/opt/x/tools/a-r-0000000001");
        assert_eq!(expand("{label.site}", &sources).unwrap(), "{root}");
        assert_eq!(expand("{label.empty}", &sources), Err(PlaceholderError::Empty("label.empty".into())));
        assert_eq!(expand("{none}", &sources), Err(PlaceholderError::Empty("none".into())));
        assert_eq!(expand("{nope}", &sources), Err(PlaceholderError::Unknown("nope".into())));
        assert_eq!(expand("{date}", &sources), Err(PlaceholderError::Empty("date".into())));
        assert_eq!(expand("{loop}", &sources), Err(PlaceholderError::TooDeep("loop".into())));
        for bad in ["{", "}", "a{b", "{{7*7}}", "{}", "{a b}", "{a{b}}"] {
            assert!(matches!(expand(bad, &sources), Err(PlaceholderError::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn a_parameter_alone_keeps_its_type() {
        let params = BTreeMap::from([("batch".parse().unwrap(), Value::from(7))]);
        let sources = Sources { params: Some(&params), ..Sources::default() };
        assert_eq!(expand_value(&Value::from("{batch}"), &sources).unwrap(), Value::from(7));
        assert_eq!(expand_value(&Value::from("x{batch}"), &sources).unwrap(), Value::from("x7"));
    }

    #[test]
    fn growth_is_bounded() {
        let mut vars: BTreeMap<Key, String> = BTreeMap::new();
        vars.insert("a".parse().unwrap(), "x".repeat(4000));
        for (name, from) in [("b", "a"), ("c", "b"), ("d", "c")] {
            vars.insert(name.parse().unwrap(), format!("{{{from}}}").repeat(1000));
        }
        let sources = Sources { vars: Some(&vars), ..Sources::default() };
        assert_eq!(expand("{d}", &sources), Err(PlaceholderError::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_expanded(text in "([{}a-z.é ]|\\{a\\}|\\{date\\}){0,24}") {
            let vars = BTreeMap::from([("a".parse().unwrap(), "x{date}".to_owned())]);
            let sources = Sources { vars: Some(&vars), date: Some("20260101"), ..Sources::default() };
            if let Ok(expanded) = expand(&text, &sources) {
                let braces = expanded.contains(['{', '}']);
                proptest::prop_assert!(!braces);
            }
        }
    }
}
