//! Canonical JSON (RFC 8785) and its strict reader: the bytes that are signed, hashed and stored.
//!
//! Writing refuses what documents may not hold: fractions, and integers beyond 2^53
//! (security-and-delivery §1.15). Reading refuses duplicate keys, depth over 32 and unknown fields of
//! the types, and any other form of what was signed. Bytes are made once; nobody serialises a document again.

use std::fmt::Write as _;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::Value;

/// Deepest nesting of arrays and objects that is read.
pub const MAX_DEPTH: usize = 32;
/// Largest integer that every JSON reader keeps exact: 2^53.
pub const MAX_INTEGER: u64 = 1 << 53;

/// A value cannot be written, or bytes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// A fraction or an integer out of range.
    #[error("number {0} is not allowed: only whole numbers up to 2^53")]
    Number(String),
    /// Well-formed, and written in another way than RFC 8785 says.
    #[error("the bytes are not in canonical form")]
    Form,
    /// Malformed JSON, a duplicate key, too deep, or not of the type.
    #[error("not a well-formed value")]
    Json(#[source] serde_json::Error),
}

/// Writes a value as canonical JSON without fractions.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(value).map_err(CanonicalError::Json)?;
    let mut text = String::new();
    write_value(&value, &mut text)?;
    Ok(text.into_bytes())
}

fn write_value(value: &Value, out: &mut String) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => {
            let good = number.as_i64().is_some_and(|n| n.unsigned_abs() <= MAX_INTEGER)
                || number.as_u64().is_some_and(|n| n <= MAX_INTEGER);
            if !good {
                return Err(CanonicalError::Number(number.to_string()));
            }
            let _ = write!(out, "{number}");
        }
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_value(item, out)?;
            }
            out.push(']');
        }
        Value::Object(map) => {
            // RFC 8785 §3.2.3: keys in order of their UTF-16 code units.
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (n, key) in keys.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_value(&map[key], out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// RFC 8785 §3.2.2.2: the two-character escapes where there are any, else \u00xx, else the character itself.
fn write_string(text: &str, out: &mut String) {
    out.push('"');
    if !text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.push_str(text);
        out.push('"');
        return;
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Reads a typed value; refuses duplicate keys, depth over [`MAX_DEPTH`] and trailing bytes.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CanonicalError> {
    serde_json::from_value(strict(bytes)?).map_err(CanonicalError::Json)
}

/// Reads what was signed: as [`from_slice`], and refuses any other form than the canonical one. A value has one form,
/// so that what is signed has one digest, and no two readers take the same bytes for two values. Digest and signature
/// are checked over the bytes as they came; the form is asked before the types see them and does not change with the
/// types, so that a field which this version does not know is no reason. Not for reports: they hold fractions, which
/// have no canonical form here, and each is the one account that its node signed.
pub fn from_signed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CanonicalError> {
    let value = strict(bytes)?;
    let mut form = String::with_capacity(bytes.len());
    write_value(&value, &mut form)?;
    if form.as_bytes() != bytes {
        return Err(CanonicalError::Form);
    }
    serde_json::from_value(value).map_err(CanonicalError::Json)
}

fn strict(bytes: &[u8]) -> Result<Value, CanonicalError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(CanonicalError::Json)?;
    reader.end().map_err(CanonicalError::Json)?;
    Ok(value)
}

struct Strict {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Self { depth: self.depth + 1 })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Self { depth: self.depth + 1 })?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key {key:?} stands twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_8785_without_its_fractions() {
        let input = "{\"string\": \"€$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\", \"literals\": [null, true, false], \"1\": 2}";
        let value: Value = serde_json::from_str(input).unwrap();
        let expected =
            "{\"1\":2,\"literals\":[null,true,false],\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(String::from_utf8(to_vec(&value).unwrap()).unwrap(), expected);
        assert_eq!(from_signed::<Value>(expected.as_bytes()).unwrap(), value);
        assert!(matches!(from_signed::<Value>(input.as_bytes()), Err(CanonicalError::Form)));
    }

    #[test]
    fn keys_sort_by_utf16() {
        // U+FB33 sorts after U+1F600 (surrogates D83D…) although its code point is smaller.
        let value: Value = serde_json::from_str("{\"\u{fb33}\":1,\"\u{1f600}\":2}").unwrap();
        assert_eq!(String::from_utf8(to_vec(&value).unwrap()).unwrap(), "{\"\u{1f600}\":2,\"\u{fb33}\":1}");
    }

    #[test]
    fn fractions_and_large_integers_are_refused() {
        for bad in ["1.5", "1e400", "9007199254740993", "-9007199254740993"] {
            let outcome =
                serde_json::from_str::<Value>(bad).map_err(CanonicalError::Json).and_then(|v| to_vec(&v));
            assert!(outcome.is_err(), "{bad}");
        }
        assert_eq!(to_vec(&9_007_199_254_740_992u64).unwrap(), b"9007199254740992");
    }

    #[test]
    fn duplicate_keys_depth_and_trailing_bytes_are_refused() {
        for bad in ["{\"id\":1,\"id\":2}", "{} x", "", "{\"a\":{\"b\":1,\"b\":1}}"] {
            assert!(from_slice::<Value>(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(from_slice::<Value>(deep(MAX_DEPTH).as_bytes()).is_ok());
        assert!(from_slice::<Value>(deep(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(from_slice::<Value>(deep(20_000).as_bytes()).is_err());
    }

    #[test]
    fn the_form_is_judged_without_the_types() {
        for good in ["{}", "{\"a\":1,\"b\":[true,null,\"x\"]}", "[]"] {
            assert!(from_signed::<Value>(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in
            ["{\"b\":1,\"a\":2}", "{ }", "{\"a\":1.5}", "{\"a\":1,\"a\":1}", "[\"\\u0041\"]", "{", "{} "]
        {
            assert!(from_signed::<Value>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
