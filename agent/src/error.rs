//! Why the agent could not do what it was asked, grouped by who is at fault.

use redan_protocol::Code;
use std::path::{Path, PathBuf};

/// An error of the agent. [`Self::code`] is what leaves the process.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file of the device.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// No configuration file.
    #[error("cannot read the configuration {}", path.display())]
    NoConfig {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A configuration file does not read.
    #[error("{} is not a valid configuration", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        source: Box<toml::de::Error>,
    },
    /// Another agent runs on this state folder.
    #[error("another agent runs on {}", state.display())]
    Locked {
        /// The folder.
        state: PathBuf,
    },
    /// The device ceiling does not read.
    #[error("the device ceiling is not valid: {0}")]
    Ceiling(redan_policy::PolicyError),
    /// The voucher is not for this device, or not whole.
    #[error("the voucher cannot be used: {0}")]
    Voucher(&'static str),
    /// A device that has a key already is told to use another.
    #[error("the device has another key already, named in {}", path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
    },
    /// A voucher of an authority that the device's fleet does not list.
    #[error(
        "the voucher is of authority {authority}, which the newest root this device has verified does not list"
    )]
    UnknownAuthority {
        /// SHA-256 of its certificate.
        authority: redan_protocol::Digest,
    },
    /// The join token is not one, or not for this device.
    #[error("the join token cannot be used: {0}")]
    Token(&'static str),
    /// A key or certificate.
    #[error(transparent)]
    Identity(#[from] redan_identity::IdentityError),
    /// The control server could not be talked to.
    #[error("the control server {server} could not be reached")]
    Server {
        /// Where it should be.
        server: String,
        /// Why.
        code: Code,
    },
    /// The control server said no.
    #[error("the control server answered with status {status}")]
    Answer {
        /// The HTTP status.
        status: u16,
        /// The code in its answer, if it gave one.
        code: Code,
        /// When it would answer better, if it said so.
        wait: Option<std::time::Duration>,
    },
    /// The state folder has no identity yet.
    #[error("the device in {} is not enrolled", state.display())]
    NotEnrolled {
        /// The folder.
        state: PathBuf,
    },
    /// The document does not bring this device back.
    #[error("the recovery is refused")]
    Recovery(#[from] redan_trust::recovery::RecoveryError),
    /// What was carried to the device is not followed.
    #[error("the bundle is refused")]
    Bundle(Code),
    /// There is a valid trust record.
    #[error("the device has its trust record")]
    NotLost,
    /// No request waits for an answer.
    #[error("this device waits for no recovery")]
    Unasked,
    /// The device was enrolled, and its trust record is gone.
    #[error("the device was enrolled before, and its trust record is gone")]
    Lost,
    /// The policy signers ended this device; what it kept is gone.
    #[error(
        "this device was {id} and was decommissioned by the fleet's policy signers: its keys, workloads, data and trust record in {} are gone",
        state.display()
    )]
    Decommissioned {
        /// The folder.
        state: PathBuf,
        /// Who it was.
        id: redan_protocol::SpiffeId,
    },
    /// No agent answers on the admin socket.
    #[error("no agent runs on {}", state.display())]
    NotRunning {
        /// The folder.
        state: PathBuf,
    },
    /// A listening address of the ceiling cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's word.
        source: std::io::Error,
    },
    /// A sibling process does not talk as it should.
    #[error("the channel to the {with} broke")]
    Channel {
        /// Which process.
        with: &'static str,
        /// How.
        source: redan_channel::ChannelError,
    },
    /// The kernel refused something a process always gets.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
}

impl AgentError {
    pub(crate) fn file(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// The code that tells people and scripts which rule said no.
    pub fn code(&self) -> Code {
        match self {
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Code::DiskFull,
            Self::File { .. } => Code::DiskFailed,
            Self::NoConfig { .. } | Self::Config { .. } => Code::BadRequest,
            Self::Ceiling(_) => Code::PolicyInvalid,
            Self::Locked { .. } | Self::Listen { .. } | Self::OtherKey { .. } => Code::Conflict,
            Self::Voucher(_) | Self::NotEnrolled { .. } => Code::VoucherInvalid,
            Self::Token(_) => Code::TokenInvalid,
            Self::UnknownAuthority { .. } => Code::AuthorityRevoked,
            Self::Identity(error) => error.code(),
            Self::Server { code, .. } | Self::Answer { code, .. } | Self::Bundle(code) => *code,
            Self::NotRunning { .. } => Code::Unreachable,
            Self::Recovery(error) => error.code(),
            Self::NotLost => Code::RecoveryNotNeeded,
            Self::Unasked => Code::RecoveryUnasked,
            Self::Lost => Code::StateLost,
            Self::Decommissioned { .. } => Code::Decommissioned,
            Self::Channel { .. } | Self::System { .. } => Code::Internal,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "stop the other agent, or give this one a state folder of its own",
            Self::NoConfig { .. } => {
                "name the device's configuration with --config; docs/device.md shows one"
            }
            Self::Config { .. } => "correct the named line; docs/device.md lists every key",
            Self::Ceiling(error) => error.remedy(),
            Self::NotEnrolled { .. } => {
                "run `redan-device init`, have the device admitted, then `redan-device enrol`"
            }
            Self::OtherKey { .. } => {
                "leave --key out, or give the device a new state folder and enrol it anew"
            }
            Self::Identity(error) => error.remedy(),
            Self::UnknownAuthority { .. } => {
                "have the voucher made anew; if the fleet's CA was changed while this device was off, first start it and bring it `redan bundle --authorities` with `redan-device apply`"
            }
            Self::NotRunning { .. } => "start it with `redan-device run`",
            Self::Bundle(code) => bundle_remedy(*code),
            Self::Listen { .. } => "free the address, or name another one in the ceiling's [listen]",
            Self::File { .. }
            | Self::Decommissioned { .. }
            | Self::Voucher(_)
            | Self::Token(_)
            | Self::Server { .. }
            | Self::Answer { .. }
            | Self::Recovery(_)
            | Self::NotLost
            | Self::Unasked
            | Self::Lost
            | Self::Channel { .. }
            | Self::System { .. } => self.code().remedy(),
        }
    }
}

/// What to do about a bundle: who brought it has no server to look at.
fn bundle_remedy(code: Code) -> &'static str {
    match code {
        Code::WrongDevice => "bring this device the bundle that was written for it: `redan bundle --device`",
        Code::MetadataRollback => {
            "bring a newer bundle: this device has seen newer metadata than this one's, from a server or another bundle"
        }
        Code::DirectionReplayed => {
            "have release managers sign a direction with a higher sequence: this one was followed, or a newer one was"
        }
        Code::DirectionExpired | Code::MetadataExpired => {
            "have release managers sign again, and bring the new bundle"
        }
        Code::ThresholdNotMet | Code::MetadataInvalid => {
            "write the bundle again and compare: something in it was changed, or too few people signed it"
        }
        Code::ArtifactMissing | Code::DigestMismatch | Code::LengthMismatch => {
            "copy the whole bundle again, and check the medium: an artifact is missing or damaged"
        }
        other => other.remedy(),
    }
}
