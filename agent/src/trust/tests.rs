//! What goes into the record, and when it is written.

use super::*;
use redan_protocol::{SetId, UnixSeconds};
use std::collections::BTreeSet;

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap()
}

fn record() -> TrustRecord {
    TrustRecord::enrolled(id().fleet().clone(), id(), "{}".into(), "{}".into())
}

fn opened(folder: &Path) -> Trust {
    let clock = Clock::start();
    Trust::open(folder, &id(), clock, &Proven::new(clock), None)
        .unwrap()
        .unwrap()
}

fn versions(timestamp: u64) -> RoleVersions {
    RoleVersions {
        timestamp,
        snapshot: 2,
        files: [("targets.json".to_owned(), 2)].into(),
    }
}

/// A folder with a first record in it.
fn folder(record: &TrustRecord) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), record.encode()).unwrap();
    folder
}

#[test]
fn versions_are_durable_before_anything_else_and_written_only_when_new() {
    let folder = folder(&record());
    let mut trust = opened(folder.path());
    trust.verified(Which::Release, None, versions(3)).unwrap();
    trust.verified(Which::Director, None, versions(9)).unwrap();
    let read = opened(folder.path()).record;
    assert_eq!(read.generation, 3);
    assert_eq!(read.release_versions, Some(versions(3)));
    assert_eq!(read.director_versions, Some(versions(9)));
    trust.verified(Which::Release, None, versions(3)).unwrap();
    assert_eq!(opened(folder.path()).record, read, "flash wears");
}

#[test]
fn a_new_root_and_the_versions_under_it_are_one_write() {
    // A power cut between two writes would leave versions of keys that are gone, or keys whose versions nobody remembers.
    let folder = folder(&record());
    let mut trust = opened(folder.path());
    trust.verified(Which::Release, None, versions(u64::MAX)).unwrap();
    let reset = RoleVersions::default();
    let root = Some(b"{\"newer\":1}".to_vec());
    trust.verified(Which::Release, root, reset.clone()).unwrap();
    let read = opened(folder.path()).record;
    assert_eq!(read.generation, 3);
    assert_eq!(read.release_root, "{\"newer\":1}");
    assert_eq!(read.release_versions, Some(reset));
}

#[test]
fn a_record_of_the_first_format_is_read_and_goes_on_in_the_present_one() {
    let old = TrustRecord {
        format: RecordFormat::V1,
        release_versions: None,
        director_versions: None,
        ..record()
    };
    let folder = folder(&old);
    let mut trust = opened(folder.path());
    // It never said when it was refreshed: the time without news counts from now.
    let read = TrustRecord {
        refreshed: Some(UnixSeconds::new(0)),
        ..old
    };
    assert_eq!(trust.record, read);
    trust.verified(Which::Release, None, versions(3)).unwrap();
    let read = opened(folder.path()).record;
    assert_eq!(read.format, RecordFormat::V2);
    assert_eq!(
        (read.release_versions, read.director_versions),
        (Some(versions(3)), None)
    );
}

#[test]
fn a_record_of_another_device_is_as_good_as_none() {
    let folder = folder(&record());
    let clock = Clock::start();
    for other in [
        "spiffe://plant.example/device/press-2",
        "spiffe://mill.example/device/press-1",
    ] {
        let other = SpiffeId::parse(other).unwrap();
        let opened = Trust::open(folder.path(), &other, clock, &Proven::new(clock), None).unwrap();
        assert_eq!(opened.err(), Some(Loss::Unreadable), "{other}");
    }
    opened(folder.path());
}

fn kept(serial: u64, maximum: Option<u64>) -> Kept {
    Kept {
        set: SetId::parse("plant-1").unwrap(),
        rollback_sets: Vec::new(),
        policy_serial: serial,
        revoked: BTreeSet::new(),
        maximum: maximum.map(UnixSeconds::new),
    }
}

/// A fleet's server shows a chain that becomes valid far in the future.
const FAR: UnixSeconds = UnixSeconds::new(9_000_000_000);
const MAXIMUM: u64 = 2_000_000_000;
/// More than a test takes.
const WHILE: u64 = 600;

#[test]
fn a_chain_of_the_far_future_moves_the_clock_to_the_signed_maximum_and_no_further_after_a_restart_too() {
    let folder = folder(&record());
    let mut trust = opened(folder.path());
    trust.adopt(kept(1, Some(MAXIMUM)));
    trust.save_if_due();
    let late = MAXIMUM..MAXIMUM + WHILE;
    trust.proven.learn(FAR);
    assert!(late.contains(&trust.proven.now().get()), "at once");
    // Started again before anything of it was written.
    let mut trust = opened(folder.path());
    assert_eq!(trust.record.maximum, Some(UnixSeconds::new(MAXIMUM)));
    trust.proven.learn(FAR);
    assert!(late.contains(&trust.proven.now().get()), "after a restart");
    // A later policy raises it, or sets none.
    trust.adopt(kept(2, Some(MAXIMUM * 2)));
    trust.proven.learn(FAR);
    let late = MAXIMUM * 2..MAXIMUM * 2 + WHILE;
    assert!(late.contains(&trust.proven.now().get()), "raised");
    trust.adopt(kept(3, None));
    trust.proven.learn(FAR);
    assert!(trust.proven.now() >= FAR, "without a maximum");
}

#[test]
fn a_maximum_that_is_lower_than_what_was_proven_takes_nothing_back() {
    let folder = folder(&record());
    let mut trust = opened(folder.path());
    trust.proven.learn(UnixSeconds::new(MAXIMUM));
    trust.adopt(kept(1, Some(5)));
    trust.save_if_due();
    assert!(trust.proven.now() >= UnixSeconds::new(MAXIMUM));
    let trust = opened(folder.path());
    assert!(trust.proven.now() >= UnixSeconds::new(MAXIMUM), "after a restart");
    trust.proven.learn(FAR);
    assert!(trust.proven.now() < FAR);
}
