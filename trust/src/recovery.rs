//! The way back of a device whose trust record is gone (decision 0006): a document that the holders of the release root sign for this
//! one device and this one request, `redan.recovery/1`.
//!
//! The device walks both repositories' roots from those its voucher pinned, through the chain the document carries; the threshold of
//! the last release root must have signed the rest: who, which request, and what the device must not forget.

use crate::claimed::{Claimed, Signers, TooFewSignatures};
use crate::error::TufError;
use crate::metadata::{Envelope, Malformed, Metadata as _, Root};
use crate::record::TrustRecord;
use crate::rehearse;
use crate::versions::RoleVersions;
use redan_protocol::wire::Nonce;
use redan_protocol::{
    ByteCount, Code, ComponentName, Digest, DirectionSequence, FleetId, ReleaseCounter, SpiffeId, UnixSeconds,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Longest document, bytes: some hundred roots of some ten KiB.
/// Tripped by `a_document_one_byte_over_the_limit_is_refused`.
pub const RECOVERY_LEN_MAX: ByteCount = ByteCount::mib(8);

/// The one `_type` of a [`Recovery`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum RecoveryKind {
    /// Version 1.
    #[serde(rename = "redan.recovery/1")]
    V1,
}

/// What the holders of the release root sign.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// Always `redan.recovery/1`.
    #[serde(rename = "_type")]
    pub kind: RecoveryKind,
    /// The fleet.
    pub fleet: FleetId,
    /// The one device it is for.
    pub device: SpiffeId,
    /// The one request it answers.
    pub nonce: Nonce,
    /// When it was made; a device takes it as proof that it is that late.
    pub issued: UnixSeconds,
    /// The release repository.
    pub release: Floors,
    /// The director repository.
    pub director: Floors,
    /// Lowest serial of a fleet policy.
    pub policy_serial: u64,
    /// Lowest sequence number of a direction.
    pub sequence: DirectionSequence,
    /// Lowest release counters.
    pub committed: BTreeMap<ComponentName, ReleaseCounter>,
}

/// What must not be forgotten of one repository.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floors {
    /// Version of its newest root.
    pub root: u64,
    /// SHA-256 of that root's file.
    pub root_sha256: Digest,
    /// Versions of its roles.
    pub versions: RoleVersions,
}

/// Both repositories' roots, each a file as served, from version 2 on; the device has the first.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootChains {
    /// Of the release repository.
    pub release: Vec<String>,
    /// Of the director repository.
    pub director: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    signed: Value,
    signatures: Value,
    roots: RootChains,
}

/// Who asked, and what it still has.
#[derive(Clone, Debug)]
pub struct Asking<'a> {
    /// The device.
    pub device: &'a SpiffeId,
    /// The nonce of its request.
    pub nonce: Nonce,
    /// The release root its voucher pinned.
    pub release_root: &'a str,
    /// The director root its voucher pinned.
    pub director_root: &'a str,
    /// Lower bound of the true time.
    pub now: UnixSeconds,
}

/// Why a document does not bring a device back.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecoveryError {
    /// Longer than allowed.
    #[error("the document is longer than {RECOVERY_LEN_MAX}")]
    TooLong,
    /// Not of its format.
    #[error("it is not a redan.recovery/1 document: {0}")]
    Malformed(Malformed),
    /// For another fleet.
    #[error("it is for fleet {named}, this device is {device}")]
    OtherFleet {
        /// Whose it is.
        named: FleetId,
        /// Who this is.
        device: SpiffeId,
    },
    /// For another device.
    #[error("it is for {named}, this device is {device}")]
    OtherDevice {
        /// Whose it is.
        named: SpiffeId,
        /// Who this is.
        device: SpiffeId,
    },
    /// An answer to another request.
    #[error("it answers another request than the one this device waits for")]
    OtherRequest,
    /// A device cannot walk its roots.
    #[error("its roots of the {repository} repository are not believed: {source}")]
    Walk {
        /// Which repository.
        repository: &'static str,
        /// Why.
        source: TufError,
    },
    /// The roots do not end where its signers say they do.
    #[error("its roots of the {repository} repository do not end with the one its signers name")]
    OtherRoot {
        /// Which repository.
        repository: &'static str,
    },
    /// Not signed by enough holders of the newest release root.
    #[error("it is not signed by the release root's threshold: {0}")]
    Signatures(TooFewSignatures),
}

impl RecoveryError {
    /// The code of the refusal.
    pub const fn code(&self) -> Code {
        match self {
            Self::TooLong | Self::Malformed(_) | Self::OtherRoot { .. } => Code::MetadataInvalid,
            Self::OtherFleet { .. } => Code::WrongFleet,
            Self::OtherDevice { .. } => Code::WrongDevice,
            Self::OtherRequest => Code::RecoveryUnasked,
            Self::Walk { source, .. } => source.code(),
            Self::Signatures(_) => Code::ThresholdNotMet,
        }
    }
}

/// The record of a device that has this document and what its voucher pinned, and nothing else. What else it remembers (its
/// journal) holds on top.
pub fn recover(bytes: &[u8], asking: &Asking<'_>) -> Result<TrustRecord, RecoveryError> {
    if u64::try_from(bytes.len()).map_or(true, |length| length > RECOVERY_LEN_MAX.get()) {
        return Err(RecoveryError::TooLong);
    }
    let malformed = RecoveryError::Malformed;
    let value = crate::json::parse(bytes).ok_or(malformed(Malformed::Json))?;
    let Document {
        signed,
        signatures,
        roots,
    } = Document::deserialize(value).map_err(|_| malformed(Malformed::Envelope))?;
    let envelope = serde_json::json!({"signed": signed, "signatures": signatures});
    let (envelope, signed) = Envelope::from_value(envelope).map_err(malformed)?;
    let claimed = Recovery::deserialize(signed).map_err(|_| malformed(Malformed::Field))?;
    if claimed.fleet != *asking.device.fleet() {
        return Err(RecoveryError::OtherFleet {
            named: claimed.fleet,
            device: asking.device.clone(),
        });
    }
    if claimed.device != *asking.device {
        return Err(RecoveryError::OtherDevice {
            named: claimed.device,
            device: asking.device.clone(),
        });
    }
    if claimed.nonce != asking.nonce {
        return Err(RecoveryError::OtherRequest);
    }
    let now = asking.now;
    let (release, release_root) = walk(
        "release",
        asking.release_root,
        &roots.release,
        &claimed.release,
        now,
    )?;
    let (_, director_root) = walk(
        "director",
        asking.director_root,
        &roots.director,
        &claimed.director,
        now,
    )?;
    let holders = release.roles.get("root").cloned();
    let holders = holders.ok_or(malformed(Malformed::Role))?;
    let signers = Signers::new(&release.keys, holders);
    let verified = Claimed::new(envelope, claimed)
        .verify(&signers)
        .map_err(RecoveryError::Signatures)?;
    let recovery = verified.get().clone();
    Ok(TrustRecord {
        release_versions: Some(recovery.release.versions),
        director_versions: Some(recovery.director.versions),
        policy_serial: recovery.policy_serial,
        committed: recovery.committed,
        sequence: recovery.sequence,
        proven: recovery.issued,
        ..TrustRecord::enrolled(recovery.fleet, recovery.device, release_root, director_root)
    })
}

/// Walks from the pinned root to the last of the chain, which must be the one that is named. Gives it, and its bytes.
fn walk(
    repository: &'static str,
    pinned: &str,
    chain: &[String],
    named: &Floors,
    now: UnixSeconds,
) -> Result<(Root, String), RecoveryError> {
    let file = |name: &str| {
        let version: usize = name.strip_suffix(".root.json")?.parse().ok()?;
        chain.get(version.checked_sub(2)?)
    };
    let next = |name: &str| file(name).map(|text| text.as_bytes().to_vec());
    let root = rehearse::roots(pinned.as_bytes().to_vec(), next, now)
        .map_err(|source| RecoveryError::Walk { repository, source })?;
    let root = root.get().clone();
    let last = chain.last().map_or(pinned, String::as_str).to_owned();
    // Its signers know the newest root; a chain that was cut would lead to holders who left.
    if root.version() != named.root || Digest::of(last.as_bytes()) != named.root_sha256 {
        return Err(RecoveryError::OtherRoot { repository });
    }
    Ok((root, last))
}
