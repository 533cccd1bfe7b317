//! What operators see of devices and rollouts.

use crate::fleet::{DeviceRow, State};
use crate::policy::order;
use redan_control_core::{Rollout, desired};
use redan_identity::Anchors;
use redan_protocol::{Code, DeviceId, UnixSeconds};
use serde_json::{Value, json};

pub(crate) fn device_view(
    id: &DeviceId,
    row: &DeviceRow,
    (state, anchors): (&State, &Anchors),
    now: UnixSeconds,
) -> Value {
    let report = row.report.as_ref();
    let slots: Vec<Value> = report
        .into_iter()
        .flat_map(|report| &report.slots)
        .map(|slot| {
            let [major, minor, patch] = slot.version;
            json!({
                "component": slot.component,
                "version": format!("{major}.{minor}.{patch}"),
                "counter": slot.counter,
                "digest": slot.digest,
                "grant": slot.grant,
                "health": slot.health,
                "code": slot.code.map(Code::name),
                // Significant bits of a count, which is all that was ever told (`[report]` of the policy); 0: none, or not told.
                "calls": slot.calls,
                "failures": slot.failures,
            })
        })
        .collect();
    json!({
        "device": id,
        "labels": row.labels,
        "spki": row.keys.first(),
        "enrolled": row.enrolled,
        "revoked": row.revoked,
        "decommissioned": order(state, id).is_some(),
        "order_fetched": row.ordered,
        "clone_alarm": row.clone_alarm.as_ref().map(|alarm| json!({
            "spki": alarm.spki,
            "why": alarm.why,
            "count": alarm.count,
            "first": alarm.first,
            "last": alarm.last,
        })),
        "authority": row.authority,
        // `null` beside an authority: nobody believes it any more.
        "authority_state": row.authority.and_then(|authority| anchors.state(authority)),
        "last_seen": row.last_seen,
        "silent_seconds": row.silent(now),
        "direction": state.director.get(id).map(|row| row.sequence),
        "set": report.and_then(|report| report.set.clone()),
        "desired_set": desired(&state.rollouts, id).map(|rollout| &rollout.set),
        "phase": report.map(|report| report.phase),
        "refusal": report.and_then(|report| report.refusal).map(Code::name),
        "rollback": report.and_then(|report| report.rollback).map(Code::name),
        "isolation": report.map(|report| report.isolation),
        "slots": slots,
    })
}

pub(crate) fn rollout_view(rollout: &Rollout) -> Value {
    let waves: Vec<Value> = rollout
        .waves
        .iter()
        .map(|wave| {
            let devices: Vec<Value> = wave
                .devices
                .iter()
                .map(|(device, outcome)| json!({"device": device, "outcome": outcome}))
                .collect();
            json!({"name": wave.name, "offered": wave.offered, "held": wave.held, "devices": devices})
        })
        .collect();
    json!({
        "id": rollout.id,
        "set": rollout.set,
        "state": rollout.state,
        "wave": rollout.wave,
        "waves": waves,
        "approval": rollout.approval,
        "unblocked": rollout.unblocked,
        "halted_because": rollout.halted_because.map(Code::name),
    })
}
