//! The templates of requests: each takes the newest signed file and changes what its name says, nothing else.

use crate::authority::{Changed, changed, listed, write};
use crate::error::CeremonyError;
use crate::present::Present;
use crate::request::Request;
use redan_protocol::{Seconds, UnixSeconds};
use redan_publish::metadata::{date, snapshot};
use redan_publish::{Delegation, PublicKey};
use redan_trust::metadata::file_name;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Lifetimes of 10-trust's table, days.
const YEAR: u64 = 365;
const HALF_YEAR: u64 = 180;
const QUARTER: u64 = 90;
const DAY: u64 = 86_400;
/// Fewest characters of a key id that name it.
const ID_CHARS_MIN: usize = 8;

/// What to change.
#[derive(Clone, Debug)]
pub enum Change {
    /// New holders of a role that people sign.
    AddHolder {
        /// The role.
        role: String,
        /// Their public keys.
        keys: Vec<PublicKey>,
        /// How many must sign from now on.
        threshold: Option<u32>,
    },
    /// Holders who leave.
    RemoveHolder {
        /// The role.
        role: String,
        /// Ids of their keys, or how they begin.
        ids: Vec<String>,
        /// How many must sign from now on.
        threshold: Option<u32>,
    },
    /// New keys in the place of all keys of online roles.
    RevokeOnline {
        /// Role and new key.
        keys: Vec<(String, PublicKey)>,
    },
    /// The same again, for longer.
    Rotate {
        /// The role.
        role: String,
    },
    /// A role of its own for a component, or for directions.
    Delegate {
        /// To whom, for what.
        delegation: Delegation,
    },
    /// A snapshot of the newest targets files.
    Snapshot,
    /// One step of a certificate authority.
    Authority(Changed),
}

impl Change {
    /// The role whose file changes: keys of a root's roles are in the root, those of delegated roles in the targets role.
    fn file(&self, present: &Present) -> Result<String, CeremonyError> {
        let of_holder = |role: &str| -> Result<String, CeremonyError> {
            if present.name.online().contains(&role) {
                return Err(CeremonyError::Online {
                    repository: present.name,
                    role: role.to_owned(),
                });
            }
            let rooted = present.root(UnixSeconds::new(0))?.get().roles.contains_key(role);
            Ok(if rooted { "root" } else { "targets" }.to_owned())
        };
        match self {
            Self::AddHolder { role, .. } | Self::RemoveHolder { role, .. } => of_holder(role),
            Self::RevokeOnline { keys } => {
                let offline = keys
                    .iter()
                    .find(|(role, _)| !present.name.online().contains(&role.as_str()));
                offline.map_or(Ok("root".to_owned()), |(role, _)| {
                    Err(CeremonyError::Offline {
                        repository: present.name,
                        role: role.clone(),
                    })
                })
            }
            Self::Rotate { role } if present.name.online().contains(&role.as_str()) => of_holder(role),
            Self::Rotate { role } => Ok(role.clone()),
            Self::Delegate { .. } => Ok("targets".to_owned()),
            Self::Snapshot => Ok("snapshot".to_owned()),
            Self::Authority(_) => Ok("root".to_owned()),
        }
    }

    /// Makes the request. It keeps the rules of [`Request::check`], so that nothing is carried around that nobody may sign.
    pub fn request(
        &self,
        present: &Present,
        days: Option<u64>,
        now: UnixSeconds,
    ) -> Result<Request, CeremonyError> {
        let root = present.root(UnixSeconds::new(0))?;
        let role = self.file(present)?;
        if role == "targets" {
            // Only what was signed once is carried on.
            present.targets_of_any_root(&root)?;
        }
        let life = days.unwrap_or(match role.as_str() {
            "root" | "targets" | "policy" => YEAR,
            "snapshot" | "plan" | "direction" => QUARTER,
            _ => HALF_YEAR,
        });
        let expires = now.after(Seconds::new(life.saturating_mul(DAY)));
        let payload = if matches!(self, Self::Snapshot) {
            next_snapshot(present, expires)?
        } else {
            let mut payload = present.signed(&role)?;
            set(
                &mut payload,
                "version",
                json!(present.newest(&role).saturating_add(1)),
            );
            set(&mut payload, "expires", json!(date(expires)?));
            self.apply(&mut payload)?;
            if let Self::Authority(change) = self {
                let after = changed(change, &listed(root.get(), present)?)?;
                write(&mut payload, &after);
            }
            payload
        };
        let fleet = root.get().fleet.clone().ok_or(CeremonyError::Fleet)?;
        let request = Request::new(fleet, present.name, &role, payload);
        request.check(present, now)?;
        Ok(request)
    }

    fn apply(&self, payload: &mut Value) -> Result<(), CeremonyError> {
        match self {
            Self::AddHolder {
                role,
                keys,
                threshold,
            } => {
                for key in keys {
                    let ids = ids(payload, role)?;
                    if ids.iter().any(|id| id.as_str() == Some(&key.id)) {
                        return Err(CeremonyError::Twice { key: key.id.clone() });
                    }
                    ids.push(json!(key.id));
                    set(table(payload)?, &key.id, key.tuf());
                }
                set_threshold(payload, role, *threshold)
            }
            Self::RemoveHolder {
                role,
                ids: leaving,
                threshold,
            } => {
                for id in leaving {
                    let found = take(ids(payload, role)?, id, role)?;
                    drop_unused(payload, &found)?;
                }
                set_threshold(payload, role, *threshold)
            }
            Self::RevokeOnline { keys } => {
                let roles: BTreeSet<&String> = keys.iter().map(|(role, _)| role).collect();
                for role in roles {
                    let old = std::mem::take(ids(payload, role)?);
                    for (_, key) in keys.iter().filter(|(of, _)| of == role) {
                        if old.iter().any(|id| id.as_str() == Some(&key.id)) {
                            return Err(CeremonyError::Twice { key: key.id.clone() });
                        }
                        ids(payload, role)?.push(json!(key.id));
                        set(table(payload)?, &key.id, key.tuf());
                    }
                    set_threshold(payload, role, Some(1))?;
                    for id in old.iter().filter_map(Value::as_str) {
                        drop_unused(payload, id)?;
                    }
                }
                Ok(())
            }
            Self::Delegate { delegation } => {
                let signers = &delegation.signers;
                if ids(payload, &delegation.name).is_ok() {
                    return Err(CeremonyError::Delegated {
                        role: delegation.name.clone(),
                    });
                }
                for key in &signers.keys {
                    set(table(payload)?, &key.id, key.tuf());
                }
                let keyids: Vec<&String> = signers.keys.iter().map(|key| &key.id).collect();
                let roles = payload.pointer_mut("/delegations/roles");
                let roles = roles.and_then(Value::as_array_mut).ok_or(CeremonyError::Fleet)?;
                roles.push(json!({
                    "name": delegation.name,
                    "keyids": keyids,
                    "threshold": signers.threshold,
                    "terminating": true,
                    "paths": delegation.paths,
                }));
                Ok(())
            }
            Self::Rotate { .. } | Self::Snapshot | Self::Authority(_) => Ok(()),
        }
    }
}

/// The next snapshot: what the present one lists, and every newer targets file.
fn next_snapshot(present: &Present, expires: UnixSeconds) -> Result<Value, CeremonyError> {
    let root = present.root(UnixSeconds::new(0))?;
    let targets = present.targets(&root, UnixSeconds::new(0))?;
    let delegated = targets.get().delegations.iter().flat_map(|all| &all.roles);
    let mut files = BTreeMap::new();
    for role in std::iter::once("targets").chain(delegated.map(|role| role.name.as_str())) {
        let version = present.newest(role);
        // A component that was delegated and not yet published has no file.
        if let Some(bytes) = present.file(&file_name(role, Some(version))) {
            files.insert(format!("{role}.json"), (version, bytes.to_vec()));
        }
    }
    Ok(snapshot(
        present.newest("snapshot").saturating_add(1),
        expires,
        &files,
    )?)
}

/// The role's object: of a root, or of a delegation.
fn role_object<'a>(payload: &'a mut Value, role: &str) -> Option<&'a mut Value> {
    if payload.get("roles").is_some() {
        return payload.get_mut("roles")?.get_mut(role);
    }
    let roles = payload.pointer_mut("/delegations/roles")?.as_array_mut()?;
    roles
        .iter_mut()
        .find(|one| one.get("name").and_then(Value::as_str) == Some(role))
}

fn ids<'a>(payload: &'a mut Value, role: &str) -> Result<&'a mut Vec<Value>, CeremonyError> {
    let ids = role_object(payload, role).and_then(|role| role.get_mut("keyids")?.as_array_mut());
    ids.ok_or_else(|| CeremonyError::Role {
        role: role.to_owned(),
    })
}

/// The keys by id.
fn table(payload: &mut Value) -> Result<&mut Value, CeremonyError> {
    let at = if payload.get("roles").is_some() {
        "/keys"
    } else {
        "/delegations/keys"
    };
    payload.pointer_mut(at).ok_or(CeremonyError::Fleet)
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(name.to_owned(), value);
    }
}

fn set_threshold(payload: &mut Value, role: &str, threshold: Option<u32>) -> Result<(), CeremonyError> {
    let object = role_object(payload, role).ok_or_else(|| CeremonyError::Role {
        role: role.to_owned(),
    })?;
    if let Some(threshold) = threshold {
        set(object, "threshold", json!(threshold));
    }
    Ok(())
}

/// Takes the one key out whose id begins so.
fn take(ids: &mut Vec<Value>, begins: &str, role: &str) -> Result<String, CeremonyError> {
    let fits = |id: &Value| id.as_str().is_some_and(|id| id.starts_with(begins));
    let found: Vec<usize> = (0..)
        .zip(ids.iter())
        .filter(|(_, id)| fits(id))
        .map(|(at, _)| at)
        .collect();
    match found.as_slice() {
        [at] if begins.len() >= ID_CHARS_MIN => Ok(ids.remove(*at).as_str().unwrap_or_default().to_owned()),
        _ => Err(CeremonyError::NoHolder {
            role: role.to_owned(),
            key: begins.to_owned(),
        }),
    }
}

/// Forgets a key that no role names any more.
fn drop_unused(payload: &mut Value, id: &str) -> Result<(), CeremonyError> {
    let names = |role: &Value| {
        let ids = role.get("keyids").and_then(Value::as_array);
        ids.is_some_and(|ids| ids.iter().any(|one| one.as_str() == Some(id)))
    };
    let of_root = payload.get("roles").and_then(Value::as_object);
    let delegated = payload.pointer("/delegations/roles").and_then(Value::as_array);
    let used = of_root.is_some_and(|roles| roles.values().any(names))
        || delegated.is_some_and(|roles| roles.iter().any(names));
    if !used && let Some(keys) = table(payload)?.as_object_mut() {
        keys.remove(id);
    }
    Ok(())
}
