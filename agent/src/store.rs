//! The state folder: where everything is, and the files that make this device this device.

use crate::AgentError;
use crate::clock::Proven;
use crate::disk::{Disk, RealDisk, replace};
use crate::held::{DeviceKey, Tokens, line, no_such_key};
use crate::seal::{KEY_LEN, SealKey};
use redan_identity::key::read_private;
use redan_identity::profile::{check_device_leaf, latest_not_before, valid_between};
use redan_identity::{FleetAnchor, KeyFile, KeyProvider as _, ProfileFault, TokenUri, Zeroizing, tls};
use redan_protocol::wire::{VOUCHER_LEN_MAX, Voucher};
use redan_protocol::{ByteCount, SpiffeId, UnixSeconds};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest identity file, bytes: a chain of a few certificates.
const IDENTITY_LEN_MAX: ByteCount = ByteCount::kib(64);

/// The paths below one state folder.
#[derive(Clone, Debug)]
pub(crate) struct Store(PathBuf);

/// Who the device is, proven by its own files.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) voucher: Voucher,
    pub(crate) anchor: FleetAnchor,
    pub(crate) key: DeviceKey,
    pub(crate) chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    pub(crate) id: SpiffeId,
    /// The not-before of its issuer's certificate, which an offline key signed: it is that late at least. Not the leaf's: the
    /// issuer's key is online, and whoever held it could move this device's time a year ahead.
    pub(crate) since: UnixSeconds,
    /// First and last second of the leaf.
    pub(crate) valid: (UnixSeconds, UnixSeconds),
}

impl Store {
    /// Makes the folders, for their owner only.
    pub(crate) fn create(state: &Path) -> Result<Self, AgentError> {
        let folders = [
            "identity/next",
            "trust",
            "metadata/release",
            "metadata/director",
            "blobs",
            "native",
            "journal",
            "data",
        ];
        for folder in folders.map(|folder| state.join(folder)) {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(|source| AgentError::file("make", &folder, source))?;
        }
        // Links on the way to the folder are its administrator's; from here on there is none, and none is followed.
        let path = state
            .canonicalize()
            .map_err(|source| AgentError::file("find", state, source))?;
        Ok(Self(path))
    }

    /// The folder of a device that was made before: makes nothing.
    pub(crate) fn open(state: &Path) -> Self {
        Self(state.canonicalize().unwrap_or_else(|_| state.to_owned()))
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// The device's own key; made when there is none.
    pub(crate) fn key(&self) -> Result<DeviceKey, AgentError> {
        let path = self.at("identity/key.pem");
        if path.exists() {
            return DeviceKey::read(&Tokens, &read_private(&path)?);
        }
        let key = KeyFile::generate()?;
        key.save(&path)?;
        Ok(key.into())
    }

    /// The device's own key in a token; made there when the token has none of that name. A device has one key: where it is, is
    /// decided once.
    pub(crate) fn key_in_token(&self, uri: &TokenUri) -> Result<DeviceKey, AgentError> {
        let path = self.at("identity/key.pem");
        if path.exists() {
            let text = read_private(&path)?;
            if *text != *line(uri) {
                return Err(AgentError::OtherKey { path });
            }
            return DeviceKey::read(&Tokens, &text);
        }
        let text = line(uri);
        let key = match DeviceKey::read(&Tokens, &text) {
            Err(error) if no_such_key(&error) => DeviceKey::make(&Tokens, uri)?,
            found => found?,
        };
        // The token first: a file that names no key would stop every later start.
        self.keep("identity/key.pem", key.text().as_bytes())?;
        Ok(key)
    }

    /// The device-only MAC key; made when there is none.
    pub(crate) fn seal_key(&self) -> Result<SealKey, AgentError> {
        let path = self.at("identity/seal.key");
        let length = ByteCount::new(u64::try_from(KEY_LEN).unwrap_or(0));
        let read = RealDisk
            .read(&path, length)
            .map_err(|source| AgentError::file("read", &path, source))?;
        let bytes = if let Some(bytes) = read {
            Zeroizing::new(bytes)
        } else {
            let fresh: Zeroizing<[u8; KEY_LEN]> = Zeroizing::new(random()?);
            self.keep("identity/seal.key", &*fresh)?;
            Zeroizing::new(fresh.to_vec())
        };
        let bytes = bytes
            .first_chunk::<KEY_LEN>()
            .filter(|_| bytes.len() == KEY_LEN)
            .ok_or_else(|| AgentError::file("read", &path, std::io::ErrorKind::InvalidData.into()))?;
        Ok(SealKey::new(bytes))
    }

    /// Reads the identity and proves it once more. `None`: not enrolled.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, AgentError> {
        let (Some(voucher), Some(chain)) = (
            self.text("identity/voucher.json", VOUCHER_LEN_MAX)?,
            self.text("identity/chain.pem", IDENTITY_LEN_MAX)?,
        ) else {
            return Ok(None);
        };
        let voucher = parse_voucher(&voucher)?;
        Identity::prove(voucher, self.key()?, redan_identity::pem::read_chain(&chain)?).map(Some)
    }

    /// Writes a file so that a power cut leaves the old or the new one.
    pub(crate) fn keep(&self, path: &str, bytes: &[u8]) -> Result<(), AgentError> {
        let path = self.at(path);
        replace(&RealDisk, &path, bytes).map_err(|source| AgentError::file("write", &path, source))
    }

    fn text(&self, path: &str, limit: ByteCount) -> Result<Option<String>, AgentError> {
        let path = self.at(path);
        let failed = |source| AgentError::file("read", &path, source);
        let Some(bytes) = RealDisk.read(&path, limit).map_err(failed)? else {
            return Ok(None);
        };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| failed(std::io::ErrorKind::InvalidData.into()))
    }
}

impl Identity {
    /// Holds a chain against what the voucher pinned: anchor, name and key.
    pub(crate) fn prove(
        voucher: Voucher,
        key: DeviceKey,
        chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    ) -> Result<Self, AgentError> {
        let anchor = FleetAnchor::from_pem(voucher.fleet.clone(), &voucher.ca)?;
        let (fleet, device, spki) = check_device_leaf(&anchor, &chain, latest_not_before(&chain))?;
        let none = || redan_identity::IdentityError::from(ProfileFault::ChainLength);
        let (leaf, issuers) = chain.split_first().ok_or_else(none)?;
        let (valid, since) = (valid_between(leaf)?, latest_not_before(issuers));
        if (&fleet, &device) != (&voucher.fleet, &voucher.device) {
            return Err(AgentError::Voucher("the certificate names another device"));
        }
        if spki != key.spki_sha256() {
            return Err(AgentError::Voucher("the certificate is for another key"));
        }
        let id = SpiffeId::Device(fleet, device);
        Ok(Self {
            voucher,
            anchor,
            key,
            chain,
            id,
            since,
            valid,
        })
    }
}

impl Identity {
    /// How a connection speaks as this device.
    pub(crate) fn speaks(&self, proven: &Proven) -> Result<Arc<rustls::ClientConfig>, AgentError> {
        let config = tls::device_client(&self.anchor, self.chain.clone(), &self.key, proven.floor());
        Ok(config?)
    }
}

/// Reads a voucher strictly.
pub(crate) fn parse_voucher(text: &str) -> Result<Voucher, AgentError> {
    serde_json::from_str(text).map_err(|_| AgentError::Voucher("it is not a redan.voucher/1 document"))
}

/// Fresh random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], AgentError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AgentError::System {
        what: "get random numbers",
        source: std::io::ErrorKind::Other.into(),
    })?;
    Ok(bytes)
}
