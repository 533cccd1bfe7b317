//! JSON as signed metadata needs it: no key twice, no floating point, bounded depth.
//!
//! `serde_json` keeps the last of two equal keys; two readers of one file could then see two files (attack T21).

use redan_policy::canonical;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::io::Write as _;
use std::ops::Range;

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
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
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

/// An envelope that was read strictly from end to end, without a tree of values for what is in it: ten thousand targets are a
/// hundred thousand small strings.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// Canonical JSON of `signed`, when there is one.
    pub(crate) canonical: Option<Vec<u8>>,
    /// Canonical JSON of its `_type`.
    pub(crate) kind: Vec<u8>,
    /// Canonical JSON of its `spec_version`.
    pub(crate) spec_version: Vec<u8>,
    /// What stands under `signatures`.
    pub(crate) signatures: Option<Value>,
}

/// Reads an envelope as strictly as [`parse`] does; `None` when it is no such JSON, or no object.
pub(crate) fn open(text: &str) -> Option<Opened> {
    let mut from = serde_json::Deserializer::from_str(text);
    let opened = Envelope { len: text.len() }.deserialize(&mut from).ok()?;
    from.end().ok()?;
    Some(opened)
}

struct Envelope {
    /// How long all of it is: what is encoded is hardly longer than what was written.
    len: usize,
}

impl<'de> DeserializeSeed<'de> for Envelope {
    type Value = Opened;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Opened, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Envelope {
    type Value = Opened;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Opened, A::Error> {
        let inner = Strict { depth: DEPTH_MAX }.deeper()?;
        let (mut opened, mut seen) = (Opened::default(), BTreeSet::new());
        while let Some(key) = entries.next_key_seed(Text)? {
            match key.as_ref() {
                "signed" => {
                    let mut writer = Writer {
                        out: Vec::with_capacity(self.len),
                        ..Writer::default()
                    };
                    entries.next_value_seed(Canonical {
                        to: &mut writer,
                        depth: inner,
                        outermost: true,
                    })?;
                    opened.canonical = Some(writer.out);
                    (opened.kind, opened.spec_version) = (writer.kind, writer.spec_version);
                }
                "signatures" => opened.signatures = Some(entries.next_value_seed(inner)?),
                _ => drop(entries.next_value_seed(inner)?),
            }
            if !seen.insert(key) {
                return Err(A::Error::custom("a key twice"));
            }
        }
        Ok(opened)
    }
}

/// A string, borrowed from the file where nothing in it is escaped.
pub(crate) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Cow<'de, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

/// What was encoded so far.
#[derive(Default)]
struct Writer<'de> {
    out: Vec<u8>,
    /// Entries of the objects that are open: the key, and where `"key":value` stands in `out`.
    entries: Vec<(Cow<'de, str>, Range<usize>)>,
    kind: Vec<u8>,
    spec_version: Vec<u8>,
}

/// Encodes a value canonically while it is read.
struct Canonical<'w, 'de> {
    to: &'w mut Writer<'de>,
    depth: Strict,
    /// The value is `signed` itself.
    outermost: bool,
}

impl<'de> DeserializeSeed<'de> for Canonical<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Canonical<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without floating point")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.to
            .out
            .extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        write!(self.to.out, "{value}").map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        write!(self.to.out, "{value}").map_err(E::custom)
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        canonical::string(value, &mut self.to.out);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.to.out.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let (to, depth) = (self.to, self.depth.deeper()?);
        to.out.push(b'[');
        let begin = to.out.len();
        while items
            .next_element_seed(Canonical {
                to: &mut *to,
                depth,
                outermost: false,
            })?
            .is_some()
        {
            to.out.push(b',');
        }
        to.close(begin, b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let (to, depth) = (self.to, self.depth.deeper()?);
        to.out.push(b'{');
        let (begin, first) = (to.out.len(), to.entries.len());
        let mut sorted = true;
        while let Some(key) = entries.next_key_seed(Text)? {
            let start = to.out.len();
            canonical::string(&key, &mut to.out);
            to.out.push(b':');
            let value = to.out.len();
            entries.next_value_seed(Canonical {
                to: &mut *to,
                depth,
                outermost: false,
            })?;
            if self.outermost {
                let encoded = to.out.get(value..).unwrap_or_default();
                match key.as_ref() {
                    "_type" => to.kind = encoded.to_vec(),
                    "spec_version" => to.spec_version = encoded.to_vec(),
                    _ => {}
                }
            }
            let end = to.out.len();
            to.out.push(b',');
            let before = to.entries.get(first..).and_then(<[_]>::last);
            sorted &= before.is_none_or(|(before, _)| *before < key);
            to.entries.push((key, start..end));
        }
        // Keys that rise from one to the next are sorted, and none comes twice.
        if !sorted && !to.sort(begin, first) {
            return Err(A::Error::custom("a key twice"));
        }
        to.entries.truncate(first);
        to.close(begin, b'}');
        Ok(())
    }
}

impl Writer<'_> {
    /// Ends a list that began there, whose items all have a comma behind them.
    fn close(&mut self, begin: usize, end: u8) {
        if self.out.len() > begin {
            self.out.pop();
        }
        self.out.push(end);
    }

    /// Puts an object's entries, from `first` on, into the order of their keys; they stand in `out` from `begin` on. `false` when
    /// a key comes twice.
    fn sort(&mut self, begin: usize, first: usize) -> bool {
        let entries = self.entries.get_mut(first..).unwrap_or_default();
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if entries
            .windows(2)
            .any(|pair| matches!(pair, [(one, _), (other, _)] if one == other))
        {
            return false;
        }
        let mut ordered = Vec::with_capacity(self.out.len().saturating_sub(begin));
        for (_, place) in entries {
            ordered.extend_from_slice(self.out.get(place.clone()).unwrap_or_default());
            ordered.push(b',');
        }
        self.out.truncate(begin);
        self.out.append(&mut ordered);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
                open(&format!(r#"{{"signed":{text},"signatures":[]}}"#)).is_none(),
                "{text}"
            );
            assert!(
                open(&format!(r#"{{"signed":{{}},"signatures":{text}}}"#)).is_none(),
                "{text}"
            );
            assert!(
                open(&format!(r#"{{"signed":{{}},"signatures":[],"x":{text}}}"#)).is_none(),
                "{text}"
            );
        }
        assert_eq!(parse(&vec![b'['; 10_000_000]), None);
        let deep = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(parse(deep.as_bytes()).is_some());
        assert!(parse(format!("[{deep}]").as_bytes()).is_none());
        assert!(parse(br#"{"a":[1,-1,null,true,"x"]}"#).is_some());
    }

    #[test]
    fn an_envelope_is_read_to_its_end_and_holds_nothing_twice() {
        for text in [
            r#"{"signed":{},"signed":{}}"#,
            r#"{"signatures":[],"signatures":[]}"#,
            r#"{"x":1,"x":1}"#,
            r#"{"signed":{}} x"#,
            r#"{"signed":{"b":1,"a":2,"b":3}}"#,
            r#"{"signed":{"\u0061":1,"a":2}}"#,
            "[]",
            "1",
        ] {
            assert!(open(text).is_none(), "{text}");
        }
        let depth = DEPTH_MAX - 1;
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(open(&format!(r#"{{"signed":{deep}}}"#)).is_some());
        assert!(open(&format!(r#"{{"signed":[{deep}]}}"#)).is_none());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Writes JSON with keys in the opposite order, each character escaped that may be, and blanks between tokens.
    fn otherwise(value: &Value) -> String {
        let text = |text: &str| {
            let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            format!("\"{units}\"")
        };
        match value {
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(otherwise).collect();
                format!("[ {} ]", items.join(" , "))
            }
            Value::Object(map) => {
                let entries: Vec<_> = map
                    .iter()
                    .rev()
                    .map(|(key, value)| format!("{} :\t{}", text(key), otherwise(value)))
                    .collect();
                format!("{{\n{}\r\n}}", entries.join(" , "))
            }
            Value::String(string) => text(string),
            plain => plain.to_string(),
        }
    }

    proptest! {
        /// However a file is written, what signatures are over is what the encoder makes of the values in it.
        #[test]
        fn what_is_encoded_while_reading_is_what_the_encoder_writes(value in values()) {
            let expected = Some(canonical::of(&value).unwrap());
            for written in [value.to_string(), otherwise(&value)] {
                let opened = open(&format!(r#"{{"signatures":[],"signed":{written}}}"#)).unwrap();
                prop_assert_eq!(&opened.canonical, &expected);
                prop_assert_eq!(parse(written.as_bytes()), Some(value.clone()));
            }
        }
    }
}
