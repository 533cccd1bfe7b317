//! TUF metadata (TUF 1.0.34 §4) as received: signatures are checked over what came, unknown fields and key types survive.

use redan_protocol::{ByteCount, Digest, UnixSeconds};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use time::format_description::well_known::Rfc3339;

/// What is wrong with a file, before anybody asks who signed it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Not strict JSON: a key twice, a float, too deep, bytes after the end.
    #[error("it is not strict JSON")]
    Json,
    /// Not `{"signed": …, "signatures": […]}`.
    #[error("it is not a signed envelope")]
    Envelope,
    /// Another `_type`, or a specification version of another major number.
    #[error("it is of another type or specification version")]
    Type,
    /// A field is missing or has another shape.
    #[error("a field is missing or has another shape")]
    Field,
    /// `expires` is not a date.
    #[error("`expires` is not a UTC date and time in whole seconds")]
    Expires,
    /// A threshold of zero, a key id twice in one role, or a delegated role that is named like a role of the root or is trusted
    /// for paths in two ways or in none.
    #[error("a role's keys and threshold make no sense")]
    Role,
}

/// One signature.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    pub(crate) key: String,
    pub(crate) bytes: Vec<u8>,
}

/// What is needed of an envelope to find out who signed it.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    /// Canonical JSON of `signed`: what signatures are over.
    pub(crate) canonical: Vec<u8>,
    pub(crate) signatures: Vec<Signature>,
}

impl Envelope {
    /// The envelope, and what is in it: to be taken apart, for metadata of ten thousand targets is not worth a copy.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, Value), Malformed> {
        Self::from_value(crate::json::parse(bytes).ok_or(Malformed::Json)?)
    }

    /// The same from JSON that was parsed.
    pub(crate) fn from_value(value: Value) -> Result<(Self, Value), Malformed> {
        let Value::Object(mut envelope) = value else {
            return Err(Malformed::Envelope);
        };
        let signed = envelope.remove("signed").ok_or(Malformed::Envelope)?;
        let Some(Value::Array(listed)) = envelope.remove("signatures") else {
            return Err(Malformed::Envelope);
        };
        let mut signatures = Vec::new();
        for entry in listed {
            let text = |name| entry.get(name).and_then(Value::as_str);
            let (Some(key), Some(sig)) = (text("keyid"), text("sig")) else {
                return Err(Malformed::Envelope);
            };
            // A signature that is no hexadecimal counts for nothing; it is not the file's fault.
            if let Ok(bytes) = hex::decode(sig) {
                signatures.push(Signature {
                    key: key.to_owned(),
                    bytes,
                });
            }
        }
        let canonical = redan_policy::canonical::of(&signed).map_err(|_| Malformed::Json)?;
        let envelope = Self {
            canonical,
            signatures,
        };
        Ok((envelope, signed))
    }
}

/// Metadata of one `_type`.
pub trait Metadata: DeserializeOwned {
    /// Its `_type`.
    const TYPE: &'static str;
    /// Its version.
    fn version(&self) -> u64;
    /// When it expires.
    fn expires(&self) -> UnixSeconds;
    /// What the shape alone does not say.
    fn sane(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Reads `signed` as metadata of a type.
pub(crate) fn read<T: Metadata>(signed: Value) -> Result<T, Malformed> {
    let text = |name| signed.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("_type") != T::TYPE || text("spec_version").split('.').next() != Some("1") {
        return Err(Malformed::Type);
    }
    if parse_expires(text("expires")).is_none() {
        return Err(Malformed::Expires);
    }
    let read = T::deserialize(signed).map_err(|_| Malformed::Field)?;
    read.sane()?;
    if read.version() == 0 {
        return Err(Malformed::Field);
    }
    Ok(read)
}

fn parse_expires(text: &str) -> Option<UnixSeconds> {
    let date = time::OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (text.ends_with('Z') && date.nanosecond() == 0).then_some(())?;
    u64::try_from(date.unix_timestamp()).ok().map(UnixSeconds::new)
}

fn expires<'de, D: serde::Deserializer<'de>>(from: D) -> Result<UnixSeconds, D::Error> {
    let text = String::deserialize(from)?;
    parse_expires(&text).ok_or_else(|| serde::de::Error::custom("not a date"))
}

/// A public key. Types and schemes nobody here knows are kept and never verify anything.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct Key {
    /// `ed25519`, `ecdsa`, `rsa` …
    pub keytype: String,
    /// `ed25519`, `ecdsa-sha2-nistp256`, `rsassa-pss-sha256` …
    pub scheme: String,
    /// `{"public": …}` for the types known here.
    pub keyval: Value,
}

/// Who may sign a role.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct RoleKeys {
    /// Opaque names of keys.
    pub keyids: Vec<String>,
    /// How many different ones must sign.
    pub threshold: u32,
}

impl RoleKeys {
    fn sane(&self) -> Result<(), Malformed> {
        let mut ids = self.keyids.clone();
        ids.sort();
        ids.dedup();
        if self.threshold == 0 || ids.len() != self.keyids.len() {
            return Err(Malformed::Role);
        }
        Ok(())
    }
}

/// `root.json`
#[derive(Clone, Debug, Deserialize)]
pub struct Root {
    version: u64,
    #[serde(deserialize_with = "expires")]
    expires: UnixSeconds,
    /// Whether file names begin with versions and hashes.
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// Keys by id.
    pub keys: BTreeMap<String, Key>,
    /// Roles by name.
    pub roles: BTreeMap<String, RoleKeys>,
    /// Redan: the fleet.
    #[serde(default)]
    pub fleet: Option<redan_protocol::FleetId>,
    /// Redan: `production` or `development`.
    #[serde(default)]
    pub profile: Option<String>,
    /// Redan: SHA-256 of the fleet's root certificate, DER.
    #[serde(default)]
    pub ca_sha256: Option<Digest>,
}

impl Metadata for Root {
    const TYPE: &'static str = "root";
    fn version(&self) -> u64 {
        self.version
    }
    fn expires(&self) -> UnixSeconds {
        self.expires
    }
    fn sane(&self) -> Result<(), Malformed> {
        for role in TOP_LEVEL {
            self.roles.get(role).ok_or(Malformed::Role)?.sane()?;
        }
        Ok(())
    }
}

/// What a parent says of a file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct MetaEntry {
    /// Its version.
    pub version: u64,
    /// Its length, when the parent says it.
    pub length: Option<u64>,
    /// Its hashes, when the parent says them.
    #[serde(default)]
    pub hashes: BTreeMap<String, String>,
}

/// `timestamp.json`
#[derive(Clone, Debug, Deserialize)]
pub struct Timestamp {
    version: u64,
    #[serde(deserialize_with = "expires")]
    expires: UnixSeconds,
    meta: BTreeMap<String, MetaEntry>,
}

impl Timestamp {
    /// What it says of the snapshot; that it says something was checked when it was read.
    pub fn snapshot(&self) -> Option<&MetaEntry> {
        self.meta.get("snapshot.json")
    }
}

impl Metadata for Timestamp {
    const TYPE: &'static str = "timestamp";
    fn version(&self) -> u64 {
        self.version
    }
    fn expires(&self) -> UnixSeconds {
        self.expires
    }
    fn sane(&self) -> Result<(), Malformed> {
        self.snapshot().map(drop).ok_or(Malformed::Field)
    }
}

/// `snapshot.json`
#[derive(Clone, Debug, Deserialize)]
pub struct Snapshot {
    version: u64,
    #[serde(deserialize_with = "expires")]
    expires: UnixSeconds,
    /// What it says of every targets file, by file name.
    pub meta: BTreeMap<String, MetaEntry>,
}

impl Metadata for Snapshot {
    const TYPE: &'static str = "snapshot";
    fn version(&self) -> u64 {
        self.version
    }
    fn expires(&self) -> UnixSeconds {
        self.expires
    }
}

/// `targets.json` and every delegated role.
#[derive(Clone, Debug, Deserialize)]
pub struct Targets {
    version: u64,
    #[serde(deserialize_with = "expires")]
    expires: UnixSeconds,
    /// Targets by path.
    pub targets: BTreeMap<String, TargetEntry>,
    /// Whom it trusts further.
    #[serde(default)]
    pub delegations: Option<Delegations>,
    /// Redan: the one device director metadata is for.
    #[serde(default)]
    pub device: Option<redan_protocol::SpiffeId>,
}

impl Metadata for Targets {
    const TYPE: &'static str = "targets";
    fn version(&self) -> u64 {
        self.version
    }
    fn expires(&self) -> UnixSeconds {
        self.expires
    }
    fn sane(&self) -> Result<(), Malformed> {
        for role in self.delegations.iter().flat_map(|delegations| &delegations.roles) {
            RoleKeys {
                keyids: role.keyids.clone(),
                threshold: role.threshold,
            }
            .sane()?;
            // A delegated `root` would be stored as the root.
            let reserved = role.name.is_empty() || TOP_LEVEL.contains(&role.name.as_str());
            if reserved || role.paths.is_some() == role.path_hash_prefixes.is_some() {
                return Err(Malformed::Role);
            }
        }
        Ok(())
    }
}

/// The roles of a root (TUF 1.0.34 §2.1).
const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// One target.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct TargetEntry {
    /// Its length, bytes.
    pub length: u64,
    /// Its hashes.
    pub hashes: BTreeMap<String, String>,
    /// Whatever its signers add.
    #[serde(default)]
    pub custom: Option<Value>,
}

impl TargetEntry {
    /// Its SHA-256, when it is signed.
    pub fn sha256(&self) -> Option<Digest> {
        Digest::parse(self.hashes.get("sha256")?).ok()
    }
}

/// Whom a targets role trusts further.
#[derive(Clone, Debug, Deserialize)]
pub struct Delegations {
    /// Keys by id.
    pub keys: BTreeMap<String, Key>,
    /// Roles, first match first.
    #[serde(default)]
    pub roles: Vec<DelegatedRole>,
}

/// One delegation.
#[derive(Clone, Debug, Deserialize)]
pub struct DelegatedRole {
    /// Its name.
    pub name: String,
    /// Its keys.
    pub keyids: Vec<String>,
    /// How many must sign.
    pub threshold: u32,
    /// Nobody after it is asked for its paths.
    #[serde(default)]
    pub terminating: bool,
    /// Patterns of target paths.
    #[serde(default)]
    pub paths: Option<Vec<String>>,
    /// Prefixes of the SHA-256 of target paths.
    #[serde(default)]
    pub path_hash_prefixes: Option<Vec<String>>,
}

impl DelegatedRole {
    /// Whether this role is trusted for a path.
    pub fn covers(&self, path: &str) -> bool {
        let by_path = self
            .paths
            .iter()
            .flatten()
            .any(|pattern| path_matches(pattern, path));
        let hash = Digest::of(path.as_bytes()).to_string();
        let by_hash = self
            .path_hash_prefixes
            .iter()
            .flatten()
            .any(|prefix| hash.starts_with(prefix.as_str()));
        by_path || by_hash
    }
}

/// TUF 1.0.34 §4.5 PATHPATTERN: equal numbers of segments; `*` and `?` never cross `/`.
pub(crate) fn path_matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len()
        && pattern
            .iter()
            .zip(&path)
            .all(|(pattern, segment)| glob(pattern.as_bytes(), segment.as_bytes()))
}

/// Shell-style match of one segment, linear in memory, quadratic in time at worst.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star, mut mark) = (0_usize, 0_usize, None, 0_usize);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some(p);
                mark = t;
                p = p.saturating_add(1);
            }
            Some(c) if *c == b'?' || Some(c) == text.get(t) => {
                p = p.saturating_add(1);
                t = t.saturating_add(1);
            }
            _ => {
                let Some(last) = star else { return false };
                p = last.saturating_add(1);
                mark = mark.saturating_add(1);
                t = mark;
            }
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|c| *c == b'*'))
}

/// Whether bytes are what a parent or a target entry says: length, and every hash of a known kind, at least one if any is
/// listed (sha256 or sha512).
pub(crate) fn fits(bytes: &[u8], length: Option<u64>, hashes: &BTreeMap<String, String>) -> bool {
    if length.is_some_and(|length| u64::try_from(bytes.len()) != Ok(length)) {
        return false;
    }
    let mut known = 0_u32;
    for (name, wanted) in hashes {
        let algorithm = match name.as_str() {
            "sha256" => &aws_lc_rs::digest::SHA256,
            "sha512" => &aws_lc_rs::digest::SHA512,
            _ => continue,
        };
        known = known.saturating_add(1);
        if hex::encode(aws_lc_rs::digest::digest(algorithm, bytes).as_ref()) != *wanted {
            return false;
        }
    }
    known > 0 || hashes.is_empty()
}

/// File name of a role: percent-quoted so that it is one path segment.
pub fn file_name(role: &str, version: Option<u64>) -> String {
    let stem = file_stem(role);
    version.map_or_else(
        || format!("{stem}.json"),
        |version| format!("{version}.{stem}.json"),
    )
}

/// A name as one path segment, percent-quoted: no role can be named so that its file leaves its folder.
pub fn file_stem(role: &str) -> String {
    let mut name = String::new();
    for byte in role.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            name.push(char::from(byte));
        } else {
            name.push('%');
            name.push_str(&hex::encode_upper([byte]));
        }
    }
    name
}

/// Longest files, bytes; the specification leaves the numbers to us (§5.3.3 and on).
pub mod limits {
    use super::ByteCount;
    /// Root: some signers with large post-quantum keys.
    pub const ROOT: ByteCount = ByteCount::kib(512);
    /// Timestamp: one entry and some signatures.
    pub const TIMESTAMP: ByteCount = ByteCount::kib(16);
    /// Snapshot: an entry for each of ten thousand roles.
    pub const SNAPSHOT: ByteCount = ByteCount::mib(2);
    /// Targets: ten thousand targets with their asks would not fit; a role is one component.
    pub const TARGETS: ByteCount = ByteCount::mib(8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_equal_numbers_of_segments() {
        for (pattern, path, matches) in [
            (
                "components/acme/thermo/*/*",
                "components/acme/thermo/1.0.0/abc.wasm",
                true,
            ),
            (
                "components/acme/thermo/*/*",
                "components/acme/thermo/1.0.0/x/abc.wasm",
                false,
            ),
            (
                "components/acme/thermo/*/*",
                "components/acme/thermo/abc.wasm",
                false,
            ),
            ("plans/*", "plans/a/b", false),
            ("*", "a/b", false),
            ("foo-version-?.tgz", "foo-version-2.tgz", true),
            ("*.tgz", "foo.tgz", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2", false),
            ("**", "x", true),
        ] {
            assert_eq!(path_matches(pattern, path), matches, "{pattern} {path}");
        }
    }

    #[test]
    fn a_role_name_is_one_segment_of_a_file_name() {
        assert_eq!(file_name("../root", Some(3)), "3...%2Froot.json");
        assert_eq!(file_name("a b%2f\0", None), "a%20b%252f%00.json");
        assert_eq!(
            file_name("component.acme.thermo", Some(1)),
            "1.component.acme.thermo.json"
        );
    }

    #[test]
    fn hashes_of_unknown_kinds_alone_prove_nothing() {
        let unknown = BTreeMap::from([("md5".to_owned(), "x".to_owned())]);
        assert!(!fits(b"x", None, &unknown));
        assert!(fits(b"x", Some(1), &BTreeMap::new()));
        assert!(!fits(b"x", Some(2), &BTreeMap::new()));
        let sha512 = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, b"x"));
        assert!(fits(b"x", None, &BTreeMap::from([("sha512".to_owned(), sha512)])));
    }
}
