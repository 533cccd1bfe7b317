//! A P-256 key that a TPM made: loaded for each signature, and gone from the TPM after it.

use crate::client::{Client, Made};
use crate::error::TpmError;
use crate::name::{Address, Blob};
use crate::template;
use crate::wire::Wrong;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use redan_protocol::Digest;

/// A key of a TPM. Its private half is on the disk only under a key that this TPM never gives away.
#[derive(Clone, Eq, PartialEq)]
pub struct Key {
    blob: Blob,
    point: [u8; 65],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digest = Digest::of(&self.point);
        write!(f, "Key({digest} of {})", self.blob.address)
    }
}

impl Key {
    /// Makes one.
    pub fn generate(address: &Address) -> Result<Self, TpmError> {
        let made = Client::open(address)?
            .under_primary(|tpm, primary| tpm.create(primary, &template::signing(), &[]))?;
        let Made { public, private } = made;
        let point = template::point(&public).map_err(|wrong| nonsense(address, wrong))?;
        let blob = Blob {
            address: address.clone(),
            public,
            private,
        };
        let key = Self { blob, point };
        // Before anybody relies on it: that this TPM loads it, and signs by the public half it gave.
        key.sign(b"")?;
        Ok(key)
    }

    /// One that was made before; the TPM is not asked yet. One that could leave its TPM is refused.
    pub fn open(blob: Blob) -> Result<Self, TpmError> {
        let point = template::point(&blob.public);
        let point =
            point.map_err(|_| TpmError::Name("its public half is not that of a key fixed to its TPM"))?;
        Ok(Self { blob, point })
    }

    /// What brings it back.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// The public half: an uncompressed point of 65 bytes (SEC 1 §2.3.3).
    pub fn public(&self) -> &[u8] {
        &self.point
    }

    /// Signs: 64 bytes, R and S one after the other.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], TpmError> {
        let digest = Digest::of(message);
        let mut tpm = Client::open(&self.blob.address)?;
        let signature = tpm.with(&self.blob, |tpm, key| tpm.sign(key, digest))?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        if public.verify(message, &signature).is_err() {
            return Err(TpmError::Mismatched {
                path: self.blob.address.path().display().to_string(),
            });
        }
        Ok(signature)
    }
}

pub(crate) fn nonsense(address: &Address, wrong: Wrong) -> TpmError {
    TpmError::Nonsense {
        path: address.path().display().to_string(),
        command: "TPM2_Create",
        what: match wrong {
            Wrong::Form(what) => what,
            Wrong::Code(_) => "it is a refusal",
        },
    }
}
