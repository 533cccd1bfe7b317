//! Building and signing TUF metadata.
//!
//! What it is: the makers' side. Ceremony and command line sign the release repository, the control server its timestamp and the
//! director repository of each device. `tough` and `redan-trust` read back everything that is built here, in tests.
//!
//! Whom it believes: the caller, who holds the keys.
//!
//! Invariants: `expires` is in whole seconds; no role names one public key twice; no file is signed twice by one key.
//!
//! Absent on purpose: verification (that is `redan-trust`'s), network, any key that is not handed in.
//!
//! Start reading at [`metadata`].
#![forbid(unsafe_code)]

pub mod component;
pub mod director;
pub mod key;
pub mod metadata;
pub mod wrap;

pub use director::{Directed, DirectorExpiry, DirectorFiles, DirectorKeys, director};
pub use key::{PublicKey, SigningKey};
pub use metadata::{Delegation, Profile, RootSpec, Signers};
pub use redan_token::{Pin, TokenError, Uri as TokenUri};
pub use wrap::Passphrase;

use redan_protocol::Code;
use std::path::Path;

/// Why nothing was built or signed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PublishError {
    /// A date beyond the calendar.
    #[error("the expiry date cannot be written")]
    Date,
    /// A threshold its keys cannot meet, or a public key twice.
    #[error("{keys} different keys cannot meet a threshold of {threshold}")]
    Threshold {
        /// Different keys.
        keys: usize,
        /// Wanted.
        threshold: u32,
    },
    /// One public key under two ids, or two under one.
    #[error("key id {id} does not stand for one public key alone, or its key has another id too")]
    KeyId {
        /// The id.
        id: String,
    },
    /// No key, or one twice.
    #[error("a file is signed by at least one key, and by each once")]
    Keys,
    /// A key file others can read.
    #[error("{path} can be read by others (mode {mode:o})")]
    KeyMode {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// Not a key file.
    #[error("{path} is not a key file of this version")]
    Key {
        /// The file.
        path: String,
    },
    /// A key file under a passphrase that was not given.
    #[error("{path} is wrapped with a passphrase, and none was given")]
    Wrapped {
        /// The file.
        path: String,
    },
    /// Another passphrase than the file was wrapped with.
    #[error("the passphrase does not open {path}")]
    Passphrase {
        /// The file.
        path: String,
    },
    /// A passphrase nobody can wrap or open anything with.
    #[error(
        "a passphrase is one line of at most {} bytes, and to wrap a key at least {} characters",
        crate::wrap::PASSPHRASE_LEN_MAX,
        crate::wrap::PASSPHRASE_CHARS_MIN
    )]
    PassphraseForm,
    /// Not a public key file.
    #[error("{path} is not a public key file of this version")]
    PublicKey {
        /// The file.
        path: String,
    },
    /// A key that only its token has, where a file of it is wanted.
    #[error("key {purpose} is in a token, and cannot be written to a file")]
    InToken {
        /// What it is for.
        purpose: String,
    },
    /// A key in a token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A file that cannot be read or written.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        what: String,
    },
    /// A component that is not admitted.
    #[error("{what}")]
    Component {
        /// Which rule.
        code: Code,
        /// What is wrong.
        what: String,
    },
    /// The cryptographic library refused: a bug or a broken machine.
    #[error("the cryptographic library failed")]
    Crypto,
}

impl PublishError {
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            what: error.to_string(),
        }
    }

    /// The code of the refusal.
    pub const fn code(&self) -> Code {
        match self {
            Self::Component { code, .. } => *code,
            Self::Date
            | Self::Threshold { .. }
            | Self::KeyId { .. }
            | Self::Keys
            | Self::Key { .. }
            | Self::PublicKey { .. }
            | Self::Wrapped { .. }
            | Self::InToken { .. }
            | Self::PassphraseForm => Code::BadRequest,
            Self::Token(error) => error.code(),
            Self::Passphrase { .. } => Code::NotAuthorised,
            Self::KeyMode { .. } | Self::File { .. } => Code::DiskFailed,
            Self::Crypto => Code::Internal,
        }
    }

    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Threshold { .. } => "name more keys, or a lower threshold",
            Self::KeyId { .. } => "name each public key by the one id its key file gives it",
            Self::Keys => "name each key once with --key",
            Self::KeyMode { .. } => "make the file readable by its owner alone: chmod 600",
            Self::Key { .. } => "name a file made by redan-ceremony",
            Self::PublicKey { .. } => "name a .public.json file made by redan-ceremony key",
            Self::Wrapped { .. } => {
                "name the file that holds its passphrase with --passphrase-file; a key that signs unattended is plain"
            }
            Self::Passphrase { .. } => {
                "give the passphrase this key was wrapped with; if it is right, the file was changed: take another copy"
            }
            Self::PassphraseForm => "write four or more random words in one line",
            Self::File { .. } => "check that the file exists and may be read or written",
            Self::InToken { .. } => {
                "a token keeps its keys: make another key in another token, and have it named beside this one"
            }
            Self::Token(error) => error.remedy(),
            other => other.code().remedy(),
        }
    }
}
