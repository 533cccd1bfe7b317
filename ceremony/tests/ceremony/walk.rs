//! What inspect shows, and what a device would not walk.

use crate::room::{ROOT, Room, ceremony, copy, done, refused, rotating};
use serde_json::json;
use std::path::Path;

#[test]
fn a_folder_whose_roots_name_another_ca_is_refused() {
    let (room, other) = (Room::found(), Room::found());
    let ca = "fleet/public/ca.pem";
    assert!(std::fs::copy(other.path(ca), room.path(ca)).unwrap() > 0);
    refused(&room.run(&["verify"]), 1, &["its CA", "wrong-fleet"]);
}

#[test]
fn inspect_says_what_would_be_refused_and_shows_every_difference() {
    let room = rotating();
    let request = room.text("root.request.json");
    let inspect = || done(&room.run(&["inspect", "--request", &request]));
    assert!(
        inspect().contains("keeps the rules; 3 keys may sign it"),
        "{}",
        inspect()
    );
    room.tamper("root", |request| {
        request["payload"]["roles"]["timestamp"]["threshold"] = json!(9);
        request["payload"]["smuggled\u{1b}[2J"] = json!("in");
    });
    let said = inspect();
    for words in [
        "~ /roles/timestamp/threshold 1 -> 9",
        "role timestamp: 9 of 1 must sign (was 1)",
        "+ /smuggled?[2J in",
        "WOULD BE REFUSED: timestamp would have 1 holders and a threshold of 9",
    ] {
        assert!(said.contains(words), "{words:?} is missing in {said}");
    }
}

#[test]
fn a_public_folder_no_device_would_walk_is_refused() {
    let room = rotating();
    room.finish("root", &ROOT);
    done(&room.run(&["verify"]));
    let check = |change: &dyn Fn(&Path), words: &[&str]| {
        let other = tempfile::tempdir_in(room.folder()).unwrap().keep();
        copy(&room.path("fleet/public"), &other);
        change(&other);
        refused(
            &ceremony(&["verify", "--public", other.to_str().unwrap()]),
            1,
            words,
        );
    };
    let remove = |name: &'static str| move |public: &Path| std::fs::remove_file(public.join(name)).unwrap();
    let put = |name: &'static str, from: &'static str| {
        move |public: &Path| assert!(std::fs::copy(public.join(from), public.join(name)).unwrap() > 0)
    };
    check(
        &remove("release/1.root.json"),
        &["1.root.json could not be fetched"],
    );
    check(
        &put("release/4.root.json", "release/2.root.json"),
        &["version 4, wanted is 3"],
    );
    check(
        &put("release/3.root.json", "release/2.root.json"),
        &["version 2, wanted is 3"],
    );
    check(
        &put("release/1.root.json", "director/1.root.json"),
        &["threshold"],
    );
    check(
        &remove("release/1.plan.json"),
        &["1.plan.json could not be fetched"],
    );
    check(
        &put("release/1.plan.json", "release/1.policy.json"),
        &["plan is not the file its parent names"],
    );
    check(
        &put("release/1.snapshot.json", "release/1.plan.json"),
        &["snapshot is malformed"],
    );
    check(
        &remove("director/1.root.json"),
        &["1.root.json could not be fetched"],
    );
}

#[test]
fn a_snapshot_that_goes_back_is_not_assembled() {
    let room = Room::found();
    room.complete(
        "targets",
        &["rotate", "--role", "targets"],
        &["release.targets-1", "release.targets-2"],
    );
    room.complete("second", &["snapshot"], &["release.snapshot-1"]);
    done(&room.request("third", &["snapshot"]));
    let first = room.release("1.targets.json").unwrap();
    let entry = json!({"version": 1, "length": first.len(), "hashes": {"sha256": redan_protocol::Digest::of(&first)}});
    room.tamper("third", |request| {
        request["payload"]["meta"]["targets.json"] = entry;
    });
    let (ran, signature) = room.sign("third", "release.snapshot-1");
    done(&ran);
    refused(
        &room.assemble("third", &[&signature]),
        1,
        &["targets.json went back from version 2 to 1", "metadata-rollback"],
    );
    room.tamper("third", |request| {
        let listed = request["payload"]["meta"].as_object_mut().unwrap();
        listed.remove("plan.json");
    });
    let (_, signature) = room.sign("third", "release.snapshot-1");
    refused(
        &room.assemble("third", &[&signature]),
        1,
        &["no longer lists plan.json"],
    );
}
