//! The check-in: a closed report in, a signed statement of time and versions out.

use crate::director::direct;
use crate::error::Refused;
use crate::fleet::{Fleet, State};
use crate::lineage::Suspicion;
use crate::release::{renewed, timestamp_version};
use crate::store::Put;
use redan_control_core::{Event, Input, Rollout};
use redan_identity::VerifiedIdentity;
use redan_protocol::audit::Action;
use redan_protocol::wire::{CheckIn, CheckInReply, Statement, StatementKind};
use redan_protocol::{Code, DeviceId, DirectionSequence, Seconds, SpiffeId, UnixSeconds, Version64};
use std::time::Instant;

/// How often the log says again what expires soon.
const WARN_EVERY: Seconds = Seconds::new(86_400);

/// Who checks in, as the connection has proven it.
#[derive(Clone, Copy, Debug)]
pub struct Reporter<'a> {
    /// The device.
    pub device: &'a DeviceId,
    /// Its certificate.
    pub identity: &'a VerifiedIdentity,
    /// When its connection was opened.
    pub opened: Instant,
}

/// Takes a check-in.
pub async fn check_in(
    fleet: &Fleet,
    from: Reporter<'_>,
    body: &[u8],
    interval: Seconds,
    now: UnixSeconds,
) -> Result<CheckInReply, Refused> {
    let check_in: CheckIn = serde_json::from_slice(body).map_err(|_| Refused::plain(Code::BadRequest))?;
    let nonce = check_in.nonce;
    let mut state = fleet.state.lock().await;
    let device = from.device;
    note(fleet, &mut state, from, &check_in, now).await?;
    renew_timestamp(fleet, &mut state, now).await?;
    direct(fleet, &mut state, device, now).await?;
    let director = state.director.get(device).map_or(0, |row| row.version);
    let statement = Statement {
        kind: StatementKind::TimeStatement,
        device: SpiffeId::Device(fleet.id.clone(), device.clone()),
        nonce,
        time: now,
        release: Version64::new(timestamp_version(&state.release)),
        director: Version64::new(director),
    };
    let signed = serde_json::to_value(&statement).map_err(|_| Refused::plain(Code::Internal))?;
    let statement = redan_publish::metadata::envelope(&signed, &[&fleet.held().keys.director_timestamp])?;
    Ok(CheckInReply { statement, interval })
}

/// Keeps what the device said, and lets every rollout it belongs to take notice.
async fn note(
    fleet: &Fleet,
    state: &mut State,
    from: Reporter<'_>,
    check_in: &CheckIn,
    now: UnixSeconds,
) -> Result<(), Refused> {
    let (device, report) = (from.device, &check_in.report);
    // A rollback speaks about the rollout whose direction the device was following, and about no other.
    let followed = state.director.get(device).map(|row| (row.rollout, row.sequence));
    let mut row = state
        .devices
        .get(device)
        .cloned()
        .ok_or_else(|| Refused::plain(Code::CertificateRevoked))?;
    row.authority = Some(from.identity.authority());
    let late = state.reported_at.get(device).is_some_and(|at| from.opened < *at);
    let mut told = Vec::new();
    if row.doubts(check_in, late) {
        tracing::warn!(fleet = %fleet.id, %device, number = report.sequence, "clone alarm: a report's number went back, or came twice");
        // No refusal: a device that was restored from a copy must still be repaired.
        let why = (Suspicion::ReportNumber, from.identity.spki());
        told.extend(row.suspect(device, why, now));
    }
    row.last_seen = Some(now);
    row.report = Some(report.clone());
    row.nonce = Some(check_in.nonce);
    let seen = Put::json("device", device.as_str(), &row)?;
    let concerned = |rollout: &&Rollout| {
        rollout.state == redan_control_core::State::Running || rollout.offered_to(device).is_some()
    };
    let steps = state.rollouts.iter().filter(concerned).filter_map(|rollout| {
        let none = DirectionSequence::new(u64::MAX);
        let direction = followed
            .filter(|(id, _)| *id == rollout.id)
            .map_or(none, |(_, sequence)| sequence);
        let input = Input::Reported {
            device,
            report,
            direction,
        };
        stepped(rollout, now, input)
    });
    let steps: Vec<_> = steps.collect();
    keep(fleet, state, steps, (vec![seen], told), now).await?;
    state.devices.insert(device.clone(), row);
    state.reported_at.insert(device.clone(), Instant::now());
    Ok(())
}

/// A rollout after a step, when that changed it.
fn stepped(rollout: &Rollout, now: UnixSeconds, input: Input<'_>) -> Option<(Rollout, Option<Event>)> {
    let mut next = rollout.clone();
    let event = next.step(now, input).unwrap_or(None);
    (next != *rollout).then_some((next, event))
}

/// Makes changed rollouts durable together with what the audit says of them, and only then takes them for real.
async fn keep(
    fleet: &Fleet,
    state: &mut State,
    steps: Vec<(Rollout, Option<Event>)>,
    (mut puts, mut actions): (Vec<Put>, Vec<(Action, String)>),
    now: UnixSeconds,
) -> Result<(), Refused> {
    for (rollout, event) in &steps {
        puts.push(Put::json("rollout", rollout.id.to_string(), rollout)?);
        actions.extend(event.and_then(|event| audited(event, rollout.id)));
    }
    if !puts.is_empty() {
        fleet.commit(state, now, "server", puts, &actions).await?;
    }
    for (rollout, _) in steps {
        if let Some(old) = state.rollouts.iter_mut().find(|old| old.id == rollout.id) {
            *old = rollout;
        }
    }
    Ok(())
}

/// What the audit says of an event.
fn audited(event: Event, id: u64) -> Option<(Action, String)> {
    let action = match event {
        Event::Advanced => Action::RolloutAdvanced,
        Event::Halted => Action::RolloutHalted,
        Event::Completed => Action::RolloutCompleted,
        Event::Steered | Event::Noted => return None,
    };
    Some((action, format!("rollout {id}")))
}

/// Lets time pass for the rollouts: soaks end, deadlines pass, also when no device speaks.
pub async fn tick(fleet: &Fleet, now: UnixSeconds) -> Result<(), Refused> {
    let mut state = fleet.state.lock().await;
    let running = |rollout: &&Rollout| rollout.state == redan_control_core::State::Running;
    let steps = state.rollouts.iter().filter(running);
    let steps: Vec<_> = steps
        .filter_map(|rollout| stepped(rollout, now, Input::Tick))
        .collect();
    keep(fleet, &mut state, steps, (Vec::new(), Vec::new()), now).await?;
    renew_timestamp(fleet, &mut state, now).await?;
    if state.warned.is_none_or(|warned| now >= warned.after(WARN_EVERY)) {
        state.warned = Some(now);
        crate::expiry::warn(fleet, &state, now);
    }
    Ok(())
}

async fn renew_timestamp(fleet: &Fleet, state: &mut State, now: UnixSeconds) -> Result<(), Refused> {
    if let Some(bytes) = renewed(fleet, state, now) {
        let bytes = bytes?;
        let put = Put::bytes("release", "timestamp.json", bytes.clone());
        fleet.commit(state, now, "server", vec![put], &[]).await?;
        state.release.insert("timestamp.json".into(), bytes);
    }
    Ok(())
}
