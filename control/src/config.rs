//! `control.toml`. An unknown key is an error: a mistyped limit must not silently be no limit.

use crate::error::ServerError;
use redan_control_core::PerMinute;
use redan_identity::tls::KeyExchange;
use redan_protocol::{ByteCount, FleetId, Seconds};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// How the server is set up.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of databases, keys and artifacts.
    pub state: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// How long devices wait between check-ins.
    #[serde(default = "interval")]
    pub checkin_interval_seconds: Seconds,
    /// How long after it expired a device's newest certificate still gets it a new one, where that is shorter than what the fleet's
    /// signed policy says.
    #[serde(default)]
    pub renewal_grace_seconds: Option<Seconds>,
    /// Most connections at once. Tripped by `a_connection_over_the_limit_is_closed_and_the_others_go_on`.
    #[serde(default = "connections")]
    pub connections_max: usize,
    /// Most handshakes at once. Tripped by `half_open_connections_over_the_limit_are_closed`.
    #[serde(default = "handshakes")]
    pub handshakes_max: usize,
    /// Most handshakes at once from one address, or from one /64 of IPv6. Tripped by
    /// `a_flood_of_half_open_connections_from_one_address_keeps_nobody_else_out`.
    #[serde(default = "handshakes_of_one")]
    pub handshakes_per_address_max: usize,
    /// What differs for single fleets.
    #[serde(default)]
    pub fleets: BTreeMap<FleetId, FleetSettings>,
}

/// `key_exchange` of a fleet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exchange {
    /// Those of the profile, X25519 alone among them.
    #[default]
    Any,
    /// Those with ML-KEM.
    Hybrid,
}

impl From<Exchange> for KeyExchange {
    fn from(exchange: Exchange) -> Self {
        match exchange {
            Exchange::Any => Self::Any,
            Exchange::Hybrid => Self::Hybrid,
        }
    }
}

/// One fleet's settings: a table `[fleets."<fleet>"]`. They are changed on the server's own host, so that no operator can.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetSettings {
    /// Every rollout needs a second person's agreement beyond its first wave.
    pub second_approver: bool,
    /// Which key exchanges are taken: `any`, or `hybrid` alone.
    pub key_exchange: Exchange,
    /// Most devices that are admitted and not revoked. Tripped by `a_fleet_has_no_more_devices_than_its_quota`.
    pub devices_max: usize,
    /// Most bytes of artifacts. Tripped by `a_fleet_stores_no_more_bytes_than_its_quota`.
    pub artifacts_bytes_max: ByteCount,
    /// Most connections at once, of all of the server's. Tripped by `a_fleets_connections_are_its_own`.
    pub connections_max: usize,
    /// Most certificates signed in a minute for devices that enrol; one token or voucher has half. Tripped by
    /// `a_flood_from_one_token_stops_no_other_enrolment_and_no_renewal`.
    pub enrolments_per_minute_max: PerMinute,
    /// Most certificates signed in a minute for devices that renew: a share of their own, which no enrolment takes from. Tripped by
    /// `renewals_have_a_limit_that_enrolments_do_not_feel`.
    pub renewals_per_minute_max: PerMinute,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            second_approver: false,
            key_exchange: Exchange::Any,
            devices_max: 100_000,
            artifacts_bytes_max: ByteCount::new(64 << 30),
            connections_max: connections(),
            enrolments_per_minute_max: PerMinute::new(ENROLMENTS),
            renewals_per_minute_max: PerMinute::new(RENEWALS),
        }
    }
}

/// A hall of a thousand devices with one token is in within three minutes; a signature with its transaction takes milliseconds.
const ENROLMENTS: NonZeroU32 = NonZeroU32::new(600).unwrap();
/// A fleet of a hundred thousand needs five a minute, and has replaced a tainted authority's certificates within an hour and a half.
const RENEWALS: NonZeroU32 = NonZeroU32::new(1_200).unwrap();

fn interval() -> Seconds {
    Seconds::new(60)
}

/// Below the connections: a flood of handshakes takes no place from those who have shaken hands.
fn handshakes() -> usize {
    2_000
}

/// A hall behind one address, all of which start at once, within five seconds.
fn handshakes_of_one() -> usize {
    200
}

fn connections() -> usize {
    10_000
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ServerError> {
        let fault = |what: String| ServerError::Config {
            path: path.display().to_string(),
            what,
        };
        // Not a disk's fault but the caller's: whatever keeps it from being read, the path given is what to correct.
        let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        toml::from_str(&text).map_err(|error| {
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count().saturating_add(1));
            fault(format!("line {line}: {}", error.message()))
        })
    }
}
