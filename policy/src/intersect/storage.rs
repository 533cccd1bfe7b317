//! What a workload may keep and read: volumes, buckets, environment, configuration.

use super::amounts::{min_of, tightest};
use super::{Layer, Work};
use crate::grant::{Bucket, Volume};
use crate::schema::VolumeSection;
use redan_protocol::ByteCount;
use std::collections::{BTreeMap, BTreeSet};

impl Work<'_> {
    pub(super) fn fs(&mut self) -> Vec<Volume> {
        let mut granted = Vec::new();
        for wanted in &self.ask.document.fs {
            let mut found: Vec<&VolumeSection> = vec![wanted];
            let mut refused_by = None;
            for (layer, document) in [
                (Layer::Fleet, &self.fleet.document),
                (Layer::Device, &self.device.document),
            ] {
                match document.fs.iter().find(|section| section.name == wanted.name) {
                    Some(section) => found.push(section),
                    None => refused_by = refused_by.or(Some(layer)),
                }
            }
            let guest = wanted
                .guest
                .clone()
                .unwrap_or_else(|| format!("/{}", wanted.name));
            if let Some(layer) = refused_by {
                let line = format!("add: [[fs]] name = {:?}, mode = \"rw\"", wanted.name);
                self.drop("fs", &wanted.name, layer, line, wanted.required);
                continue;
            }
            granted.push(Volume {
                name: wanted.name.clone(),
                guest,
                host: found.last().and_then(|device| device.host.clone()),
                mode: found.iter().map(|s| s.mode).min().unwrap_or(wanted.mode),
                bytes: min_of(
                    found.iter().map(|s| s.quota.bytes.map(|b| b.0)),
                    ByteCount::mib(1),
                ),
                files: min_of(found.iter().map(|s| s.quota.files), 1000),
            });
        }
        granted
    }

    pub(super) fn kv(&mut self) -> Vec<Bucket> {
        let mut granted = Vec::new();
        for wanted in &self.ask.document.kv {
            let mut quotas = vec![wanted.quota];
            let mut refused_by = None;
            for (layer, document) in self.above() {
                match document.kv.iter().find(|section| section.label == wanted.label) {
                    Some(section) => quotas.push(section.quota),
                    None => refused_by = refused_by.or(Some(layer)),
                }
            }
            if let Some(layer) = refused_by {
                let line = format!("add: [[kv]] label = {:?}", wanted.label);
                self.drop("kv", &wanted.label, layer, line, wanted.required);
                continue;
            }
            granted.push(Bucket {
                label: wanted.label.clone(),
                bytes: min_of(quotas.iter().map(|q| q.bytes.map(|b| b.0)), ByteCount::mib(1)),
                keys: min_of(quotas.iter().map(|q| q.keys), 1000),
                ops: tightest(quotas.iter().filter_map(|q| q.ops).map(|ops| ops.0)),
            });
        }
        granted
    }

    pub(super) fn env(&mut self) -> BTreeMap<String, String> {
        let Some(wanted) = &self.ask.document.env else {
            return BTreeMap::new();
        };
        let layers = [&self.fleet.document.env, &self.device.document.env]
            .map(|section| section.as_ref().map(|s| (&s.allow, &s.values)));
        let (values, missing) = pick(&wanted.allow, layers);
        for (name, by) in missing {
            self.drop(
                "env",
                &name,
                by,
                format!("add: [env] allow = [{name:?}]"),
                wanted.required,
            );
        }
        values
    }

    pub(super) fn config(&mut self) -> Option<BTreeMap<String, String>> {
        let wanted = self.ask.document.config.as_ref()?;
        let layers = [&self.fleet.document.config, &self.device.document.config]
            .map(|section| section.as_ref().map(|s| (&s.keys, &s.values)));
        let there = layers.iter().all(Option::is_some);
        if !there && wanted.keys.is_empty() {
            let [fleet, _] = layers;
            let by = if fleet.is_none() {
                Layer::Fleet
            } else {
                Layer::Device
            };
            self.drop(
                "config",
                "config",
                by,
                "add: [config]".to_owned(),
                wanted.required,
            );
        }
        let (values, missing) = pick(&wanted.keys, layers);
        for (name, by) in missing {
            self.drop(
                "config",
                &name,
                by,
                format!("add: [config] keys = [{name:?}]"),
                wanted.required,
            );
        }
        there.then_some(values)
    }
}

/// Names both layers admit, with the device's value or the fleet's; and names that are left without.
#[allow(
    clippy::type_complexity,
    reason = "two optional (names, values) pairs, used in one place"
)]
fn pick(
    wanted: &BTreeSet<String>,
    [fleet, device]: [Option<(&BTreeSet<String>, &BTreeMap<String, String>)>; 2],
) -> (BTreeMap<String, String>, Vec<(String, Layer)>) {
    let mut values = BTreeMap::new();
    let mut missing = Vec::new();
    for name in wanted {
        let Some((_, fleet_values)) = fleet.filter(|(names, _)| names.contains(name)) else {
            missing.push((name.clone(), Layer::Fleet));
            continue;
        };
        let Some((_, device_values)) = device.filter(|(names, _)| names.contains(name)) else {
            missing.push((name.clone(), Layer::Device));
            continue;
        };
        match device_values.get(name).or_else(|| fleet_values.get(name)) {
            Some(value) => {
                values.insert(name.clone(), value.clone());
            }
            None => missing.push((name.clone(), Layer::Device)),
        }
    }
    (values, missing)
}
