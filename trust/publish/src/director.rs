//! A device's director repository: what it is directed to, signed by online keys.

use crate::metadata::{File, set, sign, snapshot, target_entry, targets, timestamp};
use crate::{PublishError, SigningKey};
use redan_protocol::{SpiffeId, UnixSeconds};
use redan_trust::custom::DirectorCustom;
use serde_json::json;
use std::collections::BTreeMap;

/// One directed target: its path, and length and SHA-256 as release signers said.
#[derive(Clone, Debug)]
pub struct Directed {
    /// Its target path.
    pub path: String,
    /// Its length, bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: redan_protocol::Digest,
    /// Record and direction.
    pub custom: DirectorCustom,
}

/// The online keys of a director.
#[derive(Clone, Copy, Debug)]
pub struct DirectorKeys<'a> {
    /// Role `targets`.
    pub targets: &'a SigningKey,
    /// Role `snapshot`.
    pub snapshot: &'a SigningKey,
    /// Role `timestamp`.
    pub timestamp: &'a SigningKey,
}

/// When the files expire.
#[derive(Clone, Copy, Debug)]
pub struct DirectorExpiry {
    /// `targets.json` and `snapshot.json`.
    pub targets: UnixSeconds,
    /// `timestamp.json`.
    pub timestamp: UnixSeconds,
}

/// The three files, all of one version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectorFiles {
    /// Their version.
    pub version: u64,
    /// `<version>.targets.json`
    pub targets: File,
    /// `<version>.snapshot.json`
    pub snapshot: File,
    /// `timestamp.json`
    pub timestamp: File,
}

/// Builds and signs them. The device is named also when nothing is directed.
pub fn director(
    device: &SpiffeId,
    version: u64,
    directed: &[Directed],
    expiry: DirectorExpiry,
    keys: DirectorKeys<'_>,
) -> Result<DirectorFiles, PublishError> {
    let mut entries = BTreeMap::new();
    for one in directed {
        entries.insert(
            one.path.clone(),
            target_entry(one.length, one.sha256, Some(&one.custom))?,
        );
    }
    let mut signed = targets(version, expiry.targets, &entries, &[])?;
    set(&mut signed, "device", json!(device));
    let targets = sign(&signed, &[keys.targets])?;
    let files = BTreeMap::from([("targets.json".to_owned(), (version, targets.clone()))]);
    let snapshot = sign(&snapshot(version, expiry.targets, &files)?, &[keys.snapshot])?;
    let timestamp = sign(
        &timestamp(version, expiry.timestamp, (version, &snapshot))?,
        &[keys.timestamp],
    )?;
    Ok(DirectorFiles {
        version,
        targets,
        snapshot,
        timestamp,
    })
}
