//! Between a ceremony and the server: new roots and targets files on their way there, with a snapshot that lists them; and the
//! present metadata on its way back.

use crate::access::{Access, now};
use crate::error::CliError;
use crate::sign::{SNAPSHOT_LIFE, root_signers};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_publish::SigningKey;
use redan_publish::metadata::{sign, snapshot};
use redan_trust::Claimed;
use redan_trust::metadata::{Metadata as _, Root, Targets, file_name};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Uploads what the folder has and the server has not: the roots that follow the server's, the newest file of every role, and a
/// snapshot over both, signed here. The server walks it all as a device would and takes all or nothing.
pub async fn upload(access: &Access, folder: &Path, keys: &[SigningKey]) -> Result<Value, CliError> {
    let mut server = access.connect().await?;
    let release = server.release().await?;
    let mut uploaded: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut root = release.root().clone();
    while let Some((name, bytes)) = file(folder, "root", root.version().saturating_add(1))? {
        root = Claimed::<Root>::parse(&bytes)
            .map_err(|_| CliError::File {
                path: folder.join(&name).display().to_string(),
                what: "it is no root".to_owned(),
            })?
            .into_peeked();
        uploaded.insert(name, bytes);
    }
    let mut files = BTreeMap::new();
    for listed in release.snapshot().meta.keys() {
        let role = listed.trim_end_matches(".json");
        files.insert(listed.clone(), server.role(&release, role).await?);
    }
    // The top-level role first: it names those it delegates to since.
    newer(folder, "targets", &mut files, &mut uploaded)?;
    for role in delegated(&files) {
        newer(folder, &role, &mut files, &mut uploaded)?;
    }
    if uploaded.is_empty() {
        return Err(CliError::Usage {
            what: format!("the server has everything that is in {}", folder.display()),
            remedy: "name the public/release folder that redan-ceremony assemble wrote to",
        });
    }
    let version = release.snapshot_version().saturating_add(1);
    // By the newest root: a holder who left signs nothing any more.
    let signers = root_signers(keys, &root, "snapshot")?;
    let signed = sign(&snapshot(version, now().after(SNAPSHOT_LIFE), &files)?, &signers)?;
    uploaded.insert(file_name("snapshot", Some(version)), signed);
    let encoded: BTreeMap<&String, String> = uploaded
        .iter()
        .map(|(name, bytes)| (name, STANDARD.encode(bytes)))
        .collect();
    server.post("/v1/release", &json!({"files": encoded})).await
}

/// Brings the server's present metadata into the folder, for the next ceremony, which verifies it file by file; never over a file
/// that says something else.
pub async fn fetch(access: &Access, folder: &Path) -> Result<Value, CliError> {
    let mut server = access.connect().await?;
    let release = server.release().await?;
    let mut names: Vec<String> = (2..=release.root().version())
        .map(|version| file_name("root", Some(version)))
        .collect();
    names.push(file_name("snapshot", Some(release.snapshot_version())));
    for (listed, entry) in &release.snapshot().meta {
        names.push(file_name(listed.trim_end_matches(".json"), Some(entry.version)));
    }
    let mut written = Vec::new();
    for name in names {
        let path = folder.join(&name);
        let bytes = server.release_file(&name).await?;
        let bytes = bytes.ok_or(CliError::Answer("a file its own snapshot lists"))?;
        match std::fs::read(&path) {
            Ok(present) if present == bytes => {}
            Ok(_) => {
                return Err(CliError::File {
                    path: path.display().to_string(),
                    what: "it is there and differs from the server's".to_owned(),
                });
            }
            Err(_) => {
                std::fs::write(&path, bytes).map_err(|error| CliError::file(&path, &error))?;
                written.push(name);
            }
        }
    }
    Ok(json!({"fetched": written}))
}

/// Takes versions of a role's file from the folder as long as there is a next one, and keeps the last.
fn newer(
    folder: &Path,
    role: &str,
    files: &mut BTreeMap<String, (u64, Vec<u8>)>,
    uploaded: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), CliError> {
    let listed = format!("{role}.json");
    let mut version = files.get(&listed).map_or(0, |(version, _)| *version);
    let mut last = None;
    while let Some(found) = file(folder, role, version.saturating_add(1))? {
        version = version.saturating_add(1);
        last = Some(found);
    }
    if let Some((name, bytes)) = last {
        files.insert(listed, (version, bytes.clone()));
        uploaded.insert(name, bytes);
    }
    Ok(())
}

/// The roles the targets file delegates to.
fn delegated(files: &BTreeMap<String, (u64, Vec<u8>)>) -> Vec<String> {
    let targets = files
        .get("targets.json")
        .and_then(|(_, bytes)| Claimed::<Targets>::parse(bytes).ok());
    let delegations = targets.and_then(|targets| targets.into_peeked().delegations);
    let roles = delegations
        .map(|delegations| delegations.roles)
        .unwrap_or_default();
    roles.into_iter().map(|role| role.name).collect()
}

/// A version of a role's file, if the folder has it.
fn file(folder: &Path, role: &str, version: u64) -> Result<Option<(String, Vec<u8>)>, CliError> {
    let name = file_name(role, Some(version));
    let path = folder.join(&name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some((name, bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::file(&path, &error)),
    }
}
