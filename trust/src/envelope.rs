//! A signed file read once: what its type wants, and canonical JSON of what signatures are over.

use crate::json::{DEPTH_MAX, Strict};
use redan_policy::canonical;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer as _, MapAccess,
    SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::io::Write as _;
use std::marker::PhantomData;
use std::ops::Range;

/// An envelope that was read strictly from end to end, without a tree of values for what is in it: ten thousand targets are a
/// hundred thousand small strings.
#[derive(Debug)]
pub(crate) struct Opened<T> {
    /// What stands under `signed`, and its canonical JSON, when there is one.
    pub(crate) signed: Option<(T, Vec<u8>)>,
    /// Canonical JSON of its `_type`.
    pub(crate) kind: Vec<u8>,
    /// Canonical JSON of its `spec_version`.
    pub(crate) spec_version: Vec<u8>,
    /// What stands under `signatures`.
    pub(crate) signatures: Option<Value>,
}

/// Reads an envelope as strictly as [`crate::json::parse`] does, and what is signed in it as a `T`; `None` when it is no such JSON, or no object.
pub(crate) fn open<T: DeserializeOwned>(text: &str) -> Option<Opened<T>> {
    let mut from = serde_json::Deserializer::from_str(text);
    let envelope = Envelope {
        len: text.len(),
        signs: PhantomData,
    };
    let opened = envelope.deserialize(&mut from).ok()?;
    from.end().ok()?;
    Some(opened)
}

struct Envelope<T> {
    /// How long all of it is: what is encoded is hardly longer than what was written.
    len: usize,
    signs: PhantomData<fn() -> T>,
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Envelope<T> {
    type Value = Opened<T>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Opened<T>, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Envelope<T> {
    type Value = Opened<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Opened<T>, A::Error> {
        let inner = Strict { depth: DEPTH_MAX }.deeper()?;
        let mut seen = BTreeSet::new();
        let mut opened = Opened {
            signed: None,
            kind: Vec::new(),
            spec_version: Vec::new(),
            signatures: None,
        };
        while let Some(key) = entries.next_key_seed(Text)? {
            match key.as_ref() {
                "signed" => {
                    let mut writer = Writer {
                        out: Vec::with_capacity(self.len),
                        ..Writer::default()
                    };
                    let signed = entries.next_value_seed(Encoding {
                        seed: PhantomData,
                        to: &mut writer,
                        depth: inner,
                        outermost: true,
                    })?;
                    opened.signed = Some((signed, writer.out));
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

/// Between a reader and whoever wants a value: encodes what goes through. `S` is the seed, the visitor or the source of one value.
struct Encoding<'w, 'de, S> {
    seed: S,
    to: &'w mut Writer<'de>,
    depth: Strict,
    /// The value is `signed` itself.
    outermost: bool,
}

impl<'w, 'de, S> Encoding<'w, 'de, S> {
    fn split(self) -> (S, Encoding<'w, 'de, ()>) {
        let place = Encoding {
            seed: (),
            to: self.to,
            depth: self.depth,
            outermost: self.outermost,
        };
        (self.seed, place)
    }

    /// The same place in the text, in other hands.
    fn with<R>(self, seed: R) -> Encoding<'w, 'de, R> {
        Encoding {
            seed,
            to: self.to,
            depth: self.depth,
            outermost: self.outermost,
        }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Encoding<'_, 'de, S> {
    type Value = S::Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<S::Value, D::Error> {
        let (seed, place) = self.split();
        seed.deserialize(place.with(from))
    }
}

/// Whatever is asked for, the text says what it is: so everything in it is seen, also what nobody wants.
impl<'de, D: Deserializer<'de>> Deserializer<'de> for Encoding<'_, 'de, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (from, place) = self.split();
        from.deserialize_any(place.with(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (from, place) = self.split();
        from.deserialize_option(place.with(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Encoding<'_, 'de, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seed.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.to
            .out
            .extend_from_slice(if value { b"true" } else { b"false" });
        self.seed.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        write!(self.to.out, "{value}").map_err(E::custom)?;
        self.seed.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        write!(self.to.out, "{value}").map_err(E::custom)?;
        self.seed.visit_u64(value)
    }

    /// Not for [`Visitor`]s that would take one.
    fn visit_f64<E: Error>(self, _: f64) -> Result<V::Value, E> {
        Err(E::custom("a number that is no integer"))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        canonical::string(value, &mut self.to.out);
        self.seed.visit_borrowed_str(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        canonical::string(value, &mut self.to.out);
        self.seed.visit_str(value)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.to.out.extend_from_slice(b"null");
        self.seed.visit_unit()
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.to.out.extend_from_slice(b"null");
        self.seed.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<V::Value, D::Error> {
        let (visitor, place) = self.split();
        visitor.visit_some(place.with(from))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        let (to, depth) = (self.to, self.depth.deeper()?);
        to.out.push(b'[');
        let begin = to.out.len();
        let mut items = Items {
            from: items,
            to: &mut *to,
            depth,
            ended: false,
        };
        let value = self.seed.visit_seq(&mut items)?;
        items.end()?;
        to.close(begin, b']');
        Ok(value)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        let (to, depth) = (self.to, self.depth.deeper()?);
        to.out.push(b'{');
        let (begin, first) = (to.out.len(), to.entries.len());
        let mut entries = Entries {
            from: entries,
            to: &mut *to,
            depth,
            outermost: self.outermost,
            first,
            key: None,
            sorted: true,
            ended: false,
        };
        let value = self.seed.visit_map(&mut entries)?;
        let sorted = entries.end()?;
        // Keys that rise from one to the next are sorted, and none comes twice.
        if !sorted && !to.sort(begin, first) {
            return Err(A::Error::custom("a key twice"));
        }
        to.entries.truncate(first);
        to.close(begin, b'}');
        Ok(value)
    }
}

/// The items of one list.
struct Items<'w, 'de, A> {
    from: A,
    to: &'w mut Writer<'de>,
    depth: Strict,
    ended: bool,
}

impl<'de, A: SeqAccess<'de>> Items<'_, 'de, A> {
    /// Takes those that nobody asked for.
    fn end(&mut self) -> Result<(), A::Error> {
        while !self.ended {
            self.next_element::<IgnoredAny>()?;
        }
        Ok(())
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<'_, 'de, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let item = self.from.next_element_seed(Encoding {
            seed,
            to: &mut *self.to,
            depth: self.depth,
            outermost: false,
        })?;
        if item.is_some() {
            self.to.out.push(b',');
        } else {
            self.ended = true;
        }
        Ok(item)
    }
}

/// The entries of one object.
struct Entries<'w, 'de, A> {
    from: A,
    to: &'w mut Writer<'de>,
    depth: Strict,
    outermost: bool,
    /// Where this object's entries begin among those of all open ones.
    first: usize,
    /// The key whose value comes next, and where it was written.
    key: Option<(Cow<'de, str>, usize)>,
    sorted: bool,
    ended: bool,
}

impl<'de, A: MapAccess<'de>> Entries<'_, 'de, A> {
    /// Takes those that nobody asked for; whether keys rose all the way.
    fn end(&mut self) -> Result<bool, A::Error> {
        if self.key.is_some() {
            self.next_value::<IgnoredAny>()?;
        }
        while !self.ended {
            self.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        Ok(self.sorted)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(key) = self.from.next_key_seed(Text)? else {
            self.ended = true;
            return Ok(None);
        };
        let start = self.to.out.len();
        canonical::string(&key, &mut self.to.out);
        self.to.out.push(b':');
        let read = match &key {
            Cow::Borrowed(text) => seed.deserialize(BorrowedStrDeserializer::new(text))?,
            Cow::Owned(text) => seed.deserialize(text.as_str().into_deserializer())?,
        };
        self.key = Some((key, start));
        Ok(Some(read))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let (key, start) = self
            .key
            .take()
            .ok_or_else(|| A::Error::custom("a value without its key"))?;
        let begin = self.to.out.len();
        let value = self.from.next_value_seed(Encoding {
            seed,
            to: &mut *self.to,
            depth: self.depth,
            outermost: false,
        })?;
        if self.outermost {
            let encoded = self.to.out.get(begin..).unwrap_or_default();
            match key.as_ref() {
                "_type" => self.to.kind = encoded.to_vec(),
                "spec_version" => self.to.spec_version = encoded.to_vec(),
                _ => {}
            }
        }
        let end = self.to.out.len();
        self.to.out.push(b',');
        let before = self.to.entries.get(self.first..).and_then(<[_]>::last);
        self.sorted &= before.is_none_or(|(before, _)| *before < key);
        self.to.entries.push((key, start..end));
        Ok(value)
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
    use crate::json::parse;
    use proptest::prelude::*;

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
            assert!(open::<IgnoredAny>(text).is_none(), "{text}");
        }
        let depth = DEPTH_MAX - 1;
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(open::<Value>(&format!(r#"{{"signed":{deep}}}"#)).is_some());
        assert!(open::<Value>(&format!(r#"{{"signed":[{deep}]}}"#)).is_none());
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
            let units: Vec<String> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            let units = units.concat();
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
                let opened = open::<Value>(&format!(r#"{{"signatures":[],"signed":{written}}}"#)).unwrap();
                let (read, encoded) = opened.signed.unwrap();
                prop_assert_eq!(Some(encoded), expected.clone());
                prop_assert_eq!(&read, &value);
                prop_assert_eq!(parse(written.as_bytes()), Some(value.clone()));
            }
        }
    }
}
