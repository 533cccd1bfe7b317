//! What is refused, each for its own reason; and the same thing untouched is taken.

use crate::room::{ROOT, Room, ceremony, done, refused, rotating};
use redan_publish::SigningKey;
use serde_json::{Value, json};
use std::path::Path;

#[track_caller]
fn unsigned(room: &Room, name: &str, words: &[&str]) {
    let (ran, file) = room.sign(name, ROOT[0]);
    refused(&ran, 1, words);
    assert!(!Path::new(&file).exists());
}

#[test]
fn a_key_of_another_role_signs_nothing() {
    let room = rotating();
    for purpose in ["release.targets-1", "director.root-1", "release.timestamp"] {
        let (ran, file) = room.sign("root", purpose);
        refused(
            &ran,
            1,
            &[&room.id(purpose), "not a holder of root", "not-authorised"],
        );
        assert!(!Path::new(&file).exists());
    }
    room.finish("root", &ROOT);
}

#[test]
fn whoever_read_another_payload_does_not_sign() {
    let room = rotating();
    for typed in ["00000000", "", &room.digest("root")[..7]] {
        let (ran, file) = room.sign_confirming("root", ROOT[0], typed);
        refused(&ran, 1, &["does not begin the digest"]);
        assert!(!Path::new(&file).exists());
    }
    // Nobody was asked, and nobody said it either.
    let (public, request) = (room.text("fleet/public"), room.text("root.request.json"));
    let (key, out) = (room.private(ROOT[0]), room.text("signature"));
    let arguments = [
        "sign",
        "--public",
        &public,
        "--request",
        &request,
        "--key",
        &key,
        "--out",
        &out,
    ];
    refused(&ceremony(&arguments), 2, &["nobody confirmed"]);
    room.finish("root", &ROOT);
}

#[test]
fn a_request_that_was_changed_on_its_way_is_not_signed_and_does_not_take_others_signatures() {
    let room = rotating();
    let agreed = room.digest("root");
    let (ran, one) = room.sign("root", ROOT[0]);
    done(&ran);
    room.tamper("root", |request| {
        request["payload"]["expires"] = json!("2099-01-01T00:00:00Z");
    });
    let (ran, _) = room.sign_confirming("root", ROOT[1], &agreed);
    refused(&ran, 1, &["does not begin the digest"]);
    let (ran, two) = room.sign("root", ROOT[1]);
    done(&ran);
    refused(
        &room.assemble("root", &[&one, &two]),
        1,
        &["signs another payload"],
    );
    assert_eq!(room.release("2.root.json"), None);
}

#[test]
fn only_the_next_version_is_signed_and_assembled() {
    let room = rotating();
    for version in [1, 3] {
        room.tamper("root", |request| request["payload"]["version"] = json!(version));
        unsigned(
            &room,
            "root",
            &[
                &format!("version {version} of root"),
                "here is version 1",
                "conflict",
            ],
        );
    }
    room.tamper("root", |request| request["payload"]["version"] = json!(2));
    done(&room.request("late", &["rotate", "--role", "root", "--days", "10"]));
    let late: Vec<String> = ROOT.iter().map(|purpose| room.sign("late", purpose).1).collect();
    room.finish("root", &ROOT);
    unsigned(&room, "root", &["version 2 of root", "here is version 2"]);
    refused(
        &room.assemble("late", &[&late[0], &late[1]]),
        1,
        &["here is version 2"],
    );
}

#[test]
fn what_has_expired_is_not_signed() {
    let room = rotating();
    room.tamper("root", |request| {
        request["payload"]["expires"] = json!("2020-01-01T00:00:00Z");
    });
    unsigned(&room, "root", &["expired at", "metadata-expired", "clock"]);
    refused(
        &room.request("none", &["rotate", "--role", "root", "--days", "0"]),
        1,
        &["metadata-expired"],
    );
}

#[test]
fn a_root_never_becomes_another_fleets_or_another_profiles() {
    let room = rotating();
    let zeros = json!("0".repeat(64));
    for (field, value) in [
        ("fleet", json!("other.example")),
        ("profile", json!("production")),
        ("ca_sha256", zeros),
    ] {
        let mut before = Value::Null;
        room.tamper("root", |request| {
            before = request["payload"][field].take();
            request["payload"][field] = value;
        });
        unsigned(&room, "root", &["fleet, its profile, its CA", "wrong-fleet"]);
        room.tamper("root", |request| request["payload"][field] = before);
    }
    room.tamper("root", |request| request["fleet"] = json!("other.example"));
    unsigned(&room, "root", &["wrong-fleet"]);
    room.tamper("root", |request| request["fleet"] = json!("plant.example"));
    room.finish("root", &ROOT);
}

#[test]
fn a_request_for_another_repository_is_its_present_holders_to_sign() {
    let room = rotating();
    room.tamper("root", |request| request["repository"] = json!("director"));
    // The new root names them; the director's present one does not.
    let signatures = ROOT.map(|purpose| {
        let (ran, file) = room.sign("root", purpose);
        done(&ran);
        file
    });
    let [one, two] = &signatures;
    refused(
        &room.assemble("root", &[one, two]),
        1,
        &["0 of 2", "the present root"],
    );
    room.tamper("root", |request| request["repository"] = json!("release"));
    done(&room.assemble("root", &[one, two]));
}

#[test]
fn one_person_never_counts_as_two() {
    let room = rotating();
    let (ran, one) = room.sign("root", ROOT[0]);
    done(&ran);
    refused(&room.assemble("root", &[&one, &one]), 1, &["is there twice"]);
    // One public key under two ids.
    let key = SigningKey::load(Path::new(&room.private(ROOT[0])))
        .unwrap()
        .public();
    room.tamper("root", |request| {
        request["payload"]["keys"]["alias"] = key.tuf();
        let ids = request["payload"]["roles"]["root"]["keyids"]
            .as_array_mut()
            .unwrap();
        ids.push(json!("alias"));
    });
    unsigned(&room, "root", &["alias", "is there twice"]);
    // Hexadecimal has two ways to write a letter, and a key still only one holder.
    room.tamper("root", |request| {
        request["payload"]["keys"]["alias"]["keyval"]["public"] = json!(key.public.to_uppercase());
    });
    unsigned(&room, "root", &["alias", "is there twice"]);
    let again = room.id("release.root-1");
    std::fs::create_dir_all(room.path("made")).unwrap();
    let public = room.text("made/again.public.json");
    SigningKey::load(Path::new(&room.private(ROOT[0])))
        .unwrap()
        .save_public(Path::new(&public))
        .unwrap();
    refused(
        &room.request("again", &["add-holder", "--role", "root", "--key", &public]),
        1,
        &[&again, "is there twice"],
    );
}

#[test]
fn a_signature_that_is_not_its_keys_is_named() {
    let room = rotating();
    let (ran, one) = room.sign("root", ROOT[0]);
    done(&ran);
    let (ran, two) = room.sign("root", ROOT[1]);
    done(&ran);
    let text = std::fs::read_to_string(&two).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    // Another holder's name over it, and a name nobody has.
    file["keyid"] = json!(room.id("release.root-3"));
    std::fs::write(&two, file.to_string()).unwrap();
    refused(
        &room.assemble("root", &[&one, &two]),
        1,
        &[&two, "is not its key's"],
    );
    file["keyid"] = json!("nobody\u{1b}[2J");
    std::fs::write(&two, file.to_string()).unwrap();
    refused(
        &room.assemble("root", &[&one, &two]),
        1,
        &["key nobody?[2J is not a holder"],
    );
    std::fs::write(&two, "{}").unwrap();
    refused(
        &room.assemble("root", &[&one, &two]),
        2,
        &[&two, "not a signature"],
    );
    assert_eq!(room.release("2.root.json"), None);
    std::fs::write(&two, text).unwrap();
    done(&room.assemble("root", &[&one, &two]));
}

#[test]
fn holders_cannot_lock_everybody_out_or_hand_their_role_to_the_server() {
    let room = rotating();
    let ids = [1, 2, 3].map(|n| room.id(&format!("release.root-{n}")));
    refused(
        &room.request(
            "less",
            &[
                "remove-holder",
                "--role",
                "root",
                "--key-id",
                &ids[0],
                "--key-id",
                &ids[1],
            ],
        ),
        1,
        &["1 holders and a threshold of 2"],
    );
    refused(
        &room.request(
            "short",
            &["remove-holder", "--role", "root", "--key-id", &ids[0][..7]],
        ),
        2,
        &["at least 8 characters"],
    );
    refused(
        &room.request(
            "none",
            &["remove-holder", "--role", "root", "--key-id", "0123456789"],
        ),
        2,
        &["does not name one holder"],
    );
    let online = room.id("release.timestamp");
    room.tamper("root", |request| {
        let ids = request["payload"]["roles"]["root"]["keyids"]
            .as_array_mut()
            .unwrap();
        ids.push(json!(online));
    });
    unsigned(
        &room,
        "root",
        &[&online, "the control server's and a person's at once"],
    );
    let key = room.key("release.timestamp");
    for arguments in [
        ["add-holder", "--role", "timestamp", "--key", &key],
        ["rotate", "--role", "timestamp", "--days", "2"],
    ] {
        refused(
            &room.request("online", &arguments),
            2,
            &["the control server signs role timestamp"],
        );
    }
    // The stolen key in its own place.
    std::fs::create_dir_all(room.path("same")).unwrap();
    let same = room.text("same/release.timestamp.public.json");
    let path = room.path("fleet/online/release.timestamp.key.json");
    SigningKey::load(&path)
        .unwrap()
        .save_public(Path::new(&same))
        .unwrap();
    let with = format!("timestamp={same}");
    refused(
        &room.request("same", &["revoke-online", "--key", &with]),
        1,
        &[&online, "is there twice"],
    );
    room.tamper("root", |request| request["role"] = json!("timestamp"));
    let (ran, _) = room.sign("root", "release.timestamp");
    refused(&ran, 2, &["the control server signs role timestamp"]);
    let with = format!("root={key}");
    refused(
        &room.request("offline", &["revoke-online", "--key", &with]),
        2,
        &["role root", "not the control server's"],
    );
    refused(
        &room.request("nobody", &["add-holder", "--role", "nobody", "--key", &key]),
        2,
        &["there is no role nobody"],
    );
}

#[test]
fn delegations_that_nobody_could_sign_or_tell_apart_are_not_signed() {
    let room = Room::found();
    done(&room.request("targets", &["rotate", "--role", "targets"]));
    let threshold = |value: u32| {
        move |request: &mut Value| {
            request["payload"]["delegations"]["roles"][0]["threshold"] = json!(value);
        }
    };
    let sign = |words: &[&str]| refused(&room.sign("targets", "release.targets-1").0, 1, words);
    room.tamper("targets", threshold(4));
    sign(&["plan would have 3 holders and a threshold of 4"]);
    room.tamper("targets", threshold(2));
    let (alias, key) = (room.id("release.plan-1"), room.key("release.plan-9"));
    let (key, _) = redan_publish::PublicKey::load(Path::new(&key)).unwrap();
    room.tamper("targets", |request| {
        let keys = &mut request["payload"]["delegations"]["keys"];
        keys["alias"] = keys[&alias].clone();
    });
    sign(&["alias", "is there twice"]);
    room.tamper("targets", |request| {
        request["payload"]["delegations"]["keys"]["alias"] = key.tuf();
        let roles = request["payload"]["delegations"]["roles"].as_array_mut().unwrap();
        roles.push(roles[0].clone());
    });
    sign(&["no targets metadata", "keys and threshold make no sense"]);
}

#[test]
fn a_payload_that_is_no_metadata_of_its_role_is_not_signed() {
    let room = rotating();
    room.tamper("root", |request| request["payload"]["_type"] = json!("targets"));
    unsigned(&room, "root", &["no root metadata", "metadata-invalid"]);
    let (ran, _) = room.sign_confirming("root", ROOT[0], "00000000");
    refused(&ran, 1, &["no root metadata"]);
    std::fs::write(room.path("root.request.json"), "{}").unwrap();
    let (ran, _) = room.sign_confirming("root", ROOT[0], "00000000");
    refused(&ran, 2, &["is not a request"]);
}
