//! Answers to devices that lost their trust record (`redan.recovery/1`, decision 0006): signed by holders of the release root as a
//! new root is, and proven with the devices' own code before they are written.

use crate::error::CeremonyError;
use crate::present::{Present, RepositoryName, bytes};
use crate::request::Request;
use redan_protocol::wire::RecoveryRequest;
use redan_protocol::{ComponentName, Digest, DirectionSequence, ReleaseCounter, SpiffeId, UnixSeconds};
use redan_trust::metadata::{Malformed, Metadata as _, Root, Snapshot, file_name};
use redan_trust::recovery::{Asking, Floors, Recovery, RecoveryKind, RootChains, recover};
use redan_trust::{RoleVersions, TufError, Verified, rehearse};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What such a request says its role is. It is no role of any root: nothing signed for one passes for the other, since the signed
/// documents have different types.
pub const ROLE: &str = "recovery";

/// What the custodians say a device must not forget, besides what their public folder knows.
#[derive(Clone, Debug)]
pub struct Answering {
    /// The device's request.
    pub asked: RecoveryRequest,
    /// The last direction the server gave it.
    pub sequence: DirectionSequence,
    /// Serial of the newest fleet policy.
    pub policy_serial: u64,
    /// Version of the release timestamp, as the server has it.
    pub timestamp: u64,
    /// Lowest release counters.
    pub committed: BTreeMap<ComponentName, ReleaseCounter>,
}

/// Reads what a device printed.
pub fn asked(path: &Path) -> Result<RecoveryRequest, CeremonyError> {
    serde_json::from_slice(&bytes(path)?).map_err(|_| CeremonyError::Request {
        path: path.display().to_string(),
    })
}

/// Makes the request that holders of the release root sign.
pub fn request(answering: &Answering, release: &Present, now: UnixSeconds) -> Result<Request, CeremonyError> {
    let director = director(release)?;
    let root = release.root(UnixSeconds::new(0))?;
    let mut versions = listed(release, &root)?;
    versions.timestamp = answering.timestamp;
    let recovery = Recovery {
        kind: RecoveryKind::V1,
        fleet: answering.asked.fleet.clone(),
        device: answering.asked.device.clone(),
        nonce: answering.asked.nonce,
        issued: now,
        release: floors(release, &root, versions)?,
        director: floors(
            &director,
            &director.root(UnixSeconds::new(0))?,
            RoleVersions::default(),
        )?,
        policy_serial: answering.policy_serial,
        sequence: answering.sequence,
        committed: answering.committed.clone(),
    };
    let payload = serde_json::to_value(&recovery).map_err(|_| CeremonyError::Bug)?;
    let request = Request::new(recovery.fleet, RepositoryName::Release, ROLE, payload);
    request.check(release, now)?;
    Ok(request)
}

/// The rules of such a request: a device of this fleet, and the newest roots of the signer's own public folder.
pub(crate) fn check(request: &Request, release: &Present) -> Result<Recovery, CeremonyError> {
    let recovery: Recovery =
        serde_json::from_value(request.payload.clone()).map_err(|_| CeremonyError::Payload {
            role: ROLE.into(),
            source: Malformed::Field,
        })?;
    let of_device = matches!(recovery.device, SpiffeId::Device(..));
    if recovery.fleet != request.fleet || *recovery.device.fleet() != request.fleet || !of_device {
        return Err(CeremonyError::OtherFleet);
    }
    for (present, named) in [
        (release, &recovery.release),
        (&director(release)?, &recovery.director),
    ] {
        let root = present.root(UnixSeconds::new(0))?;
        let here = floors(present, &root, named.versions.clone())?;
        if here != *named {
            return Err(CeremonyError::OtherRoot {
                repository: present.name,
            });
        }
    }
    Ok(recovery)
}

/// The signed document and its name, once the device that asked would take it.
pub(crate) fn assemble(
    request: &Request,
    signatures: &[Value],
    release: &Present,
    now: UnixSeconds,
) -> Result<(String, Vec<u8>), CeremonyError> {
    let recovery = check(request, release)?;
    let director = director(release)?;
    let roots = RootChains {
        release: chain(release, recovery.release.root)?,
        director: chain(&director, recovery.director.root)?,
    };
    let document = json!({"signed": request.payload, "signatures": signatures, "roots": roots});
    let bytes = serde_json::to_vec(&document).map_err(|_| CeremonyError::Bug)?;
    let (release_root, director_root) = (text(release, 1)?, text(&director, 1)?);
    let asking = Asking {
        device: &recovery.device,
        nonce: recovery.nonce,
        release_root: &release_root,
        director_root: &director_root,
        now,
    };
    recover(&bytes, &asking)?;
    let SpiffeId::Device(_, device) = &recovery.device else {
        return Err(CeremonyError::OtherFleet);
    };
    let nonce = String::from(recovery.nonce);
    let short = nonce.get(..8).unwrap_or_default();
    Ok((format!("recovery.{device}.{short}.json"), bytes))
}

/// The other repository of the same public folder.
fn director(release: &Present) -> Result<Present, CeremonyError> {
    let public = release.folder.parent().ok_or(CeremonyError::Fleet)?;
    Present::read(public, RepositoryName::Director)
}

fn floors(present: &Present, root: &Verified<Root>, versions: RoleVersions) -> Result<Floors, CeremonyError> {
    let version = root.get().version();
    let root_sha256 = Digest::of(text(present, version)?.as_bytes());
    Ok(Floors {
        root: version,
        root_sha256,
        versions,
    })
}

/// What the newest snapshot lists. It may have expired; its versions are known all the same.
fn listed(release: &Present, root: &Verified<Root>) -> Result<RoleVersions, CeremonyError> {
    let version = release.newest("snapshot");
    let name = file_name("snapshot", Some(version));
    let missing = || release.refuse(TufError::Unavailable { path: name.clone() });
    let bytes = release.file(&name).ok_or_else(missing)?;
    let signers = root.signers("snapshot").ok_or_else(missing)?;
    let snapshot: Verified<Snapshot> =
        rehearse::accept(bytes, "snapshot", version, &signers, UnixSeconds::new(0))
            .map_err(|error| release.refuse(error))?;
    let files = snapshot.get().meta.iter();
    Ok(RoleVersions {
        timestamp: 0,
        snapshot: version,
        files: files.map(|(file, entry)| (file.clone(), entry.version)).collect(),
    })
}

fn chain(present: &Present, last: u64) -> Result<Vec<String>, CeremonyError> {
    (2..=last).map(|version| text(present, version)).collect()
}

fn text(present: &Present, version: u64) -> Result<String, CeremonyError> {
    let name = file_name("root", Some(version));
    let file = present
        .file(&name)
        .and_then(|bytes| std::str::from_utf8(bytes).ok());
    let missing = || present.refuse(TufError::Unavailable { path: name.clone() });
    file.map(str::to_owned).ok_or_else(missing)
}
