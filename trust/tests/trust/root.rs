//! The root walk (TUF 1.0.34 §5.3).

use crate::maker::{Device, Repo, Served, Signer, envelope};
use redan_protocol::{AuthorityState, Digest};
use redan_trust::TufError;
use redan_trust::claimed::TooFewSignatures;
use redan_trust::metadata::{Malformed, Metadata as _};
use redan_trust::workflow::ROOTS_MAX;
use serde_json::{Value, json};

fn too_few(role: &str, valid: u32, threshold: u32) -> TufError {
    TufError::Signatures {
        role: role.into(),
        source: TooFewSignatures { valid, threshold },
    }
}

fn refused(device: &mut Device, repo: &Repo) -> TufError {
    device.refresh(repo).unwrap_err()
}

#[test]
fn a_chain_of_fifty_roots_is_walked() {
    let mut repo = Repo::new();
    for _ in 0..50 {
        let old = repo.rotate("root");
        repo.publish_root(&old);
    }
    let mut device = repo.device();
    assert_eq!(device.refresh(&repo).unwrap().root().version(), 51);
    assert_eq!(device.fetched.len(), 50 + 1 + 3);
}

#[test]
fn a_walk_longer_than_the_limit_goes_on_next_time() {
    let mut repo = Repo::new();
    (0..=ROOTS_MAX).for_each(|_| repo.publish_root(&[]));
    let mut device = repo.device();
    let last = u64::from(ROOTS_MAX) + 1;
    assert_eq!(device.refresh(&repo).unwrap().root().version(), last);
    assert_eq!(device.refresh(&repo).unwrap().root().version(), last + 1);
}

#[test]
fn a_root_signed_only_by_its_own_or_only_by_the_old_keys_is_refused() {
    let mut repo = Repo::new();
    let mut device = repo.device();
    let old = repo.rotate("root");
    repo.publish_root(&[]);
    assert_eq!(refused(&mut device, &repo), too_few("root", 0, 1));
    let by: Vec<&Signer> = old.iter().collect();
    let signed = envelope(&repo.root, &by);
    repo.serve("2.root.json", &signed);
    assert_eq!(refused(&mut device, &repo), too_few("root", 0, 1));
}

#[test]
fn a_root_that_skips_or_repeats_a_version_is_refused() {
    for offered in [1, 3, u64::MAX] {
        let mut repo = Repo::new();
        repo.root["version"] = json!(offered);
        let signed = envelope(&repo.root, &repo.by("root"));
        repo.serve("2.root.json", &signed);
        let wrong = TufError::WrongVersion {
            role: "root".into(),
            wanted: 2,
            offered,
        };
        assert_eq!(refused(&mut repo.device(), &repo), wrong);
    }
}

#[test]
fn only_absence_ends_the_walk() {
    let mut repo = Repo::new();
    repo.publish_root(&[]);
    for version in [2, 3] {
        let mut repo = Repo {
            served: repo.served.clone(),
            ..Repo::new()
        };
        let path = format!("{version}.root.json");
        repo.served.insert(path, Served::Failed);
        let mut device = repo.device();
        assert_eq!(refused(&mut device, &repo), TufError::RootUnavailable { version });
    }
}

#[test]
fn a_withheld_root_does_not_bring_a_stolen_key_back() {
    // The attacker holds the timestamp key that root 2 revoked, and hides every root after the first.
    let mut repo = Repo::new();
    let stolen = repo.rotate("timestamp");
    repo.publish_root(&[]);
    repo.publish_next();
    let mut device = repo.device();
    device.refresh(&repo).unwrap();
    for hidden in ["1.root.json", "2.root.json"] {
        repo.served.remove(hidden);
    }
    repo.signers.insert("timestamp".into(), stolen);
    repo.publish_next();
    assert_eq!(refused(&mut device, &repo), too_few("timestamp", 0, 1));
}

#[test]
fn a_stored_root_not_signed_by_itself_is_refused_before_any_request() {
    let mut repo = Repo::new();
    let signed = envelope(&repo.root, &[&Signer::new("stranger")]);
    repo.serve("1.root.json", &signed);
    let mut device = repo.device();
    assert_eq!(refused(&mut device, &repo), too_few("root", 0, 1));
    assert_eq!(device.fetched, Vec::<String>::new());
}

#[test]
fn fast_forward_is_recovered_by_rotating_keys() {
    // The attacker held the online keys and went as far as numbers go.
    for (rotated, far) in [
        (&["timestamp"][..], &["timestamp"][..]),
        (&["timestamp", "snapshot"], &["timestamp", "snapshot"]),
        (&["snapshot"], &["targets"]),
    ] {
        let mut repo = Repo::new();
        for role in far {
            repo.document(role)["version"] = json!(u64::MAX);
        }
        repo.timestamp["version"] = json!(repo.timestamp["version"].as_u64().unwrap().max(2));
        repo.publish();
        let mut device = repo.device();
        device.refresh(&repo).unwrap();
        for role in ["timestamp", "snapshot"] {
            repo.document(role)["version"] = json!(3);
        }
        repo.targets.get_mut("targets").unwrap()["version"] = json!(3);
        repo.publish();
        assert!(matches!(refused(&mut device, &repo), TufError::Rollback { .. }));
        for role in rotated {
            repo.rotate(role);
        }
        repo.publish_root(&[]);
        repo.publish();
        let mut cut = device.clone();
        device.refresh(&repo).unwrap();
        // Removed before the new root is stored: power may go between the two.
        assert_eq!(device.stored[..3], ["-timestamp", "-snapshot", "root"]);
        (cut.trusted.timestamp, cut.trusted.snapshot) = (None, None);
        cut.refresh(&repo).unwrap();
    }
}

#[test]
fn a_root_may_bring_keys_of_kinds_nobody_knows_yet() {
    let mut repo = Repo::new();
    repo.root["keys"]["pq"] =
        json!({"keytype": "ml-dsa", "scheme": "ml-dsa-65", "keyval": {"public": {"a": [1]}}, "x": 1});
    for role in ["root", "timestamp"] {
        repo.root["roles"][role]["keyids"]
            .as_array_mut()
            .unwrap()
            .push(json!("pq"));
    }
    repo.publish_root(&[]);
    let mut device = repo.device();
    assert_eq!(device.refresh(&repo).unwrap().root().version(), 2);
    // It never helps to meet a threshold.
    repo.root["roles"]["timestamp"]["threshold"] = json!(2);
    repo.publish_root(&[]);
    repo.publish_next();
    assert_eq!(refused(&mut device, &repo), too_few("timestamp", 1, 2));
}

#[test]
fn one_key_under_two_names_is_one_signer() {
    let mut repo = Repo::new();
    let mut twin = Signer::new("twin");
    let key = repo.root["keys"][repo.signers["timestamp"][0].id.as_str()].clone();
    std::mem::swap(&mut twin, &mut repo.signers.get_mut("timestamp").unwrap()[0]);
    // `twin` is now the known signer; the new one signs beside it under a name of the known key.
    repo.root["keys"]["again"] = key;
    let first = twin.id.clone();
    repo.root["roles"]["timestamp"] = json!({"keyids": [first, "again"], "threshold": 2});
    repo.publish_root(&[]);
    let mut signed = envelope(&repo.timestamp, &[&twin, &twin]);
    signed["signatures"][1]["keyid"] = json!("again");
    repo.serve("timestamp.json", &signed);
    assert_eq!(refused(&mut repo.device(), &repo), too_few("timestamp", 1, 2));
}

#[test]
fn a_role_that_anybody_could_sign_is_malformed() {
    for role in [
        json!({"keyids": ["a"], "threshold": 0}),
        json!({"keyids": ["a", "a"], "threshold": 1}),
    ] {
        let mut repo = Repo::new();
        repo.root["roles"]["timestamp"] = role;
        repo.publish_root(&[]);
        let malformed = TufError::Malformed {
            role: "root".into(),
            source: Malformed::Role,
        };
        assert_eq!(refused(&mut repo.device(), &repo), malformed);
    }
}

#[test]
fn a_development_fleet_never_becomes_another_or_a_production_fleet() {
    for (field, value) in [("profile", "production"), ("fleet", "other.example")] {
        let mut repo = Repo::new();
        repo.root["fleet"] = json!("plant.example");
        repo.root["profile"] = json!("development");
        let signed = envelope(&repo.root, &repo.by("root"));
        repo.serve("1.root.json", &signed);
        let mut device = repo.device();
        device.refresh(&repo).unwrap();
        repo.root[field] = json!(value);
        repo.publish_root(&[]);
        assert_eq!(refused(&mut device, &repo), TufError::OtherFleet);
    }
}

/// The authorities a root lists, and the one that `ca_sha256` names.
fn listing(repo: &mut Repo, listed: &[(&str, &str)], active: &str) {
    let entry = |(name, state): &(&str, &str)| {
        let authority = json!({"state": state, "certificate": hex::encode(name)});
        (Digest::of(name.as_bytes()).to_string(), authority)
    };
    repo.root["authorities"] = listed.iter().map(entry).collect();
    repo.root["ca_sha256"] = json!(Digest::of(active.as_bytes()));
}

#[test]
fn the_authorities_of_a_root_are_those_its_custodians_listed() {
    let mut repo = Repo::new();
    listing(&mut repo, &[("old", "active"), ("new", "prepared")], "old");
    repo.publish_root(&[]);
    let mut device = repo.device();
    let read = device.refresh(&repo).unwrap().root().authorities.clone().unwrap();
    let state = |name: &str| read.state(Digest::of(name.as_bytes()));
    assert_eq!(read.active(), Digest::of(b"old"));
    assert_eq!(state("new"), Some(AuthorityState::Prepared));
    assert_eq!(state("third"), None);
}

#[test]
fn a_list_of_authorities_of_an_illegal_form_makes_the_root_malformed() {
    for (listed, active, source) in [
        (&[][..], "a", Malformed::Field),
        (&[("a", "prepared")], "a", Malformed::Field),
        (&[("a", "active"), ("b", "active")], "a", Malformed::Field),
        (&[("a", "active"), ("b", "revoked")], "a", Malformed::Field),
        (
            &[
                ("a", "active"),
                ("b", "old"),
                ("c", "old"),
                ("d", "old"),
                ("e", "old"),
            ],
            "a",
            Malformed::Field,
        ),
        (&[("a", "active"), ("b", "prepared")], "b", Malformed::Authority),
    ] {
        let mut repo = Repo::new();
        let mut device = repo.device();
        listing(&mut repo, listed, active);
        repo.publish_root(&[]);
        let role = "root".to_owned();
        assert_eq!(refused(&mut device, &repo), TufError::Malformed { role, source });
    }
    // One authority twice is a key twice, which no JSON here has.
    let mut repo = Repo::new();
    let mut device = repo.device();
    listing(&mut repo, &[("a", "active"), ("b", "prepared")], "a");
    let text = envelope(&repo.root, &repo.by("root")).to_string();
    let (a, b) = (Digest::of(b"a").to_string(), Digest::of(b"b").to_string());
    let twice = text.replace(&format!("\"{b}\""), &format!("\"{a}\""));
    repo.served
        .insert("2.root.json".into(), Served::Bytes(twice.into_bytes()));
    let (role, source) = ("root".to_owned(), Malformed::Json);
    assert_eq!(refused(&mut device, &repo), TufError::Malformed { role, source });
}

/// Signed by every role but the root.
fn forge(repo: &Repo, root: &Value) -> Value {
    let stolen = ["timestamp", "snapshot", "targets"];
    let stolen: Vec<&Signer> = stolen.iter().flat_map(|role| repo.by(role)).collect();
    envelope(root, &stolen)
}

/// The attacker holds every key of the repository but the root's: online, policy, snapshot and targets keys.
#[test]
fn whoever_lacks_the_root_keys_cannot_introduce_an_authority() {
    let mut repo = Repo::new();
    listing(&mut repo, &[("old", "active")], "old");
    repo.root["version"] = json!(2);
    let signed = envelope(&repo.root, &repo.by("root"));
    repo.serve("2.root.json", &signed);
    let mut device = repo.device();
    device.refresh(&repo).unwrap();
    listing(&mut repo, &[("old", "active"), ("evil", "prepared")], "old");
    repo.root["version"] = json!(3);
    let forged = forge(&repo, &repo.root);
    repo.serve("3.root.json", &forged);
    assert_eq!(refused(&mut device, &repo), too_few("root", 0, 1));
    // And it is no use to change the one that is there.
    let mut older = repo.root.clone();
    older["version"] = json!(2);
    let forged = forge(&repo, &older);
    repo.serve("2.root.json", &forged);
    repo.served.remove("3.root.json");
    let read = device.refresh(&repo).unwrap().root().authorities.clone().unwrap();
    assert_eq!(read.state(Digest::of(b"evil")), None);
}
