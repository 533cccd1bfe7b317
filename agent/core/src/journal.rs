//! What survives a power cut: one record, written whole before each side effect.

use crate::state::State;
use redan_policy::EffectiveGrant;
use redan_policy::grant::World;
use redan_protocol::ipc::WorkloadKind;
use redan_protocol::{ByteCount, Code, ComponentName, Digest, DirectionSequence, ReleaseCounter, SetId};
use redan_trust::Plan;
use serde::{Deserialize, Serialize};

/// Most digests remembered as denied; the oldest is forgotten first. 64 failed trials without a commit in between.
pub const DENIED_MAX: usize = 64;

/// Number of a record: only grows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// The whole journal. `Default` is a device that never ran anything.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Number of this record.
    pub seq: Seq,
    /// What runs for good, and again after every boot.
    pub committed: Option<SetRecord>,
    /// Where an update stands.
    pub state: State,
    /// Digests that failed a trial here.
    pub denied: Vec<Denied>,
    /// Why the last trial was rolled back; cleared by the next commit.
    pub rollback: Option<Code>,
    /// The set that was rolled back, as [`SetRecord::fingerprint`], and the direction it came with.
    pub failed: Option<(Digest, DirectionSequence)>,
}

/// A digest this device does not try again, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denied {
    /// The component's digest.
    pub digest: Digest,
    /// Why its trial failed.
    pub code: Code,
}

/// A release set as the journal keeps it. Made from a [`Plan`], or read back from an authenticated journal.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRecord {
    pub(crate) id: SetId,
    pub(crate) sequence: DirectionSequence,
    pub(crate) retry_budget: u32,
    pub(crate) unblocked: Vec<Digest>,
    pub(crate) members: Vec<MemberRecord>,
}

/// One member of a set, with everything needed to run it without any network.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRecord {
    pub(crate) component: ComponentName,
    pub(crate) version: semver::Version,
    pub(crate) counter: ReleaseCounter,
    pub(crate) digest: Digest,
    pub(crate) length: ByteCount,
    pub(crate) kind: WorkloadKind,
    pub(crate) ask: String,
    pub(crate) grant: EffectiveGrant,
}

impl From<&Plan> for SetRecord {
    fn from(plan: &Plan) -> Self {
        let direction = plan.direction();
        let members = plan.members().iter().map(|member| MemberRecord {
            component: member.record().component.clone(),
            version: member.record().version.clone(),
            counter: member.record().counter,
            digest: member.digest(),
            length: member.length(),
            kind: match member.record().world {
                World::HttpProxy | World::HttpService => WorkloadKind::Service,
                World::Command => WorkloadKind::Job,
                World::Messages => WorkloadKind::Message,
            },
            ask: member.record().ask.clone(),
            grant: member.grant().clone(),
        });
        Self {
            id: plan.set().id.clone(),
            sequence: direction.sequence,
            retry_budget: direction.retry_budget,
            unblocked: direction.unblocked.clone(),
            members: members.collect(),
        }
    }
}

impl SetRecord {
    /// The set's name.
    pub fn id(&self) -> &SetId {
        &self.id
    }

    /// The direction it came with.
    pub fn sequence(&self) -> DirectionSequence {
        self.sequence
    }

    /// Its members, in the order of the signed set.
    pub fn members(&self) -> &[MemberRecord] {
        &self.members
    }

    /// What it does, apart from its name: two sets with the same components under the same grants are the same work.
    pub fn fingerprint(&self) -> Digest {
        let mut hasher = redan_protocol::digest::Hasher::default();
        for member in &self.members {
            hasher.update(member.component.to_string().as_bytes());
            hasher.update(member.digest.as_bytes());
            hasher.update(member.grant.digest().as_bytes());
        }
        hasher.finish()
    }

    pub(crate) fn holds(&self, member: &MemberRecord) -> bool {
        self.members.iter().any(|own| own.same_work(member))
    }

    pub(crate) fn runs(&self, component: &ComponentName) -> bool {
        self.members.iter().any(|own| own.component == *component)
    }

    pub(crate) fn has_digest(&self, digest: Digest) -> bool {
        self.members.iter().any(|own| own.digest == digest)
    }
}

impl MemberRecord {
    /// The component.
    pub fn component(&self) -> &ComponentName {
        &self.component
    }

    /// Its version.
    pub fn version(&self) -> &semver::Version {
        &self.version
    }

    /// Its release counter.
    pub fn counter(&self) -> ReleaseCounter {
        self.counter
    }

    /// SHA-256 of its bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Length of its bytes.
    pub fn length(&self) -> ByteCount {
        self.length
    }

    /// Service, job or handler of messages.
    pub fn kind(&self) -> WorkloadKind {
        self.kind
    }

    /// The publisher's signed ask, so that the grant can be narrowed again when the device's own ceiling changes.
    pub fn ask(&self) -> &str {
        &self.ask
    }

    /// What it gets on this device.
    pub fn grant(&self) -> &EffectiveGrant {
        &self.grant
    }

    pub(crate) fn same_work(&self, other: &Self) -> bool {
        self.component == other.component && self.digest == other.digest && self.grant == other.grant
    }
}
