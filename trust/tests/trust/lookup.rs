//! Delegations (TUF 1.0.34 §5.6.7).

use crate::maker::{Repo, Served, Signer, envelope, target, targets_document};
use redan_protocol::Digest;
use redan_trust::TufError;
use redan_trust::claimed::TooFewSignatures;
use redan_trust::lookup::ROLES_MAX;
use redan_trust::metadata::Malformed;
use serde_json::{Value, json};

fn list(repo: &mut Repo, role: &str, path: &str) {
    repo.targets.get_mut(role).unwrap()["targets"][path] = target(b"x");
}

/// Roles through which a path was found, and what was fetched on the way.
fn search(repo: &Repo, path: &str) -> (Option<Vec<String>>, Vec<String>) {
    let mut device = repo.device();
    let mut repository = device.refresh(repo).unwrap();
    let found = device.lookup(repo, &mut repository, path).unwrap();
    (found.map(|target| target.roles), device.fetched)
}

/// (delegator, delegate, patterns, terminating)
type Edge = (&'static str, &'static str, &'static [&'static str], bool);

#[test]
fn delegations_are_visited_in_pre_order_on_demand() {
    let cases: [(&[Edge], &[&str]); 6] = [
        (
            &[
                ("targets", "a", &["*"], false),
                ("targets", "b", &["*"], false),
                ("a", "c", &["*"], false),
            ],
            &["a", "c", "b"],
        ),
        (
            &[
                ("targets", "a", &["*"], false),
                ("targets", "b", &["*"], false),
                ("a", "c", &["*"], true),
                ("a", "d", &["*"], false),
            ],
            &["a", "c"],
        ),
        (
            &[
                ("targets", "a", &["*.py"], false),
                ("targets", "b", &["*"], false),
            ],
            &["b"],
        ),
        (
            &[
                ("targets", "b", &["*"], false),
                ("b", "c", &["*"], false),
                ("c", "d", &["*"], false),
                ("d", "b", &["*"], false),
            ],
            &["b", "c", "d"],
        ),
        (
            &[
                ("targets", "a", &["*"], false),
                ("targets", "b", &["*"], false),
                ("b", "c", &["*"], false),
                ("a", "c", &["*.py"], false),
            ],
            &["a", "b", "c"],
        ),
        (
            &[
                ("targets", "a", &["*/*"], false),
                ("targets", "b", &["m?ss*"], true),
            ],
            &["b"],
        ),
    ];
    for (edges, visited) in cases {
        let mut repo = Repo::new();
        for (from, role, paths, terminating) in edges {
            repo.delegate(from, role, paths, *terminating);
        }
        repo.publish();
        let files: Vec<String> = visited.iter().map(|role| format!("1.{role}.json")).collect();
        assert_eq!(search(&repo, "missing"), (None, files));
    }
}

#[test]
fn a_target_is_found_through_the_first_role_that_lists_it() {
    let mut repo = Repo::new();
    for (from, role) in [("targets", "a"), ("targets", "b"), ("a", "c")] {
        repo.delegate(from, role, &["files/*"], false);
    }
    list(&mut repo, "c", "files/x");
    list(&mut repo, "b", "files/x");
    repo.publish();
    let (found, _) = search(&repo, "files/x");
    assert_eq!(found.unwrap(), ["targets", "a", "c"]);
}

#[test]
fn a_second_search_fetches_nothing() {
    let mut repo = Repo::new();
    repo.delegate("targets", "a", &["*"], false);
    repo.publish();
    let mut device = repo.device();
    let mut repository = device.refresh(&repo).unwrap();
    assert_eq!(device.lookup(&repo, &mut repository, "x").unwrap(), None);
    assert_eq!(device.stored, ["a"]);
    let mut repository = device.refresh(&repo).unwrap();
    assert_eq!(device.lookup(&repo, &mut repository, "x").unwrap(), None);
    assert_eq!((device.fetched.len(), device.stored.len()), (0, 0));
}

#[test]
fn a_chain_of_delegations_ends_at_the_limit() {
    let mut repo = Repo::new();
    let name = |n: usize| {
        if n == 0 {
            "targets".to_owned()
        } else {
            format!("r{n:02}")
        }
    };
    for n in 0..40 {
        repo.delegate(&name(n), &name(n + 1), &["*"], false);
    }
    list(&mut repo, "r40", "deep");
    list(&mut repo, &name(ROLES_MAX), "last");
    repo.publish();
    let (found, fetched) = search(&repo, "deep");
    assert_eq!((found, fetched.len()), (None, ROLES_MAX));
    assert!(search(&repo, "last").0.is_some());
}

#[test]
fn a_star_does_not_cross_a_slash_and_a_delegate_gives_only_what_it_was_given() {
    let mut repo = Repo::new();
    repo.delegate("targets", "a", &["components/acme/*"], true);
    list(&mut repo, "a", "components/acme/thermo/1");
    list(&mut repo, "a", "plans/x");
    repo.publish();
    for path in ["components/acme/thermo/1", "plans/x"] {
        assert_eq!(search(&repo, path), (None, Vec::new()));
    }
}

#[test]
fn hash_prefixes_share_paths_out() {
    let mut repo = Repo::new();
    let bin = Digest::of(b"a/b/c").to_string()[..2].to_owned();
    repo.delegate("targets", "bin", &[], false);
    let role = &mut repo.targets.get_mut("targets").unwrap()["delegations"]["roles"][0];
    role.as_object_mut().unwrap().remove("paths");
    role["path_hash_prefixes"] = json!([bin]);
    list(&mut repo, "bin", "a/b/c");
    list(&mut repo, "bin", "a/b/d");
    repo.publish();
    assert!(search(&repo, "a/b/c").0.is_some());
    assert_ne!(Digest::of(b"a/b/d").to_string()[..2], bin);
    assert_eq!(search(&repo, "a/b/d"), (None, Vec::new()));
}

#[test]
fn a_rogue_delegate_stops_only_its_own_paths() {
    // The attacker holds the keys of one component's role, or can hide and replace its file.
    type Attack = fn(&mut Repo);
    let attacks: [(Attack, TufError); 5] = [
        (
            |repo| repo.targets.get_mut("evil").unwrap()["expires"] = json!("2020-01-01T00:00:00Z"),
            TufError::Expired {
                role: "evil".into(),
                expired: redan_protocol::UnixSeconds::new(1_577_836_800),
                now: crate::maker::NOW,
            },
        ),
        (
            |repo| drop(repo.signers.insert("evil".into(), vec![Signer::new("evil")])),
            TufError::Signatures {
                role: "evil".into(),
                source: TooFewSignatures {
                    valid: 0,
                    threshold: 1,
                },
            },
        ),
        (
            |repo| {
                repo.targets.get_mut("evil").unwrap()["delegations"] = json!({"keys": {}, "roles": [
                {"name": "root", "keyids": [], "threshold": 1, "terminating": false, "paths": ["*"]}]});
            },
            TufError::Malformed {
                role: "evil".into(),
                source: Malformed::Role,
            },
        ),
        (
            |repo| repo.targets.get_mut("evil").unwrap()["targets"]["evil/x"] = json!({"length": -1}),
            TufError::Malformed {
                role: "evil".into(),
                source: Malformed::Field,
            },
        ),
        (
            |repo| drop(repo.served.insert("hide".into(), Served::Failed)),
            TufError::Unavailable {
                path: "evil.json".into(),
            },
        ),
    ];
    for (attack, refusal) in attacks {
        let mut repo = Repo::new();
        repo.delegate("targets", "evil", &["evil/*"], true);
        repo.delegate("targets", "good", &["good/*"], true);
        list(&mut repo, "good", "good/x");
        attack(&mut repo);
        repo.publish();
        if repo.served.remove("hide").is_some() {
            repo.served.insert("1.evil.json".into(), Served::Failed);
        }
        let mut device = repo.device();
        let mut repository = device.refresh(&repo).unwrap();
        let evil = device.lookup(&repo, &mut repository, "evil/x");
        assert_eq!(evil.unwrap_err(), refusal);
        assert!(device.lookup(&repo, &mut repository, "good/x").unwrap().is_some());
    }
}

#[test]
fn a_delegated_file_that_the_snapshot_does_not_name_is_refused() {
    type Edit = fn(&mut Value);
    let edits: [(Edit, TufError); 3] = [
        (
            |meta| drop(meta.as_object_mut().unwrap().remove("a.json")),
            TufError::Unlisted { role: "a".into() },
        ),
        (
            |meta| meta["a.json"]["hashes"]["sha256"] = json!("00"),
            TufError::WrongBytes { role: "a".into() },
        ),
        (
            |meta| meta["a.json"]["version"] = json!(2),
            TufError::WrongVersion {
                role: "a".into(),
                wanted: 2,
                offered: 1,
            },
        ),
    ];
    for (edit, refusal) in edits {
        let mut repo = Repo::new();
        repo.delegate("targets", "a", &["*"], true);
        repo.publish();
        edit(&mut repo.snapshot["meta"]);
        repo.publish_snapshot();
        let file = repo.served["1.a.json"].clone();
        repo.served.insert("2.a.json".into(), file);
        let mut device = repo.device();
        let mut repository = device.refresh(&repo).unwrap();
        assert_eq!(device.lookup(&repo, &mut repository, "x").unwrap_err(), refusal);
    }
}

#[test]
fn a_role_is_asked_for_and_stored_under_a_quoted_name() {
    for (role, stem) in [
        ("../root", "..%2Froot"),
        ("/a", "%2Fa"),
        ("?", "%3F"),
        ("a\0b", "a%00b"),
        ("%2f", "%252f"),
        ("ü", "%C3%BC"),
    ] {
        let mut repo = Repo::new();
        repo.delegate("targets", role, &["*"], false);
        repo.publish();
        let mut device = repo.device();
        let mut repository = device.refresh(&repo).unwrap();
        assert_eq!(device.lookup(&repo, &mut repository, "x").unwrap(), None);
        assert_eq!(device.fetched, [format!("1.{stem}.json")]);
        assert_eq!(device.stored, [stem]);
        let mut repository = device.refresh(&repo).unwrap();
        assert_eq!(device.lookup(&repo, &mut repository, "x").unwrap(), None);
        assert_eq!(device.fetched.len(), 0);
    }
}

#[test]
fn a_stored_delegate_signed_by_replaced_keys_is_fetched_again() {
    let mut repo = Repo::new();
    repo.hashes = Vec::new();
    repo.delegate("targets", "a", &["*"], false);
    list(&mut repo, "a", "x");
    repo.publish();
    let mut device = repo.device();
    let mut repository = device.refresh(&repo).unwrap();
    device.lookup(&repo, &mut repository, "x").unwrap();
    let fresh = Signer::new("a");
    let delegations = &mut repo.targets.get_mut("targets").unwrap()["delegations"];
    delegations["keys"] = json!({ fresh.id.as_str(): fresh.key() });
    delegations["roles"][0]["keyids"] = json!([fresh.id]);
    repo.signers.insert("a".into(), vec![fresh]);
    for document in [
        repo.targets.get_mut("targets").unwrap(),
        &mut repo.snapshot,
        &mut repo.timestamp,
    ] {
        Repo::bump(document);
    }
    repo.publish();
    let mut repository = device.refresh(&repo).unwrap();
    assert!(device.lookup(&repo, &mut repository, "x").unwrap().is_some());
    assert_eq!(device.stored, ["a"]);
}

#[test]
fn a_target_in_a_folder_is_asked_for_by_hash_in_that_folder() {
    let mut repo = Repo::new();
    list(&mut repo, "targets", "dir/file");
    list(&mut repo, "targets", "file");
    repo.publish();
    let mut device = repo.device();
    let mut repository = device.refresh(&repo).unwrap();
    let hash = Digest::of(b"x");
    for (path, file) in [
        ("dir/file", format!("dir/{hash}.file")),
        ("file", format!("{hash}.file")),
    ] {
        let target = device.lookup(&repo, &mut repository, path).unwrap().unwrap();
        assert_eq!((target.file(true), target.file(false)), (file, path.to_owned()));
    }
}

#[test]
fn a_target_without_a_known_hash_is_no_bytes_at_all() {
    for (hashes, is) in [
        (json!({}), false),
        (json!({"md5": "00"}), false),
        (crate::maker::hashes(b"x", &["sha512"]), true),
    ] {
        let mut repo = Repo::new();
        repo.document("targets")["targets"]["file"] = json!({"length": 1, "hashes": hashes});
        repo.publish();
        let mut device = repo.device();
        let mut repository = device.refresh(&repo).unwrap();
        let target = device.lookup(&repo, &mut repository, "file").unwrap().unwrap();
        assert_eq!(target.is(b"x"), is);
        assert!(!target.is(b"y") && !target.is(b"xx"));
    }
}

/// A role of which the parent says two things could be read in two ways: whose keys sign it?
#[test]
fn a_delegation_that_makes_no_sense_is_refused() {
    type Edit = fn(&mut Value);
    let cases: [(Edit, Malformed); 8] = [
        (
            |delegations| {
                let again = delegations["roles"][0].clone();
                delegations["roles"].as_array_mut().unwrap().push(again);
            },
            Malformed::Role,
        ),
        (
            |delegations| delegations["roles"][0]["threshold"] = json!(0),
            Malformed::Role,
        ),
        (
            |delegations| drop(delegations["roles"][0].as_object_mut().unwrap().remove("paths")),
            Malformed::Role,
        ),
        (
            |delegations| delegations["roles"][0]["path_hash_prefixes"] = json!(["00"]),
            Malformed::Role,
        ),
        (
            |delegations| delegations["succinct_roles"] = shares(8),
            Malformed::Role,
        ),
        (
            |delegations| *delegations = json!({"keys": {}, "succinct_roles": shares(0)}),
            Malformed::Role,
        ),
        (
            |delegations| *delegations = json!({"keys": {}, "succinct_roles": shares(33)}),
            Malformed::Role,
        ),
        (
            |delegations| *delegations = json!({"keys": {}, "succinct_roles": {"bit_length": 8}}),
            Malformed::Field,
        ),
    ];
    for (edit, source) in cases {
        let mut repo = Repo::new();
        repo.delegate("targets", "a", &["*"], false);
        edit(&mut repo.targets.get_mut("targets").unwrap()["delegations"]);
        repo.publish();
        let malformed = TufError::Malformed {
            role: "targets".into(),
            source,
        };
        assert_eq!(repo.device().refresh(&repo).unwrap_err(), malformed, "{source:?}");
    }
}

fn shares(bits: u32) -> Value {
    json!({"keyids": [], "threshold": 1, "bit_length": bits, "name_prefix": "share"})
}

/// TAP 15. SHA-256 of `x` begins with 2d, of `y` with a1.
#[test]
fn a_path_is_looked_for_in_its_own_share_of_all_paths_and_nowhere_else() {
    let mut repo = Repo::new();
    for share in ["share-2d", "share-a1"] {
        repo.delegate("targets", share, &["*"], false);
        list(&mut repo, share, "x");
    }
    list(&mut repo, "share-2d", "y");
    let signer = Signer::new("shares");
    let mut succinct = shares(8);
    succinct["keyids"] = json!([signer.id]);
    repo.targets.get_mut("targets").unwrap()["delegations"] =
        json!({"keys": { signer.id.as_str(): signer.key() }, "succinct_roles": succinct});
    repo.hashes.clear();
    repo.publish();
    let file = envelope(&repo.targets["share-2d"], &[&signer]);
    repo.serve("1.share-2d.json", &file);
    let roles = vec!["targets".to_owned(), "share-2d".to_owned()];
    assert_eq!(
        search(&repo, "x"),
        (Some(roles), vec!["1.share-2d.json".to_owned()])
    );
    repo.publish();
    let mut device = repo.device();
    let mut repository = device.refresh(&repo).unwrap();
    // Signed by its former key, which the parent no longer names.
    assert_eq!(
        device.lookup(&repo, &mut repository, "x"),
        Err(TufError::Signatures {
            role: "share-2d".into(),
            source: TooFewSignatures {
                valid: 0,
                threshold: 1
            },
        })
    );
    let file = envelope(&targets_document(), &[&signer]);
    repo.serve("1.share-a1.json", &file);
    assert_eq!(search(&repo, "y"), (None, vec!["1.share-a1.json".to_owned()]));
}
