//! One offer to one device, whole and good, to be spoilt in one place by each test.

use crate::maker::{NOW, Repo, envelope, target};
use redan_policy::grant::World;
use redan_policy::parse_device;
use redan_protocol::wire::{Nonce, Statement, StatementKind};
use redan_protocol::{
    Digest, DirectionSequence, FleetId, Permille, ReleaseCounter, Seconds, SpiffeId, UnixSeconds, Version64,
};
use redan_trust::custom::{
    CarriedDirection, ComponentRecord, Direction, DirectionSchema, DirectorCustom, ReleaseCustom,
};
use redan_trust::release_set::{Member, ReleaseSet, Ring, SetSchema};
use redan_trust::{
    DeviceFacts, Directing, Document, Offered, POLICY_PATH, Plan, Refusal, TrustState, decide,
    direction_path, directive, plan_path, verify_statement,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const FLEET: &str = "plant.example";
const NONCE: Nonce = Nonce([7; 16]);
const ASK: &str = include_str!("../../../policies/ask/thermo.toml");
const DEVICE: &str = include_str!("../../../policies/device/demo.toml");

/// What is offered, to whom, and what that device knows. Signed and read only by [`Scene::decide`].
pub(crate) struct Scene {
    pub(crate) record: ComponentRecord,
    pub(crate) bytes: Vec<u8>,
    /// More components, released and directed beside it; members once [`Scene::resigned`].
    pub(crate) others: Vec<(ComponentRecord, Vec<u8>)>,
    pub(crate) set: ReleaseSet,
    pub(crate) direction: Direction,
    /// Fleet policy: serial, floor of acme/thermo, revoked digests, names.
    pub(crate) serial: u64,
    pub(crate) floor: u64,
    pub(crate) revoked: Vec<Digest>,
    pub(crate) maximum: Option<u64>,
    pub(crate) names: &'static str,
    /// More sections of the fleet policy.
    pub(crate) more: &'static str,
    pub(crate) min_version: Option<&'static str>,
    pub(crate) state: TrustState,
    pub(crate) facts: DeviceFacts,
    pub(crate) statement: Option<Statement>,
    /// Spoils unsigned documents before they are signed.
    pub(crate) spoil_release: Box<dyn Fn(&mut Repo)>,
    pub(crate) spoil_director: Box<dyn Fn(&mut Repo)>,
    /// Spoils what was fetched.
    pub(crate) spoil_offer: Box<dyn Fn(&mut Offered<'_>)>,
    /// Fleets that the roots of release and director repository name.
    pub(crate) roots: [&'static str; 2],
    /// The release repository came from a folder, the direction from the director.
    pub(crate) carried_release: bool,
}

pub(crate) fn device() -> SpiffeId {
    SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap()
}

impl Scene {
    pub(crate) fn new() -> Self {
        let bytes = b"\0asm component".to_vec();
        let record = ComponentRecord {
            fleet: fleet(FLEET),
            component: redan_protocol::ComponentName::parse("acme/thermo").unwrap(),
            counter: ReleaseCounter::new(5),
            version: semver::Version::new(1, 0, 0),
            hardware: vec!["gateway".into()],
            world: World::HttpProxy,
            ask: ASK.into(),
            requires: Vec::new(),
            conflicts: Vec::new(),
            state_schema: 1,
            signed_at: None,
            sbom: None,
            provenance: None,
            rebuild: None,
        };
        let set = ReleaseSet {
            schema: SetSchema::V1,
            fleet: fleet(FLEET),
            id: redan_protocol::SetId::parse("set-1").unwrap(),
            members: vec![member(&record, &bytes)],
            replaces: None,
            rollback_sets: Vec::new(),
            rings: vec![Ring {
                share: Permille::ALL,
                opens_after: Seconds::new(0),
                soak: Seconds::new(0),
            }],
        };
        let direction = Direction {
            device: device(),
            sequence: DirectionSequence::new(9),
            set: set.id.clone(),
            set_digest: Digest::of(b""),
            not_before: UnixSeconds::new(0),
            deadline: UnixSeconds::new(0),
            retry_budget: 3,
            unblocked: Vec::new(),
        };
        Self {
            record,
            bytes,
            others: Vec::new(),
            set,
            direction,
            serial: 4,
            floor: 5,
            revoked: Vec::new(),
            maximum: None,
            names: "acme/*",
            more: "",
            min_version: None,
            state: TrustState::default(),
            facts: DeviceFacts {
                device: device(),
                worlds: vec![World::HttpProxy, World::Command],
                runtime: semver::Version::new(1, 0, 0),
                ceiling: parse_device("ceiling.toml", DEVICE).unwrap(),
                installed: BTreeMap::new(),
                plan_known: Seconds::new(0),
                now: NOW,
                nonce: Some(NONCE),
            },
            statement: Some(Statement {
                kind: StatementKind::TimeStatement,
                device: device(),
                nonce: NONCE,
                time: NOW,
                release: Version64::new(1),
                director: Version64::new(1),
            }),
            spoil_release: Box::new(|_| {}),
            spoil_director: Box::new(|_| {}),
            spoil_offer: Box::new(|_| {}),
            roots: [FLEET, FLEET],
            carried_release: false,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Path of the one component.
    pub(crate) fn path(&self) -> String {
        member(&self.record, &self.bytes).target_path()
    }

    /// Makes what is offered the members of the set, after a record was changed.
    pub(crate) fn resigned(mut self) -> Self {
        self.set.members = self
            .components()
            .map(|(record, bytes)| member(record, bytes))
            .collect();
        self
    }

    fn components(&self) -> impl Iterator<Item = (&ComponentRecord, &[u8])> {
        let others = self
            .others
            .iter()
            .map(|(record, bytes)| (record, bytes.as_slice()));
        std::iter::once((&self.record, self.bytes.as_slice())).chain(others)
    }

    fn policy(&self) -> String {
        let revoked: Vec<String> = self
            .revoked
            .iter()
            .map(|digest| format!("\"{digest}\""))
            .collect();
        let maximum = self
            .maximum
            .map_or_else(String::new, |at| format!("[time]\nmaximum = {at}\n"));
        let minimum = self.min_version.map_or_else(String::new, |version| {
            format!("min_version = {{ \"acme/thermo\" = \"{version}\" }}\n")
        });
        include_str!("../../../policies/fleet/demo.toml")
            .replace("serial = 1\n", &format!("serial = {}\n", self.serial))
            .replace("names = [\"acme/*\"]", &format!("names = [\"{}\"]", self.names))
            + &format!(
                "\n[floors]\n\"acme/thermo\" = {}\n[revoke]\ndigests = [{}]\n{minimum}{maximum}{}",
                self.floor,
                revoked.join(", "),
                self.more
            )
    }

    /// Signs everything, reads it as a device does, and decides.
    pub(crate) fn decide(&self) -> Result<Option<Plan>, Refusal> {
        let policy = self.policy().into_bytes();
        let plan = serde_json::to_vec(&self.set).unwrap();
        let release = self.release(&plan, &policy);
        let director = self.director(&plan);
        let (mut from_release, mut from_director) = (release.device(), director.device());
        let mut released = if self.carried_release {
            from_release.refresh_carried(&release, NOW)?
        } else {
            from_release.refresh(&release)?
        };
        let directed = from_director.refresh(&director)?;
        let statement = self.statement.clone().map(|statement| {
            let signed = serde_json::to_value(statement).unwrap();
            verify_statement(&directed, &envelope(&signed, &director.by("timestamp"))).unwrap()
        });
        let mut find = |path: &str| from_release.lookup(&release, &mut released, path);
        let mut targets = BTreeMap::new();
        for path in directive(&directed, &self.facts.device)?
            .into_iter()
            .flat_map(|directive| directive.targets.into_keys())
        {
            targets.insert(path.clone(), find(&path)?);
        }
        let mut document = |path: &str, bytes: Vec<u8>| {
            find(path).map(|target| target.map(|target| Document { target, bytes }))
        };
        let plan = document(&plan_path(&self.direction.set), plan)?;
        let policy = document(POLICY_PATH, policy)?;
        let mut offered = Offered {
            directing: Directing::Online {
                director: &directed,
                statement,
            },
            release: &released,
            released: targets,
            plan,
            policy,
        };
        (self.spoil_offer)(&mut offered);
        decide(&self.state, &offered, &self.facts)
    }

    /// The same for a device without a network, to which somebody carried the release repository.
    pub(crate) fn decide_carried(&self) -> Result<Option<Plan>, Refusal> {
        let policy = self.policy().into_bytes();
        let plan = serde_json::to_vec(&self.set).unwrap();
        let release = self.release(&plan, &policy);
        let mut device = release.device();
        let mut released = device.refresh_carried(&release, self.facts.now)?;
        let mut find = |path: &str| device.lookup(&release, &mut released, path);
        let mut document = |path: &str, bytes: Vec<u8>| {
            find(path).map(|target| target.map(|target| Document { target, bytes }))
        };
        let direction = document(&self.direction_path(), self.carried(&plan))?;
        let direction = direction.unwrap();
        let plan = document(&plan_path(&self.direction.set), plan)?;
        let policy = document(POLICY_PATH, policy)?;
        let mut targets = BTreeMap::new();
        for member in &self.set.members {
            let path = member.target_path();
            targets.insert(path.clone(), find(&path)?);
        }
        let mut offered = Offered {
            directing: Directing::Carried(direction),
            release: &released,
            released: targets,
            plan,
            policy,
        };
        (self.spoil_offer)(&mut offered);
        decide(&self.state, &offered, &self.facts)
    }

    /// Where the carried direction is listed.
    pub(crate) fn direction_path(&self) -> String {
        let SpiffeId::Device(_, id) = device() else {
            panic!("a device");
        };
        direction_path(&id, self.direction.sequence)
    }

    /// The carried direction's bytes.
    fn carried(&self, plan: &[u8]) -> Vec<u8> {
        let mut direction = self.direction.clone();
        if direction.set_digest == Digest::of(b"") {
            direction.set_digest = Digest::of(plan);
        }
        let document = CarriedDirection {
            schema: DirectionSchema::V1,
            direction,
        };
        serde_json::to_vec(&document).unwrap()
    }

    fn release(&self, plan: &[u8], policy: &[u8]) -> Repo {
        let mut repo = Repo::of_fleet(self.roots[0]);
        for (record, _) in self.components() {
            let name = &record.component;
            let paths = format!("components/{name}/*/*");
            repo.delegate("targets", &name.role(), &[&paths], true);
        }
        repo.delegate("targets", "plan", &["plans/*"], true);
        repo.delegate("targets", "policy", &["policy/*"], true);
        for (record, bytes) in self.components() {
            let path = member(record, bytes).target_path();
            let role = record.component.role();
            let record = record.clone();
            let custom = serde_json::to_value(ReleaseCustom { record }).unwrap();
            list(&mut repo, &role, &path, bytes, Some(custom));
        }
        list(&mut repo, "plan", &plan_path(&self.set.id), plan, None);
        list(&mut repo, "policy", POLICY_PATH, policy, None);
        repo.delegate("targets", "direction", &["directions/*/*"], true);
        let direction = self.carried(plan);
        list(&mut repo, "direction", &self.direction_path(), &direction, None);
        (self.spoil_release)(&mut repo);
        repo.publish();
        repo
    }

    fn director(&self, plan: &[u8]) -> Repo {
        let mut repo = Repo::of_fleet(self.roots[1]);
        repo.document("targets")["device"] = json!(device());
        let mut direction = self.direction.clone();
        if direction.set_digest == Digest::of(b"") {
            direction.set_digest = Digest::of(plan);
        }
        for (record, bytes) in self.components() {
            let custom = DirectorCustom {
                record: record.clone(),
                direction: direction.clone(),
            };
            let custom = serde_json::to_value(custom).unwrap();
            let path = member(record, bytes).target_path();
            list(&mut repo, "targets", &path, bytes, Some(custom));
        }
        (self.spoil_director)(&mut repo);
        repo.publish();
        repo
    }
}

pub(crate) fn member(record: &ComponentRecord, bytes: &[u8]) -> Member {
    Member {
        component: record.component.clone(),
        version: record.version.clone(),
        counter: record.counter,
        digest: Digest::of(bytes),
    }
}

fn list(repo: &mut Repo, role: &str, path: &str, bytes: &[u8], custom: Option<Value>) {
    let mut entry = target(bytes);
    if let Some(custom) = custom {
        entry["custom"] = custom;
    }
    repo.document(role)["targets"][path] = entry;
}

pub(crate) fn fleet(name: &str) -> FleetId {
    FleetId::parse(name).unwrap()
}

/// Sets as the trust record keeps them.
pub(crate) fn sets(names: &[&str]) -> BTreeSet<redan_protocol::SetId> {
    names
        .iter()
        .map(|name| redan_protocol::SetId::parse(name).unwrap())
        .collect()
}
