//! The next key and certificate on disk, until they take the place of the present ones.
//!
//! ```text
//! nothing ──make_key──▶ key ──keep_chain──▶ key, chain ──take_place──▶ nothing
//!    ▲                   │                      │
//!    └───────────────────┴───────forget─────────┘
//! ```
//!
//! `identity/next/{key,chain}.pem`. Each arrow may be cut by the power at any call. [`settle`] reads what is there, finishes what had
//! begun, and leaves one of the three states. The present key and chain are whole in each of them.
//!
//! With a whole next pair the agent speaks as the next one and no longer as the present one: whether the server has heard the next
//! key already is not known after a power cut, and if it has, the present key would raise the clone alarm.
//!
//! A device whose key is in a token gets the next one in the same token, and these files hold names. Names are durable before keys are
//! made and after they are destroyed, so that no key is in the token that no file names: `identity/replaced` names the one whose
//! place was taken, until it is gone.
//!
//! A device whose key is of a TPM gets the next one from the same TPM. Nothing of it stays there: these files hold all there is of it,
//! and what they held is gone with them.

use crate::AgentError;
use crate::disk::{Disk, replace};
use crate::held::{DeviceKey, Vault, line, no_such_key, successor, token_of, tpm_of};
use redan_identity::profile::presented_spki;
use redan_identity::{KeyFile, KeyProvider as _, Zeroizing, pem};
use redan_protocol::ByteCount;
use rustls_pki_types::CertificateDer;
use std::io;
use std::path::{Path, PathBuf};

/// Largest file here, bytes: a chain of a few certificates.
const FILE_LEN_MAX: ByteCount = ByteCount::kib(64);

/// How far a renewal has come.
#[derive(Debug)]
pub(crate) enum Next {
    /// There is none.
    Nothing,
    /// Its key is made. The server may know it already.
    Key(DeviceKey),
    /// Its certificate is here as well.
    Whole(DeviceKey, Vec<CertificateDer<'static>>),
}

/// Reads what is there, and finishes or clears what a power cut left half done.
pub(crate) fn settle(disk: &impl Disk, vault: &impl Vault, identity: &Path) -> Result<Next, AgentError> {
    let Some(key) = read_key(disk, vault, &key_path(identity))? else {
        forget(disk, vault, identity)?;
        sweep(disk, vault, identity)?;
        return Ok(Next::Nothing);
    };
    let present = read_key(disk, vault, &identity.join("key.pem"))?;
    let taking_place = present.is_some_and(|present| present.spki_sha256() == key.spki_sha256());
    let chain = read(disk, &chain_path(identity))?;
    let chain = chain.and_then(|text| pem::read_chain(&text).ok());
    let own = |chain: &Vec<CertificateDer<'_>>| {
        let spki = chain.first().map(presented_spki);
        matches!(spki, Some(Ok(spki)) if spki == key.spki_sha256())
    };
    match chain.filter(own) {
        Some(chain) if taking_place => {
            take_place(disk, vault, identity, &key, &chain)?;
            Ok(Next::Nothing)
        }
        Some(chain) => Ok(Next::Whole(key, chain)),
        // The key was copied and the chain is gone: all that was left to do was to clear up.
        None if taking_place => {
            clear(disk, identity)?;
            sweep(disk, vault, identity)?;
            Ok(Next::Nothing)
        }
        None => Ok(Next::Key(key)),
    }
}

/// Makes the next key. It is durable before the server hears of it: a certificate without its key would be lost.
pub(crate) fn make_key(
    disk: &impl Disk,
    vault: &impl Vault,
    identity: &Path,
) -> Result<DeviceKey, AgentError> {
    let path = key_path(identity);
    let present = read(disk, &identity.join("key.pem"))?;
    if let Some(present) = present
        .as_deref()
        .map(|text| token_of(text))
        .transpose()?
        .flatten()
    {
        let uri = successor(&present)?;
        put(disk, &path, line(&uri).as_bytes())?;
        synced(disk, identity)?;
        return DeviceKey::make(vault, &uri);
    }
    let tpm = present.as_deref().map(|present| tpm_of(present)).transpose()?;
    let key = match tpm.flatten() {
        Some(address) => DeviceKey::make_in_tpm(&address)?,
        None => KeyFile::generate()?.into(),
    };
    // The folder itself may be new.
    put(disk, &path, key.text().as_bytes())?;
    synced(disk, identity)?;
    Ok(key)
}

/// Keeps the certificate of the next key.
pub(crate) fn keep_chain(
    disk: &impl Disk,
    identity: &Path,
    chain: &[CertificateDer<'_>],
) -> Result<(), AgentError> {
    put(disk, &chain_path(identity), pem::write_chain(chain).as_bytes())
}

/// Puts another certificate of the present key in the place of the one there is.
pub(crate) fn replace_chain(
    disk: &impl Disk,
    identity: &Path,
    chain: &[CertificateDer<'_>],
) -> Result<(), AgentError> {
    put(
        disk,
        &identity.join("chain.pem"),
        pem::write_chain(chain).as_bytes(),
    )
}

/// Puts the next pair in the place of the present one. Only once the server has answered the next key: from then on it refuses the
/// present one.
pub(crate) fn take_place(
    disk: &impl Disk,
    vault: &impl Vault,
    identity: &Path,
    key: &DeviceKey,
    chain: &[CertificateDer<'_>],
) -> Result<(), AgentError> {
    let present = identity.join("key.pem");
    if let Some(old) = read(disk, &present)?
        && *old != *key.text()
        && token_of(&old)?.is_some()
    {
        put(disk, &replaced_path(identity), old.as_bytes())?;
    }
    // The key first: that both keys are the same is what tells `settle` to go on here.
    put(disk, &present, key.text().as_bytes())?;
    put(
        disk,
        &identity.join("chain.pem"),
        pem::write_chain(chain).as_bytes(),
    )?;
    clear(disk, identity)?;
    sweep(disk, vault, identity)
}

/// Gives up a next pair that the server does not know.
pub(crate) fn forget(disk: &impl Disk, vault: &impl Vault, identity: &Path) -> Result<(), AgentError> {
    let text = read(disk, &key_path(identity))?;
    let present = read(disk, &identity.join("key.pem"))?;
    if let Some(text) = text.filter(|text| present.as_deref() != Some(&**text))
        && let Ok(Some(uri)) = token_of(&text)
    {
        vault.destroy(&uri)?;
    }
    clear(disk, identity)
}

/// Destroys the key whose place was taken, if it was in a token. When that fails it is tried again at the next start or renewal:
/// the server refuses that key already.
fn sweep(disk: &impl Disk, vault: &impl Vault, identity: &Path) -> Result<(), AgentError> {
    let path = replaced_path(identity);
    let Some(old) = read(disk, &path)? else {
        return Ok(());
    };
    let present = read(disk, &identity.join("key.pem"))?;
    // Named before its place was taken, and then it was not.
    let in_place = present.is_none_or(|present| *present == *old);
    if !in_place
        && let Ok(Some(uri)) = token_of(&old)
        && let Err(error) = vault.destroy(&uri)
    {
        tracing::warn!(
            code = error.code().name(),
            "the key that was replaced is still in its token: {error}"
        );
        return Ok(());
    }
    let failed = |source| AgentError::file("remove", &path, source);
    disk.remove(&path).map_err(failed)?;
    synced(disk, identity)
}

fn clear(disk: &impl Disk, identity: &Path) -> Result<(), AgentError> {
    // The chain before the key: a chain alone would say nothing about whose it is.
    for path in [chain_path(identity), key_path(identity)] {
        let failed = |source| AgentError::file("remove", &path, source);
        if disk.read(&path, FILE_LEN_MAX).map_err(failed)?.is_some() {
            disk.remove(&path).map_err(failed)?;
            synced(disk, &identity.join("next"))?;
        }
    }
    Ok(())
}

fn key_path(identity: &Path) -> PathBuf {
    identity.join("next/key.pem")
}

fn replaced_path(identity: &Path) -> PathBuf {
    identity.join("replaced")
}

fn chain_path(identity: &Path) -> PathBuf {
    identity.join("next/chain.pem")
}

/// A key; `None` when there is none or it does not read: then it is of no use, and another one is made. A token that is not there now
/// is another matter: its key is of use as soon as it is.
fn read_key(disk: &impl Disk, vault: &impl Vault, path: &Path) -> Result<Option<DeviceKey>, AgentError> {
    let Some(text) = read(disk, path)? else {
        return Ok(None);
    };
    match DeviceKey::read(vault, &text) {
        Ok(key) => Ok(Some(key)),
        Err(error) if no_such_key(&error) => Ok(None),
        Err(error) if matches!(token_of(&text), Ok(Some(_))) => Err(error),
        Err(_) => Ok(None),
    }
}

fn read(disk: &impl Disk, path: &Path) -> Result<Option<Zeroizing<String>>, AgentError> {
    match disk.read(path, FILE_LEN_MAX) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(None),
        Err(source) => Err(AgentError::file("read", path, source)),
        Ok(bytes) => Ok(bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(Zeroizing::new)),
    }
}

fn put(disk: &impl Disk, path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    replace(disk, path, bytes).map_err(|source| AgentError::file("write", path, source))
}

fn synced(disk: &impl Disk, folder: &Path) -> Result<(), AgentError> {
    disk.sync_folder(folder)
        .map_err(|source| AgentError::file("write", folder, source))
}

#[cfg(test)]
mod tests;
