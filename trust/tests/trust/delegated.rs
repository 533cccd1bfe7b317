//! What can be wrong with a delegated role, at every depth (attack T18), and reading while others publish (T25).

use crate::maker::{NOW, Repo, target};
use redan_protocol::UnixSeconds;
use redan_trust::TufError;
use redan_trust::metadata::Metadata as _;
use serde_json::{Value, json};

const LEVELS: [&str; 3] = ["a", "b", "c"];

/// `targets` → `a` → `b` → `c`, which lists `x`.
fn repo() -> Repo {
    let mut repo = Repo::new();
    for (from, role) in [("targets", "a"), ("a", "b"), ("b", "c")] {
        repo.delegate(from, role, &["*"], false);
    }
    repo.targets.get_mut("c").unwrap()["targets"]["x"] = target(b"x");
    repo.publish();
    repo
}

/// Changes what the next snapshot says of a role.
fn listed(repo: &mut Repo, edit: impl FnOnce(&mut Value)) {
    Repo::bump(&mut repo.snapshot);
    Repo::bump(&mut repo.timestamp);
    edit(&mut repo.snapshot["meta"]);
    repo.publish_snapshot();
}

/// What a new device finds.
fn found(repo: &Repo) -> Result<bool, TufError> {
    let mut device = repo.device();
    let mut repository = device.refresh(repo)?;
    Ok(device.lookup(repo, &mut repository, "x")?.is_some())
}

#[test]
fn a_fault_in_a_delegated_role_at_any_depth_is_an_error_and_not_an_absence() {
    assert_eq!(found(&repo()), Ok(true));
    for role in LEVELS {
        let file = format!("{role}.json");
        let mut expired = repo();
        expired.document(role)["expires"] = json!("2020-01-01T00:00:00Z");
        expired.publish();
        let refusal = TufError::Expired {
            role: role.into(),
            expired: UnixSeconds::new(1_577_836_800),
            now: NOW,
        };
        assert_eq!(found(&expired), Err(refusal));

        let mut unlisted = repo();
        listed(&mut unlisted, |meta| {
            drop(meta.as_object_mut().unwrap().remove(&file));
        });
        assert_eq!(found(&unlisted), Err(TufError::Unlisted { role: role.into() }));

        let mut other_bytes = repo();
        listed(&mut other_bytes, |meta| {
            meta[&file]["hashes"]["sha256"] = json!("00".repeat(32));
        });
        assert_eq!(
            found(&other_bytes),
            Err(TufError::WrongBytes { role: role.into() })
        );

        let mut other_version = repo();
        listed(&mut other_version, |meta| meta[&file]["version"] = json!(2));
        let served = other_version.served[&format!("1.{file}")].clone();
        other_version.served.insert(format!("2.{file}"), served);
        let refusal = TufError::WrongVersion {
            role: role.into(),
            wanted: 2,
            offered: 1,
        };
        assert_eq!(found(&other_version), Err(refusal));
    }
}

#[test]
fn a_delegated_role_at_any_depth_does_not_go_back() {
    for role in LEVELS {
        let file = format!("{role}.json");
        let mut repo = repo();
        let old = repo.snapshot["meta"][&file].clone();
        repo.publish_next();
        let mut device = repo.device();
        device.refresh(&repo).unwrap();
        // The attacker holds the online keys and those of the snapshot, and every file that was ever served.
        listed(&mut repo, |meta| meta[&file] = old);
        let refusal = TufError::Rollback {
            role: file,
            trusted: 2,
            offered: 1,
        };
        assert_eq!(device.refresh(&repo).unwrap_err(), refusal);
    }
}

#[test]
fn a_device_sees_one_publication_or_the_next_and_no_mixture() {
    // Publications follow each other while the device reads: at any one of its requests everything is new.
    for consistent in [true, false] {
        let mut outcomes = Vec::new();
        for switch in 0..6 {
            let mut repo = repo();
            repo.root["consistent_snapshot"] = json!(consistent);
            repo.publish_root(&[]);
            repo.publish_next();
            let (mut device, old) = (repo.device(), repo.served.clone());
            repo.publish_next();
            let new = std::mem::replace(&mut repo.served, old);
            let read = device.refresh_while(&mut repo, |repo, requests| {
                if requests == switch {
                    repo.served.clone_from(&new);
                }
            });
            if let Ok(read) = &read {
                let versions = [
                    read.timestamp_version(),
                    read.snapshot_version(),
                    read.targets().version(),
                ];
                assert!([[2; 3], [3; 3]].contains(&versions), "{versions:?}");
            }
            outcomes.push(read.is_ok());
            // What was refused is read whole the next time.
            repo.served = new;
            assert_eq!(device.refresh(&repo).unwrap().timestamp_version(), 3);
        }
        let refused = outcomes.iter().filter(|ok| !**ok).count();
        assert_eq!(refused > 0, !consistent, "{outcomes:?}");
    }
}
