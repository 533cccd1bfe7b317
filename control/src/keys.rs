//! The keys a server may hold, and the refusal of every other (promise 3).

use crate::error::ServerError;
use redan_publish::SigningKey;
use redan_trust::Claimed;
use redan_trust::TufError;
use redan_trust::metadata::{Key, Metadata, Root, Targets};
use std::collections::BTreeMap;
use std::path::Path;

/// Certificates a server has the keys of.
const CERTIFIED: &[&str] = &["server.pem", "device-issuer.pem"];
/// Roles of the release root that are signed offline.
const OFFLINE: &[&str] = &["root", "targets", "snapshot"];

/// Refuses to go on when the folder of online keys holds one that signs offline: of the release root, of its delegations, of the
/// director's root, or of a certificate authority. It looks at every file there, not only at those the server would use.
pub(crate) fn refuse_offline(public: &Path, online: &Path) -> Result<(), ServerError> {
    let mut named = BTreeMap::new();
    let release: Root = parse(&public.join("release/1.root.json"), "root")?;
    for role in OFFLINE {
        let ids = release.roles.get(*role).map(|role| role.keyids.as_slice());
        note(
            &mut named,
            &release.keys,
            ids.unwrap_or_default(),
            &format!("release.{role}"),
        );
    }
    let director: Root = parse(&public.join("director/1.root.json"), "root")?;
    let ids = director.roles.get("root").map(|role| role.keyids.as_slice());
    note(
        &mut named,
        &director.keys,
        ids.unwrap_or_default(),
        "director.root",
    );
    let targets: Targets = parse(&public.join("release/1.targets.json"), "targets")?;
    if let Some(delegations) = &targets.delegations {
        for role in &delegations.roles {
            note(&mut named, &delegations.keys, &role.keyids, &role.name);
        }
    }
    for entry in std::fs::read_dir(online).map_err(|error| ServerError::file(online, &error))? {
        let path = entry.map_err(|error| ServerError::file(online, &error))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let role = if name.ends_with(".key.json") {
            named.get(&SigningKey::load(&path)?.public().public).cloned()
        } else if path
            .extension()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("pem"))
            && !CERTIFIED.contains(&name)
        {
            Some("the fleet's certificates".to_owned())
        } else {
            None
        };
        if let Some(role) = role {
            let path = path.display().to_string();
            return Err(ServerError::OfflineKey { path, role });
        }
    }
    Ok(())
}

fn note(named: &mut BTreeMap<String, String>, keys: &BTreeMap<String, Key>, ids: &[String], name: &str) {
    for public in ids
        .iter()
        .filter_map(|id| keys.get(id)?.keyval.get("public")?.as_str())
    {
        named.insert(public.to_owned(), name.to_owned());
    }
}

fn parse<T: Metadata>(path: &Path, role: &str) -> Result<T, ServerError> {
    let bytes = std::fs::read(path).map_err(|error| ServerError::file(path, &error))?;
    let claimed = Claimed::<T>::parse(&bytes).map_err(|source| TufError::Malformed {
        role: role.into(),
        source,
    })?;
    Ok(claimed.into_peeked())
}
