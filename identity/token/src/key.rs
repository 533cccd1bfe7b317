//! One key in a token: found, held to what is demanded of it, made, used, destroyed.

use crate::module::{Access, Opened, failed, lost};
use crate::{Fault, Pin, TokenError, Uri};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use cryptoki::error::Error;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use redan_protocol::Digest;
use std::sync::{Mutex, PoisonError};

/// What a key is for, and so of which kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Signs metadata: ed25519 (RFC 8032), `CKM_EDDSA`.
    Ed25519,
    /// Signs handshakes and certificate requests: P-256 with SHA-256, `CKM_ECDSA` over the digest.
    P256,
}

/// `PrintableString` edwards25519 (PKCS#11 3.1 §6.3.10), as tokens without the curve's number want it.
const EDWARDS25519: &[u8] = b"\x13\x0cedwards25519";
/// The number of prime256v1 (RFC 5480 §2.1.1.1).
const PRIME256V1: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Length of the id a new key gets, bytes: as long as the usual digest of a public key.
const NEW_ID_LEN: usize = 20;

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "P-256",
        }
    }

    const fn key_type(self) -> KeyType {
        match self {
            Self::Ed25519 => KeyType::EC_EDWARDS,
            Self::P256 => KeyType::EC,
        }
    }

    const fn curve(self) -> &'static [u8] {
        match self {
            Self::Ed25519 => EDWARDS25519,
            Self::P256 => PRIME256V1,
        }
    }

    /// Bytes of a public key: a point as RFC 8032 or SEC 1 writes it, uncompressed.
    const fn public_len(self) -> usize {
        match self {
            Self::Ed25519 => 32,
            Self::P256 => 65,
        }
    }

    const fn signs(self) -> (MechanismType, &'static str) {
        match self {
            Self::Ed25519 => (MechanismType::EDDSA, "CKM_EDDSA"),
            Self::P256 => (MechanismType::ECDSA, "CKM_ECDSA"),
        }
    }

    const fn makes(self) -> (MechanismType, &'static str) {
        match self {
            Self::Ed25519 => (
                MechanismType::ECC_EDWARDS_KEY_PAIR_GEN,
                "CKM_EC_EDWARDS_KEY_PAIR_GEN",
            ),
            Self::P256 => (MechanismType::ECC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN"),
        }
    }

    fn verifies(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Ed25519 => &ED25519,
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
        }
    }

    /// The point out of `CKA_EC_POINT`: an OCTET STRING by the standard, the bare bytes by some makers.
    fn point(self, attribute: &[u8]) -> Option<Vec<u8>> {
        let length = self.public_len();
        let bare = match attribute {
            [0x04, inner, rest @ ..] if usize::from(*inner) == length && rest.len() == length => rest,
            bare if bare.len() == length => bare,
            _ => return None,
        };
        // Uncompressed is the one form anybody here reads.
        let known = self == Self::Ed25519 || bare.first() == Some(&0x04);
        known.then(|| bare.to_vec())
    }
}

/// A key in a token. Its private half never leaves it: that is demanded whenever it is opened.
pub struct Key {
    uri: Uri,
    kind: Kind,
    public: Vec<u8>,
    /// A PIN that was typed; one from a file is read again when it is needed.
    typed: Option<Pin>,
    ready: Mutex<Option<Ready>>,
}

struct Ready {
    open: Opened,
    private: ObjectHandle,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({} in {})", self.uri.object(), self.uri.token())
    }
}

impl Key {
    /// Finds a key, and refuses one that the token would hand out, or that it cannot sign with.
    pub fn open(uri: &Uri, kind: Kind, typed: Option<Pin>) -> Result<Self, TokenError> {
        let open = Opened::open(uri, typed.as_ref(), Access::Sign)?;
        Self::found(uri, kind, typed, open)
    }

    /// Makes a key in the token, under a label nobody has there: sensitive, not extractable.
    pub fn generate(uri: &Uri, kind: Kind, typed: Option<Pin>) -> Result<Self, TokenError> {
        let open = Opened::open(uri, typed.as_ref(), Access::Change)?;
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            if !search(&open, uri, class)?.is_empty() {
                return Err(TokenError::Exists {
                    token: uri.token().to_owned(),
                    object: uri.object().to_owned(),
                });
            }
        }
        let (mechanism, name) = kind.makes();
        open.offers(uri, mechanism, name)?;
        let digest = Digest::of(uri.object().as_bytes());
        let new = digest.as_bytes().get(..NEW_ID_LEN).unwrap_or_default();
        let id = uri.id().unwrap_or(new).to_vec();
        let label = Attribute::Label(uri.object().as_bytes().to_vec());
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::EcParams(kind.curve().to_vec()),
            Attribute::Id(id.clone()),
            label.clone(),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Id(id),
            label,
        ];
        let mechanism = match kind {
            Kind::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
            Kind::P256 => Mechanism::EccKeyPairGen,
        };
        open.session
            .generate_key_pair(&mechanism, &public, &private)
            .map_err(|error| failed(uri, "making a key", &error))?;
        Self::found(uri, kind, typed, open)
    }

    /// Removes a key from the token, the private half first. One that is not there is removed.
    pub fn destroy(uri: &Uri) -> Result<(), TokenError> {
        let open = Opened::open(uri, None, Access::Change)?;
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            let found = search(&open, uri, class)?;
            if found.len() > 1 {
                return Err(several(uri, found.len()));
            }
            for object in found {
                let gone = open.session.destroy_object(object);
                gone.map_err(|error| failed(uri, "removing a key", &error))?;
            }
        }
        Ok(())
    }

    fn found(uri: &Uri, kind: Kind, typed: Option<Pin>, open: Opened) -> Result<Self, TokenError> {
        let (private, public) = hold(&open, uri, kind)?;
        Ok(Self {
            uri: uri.clone(),
            kind,
            public,
            typed,
            ready: Mutex::new(Some(Ready { open, private })),
        })
    }

    /// Its name.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The public half: 32 bytes (RFC 8032 §5.1.5), or an uncompressed point of 65 (SEC 1 §2.3.3).
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Signs: 64 bytes, R and S one after the other. A session that was lost is opened again, once.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match ready.as_ref() {
            Some(ready) => self.try_sign(ready, message),
            None => Err(Error::NotSupported),
        };
        let signature = match first {
            Ok(signature) => signature,
            Err(error) if ready.is_none() || lost(&error) => {
                // Closed before the next is opened: tokens have few sessions.
                *ready = None;
                let again = self.reopen()?;
                let signed = self.try_sign(&again, message);
                let signed = signed.map_err(|error| TokenError::Lost {
                    token: self.uri.token().to_owned(),
                    doing: SIGNING,
                    fault: Fault::from(&error),
                })?;
                *ready = Some(again);
                signed
            }
            Err(error) => return Err(failed(&self.uri, SIGNING, &error)),
        };
        // The token is believed nothing: not even that its two halves belong together.
        let public = UnparsedPublicKey::new(self.kind.verifies(), &self.public);
        if public.verify(message, &signature).is_err() {
            return Err(TokenError::Mismatched {
                token: self.uri.token().to_owned(),
                object: self.uri.object().to_owned(),
            });
        }
        Ok(signature)
    }

    fn try_sign(&self, ready: &Ready, message: &[u8]) -> Result<Vec<u8>, Error> {
        let session = &ready.open.session;
        match self.kind {
            Kind::Ed25519 => {
                let params = EddsaParams::new(EddsaSignatureScheme::Ed25519);
                session.sign(&Mechanism::Eddsa(params), ready.private, message)
            }
            // Hashed here: more tokens offer this than CKM_ECDSA_SHA256.
            Kind::P256 => session.sign(&Mechanism::Ecdsa, ready.private, Digest::of(message).as_bytes()),
        }
    }

    fn reopen(&self) -> Result<Ready, TokenError> {
        let open = Opened::open(&self.uri, self.typed.as_ref(), Access::Sign)?;
        let (private, public) = hold(&open, &self.uri, self.kind)?;
        if public != self.public {
            // Another token was put in its place.
            return Err(TokenError::Mismatched {
                token: self.uri.token().to_owned(),
                object: self.uri.object().to_owned(),
            });
        }
        Ok(Ready { open, private })
    }
}

const SIGNING: &str = "signing";

/// Finds both halves of a key and holds the private one to what is demanded; gives its handle and the public half.
fn hold(open: &Opened, uri: &Uri, kind: Kind) -> Result<(ObjectHandle, Vec<u8>), TokenError> {
    let (mechanism, name) = kind.signs();
    open.offers(uri, mechanism, name)?;
    let private = only(open, uri, ObjectClass::PRIVATE_KEY, "private key")?;
    let wanted = [
        AttributeType::KeyType,
        AttributeType::Sensitive,
        AttributeType::Extractable,
    ];
    let about = attributes(open, uri, private, &wanted)?;
    let other = || TokenError::Kind {
        object: uri.object().to_owned(),
        wanted: kind.name(),
    };
    if !about.contains(&Attribute::KeyType(kind.key_type())) {
        return Err(other());
    }
    // What is not said is not so.
    if !about.contains(&Attribute::Sensitive(true)) || !about.contains(&Attribute::Extractable(false)) {
        return Err(TokenError::Extractable {
            token: uri.token().to_owned(),
            object: uri.object().to_owned(),
        });
    }
    let public = only(open, uri, ObjectClass::PUBLIC_KEY, "public half of")?;
    let about = attributes(open, uri, public, &[AttributeType::EcPoint])?;
    let point = about.iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(point) => kind.point(point),
        _ => None,
    });
    Ok((private, point.ok_or_else(other)?))
}

fn attributes(
    open: &Opened,
    uri: &Uri,
    object: ObjectHandle,
    wanted: &[AttributeType],
) -> Result<Vec<Attribute>, TokenError> {
    let read = open.session.get_attributes(object, wanted);
    read.map_err(|error| failed(uri, "reading a key's attributes", &error))
}

fn search(open: &Opened, uri: &Uri, class: ObjectClass) -> Result<Vec<ObjectHandle>, TokenError> {
    let mut template = vec![
        Attribute::Class(class),
        Attribute::Label(uri.object().as_bytes().to_vec()),
    ];
    template.extend(uri.id().map(|id| Attribute::Id(id.to_vec())));
    let found = open.session.find_objects(&template);
    found.map_err(|error| failed(uri, "looking for a key", &error))
}

fn only(
    open: &Opened,
    uri: &Uri,
    class: ObjectClass,
    what: &'static str,
) -> Result<ObjectHandle, TokenError> {
    match search(open, uri, class)?.as_slice() {
        [one] => Ok(*one),
        [] => Err(TokenError::NoKey {
            token: uri.token().to_owned(),
            what,
            object: uri.object().to_owned(),
        }),
        more => Err(several(uri, more.len())),
    }
}

fn several(uri: &Uri, found: usize) -> TokenError {
    TokenError::Keys {
        token: uri.token().to_owned(),
        object: uri.object().to_owned(),
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_point_is_read_wrapped_or_bare_and_in_no_other_form() {
        let bare = [&[0x04][..], &[7; 64]].concat();
        let wrapped = [&[0x04, 65][..], &bare].concat();
        assert_eq!(Kind::P256.point(&bare), Some(bare.clone()));
        assert_eq!(Kind::P256.point(&wrapped), Some(bare.clone()));
        let compressed = [&[0x04, 33, 0x02][..], &[7; 32]].concat();
        let hybrid = [&[0x04, 65, 0x06][..], &[7; 64]].concat();
        for wrong in [&compressed, &hybrid, &wrapped[..66].to_vec(), &vec![]] {
            assert_eq!(Kind::P256.point(wrong), None, "{wrong:?}");
        }
        let edwards = [&[0x04, 32][..], &[9; 32]].concat();
        assert_eq!(Kind::Ed25519.point(&edwards), Some(vec![9; 32]));
        assert_eq!(Kind::Ed25519.point(&[9; 32]), Some(vec![9; 32]));
        assert_eq!(Kind::Ed25519.point(&bare), None);
    }
}
