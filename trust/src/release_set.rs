//! Release sets: what belongs together, what it replaces, and how fast it may spread. Target `plans/<set>.json`.

use redan_protocol::{ComponentName, Digest, FleetId, Permille, ReleaseCounter, Seconds, SetId, SpiffeId};
use serde::{Deserialize, Serialize};

/// Most members of one set.
pub const MEMBERS_MAX: usize = 32;
/// Most rings of one set.
pub const RINGS_MAX: usize = 16;

/// The one schema of a [`ReleaseSet`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum SetSchema {
    /// Version 1.
    #[serde(rename = "redan.release-set/1")]
    V1,
}

/// A release set, signed by release managers (delegated role `plan`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseSet {
    /// Always `redan.release-set/1`.
    pub schema: SetSchema,
    /// The fleet.
    pub fleet: FleetId,
    /// Its name.
    pub id: SetId,
    /// What belongs to it, 1 to [`MEMBERS_MAX`].
    pub members: Vec<Member>,
    /// The set it replaces, for people.
    pub replaces: Option<SetId>,
    /// Sets a device may go back to from this one, besides the one it ran before.
    pub rollback_sets: Vec<SetId>,
    /// How fast it may spread, 1 to [`RINGS_MAX`], shares growing, the last one 1000‰.
    pub rings: Vec<Ring>,
}

/// One member of a set.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The component.
    pub component: ComponentName,
    /// Its version.
    pub version: semver::Version,
    /// Its release counter.
    pub counter: ReleaseCounter,
    /// Its bytes.
    pub digest: Digest,
}

impl Member {
    /// Its target path (corrections 2): `components/<publisher>/<name>/<version>/<sha256>.wasm`.
    pub fn target_path(&self) -> String {
        format!(
            "components/{}/{}/{}.wasm",
            self.component, self.version, self.digest
        )
    }
}

/// One ring: devices whose bucket lies below `share` may adopt once `opens_after` has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    /// Cumulative share of the fleet.
    pub share: Permille,
    /// Counted on the device's own monotonic clock since it first verified the plan (corrections 1).
    pub opens_after: Seconds,
    /// How long release managers want it watched before the next ring.
    pub soak: Seconds,
}

/// A device's bucket in a set: `u64(first 8 bytes of SHA-256(set id ‖ SPIFFE ID)) mod 1000` (10-trust, rule e).
pub fn bucket(set: &SetId, device: &SpiffeId) -> u16 {
    let digest = Digest::of(format!("{set}{device}").as_bytes());
    let share = digest
        .as_bytes()
        .first_chunk()
        .map_or(u64::MAX, |first| u64::from_be_bytes(*first))
        % 1000;
    // Below 1000, so it fits; the fallback is the last bucket, which is only ever later.
    u16::try_from(share).unwrap_or(999)
}
