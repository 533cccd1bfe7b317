//! Why a repository is not believed: one variant a reason, each with its code.

use crate::claimed::TooFewSignatures;
use crate::metadata::Malformed;
use redan_protocol::{ByteCount, Code, UnixSeconds};

/// Why a repository is not believed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TufError {
    /// Not signed by its role's threshold.
    #[error("{role} is not signed by its threshold: {source}")]
    Signatures {
        /// The role.
        role: String,
        /// The count.
        source: TooFewSignatures,
    },
    /// Not metadata of its type.
    #[error("{role} is malformed: {source}")]
    Malformed {
        /// The role.
        role: String,
        /// What is wrong.
        source: Malformed,
    },
    /// An older version than one that was trusted.
    #[error("{role} went back from version {trusted} to {offered}")]
    Rollback {
        /// The role.
        role: String,
        /// What was trusted.
        trusted: u64,
        /// What is offered.
        offered: u64,
    },
    /// Another version than its parent says, or than was asked for.
    #[error("{role} has version {offered}, wanted is {wanted}")]
    WrongVersion {
        /// The role.
        role: String,
        /// What is wanted.
        wanted: u64,
        /// What is offered.
        offered: u64,
    },
    /// Other bytes than its parent says.
    #[error("{role} is not the file its parent names")]
    WrongBytes {
        /// The role.
        role: String,
    },
    /// A file the old snapshot listed is gone from the new one.
    #[error("the snapshot no longer lists {file}")]
    Dropped {
        /// The file.
        file: String,
    },
    /// Expired.
    #[error("{role} expired at {expired}, proven time is {now}")]
    Expired {
        /// The role.
        role: String,
        /// When.
        expired: UnixSeconds,
        /// Now.
        now: UnixSeconds,
    },
    /// The next root could be neither fetched nor shown to be absent.
    #[error("version {version} of root could not be fetched")]
    RootUnavailable {
        /// Which.
        version: u64,
    },
    /// A file that must exist could not be fetched.
    #[error("{path} could not be fetched")]
    Unavailable {
        /// Which.
        path: String,
    },
    /// Longer than allowed.
    #[error("{path} is longer than {limit}")]
    TooLong {
        /// Which.
        path: String,
        /// How long it may be.
        limit: ByteCount,
    },
    /// A stored file is not what was stored.
    #[error("the stored {role} is damaged")]
    Damaged {
        /// The role.
        role: String,
    },
    /// A new root names another fleet or profile than the one before.
    #[error("the new root names another fleet or profile than the one before")]
    OtherFleet,
    /// A role has to be listed by its parent and is not.
    #[error("no parent lists {role}")]
    Unlisted {
        /// The role.
        role: String,
    },
    /// The driver answered something else than it was asked: a bug of ours.
    #[error("the driver's answer does not fit the step")]
    Driver,
}

impl TufError {
    /// The code of the refusal.
    pub const fn code(&self) -> Code {
        match self {
            Self::Signatures { .. } => Code::ThresholdNotMet,
            Self::Malformed { .. }
            | Self::WrongVersion { .. }
            | Self::WrongBytes { .. }
            | Self::TooLong { .. }
            | Self::Unlisted { .. } => Code::MetadataInvalid,
            Self::Rollback { .. } | Self::Dropped { .. } => Code::MetadataRollback,
            Self::Expired { .. } => Code::MetadataExpired,
            Self::OtherFleet => Code::WrongFleet,
            Self::RootUnavailable { .. } => Code::RootUnavailable,
            Self::Unavailable { .. } => Code::Unreachable,
            Self::Damaged { .. } => Code::StateLost,
            Self::Driver => Code::Internal,
        }
    }
}
