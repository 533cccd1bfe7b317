//! The signed custom sections of component targets: what release signers say, and what the director adds.
//!
//! Full format from the first day: adding a signed field later costs every fleet a ceremony. Unknown fields are refused.

use redan_policy::grant::World;
use redan_protocol::{
    ComponentName, Digest, DirectionSequence, FleetId, ReleaseCounter, SetId, SpiffeId, UnixSeconds,
};
use serde::{Deserialize, Serialize};

/// Longest ask, bytes. Corrections 9: the ask travels inline.
pub const ASK_LEN_MAX: usize = 16 * 1024;

/// The `match` part: must be equal, as canonical JSON, in the release and the director repository.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentRecord {
    /// The fleet it was signed for: metadata of one fleet means nothing in another.
    pub fleet: FleetId,
    /// The component.
    pub component: ComponentName,
    /// Only grows.
    pub counter: ReleaseCounter,
    /// For people; rules look at `counter`.
    pub version: semver::Version,
    /// Hardware classes it was built for; empty: any.
    pub hardware: Vec<String>,
    /// Its world.
    pub world: World,
    /// The publisher's ask, TOML, whole.
    pub ask: String,
    /// Components that must be in the same set or on the device.
    pub requires: Vec<Requirement>,
    /// Components that must not be.
    pub conflicts: Vec<ComponentName>,
    /// Version of the state it keeps; a rollback across a change of it needs an allowed rollback set.
    pub state_schema: u32,
    /// When the publisher signed it, by their own clock. Signed with the rest, so nobody else can make an old release look new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<UnixSeconds>,
    /// `CycloneDX` document.
    pub sbom: Option<Digest>,
    /// SLSA provenance statement.
    pub provenance: Option<Digest>,
    /// Who rebuilt it and got the same bytes.
    pub rebuild: Option<RebuildStatement>,
}

/// Another component, at least at this version.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Which.
    pub component: ComponentName,
    /// At least.
    pub counter: ReleaseCounter,
}

/// A statement that an independent rebuild gave the same digest.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebuildStatement {
    /// Digest of the signed statement.
    pub statement: Digest,
    /// Key id of who made it.
    pub by: String,
}

/// `custom` of a component target in the release repository.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseCustom {
    /// What must match.
    #[serde(rename = "match")]
    pub record: ComponentRecord,
}

/// `custom` of a component target in the director repository of one device.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorCustom {
    /// What must match.
    #[serde(rename = "match")]
    pub record: ComponentRecord,
    /// The direction.
    pub direction: Direction,
}

/// Top-level signed fields of the director's `targets.json` beside `targets`: present also when the list is empty.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directed {
    /// The one device this metadata is for.
    pub device: SpiffeId,
}

/// What the director says about one target for one device. Equal in every target of one direction.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Direction {
    /// The device.
    pub device: SpiffeId,
    /// Only grows, per device.
    pub sequence: DirectionSequence,
    /// The signed release set.
    pub set: SetId,
    /// Digest of the set's document as release managers signed it.
    pub set_digest: Digest,
    /// Not before this, by proven time.
    pub not_before: UnixSeconds,
    /// Not after this, by proven time; zero: no deadline.
    pub deadline: UnixSeconds,
    /// How many times a failed attempt may be repeated.
    pub retry_budget: u32,
    /// Digests denied after a failed trial that may be tried again.
    pub unblocked: Vec<Digest>,
}

/// The one schema of a [`CarriedDirection`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum DirectionSchema {
    /// Version 1.
    #[serde(rename = "redan.direction/1")]
    V1,
}

/// A direction that release managers sign for one device without a network: target `directions/<device>/<sequence>.json` of the
/// release repository, delegated role `direction`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarriedDirection {
    /// Always `redan.direction/1`.
    pub schema: DirectionSchema,
    /// The direction. It needs a deadline: nobody says later that it is no longer current.
    pub direction: Direction,
}
