//! What can go wrong in a ceremony, and what to do then.

use redan_identity::IdentityError;
use redan_protocol::{Code, ComponentName};
use redan_publish::PublishError;
use std::path::Path;

/// Why the ceremony stopped. Nothing is half-applied.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CeremonyError {
    /// The folder to found in is there already.
    #[error("{path} exists already")]
    Exists {
        /// Which.
        path: String,
    },
    /// A component of a publisher who was not named.
    #[error("{component} is not of a publisher named with --publisher")]
    Publisher {
        /// Which.
        component: ComponentName,
    },
    /// A production fleet with a threshold of one.
    #[error("a production fleet needs a threshold of at least 2")]
    Threshold,
    /// A folder that is no fleet's.
    #[error("fleet.json does not describe a fleet")]
    Fleet,
    /// A bundle without a certificate.
    #[error("the issuer's file holds no certificate")]
    Issuer,
    /// A file that cannot be read or written.
    #[error("{path}: {what}")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        what: String,
    },
    /// Keys and metadata.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A bug of ours.
    #[error("a bug in redan-ceremony")]
    Bug,
}

impl CeremonyError {
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            what: error.to_string(),
        }
    }

    /// The code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Exists { .. } => Code::Conflict,
            Self::Publisher { .. } | Self::Threshold | Self::Fleet | Self::Issuer => Code::BadRequest,
            Self::File { .. } => Code::DiskFailed,
            Self::Publish(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Bug => Code::Internal,
        }
    }

    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "name another with --out; nothing is ever written over",
            Self::Fleet => "name the public/ folder that redan-ceremony init wrote",
            Self::Issuer => "name operator-issuer.pem or server-issuer.pem of the fleet's offline/ folder",
            Self::Publisher { .. } => "add its publisher with --publisher",
            Self::Threshold => "use --holders 3 --threshold 2, or --profile development",
            Self::File { .. } => "check that the folder may be written and has room",
            Self::Publish(error) => error.remedy(),
            Self::Identity(error) => error.remedy(),
            Self::Bug => Code::Internal.remedy(),
        }
    }

    /// Exit code (style §5).
    pub const fn exit(&self) -> u8 {
        match self {
            Self::Exists { .. } | Self::Publisher { .. } | Self::Threshold | Self::Fleet | Self::Issuer => 2,
            Self::File { .. }
            | Self::Publish(PublishError::File { .. })
            | Self::Identity(IdentityError::File { .. }) => 3,
            Self::Publish(_) | Self::Identity(_) => 1,
            Self::Bug => 70,
        }
    }
}
