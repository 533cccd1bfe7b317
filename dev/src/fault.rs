//! Errors of the bench, as people read them.

use redan_policy::{Denied, PolicyError};
use redan_protocol::Code;
use std::path::Path;

/// Why a component was not run, or was cut off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// An option that makes no sense.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A document.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The three documents do not come to a grant.
    #[error("{0}")]
    Denied(Box<Denied>),
    /// The component is not admitted; says the interface, where one is to blame.
    #[error("{what}")]
    Refused {
        /// What is wrong with it.
        what: String,
        /// By which rule.
        code: Code,
    },
    /// The host ended the program.
    #[error("the program was ended")]
    Ended(Code),
    /// This machine.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a shell says of a program that a signal ended (128 + SIGABRT): no program's own status by custom.
const CUT_OFF: u8 = 134;

impl Fault {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }

    pub(crate) fn system<E>(what: &'static str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::System {
            what,
            source: Box::new(source),
        }
    }

    pub(crate) fn refused(code: Code) -> Self {
        Self::Refused {
            what: "the component is refused".to_owned(),
            code,
        }
    }

    pub(crate) fn render(&self) -> String {
        let (because, remedy) = match self {
            Self::Usage { remedy, .. } => (Code::BadRequest, (*remedy).to_owned()),
            Self::File { .. } => (
                Code::DiskFailed,
                "check that it exists and may be read or written".to_owned(),
            ),
            Self::Policy(error) => (Code::PolicyInvalid, error.remedy().to_owned()),
            Self::Denied(denied) => (denied.code(), denied.change()),
            Self::Refused { code, .. } | Self::Ended(code) => (*code, code.remedy().to_owned()),
            Self::System { .. } => (Code::Internal, "try again; report it if it comes back".to_owned()),
        };
        format!("error: {self}\nbecause: {because}\ntry: {remedy}\n")
    }

    /// Exit code (style §5); a program the host ended has none of its own.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::Policy(_) => 2,
            Self::Denied(_) | Self::Refused { .. } => 1,
            Self::File { .. } | Self::System { .. } => 3,
            Self::Ended(_) => CUT_OFF,
        }
    }
}
