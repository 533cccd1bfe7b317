//! What `decide()` says yes to.

use crate::custom::{ComponentRecord, Direction};
use crate::release_set::ReleaseSet;
use redan_policy::EffectiveGrant;
use redan_protocol::{ByteCount, Digest, UnixSeconds};
use std::collections::BTreeSet;

/// A whole release set this device may adopt now. Made only by [`crate::decide()`]; the fields are read, not written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    pub(crate) direction: Direction,
    pub(crate) set: ReleaseSet,
    pub(crate) members: Vec<PlannedMember>,
    pub(crate) policy_serial: u64,
    pub(crate) revoked: BTreeSet<Digest>,
    pub(crate) maximum_time: Option<UnixSeconds>,
}

/// One member of the plan, with everything later steps need.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlannedMember {
    pub(crate) record: ComponentRecord,
    pub(crate) digest: Digest,
    pub(crate) length: ByteCount,
    pub(crate) grant: EffectiveGrant,
}

impl Plan {
    /// What the director said.
    pub fn direction(&self) -> &Direction {
        &self.direction
    }

    /// The signed set.
    pub fn set(&self) -> &ReleaseSet {
        &self.set
    }

    /// Serial of the fleet policy it was decided under.
    pub fn policy_serial(&self) -> u64 {
        self.policy_serial
    }

    /// Digests that policy revokes.
    pub fn revoked(&self) -> &BTreeSet<Digest> {
        &self.revoked
    }

    /// What proven time never passes, by that policy.
    pub fn maximum_time(&self) -> Option<UnixSeconds> {
        self.maximum_time
    }

    /// Its members, in the order of the set.
    pub fn members(&self) -> &[PlannedMember] {
        &self.members
    }
}

impl PlannedMember {
    /// What release signers said.
    pub fn record(&self) -> &ComponentRecord {
        &self.record
    }

    /// SHA-256 of the component, signed in both repositories.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its length, signed in both repositories.
    pub fn length(&self) -> ByteCount {
        self.length
    }

    /// What it gets on this device.
    pub fn grant(&self) -> &EffectiveGrant {
        &self.grant
    }
}
