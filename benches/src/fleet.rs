//! A development fleet: its keys, its repositories, its policy, and how a device reads them.

use anyhow::{Context, Result, bail};
use redan_policy::{EffectiveGrant, intersect, parse_ask, parse_device, parse_fleet};
use redan_protocol::{Digest, FleetId, UnixSeconds};
use redan_publish::metadata::{File, root, sign, snapshot, targets, timestamp};
use redan_publish::{Delegation, Profile, PublicKey, RootSpec, Signers, SigningKey};
use redan_trust::{Answer, Lookup, LookupStep, Refresh, Repository, Step, Target, Trusted};
use serde_json::Value;
use std::collections::BTreeMap;

/// The fleet.
pub const FLEET: &str = "plant.example";
/// Now: 2027. What a device proves of the time is an argument everywhere.
pub const NOW: UnixSeconds = UnixSeconds::new(1_800_000_000);
/// When everything expires: 2096, so that readers who ask the wall clock are content too.
pub const EXPIRES: UnixSeconds = UnixSeconds::new(4_000_000_000);
/// The demonstration's ask of a service.
pub const ASK_SERVICE: &str = include_str!("../../policies/ask/thermo.toml");
/// The demonstration's ask of a job.
pub const ASK_JOB: &str = include_str!("../../policies/ask/tick.toml");
/// The demonstration's fleet policy.
pub const POLICY: &str = include_str!("../../policies/fleet/demo.toml");
/// The demonstration's device ceiling.
pub const CEILING: &str = include_str!("../../policies/device/demo.toml");

/// Files by path, as a server has them.
pub type Files = BTreeMap<String, File>;

/// The grant that the demonstration's policies leave of an ask.
pub fn grant(ask: &str) -> Result<EffectiveGrant> {
    let ask = parse_ask("ask.toml", ask)?;
    let fleet = parse_fleet("fleet.toml", POLICY)?;
    let device = parse_device("ceiling.toml", CEILING)?;
    intersect(&ask, &fleet, &device)
        .map_err(|denied| anyhow::anyhow!("the demonstration denies itself: {denied:?}"))
}

/// The keys of one repository's root.
pub struct Keys {
    /// Role `root`.
    pub root: SigningKey,
    /// Role `targets`.
    pub targets: SigningKey,
    /// Role `snapshot`.
    pub snapshot: SigningKey,
    /// Role `timestamp`.
    pub timestamp: SigningKey,
}

impl Keys {
    /// New ones.
    pub fn generate() -> Result<Self> {
        Ok(Self {
            root: SigningKey::generate("root")?,
            targets: SigningKey::generate("targets")?,
            snapshot: SigningKey::generate("snapshot")?,
            timestamp: SigningKey::generate("timestamp")?,
        })
    }

    /// `1.root.json`
    pub fn root(&self) -> Result<File> {
        let roles = [
            ("root", &self.root),
            ("targets", &self.targets),
            ("snapshot", &self.snapshot),
            ("timestamp", &self.timestamp),
        ];
        let spec = RootSpec {
            version: 1,
            expires: EXPIRES,
            fleet: FleetId::parse(FLEET)?,
            profile: Profile::Development,
            ca_sha256: Digest::of(b"certificate"),
            roles: roles.map(|(name, key)| (name, alone(key.public()))).into(),
        };
        Ok(sign(&root(&spec)?, &[&self.root])?)
    }
}

/// A role of one key.
pub fn alone(key: PublicKey) -> Signers {
    Signers {
        keys: vec![key],
        threshold: 1,
    }
}

/// A delegated role and what it lists.
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its paths.
    pub paths: Vec<String>,
    /// Its targets.
    pub targets: BTreeMap<String, Value>,
}

/// Version 1 of a whole repository.
pub fn repository(keys: &Keys, top: &BTreeMap<String, Value>, roles: Vec<Role>) -> Result<Files> {
    let mut files = Files::from([("1.root.json".to_owned(), keys.root()?)]);
    let (mut listed, mut delegations) = (BTreeMap::new(), Vec::new());
    for Role {
        name,
        paths,
        targets: of_role,
    } in roles
    {
        let key = SigningKey::generate(&name)?;
        let file = sign(&targets(1, EXPIRES, &of_role, &[])?, &[&key])?;
        listed.insert(format!("{name}.json"), (1, file.clone()));
        files.insert(format!("1.{name}.json"), file);
        delegations.push(Delegation {
            name,
            paths,
            signers: alone(key.public()),
        });
    }
    let file = sign(&targets(1, EXPIRES, top, &delegations)?, &[&keys.targets])?;
    listed.insert("targets.json".to_owned(), (1, file.clone()));
    files.insert("1.targets.json".to_owned(), file);
    let snapshot = sign(&snapshot(1, EXPIRES, &listed)?, &[&keys.snapshot])?;
    let timestamp = sign(&timestamp(1, EXPIRES, (1, &snapshot))?, &[&keys.timestamp])?;
    files.insert("1.snapshot.json".to_owned(), snapshot);
    files.insert("timestamp.json".to_owned(), timestamp);
    Ok(files)
}

/// What a device begins with.
pub fn pinned(files: &Files) -> Result<Trusted> {
    Ok(Trusted {
        root: files
            .get("1.root.json")
            .context("the first root is there")?
            .clone(),
        ..Trusted::default()
    })
}

/// Refreshes; `perform` does what the workflow says.
pub fn refresh(trusted: Trusted, mut perform: impl FnMut(Step) -> Result<Answer>) -> Result<Repository> {
    let mut refresh = Refresh::new(trusted, NOW)?;
    let mut answer = None;
    loop {
        match refresh.step(answer.take())? {
            Step::Done => return Ok(refresh.finish()?),
            step => answer = Some(perform(step)?),
        }
    }
}

/// Refreshes from files in memory, storing nothing.
pub fn refreshed(files: &Files) -> Result<Repository> {
    refresh(pinned(files)?, |step| serve(files, step))
}

/// Finds a target in files in memory.
pub fn find(files: &Files, repository: &mut Repository, path: &str) -> Result<Option<Target>> {
    let mut lookup: Lookup<'_> = repository.lookup(path);
    let mut answer = None;
    loop {
        match lookup.step(answer.take())? {
            LookupStep::Found(target) => return Ok(Some(target)),
            LookupStep::NotFound => return Ok(None),
            LookupStep::Do(step) => answer = Some(serve(files, step)?),
        }
    }
}

/// Answers a step from files in memory; what is to be stored is forgotten.
pub fn serve(files: &Files, step: Step) -> Result<Answer> {
    match step {
        Step::Fetch { path, .. } => Ok(files.get(&path).cloned().map_or(Answer::Absent, Answer::Bytes)),
        Step::Store { .. } | Step::Remove { .. } => Ok(Answer::Stored),
        Step::Done => bail!("nothing to perform"),
    }
}
