//! May this device adopt what it was offered? Nine rules, each with its own refusal; pure.

use crate::claimed::Verified;
use crate::custom::{
    ASK_LEN_MAX, CarriedDirection, ComponentRecord, Direction, DirectorCustom, ReleaseCustom,
};
use crate::lookup::Target;
use crate::metadata::TargetEntry;
use crate::plan::{Plan, PlannedMember};
use crate::refusal::Refusal;
use crate::release_set::{MEMBERS_MAX, Member, RINGS_MAX, ReleaseSet, bucket};
use crate::repository::Repository;
use redan_policy::grant::World;
use redan_policy::{DeviceCeiling, FleetPolicy, intersect, parse_ask, parse_fleet};
use redan_protocol::wire::{Nonce, Statement};
use redan_protocol::{
    ByteCount, ComponentName, DeviceId, Digest, DirectionSequence, FleetId, Permille, ReleaseCounter,
    Seconds, SetId, SpiffeId, UnixSeconds, Version64,
};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// Where the fleet policy is in the release repository.
pub const POLICY_PATH: &str = "policy/fleet.toml";

/// Where a set's document is in the release repository.
pub fn plan_path(set: &SetId) -> String {
    format!("plans/{set}.json")
}

/// What the device must not forget, as far as a decision needs it.
#[derive(Clone, Debug, Default)]
pub struct TrustState {
    /// Highest committed release counters.
    pub committed: BTreeMap<ComponentName, ReleaseCounter>,
    /// Sets this device may go back to: the one before, and those a verified plan names.
    pub rollback_sets: BTreeSet<SetId>,
    /// The last direction that was followed.
    pub sequence: DirectionSequence,
    /// Highest serial of a believed fleet policy.
    pub policy_serial: u64,
    /// Digests denied after a failed trial.
    pub denied: BTreeSet<Digest>,
}

/// Where the directed direction of a device without a network is in the release repository.
pub fn direction_path(device: &DeviceId, sequence: DirectionSequence) -> String {
    format!("directions/{device}/{sequence}.json")
}

/// Who directs.
#[derive(Debug)]
pub enum Directing<'a> {
    /// The director's repository, in a session.
    Online {
        /// The repository.
        director: &'a Repository,
        /// The director's statement of this session.
        statement: Option<Verified<Statement>>,
    },
    /// Release managers, by a document that was carried here with the release repository (decision 0007).
    Carried(Document),
}

/// What was offered: verified metadata, and documents whose digest is still to be held against it.
#[derive(Debug)]
pub struct Offered<'a> {
    /// Who directs.
    pub directing: Directing<'a>,
    /// The release repository.
    pub release: &'a Repository,
    /// For every directed path, what the release repository says of it.
    pub released: BTreeMap<String, Option<Target>>,
    /// The set's document.
    pub plan: Option<Document>,
    /// The fleet policy.
    pub policy: Option<Document>,
}

/// A document of the release repository, fetched by its digest.
#[derive(Clone, Debug)]
pub struct Document {
    /// What release signers say of it.
    pub target: Target,
    /// Its bytes, not yet believed.
    pub bytes: Vec<u8>,
}

/// What is true of this device now.
#[derive(Clone, Debug)]
pub struct DeviceFacts {
    /// Who it is.
    pub device: SpiffeId,
    /// Worlds its runtime offers.
    pub worlds: Vec<World>,
    /// Version of its runtime, `redan-device`, as it reports it.
    pub runtime: semver::Version,
    /// Its ceiling.
    pub ceiling: DeviceCeiling,
    /// Components it has installed outside the offered set.
    pub installed: BTreeMap<ComponentName, ReleaseCounter>,
    /// How long the offered plan is known, on its own monotonic clock.
    pub plan_known: Seconds,
    /// Lower bound of the true time.
    pub now: UnixSeconds,
    /// The nonce of this session.
    pub nonce: Option<Nonce>,
}

/// What the director says, once it is known to be said to this device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Directive {
    /// The direction.
    pub direction: Direction,
    /// The directed targets by path.
    pub targets: BTreeMap<String, (TargetEntry, DirectorCustom)>,
}

/// Rule a: reads what the director says to this device. `None`: nothing is directed. Needed before [`decide`] to know what to
/// look up; `decide` reads it again.
pub fn directive(director: &Repository, device: &SpiffeId) -> Result<Option<Directive>, Refusal> {
    let targets = director.targets();
    if targets.device.as_ref() != Some(device) {
        return Err(Refusal::WrongDevice {
            named: targets.device.clone(),
            device: device.clone(),
        });
    }
    same_fleet(director, device.fleet())?;
    let mut directed = BTreeMap::new();
    let mut direction: Option<Direction> = None;
    for (path, entry) in targets.targets.iter() {
        let invalid = || Refusal::CustomInvalid { path: path.clone() };
        let custom: DirectorCustom = custom(entry).ok_or_else(invalid)?;
        if custom.direction.device != *device {
            return Err(Refusal::WrongDevice {
                named: Some(custom.direction.device),
                device: device.clone(),
            });
        }
        if direction.as_ref().is_some_and(|first| *first != custom.direction) {
            return Err(invalid());
        }
        direction = Some(custom.direction.clone());
        directed.insert(path.clone(), (entry.clone(), custom));
    }
    Ok(direction.map(|direction| Directive {
        direction,
        targets: directed,
    }))
}

/// Decides. `Ok(None)`: the director directs nothing.
pub fn decide(
    state: &TrustState,
    offered: &Offered<'_>,
    facts: &DeviceFacts,
) -> Result<Option<Plan>, Refusal> {
    same_fleet(offered.release, facts.device.fleet())?;
    let Directive { direction, targets } = match &offered.directing {
        Directing::Online { director, statement } => {
            let Some(directive) = directive(director, &facts.device)? else {
                return Ok(None);
            };
            rule_a_direction(state, &directive.direction, facts)?;
            rule_i_fresh(director, statement.as_ref(), offered, facts)?;
            directive
        }
        Directing::Carried(document) => {
            let direction = carried_direction(document, &facts.device)?;
            rule_a_direction(state, &direction, facts)?;
            rule_i_offline(state, &direction)?;
            carried_targets(state, direction, offered, facts)?
        }
    };
    let records = rule_b_released(&targets, offered, facts)?;
    let (fleet, set) = documents(state, offered, &direction, facts)?;
    rule_c_counters(state, &records, &fleet, &set)?;
    rule_d_set(&set, &records)?;
    rule_e_ring(&set, facts)?;
    rule_f_fit(&records, facts)?;
    demands(&records, &fleet, facts)?;
    rule_h_digests(state, &records, &fleet, &direction)?;
    let members = rule_g_grants(&set, records, &fleet, facts)?;
    Ok(Some(Plan {
        direction,
        set,
        members,
        policy_serial: fleet.serial(),
        revoked: fleet.revoked().clone(),
        maximum_time: fleet.maximum_time(),
    }))
}

/// A directed member, equal in both repositories.
struct Released {
    record: ComponentRecord,
    digest: Digest,
    length: ByteCount,
}

fn same_fleet(repository: &Repository, fleet: &FleetId) -> Result<(), Refusal> {
    let found = repository.root_keys().fleet.as_ref();
    if found == Some(fleet) {
        return Ok(());
    }
    let found = found.map_or_else(|| "a root without a fleet".to_owned(), ToString::to_string);
    Err(Refusal::WrongFleet {
        found,
        fleet: fleet.clone(),
    })
}

fn custom<T: DeserializeOwned>(entry: &TargetEntry) -> Option<T> {
    serde_json::from_value(entry.custom.clone()?).ok()
}

fn rule_a_direction(state: &TrustState, direction: &Direction, facts: &DeviceFacts) -> Result<(), Refusal> {
    if direction.sequence < state.sequence {
        return Err(Refusal::DirectionReplayed {
            offered: direction.sequence,
            followed: state.sequence,
        });
    }
    if facts.now < direction.not_before {
        return Err(Refusal::NotYet {
            not_before: direction.not_before,
            now: facts.now,
        });
    }
    if direction.deadline.get() != 0 && facts.now >= direction.deadline {
        return Err(Refusal::DirectionExpired {
            deadline: direction.deadline,
            now: facts.now,
        });
    }
    Ok(())
}

/// The statement is for this device and this session, and names the versions that were verified, by a timestamp each.
fn rule_i_fresh(
    director: &Repository,
    statement: Option<&Verified<Statement>>,
    offered: &Offered<'_>,
    facts: &DeviceFacts,
) -> Result<(), Refusal> {
    let statement = statement.ok_or(Refusal::NotFresh)?.get();
    let fresh = statement.device == facts.device
        && Some(statement.nonce) == facts.nonce
        && director.timestamp.is_some()
        && offered.release.timestamp.is_some()
        && statement.release == Version64::new(offered.release.timestamp_version())
        && statement.director == Version64::new(director.timestamp_version());
    if fresh { Ok(()) } else { Err(Refusal::NotFresh) }
}

/// The offline rule: nobody says that a carried direction is current, so it must be newer than all that were followed, and end.
fn rule_i_offline(state: &TrustState, direction: &Direction) -> Result<(), Refusal> {
    if direction.sequence <= state.sequence {
        return Err(Refusal::DirectionReplayed {
            offered: direction.sequence,
            followed: state.sequence,
        });
    }
    if direction.deadline.get() == 0 {
        return Err(Refusal::NotFresh);
    }
    Ok(())
}

/// Rule a for a carried direction: signed by release managers under the one name that is this device's and this sequence's. Needed
/// before [`decide`] to know what to look up; `decide` reads it again.
pub fn carried_direction(document: &Document, device: &SpiffeId) -> Result<Direction, Refusal> {
    let path = document.target.path.clone();
    let invalid = || Refusal::CustomInvalid { path: path.clone() };
    let bytes = signed_bytes(Some(document), &path, "direction").ok_or_else(invalid)?;
    let value = crate::json::parse(bytes).ok_or_else(invalid)?;
    let CarriedDirection { direction, .. } = serde_json::from_value(value).map_err(|_| invalid())?;
    if direction.device != *device {
        return Err(Refusal::WrongDevice {
            named: Some(direction.device),
            device: device.clone(),
        });
    }
    let SpiffeId::Device(_, id) = device else {
        return Err(invalid());
    };
    if path != direction_path(id, direction.sequence) {
        return Err(invalid());
    }
    Ok(direction)
}

/// What a carried direction directs: the members of the set whose document it names, as the release repository has them.
fn carried_targets(
    state: &TrustState,
    direction: Direction,
    offered: &Offered<'_>,
    facts: &DeviceFacts,
) -> Result<Directive, Refusal> {
    let (_, set) = documents(state, offered, &direction, facts)?;
    let mut targets = BTreeMap::new();
    for path in set.members.iter().map(Member::target_path) {
        let not_released = || Refusal::NotReleased { path: path.clone() };
        let released = offered.released.get(&path).and_then(Option::as_ref);
        let entry = &released.ok_or_else(not_released)?.entry;
        let custom: ReleaseCustom =
            custom(entry).ok_or_else(|| Refusal::CustomInvalid { path: path.clone() })?;
        let directed = DirectorCustom {
            record: custom.record,
            direction: direction.clone(),
        };
        targets.insert(path, (entry.clone(), directed));
    }
    Ok(Directive { direction, targets })
}

fn rule_b_released(
    targets: &BTreeMap<String, (TargetEntry, DirectorCustom)>,
    offered: &Offered<'_>,
    facts: &DeviceFacts,
) -> Result<Vec<Released>, Refusal> {
    let mut records = Vec::new();
    for (path, (entry, directed)) in targets {
        let not_released = || Refusal::NotReleased { path: path.clone() };
        let target = offered
            .released
            .get(path)
            .and_then(Option::as_ref)
            .ok_or_else(not_released)?;
        let record = &directed.record;
        if target.path != *path || target.roles != ["targets".to_owned(), record.component.role()] {
            return Err(not_released());
        }
        let mismatch = || Refusal::ReleaseMismatch { path: path.clone() };
        let released: ReleaseCustom =
            custom(&target.entry).ok_or_else(|| Refusal::CustomInvalid { path: path.clone() })?;
        // Equal values have one encoding. Encoding is most of a decision's cost, so only values that differ are encoded.
        let canonical = |record: &ComponentRecord| redan_policy::canonical::to_vec(record).ok();
        let same = released.record == *record || canonical(&released.record) == canonical(record);
        if entry.length != target.entry.length || entry.hashes != target.entry.hashes || !same {
            return Err(mismatch());
        }
        if record.fleet != *facts.device.fleet() {
            let found = record.fleet.to_string();
            return Err(Refusal::WrongFleet {
                found,
                fleet: facts.device.fleet().clone(),
            });
        }
        let digest = entry.sha256().ok_or_else(mismatch)?;
        let member = member_of(record, digest);
        if member.target_path() != *path || record.ask.len() > ASK_LEN_MAX {
            return Err(mismatch());
        }
        records.push(Released {
            record: record.clone(),
            digest,
            length: ByteCount::new(entry.length),
        });
    }
    Ok(records)
}

fn member_of(record: &ComponentRecord, digest: Digest) -> Member {
    Member {
        component: record.component.clone(),
        version: record.version.clone(),
        counter: record.counter,
        digest,
    }
}

/// The fleet policy that policy signers named, and its text. Believed whatever becomes of the direction it came with: a policy that takes
/// something away takes it from what runs already.
pub fn believed_policy(document: Option<&Document>, known: u64) -> Result<(FleetPolicy, &str), Refusal> {
    let rollback = || Refusal::PolicyRollback { known };
    let bytes = signed_bytes(document, POLICY_PATH, "policy").ok_or_else(rollback)?;
    let text = std::str::from_utf8(bytes).map_err(|_| rollback())?;
    let fleet = parse_fleet(POLICY_PATH, text)?;
    if fleet.serial() < known {
        return Err(rollback());
    }
    Ok((fleet, text))
}

/// The fleet policy and the set's document, each the very bytes its signers named.
fn documents(
    state: &TrustState,
    offered: &Offered<'_>,
    direction: &Direction,
    facts: &DeviceFacts,
) -> Result<(FleetPolicy, ReleaseSet), Refusal> {
    let (fleet, _) = believed_policy(offered.policy.as_ref(), state.policy_serial)?;
    let invalid = || Refusal::SetInvalid {
        set: direction.set.clone(),
    };
    let bytes =
        signed_bytes(offered.plan.as_ref(), &plan_path(&direction.set), "plan").ok_or_else(invalid)?;
    if Digest::of(bytes) != direction.set_digest {
        return Err(invalid());
    }
    let value = crate::json::parse(bytes).ok_or_else(invalid)?;
    let set: ReleaseSet = serde_json::from_value(value).map_err(|_| invalid())?;
    let growing = set
        .rings
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.share < b.share));
    let sane = set.id == direction.set
        && set.fleet == *facts.device.fleet()
        && (1..=MEMBERS_MAX).contains(&set.members.len())
        && (1..=RINGS_MAX).contains(&set.rings.len())
        && growing
        && set.rings.last().is_some_and(|ring| ring.share == Permille::ALL);
    if sane { Ok((fleet, set)) } else { Err(invalid()) }
}

/// The bytes of a document, if they are those its role signed.
pub(crate) fn signed_bytes<'a>(document: Option<&'a Document>, path: &str, role: &str) -> Option<&'a [u8]> {
    let document = document?;
    let named = document.target.path == path && document.target.roles == ["targets", role];
    let same = document.target.sha256() == Some(Digest::of(&document.bytes))
        && u64::try_from(document.bytes.len()) == Ok(document.target.entry.length);
    (named && same).then_some(document.bytes.as_slice())
}

fn rule_c_counters(
    state: &TrustState,
    records: &[Released],
    fleet: &FleetPolicy,
    set: &ReleaseSet,
) -> Result<(), Refusal> {
    for Released { record, .. } in records {
        let (component, offered) = (record.component.clone(), record.counter);
        if let Some(floor) = fleet.floor(&component).filter(|floor| offered < *floor) {
            return Err(Refusal::BelowFloor {
                component,
                offered,
                floor,
            });
        }
        let committed = state
            .committed
            .get(&component)
            .copied()
            .filter(|committed| offered < *committed);
        if let Some(committed) = committed
            && !state.rollback_sets.contains(&set.id)
        {
            return Err(Refusal::BelowCommitted {
                component,
                offered,
                committed,
            });
        }
    }
    Ok(())
}

fn rule_d_set(set: &ReleaseSet, records: &[Released]) -> Result<(), Refusal> {
    let wanted: BTreeSet<String> = set.members.iter().map(Member::target_path).collect();
    let directed: BTreeSet<String> = records
        .iter()
        .map(|released| member_of(&released.record, released.digest).target_path())
        .collect();
    let components: BTreeSet<&ComponentName> = set.members.iter().map(|member| &member.component).collect();
    let counters = records.iter().all(|released| {
        set.members
            .iter()
            .any(|member| *member == member_of(&released.record, released.digest))
    });
    if wanted == directed && counters && components.len() == set.members.len() {
        return Ok(());
    }
    Err(Refusal::SetIncomplete { set: set.id.clone() })
}

fn rule_e_ring(set: &ReleaseSet, facts: &DeviceFacts) -> Result<(), Refusal> {
    let mine = bucket(&set.id, &facts.device);
    let ring = set.rings.iter().find(|ring| mine < ring.share.get());
    let opens_after = ring.map_or(Seconds::new(u64::MAX), |ring| ring.opens_after);
    if facts.plan_known >= opens_after {
        return Ok(());
    }
    Err(Refusal::RingNotOpen {
        opens_after,
        waited: facts.plan_known,
    })
}

fn rule_f_fit(records: &[Released], facts: &DeviceFacts) -> Result<(), Refusal> {
    let mut present = facts.installed.clone();
    present.extend(
        records
            .iter()
            .map(|r| (r.record.component.clone(), r.record.counter)),
    );
    for Released { record, .. } in records {
        let component = record.component.clone();
        let hardware = facts.ceiling.hardware().to_owned();
        if !record.hardware.is_empty() && !record.hardware.contains(&hardware) {
            return Err(Refusal::WrongHardware { component, hardware });
        }
        if !facts.worlds.contains(&record.world) {
            return Err(Refusal::WrongWorld {
                component,
                world: record.world,
            });
        }
        for needed in &record.requires {
            if present
                .get(&needed.component)
                .is_none_or(|counter| *counter < needed.counter)
            {
                let (required, counter) = (needed.component.clone(), needed.counter);
                return Err(Refusal::RequiresUnmet {
                    component,
                    required,
                    counter,
                });
            }
        }
        if let Some(conflict) = record.conflicts.iter().find(|name| present.contains_key(*name)) {
            return Err(Refusal::Conflicts {
                component,
                present: conflict.clone(),
            });
        }
    }
    Ok(())
}

/// Rule g: what the fleet policy demands of the device and of the release, apart from capabilities.
fn demands(records: &[Released], fleet: &FleetPolicy, facts: &DeviceFacts) -> Result<(), Refusal> {
    if let Some(minimum) = fleet.runtime_min().filter(|minimum| facts.runtime < **minimum) {
        return Err(Refusal::RuntimeTooOld {
            minimum: minimum.clone(),
            runtime: facts.runtime.clone(),
        });
    }
    let Some(within) = fleet.signed_within() else {
        return Ok(());
    };
    for Released { record, .. } in records {
        // Proven time is a lower bound of the true one: what is too old by it is too old.
        let young = |signed: UnixSeconds| facts.now.get() <= signed.get().saturating_add(within.get());
        if !record.signed_at.is_some_and(young) {
            return Err(Refusal::SignedTooLongAgo {
                component: record.component.clone(),
                signed: record.signed_at,
                within,
            });
        }
    }
    Ok(())
}

fn rule_g_grants(
    set: &ReleaseSet,
    records: Vec<Released>,
    fleet: &FleetPolicy,
    facts: &DeviceFacts,
) -> Result<Vec<PlannedMember>, Refusal> {
    let mut members = Vec::new();
    for Released {
        record,
        digest,
        length,
    } in records
    {
        let component = record.component.clone();
        let ask = parse_ask("ask", &record.ask)?;
        if *ask.name() != component || *ask.version() != record.version || ask.world() != record.world {
            return Err(Refusal::AskMismatch { component });
        }
        let grant = intersect(&ask, fleet, &facts.ceiling)
            .map_err(|source| Refusal::PolicyDenied { component, source })?;
        members.push(PlannedMember {
            record,
            digest,
            length,
            grant,
        });
    }
    let place = |member: &PlannedMember| {
        set.members
            .iter()
            .position(|m| m.component == member.record.component)
    };
    members.sort_by_key(place);
    Ok(members)
}

fn rule_h_digests(
    state: &TrustState,
    records: &[Released],
    fleet: &FleetPolicy,
    direction: &Direction,
) -> Result<(), Refusal> {
    for Released { digest, .. } in records {
        if fleet.revoked().contains(digest) {
            return Err(Refusal::Revoked { digest: *digest });
        }
        let unblocked = direction.unblocked.contains(digest) && direction.sequence > state.sequence;
        if state.denied.contains(digest) && !unblocked {
            return Err(Refusal::DeniedAfterTrial { digest: *digest });
        }
    }
    Ok(())
}
