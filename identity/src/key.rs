//! Private keys in files: made here, readable by their owner alone, written so that a power cut leaves the old or the new one.

use crate::error::IdentityError;
use rcgen::{KeyPair, PublicKeyData as _};
use redan_protocol::Digest;
use rustls::pki_types::PrivateKeyDer;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// A P-256 key (RFC 5480) in PKCS#8 (RFC 5958), PEM. For development and for devices without a TPM.
pub struct KeyFile {
    pair: KeyPair,
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyFile({})", self.spki_sha256())
    }
}

impl KeyFile {
    /// Makes a new key.
    pub fn generate() -> Result<Self, IdentityError> {
        Self::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn generate_for(algorithm: &'static rcgen::SignatureAlgorithm) -> Result<Self, IdentityError> {
        let pair = KeyPair::generate_for(algorithm).map_err(|_| IdentityError::Crypto {
            doing: "making a key",
        })?;
        Ok(Self { pair })
    }

    /// Reads PEM.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let pair = KeyPair::from_pem(pem).map_err(|_| IdentityError::Malformed {
            what: "a private key",
        })?;
        Ok(Self { pair })
    }

    /// PEM, wiped when dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.pair.serialize_pem())
    }

    /// Reads a file, and refuses one that others may read.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let mode = std::fs::metadata(path)
            .map_err(|error| file(path, &error))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(IdentityError::KeyMode {
                path: path.display().to_string(),
                mode: mode & 0o7777,
            });
        }
        let pem = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| file(path, &error))?);
        Self::from_pem(&pem)
    }

    /// Writes the file (mode 0600) so that after a power cut it is the old or the new one, whole.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        write_private(path, self.to_pem().as_bytes())
    }

    /// SHA-256 of the DER-encoded `SubjectPublicKeyInfo`.
    pub fn spki_sha256(&self) -> Digest {
        Digest::of(&self.pair.subject_public_key_info())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(crate) fn into_pair(self) -> KeyPair {
        self.pair
    }

    /// The DER-encoded `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    pub(crate) fn rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.pair.serialize_der().into())
    }
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
            _ => Ok(()),
        }
    })();
    written.map_err(|error: std::io::Error| file(path, &error))
}

pub(crate) fn file(path: &Path, error: &std::io::Error) -> IdentityError {
    IdentityError::File {
        path: path.display().to_string(),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = KeyFile::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(KeyFile::load(&path).unwrap().spki_sha256(), key.spki_sha256());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = IdentityError::KeyMode {
            path: path.display().to_string(),
            mode: 0o640,
        };
        assert_eq!(KeyFile::load(&path).unwrap_err(), refused);
    }

    #[test]
    fn a_left_over_of_a_power_cut_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        std::fs::write(folder.path().join("key.pem.new"), "torn").unwrap();
        KeyFile::generate().unwrap().save(&path).unwrap();
        assert!(KeyFile::load(&path).is_ok());
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = KeyFile::generate().unwrap();
        assert_eq!(format!("{key:?}"), format!("KeyFile({})", key.spki_sha256()));
    }
}
