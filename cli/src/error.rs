//! What can go wrong, and what to do then.

use redan_identity::IdentityError;
use redan_identity::client::ClientError;
use redan_policy::PolicyError;
use redan_protocol::Code;
use redan_protocol::wire::Problem;
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
    Metadata(#[from] TufError),
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
    /// The audit log was tampered with.
    #[error("the audit log does not verify: {0}")]
    Audit(#[from] redan_protocol::audit::AuditFault),
    /// Policy refuses.
    #[error("the policy denies the component; see above")]
    Denied(Code),
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
            Self::Crl(fault) => fault.code().name(),
            Self::Key { .. } => Code::ThresholdNotMet.name(),
            Self::Audit(_) => "audit-tampered",
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
            Self::Policy(error) => error.remedy(),
            Self::Publish(error) => error.remedy(),
            Self::Identity(error) => error.remedy(),
            Self::Operator {
                source: IdentityError::NotNow { .. },
                ..
            } => "have a custodian make a new one: redan-ceremony issue --operator NAME …",
            Self::Operator { source, .. } => source.remedy(),
            Self::Crl(_) => "find out why the server makes such a list; nothing was published",
            Self::Key { .. } => "name the key files of the role's holders with --key",
            Self::Audit(_) => "keep a copy of the log and investigate the server",
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
