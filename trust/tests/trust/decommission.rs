//! The order that ends a device: signed by the policy role, for this name and one of its keys, or nothing.

use crate::maker::{Repo, target};
use redan_protocol::{Digest, SpiffeId};
use redan_trust::Document;
use redan_trust::decommission::{ORDER_LEN_MAX, decommissioned};
use serde_json::{Value, json};

const PATH: &str = "policy/decommissioned-press-1.json";

fn device() -> SpiffeId {
    SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap()
}

fn key() -> Digest {
    Digest::of(b"press-1's key")
}

fn order() -> Value {
    json!({
        "schema": "redan.decommission/1",
        "fleet": "plant.example",
        "device": "press-1",
        "keys": [Digest::of(b"an older key"), key()],
    })
}

/// What a device finds when `role`, trusted for `pattern`, lists these bytes at `path`.
fn found(role: &str, pattern: &str, path: &str, bytes: &[u8]) -> Option<Document> {
    let mut repo = Repo::of_fleet("plant.example");
    repo.delegate("targets", role, &[pattern], true);
    repo.document(role)["targets"][path] = target(bytes);
    repo.publish();
    let mut device = repo.device();
    let mut release = device.refresh(&repo).unwrap();
    let target = device.lookup(&repo, &mut release, path).unwrap()?;
    let bytes = bytes.to_vec();
    Some(Document { target, bytes })
}

fn ordered(bytes: &[u8], device: &SpiffeId, keys: &[Digest]) -> bool {
    let document = found("policy", "policy/*", PATH, bytes).unwrap();
    decommissioned(&document, device, keys).is_some()
}

#[test]
fn the_policy_signers_order_ends_the_device_it_names() {
    let bytes = order().to_string().into_bytes();
    let document = found("policy", "policy/*", PATH, &bytes).unwrap();
    let proof = decommissioned(&document, &device(), &[Digest::of(b"other"), key()]).unwrap();
    assert_eq!((proof.device(), proof.order()), (&device(), Digest::of(&bytes)));
}

#[test]
fn an_order_that_is_not_for_this_device_and_one_of_its_keys_is_none() {
    let good = order().to_string().into_bytes();
    assert!(ordered(&good, &device(), &[key()]));
    assert!(!ordered(&good, &device(), &[Digest::of(b"its successor's key")]));
    assert!(!ordered(&good, &device(), &[]));
    for name in [
        "spiffe://plant.example/device/press-2",
        "spiffe://other.example/device/press-1",
        "spiffe://plant.example/operator/press-1",
    ] {
        assert!(
            !ordered(&good, &SpiffeId::parse(name).unwrap(), &[key()]),
            "{name}"
        );
    }
    let with = |field: &str, value: Value| {
        let mut order = order();
        order[field] = value;
        order.to_string().into_bytes()
    };
    for (field, value) in [
        ("schema", json!("redan.decommission/2")),
        ("fleet", json!("other.example")),
        ("device", json!("press-2")),
        ("keys", json!([])),
        ("keys", json!(["*"])),
        ("more", json!(true)),
    ] {
        assert!(!ordered(&with(field, value), &device(), &[key()]), "{field}");
    }
    let twice = String::from_utf8(good.clone()).unwrap();
    let twice = twice.replacen('{', "{\"device\":\"press-1\",", 1);
    assert!(!ordered(twice.as_bytes(), &device(), &[key()]));
    let mut long = good;
    let limit = usize::try_from(ORDER_LEN_MAX.get()).unwrap();
    long.resize(limit, b' ');
    assert!(ordered(&long, &device(), &[key()]));
    long.push(b' ');
    assert!(!ordered(&long, &device(), &[key()]));
}

/// Holds: everything but the policy role's keys; another role is trusted for the very path.
#[test]
fn nobody_but_the_policy_role_ends_a_device() {
    let bytes = order().to_string().into_bytes();
    for role in ["plan", "component.acme.thermo"] {
        let document = found(role, "policy/*", PATH, &bytes).unwrap();
        assert_eq!(decommissioned(&document, &device(), &[key()]), None, "{role}");
    }
}

/// Holds: the artifact store.
#[test]
fn bytes_that_were_not_signed_end_nobody() {
    let mut document = found(
        "policy",
        "policy/*",
        PATH,
        order().to_string().replace("press-1", "press-2").as_bytes(),
    )
    .unwrap();
    document.bytes = order().to_string().into_bytes();
    assert_eq!(decommissioned(&document, &device(), &[key()]), None);
}
