//! Keys in PKCS#11 tokens: the token signs, and the key never leaves it.

use super::{KeyFile, KeyProvider, TpmKey, blob_in};
use crate::error::IdentityError;
use redan_token::{Key, Kind, Pin, TokenError, Uri};
use redan_tpm::Blob;
use std::sync::Arc;

/// What stands before the point in the `SubjectPublicKeyInfo` of a P-256 key (RFC 5480 §2): its length never changes.
pub(super) const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A P-256 key in a token.
#[derive(Clone, Debug)]
pub struct TokenKey(Arc<Key>);

impl TokenKey {
    /// Finds one; refuses one that the token would hand out.
    pub fn open(uri: &Uri, pin: Option<Pin>) -> Result<Self, IdentityError> {
        Self::new(Key::open(uri, Kind::P256, pin)?)
    }

    /// Makes one.
    pub fn generate(uri: &Uri, pin: Option<Pin>) -> Result<Self, IdentityError> {
        Self::new(Key::generate(uri, Kind::P256, pin)?)
    }

    /// Finds one, or makes it when the token has none of that name.
    pub fn open_or_generate(uri: &Uri, pin: Option<Pin>) -> Result<Self, IdentityError> {
        match Self::open(uri, pin.clone()) {
            Err(IdentityError::Token(TokenError::NoKey { .. })) => Self::generate(uri, pin),
            opened => opened,
        }
    }

    /// Removes one, if it is there.
    pub fn destroy(uri: &Uri) -> Result<(), IdentityError> {
        Ok(Key::destroy(uri)?)
    }

    /// Its name.
    pub fn uri(&self) -> &Uri {
        self.0.uri()
    }

    fn new(key: Key) -> Result<Self, IdentityError> {
        let key = Self(Arc::new(key));
        crate::profile::rules::p256(&key.spki())?;
        Ok(key)
    }
}

impl KeyProvider for TokenKey {
    fn spki(&self) -> Vec<u8> {
        [SPKI_P256, self.0.public()].concat()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let signature = self.0.sign(message)?;
        let (r, s) = signature.split_at_checked(32).ok_or(IdentityError::Crypto {
            doing: "reading a token's signature",
        })?;
        Ok(ecdsa_sig_value(r, s))
    }

    fn share(&self) -> Arc<dyn KeyProvider> {
        Arc::new(self.clone())
    }
}

/// The key a text holds: itself in PEM, or in the first line the `pkcs11:` URI of one in a token, or what a TPM loads.
pub fn held(text: &str) -> Result<Arc<dyn KeyProvider>, IdentityError> {
    let (uri, blob) = (uri_in(text), blob_in(text));
    if uri.is_none() && blob.is_none() {
        return Ok(Arc::new(KeyFile::from_pem(text)?));
    }
    // Two keys in one file: whoever wrote it meant one, and nobody can tell which.
    if text.contains("PRIVATE KEY-----") {
        return Err(IdentityError::Malformed {
            what: "a file with one key",
        });
    }
    if let Some(blob) = blob {
        return Ok(Arc::new(TpmKey::open(Blob::parse(blob)?)?));
    }
    Ok(Arc::new(TokenKey::open(
        &Uri::parse(uri.unwrap_or_default())?,
        None,
    )?))
}

/// The URI in the first line of a text, not parsed; `None`: it is PEM.
pub fn uri_in(text: &str) -> Option<&str> {
    text.lines().next().map(str::trim).filter(|line| Uri::is(line))
}

/// `Ecdsa-Sig-Value` (RFC 3279 §2.2.3) of two numbers of 32 bytes.
pub(super) fn ecdsa_sig_value(r: &[u8], s: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::new();
    for number in [r, s] {
        let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
        let number = number.get(start..).unwrap_or_default();
        // A number is never negative and never empty.
        let sign: &[u8] = match number.first() {
            Some(first) if *first < 0x80 => &[],
            _ => &[0],
        };
        numbers.push(0x02);
        push_length(&mut numbers, sign.len().saturating_add(number.len()));
        numbers.extend_from_slice(sign);
        numbers.extend_from_slice(number);
    }
    let mut value = vec![0x30];
    push_length(&mut value, numbers.len());
    value.extend(numbers);
    value
}

/// The short form: two numbers of 33 bytes and their heads are 70.
fn push_length(der: &mut Vec<u8>, length: usize) {
    der.push(u8::try_from(length).unwrap_or(u8::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_tpm::TpmError;

    #[test]
    fn a_signature_of_two_numbers_is_written_as_the_shortest_der() {
        let number = |first: u8| [&[first][..], &[1; 31]].concat();
        let small = [&[0; 31][..], &[5]].concat();
        let (high, low) = (number(0x80), number(0x7f));
        let written = ecdsa_sig_value(&high, &low);
        let expected = [&[0x30, 69, 2, 33, 0][..], &high, &[2, 32], &low].concat();
        assert_eq!(written, expected);
        assert_eq!(ecdsa_sig_value(&small, &[0; 32]), [0x30, 6, 2, 1, 5, 2, 1, 0]);
    }

    #[test]
    fn what_stands_before_the_point_is_what_a_key_file_has() {
        let spki = KeyFile::generate().unwrap().spki();
        assert_eq!(spki.get(..SPKI_P256.len()), Some(SPKI_P256));
        assert_eq!(spki.len(), SPKI_P256.len() + 65);
    }

    #[test]
    fn a_text_holds_one_key_and_says_which() {
        let key = KeyFile::generate().unwrap();
        assert_eq!(held(&key.to_pem()).unwrap().spki(), key.spki());
        let uri = "pkcs11:token=t;object=o?module-path=/nowhere.so";
        assert_eq!(uri_in(&format!("{uri}\n-----BEGIN")), Some(uri));
        assert_eq!(uri_in(&key.to_pem()), None);
        let both = format!("{uri}\n{}", key.to_pem().as_str());
        let refused = IdentityError::Malformed {
            what: "a file with one key",
        };
        assert_eq!(held(&both).unwrap_err(), refused);
        let both = format!("tpm:/dev/tpmrm0?public=00&private=00\n{}", key.to_pem().as_str());
        assert_eq!(held(&both).unwrap_err(), refused);
        let wrong = TpmError::Name("its public half is not that of a key fixed to its TPM");
        let blob = "tpm:/dev/tpmrm0?public=00&private=00\n";
        assert_eq!(held(blob).unwrap_err(), IdentityError::Tpm(wrong));
        let wrong = IdentityError::Token(TokenError::Uri("object= is missing"));
        assert_eq!(held("pkcs11:token=t?module-path=/m").unwrap_err(), wrong);
    }
}
