//! What metadata lists: targets by path, and the hashes of a file. A role may list ten thousand, so each is kept in few pieces.

use crate::metadata::TargetEntry;
use redan_protocol::Digest;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;

/// The targets of one role by path.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TargetMap(Vec<(String, TargetEntry)>);

impl TargetMap {
    /// What is said of a path.
    pub fn get(&self, path: &str) -> Option<&TargetEntry> {
        let place = self.0.binary_search_by(|(listed, _)| listed.as_str().cmp(path));
        place
            .ok()
            .and_then(|place| self.0.get(place))
            .map(|(_, entry)| entry)
    }

    /// Paths and what is said of them, in the order of paths.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &TargetEntry)> {
        self.0.iter().map(|(path, entry)| (path, entry))
    }

    /// Paths, in order.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.0.iter().map(|(path, _)| path)
    }

    /// What is said, in the order of paths.
    pub fn values(&self) -> impl Iterator<Item = &TargetEntry> {
        self.0.iter().map(|(_, entry)| entry)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for TargetMap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Targets)
    }
}

struct Targets;

impl<'de> Visitor<'de> for Targets {
    type Value = TargetMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("targets by path")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<TargetMap, A::Error> {
        let mut listed: Vec<(String, TargetEntry)> = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            listed.push(entry);
        }
        if !listed.is_sorted_by(|(one, _), (other, _)| one < other) {
            listed.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            if listed
                .windows(2)
                .any(|pair| matches!(pair, [(one, _), (other, _)] if one == other))
            {
                return Err(A::Error::custom("a path twice"));
            }
        }
        Ok(TargetMap(listed))
    }
}

/// Hashes of one file by the name of their algorithm. Names nobody here knows are kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hashes {
    sha256: Option<Digest>,
    /// All others, and a `sha256` that is none, in the order of names.
    others: Vec<(String, String)>,
}

impl Hashes {
    /// The SHA-256, when it is there and is one.
    pub fn sha256(&self) -> Option<Digest> {
        self.sha256
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        self.sha256.is_none() && self.others.is_empty()
    }

    /// The hash that goes into file names (TUF 1.0.34 §6.2): any will do.
    pub(crate) fn prefix(&self) -> Option<String> {
        self.sha256
            .map(|digest| digest.to_string())
            .or_else(|| self.others.first().map(|(_, hash)| hash.clone()))
    }

    /// Whether bytes have every hash of a known kind, of which there must be one, if there are any hashes (sha256 or sha512).
    pub(crate) fn fit(&self, bytes: &[u8]) -> bool {
        use aws_lc_rs::digest::{Algorithm, SHA256, SHA512, digest};
        let is = |algorithm: &'static Algorithm, wanted: &str| {
            hex::encode(digest(algorithm, bytes).as_ref()) == wanted
        };
        let mut known = false;
        if let Some(wanted) = &self.sha256 {
            known = true;
            if digest(&SHA256, bytes).as_ref() != wanted.as_bytes() {
                return false;
            }
        }
        for (name, wanted) in &self.others {
            let fits = match name.as_str() {
                "sha256" => is(&SHA256, wanted),
                "sha512" => is(&SHA512, wanted),
                _ => continue,
            };
            known = true;
            if !fits {
                return false;
            }
        }
        known || self.is_empty()
    }
}

/// For makers of metadata, who list again what was listed.
impl Serialize for Hashes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let sha256 = self.sha256.map(|digest| ("sha256", digest.to_string()));
        let others = self
            .others
            .iter()
            .map(|(name, hash)| (name.as_str(), hash.clone()));
        to.collect_map(sha256.into_iter().chain(others))
    }
}

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Named)
    }
}

struct Named;

impl<'de> Visitor<'de> for Named {
    type Value = Hashes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hashes by algorithm")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Hashes, A::Error> {
        use crate::envelope::Text;
        let mut hashes = Hashes::default();
        while let Some(name) = entries.next_key_seed(Text)? {
            let hash = entries.next_value_seed(Text)?;
            let digest = Digest::parse(&hash).ok().filter(|_| name == "sha256");
            let twice = match digest {
                Some(digest) => hashes.sha256.replace(digest).is_some(),
                None => hashes.others.iter().any(|(known, _)| *known == name),
            };
            if twice {
                return Err(A::Error::custom("an algorithm twice"));
            }
            if digest.is_none() {
                hashes.others.push((name.into_owned(), hash.into_owned()));
            }
        }
        hashes.others.sort_unstable();
        Ok(hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hashes(value: serde_json::Value) -> Hashes {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_hash_counts_in_its_one_spelling_and_every_known_one_must_fit() {
        let (sha256, sha512) = (
            Digest::of(b"x").to_string(),
            hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, b"x")),
        );
        for (value, fits) in [
            (json!({}), true),
            (json!({ "sha256": sha256 }), true),
            (json!({ "sha512": sha512 }), true),
            (json!({ "sha256": sha256, "sha512": sha512, "md5": "?" }), true),
            (json!({ "sha256": sha256, "sha512": "00" }), false),
            (json!({ "sha256": "00", "sha512": sha512 }), false),
            (json!({ "sha256": sha256.to_uppercase() }), false),
            (json!({ "sha512": sha512.to_uppercase() }), false),
            (json!({ "sha256": "" }), false),
            // Kinds that nobody here knows prove nothing alone.
            (json!({ "md5": "?" }), false),
        ] {
            assert_eq!(hashes(value.clone()).fit(b"x"), fits, "{value}");
            assert_eq!(
                serde_json::to_value(hashes(value.clone())).unwrap(),
                value,
                "listed again"
            );
            assert_eq!(hashes(value.clone()).fit(b"y"), value == json!({}), "{value}");
        }
    }

    #[test]
    fn a_file_is_named_after_a_hash_that_is_listed() {
        let sha256 = Digest::of(b"x").to_string();
        assert_eq!(
            hashes(json!({ "a": "1", "sha256": sha256 })).prefix(),
            Some(sha256)
        );
        assert_eq!(hashes(json!({"b": "2", "a": "1"})).prefix(), Some("1".to_owned()));
        assert_eq!(hashes(json!({})).prefix(), None);
    }

    #[test]
    fn a_path_is_found_whatever_order_paths_came_in() {
        let entry = json!({"length": 1, "hashes": {}});
        let text = format!(r#"{{"b":{entry},"a":{entry},"c/d":{entry}}}"#);
        let targets: TargetMap = serde_json::from_str(&text).unwrap();
        assert_eq!(targets.keys().collect::<Vec<_>>(), ["a", "b", "c/d"]);
        assert!(["a", "b", "c/d"].iter().all(|path| targets.get(path).is_some()));
        assert_eq!(targets.get("c"), None);
        let twice = format!(r#"{{"b":{entry},"a":{entry},"b":{entry}}}"#);
        assert!(serde_json::from_str::<TargetMap>(&twice).is_err());
        assert!(serde_json::from_str::<Hashes>(r#"{"a":"1","a":"1"}"#).is_err());
    }
}
