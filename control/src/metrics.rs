//! Prometheus text for operators: counts, and seconds to expiry. Over mutual TLS like everything else.

use crate::error::Refused;
use crate::expiry::{self, Expiry};
use crate::fleet::{Fleet, State};
use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use axum::response::IntoResponse as _;
use redan_control_core::State as RolloutState;
use redan_protocol::UnixSeconds;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

/// Renders a fleet's metrics.
pub async fn render(fleet: &Fleet, now: UnixSeconds) -> Result<Response<Body>, Refused> {
    let state = fleet.state.lock().await;
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    };
    let count = |wanted: fn(&crate::fleet::DeviceRow) -> bool| {
        u64::try_from(state.devices.values().filter(|row| wanted(row)).count()).unwrap_or(u64::MAX)
    };
    gauge(
        "redan_devices_enrolled",
        "Devices with a certificate",
        count(|row| row.enrolled.is_some() && !row.revoked),
    );
    gauge(
        "redan_devices_revoked",
        "Revoked devices",
        count(|row| row.revoked),
    );
    gauge(
        "redan_devices_refusing",
        "Devices that do not adopt what they are offered",
        count(|row| row.report.as_ref().is_some_and(|report| report.refusal.is_some())),
    );
    gauge(
        "redan_devices_clone_suspected",
        "Devices of which a superseded key was used again, or whose reports' numbers went back",
        count(|row| row.clone_alarm.is_some()),
    );
    let alarms = state.devices.values().filter_map(|row| row.clone_alarm.as_ref());
    gauge(
        "redan_clone_alarms",
        "How often that happened to the devices above",
        alarms.fold(0, |sum, alarm| sum.saturating_add(alarm.count)),
    );
    gauge(
        "redan_keys_twice",
        "How often a key turned up for a second device",
        state.keys_twice,
    );
    gauge(
        "redan_issuing_paced",
        "How often a certificate was asked for faster than they are signed, in this run of the server",
        fleet.issuing.refused(),
    );
    gauge(
        "redan_device_connections",
        "Open connections of devices",
        u64::try_from(fleet.live.devices()).unwrap_or(u64::MAX),
    );
    gauge(
        "redan_connections_waiting",
        "Connections without a request for a while, which keep no buffers",
        u64::try_from(fleet.waiting.load(Ordering::Relaxed)).unwrap_or(u64::MAX),
    );
    gauge(
        "redan_operator_list_expired",
        "Whether the list of operators' certificates that were taken back has run out; it is gone by all the same",
        u64::from(state.operator_lists.alarm(now).is_some()),
    );
    let running = state
        .rollouts
        .iter()
        .filter(|rollout| rollout.state == RolloutState::Running)
        .count();
    gauge(
        "redan_rollouts_running",
        "Rollouts under way",
        u64::try_from(running).unwrap_or(u64::MAX),
    );
    let audit = state
        .last_audit
        .as_ref()
        .map_or(0, |last| last.index.saturating_add(1));
    gauge("redan_audit_entries", "Entries of the audit log", audit);
    let name = "redan_device_silent_seconds";
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP {name} Seconds since the last check-in of a device that is not revoked and has checked in\n# TYPE {name} gauge"
    );
    for (device, row) in state.devices.iter().filter(|(_, row)| !row.revoked) {
        if let Some(silent) = row.silent(now) {
            let _ = writeln!(text, "{name}{{device=\"{device}\"}} {silent}");
        }
    }
    by_authority(&mut text, fleet, &state);
    expiries(&mut text, &expiry::all(fleet, &state), now);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// What expires, and whether it is time to replace it.
fn expiries(text: &mut String, everything: &[Expiry], now: UnixSeconds) {
    let name = "redan_seconds_left";
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP {name} Seconds until a role or a certificate expires\n# TYPE {name} gauge"
    );
    for Expiry { of, at } in everything {
        let left = at.get().saturating_sub(now.get());
        let _ = writeln!(text, "{name}{{of=\"{of}\"}} {left}");
    }
    let name = "redan_expires_soon";
    let _ = writeln!(
        text,
        "# HELP {name} Whether it ought to be replaced now\n# TYPE {name} gauge"
    );
    for expiry in everything {
        let due = u8::from(expiry.is_due(now));
        let _ = writeln!(text, "{name}{{of=\"{}\"}} {due}", expiry.of);
    }
}

/// Devices under each of the fleet's authorities: when none is left under a tainted one, it can be revoked.
fn by_authority(text: &mut String, fleet: &Fleet, state: &State) {
    let name = "redan_devices_by_authority";
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP {name} Devices that last checked in with a certificate under an authority\n# TYPE {name} gauge"
    );
    for (stands, anchor) in fleet.held().anchors.iter() {
        let authority = anchor.sha256();
        let devices = crate::authorities::devices_under(state, authority);
        let _ = writeln!(
            text,
            "{name}{{authority=\"{authority}\",state=\"{stands}\"}} {devices}"
        );
    }
}
