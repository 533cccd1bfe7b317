//! Private keys: one trait for wherever they live: in a file, for small devices and development, in a PKCS#11 token, or in a TPM 2.0.

mod adapt;
mod file;
mod token;
mod tpm;

pub(crate) use adapt::{ForCertificates, for_tls};
pub use file::{KeyFile, read_private, write_private};
pub use token::{TokenKey, held, uri_in};
pub use tpm::{TpmKey, blob_in};

use crate::error::IdentityError;
use redan_protocol::Digest;
use std::fmt::Debug;
use std::sync::Arc;

/// A P-256 key that signs and is never asked for its private half: in a file, in a PKCS#11 token, in a TPM. TLS,
/// certificate requests and issuing all go through it, so a key that can be non-exportable is.
pub trait KeyProvider: Debug + Send + Sync {
    /// The DER-encoded `SubjectPublicKeyInfo` (RFC 5480 §2), uncompressed point.
    fn spki(&self) -> Vec<u8>;

    /// ECDSA with SHA-256 over a message that is not hashed yet; the signature as in RFC 3279 §2.2.3.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError>;

    /// Another handle on the same key: a TLS configuration outlives the call that makes it.
    fn share(&self) -> Arc<dyn KeyProvider>;

    /// SHA-256 of [`KeyProvider::spki`]: what allow-lists and vouchers name.
    fn spki_sha256(&self) -> Digest {
        Digest::of(&self.spki())
    }
}
