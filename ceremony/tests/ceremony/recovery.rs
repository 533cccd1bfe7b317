//! Answers to devices that lost their trust record: signed one by one, and taken by a device.

use crate::room::{Room, ceremony, copy, done, refused};
use redan_protocol::wire::Nonce;
use redan_protocol::{SpiffeId, UnixSeconds};
use redan_trust::TrustRecord;
use redan_trust::recovery::{Asking, RecoveryError, recover};
use serde_json::json;

const DEVICE: &str = "spiffe://plant.example/device/press-1";
const HOLDERS: [&str; 2] = ["release.root-1", "release.root-2"];

/// What the device printed.
fn asked(room: &Room, fleet: &str, device: &str) -> String {
    let path = room.text("asked.json");
    let request = json!({
        "schema": "redan.recovery-request/1", "fleet": fleet, "device": device, "nonce": "07".repeat(16),
    });
    std::fs::write(&path, request.to_string()).unwrap();
    path
}

fn requested(room: &Room) {
    let asked = asked(room, "plant.example", DEVICE);
    let text = done(&room.request(
        "recovery",
        &[
            "recover",
            "--device-request",
            &asked,
            "--sequence",
            "12",
            "--policy-serial",
            "5",
            "--timestamp",
            "40",
            "--counter",
            "acme/thermo=4",
        ],
    ));
    for said in [
        "role       recovery",
        "+ /device spiffe://plant.example/device/press-1",
        "+ /sequence 12",
        "+ /committed {\"acme/thermo\":4}",
        "keeps the rules; 3 keys may sign it",
    ] {
        assert!(text.contains(said), "{said:?} is missing in {text}");
    }
}

fn taken(room: &Room, nonce: Nonce) -> Result<TrustRecord, RecoveryError> {
    let bytes = std::fs::read(room.path("fleet/public/recovery.press-1.07070707.json")).unwrap();
    let first = |name: &str| {
        let path = room.path("fleet/public").join(name).join("1.root.json");
        std::fs::read_to_string(path).unwrap()
    };
    let (release_root, director_root) = (first("release"), first("director"));
    let asking = Asking {
        device: &SpiffeId::parse(DEVICE).unwrap(),
        nonce,
        release_root: &release_root,
        director_root: &director_root,
        now: UnixSeconds::new(0),
    };
    recover(&bytes, &asking)
}

#[test]
fn holders_of_the_newest_release_root_bring_a_device_back_one_after_another() {
    let room = Room::found();
    // Holders changed since the device was enrolled: it walks both roots.
    room.complete("root", &["rotate", "--role", "root"], &HOLDERS);
    let director = ["rotate", "--role", "root", "--repository", "director"];
    room.complete("director", &director, &["director.root-1", "director.root-2"]);
    requested(&room);
    room.finish("recovery", &HOLDERS);
    let record = taken(&room, Nonce([7; 16])).unwrap();
    let newest = std::fs::read_to_string(room.path("fleet/public/director/2.root.json")).unwrap();
    assert_eq!(record.director_root, newest);
    assert_eq!((record.sequence.get(), record.policy_serial), (12, 5));
    let versions = record.release_versions.unwrap();
    assert_eq!((versions.timestamp, versions.snapshot), (40, 1));
    assert_eq!(versions.files["targets.json"], 1);
    assert_eq!(
        taken(&room, Nonce([8; 16])).unwrap_err(),
        RecoveryError::OtherRequest
    );
    // The public folder is what it was: what is for one device is no file of a repository.
    done(&room.run(&["verify"]));
}

#[test]
fn one_holder_and_strangers_bring_no_device_back() {
    let room = Room::found();
    requested(&room);
    let (ran, one) = room.sign("recovery", "release.root-1");
    done(&ran);
    refused(
        &room.assemble("recovery", &[&one]),
        1,
        &["threshold-not-met", "1 of 2"],
    );
    for stranger in ["release.targets-1", "director.root-1", "release.snapshot-1"] {
        let (ran, _) = room.sign("recovery", stranger);
        refused(&ran, 1, &["not-authorised", "not a holder of recovery"]);
    }
}

#[test]
fn a_signer_whose_roots_differ_from_the_requests_signs_nothing() {
    let room = Room::found();
    copy(&room.path("fleet/public"), &room.path("early"));
    room.complete("root", &["rotate", "--role", "root"], &HOLDERS);
    requested(&room);
    // A request that names the first root would lead the device to holders who may have left.
    room.tamper("recovery", |request| {
        let early = std::fs::read(room.path("early/release/1.root.json")).unwrap();
        request["payload"]["release"]["root"] = json!(1);
        request["payload"]["release"]["root_sha256"] = json!(redan_protocol::Digest::of(&early).to_string());
    });
    let (ran, _) = room.sign_confirming("recovery", "release.root-1", "00000000");
    refused(&ran, 1, &["conflict", "newest root of the release repository"]);
    // And the other way round: an old copy of the public folder beside a right request.
    requested_again(&room);
    let request = room.text("again.request.json");
    let early = room.text("early");
    let ran = ceremony(&["inspect", "--public", &early, "--request", &request]);
    assert!(done(&ran).contains("WOULD BE REFUSED: the request names another newest root"));
}

fn requested_again(room: &Room) {
    let asked = room.text("asked.json");
    let words = ["recover", "--device-request", &asked, "--sequence", "12"];
    done(&room.request("again", &words));
}

#[test]
fn a_device_of_another_fleet_and_a_file_that_is_no_request_are_refused() {
    let room = Room::found();
    for (fleet, device) in [
        ("mill.example", "spiffe://mill.example/device/press-1"),
        ("plant.example", "spiffe://mill.example/device/press-1"),
        ("plant.example", "spiffe://plant.example/operator/admin"),
    ] {
        let asked = asked(&room, fleet, device);
        let ran = room.request(
            "recovery",
            &["recover", "--device-request", &asked, "--sequence", "1"],
        );
        refused(&ran, 1, &["wrong-fleet"]);
    }
    std::fs::write(room.path("asked.json"), "{}").unwrap();
    let ran = room.request(
        "recovery",
        &[
            "recover",
            "--device-request",
            &room.text("asked.json"),
            "--sequence",
            "1",
        ],
    );
    refused(&ran, 2, &["not a request of this version"]);
}
