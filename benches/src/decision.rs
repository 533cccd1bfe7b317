//! Everything `decide` looks at, for one device and one component of the demonstration: honest, or with any of its four documents
//! replaced and signed all the same.

use crate::fleet::{self, ASK_SERVICE, CEILING, EXPIRES, FLEET, Files, Keys, NOW, POLICY, Role};
use anyhow::{Context, Result};
use redan_policy::grant::World;
use redan_policy::parse_device;
use redan_protocol::wire::{Nonce, Statement, StatementKind};
use redan_protocol::{
    ComponentName, Digest, DirectionSequence, FleetId, Permille, ReleaseCounter, Seconds, SetId, SpiffeId,
    UnixSeconds, Version64,
};
use redan_publish::metadata::{envelope, sign, snapshot, target, target_entry, targets, timestamp};
use redan_trust::custom::{ComponentRecord, Direction, DirectorCustom, ReleaseCustom};
use redan_trust::release_set::{Member, ReleaseSet, Ring, SetSchema};
use redan_trust::{
    DeviceFacts, Directing, Document, Offered, POLICY_PATH, Repository, Target, plan_path, verify_statement,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Who decides.
pub const DEVICE: &str = "spiffe://plant.example/device/press-1";
const COMPONENT: &[u8] = b"\0asm component";
const NONCE: Nonce = Nonce([7; 16]);

/// What the signers say.
#[derive(Clone, Debug)]
pub struct Said {
    /// `custom` of the component in the release repository.
    pub release: Value,
    /// `custom` of the component in the director repository.
    pub director: Value,
    /// The release set.
    pub plan: Vec<u8>,
    /// The fleet policy.
    pub policy: Vec<u8>,
}

impl Said {
    /// What a fleet says that installs its first component.
    pub fn honest() -> Result<Self> {
        let record = record()?;
        let plan = serde_json::to_vec(&release_set(&record)?)?;
        let direction = direction(&plan)?;
        Ok(Self {
            release: serde_json::to_value(ReleaseCustom {
                record: record.clone(),
            })?,
            director: serde_json::to_value(DirectorCustom { record, direction })?,
            plan,
            policy: POLICY.as_bytes().to_vec(),
        })
    }

    /// Another plan, and a director that offers that one.
    pub fn replan(&mut self, plan: Vec<u8>) {
        if let Some(digest) = self.director.pointer_mut("/direction/set_digest") {
            *digest = json!(Digest::of(&plan));
        }
        self.plan = plan;
    }
}

/// Verified repositories that say it.
pub struct Decision {
    director: Repository,
    release: Repository,
    released: BTreeMap<String, Option<Target>>,
    plan: Document,
    policy: Document,
    statement: Vec<u8>,
}

impl Decision {
    /// Signs, publishes, and refreshes as a device does.
    pub fn on(said: &Said, release: &Keys, director: &Keys) -> Result<Self> {
        let path = path()?;
        let files = released(said, &path, release)?;
        let directed = fleet::refreshed(&directed(said, &path, director)?)?;
        let mut repository = fleet::refreshed(&files)?;
        let mut find = |path: &str| fleet::find(&files, &mut repository, path);
        let targets = BTreeMap::from([(path.clone(), find(&path)?)]);
        let mut document = |path: &str, bytes: &[u8]| -> Result<Document> {
            Ok(Document {
                target: find(path)?.context("it was published")?,
                bytes: bytes.to_vec(),
            })
        };
        let plan = document(&plan_path(&set_id()?), &said.plan)?;
        let policy = document(POLICY_PATH, &said.policy)?;
        let statement = serde_json::to_value(statement()?)?;
        let statement = envelope(&statement, &[&director.timestamp])?;
        Ok(Self {
            director: directed,
            release: repository,
            released: targets,
            plan,
            policy,
            statement: serde_json::to_vec(&statement)?,
        })
    }

    /// The arguments of `decide`.
    pub fn offered(&self) -> Result<Offered<'_>> {
        let statement = serde_json::from_slice(&self.statement)?;
        Ok(Offered {
            directing: Directing::Online {
                director: &self.director,
                statement: Some(verify_statement(&self.director, &statement)?),
            },
            release: &self.release,
            released: self.released.clone(),
            plan: Some(self.plan.clone()),
            policy: Some(self.policy.clone()),
        })
    }
}

/// The device.
pub fn facts() -> Result<DeviceFacts> {
    Ok(DeviceFacts {
        device: SpiffeId::parse(DEVICE)?,
        worlds: vec![World::HttpProxy, World::Command],
        runtime: semver::Version::new(1, 0, 0),
        ceiling: parse_device("ceiling.toml", CEILING)?,
        installed: BTreeMap::new(),
        plan_known: Seconds::new(0),
        now: NOW,
        nonce: Some(NONCE),
    })
}

fn released(said: &Said, path: &str, keys: &Keys) -> Result<Files> {
    let role = |name: &str, pattern: &str, path: &str, entry| Role {
        name: name.to_owned(),
        paths: vec![pattern.to_owned()],
        targets: BTreeMap::from([(path.to_owned(), entry)]),
    };
    let document = |bytes| target(bytes, None::<&()>);
    let name = record()?.component;
    let roles = vec![
        role(
            &name.role(),
            &format!("components/{name}/*/*"),
            path,
            target(COMPONENT, Some(&said.release))?,
        ),
        role("plan", "plans/*", &plan_path(&set_id()?), document(&said.plan)?),
        role("policy", "policy/*", POLICY_PATH, document(&said.policy)?),
    ];
    fleet::repository(keys, &BTreeMap::new(), roles)
}

fn directed(said: &Said, path: &str, keys: &Keys) -> Result<Files> {
    let length = u64::try_from(COMPONENT.len())?;
    let entry = target_entry(length, Digest::of(COMPONENT), Some(&said.director))?;
    let mut listed = targets(1, EXPIRES, &BTreeMap::from([(path.to_owned(), entry)]), &[])?;
    listed
        .as_object_mut()
        .context("metadata is an object")?
        .insert("device".to_owned(), json!(DEVICE));
    let listed = sign(&listed, &[&keys.targets])?;
    let meta = BTreeMap::from([("targets.json".to_owned(), (1, listed.clone()))]);
    let snapshot = sign(&snapshot(1, EXPIRES, &meta)?, &[&keys.snapshot])?;
    let timestamp = sign(&timestamp(1, EXPIRES, (1, &snapshot))?, &[&keys.timestamp])?;
    Ok(Files::from([
        ("1.root.json".to_owned(), keys.root()?),
        ("1.targets.json".to_owned(), listed),
        ("1.snapshot.json".to_owned(), snapshot),
        ("timestamp.json".to_owned(), timestamp),
    ]))
}

fn record() -> Result<ComponentRecord> {
    Ok(ComponentRecord {
        fleet: FleetId::parse(FLEET)?,
        component: ComponentName::parse("acme/thermo")?,
        counter: ReleaseCounter::new(1),
        version: semver::Version::new(1, 0, 0),
        hardware: vec!["gateway".into()],
        world: World::HttpProxy,
        ask: ASK_SERVICE.into(),
        requires: Vec::new(),
        conflicts: Vec::new(),
        state_schema: 1,
        signed_at: None,
        sbom: None,
        provenance: None,
        rebuild: None,
    })
}

fn set_id() -> Result<SetId> {
    Ok(SetId::parse("set-1")?)
}

fn member(record: &ComponentRecord) -> Member {
    Member {
        component: record.component.clone(),
        version: record.version.clone(),
        counter: record.counter,
        digest: Digest::of(COMPONENT),
    }
}

fn path() -> Result<String> {
    Ok(member(&record()?).target_path())
}

fn release_set(record: &ComponentRecord) -> Result<ReleaseSet> {
    Ok(ReleaseSet {
        schema: SetSchema::V1,
        fleet: FleetId::parse(FLEET)?,
        id: set_id()?,
        members: vec![member(record)],
        replaces: None,
        rollback_sets: Vec::new(),
        rings: vec![Ring {
            share: Permille::ALL,
            opens_after: Seconds::new(0),
            soak: Seconds::new(0),
        }],
    })
}

fn direction(plan: &[u8]) -> Result<Direction> {
    Ok(Direction {
        device: SpiffeId::parse(DEVICE)?,
        sequence: DirectionSequence::new(1),
        set: set_id()?,
        set_digest: Digest::of(plan),
        not_before: UnixSeconds::new(0),
        deadline: UnixSeconds::new(0),
        retry_budget: 3,
        unblocked: Vec::new(),
    })
}

fn statement() -> Result<Statement> {
    Ok(Statement {
        kind: StatementKind::TimeStatement,
        device: SpiffeId::parse(DEVICE)?,
        nonce: NONCE,
        time: NOW,
        release: Version64::new(1),
        director: Version64::new(1),
    })
}
