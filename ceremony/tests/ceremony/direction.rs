//! The role that directs devices without a network, in a fleet that was founded before there was one.

use crate::change::{enrolled, key};
use crate::device::{served, target, tomorrow};
use crate::room::{Room, done, refused};
use redan_protocol::{DeviceId, Digest, DirectionSequence, SetId, SpiffeId, UnixSeconds};
use redan_publish::SigningKey;
use redan_publish::metadata::{sign, target as entry, targets};
use redan_trust::custom::{CarriedDirection, Direction, DirectionSchema};
use redan_trust::{Document, carried_direction, direction_path};
use serde_json::Value;
use std::collections::BTreeMap;

/// A fleet as it was founded before the role `direction` was.
fn founded_without_direction() -> Room {
    let room = Room::found();
    let release = room.path("fleet/public/release");
    let rewrite = |name: &str, keys: &[&str], change: &dyn Fn(&mut Value)| {
        let bytes = std::fs::read(release.join(name)).unwrap();
        let mut signed = serde_json::from_slice::<Value>(&bytes).unwrap()["signed"].take();
        change(&mut signed);
        let keys: Vec<SigningKey> = keys.iter().map(|purpose| key(&room, purpose)).collect();
        let bytes = sign(&signed, &keys.iter().collect::<Vec<_>>()).unwrap();
        std::fs::write(release.join(name), bytes).unwrap();
    };
    let is_direction = |role: &Value| role["name"] == "direction";
    rewrite(
        "1.targets.json",
        &["release.targets-1", "release.targets-2"],
        &|signed| {
            let delegations = &mut signed["delegations"];
            let roles = delegations["roles"].as_array_mut().unwrap();
            let at = roles.iter().position(is_direction).unwrap();
            let role = roles.remove(at);
            let keys = delegations["keys"].as_object_mut().unwrap();
            for id in role["keyids"].as_array().unwrap() {
                assert!(keys.remove(id.as_str().unwrap()).is_some());
            }
        },
    );
    let targets = std::fs::read(release.join("1.targets.json")).unwrap();
    rewrite("1.snapshot.json", &["release.snapshot-1"], &|signed| {
        let listed = signed["meta"].as_object_mut().unwrap();
        assert!(listed.remove("direction.json").is_some());
        let entry = &mut listed["targets.json"];
        if entry.get("length").is_some() {
            entry["length"] = targets.len().into();
        }
        if entry.get("hashes").is_some() {
            entry["hashes"]["sha256"] = Digest::of(&targets).to_string().into();
        }
    });
    std::fs::remove_file(release.join("1.direction.json")).unwrap();
    done(&room.run(&["verify"]));
    room
}

/// Signs a direction and lists it, as `redan direction publish` does with release managers' keys; gives its path and bytes.
fn publish_direction(room: &Room, version: u64, signers: [&str; 2]) -> (String, Vec<u8>) {
    let id = DeviceId::parse("press-1").unwrap();
    let sequence = DirectionSequence::new(5);
    let carried = CarriedDirection {
        schema: DirectionSchema::V1,
        direction: Direction {
            device: SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap(),
            sequence,
            set: SetId::parse("plant-1").unwrap(),
            set_digest: Digest::of(b"a set's document"),
            not_before: UnixSeconds::default(),
            deadline: tomorrow(),
            retry_budget: 3,
            unblocked: Vec::new(),
        },
    };
    let bytes = serde_json::to_vec(&carried).unwrap();
    let path = direction_path(&id, sequence);
    let listed = BTreeMap::from([(path.clone(), entry(&bytes, None::<&Value>).unwrap())]);
    let keys = signers.map(|purpose| key(room, purpose));
    let role = targets(version, tomorrow(), &listed, &[]).unwrap();
    let file = room.path(&format!("fleet/public/release/{version}.direction.json"));
    std::fs::write(file, sign(&role, &[&keys[0], &keys[1]]).unwrap()).unwrap();
    (path, bytes)
}

#[test]
fn a_fleet_founded_before_the_role_delegates_directions_once_and_devices_follow_one_from_a_stick() {
    let room = founded_without_direction();
    let signers = [1, 2, 3].map(|n| room.key(&format!("new.direction-{n}")));
    let mut delegate = vec!["delegate", "--role", "direction", "--threshold", "2"];
    for signer in &signers {
        delegate.extend(["--key", signer]);
    }
    room.complete("delegate", &delegate, &["release.targets-1", "release.targets-3"]);
    refused(
        &room.request("twice", &delegate),
        2,
        &["direction is delegated already"],
    );

    let (path, bytes) = publish_direction(&room, 1, ["new.direction-3", "new.direction-1"]);
    room.complete("snapshot", &["snapshot"], &["release.snapshot-2"]);
    done(&room.run(&["verify"]));
    let mut files = served(&room, &key(&room, "release.timestamp"), 1, 2);
    // The stick: no timestamp, and the snapshot under its plain name.
    files.remove("timestamp.json");
    files.insert("snapshot.json".into(), files["2.snapshot.json"].clone());
    let mut repository = enrolled(&room).refresh_from_stick(&files).unwrap();
    let found = target(&mut repository, &files, &path).unwrap();
    assert_eq!(found.roles, ["targets", "direction"]);
    let device = SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap();
    let read = carried_direction(&Document { target: found, bytes }, &device).unwrap();
    assert_eq!(read.sequence, DirectionSequence::new(5));
}

#[test]
fn a_fleet_that_has_the_role_direction_does_not_delegate_it_again() {
    let room = Room::found();
    let signer = room.key("new.direction-1");
    let delegate = |role: &'static str| ["delegate", "--role", role, "--threshold", "1", "--key", &signer];
    refused(
        &room.request("twice", &delegate("direction")),
        2,
        &["direction is delegated already"],
    );
    let other = room.request("other", &delegate("plan"));
    assert_eq!(other.status.code(), Some(2));
    assert!(!room.path("other.request.json").exists());
}
