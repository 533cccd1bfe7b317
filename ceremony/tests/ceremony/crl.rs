//! Revocation lists of the offline issuers: made from files, read by whoever goes by them.

use crate::room::{Room, done, refused};
use redan_identity::crl::{CrlFault, Revocations};
use redan_identity::profile::{Purpose, check};
use redan_identity::{FleetAnchor, IssuerKind, pem};
use redan_protocol::{FleetId, UnixSeconds};
use std::process::Output;

fn now() -> UnixSeconds {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixSeconds::new(now.unwrap().as_secs())
}

fn issue(room: &Room, operator: Option<&str>, out: &str) -> String {
    let public = room.text("fleet/public");
    let whose = if operator.is_some() { "operator" } else { "server" };
    let issuer = room.text(&format!("fleet/offline/{whose}-issuer.pem"));
    let out = room.text(out);
    let mut arguments = vec![
        "issue",
        "--fleet-dir",
        &public,
        "--issuer",
        &issuer,
        "--out",
        &out,
    ];
    arguments.extend(operator.iter().flat_map(|name| ["--operator", name]));
    done(&crate::room::ceremony(&arguments));
    out
}

fn crl(room: &Room, of: &str, more: &[&str], out: &str) -> Output {
    let (public, out) = (room.text("fleet/public"), room.text(out));
    let issuer = room.text(&format!("fleet/offline/{}-issuer.pem", of.trim_end_matches('s')));
    let mut arguments = vec!["crl", "--of", of, "--fleet-dir", &public, "--issuer", &issuer];
    arguments.extend(more);
    arguments.extend(["--out", &out]);
    crate::room::ceremony(&arguments)
}

fn anchor(room: &Room) -> FleetAnchor {
    let described: serde_json::Value =
        serde_json::from_slice(&std::fs::read(room.path("fleet/public/fleet.json")).unwrap()).unwrap();
    let fleet = FleetId::parse(described["fleet"].as_str().unwrap()).unwrap();
    let ca = std::fs::read_to_string(room.path("fleet/public/ca.pem")).unwrap();
    FleetAnchor::from_pem(fleet, &ca).unwrap()
}

#[test]
fn each_list_takes_back_what_it_names_and_what_the_ones_before_it_named() {
    let room = Room::found();
    let anchor = anchor(&room);
    let files = [1, 2, 3].map(|number| issue(&room, None, &format!("server-{number}.pem")));
    let [first, second, third] = &files;
    let said = done(&crl(
        &room,
        "servers",
        &["--first", "--revoked", first],
        "servers-1.crl",
    ));
    assert!(
        said.contains("number 1") && said.contains("1 certificate"),
        "{said}"
    );
    let previous = room.text("servers-1.crl");
    let next = ["--previous", &previous, "--revoked", second, "--revoked", second];
    done(&crl(&room, "servers", &next, "servers-2.crl"));
    let mut known = Revocations::default();
    for file in ["servers-1.crl", "servers-2.crl"] {
        let file = std::fs::read(room.path(file)).unwrap();
        known.adopt(&anchor, IssuerKind::Server, &file, now()).unwrap();
    }
    let judge = |file: &String| {
        let chain = pem::read_chain(&std::fs::read_to_string(file).unwrap()).unwrap();
        check(&anchor, &chain, Purpose::Server, now()).unwrap();
        known.check(&anchor, &chain, Purpose::Server, now()).map(drop)
    };
    assert_eq!(judge(first), Err(CrlFault::Revoked));
    assert_eq!(judge(second), Err(CrlFault::Revoked));
    assert_eq!(judge(third), Ok(()));
    let again = crl(&room, "servers", &["--first"], "servers-2.crl");
    refused(&again, 2, &["exists already"]);
}

#[test]
fn a_list_names_nobody_whom_its_own_issuer_did_not_certify() {
    let room = Room::found();
    let operator = issue(&room, Some("alice"), "alice.pem");
    let foreign = crl(
        &room,
        "servers",
        &["--first", "--revoked", &operator],
        "servers.crl",
    );
    refused(&foreign, 1, &["certificate-profile"]);
    assert!(!room.path("servers.crl").exists());
    done(&crl(
        &room,
        "operators",
        &["--first", "--revoked", &operator],
        "operators.crl",
    ));
    // The list before must be of this issuer too, or numbers would begin anew.
    let previous = room.text("operators.crl");
    let other = crl(&room, "servers", &["--previous", &previous], "servers.crl");
    refused(&other, 1, &["revocation-list-invalid"]);
}

#[test]
fn whether_a_list_is_the_first_one_has_to_be_said() {
    let room = Room::found();
    let ran = crl(&room, "servers", &[], "servers.crl");
    assert_eq!(ran.status.code(), Some(2));
    assert!(!room.path("servers.crl").exists());
}
