//! What `decide()` says yes to.

use crate::custom::{ComponentRecord, Direction};
use crate::release_set::ReleaseSet;
use redan_policy::EffectiveGrant;
use redan_protocol::{ByteCount, Digest};

/// A whole release set this device may adopt now. Made only by [`crate::decide`]; the fields are read, not written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    pub(crate) direction: Direction,
    pub(crate) set: ReleaseSet,
    pub(crate) members: Vec<PlannedMember>,
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
