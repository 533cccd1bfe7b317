//! The way back of a device whose trust record is gone: one document, signed for it alone.

use crate::maker::{EXPIRES, NOW, Repo, Served, Signer, envelope};
use redan_protocol::wire::Nonce;
use redan_protocol::{Code, Digest, FleetId, SpiffeId, UnixSeconds};
use redan_trust::claimed::TooFewSignatures;
use redan_trust::metadata::Malformed;
use redan_trust::recovery::{Asking, RECOVERY_LEN_MAX, RecoveryError, recover};
use redan_trust::{TrustRecord, TufError};
use serde_json::{Value, json};

const FLEET: &str = "plant.example";

/// A fleet whose release root went from one holder to two of two, and a device that lost its record.
struct Scene {
    release: Repo,
    director: Repo,
    /// Who signed the first release root, and left.
    old: Vec<Signer>,
    device: SpiffeId,
}

fn file(repo: &Repo, version: u64) -> String {
    let Some(Served::Bytes(bytes)) = repo.served.get(&format!("{version}.root.json")) else {
        panic!("no root {version}");
    };
    String::from_utf8(bytes.clone()).unwrap()
}

fn floors(repo: &Repo, version: u64) -> Value {
    json!({
        "root": version,
        "root_sha256": Digest::of(file(repo, version).as_bytes()).to_string(),
        "versions": {"timestamp": 40, "snapshot": 9, "files": {"targets.json": 3, "plan.json": 7}},
    })
}

impl Scene {
    fn new() -> Self {
        let mut release = Repo::of_fleet(FLEET);
        let old = release.rotate("root");
        let second = Signer::new("root-2");
        let first = &release.signers["root"][0].id;
        release.root["roles"]["root"] = json!({"keyids": [first, second.id], "threshold": 2});
        release.root["keys"][&second.id] = second.key();
        release.signers.get_mut("root").unwrap().push(second);
        release.publish_root(&old);
        Self {
            release,
            director: Repo::of_fleet(FLEET),
            old,
            device: SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap(),
        }
    }

    fn signed(&self) -> Value {
        json!({
            "_type": "redan.recovery/1",
            "fleet": FLEET,
            "device": self.device.to_string(),
            "nonce": "07".repeat(16),
            "issued": NOW.get(),
            "release": floors(&self.release, 2),
            "director": floors(&self.director, 1),
            "policy_serial": 5,
            "sequence": 12,
            "committed": {"acme/thermo": 4},
        })
    }

    fn document(&self, signed: &Value, by: &[&Signer]) -> Value {
        let mut document = envelope(signed, by);
        document["roots"] = json!({"release": [file(&self.release, 2)], "director": []});
        document
    }

    /// As its holders make it.
    fn right(&self) -> Value {
        self.document(&self.signed(), &self.release.by("root"))
    }

    fn try_at(&self, document: &Value, now: UnixSeconds) -> Result<TrustRecord, RecoveryError> {
        self.try_bytes(document.to_string().as_bytes(), now)
    }

    fn try_bytes(&self, bytes: &[u8], now: UnixSeconds) -> Result<TrustRecord, RecoveryError> {
        let (release_root, director_root) = (file(&self.release, 1), file(&self.director, 1));
        let asking = Asking {
            device: &self.device,
            nonce: Nonce([7; 16]),
            release_root: &release_root,
            director_root: &director_root,
            now,
        };
        recover(bytes, &asking)
    }

    #[track_caller]
    fn refused(&self, document: &Value) -> RecoveryError {
        self.try_at(document, NOW).unwrap_err()
    }
}

fn too_few(valid: u32) -> RecoveryError {
    RecoveryError::Signatures(TooFewSignatures { valid, threshold: 2 })
}

#[test]
fn what_the_holders_of_the_newest_root_sign_brings_the_device_back() {
    let scene = Scene::new();
    let record = scene.try_at(&scene.right(), NOW).unwrap();
    assert_eq!(record.device, scene.device);
    assert_eq!(record.release_root, file(&scene.release, 2));
    assert_eq!(record.director_root, file(&scene.director, 1));
    assert_eq!(record.release_versions.unwrap().files["plan.json"], 7);
    assert_eq!(record.director_versions.unwrap().timestamp, 40);
    assert_eq!((record.policy_serial, record.sequence.get()), (5, 12));
    assert_eq!(
        record.committed.values().next().map(|counter| counter.get()),
        Some(4)
    );
    assert_eq!(record.proven, NOW);
}

#[test]
fn an_answer_to_anybody_else_or_to_another_request_is_refused() {
    let scene = Scene::new();
    let signed_with = |name: &str, value: &str| {
        let mut signed = scene.signed();
        signed[name] = json!(value);
        scene.refused(&scene.document(&signed, &scene.release.by("root")))
    };
    let other = "spiffe://plant.example/device/press-2";
    let error = signed_with("device", other);
    let named = SpiffeId::parse(other).unwrap();
    let device = scene.device.clone();
    assert_eq!(error, RecoveryError::OtherDevice { named, device });
    assert_eq!(error.code(), Code::WrongDevice);
    let error = signed_with("fleet", "mill.example");
    let named = FleetId::parse("mill.example").unwrap();
    let device = scene.device.clone();
    assert_eq!(error, RecoveryError::OtherFleet { named, device });
    assert_eq!(error.code(), Code::WrongFleet);
    let error = signed_with("nonce", &"08".repeat(16));
    assert_eq!(error, RecoveryError::OtherRequest);
    assert_eq!(error.code(), Code::RecoveryUnasked);
}

#[test]
fn fewer_holders_than_the_newest_root_wants_bring_nothing_back() {
    let scene = Scene::new();
    let by = scene.release.by("root");
    let one = scene.refused(&scene.document(&scene.signed(), &by[..1]));
    assert_eq!(one, too_few(1));
    assert_eq!(one.code(), Code::ThresholdNotMet);
    // One holder twice, the holder of the first root, and every other key of the fleet.
    let twice = scene.refused(&scene.document(&scene.signed(), &[by[0], by[0]]));
    assert_eq!(twice, RecoveryError::Malformed(Malformed::SignedTwice));
    let mut others: Vec<&Signer> = scene.old.iter().collect();
    for role in ["targets", "snapshot", "timestamp"] {
        others.extend(scene.release.by(role));
    }
    others.extend(scene.director.by("root"));
    assert_eq!(
        scene.refused(&scene.document(&scene.signed(), &others)),
        too_few(0)
    );
}

#[test]
fn nothing_that_was_signed_can_be_edited() {
    let scene = Scene::new();
    for (pointer, value) in [
        ("/signed/sequence", json!(11)),
        ("/signed/policy_serial", json!(0)),
        ("/signed/committed/acme~1thermo", json!(1)),
        ("/signed/release/versions/timestamp", json!(0)),
        ("/signed/director/versions/files", json!({})),
        ("/signed/issued", json!(0)),
    ] {
        let mut edited = scene.right();
        *edited.pointer_mut(pointer).unwrap() = value;
        assert_eq!(scene.refused(&edited), too_few(0), "{pointer}");
    }
}

#[test]
fn roots_that_are_cut_exchanged_or_foreign_are_refused() {
    let scene = Scene::new();
    let other_root = |repository| RecoveryError::OtherRoot { repository };
    let mut cut = scene.right();
    cut["roots"]["release"] = json!([]);
    assert_eq!(scene.refused(&cut), other_root("release"));
    assert_eq!(scene.refused(&cut).code(), Code::MetadataInvalid);
    // A file more than the signers know of.
    let mut long = scene.right();
    long["roots"]["director"] = json!([file(&scene.director, 1)]);
    let error = scene.refused(&long);
    assert!(
        matches!(
            &error,
            RecoveryError::Walk {
                repository: "director",
                source: TufError::WrongVersion { .. }
            }
        ),
        "{error}"
    );
    // A root of the same fleet's name, by somebody else.
    let foreign = Scene::new();
    let mut mixed = scene.right();
    mixed["roots"]["release"] = json!([file(&foreign.release, 2)]);
    let source = TufError::Signatures {
        role: "root".into(),
        source: TooFewSignatures {
            valid: 0,
            threshold: 1,
        },
    };
    let walk = RecoveryError::Walk {
        repository: "release",
        source,
    };
    assert_eq!(walk.code(), Code::ThresholdNotMet);
    assert_eq!(scene.refused(&mixed), walk);
}

#[test]
fn a_root_that_has_expired_by_proven_time_brings_nothing_back() {
    let scene = Scene::new();
    let source = TufError::Expired {
        role: "root".into(),
        expired: EXPIRES,
        now: EXPIRES,
    };
    let expired = RecoveryError::Walk {
        repository: "release",
        source,
    };
    assert_eq!(scene.try_at(&scene.right(), EXPIRES).unwrap_err(), expired);
}

#[test]
fn what_is_no_recovery_is_none() {
    let scene = Scene::new();
    let by = scene.release.by("root");
    let malformed = RecoveryError::Malformed;
    // What root holders sign besides: a root.
    let root = scene.document(&scene.release.root, &by);
    assert_eq!(scene.refused(&root), malformed(Malformed::Field));
    let mut later = scene.signed();
    later["_type"] = json!("redan.recovery/2");
    assert_eq!(
        scene.refused(&scene.document(&later, &by)),
        malformed(Malformed::Field)
    );
    let mut more = scene.signed();
    more["force"] = json!(true);
    assert_eq!(
        scene.refused(&scene.document(&more, &by)),
        malformed(Malformed::Field)
    );
    assert_eq!(
        scene.refused(&envelope(&scene.signed(), &by)),
        malformed(Malformed::Envelope)
    );
    let error = scene.try_bytes(b"{\"signed\":1,\"signed\":1}", NOW).unwrap_err();
    assert_eq!(error, malformed(Malformed::Json));
    assert_eq!(error.code(), Code::MetadataInvalid);
}

#[test]
fn a_document_one_byte_over_the_limit_is_refused() {
    let scene = Scene::new();
    let mut bytes = scene.right().to_string().into_bytes();
    bytes.resize(usize::try_from(RECOVERY_LEN_MAX.get()).unwrap(), b' ');
    scene.try_bytes(&bytes, NOW).unwrap();
    bytes.push(b' ');
    assert_eq!(scene.try_bytes(&bytes, NOW).unwrap_err(), RecoveryError::TooLong);
}
