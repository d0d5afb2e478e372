//! The value of an answer for programs: what is sent, with instants as RFC 3339 in UTC.
//!
//! In what is sent and signed an instant is a number of milliseconds, which nothing but its type tells from other
//! numbers. So it is written where the type is still known: all else goes to the serializer of `serde_json`.

use fleet_types::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::{self, Serializer};
use serde_json::value::Serializer as Plain;
use serde_json::{Error, Value};

/// The value, its instants as `2026-11-22T14:02:11.042Z`.
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
    value.serialize(Readable)
}

/// Reads a printed value again, its instants as they are sent. No other text has exactly this form.
pub fn read_printed<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).and_then(|printed| serde_json::from_value(sent(printed)))
}

fn sent(printed: Value) -> Value {
    match printed {
        Value::String(text) => match text.parse::<Timestamp>() {
            Ok(at) if at.to_milliseconds_text() == text => at.as_millis().into(),
            _ => Value::String(text),
        },
        Value::Array(parts) => parts.into_iter().map(sent).collect(),
        Value::Object(parts) => parts.into_iter().map(|(key, part)| (key, sent(part))).collect(),
        other => other,
    }
}

/// A serializer that knows instants.
struct Readable;

/// What is serialized inside of something else.
struct Inner<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Serialize for Inner<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        to_value(self.0).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

/// A list or table of which each part is an [`Inner`].
struct Parts<C>(C);

macro_rules! plain {
    ($($method:ident: $kind:ty),*) => {
        $(fn $method(self, value: $kind) -> Result<Value, Error> { Plain.$method(value) })*
    };
}

macro_rules! parts {
    ($($method:ident($($name:ident: $kind:ty),*) -> $parts:ident),*) => {
        $(fn $method(self, $($name: $kind),*) -> Result<Self::$parts, Error> {
            Plain.$method($($name),*).map(Parts)
        })*
    };
}

impl Serializer for Readable {
    type Ok = Value;
    type Error = Error;
    type SerializeSeq = Parts<<Plain as Serializer>::SerializeSeq>;
    type SerializeTuple = Parts<<Plain as Serializer>::SerializeTuple>;
    type SerializeTupleStruct = Parts<<Plain as Serializer>::SerializeTupleStruct>;
    type SerializeTupleVariant = Parts<<Plain as Serializer>::SerializeTupleVariant>;
    type SerializeMap = Parts<<Plain as Serializer>::SerializeMap>;
    type SerializeStruct = Parts<<Plain as Serializer>::SerializeStruct>;
    type SerializeStructVariant = Parts<<Plain as Serializer>::SerializeStructVariant>;

    plain!(serialize_bool: bool, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8]);
    plain!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);
    plain!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);
    plain!(serialize_f32: f32, serialize_f64: f64, serialize_unit_struct: &'static str);

    parts!(
        serialize_seq(len: Option<usize>) -> SerializeSeq,
        serialize_tuple(len: usize) -> SerializeTuple,
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct,
        serialize_tuple_variant(name: &'static str, n: u32, word: &'static str, len: usize) -> SerializeTupleVariant,
        serialize_map(len: Option<usize>) -> SerializeMap,
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct,
        serialize_struct_variant(name: &'static str, n: u32, word: &'static str, len: usize) -> SerializeStructVariant
    );

    fn serialize_unit(self) -> Result<Value, Error> {
        Plain.serialize_unit()
    }

    fn serialize_none(self) -> Result<Value, Error> {
        Plain.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Error> {
        to_value(value)
    }

    fn serialize_unit_variant(self, name: &'static str, n: u32, word: &'static str) -> Result<Value, Error> {
        Plain.serialize_unit_variant(name, n, word)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, Error> {
        let value = to_value(value)?;
        let instant = (name == Timestamp::TYPE).then(|| value.as_i64()).flatten();
        Ok(match instant.and_then(|ms| Timestamp::from_millis(ms).ok()) {
            Some(at) => at.to_milliseconds_text().into(),
            None => value,
        })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        n: u32,
        word: &'static str,
        value: &T,
    ) -> Result<Value, Error> {
        Plain.serialize_newtype_variant(name, n, word, &Inner(value))
    }
}

macro_rules! each_part {
    ($($kind:ident: $method:ident($($name:ident)?)),*) => {
        $(impl<C: ser::$kind<Ok = Value, Error = Error>> ser::$kind for Parts<C> {
            type Ok = Value;
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($name: &'static str,)?
                value: &T,
            ) -> Result<(), Error> {
                self.0.$method($($name,)? &Inner(value))
            }

            fn end(self) -> Result<Value, Error> {
                self.0.end()
            }
        })*
    };
}

each_part!(
    SerializeSeq: serialize_element(),
    SerializeTuple: serialize_element(),
    SerializeTupleStruct: serialize_field(),
    SerializeTupleVariant: serialize_field(),
    SerializeStruct: serialize_field(key),
    SerializeStructVariant: serialize_field(key)
);

impl<C: ser::SerializeMap<Ok = Value, Error = Error>> ser::SerializeMap for Parts<C> {
    type Ok = Value;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.0.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.0.serialize_value(&Inner(value))
    }

    fn end(self) -> Result<Value, Error> {
        self.0.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    enum Shape {
        Unit,
        One(Timestamp),
        Two(u8, Timestamp),
        Named { at: Timestamp },
    }

    #[derive(Serialize)]
    struct All {
        at: Timestamp,
        maybe: Option<Timestamp>,
        none: Option<Timestamp>,
        millis: i64,
        share: f64,
        list: Vec<(u32, Timestamp)>,
        by_name: BTreeMap<String, Timestamp>,
        shapes: Vec<Shape>,
        #[serde(flatten)]
        more: BTreeMap<String, Value>,
    }

    #[test]
    fn instants_are_texts_at_any_depth_and_numbers_stay_numbers() {
        let at = Timestamp::from_millis(1_763_820_131_042).unwrap();
        let text = "2025-11-22T14:02:11.042Z";
        let all = All {
            at,
            maybe: Some(at),
            none: None,
            millis: 1_763_820_131_042,
            share: 0.5,
            list: vec![(1, at)],
            by_name: BTreeMap::from([("a".to_owned(), at)]),
            shapes: vec![Shape::Unit, Shape::One(at), Shape::Two(2, at), Shape::Named { at }],
            more: BTreeMap::from([("x".to_owned(), json!([1, null, { "y": true }]))]),
        };
        let expected = json!({
            "at": text, "maybe": text, "none": null, "millis": 1_763_820_131_042_i64, "share": 0.5,
            "list": [[1, text]], "by_name": { "a": text },
            "shapes": ["Unit", { "One": text }, { "Two": [2, text] }, { "Named": { "at": text } }],
            "x": [1, null, { "y": true }],
        });
        assert_eq!(to_value(&all).unwrap(), expected);
        let read: Value = read_printed(&expected.to_string()).unwrap();
        assert_eq!(read, serde_json::to_value(&all).unwrap());
    }
}
