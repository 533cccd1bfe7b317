//! What people sign and somebody carries to a device: a direction, the way back of a lost record, the order to end; and
//! what goes from one of them to the next before it is signed.

use crate::Target;
use redan::draft::Draft;
use redan_benches::decision::{DEVICE, Decision, Said, facts};
use redan_benches::fleet::{self, EXPIRES, Keys, NOW};
use redan_protocol::wire::{BundleNote, BundleSchema, Nonce};
use redan_protocol::{DeviceId, Digest, DirectionSequence, Seconds, SpiffeId};
use redan_publish::metadata::{canonical, envelope, target as entry, targets};
use redan_trust::custom::{CarriedDirection, DirectionSchema, DirectorCustom};
use redan_trust::decommission::{Decommission, DecommissionSchema};
use redan_trust::recovery::{Asking, Floors, Recovery, RecoveryKind, recover};
use redan_trust::{
    Directing, Document, RoleVersions, TrustRecord, TrustState, carried_direction, decide, decommission_path,
    decommissioned, direction_path,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

fn device() -> SpiffeId {
    SpiffeId::parse(DEVICE).unwrap()
}

fn other_device() -> SpiffeId {
    SpiffeId::parse("spiffe://plant.example/device/press-2").unwrap()
}

fn id() -> DeviceId {
    DeviceId::parse("press-1").unwrap()
}

/// A target as a device finds it.
fn found() -> redan_trust::Target {
    static FOUND: OnceLock<redan_trust::Target> = OnceLock::new();
    let look_up = || {
        let listed = BTreeMap::from([("x".to_owned(), entry(b"x", None::<&Value>).unwrap())]);
        let files = fleet::repository(&Keys::generate().unwrap(), &listed, Vec::new()).unwrap();
        let mut repository = fleet::refreshed(&files).unwrap();
        fleet::find(&files, &mut repository, "x").unwrap().unwrap()
    };
    FOUND.get_or_init(look_up).clone()
}

/// Bytes as a role signed them at a path.
fn document(path: &str, role: &str, bytes: &[u8]) -> Document {
    let mut target = found();
    path.clone_into(&mut target.path);
    target.entry = serde_json::from_value(entry(bytes, None::<&Value>).unwrap()).unwrap();
    target.roles = vec!["targets".to_owned(), role.to_owned()];
    let bytes = bytes.to_vec();
    Document { target, bytes }
}

pub(crate) const DIRECTION: Target = Target {
    name: "direction",
    seeds: || {
        let honest: DirectorCustom = serde_json::from_value(Said::honest().unwrap().director).unwrap();
        let mut direction = honest.direction;
        direction.deadline = NOW.after(Seconds::new(86_400));
        let path = direction_path(&id(), direction.sequence);
        let carried = CarriedDirection {
            schema: DirectionSchema::V1,
            direction,
        };
        let note = BundleNote {
            schema: BundleSchema::V1,
            device: Some(device()),
            direction: Some(path),
        };
        vec![
            serde_json::to_vec(&carried).unwrap(),
            serde_json::to_vec(&note).unwrap(),
        ]
    },
    run: |input| direction(input) | crate::wire::json::<BundleNote>(input),
    mutations: 6_000,
};

/// A direction that its role signed and somebody carried here: what follows it is for this device, ends, and is not followed twice.
fn direction(input: &[u8]) -> bool {
    static DECISION: OnceLock<Decision> = OnceLock::new();
    // The path is signed as well; the strongest is the one that fits.
    let said: Option<Value> = serde_json::from_slice(input).ok();
    let sequence = said.and_then(|said| said.pointer("/direction/sequence")?.as_u64());
    let path = direction_path(&id(), DirectionSequence::new(sequence.unwrap_or(1)));
    let signed = document(&path, "direction", input);
    let Ok(read) = carried_direction(&signed, &device()) else {
        return false;
    };
    assert_eq!(read.device, device());
    assert_eq!(path, direction_path(&id(), read.sequence));
    assert!(carried_direction(&signed, &other_device()).is_err());
    for (path, role) in [
        (path.as_str(), "plan"),
        ("directions/press-2/1.json", "direction"),
    ] {
        let misplaced = document(path, role, input);
        assert!(carried_direction(&misplaced, &device()).is_err(), "{role} {path}");
    }
    let written = serde_json::to_vec(&CarriedDirection {
        schema: DirectionSchema::V1,
        direction: read.clone(),
    });
    let again = document(&path, "direction", &written.unwrap());
    assert_eq!(carried_direction(&again, &device()).unwrap(), read);

    let decision = DECISION.get_or_init(|| {
        let (release, director) = (Keys::generate().unwrap(), Keys::generate().unwrap());
        Decision::on(&Said::honest().unwrap(), &release, &director).unwrap()
    });
    let mut offered = decision.offered().unwrap();
    offered.directing = Directing::Carried(signed);
    let facts = facts().unwrap();
    let fresh = TrustState::default();
    if let Ok(Some(plan)) = decide(&fresh, &offered, &facts) {
        assert_eq!(*plan.direction(), read);
        assert!(NOW < read.deadline, "it has no end, or has ended");
        assert!(read.not_before <= NOW);
        assert_eq!(plan.set().id, read.set);
        let followed = TrustState {
            sequence: read.sequence,
            ..fresh
        };
        assert!(
            decide(&followed, &offered, &facts).is_err(),
            "it is followed twice"
        );
    }
    true
}

pub(crate) const DECOMMISSION: Target = Target {
    name: "decommission",
    seeds: || {
        let order = Decommission {
            schema: DecommissionSchema::V1,
            fleet: device().fleet().clone(),
            device: id(),
            keys: [Digest::of(b"key"), Digest::of(b"the key before")].into(),
        };
        vec![serde_json::to_vec(&order).unwrap()]
    },
    run: decommission,
    mutations: 6_000,
};

/// An order that ends a device names it and a key that it has had, for every reader, and was signed by the policy signers.
fn decommission(input: &[u8]) -> bool {
    let (path, keys) = (decommission_path(&id()), [Digest::of(b"key")]);
    let signed = document(&path, "policy", input);
    let Some(proof) = decommissioned(&signed, &device(), &keys) else {
        return false;
    };
    assert_eq!((proof.device(), proof.order()), (&device(), Digest::of(input)));
    let lenient: Value = serde_json::from_slice(input).expect("a strict reader takes no more");
    let says = |name: &str| lenient.get(name).and_then(Value::as_str).map(str::to_owned);
    assert_eq!(says("fleet").as_deref(), Some("plant.example"));
    assert_eq!(says("device").as_deref(), Some("press-1"));
    let named = lenient.get("keys").and_then(Value::as_array).unwrap();
    assert!(named.contains(&json!(Digest::of(b"key"))));
    assert_eq!(decommissioned(&signed, &other_device(), &keys), None);
    assert_eq!(
        decommissioned(&signed, &device(), &[Digest::of(b"another")]),
        None
    );
    assert_eq!(decommissioned(&signed, &device(), &[]), None);
    let of_plan = document(&path, "plan", input);
    assert_eq!(decommissioned(&of_plan, &device(), &keys), None);
    let elsewhere = document(
        &decommission_path(&DeviceId::parse("press-2").unwrap()),
        "policy",
        input,
    );
    assert_eq!(decommissioned(&elsewhere, &device(), &keys), None);
    true
}

/// The roots' holders, made once, and the first roots of both repositories.
fn holders() -> &'static (Keys, String, String) {
    static HOLDERS: OnceLock<(Keys, String, String)> = OnceLock::new();
    HOLDERS.get_or_init(|| {
        let (release, director) = (Keys::generate().unwrap(), Keys::generate().unwrap());
        let text = |keys: &Keys| String::from_utf8(keys.root().unwrap()).unwrap();
        let roots = (text(&release), text(&director));
        (release, roots.0, roots.1)
    })
}

fn recovery() -> Recovery {
    let (_, release, director) = holders();
    let floors = |root: &str, timestamp| Floors {
        root: 1,
        root_sha256: Digest::of(root.as_bytes()),
        versions: RoleVersions {
            timestamp,
            snapshot: 3,
            files: BTreeMap::from([("plan.json".into(), 7)]),
        },
    };
    Recovery {
        kind: RecoveryKind::V1,
        fleet: device().fleet().clone(),
        device: device(),
        nonce: Nonce([7; 16]),
        issued: NOW,
        release: floors(release, 40),
        director: floors(director, 50),
        policy_serial: 5,
        sequence: DirectionSequence::new(12),
        committed: BTreeMap::new(),
    }
}

fn signed_recovery(signed: &Value) -> Option<Vec<u8>> {
    let mut document = envelope(signed, &[&holders().0.root]).ok()?;
    let roots = json!({"release": [], "director": []});
    document.as_object_mut()?.insert("roots".into(), roots);
    serde_json::to_vec(&document).ok()
}

fn recovered(bytes: &[u8], by: &SpiffeId, nonce: Nonce) -> Option<TrustRecord> {
    let (_, release, director) = holders();
    let asking = Asking {
        device: by,
        nonce,
        release_root: release,
        director_root: director,
        now: NOW,
    };
    recover(bytes, &asking).ok()
}

pub(crate) const RECOVERY: Target = Target {
    name: "recovery",
    seeds: || {
        let signed = serde_json::to_value(recovery()).unwrap();
        let whole = signed_recovery(&signed).unwrap();
        let alone = serde_json::to_vec(&signed).unwrap();
        vec![
            [b"0", whole.as_slice()].concat(),
            [b"1", alone.as_slice()].concat(),
        ]
    },
    run: way_back,
    mutations: 3_000,
};

/// `0`: the document as it arrives: what it brings back is what its holders signed. `1`: what holders were led to sign: it brings back
/// this device alone, for this request alone, and never below what it says.
fn way_back(input: &[u8]) -> bool {
    let Some((mode, rest)) = input.split_first() else {
        return false;
    };
    let (honest, nonce) = (recovery(), Nonce([7; 16]));
    let bytes = match mode {
        b'0' => rest.to_vec(),
        b'1' => {
            let signed = serde_json::from_slice(rest).ok();
            let Some(bytes) = signed.and_then(|signed| signed_recovery(&signed)) else {
                return false;
            };
            bytes
        }
        _ => return false,
    };
    let Some(record) = recovered(&bytes, &device(), nonce) else {
        return false;
    };
    let said = if *mode == b'0' {
        honest
    } else {
        serde_json::from_slice(rest).expect("a strict reader takes no more than a lenient one")
    };
    assert_eq!((&said.device, said.nonce), (&device(), nonce));
    assert_eq!(record.release_versions.as_ref(), Some(&said.release.versions));
    assert_eq!(record.director_versions.as_ref(), Some(&said.director.versions));
    assert_eq!(
        (record.policy_serial, record.sequence, record.proven),
        (said.policy_serial, said.sequence, said.issued)
    );
    assert_eq!(record.committed, said.committed);
    let (_, release, director) = holders();
    assert_eq!((&record.release_root, &record.director_root), (release, director));
    assert_eq!(recovered(&bytes, &other_device(), nonce), None);
    assert_eq!(recovered(&bytes, &device(), Nonce([8; 16])), None);
    // It is kept, and read again.
    assert_eq!(TrustRecord::decode(&record.encode()).as_ref(), Some(&record));
    true
}

pub(crate) const DRAFT: Target = Target {
    name: "draft",
    seeds: || {
        let listed = BTreeMap::from([(
            "plans/plant-1.json".to_owned(),
            entry(b"{}", None::<&Value>).unwrap(),
        )]);
        let draft = json!({
            "schema": "redan.draft/1",
            "fleet": "plant.example",
            "role": "plan",
            "payload": targets(2, EXPIRES, &listed, &[]).unwrap(),
            "signatures": [{"keyid": "ab".repeat(32), "sig": "cd".repeat(64)}],
        });
        vec![serde_json::to_vec(&draft).unwrap()]
    },
    run: draft,
    mutations: 6_000,
};

/// A draft goes from signer to signer: whoever reads what another wrote reads the same, and what is signed is what the next one
/// sees.
fn draft(input: &[u8]) -> bool {
    let Some(read) = Draft::parse(input) else {
        return false;
    };
    let passed_on = serde_json::to_vec(&read).unwrap();
    assert_eq!(Draft::parse(&passed_on).as_ref(), Some(&read));
    let said: Value = serde_json::from_slice(&passed_on).unwrap();
    assert_eq!(said.get("schema"), Some(&json!("redan.draft/1")));
    let payload = said.get("payload").unwrap();
    let signed = canonical(payload).expect("what is read can be signed");
    let seen: Value = serde_json::from_slice(input).unwrap();
    assert_eq!(canonical(seen.get("payload").unwrap()).unwrap(), signed);
    true
}
