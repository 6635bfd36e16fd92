//! JSON keys without regard to case.
//!
//! Every CNI struct is decoded by Go elsewhere, and Go matches keys without regard to case: containerd sends a port
//! mapping's port as `HostPort` where the convention says `hostPort`. It also takes `null` as an absent key. Decoding
//! through [`from_value`] does both for every struct, at every depth, and leaves free-form maps alone.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// Decodes a value.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Folded(value))
}

/// Decodes a text.
pub(crate) fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    from_value(serde_json::from_slice(text)?)
}

/// The value under a key, in whatever case; an exact match wins.
pub(crate) fn get<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let folded = || map.iter().find(|(present, _)| present.eq_ignore_ascii_case(key)).map(|(_, value)| value);
    map.get(key).or_else(folded).filter(|value| !value.is_null())
}

struct Folded(Value);

impl<'de> Deserializer<'de> for Folded {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Folded))),
            Value::Object(map) => {
                visitor.visit_map(MapDeserializer::new(map.into_iter().map(|(key, value)| (key, Folded(value)))))
            }
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => {
                let entries = fold(map, fields).into_iter().map(|(key, value)| (key, Folded(value)));
                visitor.visit_map(MapDeserializer::new(entries))
            }
            other => Folded(other).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            present => visitor.visit_some(Folded(present)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Folded {
    type Deserializer = Folded;

    fn into_deserializer(self) -> Folded {
        self
    }
}

/// Renames the keys that differ from a field only in case, unless the field itself is there.
fn fold(map: Map<String, Value>, fields: &[&str]) -> Map<String, Value> {
    let exact: Vec<&str> = fields.iter().copied().filter(|field| map.contains_key(*field)).collect();
    let rename = |key: String| match fields.iter().find(|field| field.eq_ignore_ascii_case(&key)) {
        Some(field) if *field == key => Some(key),
        Some(field) if exact.contains(field) => None,
        Some(field) => Some((*field).to_owned()),
        None => Some(key),
    };
    map.into_iter()
        .filter(|(_, value)| !value.is_null())
        .filter_map(|(key, value)| Some((rename(key)?, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Mapping {
        host_port: u16,
        ports: Vec<Mapping>,
        name: String,
    }

    #[test]
    fn keys_match_in_any_case_at_any_depth_and_the_exact_one_wins() {
        let value = json!({"HostPort": 1, "PORTS": [{"hostport": 2}], "Name": "folded", "name": "exact"});
        let inner = Mapping { host_port: 2, ..Mapping::default() };
        let expected = Mapping { host_port: 1, ports: vec![inner], name: "exact".into() };
        assert_eq!(from_value::<Mapping>(value).unwrap(), expected);
    }

    #[test]
    fn null_is_an_absent_key() {
        assert_eq!(from_value::<Mapping>(json!({"name": null, "ports": null})).unwrap(), Mapping::default());
        assert_eq!(from_value::<Option<Mapping>>(json!(null)).unwrap(), None);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused() {
        assert!(from_value::<Mapping>(json!({"hostPort": "80"})).is_err());
        assert!(from_value::<Mapping>(json!({"hostPort": 70000})).is_err());
    }
}
