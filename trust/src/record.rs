//! The trust record: everything a device must not forget, in one hashed document of which two copies alternate.

use redan_protocol::{
    ComponentName, Digest, DirectionSequence, FleetId, ReleaseCounter, Seconds, SetId, SpiffeId, UnixSeconds,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Largest record, bytes: two roots, counters and digests of some hundred components.
pub const RECORD_LEN_MAX: usize = 4 * 1024 * 1024;

/// What the device knows and must keep. Written whole, the other copy each time.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRecord {
    /// Grows with every write; the newest valid copy counts.
    pub generation: u64,
    /// The fleet.
    pub fleet: FleetId,
    /// This device.
    pub device: SpiffeId,
    /// Newest trusted root of the release repository, as served.
    pub release_root: String,
    /// Newest trusted root of the director repository, as served.
    pub director_root: String,
    /// Highest serial of a fleet policy that was believed.
    pub policy_serial: u64,
    /// Highest committed release counters.
    pub committed: BTreeMap<ComponentName, ReleaseCounter>,
    /// The committed set.
    pub set: Option<SetId>,
    /// Sets this device may go back to.
    pub rollback_sets: BTreeSet<SetId>,
    /// The last direction that was followed.
    pub sequence: DirectionSequence,
    /// Lower bound of the true time.
    pub proven: UnixSeconds,
    /// The plan whose rings are running, by the digest of its document.
    pub plan: Option<Digest>,
    /// How long that plan is known, on the monotonic clock, summed over boots.
    pub plan_known: Seconds,
    /// Digests denied after a failed trial.
    pub denied: BTreeSet<Digest>,
    /// Digests revoked by the newest believed policy.
    pub revoked: BTreeSet<Digest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    record: TrustRecord,
    sha256: Digest,
}

impl TrustRecord {
    /// The record of a device that has just enrolled.
    pub fn enrolled(fleet: FleetId, device: SpiffeId, release_root: String, director_root: String) -> Self {
        Self {
            generation: 1,
            fleet,
            device,
            release_root,
            director_root,
            policy_serial: 0,
            committed: BTreeMap::new(),
            set: None,
            rollback_sets: BTreeSet::new(),
            sequence: DirectionSequence::new(0),
            proven: UnixSeconds::new(0),
            plan: None,
            plan_known: Seconds::new(0),
            denied: BTreeSet::new(),
            revoked: BTreeSet::new(),
        }
    }

    /// The bytes of one copy.
    #[allow(clippy::missing_panics_doc, reason = "see expect")]
    pub fn encode(&self) -> Vec<u8> {
        let sha256 = Digest::of(&self.canonical());
        #[expect(
            clippy::expect_used,
            reason = "strings, integers and maps with string keys always encode"
        )]
        serde_json::to_vec(&Sealed {
            record: self.clone(),
            sha256,
        })
        .expect("a record encodes")
    }

    /// Reads one copy; `None` when it is torn, rotten or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > RECORD_LEN_MAX {
            return None;
        }
        let Sealed { record, sha256 } = serde_json::from_slice(bytes).ok()?;
        (Digest::of(&record.canonical()) == sha256).then_some(record)
    }

    fn canonical(&self) -> Vec<u8> {
        #[expect(
            clippy::expect_used,
            reason = "strings, integers and maps with string keys always encode"
        )]
        redan_policy::canonical::to_vec(self).expect("a record encodes")
    }
}

/// The newest valid of two copies; `None` when neither is: the device's state is lost.
pub fn newest_valid(a: Option<&[u8]>, b: Option<&[u8]>) -> Option<TrustRecord> {
    let [a, b] = [a, b].map(|bytes| bytes.and_then(TrustRecord::decode));
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.generation > a.generation { b } else { a }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(generation: u64) -> TrustRecord {
        let fleet = FleetId::parse("plant.example").unwrap();
        let device = SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap();
        TrustRecord {
            generation,
            ..TrustRecord::enrolled(fleet, device, "{}".into(), "{}".into())
        }
    }

    #[test]
    fn the_newest_valid_copy_counts() {
        let (old, new) = (record(6).encode(), record(7).encode());
        assert_eq!(newest_valid(Some(&old), Some(&new)), Some(record(7)));
        assert_eq!(newest_valid(Some(&new), Some(&old)), Some(record(7)));
        assert_eq!(newest_valid(Some(&new), None), Some(record(7)));
        assert_eq!(newest_valid(None, None), None);
    }

    #[test]
    fn a_copy_that_is_torn_or_rotten_anywhere_does_not_count() {
        let (old, new) = (record(6).encode(), record(7).encode());
        for cut in 0..new.len() {
            assert_eq!(
                newest_valid(Some(&old), new.get(..cut)),
                Some(record(6)),
                "torn at {cut}"
            );
        }
        for at in 0..new.len() {
            for bit in 0..8 {
                let mut rotten = new.clone();
                rotten[at] ^= 1 << bit;
                let read = newest_valid(Some(&old), Some(&rotten));
                assert!(
                    read == Some(record(6)) || read == Some(record(7)),
                    "bit {bit} of byte {at}"
                );
            }
        }
    }
}
