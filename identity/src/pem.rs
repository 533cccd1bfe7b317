//! Certificates and keys as PEM (RFC 7468).

use crate::error::IdentityError;
use crate::key::{KeyFile, KeyProvider, held, read_private};
use crate::profile::presented_spki;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Writes certificates one after another.
pub fn write_chain(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in chain {
        write(&mut text, "CERTIFICATE", certificate);
    }
    text
}

/// Reads certificates, at least one.
pub fn read_chain(text: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let malformed = IdentityError::Malformed {
        what: "a certificate in PEM",
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(malformed),
    }
}

/// A key, or the `pkcs11:` URI of one in a token, and the chain issued for it in one text, as operators and servers keep them.
pub fn read_held(text: &str) -> Result<(Arc<dyn KeyProvider>, Vec<CertificateDer<'static>>), IdentityError> {
    let chain = read_chain(text)?;
    let key = held(text)?;
    match chain.first() {
        Some(leaf) if presented_spki(leaf)? == key.spki_sha256() => Ok((key, chain)),
        _ => Err(IdentityError::KeyMismatch),
    }
}

/// [`read_held`] from a file, which others must not be able to read.
pub fn load_held(path: &Path) -> Result<(Arc<dyn KeyProvider>, Vec<CertificateDer<'static>>), IdentityError> {
    read_held(&read_private(path)?)
}

/// The same with the key itself: issuers are kept so.
pub fn read_bundle(text: &str) -> Result<(KeyFile, Vec<CertificateDer<'static>>), IdentityError> {
    let key = KeyFile::from_pem(text)?;
    let chain = read_chain(text)?;
    match chain.first() {
        Some(leaf) if presented_spki(leaf)? == key.spki_sha256() => Ok((key, chain)),
        _ => Err(IdentityError::KeyMismatch),
    }
}

/// [`read_bundle`] from a file, which others must not be able to read.
pub fn load_bundle(path: &Path) -> Result<(KeyFile, Vec<CertificateDer<'static>>), IdentityError> {
    read_bundle(&read_private(path)?)
}

/// The opposite of [`read_bundle`]. Holds a private key: write it with [`crate::key::write_private`].
pub fn write_bundle(key: &KeyFile, chain: &[CertificateDer<'_>]) -> Zeroizing<String> {
    Zeroizing::new(format!("{}{}", key.to_pem().as_str(), write_chain(chain)))
}

/// One block; 64 characters a line (RFC 7468 §2).
pub(crate) fn write(text: &mut String, label: &str, der: &[u8]) {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Room for the whole: a buffer that grows leaves copies behind, and this may be a key.
    text.reserve(body.len().saturating_mul(2).saturating_add(128));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
}
