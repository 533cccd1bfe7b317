//! PINs: from a file of their owner's alone, or from a person. Wiped when dropped, and never shown.

use crate::TokenError;
use cryptoki::types::AuthPin;
use redan_protocol::Digest;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// Longest PIN, bytes: more than any token takes. Tripped by `a_pin_is_one_line_of_bounded_length`.
const PIN_LEN_MAX: usize = 255;

/// What opens a token.
#[derive(Clone, Eq, PartialEq)]
pub struct Pin(Zeroizing<String>);

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin(..)")
    }
}

impl Pin {
    /// Takes what was typed, without the end of the line.
    pub fn new(typed: &str) -> Result<Self, TokenError> {
        let text = typed.trim_end_matches(['\n', '\r']);
        if text.is_empty() || text.len() > PIN_LEN_MAX || text.contains(['\n', '\r', '\0']) {
            return Err(TokenError::PinForm);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Reads a file of one line that nobody else can read.
    pub(crate) fn read(path: &Path) -> Result<Self, TokenError> {
        let failed = |error: std::io::Error| TokenError::PinFile {
            path: path.display().to_string(),
            what: error.to_string(),
        };
        let file = File::open(path).map_err(failed)?;
        // Of the file that is open, not of whatever the path leads to a moment later.
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(TokenError::PinMode {
                path: path.display().to_string(),
                mode: mode & 0o7777,
            });
        }
        // Room for the whole and the end of its line: a buffer that grows leaves copies behind.
        let room = PIN_LEN_MAX.saturating_add(3);
        let mut text = Zeroizing::new(String::with_capacity(room));
        file.take(u64::try_from(room).unwrap_or(0))
            .read_to_string(&mut text)
            .map_err(failed)?;
        Self::new(&text)
    }

    pub(crate) fn secret(&self) -> AuthPin {
        AuthPin::from(self.0.as_str())
    }

    /// What stands for this PIN of this token in [`Refused`].
    fn mark(&self, token: &str) -> Digest {
        let text = Zeroizing::new(format!("{token}\n{}", self.0.as_str()));
        Digest::of(text.as_bytes())
    }
}

/// PINs that tokens refused in this process. A device that retries every few seconds must not lock its own token.
pub(crate) struct Refused(Mutex<BTreeSet<Digest>>);

pub(crate) static REFUSED: Refused = Refused(Mutex::new(BTreeSet::new()));

impl Refused {
    pub(crate) fn knows(&self, token: &str, pin: &Pin) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&pin.mark(token))
    }

    pub(crate) fn remember(&self, token: &str, pin: &Pin) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(pin.mark(token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_one_line_of_bounded_length() {
        for wrong in ["", "\n", "12\n34", "12\r34", "1\0", &"1".repeat(PIN_LEN_MAX + 1)] {
            assert_eq!(Pin::new(wrong).unwrap_err(), TokenError::PinForm, "{wrong:?}");
        }
        assert_eq!(Pin::new("1234\r\n").unwrap(), Pin::new("1234").unwrap());
        assert!(Pin::new(&"1".repeat(PIN_LEN_MAX)).is_ok());
    }

    #[test]
    fn a_pin_file_others_can_touch_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        std::fs::write(&path, "1234\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        for wrong in [0o640, 0o604, 0o620, 0o644] {
            mode(wrong);
            let refused = TokenError::PinMode {
                path: path.display().to_string(),
                mode: wrong,
            };
            assert_eq!(Pin::read(&path).unwrap_err(), refused);
        }
        mode(0o600);
        assert_eq!(Pin::read(&path).unwrap(), Pin::new("1234").unwrap());
        std::fs::write(&path, "1".repeat(PIN_LEN_MAX + 1)).unwrap();
        assert_eq!(Pin::read(&path).unwrap_err(), TokenError::PinForm);
    }

    #[test]
    fn a_pin_is_never_shown() {
        assert_eq!(format!("{:?}", Pin::new("1234").unwrap()), "Pin(..)");
    }

    #[test]
    fn a_refused_pin_is_remembered_for_its_token_alone() {
        let (one, two) = (Pin::new("1111").unwrap(), Pin::new("2222").unwrap());
        let refused = Refused(Mutex::new(BTreeSet::new()));
        refused.remember("a", &one);
        assert!(refused.knows("a", &one));
        assert!(!refused.knows("a", &two) && !refused.knows("b", &one));
    }
}
