//! What a fleet policy and a device ceiling say about the device itself: what it reports, and what stale metadata means to it.

use crate::parse::{DeviceCeiling, FleetPolicy};
use crate::schema::{AfterStale, ReportEvent};
use redan_protocol::Seconds;

/// When workloads stop because nobody could verify that the metadata is current.
///
/// The shortest time of those who want workloads to stop. What `keep-running` documents the fleet's will and stops nothing.
pub fn stops_after(fleet: Option<&FleetPolicy>, device: &DeviceCeiling) -> Option<Seconds> {
    let documents = fleet
        .map(|fleet| &fleet.document)
        .into_iter()
        .chain([&device.document]);
    documents
        .filter(|document| document.stale.after == Some(AfterStale::Stop))
        .filter_map(|document| document.stale.max_age)
        .map(|span| Seconds::new(span.0.get() / 1000))
        .min()
}

/// After how long metadata counts as stale, whatever happens then: to be shown.
pub fn stale_after(fleet: Option<&FleetPolicy>, device: &DeviceCeiling) -> Option<Seconds> {
    let documents = fleet
        .map(|fleet| &fleet.document)
        .into_iter()
        .chain([&device.document]);
    documents
        .filter_map(|document| document.stale.max_age)
        .map(|span| Seconds::new(span.0.get() / 1000))
        .min()
}

/// Whether calls may be counted in reports: only if nobody narrowed reports to less.
pub fn reports_counters(fleet: Option<&FleetPolicy>, device: &DeviceCeiling) -> bool {
    let documents = fleet
        .map(|fleet| &fleet.document)
        .into_iter()
        .chain([&device.document]);
    documents
        .filter_map(|document| document.report.events.as_ref())
        .all(|events| events.contains(&ReportEvent::Counters))
}
