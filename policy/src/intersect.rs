//! Ask ∩ fleet policy ∩ device ceiling = effective grant. Never wider than any of the three.
//!
//! Booleans AND, numbers min, modes min, sets intersect, patterns must all match at call time, deny wins, and a section
//! that one document leaves out grants nothing of that kind. Limits are different: what a document leaves out does not
//! narrow, because there is always a default.

use crate::grant::{
    Bucket, Clock, EffectiveGrant, HealthContract, HttpRule, HttpTrigger, Limits, Log, NetBudget, Random,
    Rate, TimerTrigger, Upgrade, Volume, World,
};
use crate::parse::{Ask, DeviceCeiling, FleetPolicy};
use crate::schema::{BudgetSection, Document, NetHttpSection, VolumeSection};
use crate::units::{PerSpan, Size, Span};
use redan_protocol::{ByteCount, Code, ComponentName, Millis};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Which document said no.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Layer {
    /// The publisher's ask.
    Ask,
    /// The fleet policy.
    Fleet,
    /// The device ceiling.
    Device,
}

impl Layer {
    /// Who changes it, and with whose signature.
    pub const fn signer(self) -> &'static str {
        match self {
            Self::Ask => "the component's release signers",
            Self::Fleet => "the fleet's policy signers",
            Self::Device => "nobody: it is a local file of the device, owned by its administrator",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ask => "the ask",
            Self::Fleet => "the fleet policy",
            Self::Device => "the device ceiling",
        })
    }
}

/// Something that did not survive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dropped {
    /// Its section, as `denied_optional` lists it.
    pub section: &'static str,
    /// Which of its kind, by the ask's name for it.
    pub item: String,
    /// The document that does not admit it.
    pub by: Layer,
    /// Its file, as the caller named it.
    pub file: String,
    /// A line that would admit it.
    pub line: String,
}

/// Why there is no grant.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    /// The fleet policy or the device ceiling is not about this component.
    #[error("{file}: `{key}` does not admit {component}")]
    Subject {
        /// The file that does not admit it.
        file: String,
        /// The key to change.
        key: &'static str,
        /// The component.
        component: ComponentName,
    },
    /// A required capability did not survive.
    #[error("{file}: `[{section}]` does not admit {item:?}, which the ask requires")]
    Required {
        /// The file that does not admit it.
        file: String,
        /// The section.
        section: &'static str,
        /// The ask's name for it.
        item: String,
    },
}

impl Denied {
    /// The code of the refusal.
    pub const fn code(&self) -> Code {
        match self {
            Self::Subject { .. } => Code::SubjectNotAllowed,
            Self::Required { .. } => Code::CapabilityDenied,
        }
    }
}

/// The grant and what was dropped on the way to it.
pub(crate) struct Outcome {
    pub(crate) grant: EffectiveGrant,
    pub(crate) dropped: Vec<Dropped>,
}

/// Intersects the three documents.
pub fn intersect(ask: &Ask, fleet: &FleetPolicy, device: &DeviceCeiling) -> Result<EffectiveGrant, Denied> {
    outcome(ask, fleet, device).map(|outcome| outcome.grant)
}

pub(crate) fn outcome(ask: &Ask, fleet: &FleetPolicy, device: &DeviceCeiling) -> Result<Outcome, Denied> {
    subject(ask, fleet, device)?;
    let mut work = Work {
        ask,
        fleet,
        device,
        dropped: Vec::new(),
        missing: None,
    };
    let layers = [&ask.document, &fleet.document, &device.document];
    let grant = EffectiveGrant {
        component: ask.name.clone(),
        version: ask.version.clone(),
        world: ask.world,
        trigger_http: if ask.world == World::HttpProxy {
            work.trigger_http()
        } else {
            Vec::new()
        },
        trigger_timer: if ask.world == World::Command {
            work.trigger_timer()
        } else {
            Vec::new()
        },
        net_http: work.net_http(),
        fs: work.fs(),
        kv: work.kv(),
        env: work.env(),
        config: work.config(),
        clock: work
            .section("clock", layers.map(|d| d.clock))
            .map(|[a, f, d]| Clock {
                wall: a.wall && f.wall && d.wall,
                // The coarsest wins: a fine timer is the wider grant.
                resolution: [a, f, d]
                    .map(|c| c.resolution.map_or(CLOCK_RESOLUTION, |s| s.0))
                    .into_iter()
                    .max()
                    .unwrap_or(CLOCK_RESOLUTION),
            }),
        random: work
            .section("random", layers.map(|d| d.random))
            .map(|sections| Random {
                max_bytes_per_call: min_size(sections.map(|s| s.max_bytes_per_call), ByteCount::kib(64)),
            }),
        log: work.section("log", layers.map(|d| d.log)).map(|sections| Log {
            budget: min_rate(sections.map(|s| s.budget)).unwrap_or(LOG_BUDGET),
        }),
        limits: limits(layers),
        health: health(layers),
        upgrade: Upgrade {
            drain: min_span(layers.map(|d| d.upgrade.drain), Millis::seconds(10)),
            reuse_calls: layers
                .iter()
                .map(|d| d.upgrade.reuse.calls.unwrap_or(1))
                .min()
                .unwrap_or(1)
                .max(1),
        },
        denied_optional: Vec::new(),
    };
    let Work { dropped, missing, .. } = work;
    if let Some(Dropped {
        file, section, item, ..
    }) = missing
    {
        return Err(Denied::Required { file, section, item });
    }
    let denied: BTreeSet<&str> = dropped.iter().map(|dropped| dropped.section).collect();
    let denied_optional = denied
        .into_iter()
        .filter(|section| !grants(&grant, section))
        .map(str::to_owned)
        .collect();
    Ok(Outcome {
        grant: EffectiveGrant {
            denied_optional,
            ..grant
        },
        dropped,
    })
}

/// Finest clock step when nobody names one.
const CLOCK_RESOLUTION: Millis = Millis::new(1);
/// Guest log kept when nobody names a budget.
const LOG_BUDGET: Rate = Rate {
    amount: 64 * 1024,
    per: Millis::new(60_000),
};

fn grants(grant: &EffectiveGrant, section: &str) -> bool {
    match section {
        "net.http" => !grant.net_http.is_empty(),
        "kv" => !grant.kv.is_empty(),
        "fs" => !grant.fs.is_empty(),
        "config" => grant.config.is_some(),
        "log" => grant.log.is_some(),
        _ => false,
    }
}

fn names_admit(names: &BTreeSet<String>, component: &ComponentName) -> bool {
    let name = component.to_string();
    let all = format!("{}/*", component.publisher());
    names.contains(&name) || names.contains(&all)
}

fn subject(ask: &Ask, fleet: &FleetPolicy, device: &DeviceCeiling) -> Result<(), Denied> {
    let fail = |file: &str, key| {
        Err(Denied::Subject {
            file: file.to_owned(),
            key,
            component: ask.name.clone(),
        })
    };
    let policy = &fleet.document.subject;
    if !policy.publishers.contains(ask.name.publisher()) {
        return fail(&fleet.source.file, "subject.publishers");
    }
    if !names_admit(&policy.names, &ask.name) {
        return fail(&fleet.source.file, "subject.names");
    }
    if !policy.worlds.contains(&ask.world) {
        return fail(&fleet.source.file, "subject.worlds");
    }
    if !policy.device_class.is_empty() && !policy.device_class.contains(&device.hardware) {
        return fail(&fleet.source.file, "subject.device_class");
    }
    let ceiling = &device.document.subject;
    if !names_admit(&ceiling.names, &ask.name) {
        return fail(&device.source.file, "subject.names");
    }
    Ok(())
}

struct Work<'a> {
    ask: &'a Ask,
    fleet: &'a FleetPolicy,
    device: &'a DeviceCeiling,
    dropped: Vec<Dropped>,
    missing: Option<Dropped>,
}

impl Work<'_> {
    fn drop(&mut self, section: &'static str, item: &str, by: Layer, line: String, required: bool) {
        let file = match by {
            Layer::Ask => &self.ask.source.file,
            Layer::Fleet => &self.fleet.source.file,
            Layer::Device => &self.device.source.file,
        };
        let dropped = Dropped {
            section,
            item: item.to_owned(),
            by,
            file: file.clone(),
            line,
        };
        if required && self.missing.is_none() {
            self.missing = Some(dropped.clone());
        }
        self.dropped.push(dropped);
    }

    fn above(&self) -> [(Layer, &Document); 2] {
        [
            (Layer::Fleet, &self.fleet.document),
            (Layer::Device, &self.device.document),
        ]
    }

    fn trigger_http(&mut self) -> Vec<HttpTrigger> {
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
                    "[[trigger.http]] route = {:?}, methods = {:?}",
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

    fn trigger_timer(&mut self) -> Vec<TimerTrigger> {
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
                let line = format!("[[trigger.timer]] every = \"{}ms\"", wanted.every.0.get());
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

    fn net_http(&mut self) -> Vec<HttpRule> {
        let mut granted = Vec::new();
        for wanted in &self.ask.document.net.http {
            let mut rule = HttpRule {
                id: wanted.id.clone(),
                allow: vec![wanted.allow.iter().map(|o| o.0.clone()).collect()],
                deny: wanted.deny.iter().map(|o| o.0.clone()).collect(),
                methods: wanted.methods.clone().unwrap_or_default().into_iter().collect(),
                paths: wanted.paths.clone().into_iter().collect(),
                private_addresses: wanted.private_addresses,
                budget: budget([wanted.budget, BudgetSection::default()]),
            };
            let mut refused_by = if wanted.allow.is_empty() {
                Some(Layer::Ask)
            } else {
                None
            };
            for (layer, document) in self.above() {
                let sections = &document.net.http;
                narrow(&mut rule, sections);
                if refused_by.is_none()
                    && (sections.iter().all(|s| s.allow.is_empty()) || rule.methods.is_empty())
                {
                    refused_by = Some(layer);
                }
            }
            if let Some(layer) = refused_by {
                let line = format!(
                    "[[net.http]] id = {:?}, allow = [\"https://…\"], methods = [\"…\"]",
                    wanted.id
                );
                self.drop("net.http", &wanted.id, layer, line, wanted.required);
            } else {
                granted.push(rule);
            }
        }
        granted
    }

    fn fs(&mut self) -> Vec<Volume> {
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
                let line = format!("[[fs]] name = {:?}, mode = \"rw\"", wanted.name);
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

    fn kv(&mut self) -> Vec<Bucket> {
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
                let line = format!("[[kv]] label = {:?}", wanted.label);
                self.drop("kv", &wanted.label, layer, line, wanted.required);
                continue;
            }
            granted.push(Bucket {
                label: wanted.label.clone(),
                bytes: min_of(quotas.iter().map(|q| q.bytes.map(|b| b.0)), ByteCount::mib(1)),
                keys: min_of(quotas.iter().map(|q| q.keys), 1000),
            });
        }
        granted
    }

    fn env(&mut self) -> BTreeMap<String, String> {
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
                format!("[env] allow = [{name:?}]"),
                wanted.required,
            );
        }
        values
    }

    fn config(&mut self) -> Option<BTreeMap<String, String>> {
        let wanted = self.ask.document.config.as_ref()?;
        let layers = [&self.fleet.document.config, &self.device.document.config]
            .map(|section| section.as_ref().map(|s| (&s.keys, &s.values)));
        let there = layers.iter().all(Option::is_some);
        let (values, missing) = pick(&wanted.keys, layers);
        for (name, by) in missing {
            self.drop(
                "config",
                &name,
                by,
                format!("[config] keys = [{name:?}]"),
                wanted.required,
            );
        }
        there.then_some(values)
    }

    /// A section that each document either has or leaves out.
    fn section<T: Copy>(&mut self, name: &'static str, [a, f, d]: [Option<T>; 3]) -> Option<[T; 3]> {
        let wanted = a?;
        match (f, d) {
            (Some(f), Some(d)) => Some([wanted, f, d]),
            (f, _) => {
                let by = if f.is_none() { Layer::Fleet } else { Layer::Device };
                self.drop(name, name, by, format!("[{name}]"), false);
                None
            }
        }
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

/// Whether a route of a policy covers a route of an ask.
fn route_covers(policy: &str, ask: &str) -> bool {
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

/// Narrows a rule by one layer: its origins become one more set that must match.
fn narrow(rule: &mut HttpRule, sections: &[NetHttpSection]) {
    rule.allow.push(
        sections
            .iter()
            .flat_map(|s| s.allow.iter().map(|o| o.0.clone()))
            .collect(),
    );
    rule.deny
        .extend(sections.iter().flat_map(|s| s.deny.iter().map(|o| o.0.clone())));
    if !sections.iter().any(|s| s.methods.is_none()) {
        let allowed: BTreeSet<&String> = sections
            .iter()
            .filter_map(|s| s.methods.as_ref())
            .flatten()
            .collect();
        rule.methods.retain(|method| allowed.contains(method));
    }
    if !sections.iter().any(|s| s.paths.is_none()) {
        rule.paths.push(
            sections
                .iter()
                .filter_map(|s| s.paths.clone())
                .flatten()
                .collect(),
        );
    }
    rule.private_addresses &= sections.iter().any(|s| s.private_addresses);
    for section in sections {
        let own = budget([section.budget, BudgetSection::default()]);
        rule.budget = NetBudget {
            bytes_out: slower(rule.budget.bytes_out, own.bytes_out),
            requests: slower(rule.budget.requests, own.requests),
            concurrent: rule.budget.concurrent.into_iter().chain(own.concurrent).min(),
        };
    }
}

fn budget(sections: [BudgetSection; 2]) -> NetBudget {
    let [a, b] = sections;
    NetBudget {
        bytes_out: slower(a.bytes_out.map(|r| r.0), b.bytes_out.map(|r| r.0)),
        requests: slower(a.requests.map(|r| r.0), b.requests.map(|r| r.0)),
        concurrent: a.concurrent.into_iter().chain(b.concurrent).min(),
    }
}

/// The lower of two rates: amounts over spans, compared crosswise.
fn slower(a: Option<Rate>, b: Option<Rate>) -> Option<Rate> {
    match (a, b) {
        (Some(a), Some(b)) => {
            let cross = |x: Rate, y: Rate| u128::from(x.amount).saturating_mul(u128::from(y.per.get()));
            // Equal speed: the shorter span, which allows the smaller burst.
            let first = (cross(a, b), a.per) <= (cross(b, a), b.per);
            Some(if first { a } else { b })
        }
        (one, other) => one.or(other),
    }
}

fn min_of<T: Ord>(values: impl Iterator<Item = Option<T>>, default: T) -> T {
    values.flatten().min().unwrap_or(default)
}

fn min_span(values: [Option<Span>; 3], default: Millis) -> Millis {
    min_of(values.into_iter().map(|v| v.map(|s| s.0)), default)
}

fn min_size(values: [Option<Size>; 3], default: ByteCount) -> ByteCount {
    min_of(values.into_iter().map(|v| v.map(|s| s.0)), default)
}

fn min_rate(values: [Option<PerSpan>; 3]) -> Option<Rate> {
    values.into_iter().map(|v| v.map(|r| r.0)).fold(None, slower)
}

fn limits(layers: [&Document; 3]) -> Limits {
    let l = layers.map(|document| document.limits);
    let count = |values: [Option<u32>; 3], default| min_of(values.into_iter(), default);
    Limits {
        memory_total: min_size(l.map(|l| l.memory_total), ByteCount::mib(64)),
        table_elements: count(l.map(|l| l.table_elements), 20_000),
        instances_max: count(l.map(|l| l.instances_max), 20),
        concurrency: count(l.map(|l| l.concurrency), 16),
        cpu_per_call: min_span(l.map(|l| l.cpu.per_call), Millis::new(500)),
        wall_call: min_span(l.map(|l| l.wall.call), Millis::seconds(10)),
        wall_start: min_span(l.map(|l| l.wall.start), Millis::seconds(2)),
        wasm_stack: min_size(l.map(|l| l.wasm_stack), ByteCount::kib(512)),
        handles: count(l.map(|l| l.handles), 2_000),
        hostcall_bytes: min_size(l.map(|l| l.hostcall_bytes), ByteCount::mib(1)),
        body_request: min_size(l.map(|l| l.body.request), ByteCount::mib(1)),
        body_response: min_size(l.map(|l| l.body.response), ByteCount::mib(1)),
        header_bytes: min_size(l.map(|l| l.body.header_bytes), ByteCount::kib(16)),
    }
}

fn health(layers: [&Document; 3]) -> HealthContract {
    let h = layers.map(|document| document.health);
    HealthContract {
        interval: min_span(h.map(|h| h.interval), Millis::seconds(10)),
        timeout: min_span(h.map(|h| h.timeout), Millis::seconds(1)),
        fail_after: min_of(h.map(|h| h.fail_after).into_iter(), 3).max(1),
        // The longest trial anybody wants: a shorter one would be the wider grant.
        probation: h
            .into_iter()
            .filter_map(|h| h.probation.map(|s| s.0))
            .max()
            .unwrap_or(Millis::seconds(120)),
        max_error_permille: min_of(h.map(|h| h.max_error_rate.map(|s| s.0)).into_iter(), 50),
        max_restarts: min_of(h.map(|h| h.max_restarts).into_iter(), 3),
    }
}
