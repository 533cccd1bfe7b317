//! Every grant with the file and line that decided it; every denial with the line to add and who must sign it.

mod lines;
mod outside;

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
    /// `file:line` of each place that has a say, the ask first; of an amount, only those that name the amount in effect.
    /// Empty: nobody names it and a default holds.
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
        Ok(outcome) => Explanation::Granted {
            digest: outcome.grant.digest(),
            lines: lines::of(&outcome.grant, ask, fleet, device),
            grant: Box::new(outcome.grant),
            dropped: outcome.dropped,
        },
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => {
                writeln!(f, "denied: {denied}")?;
                writeln!(f, "    because: {}", denied.code())?;
                writeln!(f, "    {}", denied.change())?;
                writeln!(f, "    signed by: {}", denied.by().signer())
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
                    if places.is_empty() {
                        writeln!(f, "      (default)")?;
                    } else {
                        writeln!(f, "      {}", places.join("  "))?;
                    }
                }
                for item in dropped {
                    let Dropped {
                        section,
                        item: name,
                        by,
                        file,
                        line,
                    } = item;
                    writeln!(
                        f,
                        "  not granted: [{section}] {name}: {by} ({file}) does not admit it"
                    )?;
                    writeln!(f, "      to grant it, {line}")?;
                    writeln!(f, "      signed by: {}", by.signer())?;
                }
                Ok(())
            }
        }
    }
}
