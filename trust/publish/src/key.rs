//! Signing keys in files: plain (`redan.key/1`) for keys that sign unattended and for development, under a passphrase
//! (`redan.key/2`) for people, and keys in PKCS#11 tokens (`pkcs11:…` in the place of a file's name); and their public halves
//! (`redan.public-key/1`), which are all that others need.

use crate::PublishError;
use crate::wrap::{Passphrase, StillWrapped, Wrapped};
use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_protocol::Digest;
use redan_token::{Key, Kind, Pin, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// Longest key or passphrase file, bytes; ours have less than one kilobyte.
const FILE_LEN_MAX: u64 = 64 * 1024;
const PLAIN: &str = "redan.key/1";
const WRAPPED: &str = "redan.key/2";
const PUBLIC: &str = "redan.public-key/1";
const SCHEME: &str = "ed25519";

/// A private key and what it is for.
pub struct SigningKey {
    purpose: String,
    half: Half,
    /// Its other half, made once: the id is a hash over a document, and a server signs for every check-in.
    public: OnceLock<PublicKey>,
}

/// Where the private half is.
enum Half {
    Here {
        pkcs8: Zeroizing<Vec<u8>>,
        pair: Ed25519KeyPair,
    },
    /// In a token, which signs and never gives it away.
    Token(Key),
}

/// The public half, as metadata names it.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct PublicKey {
    /// SHA-256 of the canonical key object.
    pub id: String,
    /// 32 bytes, hexadecimal.
    pub public: String,
}

#[derive(Deserialize)]
struct Schema {
    schema: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainFile {
    schema: String,
    purpose: String,
    scheme: String,
    private: Zeroizing<String>,
    public: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedFile {
    schema: String,
    purpose: String,
    scheme: String,
    private: Wrapped,
    public: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicFile {
    schema: String,
    purpose: String,
    scheme: String,
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

    /// Whether a signature over a message is this key's. Says nothing about what this key may sign: thresholds are counted in
    /// `redan-trust` alone.
    pub fn made(&self, message: &[u8], signature: &[u8]) -> bool {
        let bytes = hex::decode(&self.public).unwrap_or_default();
        UnparsedPublicKey::new(&signature::ED25519, bytes)
            .verify(message, signature)
            .is_ok()
    }

    /// Reads a public key file, and what the key is for.
    pub fn load(path: &Path) -> Result<(Self, String), PublishError> {
        let malformed = || PublishError::PublicKey {
            path: path.display().to_string(),
        };
        let file: PublicFile = serde_json::from_str(&text(path)?).map_err(|_| malformed())?;
        let bytes = hex::decode(&file.public).map_err(|_| malformed())?;
        let written_once = hex::encode(&bytes) == file.public;
        if file.schema != PUBLIC || file.scheme != SCHEME || bytes.len() != 32 || !written_once {
            return Err(malformed());
        }
        Ok((Self::new(file.public), file.purpose))
    }
}

impl SigningKey {
    /// Makes a key.
    pub fn generate(purpose: &str) -> Result<Self, PublishError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| PublishError::Crypto)?;
        let pkcs8 = pair.to_pkcs8().map_err(|_| PublishError::Crypto)?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok(Self {
            purpose: purpose.to_owned(),
            half: Half::Here { pkcs8, pair },
            public: OnceLock::new(),
        })
    }

    /// Makes a key in a token. It is for what its label says.
    pub fn generate_in_token(uri: &Uri, pin: Option<Pin>) -> Result<Self, PublishError> {
        Ok(Self::of(Key::generate(uri, Kind::Ed25519, pin)?))
    }

    /// Finds a key in a token. It is for what its label says.
    pub fn in_token(uri: &Uri, pin: Option<Pin>) -> Result<Self, PublishError> {
        Ok(Self::of(Key::open(uri, Kind::Ed25519, pin)?))
    }

    fn of(key: Key) -> Self {
        Self {
            purpose: key.uri().object().to_owned(),
            half: Half::Token(key),
            public: OnceLock::new(),
        }
    }

    /// What it is for, for example `release.snapshot-1`.
    pub fn purpose(&self) -> &str {
        &self.purpose
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        let make = || {
            PublicKey::new(match &self.half {
                Half::Here { pair, .. } => public_hex(pair),
                Half::Token(key) => hex::encode(key.public()),
            })
        };
        self.public.get_or_init(make).clone()
    }

    /// Whether its private half is in a token.
    pub fn is_in_token(&self) -> bool {
        matches!(self.half, Half::Token(_))
    }

    /// Signs canonical bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PublishError> {
        match &self.half {
            Half::Here { pair, .. } => Ok(pair.sign(message).as_ref().to_vec()),
            Half::Token(key) => Ok(key.sign(message)?),
        }
    }

    /// The private half, for a file; none when it is in a token.
    fn private(&self) -> Result<&Zeroizing<Vec<u8>>, PublishError> {
        match &self.half {
            Half::Here { pkcs8, .. } => Ok(pkcs8),
            Half::Token(_) => Err(PublishError::InToken {
                purpose: self.purpose.clone(),
            }),
        }
    }

    /// Reads a plain key file, and refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, PublishError> {
        Self::open(path, &[])
    }

    /// Reads a key file; one under a passphrase is tried with each of those given. A `pkcs11:` URI names a key in a token instead,
    /// whose PIN is in the file of its `pin-source`.
    pub fn open(path: &Path, passphrases: &[Passphrase]) -> Result<Self, PublishError> {
        if let Some(text) = path.to_str().filter(|text| Uri::is(text)) {
            return Self::in_token(&Uri::parse(text)?, None);
        }
        let named = || path.display().to_string();
        let malformed = || PublishError::Key { path: named() };
        let text = private_text(path)?;
        let Schema { schema } = serde_json::from_str(&text).map_err(|_| malformed())?;
        let (purpose, scheme, public, pkcs8) = match schema.as_str() {
            PLAIN => {
                let file: PlainFile = serde_json::from_str(&text).map_err(|_| malformed())?;
                let pkcs8 = STANDARD.decode(file.private.as_bytes());
                let pkcs8 = Zeroizing::new(pkcs8.map_err(|_| malformed())?);
                (file.purpose, file.scheme, file.public, pkcs8)
            }
            WRAPPED => {
                let file: WrappedFile = serde_json::from_str(&text).map_err(|_| malformed())?;
                let about = about(&file.purpose, &file.public);
                let mut opened = Err(PublishError::Wrapped { path: named() });
                for passphrase in passphrases {
                    opened = file
                        .private
                        .open(passphrase, &about)
                        .map_err(|still| match still {
                            StillWrapped::Passphrase => PublishError::Passphrase { path: named() },
                            StillWrapped::Form => malformed(),
                        });
                    if opened.is_ok() {
                        break;
                    }
                }
                (file.purpose, file.scheme, file.public, opened?)
            }
            _ => return Err(malformed()),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| malformed())?;
        if scheme != SCHEME || public_hex(&pair) != public {
            return Err(malformed());
        }
        let half = Half::Here { pkcs8, pair };
        let public = OnceLock::new();
        Ok(Self {
            purpose,
            half,
            public,
        })
    }

    /// Writes a new plain key file, mode 0600; never over an existing one.
    pub fn save(&self, path: &Path) -> Result<(), PublishError> {
        let file = PlainFile {
            schema: PLAIN.into(),
            purpose: self.purpose.clone(),
            scheme: SCHEME.into(),
            private: Zeroizing::new(STANDARD.encode(&**self.private()?)),
            public: self.public().public,
        };
        write_new(path, 0o600, &file)
    }

    /// Writes a new key file under a passphrase, mode 0600; never over an existing one.
    pub fn save_wrapped(&self, path: &Path, passphrase: &Passphrase) -> Result<(), PublishError> {
        let public = self.public().public;
        let file = WrappedFile {
            schema: WRAPPED.into(),
            purpose: self.purpose.clone(),
            scheme: SCHEME.into(),
            private: Wrapped::seal(passphrase, &about(&self.purpose, &public), self.private()?)?,
            public,
        };
        write_new(path, 0o600, &file)
    }

    /// Writes the public half to a new file, for everyone; never over an existing one.
    pub fn save_public(&self, path: &Path) -> Result<(), PublishError> {
        let file = PublicFile {
            schema: PUBLIC.into(),
            purpose: self.purpose.clone(),
            scheme: SCHEME.into(),
            public: self.public().public,
        };
        write_new(path, 0o644, &file)
    }
}

/// What stands beside a wrapped key in the clear.
fn about(purpose: &str, public: &str) -> String {
    format!("{WRAPPED} {SCHEME} {public} {purpose}")
}

fn write_new(path: &Path, mode: u32, file: &impl Serialize) -> Result<(), PublishError> {
    let text = Zeroizing::new(serde_json::to_string_pretty(file).map_err(|_| PublishError::Crypto)?);
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut out| out.write_all(text.as_bytes()).and_then(|()| out.sync_all()));
    written.map_err(|error| PublishError::file(path, &error))
}

/// Reads a file that must be its owner's alone.
pub(crate) fn private_text(path: &Path) -> Result<Zeroizing<String>, PublishError> {
    let mode = std::fs::metadata(path)
        .map_err(|error| PublishError::file(path, &error))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(PublishError::KeyMode {
            path: path.display().to_string(),
            mode: mode & 0o7777,
        });
    }
    text(path)
}

fn text(path: &Path) -> Result<Zeroizing<String>, PublishError> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(FILE_LEN_MAX).read_to_string(&mut text))
        .map_err(|error| PublishError::file(path, &error))?;
    Ok(text)
}

fn public_hex(pair: &Ed25519KeyPair) -> String {
    hex::encode(pair.public_key().as_ref())
}
