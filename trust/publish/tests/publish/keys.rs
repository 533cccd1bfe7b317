//! Key files, and what may not be signed.

use crate::release::{key, root_spec, signers};
use redan_publish::metadata::{root, sign};
use redan_publish::{PublicKey, PublishError, Signers, SigningKey};
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
