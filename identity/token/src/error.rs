//! Why a key in a token does not sign.

use cryptoki::error::{Error, RvError};
use redan_protocol::Code;

/// What a module answered, by its name in PKCS#11.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// A return value of the standard.
    Returned(RvError),
    /// The module lacks a function, or answered something that is not of the standard.
    NotStandard,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // The name alone: its description is a paragraph.
            Self::Returned(returned) => write!(f, "{returned:?}"),
            Self::NotStandard => f.write_str("an answer that is not of the standard"),
        }
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        match error {
            Error::Pkcs11(returned, _) => Self::Returned(*returned),
            _ => Self::NotStandard,
        }
    }
}

/// Why a key in a token is not used. Nothing here says anything of a PIN.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// The URI does not read.
    #[error("the pkcs11: URI cannot be used: {0}")]
    Uri(&'static str),
    /// A PIN file others can read.
    #[error("{path} can be read by others (mode {mode:o})")]
    PinMode {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// A PIN file that cannot be read.
    #[error("{path}: {what}")]
    PinFile {
        /// The file.
        path: String,
        /// What the system says.
        what: String,
    },
    /// Not a PIN.
    #[error("a PIN is one line of 1 to 255 bytes")]
    PinForm,
    /// No PIN.
    #[error("token {token} wants a PIN, and none was given")]
    NoPin {
        /// Which token.
        token: String,
    },
    /// Another PIN than the token's.
    #[error("token {token} refused the PIN, and counts such tries")]
    Pin {
        /// Which token.
        token: String,
    },
    /// The same PIN was refused before; the token was not asked.
    #[error("token {token} refused this very PIN before; it was not tried again, because the token counts")]
    PinAgain {
        /// Which token.
        token: String,
    },
    /// One try is left, and nobody is there to take it.
    #[error("token {token} has one try for its PIN left, which is not spent on a PIN from a file")]
    LastTry {
        /// Which token.
        token: String,
    },
    /// Too many wrong PINs.
    #[error("token {token} is locked after too many wrong PINs")]
    Locked {
        /// Which token.
        token: String,
    },
    /// The module does not load.
    #[error("the PKCS#11 module {path} does not load: {what}")]
    NoModule {
        /// The file.
        path: String,
        /// What the loader says.
        what: String,
    },
    /// The module loads and does not start.
    #[error("the PKCS#11 module {path} does not start: {fault}")]
    Module {
        /// The file.
        path: String,
        /// What it answered.
        fault: Fault,
    },
    /// No such token.
    #[error("there is no token {token} in the slots of {path}")]
    NoToken {
        /// Which token.
        token: String,
        /// The module.
        path: String,
    },
    /// More than one token of that name.
    #[error("there are {found} tokens {token}")]
    Tokens {
        /// Which.
        token: String,
        /// How many.
        found: usize,
    },
    /// No such key.
    #[error("token {token} has no {what} {object}")]
    NoKey {
        /// Which token.
        token: String,
        /// The private or the public half.
        what: &'static str,
        /// Its label.
        object: String,
    },
    /// More than one key of that name.
    #[error("token {token} has {found} keys {object}")]
    Keys {
        /// Which token.
        token: String,
        /// Their label.
        object: String,
        /// How many.
        found: usize,
    },
    /// A key that is there already.
    #[error("token {token} has a key {object} already")]
    Exists {
        /// Which token.
        token: String,
        /// Its label.
        object: String,
    },
    /// A key of another kind.
    #[error("key {object} is not a {wanted} key")]
    Kind {
        /// Its label.
        object: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The token would give the key away.
    #[error("key {object} can be taken out of token {token}")]
    Extractable {
        /// Which token.
        token: String,
        /// Its label.
        object: String,
    },
    /// The token cannot make such signatures.
    #[error("token {token} does not offer {mechanism}")]
    Mechanism {
        /// Which token.
        token: String,
        /// By its name in the standard.
        mechanism: &'static str,
    },
    /// The session was lost, and could not be had again.
    #[error("the session with token {token} was lost while {doing}: {fault}")]
    Lost {
        /// Which token.
        token: String,
        /// What was tried.
        doing: &'static str,
        /// What the module answered.
        fault: Fault,
    },
    /// The token said no.
    #[error("token {token} failed while {doing}: {fault}")]
    Failed {
        /// Which token.
        token: String,
        /// What was tried.
        doing: &'static str,
        /// What the module answered.
        fault: Fault,
    },
    /// The signature does not verify under the public half.
    #[error("what token {token} signed is not signed by the public half of {object}")]
    Mismatched {
        /// Which token.
        token: String,
        /// Its label.
        object: String,
    },
}

impl TokenError {
    /// The code of the refusal.
    pub const fn code(&self) -> Code {
        match self {
            Self::Uri(_) => Code::TokenUri,
            Self::PinMode { .. } | Self::PinFile { .. } => Code::DiskFailed,
            Self::PinForm
            | Self::NoPin { .. }
            | Self::Pin { .. }
            | Self::PinAgain { .. }
            | Self::LastTry { .. } => Code::TokenPin,
            Self::Locked { .. } => Code::TokenLocked,
            Self::NoModule { .. } | Self::Module { .. } | Self::NoToken { .. } | Self::Tokens { .. } => {
                Code::TokenMissing
            }
            Self::NoKey { .. } | Self::Keys { .. } | Self::Kind { .. } => Code::TokenKeyMissing,
            Self::Exists { .. } => Code::TokenKeyExists,
            Self::Extractable { .. } => Code::TokenKeyExtractable,
            Self::Mechanism { .. } => Code::TokenMechanism,
            Self::Lost { .. } | Self::Failed { .. } | Self::Mismatched { .. } => Code::TokenFailed,
        }
    }

    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::PinMode { .. } => "make the file readable by its owner alone: chmod 600",
            Self::PinFile { .. } => "check that the file of pin-source= exists and may be read",
            Self::NoPin { .. } => {
                "name a file of mode 0600 with pin-source=file:/path, or run it at a terminal"
            }
            Self::Pin { .. } | Self::PinAgain { .. } => {
                "correct the PIN before anybody tries again: after a few wrong ones the token locks itself"
            }
            Self::LastTry { .. } => "log in to the token by hand with the right PIN; that resets its counter",
            Self::NoModule { .. } => {
                "name the module's file with module-path=, as the token's maker installs it"
            }
            Self::Module { .. } => {
                "check the module's own configuration; one that needs a socket or another program cannot be used in a ceremony, nor by a device"
            }
            Self::NoToken { .. } => {
                "check that the token is plugged in, and its label; a module that reaches tokens through a daemon shows none in a ceremony, which has no sockets"
            }
            Self::Tokens { .. } => "add serial= to the URI",
            Self::Keys { .. } => "add id= to the URI, or remove the key that is not meant",
            Self::Kind { .. } => "name a key made by redan-ceremony token-key, or by redan-device init",
            Self::Mismatched { .. } => {
                "the token holds a public half that is another key's, or is broken: make a new key"
            }
            other => other.code().remedy(),
        }
    }
}
