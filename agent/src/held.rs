//! The device's key as its file holds it: the key itself, the name of one that stays in a PKCS#11 token, or what its TPM alone loads.

use crate::AgentError;
use crate::store::random;
use redan_identity::key::{blob_in, held, uri_in};
use redan_identity::tpm::{Address, Blob};
use redan_identity::{
    IdentityError, KeyFile, KeyProvider, TokenError, TokenKey, TokenUri, TpmKey, Zeroizing,
};
use std::sync::Arc;

/// Between the label a device's key was given and what tells its successors apart.
const SUCCESSOR: char = '~';

/// A key, with the text that brings it back after a restart.
#[derive(Clone, Debug)]
pub(crate) struct DeviceKey {
    text: Zeroizing<String>,
    key: Arc<dyn KeyProvider>,
}

/// What opens, makes and removes keys in tokens: the tokens, or a test's.
pub(crate) trait Vault {
    fn open(&self, uri: &TokenUri) -> Result<Arc<dyn KeyProvider>, IdentityError>;
    fn make(&self, uri: &TokenUri) -> Result<Arc<dyn KeyProvider>, IdentityError>;
    fn destroy(&self, uri: &TokenUri) -> Result<(), IdentityError>;
}

/// The tokens of this machine.
pub(crate) struct Tokens;

impl Vault for Tokens {
    fn open(&self, uri: &TokenUri) -> Result<Arc<dyn KeyProvider>, IdentityError> {
        Ok(Arc::new(TokenKey::open(uri, None)?))
    }

    fn make(&self, uri: &TokenUri) -> Result<Arc<dyn KeyProvider>, IdentityError> {
        Ok(Arc::new(TokenKey::generate(uri, None)?))
    }

    fn destroy(&self, uri: &TokenUri) -> Result<(), IdentityError> {
        TokenKey::destroy(uri)
    }
}

impl KeyProvider for DeviceKey {
    fn spki(&self) -> Vec<u8> {
        self.key.spki()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.key.sign(message)
    }

    fn share(&self) -> Arc<dyn KeyProvider> {
        self.key.share()
    }
}

impl From<KeyFile> for DeviceKey {
    fn from(key: KeyFile) -> Self {
        Self {
            text: key.to_pem(),
            key: Arc::new(key),
        }
    }
}

impl DeviceKey {
    /// The key a file's text holds; a token that is absent is an error, as is one that has no such key.
    pub(crate) fn read(vault: &impl Vault, text: &str) -> Result<Self, AgentError> {
        let key = match token_of(text)? {
            Some(uri) => vault.open(&uri)?,
            None => held(text)?,
        };
        Ok(Self {
            text: Zeroizing::new(text.to_owned()),
            key,
        })
    }

    /// A key in a token, made there.
    pub(crate) fn make(vault: &impl Vault, uri: &TokenUri) -> Result<Self, AgentError> {
        let key = vault.make(uri)?;
        Ok(Self { text: line(uri), key })
    }

    /// A key of a TPM, made there. Nothing of it stays in the TPM.
    pub(crate) fn make_in_tpm(address: &Address) -> Result<Self, AgentError> {
        let key = TpmKey::generate(address)?;
        Ok(Self {
            text: Zeroizing::new(format!("{}\n", key.blob())),
            key: Arc::new(key),
        })
    }

    /// What its file holds.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// What the file of a key in a token holds.
pub(crate) fn line(uri: &TokenUri) -> Zeroizing<String> {
    Zeroizing::new(format!("{uri}\n"))
}

/// The name of the key, when a text holds no more than that.
pub(crate) fn token_of(text: &str) -> Result<Option<TokenUri>, AgentError> {
    let parsed = uri_in(text).map(TokenUri::parse).transpose();
    Ok(parsed.map_err(IdentityError::from)?)
}

/// The TPM that a key is of, when a text holds what that TPM loads.
pub(crate) fn tpm_of(text: &str) -> Result<Option<Address>, AgentError> {
    let parsed = blob_in(text).map(Blob::parse).transpose();
    let parsed = parsed.map_err(IdentityError::from)?;
    Ok(parsed.map(|blob| blob.address().clone()))
}

/// Whether an error says that the token is there and the key is not.
pub(crate) fn no_such_key(error: &AgentError) -> bool {
    matches!(
        error,
        AgentError::Identity(IdentityError::Token(TokenError::NoKey { .. }))
    )
}

/// A name for the key that is to follow this one in its token: nobody has had it before.
pub(crate) fn successor(uri: &TokenUri) -> Result<TokenUri, AgentError> {
    let first = uri.object().split(SUCCESSOR).next().unwrap_or_default();
    let new = hex::encode(random::<8>()?);
    let sibling = uri.sibling(&format!("{first}{SUCCESSOR}{new}"));
    Ok(sibling.map_err(IdentityError::from)?)
}
