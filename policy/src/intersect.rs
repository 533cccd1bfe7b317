//! Ask ∩ fleet policy ∩ device ceiling = effective grant. Never wider than any of the three.
//!
//! Booleans AND, numbers min, modes min, sets intersect, patterns must all match at call time, deny wins, and a section
//! that one document leaves out grants nothing of that kind. Limits are different: what a document leaves out does not
//! narrow, because there is always a default.

pub(crate) mod amounts;
mod bus;
mod messages;
pub(crate) mod network;
mod outside;
mod storage;
pub(crate) mod triggers;

use crate::grant::{Clock, EffectiveGrant, Log, Random, Rate, World};
use crate::parse::{Ask, DeviceCeiling, FleetPolicy};
use crate::schema::{ClockSection, Document};
use amounts::{min_rate, min_size};
use redan_protocol::{ByteCount, Code, ComponentName, Millis};
use std::collections::BTreeSet;
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
    /// What to change there to admit it: the line to add, or the one to take out.
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
        /// Which document that is.
        by: Layer,
        /// The key to change.
        key: &'static str,
        /// The component.
        component: ComponentName,
    },
    /// The fleet policy revokes this version.
    #[error("{file}: `revoke.min_version` asks for {component} {minimum} or newer; this is {offered}")]
    Revoked {
        /// The fleet policy's file.
        file: String,
        /// The component.
        component: ComponentName,
        /// The oldest version that may run.
        minimum: Box<semver::Version>,
        /// The version of the ask.
        offered: Box<semver::Version>,
    },
    /// It is of WASI 0.3, and the device is not switched to it.
    #[error("{file}: `runtime.wasi_0_3` is not set, and {component} is of WASI 0.3")]
    SwitchedOff {
        /// The device ceiling's file.
        file: String,
        /// The component.
        component: ComponentName,
    },
    /// It is of WASI 0.3, and a document sets a limit that does not hold there.
    #[error("{file}: `{key}` does not hold for WASI 0.3, which {component} is of")]
    NotHeld {
        /// The file that sets the limit.
        file: String,
        /// Which document that is.
        by: Layer,
        /// The limit.
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
        /// Which document that is.
        by: Layer,
        /// What to change there to admit it.
        line: String,
    },
}

impl Denied {
    /// The document that has to change.
    pub const fn by(&self) -> Layer {
        match self {
            Self::Subject { by, .. } | Self::Required { by, .. } | Self::NotHeld { by, .. } => *by,
            Self::Revoked { .. } => Layer::Fleet,
            Self::SwitchedOff { .. } => Layer::Device,
        }
    }

    /// What to change in it.
    pub fn change(&self) -> String {
        match self {
            Self::Subject { key, component, .. } if key.ends_with("deny") => {
                format!("take {:?} out of `{key}`", component.to_string())
            }
            Self::Subject { key, component, .. } => format!("let `{key}` admit {component}"),
            Self::Revoked { component, .. } => {
                format!("publish a newer version, or lower `revoke.min_version` of {component}")
            }
            Self::SwitchedOff { .. } => "set wasi_0_3 = true under [runtime]".to_owned(),
            Self::NotHeld { key, .. } => format!("take `{key}` out; the limits of CPU time hold"),
            Self::Required { line, .. } => line.clone(),
        }
    }

    /// The code of the refusal.
    pub const fn code(&self) -> Code {
        match self {
            Self::Subject { .. } => Code::SubjectNotAllowed,
            Self::Revoked { .. } => Code::VersionRevoked,
            Self::SwitchedOff { .. } => Code::WasiSwitchedOff,
            Self::NotHeld { .. } => Code::WasiLimitNotHeld,
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
    let net_http = work.net_http();
    let bundles = work.bundles(&net_http);
    let secrets = work.secrets(&net_http);
    let mut grant = EffectiveGrant {
        component: ask.name.clone(),
        version: ask.version.clone(),
        world: ask.world,
        trigger_http: if ask.world.is_service() {
            work.trigger_http()
        } else {
            Vec::new()
        },
        trigger_timer: if ask.world == World::Command {
            work.trigger_timer()
        } else {
            Vec::new()
        },
        job_args: ask.document.job.args.clone(),
        net_http,
        messages: work.messages(),
        bundles,
        secrets,
        fs: work.fs(),
        kv: work.kv(),
        env: work.env(),
        config: work.config(),
        clock: work
            .section(
                "clock",
                layers.map(|d| d.clock),
                ask.document.clock.is_some_and(|s| s.required),
            )
            .map(coarsest),
        random: work
            .section(
                "random",
                layers.map(|d| d.random),
                ask.document.random.is_some_and(|s| s.required),
            )
            .map(|sections| Random {
                max_bytes_per_call: min_size(sections.map(|s| s.max_bytes_per_call), ByteCount::kib(64)),
            }),
        log: work
            .section(
                "log",
                layers.map(|d| d.log),
                ask.document.log.is_some_and(|s| s.required),
            )
            .map(|sections| Log {
                budget: min_rate(sections.map(|s| s.budget)).unwrap_or(LOG_BUDGET),
            }),
        limits: amounts::limits(layers),
        isolation: amounts::isolation(layers),
        health: amounts::health(layers),
        upgrade: amounts::upgrade(layers),
        denied_optional: Vec::new(),
    };
    grant.messages.outbox = work.outbox(&messages::destinations(&grant));
    let Work { dropped, missing, .. } = work;
    if let Some(Dropped {
        section,
        item,
        by,
        file,
        line,
    }) = missing
    {
        return Err(Denied::Required {
            file,
            section,
            item,
            by,
            line,
        });
    }
    let denied_optional = denied_optional(ask, &grant, &dropped);
    Ok(Outcome {
        grant: EffectiveGrant {
            denied_optional,
            ..grant
        },
        dropped,
    })
}

/// Sections that are denied as a whole. Sockets always are: an ask can only take the stub.
fn denied_optional(ask: &Ask, grant: &EffectiveGrant, dropped: &[Dropped]) -> Vec<String> {
    let sockets = ask.document.net.sockets.map(|_| "net.sockets");
    let denied: BTreeSet<&str> = dropped
        .iter()
        .map(|dropped| dropped.section)
        .chain(sockets)
        .collect();
    let denied = denied.into_iter().filter(|section| !grants(grant, section));
    denied.map(str::to_owned).collect()
}

fn coarsest([a, f, d]: [ClockSection; 3]) -> Clock {
    Clock {
        wall: a.wall && f.wall && d.wall,
        // The coarsest wins: a fine timer is the wider grant.
        resolution: [a, f, d]
            .map(|c| c.resolution.map_or(CLOCK_RESOLUTION, |s| s.0))
            .into_iter()
            .max()
            .unwrap_or(CLOCK_RESOLUTION),
    }
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
        "outbox" => !grant.messages.outbox.is_empty(),
        "kv" => !grant.kv.is_empty(),
        "secrets" => !grant.secrets.is_empty(),
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
    let fail = |by, key| {
        let file = match by {
            Layer::Device => &device.source.file,
            _ => &fleet.source.file,
        };
        Err(Denied::Subject {
            file: file.clone(),
            by,
            key,
            component: ask.name.clone(),
        })
    };
    let policy = &fleet.document.subject;
    if !policy.publishers.contains(ask.name.publisher()) {
        return fail(Layer::Fleet, "subject.publishers");
    }
    if !names_admit(&policy.names, &ask.name) {
        return fail(Layer::Fleet, "subject.names");
    }
    if !policy.worlds.contains(&ask.world) {
        return fail(Layer::Fleet, "subject.worlds");
    }
    if !policy.device_class.is_empty() && !policy.device_class.contains(&device.hardware) {
        return fail(Layer::Fleet, "subject.device_class");
    }
    if names_admit(&policy.deny, &ask.name) {
        return fail(Layer::Fleet, "subject.deny");
    }
    if let Some(minimum) = fleet.document.revoke.min_version.get(&ask.name)
        && ask.version < *minimum
    {
        return Err(Denied::Revoked {
            file: fleet.source.file.clone(),
            component: ask.name.clone(),
            minimum: Box::new(minimum.clone()),
            offered: Box::new(ask.version.clone()),
        });
    }
    let ceiling = &device.document.subject;
    if !names_admit(&ceiling.names, &ask.name) {
        return fail(Layer::Device, "subject.names");
    }
    if names_admit(&ceiling.deny, &ask.name) {
        return fail(Layer::Device, "subject.deny");
    }
    if ask.world.is_wasi_0_3() {
        return wasi_0_3(ask, fleet, device);
    }
    Ok(())
}

/// What else must be true for a component of WASI 0.3.
fn wasi_0_3(ask: &Ask, fleet: &FleetPolicy, device: &DeviceCeiling) -> Result<(), Denied> {
    if !device.wasi_0_3() {
        return Err(Denied::SwitchedOff {
            file: device.source.file.clone(),
            component: ask.name.clone(),
        });
    }
    let layers = [
        (Layer::Ask, &ask.document, &ask.source),
        (Layer::Fleet, &fleet.document, &fleet.source),
        (Layer::Device, &device.document, &device.source),
    ];
    // The code that runs these counts no fuel. A limit that somebody wrote down is not left out in silence.
    let fuel = |document: &Document| document.limits.fuel_per_call.is_some_and(|fuel| fuel > 0);
    match layers.into_iter().find(|(_, document, _)| fuel(document)) {
        None => Ok(()),
        Some((by, _, source)) => Err(Denied::NotHeld {
            file: source.file.clone(),
            by,
            key: "limits.fuel_per_call",
            component: ask.name.clone(),
        }),
    }
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

    /// A section that each document either has or leaves out.
    fn section<T: Copy>(
        &mut self,
        name: &'static str,
        [a, f, d]: [Option<T>; 3],
        required: bool,
    ) -> Option<[T; 3]> {
        let wanted = a?;
        match (f, d) {
            (Some(f), Some(d)) => Some([wanted, f, d]),
            (f, _) => {
                let by = if f.is_none() { Layer::Fleet } else { Layer::Device };
                self.drop(name, name, by, format!("add: [{name}]"), required);
                None
            }
        }
    }
}
