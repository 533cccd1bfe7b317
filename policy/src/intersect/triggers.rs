//! What may start a workload: routes and timers.

use super::Work;
use crate::grant::{HttpTrigger, TimerTrigger};
use redan_protocol::Millis;
use std::collections::BTreeSet;

impl Work<'_> {
    pub(super) fn trigger_http(&mut self) -> Vec<HttpTrigger> {
        let mut granted = Vec::new();
        for wanted in &self.ask.document.trigger.http {
            let mut methods = wanted.methods.clone();
            let mut refused_by = None;
            for (layer, document) in self.above() {
                let covering = document
                    .trigger
                    .http
                    .iter()
                    .filter(|s| route_covers(&s.route, &wanted.route));
                let allowed: BTreeSet<String> = covering.flat_map(|s| s.methods.iter().cloned()).collect();
                methods.retain(|method| allowed.contains(method));
                if methods.is_empty() && refused_by.is_none() {
                    refused_by = Some(layer);
                }
            }
            if let Some(layer) = refused_by {
                let line = format!(
                    "add: [[trigger.http]] route = {:?}, methods = {:?}",
                    wanted.route, wanted.methods
                );
                self.drop("trigger.http", &wanted.route, layer, line, wanted.required);
            } else {
                granted.push(HttpTrigger {
                    route: wanted.route.clone(),
                    methods: methods.into_iter().collect(),
                });
            }
        }
        granted
    }

    pub(super) fn trigger_timer(&mut self) -> Vec<TimerTrigger> {
        let mut granted = Vec::new();
        for wanted in &self.ask.document.trigger.timer {
            let mut every = wanted.every.0;
            let mut refused_by = None;
            for (layer, document) in self.above() {
                // The most permissive entry of a layer counts; the layer's own floor slows the ask down.
                match document.trigger.timer.iter().map(|s| s.every.0).min() {
                    Some(floor) => every = every.max(floor),
                    None => refused_by = refused_by.or(Some(layer)),
                }
            }
            let item = format!("every {}", wanted.every.0);
            if let Some(layer) = refused_by {
                let line = format!("add: [[trigger.timer]] every = \"{}ms\"", wanted.every.0.get());
                self.drop("trigger.timer", &item, layer, line, wanted.required);
            } else {
                let jitter = wanted.jitter.map_or(Millis::new(0), |jitter| jitter.0);
                granted.push(TimerTrigger {
                    every: every.max(Millis::new(1)),
                    jitter,
                });
            }
        }
        granted
    }
}

/// Whether a route of a policy covers a route of an ask.
pub(crate) fn route_covers(policy: &str, ask: &str) -> bool {
    match policy.strip_suffix("/...") {
        Some(prefix) => {
            let base = ask.strip_suffix("/...").unwrap_or(ask);
            base == prefix
                || base
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with('/'))
        }
        None => policy == ask,
    }
}
