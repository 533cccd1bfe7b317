//! Prometheus text for operators: counts, and days to expiry. Over mutual TLS like everything else.

use crate::error::Refused;
use crate::fleet::Fleet;
use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use axum::response::IntoResponse as _;
use redan_control_core::State as RolloutState;
use redan_protocol::UnixSeconds;
use redan_trust::metadata::Metadata as _;
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
    let timestamp = state
        .release
        .get("timestamp.json")
        .and_then(|bytes| redan_trust::Claimed::<redan_trust::metadata::Timestamp>::parse(bytes).ok());
    let left = timestamp.map_or(0, |claimed| {
        claimed.peek().expires().get().saturating_sub(now.get())
    });
    gauge(
        "redan_release_timestamp_seconds_left",
        "Seconds until the release timestamp expires",
        left,
    );
    for role in ["targets", "plan", "policy"] {
        if let Some((_, targets)) = crate::release::current_role(&state.release, role) {
            let left = targets.expires().get().saturating_sub(now.get());
            gauge(
                &format!("redan_release_{role}_seconds_left"),
                "Seconds until the role expires",
                left,
            );
        }
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
