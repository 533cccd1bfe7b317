//! Key files, and what may not be signed.

use crate::release::{key, root_spec, signers};
use redan_publish::metadata::{root, sign};
use redan_publish::{Passphrase, PublicKey, PublishError, Signers, SigningKey};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_key_file_reads_back_and_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("release.snapshot-1.key.json");
    let made = key("release.snapshot-1");
    made.save(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let read = SigningKey::load(&path).unwrap();
    assert_eq!(read.public(), made.public());
    assert_eq!(read.purpose(), "release.snapshot-1");
}

#[test]
fn a_key_is_never_written_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    let first = key("one");
    first.save(&path).unwrap();
    assert!(matches!(key("two").save(&path), Err(PublishError::File { .. })));
    assert_eq!(SigningKey::load(&path).unwrap().public(), first.public());
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    key("one").save(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let named = path.display().to_string();
    assert_eq!(
        SigningKey::load(&path).unwrap_err(),
        PublishError::KeyMode {
            path: named,
            mode: 0o644
        }
    );
}

#[test]
fn a_key_file_whose_halves_do_not_belong_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    key("one").save(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut file: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, value) in [
        ("public", json!(key("two").public().public)),
        ("schema", json!("redan.key/2")),
        ("scheme", json!("rsa")),
        ("private", json!("bm8ga2V5")),
        ("more", json!(1)),
    ] {
        let before = file[name].take();
        file[name] = value;
        std::fs::write(&path, file.to_string()).unwrap();
        let named = path.display().to_string();
        assert_eq!(
            SigningKey::load(&path).unwrap_err(),
            PublishError::Key { path: named },
            "{name}"
        );
        file[name] = before;
        if name == "more" {
            file.as_object_mut().unwrap().remove(name);
        }
    }
    std::fs::write(&path, file.to_string()).unwrap();
    assert!(SigningKey::load(&path).is_ok(), "positive control");
}

#[test]
fn nothing_is_signed_by_nobody_or_twice_by_one_key() {
    let one = key("one");
    assert_eq!(sign(&json!({}), &[]).unwrap_err(), PublishError::Keys);
    assert_eq!(sign(&json!({}), &[&one, &one]).unwrap_err(), PublishError::Keys);
    assert!(sign(&json!({}), &[&one, &key("two")]).is_ok(), "positive control");
}

#[test]
fn a_threshold_its_keys_cannot_meet_is_refused() {
    let (one, two) = (key("one"), key("two"));
    let mut spec = root_spec([
        ("root", &one),
        ("targets", &one),
        ("snapshot", &one),
        ("timestamp", &one),
    ]);
    for (keys, threshold, different) in [
        (vec![&one, &two], 3, 2),
        (vec![&one], 0, 1),
        // One key twice counts once.
        (vec![&one, &one], 2, 1),
        (vec![&one, &one], 1, 1),
    ] {
        spec.roles.insert("root", signers(&keys, threshold));
        let refused = PublishError::Threshold {
            keys: different,
            threshold,
        };
        assert_eq!(root(&spec).unwrap_err(), refused);
    }
    spec.roles.insert("root", signers(&[&one, &two], 2));
    assert!(root(&spec).is_ok(), "positive control");
}

#[test]
fn one_public_key_under_two_ids_is_refused_in_one_role_and_across_roles() {
    let (one, two) = (key("one"), key("two"));
    let alias = PublicKey {
        id: "alias".to_owned(),
        ..one.public()
    };
    let spec = || {
        root_spec([
            ("root", &one),
            ("targets", &two),
            ("snapshot", &two),
            ("timestamp", &two),
        ])
    };
    let with = |role: &'static str, keys: Vec<PublicKey>| {
        let mut spec = spec();
        spec.roles.insert(role, Signers { keys, threshold: 1 });
        root(&spec)
    };
    assert!(with("targets", vec![one.public()]).is_ok(), "positive control");
    let counted = PublishError::Threshold {
        keys: 1,
        threshold: 1,
    };
    assert_eq!(
        with("root", vec![one.public(), alias.clone()]).unwrap_err(),
        counted
    );
    // Roles are listed by name, so "targets" comes after "root".
    let refused = PublishError::KeyId {
        id: "alias".to_owned(),
    };
    assert_eq!(with("targets", vec![alias]).unwrap_err(), refused);
    // The other way round: another key in the place of the one the root role names.
    let impostor = PublicKey {
        id: one.public().id,
        ..two.public()
    };
    let refused = PublishError::KeyId { id: one.public().id };
    assert_eq!(with("targets", vec![impostor]).unwrap_err(), refused);
}

#[test]
fn what_is_no_key_file_at_all_is_refused_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    let named = path.display().to_string();
    let missing = PublishError::File {
        path: named.clone(),
        what: std::io::Error::from_raw_os_error(2).to_string(),
    };
    assert_eq!(SigningKey::load(&path).unwrap_err(), missing);
    for text in ["", "{}", "-----BEGIN PRIVATE KEY-----", "[1]"] {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let refused = PublishError::Key { path: named.clone() };
        assert_eq!(SigningKey::load(&path).unwrap_err(), refused, "{text:?}");
    }
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text).unwrap()
}

const RIGHT: &str = "correct horse battery staple";

#[test]
fn a_wrapped_key_opens_with_its_passphrase_and_with_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    let named = path.display().to_string();
    let made = key("release.root-1");
    made.save_wrapped(&path, &passphrase(RIGHT)).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let locked = PublishError::Wrapped { path: named.clone() };
    assert_eq!(SigningKey::load(&path).unwrap_err(), locked);
    let wrong = PublishError::Passphrase { path: named };
    let other = passphrase("correct horse battery stable");
    assert_eq!(SigningKey::open(&path, &[other]).unwrap_err(), wrong);
    // Any of several; the end of a line is no part of it.
    let several = [
        passphrase("somebody else's words"),
        passphrase(&format!("{RIGHT}\n")),
    ];
    let read = SigningKey::open(&path, &several).unwrap();
    assert_eq!((read.public(), read.purpose()), (made.public(), "release.root-1"));
}

#[test]
fn nothing_that_stands_beside_a_wrapped_key_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    key("release.root-1")
        .save_wrapped(&path, &passphrase(RIGHT))
        .unwrap();
    let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let wrong = PublishError::Passphrase {
        path: path.display().to_string(),
    };
    for (at, value) in [
        ("/purpose", json!("director.root-1")),
        ("/public", json!(key("other").public().public)),
        ("/private/passes", json!(2)),
        ("/private/salt", json!("AAAAAAAAAAAAAAAAAAAAAA==")),
        ("/private/nonce", json!("AAAAAAAAAAAAAAAA")),
        ("/private/ciphertext", json!("AAAA")),
    ] {
        let mut changed = file.clone();
        *changed.pointer_mut(at).unwrap() = value;
        std::fs::write(&path, changed.to_string()).unwrap();
        let refused = SigningKey::open(&path, &[passphrase(RIGHT)]).unwrap_err();
        assert_eq!(refused, wrong, "{at}");
    }
    std::fs::write(&path, file.to_string()).unwrap();
    assert!(
        SigningKey::open(&path, &[passphrase(RIGHT)]).is_ok(),
        "positive control"
    );
}

#[test]
fn what_a_wrapped_file_asks_for_is_bounded_before_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    key("one").save_wrapped(&path, &passphrase(RIGHT)).unwrap();
    let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (name, value) in [
        ("memory_kib", json!(19 * 1024 - 1)),
        ("memory_kib", json!(1024 * 1024 + 1)),
        ("memory_kib", json!(u32::MAX)),
        ("passes", json!(1)),
        ("passes", json!(17)),
        ("lanes", json!(0)),
        ("lanes", json!(17)),
        ("kdf", json!("argon2d")),
        ("cipher", json!("none")),
        ("salt", json!("AAAA")),
        ("nonce", json!("AAAA")),
        ("more", json!(1)),
    ] {
        let mut changed = file.clone();
        changed["private"][name] = value.clone();
        std::fs::write(&path, changed.to_string()).unwrap();
        let refused = PublishError::Key {
            path: path.display().to_string(),
        };
        assert_eq!(
            SigningKey::open(&path, &[passphrase(RIGHT)]).unwrap_err(),
            refused,
            "{name} {value}"
        );
    }
}

#[test]
fn a_passphrase_is_one_line_in_a_file_of_its_owners_and_long_enough_to_wrap_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passphrase");
    std::fs::write(&path, format!("{RIGHT}\n")).unwrap();
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o640);
    let open = PublishError::KeyMode {
        path: path.display().to_string(),
        mode: 0o640,
    };
    assert_eq!(Passphrase::read(&path).unwrap_err(), open);
    mode(0o600);
    assert!(Passphrase::read(&path).unwrap().same(&passphrase(RIGHT)));
    for text in [
        String::new(),
        "\n".into(),
        "two\nlines".into(),
        "x".repeat(1025),
        "nul\0".into(),
    ] {
        assert_eq!(
            Passphrase::new(&text).unwrap_err(),
            PublishError::PassphraseForm,
            "{text:?}"
        );
    }
    let key = key("one");
    let short = key
        .save_wrapped(&folder.path().join("short"), &passphrase("eleven char"))
        .unwrap_err();
    assert_eq!(short, PublishError::PassphraseForm);
    key.save_wrapped(&folder.path().join("long"), &passphrase("twelve chars"))
        .unwrap();
}

#[test]
fn a_public_key_file_says_the_public_half_and_nothing_else_is_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.public.json");
    let one = key("release.root-4");
    one.save_public(&path).unwrap();
    assert_eq!(
        PublicKey::load(&path).unwrap(),
        (one.public(), "release.root-4".to_owned())
    );
    let refused = PublishError::PublicKey {
        path: path.display().to_string(),
    };
    let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (name, value) in [
        ("schema", json!("redan.key/1")),
        ("scheme", json!("rsa")),
        ("public", json!("00")),
        ("public", json!(one.public().public.to_uppercase())),
        ("private", json!("x")),
    ] {
        let mut changed = file.clone();
        changed[name] = value;
        std::fs::write(&path, changed.to_string()).unwrap();
        assert_eq!(PublicKey::load(&path).unwrap_err(), refused, "{name}");
    }
}
