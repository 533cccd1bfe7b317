//! The CA of a fleet changes by requests that root custodians sign: four steps in one order, and no other (decision 0014).

use crate::change::{enrolled, key};
use crate::device::{now, served};
use crate::room::{ROOT, Room, ceremony, done, refused};
use redan_identity::{FleetCa, pem};
use redan_protocol::{AuthorityState, Digest, FleetId};
use serde_json::{Value, json};

/// What somebody on its way does to a root.
type Change<'a> = Box<dyn Fn(&mut Value) + 'a>;

/// Makes an authority in a folder of this name; gives its digest.
fn make(room: &Room, name: &str) -> String {
    let (public, out) = (room.text("fleet/public"), room.text(name));
    let said = done(&ceremony(&["ca", "make", "--fleet-dir", &public, "--out", &out]));
    let named = said.lines().find_map(|line| line.strip_prefix("Made authority "));
    named.unwrap()[..64].to_owned()
}

fn request(room: &Room, step: &[&str]) -> std::process::Output {
    let out = room.text("ca.request.json");
    drop(std::fs::remove_file(&out));
    let mut all = vec!["ca"];
    all.extend(step);
    all.extend(["--out", &out]);
    room.run(&all)
}

/// Two holders sign, and somebody assembles.
fn take(room: &Room, step: &[&str]) -> String {
    let said = done(&request(room, step));
    room.finish("ca", &ROOT);
    said
}

fn founding(room: &Room) -> String {
    let text = std::fs::read_to_string(room.path("fleet/public/fleet.json")).unwrap();
    let described: Value = serde_json::from_str(&text).unwrap();
    described["ca_sha256"].as_str().unwrap().to_owned()
}

/// What a device that walks the roots believes.
fn believed(room: &Room) -> Vec<(String, AuthorityState)> {
    let files = served(room, &key(room, "release.timestamp"), 1, 1);
    let repository = enrolled(room).refresh(&files).unwrap();
    let listed = repository.root().authorities.clone().unwrap();
    assert_eq!(repository.root().ca_sha256, Some(listed.active()));
    listed
        .iter()
        .map(|(name, authority)| (name.to_string(), authority.state))
        .collect()
}

#[test]
fn four_steps_take_a_new_authority_in_and_the_old_one_out_and_a_device_follows_each() {
    use AuthorityState::{Active, Old, Prepared, Tainted};
    let room = Room::found();
    let (old, new) = (founding(&room), make(&room, "new"));
    let ca = room.text("new/ca.pem");
    let sorted = |mut all: Vec<(String, AuthorityState)>| {
        all.sort();
        all
    };
    let holds = |all: &[(&String, AuthorityState)]| {
        let expected = all
            .iter()
            .map(|(name, state)| ((*name).clone(), *state))
            .collect();
        assert_eq!(sorted(believed(&room)), sorted(expected));
        let said = done(&room.run(&["verify"]));
        for (name, state) in all {
            assert!(
                said.contains(&format!("authority {name}: {state}, until ")),
                "{said}"
            );
        }
    };
    let said = take(&room, &["prepare", "--ca", &ca]);
    assert!(
        said.contains(&format!("authority {new}: revoked -> prepared")),
        "{said}"
    );
    holds(&[(&old, Active), (&new, Prepared)]);
    // Eight characters name it.
    let said = take(&room, &["activate", "--authority", &new[..8]]);
    assert!(
        said.contains(&format!("authority {new}: prepared -> active")),
        "{said}"
    );
    assert!(
        said.contains(&format!("authority {old}: active -> old")),
        "{said}"
    );
    holds(&[(&new, Active), (&old, Old)]);
    take(&room, &["taint", "--authority", &old]);
    holds(&[(&new, Active), (&old, Tainted)]);
    let said = take(&room, &["revoke", "--authority", &old]);
    assert!(
        said.contains(&format!("authority {old}: tainted -> revoked")),
        "{said}"
    );
    holds(&[(&new, Active)]);
    // Certificates are issued under whichever authority the issuer is of, and the one that is gone issues none.
    let public = room.text("fleet/public");
    let issue = |folder: &str, out: &str| {
        let issuer = room.text(&format!("{folder}/server-issuer.pem"));
        let out = room.text(out);
        ceremony(&[
            "issue",
            "--fleet-dir",
            &public,
            "--issuer",
            &issuer,
            "--out",
            &out,
        ])
    };
    done(&issue("new/offline", "server.pem"));
    refused(&issue("fleet/offline", "none.pem"), 1, &["foreign-certificate"]);
    let device = |key: &str, out: &str| {
        let (key, out) = (room.text(key), room.text(out));
        let mut issue = vec!["issue", "--device-issuer", "--fleet-dir", &public];
        issue.extend(["--issuer", &key, "--out", &out]);
        ceremony(&issue)
    };
    done(&device("new/offline/fleet-ca.key.pem", "device-issuer.pem"));
    refused(
        &device("fleet/offline/fleet-ca.key.pem", "none.pem"),
        1,
        &["private key"],
    );
}

#[test]
fn every_step_in_another_order_is_refused_before_anybody_signs() {
    let room = Room::found();
    let (old, new) = (founding(&room), make(&room, "new"));
    let ca = room.text("new/ca.pem");
    let step = |step: &str, authority: &str, words: &[&str]| {
        refused(&request(&room, &[step, "--authority", authority]), 1, words);
    };
    let unknown = |step: &str, name: &str| {
        let ran = request(&room, &[step, "--authority", name]);
        refused(&ran, 2, &["does not name one of the fleet's authorities"]);
    };
    // The founding's one is all there is.
    unknown("activate", &new);
    unknown("revoke", &old[..7]);
    step(
        "taint",
        &old,
        &[&old, "is active, and cannot become tainted", "authority-step"],
    );
    step("revoke", &old, &["is active, and cannot become revoked"]);
    let founding = room.text("fleet/public/ca.pem");
    let again = ["is active, and cannot become prepared"];
    refused(&request(&room, &["prepare", "--ca", &founding]), 1, &again);
    take(&room, &["prepare", "--ca", &ca]);
    step(
        "taint",
        &new,
        &[&new, "is prepared, and cannot become tainted", "authority-step"],
    );
    step("activate", &old, &["is active, and cannot become active"]);
    let again = ["is prepared, and cannot become prepared"];
    refused(&request(&room, &["prepare", "--ca", &ca]), 1, &again);
    take(&room, &["activate", "--authority", &new]);
    step(
        "revoke",
        &old,
        &[&old, "is old, and cannot become revoked", "authority-step"],
    );
    step("activate", &old, &["is old, and cannot become active"]);
    take(&room, &["taint", "--authority", &old]);
    step("activate", &old, &["is tainted, and cannot become active"]);
    take(&room, &["revoke", "--authority", &old]);
    unknown("activate", &old);
    // One that was prepared and is not wanted after all.
    let third = make(&room, "third");
    take(&room, &["prepare", "--ca", &room.text("third/ca.pem")]);
    take(&room, &["revoke", "--authority", &third]);
    // The list has an end.
    for name in ["a", "b", "c"] {
        make(&room, name);
        take(&room, &["prepare", "--ca", &room.text(&format!("{name}/ca.pem"))]);
    }
    make(&room, "d");
    let one_more = request(&room, &["prepare", "--ca", &room.text("d/ca.pem")]);
    refused(&one_more, 1, &["5 authorities are listed, and the most is 4"]);
}

#[test]
fn a_request_that_was_changed_on_its_way_is_refused_by_who_would_sign_it() {
    let room = Room::found();
    let (old, new) = (founding(&room), make(&room, "new"));
    let ca = room.text("new/ca.pem");
    let changes: [(Change<'_>, &[&str]); 7] = [
        // Two steps at once: known and active.
        (
            Box::new(|root: &mut Value| {
                root["authorities"][&old]["state"] = json!("old");
                root["authorities"][&new]["state"] = json!("active");
                root["ca_sha256"] = json!(new);
            }),
            &["authority-step"],
        ),
        // The old one is gone without a step.
        (
            Box::new(|root| {
                root["authorities"].as_object_mut().unwrap().remove(&old);
                root["authorities"][&new]["state"] = json!("active");
                root["ca_sha256"] = json!(new);
            }),
            &["authority-step"],
        ),
        // No list that a device would read.
        (
            Box::new(|root| root["authorities"][&new]["state"] = json!("active")),
            &["metadata-invalid"],
        ),
        (
            Box::new(|root| root["authorities"][&new]["certificate"] = json!("00")),
            &["metadata-invalid"],
        ),
        (
            Box::new(|root| root["ca_sha256"] = json!(new)),
            &["metadata-invalid"],
        ),
        // A certificate that is none.
        (
            Box::new(|root| {
                let name = Digest::of(b"none").to_string();
                let certificate = hex::encode(b"none");
                root["authorities"][&name] = json!({"state": "prepared", "certificate": certificate});
                root["authorities"].as_object_mut().unwrap().remove(&new);
            }),
            &["certificate-profile"],
        ),
        // Back to no list at all.
        (
            Box::new(|root| {
                root.as_object_mut().unwrap().remove("authorities");
                root["ca_sha256"] = json!(new);
            }),
            &["wrong-fleet"],
        ),
    ];
    for (change, words) in changes {
        done(&request(&room, &["prepare", "--ca", &ca]));
        room.tamper("ca", |request| change(&mut request["payload"]));
        let (ran, _) = room.sign("ca", "release.root-1");
        refused(&ran, 1, words);
    }
    // The director's root says nothing about authorities.
    let ran = request(&room, &["prepare", "--ca", &ca, "--repository", "director"]);
    refused(&ran, 1, &["wrong-fleet"]);
}

#[test]
fn an_authority_of_another_fleet_is_refused_and_nothing_is_written_over() {
    let room = Room::found();
    let other = FleetId::parse("other.example").unwrap();
    let other = FleetCa::found(other, now()).unwrap().anchor().unwrap();
    let file = room.text("other.pem");
    std::fs::write(&file, pem::write_chain(&[other.root().clone()])).unwrap();
    refused(
        &request(&room, &["prepare", "--ca", &file]),
        1,
        &["certificate-profile"],
    );
    let (public, out) = (room.text("fleet/public"), room.text("new"));
    make(&room, "new");
    let again = ceremony(&["ca", "make", "--fleet-dir", &public, "--out", &out]);
    refused(&again, 2, &["exists"]);
}
