//! Which certificate authorities this device believes (decision 0014): those that the newest release root it has verified lists, and
//! before there is such a list, the one of its voucher.
//!
//! The trust record holds that root. `identity/authorities.json` is what of it must not be lost with the record: a device that knows no
//! root any more must not fall back on an authority that was revoked since its voucher was made.
//!
//! ```text
//! root verified ─▶ trust record durable ─▶ authorities.json durable ─▶ next connection
//!                                     └── power cut: the next start writes it from the record
//! ```

use crate::AgentError;
use crate::disk::{Disk, replace};
use crate::pair::{Found, Pair};
use crate::record::claimed;
use redan_identity::Anchors;
use redan_protocol::wire::Voucher;
use redan_protocol::{Authorities, ByteCount, FleetId, SpiffeId};
use redan_trust::Claimed;
use redan_trust::metadata::{Metadata as _, Root};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Largest `authorities.json`, bytes: four certificates in hexadecimal at their limit. Tripped by
/// `a_file_that_does_not_read_is_no_way_back_to_the_voucher`.
const FILE_LEN_MAX: ByteCount = ByteCount::kib(80);

/// The file: what a verified root listed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    schema: ListedSchema,
    /// Version of the root.
    root: u64,
    authorities: Authorities,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
enum ListedSchema {
    #[serde(rename = "redan.authorities/1")]
    V1,
}

/// What a device believes, and whether root custodians said so.
#[derive(Clone, Debug)]
pub(crate) struct Believed {
    pub(crate) anchors: Anchors,
    /// A verified root lists them; else they are the voucher's.
    pub(crate) listed: bool,
}

impl Believed {
    /// What a voucher or a join token carries.
    pub(crate) fn of_voucher(fleet: &FleetId, ca: &str) -> Result<Self, AgentError> {
        Ok(Self {
            anchors: Anchors::carried(fleet, ca)?,
            listed: false,
        })
    }
}

impl Listed {
    /// What a root lists that this device has verified; `None`: nothing.
    pub(crate) fn of(root: &[u8]) -> Option<Self> {
        let root = Claimed::<Root>::parse(root).ok()?.into_peeked();
        Some(Self {
            schema: ListedSchema::V1,
            root: root.version(),
            authorities: root.authorities?,
        })
    }

    /// Ready to verify by.
    pub(crate) fn believed(&self, fleet: &FleetId) -> Result<Believed, AgentError> {
        Ok(Believed {
            anchors: Anchors::of(fleet, &self.authorities)?,
            listed: true,
        })
    }

    /// Makes it durable.
    pub(crate) fn keep(&self, disk: &impl Disk, identity: &Path) -> Result<(), AgentError> {
        let path = path(identity);
        let failed = |source| AgentError::file("write", &path, source);
        let bytes = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        replace(disk, &path, &bytes).map_err(failed)
    }
}

/// What an enrolled device believes: of the list in its trust record and the one in its file the one of the newer root. Writes the file
/// where a power cut kept it from being written.
pub(crate) fn believed(disk: &impl Disk, state: &Path, voucher: &Voucher) -> Result<Believed, AgentError> {
    let identity = state.join("identity");
    let kept = read(disk, &identity);
    let recorded = recorded(disk, state, voucher)?;
    let newest = match (kept, recorded) {
        (Ok(Some(kept)), Some(recorded)) if kept.root >= recorded.root => kept,
        (_, Some(recorded)) => {
            recorded.keep(disk, &identity)?;
            recorded
        }
        (Ok(Some(kept)), None) => kept,
        // Never was there a list: a file that is there and does not read is another matter.
        (Ok(None), None) => {
            return Believed::of_voucher(&voucher.fleet, &voucher.ca);
        }
        (Err(error), None) => return Err(error),
    };
    newest.believed(&voucher.fleet)
}

/// The list in the trust record; `None`: there is none, or no record.
fn recorded(disk: &impl Disk, state: &Path, voucher: &Voucher) -> Result<Option<Listed>, AgentError> {
    let folder = state.join("trust");
    let id = SpiffeId::Device(voucher.fleet.clone(), voucher.device.clone());
    let generation = |bytes: &[u8]| claimed(bytes, &id).map(|record| record.generation);
    let (_, found) =
        Pair::load(disk, &folder, generation).map_err(|source| AgentError::file("read", &folder, source))?;
    let Found::Record(bytes) = found else {
        return Ok(None);
    };
    let root = claimed(&bytes, &id).map(|record| record.release_root);
    Ok(root.and_then(|root| Listed::of(root.as_bytes())))
}

fn read(disk: &impl Disk, identity: &Path) -> Result<Option<Listed>, AgentError> {
    let path = path(identity);
    let failed = |source| AgentError::file("read", &path, source);
    let Some(bytes) = disk.read(&path, FILE_LEN_MAX).map_err(failed)? else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some)
        .map_err(|_| failed(io::ErrorKind::InvalidData.into()))
}

fn path(identity: &Path) -> PathBuf {
    identity.join("authorities.json")
}

#[cfg(test)]
mod tests;
