//! Errors of the program, as people read them.

use crate::restarts::RESTARTS_MAX;
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
    /// A sibling that must not end did, once too often to begin again.
    #[error(
        "the {0} process died, after everything was begun again {RESTARTS_MAX} times in ten minutes; every process was stopped"
    )]
    GaveUp(&'static str),
    /// The operating system.
    #[error("{what}")]
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
        // The chain, each cause once. What TOML says of a place in a file has several lines of its own.
        let mut chain = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            chain.push_str(": ");
            chain.push_str(error.to_string().trim_end());
            cause = error.source();
        }
        format!("error: {chain}\nbecause: {}\ntry: {remedy}\n", self.code())
    }

    /// Exit code (style §5).
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Agent(
                AgentError::NoConfig { .. }
                | AgentError::Config { .. }
                | AgentError::Ceiling(_)
                | AgentError::NotEnrolled { .. },
            ) => 2,
            Self::Agent(
                AgentError::Voucher(_)
                | AgentError::UnknownAuthority { .. }
                | AgentError::Token(_)
                | AgentError::Decommissioned { .. }
                | AgentError::Identity(_)
                | AgentError::Server { .. }
                | AgentError::Answer { .. }
                | AgentError::Recovery(_)
                | AgentError::Bundle(_)
                | AgentError::NotLost
                | AgentError::Unasked
                | AgentError::Lost,
            ) => 1,
            Self::Agent(_) | Self::System { .. } => 3,
            Self::Jail(_) | Self::Channel(_) | Self::GaveUp(_) | Self::Sibling(_) => 70,
        }
    }
}
