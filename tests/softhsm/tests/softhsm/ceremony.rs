//! Holders whose keys are in tokens: a founding, a change, and what stops them. `redan-ceremony` denies itself sockets before it
//! loads a module.

use crate::room::{Room, with_tokens};
use redan_kit::Programs;
use std::path::Path;
use std::process::{Command, Output};

fn ceremony(arguments: &[&str]) -> Output {
    let programs = Programs::find().unwrap();
    Command::new(programs.ceremony)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn done(arguments: &[&str]) -> String {
    let ran = ceremony(arguments);
    assert!(ran.status.success(), "{arguments:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let ran = ceremony(arguments);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_owned()
}

/// A development fleet of one holder, in files.
fn found(room: &Room) -> String {
    let out = text(room.path("fleet"));
    let mut arguments = vec!["init", "--profile", "development", "--fleet", "plant.example"];
    arguments.extend(["--publisher", "acme", "--component", "acme/thermo", "--out", &out]);
    done(&arguments);
    out
}

/// Signs a request; gives the signature's file.
fn sign(room: &Room, fleet: &str, key: &str, name: &str) -> String {
    let (public, request) = (format!("{fleet}/public"), text(room.path("request.json")));
    let shown = done(&["inspect", "--public", &public, "--request", &request]);
    let digest = shown
        .lines()
        .find_map(|line| line.strip_prefix("payload sha256 "))
        .unwrap();
    let out = text(room.path(name));
    let mut arguments = vec!["sign", "--public", &public, "--request", &request, "--key", key];
    arguments.extend(["--confirm", &digest[..8], "--out", &out]);
    done(&arguments);
    out
}

#[test]
fn two_tokens_and_a_file_reach_a_threshold_of_three_together() {
    with_tokens(
        "ceremony::two_tokens_and_a_file_reach_a_threshold_of_three_together",
        &["alice", "bob"],
        |room| {
            let fleet = found(room);
            let public = format!("{fleet}/public");
            let keys = [("alice", "release.root-2"), ("bob", "release.root-3")];
            let keys = keys.map(|(token, object)| {
                let (uri, out) = (room.text(token, object), text(room.path(token)));
                done(&["token-key", "--uri", &uri, "--out", &out]);
                (uri, format!("{out}/{object}.public.json"))
            });
            let request = text(room.path("request.json"));
            let mut arguments = vec!["request", "add-holder", "--public", &public, "--role", "root"];
            for (_, public) in &keys {
                arguments.extend(["--key", public]);
            }
            arguments.extend(["--threshold", "3", "--out", &request]);
            done(&arguments);

            let file = format!("{fleet}/offline/release.root-1.key.json");
            let signatures = [
                sign(room, &fleet, &file, "one.json"),
                sign(room, &fleet, &keys[0].0, "two.json"),
                sign(room, &fleet, &keys[1].0, "three.json"),
            ];
            let assemble = |signatures: &[String]| {
                let mut arguments = vec!["assemble", "--public", &public, "--request", &request];
                for signature in signatures {
                    arguments.extend(["--signature", signature]);
                }
                arguments
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>()
            };
            let too_few = assemble(&signatures[..2]);
            let too_few: Vec<&str> = too_few.iter().map(String::as_str).collect();
            refused(&too_few, 1, &["2 of 3 signatures are valid"]);
            let enough = assemble(&signatures);
            done(&enough.iter().map(String::as_str).collect::<Vec<_>>());
            done(&["verify", "--public", &public]);
        },
    );
}

#[test]
fn a_production_fleet_is_founded_with_the_tokens_its_holders_brought() {
    with_tokens(
        "ceremony::a_production_fleet_is_founded_with_the_tokens_its_holders_brought",
        &["alice", "bob"],
        |room| {
            let words = text(room.pin_file("words", "correct horse battery staple\n"));
            let mut brought = Vec::new();
            for (token, holder) in [("alice", "release.root-1"), ("bob", "release.root-2")] {
                let uri = room.text(token, holder);
                done(&["token-key", "--uri", &uri, "--out", &text(room.path("mine"))]);
                brought.push(format!("{holder}={uri}"));
            }
            let out = text(room.path("fleet"));
            let mut arguments = vec!["init", "--profile", "production", "--fleet", "plant.example"];
            arguments.extend(["--publisher", "acme", "--passphrase-file", &words, "--out", &out]);
            for key in &brought {
                arguments.extend(["--key", key]);
            }
            // A key for a holder nobody is.
            let stray = brought[0].replacen("release.root-1=", "release.root-9=", 1);
            let mut more = arguments.clone();
            more.extend(["--key", &stray]);
            refused(&more, 2, &["no holder release.root-9"]);
            assert!(!room.path("fleet").exists() && !room.path("fleet.unfinished").exists());

            done(&arguments);
            done(&["verify", "--public", &format!("{out}/public")]);
            let offline = room.path("fleet/offline");
            for holder in ["release.root-1", "release.root-2"] {
                assert!(!offline.join(format!("{holder}.key.json")).exists());
                let public = std::fs::read(offline.join(format!("{holder}.public.json"))).unwrap();
                let mine = std::fs::read(room.path("mine").join(format!("{holder}.public.json"))).unwrap();
                assert_eq!(public, mine);
            }
            assert!(
                offline.join("release.root-3.key.json").exists(),
                "positive control"
            );
        },
    );
}

#[test]
fn what_a_holder_gets_wrong_with_a_token_is_said_with_what_to_do() {
    with_tokens(
        "ceremony::what_a_holder_gets_wrong_with_a_token_is_said_with_what_to_do",
        &["alice"],
        |room| {
            let out = text(room.path("mine"));
            let make = |uri: &str| {
                ["token-key", "--uri", uri, "--out", &out]
                    .map(str::to_owned)
                    .to_vec()
            };
            let check = |uri: &str, code: i32, words: &[&str]| {
                let arguments = make(uri);
                refused(
                    &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
                    code,
                    words,
                );
            };
            let uri = room.text("alice", "release.root-4");
            let wrong = text(room.pin_file("wrong", "9999"));
            check(
                &uri.replace(room.path("pin").to_str().unwrap(), &wrong),
                1,
                &[
                    "token alice refused the PIN, and counts",
                    "because: token-pin",
                    "try: correct the PIN",
                ],
            );
            check(
                uri.split('&').next().unwrap(),
                1,
                &[
                    "wants a PIN, and none was given",
                    "because: token-pin",
                    "pin-source=file:",
                ],
            );
            check(
                &room.text("gone", "release.root-4"),
                1,
                &["there is no token gone", "because: token-missing"],
            );
            check(&uri.replace("release.root-4", "Root"), 2, &["a key's purpose"]);
            check(
                "pkcs11:token=alice;object=k?pin-value=1234",
                2,
                &["a PIN is never part of it"],
            );
            let arguments = make(&uri);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            done(&arguments);
            let written = room.path("mine/release.root-4.public.json");
            let first = std::fs::read(&written).unwrap();
            refused(&arguments, 2, &["exists already"]);
            std::fs::remove_file(&written).unwrap();
            refused(
                &arguments,
                1,
                &["has a key release.root-4 already", "because: token-key-exists"],
            );
            done(&[&arguments[..], &["--present"]].concat());
            assert_eq!(std::fs::read(&written).unwrap(), first);
        },
    );
}
