//! Media that are swapped, lost, or brought from the wrong machine.

use crate::room::{ROOT, Room, ceremony, copy, done, refused, rotating};
use redan_publish::PublicKey;
use serde_json::{Value, json};
use std::path::Path;

/// Whether a signature file holds what its key signs over the request's own payload and nothing else.
fn signs_what_was_shown(room: &Room, name: &str, signature: &str, purpose: &str) -> bool {
    let read = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let request = read(&room.path(&format!("{name}.request.json")));
    let signature = read(Path::new(signature));
    let canonical = redan_publish::metadata::canonical(&request["payload"]).unwrap();
    let key = redan_publish::SigningKey::load(Path::new(&room.private(purpose))).unwrap();
    let public: PublicKey = key.public();
    let shown = redan_protocol::Digest::of(&canonical).to_string();
    signature["payload_sha256"] == json!(shown)
        && public.made(&canonical, &hex(signature["sig"].as_str().unwrap()))
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// What the attacker holds: the stick between the machine that inspects and the machine that signs.
#[test]
fn a_request_swapped_between_inspect_and_sign_is_not_signed() {
    let room = rotating();
    let agreed = room.digest("root");
    let honest = std::fs::read(room.path("root.request.json")).unwrap();
    // Another request that keeps every rule: it would make the attacker a holder.
    let key = room.key("release.root-9");
    let evil = ["add-holder", "--role", "root", "--key", &key];
    done(&room.request("evil", &evil));
    std::fs::copy(room.path("evil.request.json"), room.path("root.request.json")).unwrap();
    let (ran, file) = room.sign_confirming("root", ROOT[0], &agreed);
    refused(
        &ran,
        1,
        &[
            "does not begin the digest",
            "not-authorised",
            "changed on its way",
        ],
    );
    assert!(!Path::new(&file).exists());
    // What inspect says here is what is here: the swap is seen, not only refused.
    let request = room.text("root.request.json");
    let said = done(&room.run(&["inspect", "--request", &request]));
    let (key, _) = PublicKey::load(Path::new(&key)).unwrap();
    assert!(said.contains(&format!("+ key {}", key.id)), "{said}");
    // With the first characters of the whole digest right, the rest must be right too.
    let whole = |room: &Room| {
        let said = done(&room.run(&["inspect", "--request", &request]));
        let digest = said.lines().find_map(|line| line.strip_prefix("payload sha256 "));
        digest.unwrap().to_owned()
    };
    let evil = whole(&room);
    std::fs::write(room.path("root.request.json"), honest).unwrap();
    let ground = format!("{}{}", agreed, &evil[8..]);
    let (ran, _) = room.sign_confirming("root", ROOT[0], &ground);
    refused(&ran, 1, &["does not begin the digest"]);
    let (ran, one) = room.sign_confirming("root", ROOT[0], &whole(&room));
    done(&ran);
    assert!(
        signs_what_was_shown(&room, "root", &one, ROOT[0]),
        "positive control"
    );
    let (ran, two) = room.sign_confirming("root", ROOT[1], &agreed);
    done(&ran);
    done(&room.assemble("root", &[&one, &two]));
}

/// What the attacker holds: the request file, and its own description of itself.
#[test]
fn what_a_request_says_of_itself_is_not_what_is_shown() {
    let room = rotating();
    let text = std::fs::read_to_string(room.path("root.request.json")).unwrap();
    let mut request: Value = serde_json::from_str(&text).unwrap();
    request["summary"] = json!("only a new expiry");
    std::fs::write(room.path("root.request.json"), request.to_string()).unwrap();
    let file = room.text("root.request.json");
    refused(
        &room.run(&["inspect", "--request", &file]),
        2,
        &["is not a request"],
    );
    // Two payloads in one file: neither is shown, neither is signed.
    let twice = text.replacen("\"payload\":", "\"payload\": {}, \"payload\":", 1);
    std::fs::write(room.path("root.request.json"), twice).unwrap();
    refused(
        &room.run(&["inspect", "--request", &file]),
        2,
        &["is not a request"],
    );
    std::fs::write(room.path("root.request.json"), text).unwrap();
    room.finish("root", &ROOT);
}

#[test]
fn a_lost_medium_is_named_and_nothing_is_written() {
    let room = rotating();
    let (ran, one) = room.sign("root", ROOT[0]);
    done(&ran);
    let (request, key, public) = (
        room.text("root.request.json"),
        room.private(ROOT[0]),
        room.text("fleet/public"),
    );
    let (digest, out, lost) = (
        room.digest("root"),
        room.text("out.json"),
        room.text("lost/nothing.json"),
    );
    let sign = |public: &str, request: &str, key: &str, more: &[&str]| {
        let mut arguments = vec!["sign", "--public", public, "--request", request, "--key", key];
        arguments.extend(["--confirm", &digest, "--out", &out]);
        arguments.extend(more);
        ceremony(&arguments)
    };
    for ran in [
        sign(&lost, &request, &key, &[]),
        sign(&public, &lost, &key, &[]),
        sign(&public, &request, &lost, &[]),
        sign(&public, &request, &key, &["--passphrase-file", &lost]),
        room.assemble("root", &[&one, &lost]),
        room.assemble("lost", &[&one]),
    ] {
        refused(
            &ran,
            3,
            &[
                "No such file or directory",
                "lost",
                "disk-failed",
                "try: check th",
            ],
        );
    }
    assert!(!Path::new(&out).exists());
    assert_eq!(room.release("2.root.json"), None);
    done(&sign(&public, &request, &key, &[]));
    // Signed once: not over that signature.
    refused(
        &sign(&public, &request, &key, &[]),
        2,
        &["exists already", "conflict"],
    );
}

#[test]
fn a_root_is_walked_from_the_first_one_before_it_leaves_the_machine() {
    let room = rotating();
    room.finish("root", &ROOT);
    done(&room.request("third", &["rotate", "--role", "root"]));
    let signatures = ROOT.map(|purpose| {
        let (ran, file) = room.sign("third", purpose);
        done(&ran);
        file
    });
    let [one, two] = &signatures;
    // On the machine that assembles, some root on the way from the first is gone, cut short, or short of a signature.
    let spoilt = |name: &str, change: &dyn Fn(&Path), words: &[&str]| {
        let folder = tempfile::tempdir_in(room.folder()).unwrap().keep();
        copy(&room.path("fleet/public"), &folder);
        change(&folder.join("release").join(name));
        let (public, request) = (folder.display().to_string(), room.text("third.request.json"));
        let mut arguments = vec!["assemble", "--public", &public, "--request", &request];
        arguments.extend(["--signature", one, "--signature", two]);
        refused(&ceremony(&arguments), 1, words);
        assert!(!folder.join("release/3.root.json").exists());
    };
    let less = |path: &Path| {
        let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        file["signatures"].as_array_mut().unwrap().truncate(1);
        std::fs::write(path, file.to_string()).unwrap();
    };
    let gone = |path: &Path| std::fs::remove_file(path).unwrap();
    let torn = |path: &Path| std::fs::write(path, "{").unwrap();
    spoilt("1.root.json", &gone, &["1.root.json could not be fetched"]);
    spoilt("1.root.json", &less, &["1 of 2", "threshold-not-met"]);
    spoilt("1.root.json", &torn, &["the stored root is damaged"]);
    spoilt("2.root.json", &less, &["1 of 2", "threshold-not-met"]);
    spoilt("2.root.json", &torn, &["root is malformed"]);
    // Without the second, the third does not follow.
    spoilt("2.root.json", &gone, &["version 3 of root", "here is version 1"]);
    done(&room.assemble("third", &[one, two]));
    assert!(room.release("3.root.json").is_some(), "positive control");
}
