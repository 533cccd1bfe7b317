//! Versions of roles in a record of their own: what happens to the metadata files decides nothing.

use crate::maker::{Device, EXPIRES, Repo};
use redan_protocol::UnixSeconds;
use redan_trust::{Trusted, TufError};
use serde_json::json;

/// Each role that has a version, and what a refusal calls it.
const ROLES: [(&str, &str); 4] = [
    ("timestamp", "timestamp"),
    ("snapshot", "snapshot"),
    ("targets", "targets.json"),
    ("plan", "plan.json"),
];

fn rollback(role: &str, trusted: u64, offered: u64) -> TufError {
    TufError::Rollback {
        role: role.into(),
        trusted,
        offered,
    }
}

/// A repository at version 5, a device that knows it, and the same device when it knew version 2.
fn grown() -> (Repo, Device, Device) {
    let mut repo = Repo::new();
    repo.delegate("targets", "plan", &["plans/*"], true);
    repo.publish_next();
    let mut device = repo.device().with_record();
    device.refresh(&repo).unwrap();
    let early = device.clone();
    (0..3).for_each(|_| repo.publish_next());
    device.refresh(&repo).unwrap();
    (repo, device, early)
}

/// Serves version 4 of one role, and version 6 of all others.
fn set_back(repo: &mut Repo, role: &str) {
    for (name, _) in ROLES {
        repo.document(name)["version"] = json!(if name == role { 4 } else { 6 });
    }
    repo.publish();
}

#[test]
fn deleted_files_bring_no_older_role_back() {
    // The attacker deletes the device's metadata files, holds every online key, and serves an older version of one role.
    for (role, shown) in ROLES {
        let (mut repo, device, _) = grown();
        set_back(&mut repo, role);
        let error = device.without_files().refresh(&repo).unwrap_err();
        assert_eq!(error, rollback(shown, 5, 4));
    }
}

#[test]
fn older_files_put_in_their_place_bring_no_older_role_back() {
    // The attacker puts the device's own files of an earlier day back: validly signed, but old.
    for (role, shown) in ROLES {
        let (mut repo, device, mut restored) = grown();
        restored.trusted.versions = device.trusted.versions;
        set_back(&mut repo, role);
        assert_eq!(restored.refresh(&repo).unwrap_err(), rollback(shown, 5, 4));
    }
}

#[test]
fn an_older_file_that_is_put_back_and_served_too_is_refused() {
    // The attacker answers with the very bytes that he put onto the device's disk.
    let mut repo = Repo::new();
    repo.publish_next();
    let mut device = repo.device().with_record();
    device.refresh(&repo).unwrap();
    let (early, served) = (device.clone(), repo.served.clone());
    repo.publish_next();
    device.refresh(&repo).unwrap();
    let mut restored = early;
    restored.trusted.versions = device.trusted.versions;
    repo.served = served;
    assert_eq!(restored.refresh(&repo).unwrap_err(), rollback("timestamp", 3, 2));
}

#[test]
fn a_role_the_snapshot_listed_stays_listed_when_the_files_are_gone() {
    let (mut repo, device, _) = grown();
    Repo::bump(&mut repo.snapshot);
    Repo::bump(&mut repo.timestamp);
    repo.snapshot["meta"].as_object_mut().unwrap().remove("plan.json");
    repo.publish_snapshot();
    let dropped = TufError::Dropped {
        file: "plan.json".into(),
    };
    assert_eq!(device.without_files().refresh(&repo).unwrap_err(), dropped);
}

#[test]
fn what_a_failed_refresh_verified_is_known_from_then_on() {
    let (mut repo, mut device, _) = grown();
    repo.publish_next();
    let snapshot = repo.served.remove("6.snapshot.json").unwrap();
    let unavailable = TufError::Unavailable {
        path: "snapshot.json".into(),
    };
    assert_eq!(device.refresh(&repo).unwrap_err(), unavailable);
    let mut device = device.without_files();
    repo.timestamp["version"] = json!(5);
    repo.publish_timestamp();
    assert_eq!(device.refresh(&repo).unwrap_err(), rollback("timestamp", 6, 5));
    repo.timestamp["version"] = json!(6);
    repo.publish_timestamp();
    repo.served.insert("6.snapshot.json".into(), snapshot);
    device.refresh(&repo).unwrap();
}

#[test]
fn deleted_or_replaced_files_are_fetched_again() {
    let (repo, device, early) = grown();
    let whole = device.trusted.clone();
    let mut restored = early;
    restored.trusted.versions = device.trusted.versions.clone();
    for mut device in [device.without_files(), restored] {
        device.refresh(&repo).unwrap();
        let Trusted {
            timestamp,
            snapshot,
            versions,
            ..
        } = device.trusted.clone();
        assert_eq!(
            (timestamp, snapshot, versions),
            (
                whole.timestamp.clone(),
                whole.snapshot.clone(),
                whole.versions.clone()
            )
        );
        device.refresh(&repo).unwrap();
        assert_eq!((device.fetched.len(), device.stored.len()), (2, 0));
    }
}

#[test]
fn a_damaged_copy_is_fetched_again_when_its_version_is_on_record() {
    for role in ["timestamp", "snapshot"] {
        let (mut repo, device, _) = grown();
        let mut torn = device.clone();
        let file = match role {
            "timestamp" => &mut torn.trusted.timestamp,
            _ => &mut torn.trusted.snapshot,
        };
        file.as_mut().unwrap().truncate(40);
        let mut fooled = torn.clone();
        torn.refresh(&repo).unwrap();
        assert_eq!(torn.trusted.timestamp, device.trusted.timestamp);
        assert_eq!(torn.trusted.snapshot, device.trusted.snapshot);
        set_back(&mut repo, role);
        assert_eq!(fooled.refresh(&repo).unwrap_err(), rollback(role, 5, 4));
    }
}

#[test]
fn new_keys_of_timestamp_or_snapshot_reset_the_versions_on_record() {
    // The thief of the key went to the last version number; the custodians gave the role a new key (TUF 1.0.34 §5.3.11).
    for role in ["timestamp", "snapshot"] {
        let (mut repo, mut device, _) = grown();
        let last = u64::MAX - 1;
        Repo::bump(&mut repo.timestamp);
        repo.document(role)["version"] = json!(last);
        if role == "snapshot" {
            repo.document("plan")["version"] = json!(last);
        }
        repo.publish();
        device.refresh(&repo).unwrap();
        repo.rotate(role);
        repo.publish_root(&[]);
        for (name, _) in ROLES {
            repo.document(name)["version"] = json!(7);
        }
        repo.publish();
        for mut device in [device.without_files(), device] {
            device.refresh(&repo).unwrap();
            let versions = device.trusted.versions.unwrap();
            let files = (versions.files["plan.json"], versions.files["targets.json"]);
            assert_eq!((versions.timestamp, versions.snapshot, files), (7, 7, (7, 7)));
        }
    }
}

#[test]
fn a_root_that_keeps_both_keys_resets_no_version() {
    let (mut repo, device, _) = grown();
    repo.rotate("targets");
    repo.publish_root(&[]);
    set_back(&mut repo, "timestamp");
    let error = device.without_files().refresh(&repo).unwrap_err();
    assert_eq!(error, rollback("timestamp", 5, 4));
}

#[test]
fn an_expired_version_on_record_is_still_a_floor() {
    let (mut repo, device, _) = grown();
    for document in [&mut repo.root, &mut repo.timestamp, &mut repo.snapshot] {
        document["expires"] = json!("2040-01-01T00:00:00Z");
    }
    repo.publish_root(&[]);
    set_back(&mut repo, "timestamp");
    let late = UnixSeconds::new(EXPIRES.get() + 1);
    let error = device.without_files().refresh_at(&repo, late).unwrap_err();
    assert_eq!(error, rollback("timestamp", 5, 4));
}
