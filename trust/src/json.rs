//! JSON as signed metadata needs it: no key twice, no floating point, bounded depth.
//!
//! `serde_json` keeps the last of two equal keys; two readers of one file could then see two files (attack T21).

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Deepest nesting read. Metadata of TUF 1.0 needs 8.
pub(crate) const DEPTH_MAX: usize = 64;

/// Parses strictly; the error says nothing but that it is not such JSON.
pub(crate) fn parse(bytes: &[u8]) -> Option<Value> {
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: DEPTH_MAX }.deserialize(&mut from).ok()?;
    from.end().ok()?;
    Some(value)
}

#[derive(Clone, Copy)]
pub(crate) struct Strict {
    pub(crate) depth: usize,
}

impl Strict {
    pub(crate) fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self
            .depth
            .checked_sub(1)
            .ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without floating point")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inner)?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::open;
    use serde::de::IgnoredAny;

    #[test]
    fn ambiguous_json_is_refused() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            "1.5",
            "1e3",
            "NaN",
            "{} {}",
            "\u{feff}{}",
            r#"{"a":1,}"#,
            "",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
            assert!(
                open::<IgnoredAny>(&format!(r#"{{"signed":{text},"signatures":[]}}"#)).is_none(),
                "{text}"
            );
            assert!(
                open::<IgnoredAny>(&format!(r#"{{"signed":{{}},"signatures":{text}}}"#)).is_none(),
                "{text}"
            );
            assert!(
                open::<IgnoredAny>(&format!(r#"{{"signed":{{}},"signatures":[],"x":{text}}}"#)).is_none(),
                "{text}"
            );
        }
        assert_eq!(parse(&vec![b'['; 10_000_000]), None);
        let deep = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(parse(deep.as_bytes()).is_some());
        assert!(parse(format!("[{deep}]").as_bytes()).is_none());
        assert!(parse(br#"{"a":[1,-1,null,true,"x"]}"#).is_some());
    }
}
