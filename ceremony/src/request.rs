//! Requests (`redan.request/1`): metadata that nobody has signed yet, on its way from signer to signer; and the rules every one
//! of them holds it to, against the signer's own copy of the fleet's public folder and never against what the request says of itself.

use crate::authority;
use crate::error::CeremonyError;
use crate::present::{Present, RepositoryName, bytes, publics, put_new};
use crate::recovery;
use redan_identity::Anchors;
use redan_protocol::{Digest, FleetId, UnixSeconds};
use redan_publish::PublicKey;
use redan_publish::metadata::canonical;
use redan_trust::metadata::{Key, Metadata, RoleKeys, Root, Snapshot, Targets};
use redan_trust::{Claimed, TufError, Verified};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const SCHEMA: &str = "redan.request/1";

/// Metadata to be signed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    schema: String,
    /// The fleet.
    pub fleet: FleetId,
    /// The repository.
    pub repository: RepositoryName,
    /// The role: its file is `<version>.<role>.json`.
    pub role: String,
    /// What is to be signed.
    pub payload: Value,
}

/// A request that keeps the rules.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The payload's version; 1 of what has none.
    pub version: u64,
    /// What is signed.
    pub canonical: Vec<u8>,
    /// Its digest: signers type its first characters.
    pub sha256: Digest,
    /// Who may sign: for a root, holders of the present one and of the new one.
    pub signers: Vec<PublicKey>,
    /// The present root.
    pub root: Verified<Root>,
}

impl Request {
    /// Makes one.
    pub fn new(fleet: FleetId, repository: RepositoryName, role: &str, payload: Value) -> Self {
        Self {
            schema: SCHEMA.into(),
            fleet,
            repository,
            role: role.to_owned(),
            payload,
        }
    }

    /// Reads one.
    pub fn read(path: &Path) -> Result<Self, CeremonyError> {
        let read: Option<Self> = serde_json::from_slice(&bytes(path)?).ok();
        let known = read.filter(|request| request.schema == SCHEMA);
        known.ok_or_else(|| CeremonyError::Request {
            path: path.display().to_string(),
        })
    }

    /// Writes it to a new file.
    pub fn write(&self, path: &Path) -> Result<(), CeremonyError> {
        let text = serde_json::to_vec_pretty(self).map_err(|_| CeremonyError::Bug)?;
        put_new(path, &text)
    }

    /// SHA-256 of what is to be signed.
    pub fn sha256(&self) -> Result<Digest, CeremonyError> {
        Ok(Digest::of(&canonical(&self.payload)?))
    }

    /// Holds it to the rules.
    pub fn check(&self, present: &Present, now: UnixSeconds) -> Result<Checked, CeremonyError> {
        // Expiry of what is there now is no reason not to replace it.
        let root = present.root(UnixSeconds::new(0))?;
        if root.get().fleet.as_ref() != Some(&self.fleet) || present.name != self.repository {
            return Err(CeremonyError::OtherFleet);
        }
        if (self.repository, self.role.as_str()) == (RepositoryName::Release, recovery::ROLE) {
            recovery::check(self, present)?;
            let canonical = canonical(&self.payload)?;
            return Ok(Checked {
                version: 1,
                sha256: Digest::of(&canonical),
                canonical,
                signers: role_keys(root.get(), "root"),
                root,
            });
        }
        let (version, expires, signers) = match (self.repository, self.role.as_str()) {
            (_, "root") => {
                let new: Root = self.read_as()?;
                root_rules(root.get(), &new, present)?;
                let mut signers = role_keys(root.get(), "root");
                for key in role_keys(&new, "root") {
                    if !signers.iter().any(|known| known.public == key.public) {
                        signers.push(key);
                    }
                }
                (new.version(), new.expires(), signers)
            }
            (RepositoryName::Release, "snapshot") => {
                let new: Snapshot = self.read_as()?;
                (new.version(), new.expires(), role_keys(root.get(), "snapshot"))
            }
            (RepositoryName::Release, "targets") => {
                let new: Targets = self.read_as()?;
                targets_rules(&new, production(root.get()))?;
                (new.version(), new.expires(), role_keys(root.get(), "targets"))
            }
            (RepositoryName::Release, role) if role != "timestamp" => {
                let new: Targets = self.read_as()?;
                let targets = present.targets(&root, UnixSeconds::new(0))?;
                let delegated = targets.get().delegations.as_ref().and_then(|delegations| {
                    let role = delegations
                        .roles
                        .iter()
                        .find(|delegated| delegated.name == role)?;
                    Some(publics(&role.keyids, &delegations.keys))
                });
                let unlisted = || present.refuse(TufError::Unlisted { role: role.into() });
                (new.version(), new.expires(), delegated.ok_or_else(unlisted)?)
            }
            // The control server's own.
            _ => {
                return Err(CeremonyError::Online {
                    repository: self.repository,
                    role: self.role.clone(),
                });
            }
        };
        let there = present.newest(&self.role);
        if there.checked_add(1) != Some(version) {
            return Err(CeremonyError::Version {
                role: self.role.clone(),
                there,
                offered: version,
            });
        }
        if expires <= now {
            return Err(CeremonyError::Expired {
                role: self.role.clone(),
                expires,
            });
        }
        let canonical = canonical(&self.payload)?;
        Ok(Checked {
            version,
            sha256: Digest::of(&canonical),
            canonical,
            signers,
            root,
        })
    }

    /// The payload as metadata of its role, read as strictly as devices read it.
    fn read_as<T: Metadata>(&self) -> Result<T, CeremonyError> {
        let unsigned = json!({"signed": self.payload, "signatures": []}).to_string();
        let read = Claimed::<T>::parse(unsigned.as_bytes());
        read.map(Claimed::into_peeked)
            .map_err(|source| CeremonyError::Payload {
                role: self.role.clone(),
                source,
            })
    }
}

/// The keys of a role of a root.
pub(crate) fn role_keys(root: &Root, role: &str) -> Vec<PublicKey> {
    root.roles
        .get(role)
        .map(|keys| publics(&keys.keyids, &root.keys))
        .unwrap_or_default()
}

fn production(root: &Root) -> bool {
    root.profile.as_deref() != Some("development")
}

/// What a device would not notice and a fleet could not undo.
fn root_rules(old: &Root, new: &Root, present: &Present) -> Result<(), CeremonyError> {
    let repository = present.name;
    if (&old.fleet, &old.profile) != (&new.fleet, &new.profile) {
        return Err(CeremonyError::OtherFleet);
    }
    authority_rules(old, new, present)?;
    unique(&new.keys)?;
    let online = |role: &str| repository.online().contains(&role);
    for (name, role) in &new.roles {
        let people = !online(name) && name != "snapshot";
        thresholds(name, role, &new.keys, people && production(new))?;
    }
    // A key on the server that also signs offline would undo promise 3.
    let of = |online_ones: bool| -> BTreeSet<&String> {
        let roles = new.roles.iter().filter(|(name, _)| online(name) == online_ones);
        roles.flat_map(|(_, role)| &role.keyids).collect()
    };
    if let Some(key) = of(true).intersection(&of(false)).next() {
        return Err(CeremonyError::Shared { key: (*key).clone() });
    }
    Ok(())
}

/// The authorities are the release root's matter; there they take one legal step at most, and stay a list once they are one.
fn authority_rules(old: &Root, new: &Root, present: &Present) -> Result<(), CeremonyError> {
    let Some(after) = &new.authorities else {
        return match (&old.authorities, old.ca_sha256 == new.ca_sha256) {
            (None, true) => Ok(()),
            _ => Err(CeremonyError::OtherFleet),
        };
    };
    let fleet = new.fleet.as_ref().ok_or(CeremonyError::Fleet)?;
    if present.name != RepositoryName::Release {
        return Err(CeremonyError::OtherFleet);
    }
    authority::listed(old, present)?.step_to(after)?;
    // Each is a root of this fleet, and no two have one key.
    Anchors::of(fleet, after)?;
    Ok(())
}

fn targets_rules(new: &Targets, production: bool) -> Result<(), CeremonyError> {
    let Some(delegations) = &new.delegations else {
        return Ok(());
    };
    unique(&delegations.keys)?;
    let mut names = BTreeSet::new();
    for role in &delegations.roles {
        if !names.insert(&role.name) {
            return Err(CeremonyError::Delegated {
                role: role.name.clone(),
            });
        }
        let keys = RoleKeys {
            keyids: role.keyids.clone(),
            threshold: role.threshold,
        };
        thresholds(&role.name, &keys, &delegations.keys, production)?;
    }
    Ok(())
}

/// One public key under two ids would look like two holders to everybody who reads ids.
fn unique(keys: &BTreeMap<String, Key>) -> Result<(), CeremonyError> {
    let mut seen = BTreeMap::new();
    for (id, key) in keys {
        let public = key.keyval.get("public").and_then(Value::as_str).unwrap_or(id);
        if let Some(other) = seen.insert(public.to_ascii_lowercase(), id) {
            return Err(CeremonyError::Twice {
                key: format!("{other} and {id}"),
            });
        }
    }
    Ok(())
}

/// A threshold its holders cannot meet would lock everybody out for good.
fn thresholds(
    name: &str,
    role: &RoleKeys,
    keys: &BTreeMap<String, Key>,
    two_people: bool,
) -> Result<(), CeremonyError> {
    let holders = role.keyids.iter().filter(|id| keys.contains_key(*id)).count();
    let holders = u32::try_from(holders).unwrap_or(u32::MAX);
    if holders < role.threshold {
        return Err(CeremonyError::Holders {
            role: name.to_owned(),
            holders,
            threshold: role.threshold,
        });
    }
    if two_people && role.threshold < 2 {
        return Err(CeremonyError::Threshold);
    }
    Ok(())
}
