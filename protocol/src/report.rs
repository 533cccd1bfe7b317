//! What a device tells the platform: which version, healthy or not, why not. Nothing else fits.
//!
//! Promise 6 (metadata only) by construction: enums, integers, digests and names that came out of verified metadata. No
//! `String`, no bytes, no map. `tests/e2e` searches the wire for planted marks all the same.

mod closed;

pub use closed::Closed;

use crate::{Code, ComponentName, Digest, DirectionSequence, ReleaseCounter, SetId, Version64};
use serde::{Deserialize, Serialize};

/// Slots one report can name. A device with more reports the unhealthy ones first.
pub const REPORT_SLOTS_MAX: usize = 3;

/// Where an update stands on the device (30-runtime, the update state machine).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing to do.
    #[default]
    Idle,
    /// A direction was read.
    Offered,
    /// `decide()` said yes.
    Decided,
    /// Bytes are on their way.
    Fetching,
    /// All bytes are here and verified.
    Stored,
    /// Waiting for ring, window, deferral or a required component.
    Waiting,
    /// Compiled, sealed and linked beside the old version.
    Prepared,
    /// Serving on trial.
    Trial,
    /// Serving for good.
    Committed,
    /// Going back.
    Reverting,
    /// Back on the version before.
    Reverted,
}

/// How a workload is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Not started yet.
    #[default]
    Unknown,
    /// Starting.
    Starting,
    /// As it should be.
    Healthy,
    /// Serving, with a complaint.
    Degraded,
    /// Not serving as it should.
    Unhealthy,
    /// Stopped.
    Stopped,
}

/// A count put into a power-of-two bucket (0, 1, 2–3, 4–7 …), so that a report cannot carry an exact number out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bucket(u8);

impl Bucket {
    /// The bucket a count falls into: 0 for none, else the number of its significant bits.
    pub const fn of(count: u64) -> Self {
        // 64 - leading_zeros is at most 64.
        let bits = 64_u32.saturating_sub(count.leading_zeros());
        let [low, ..] = bits.to_le_bytes();
        Self(low)
    }

    /// Number of significant bits of the count.
    pub const fn bits(self) -> u8 {
        self.0
    }
}

/// One installed version of a workload.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotReport {
    /// The component, from verified metadata.
    pub component: ComponentName,
    /// Its version there: major, minor, patch.
    pub version: [u32; 3],
    /// Its release counter.
    pub counter: ReleaseCounter,
    /// The digest of the component that runs.
    pub digest: Digest,
    /// The digest of the grant it runs under.
    pub grant: Digest,
    /// How it is.
    pub health: Health,
    /// Why it is not healthy.
    pub code: Option<Code>,
    /// Calls since the last report.
    pub calls: Bucket,
    /// Failed calls since the last report.
    pub failures: Bucket,
}

/// Isolation mechanisms in force on the device. A missing one is reported, never hidden.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each on or off")]
pub struct Isolation {
    /// Separate processes for agent, executor, broker and compiler.
    pub processes: bool,
    /// A user id of its own for each publisher's executor.
    pub users: bool,
    /// Landlock rules in force.
    pub landlock: bool,
    /// A seccomp filter in force.
    pub seccomp: bool,
    /// `no_new_privs` set.
    pub no_new_privs: bool,
}

/// The whole report. Closed, and at most [`crate::wire::CHECKIN_LEN_MAX`] when encoded. Every field is [`Closed`]; a field that is not does
/// not compile (`report/closed.rs`).
///
/// ```
/// use redan_protocol::{Code, report::Report};
/// let report = Report { refusal: Some(Code::DiskFull), ..Report::default() };
/// ```
///
/// There is no room for words:
///
/// ```compile_fail,E0308
/// use redan_protocol::{Code, report::Report};
/// let report = Report { refusal: Some(String::from("what the guest said")), ..Report::default() };
/// ```
///
/// ```compile_fail,E0560
/// use redan_protocol::{Code, report::Report};
/// let report = Report { note: Some(Code::DiskFull), ..Report::default() };
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Counts up with every report; goes back when somebody restores an old disk.
    pub sequence: u64,
    /// The runtime's version.
    pub runtime: [u32; 3],
    /// The release set that is committed.
    pub set: Option<SetId>,
    /// The direction the device follows or refused.
    pub direction: DirectionSequence,
    /// Where the update stands.
    pub phase: Phase,
    /// Why the device does not adopt what it is offered.
    pub refusal: Option<Code>,
    /// Why the last trial was rolled back.
    pub rollback: Option<Code>,
    /// Version of the trusted release timestamp.
    pub release: Version64,
    /// Version of the trusted director timestamp.
    pub director: Version64,
    /// Isolation in force.
    pub isolation: Isolation,
    /// The installed workloads, at most [`REPORT_SLOTS_MAX`].
    pub slots: Vec<SlotReport>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_hides_the_exact_count() {
        assert_eq!(Bucket::of(0).bits(), 0);
        assert_eq!(Bucket::of(1).bits(), 1);
        assert_eq!(Bucket::of(4), Bucket::of(7));
        assert_eq!(Bucket::of(u64::MAX).bits(), 64);
    }

    #[test]
    fn a_field_nobody_named_is_refused() {
        let mut value = serde_json::to_value(Report::default()).unwrap();
        value["note"] = "hello".into();
        assert!(serde_json::from_value::<Report>(value).is_err());
    }
}
