//! Detached signatures and their request become a file, once a device would take it: the thresholds of the present and of the new
//! root, and a walk from the first root over the folder as it would then be.

use crate::error::CeremonyError;
use crate::present::Present;
use crate::recovery;
use crate::request::{Checked, Request};
use crate::sign::Signature;
use crate::verify::walk;
use redan_protocol::UnixSeconds;
use redan_trust::metadata::{Root, file_name};
use redan_trust::{TufError, rehearse};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A file that is signed and that a device would take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Assembled {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Collects the signatures and proves the result. Writes nothing.
pub fn assemble(
    request: &Request,
    checked: &Checked,
    files: &[PathBuf],
    present: &Present,
    now: UnixSeconds,
) -> Result<Assembled, CeremonyError> {
    let mut seen = BTreeSet::new();
    let mut signatures = Vec::new();
    for path in files {
        let signature = Signature::read(path)?;
        let shown = || path.display().to_string();
        if signature.payload_sha256 != checked.sha256 {
            return Err(CeremonyError::OtherPayload { path: shown() });
        }
        let named = checked.signers.iter().find(|key| key.id == signature.keyid);
        let key = named.ok_or_else(|| CeremonyError::NotNamed {
            key: crate::difference::clean(&signature.keyid),
            role: request.role.clone(),
        })?;
        if !seen.insert(key.public.clone()) {
            return Err(CeremonyError::Twice { key: key.id.clone() });
        }
        let bytes = hex::decode(&signature.sig).unwrap_or_default();
        if !key.made(&checked.canonical, &bytes) {
            return Err(CeremonyError::BadSignature { path: shown() });
        }
        signatures.push(json!({"keyid": key.id, "sig": signature.sig}));
    }
    if request.role == recovery::ROLE {
        let (name, bytes) = recovery::assemble(request, &signatures, present, now)?;
        return Ok(Assembled { name, bytes });
    }
    let file = json!({"signed": request.payload, "signatures": signatures});
    let bytes = serde_json::to_vec(&file).map_err(|_| CeremonyError::Bug)?;
    let name = file_name(&request.role, Some(checked.version));
    if request.role == "root" {
        // The walk counts both; asked by itself, the present root's holders can be told from the new one's.
        let by = checked.root.signers::<Root>("root").ok_or(CeremonyError::Bug)?;
        rehearse::accept(&bytes, "root", checked.version, &by, now)
            .map_err(|error| too_few(error, "the present root", present))?;
    }
    let whose = if request.role == "root" {
        "the new root"
    } else {
        "it"
    };
    walk(&present.with(name.clone(), bytes.clone()), &request.role, now).map_err(|error| match error {
        CeremonyError::Walk { source, .. } => too_few(source, whose, present),
        other => other,
    })?;
    Ok(Assembled { name, bytes })
}

fn too_few(error: TufError, whose: &'static str, present: &Present) -> CeremonyError {
    match error {
        TufError::Signatures { role, source } => CeremonyError::TooFew { role, whose, source },
        other => present.refuse(other),
    }
}
