//! Bytes under a passphrase: Argon2id makes the key (RFC 9106), ChaCha20-Poly1305 locks the bytes under it (RFC 8439).

use crate::PublishError;
use crate::key::private_text;
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ops::RangeInclusive;
use std::path::Path;
use zeroize::Zeroizing;

/// What new files are wrapped with: the second recommendation of RFC 9106 §4, for machines without gigabytes to spare.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// What a file may ask for. Below: a forged file would have the passphrase derived cheaply and then guessed from what is stolen next.
/// Above: it would stop the machine. Tripped by `what_a_wrapped_file_asks_for_is_bounded_before_it_is_done`.
const MEMORY_KIB_ALLOWED: RangeInclusive<u32> = 19 * 1024..=1024 * 1024;
const PASSES_ALLOWED: RangeInclusive<u32> = 2..=16;
const LANES_ALLOWED: RangeInclusive<u32> = 1..=16;
const SALT_LEN: usize = 16;
/// Shortest passphrase a file is wrapped with, characters: four words of a word list. Opening takes any.
pub const PASSPHRASE_CHARS_MIN: usize = 12;
/// Longest passphrase read, bytes: more is a file named by mistake.
pub const PASSPHRASE_LEN_MAX: usize = 1024;

/// What only a key's holder knows.
pub struct Passphrase(Zeroizing<String>);

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl Passphrase {
    /// Takes what was typed, without the end of the line.
    pub fn new(typed: &str) -> Result<Self, PublishError> {
        let text = typed.trim_end_matches(['\n', '\r']);
        if text.is_empty() || text.len() > PASSPHRASE_LEN_MAX || text.contains(['\n', '\0']) {
            return Err(PublishError::PassphraseForm);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Reads a file of one line that nobody else can read.
    pub fn read(path: &Path) -> Result<Self, PublishError> {
        Self::new(&private_text(path)?)
    }

    /// Whether two holders typed the same, or one holder typed the same twice.
    pub fn same(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }

    /// Refuses one too short to wrap with.
    pub fn strong(&self) -> Result<(), PublishError> {
        if self.0.chars().count() < PASSPHRASE_CHARS_MIN {
            return Err(PublishError::PassphraseForm);
        }
        Ok(())
    }
}

/// Why wrapped bytes stay wrapped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StillWrapped {
    /// Another passphrase, or other bytes than were wrapped: nobody can tell which.
    Passphrase,
    /// Parameters out of bounds, or a field that does not read.
    Form,
}

/// Bytes under a passphrase, as files hold them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrapped {
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    cipher: String,
    nonce: String,
    ciphertext: String,
}

impl Wrapped {
    /// Wraps bytes. `about` is what stands beside them in the clear; nobody can give them another.
    pub fn seal(passphrase: &Passphrase, about: &str, bytes: &[u8]) -> Result<Self, PublishError> {
        passphrase.strong()?;
        let (mut salt, mut nonce) = ([0; SALT_LEN], [0; NONCE_LEN]);
        for random in [&mut salt[..], &mut nonce[..]] {
            aws_lc_rs::rand::fill(random).map_err(|_| PublishError::Crypto)?;
        }
        let mut wrapped = Self {
            kdf: "argon2id".into(),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: STANDARD.encode(salt),
            cipher: "chacha20-poly1305".into(),
            nonce: STANDARD.encode(nonce),
            ciphertext: String::new(),
        };
        let key = wrapped.key(passphrase).map_err(|_| PublishError::Crypto)?;
        let mut text = Zeroizing::new(bytes.to_vec());
        let aad = Aad::from(wrapped.bound(about));
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text)
            .map_err(|_| PublishError::Crypto)?;
        text.extend_from_slice(tag.as_ref());
        wrapped.ciphertext = STANDARD.encode(&*text);
        Ok(wrapped)
    }

    /// Opens them again.
    pub fn open(&self, passphrase: &Passphrase, about: &str) -> Result<Zeroizing<Vec<u8>>, StillWrapped> {
        let nonce = decoded::<NONCE_LEN>(&self.nonce)?;
        let mut text = Zeroizing::new(
            STANDARD
                .decode(&self.ciphertext)
                .map_err(|_| StillWrapped::Form)?,
        );
        let key = self.key(passphrase)?;
        let aad = Aad::from(self.bound(about));
        let length = key
            .open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut text)
            .map_err(|_| StillWrapped::Passphrase)?
            .len();
        text.truncate(length);
        Ok(text)
    }

    /// Derives the key, after the parameters were found within bounds.
    fn key(&self, passphrase: &Passphrase) -> Result<LessSafeKey, StillWrapped> {
        let known = self.kdf == "argon2id" && self.cipher == "chacha20-poly1305";
        let bounded = MEMORY_KIB_ALLOWED.contains(&self.memory_kib)
            && PASSES_ALLOWED.contains(&self.passes)
            && LANES_ALLOWED.contains(&self.lanes);
        if !known || !bounded {
            return Err(StillWrapped::Form);
        }
        let salt = decoded::<SALT_LEN>(&self.salt)?;
        let mut key = Zeroizing::new([0; 32]);
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(key.len()));
        let argon = Argon2::new(
            Algorithm::Argon2id,
            Version::V0x13,
            params.map_err(|_| StillWrapped::Form)?,
        );
        argon
            .hash_password_into(passphrase.0.as_bytes(), &salt, &mut *key)
            .map_err(|_| StillWrapped::Form)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*key).map_err(|_| StillWrapped::Form)?;
        Ok(LessSafeKey::new(key))
    }

    /// What the ciphertext is bound to: everything in the clear.
    fn bound(&self, about: &str) -> Vec<u8> {
        json!([
            about,
            self.kdf,
            self.memory_kib,
            self.passes,
            self.lanes,
            self.salt,
            self.cipher
        ])
        .to_string()
        .into_bytes()
    }
}

fn decoded<const LENGTH: usize>(text: &str) -> Result<[u8; LENGTH], StillWrapped> {
    let bytes = STANDARD.decode(text).map_err(|_| StillWrapped::Form)?;
    bytes.try_into().map_err(|_| StillWrapped::Form)
}
