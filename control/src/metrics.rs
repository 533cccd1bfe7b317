//! Prometheus text for operators: counts, and seconds to expiry. Over mutual TLS like everything else.

use crate::error::Refused;
use crate::fleet::{Fleet, State};
use crate::release::Files;
use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use axum::response::IntoResponse as _;
use redan_control_core::State as RolloutState;
use redan_protocol::UnixSeconds;
use redan_trust::Claimed;
use redan_trust::metadata::{Metadata, Root, Snapshot, Targets, Timestamp, file_name};
use std::fmt::Write as _;

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
        "Devices of which a superseded key was used again",
        count(|row| row.clone_alarm.is_some()),
    );
    let alarms = state.devices.values().filter_map(|row| row.clone_alarm.as_ref());
    gauge(
        "redan_clone_alarms",
        "Uses of superseded keys of the devices above",
        alarms.fold(0, |sum, alarm| sum.saturating_add(alarm.count)),
    );
    gauge(
        "redan_device_connections",
        "Open connections of devices",
        u64::try_from(fleet.live.devices()).unwrap_or(u64::MAX),
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
    let name = "redan_seconds_left";
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP {name} Seconds until a role or a certificate expires\n# TYPE {name} gauge"
    );
    for (of, expires) in expiries(fleet, &state) {
        let left = expires.get().saturating_sub(now.get());
        let _ = writeln!(text, "{name}{{of=\"{of}\"}} {left}");
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// When everything that expires on the server's side does. A device's director files are made anew whenever it asks.
fn expiries(fleet: &Fleet, state: &State) -> Vec<(String, UnixSeconds)> {
    let files = &state.release;
    let certificates = fleet.certificates().into_iter();
    let mut found: Vec<_> = certificates.map(|(name, at)| (name.to_owned(), at)).collect();
    let root = newest_root(files).or_else(|| expires::<Root>(fleet.release_root.as_bytes()));
    found.extend(root.map(|at| ("release.root".to_owned(), at)));
    let root = newest_root(&fleet.held().director_roots);
    found.extend(root.map(|at| ("director.root".to_owned(), at)));
    let Some(timestamp) = files.get("timestamp.json") else {
        return found;
    };
    let Ok(timestamp) = Claimed::<Timestamp>::parse(timestamp) else {
        return found;
    };
    found.push(("release.timestamp".to_owned(), timestamp.peek().expires()));
    let version = timestamp.peek().snapshot().map(|entry| entry.version);
    let snapshot = files
        .get(&file_name("snapshot", version))
        .and_then(|bytes| Claimed::<Snapshot>::parse(bytes).ok());
    let Some(snapshot) = snapshot else { return found };
    found.push(("release.snapshot".to_owned(), snapshot.peek().expires()));
    for (file, entry) in &snapshot.peek().meta {
        let role = file.trim_end_matches(".json");
        let bytes = files.get(&file_name(role, Some(entry.version)));
        let at = bytes.and_then(|bytes| expires::<Targets>(bytes));
        found.extend(at.map(|at| (format!("release.{role}"), at)));
    }
    found
}

fn newest_root(files: &Files) -> Option<UnixSeconds> {
    let roots = files.iter().filter_map(|(name, bytes)| {
        let version = name.strip_suffix(".root.json")?.parse::<u64>().ok()?;
        Some((version, bytes))
    });
    let (_, newest) = roots.max_by_key(|(version, _)| *version)?;
    expires::<Root>(newest)
}

fn expires<T: Metadata>(bytes: &[u8]) -> Option<UnixSeconds> {
    Some(Claimed::<T>::parse(bytes).ok()?.peek().expires())
}
