//! Changes that go through, each judged by a device.

use crate::device::{Device, now, served, target, tomorrow};
use crate::room::{Room, done, refused};
use redan_protocol::SpiffeId;
use redan_publish::metadata::{sign, target as entry, targets};
use redan_publish::{DirectorExpiry, DirectorKeys, SigningKey, director};
use redan_trust::TufError;
use redan_trust::metadata::Metadata as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) fn key(room: &Room, purpose: &str) -> SigningKey {
    SigningKey::load(Path::new(&room.private(purpose))).unwrap()
}

pub(crate) fn enrolled(room: &Room) -> Device {
    Device::enrolled(room.release("1.root.json").unwrap())
}

#[test]
fn any_two_of_three_holders_sign_one_after_another_on_media_of_their_own() {
    for signers in [
        ["release.root-1", "release.root-3"],
        ["release.root-3", "release.root-2"],
    ] {
        let room = Room::found();
        let said = done(&room.request("longer", &["rotate", "--role", "root", "--days", "400"]));
        assert!(said.contains("version    1 -> 2"), "{said}");
        let (first, one) = room.sign("longer", signers[0]);
        done(&first);
        refused(
            &room.assemble("longer", &[&one]),
            1,
            &["1 of 2", "the present root", "threshold-not-met"],
        );
        assert_eq!(room.release("2.root.json"), None, "nothing is half-applied");
        let (second, two) = room.sign("longer", signers[1]);
        done(&second);
        done(&room.assemble("longer", &[&one, &two]));
        let files = served(&room, &key(&room, "release.timestamp"), 1, 1);
        let repository = enrolled(&room).refresh(&files).unwrap();
        assert_eq!(repository.root().version(), 2);
        assert!(repository.root().expires().get() > now().get() + 399 * 86_400);
        done(&room.run(&["verify"]));
    }
}

#[test]
fn a_holder_joins_and_another_leaves_and_only_those_who_are_named_count() {
    let room = Room::found();
    let joining = room.key("release.root-4");
    room.complete(
        "join",
        &["add-holder", "--role", "root", "--key", &joining],
        &["release.root-1", "release.root-2"],
    );
    let leaving = room.id("release.root-1");
    let said = done(&room.request(
        "leave",
        &["remove-holder", "--role", "root", "--key-id", &leaving[..8]],
    ));
    assert!(said.contains(&format!("  - key {leaving}")), "{said}");
    assert!(said.contains(&format!("- /keys/{leaving}")), "{said}");
    room.finish("leave", &["release.root-4", "release.root-2"]);
    let files = served(&room, &key(&room, "release.timestamp"), 1, 1);
    let repository = enrolled(&room).refresh(&files).unwrap();
    assert_eq!(repository.root().version(), 3);
    assert_eq!(repository.root().roles["root"].keyids.len(), 3);

    done(&room.request("again", &["rotate", "--role", "root"]));
    let (left, _) = room.sign("again", "release.root-1");
    refused(&left, 1, &[&leaving, "not a holder of root", "not-authorised"]);
    room.finish("again", &["release.root-4", "release.root-3"]);
}

#[test]
fn a_new_root_needs_the_present_holders_and_the_new_ones() {
    let room = Room::found();
    let (four, five) = (room.key("release.root-4"), room.key("release.root-5"));
    done(&room.request(
        "grow",
        &[
            "add-holder",
            "--role",
            "root",
            "--key",
            &four,
            "--key",
            &five,
            "--threshold",
            "3",
        ],
    ));
    let signature = |purpose: &str| {
        let (ran, signature) = room.sign("grow", purpose);
        done(&ran);
        signature
    };
    let (one, two) = (signature("release.root-1"), signature("release.root-2"));
    let (four, five) = (signature("release.root-4"), signature("release.root-5"));
    // What two present holders can do alone is not enough for the new root, nor are the new ones with one of them for the present.
    refused(
        &room.assemble("grow", &[&one, &two]),
        1,
        &["2 of 3", "the new root"],
    );
    refused(
        &room.assemble("grow", &[&one, &four, &five]),
        1,
        &["1 of 2", "the present root"],
    );
    done(&room.assemble("grow", &[&one, &two, &five]));
}

#[test]
fn after_an_emergency_the_stolen_timestamp_key_is_refused_and_devices_go_on() {
    // The attacker holds the server's timestamp key, and has used it to run ahead of everybody.
    let room = Room::found();
    let stolen = key(&room, "release.timestamp");
    let mut device = enrolled(&room);
    device.refresh(&served(&room, &stolen, u64::MAX, 1)).unwrap();
    std::fs::rename(room.path("fleet/online"), room.path("stolen")).unwrap();

    let public = room.key("release.timestamp");
    let with = format!("timestamp={public}");
    let said = done(&room.request("emergency", &["revoke-online", "--key", &with]));
    assert!(
        said.contains(&format!("  - key {}", stolen.public().id)),
        "{said}"
    );
    room.finish("emergency", &["release.root-2", "release.root-3"]);

    let repository = device
        .refresh(&served(&room, &key(&room, "release.timestamp"), 1, 1))
        .unwrap();
    assert_eq!(
        (repository.root().version(), repository.timestamp_version()),
        (2, 1)
    );
    let forged = device.refresh(&served(&room, &stolen, 9, 1)).unwrap_err();
    assert!(
        matches!(&forged, TufError::Signatures { role, .. } if role == "timestamp"),
        "{forged}"
    );
    device
        .refresh(&served(&room, &key(&room, "release.timestamp"), 2, 1))
        .unwrap();
}

#[test]
fn after_an_emergency_the_stolen_director_keys_direct_nobody() {
    // The attacker holds all three keys of the director.
    let room = Room::found();
    let roles = ["targets", "snapshot", "timestamp"];
    let load = || roles.map(|role| key(&room, &format!("director.{role}")));
    let served = |keys: &[SigningKey; 3], version| {
        let id = SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap();
        let expiry = DirectorExpiry {
            targets: tomorrow(),
            timestamp: tomorrow(),
        };
        let keys = DirectorKeys {
            targets: &keys[0],
            snapshot: &keys[1],
            timestamp: &keys[2],
        };
        let made = director(&id, version, &[], expiry, keys).unwrap();
        let mut files = BTreeMap::from([
            (format!("{version}.targets.json"), made.targets),
            (format!("{version}.snapshot.json"), made.snapshot),
            ("timestamp.json".to_owned(), made.timestamp),
        ]);
        for version in ["1", "2"] {
            let path = room
                .path("fleet/public/director")
                .join(format!("{version}.root.json"));
            if let Ok(bytes) = std::fs::read(path) {
                files.insert(format!("{version}.root.json"), bytes);
            }
        }
        files
    };
    let stolen = load();
    let mut device = Device::enrolled(served(&stolen, 1)["1.root.json"].clone());
    device.refresh(&served(&stolen, 7)).unwrap();
    std::fs::rename(room.path("fleet/online"), room.path("stolen")).unwrap();

    let new = roles.map(|role| format!("{role}={}", room.key(&format!("director.{role}"))));
    let mut arguments = vec!["revoke-online", "--repository", "director"];
    for key in &new {
        arguments.extend(["--key", key]);
    }
    room.complete("emergency", &arguments, &["director.root-1", "director.root-2"]);

    let repository = device.refresh(&served(&load(), 1)).unwrap();
    assert_eq!(repository.root().version(), 2);
    let forged = device.refresh(&served(&stolen, 8)).unwrap_err();
    assert!(
        matches!(&forged, TufError::Signatures { role, .. } if role == "timestamp"),
        "{forged}"
    );
}

#[test]
fn a_component_is_delegated_after_the_founding_and_devices_find_its_targets() {
    let room = Room::found();
    let signers = [
        room.key("component.acme.pump-1"),
        room.key("component.acme.pump-2"),
    ];
    let mut delegate = vec!["delegate", "--component", "acme/pump", "--threshold", "2"];
    delegate.extend(["--key", &signers[0], "--key", &signers[1]]);
    room.complete("delegate", &delegate, &["release.targets-1", "release.targets-2"]);
    refused(
        &room.request("twice", &delegate),
        2,
        &["component.acme.pump is delegated already"],
    );

    // What its signers publish first; then the release managers list it.
    let path = "components/acme/pump/1.0.0/x.wasm";
    let none: Option<&Value> = None;
    let listed = BTreeMap::from([(path.to_owned(), entry(b"wasm", none).unwrap())]);
    let pump = ["component.acme.pump-1", "component.acme.pump-2"].map(|purpose| key(&room, purpose));
    let first = sign(
        &targets(1, tomorrow(), &listed, &[]).unwrap(),
        &[&pump[0], &pump[1]],
    )
    .unwrap();
    std::fs::write(
        room.path("fleet/public/release/1.component.acme.pump.json"),
        first,
    )
    .unwrap();
    let said = done(&room.run(&["verify"]));
    assert!(
        said.contains("targets.json 2 is there, and no snapshot lists it yet"),
        "{said}"
    );
    room.complete("snapshot", &["snapshot"], &["release.snapshot-2"]);

    let files = served(&room, &key(&room, "release.timestamp"), 1, 2);
    let mut repository = enrolled(&room).refresh(&files).unwrap();
    let found = target(&mut repository, &files, path).unwrap();
    assert_eq!(
        found.roles.last().map(String::as_str),
        Some("component.acme.pump")
    );
    let said = done(&room.run(&["verify"]));
    assert!(said.contains("component.acme.pump.json 1"), "{said}");
}

#[test]
fn a_delegated_role_changes_its_holders_and_its_expiry() {
    let room = Room::found();
    let joining = room.key("release.plan-4");
    let targets = ["release.targets-1", "release.targets-3"];
    room.complete(
        "join",
        &["add-holder", "--role", "plan", "--key", &joining],
        &targets,
    );
    room.complete(
        "plan",
        &["rotate", "--role", "plan"],
        &["release.plan-4", "release.plan-1"],
    );
    room.complete("snapshot", &["snapshot"], &["release.snapshot-1"]);
    let files = served(&room, &key(&room, "release.timestamp"), 1, 2);
    let repository = enrolled(&room).refresh(&files).unwrap();
    assert_eq!(repository.snapshot().meta["plan.json"].version, 2);
    done(&room.run(&["verify"]));
}

#[test]
fn all_holders_of_the_targets_role_can_be_replaced() {
    let room = Room::found();
    let new = [room.key("release.targets-4"), room.key("release.targets-5")];
    let holders = ["release.root-1", "release.root-2"];
    let mut add = vec!["add-holder", "--role", "targets"];
    add.extend(["--key", &new[0], "--key", &new[1]]);
    room.complete("add", &add, &holders);
    let old = [1, 2, 3].map(|n| room.id(&format!("release.targets-{n}")));
    let mut remove = vec!["remove-holder", "--role", "targets"];
    for id in &old {
        remove.extend(["--key-id", id]);
    }
    room.complete("remove", &remove, &holders);
    // No present holder signed the present targets; the new ones sign the same again.
    refused(
        &room.run(&["verify"]),
        1,
        &["targets is not signed by its threshold"],
    );
    room.complete(
        "targets",
        &["rotate", "--role", "targets"],
        &["release.targets-4", "release.targets-5"],
    );
    room.complete("snapshot", &["snapshot"], &["release.snapshot-1"]);
    done(&room.run(&["verify"]));
}
