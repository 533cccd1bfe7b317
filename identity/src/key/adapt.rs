//! A [`KeyProvider`] as rustls and rcgen want to see a key.

use super::KeyProvider;
use crate::error::{IdentityError, ProfileFault};
use crate::profile::presented_spki;
use crate::profile::rules::p256_point;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use std::sync::Arc;

/// Key and chain for a handshake; they must belong together.
pub(crate) fn for_tls(
    key: &dyn KeyProvider,
    chain: Vec<CertificateDer<'static>>,
) -> Result<Arc<CertifiedKey>, IdentityError> {
    let leaf = chain.first().ok_or(ProfileFault::ChainLength)?;
    if presented_spki(leaf)? != key.spki_sha256() {
        return Err(IdentityError::KeyMismatch);
    }
    Ok(Arc::new(CertifiedKey::new(
        chain,
        Arc::new(ForHandshakes(key.share())),
    )))
}

#[derive(Clone, Debug)]
struct ForHandshakes(Arc<dyn KeyProvider>);

impl SigningKey for ForHandshakes {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        ours.then(|| Box::new(self.clone()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl From<Box<ForHandshakes>> for Box<dyn Signer> {
    fn from(key: Box<ForHandshakes>) -> Self {
        key
    }
}

impl Signer for ForHandshakes {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let failed = |error: IdentityError| rustls::Error::Other(rustls::OtherError(Arc::new(error)));
        self.0.sign(message).map_err(failed)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// For certificates and certificate requests.
pub(crate) struct ForCertificates<'a> {
    key: &'a dyn KeyProvider,
    point: Vec<u8>,
}

impl<'a> ForCertificates<'a> {
    pub(crate) fn new(key: &'a dyn KeyProvider) -> Result<Self, IdentityError> {
        let point = p256_point(&key.spki())?.to_vec();
        Ok(Self { key, point })
    }
}

impl rcgen::PublicKeyData for ForCertificates<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for ForCertificates<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
