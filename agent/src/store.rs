//! The state folder: where everything is, and the files that make this device this device.

use crate::AgentError;
use crate::authorities::{self, Believed};
use crate::clock::Proven;
use crate::disk::{Disk, RealDisk, replace};
use crate::held::{DeviceKey, Tokens, line, no_such_key, tpm_of};
use crate::record::Guard;
use crate::seal::{KEY_LEN, SealKey};
use redan_identity::key::read_private;
use redan_identity::profile::{latest_not_before, read_own_leaf, valid_between};
use redan_identity::tpm::{Address, Blob, Counter, seal, unseal};
use redan_identity::{
    FleetAnchor, IdentityError, KeyFile, KeyProvider as _, ProfileFault, TokenUri, Zeroizing, tls,
};
use redan_protocol::wire::{VOUCHER_LEN_MAX, Voucher};
use redan_protocol::{AuthorityState, ByteCount, DeviceId, Digest, FleetId, SpiffeId, UnixSeconds};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
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
    pub(crate) believed: Believed,
    /// The authority its chain is under; `None`: one that is believed no more, so that nobody believes the chain either.
    pub(crate) authority: Option<Digest>,
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
            "revoked",
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
        self.keep("identity/key.pem", key.to_pem().as_bytes())?;
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

    /// The device's own key, of a TPM; made there when the device has none.
    pub(crate) fn key_in_tpm(&self, address: &Address) -> Result<DeviceKey, AgentError> {
        let path = self.at("identity/key.pem");
        if path.exists() {
            let text = read_private(&path)?;
            if tpm_of(&text)?.as_ref() != Some(address) {
                return Err(AgentError::OtherKey { path });
            }
            return DeviceKey::read(&Tokens, &text);
        }
        let key = DeviceKey::make_in_tpm(address)?;
        self.keep("identity/key.pem", key.text().as_bytes())?;
        Ok(key)
    }

    /// The TPM of a device whose key is of one: it seals the device's secret too, and counts its trust records.
    pub(crate) fn tpm(&self) -> Result<Option<Address>, AgentError> {
        let path = self.at("identity/key.pem");
        if !path.exists() {
            return Ok(None);
        }
        tpm_of(&read_private(&path)?)
    }

    /// The device-only MAC key; made when there is none. In a TPM where there is one: a copied disk has it in a form that no other TPM
    /// opens.
    pub(crate) fn seal_key(&self) -> Result<SealKey, AgentError> {
        match self.tpm()? {
            Some(address) => self.seal_key_of(&address),
            None => self.seal_key_on_disk(),
        }
    }

    /// What this device's trust records are bound to, where there is a TPM.
    pub(crate) fn guard(&self, id: &SpiffeId, key: &Rc<SealKey>) -> Result<Option<Guard>, AgentError> {
        Ok(self.tpm()?.map(|address| Guard {
            key: Rc::clone(key),
            counter: Rc::new(Counter::of(&address, &id.to_string())),
        }))
    }

    fn seal_key_of(&self, address: &Address) -> Result<SealKey, AgentError> {
        let path = self.at("identity/seal.tpm");
        if path.exists() {
            let blob = Blob::parse(read_private(&path)?.trim()).map_err(IdentityError::from)?;
            let bytes = unseal(&blob).map_err(IdentityError::from)?;
            return sealing(&bytes, &path);
        }
        let fresh: Zeroizing<[u8; KEY_LEN]> = Zeroizing::new(random()?);
        let blob = seal(address, &*fresh).map_err(IdentityError::from)?;
        self.keep("identity/seal.tpm", format!("{blob}\n").as_bytes())?;
        // One that was on this disk is not taken over: whoever copied the disk has it.
        let before = self.at("identity/seal.key");
        if before.exists() {
            let failed = |source| AgentError::file("remove", &before, source);
            RealDisk.remove(&before).map_err(failed)?;
            tracing::warn!(
                "the TPM seals a new key from now on: the journal and native code under the one before are made again"
            );
        }
        Ok(SealKey::new(&fresh))
    }

    fn seal_key_on_disk(&self) -> Result<SealKey, AgentError> {
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
        sealing(&bytes, &path)
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
        let believed = authorities::believed(&RealDisk, &self.0, &voucher)?;
        let chain = redan_identity::pem::read_chain(&chain)?;
        Identity::own(voucher, believed, self.key()?, chain).map(Some)
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
    /// Holds a chain against what is believed and what the voucher says: anchor, name and key.
    pub(crate) fn prove(
        voucher: Voucher,
        believed: Believed,
        key: DeviceKey,
        chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    ) -> Result<Self, AgentError> {
        let checked = believed
            .anchors
            .check_device_leaf(&chain, latest_not_before(&chain))?;
        let since = latest_not_before(chain.get(1..).unwrap_or_default());
        Self::assemble(voucher, believed, key, chain, checked, since)
    }

    /// The same for what is on this device's own disk, whose authority may have been revoked since: what runs goes on, and the device
    /// asks for another certificate. Such a chain proves no time.
    pub(crate) fn own(
        voucher: Voucher,
        believed: Believed,
        key: DeviceKey,
        chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    ) -> Result<Self, AgentError> {
        if !believed.listed || believed.anchors.above(&chain).is_some() {
            return Self::prove(voucher, believed, key, chain);
        }
        let read = read_own_leaf(chain.first().ok_or_else(no_leaf)?)?;
        Self::assemble(voucher, believed, key, chain, read, UnixSeconds::default())
    }

    fn assemble(
        voucher: Voucher,
        believed: Believed,
        key: DeviceKey,
        chain: Vec<rustls_pki_types::CertificateDer<'static>>,
        (fleet, device, spki): (FleetId, DeviceId, Digest),
        since: UnixSeconds,
    ) -> Result<Self, AgentError> {
        let valid = valid_between(chain.first().ok_or_else(no_leaf)?)?;
        if (&fleet, &device) != (&voucher.fleet, &voucher.device) {
            return Err(AgentError::Voucher("the certificate names another device"));
        }
        if spki != key.spki_sha256() {
            return Err(AgentError::Voucher("the certificate is for another key"));
        }
        let authority = believed.anchors.above(&chain).map(FleetAnchor::sha256);
        Ok(Self {
            id: SpiffeId::Device(fleet, device),
            voucher,
            believed,
            authority,
            key,
            chain,
            since,
            valid,
        })
    }

    /// The same device with a key and a chain it was given.
    pub(crate) fn with(
        &self,
        key: DeviceKey,
        chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    ) -> Result<Self, AgentError> {
        Self::prove(self.voucher.clone(), self.believed.clone(), key, chain)
    }

    /// The same device with a key and a chain it has had on its disk.
    pub(crate) fn with_own(
        &self,
        key: DeviceKey,
        chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    ) -> Result<Self, AgentError> {
        Self::own(self.voucher.clone(), self.believed.clone(), key, chain)
    }

    /// The same device after its fleet's authorities changed.
    pub(crate) fn under(&self, believed: Believed) -> Self {
        let authority = believed.anchors.above(&self.chain);
        Self {
            authority: authority.map(FleetAnchor::sha256),
            believed,
            ..self.clone()
        }
    }

    /// How the authority of its certificate stands; `None`: it is believed no more.
    pub(crate) fn authority_state(&self) -> Option<AuthorityState> {
        self.believed.anchors.state(self.authority?)
    }

    /// How a connection speaks as this device.
    pub(crate) fn speaks(&self, proven: &Proven) -> Result<Arc<rustls::ClientConfig>, AgentError> {
        let anchors = &self.believed.anchors;
        let config = tls::device_client(anchors, self.chain.clone(), &self.key, proven.floor());
        Ok(config?)
    }
}

fn sealing(bytes: &[u8], path: &Path) -> Result<SealKey, AgentError> {
    let key = bytes
        .first_chunk::<KEY_LEN>()
        .filter(|_| bytes.len() == KEY_LEN)
        .ok_or_else(|| AgentError::file("read", path, std::io::ErrorKind::InvalidData.into()))?;
    Ok(SealKey::new(key))
}

fn no_leaf() -> redan_identity::IdentityError {
    ProfileFault::ChainLength.into()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::wall;
    use redan_identity::{FleetCa, IssuerKind};
    use redan_protocol::wire::VoucherSchema;
    use redan_protocol::{DeviceId, FleetId};

    /// Whoever answers holds answers of other times: of other devices, or to this device with the key it had before (E02).
    #[test]
    fn an_answer_of_another_device_or_for_another_key_is_not_kept() {
        let fleet = FleetId::parse("plant.example").unwrap();
        let ca = FleetCa::found(fleet.clone(), wall()).unwrap();
        let anchor = ca.anchor().unwrap();
        let issuer = ca.issuer(IssuerKind::Device, wall()).unwrap();
        let device = |name: &str| DeviceId::parse(name).unwrap();
        let (own, before) = (KeyFile::generate().unwrap(), KeyFile::generate().unwrap());
        let voucher = Voucher {
            schema: VoucherSchema::V1,
            fleet: fleet.clone(),
            device: device("press-1"),
            spki: own.spki_sha256(),
            ca: redan_identity::pem::write_chain(&[anchor.root().clone()]),
            release_root: String::new(),
            director_root: String::new(),
            server: String::new(),
            expires: wall(),
            chain: None,
        };
        let answer = |name: &str, key: &KeyFile| {
            let id = SpiffeId::Device(fleet.clone(), device(name));
            issuer.issue_for(&id, key, wall()).unwrap()
        };
        let prove = |chain| {
            let key = KeyFile::from_pem(&own.to_pem()).unwrap();
            let proven = Identity::prove(
                voucher.clone(),
                Believed::of_voucher(&voucher.fleet, &voucher.ca).unwrap(),
                key.into(),
                chain,
            );
            proven.map(drop).map_err(|error| error.to_string())
        };
        let said = |what| Err(AgentError::Voucher(what).to_string());
        let other = said("the certificate names another device");
        assert_eq!(prove(answer("press-2", &own)), other);
        assert_eq!(prove(answer("press-2", &before)), other);
        assert_eq!(
            prove(answer("press-1", &before)),
            said("the certificate is for another key")
        );
        assert_eq!(prove(answer("press-1", &own)), Ok(()), "positive control");
    }
}
