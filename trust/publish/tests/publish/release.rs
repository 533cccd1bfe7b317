//! A release and a director repository made with the library, as the ceremony and the server make them.

use redan_policy::grant::World;
use redan_protocol::{
    ComponentName, Digest, DirectionSequence, FleetId, ReleaseCounter, SetId, SpiffeId, UnixSeconds,
};
use redan_publish::metadata::{root, sign, snapshot, target, targets, timestamp};
use redan_publish::{
    Delegation, Directed, DirectorExpiry, DirectorKeys, Profile, RootSpec, Signers, SigningKey, director,
};
use redan_trust::custom::{ComponentRecord, Direction, DirectorCustom};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The present, to both readers.
pub(crate) fn now() -> UnixSeconds {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixSeconds::new(now.unwrap().as_secs())
}

pub(crate) fn tomorrow() -> UnixSeconds {
    UnixSeconds::new(now().get() + 86_400)
}

pub(crate) fn fleet() -> FleetId {
    FleetId::parse("plant.example").unwrap()
}

pub(crate) fn key(purpose: &str) -> SigningKey {
    SigningKey::generate(purpose).unwrap()
}

pub(crate) fn signers(keys: &[&SigningKey], threshold: u32) -> Signers {
    Signers {
        keys: keys.iter().map(|key| key.public()).collect(),
        threshold,
    }
}

pub(crate) fn root_spec(roles: [(&'static str, &SigningKey); 4]) -> RootSpec {
    RootSpec {
        version: 1,
        expires: tomorrow(),
        fleet: fleet(),
        profile: Profile::Development,
        ca_sha256: Digest::of(b"the fleet's root certificate"),
        roles: roles
            .into_iter()
            .map(|(name, key)| (name, signers(&[key], 1)))
            .collect(),
    }
}

pub(crate) const COMPONENT: &[u8] = b"the bytes of a component";

pub(crate) fn component_name() -> ComponentName {
    ComponentName::parse("acme/thermo").unwrap()
}

pub(crate) fn component_path() -> String {
    format!("components/acme/thermo/1.0.0/{}.wasm", Digest::of(COMPONENT))
}

/// A release repository with one component role that two of three must sign.
pub(crate) fn release() -> Files {
    release_signed_by(2)
}

/// The same with the component role signed by so many.
pub(crate) fn release_signed_by(signatures: usize) -> Files {
    let [top, bill, snap, clock] = ["root", "targets", "snapshot", "timestamp"].map(key);
    let acme = ["one", "two", "three"].map(key);
    let [one, two, three] = &acme;
    let mut files = Files::new();
    let spec = root_spec([
        ("root", &top),
        ("targets", &bill),
        ("snapshot", &snap),
        ("timestamp", &clock),
    ]);
    files.insert(
        "1.root.json".into(),
        sign(&root(&spec).unwrap(), &[&top]).unwrap(),
    );

    let role = component_name().role();
    let delegation = Delegation {
        name: role.clone(),
        paths: vec!["components/acme/thermo/*/*".into()],
        signers: signers(&[one, two, three], 2),
    };
    let bill_of = sign(
        &targets(3, tomorrow(), &BTreeMap::new(), &[delegation]).unwrap(),
        &[&bill],
    )
    .unwrap();
    let custom: Option<&Value> = None;
    let entries = BTreeMap::from([(component_path(), target(COMPONENT, custom).unwrap())]);
    let listed = sign(
        &targets(7, tomorrow(), &entries, &[]).unwrap(),
        [three, one].get(..signatures).unwrap(),
    )
    .unwrap();
    let described = BTreeMap::from([
        ("targets.json".to_owned(), (3, bill_of.clone())),
        (format!("{role}.json"), (7, listed.clone())),
    ]);
    let snapped = sign(&snapshot(5, tomorrow(), &described).unwrap(), &[&snap]).unwrap();
    let clocked = sign(&timestamp(9, tomorrow(), (5, &snapped)).unwrap(), &[&clock]).unwrap();
    files.insert("3.targets.json".into(), bill_of);
    files.insert(format!("7.{role}.json"), listed);
    files.insert("5.snapshot.json".into(), snapped);
    files.insert("timestamp.json".into(), clocked);
    files
}

pub(crate) fn device() -> SpiffeId {
    SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap()
}

/// A director repository that directs nothing, for one device.
pub(crate) fn undirected() -> Files {
    directing(&[])
}

/// A director repository that directs the device to the component, and what it says.
pub(crate) fn directed() -> (Files, Directed) {
    let sha256 = Digest::of(COMPONENT);
    let record = ComponentRecord {
        fleet: fleet(),
        component: component_name(),
        counter: ReleaseCounter::new(7),
        version: "1.0.0".parse().unwrap(),
        hardware: vec!["x86-64".into()],
        world: World::HttpProxy,
        ask: "schema = \"redan.policy/1\"".into(),
        requires: Vec::new(),
        conflicts: Vec::new(),
        state_schema: 1,
        signed_at: None,
        sbom: None,
        provenance: None,
        rebuild: None,
    };
    let direction = Direction {
        device: device(),
        sequence: DirectionSequence::new(3),
        set: SetId::parse("plant-1").unwrap(),
        set_digest: Digest::of(b"the set"),
        not_before: UnixSeconds::new(0),
        deadline: UnixSeconds::new(0),
        retry_budget: 3,
        unblocked: vec![sha256],
    };
    let directed = Directed {
        path: component_path(),
        length: u64::try_from(COMPONENT.len()).unwrap(),
        sha256,
        custom: DirectorCustom { record, direction },
    };
    (directing(std::slice::from_ref(&directed)), directed)
}

fn directing(directed: &[Directed]) -> Files {
    let [top, bill, snap, clock] = ["root", "targets", "snapshot", "timestamp"].map(key);
    let spec = root_spec([
        ("root", &top),
        ("targets", &bill),
        ("snapshot", &snap),
        ("timestamp", &clock),
    ]);
    let expiry = DirectorExpiry {
        targets: tomorrow(),
        timestamp: tomorrow(),
    };
    let keys = DirectorKeys {
        targets: &bill,
        snapshot: &snap,
        timestamp: &clock,
    };
    let made = director(&device(), 4, directed, expiry, keys).unwrap();
    Files::from([
        (
            "1.root.json".into(),
            sign(&root(&spec).unwrap(), &[&top]).unwrap(),
        ),
        ("4.targets.json".into(), made.targets),
        ("4.snapshot.json".into(), made.snapshot),
        ("timestamp.json".into(), made.timestamp),
    ])
}

pub(crate) fn write(files: &Files, folder: &Path) {
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// One file with its signed part changed and its signatures as they were.
pub(crate) fn changed(files: &Files, name: &str, change: impl FnOnce(&mut Value)) -> Files {
    let mut file: Value = serde_json::from_slice(&files[name]).unwrap();
    change(&mut file["signed"]);
    let mut changed = files.clone();
    changed.insert(name.to_owned(), serde_json::to_vec(&json!(file)).unwrap());
    changed
}

/// A release repository whose second root names other root keys: signed by the new ones, and by the old ones too or not.
pub(crate) fn rotated(by_both: bool) -> Files {
    let [old, new, bill, snap, clock] = ["old", "new", "targets", "snapshot", "timestamp"].map(key);
    let first = root_spec([
        ("root", &old),
        ("targets", &bill),
        ("snapshot", &snap),
        ("timestamp", &clock),
    ]);
    let mut second = first.clone();
    second.version = 2;
    second.roles.insert("root", signers(&[&new], 1));
    let signed_by: &[&SigningKey] = if by_both { &[&new, &old] } else { &[&new] };
    let bill_of = sign(&targets(1, tomorrow(), &BTreeMap::new(), &[]).unwrap(), &[&bill]).unwrap();
    let described = BTreeMap::from([("targets.json".to_owned(), (1, bill_of.clone()))]);
    let snapped = sign(&snapshot(1, tomorrow(), &described).unwrap(), &[&snap]).unwrap();
    let clocked = sign(&timestamp(1, tomorrow(), (1, &snapped)).unwrap(), &[&clock]).unwrap();
    Files::from([
        (
            "1.root.json".into(),
            sign(&root(&first).unwrap(), &[&old]).unwrap(),
        ),
        (
            "2.root.json".into(),
            sign(&root(&second).unwrap(), signed_by).unwrap(),
        ),
        ("1.targets.json".into(), bill_of),
        ("1.snapshot.json".into(), snapped),
        ("timestamp.json".into(), clocked),
    ])
}
