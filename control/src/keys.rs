//! The keys a server may hold, and the refusal of every other (promise 3).

use crate::authorities::is_under_another;
use crate::error::ServerError;
use crate::held::{Folder, listed};
use crate::release::Files;
use redan_identity::Anchors;
use redan_publish::SigningKey;
use redan_trust::Claimed;
use redan_trust::TufError;
use redan_trust::metadata::{Key, Metadata, Root, Targets};
use std::collections::BTreeMap;
use std::path::Path;

/// Certificates a server has the keys of.
const CERTIFIED: &[&str] = &["server.pem", "device-issuer.pem"];
/// Keys of the release root it signs with.
const RELEASE: &[&str] = &["timestamp"];
/// Keys of the director's root it signs with.
const DIRECTOR: &[&str] = &["targets", "snapshot", "timestamp"];
/// Roles of the release root that are signed offline.
const OFFLINE: &[&str] = &["root", "targets", "snapshot"];

/// Holds the folder of online keys against the fleet's metadata: the ceremony's, and what was uploaded since. Each key is of the role
/// it is for; none signs offline, whatever its file is called; and there is nothing else in the folder.
pub(crate) fn hold(anchors: &Anchors, folder: &Folder, uploaded: &Files) -> Result<(), ServerError> {
    let mut release = folder.repository("release")?;
    release.extend(uploaded.clone());
    let director = folder.repository("director")?;
    refuse_offline(folder, &release, &director)?;
    for (repository, files, roles) in [("release", &release, RELEASE), ("director", &director, DIRECTOR)] {
        let root = newest_root(files)?;
        // The release root names the active authority; the director's the one that was active when it was signed.
        let authority = if repository == "release" {
            root.ca_sha256 == Some(anchors.active().sha256())
        } else {
            let roots = all::<Root>(&release, "root")?;
            root.ca_sha256.is_some()
                && roots
                    .iter()
                    .any(|(_, release)| release.ca_sha256 == root.ca_sha256)
        };
        if root.fleet.as_ref() != Some(anchors.fleet()) || !authority {
            return Err(ServerError::OtherFleet { repository });
        }
        for role in roles {
            let path = folder.online(&format!("{repository}.{role}.key.json"));
            let public = SigningKey::load(&path)?.public().public;
            if !publics(&root.keys, &keyids(&root, role)).any(|named| named == public) {
                return Err(ServerError::WrongKey {
                    path: path.display().to_string(),
                    role: format!("{repository}.{role}"),
                });
            }
        }
    }
    Ok(())
}

/// Looks at every file of the folder, not only at those the server would use.
fn refuse_offline(folder: &Folder, release: &Files, director: &Files) -> Result<(), ServerError> {
    let mut named = BTreeMap::new();
    for (_, root) in all::<Root>(release, "root")? {
        for role in OFFLINE {
            note(
                &mut named,
                &root.keys,
                &keyids(&root, role),
                &format!("release.{role}"),
            );
        }
    }
    for (_, root) in all::<Root>(director, "root")? {
        note(&mut named, &root.keys, &keyids(&root, "root"), "director.root");
    }
    for targets in delegating(release)? {
        if let Some(delegations) = &targets.delegations {
            for role in &delegations.roles {
                note(&mut named, &delegations.keys, &role.keyids, &role.name);
            }
        }
    }
    for path in folder.all_online()? {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let shown = path.display().to_string();
        let signs = name.strip_suffix(".key.json");
        let role = match signs {
            Some(_) => named
                .get(&one_way(&SigningKey::load(&path)?.public().public))
                .cloned(),
            None if name.to_ascii_lowercase().ends_with(".pem") && !needed(name) => {
                Some("the fleet's certificates".to_owned())
            }
            None => None,
        };
        if let Some(role) = role {
            return Err(ServerError::OfflineKey { path: shown, role });
        }
        if !needed(name) {
            return Err(ServerError::StrayKey { path: shown });
        }
    }
    Ok(())
}

/// Whether a server has a use for a file of this name among its online keys.
fn needed(name: &str) -> bool {
    let of_role = |of: (&str, &str)| match of {
        ("release", role) => RELEASE.contains(&role),
        ("director", role) => DIRECTOR.contains(&role),
        _ => false,
    };
    let signs = name.strip_suffix(".key.json");
    CERTIFIED.contains(&name)
        || is_under_another(name)
        || signs.and_then(|signs| signs.split_once('.')).is_some_and(of_role)
}

/// Removes what a power cut left of writing one of these files ([`write_private`] renames `<name>.new` to `<name>`), and only that: a file
/// proper beside the whole one it never replaced. It is part of a private key, or one that was never in use, and would be refused as a
/// stray. At a start alone: later, somebody may just be writing it.
///
/// [`write_private`]: redan_identity::key::write_private
pub(crate) fn sweep(online: &Path) -> Result<(), ServerError> {
    let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|about| about.is_file());
    for left in listed(online)? {
        let Some(whole) = left.strip_suffix(".new").filter(|whole| needed(whole)) else {
            continue;
        };
        let path = online.join(&left);
        if is_file(&path) && is_file(&online.join(whole)) {
            std::fs::remove_file(&path).map_err(|error| ServerError::file(&path, &error))?;
            tracing::warn!(path = %path.display(), "removed what an interrupted write left");
        }
    }
    Ok(())
}

fn note(named: &mut BTreeMap<String, String>, keys: &BTreeMap<String, Key>, ids: &[String], name: &str) {
    named.extend(publics(keys, ids).map(|public| (one_way(public), name.to_owned())));
}

/// Hexadecimal has two ways to write a letter, and a key is one key.
fn one_way(public: &str) -> String {
    public.to_ascii_lowercase()
}

fn publics<'a>(keys: &'a BTreeMap<String, Key>, ids: &'a [String]) -> impl Iterator<Item = &'a str> {
    ids.iter()
        .filter_map(|id| keys.get(id)?.keyval.get("public")?.as_str())
}

fn keyids(root: &Root, role: &str) -> Vec<String> {
    root.roles
        .get(role)
        .map(|role| role.keyids.clone())
        .unwrap_or_default()
}

pub(crate) fn newest_root(files: &Files) -> Result<Root, ServerError> {
    let roots = all::<Root>(files, "root")?;
    let newest = roots.into_iter().max_by_key(|(version, _)| *version);
    let missing = || {
        ServerError::Metadata(TufError::Unavailable {
            path: "1.root.json".into(),
        })
    };
    newest.map(|(_, root)| root).ok_or_else(missing)
}

/// Every version of every file that may delegate: targets, and the roles below it.
fn delegating(files: &Files) -> Result<Vec<Targets>, ServerError> {
    let mut found = Vec::new();
    for (name, bytes) in files {
        let parts = name.strip_suffix(".json").and_then(|name| name.split_once('.'));
        let Some((version, role)) = parts else { continue };
        if version.parse::<u64>().is_err() || ["root", "snapshot"].contains(&role) {
            continue;
        }
        let claimed = Claimed::<Targets>::parse(bytes).map_err(|source| TufError::Malformed {
            role: role.into(),
            source,
        })?;
        found.push(claimed.into_peeked());
    }
    Ok(found)
}

/// Every version of a role's file: `<version>.<role>.json`.
pub(crate) fn all<T: Metadata>(files: &Files, role: &str) -> Result<Vec<(u64, T)>, ServerError> {
    let mut found = Vec::new();
    for (name, bytes) in files {
        let version = name
            .strip_suffix(&format!(".{role}.json"))
            .and_then(|version| version.parse::<u64>().ok());
        let Some(version) = version else { continue };
        let claimed = Claimed::<T>::parse(bytes).map_err(|source| TufError::Malformed {
            role: role.into(),
            source,
        })?;
        found.push((version, claimed.into_peeked()));
    }
    Ok(found)
}
