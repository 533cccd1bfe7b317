//! Directions for devices without a network: signed by release managers, and carried there in a folder (decision 0007).

use crate::access::{Access, Server, now};
use crate::error::CliError;
use crate::sign::{Signing, publish_target, upload};
use redan_identity::crl::SERVER_LISTS;
use redan_protocol::wire::{BundleNote, BundleSchema};
use redan_protocol::{DeviceId, Digest, DirectionSequence, Seconds, SetId, SpiffeId, UnixSeconds};
use redan_publish::metadata::target;
use redan_trust::custom::{CarriedDirection, Direction, DirectionSchema};
use redan_trust::metadata::{Metadata as _, file_name};
use redan_trust::release_set::{Member, ReleaseSet};
use redan_trust::{POLICY_PATH, Repository, Target, direction_path, plan_path};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Lifetime of the role (10-trust: as plan).
const DIRECTION_LIFE: Seconds = Seconds::new(90 * 86_400);
/// How often a device tries again what failed.
const RETRY_BUDGET: u32 = 3;

/// Signs and uploads a direction of one device to a published set.
pub async fn publish(
    access: &Access,
    device: DeviceId,
    sequence: DirectionSequence,
    set: SetId,
    (good_for, unblocked): (Seconds, Vec<Digest>),
    signing: &Signing,
) -> Result<Value, CliError> {
    let keys = signing.keys.open()?;
    let mut server = access.connect().await?;
    let mut release = server.release().await?;
    let plan = found(&mut server, &mut release, &plan_path(&set)).await?;
    let set_digest = plan.sha256().ok_or(CliError::Answer("a target with SHA-256"))?;
    let path = direction_path(&device, sequence);
    let deadline = now().after(good_for);
    let document = CarriedDirection {
        schema: DirectionSchema::V1,
        direction: Direction {
            device: SpiffeId::Device(server.fleet.clone(), device.clone()),
            sequence,
            set: set.clone(),
            set_digest,
            not_before: UnixSeconds::default(),
            deadline,
            retry_budget: RETRY_BUDGET,
            unblocked,
        },
    };
    let bytes = serde_json::to_vec_pretty(&document).map_err(|_| CliError::Answer("a direction"))?;
    let entry = target(&bytes, None::<&Value>)?;
    upload(&mut server, bytes).await?;
    let target = (path.as_str(), entry);
    let draft = signing.draft.as_deref();
    let published = publish_target(&mut server, "direction", DIRECTION_LIFE, target, &keys, draft).await?;
    let mut said = json!({"direction": path, "device": device, "set": set, "deadline": deadline});
    signing.say(&mut said, published);
    Ok(said)
}

/// Writes a folder to carry: for a direction, or with the release roots alone.
pub async fn make(
    access: &Access,
    direction: Option<(DeviceId, DirectionSequence)>,
    out: &Path,
) -> Result<Value, CliError> {
    match direction {
        Some((device, sequence)) => write(access, device, sequence, out).await,
        None => write_roots(access, out).await,
    }
}

/// Writes everything a device needs to follow a published direction into a new folder.
async fn write(
    access: &Access,
    device: DeviceId,
    sequence: DirectionSequence,
    out: &Path,
) -> Result<Value, CliError> {
    if out.symlink_metadata().is_ok() {
        return Err(exists(out));
    }
    let mut server = access.connect().await?;
    let mut release = server.release().await?;
    // Found before anything is written; whoever copies a folder must not carry half a bundle.
    let path = direction_path(&device, sequence);
    let direction = found(&mut server, &mut release, &path).await?;
    let bytes = artifact(&mut server, &direction).await?;
    let read: CarriedDirection =
        serde_json::from_slice(&bytes).map_err(|_| CliError::Answer("a direction"))?;
    let set = read.direction.set;
    let mut blobs = vec![(direction, bytes)];
    for path in [plan_path(&set), POLICY_PATH.to_owned()] {
        let target = found(&mut server, &mut release, &path).await?;
        let bytes = artifact(&mut server, &target).await?;
        blobs.push((target, bytes));
    }
    let plan = blobs
        .get(1)
        .map(|(_, bytes)| bytes.as_slice())
        .unwrap_or_default();
    let plan: ReleaseSet = serde_json::from_slice(plan).map_err(|_| CliError::Answer("a release set"))?;
    // A device that no server reaches refuses a server on it at the latest when it is carried somewhere where one does.
    if let Some(lists) = server.target(&mut release, SERVER_LISTS).await? {
        let bytes = artifact(&mut server, &lists).await?;
        blobs.push((lists, bytes));
    }
    for path in plan.members.iter().map(Member::target_path) {
        let target = found(&mut server, &mut release, &path).await?;
        let bytes = artifact(&mut server, &target).await?;
        blobs.push((target, bytes));
    }
    let half = PathBuf::from(format!("{}.unfinished", out.display()));
    let folder = Folder(half.clone());
    folder.make()?;
    for (target, bytes) in &blobs {
        folder.put(&format!("blobs/{}", named(target)?), bytes)?;
    }
    metadata(&mut server, &release, &folder).await?;
    let note = BundleNote {
        schema: BundleSchema::V1,
        device: Some(SpiffeId::Device(server.fleet.clone(), device.clone())),
        direction: Some(path),
    };
    let note = serde_json::to_vec_pretty(&note).map_err(|_| CliError::Answer("a bundle"))?;
    folder.put("bundle.json", &note)?;
    std::fs::rename(&half, out).map_err(|error| CliError::file(out, &error))?;
    Ok(json!({"bundle": out.display().to_string(), "device": device, "set": set, "artifacts": blobs.len()}))
}

/// Writes the release roots alone into a new folder: with them a device that was off while the fleet's authority changed learns the
/// present ones (decision 0014). For every device of the fleet.
async fn write_roots(access: &Access, out: &Path) -> Result<Value, CliError> {
    if out.symlink_metadata().is_ok() {
        return Err(exists(out));
    }
    let mut server = access.connect().await?;
    let release = server.release().await?;
    let newest = release.root().version();
    let half = PathBuf::from(format!("{}.unfinished", out.display()));
    let folder = Folder(half.clone());
    folder.make()?;
    roots(&mut server, &release, &folder).await?;
    let note = BundleNote {
        schema: BundleSchema::V1,
        device: None,
        direction: None,
    };
    let note = serde_json::to_vec_pretty(&note).map_err(|_| CliError::Answer("a bundle"))?;
    folder.put("bundle.json", &note)?;
    std::fs::rename(&half, out).map_err(|error| CliError::file(out, &error))?;
    Ok(json!({"bundle": out.display().to_string(), "root": newest}))
}

async fn roots(server: &mut Server, release: &Repository, folder: &Folder) -> Result<(), CliError> {
    for version in 2..=release.root().version() {
        let name = file_name("root", Some(version));
        let bytes = server.release_file(&name).await?;
        let bytes = bytes.ok_or(CliError::Answer("a root that it has walked"))?;
        folder.put(&format!("release/{name}"), &bytes)?;
    }
    Ok(())
}

fn exists(out: &Path) -> CliError {
    CliError::Usage {
        what: format!("{} exists already", out.display()),
        remedy: "name a folder that does not exist; nothing is ever written over",
    }
}

/// Roots, the snapshot under its plain name, and every file it lists.
async fn metadata(server: &mut Server, release: &Repository, folder: &Folder) -> Result<(), CliError> {
    let snapshot = file_name("snapshot", Some(release.snapshot_version()));
    let mut names = vec![(snapshot, file_name("snapshot", None))];
    roots(server, release, folder).await?;
    for (listed, entry) in &release.snapshot().meta {
        let name = file_name(listed.trim_end_matches(".json"), Some(entry.version));
        names.push((name.clone(), name));
    }
    for (name, here) in names {
        let bytes = server.release_file(&name).await?;
        let bytes = bytes.ok_or(CliError::Answer("a file its own snapshot lists"))?;
        folder.put(&format!("release/{here}"), &bytes)?;
    }
    Ok(())
}

async fn found(server: &mut Server, release: &mut Repository, path: &str) -> Result<Target, CliError> {
    let target = server.target(release, path).await?;
    target.ok_or_else(|| CliError::Usage {
        what: format!("{path} is not published"),
        remedy: "publish it first: redan direction publish, set publish, policy publish or publish",
    })
}

async fn artifact(server: &mut Server, target: &Target) -> Result<Vec<u8>, CliError> {
    let bytes = server.artifact(target).await?.to_vec();
    if target.is(&bytes) {
        Ok(bytes)
    } else {
        Err(CliError::Answer("the signed artifact"))
    }
}

fn named(target: &Target) -> Result<Digest, CliError> {
    target.sha256().ok_or(CliError::Answer("a target with SHA-256"))
}

/// A folder that is being written.
struct Folder(PathBuf);

impl Folder {
    fn make(&self) -> Result<(), CliError> {
        for name in ["blobs", "release"] {
            let path = self.0.join(name);
            std::fs::create_dir_all(&path).map_err(|error| CliError::file(&path, &error))?;
        }
        Ok(())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), CliError> {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).map_err(|error| CliError::file(&path, &error))
    }
}
