//! What can go wrong, and what to do then.

use redan_identity::IdentityError;
use redan_identity::client::ClientError;
use redan_policy::PolicyError;
use redan_protocol::wire::Problem;
use redan_protocol::{Code, ReleaseCounter};
use redan_publish::PublishError;
use redan_trust::TufError;
use std::path::Path;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An option that is missing or makes no sense.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        what: String,
    },
    /// The server said no.
    #[error("the server refused: {}", .0.detail.as_deref().unwrap_or(&.0.title))]
    Server(Problem),
    /// An answer that is not what it should be.
    #[error("the server's answer does not read as {0}")]
    Answer(&'static str),
    /// No connection.
    #[error("{address}: {source}")]
    Connection {
        /// Where.
        address: String,
        /// Why.
        source: ClientError,
    },
    /// No TCP connection.
    #[error("cannot reach {address}: {what}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system says.
        what: String,
    },
    /// Metadata that does not verify from the pinned root.
    #[error("the server's release metadata does not verify: {0}")]
    Metadata(TufError),
    /// A role that the fleet's roots do not know.
    #[error("nobody may sign {role} in this fleet: its custodians have not delegated it")]
    Unlisted {
        /// The role.
        role: String,
    },
    /// Policy documents.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Components, keys and signing.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The server's revocation list.
    #[error("the server's revocation list is not good: {0}")]
    Crl(#[from] redan_identity::crl::CrlFault),
    /// The operator's own certificate.
    #[error("{file}: {source}")]
    Operator {
        /// The file.
        file: String,
        /// What is wrong.
        source: IdentityError,
    },
    /// A key that does not belong to what is signed.
    #[error("none of the keys given with --key may sign {role}")]
    Key {
        /// The role.
        role: String,
    },
    /// Too few signatures on a draft.
    #[error("{have} of {wanted} holders of {role} have signed")]
    Short {
        /// The role.
        role: String,
        /// Signatures there are.
        have: u32,
        /// Signatures needed.
        wanted: u32,
    },
    /// A holder who has signed already.
    #[error("key {key} has signed it already; a holder counts once")]
    SignedAlready {
        /// The key.
        key: String,
    },
    /// A file that is no draft, or one that breaks a rule.
    #[error("{path}: {what}")]
    Draft {
        /// The file, or the role.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A draft of another version than the next.
    #[error("the draft is for version {offered} of {role}, and the server has version {there}")]
    Moved {
        /// The role.
        role: String,
        /// The server's version.
        there: u64,
        /// The draft's.
        offered: u64,
    },
    /// Another digest was given than the draft's.
    #[error("what was given with --confirm does not begin the digest of what would be signed")]
    Confirm,
    /// A release counter that does not grow.
    #[error("release counter {offered} is not above {there}, the highest that is published")]
    Counter {
        /// Given.
        offered: ReleaseCounter,
        /// Published.
        there: ReleaseCounter,
    },
    /// The server's audit log is not what it should be.
    #[error("the server's audit log does not hold: {0}")]
    Audit(#[from] redan_protocol::audit::AuditFault),
    /// What was kept of an audit log.
    #[error("{path} does not read as the head of an audit log that was kept there")]
    Head {
        /// The file.
        path: String,
    },
    /// Policy refuses.
    #[error("the policy denies the component; see above")]
    Denied(Code),
}

impl From<TufError> for CliError {
    fn from(error: TufError) -> Self {
        match error {
            TufError::Unlisted { role } => Self::Unlisted { role },
            error => Self::Metadata(error),
        }
    }
}

impl CliError {
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            what: error.to_string(),
        }
    }

    /// The code's name.
    pub fn because(&self) -> &'static str {
        match self {
            Self::Usage { .. } | Self::Answer(_) => Code::BadRequest.name(),
            Self::File { .. } => Code::DiskFailed.name(),
            Self::Server(problem) => problem.code.name(),
            Self::Connection { source, .. } => source.code().name(),
            Self::Unreachable { .. } => Code::Unreachable.name(),
            Self::Metadata(error) => error.code().name(),
            Self::Policy(_) => Code::PolicyInvalid.name(),
            Self::Publish(error) => error.code().name(),
            Self::Identity(error) | Self::Operator { source: error, .. } => error.code().name(),
            Self::Key { .. } | Self::Short { .. } => Code::ThresholdNotMet.name(),
            Self::SignedAlready { .. } | Self::Moved { .. } => Code::Conflict.name(),
            Self::Draft { .. } => Code::MetadataInvalid.name(),
            Self::Confirm | Self::Unlisted { .. } => Code::NotAuthorised.name(),
            Self::Counter { .. } => Code::CounterNotGrowing.name(),
            Self::Crl(fault) => fault.code().name(),
            Self::Audit(fault) => fault.code().name(),
            Self::Head { .. } => Code::HeadUnreadable.name(),
            Self::Denied(code) => code.name(),
        }
    }

    /// What to do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Usage { remedy, .. } => remedy,
            Self::File { .. } => "check that the file exists and may be read or written",
            Self::Server(problem) => problem.code.remedy(),
            Self::Answer(_) => "use a server of this version",
            Self::Connection { source, .. } => source.code().remedy(),
            Self::Unreachable { .. } => Code::Unreachable.remedy(),
            Self::Metadata(error) => error.code().remedy(),
            Self::Unlisted { .. } => {
                "check the name in the ask; a new component is delegated first: redan-ceremony delegate --component PUBLISHER/NAME \
                 (docs/ceremony.md)"
            }
            Self::Policy(error) => error.remedy(),
            Self::Publish(error) => error.remedy(),
            Self::Identity(error) => error.remedy(),
            Self::Operator {
                source: IdentityError::NotNow { .. },
                ..
            } => "have a custodian make a new one: redan-ceremony issue --operator NAME …",
            Self::Operator { source, .. } => source.remedy(),
            Self::Key { .. } => {
                "name the key files of the role's holders with --key, and of one of snapshot; with too few of them, leave the rest to other \
                 holders: --draft FILE"
            }
            Self::Short { .. } => "have another holder sign it: redan draft sign",
            Self::SignedAlready { .. } => "name each holder's key once; another holder has to sign",
            Self::Draft { .. } => "take another copy of the draft, or make it again: redan publish --draft",
            Self::Moved { .. } => {
                "somebody published in this role meanwhile; make the draft again over it: redan publish --draft"
            }
            Self::Confirm => {
                "run redan draft inspect, compare its payload_sha256 with the other signers', and give that"
            }
            Self::Counter { .. } => Code::CounterNotGrowing.remedy(),
            Self::Crl(_) => {
                "find out who made such a list, and make the next one from the one that is published; nothing was published"
            }
            Self::Audit(fault) => fault.code().remedy(),
            Self::Head { .. } => Code::HeadUnreadable.remedy(),
            Self::Denied(code) => code.remedy(),
        }
    }

    /// Exit code (style §5).
    pub fn exit(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::Policy(_) => 2,
            Self::File { .. }
            | Self::Connection { .. }
            | Self::Unreachable { .. }
            | Self::Publish(PublishError::File { .. })
            | Self::Identity(IdentityError::File { .. }) => 3,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_that_nobody_delegated_is_no_fault_of_the_server() {
        let role = "component.acme.greet".to_owned();
        let error = CliError::from(TufError::Unlisted { role });
        assert_eq!(
            error.to_string(),
            "nobody may sign component.acme.greet in this fleet: its custodians have not delegated it"
        );
        assert_eq!((error.because(), error.exit()), ("not-authorised", 1));
    }
}
