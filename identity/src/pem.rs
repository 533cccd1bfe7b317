//! Certificates and keys as PEM (RFC 7468).

use crate::error::IdentityError;
use crate::key::KeyFile;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Writes certificates one after another.
pub fn write_chain(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
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

/// A key and its chain in one text, as operators carry it.
pub fn read_bundle(text: &str) -> Result<(KeyFile, Vec<CertificateDer<'static>>), IdentityError> {
    let begin = text.find("-----BEGIN PRIVATE KEY-----").unwrap_or(0);
    let key = KeyFile::from_pem(text.get(begin..).unwrap_or_default())?;
    Ok((key, read_chain(text)?))
}

/// The opposite of [`read_bundle`]. Holds a private key: write it with [`crate::key::write_private`].
pub fn write_bundle(key: &KeyFile, chain: &[CertificateDer<'_>]) -> zeroize::Zeroizing<String> {
    zeroize::Zeroizing::new(format!("{}{}", key.to_pem().as_str(), write_chain(chain)))
}
