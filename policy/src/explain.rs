//! Every grant with the file and line that decided it; every denial with the line to add and who must sign it.

use crate::grant::EffectiveGrant;
use crate::intersect::{Denied, Dropped, outcome};
use crate::parse::{Ask, DeviceCeiling, FleetPolicy};
use redan_protocol::Digest;
use std::fmt;

/// One line of an explanation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// What is granted.
    pub what: String,
    /// `file:line` of each document that has a say, the ask first.
    pub places: Vec<String>,
}

/// What three documents come to, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Explanation {
    /// There is a grant.
    Granted {
        /// The grant.
        grant: Box<EffectiveGrant>,
        /// Its digest, as devices report it.
        digest: Digest,
        /// What is granted, and by which lines.
        lines: Vec<Line>,
        /// What the ask wanted and does not get.
        dropped: Vec<Dropped>,
    },
    /// There is none.
    Denied(Denied),
}

/// Explains.
pub fn explain(ask: &Ask, fleet: &FleetPolicy, device: &DeviceCeiling) -> Explanation {
    match outcome(ask, fleet, device) {
        Err(denied) => Explanation::Denied(denied),
        Ok(outcome) => {
            let lines = lines(&outcome.grant, ask, fleet, device);
            let digest = outcome.grant.digest();
            Explanation::Granted {
                grant: Box::new(outcome.grant),
                digest,
                lines,
                dropped: outcome.dropped,
            }
        }
    }
}

fn lines(grant: &EffectiveGrant, ask: &Ask, fleet: &FleetPolicy, device: &DeviceCeiling) -> Vec<Line> {
    let sources = [&ask.source, &fleet.source, &device.source];
    let line = |what: String, section: &str, key: Option<&str>| Line {
        what,
        places: sources
            .iter()
            .filter_map(|source| source.place(section, 0, key))
            .collect(),
    };
    let mut lines = vec![line(
        format!("{} {} in {:?}", grant.component, grant.version, grant.world),
        "subject",
        None,
    )];
    for trigger in &grant.trigger_http {
        lines.push(line(
            format!("answers {} {}", trigger.methods.join(" "), trigger.route),
            "trigger.http",
            None,
        ));
    }
    for timer in &grant.trigger_timer {
        lines.push(line(format!("runs every {}", timer.every), "trigger.timer", None));
    }
    for rule in &grant.net_http {
        let wanted = rule.allow.first().into_iter().flatten();
        let origins: Vec<String> = wanted
            .map(|o| {
                format!(
                    "{}://{}:{}",
                    if o.https { "https" } else { "http" },
                    o.host,
                    o.port
                )
            })
            .collect();
        let what = format!(
            "connects to {} with {} ({})",
            origins.join(" "),
            rule.methods.join(" "),
            rule.id
        );
        lines.push(line(what, "net.http", None));
    }
    for volume in &grant.fs {
        let what = format!(
            "volume {} at {} {:?}, {}, {} files",
            volume.name, volume.guest, volume.mode, volume.bytes, volume.files
        );
        lines.push(line(what, "fs", None));
    }
    for bucket in &grant.kv {
        lines.push(line(
            format!("bucket {}, {}, {} keys", bucket.label, bucket.bytes, bucket.keys),
            "kv",
            None,
        ));
    }
    for name in grant.env.keys() {
        lines.push(line(format!("environment {name}"), "env", Some("allow")));
    }
    for name in grant.config.iter().flat_map(|config| config.keys()) {
        lines.push(line(format!("configuration {name}"), "config", Some("keys")));
    }
    if let Some(log) = grant.log {
        let what = format!("log, {} bytes in {}", log.budget.amount, log.budget.per);
        lines.push(line(what, "log", Some("budget")));
    }
    let limits = &grant.limits;
    lines.push(line(
        format!("memory {}", limits.memory_total),
        "limits",
        Some("memory_total"),
    ));
    lines.push(line(
        format!("CPU {} a call", limits.cpu_per_call),
        "limits",
        Some("cpu"),
    ));
    lines.push(line(
        format!("time {} a call", limits.wall_call),
        "limits",
        Some("wall"),
    ));
    lines
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => {
                writeln!(f, "denied: {denied}")?;
                writeln!(f, "  because: {}", denied.code())?;
                write!(f, "  try: {}", denied.code().remedy())
            }
            Self::Granted {
                digest,
                lines,
                dropped,
                ..
            } => {
                writeln!(f, "grant {digest}")?;
                for Line { what, places } in lines {
                    writeln!(f, "  {what}")?;
                    writeln!(
                        f,
                        "      {}",
                        if places.is_empty() {
                            "(default)".to_owned()
                        } else {
                            places.join("  ")
                        }
                    )?;
                }
                for item in dropped {
                    writeln!(
                        f,
                        "  not granted: [{}] {} — {} ({}) does not admit it",
                        item.section, item.item, item.by, item.file
                    )?;
                    writeln!(f, "      to grant it, add: {}", item.line)?;
                    writeln!(f, "      signed by: {}", item.by.signer())?;
                }
                Ok(())
            }
        }
    }
}
