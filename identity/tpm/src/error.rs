//! Why a TPM does not do what it is asked.

use redan_protocol::Code;

/// What a TPM answered (TPM 2.0 Library, Part 2, 6.6): where it is not success.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResponseCode(pub u32);

impl ResponseCode {
    pub(crate) const RETRY: Self = Self(0x922);
    pub(crate) const YIELDED: Self = Self(0x908);
    pub(crate) const TESTING: Self = Self(0x90a);
    pub(crate) const NV_RATE: Self = Self(0x920);
    pub(crate) const NV_UNAVAILABLE: Self = Self(0x923);
    pub(crate) const LOCKOUT: Self = Self(0x921);
    pub(crate) const OBJECT_MEMORY: Self = Self(0x902);
    pub(crate) const SESSION_MEMORY: Self = Self(0x903);
    pub(crate) const MEMORY: Self = Self(0x904);
    pub(crate) const SESSION_HANDLES: Self = Self(0x905);
    pub(crate) const OBJECT_HANDLES: Self = Self(0x906);
    pub(crate) const INITIALIZE: Self = Self(0x100);
    pub(crate) const NV_DEFINED: Self = Self(0x14c);
    pub(crate) const HANDLE: Self = Self(0x08b);
    pub(crate) const AUTH_FAIL: Self = Self(0x08e);
    pub(crate) const BAD_AUTH: Self = Self(0x0a2);
    pub(crate) const INTEGRITY: Self = Self(0x09f);

    /// Without the number of the handle, session or parameter it is about (Part 2, 6.6.2: format one).
    pub(crate) const fn kind(self) -> Self {
        if self.0 & 0x80 == 0 {
            self
        } else {
            Self(self.0 & !0xf40)
        }
    }

    /// Whether the same command may be answered well in a moment.
    pub(crate) fn passes(self) -> bool {
        [
            Self::RETRY,
            Self::YIELDED,
            Self::TESTING,
            Self::NV_RATE,
            Self::NV_UNAVAILABLE,
            Self::OBJECT_MEMORY,
            Self::SESSION_MEMORY,
            Self::MEMORY,
            Self::SESSION_HANDLES,
            Self::OBJECT_HANDLES,
        ]
        .contains(&self)
    }

    const fn name(self) -> Option<&'static str> {
        Some(match self.kind() {
            Self::RETRY => "TPM_RC_RETRY",
            Self::YIELDED => "TPM_RC_YIELDED",
            Self::TESTING => "TPM_RC_TESTING",
            Self::NV_RATE => "TPM_RC_NV_RATE",
            Self::NV_UNAVAILABLE => "TPM_RC_NV_UNAVAILABLE",
            Self::LOCKOUT => "TPM_RC_LOCKOUT",
            Self::OBJECT_MEMORY => "TPM_RC_OBJECT_MEMORY",
            Self::SESSION_MEMORY => "TPM_RC_SESSION_MEMORY",
            Self::MEMORY => "TPM_RC_MEMORY",
            Self::SESSION_HANDLES => "TPM_RC_SESSION_HANDLES",
            Self::OBJECT_HANDLES => "TPM_RC_OBJECT_HANDLES",
            Self::INITIALIZE => "TPM_RC_INITIALIZE",
            Self::NV_DEFINED => "TPM_RC_NV_DEFINED",
            Self::HANDLE => "TPM_RC_HANDLE",
            Self::AUTH_FAIL => "TPM_RC_AUTH_FAIL",
            Self::BAD_AUTH => "TPM_RC_BAD_AUTH",
            Self::INTEGRITY => "TPM_RC_INTEGRITY",
            _ => return None,
        })
    }
}

impl std::fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({:#x})", self.0),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// Why a TPM does not sign, unseal or count.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TpmError {
    /// Not a name.
    #[error("not the name of a TPM, or of something in one: {0}")]
    Name(&'static str),
    /// What is there is no TPM.
    #[error("{path} is neither a character device nor a socket")]
    NoDevice {
        /// Where.
        path: String,
    },
    /// It cannot be opened, or broke off.
    #[error("the TPM at {path} cannot be talked to: {what}")]
    Missing {
        /// Where.
        path: String,
        /// What the system says.
        what: String,
    },
    /// It does not answer.
    #[error("the TPM at {path} did not answer {command} in time")]
    Silent {
        /// Where.
        path: String,
        /// What it was asked.
        command: &'static str,
    },
    /// It answered something that is no answer.
    #[error("the TPM at {path} gave no answer to {command}: {what}")]
    Nonsense {
        /// Where.
        path: String,
        /// What it was asked.
        command: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It said to come again, each time.
    #[error("the TPM at {path} is busy: it answers {command} with {answer} again and again")]
    Busy {
        /// Where.
        path: String,
        /// What it was asked.
        command: &'static str,
        /// What it answered last.
        answer: ResponseCode,
    },
    /// Somebody guessed at passwords in it.
    #[error("the TPM at {path} is locked, because somebody guessed at its passwords")]
    Locked {
        /// Where.
        path: String,
    },
    /// Its owner's password was set.
    #[error("the TPM at {path} wants the password of its owner for {command}")]
    Owner {
        /// Where.
        path: String,
        /// What it was asked.
        command: &'static str,
    },
    /// Made by another TPM, or by this one before it was cleared.
    #[error(
        "what is on this disk was made by another TPM than the one at {path}, or by it before it was cleared"
    )]
    Foreign {
        /// Where.
        path: String,
    },
    /// The number of the counter is somebody else's.
    #[error("index {index:#x} of the TPM at {path} is not a counter of this program")]
    Taken {
        /// Where.
        path: String,
        /// Which.
        index: u32,
    },
    /// It said no.
    #[error("the TPM at {path} refused {command}: {answer}")]
    Refused {
        /// Where.
        path: String,
        /// What it was asked.
        command: &'static str,
        /// What it answered.
        answer: ResponseCode,
    },
    /// The signature does not verify under the public half.
    #[error("what the TPM at {path} signed is not signed by the key it was asked for")]
    Mismatched {
        /// Where.
        path: String,
    },
}

impl TpmError {
    /// The code of the refusal.
    pub const fn code(&self) -> Code {
        match self {
            Self::Name(_) => Code::BadRequest,
            Self::NoDevice { .. } | Self::Missing { .. } | Self::Silent { .. } => Code::TpmMissing,
            Self::Foreign { .. } => Code::TpmForeign,
            Self::Locked { .. } | Self::Owner { .. } => Code::TpmLocked,
            Self::Nonsense { .. }
            | Self::Busy { .. }
            | Self::Taken { .. }
            | Self::Refused { .. }
            | Self::Mismatched { .. } => Code::TpmFailed,
        }
    }

    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Name(_) => "write tpm: and the whole path of the TPM's device, for example tpm:/dev/tpmrm0",
            Self::Busy { .. } => {
                "name the resource manager, /dev/tpmrm0: behind it programs do not take each other's room"
            }
            Self::Owner { .. } => {
                "have the owner's password of the TPM taken away (tpm2_changeauth -c owner); this program keeps none"
            }
            Self::Taken { .. } => "remove what is there, or give the device another name",
            other => other.code().remedy(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_known_by_its_kind_whatever_handle_or_parameter_it_is_about() {
        // About handle 1, parameter 1, session 1.
        for (answer, kind) in [
            (0x18b, ResponseCode::HANDLE),
            (0x1df, ResponseCode::INTEGRITY),
            (0x9a2, ResponseCode::BAD_AUTH),
            (0x922, ResponseCode::RETRY),
        ] {
            assert_eq!(ResponseCode(answer).kind(), kind, "{answer:#x}");
        }
        assert_eq!(ResponseCode(0x1df).to_string(), "TPM_RC_INTEGRITY (0x1df)");
        assert_eq!(ResponseCode(0x101).to_string(), "0x101");
        assert!(ResponseCode::RETRY.passes() && !ResponseCode(0x101).passes());
    }
}
