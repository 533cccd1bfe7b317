//! The three kinds of leaf and the one issuer each of them has.

use redan_protocol::wire::{control_host, enrol_host};
use redan_protocol::{FleetId, Seconds, SpiffeId};

/// What a leaf is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// A device or an operator, towards the control server.
    Client,
    /// The control server.
    Server,
}

/// What an issuer may issue: leaves of one kind, nothing else.
///
/// Devices and operators are both clients, so the EKU cannot tell their issuers apart; the DNS constraint does. Without it the
/// device issuer, whose key the control server holds, could make operators.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IssuerKind {
    /// Devices.
    Device,
    /// The control server.
    Server,
    /// Operators.
    Operator,
}

const DAY: u64 = 86_400;
/// Every certificate is valid from a little before it is made, for clocks that lag (attacks.md, certificate profile).
pub(crate) const BACKDATED: Seconds = Seconds::new(300);
/// Life of a fleet's root. It is replaced by a new fleet root in a signed target, not by age.
pub(crate) const ROOT_LIFE: Seconds = Seconds::new(3650 * DAY);
/// Life of an issuer: changed at half of it, so that two leaf lives overlap.
pub(crate) const ISSUER_LIFE: Seconds = Seconds::new(365 * DAY);

impl IssuerKind {
    /// The issuer of this leaf.
    pub const fn of(id: &SpiffeId) -> Self {
        match id {
            SpiffeId::Device(..) => Self::Device,
            SpiffeId::Control(_) => Self::Server,
            SpiffeId::Operator(..) => Self::Operator,
        }
    }

    /// What its leaves are for.
    pub const fn purpose(self) -> Purpose {
        match self {
            Self::Device | Self::Operator => Purpose::Client,
            Self::Server => Purpose::Server,
        }
    }

    /// How long its leaves live: devices 30 days, the server 90 (corrections 6), operators 7.
    pub const fn leaf_life(self) -> Seconds {
        match self {
            Self::Device => Seconds::new(30 * DAY),
            Self::Server => Seconds::new(90 * DAY),
            Self::Operator => Seconds::new(7 * DAY),
        }
    }

    /// The one DNS subtree its leaves are named in.
    pub fn subtree(self, fleet: &FleetId) -> String {
        match self {
            Self::Device => format!("device.{fleet}"),
            Self::Server => fleet.to_string(),
            Self::Operator => format!("operator.{fleet}"),
        }
    }

    /// What it is called, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device issuer",
            Self::Server => "server issuer",
            Self::Operator => "operator issuer",
        }
    }
}

/// The DNS names that go with a SPIFFE ID, all below [`IssuerKind::subtree`].
pub(crate) fn dns_names_of(id: &SpiffeId) -> Vec<String> {
    let below = IssuerKind::of(id).subtree(id.fleet());
    match id {
        SpiffeId::Device(_, device) => vec![format!("{device}.{below}")],
        SpiffeId::Control(fleet) => vec![control_host(fleet), enrol_host(fleet)],
        SpiffeId::Operator(_, name) => vec![format!("{name}.{below}")],
    }
}

/// The name of a fleet's authorities: its trust domain, without a path (X509-SVID §2).
pub(crate) fn authority_name(fleet: &FleetId) -> String {
    format!("spiffe://{fleet}")
}
