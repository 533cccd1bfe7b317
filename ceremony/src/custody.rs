//! How private keys are kept: under a passphrase of their holder, or plain; and the typing of passphrases without an echo.

use crate::error::CeremonyError;
use crate::present::bytes;
use redan_identity::key::write_private;
use redan_identity::{IdentityError, TokenKey, Zeroizing};
use redan_publish::wrap::{StillWrapped, Wrapped};
use redan_publish::{Passphrase, Pin, PublishError, SigningKey, TokenError, TokenUri};
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

const SEALED: &str = "redan.sealed/1";
/// Longest line read from a terminal, bytes.
const LINE_LEN_MAX: u64 = 4096;

/// How new private keys are kept.
#[derive(Debug)]
pub enum Custody {
    /// As they are. For keys that sign unattended, and for development.
    Plain,
    /// Under a passphrase: one for all holders, or one for each.
    Wrapped(Vec<Passphrase>),
}

impl Custody {
    /// The passphrase of a holder, counted from 1.
    fn of(&self, holder: u32) -> Result<Option<&Passphrase>, CeremonyError> {
        let Self::Wrapped(passphrases) = self else {
            return Ok(None);
        };
        let place = usize::try_from(holder).unwrap_or(usize::MAX).saturating_sub(1);
        let found = match passphrases.as_slice() {
            [one] => Some(one),
            several => several.get(place),
        };
        found.map(Some).ok_or(CeremonyError::Passphrases)
    }

    /// Writes a holder's signing key.
    pub fn save(&self, key: &SigningKey, holder: u32, path: &Path) -> Result<(), CeremonyError> {
        match self.of(holder)? {
            Some(passphrase) => key.save_wrapped(path, passphrase)?,
            None => key.save(path)?,
        }
        Ok(())
    }

    /// Writes a private text of another kind to `<name>`, or under the first holder's passphrase to `<name>.sealed`.
    pub fn save_text(&self, folder: &Path, name: &str, text: &str) -> Result<(), CeremonyError> {
        let Some(passphrase) = self.of(1)? else {
            return Ok(write_private(&folder.join(name), text.as_bytes())?);
        };
        let sealed = Sealed {
            schema: SEALED.into(),
            purpose: name.to_owned(),
            private: Wrapped::seal(passphrase, &about(name), text.as_bytes())?,
        };
        let bytes = serde_json::to_vec_pretty(&sealed).map_err(|_| CeremonyError::Bug)?;
        Ok(write_private(&folder.join(format!("{name}.sealed")), &bytes)?)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    schema: String,
    purpose: String,
    private: Wrapped,
}

fn about(purpose: &str) -> String {
    format!("{SEALED} {purpose}")
}

/// What opens keys: files, or a person at a terminal.
#[derive(Debug, Default)]
pub struct Opening {
    passphrases: Vec<Passphrase>,
}

impl Opening {
    /// Reads passphrase files.
    pub fn new(files: &[PathBuf]) -> Result<Self, CeremonyError> {
        let read: Result<_, _> = files.iter().map(|path| Passphrase::read(path)).collect();
        Ok(Self { passphrases: read? })
    }

    /// Opens a signing key, asking for its passphrase if none was given and somebody is there to ask.
    pub fn key(&self, path: &Path) -> Result<SigningKey, CeremonyError> {
        match SigningKey::open(path, &self.passphrases) {
            Err(PublishError::Wrapped { .. }) if somebody() => {
                let typed = ask(&format!("Passphrase of {}: ", path.display()))?;
                Ok(SigningKey::open(path, &[typed])?)
            }
            Err(PublishError::Token(TokenError::NoPin { .. })) if somebody() => {
                let uri = TokenUri::parse(path.to_str().unwrap_or_default()).map_err(PublishError::from)?;
                let pin = ask_pin(&uri)?;
                Ok(SigningKey::in_token(&uri, Some(pin))?)
            }
            opened => Ok(opened?),
        }
    }

    /// Makes a signing key in a token, or finds the one that is there.
    pub fn signing_token(&self, uri: &TokenUri, present: bool) -> Result<SigningKey, CeremonyError> {
        let get = |pin| {
            if present {
                SigningKey::in_token(uri, pin)
            } else {
                SigningKey::generate_in_token(uri, pin)
            }
        };
        match get(None) {
            Err(PublishError::Token(TokenError::NoPin { .. })) if somebody() => Ok(get(Some(ask_pin(uri)?))?),
            got => Ok(got?),
        }
    }

    /// Finds a key for a certificate in a token, or makes it there.
    pub fn identity_token(&self, uri: &TokenUri) -> Result<TokenKey, CeremonyError> {
        match TokenKey::open_or_generate(uri, None) {
            Err(IdentityError::Token(TokenError::NoPin { .. })) if somebody() => {
                Ok(TokenKey::open_or_generate(uri, Some(ask_pin(uri)?))?)
            }
            got => Ok(got?),
        }
    }

    /// Reads a private text, sealed or not.
    pub fn text(&self, path: &Path) -> Result<Zeroizing<String>, CeremonyError> {
        let named = || path.display().to_string();
        let malformed = || PublishError::Key { path: named() };
        let text = String::from_utf8(bytes(path)?).map_err(|_| malformed())?;
        let text = Zeroizing::new(text);
        if !text.trim_start().starts_with('{') {
            return Ok(text);
        }
        let sealed: Sealed = serde_json::from_str(&text).map_err(|_| malformed())?;
        if sealed.schema != SEALED {
            return Err(malformed().into());
        }
        let asked = if self.passphrases.is_empty() && somebody() {
            vec![ask(&format!("Passphrase of {}: ", path.display()))?]
        } else {
            Vec::new()
        };
        let mut outcome = Err(PublishError::Wrapped { path: named() });
        for passphrase in self.passphrases.iter().chain(&asked) {
            outcome = sealed
                .private
                .open(passphrase, &about(&sealed.purpose))
                .map_err(|still| match still {
                    StillWrapped::Passphrase => PublishError::Passphrase { path: named() },
                    StillWrapped::Form => malformed(),
                });
            if outcome.is_ok() {
                break;
            }
        }
        let bytes = outcome?;
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}

/// New passphrases: from files, or typed twice each by `holders` people.
pub fn choose(files: &[PathBuf], holders: u32) -> Result<Custody, CeremonyError> {
    let mut chosen = Vec::new();
    if files.is_empty() {
        if !somebody() {
            return Err(CeremonyError::NoPassphrase);
        }
        for holder in 1..=holders {
            let first = ask(&format!("New passphrase of holder {holder} of {holders}: "))?;
            if !first.same(&ask("The same again: ")?) {
                return Err(CeremonyError::Mistyped);
            }
            chosen.push(first);
        }
    } else {
        for path in files {
            chosen.push(Passphrase::read(path)?);
        }
        let count = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
        if count != 1 && count != holders {
            return Err(CeremonyError::Passphrases);
        }
    }
    for passphrase in &chosen {
        passphrase.strong()?;
    }
    Ok(Custody::Wrapped(chosen))
}

/// Whether a person can be asked.
pub fn somebody() -> bool {
    isatty(std::io::stdin())
}

/// Asks for a line that is shown while it is typed.
pub fn ask_openly(words: &str) -> Result<String, CeremonyError> {
    drop(std::io::stderr().write_all(words.as_bytes()));
    line().map(|line| line.trim().to_owned())
}

fn ask(words: &str) -> Result<Passphrase, CeremonyError> {
    Ok(Passphrase::new(&ask_silently(words)?)?)
}

fn ask_pin(uri: &TokenUri) -> Result<Pin, CeremonyError> {
    let typed = ask_silently(&format!("PIN of token {}: ", uri.token()))?;
    Ok(Pin::new(&typed).map_err(PublishError::from)?)
}

fn ask_silently(words: &str) -> Result<Zeroizing<String>, CeremonyError> {
    let stdin = std::io::stdin();
    let terminal = |error: rustix::io::Errno| CeremonyError::file(Path::new("the terminal"), &error.into());
    let before = tcgetattr(&stdin).map_err(terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(terminal)?;
    drop(std::io::stderr().write_all(words.as_bytes()));
    let typed = line();
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(terminal);
    drop(std::io::stderr().write_all(b"\n"));
    restored?;
    typed
}

fn line() -> Result<Zeroizing<String>, CeremonyError> {
    use std::io::Read as _;
    let mut line = Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .take(LINE_LEN_MAX)
        .read_line(&mut line)
        .map_err(|error| CeremonyError::file(Path::new("standard input"), &error))?;
    Ok(line)
}

/// Refuses a purpose that cannot be a file's name.
fn hold_purpose(purpose: &str) -> Result<(), CeremonyError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    if purpose.is_empty() || purpose.len() > 200 || !purpose.chars().all(plain) || purpose.starts_with('.') {
        return Err(CeremonyError::Purpose);
    }
    Ok(())
}

/// A holder's first command: their folder may not be there yet.
fn make_folder(folder: &Path) -> Result<(), CeremonyError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| CeremonyError::file(folder, &error))
}

/// Makes a key in a token, or with `present` finds the one that is there, and writes its public half for a request. It is for what
/// its label says.
pub fn make_in_token(
    uri: &TokenUri,
    present: bool,
    opening: &Opening,
    folder: &Path,
) -> Result<PathBuf, CeremonyError> {
    hold_purpose(uri.object())?;
    make_folder(folder)?;
    let public = folder.join(format!("{}.public.json", uri.object()));
    // Before the token is touched: a key nobody has the public half of is of no use.
    if public.symlink_metadata().is_ok() {
        return Err(CeremonyError::Exists {
            path: public.display().to_string(),
        });
    }
    opening.signing_token(uri, present)?.save_public(&public)?;
    Ok(public)
}

/// Makes a key for a purpose in a folder, made if need be: the private half for its holder, the public half for a request.
pub fn make(purpose: &str, custody: &Custody, folder: &Path) -> Result<(PathBuf, PathBuf), CeremonyError> {
    hold_purpose(purpose)?;
    make_folder(folder)?;
    let key = SigningKey::generate(purpose)?;
    let private = folder.join(format!("{purpose}.key.json"));
    let public = folder.join(format!("{purpose}.public.json"));
    for path in [&private, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(CeremonyError::Exists {
                path: path.display().to_string(),
            });
        }
    }
    custody.save(&key, 1, &private)?;
    key.save_public(&public)?;
    Ok((private, public))
}

/// The same key under another passphrase, in another file.
pub fn rewrap(key: &SigningKey, custody: &Custody, out: &Path) -> Result<(), CeremonyError> {
    if out.symlink_metadata().is_ok() {
        return Err(CeremonyError::Exists {
            path: out.display().to_string(),
        });
    }
    custody.save(key, 1, out)
}
