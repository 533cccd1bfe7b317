//! TUF metadata (TUF 1.0.34 §4) as received: signatures are checked over what came, unknown fields and key types survive.

pub use crate::delegation::{DelegatedRole, Delegations, SuccinctRoles};
use crate::listed::{Hashes, TargetMap};
use redan_protocol::{Authorities, ByteCount, Digest, UnixSeconds};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Two signatures under one key id.
    #[error("it has two signatures under one key id")]
    SignedTwice,
    /// Another `_type`, or a specification version of another major number.
    #[error("it is of another type or specification version")]
    Type,
    /// A field is missing or has another shape.
    #[error("a field is missing or has another shape")]
    Field,
    /// `expires` is not a date.
    #[error("`expires` is not a UTC date and time in whole seconds")]
    Expires,
    /// A threshold of zero, a key id twice in one role, or a delegated role that is named like a role of the root or like another
    /// one, or is trusted for paths in two ways or in none.
    #[error("a role's keys and threshold make no sense")]
    Role,
    /// The active authority is another than `ca_sha256`.
    #[error("its active certificate authority is not the one that `ca_sha256` names")]
    Authority,
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
    /// An envelope and what is in it, from JSON that was parsed.
    pub(crate) fn from_value(value: Value) -> Result<(Self, Value), Malformed> {
        let Value::Object(mut envelope) = value else {
            return Err(Malformed::Envelope);
        };
        let signed = envelope.remove("signed").ok_or(Malformed::Envelope)?;
        let signatures = signatures(envelope.remove("signatures"))?;
        let canonical = redan_policy::canonical::of(&signed).map_err(|_| Malformed::Json)?;
        let envelope = Self {
            canonical,
            signatures,
        };
        Ok((envelope, signed))
    }
}

/// What stands under `signatures`.
fn signatures(listed: Option<Value>) -> Result<Vec<Signature>, Malformed> {
    let Some(Value::Array(listed)) = listed else {
        return Err(Malformed::Envelope);
    };
    let (mut signatures, mut ids) = (Vec::new(), BTreeSet::new());
    for entry in &listed {
        let text = |name| entry.get(name).and_then(Value::as_str);
        let (Some(key), Some(sig)) = (text("keyid"), text("sig")) else {
            return Err(Malformed::Envelope);
        };
        // TUF 1.0.34 §4.2.1: a key id is unique here, even where there are enough signatures without its second one.
        if !ids.insert(key) {
            return Err(Malformed::SignedTwice);
        }
        // A signature that is no hexadecimal counts for nothing; it is not the file's fault.
        if let Ok(bytes) = hex::decode(sig) {
            signatures.push(Signature {
                key: key.to_owned(),
                bytes,
            });
        }
    }
    Ok(signatures)
}

/// Reads a file: its envelope, and `signed` as metadata of a type, in one go.
pub(crate) fn parse<T: Metadata>(bytes: &[u8]) -> Result<(Envelope, T), Malformed> {
    fast(bytes).ok_or_else(|| match slow::<T>(bytes) {
        Err(why) => why,
        // Nothing is believed that only one of the two reads.
        Ok(_) => Malformed::Field,
    })
}

fn fast<T: Metadata>(bytes: &[u8]) -> Option<(Envelope, T)> {
    let opened = crate::envelope::open::<T>(std::str::from_utf8(bytes).ok()?)?;
    let (signed, canonical) = opened.signed?;
    let envelope = Envelope {
        canonical,
        signatures: signatures(opened.signatures).ok()?,
    };
    let unquoted =
        |encoded: &[u8]| String::from_utf8(encoded.strip_prefix(b"\"")?.strip_suffix(b"\"")?.to_vec()).ok();
    of_type::<T>(&unquoted(&opened.kind)?, &unquoted(&opened.spec_version)?).ok()?;
    sane(&signed).ok()?;
    Some((envelope, signed))
}

/// The same by way of a tree of values: it says what is wrong.
fn slow<T: Metadata>(bytes: &[u8]) -> Result<(Envelope, T), Malformed> {
    let value = crate::json::parse(bytes).ok_or(Malformed::Json)?;
    let (envelope, signed) = Envelope::from_value(value)?;
    Ok((envelope, read(signed)?))
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
    of_type::<T>(text("_type"), text("spec_version"))?;
    if parse_expires(text("expires")).is_none() {
        return Err(Malformed::Expires);
    }
    let read = T::deserialize(signed).map_err(|_| Malformed::Field)?;
    sane(&read)?;
    Ok(read)
}

/// The type asked for, under version 1 of the specification: two or three numbers (TUF 1.0.34 §4.2.1, §6).
fn of_type<T: Metadata>(kind: &str, spec_version: &str) -> Result<(), Malformed> {
    let numbers: Vec<&str> = spec_version.split('.').collect();
    let number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let first = numbers.first() == Some(&"1") && (2..=3).contains(&numbers.len());
    if kind == T::TYPE && first && numbers.iter().all(number) {
        Ok(())
    } else {
        Err(Malformed::Type)
    }
}

fn sane(metadata: &impl Metadata) -> Result<(), Malformed> {
    metadata.sane()?;
    if metadata.version() == 0 {
        return Err(Malformed::Field);
    }
    Ok(())
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
    pub(crate) fn sane(&self) -> Result<(), Malformed> {
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
    /// Redan: SHA-256 of the certificate, DER, of the fleet's active authority.
    #[serde(default)]
    pub ca_sha256: Option<Digest>,
    /// Redan: all authorities of the fleet, in the release root once there was more than one (decision 0014).
    #[serde(default)]
    pub authorities: Option<Authorities>,
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
        match &self.authorities {
            Some(listed) if self.ca_sha256 != Some(listed.active()) => Err(Malformed::Authority),
            _ => Ok(()),
        }
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
    pub hashes: Hashes,
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
    pub targets: TargetMap,
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
        self.delegations.as_ref().map_or(Ok(()), Delegations::sane)
    }
}

/// The roles of a root (TUF 1.0.34 §2.1).
pub(crate) const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// One target.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct TargetEntry {
    /// Its length, bytes.
    pub length: u64,
    /// Its hashes.
    pub hashes: Hashes,
    /// Whatever its signers add.
    #[serde(default)]
    pub custom: Option<Value>,
}

impl TargetEntry {
    /// Its SHA-256, when it is signed.
    pub fn sha256(&self) -> Option<Digest> {
        self.hashes.sha256()
    }
}

/// Whether bytes are what a parent or a target entry says: length and hashes.
pub(crate) fn fits(bytes: &[u8], length: Option<u64>, hashes: &Hashes) -> bool {
    length.is_none_or(|length| u64::try_from(bytes.len()) == Ok(length)) && hashes.fit(bytes)
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
    fn a_role_name_is_one_segment_of_a_file_name() {
        assert_eq!(file_name("../root", Some(3)), "3...%2Froot.json");
        assert_eq!(file_name("a b%2f\0", None), "a%20b%252f%00.json");
        assert_eq!(
            file_name("component.acme.thermo", Some(1)),
            "1.component.acme.thermo.json"
        );
    }

    /// Two ways to read one file, and whoever can make them differ shows one device two files. Each byte of each kind of file is
    /// replaced in turn by one that means something to JSON.
    #[test]
    fn what_is_read_quickly_is_what_is_read_by_way_of_a_tree() {
        fn both<T: Metadata + std::fmt::Debug>(signed: &str) -> u32 {
            let file = format!(
                r#"{{"x": [1, {{}}], "signed": {signed}, "signatures": [{{"keyid": "a\u0062", "sig": "00ff"}}]}}"#
            );
            assert!(fast::<T>(file.as_bytes()).is_some(), "{file}");
            let mut read = 0;
            for at in 0..file.len() {
                for byte in *b"\"\\{}[]:,0.e-tx \n\xff\0" {
                    let mut bytes = file.clone().into_bytes();
                    bytes[at] = byte;
                    let quick = fast::<T>(&bytes);
                    read += u32::from(quick.is_some());
                    let text = String::from_utf8_lossy(&bytes);
                    assert_eq!(
                        format!("{quick:?}"),
                        format!("{:?}", slow::<T>(&bytes).ok()),
                        "{text}"
                    );
                }
            }
            read
        }
        let head = |kind: &str| {
            format!(
                r#""version": 7, "expires": "2030-01-01T00:00:00Z", "_type": "{kind}", "spec_version": "1.0.34""#
            )
        };
        let hashes = format!(r#"{{"sha256": "{}", "md5": "x"}}"#, "0a".repeat(32));
        let meta =
            format!(r#""meta": {{"snapshot.json": {{"version": 3, "hashes": {hashes}, "length": 1}}}}"#);
        let role = r#"{"keyids": ["a", "b"], "threshold": 2}"#;
        let key = r#"{"keytype": "k", "scheme": "s", "keyval": {"public": "00"}, "x": null}"#;
        let delegated =
            r#"{"name": "d", "keyids": ["a"], "threshold": 1, "terminating": true, "paths": ["*"]}"#;
        let targets = format!(
            r#""targets": {{"b/c": {{"length": 0, "hashes": {{}}}}, "a": {{"length": 1, "hashes": {hashes}, "custom": {{"x": "\u00e9"}}}}}}"#
        );
        let ca = Digest::of(b"a");
        let read = both::<Timestamp>(&format!("{{{}, {meta}}}", head("timestamp")))
            + both::<Snapshot>(&format!("{{{meta}, {}}}", head("snapshot")))
            + both::<Root>(&format!(
                r#"{{{}, "ca_sha256": "{ca}", "authorities": {{"{ca}": {{"state": "active", "certificate": "61"}}}}, "keys": {{"a": {key}}}, "consistent_snapshot": true, "roles": {{"root": {role}, "timestamp": {role}, "snapshot": {role}, "targets": {role}}}}}"#,
                head("root")
            ))
            + both::<Targets>(&format!(
                r#"{{{}, {targets}, "delegations": {{"keys": {{"a": {key}}}, "roles": [{delegated}]}}}}"#,
                head("targets")
            ));
        // A good part of them is still read, or nothing was compared.
        assert!(read > 5_000, "{read}");
    }
}
