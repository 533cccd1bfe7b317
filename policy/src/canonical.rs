//! Canonical JSON as TUF's reference implementation encodes it (`securesystemslib`, after OLPC): the one encoding that is ever hashed
//! or signed. Decision 0005 says why it is written here.
//!
//! Keys are sorted by code point, nothing stands between tokens, a string escapes `"` and `\` and nothing else, numbers are integers.
//! Strings are taken as they are: two spellings of one text are two texts, for a reader that made them equal would verify a
//! signature over bytes nobody signed.

use serde::Serialize;
use serde::ser::Error as _;
use serde_json::{Error, Map, Value};

/// Encodes canonically. The only error is a number that is no integer, or a value that is not JSON.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    of(&serde_json::to_value(value)?)
}

/// Encodes a value that was read.
pub fn of(value: &Value) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    write(value, &mut bytes)?;
    Ok(bytes)
}

fn write(value: &Value, to: &mut Vec<u8>) -> Result<(), Error> {
    match value {
        Value::Null => to.extend_from_slice(b"null"),
        Value::Bool(true) => to.extend_from_slice(b"true"),
        Value::Bool(false) => to.extend_from_slice(b"false"),
        Value::Number(number) if number.is_f64() => return Err(Error::custom("a number that is no integer")),
        Value::Number(number) => to.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => string(text, to),
        Value::Array(items) => {
            to.push(b'[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    to.push(b',');
                }
                write(item, to)?;
            }
            to.push(b']');
        }
        Value::Object(map) => object(map, to)?,
    }
    Ok(())
}

fn object(map: &Map<String, Value>, to: &mut Vec<u8>) -> Result<(), Error> {
    // The order of the bytes of UTF-8 is the order of code points. A map is sorted already, unless a dependency turns on
    // `serde_json`'s feature of keeping the order that was read.
    let mut entries: Vec<_> = map.iter().collect();
    if !entries.is_sorted_by_key(|(key, _)| *key) {
        entries.sort_unstable_by_key(|(key, _)| *key);
    }
    to.push(b'{');
    for (place, (key, value)) in entries.into_iter().enumerate() {
        if place > 0 {
            to.push(b',');
        }
        string(key, to);
        to.push(b':');
        write(value, to)?;
    }
    to.push(b'}');
    Ok(())
}

/// Encodes one string: for readers that encode while they read, without a tree of values between.
pub fn string(text: &str, to: &mut Vec<u8>) {
    to.push(b'"');
    let mut rest = text.as_bytes();
    // Looking at every byte without stopping is several at a time, and hardly any text has one of the two.
    let special = rest
        .iter()
        .fold(false, |found, byte| found | matches!(byte, b'"' | b'\\'));
    if special {
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            let (plain, special) = rest.split_at(at);
            to.extend_from_slice(plain);
            to.push(b'\\');
            let (escaped, after) = special.split_at(1);
            to.extend_from_slice(escaped);
            rest = after;
        }
    }
    to.extend_from_slice(rest);
    to.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn text(value: &Value) -> String {
        String::from_utf8(of(value).unwrap()).unwrap()
    }

    /// What `securesystemslib.formats.encode_canonical` gives for the same values.
    #[test]
    fn what_the_reference_implementation_writes_is_written() {
        let value = json!({"b": [1, -2, null, true, false], "a": {}, "c": "x\"y\\z\n\u{1}é"});
        assert_eq!(
            text(&value),
            "{\"a\":{},\"b\":[1,-2,null,true,false],\"c\":\"x\\\"y\\\\z\n\u{1}é\"}"
        );
        assert_eq!(text(&json!([])), "[]");
        assert_eq!(
            text(&json!(18_446_744_073_709_551_615_u64)),
            "18446744073709551615"
        );
    }

    /// A formatter that sorts keys with their closing quote puts `a b` and `a!` before `a`.
    #[test]
    fn a_key_comes_before_every_longer_key_it_begins() {
        let value = json!({"a!": 1, "a b": 2, "a": 3, "a\"": 4, "aa": 5});
        assert_eq!(text(&value), r#"{"a":3,"a b":2,"a!":1,"a\"":4,"aa":5}"#);
    }

    /// `é` in one code point and in two are different texts, signed and read as such.
    #[test]
    fn spellings_are_kept_apart() {
        let value = json!({"e\u{301}": "\u{e9}", "\u{e9}": "e\u{301}"});
        assert_eq!(text(&value), "{\"e\u{301}\":\"\u{e9}\",\"\u{e9}\":\"e\u{301}\"}");
    }

    #[test]
    fn a_fraction_is_no_canonical_number() {
        assert!(of(&json!(1.5)).is_err());
        assert!(of(&json!({"a": [1e3]})).is_err());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[#-~]{0,8}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Another implementation agrees wherever it keeps to the specification: on keys without space and `!`, in one normal form.
        #[test]
        fn tough_s_formatter_agrees(value in values()) {
            let mut theirs = Vec::new();
            let mut serializer =
                serde_json::Serializer::with_formatter(&mut theirs, olpc_cjson::CanonicalFormatter::new());
            value.serialize(&mut serializer).unwrap();
            prop_assert_eq!(of(&value).unwrap(), theirs);
        }

        #[test]
        fn what_is_written_reads_back_as_what_it_was(value in values()) {
            prop_assert_eq!(serde_json::from_slice::<Value>(&of(&value).unwrap()).unwrap(), value);
        }
    }
}
