//! One line for each thing granted, with the places that decided it.

use super::Line;
use crate::grant::{EffectiveGrant, HttpRule};
use crate::intersect::network::{meets, origins};
use crate::intersect::triggers::route_covers;
use crate::parse::{Ask, DeviceCeiling, FleetPolicy};
use crate::place::Source;
use crate::schema::Document;

/// All lines of a grant.
pub(super) fn of(
    grant: &EffectiveGrant,
    ask: &Ask,
    fleet: &FleetPolicy,
    device: &DeviceCeiling,
) -> Vec<Line> {
    let mut writer = Writer {
        layers: [
            (&ask.document, &ask.source),
            (&fleet.document, &fleet.source),
            (&device.document, &device.source),
        ],
        lines: Vec::new(),
    };
    let world = grant.world.name();
    let what = format!("{} {}, world {world}", grant.component, grant.version);
    writer.whole("subject", what, |_| true);
    writer.triggers(grant);
    writer.job(grant);
    for rule in &grant.net_http {
        writer.egress(rule);
    }
    writer.messages(grant);
    writer.outside(grant);
    writer.storage(grant);
    writer.senses(grant);
    writer.limits(grant);
    writer.health(grant);
    writer.standing();
    writer.lines
}

pub(super) struct Writer<'a> {
    pub(super) layers: [(&'a Document, &'a Source); 3],
    lines: Vec<Line>,
}

impl Writer<'_> {
    /// A line with the tables of a section that `picks` chooses, by their indices.
    fn tables(&mut self, section: &str, what: String, picks: impl Fn(&Document) -> Vec<usize>) {
        let places = self.layers.iter().flat_map(|(document, source)| {
            let picked = picks(document);
            picked
                .into_iter()
                .filter_map(|nth| source.place(section, nth, None))
        });
        let places = places.collect();
        self.lines.push(Line { what, places });
    }

    /// A line with a section that is there once, of the documents that `has` chooses.
    pub(super) fn whole(&mut self, section: &str, what: String, has: impl Fn(&Document) -> bool) {
        self.tables(
            section,
            what,
            |document| if has(document) { vec![0] } else { Vec::new() },
        );
    }

    /// A line with a key, of the documents that name the amount in effect.
    pub(super) fn amount(
        &mut self,
        section: &str,
        key: &str,
        what: String,
        names: impl Fn(&Document) -> bool,
    ) {
        let places = self.layers.iter().filter(|(document, _)| names(document));
        let places = places
            .filter_map(|(_, source)| source.place(section, 0, Some(key)))
            .collect();
        self.lines.push(Line { what, places });
    }

    fn triggers(&mut self, grant: &EffectiveGrant) {
        for trigger in &grant.trigger_http {
            let what = format!("answers {} {}", trigger.methods.join(" "), trigger.route);
            self.tables("trigger.http", what, |document| {
                indices(&document.trigger.http, |s| route_covers(&s.route, &trigger.route))
            });
        }
        for timer in &grant.trigger_timer {
            let what = format!("runs every {}, up to {} later", timer.every, timer.jitter);
            self.tables("trigger.timer", what, |document| {
                indices(&document.trigger.timer, |s| s.every.0 == timer.every)
            });
        }
    }

    fn job(&mut self, grant: &EffectiveGrant) {
        if !grant.job_args.is_empty() {
            let what = format!("is started with {:?}", grant.job_args);
            self.amount("job", "args", what, |d| !d.job.args.is_empty());
        }
        if grant
            .denied_optional
            .iter()
            .any(|section| section == "net.sockets")
        {
            let what = "imports sockets; every call of them is refused".to_owned();
            self.whole("net.sockets", what, |d| d.net.sockets.is_some());
        }
    }

    fn egress(&mut self, rule: &HttpRule) {
        let [(ask, _), ..] = self.layers;
        let Some(wanted) = ask.net.http.iter().find(|s| s.id == rule.id) else {
            return;
        };
        let left = origins(wanted);
        let to: Vec<String> = left.iter().map(ToString::to_string).collect();
        let addresses = if rule.private_addresses {
            ", private addresses too"
        } else {
            ""
        };
        let roots = match &rule.roots {
            crate::grant::Roots::Public => String::new(),
            bundle @ crate::grant::Roots::Bundle(_) => format!(", believing {bundle} only"),
        };
        let what = format!(
            "sends {} to {} ({}){addresses}{roots}",
            rule.methods.join(" "),
            to.join(" "),
            rule.id
        );
        self.tables("net.http", what, |document| match document.kind {
            crate::schema::Kind::Ask => indices(&document.net.http, |s| s.id == rule.id),
            _ => indices(&document.net.http, |s| meets(s, &left)),
        });
    }

    fn messages(&mut self, grant: &EffectiveGrant) {
        let about = |named: &Option<crate::schema::BrokerLabel>, broker: &str| {
            named.as_ref().is_none_or(|label| label.0 == broker)
        };
        for trigger in &grant.messages.trigger {
            let asked = trigger.subscribe.first().map(|filters| filters.join(" "));
            let (to, broker) = (asked.unwrap_or_default(), &trigger.broker);
            self.tables("trigger.mqtt", format!("hears {to} of {broker}"), |d| {
                indices(&d.trigger.mqtt, |s| about(&s.broker, broker))
            });
        }
        for rule in &grant.messages.net {
            let asked = rule.publish.first().map(|filters| filters.join(" "));
            let (to, broker) = (asked.unwrap_or_default(), &rule.broker);
            self.tables("net.mqtt", format!("publishes {to} to {broker}"), |d| {
                indices(&d.net.mqtt, |s| about(&s.broker, broker))
            });
        }
        for trigger in &grant.messages.bus_trigger {
            let asked = trigger.subscribe.first().map(|filters| filters.join(" "));
            let (to, peer) = (asked.unwrap_or_default(), &trigger.from);
            let what = format!("hears {to} of {peer} on this device, {}", bounds(trigger.budget));
            self.tables("trigger.bus", what, |d| {
                indices(&d.trigger.bus, |s| s.from.means(peer))
            });
        }
        for rule in &grant.messages.bus {
            let asked = rule.publish.first().map(|filters| filters.join(" "));
            let (to, peer) = (asked.unwrap_or_default(), &rule.to);
            let what = format!("says {to} to {peer} on this device, {}", bounds(rule.budget));
            self.tables("net.bus", what, |d| indices(&d.net.bus, |s| s.to.means(peer)));
        }
        for broker in &grant.messages.brokers {
            let tls = if broker.tls { "with TLS" } else { "without TLS" };
            let what = format!("{} is {} port {}, {tls}", broker.label, broker.host, broker.port);
            self.tables("broker", what, |d| {
                indices(&d.broker, |s| s.label == broker.label)
            });
        }
        for outbox in &grant.messages.outbox {
            let (id, bytes, messages, age) = (&outbox.id, outbox.bytes, outbox.messages, outbox.max_age);
            let what = format!("outbox {id}, {bytes}, {messages} items, each for at most {age}");
            self.tables("outbox", what, |d| indices(&d.outbox, |s| s.id == *id));
        }
    }

    fn storage(&mut self, grant: &EffectiveGrant) {
        for volume in &grant.fs {
            let mode = match volume.mode {
                crate::grant::Mode::Read => "reads",
                crate::grant::Mode::ReadWrite => "reads and writes",
            };
            let what = format!(
                "{mode} volume {} at {}, {}, {} files",
                volume.name, volume.guest, volume.bytes, volume.files
            );
            self.tables("fs", what, |document| {
                indices(&document.fs, |s| s.name == volume.name)
            });
        }
        for bucket in &grant.kv {
            let ops = bucket
                .ops
                .map(|ops| format!(", {} operations in {}", ops.amount, ops.per))
                .unwrap_or_default();
            let what = format!(
                "bucket {}, {}, {} keys{ops}",
                bucket.label, bucket.bytes, bucket.keys
            );
            self.tables("kv", what, |document| {
                indices(&document.kv, |s| s.label == bucket.label)
            });
        }
        for name in grant.env.keys() {
            let what = format!("environment {name}");
            self.amount("env", "allow", what, |d| {
                d.env.as_ref().is_some_and(|s| s.allow.contains(name))
            });
        }
        for key in grant.config.iter().flat_map(|config| config.keys()) {
            let what = format!("configuration {key}");
            self.amount("config", "keys", what, |d| {
                d.config.as_ref().is_some_and(|s| s.keys.contains(key))
            });
        }
    }

    fn senses(&mut self, grant: &EffectiveGrant) {
        if let Some(clock) = grant.clock {
            let kind = if clock.wall {
                "wall clock"
            } else {
                "monotonic clock"
            };
            let what = format!("{kind}, steps of {}", clock.resolution);
            self.whole("clock", what, |d| d.clock.is_some());
        }
        if let Some(random) = grant.random {
            let what = format!("random numbers, {} a call", random.max_bytes_per_call);
            self.whole("random", what, |d| d.random.is_some());
        }
        if let Some(log) = grant.log {
            let what = format!("log, {} bytes in {}", log.budget.amount, log.budget.per);
            self.whole("log", what, |d| d.log.is_some());
        }
    }

    fn limits(&mut self, grant: &EffectiveGrant) {
        let l = grant.limits;
        macro_rules! limit {
            ($what:expr, $field:ident, $($at:ident).+) => {
                self.amount("limits", stringify!($($at).+), format!($what, l.$field), |d| {
                    d.limits.$($at).+.is_some_and(|v| Plain::plain(v) == l.$field)
                });
            };
        }
        limit!("memory {}", memory_total, memory_total);
        limit!("memory {} kept for it", memory_min, memory_min);
        limit!("tables {} elements", table_elements, table_elements);
        limit!("{} core instances", instances_max, instances_max);
        limit!("{} calls at once", concurrency, concurrency);
        limit!("CPU {} a call", cpu_per_call, cpu.per_call);
        if let Some(permille) = l.cpu_share {
            let what = format!("CPU {permille} permille of a core in the long run");
            self.amount("limits", "cpu.share", what, |d| {
                d.limits.cpu.share.is_some_and(|s| s.0 == permille)
            });
        }
        if l.fuel_per_call > 0 {
            limit!("fuel {} a call", fuel_per_call, fuel_per_call);
        }
        limit!("time {} a call", wall_call, wall.call);
        limit!("time {} to start", wall_start, wall.start);
        limit!("stack {}", wasm_stack, wasm_stack);
        limit!("{} handles", handles, handles);
        limit!("{} files open", descriptors, descriptors);
        limit!("{} connections out", sockets, sockets);
        limit!("{} from guest to host a call", hostcall_bytes, hostcall_bytes);
        limit!("request body {}", body_request, body.request);
        limit!("response body {}", body_response, body.response);
        limit!("header fields {}", header_bytes, body.header_bytes);
        for mechanism in &grant.isolation {
            let what = format!("runs only with {mechanism:?} in force");
            self.amount("require", "isolation", what, |d| {
                d.require.isolation.contains(mechanism)
            });
        }
    }

    fn health(&mut self, grant: &EffectiveGrant) {
        let h = grant.health;
        let what = format!(
            "healthy unless {} probes in a row fail or {} permille of calls, in a trial of {}",
            h.fail_after, h.max_error_permille, h.probation
        );
        self.whole("health", what, |d| {
            let h = d.health;
            h.fail_after.is_some() || h.max_error_rate.is_some() || h.probation.is_some()
        });
        let drain = grant.upgrade.drain;
        if grant.upgrade.strategy == crate::grant::Strategy::StopStart {
            let what = "the new version answers once the old one's calls have ended".to_owned();
            self.amount("upgrade", "strategy", what, |d| {
                d.upgrade.strategy == Some(crate::grant::Strategy::StopStart)
            });
        }
        self.amount("upgrade", "drain", format!("old calls end within {drain}"), |d| {
            d.upgrade.drain.is_some_and(|span| span.0 == drain)
        });
    }
}

fn bounds(budget: crate::grant::BusBudget) -> String {
    let (messages, bytes) = (budget.messages, budget.bytes);
    format!(
        "{} messages in {} and {} bytes in {} at most",
        messages.amount, messages.per, bytes.amount, bytes.per
    )
}

fn indices<T>(tables: &[T], picks: impl Fn(&T) -> bool) -> Vec<usize> {
    let picked = tables.iter().enumerate().filter(|(_, table)| picks(table));
    picked.map(|(nth, _)| nth).collect()
}

/// An amount of a document as the grant holds it.
trait Plain {
    /// What the grant holds.
    type Amount;
    /// Takes the amount out of its spelling.
    fn plain(self) -> Self::Amount;
}

impl Plain for u32 {
    type Amount = u32;
    fn plain(self) -> u32 {
        self
    }
}

impl Plain for u64 {
    type Amount = Self;
    fn plain(self) -> Self {
        self
    }
}

impl Plain for crate::units::Size {
    type Amount = redan_protocol::ByteCount;
    fn plain(self) -> redan_protocol::ByteCount {
        self.0
    }
}

impl Plain for crate::units::Span {
    type Amount = redan_protocol::Millis;
    fn plain(self) -> redan_protocol::Millis {
        self.0
    }
}
