//! Signing keys in files (`redan.key/1`). For development fleets and for custodians without hardware tokens.

use crate::PublishError;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_protocol::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// A private key and what it is for.
pub struct SigningKey {
    purpose: String,
    pkcs8: Zeroizing<Vec<u8>>,
    pair: Ed25519KeyPair,
}

/// The public half, as metadata names it.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct PublicKey {
    /// SHA-256 of the canonical key object.
    pub id: String,
    /// 32 bytes, hexadecimal.
    pub public: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    schema: String,
    purpose: String,
    scheme: String,
    private: Zeroizing<String>,
    public: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.purpose)
    }
}

impl PublicKey {
    fn new(public: String) -> Self {
        let mut key = Self {
            id: String::new(),
            public,
        };
        let canonical = redan_policy::canonical::to_vec(&key.tuf()).unwrap_or_default();
        key.id = Digest::of(&canonical).to_string();
        key
    }

    /// The key object of TUF metadata (TUF 1.0.34 §4.2).
    pub fn tuf(&self) -> Value {
        json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": self.public}})
    }
}

impl SigningKey {
    /// Makes a key.
    pub fn generate(purpose: &str) -> Result<Self, PublishError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| PublishError::Crypto)?;
        let pkcs8 = pair.to_pkcs8().map_err(|_| PublishError::Crypto)?;
        Ok(Self {
            purpose: purpose.to_owned(),
            pkcs8: Zeroizing::new(pkcs8.as_ref().to_vec()),
            pair,
        })
    }

    /// What it is for, for example `release.snapshot-1`.
    pub fn purpose(&self) -> &str {
        &self.purpose
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::new(public_hex(&self.pair))
    }

    /// Signs canonical bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// Reads a key file, and refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, PublishError> {
        let named = || path.display().to_string();
        let mode = std::fs::metadata(path)
            .map_err(|error| PublishError::file(path, &error))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(PublishError::KeyMode {
                path: named(),
                mode: mode & 0o7777,
            });
        }
        let text =
            Zeroizing::new(std::fs::read_to_string(path).map_err(|error| PublishError::file(path, &error))?);
        let malformed = || PublishError::Key { path: named() };
        let file: KeyFile = serde_json::from_str(&text).map_err(|_| malformed())?;
        if file.schema != "redan.key/1" || file.scheme != "ed25519" {
            return Err(malformed());
        }
        let pkcs8 = Zeroizing::new(
            STANDARD
                .decode(file.private.as_bytes())
                .map_err(|_| malformed())?,
        );
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| malformed())?;
        if public_hex(&pair) != file.public {
            return Err(malformed());
        }
        Ok(Self {
            purpose: file.purpose,
            pkcs8,
            pair,
        })
    }

    /// Writes a new key file, mode 0600; never over an existing one.
    pub fn save(&self, path: &Path) -> Result<(), PublishError> {
        let file = KeyFile {
            schema: "redan.key/1".into(),
            purpose: self.purpose.clone(),
            scheme: "ed25519".into(),
            private: Zeroizing::new(STANDARD.encode(&*self.pkcs8)),
            public: self.public().public,
        };
        let text = Zeroizing::new(serde_json::to_string_pretty(&file).map_err(|_| PublishError::Crypto)?);
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut out| out.write_all(text.as_bytes()).and_then(|()| out.sync_all()));
        written.map_err(|error| PublishError::file(path, &error))
    }
}

fn public_hex(pair: &Ed25519KeyPair) -> String {
    hex::encode(pair.public_key().as_ref())
}
