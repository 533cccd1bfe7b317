//! A device under attack: the library path of the agent's session (`agent/src/session.rs`) over a real trust record, with the
//! network, the store and the clocks in the attacker's hands.

use super::fleet::{Fleet, Pen, Role, Served};
use anyhow::{Result, bail};
use redan_policy::grant::World;
use redan_policy::{DeviceCeiling, parse_device};
use redan_protocol::wire::{Nonce, Statement, StatementKind};
use redan_protocol::{Code, Digest, Seconds, SetId, SpiffeId, UnixSeconds, Version64};
use redan_trust::release_set::{Member, ReleaseSet};
use redan_trust::{
    Answer, DeviceFacts, Directing, Document, LookupStep, Offered, POLICY_PATH, Plan, Refresh, Refusal,
    Repository, Step, Target, TrustRecord, TrustState, Trusted, TufError, carried_direction, decide,
    directive, plan_path, verify_statement,
};
use serde_json::Value;
use std::collections::BTreeMap;

const CEILING: &str = include_str!("../../../../policies/device/demo.toml");
const NONCE: Nonce = Nonce([7; 16]);

/// What a device made of what it was served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It refuses, and keeps what it runs.
    Refused(Code),
    /// The same, because a role's file has expired.
    Expired(Role),
    /// It adopts a set, with these very bytes.
    Adopts(SetId, Vec<Digest>),
    /// It sees nothing new.
    Quiet,
}

/// A device with everything it remembers.
#[derive(Clone, Debug)]
pub struct Device {
    id: SpiffeId,
    record: TrustRecord,
    release: Trusted,
    director: Trusted,
    ceiling: DeviceCeiling,
    /// The versions it settled on, and until when they are good.
    settled: Option<((u64, u64), UnixSeconds)>,
}

/// When it is.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the device's proven time.
    pub now: UnixSeconds,
    /// How long the device knows the plan, by its own clock.
    pub plan_known: Seconds,
    /// By the server's word.
    pub stated: UnixSeconds,
}

/// Why a session ended without a plan.
enum Stopped {
    /// The release or the director repository is not believed.
    Metadata(bool, TufError),
    Refused(Refusal),
    Missing(Code),
    /// The lab itself failed.
    Broken(anyhow::Error),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Stopped {
    fn outcome(self) -> Result<Outcome> {
        Ok(match self {
            Self::Metadata(directs, TufError::Expired { role, .. }) => {
                let mut roles = Role::ALL.into_iter();
                match roles.find(|known| known.tuf() == role && known.directs() == directs) {
                    Some(role) => Outcome::Expired(role),
                    None => bail!("{role} expired, which is no role"),
                }
            }
            Self::Metadata(_, error) => Outcome::Refused(error.code()),
            Self::Refused(refusal) => Outcome::Refused(refusal.code()),
            Self::Missing(code) => Outcome::Refused(code),
            Self::Broken(error) => return Err(error),
        })
    }
}

impl Device {
    /// A device that has just enrolled: it pins both first roots.
    pub fn enrolled(fleet: &Fleet, id: &SpiffeId, founded: UnixSeconds) -> Result<Self> {
        let text = |role| -> Result<String> { Ok(String::from_utf8(fleet.pinned(role, founded)?)?) };
        let roots = (text(Role::Root)?, text(Role::DirectorRoot)?);
        Ok(Self {
            id: id.clone(),
            record: TrustRecord::enrolled(fleet.id.clone(), id.clone(), roots.0, roots.1),
            release: Trusted::default(),
            director: Trusted::default(),
            ceiling: parse_device("ceiling.toml", CEILING)?,
            settled: None,
        })
    }

    /// One check-in: the statement is signed as the pen signs the director's timestamp.
    pub fn checks_in(&mut self, served: &Served, pen: &Pen<'_>, at: Moment) -> Result<Outcome> {
        let statement = Statement {
            kind: StatementKind::TimeStatement,
            device: self.id.clone(),
            nonce: NONCE,
            time: at.stated,
            release: Version64::new(served.versions.0),
            director: Version64::new(served.versions.1),
        };
        if self
            .settled
            .is_some_and(|(versions, until)| versions == served.versions && at.now < until)
        {
            return Ok(Outcome::Quiet);
        }
        let signed = pen.sign(Role::DirectorTimestamp, &serde_json::to_value(statement)?)?;
        match self.follow(served, &serde_json::from_slice(&signed)?, at) {
            Ok(None) => Ok(Outcome::Quiet),
            Ok(Some(plan)) => self.adopt(&plan),
            Err(stopped) => stopped.outcome(),
        }
    }

    fn follow(
        &mut self,
        served: &Served,
        statement: &Value,
        at: Moment,
    ) -> Result<Option<(Plan, Vec<Digest>)>, Stopped> {
        let mut release = refresh(
            Refresh::new,
            &mut self.release,
            &mut self.record.release_root,
            &served.release,
            at.now,
        )
        .map_err(|error| Stopped::Metadata(false, error))?;
        let director = refresh(
            Refresh::new,
            &mut self.director,
            &mut self.record.director_root,
            &served.director,
            at.now,
        )
        .map_err(|error| Stopped::Metadata(true, error))?;
        let Some(directive) = directive(&director, &self.id)? else {
            return Ok(None);
        };
        let stored = &mut self.release.targets;
        let mut released = BTreeMap::new();
        for path in directive.targets.keys() {
            released.insert(path.clone(), find(&mut release, stored, served, path)?);
        }
        let policy = document(&mut release, stored, served, POLICY_PATH)?;
        let plan = document(&mut release, stored, served, &plan_path(&directive.direction.set))?;
        let statement = verify_statement(&director, statement)?;
        let offered = Offered {
            directing: Directing::Online {
                director: &director,
                statement: Some(statement),
            },
            release: &release,
            released,
            plan,
            policy,
        };
        let Some(plan) = decide(&self.state(), &offered, &self.facts(at, Some(NONCE)))? else {
            return Ok(None);
        };
        let until = release.expires().min(director.expires());
        self.settled = Some((served.versions, until));
        let fetched = fetch_all(&plan, served)?;
        Ok(Some((plan, fetched)))
    }

    /// What is served is carried here on a stick (`agent/src/carried.rs`).
    pub fn is_carried(&mut self, served: &Served, at: Moment) -> Result<Outcome> {
        match self.follow_stick(served, at) {
            Ok(plan) => self.adopt(&plan),
            Err(stopped) => stopped.outcome(),
        }
    }

    fn follow_stick(&mut self, served: &Served, at: Moment) -> Result<(Plan, Vec<Digest>), Stopped> {
        let mut release = refresh(
            Refresh::carried,
            &mut self.release,
            &mut self.record.release_root,
            &served.release,
            at.now,
        )
        .map_err(|error| Stopped::Metadata(false, error))?;
        let stored = &mut self.release.targets;
        let missing = || Stopped::Missing(Code::BundleInvalid);
        let note = served.note.as_deref().ok_or_else(missing)?;
        let direction = document(&mut release, stored, served, note)?.ok_or_else(missing)?;
        let read = carried_direction(&direction, &self.id)?;
        let policy = document(&mut release, stored, served, POLICY_PATH)?;
        let plan = document(&mut release, stored, served, &plan_path(&read.set))?;
        let mut released = BTreeMap::new();
        if let Some(document) = &plan {
            let set: ReleaseSet =
                serde_json::from_slice(&document.bytes).map_err(|error| Stopped::Broken(error.into()))?;
            for path in set.members.iter().map(Member::target_path) {
                let target = find(&mut release, stored, served, &path)?;
                released.insert(path, target);
            }
        }
        let offered = Offered {
            directing: Directing::Carried(direction),
            release: &release,
            released,
            plan,
            policy,
        };
        let plan = decide(&self.state(), &offered, &self.facts(at, None))?;
        let plan = plan.ok_or_else(|| Stopped::Broken(anyhow::Error::msg("a stick directs something")))?;
        let fetched = fetch_all(&plan, served)?;
        Ok((plan, fetched))
    }

    fn state(&self) -> TrustState {
        TrustState {
            committed: self.record.committed.clone(),
            rollback_sets: self.record.rollback_sets.clone(),
            sequence: self.record.sequence,
            policy_serial: self.record.policy_serial,
            denied: self.record.denied.clone(),
        }
    }

    fn facts(&self, at: Moment, nonce: Option<Nonce>) -> DeviceFacts {
        DeviceFacts {
            device: self.id.clone(),
            worlds: vec![World::HttpProxy, World::Command],
            runtime: semver::Version::new(1, 0, 0),
            ceiling: self.ceiling.clone(),
            installed: BTreeMap::new(),
            plan_known: at.plan_known,
            now: at.now,
            nonce,
        }
    }

    /// What the agent keeps of a set that was tried and committed (`agent/src/trust.rs`).
    fn adopt(&mut self, (plan, fetched): &(Plan, Vec<Digest>)) -> Result<Outcome> {
        let record = &mut self.record;
        record.policy_serial = record.policy_serial.max(plan.policy_serial());
        let set = plan.set().id.clone();
        record.sequence = record.sequence.max(plan.direction().sequence);
        if record.set.as_ref() == Some(&set) {
            return Ok(Outcome::Quiet);
        }
        record.rollback_sets = record.set.replace(set.clone()).into_iter().collect();
        record
            .rollback_sets
            .extend(plan.set().rollback_sets.iter().cloned());
        for member in plan.members() {
            let (component, counter) = (&member.record().component, member.record().counter);
            let kept = record.committed.entry(component.clone()).or_insert(counter);
            *kept = (*kept).max(counter);
        }
        // The record is written and read back, as across a restart.
        let Some(read) = TrustRecord::decode(&record.encode()) else {
            bail!("the record does not read back");
        };
        self.record = read;
        Ok(Outcome::Adopts(set, fetched.clone()))
    }
}

/// Every member's bytes, held against its digest.
fn fetch_all(plan: &Plan, served: &Served) -> Result<Vec<Digest>, Stopped> {
    let mut fetched = Vec::new();
    for member in plan.members() {
        let bytes = served.artifacts.get(&member.digest());
        let bytes = bytes.ok_or(Stopped::Missing(Code::ArtifactMissing))?;
        if Digest::of(bytes) != member.digest() {
            return Err(Stopped::Missing(Code::DigestMismatch));
        }
        fetched.push(member.digest());
    }
    if fetched.is_empty() {
        let broken = anyhow::Error::msg("a set without members was planned");
        return Err(Stopped::Broken(broken));
    }
    Ok(fetched)
}

/// What the release repository says of a path.
fn find(
    release: &mut Repository,
    stored: &mut BTreeMap<String, Vec<u8>>,
    served: &Served,
    path: &str,
) -> Result<Option<Target>, Stopped> {
    lookup(release, stored, &served.release, path).map_err(|error| Stopped::Metadata(false, error))
}

/// The same, with the document's bytes.
fn document(
    release: &mut Repository,
    stored: &mut BTreeMap<String, Vec<u8>>,
    served: &Served,
    path: &str,
) -> Result<Option<Document>, Stopped> {
    let Some(target) = find(release, stored, served, path)? else {
        return Ok(None);
    };
    let bytes = target.sha256().and_then(|digest| served.artifacts.get(&digest));
    let bytes = bytes.ok_or(Stopped::Missing(Code::ArtifactMissing))?.clone();
    Ok(Some(Document { target, bytes }))
}

/// Refreshes one repository from the files that are served.
fn refresh(
    by: fn(Trusted, UnixSeconds) -> Result<Refresh, TufError>,
    stored: &mut Trusted,
    root: &mut String,
    files: &BTreeMap<String, Vec<u8>>,
    now: UnixSeconds,
) -> Result<Repository, TufError> {
    stored.root = root.clone().into_bytes();
    let mut refresh = by(stored.clone(), now)?;
    let mut answer = None;
    loop {
        answer = Some(match refresh.step(answer.take())? {
            Step::Fetch { path, .. } => fetched(files, &path),
            Step::Store { role, bytes } => {
                match role.as_str() {
                    "root" => *root = String::from_utf8_lossy(&bytes).into_owned(),
                    "timestamp" => stored.timestamp = Some(bytes),
                    "snapshot" => stored.snapshot = Some(bytes),
                    _ => drop(stored.targets.insert(role, bytes)),
                }
                Answer::Stored
            }
            Step::Remove { role } => {
                match role.as_str() {
                    "timestamp" => stored.timestamp = None,
                    _ => stored.snapshot = None,
                }
                Answer::Stored
            }
            Step::Done => return refresh.finish(),
        });
    }
}

/// Finds one target in the release repository.
fn lookup(
    release: &mut Repository,
    stored: &mut BTreeMap<String, Vec<u8>>,
    files: &BTreeMap<String, Vec<u8>>,
    path: &str,
) -> Result<Option<Target>, TufError> {
    let mut lookup = release.lookup(path);
    let mut answer = None;
    loop {
        answer = Some(match lookup.step(answer.take())? {
            LookupStep::Found(target) => return Ok(Some(target)),
            LookupStep::NotFound => return Ok(None),
            LookupStep::Do(Step::Fetch { path, .. }) => fetched(files, &path),
            LookupStep::Do(Step::Store { role, bytes }) => {
                stored.insert(role, bytes);
                Answer::Stored
            }
            LookupStep::Do(Step::Remove { .. } | Step::Done) => return Err(TufError::Driver),
        });
    }
}

fn fetched(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Answer {
    files.get(path).cloned().map_or(Answer::Absent, Answer::Bytes)
}
