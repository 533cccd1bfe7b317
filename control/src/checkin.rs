//! The check-in: a closed report in, a statement of time and versions out, signed for whoever looks at signatures.

use crate::director::direct;
use crate::error::Refused;
use crate::fleet::{DeviceRow, Fleet, State};
use crate::lineage::Suspicion;
use crate::release::renewed;
use crate::store::Put;
use redan_control_core::{Event, Input, Rollout};
use redan_identity::VerifiedIdentity;
use redan_protocol::audit::Action;
use redan_protocol::report::Report;
use redan_protocol::wire::{
    CHECKIN_REPLY_LEN, CheckIn, CheckInReply, Statement, StatementKind, padded, unpadded,
};
use redan_protocol::{Code, DeviceId, DirectionSequence, Seconds, UnixSeconds, Version64};
use serde::Serialize;
use std::time::Instant;

/// Longest time for which the database does not know that a device was seen, which had nothing new to say.
const SAVE_EVERY: Seconds = Seconds::new(10);
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

/// A [`CheckInReply`] whose statement nobody signed.
#[derive(Serialize)]
struct Unsigned<'a> {
    statement: Envelope<'a>,
    interval: Seconds,
}

#[derive(Serialize)]
struct Envelope<'a> {
    signed: &'a Statement,
    signatures: [(); 0],
}

/// Takes a check-in; gives the answer, which is always as long.
pub async fn check_in(
    fleet: &Fleet,
    from: Reporter<'_>,
    body: &[u8],
    interval: Seconds,
    now: UnixSeconds,
) -> Result<Vec<u8>, Refused> {
    let check_in: CheckIn =
        serde_json::from_slice(unpadded(body)).map_err(|_| Refused::plain(Code::BadRequest))?;
    let nonce = check_in.nonce;
    let mut state = fleet.state.lock().await;
    let device = from.device;
    note(fleet, &mut state, from, &check_in, now).await?;
    renew_timestamp(fleet, &mut state, now).await?;
    direct(fleet, &mut state, device, now).await?;
    let director = state.director.get(device).map_or(0, |row| row.version);
    let statement = Statement {
        kind: StatementKind::TimeStatement,
        device: from.identity.id().clone(),
        nonce,
        time: now,
        release: Version64::new(state.stamp().version),
        director: Version64::new(director),
    };
    let bug = || Refused::plain(Code::Internal);
    if check_in.settled == Some(statement.versions()) {
        // Nobody would look at a signature (decision 0023).
        let statement = Envelope {
            signed: &statement,
            signatures: [],
        };
        return padded(&Unsigned { statement, interval }, CHECKIN_REPLY_LEN).ok_or_else(bug);
    }
    let held = fleet.held();
    // Signed while nobody waits for the state.
    drop(state);
    let signed = serde_json::to_value(&statement).map_err(|_| bug())?;
    let statement = redan_publish::metadata::envelope(&signed, &[&held.keys.director_timestamp])?;
    padded(&CheckInReply { statement, interval }, CHECKIN_REPLY_LEN).ok_or_else(bug)
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
    let authority = Some(from.identity.authority());
    let late = state.reported_at.get(device).is_some_and(|at| from.opened < *at);
    let row = state.devices.get(device);
    let row = row.ok_or_else(|| Refused::plain(Code::CertificateRevoked))?;
    let doubted = row.doubts(check_in, late);
    let old_news = row.authority == authority
        && row
            .report
            .as_ref()
            .is_some_and(|last| says_the_same(last, report))
        && !doubted;
    let steps = steps(state, (device, report), now);
    if old_news && steps.is_empty() {
        // Only when it was seen, and its number, are new: the database learns that with the next tick that saves.
        if let Some(row) = state.devices.get_mut(device) {
            row.seen(check_in, now);
        }
        if !state.unsaved.contains(device) {
            state.unsaved.insert(device.clone());
        }
        match state.reported_at.get_mut(device) {
            Some(at) => *at = Instant::now(),
            None => drop(state.reported_at.insert(device.clone(), Instant::now())),
        }
        return Ok(());
    }
    let mut row = row.clone();
    row.authority = authority;
    let mut told = Vec::new();
    if doubted {
        tracing::warn!(fleet = %fleet.id, %device, number = report.sequence, "clone alarm: a report's number went back, or came twice");
        // No refusal: a device that was restored from a copy must still be repaired.
        let why = (Suspicion::ReportNumber, from.identity.spki());
        told.extend(row.suspect(device, why, now));
    }
    row.seen(check_in, now);
    let seen = Put::json("device", device.as_str(), &row)?;
    Box::pin(keep(fleet, state, steps, (vec![seen], told), now)).await?;
    state.devices.insert(device.clone(), row);
    state.unsaved.remove(device);
    state.reported_at.insert(device.clone(), Instant::now());
    Ok(())
}

/// Whether a report says what the one before it said, under another number.
fn says_the_same(last: &Report, report: &Report) -> bool {
    let Report {
        sequence: _,
        runtime,
        set,
        direction,
        phase,
        refusal,
        rollback,
        release,
        director,
        isolation,
        slots,
    } = report;
    last.runtime == *runtime
        && last.set == *set
        && last.direction == *direction
        && last.phase == *phase
        && last.refusal == *refusal
        && last.rollback == *rollback
        && last.release == *release
        && last.director == *director
        && last.isolation == *isolation
        && last.slots == *slots
}

impl DeviceRow {
    /// What it said last, and when.
    fn seen(&mut self, check_in: &CheckIn, now: UnixSeconds) {
        self.last_seen = Some(now);
        match &mut self.report {
            Some(last) if says_the_same(last, &check_in.report) => last.sequence = check_in.report.sequence,
            last => *last = Some(check_in.report.clone()),
        }
        self.nonce = Some(check_in.nonce);
    }
}

/// What a report moves.
fn steps(
    state: &State,
    (device, report): (&DeviceId, &Report),
    now: UnixSeconds,
) -> Vec<(Rollout, Option<Event>)> {
    // A rollback speaks about the rollout whose direction the device was following, and about no other.
    let followed = state.director.get(device).map(|row| (row.rollout, row.sequence));
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
    steps.collect()
}

/// Writes down which devices were seen since the last time, all in one transaction. A power cut takes so much of it: after one, a device was
/// last seen that long before, and a copy of it is noticed a report later.
pub(crate) async fn save_seen(fleet: &Fleet, state: &mut State, now: UnixSeconds) -> Result<(), Refused> {
    let mut puts = Vec::new();
    for id in &state.unsaved {
        if let Some(row) = state.devices.get(id) {
            puts.push(Put::json("device", id.as_str(), row)?);
        }
    }
    if !puts.is_empty() {
        fleet.commit(state, now, "server", puts, &[]).await?;
    }
    state.unsaved.clear();
    state.saved = now;
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
    if now >= state.saved.after(SAVE_EVERY) {
        save_seen(fleet, &mut state, now).await?;
    }
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
        Box::pin(fleet.commit(state, now, "server", vec![put], &[])).await?;
        state.release.insert("timestamp.json".into(), bytes);
    }
    Ok(())
}
