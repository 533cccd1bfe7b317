//! Keys in files: made here, readable by their owner alone, written so that a power cut leaves the old or the new one.

use super::KeyProvider;
use crate::error::IdentityError;
use crate::pem;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use redan_protocol::{ByteCount, Digest};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Largest file with a key or a key and its chain. Both are under 4 KiB.
const PRIVATE_LEN_MAX: ByteCount = ByteCount::kib(64);

/// A P-256 key (RFC 5480) in PKCS#8 (RFC 5958), PEM. For development and for devices without a TPM.
#[derive(Clone)]
pub struct KeyFile(Arc<Inner>);

struct Inner {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyFile({})", self.spki_sha256())
    }
}

impl KeyProvider for KeyFile {
    fn spki(&self) -> Vec<u8> {
        self.0.spki.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let signed = self.0.pair.sign(&SystemRandom::new(), message);
        let signed = signed.map_err(|_| IdentityError::Crypto { doing: "signing" })?;
        Ok(signed.as_ref().to_vec())
    }

    fn share(&self) -> Arc<dyn KeyProvider> {
        Arc::new(self.clone())
    }
}

impl KeyFile {
    /// Makes a new key.
    pub fn generate() -> Result<Self, IdentityError> {
        let failed = || IdentityError::Crypto {
            doing: "making a key",
        };
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| failed())?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| failed())?;
        Self::new(pair, pkcs8.as_ref()).ok_or_else(failed)
    }

    /// Reads PEM: the first PKCS#8 key in it, which must be P-256.
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Malformed {
            what: "a P-256 private key in PEM (PKCS#8)",
        };
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| malformed())?;
        let der = pkcs8.secret_pkcs8_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map_err(|_| malformed())?;
        Self::new(pair, der).ok_or_else(malformed)
    }

    fn new(pair: EcdsaKeyPair, pkcs8: &[u8]) -> Option<Self> {
        let spki = pair.public_key().as_der().ok()?.as_ref().to_vec();
        crate::profile::rules::p256(&spki).ok()?;
        Some(Self(Arc::new(Inner {
            pair,
            pkcs8: Zeroizing::new(pkcs8.to_vec()),
            spki,
        })))
    }

    /// PEM, wiped when dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        pem::write(&mut text, "PRIVATE KEY", &self.0.pkcs8);
        text
    }

    /// Reads a file, and refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        Self::from_pem(&read_private(path)?)
    }

    /// Writes the file (mode 0600) so that after a power cut it is the old or the new one, whole.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        write_private(path, self.to_pem().as_bytes())
    }

    /// SHA-256 of the DER-encoded `SubjectPublicKeyInfo`.
    pub fn spki_sha256(&self) -> Digest {
        Digest::of(&self.0.spki)
    }

    /// The DER-encoded `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> Vec<u8> {
        self.0.spki.clone()
    }
}

/// Reads a file of private keys, wiped when dropped. Refuses one that group or others can touch: whoever could read it may have.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, IdentityError> {
    let failed = |error: std::io::Error| fault(path, &error);
    let file = File::open(path).map_err(failed)?;
    // Of the file that is open, not of whatever the path leads to a moment later.
    let about = file.metadata().map_err(failed)?;
    let mode = about.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(IdentityError::KeyMode {
            path: path.display().to_string(),
            mode: mode & 0o7777,
        });
    }
    // Room for the whole: a buffer that grows leaves copies of the key behind.
    let room = about.len().min(PRIVATE_LEN_MAX.get());
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(room).unwrap_or(0)));
    let mut bounded = file.take(PRIVATE_LEN_MAX.get().saturating_add(1));
    let read = bounded.read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(read).map_or(true, |read| read > PRIVATE_LEN_MAX.get()) {
        return Err(IdentityError::Malformed { what: "a key file" });
    }
    Ok(text)
}

/// Writes a file of mode 0600: temporary sibling, fsync, rename, fsync of the folder.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    let written = (|| {
        // A left-over of a power cut; its mode might not be ours.
        match std::fs::remove_file(temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut out = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        std::fs::rename(temporary, path)?;
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    })();
    written.map_err(|error: std::io::Error| {
        // A full disk is left as it was; if even this fails, the next write removes the rest.
        drop(std::fs::remove_file(temporary));
        fault(path, &error)
    })
}

fn fault(path: &Path, error: &std::io::Error) -> IdentityError {
    IdentityError::File {
        path: path.display().to_string(),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_key_file_others_can_touch_is_refused() {
        let folder = folder();
        let path = folder.path().join("key.pem");
        let key = KeyFile::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(KeyFile::load(&path).unwrap().spki_sha256(), key.spki_sha256());
        for mode in [0o640, 0o604, 0o620, 0o601, 0o610] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = IdentityError::KeyMode {
                path: path.display().to_string(),
                mode,
            };
            assert_eq!(KeyFile::load(&path).unwrap_err(), refused);
        }
    }

    #[test]
    fn a_left_over_of_a_power_cut_is_replaced() {
        let folder = folder();
        let path = folder.path().join("key.pem");
        std::fs::write(folder.path().join("key.pem.new"), "torn").unwrap();
        KeyFile::generate().unwrap().save(&path).unwrap();
        assert!(KeyFile::load(&path).is_ok());
        assert!(!folder.path().join("key.pem.new").exists());
    }

    #[test]
    fn a_failed_write_leaves_the_old_key() {
        let folder = folder();
        let path = folder.path().join("key.pem");
        let old = KeyFile::generate().unwrap();
        old.save(&path).unwrap();
        // A folder where the temporary file would go: as good as a full disk, and it binds root too.
        std::fs::create_dir(folder.path().join("key.pem.new")).unwrap();
        let refused = KeyFile::generate().unwrap().save(&path).unwrap_err();
        assert_eq!(refused.code(), redan_protocol::Code::DiskFailed);
        assert_eq!(KeyFile::load(&path).unwrap().spki_sha256(), old.spki_sha256());
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = KeyFile::generate().unwrap();
        assert_eq!(format!("{key:?}"), format!("KeyFile({})", key.spki_sha256()));
    }

    #[test]
    fn a_key_file_over_the_limit_is_not_read() {
        let folder = folder();
        let path = folder.path().join("key.pem");
        let limit = usize::try_from(PRIVATE_LEN_MAX.get()).unwrap();
        let mut text = KeyFile::generate().unwrap().to_pem().to_string();
        text.push_str(&"\n".repeat(limit - text.len()));
        write_private(&path, text.as_bytes()).unwrap();
        assert!(KeyFile::load(&path).is_ok());
        text.push('\n');
        write_private(&path, text.as_bytes()).unwrap();
        let refused = IdentityError::Malformed { what: "a key file" };
        assert_eq!(KeyFile::load(&path).unwrap_err(), refused);
    }

    #[test]
    fn a_key_of_another_algorithm_is_refused() {
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let refused = IdentityError::Malformed {
            what: "a P-256 private key in PEM (PKCS#8)",
        };
        assert_eq!(KeyFile::from_pem(&other.serialize_pem()).unwrap_err(), refused);
        assert_eq!(KeyFile::from_pem("").unwrap_err(), refused);
    }
}
