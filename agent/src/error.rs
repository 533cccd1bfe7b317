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
    /// Not written yet.
    #[error("this part of the agent is not there yet")]
    Unfinished,
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
            Self::Config { .. } => Code::PolicyInvalid,
            Self::Locked { .. } => Code::Conflict,
            Self::Unfinished => Code::Internal,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "stop the other agent, or give this one a state folder of its own",
            Self::Config { .. } => "correct the named line",
            Self::File { .. } | Self::Unfinished => self.code().remedy(),
        }
    }
}
