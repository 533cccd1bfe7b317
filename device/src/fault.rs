//! Errors of the program, as people read them.

use redan_agent::AgentError;
use redan_channel::ChannelError;
use redan_jail::JailError;
use redan_protocol::Code;

/// Why a process of the device ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The jail.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// A channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A sibling that must not end did.
    #[error("the {0} process ended; every other process was stopped")]
    Ended(&'static str),
    /// The operating system.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// A sibling's own error, said by its own crate.
    #[error("{0}")]
    Sibling(String),
}

impl Fault {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    fn code(&self) -> Code {
        match self {
            Self::Agent(error) => error.code(),
            _ => Code::Internal,
        }
    }

    pub(crate) fn render(&self) -> String {
        let remedy = match self {
            Self::Agent(error) => error.remedy(),
            _ => "see the lines above; restart the device, and report it if it comes back",
        };
        format!("error: {self}\nbecause: {}\ntry: {remedy}\n", self.code())
    }

    /// Exit code (style §5).
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Agent(
                AgentError::Config { .. } | AgentError::Ceiling(_) | AgentError::NotEnrolled { .. },
            ) => 2,
            Self::Agent(
                AgentError::Voucher(_)
                | AgentError::Identity(_)
                | AgentError::Server { .. }
                | AgentError::Answer { .. },
            ) => 1,
            Self::Agent(_) | Self::System { .. } => 3,
            Self::Jail(_) | Self::Channel(_) | Self::Ended(_) | Self::Sibling(_) => 70,
        }
    }
}
