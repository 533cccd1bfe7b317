//! Building metadata. Values here are what is signed: canonical JSON of them goes under the signatures.

use crate::{PublicKey, PublishError, SigningKey};
use redan_protocol::{Digest, FleetId, UnixSeconds};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The specification this follows.
const SPEC: &str = "1.0.34";

/// Whether fleets are for real.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Keys on air-gapped machines, thresholds above one.
    Production,
    /// Keys in files, threshold one. Shown everywhere; can never become the other.
    Development,
}

/// Who may sign a role.
#[derive(Clone, Debug)]
pub struct Signers {
    /// Keys, each once.
    pub keys: Vec<PublicKey>,
    /// How many of them must sign.
    pub threshold: u32,
}

/// A root to be.
#[derive(Clone, Debug)]
pub struct RootSpec {
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: UnixSeconds,
    /// The fleet.
    pub fleet: FleetId,
    /// For real or not.
    pub profile: Profile,
    /// SHA-256 of the fleet's root certificate.
    pub ca_sha256: Digest,
    /// `root`, `targets`, `snapshot`, `timestamp`.
    pub roles: BTreeMap<&'static str, Signers>,
}

/// A delegation to be.
#[derive(Clone, Debug)]
pub struct Delegation {
    /// Its role name.
    pub name: String,
    /// Its paths.
    pub paths: Vec<String>,
    /// Who signs it.
    pub signers: Signers,
}

/// A signed file.
pub type File = Vec<u8>;

/// A date as metadata writes it: UTC, whole seconds.
pub fn date(at: UnixSeconds) -> Result<String, PublishError> {
    let seconds = i64::try_from(at.get()).map_err(|_| PublishError::Date)?;
    let date = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PublishError::Date)?;
    date.format(&Rfc3339).map_err(|_| PublishError::Date)
}

/// Keys by id, refusing one public key under two ids and two under one: a threshold counts keys, and so must its makers.
fn keys<'a>(signers: impl Iterator<Item = &'a Signers>) -> Result<Map<String, Value>, PublishError> {
    let mut keys = Map::new();
    let (mut publics, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for signers in signers {
        let distinct: BTreeSet<&str> = signers.keys.iter().map(|key| key.public.as_str()).collect();
        let threshold = usize::try_from(signers.threshold).unwrap_or(usize::MAX);
        if distinct.len() != signers.keys.len() || threshold == 0 || threshold > distinct.len() {
            return Err(PublishError::Threshold {
                keys: distinct.len(),
                threshold: signers.threshold,
            });
        }
        for key in &signers.keys {
            // Across roles too: they share one table, and in it one of the two would silently take the other's place.
            let known = (
                publics.insert(&key.id, &key.public),
                ids.insert(&key.public, &key.id),
            );
            if !matches!(known, (None, None)) && known != (Some(&key.public), Some(&key.id)) {
                return Err(PublishError::KeyId { id: key.id.clone() });
            }
            keys.insert(key.id.clone(), key.tuf());
        }
    }
    Ok(keys)
}

fn ids(signers: &Signers) -> Vec<&str> {
    signers.keys.iter().map(|key| key.id.as_str()).collect()
}

/// `root.json`, unsigned.
pub fn root(spec: &RootSpec) -> Result<Value, PublishError> {
    let roles: Map<String, Value> = spec
        .roles
        .iter()
        .map(|(name, signers)| {
            (
                (*name).to_owned(),
                json!({"keyids": ids(signers), "threshold": signers.threshold}),
            )
        })
        .collect();
    Ok(json!({
        "_type": "root",
        "spec_version": SPEC,
        "consistent_snapshot": true,
        "version": spec.version,
        "expires": date(spec.expires)?,
        "keys": keys(spec.roles.values())?,
        "roles": roles,
        "fleet": spec.fleet,
        "profile": spec.profile,
        "ca_sha256": spec.ca_sha256,
    }))
}

/// A targets role, unsigned: targets by path, and delegations, first match first.
pub fn targets(
    version: u64,
    expires: UnixSeconds,
    targets: &BTreeMap<String, Value>,
    delegations: &[Delegation],
) -> Result<Value, PublishError> {
    let mut signed = json!({
        "_type": "targets",
        "spec_version": SPEC,
        "version": version,
        "expires": date(expires)?,
        "targets": targets,
    });
    if !delegations.is_empty() {
        let roles: Vec<Value> = delegations
            .iter()
            .map(|delegation| {
                json!({
                    "name": delegation.name,
                    "keyids": ids(&delegation.signers),
                    "threshold": delegation.signers.threshold,
                    "terminating": true,
                    "paths": delegation.paths,
                })
            })
            .collect();
        let keys = keys(delegations.iter().map(|delegation| &delegation.signers))?;
        set(&mut signed, "delegations", json!({"keys": keys, "roles": roles}));
    }
    Ok(signed)
}

/// One target, for [`targets`].
pub fn target(bytes: &[u8], custom: Option<&impl Serialize>) -> Result<Value, PublishError> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    target_entry(length, Digest::of(bytes), custom)
}

/// The same when only length and digest are known.
pub fn target_entry(
    length: u64,
    sha256: Digest,
    custom: Option<&impl Serialize>,
) -> Result<Value, PublishError> {
    let mut entry = json!({"length": length, "hashes": {"sha256": sha256}});
    if let Some(custom) = custom {
        set(
            &mut entry,
            "custom",
            serde_json::to_value(custom).map_err(|_| PublishError::Crypto)?,
        );
    }
    Ok(entry)
}

/// `snapshot.json`, unsigned: every targets file with its version and bytes.
pub fn snapshot(
    version: u64,
    expires: UnixSeconds,
    files: &BTreeMap<String, (u64, File)>,
) -> Result<Value, PublishError> {
    let meta: Map<String, Value> = files
        .iter()
        .map(|(name, (version, bytes))| (name.clone(), meta(*version, bytes)))
        .collect();
    Ok(json!({
        "_type": "snapshot",
        "spec_version": SPEC,
        "version": version,
        "expires": date(expires)?,
        "meta": meta,
    }))
}

/// `timestamp.json`, unsigned.
pub fn timestamp(version: u64, expires: UnixSeconds, snapshot: (u64, &[u8])) -> Result<Value, PublishError> {
    Ok(json!({
        "_type": "timestamp",
        "spec_version": SPEC,
        "version": version,
        "expires": date(expires)?,
        "meta": {"snapshot.json": meta(snapshot.0, snapshot.1)},
    }))
}

fn meta(version: u64, bytes: &[u8]) -> Value {
    json!({"version": version, "length": bytes.len(), "hashes": {"sha256": Digest::of(bytes)}})
}

pub(crate) fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(map) = object {
        map.insert(name.to_owned(), value);
    }
}

/// The bytes signatures are over.
pub fn canonical(signed: &Value) -> Result<Vec<u8>, PublishError> {
    redan_policy::canonical::of(signed).map_err(|_| PublishError::Crypto)
}

/// One signature by itself, for signers who sign one after another: hexadecimal, to be put under `signed` by whoever has enough.
pub fn detached(signed: &Value, key: &SigningKey) -> Result<String, PublishError> {
    Ok(hex::encode(key.sign(&canonical(signed)?)?))
}

/// Signs. Refuses to sign twice with one key.
pub fn sign(signed: &Value, keys: &[&SigningKey]) -> Result<File, PublishError> {
    let envelope = envelope(signed, keys)?;
    serde_json::to_vec(&envelope).map_err(|_| PublishError::Crypto)
}

/// The same, as a value: for documents that travel inside others.
pub fn envelope(signed: &Value, keys: &[&SigningKey]) -> Result<Value, PublishError> {
    let canonical = canonical(signed)?;
    let mut signatures = BTreeMap::new();
    for key in keys {
        signatures.insert(key.public().id, hex::encode(key.sign(&canonical)?));
    }
    if signatures.is_empty() || signatures.len() != keys.len() {
        return Err(PublishError::Keys);
    }
    let signatures: Vec<Value> = signatures
        .into_iter()
        .map(|(id, sig)| json!({"keyid": id, "sig": sig}))
        .collect();
    Ok(json!({"signed": signed, "signatures": signatures}))
}
