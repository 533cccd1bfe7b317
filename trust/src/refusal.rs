//! Why this device does not adopt what it was offered. One variant a rule; the codes are wire format.

use crate::error::TufError;
use redan_policy::PolicyError;
use redan_policy::grant::World;
use redan_protocol::{
    Code, ComponentName, Digest, DirectionSequence, FleetId, ReleaseCounter, Seconds, SetId, SpiffeId,
    UnixSeconds,
};

/// Why not. Rule letters as in docs/trust.md.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A repository is not believed.
    #[error(transparent)]
    Metadata(#[from] TufError),
    /// Rule a: the director speaks to another device.
    #[error("the director's metadata is for {named:?}, this device is {device}")]
    WrongDevice {
        /// Whom it names.
        named: Option<SpiffeId>,
        /// Who this is.
        device: SpiffeId,
    },
    /// Rule a: metadata or custom section of another fleet.
    #[error("{found} is not this device's fleet {fleet}")]
    WrongFleet {
        /// The fleet found.
        found: String,
        /// The device's.
        fleet: FleetId,
    },
    /// Rule a: a custom section is missing or not of its format, or directions of one metadata differ.
    #[error("the custom section of {path} is not of its format")]
    CustomInvalid {
        /// The target.
        path: String,
    },
    /// Rule a: an older direction than one followed before.
    #[error("direction {offered} is older than direction {followed}, which was followed")]
    DirectionReplayed {
        /// Offered.
        offered: DirectionSequence,
        /// Followed before.
        followed: DirectionSequence,
    },
    /// Rule a: the direction does not begin yet.
    #[error("the direction begins at {not_before}, proven time is {now}")]
    NotYet {
        /// When it begins.
        not_before: UnixSeconds,
        /// Now.
        now: UnixSeconds,
    },
    /// Rule a: the direction has ended.
    #[error("the direction ended at {deadline}, proven time is {now}")]
    DirectionExpired {
        /// When it ended.
        deadline: UnixSeconds,
        /// Now.
        now: UnixSeconds,
    },
    /// Rule b: not in the release repository, or not through its component's own role.
    #[error("{path} was not released by its component's role")]
    NotReleased {
        /// The target.
        path: String,
    },
    /// Rule b: release and director differ.
    #[error("{path} differs between the release and the director repository")]
    ReleaseMismatch {
        /// The target.
        path: String,
    },
    /// Rule c.
    #[error("release counter {offered} of {component} is below the signed floor {floor}")]
    BelowFloor {
        /// The component.
        component: ComponentName,
        /// Offered.
        offered: ReleaseCounter,
        /// The floor.
        floor: ReleaseCounter,
    },
    /// Rule c.
    #[error("release counter {offered} of {component} is below {committed}, which was committed")]
    BelowCommitted {
        /// The component.
        component: ComponentName,
        /// Offered.
        offered: ReleaseCounter,
        /// Committed before.
        committed: ReleaseCounter,
    },
    /// Rule d: the set's document is not what was directed, or not of its format.
    #[error("the document of release set {set} is not the one that was directed")]
    SetInvalid {
        /// The set.
        set: SetId,
    },
    /// Rule d: the directed targets are not exactly the members.
    #[error("the directed targets are not the members of release set {set}")]
    SetIncomplete {
        /// The set.
        set: SetId,
    },
    /// Rule e.
    #[error("this device's ring opens {opens_after} after the plan was first seen; {waited} have passed")]
    RingNotOpen {
        /// When it opens.
        opens_after: Seconds,
        /// How long the plan is known.
        waited: Seconds,
    },
    /// Rule f.
    #[error("{component} was not built for hardware {hardware:?}")]
    WrongHardware {
        /// The component.
        component: ComponentName,
        /// The device's class.
        hardware: String,
    },
    /// Rule f.
    #[error("{component} is built for a world this runtime does not offer: {world:?}")]
    WrongWorld {
        /// The component.
        component: ComponentName,
        /// Its world.
        world: World,
    },
    /// Rule f.
    #[error("{component} requires {required} with counter {counter} or above")]
    RequiresUnmet {
        /// The component.
        component: ComponentName,
        /// What it requires.
        required: ComponentName,
        /// At least.
        counter: ReleaseCounter,
    },
    /// Rule f.
    #[error("{component} conflicts with {present}")]
    Conflicts {
        /// The component.
        component: ComponentName,
        /// What is there.
        present: ComponentName,
    },
    /// Rule g: policy says no.
    #[error("{component}: {source}")]
    PolicyDenied {
        /// The component.
        component: ComponentName,
        /// Which document.
        source: redan_policy::Denied,
    },
    /// Rule g: the fleet policy asks for a newer runtime.
    #[error("the fleet policy asks for redan-device {minimum}, this is {runtime}")]
    RuntimeTooOld {
        /// The oldest that may adopt.
        minimum: semver::Version,
        /// This one.
        runtime: semver::Version,
    },
    /// Rule g: it was signed too long ago, or nobody says when.
    #[error("{component} was signed at {signed:?}, and the fleet policy asks for less than {within} ago")]
    SignedTooLongAgo {
        /// The component.
        component: ComponentName,
        /// When the publisher signed it; `None`: not said.
        signed: Option<UnixSeconds>,
        /// How long ago it may be.
        within: Seconds,
    },
    /// Rule g: a signed document does not parse.
    #[error(transparent)]
    PolicyInvalid(#[from] PolicyError),
    /// Rule g: the ask is about another component than the one it is signed with.
    #[error("the ask signed with {component} is about something else")]
    AskMismatch {
        /// The component.
        component: ComponentName,
    },
    /// Rule g: no fleet policy, not the signed one, or an older one.
    #[error("the fleet policy is missing or older than serial {known}")]
    PolicyRollback {
        /// Highest serial seen.
        known: u64,
    },
    /// Rule h.
    #[error("{digest} is revoked by signed policy")]
    Revoked {
        /// The digest.
        digest: Digest,
    },
    /// Rule h.
    #[error("{digest} failed its trial on this device")]
    DeniedAfterTrial {
        /// The digest.
        digest: Digest,
    },
    /// Rule i.
    #[error("no fresh statement of the director confirms the metadata")]
    NotFresh,
}

impl Refusal {
    /// The code that is reported.
    pub const fn code(&self) -> Code {
        match self {
            Self::Metadata(error) => error.code(),
            Self::WrongDevice { .. } => Code::WrongDevice,
            Self::WrongFleet { .. } => Code::WrongFleet,
            Self::CustomInvalid { .. } => Code::MetadataInvalid,
            Self::DirectionReplayed { .. } => Code::DirectionReplayed,
            Self::NotYet { .. } => Code::NotYet,
            Self::DirectionExpired { .. } => Code::DirectionExpired,
            Self::NotReleased { .. } => Code::NotReleased,
            Self::ReleaseMismatch { .. } => Code::ReleaseMismatch,
            Self::BelowFloor { .. } => Code::BelowFloor,
            Self::BelowCommitted { .. } => Code::BelowCommitted,
            Self::SetInvalid { .. } => Code::SetInvalid,
            Self::SetIncomplete { .. } => Code::SetIncomplete,
            Self::RingNotOpen { .. } => Code::RingNotOpen,
            Self::WrongHardware { .. } => Code::WrongHardware,
            Self::WrongWorld { .. } => Code::WrongWorld,
            Self::RequiresUnmet { .. } => Code::RequiresUnmet,
            Self::Conflicts { .. } => Code::Conflicts,
            Self::PolicyDenied { source, .. } => source.code(),
            Self::RuntimeTooOld { .. } => Code::RuntimeTooOld,
            Self::SignedTooLongAgo { .. } => Code::SignedTooLongAgo,
            Self::PolicyInvalid(_) | Self::AskMismatch { .. } => Code::PolicyInvalid,
            Self::PolicyRollback { .. } => Code::PolicyRollback,
            Self::Revoked { .. } => Code::Revoked,
            Self::DeniedAfterTrial { .. } => Code::DeniedAfterTrial,
            Self::NotFresh => Code::NotFresh,
        }
    }

    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        self.code().remedy()
    }
}
