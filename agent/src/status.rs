//! What `redan-device status` shows: the same facts as the report, for the people at the device.

use redan_protocol::code::by_name;
use redan_protocol::report::{Health, Isolation, Phase};
use redan_protocol::{
    AuthorityState, Code, ComponentName, Digest, DirectionSequence, ReleaseCounter, SetId, SpiffeId,
    UnixSeconds, Version64,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How the device is. Serialised as JSON on the admin socket.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who the device is.
    pub id: SpiffeId,
    /// The committed release set.
    pub set: Option<SetId>,
    /// Where an update stands.
    pub phase: Phase,
    /// The direction followed or refused.
    pub direction: DirectionSequence,
    /// Why the offered set is not adopted.
    #[serde(with = "by_name")]
    pub refusal: Option<Code>,
    /// Why the last trial was rolled back.
    #[serde(with = "by_name")]
    pub rollback: Option<Code>,
    /// Version of the trusted release timestamp.
    pub release: Version64,
    /// Version of the trusted director timestamp.
    pub director: Version64,
    /// Isolation in force.
    pub isolation: Isolation,
    /// Whether the memory of the process that holds the keys stays out of swap.
    #[serde(default)]
    pub memory_locked: bool,
    /// Why the control server was not reached at the last check-in; `None`: it was.
    #[serde(with = "by_name")]
    pub offline: Option<Code>,
    /// Seconds since the control server last answered a check-in; `None`: it has not since the device started.
    pub contact_seconds: Option<u64>,
    /// What is wrong with the list of revoked servers; `None`: nothing, or there never was one.
    #[serde(default, with = "by_name")]
    pub revoked_servers: Option<Code>,
    /// How long its certificate is good for.
    pub certificate: CertificateStatus,
    /// The installed versions.
    pub slots: Vec<SlotStatus>,
}

/// What became of a bundle.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The direction that was read; zero: none was.
    pub direction: DirectionSequence,
    /// Why it is not followed; `None`: it is.
    #[serde(with = "by_name")]
    pub refusal: Option<Code>,
}

/// The device's certificate.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Its last second, UTC (RFC 3339).
    pub not_after: String,
    /// How its authority stands: `active`, `old`, `tainted`; `None`: it is believed no more.
    pub authority: Option<AuthorityState>,
    /// The renewal that is due or under way; `None`: none is.
    pub renewal: Option<RenewalStatus>,
}

/// A renewal that is due or under way.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RenewalStatus {
    /// How often it failed so far; it is tried again.
    pub failures: u32,
    /// Why it failed the last time.
    #[serde(with = "by_name")]
    pub code: Option<Code>,
}

/// A date as people read it, UTC (RFC 3339).
pub(crate) fn date(time: UnixSeconds) -> String {
    let seconds = i64::try_from(time.get()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| time.to_string())
}

/// One installed version of a workload.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// The component.
    pub component: ComponentName,
    /// Its version.
    pub version: semver::Version,
    /// Its release counter.
    pub counter: ReleaseCounter,
    /// The digest that runs.
    pub digest: Digest,
    /// The digest of its grant.
    pub grant: Digest,
    /// Whether it has the component's traffic.
    pub active: bool,
    /// How it is.
    pub health: Health,
    /// Why it is not healthy.
    #[serde(with = "by_name")]
    pub code: Option<Code>,
    /// Where it listens.
    pub listen: Option<std::net::SocketAddr>,
}
