//! Per-device director metadata: made when it is asked for, made anew when what is wanted has changed or is about to expire.

use crate::error::Refused;
use crate::fleet::{DirectorRow, Fleet, State};
use crate::held::{Held, OnlineKeys};
use crate::release::current_role;
use crate::store::Put;
use redan_control_core::desired;
use redan_protocol::{Code, DeviceId, Digest, DirectionSequence, Seconds, SetId, SpiffeId, UnixSeconds};
use redan_publish::{Directed, DirectorExpiry, DirectorKeys, director};
use redan_trust::custom::{Direction, DirectorCustom, ReleaseCustom};
use redan_trust::plan_path;
use redan_trust::release_set::ReleaseSet;
use std::sync::Arc;

/// Lifetimes (10-trust), and the age at which files are made anew.
const TARGETS_LIFE: Seconds = Seconds::new(7 * 86_400);
const TIMESTAMP_LIFE: Seconds = Seconds::new(24 * 3600);
const RENEW: Seconds = Seconds::new(6 * 3600);
/// How often a device may repeat a failed attempt.
const RETRY_BUDGET: u32 = 3;

/// Makes sure that the device's director files say what is wanted now.
pub async fn direct(
    fleet: &Fleet,
    state: &mut State,
    device: &DeviceId,
    now: UnixSeconds,
) -> Result<(), Refused> {
    let release = state.stamp().version;
    let wanted = desired(&state.rollouts, device);
    let (set, rollout) = wanted.map_or((None, 0), |wanted| (Some(wanted.set.clone()), wanted.id));
    let unblocked = wanted.map_or_else(Vec::new, |wanted| wanted.unblocked.iter().copied().collect());
    let held = fleet.held();
    let ours = state
        .director
        .get_mut(device)
        .is_some_and(|row| is_by(&held, row));
    let old = state.director.get(device);
    let same = old.is_some_and(|row| row.set == set && row.rollout == rollout);
    if old.is_some_and(|row| same && ours && row.release == release && now < row.made.after(RENEW)) {
        return Ok(());
    }
    let sequence = match old {
        // The same direction, only signed again.
        Some(row) if same => row.sequence,
        Some(row) => DirectionSequence::new(row.sequence.get().saturating_add(1)),
        None => DirectionSequence::new(1),
    };
    let version = old.map_or(1, |row| row.version.saturating_add(1));
    let id = SpiffeId::Device(fleet.id.clone(), device.clone());
    let directed = match &set {
        Some(set) => Box::pin(targets(fleet, state, &id, set, (sequence, unblocked))).await?,
        None => Vec::new(),
    };
    let keys = DirectorKeys {
        targets: &held.keys.director_targets,
        snapshot: &held.keys.director_snapshot,
        timestamp: &held.keys.director_timestamp,
    };
    let expiry = DirectorExpiry {
        targets: now.after(TARGETS_LIFE),
        timestamp: now.after(TIMESTAMP_LIFE),
    };
    let files = director(&id, version, &directed, expiry, keys)?;
    let mut row = DirectorRow {
        set,
        rollout,
        release,
        sequence,
        made: now,
        version,
        targets: String::new(),
        snapshot: String::new(),
        timestamp: String::new(),
        by: Arc::downgrade(&held),
    };
    row.fill(files);
    let put = Put::json("director", device.as_str(), &row)?;
    Box::pin(fleet.commit(state, now, "server", vec![put], &[])).await?;
    state.director.insert(device.clone(), row);
    Ok(())
}

/// Whether files were signed by the keys this server has now: after a key was replaced, devices refuse those of the one before. Looked
/// for once for each set of keys.
fn is_by(held: &Arc<Held>, row: &mut DirectorRow) -> bool {
    let now = Arc::downgrade(held);
    if row.by.ptr_eq(&now) {
        return true;
    }
    let ours = signed_by_present_keys(&held.keys, row);
    if ours {
        row.by = now;
    }
    ours
}

fn signed_by_present_keys(keys: &OnlineKeys, row: &DirectorRow) -> bool {
    [
        (&row.targets, &keys.director_targets),
        (&row.snapshot, &keys.director_snapshot),
        (&row.timestamp, &keys.director_timestamp),
    ]
    .iter()
    .all(|(file, key)| file.contains(&key.public().id))
}

/// The members of a set as directed targets: lengths, hashes and records as release signers said.
async fn targets(
    fleet: &Fleet,
    state: &State,
    device: &SpiffeId,
    set: &SetId,
    (sequence, unblocked): (DirectionSequence, Vec<Digest>),
) -> Result<Vec<Directed>, Refused> {
    let gone = |what: &str| Refused::because(Code::SetInvalid, format!("release set {set}: {what}"));
    let (document, digest) = set_document(fleet, state, set)
        .await?
        .ok_or_else(|| gone("it is not published"))?;
    let mut directed = Vec::new();
    for member in &document.members {
        let path = member.target_path();
        let (_, role) = current_role(&state.release, &member.component.role())
            .ok_or_else(|| gone("a member's role is not published"))?;
        let entry = role
            .targets
            .get(&path)
            .ok_or_else(|| gone("a member is not published"))?;
        let custom = entry
            .custom
            .clone()
            .and_then(|custom| serde_json::from_value::<ReleaseCustom>(custom).ok());
        let record = custom
            .ok_or_else(|| gone("a member's custom section does not read"))?
            .record;
        let direction = Direction {
            device: device.clone(),
            sequence,
            set: set.clone(),
            set_digest: digest,
            not_before: UnixSeconds::new(0),
            deadline: UnixSeconds::new(0),
            retry_budget: RETRY_BUDGET,
            unblocked: unblocked.clone(),
        };
        let sha256 = entry.sha256().ok_or_else(|| gone("a member has no SHA-256"))?;
        directed.push(Directed {
            path,
            length: entry.length,
            sha256,
            custom: DirectorCustom { record, direction },
        });
    }
    Ok(directed)
}

/// A published set: its document and digest.
pub async fn set_document(
    fleet: &Fleet,
    state: &State,
    set: &SetId,
) -> Result<Option<(ReleaseSet, redan_protocol::Digest)>, Refused> {
    let Some((_, plans)) = current_role(&state.release, "plan") else {
        return Ok(None);
    };
    let Some(digest) = plans
        .targets
        .get(&plan_path(set))
        .and_then(redan_trust::metadata::TargetEntry::sha256)
    else {
        return Ok(None);
    };
    let Some(bytes) = fleet.artifacts.get(digest).await? else {
        return Ok(None);
    };
    Ok(serde_json::from_slice(&bytes)
        .ok()
        .map(|document| (document, digest)))
}
