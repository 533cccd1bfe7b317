//! Two grants of one workload come to one that is wider than neither: how a running version loses what was taken from it at once.
//!
//! What a later document adds is not added here: a workload gets more only by being started anew under the new grant. Values (of the
//! environment, of configuration) stay those it was started with.

mod messages;

use crate::grant::{
    Bucket, Clock, EffectiveGrant, HealthContract, HttpRule, HttpTrigger, Injection, Limits, Log, Messages,
    Random, Roots, TimerTrigger, Upgrade, Volume,
};
use crate::intersect::amounts::{tightest, tightest_budget};
use crate::intersect::triggers::route_covers;
use std::collections::{BTreeMap, BTreeSet};

impl EffectiveGrant {
    /// What both grants give. `later` is what the same ask comes to under later documents.
    #[must_use]
    pub fn narrowed_to(&self, later: &Self) -> Self {
        // Every field is named: one that is added has to be narrowed too before this compiles.
        let Self {
            component,
            version,
            world,
            trigger_http,
            trigger_timer,
            job_args,
            net_http,
            messages,
            bundles,
            secrets,
            fs,
            kv,
            env,
            config,
            clock,
            random,
            log,
            limits: _,
            health,
            upgrade,
            isolation,
            denied_optional,
        } = self;
        let bundles = common_bundles(bundles, &later.bundles);
        let net_http = rules(net_http, &later.net_http, &bundles);
        let mut denied: BTreeSet<String> = denied_optional
            .iter()
            .chain(&later.denied_optional)
            .cloned()
            .collect();
        for (section, had, has) in [
            ("net.http", !self.net_http.is_empty(), !net_http.is_empty()),
            (
                "kv",
                !kv.is_empty(),
                kv.iter().any(|own| later.kv.iter().any(|b| b.label == own.label)),
            ),
            ("config", config.is_some(), later.config.is_some()),
            ("log", log.is_some(), later.log.is_some()),
            (
                "outbox",
                !messages.outbox.is_empty(),
                !later.messages.outbox.is_empty(),
            ),
        ] {
            if had && !has {
                denied.insert(section.to_owned());
            }
        }
        Self {
            component: component.clone(),
            version: version.clone(),
            world: *world,
            trigger_http: routes(trigger_http, &later.trigger_http),
            trigger_timer: timers(trigger_timer, &later.trigger_timer),
            job_args: job_args.clone(),
            messages: messages::narrowed(messages, &later.messages, &net_http),
            secrets: kept(secrets, &later.secrets, &net_http),
            bundles: used(bundles, &net_http),
            net_http,
            fs: volumes(fs, &later.fs),
            kv: buckets(kv, &later.kv),
            env: named(env, &later.env),
            config: config
                .as_ref()
                .zip(later.config.as_ref())
                .map(|(own, later)| named(own, later)),
            clock: clock.zip(later.clock).map(|(a, b)| Clock {
                wall: a.wall && b.wall,
                resolution: a.resolution.max(b.resolution),
            }),
            random: random.zip(later.random).map(|(a, b)| Random {
                max_bytes_per_call: a.max_bytes_per_call.min(b.max_bytes_per_call),
            }),
            log: log.zip(later.log).map(|(a, b)| Log {
                budget: tightest([a.budget, b.budget].into_iter()).unwrap_or(a.budget),
            }),
            limits: limits(&self.limits, &later.limits),
            health: judged(*health, later.health),
            upgrade: Upgrade {
                strategy: upgrade.strategy.max(later.upgrade.strategy),
                drain: upgrade.drain.min(later.upgrade.drain),
                reuse_calls: upgrade.reuse_calls.min(later.upgrade.reuse_calls),
                max_defer: upgrade.max_defer.min(later.upgrade.max_defer),
            },
            isolation: isolation.union(&later.isolation).copied().collect(),
            denied_optional: denied.into_iter().collect(),
        }
    }

    /// The grant of a workload that may do nothing any more: no call begins, and one that has begun reaches nothing.
    #[must_use]
    pub fn nothing(&self) -> Self {
        let sections = [
            ("net.http", !self.net_http.is_empty()),
            ("kv", !self.kv.is_empty()),
            ("config", self.config.is_some()),
            ("log", self.log.is_some()),
            ("outbox", !self.messages.outbox.is_empty()),
        ];
        let lost = sections
            .into_iter()
            .filter(|(_, had)| *had)
            .map(|(section, _)| section.to_owned());
        let denied: BTreeSet<String> = self.denied_optional.iter().cloned().chain(lost).collect();
        Self {
            trigger_http: Vec::new(),
            trigger_timer: Vec::new(),
            net_http: Vec::new(),
            messages: Messages::default(),
            bundles: BTreeMap::new(),
            secrets: Vec::new(),
            fs: Vec::new(),
            kv: Vec::new(),
            env: BTreeMap::new(),
            config: None,
            clock: None,
            random: None,
            log: None,
            denied_optional: denied.into_iter().collect(),
            ..self.clone()
        }
    }
}

fn routes(own: &[HttpTrigger], later: &[HttpTrigger]) -> Vec<HttpTrigger> {
    let narrowed = own.iter().map(|trigger| {
        let covering = later.iter().filter(|l| route_covers(&l.route, &trigger.route));
        let allowed: BTreeSet<&String> = covering.flat_map(|l| &l.methods).collect();
        HttpTrigger {
            route: trigger.route.clone(),
            methods: trigger
                .methods
                .iter()
                .filter(|m| allowed.contains(m))
                .cloned()
                .collect(),
        }
    });
    narrowed.filter(|trigger| !trigger.methods.is_empty()).collect()
}

/// Both come from the timers of one ask, in its order; a layer without any leaves none.
fn timers(own: &[TimerTrigger], later: &[TimerTrigger]) -> Vec<TimerTrigger> {
    let pairs = own.iter().zip(later);
    pairs
        .map(|(a, b)| TimerTrigger {
            every: a.every.max(b.every),
            jitter: a.jitter,
        })
        .collect()
}

fn rules(own: &[HttpRule], later: &[HttpRule], bundles: &BTreeMap<String, Vec<String>>) -> Vec<HttpRule> {
    let believed = |roots: &Roots| match roots {
        Roots::Public => true,
        Roots::Bundle(name) => bundles.contains_key(name),
    };
    let mut narrowed = Vec::new();
    for rule in own {
        let Some(other) = later.iter().find(|l| l.id == rule.id && l.roots == rule.roots) else {
            continue;
        };
        let union = |a: &[Vec<String>], b: &[Vec<String>]| {
            let mut all = a.to_vec();
            all.extend(b.iter().filter(|layer| !a.contains(layer)).cloned());
            all
        };
        let mut allow = rule.allow.clone();
        allow.extend(
            other
                .allow
                .iter()
                .filter(|layer| !rule.allow.contains(layer))
                .cloned(),
        );
        let deny: BTreeSet<_> = rule.deny.iter().chain(&other.deny).cloned().collect();
        let methods: Vec<String> = rule
            .methods
            .iter()
            .filter(|m| other.methods.contains(m))
            .cloned()
            .collect();
        if methods.is_empty() || !believed(&rule.roots) {
            continue;
        }
        narrowed.push(HttpRule {
            id: rule.id.clone(),
            allow,
            deny: deny.into_iter().collect(),
            methods,
            paths: union(&rule.paths, &other.paths),
            private_addresses: rule.private_addresses && other.private_addresses,
            roots: rule.roots.clone(),
            budget: tightest_budget(&[rule.budget, other.budget]),
        });
    }
    narrowed
}

fn common_bundles(
    own: &BTreeMap<String, Vec<String>>,
    later: &BTreeMap<String, Vec<String>>,
) -> BTreeMap<String, Vec<String>> {
    let both = own.iter().filter_map(|(name, certificates)| {
        let other = later.get(name)?;
        let common: Vec<String> = certificates
            .iter()
            .filter(|c| other.contains(c))
            .cloned()
            .collect();
        (!common.is_empty()).then(|| (name.clone(), common))
    });
    both.collect()
}

fn used(mut bundles: BTreeMap<String, Vec<String>>, rules: &[HttpRule]) -> BTreeMap<String, Vec<String>> {
    bundles.retain(|name, _| rules.iter().any(|rule| rule.roots == Roots::Bundle(name.clone())));
    bundles
}

fn kept(own: &[Injection], later: &[Injection], rules: &[HttpRule]) -> Vec<Injection> {
    let both = own.iter().filter(|inject| later.contains(inject));
    both.filter(|inject| rules.iter().any(|rule| rule.id == inject.net))
        .cloned()
        .collect()
}

fn volumes(own: &[Volume], later: &[Volume]) -> Vec<Volume> {
    let mut narrowed = Vec::new();
    for volume in own {
        let same = |l: &&Volume| l.name == volume.name && l.guest == volume.guest && l.host == volume.host;
        if let Some(other) = later.iter().find(same) {
            narrowed.push(Volume {
                mode: volume.mode.min(other.mode),
                bytes: volume.bytes.min(other.bytes),
                files: volume.files.min(other.files),
                ..volume.clone()
            });
        }
    }
    narrowed
}

fn buckets(own: &[Bucket], later: &[Bucket]) -> Vec<Bucket> {
    let mut narrowed = Vec::new();
    for bucket in own {
        if let Some(other) = later.iter().find(|l| l.label == bucket.label) {
            narrowed.push(Bucket {
                label: bucket.label.clone(),
                bytes: bucket.bytes.min(other.bytes),
                keys: bucket.keys.min(other.keys),
                ops: tightest(bucket.ops.into_iter().chain(other.ops)),
            });
        }
    }
    narrowed
}

fn named(own: &BTreeMap<String, String>, later: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let both = own.iter().filter(|(name, _)| later.contains_key(*name));
    both.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn limits(a: &Limits, b: &Limits) -> Limits {
    Limits {
        memory_total: a.memory_total.min(b.memory_total),
        table_elements: a.table_elements.min(b.table_elements),
        instances_max: a.instances_max.min(b.instances_max),
        concurrency: a.concurrency.min(b.concurrency),
        cpu_per_call: a.cpu_per_call.min(b.cpu_per_call),
        wall_call: a.wall_call.min(b.wall_call),
        wall_start: a.wall_start.min(b.wall_start),
        wasm_stack: a.wasm_stack.min(b.wasm_stack),
        handles: a.handles.min(b.handles),
        hostcall_bytes: a.hostcall_bytes.min(b.hostcall_bytes),
        body_request: a.body_request.min(b.body_request),
        body_response: a.body_response.min(b.body_response),
        header_bytes: a.header_bytes.min(b.header_bytes),
        memory_min: a.memory_min.min(b.memory_min),
        cpu_share: a.cpu_share.min(b.cpu_share),
        // 0 is no limit.
        fuel_per_call: [a.fuel_per_call, b.fuel_per_call]
            .into_iter()
            .filter(|fuel| *fuel > 0)
            .min()
            .unwrap_or(0),
        descriptors: a.descriptors.min(b.descriptors),
        sockets: a.sockets.min(b.sockets),
    }
}

fn judged(a: HealthContract, b: HealthContract) -> HealthContract {
    HealthContract {
        interval: a.interval.min(b.interval),
        timeout: a.timeout.min(b.timeout),
        fail_after: a.fail_after.min(b.fail_after),
        probation: a.probation.max(b.probation),
        max_error_permille: a.max_error_permille.min(b.max_error_permille),
        max_restarts: a.max_restarts.min(b.max_restarts),
    }
}
