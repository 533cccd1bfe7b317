//! Who signed: every role against strangers, nobody, other roles, other fleets, and keys that were rotated out (attacks T02,
//! T15, T16, T23). The attacker holds every key but the one that counts.

use crate::maker::{Device, Repo, Signer, envelope, hashes};
use redan_trust::TufError;
use redan_trust::claimed::TooFewSignatures;
use redan_trust::metadata::Malformed;
use serde_json::{Value, json};

/// The roles of a root, and one that is delegated.
const ROLES: [&str; 5] = ["root", "timestamp", "snapshot", "targets", "a"];

fn too_few(role: &str, valid: u32, threshold: u32) -> TufError {
    TufError::Signatures {
        role: role.into(),
        source: TooFewSignatures { valid, threshold },
    }
}

/// A repository with the delegated role `a`.
fn repo() -> Repo {
    let mut repo = Repo::new();
    repo.delegate("targets", "a", &["*"], false);
    repo.publish();
    repo
}

/// All that a device does to find a target: the first error.
fn follow(device: &mut Device, repo: &Repo) -> Result<(), TufError> {
    let mut repository = device.refresh(repo)?;
    device.lookup(repo, &mut repository, "x").map(drop)
}

/// Serves the next version of one role, signed as `sign` says; what points to it is signed as it should be.
fn offer(repo: &mut Repo, role: &str, sign: impl FnOnce(&Repo, &Value) -> Value) {
    let mut document = repo.document(role).clone();
    Repo::bump(&mut document);
    let version = document["version"].as_u64().unwrap();
    let path = match role {
        "timestamp" => "timestamp.json".to_owned(),
        role => format!("{version}.{role}.json"),
    };
    let signed = sign(repo, &document);
    let bytes = repo.serve(&path, &signed);
    let entry = json!({"version": version, "length": bytes.len(), "hashes": hashes(&bytes, &["sha256"])});
    match role {
        "root" | "timestamp" => {}
        "snapshot" => {
            Repo::bump(&mut repo.timestamp);
            repo.timestamp["meta"]["snapshot.json"] = entry;
            repo.publish_timestamp();
        }
        role => {
            repo.snapshot["meta"][format!("{role}.json")] = entry;
            Repo::bump(&mut repo.snapshot);
            Repo::bump(&mut repo.timestamp);
            repo.publish_snapshot();
        }
    }
}

/// What a device that has followed the repository says to the next version of a role.
fn offered(role: &str, sign: impl FnOnce(&Repo, &Value) -> Value) -> Result<(), TufError> {
    let mut repo = repo();
    let mut device = repo.device();
    follow(&mut device, &repo).unwrap();
    offer(&mut repo, role, sign);
    follow(&mut device, &repo)
}

#[test]
fn every_role_is_believed_from_its_own_keys_only() {
    for role in ROLES {
        let refused = Err(too_few(role, 0, 1));
        assert_eq!(
            offered(role, |_, document| envelope(document, &[])),
            refused,
            "unsigned {role}"
        );
        let stranger = Signer::new("stranger");
        assert_eq!(
            offered(role, |_, document| envelope(document, &[&stranger])),
            refused,
            "{role}"
        );
        let under_its_id = offered(role, |repo, document| {
            let mut signed = envelope(document, &[&stranger]);
            signed["signatures"][0]["keyid"] = json!(repo.signers[role][0].id);
            signed
        });
        assert_eq!(under_its_id, refused, "{role} under the id of its key");
        for other in ROLES {
            let by_other = offered(role, |repo, document| envelope(document, &repo.by(other)));
            let expected = if other == role { Ok(()) } else { refused.clone() };
            assert_eq!(by_other, expected, "{role} by {other}");
        }
    }
}

/// TUF 1.0.34 §4.2.1. The second signature cannot help to reach a threshold either: one that is reached without it shows that
/// the file itself is refused.
#[test]
fn a_file_with_two_signatures_under_one_key_id_is_refused_even_where_one_is_enough() {
    for role in ROLES {
        let refused = Err(TufError::Malformed {
            role: role.into(),
            source: Malformed::SignedTwice,
        });
        let twice = offered(role, |repo, document| {
            let signer = repo.by(role)[0];
            envelope(document, &[signer, signer])
        });
        assert_eq!(twice, refused, "{role}");
        let second_is_nobodys = offered(role, |repo, document| {
            let mut signed = envelope(document, &repo.by(role));
            let stranger = json!({"keyid": "stranger", "sig": ""});
            let signatures = signed["signatures"].as_array_mut().unwrap();
            signatures.extend([stranger.clone(), stranger]);
            signed
        });
        assert_eq!(second_is_nobodys, refused, "{role} and a stranger");
    }
}

#[test]
fn a_new_root_one_signature_short_of_either_threshold_is_refused() {
    let mut repo = repo();
    let mut device = repo.device();
    let second = Signer::new("root");
    repo.root["keys"][&second.id] = second.key();
    repo.root["roles"]["root"]["keyids"]
        .as_array_mut()
        .unwrap()
        .push(json!(second.id));
    repo.root["roles"]["root"]["threshold"] = json!(2);
    repo.publish_root(&[]);
    assert_eq!(follow(&mut device, &repo), Err(too_few("root", 1, 2)), "its own");
    let both = [repo.by("root")[0], &second];
    let signed = envelope(&repo.root, &both);
    repo.serve("2.root.json", &signed);
    follow(&mut device, &repo).unwrap();
    // Root 3 says that one is enough, and one signed it; two are needed to say so.
    repo.root["roles"]["root"]["threshold"] = json!(1);
    repo.publish_root(&[]);
    assert_eq!(
        follow(&mut device, &repo),
        Err(too_few("root", 1, 2)),
        "the old one's"
    );
}

#[test]
fn a_rotated_out_root_key_signs_no_further_root() {
    let mut repo = repo();
    let mut device = repo.device();
    follow(&mut device, &repo).unwrap();
    let stolen = repo.rotate("root");
    repo.publish_root(&stolen);
    follow(&mut device, &repo).unwrap();
    // The thief's root 3 gives the role back to the key he stole.
    offer(&mut repo, "root", |_, document| {
        let mut document = document.clone();
        document["roles"]["root"] = json!({"keyids": [stolen[0].id], "threshold": 1});
        envelope(&document, &[&stolen[0]])
    });
    assert_eq!(follow(&mut device, &repo), Err(too_few("root", 0, 1)));
}

#[test]
fn a_rotated_out_delegate_signs_nothing_any_more() {
    let mut repo = repo();
    let mut device = repo.device();
    follow(&mut device, &repo).unwrap();
    let fresh = Signer::new("a");
    let delegations = &mut repo.targets.get_mut("targets").unwrap()["delegations"];
    delegations["keys"] = json!({ fresh.id.as_str(): fresh.key() });
    delegations["roles"][0]["keyids"] = json!([fresh.id]);
    let stolen = repo.signers.insert("a".into(), vec![fresh]).unwrap();
    repo.publish_next();
    follow(&mut device, &repo).unwrap();
    offer(&mut repo, "a", |_, document| envelope(document, &[&stolen[0]]));
    assert_eq!(follow(&mut device, &repo), Err(too_few("a", 0, 1)));
}

#[test]
fn no_file_of_another_fleet_is_believed() {
    // The attacker owns another fleet: the same roles, the same versions, his keys. No hashes, so that signatures decide.
    let of_fleet = |name: &str| {
        let mut repo = Repo::of_fleet(name);
        repo.hashes = Vec::new();
        repo.delegate("targets", "a", &["*"], false);
        repo.publish();
        repo
    };
    for role in ROLES {
        let (mut ours, mut theirs) = (of_fleet("plant.example"), of_fleet("other.example"));
        let mut device = ours.device();
        follow(&mut device, &ours).unwrap();
        for repo in [&mut ours, &mut theirs] {
            repo.publish_root(&[]);
            repo.publish_next();
        }
        follow(&mut device.clone(), &ours).unwrap();
        let path = match role {
            "timestamp" => "timestamp.json".to_owned(),
            role => format!("2.{role}.json"),
        };
        let file = theirs.served[&path].clone();
        ours.served.insert(path, file);
        assert_eq!(follow(&mut device, &ours), Err(too_few(role, 0, 1)));
        // Nor all of them at once.
        let first = if role == "root" { "root" } else { "timestamp" };
        if role != "root" {
            theirs.served.remove("2.root.json");
        }
        assert_eq!(follow(&mut device, &theirs), Err(too_few(first, 0, 1)));
    }
}
