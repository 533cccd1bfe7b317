//! The check-in: a closed report in, a signed statement of time and versions out.

use crate::director::direct;
use crate::error::Refused;
use crate::fleet::{Fleet, State};
use crate::release::{renewed, timestamp_version};
use crate::store::Put;
use redan_control_core::{Event, Input};
use redan_protocol::audit::Action;
use redan_protocol::report::Report;
use redan_protocol::wire::{CheckIn, CheckInReply, Statement, StatementKind};
use redan_protocol::{Code, DeviceId, DirectionSequence, Seconds, SpiffeId, UnixSeconds, Version64};

/// Takes a check-in of a device whose identity the connection has proven.
pub async fn check_in(
    fleet: &Fleet,
    device: &DeviceId,
    body: &[u8],
    interval: Seconds,
    now: UnixSeconds,
) -> Result<CheckInReply, Refused> {
    let CheckIn { nonce, report } =
        serde_json::from_slice(body).map_err(|_| Refused::plain(Code::BadRequest))?;
    let mut state = fleet.state.lock().await;
    note(fleet, &mut state, device, &report, now).await?;
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
    let statement = redan_publish::metadata::envelope(&signed, &[&fleet.keys.director_timestamp])?;
    Ok(CheckInReply { statement, interval })
}

/// Keeps what the device said, and lets every rollout it belongs to take notice.
async fn note(
    fleet: &Fleet,
    state: &mut State,
    device: &DeviceId,
    report: &Report,
    now: UnixSeconds,
) -> Result<(), Refused> {
    // A rollback speaks about the rollout whose direction the device was following, and about no other.
    let followed = state.director.get(device).map(|row| (row.rollout, row.sequence));
    let Some(row) = state.devices.get_mut(device) else {
        return Err(Refused::plain(Code::CertificateRevoked));
    };
    row.last_seen = Some(now);
    row.report = Some(report.clone());
    let mut puts = vec![Put::json("device", device.as_str(), row)?];
    let mut actions = Vec::new();
    for rollout in &mut state.rollouts {
        let none = DirectionSequence::new(u64::MAX);
        let direction = followed
            .filter(|(id, _)| *id == rollout.id)
            .map_or(none, |(_, sequence)| sequence);
        let event = rollout
            .step(
                now,
                Input::Reported {
                    device,
                    report,
                    direction,
                },
            )
            .unwrap_or(None);
        if let Some(event) = event {
            puts.push(Put::json("rollout", rollout.id.to_string(), rollout)?);
            actions.extend(audited(event, rollout.id));
        }
    }
    fleet.commit(state, now, "server", puts, &actions).await?;
    Ok(())
}

/// What the audit says of an event.
pub fn audited(event: Event, id: u64) -> Option<(Action, String)> {
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
    let mut puts = Vec::new();
    let mut actions = Vec::new();
    for rollout in &mut state.rollouts {
        if let Some(event) = rollout.step(now, Input::Tick).unwrap_or(None) {
            puts.push(Put::json("rollout", rollout.id.to_string(), rollout)?);
            actions.extend(audited(event, rollout.id));
        }
    }
    if !puts.is_empty() {
        fleet.commit(&mut state, now, "server", puts, &actions).await?;
    }
    renew_timestamp(fleet, &mut state, now).await
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
