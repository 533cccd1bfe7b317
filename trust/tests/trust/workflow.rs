//! Timestamp, snapshot and targets (TUF 1.0.34 §5.4 to §5.6).

use crate::maker::{Device, EXPIRES, LATE, NOW, Repo, Served, Signer, envelope};
use redan_protocol::UnixSeconds;
use redan_trust::claimed::TooFewSignatures;
use redan_trust::metadata::{Malformed, limits};
use redan_trust::{Answer, Refresh, Step, TufError};
use serde_json::json;

fn refused(device: &mut Device, repo: &Repo) -> TufError {
    device.refresh(repo).unwrap_err()
}

fn none_of_one(role: &str) -> TufError {
    TufError::Signatures {
        role: role.into(),
        source: TooFewSignatures {
            valid: 0,
            threshold: 1,
        },
    }
}

#[test]
fn an_unchanged_poll_fetches_root_and_timestamp_and_stores_nothing() {
    let repo = Repo::new();
    let mut device = repo.device();
    device.refresh(&repo).unwrap();
    assert_eq!(
        device.fetched,
        [
            "2.root.json",
            "timestamp.json",
            "1.snapshot.json",
            "1.targets.json"
        ]
    );
    assert_eq!(device.stored, ["timestamp", "snapshot", "targets"]);
    device.refresh(&repo).unwrap();
    assert_eq!(device.fetched, ["2.root.json", "timestamp.json"]);
    assert_eq!(device.stored, Vec::<String>::new());
}

#[test]
fn without_consistent_snapshots_names_carry_no_versions() {
    let mut repo = Repo::new();
    repo.root["consistent_snapshot"] = json!(false);
    repo.publish_root(&[]);
    repo.publish_next();
    let mut device = repo.device();
    device.refresh(&repo).unwrap();
    assert_eq!(
        device.fetched,
        [
            "2.root.json",
            "3.root.json",
            "timestamp.json",
            "snapshot.json",
            "targets.json"
        ]
    );
}

#[test]
fn parents_may_name_sha512_only_or_no_hashes() {
    for hashes in [vec!["sha512"], vec!["sha256", "sha512"], vec![]] {
        let mut repo = Repo::new();
        repo.hashes = hashes;
        repo.publish_next();
        let mut device = repo.device();
        device.refresh(&repo).unwrap();
        device.refresh(&repo).unwrap();
        assert_eq!(device.fetched.len(), 2);
    }
}

#[test]
fn metadata_signed_by_a_stranger_is_refused() {
    // The attacker serves what he likes and holds no key.
    for role in ["timestamp", "snapshot", "targets"] {
        let mut repo = Repo::new();
        let mut device = repo.device();
        device.refresh(&repo).unwrap();
        let known = repo.signers.remove(role).unwrap();
        repo.signers.insert(role.into(), vec![Signer::new(role)]);
        repo.publish_next();
        assert_eq!(refused(&mut device, &repo), none_of_one(role));
        repo.signers.insert(role.into(), known);
        repo.publish_next();
        device.refresh(&repo).unwrap();
    }
}

#[test]
fn a_rotated_out_key_signs_nothing_any_more() {
    for role in ["timestamp", "snapshot", "targets"] {
        let mut repo = Repo::new();
        let mut device = repo.device();
        device.refresh(&repo).unwrap();
        let stolen = repo.rotate(role);
        repo.publish_root(&[]);
        repo.signers.insert(role.into(), stolen);
        repo.publish_next();
        assert_eq!(refused(&mut device, &repo), none_of_one(role));
    }
}

#[test]
fn no_version_goes_back() {
    let rollback = |role: &str, trusted, offered| TufError::Rollback {
        role: role.into(),
        trusted,
        offered,
    };
    for hashes in [vec![], vec!["sha256"]] {
        let mut repo = Repo::new();
        repo.hashes = hashes;
        let mut device = repo.device();
        (0..4).for_each(|_| repo.publish_next());
        device.refresh(&repo).unwrap();
        repo.timestamp["version"] = json!(4);
        repo.publish();
        assert_eq!(refused(&mut device, &repo), rollback("timestamp", 5, 4));
        repo.timestamp["version"] = json!(6);
        repo.snapshot["version"] = json!(4);
        repo.publish();
        assert_eq!(refused(&mut device, &repo), rollback("snapshot", 5, 4));
        repo.snapshot["version"] = json!(6);
        repo.targets.get_mut("targets").unwrap()["version"] = json!(4);
        repo.publish();
        assert_eq!(refused(&mut device, &repo), rollback("targets.json", 5, 4));
    }
}

#[test]
fn an_expired_stored_file_is_still_a_floor() {
    let mut repo = Repo::new();
    let mut device = repo.device();
    (0..4).for_each(|_| repo.publish_next());
    device.refresh(&repo).unwrap();
    repo.timestamp["version"] = json!(4);
    for document in [&mut repo.root, &mut repo.timestamp, &mut repo.snapshot] {
        document["expires"] = json!("2040-01-01T00:00:00Z");
    }
    repo.publish_root(&[]);
    repo.publish();
    let error = device.refresh_at(&repo, LATE).unwrap_err();
    let rollback = TufError::Rollback {
        role: "timestamp".into(),
        trusted: 5,
        offered: 4,
    };
    assert_eq!(error, rollback);
}

#[test]
fn a_file_the_snapshot_listed_stays_listed() {
    let mut repo = Repo::new();
    repo.delegate("targets", "a", &["*"], false);
    repo.publish_next();
    let mut device = repo.device();
    device.refresh(&repo).unwrap();
    Repo::bump(&mut repo.snapshot);
    Repo::bump(&mut repo.timestamp);
    repo.snapshot["meta"].as_object_mut().unwrap().remove("a.json");
    repo.publish_snapshot();
    assert_eq!(
        refused(&mut device, &repo),
        TufError::Dropped {
            file: "a.json".into()
        }
    );
}

#[test]
fn a_file_with_another_version_than_its_parent_says_is_refused() {
    let mut repo = Repo::new();
    repo.hashes = Vec::new();
    repo.publish_next();
    let Served::Bytes(old) = repo.served["1.targets.json"].clone() else {
        panic!()
    };
    repo.served.insert("2.targets.json".into(), Served::Bytes(old));
    let wrong = |role: &str| TufError::WrongVersion {
        role: role.into(),
        wanted: 2,
        offered: 1,
    };
    assert_eq!(refused(&mut repo.device(), &repo), wrong("targets"));
    let Served::Bytes(old) = repo.served["1.snapshot.json"].clone() else {
        panic!()
    };
    repo.served.insert("2.snapshot.json".into(), Served::Bytes(old));
    assert_eq!(refused(&mut repo.device(), &repo), wrong("snapshot"));
}

#[test]
fn other_bytes_than_the_parent_names_are_refused() {
    for role in ["snapshot", "targets"] {
        let mut repo = Repo::new();
        let path = format!("1.{role}.json");
        let Served::Bytes(mut bytes) = repo.served[&path].clone() else {
            panic!()
        };
        bytes.push(b'\n');
        repo.served.insert(path, Served::Bytes(bytes));
        assert_eq!(
            refused(&mut repo.device(), &repo),
            TufError::WrongBytes { role: role.into() }
        );
    }
}

#[test]
fn files_of_three_epochs_do_not_mix() {
    // The attacker keeps every file that was ever served, and answers with any of them.
    for hashes in [vec![], vec!["sha256"]] {
        let mut repo = Repo::new();
        repo.hashes = hashes;
        let mut timestamps = Vec::new();
        for _ in 0..3 {
            repo.publish_next();
            timestamps.push(repo.served["timestamp.json"].clone());
        }
        let all = repo.served.clone();
        for (t, s, g) in (0..27).map(|mix| (mix / 9, mix / 3 % 3, mix % 3)) {
            repo.served.insert("timestamp.json".into(), timestamps[t].clone());
            for asked in 2..=4 {
                for (role, epoch) in [("snapshot", s), ("targets", g)] {
                    let file = all[&format!("{}.{role}.json", epoch + 2)].clone();
                    repo.served.insert(format!("{asked}.{role}.json"), file);
                }
            }
            let legal = t == s && s == g;
            assert_eq!(repo.device().refresh(&repo).is_ok(), legal, "{t} {s} {g}");
        }
    }
}

#[test]
fn expiry_is_refused_to_the_second() {
    for role in ["root", "timestamp", "snapshot", "targets"] {
        let mut repo = Repo::new();
        for document in [&mut repo.root, &mut repo.timestamp, &mut repo.snapshot] {
            document["expires"] = json!("2040-01-01T00:00:00Z");
        }
        repo.targets.get_mut("targets").unwrap()["expires"] = json!("2040-01-01T00:00:00Z");
        repo.document(role)["expires"] = json!("2030-01-01T00:00:00Z");
        repo.publish_root(&[]);
        repo.publish_next();
        let before = UnixSeconds::new(EXPIRES.get() - 1);
        repo.device().refresh_at(&repo, before).unwrap();
        let expired = TufError::Expired {
            role: role.into(),
            expired: EXPIRES,
            now: EXPIRES,
        };
        assert_eq!(repo.device().refresh_at(&repo, EXPIRES).unwrap_err(), expired);
        // Stored while valid, then frozen.
        let mut device = repo.device();
        device.refresh(&repo).unwrap();
        assert_eq!(device.refresh_at(&repo, EXPIRES).unwrap_err(), expired);
    }
}

#[test]
fn a_clock_that_jumps_forward_and_back_stops_nothing() {
    let mut repo = Repo::new();
    let mut device = repo.device();
    device.refresh(&repo).unwrap();
    device.refresh_at(&repo, LATE).unwrap_err();
    repo.publish_next();
    device.refresh_at(&repo, UnixSeconds::new(0)).unwrap();
    repo.publish_next();
    device.refresh(&repo).unwrap();
}

#[test]
fn a_missing_file_and_a_failed_fetch_are_refused() {
    for (path, absent) in [
        ("timestamp.json", true),
        ("timestamp.json", false),
        ("1.snapshot.json", true),
        ("1.targets.json", false),
    ] {
        let mut repo = Repo::new();
        repo.served.remove(path);
        if !absent {
            repo.served.insert(path.into(), Served::Failed);
        }
        let file = path.trim_start_matches("1.").to_owned();
        assert_eq!(
            refused(&mut repo.device(), &repo),
            TufError::Unavailable { path: file }
        );
    }
}

#[test]
fn a_file_one_byte_over_its_limit_is_refused() {
    for (path, limit) in [
        ("2.root.json", limits::ROOT),
        ("timestamp.json", limits::TIMESTAMP),
        ("2.snapshot.json", limits::SNAPSHOT),
        ("2.targets.json", limits::TARGETS),
    ] {
        let mut repo = Repo::new();
        repo.hashes = Vec::new();
        repo.publish_next();
        let length = usize::try_from(limit.get()).unwrap() + 1;
        repo.served.insert(path.into(), Served::Bytes(vec![b' '; length]));
        let path = path.trim_start_matches("2.").to_owned();
        assert_eq!(
            refused(&mut repo.device(), &repo),
            TufError::TooLong { path, limit }
        );
    }
}

#[test]
fn a_timestamp_of_the_same_version_changes_nothing() {
    let mut repo = Repo::new();
    let mut device = repo.device();
    device.refresh(&repo).unwrap();
    Repo::bump(&mut repo.snapshot);
    repo.publish();
    let snapshot = device.refresh(&repo).unwrap().snapshot_version();
    assert_eq!((snapshot, device.stored.len()), (1, 0));
}

#[test]
fn a_stored_file_torn_anywhere_is_never_absence() {
    // The attacker tears the device's files, then replays an older repository.
    let mut repo = Repo::new();
    let old = repo.served.clone();
    repo.publish_next();
    let mut whole = repo.device();
    whole.refresh(&repo).unwrap();
    repo.served = old;
    for role in ["root", "timestamp", "snapshot"] {
        let file = match role {
            "root" => whole.trusted.root.clone(),
            "timestamp" => whole.trusted.timestamp.clone().unwrap(),
            _ => whole.trusted.snapshot.clone().unwrap(),
        };
        for part in 0..16 {
            let at = file.len() * part / 16;
            let mut zeroed = file.clone();
            zeroed[at..].fill(0);
            for torn in [file[..at].to_vec(), zeroed] {
                let mut device = whole.clone();
                match role {
                    "root" => device.trusted.root = torn,
                    "timestamp" => device.trusted.timestamp = Some(torn),
                    _ => device.trusted.snapshot = Some(torn),
                }
                let damaged = TufError::Damaged { role: role.into() };
                assert_eq!(refused(&mut device, &repo), damaged, "{role} at {at}");
            }
        }
    }
}

#[test]
fn a_torn_copy_of_targets_is_fetched_again() {
    let mut repo = Repo::new();
    repo.hashes = Vec::new();
    repo.publish_next();
    let mut device = repo.device();
    device.refresh(&repo).unwrap();
    let file = device.trusted.targets["targets"].clone();
    for torn in [file[..file.len() / 2].to_vec(), Vec::new()] {
        device.trusted.targets.insert("targets".into(), torn);
        device.refresh(&repo).unwrap();
        assert_eq!(device.stored, ["targets"]);
        assert_eq!(device.trusted.targets["targets"], file);
    }
}

#[test]
fn two_or_three_numbers_that_begin_with_one_are_a_specification_that_is_read() {
    for version in ["1.0", "1.0.0", "1.0.34", "1.99.7"] {
        let mut repo = Repo::new();
        repo.timestamp["spec_version"] = json!(version);
        repo.publish_timestamp();
        repo.device().refresh(&repo).unwrap();
    }
    for version in [
        "1", "1.", "1.x", "1.0.0.0", "0.9", "01.0", "2.0.0", "", " 1.0", "1.-0", "1.0\n", "\"1.0",
    ] {
        let mut repo = Repo::new();
        repo.timestamp["spec_version"] = json!(version);
        repo.publish_timestamp();
        let malformed = TufError::Malformed {
            role: "timestamp".into(),
            source: Malformed::Type,
        };
        assert_eq!(refused(&mut repo.device(), &repo), malformed, "{version:?}");
    }
}

#[test]
fn a_malformed_file_says_what_is_wrong() {
    type Edit = fn(&mut Repo);
    let cases: [(Edit, Malformed); 6] = [
        (|repo| repo.timestamp["version"] = json!(-1), Malformed::Field),
        (|repo| repo.timestamp["version"] = json!(0), Malformed::Field),
        (|repo| repo.timestamp["version"] = json!("7"), Malformed::Field),
        (
            |repo| repo.timestamp["_type"] = json!("snapshot"),
            Malformed::Type,
        ),
        (
            |repo| repo.timestamp["spec_version"] = json!("2.0.0"),
            Malformed::Type,
        ),
        (
            |repo| repo.timestamp["expires"] = json!("2030-01-01 00:00"),
            Malformed::Expires,
        ),
    ];
    for (edit, source) in cases {
        let mut repo = Repo::new();
        edit(&mut repo);
        repo.publish_timestamp();
        let malformed = TufError::Malformed {
            role: "timestamp".into(),
            source,
        };
        assert_eq!(refused(&mut repo.device(), &repo), malformed);
    }
    for (text, source) in [
        (
            &b"{\"signed\":{},\"signed\":{},\"signatures\":[]}"[..],
            Malformed::Json,
        ),
        (
            b"{\"signed\":{\"version\":1.0},\"signatures\":[]}",
            Malformed::Json,
        ),
        (b"{\"signed\":{}}", Malformed::Envelope),
        (b"[]", Malformed::Envelope),
    ] {
        let mut repo = Repo::new();
        repo.served
            .insert("timestamp.json".into(), Served::Bytes(text.to_vec()));
        let malformed = TufError::Malformed {
            role: "timestamp".into(),
            source,
        };
        assert_eq!(refused(&mut repo.device(), &repo), malformed);
    }
}

#[test]
fn a_snapshot_without_targets_is_refused() {
    let mut repo = Repo::new();
    repo.snapshot["meta"] = json!({});
    repo.publish_snapshot();
    assert_eq!(
        refused(&mut repo.device(), &repo),
        TufError::Unlisted {
            role: "targets".into()
        }
    );
}

#[test]
fn an_answer_that_was_not_asked_for_is_a_bug() {
    let repo = Repo::new();
    let new = || Refresh::new(repo.device().trusted, NOW).unwrap();
    assert_eq!(new().step(Some(Answer::Stored)), Err(TufError::Driver));
    let mut refresh = new();
    assert!(matches!(refresh.step(None), Ok(Step::Fetch { .. })));
    assert_eq!(refresh.step(None), Err(TufError::Driver));
    assert_eq!(new().finish().unwrap_err(), TufError::Driver);
}

#[test]
fn fields_nobody_knows_are_signed_and_kept() {
    let mut repo = Repo::new();
    repo.targets.get_mut("targets").unwrap()["x-new"] = json!({"a": [1, "ä", null]});
    repo.publish_next();
    let mut device = repo.device();
    device.refresh(&repo).unwrap();
    let signed = envelope(&repo.targets["targets"], &repo.by("targets"));
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&device.trusted.targets["targets"]).unwrap(),
        signed
    );
}
