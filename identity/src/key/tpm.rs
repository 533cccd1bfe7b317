//! Keys of a TPM 2.0: it makes them and signs, and what is on the disk is of use to no other TPM (decision 21).

use super::KeyProvider;
use super::token::{SPKI_P256, ecdsa_sig_value};
use crate::error::IdentityError;
use redan_tpm::{Address, Blob, Key};
use std::sync::Arc;

/// A P-256 key of a TPM.
#[derive(Clone, Debug)]
pub struct TpmKey(Arc<Key>);

impl TpmKey {
    /// Makes one.
    pub fn generate(address: &Address) -> Result<Self, IdentityError> {
        Self::new(Key::generate(address)?)
    }

    /// One that was made before. The TPM is not asked until it signs.
    pub fn open(blob: Blob) -> Result<Self, IdentityError> {
        Self::new(Key::open(blob)?)
    }

    /// What brings it back.
    pub fn blob(&self) -> &Blob {
        self.0.blob()
    }

    fn new(key: Key) -> Result<Self, IdentityError> {
        let key = Self(Arc::new(key));
        crate::profile::rules::p256(&key.spki())?;
        Ok(key)
    }
}

impl KeyProvider for TpmKey {
    fn spki(&self) -> Vec<u8> {
        [SPKI_P256, self.0.public()].concat()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let signature = self.0.sign(message)?;
        let (r, s) = signature.split_at(32);
        Ok(ecdsa_sig_value(r, s))
    }

    fn share(&self) -> Arc<dyn KeyProvider> {
        Arc::new(self.clone())
    }
}

/// The blob in the first line of a text, not parsed; `None`: it holds something else.
pub fn blob_in(text: &str) -> Option<&str> {
    text.lines()
        .next()
        .map(str::trim)
        .filter(|line| Address::is(line))
}
