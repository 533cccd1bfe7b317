//! A repository and a direction that somebody carried to a device without a network: the same rules, and no server's word.

use crate::maker::{EXPIRES, NOW, Repo, Signer};
use crate::scene::{Scene, device};
use redan_protocol::{DirectionSequence, SpiffeId, UnixSeconds, Version64};
use redan_trust::claimed::TooFewSignatures;
use redan_trust::{Directing, Refusal, TufError};
use serde_json::json;

/// When a carried direction ends.
const DEADLINE: UnixSeconds = UnixSeconds::new(NOW.get() + 86_400);

fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.direction.deadline = DEADLINE;
    scene
}

#[track_caller]
fn refused(spoil: impl FnOnce(&mut Scene)) -> Refusal {
    let mut scene = scene();
    spoil(&mut scene);
    scene.decide_carried().unwrap_err()
}

#[test]
fn a_direction_that_release_managers_signed_is_followed_without_any_server() {
    let scene = scene();
    let plan = scene.decide_carried().unwrap().unwrap();
    assert_eq!(plan.direction().sequence, DirectionSequence::new(9));
    assert_eq!(plan.members()[0].digest(), scene.digest());
    // What an online direction to the same set would give.
    let online = scene.decide().unwrap().unwrap();
    assert_eq!(plan, online);
}

#[test]
fn a_direction_for_another_device_is_refused() {
    // The attacker exchanged two sticks.
    let other = SpiffeId::parse("spiffe://plant.example/device/press-2").unwrap();
    let error = refused(|scene| scene.direction.device = other.clone());
    let wrong = Refusal::WrongDevice {
        named: Some(other),
        device: device(),
    };
    assert_eq!(error, wrong);
}

#[test]
fn only_a_direction_newer_than_every_one_that_was_followed_counts() {
    // The attacker keeps an old stick. Directions of both ways are counted together.
    for followed in [9, 10] {
        let error = refused(|scene| scene.state.sequence = DirectionSequence::new(followed));
        let replayed = Refusal::DirectionReplayed {
            offered: DirectionSequence::new(9),
            followed: DirectionSequence::new(followed),
        };
        assert_eq!(error, replayed);
    }
    let mut newer = scene();
    newer.state.sequence = DirectionSequence::new(8);
    newer.decide_carried().unwrap().unwrap();
}

#[test]
fn a_carried_direction_ends_and_says_when() {
    let endless = refused(|scene| scene.direction.deadline = UnixSeconds::new(0));
    assert_eq!(endless, Refusal::NotFresh);
    let expired = Refusal::DirectionExpired {
        deadline: DEADLINE,
        now: DEADLINE,
    };
    assert_eq!(refused(|scene| scene.facts.now = DEADLINE), expired);
}

#[test]
fn a_direction_counts_under_its_own_name_by_its_own_role_and_unedited() {
    let invalid = |path: &str| Refusal::CustomInvalid { path: path.into() };
    let path = scene().direction_path();
    let edited = refused(|scene| {
        scene.spoil_offer = Box::new(|offered| {
            if let Directing::Carried(document) = &mut offered.directing {
                let text = String::from_utf8(document.bytes.clone()).unwrap();
                document.bytes = text
                    .replace("\"retry_budget\":3", "\"retry_budget\":9")
                    .into_bytes();
            }
        });
    });
    assert_eq!(edited, invalid(&path));
    let other_role = refused(|scene| {
        scene.spoil_offer = Box::new(|offered| {
            if let Directing::Carried(document) = &mut offered.directing {
                document.target.roles = vec!["targets".into(), "plan".into()];
            }
        });
    });
    assert_eq!(other_role, invalid(&path));
    let other_name = refused(|scene| {
        scene.spoil_offer = Box::new(|offered| {
            if let Directing::Carried(document) = &mut offered.directing {
                document.target.path = "directions/press-1/12.json".into();
            }
        });
    });
    assert_eq!(other_name, invalid("directions/press-1/12.json"));
}

#[test]
fn no_key_that_a_server_holds_signs_a_direction() {
    // The attacker holds the timestamp key, and the director's.
    let error = refused(|scene| {
        scene.spoil_release = Box::new(|repo| {
            repo.signers
                .insert("direction".into(), vec![Signer::new("timestamp")]);
        });
    });
    let source = TooFewSignatures {
        valid: 0,
        threshold: 1,
    };
    let role = "direction".to_owned();
    assert_eq!(error, Refusal::Metadata(TufError::Signatures { role, source }));
}

#[test]
fn every_other_rule_holds_for_what_was_carried() {
    let digest = scene().digest();
    let error = refused(|scene| scene.revoked = vec![digest]);
    assert_eq!(error, Refusal::Revoked { digest });
    let error = refused(|scene| scene.state.policy_serial = 5);
    assert_eq!(error, Refusal::PolicyRollback { known: 5 });
    let path = scene().path();
    let missing = path.clone();
    let error = refused(move |scene| {
        scene.spoil_offer = Box::new(move |offered| drop(offered.released.remove(&missing)));
    });
    assert_eq!(error, Refusal::NotReleased { path });
    let set = scene().set.id.clone();
    let error = refused(|scene| {
        scene.spoil_offer = Box::new(|offered| offered.plan.as_mut().unwrap().bytes.push(b'\n'));
    });
    assert_eq!(error, Refusal::SetInvalid { set });
}

#[test]
fn a_carried_repository_is_never_one_that_a_server_confirmed() {
    // The attacker holds the director's keys and says that timestamp 0 is current: the version of no timestamp.
    let mut scene = Scene::new();
    scene.carried_release = true;
    scene.statement.as_mut().unwrap().release = Version64::new(0);
    assert_eq!(scene.decide().unwrap_err(), Refusal::NotFresh);
}

#[test]
fn a_carried_repository_is_read_without_a_timestamp() {
    let mut repo = Repo::new();
    repo.publish_next();
    let mut device = repo.device().with_record();
    let repository = device.refresh_carried(&repo, NOW).unwrap();
    assert_eq!(
        (repository.timestamp_version(), repository.snapshot_version()),
        (0, 2)
    );
    assert_eq!(
        device.fetched,
        ["2.root.json", "2.snapshot.json", "2.targets.json"]
    );
    assert_eq!(device.stored, ["snapshot", "targets"]);
}

#[test]
fn versions_grow_over_both_ways() {
    let rollback = |trusted, offered| TufError::Rollback {
        role: "snapshot".into(),
        trusted,
        offered,
    };
    // An old stick after a newer server.
    let mut repo = Repo::new();
    repo.publish_next();
    let mut device = repo.device().with_record();
    device.refresh(&repo).unwrap();
    repo.snapshot["version"] = json!(1);
    repo.publish();
    assert_eq!(device.refresh_carried(&repo, NOW).unwrap_err(), rollback(2, 1));
    assert_eq!(
        device.without_files().refresh_carried(&repo, NOW).unwrap_err(),
        rollback(2, 1)
    );
    // An old server after a newer stick.
    repo.snapshot["version"] = json!(7);
    repo.publish();
    device.refresh_carried(&repo, NOW).unwrap();
    repo.snapshot["version"] = json!(6);
    repo.timestamp["version"] = json!(3);
    repo.publish();
    assert_eq!(device.refresh(&repo).unwrap_err(), rollback(7, 6));
    // A server that caught up.
    repo.snapshot["version"] = json!(8);
    repo.publish();
    device.refresh(&repo).unwrap();
}

#[test]
fn what_was_carried_expires_by_proven_time_and_needs_the_people_who_sign_it() {
    let repo = Repo::new();
    let expired = |role: &str| TufError::Expired {
        role: role.into(),
        expired: EXPIRES,
        now: EXPIRES,
    };
    let mut device = repo.device().with_record();
    assert_eq!(
        device.refresh_carried(&repo, EXPIRES).unwrap_err(),
        expired("root")
    );
    let mut repo = Repo::new();
    repo.root["expires"] = json!("2040-01-01T00:00:00Z");
    repo.publish_root(&[]);
    let mut device = repo.device().with_record();
    assert_eq!(
        device.refresh_carried(&repo, EXPIRES).unwrap_err(),
        expired("snapshot")
    );
    // The server's timestamp key signs no snapshot.
    let stolen = repo.signers.remove("timestamp").unwrap();
    repo.signers.insert("snapshot".into(), stolen);
    repo.signers
        .insert("timestamp".into(), vec![Signer::new("timestamp")]);
    repo.publish_next();
    let source = TooFewSignatures {
        valid: 0,
        threshold: 1,
    };
    let role = "snapshot".to_owned();
    assert_eq!(
        device.refresh_carried(&repo, NOW).unwrap_err(),
        TufError::Signatures { role, source }
    );
}
