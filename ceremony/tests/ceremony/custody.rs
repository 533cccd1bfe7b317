//! Keys under passphrases.

use crate::room::{PASSPHRASE, Room, ceremony, done, passphrase_file, refused};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

const OTHERS: [&str; 3] = [
    "first holder's words",
    "second holder's words",
    "third holder's words",
];

/// A production fleet whose three holders have a passphrase each, and the files with them.
fn production() -> (Room, [String; 3], tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let files = [0, 1, 2].map(|n| passphrase_file(folder.path(), &format!("holder-{n}"), OTHERS[n]));
    let mut more = vec!["--profile", "production"];
    for file in &files {
        more.extend(["--passphrase-file", file]);
    }
    (Room::found_with(&more), files, folder)
}

#[test]
fn a_holder_of_a_production_fleet_signs_with_their_own_passphrase_and_no_other() {
    let (room, files, _folder) = production();
    done(&room.request("root", &["rotate", "--role", "root"]));
    let digest = room.digest("root");
    let request = room.text("root.request.json");
    let sign = |holder: usize, passphrase: &[&str]| {
        let key = room.text(&format!("fleet/offline/release.root-{}.key.json", holder + 1));
        let out = room.text(&format!("{holder}.signature.json"));
        let mut arguments = vec!["sign", "--request", &request, "--key", &key];
        arguments.extend(["--confirm", &digest, "--out", &out]);
        arguments.extend(passphrase);
        room.run(&arguments)
    };
    refused(
        &sign(0, &[]),
        1,
        &["wrapped with a passphrase", "--passphrase-file"],
    );
    refused(
        &sign(0, &["--passphrase-file", &files[1]]),
        1,
        &[
            "the passphrase does not open",
            "release.root-1.key.json",
            "not-authorised",
        ],
    );
    done(&sign(0, &["--passphrase-file", &files[0]]));
    done(&sign(2, &["--passphrase-file", &files[2]]));
    let (one, three) = (room.text("0.signature.json"), room.text("2.signature.json"));
    done(&room.assemble("root", &[&one, &three]));
    // What the server signs with unattended is as it was.
    assert!(redan_publish::SigningKey::load(&room.path("fleet/online/release.timestamp.key.json")).is_ok());

    // A production fleet's thresholds stay above one.
    let said = room.request(
        "one",
        &[
            "remove-holder",
            "--role",
            "plan",
            "--key-id",
            "0",
            "--threshold",
            "1",
        ],
    );
    refused(&said, 2, &["does not name one holder"]);
    let targets = std::fs::read(room.path("fleet/public/release/1.targets.json")).unwrap();
    let targets: serde_json::Value = serde_json::from_slice(&targets).unwrap();
    let plan = targets["signed"]["delegations"]["roles"][0]["keyids"][0]
        .as_str()
        .unwrap();
    let said = room.request(
        "one",
        &[
            "remove-holder",
            "--role",
            "plan",
            "--key-id",
            plan,
            "--threshold",
            "1",
        ],
    );
    refused(&said, 2, &["threshold of at least 2"]);
}

#[test]
fn no_private_key_of_a_production_fleet_lies_about_in_the_clear() {
    let (room, files, _folder) = production();
    for entry in std::fs::read_dir(room.path("fleet/offline")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("argon2id") && !text.contains("BEGIN"),
            "{}",
            path.display()
        );
    }
    let issue = |passphrase: &[&str]| {
        let (public, issuer) = (
            room.text("fleet/public"),
            room.text("fleet/offline/operator-issuer.pem.sealed"),
        );
        let out = room.text("alice.pem");
        let mut arguments = vec!["issue", "--operator", "alice", "--fleet-dir", &public];
        arguments.extend(["--issuer", &issuer, "--out", &out]);
        arguments.extend(passphrase);
        ceremony(&arguments)
    };
    refused(
        &issue(&[]),
        1,
        &["operator-issuer.pem.sealed", "wrapped with a passphrase"],
    );
    refused(
        &issue(&["--passphrase-file", &files[1]]),
        1,
        &["the passphrase does not open"],
    );
    done(&issue(&["--passphrase-file", &files[0]]));
    // A sealed file is for what it was sealed for.
    let path = room.path("fleet/offline/operator-issuer.pem.sealed");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("operator-issuer.pem", "server-issuer.pem")).unwrap();
    std::fs::remove_file(room.path("alice.pem")).unwrap();
    refused(
        &issue(&["--passphrase-file", &files[0]]),
        1,
        &["the passphrase does not open"],
    );
}

#[test]
fn a_production_fleet_is_not_founded_with_plain_keys_or_weak_or_missing_passphrases() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("fleet");
    let init = |more: &[&str]| {
        let mut arguments = vec!["init", "--profile", "production", "--fleet", "plant.example"];
        arguments.extend(["--publisher", "acme", "--out", out.to_str().unwrap()]);
        arguments.extend(more);
        ceremony(&arguments)
    };
    let long = passphrase_file(folder.path(), "long", PASSPHRASE);
    let short = passphrase_file(folder.path(), "short", "short");
    refused(
        &init(&["--plain-keys"]),
        2,
        &["keeps its offline keys under passphrases"],
    );
    refused(&init(&[]), 2, &["no passphrase was given"]);
    refused(
        &init(&["--passphrase-file", &short]),
        1,
        &["at least 12 characters"],
    );
    for count in [2, 4] {
        let files = ["--passphrase-file", &long].repeat(count);
        refused(
            &init(&files),
            2,
            &["neither one passphrase for all holders nor one for each"],
        );
    }
    assert!(!out.exists());
}

#[test]
fn a_key_is_wrapped_again_under_another_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let old = passphrase_file(folder.path(), "old", PASSPHRASE);
    let new = passphrase_file(folder.path(), "new", OTHERS[0]);
    let make = [
        "key",
        "--purpose",
        "release.root-4",
        "--passphrase-file",
        &old,
        "--out",
        &at("mine"),
    ];
    done(&ceremony(&make));
    refused(&ceremony(&make), 2, &["exists already"]);
    refused(
        &ceremony(&["key", "--purpose", "../x", "--plain-keys", "--out", &at("")]),
        2,
        &["small letters"],
    );
    let (key, out) = (at("mine/release.root-4.key.json"), at("again.key.json"));
    let rewrap = |old: &str| {
        ceremony(&[
            "rewrap",
            "--key",
            &key,
            "--old-passphrase-file",
            old,
            "--passphrase-file",
            &new,
            "--out",
            &out,
        ])
    };
    refused(&rewrap(&new), 1, &["the passphrase does not open"]);
    done(&rewrap(&old));
    let opened = |file: &str, words: &str| {
        let words = redan_publish::Passphrase::new(words).unwrap();
        redan_publish::SigningKey::open(Path::new(file), &[words])
    };
    let before = opened(&key, PASSPHRASE).unwrap().public();
    assert_eq!(opened(&out, OTHERS[0]).unwrap().public(), before);
    assert!(opened(&out, PASSPHRASE).is_err());
}

#[test]
fn a_passphrase_typed_at_a_terminal_is_not_shown_and_must_be_typed_twice() {
    let folder = tempfile::tempdir().unwrap();
    let type_in = |lines: [&str; 2]| {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let stdin = std::fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let mut running = Command::new(env!("CARGO_BIN_EXE_redan-ceremony"))
            .args(["key", "--purpose", "release.root-4", "--out"])
            .arg(folder.path())
            .stdin(Stdio::from(stdin.try_clone().unwrap()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = running.stderr.take().unwrap();
        let mut screen = std::fs::File::from(terminal);
        for line in lines {
            // It has asked, so the echo is off.
            let mut prompt = Vec::new();
            while !prompt.ends_with(b": ") {
                let mut byte = [0];
                said.read_exact(&mut byte).unwrap();
                prompt.extend(byte);
            }
            screen.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        let succeeded = running.wait().unwrap().success();
        // A mark behind what was shown: the echo is on again, and reading up to it never waits.
        screen.write_all(b"END").unwrap();
        let mut shown = Vec::new();
        while !shown.ends_with(b"END") {
            let mut byte = [0];
            screen.read_exact(&mut byte).unwrap();
            shown.extend(byte);
        }
        // Open until here: a terminal without anybody at it reads as an error.
        drop(stdin);
        (succeeded, rest, String::from_utf8(shown).unwrap())
    };
    let (succeeded, rest, shown) = type_in([PASSPHRASE, "something else"]);
    assert!(
        !succeeded && rest.contains("the two passphrases differ"),
        "{rest}"
    );
    assert!(!shown.contains("correct"), "{shown}");
    let (succeeded, rest, shown) = type_in([PASSPHRASE, PASSPHRASE]);
    assert!(succeeded, "{rest}");
    assert!(!shown.contains("correct"), "{shown}");
    let words = redan_publish::Passphrase::new(PASSPHRASE).unwrap();
    let key = folder.path().join("release.root-4.key.json");
    assert!(redan_publish::SigningKey::open(&key, &[words]).is_ok());
}
