//! The trust record: everything a device must not forget, in one hashed document of which two copies alternate.

use crate::versions::RoleVersions;
use redan_protocol::{
    ComponentName, Digest, DirectionSequence, FleetId, ReleaseCounter, Seconds, SetId, SpiffeId, UnixSeconds,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Largest record, bytes. Two roots as strings, every character of them escaped (2 MiB), the names of all files of two of the
/// largest snapshots (4 MiB), and counters and digests of some thousand components.
pub const RECORD_LEN_MAX: usize = 8 * 1024 * 1024;

/// The format of a record.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum RecordFormat {
    /// Without versions of roles, and without this field.
    #[default]
    #[serde(rename = "redan.trust-record/1")]
    V1,
    /// With versions of roles.
    #[serde(rename = "redan.trust-record/2")]
    V2,
}

impl RecordFormat {
    /// The first format does not say which it is.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde calls")]
    fn unsaid(&self) -> bool {
        *self == Self::V1
    }
}

/// What the device knows and must keep. Written whole, the other copy each time.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRecord {
    /// What this is written as.
    #[serde(default, skip_serializing_if = "RecordFormat::unsaid")]
    pub format: RecordFormat,
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
    /// Versions of the release repository's roles; `None`: the record was never written since they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_versions: Option<RoleVersions>,
    /// The same of the director repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub director_versions: Option<RoleVersions>,
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
    /// What nothing learnt from now on moves that bound past, by the newest believed policy; `None`: it sets no maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<UnixSeconds>,
    /// When the metadata was last verified as current, by that bound; `None`: the record was never written since it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refreshed: Option<UnixSeconds>,
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
            format: RecordFormat::V2,
            generation: 1,
            fleet,
            device,
            release_root,
            director_root,
            release_versions: Some(RoleVersions::default()),
            director_versions: Some(RoleVersions::default()),
            policy_serial: 0,
            committed: BTreeMap::new(),
            set: None,
            rollback_sets: BTreeSet::new(),
            sequence: DirectionSequence::new(0),
            proven: UnixSeconds::new(0),
            maximum: None,
            refreshed: None,
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

    /// Reads one copy; `None` when it is torn, rotten or of a format of later versions.
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

    #[test]
    fn a_record_from_before_versions_were_kept_still_reads_and_is_written_as_it_was() {
        // Written by the program that knew only the first format.
        let old = r#"{"record":{"generation":7,"fleet":"plant.example","device":"spiffe://plant.example/device/press-1","release_root":"{}","director_root":"{}","policy_serial":3,"committed":{"acme/thermo":4},"set":"plant-1","rollback_sets":[],"sequence":5,"proven":1800000000,"plan":null,"plan_known":9,"denied":[],"revoked":[]},"sha256":"5a59ec51bb16dfd6d57c82833246dee67ff2331169ce11f957bc680701e8287b"}"#;
        let record = TrustRecord::decode(old.as_bytes()).unwrap();
        assert_eq!(record.format, RecordFormat::V1);
        assert_eq!(
            (&record.release_versions, &record.director_versions),
            (&None, &None)
        );
        assert_eq!((record.generation, record.sequence.get()), (7, 5));
        assert_eq!(record.encode(), old.as_bytes());
    }

    #[test]
    fn the_signed_maximum_of_the_clock_is_kept() {
        let bounded = TrustRecord {
            maximum: Some(UnixSeconds::new(2_000_000_000)),
            ..record(7)
        };
        assert_eq!(TrustRecord::decode(&bounded.encode()), Some(bounded));
    }

    #[test]
    fn a_record_of_a_later_format_is_not_half_understood() {
        let new = String::from_utf8(record(7).encode()).unwrap();
        let later = new.replace("redan.trust-record/2", "redan.trust-record/3");
        assert_ne!(new, later);
        assert_eq!(TrustRecord::decode(later.as_bytes()), None);
    }

    #[test]
    fn the_fullest_record_fits_and_one_byte_more_does_not() {
        use crate::metadata::limits;
        let length = |limit: redan_protocol::ByteCount| usize::try_from(limit.get()).unwrap();
        // Every character of both roots is escaped; names and versions take the room they take in a snapshot.
        let root = "\"".repeat(length(limits::ROOT));
        let names = length(limits::SNAPSHOT) / 32;
        let versions = RoleVersions {
            timestamp: u64::MAX,
            snapshot: u64::MAX,
            files: (0..names)
                .map(|n| (format!("{n:0>24}"), u64::try_from(n).unwrap()))
                .collect(),
        };
        let full = TrustRecord {
            release_root: root.clone(),
            director_root: root,
            release_versions: Some(versions.clone()),
            director_versions: Some(versions),
            denied: (0..64_u8).map(|n| Digest::of(&[n])).collect(),
            revoked: (0..2048_u16).map(|n| Digest::of(&n.to_be_bytes())).collect(),
            ..record(7)
        };
        let mut bytes = full.encode();
        assert_eq!(TrustRecord::decode(&bytes), Some(full));
        bytes.resize(RECORD_LEN_MAX, b' ');
        assert!(TrustRecord::decode(&bytes).is_some());
        bytes.push(b' ');
        assert_eq!(TrustRecord::decode(&bytes), None);
    }
}
