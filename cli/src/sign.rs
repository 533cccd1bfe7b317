//! A new version of one role and a new snapshot: fetched, verified, changed, signed, uploaded together.

use crate::access::{Server, now};
use crate::error::CliError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use redan_protocol::Seconds;
use redan_publish::metadata::{sign, snapshot, targets};
use redan_publish::{Passphrase, SigningKey};
use redan_trust::Claimed;
use redan_trust::listed::TargetMap;
use redan_trust::metadata::{Root, Targets, file_name};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A release snapshot lives 90 days (10-trust).
pub(crate) const SNAPSHOT_LIFE: Seconds = Seconds::new(90 * 86_400);

/// The key files of who signs, and the files with their passphrases.
#[derive(Args, Clone, Debug)]
pub struct Keys {
    /// Key file of the signed role or of the snapshot role, or the pkcs11: URI of one in a token; may be given several times.
    #[arg(long = "key", required = true)]
    keys: Vec<PathBuf>,
    /// File with the passphrase of wrapped keys, of one line and mode 0600; may be given several times, each key is tried with each.
    #[arg(long = "passphrase-file")]
    passphrases: Vec<PathBuf>,
}

impl Keys {
    /// Reads them.
    pub fn open(&self) -> Result<Vec<SigningKey>, CliError> {
        let read: Result<Vec<_>, _> = self
            .passphrases
            .iter()
            .map(|path| Passphrase::read(path))
            .collect();
        let passphrases = read?;
        let open = |path: &PathBuf| SigningKey::open(path, &passphrases);
        Ok(self.keys.iter().map(open).collect::<Result<_, _>>()?)
    }
}

/// Those of the keys that a role of a root names.
pub(crate) fn root_signers<'a>(
    keys: &'a [SigningKey],
    root: &Root,
    role: &str,
) -> Result<Vec<&'a SigningKey>, CliError> {
    let named = root.roles.get(role).ok_or_else(|| {
        CliError::Metadata(redan_trust::TufError::Unlisted {
            role: role.to_owned(),
        })
    })?;
    signers(keys, &publics(&named.keyids, &root.keys), named.threshold, role)
}

/// Those of the keys that a role names; an error when there are too few for its threshold.
fn signers<'a>(
    keys: &'a [SigningKey],
    publics: &[String],
    threshold: u32,
    role: &str,
) -> Result<Vec<&'a SigningKey>, CliError> {
    let fitting: Vec<&SigningKey> = keys
        .iter()
        .filter(|key| publics.contains(&key.public().public))
        .collect();
    if u32::try_from(fitting.len()).unwrap_or(0) < threshold || fitting.is_empty() {
        return Err(CliError::Key {
            role: role.to_owned(),
        });
    }
    Ok(fitting)
}

fn publics(ids: &[String], keys: &BTreeMap<String, redan_trust::metadata::Key>) -> Vec<String> {
    let public = |id: &String| {
        keys.get(id)?
            .keyval
            .get("public")?
            .as_str()
            .map(ToOwned::to_owned)
    };
    ids.iter().filter_map(public).collect()
}

/// Adds a target to a delegated role, signs role and snapshot, and uploads both.
pub async fn publish_target(
    server: &mut Server,
    role: &str,
    life: Seconds,
    path: &str,
    entry: Value,
    keys: &[SigningKey],
) -> Result<(), CliError> {
    let release = server.release().await?;
    let unlisted = || {
        CliError::Metadata(redan_trust::TufError::Unlisted {
            role: role.to_owned(),
        })
    };
    let delegations = release.targets().delegations.as_ref().ok_or_else(unlisted)?;
    let delegated = delegations
        .roles
        .iter()
        .find(|delegated| delegated.name == role)
        .ok_or_else(unlisted)?;
    if !delegated.covers(path) {
        return Err(unlisted());
    }
    let role_signers = signers(
        keys,
        &publics(&delegated.keyids, &delegations.keys),
        delegated.threshold,
        role,
    )?;
    let snapshot_signers = root_signers(keys, release.root(), "snapshot")?;

    let mut files = BTreeMap::new();
    for file in release.snapshot().meta.keys() {
        let name = file.trim_end_matches(".json");
        files.insert(file.clone(), server.role(&release, name).await?);
    }
    // A component that was delegated after the founding signs its first file here.
    let (version, old) = match files.get(&format!("{role}.json")) {
        Some((version, old)) => {
            let old = Claimed::<Targets>::parse(old).map_err(|_| CliError::Answer("a targets role"))?;
            (*version, old.into_peeked().targets)
        }
        None => (0, TargetMap::default()),
    };
    let mut entries: BTreeMap<String, Value> = BTreeMap::new();
    for (path, entry) in old.iter() {
        let mut value = json!({"length": entry.length, "hashes": entry.hashes});
        if let (Some(custom), Value::Object(map)) = (&entry.custom, &mut value) {
            map.insert("custom".into(), custom.clone());
        }
        entries.insert(path.clone(), value);
    }
    entries.insert(path.to_owned(), entry);
    let version = version.saturating_add(1);
    let now = now();
    let signed = sign(&targets(version, now.after(life), &entries, &[])?, &role_signers)?;
    files.insert(format!("{role}.json"), (version, signed.clone()));
    let snapshot_version = release.snapshot_version().saturating_add(1);
    let new_snapshot = sign(
        &snapshot(snapshot_version, now.after(SNAPSHOT_LIFE), &files)?,
        &snapshot_signers,
    )?;
    let body = json!({"files": {
        file_name(role, Some(version)): STANDARD.encode(&signed),
        file_name("snapshot", Some(snapshot_version)): STANDARD.encode(&new_snapshot),
    }});
    server.post("/v1/release", &body).await.map(drop)
}

/// Stores bytes under their digest.
pub async fn upload(server: &mut Server, bytes: Vec<u8>) -> Result<(), CliError> {
    let digest = redan_protocol::Digest::of(&bytes);
    let _: Value = server
        .call("PUT", &format!("/v1/artifacts/{digest}"), bytes)
        .await?;
    Ok(())
}
