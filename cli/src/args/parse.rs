//! Parsers of argument values.

use std::ops::RangeInclusive;
use std::time::Duration;

use fleet_types::document::Key;
use fleet_types::time::Span;

/// A request lives at most this long (security-and-delivery §1.15), and so does a join token (§1.6).
pub const MAX_VALID_FOR: Duration = Duration::from_hours(24);

/// A duration as in documents.
pub fn span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|error: fleet_types::time::SpanError| error.to_string())
}

/// How long a request or a token is valid.
pub fn validity(text: &str) -> Result<Span, String> {
    let limits = Duration::from_secs(1)..=MAX_VALID_FOR;
    let good = |span: &Span| limits.contains(&span.length());
    span(text).and_then(|span| Some(span).filter(good).ok_or("expected 1s to 24h".to_owned()))
}

/// How long a schedule may start work.
pub fn standing(text: &str) -> Result<Span, String> {
    let limits = Duration::from_mins(1)..=fleet_types::standing_order::MAX_STANDING;
    let good = |span: &Span| limits.contains(&span.length());
    span(text).and_then(|span| Some(span).filter(good).ok_or("expected 1m to 400d".to_owned()))
}

/// How long the root keys leave the list of operators' keys to others.
pub fn delegation(text: &str) -> Result<Span, String> {
    let good = |span: &Span| !span.length().is_zero() && span.length() <= fleet_types::trust::MAX_DELEGATION;
    span(text).and_then(|span| Some(span).filter(good).ok_or("expected up to 90d".to_owned()))
}

/// `key=value` of a procedure's parameter. What reads as a whole number, `true` or `false` is one;
/// quotes make it text; `@NAME` is not special.
pub fn parameter(text: &str) -> Result<(String, serde_json::Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let key: Key = key.parse().map_err(|error| format!("{error}"))?;
    let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    let value = match (quoted, value.parse::<i64>(), value) {
        (Some(inner), ..) => inner.into(),
        (None, Ok(number), _) if number.to_string() == value => number.into(),
        (None, _, "true") => true.into(),
        (None, _, "false") => false.into(),
        _ => value.into(),
    };
    Ok((key.as_str().to_owned(), value))
}

/// A whole number within a range.
pub fn number(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let (least, most) = (range.start(), range.end());
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
}

/// `key=value` whose value is read where its type is known.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `key=value` of a label.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    fleet_types::label::check_key(key).map_err(|error| error.to_string())?;
    fleet_types::label::check_value(value).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_have_types() {
        for (text, value) in [
            ("n=5", json!(5)),
            ("n=05", json!("05")),
            ("n=true", json!(true)),
            ("n=\"true\"", json!("true")),
            ("n=a=b", json!("a=b")),
            ("n=", json!("")),
            ("n=1.5", json!("1.5")),
        ] {
            assert_eq!(parameter(text).unwrap(), ("n".to_owned(), value), "{text}");
        }
        for bad in ["n", "=5", "a b=1"] {
            assert!(parameter(bad).is_err(), "{bad}");
        }
        assert!(label("site=$(x)").is_err());
        assert!(validity("1s").is_ok() && validity("24h").is_ok());
        for bad in ["0s", "999ms", "25h", "-1h", "5"] {
            assert!(validity(bad).is_err(), "{bad}");
        }
    }
}
