//! Trust is a type with one origin: [`Claimed::verify`], and in it the one function that counts a threshold.

use crate::metadata::{self, Envelope, Key, Malformed, Metadata, RoleKeys, Signature};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

/// Parsed, not believed: bytes from the network, a stick, or our own disk before its signatures were checked.
#[derive(Clone, Debug)]
pub struct Claimed<T> {
    envelope: Envelope,
    value: T,
}

/// Signed by its role's threshold (TUF 1.0.34 §5.3.4 and on: a key counts once). Made only by [`Claimed::verify`].
///
/// Says who signed; whether it may be adopted *now* is `decide`'s answer.
///
/// ```compile_fail,E0423
/// let forged = redan_trust::Verified("anything");
/// ```
///
/// Not out of thin air, not out of something else, not by reading it:
///
/// ```
/// fn read<T: serde::de::DeserializeOwned + Default + From<u8>>() {}
/// read::<u64>();
/// ```
///
/// ```compile_fail,E0277
/// fn read<T: serde::de::DeserializeOwned>() {}
/// read::<redan_trust::Verified<u64>>();
/// ```
///
/// ```compile_fail,E0277
/// fn made<T: Default>() {}
/// made::<redan_trust::Verified<u64>>();
/// ```
///
/// ```compile_fail,E0277
/// fn made<T: From<u64>>() {}
/// made::<redan_trust::Verified<u64>>();
/// ```
#[derive(Clone, Debug)]
pub struct Verified<T>(T);

/// Who may sign a `T`. Comes only from a root or from the delegation of a verified parent.
#[derive(Clone, Debug)]
pub struct Signers<'a, T> {
    keys: &'a BTreeMap<String, Key>,
    role: RoleKeys,
    signs: PhantomData<fn() -> T>,
}

/// Not signed by the threshold.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{valid} of {threshold} signatures are valid")]
pub struct TooFewSignatures {
    /// Distinct keys whose signature is valid.
    pub valid: u32,
    /// How many are needed.
    pub threshold: u32,
}

impl<T> Verified<T> {
    /// What was signed.
    pub fn get(&self) -> &T {
        &self.0
    }
}

impl<'a, T> Signers<'a, T> {
    /// Keys and role of a root or a delegation. The caller holds the verified parent.
    pub(crate) fn new(keys: &'a BTreeMap<String, Key>, role: RoleKeys) -> Self {
        Self {
            keys,
            role,
            signs: PhantomData,
        }
    }
}

impl<T: Metadata> Claimed<T> {
    /// Reads a file without believing it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (envelope, value) = metadata::parse(bytes)?;
        Ok(Self { envelope, value })
    }
}

impl<T> Claimed<T> {
    /// A document of another shape than TUF metadata in the same envelope.
    pub(crate) fn new(envelope: Envelope, value: T) -> Self {
        Self { envelope, value }
    }

    /// What it says, for the one purpose of finding out who has to sign it.
    pub(crate) fn claims(&self) -> &T {
        &self.value
    }

    /// What it says, believed by nobody: for makers of metadata, who read what they will offer, never for a device.
    pub fn peek(&self) -> &T {
        &self.value
    }

    /// The same, taken out.
    pub fn into_peeked(self) -> T {
        self.value
    }

    /// Believes it if enough of its signers signed.
    pub fn verify(self, by: &Signers<'_, T>) -> Result<Verified<T>, TooFewSignatures> {
        threshold(
            &self.envelope.canonical,
            &self.envelope.signatures,
            by.keys,
            &by.role,
        )?;
        Ok(Verified(self.value))
    }

    /// The same when two sets of signers must both have signed (a new root, TUF 1.0.34 §5.3.4).
    pub(crate) fn verify_both(
        self,
        first: &Signers<'_, T>,
        keys: &BTreeMap<String, Key>,
        role: &RoleKeys,
    ) -> Result<Verified<T>, TooFewSignatures> {
        threshold(&self.envelope.canonical, &self.envelope.signatures, keys, role)?;
        self.verify(first)
    }
}

/// The one place where signatures are counted. Distinct *keys* count, not key ids and not signatures: the same public key
/// under two ids is one (attack T14).
fn threshold(
    message: &[u8],
    signatures: &[Signature],
    keys: &BTreeMap<String, Key>,
    role: &RoleKeys,
) -> Result<(), TooFewSignatures> {
    let mut counted: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for Signature { key: id, bytes } in signatures {
        // Only the first signature of an id is looked at: a second one cannot repair or dilute it.
        if !role.keyids.contains(id) || !seen.insert(id) {
            continue;
        }
        let Some(public) = keys.get(id).and_then(public_key) else {
            continue;
        };
        if public.verifies(message, bytes) {
            counted.insert(public.bytes);
        }
    }
    let valid = u32::try_from(counted.len()).unwrap_or(u32::MAX);
    if valid < role.threshold {
        return Err(TooFewSignatures {
            valid,
            threshold: role.threshold,
        });
    }
    Ok(())
}

struct PublicKey {
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
}

impl PublicKey {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.bytes)
            .verify(message, signature)
            .is_ok()
    }
}

/// The allow-list of key types and schemes. Anything else is carried along and verifies nothing, so that new kinds can be
/// introduced beside old ones (attack T22: a scheme never borrows a key of another type).
fn public_key(key: &Key) -> Option<PublicKey> {
    let text = key.keyval.get("public")?.as_str()?;
    match (key.keytype.as_str(), key.scheme.as_str()) {
        ("ed25519", "ed25519") => {
            let bytes = hex::decode(text).ok().filter(|bytes| bytes.len() == 32)?;
            Some(PublicKey {
                algorithm: &signature::ED25519,
                bytes,
            })
        }
        ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
            let bytes = hex::decode(text).ok().or_else(|| der_of(text)).map(unwrap_spki)?;
            Some(PublicKey {
                algorithm: &signature::ECDSA_P256_SHA256_ASN1,
                bytes,
            })
        }
        ("rsa", "rsassa-pss-sha256") => {
            let bytes = unwrap_spki(der_of(text)?);
            Some(PublicKey {
                algorithm: &signature::RSA_PSS_2048_8192_SHA256,
                bytes,
            })
        }
        _ => None,
    }
}

/// DER out of a PEM block `PUBLIC KEY`.
fn der_of(pem: &str) -> Option<Vec<u8>> {
    let body = pem
        .trim()
        .strip_prefix("-----BEGIN PUBLIC KEY-----")?
        .strip_suffix("-----END PUBLIC KEY-----")?;
    let text: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(text).ok()
}

/// The key bits of a DER `SubjectPublicKeyInfo` (RFC 5280 §4.1): SEQUENCE { SEQUENCE algorithm, BIT STRING key }. Bytes that are
/// none are handed on: they are a bare key, or verify nothing.
fn unwrap_spki(der: Vec<u8>) -> Vec<u8> {
    fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
        let (found, rest) = input.split_first()?;
        let (length, rest) = rest.split_first()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(*length), rest),
            0x81 => rest.split_first().map(|(a, rest)| (usize::from(*a), rest))?,
            0x82 => {
                let ([a, b], rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes([*a, *b])), rest)
            }
            _ => return None,
        };
        (*found == tag).then_some(())?;
        rest.split_at_checked(length)
    }
    fn key(der: &[u8]) -> Option<&[u8]> {
        let (outer, after) = element(der, 0x30)?;
        let (_, rest) = element(outer, 0x30)?;
        let (bits, end) = element(rest, 0x03)?;
        let (unused, key) = bits.split_first()?;
        (*unused == 0 && end.is_empty() && after.is_empty()).then_some(key)
    }
    match key(&der) {
        Some(key) => key.to_vec(),
        None => der,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    struct Signer {
        pair: Ed25519KeyPair,
    }

    impl Signer {
        fn new() -> Self {
            Self {
                pair: Ed25519KeyPair::generate().unwrap(),
            }
        }

        fn key(&self) -> Key {
            let public = hex::encode(self.pair.public_key().as_ref());
            Key {
                keytype: "ed25519".into(),
                scheme: "ed25519".into(),
                keyval: json!({"public": public}),
            }
        }

        fn sign(&self, id: &str) -> Signature {
            Signature {
                key: id.into(),
                bytes: self.pair.sign(b"message").as_ref().to_vec(),
            }
        }
    }

    fn role(ids: &[&str], threshold: u32) -> RoleKeys {
        RoleKeys {
            keyids: ids.iter().map(|id| (*id).to_owned()).collect(),
            threshold,
        }
    }

    #[test]
    fn one_key_under_two_ids_counts_once() {
        let (a, b) = (Signer::new(), Signer::new());
        let keys = BTreeMap::from([
            ("a".to_owned(), a.key()),
            ("a2".to_owned(), a.key()),
            ("b".to_owned(), b.key()),
        ]);
        let role = role(&["a", "a2", "b"], 2);
        let twice = [a.sign("a"), a.sign("a2")];
        let too_few = Err(TooFewSignatures {
            valid: 1,
            threshold: 2,
        });
        assert_eq!(threshold(b"message", &twice, &keys, &role), too_few);
        assert_eq!(
            threshold(b"message", &[a.sign("a"), a.sign("a")], &keys, &role),
            too_few
        );
        assert_eq!(
            threshold(b"message", &[a.sign("a"), b.sign("b")], &keys, &role),
            Ok(())
        );
    }

    #[test]
    fn a_signature_by_a_key_of_another_role_does_not_count() {
        let (a, b) = (Signer::new(), Signer::new());
        let keys = BTreeMap::from([("a".to_owned(), a.key()), ("b".to_owned(), b.key())]);
        let refused = Err(TooFewSignatures {
            valid: 0,
            threshold: 1,
        });
        assert_eq!(
            threshold(b"message", &[b.sign("b")], &keys, &role(&["a"], 1)),
            refused
        );
        assert_eq!(
            threshold(b"message", &[b.sign("a")], &keys, &role(&["a"], 1)),
            refused
        );
        assert_eq!(
            threshold(b"other", &[a.sign("a")], &keys, &role(&["a"], 1)),
            refused
        );
    }

    #[test]
    fn a_scheme_does_not_borrow_a_key_of_another_type() {
        let a = Signer::new();
        for (keytype, scheme) in [
            ("ed25519", "ecdsa-sha2-nistp256"),
            ("ecdsa", "ed25519"),
            ("rsa", "ed25519"),
            ("ed25519", "rsassa-pss-sha256"),
            ("ml-dsa-65", "ml-dsa-65"),
            ("rsa", "rsa-pkcs1v15-sha256"),
        ] {
            let key = Key {
                keytype: keytype.into(),
                scheme: scheme.into(),
                ..a.key()
            };
            let keys = BTreeMap::from([("a".to_owned(), key)]);
            let refused = Err(TooFewSignatures {
                valid: 0,
                threshold: 1,
            });
            assert_eq!(
                threshold(b"message", &[a.sign("a")], &keys, &role(&["a"], 1)),
                refused,
                "{keytype} {scheme}"
            );
        }
    }

    #[test]
    fn an_ecdsa_key_is_read_from_hexadecimal_and_from_pem() {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let bytes = pair
            .sign(&SystemRandom::new(), b"message")
            .unwrap()
            .as_ref()
            .to_vec();
        let point = pair.public_key().as_ref().to_vec();
        // RFC 5480: id-ecPublicKey, prime256v1.
        let mut spki = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
        spki.extend(&point);
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(spki)
        );
        for public in [hex::encode(&point), pem] {
            let key = Key {
                keytype: "ecdsa".into(),
                scheme: "ecdsa-sha2-nistp256".into(),
                keyval: json!({"public": public}),
            };
            let keys = BTreeMap::from([("a".to_owned(), key)]);
            let signature = Signature {
                key: "a".into(),
                bytes: bytes.clone(),
            };
            assert_eq!(
                threshold(b"message", &[signature], &keys, &role(&["a"], 1)),
                Ok(())
            );
        }
    }
}
