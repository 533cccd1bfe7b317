//! Modules, slots, sessions: from a URI to a session that is logged in.

use crate::pin::{Pin, REFUSED};
use crate::{Fault, TokenError, Uri};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Modules this process has loaded. Never unloaded: others of its threads may be inside.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// Whether keys are to be made or removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    Sign,
    Change,
}

/// A session that is logged in, and where.
pub(crate) struct Opened {
    pub(crate) session: Session,
    module: Pkcs11,
    slot: Slot,
}

impl Opened {
    /// Opens the URI's token.
    pub(crate) fn open(uri: &Uri, pin: Option<&Pin>, access: Access) -> Result<Self, TokenError> {
        let module = module(uri)?;
        let (slot, info) = find(&module, uri)?;
        let opened = match access {
            Access::Sign => module.open_ro_session(slot),
            Access::Change => module.open_rw_session(slot),
        };
        let session = opened.map_err(|error| failed(uri, "opening a session", &error))?;
        if info.login_required() {
            log_in(&session, uri, &info, pin)?;
        }
        Ok(Self {
            session,
            module,
            slot,
        })
    }

    /// Refuses a token that lacks a mechanism: what it says when it is used anyway is every maker's own.
    pub(crate) fn offers(
        &self,
        uri: &Uri,
        mechanism: MechanismType,
        name: &'static str,
    ) -> Result<(), TokenError> {
        let offered = self.module.get_mechanism_list(self.slot);
        let offered = offered.map_err(|error| failed(uri, "reading its mechanisms", &error))?;
        if offered.contains(&mechanism) {
            return Ok(());
        }
        Err(TokenError::Mechanism {
            token: uri.token().to_owned(),
            mechanism: name,
        })
    }
}

/// Loads and starts the module, once.
fn module(uri: &Uri) -> Result<Pkcs11, TokenError> {
    let path = || uri.module().display().to_string();
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let module = if let Some(module) = modules.get(uri.module()) {
        module.clone()
    } else {
        let loaded = Pkcs11::new(uri.module()).map_err(|error| match error {
            Error::Pkcs11(..) => TokenError::Module {
                path: path(),
                fault: Fault::from(&error),
            },
            other => TokenError::NoModule {
                path: path(),
                what: other.to_string(),
            },
        })?;
        modules.insert(uri.module().to_owned(), loaded.clone());
        loaded
    };
    // Again and again: a module that was finalised by whom it shares the process with is started anew.
    let threads = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    match module.initialize(threads) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(module),
        Err(error) => Err(TokenError::Module {
            path: path(),
            fault: Fault::from(&error),
        }),
    }
}

fn find(module: &Pkcs11, uri: &Uri) -> Result<(Slot, TokenInfo), TokenError> {
    let slots = module.get_slots_with_token();
    let slots = slots.map_err(|error| failed(uri, "listing slots", &error))?;
    let mut found = Vec::new();
    for slot in slots {
        // One slot that does not answer hides no other.
        let Ok(info) = module.get_token_info(slot) else {
            continue;
        };
        let serial = uri.serial().is_none_or(|serial| serial == info.serial_number());
        if info.token_initialized() && info.label() == uri.token() && serial {
            found.push((slot, info));
        }
    }
    let count = found.len();
    match (found.pop(), count) {
        (Some(one), 1) => Ok(one),
        (None, _) => Err(TokenError::NoToken {
            token: uri.token().to_owned(),
            path: uri.module().display().to_string(),
        }),
        _ => Err(TokenError::Tokens {
            token: uri.token().to_owned(),
            found: count,
        }),
    }
}

/// Logs in with a PIN from the URI's file, or with the one that was typed.
fn log_in(session: &Session, uri: &Uri, info: &TokenInfo, typed: Option<&Pin>) -> Result<(), TokenError> {
    let token = || uri.token().to_owned();
    let logged_in = |error: &Error| matches!(error, Error::Pkcs11(RvError::UserAlreadyLoggedIn, _));
    may_try(
        uri,
        info.user_pin_locked(),
        info.user_pin_final_try(),
        typed.is_some(),
    )?;
    // A keypad of its own (PKCS#11 3.1 §5.6.8).
    if info.protected_authentication_path() {
        return match session.login(UserType::User, None) {
            Err(error) if !logged_in(&error) => Err(failed(uri, "logging in", &error)),
            _ => Ok(()),
        };
    }
    let read = match (typed, uri.pin()) {
        (Some(pin), _) => pin.clone(),
        (None, Some(path)) => Pin::read(path)?,
        (None, None) => return Err(TokenError::NoPin { token: token() }),
    };
    let which = format!("{}/{}", info.serial_number(), info.label());
    if REFUSED.knows(&which, &read) {
        return Err(TokenError::PinAgain { token: token() });
    }
    let error = match session.login(UserType::User, Some(&read.secret())) {
        Err(error) if !logged_in(&error) => error,
        _ => return Ok(()),
    };
    match error {
        Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid, _) => {
            REFUSED.remember(&which, &read);
            Err(TokenError::Pin { token: token() })
        }
        Error::Pkcs11(RvError::PinLocked, _) => Err(TokenError::Locked { token: token() }),
        error => Err(failed(uri, "logging in", &error)),
    }
}

/// Whether a PIN may be sent, by what the token says of its tries. The last one is a person's: a service that starts again and again
/// would lock the token for good.
fn may_try(uri: &Uri, locked: bool, last: bool, person: bool) -> Result<(), TokenError> {
    let token = || uri.token().to_owned();
    if locked {
        return Err(TokenError::Locked { token: token() });
    }
    if last && !person {
        return Err(TokenError::LastTry { token: token() });
    }
    Ok(())
}

pub(crate) fn failed(uri: &Uri, doing: &'static str, error: &Error) -> TokenError {
    TokenError::Failed {
        token: uri.token().to_owned(),
        doing,
        fault: Fault::from(error),
    }
}

/// Whether an error says that the session, or what it knew, is gone.
pub(crate) fn lost(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::UserNotLoggedIn
                | RvError::CryptokiNotInitialized
                | RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid
                | RvError::DeviceRemoved
                | RvError::TokenNotPresent,
            _
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_token_is_asked_nothing_and_the_last_try_is_not_spent_on_a_file() {
        let uri = Uri::parse("pkcs11:token=t;object=o?module-path=/m").unwrap();
        let last = TokenError::LastTry { token: "t".into() };
        assert_eq!(may_try(&uri, false, true, false).unwrap_err(), last);
        assert_eq!(last.code().name(), "token-pin");
        for (last, person) in [(true, true), (false, false), (false, true)] {
            assert_eq!(may_try(&uri, false, last, person), Ok(()));
            let locked = TokenError::Locked { token: "t".into() };
            assert_eq!(may_try(&uri, true, last, person).unwrap_err(), locked);
            assert_eq!(locked.code().name(), "token-locked");
        }
    }
}
