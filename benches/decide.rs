//! What does a whole decision cost, beside one signature? `decide` over a verified pair of repositories, all nine rules,
//! with the policies of the demonstration parsed and intersected; the reference is one Ed25519 verification.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use redan_benches::fleet::{self, ASK_SERVICE, CEILING, EXPIRES, FLEET, Files, Keys, NOW, POLICY, Role};
use redan_benches::{Asking, compare, each};
use redan_policy::grant::World;
use redan_policy::parse_device;
use redan_protocol::wire::{Nonce, Statement, StatementKind};
use redan_protocol::{
    ComponentName, Digest, DirectionSequence, FleetId, Permille, ReleaseCounter, Seconds, SetId, SpiffeId,
    UnixSeconds, Version64,
};
use redan_publish::metadata::{envelope, target};
use redan_publish::{Directed, DirectorExpiry, DirectorKeys, director};
use redan_trust::custom::{ComponentRecord, Direction, DirectorCustom, ReleaseCustom};
use redan_trust::release_set::{Member, ReleaseSet, Ring, SetSchema};
use redan_trust::{
    DeviceFacts, Document, Offered, POLICY_PATH, TrustState, decide, plan_path, verify_statement,
};
use std::collections::BTreeMap;
use std::hint::black_box;

const DEVICE: &str = "spiffe://plant.example/device/press-1";
const COMPONENT: &[u8] = b"\0asm component";
const NONCE: Nonce = Nonce([7; 16]);

pub(crate) fn bench(asking: &mut Asking) {
    let record = record();
    let member = Member {
        component: record.component.clone(),
        version: record.version.clone(),
        counter: record.counter,
        digest: Digest::of(COMPONENT),
    };
    let path = member.target_path();
    let plan = serde_json::to_vec(&set(member)).unwrap();
    let direction = direction(&plan);

    let release_files = release(&record, &path, &plan);
    let keys = Keys::generate().unwrap();
    let director_files = directed(&keys, &record, &direction, &path);
    let directed = fleet::refreshed(&director_files).unwrap();
    let mut released = fleet::refreshed(&release_files).unwrap();
    let mut find = |path: &str| fleet::find(&release_files, &mut released, path).unwrap().unwrap();
    let targets = BTreeMap::from([(path.clone(), Some(find(&path)))]);
    let mut document = |path: &str, bytes: &[u8]| Document {
        target: find(path),
        bytes: bytes.to_vec(),
    };
    let (plan, policy) = (
        document(&plan_path(&direction.set), &plan),
        document(POLICY_PATH, POLICY.as_bytes()),
    );
    let statement = serde_json::to_value(statement()).unwrap();
    let statement = envelope(&statement, &[&keys.timestamp]).unwrap();
    let offered = Offered {
        director: &directed,
        release: &released,
        released: targets,
        plan: Some(plan),
        policy: Some(policy),
        statement: Some(verify_statement(&directed, &statement).unwrap()),
    };
    let (state, facts) = (TrustState::default(), facts());

    let message = black_box([7_u8; 512]);
    let pair = Ed25519KeyPair::generate().unwrap();
    let signature = pair.sign(&message);
    let public = pair.public_key().as_ref().to_vec();

    compare(
        asking,
        "decide",
        &mut |times| {
            each(times, || {
                let plan = decide(black_box(&state), black_box(&offered), black_box(&facts)).unwrap();
                assert!(black_box(plan).is_some());
            })
        },
        ("one Ed25519 verification", &mut |times| {
            each(times, || {
                let public = UnparsedPublicKey::new(&ED25519, black_box(&public));
                public.verify(black_box(&message), signature.as_ref()).unwrap();
            })
        }),
    );
}

fn release(record: &ComponentRecord, path: &str, plan: &[u8]) -> Files {
    let name = &record.component;
    let custom = ReleaseCustom {
        record: record.clone(),
    };
    let document = |bytes| target(bytes, None::<&()>).unwrap();
    let role = |name: &str, pattern: String, path: &str, entry| Role {
        name: name.to_owned(),
        paths: vec![pattern],
        targets: BTreeMap::from([(path.to_owned(), entry)]),
    };
    let roles = vec![
        role(
            &name.role(),
            format!("components/{name}/*/*"),
            path,
            target(COMPONENT, Some(&custom)).unwrap(),
        ),
        role("plan", "plans/*".into(), &plan_path(&set_id()), document(plan)),
        role(
            "policy",
            "policy/*".into(),
            POLICY_PATH,
            document(POLICY.as_bytes()),
        ),
    ];
    fleet::repository(&Keys::generate().unwrap(), &BTreeMap::new(), roles).unwrap()
}

fn directed(keys: &Keys, record: &ComponentRecord, direction: &Direction, path: &str) -> Files {
    let one = Directed {
        path: path.to_owned(),
        length: u64::try_from(COMPONENT.len()).unwrap(),
        sha256: Digest::of(COMPONENT),
        custom: DirectorCustom {
            record: record.clone(),
            direction: direction.clone(),
        },
    };
    let expiry = DirectorExpiry {
        targets: EXPIRES,
        timestamp: EXPIRES,
    };
    let by = DirectorKeys {
        targets: &keys.targets,
        snapshot: &keys.snapshot,
        timestamp: &keys.timestamp,
    };
    let files = director(&direction.device, 1, &[one], expiry, by).unwrap();
    Files::from([
        ("1.root.json".to_owned(), keys.root().unwrap()),
        ("1.targets.json".to_owned(), files.targets),
        ("1.snapshot.json".to_owned(), files.snapshot),
        ("timestamp.json".to_owned(), files.timestamp),
    ])
}

fn record() -> ComponentRecord {
    ComponentRecord {
        fleet: FleetId::parse(FLEET).unwrap(),
        component: ComponentName::parse("acme/thermo").unwrap(),
        counter: ReleaseCounter::new(1),
        version: semver::Version::new(1, 0, 0),
        hardware: vec!["gateway".into()],
        world: World::HttpProxy,
        ask: ASK_SERVICE.into(),
        requires: Vec::new(),
        conflicts: Vec::new(),
        state_schema: 1,
        sbom: None,
        provenance: None,
        rebuild: None,
    }
}

fn set_id() -> SetId {
    SetId::parse("set-1").unwrap()
}

fn set(member: Member) -> ReleaseSet {
    ReleaseSet {
        schema: SetSchema::V1,
        fleet: FleetId::parse(FLEET).unwrap(),
        id: set_id(),
        members: vec![member],
        replaces: None,
        rollback_sets: Vec::new(),
        rings: vec![Ring {
            share: Permille::ALL,
            opens_after: Seconds::new(0),
            soak: Seconds::new(0),
        }],
    }
}

fn direction(plan: &[u8]) -> Direction {
    Direction {
        device: SpiffeId::parse(DEVICE).unwrap(),
        sequence: DirectionSequence::new(1),
        set: set_id(),
        set_digest: Digest::of(plan),
        not_before: UnixSeconds::new(0),
        deadline: UnixSeconds::new(0),
        retry_budget: 3,
        unblocked: Vec::new(),
    }
}

fn statement() -> Statement {
    Statement {
        kind: StatementKind::TimeStatement,
        device: SpiffeId::parse(DEVICE).unwrap(),
        nonce: NONCE,
        time: NOW,
        release: Version64::new(1),
        director: Version64::new(1),
    }
}

fn facts() -> DeviceFacts {
    DeviceFacts {
        device: SpiffeId::parse(DEVICE).unwrap(),
        worlds: vec![World::HttpProxy, World::Command],
        ceiling: parse_device("ceiling.toml", CEILING).unwrap(),
        installed: BTreeMap::new(),
        plan_known: Seconds::new(0),
        now: NOW,
        nonce: Some(NONCE),
    }
}
