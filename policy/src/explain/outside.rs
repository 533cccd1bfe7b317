//! The lines of bundles and secrets, and of what the documents say about the device itself.

use super::lines::Writer;
use crate::grant::EffectiveGrant;
use crate::schema::{AfterStale, Kind, ReportEvent};

impl Writer<'_> {
    pub(super) fn outside(&mut self, grant: &EffectiveGrant) {
        for (name, certificates) in &grant.bundles {
            let what = format!("bundle {name}, certificates: {}", certificates.len());
            self.amount("bundles", name, what, |d| d.bundles.contains_key(name));
        }
        for inject in &grant.secrets {
            let what = format!(
                "the host adds the secret {} to {} as `{}`; the workload never sees it",
                inject.secret, inject.net, inject.header
            );
            let whole = format!("{}/{}", grant.component.publisher(), inject.secret);
            self.whole("secrets", what, |d| {
                d.secrets.as_ref().is_some_and(|section| match d.kind {
                    Kind::Ask => section.uses.contains(&inject.secret),
                    Kind::Fleet => section.uses.contains(&whole),
                    Kind::Device => section.files.contains_key(&whole),
                })
            });
        }
    }

    /// What holds for the device whatever the workload asks.
    pub(super) fn standing(&mut self) {
        let documents = self.layers.map(|(document, _)| document);
        let stops = documents
            .iter()
            .filter(|d| d.stale.after == Some(AfterStale::Stop));
        if let Some(age) = stops.filter_map(|d| d.stale.max_age).map(|span| span.0).min() {
            let what = format!("stops when its metadata could not be refreshed for {age}");
            self.amount("stale", "max_age", what, |d| {
                d.stale.after == Some(AfterStale::Stop) && d.stale.max_age.is_some_and(|span| span.0 == age)
            });
        }
        let narrows = |d: &crate::schema::Document| {
            let events = d.report.events.as_ref();
            events.is_some_and(|events| !events.contains(&ReportEvent::Counters))
        };
        if documents.iter().any(|d| narrows(d)) {
            let what = "reports its state, and no counts of calls".to_owned();
            self.amount("report", "events", what, narrows);
        }
        if let Some(within) = documents.iter().find_map(|d| d.require.ask_signed_within) {
            let what = format!("adopted only if signed within {}", within.0);
            self.amount("require", "ask_signed_within", what, |d| {
                d.require.ask_signed_within.is_some()
            });
        }
        if let Some(min) = documents.iter().find_map(|d| d.runtime.min.clone()) {
            let what = format!("adopted only by redan-device {min} or newer");
            self.amount("runtime", "min", what, |d| d.runtime.min.is_some());
        }
    }
}
