//! The evil repository builder: a production fleet whose every key is at hand, and what it has signed. A thief's files are built as
//! its own are, with the stolen keys alone in the place of the rightful ones.

use anyhow::{Context, Result, bail};
use redan_policy::grant::World as GuestWorld;
use redan_protocol::{
    ComponentName, Digest, DirectionSequence, FleetId, Permille, ReleaseCounter, Seconds, SetId, SpiffeId,
    UnixSeconds,
};
use redan_publish::metadata::{
    Delegation, Profile, RootSpec, Signers, root, sign, snapshot, target, target_entry, targets, timestamp,
};
use redan_publish::{PublicKey, SigningKey};
use redan_trust::custom::{
    CarriedDirection, ComponentRecord, Direction, DirectionSchema, DirectorCustom, ReleaseCustom,
};
use redan_trust::metadata::file_name;
use redan_trust::release_set::{Member, ReleaseSet, Ring, SetSchema};
use redan_trust::{POLICY_PATH, direction_path, plan_path};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Files of a repository by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The one component.
pub const COMPONENT: &str = "acme/thermo";
const DAY: u64 = 24 * 3600;
const ASK: &str = include_str!("../../../../policies/ask/thermo.toml");
const POLICY: &str = include_str!("../../../../policies/fleet/demo.toml");

/// A role that signs, in one of the two repositories.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// `release.root`
    Root,
    /// `release.targets`
    Targets,
    /// The component's delegated role.
    Component,
    /// The delegated role `plan`.
    Plan,
    /// The delegated role `policy`.
    Policy,
    /// The delegated role `direction`: what is carried on a stick (decision 0007).
    Direction,
    /// `release.snapshot`
    Snapshot,
    /// `release.timestamp`
    Timestamp,
    /// `director.root`
    DirectorRoot,
    /// `director.targets`
    DirectorTargets,
    /// `director.snapshot`
    DirectorSnapshot,
    /// `director.timestamp`
    DirectorTimestamp,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 12] = [
        Self::Root,
        Self::Targets,
        Self::Component,
        Self::Plan,
        Self::Policy,
        Self::Direction,
        Self::Snapshot,
        Self::Timestamp,
        Self::DirectorRoot,
        Self::DirectorTargets,
        Self::DirectorSnapshot,
        Self::DirectorTimestamp,
    ];

    /// Keys, how many of them must sign, and for how many days: the production defaults.
    const fn terms(self) -> (usize, u32, u64) {
        match self {
            Self::Root | Self::Targets | Self::DirectorRoot | Self::Policy => (3, 2, 365),
            Self::Component => (3, 2, 180),
            Self::Plan | Self::Direction => (3, 2, 90),
            Self::Snapshot => (3, 1, 90),
            Self::Timestamp => (1, 1, 2),
            Self::DirectorTargets | Self::DirectorSnapshot => (1, 1, 7),
            Self::DirectorTimestamp => (1, 1, 1),
        }
    }

    /// How many of its keys must sign.
    pub const fn threshold(self) -> u32 {
        self.terms().1
    }

    /// How long its files live.
    pub const fn life(self) -> Seconds {
        Seconds::new(self.terms().2 * DAY)
    }

    /// As documents write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "release.root",
            Self::Targets => "release.targets",
            Self::Component => "component",
            Self::Plan => "release.plan",
            Self::Policy => "release.policy",
            Self::Direction => "release.direction",
            Self::Snapshot => "release.snapshot",
            Self::Timestamp => "release.timestamp",
            Self::DirectorRoot => "director.root",
            Self::DirectorTargets => "director.targets",
            Self::DirectorSnapshot => "director.snapshot",
            Self::DirectorTimestamp => "director.timestamp",
        }
    }

    /// As its repository names it.
    pub const fn tuf(self) -> &'static str {
        match self {
            Self::Root | Self::DirectorRoot => "root",
            Self::Targets | Self::DirectorTargets => "targets",
            Self::Component => "component.acme.thermo",
            Self::Plan => "plan",
            Self::Policy => "policy",
            Self::Direction => "direction",
            Self::Snapshot | Self::DirectorSnapshot => "snapshot",
            Self::Timestamp | Self::DirectorTimestamp => "timestamp",
        }
    }

    /// Whether it is of the director's repository.
    pub const fn directs(self) -> bool {
        matches!(
            self,
            Self::DirectorRoot | Self::DirectorTargets | Self::DirectorSnapshot | Self::DirectorTimestamp
        )
    }
}

/// A production fleet: all its keys.
pub struct Fleet {
    /// Its id.
    pub id: FleetId,
    keys: BTreeMap<Role, Vec<SigningKey>>,
}

/// What a thief holds: stolen keys, and one that he made himself.
pub struct Hand<'a> {
    stolen: Vec<(Role, &'a SigningKey)>,
    own: SigningKey,
}

impl<'a> Hand<'a> {
    /// So many keys of each of these roles.
    pub fn new(fleet: &'a Fleet, stolen: &[(Role, usize)]) -> Result<Self> {
        let mut hand = Vec::new();
        for (role, count) in stolen {
            let keys = fleet.keys.get(role).context("every role has keys")?;
            hand.extend(keys.iter().take(*count).map(|key| (*role, key)));
        }
        Ok(Self {
            stolen: hand,
            own: SigningKey::generate("thief")?,
        })
    }

    /// Every rightful signer: the positive control of every forgery.
    pub fn everybody(fleet: &'a Fleet) -> Result<Self> {
        let all: Vec<_> = Role::ALL.iter().map(|role| (*role, usize::MAX)).collect();
        Self::new(fleet, &all)
    }

    /// Whether it meets a role's threshold: then it is the role.
    pub fn is(&self, role: Role) -> bool {
        let held = self.stolen.iter().filter(|(of, _)| *of == role).count();
        u32::try_from(held).is_ok_and(|held| held >= role.threshold())
    }

    /// The key the thief made himself.
    pub fn own(&self) -> PublicKey {
        self.own.public()
    }
}

/// Who signs what is built: the thief, with everything he has, or the rightful signers of a role, whom he deceives or whose file is
/// the published one.
pub struct Pen<'a> {
    /// The fleet whose rightful signers sign the rest.
    pub fleet: &'a Fleet,
    /// The thief.
    pub hand: &'a Hand<'a>,
    /// What the thief signs.
    pub forged: BTreeSet<Role>,
}

impl Pen<'_> {
    /// Signs. With the same key the same document gives the same bytes, so that what nobody changed is the published file.
    pub fn sign(&self, role: Role, document: &Value) -> Result<Vec<u8>> {
        let keys: Vec<&SigningKey> = if self.forged.contains(&role) {
            let stolen = self.hand.stolen.iter().map(|(_, key)| *key);
            stolen.chain([&self.hand.own]).collect()
        } else {
            self.fleet.rightful(role)?
        };
        Ok(sign(document, &keys)?)
    }
}

/// One release of the component.
#[derive(Clone, Debug)]
pub struct Released {
    /// What its signers say.
    pub record: ComponentRecord,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Released {
    /// An honest release: counter and version grow together.
    pub fn new(fleet: &FleetId, counter: u64) -> Result<Self> {
        let version = format!("1.{counter}.0");
        Ok(Self {
            record: ComponentRecord {
                fleet: fleet.clone(),
                component: ComponentName::parse(COMPONENT)?,
                counter: ReleaseCounter::new(counter),
                version: version.parse()?,
                hardware: vec!["gateway".into()],
                world: GuestWorld::HttpProxy,
                ask: ASK.replace("version = \"1.0.0\"", &format!("version = \"{version}\"")),
                requires: Vec::new(),
                conflicts: Vec::new(),
                state_schema: 1,
                signed_at: None,
                sbom: None,
                provenance: None,
                rebuild: None,
            },
            bytes: format!("release {counter} of {COMPONENT}").into_bytes(),
        })
    }

    /// The same with an ask that fleet policy does not admit, and the device's ceiling would.
    #[must_use]
    pub fn wide(mut self) -> Self {
        self.record.ask = self.record.ask.replace("/thermo/...", "/admin/...");
        self
    }

    /// As a set names it.
    pub fn member(&self) -> Member {
        Member {
            component: self.record.component.clone(),
            version: self.record.version.clone(),
            counter: self.record.counter,
            digest: Digest::of(&self.bytes),
        }
    }

    /// A set of it alone, `set-<counter>`, whose one ring opens after so long.
    pub fn set(&self, opens_after: Seconds) -> Result<ReleaseSet> {
        Ok(ReleaseSet {
            schema: SetSchema::V1,
            fleet: self.record.fleet.clone(),
            id: set_id(self.record.counter.get())?,
            members: vec![self.member()],
            replaces: None,
            rollback_sets: Vec::new(),
            rings: vec![Ring {
                share: Permille::ALL,
                opens_after,
                soak: Seconds::new(0),
            }],
        })
    }
}

/// Name of the set of a release.
pub fn set_id(counter: u64) -> Result<SetId> {
    Ok(SetId::parse(&format!("set-{counter}"))?)
}

/// What a fleet says, unsigned.
#[derive(Clone, Debug)]
pub struct Book {
    /// Versions of all files but roots.
    pub versions: BTreeMap<Role, u64>,
    /// When they were signed.
    pub made: BTreeMap<Role, UnixSeconds>,
    /// What the component's role lists.
    pub releases: Vec<Released>,
    /// What the role `plan` lists.
    pub sets: Vec<ReleaseSet>,
    /// Serial, floor, and what is added to the fleet's policy.
    pub policy: (u64, u64, String),
    /// What the director directs, and to which set, under which sequence.
    pub directed: (Released, SetId, u64),
    /// The set and the sequence that the role `direction` directs to, where it directs at all.
    pub carried: Option<(SetId, u64)>,
    /// Length and digest the director gives, where they are not those of the bytes.
    pub directed_digest: Option<Digest>,
    /// To whom.
    pub device: SpiffeId,
    /// Who holds the delegated roles, where it is not their signers.
    pub delegates: Option<PublicKey>,
    /// A second root of either repository: when it was signed, and the key that it gives every role to, if it does.
    pub second_root: BTreeMap<Role, (UnixSeconds, Option<PublicKey>)>,
    /// What the store has under digests beyond the bytes of releases and documents.
    pub stored: BTreeMap<Digest, Vec<u8>>,
}

impl Book {
    /// What is said of one role one version later.
    pub fn renew(&mut self, role: Role, now: UnixSeconds) {
        let version = self.versions.entry(role).or_default();
        *version = version.saturating_add(1);
        self.made.insert(role, now);
    }

    /// The release with a counter.
    pub fn release(&self, counter: u64) -> Result<&Released> {
        let found = |release: &&Released| release.record.counter.get() == counter;
        self.releases.iter().find(found).context("no such release")
    }

    /// Directs to a release and its set, under the next sequence.
    pub fn direct(&mut self, counter: u64) -> Result<()> {
        let release = self.release(counter)?.clone();
        self.directed = (release, set_id(counter)?, self.directed.2.saturating_add(1));
        Ok(())
    }

    fn version(&self, role: Role) -> Result<u64> {
        self.versions
            .get(&role)
            .copied()
            .context("every role has a version")
    }

    fn terms(&self, role: Role) -> Result<(u64, UnixSeconds)> {
        let made = self.made.get(&role).context("every role was signed")?;
        Ok((self.version(role)?, made.after(role.life())))
    }

    /// The fleet policy's text.
    pub fn policy_text(&self) -> String {
        let (serial, floor, more) = &self.policy;
        POLICY.replace("serial = 1\n", &format!("serial = {serial}\n"))
            + &format!("{more}\n[floors]\n\"{COMPONENT}\" = {floor}\n")
    }

    /// A direction to a set, as one of either way.
    fn direction(&self, set: &SetId, sequence: u64, deadline: UnixSeconds) -> Direction {
        Direction {
            device: self.device.clone(),
            sequence: DirectionSequence::new(sequence),
            set: set.clone(),
            set_digest: Digest::of(&self.plan_bytes(set).unwrap_or_default()),
            not_before: UnixSeconds::new(0),
            deadline,
            retry_budget: 3,
            unblocked: Vec::new(),
        }
    }

    /// What the role `direction` lists: where, and which bytes.
    fn carried_direction(&self) -> Result<Option<(String, Vec<u8>)>> {
        let Some((set, sequence)) = &self.carried else {
            return Ok(None);
        };
        let (_, deadline) = self.terms(Role::Direction)?;
        let SpiffeId::Device(_, device) = &self.device else {
            bail!("directions are carried to devices");
        };
        let document = CarriedDirection {
            schema: DirectionSchema::V1,
            direction: self.direction(set, *sequence, deadline),
        };
        let path = direction_path(device, DirectionSequence::new(*sequence));
        Ok(Some((path, serde_json::to_vec(&document)?)))
    }

    fn plan_bytes(&self, set: &SetId) -> Result<Vec<u8>> {
        let found = self.sets.iter().find(|known| known.id == *set);
        Ok(serde_json::to_vec(found.context("no such set")?)?)
    }
}

/// Everything a device can be served.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// The release repository.
    pub release: Files,
    /// The director repository of the device.
    pub director: Files,
    /// The artifact store.
    pub artifacts: BTreeMap<Digest, Vec<u8>>,
    /// Versions that the director states.
    pub versions: (u64, u64),
    /// The direction that a stick is about.
    pub note: Option<String>,
}

impl Fleet {
    /// Founds it: makes every key.
    pub fn found(id: &str) -> Result<Self> {
        let mut keys = BTreeMap::new();
        for role in Role::ALL {
            let (count, ..) = role.terms();
            let made: Result<Vec<_>, _> = (0..count).map(|_| SigningKey::generate(role.name())).collect();
            keys.insert(role, made?);
        }
        Ok(Self {
            id: FleetId::parse(id)?,
            keys,
        })
    }

    fn rightful(&self, role: Role) -> Result<Vec<&SigningKey>> {
        let threshold = usize::try_from(role.threshold())?;
        let keys = self.keys.get(&role).context("every role has keys")?;
        // Not the first ones, which are those that get stolen.
        Ok(keys.iter().rev().take(threshold).collect())
    }

    fn signers(&self, role: Role) -> Result<Signers> {
        let keys = self.keys.get(&role).context("every role has keys")?;
        Ok(Signers {
            keys: keys.iter().map(SigningKey::public).collect(),
            threshold: role.threshold(),
        })
    }

    /// A root of a repository: of its own keys, or one that gives every role to another.
    fn root(&self, of: Role, version: u64, made: UnixSeconds, to: Option<&PublicKey>) -> Result<Value> {
        let roles = if of.directs() {
            [
                Role::DirectorRoot,
                Role::DirectorTargets,
                Role::DirectorSnapshot,
                Role::DirectorTimestamp,
            ]
        } else {
            [Role::Root, Role::Targets, Role::Snapshot, Role::Timestamp]
        };
        let mut signers = BTreeMap::new();
        for role in roles {
            let by = match to {
                None => self.signers(role)?,
                Some(key) => Signers {
                    keys: vec![key.clone()],
                    threshold: 1,
                },
            };
            signers.insert(role.tuf(), by);
        }
        Ok(root(&RootSpec {
            version,
            expires: made.after(of.life()),
            fleet: self.id.clone(),
            profile: Profile::Production,
            ca_sha256: Digest::of(self.id.to_string().as_bytes()),
            roles: signers,
        })?)
    }

    /// The first root, signed, which devices pin.
    pub fn pinned(&self, of: Role, made: UnixSeconds) -> Result<Vec<u8>> {
        Ok(sign(&self.root(of, 1, made, None)?, &self.rightful(of)?)?)
    }

    /// Builds and signs everything a book says.
    pub fn serve(&self, book: &Book, pen: &Pen<'_>) -> Result<Served> {
        let mut artifacts: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        for release in &book.releases {
            artifacts.insert(Digest::of(&release.bytes), release.bytes.clone());
        }
        for set in &book.sets {
            let bytes = book.plan_bytes(&set.id)?;
            artifacts.insert(Digest::of(&bytes), bytes);
        }
        let policy = book.policy_text().into_bytes();
        artifacts.insert(Digest::of(&policy), policy);
        let carried = book.carried_direction()?;
        if let Some((_, bytes)) = &carried {
            artifacts.insert(Digest::of(bytes), bytes.clone());
        }
        artifacts.extend(book.stored.clone());
        Ok(Served {
            release: self.release_files(book, pen)?,
            director: self.director_files(book, pen)?,
            artifacts,
            versions: (
                book.version(Role::Timestamp)?,
                book.version(Role::DirectorTimestamp)?,
            ),
            note: carried.map(|(path, _)| path),
        })
    }

    fn release_files(&self, book: &Book, pen: &Pen<'_>) -> Result<Files> {
        let mut components = BTreeMap::new();
        for release in &book.releases {
            let record = release.record.clone();
            let entry = target(&release.bytes, Some(&ReleaseCustom { record }))?;
            components.insert(release.member().target_path(), entry);
        }
        let mut plans = BTreeMap::new();
        for set in &book.sets {
            let entry = target(&book.plan_bytes(&set.id)?, None::<&Value>)?;
            plans.insert(plan_path(&set.id), entry);
        }
        let policy = target(book.policy_text().as_bytes(), None::<&Value>)?;
        let policies = BTreeMap::from([(POLICY_PATH.to_owned(), policy)]);
        let mut directions = BTreeMap::new();
        if let Some((path, bytes)) = book.carried_direction()? {
            directions.insert(path, target(&bytes, None::<&Value>)?);
        }
        let delegation = |role: Role, path: String| -> Result<Delegation> {
            let signers = match &book.delegates {
                None => self.signers(role)?,
                Some(key) => Signers {
                    keys: vec![key.clone()],
                    threshold: 1,
                },
            };
            Ok(Delegation {
                name: role.tuf().to_owned(),
                paths: vec![path],
                signers,
            })
        };
        let delegations = [
            delegation(Role::Component, format!("components/{COMPONENT}/*/*"))?,
            delegation(Role::Plan, "plans/*".into())?,
            delegation(Role::Policy, "policy/*".into())?,
            delegation(Role::Direction, "directions/*/*".into())?,
        ];
        let mut files = self.roots(Role::Root, book, pen)?;
        let mut listed = BTreeMap::new();
        let nothing = BTreeMap::new();
        for (role, entries, delegations) in [
            (Role::Targets, &nothing, &delegations[..]),
            (Role::Component, &components, &[]),
            (Role::Plan, &plans, &[]),
            (Role::Policy, &policies, &[]),
            (Role::Direction, &directions, &[]),
        ] {
            let (version, expires) = book.terms(role)?;
            let bytes = pen.sign(role, &targets(version, expires, entries, delegations)?)?;
            listed.insert(file_name(role.tuf(), None), (version, bytes.clone()));
            files.insert(file_name(role.tuf(), Some(version)), bytes);
        }
        top(&mut files, book, pen, (Role::Snapshot, Role::Timestamp), &listed)?;
        // A stick has the snapshot under its plain name, for nobody says there which one is current.
        let newest = files.get(&file_name("snapshot", Some(book.version(Role::Snapshot)?)));
        files.insert(
            "snapshot.json".into(),
            newest.context("it was just signed")?.clone(),
        );
        Ok(files)
    }

    fn director_files(&self, book: &Book, pen: &Pen<'_>) -> Result<Files> {
        let (release, set, sequence) = &book.directed;
        let custom = DirectorCustom {
            record: release.record.clone(),
            direction: book.direction(set, *sequence, UnixSeconds::new(0)),
        };
        let digest = book.directed_digest.unwrap_or(Digest::of(&release.bytes));
        let length = u64::try_from(release.bytes.len())?;
        let entry = target_entry(length, digest, Some(&custom))?;
        let entries = BTreeMap::from([(release.member().target_path(), entry)]);
        let mut files = self.roots(Role::DirectorRoot, book, pen)?;
        let (version, expires) = book.terms(Role::DirectorTargets)?;
        let mut document = targets(version, expires, &entries, &[])?;
        put(&mut document, "device", json!(book.device))?;
        let bytes = pen.sign(Role::DirectorTargets, &document)?;
        files.insert(file_name("targets", Some(version)), bytes.clone());
        let listed = BTreeMap::from([("targets.json".to_owned(), (version, bytes))]);
        let roles = (Role::DirectorSnapshot, Role::DirectorTimestamp);
        top(&mut files, book, pen, roles, &listed)?;
        Ok(files)
    }

    fn roots(&self, of: Role, book: &Book, pen: &Pen<'_>) -> Result<Files> {
        let made = *book.made.get(&of).context("every role was signed")?;
        let mut files = Files::from([("1.root.json".to_owned(), self.pinned(of, made)?)]);
        if let Some((made, key)) = book.second_root.get(&of) {
            let bytes = pen.sign(of, &self.root(of, 2, *made, key.as_ref())?)?;
            files.insert("2.root.json".into(), bytes);
        }
        Ok(files)
    }
}

/// Snapshot and timestamp over what they list.
fn top(
    files: &mut Files,
    book: &Book,
    pen: &Pen<'_>,
    (snapshots, timestamps): (Role, Role),
    listed: &BTreeMap<String, (u64, Vec<u8>)>,
) -> Result<()> {
    let (version, expires) = book.terms(snapshots)?;
    let bytes = pen.sign(snapshots, &snapshot(version, expires, listed)?)?;
    let (newest, until) = book.terms(timestamps)?;
    let document = timestamp(newest, until, (version, &bytes))?;
    files.insert("timestamp.json".into(), pen.sign(timestamps, &document)?);
    files.insert(file_name("snapshot", Some(version)), bytes);
    Ok(())
}

fn put(object: &mut Value, name: &str, value: Value) -> Result<()> {
    let map = object.as_object_mut().context("a document is an object")?;
    map.insert(name.to_owned(), value);
    Ok(())
}
