//! A fleet's public folder, walked as a device would: roots from the first on, then snapshot, targets and every delegated role. The
//! timestamp is left out: only the control server signs it.

use crate::authority::listed;
use crate::error::CeremonyError;
use crate::present::{Present, RepositoryName};
use crate::transcript::Transcript;
use redan_identity::profile::valid_between;
use redan_identity::{Anchors, FleetAnchor};
use redan_protocol::{Digest, FleetId, UnixSeconds};
use redan_trust::metadata::{Metadata as _, Root, Snapshot, Targets, file_name};
use redan_trust::{Claimed, TufError, Verified, rehearse};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// Verifies the whole folder and says what is there.
pub fn verify(public: &Path, transcript: &Path, now: UnixSeconds) -> Result<String, CeremonyError> {
    let founding = founding(public)?;
    let fleet = founding.fleet().clone();
    let anchors = anchors(public)?;
    let known = actives(public, &founding)?;
    let mut text = format!("fleet {fleet}\n");
    for name in [RepositoryName::Release, RepositoryName::Director] {
        let present = Present::read(public, name)?;
        let root = present.root(now)?;
        // The release root names the active authority; the director's the one that was active when it was signed.
        let authority = match name {
            RepositoryName::Release => root.get().ca_sha256 == Some(anchors.active().sha256()),
            RepositoryName::Director => root.get().ca_sha256.is_some_and(|ca| known.contains(&ca)),
        };
        if root.get().fleet.as_ref() != Some(&fleet) || !authority {
            return Err(CeremonyError::OtherFleet);
        }
        let _ = writeln!(
            text,
            "{name}: root {} ({}), until {}",
            root.get().version(),
            root.get().profile.as_deref().unwrap_or("no profile"),
            root.get().expires()
        );
        if name == RepositoryName::Release {
            for (state, anchor) in anchors.iter() {
                let (_, until) = valid_between(anchor.root())?;
                let _ = writeln!(text, "authority {}: {state}, until {until}", anchor.sha256());
            }
            let snapshot = whole(&present, &root, now)?;
            for (file, entry) in &snapshot.get().meta {
                let _ = writeln!(text, "{name}: {file} {}", entry.version);
                let waiting = present.newest(file.trim_end_matches(".json"));
                if waiting > entry.version {
                    let _ = writeln!(
                        text,
                        "{name}: {file} {waiting} is there, and no snapshot lists it yet"
                    );
                }
            }
        }
    }
    let entries = Transcript::read(transcript)?;
    let _ = writeln!(text, "transcript: {} entries in one chain", entries.len());
    Ok(text)
}

/// The fleet that fleet.json names, with the authority it was founded with.
pub(crate) fn founding(public: &Path) -> Result<FleetAnchor, CeremonyError> {
    let read = |name: &str| {
        let path = public.join(name);
        std::fs::read_to_string(&path).map_err(|error| CeremonyError::file(&path, &error))
    };
    let described: serde_json::Value =
        serde_json::from_str(&read("fleet.json")?).map_err(|_| CeremonyError::Fleet)?;
    let name = described.get("fleet").and_then(serde_json::Value::as_str);
    let fleet = FleetId::parse(name.unwrap_or_default()).map_err(|_| CeremonyError::Fleet)?;
    Ok(FleetAnchor::from_pem(fleet, &read("ca.pem")?)?)
}

/// The fleet's authorities now: what the newest release root lists that the first one leads to.
pub(crate) fn anchors(public: &Path) -> Result<Anchors, CeremonyError> {
    let present = Present::read(public, RepositoryName::Release)?;
    let root = present.root(UnixSeconds::new(0))?;
    let listed = listed(root.get(), &present)?;
    Ok(Anchors::of(founding(public)?.fleet(), &listed)?)
}

/// Every authority that was active once.
fn actives(public: &Path, founding: &FleetAnchor) -> Result<BTreeSet<Digest>, CeremonyError> {
    let present = Present::read(public, RepositoryName::Release)?;
    let mut known = BTreeSet::from([founding.sha256()]);
    for version in 1..=present.newest("root") {
        let file = present.file(&file_name("root", Some(version)));
        let root = file.and_then(|bytes| Claimed::<Root>::parse(bytes).ok());
        known.extend(root.and_then(|root| root.peek().ca_sha256));
    }
    Ok(known)
}

/// Walks as far as a role: what there is once its newest file is added.
pub(crate) fn walk(present: &Present, role: &str, now: UnixSeconds) -> Result<(), CeremonyError> {
    let root = present.root(now)?;
    match role {
        "root" => Ok(()),
        "targets" => present.targets(&root, now).map(drop),
        "snapshot" => whole(present, &root, now).map(drop),
        delegated => {
            let targets = present.targets(&root, now)?;
            let version = present.newest(delegated);
            delegate(present, &targets, delegated, version, now).map(drop)
        }
    }
}

/// The newest snapshot and every file it lists, none missing and none older than a snapshot before it said.
fn whole(
    present: &Present,
    root: &Verified<Root>,
    now: UnixSeconds,
) -> Result<Verified<Snapshot>, CeremonyError> {
    let version = present.newest("snapshot");
    let unavailable = |path: String| present.refuse(TufError::Unavailable { path });
    let name = file_name("snapshot", Some(version));
    let bytes = present.file(&name).ok_or_else(|| unavailable(name.clone()))?;
    let signers = root
        .signers("snapshot")
        .ok_or_else(|| unavailable(name.clone()))?;
    let snapshot: Verified<Snapshot> =
        rehearse::accept(bytes, "snapshot", version, &signers, now).map_err(|error| present.refuse(error))?;
    let listed = |role: &str| -> Result<(u64, &[u8]), CeremonyError> {
        let entry = snapshot.get().meta.get(&format!("{role}.json"));
        let entry = entry.ok_or_else(|| {
            present.refuse(TufError::Unlisted {
                role: role.to_owned(),
            })
        })?;
        let name = file_name(role, Some(entry.version));
        let bytes = present.file(&name).ok_or_else(|| unavailable(name))?;
        if !entry.names(bytes) {
            return Err(present.refuse(TufError::WrongBytes {
                role: role.to_owned(),
            }));
        }
        Ok((entry.version, bytes))
    };
    let (version, bytes) = listed("targets")?;
    let signers = root
        .signers("targets")
        .ok_or_else(|| unavailable("targets.json".into()))?;
    let targets: Verified<Targets> =
        rehearse::accept(bytes, "targets", version, &signers, now).map_err(|error| present.refuse(error))?;
    for file in snapshot.get().meta.keys() {
        let role = file.trim_end_matches(".json");
        if role != "targets" {
            let (version, _) = listed(role)?;
            delegate(present, &targets, role, version, now)?;
        }
    }
    not_back(present, &snapshot)?;
    Ok(snapshot)
}

/// A device that trusts the snapshot before would refuse one that drops a file or goes back.
fn not_back(present: &Present, snapshot: &Verified<Snapshot>) -> Result<(), CeremonyError> {
    let before = snapshot.get().version().saturating_sub(1);
    let Some(bytes) = present.file(&file_name("snapshot", Some(before))) else {
        return Ok(());
    };
    let old = redan_trust::Claimed::<Snapshot>::parse(bytes).map_err(|source| {
        present.refuse(TufError::Malformed {
            role: "snapshot".into(),
            source,
        })
    })?;
    for (file, old) in &old.peek().meta {
        let new = snapshot.get().meta.get(file);
        let new = new.ok_or_else(|| present.refuse(TufError::Dropped { file: file.clone() }))?;
        if new.version < old.version {
            return Err(present.refuse(TufError::Rollback {
                role: file.clone(),
                trusted: old.version,
                offered: new.version,
            }));
        }
    }
    Ok(())
}

fn delegate(
    present: &Present,
    targets: &Verified<Targets>,
    role: &str,
    version: u64,
    now: UnixSeconds,
) -> Result<Verified<Targets>, CeremonyError> {
    let unlisted = || {
        present.refuse(TufError::Unlisted {
            role: role.to_owned(),
        })
    };
    let signers = targets.signers(role).ok_or_else(unlisted)?;
    let bytes = present
        .file(&file_name(role, Some(version)))
        .ok_or_else(unlisted)?;
    rehearse::accept(bytes, role, version, &signers, now).map_err(|error| present.refuse(error))
}
