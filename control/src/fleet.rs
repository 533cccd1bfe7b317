//! One fleet on this server: its keys, its database, its artifacts, and what is known of its devices. Opened for a fleet, so
//! that rows of two fleets cannot meet.

use crate::artifacts::Artifacts;
use crate::error::{Refused, ServerError, StoreError};
use crate::store::{Put, Store};
use redan_control_core::Rollout;
use redan_identity::profile::{Purpose, check};
use redan_identity::tls::{FleetServer, fleet_server};
use redan_identity::{FleetAnchor, Issuer, IssuerKind, pem};
use redan_protocol::audit::{Action, AuditEntry};
use redan_protocol::report::Report;
use redan_protocol::{DeviceId, Digest, DirectionSequence, FleetId, SetId, UnixSeconds};
use redan_publish::{DirectorFiles, SigningKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;

/// Keys the server holds, and no others.
#[derive(Debug)]
pub struct OnlineKeys {
    /// Release `timestamp`.
    pub release_timestamp: SigningKey,
    /// Director `targets`.
    pub director_targets: SigningKey,
    /// Director `snapshot`.
    pub director_snapshot: SigningKey,
    /// Director `timestamp`, and freshness statements.
    pub director_timestamp: SigningKey,
}

/// A device as the server knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRow {
    /// Keys it may use: the current one, and after a renewal the next one.
    pub keys: Vec<Digest>,
    /// Labels for waves.
    pub labels: BTreeMap<String, String>,
    /// Its voucher's last second.
    pub voucher_expires: UnixSeconds,
    /// When it enrolled.
    pub enrolled: Option<UnixSeconds>,
    /// Revoked.
    pub revoked: bool,
    /// When it last checked in.
    pub last_seen: Option<UnixSeconds>,
    /// What it said then.
    pub report: Option<Report>,
}

/// What a device is directed to, signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorRow {
    /// The set; `None`: nothing.
    pub set: Option<SetId>,
    /// The rollout it comes from.
    pub rollout: u64,
    /// Version of the release timestamp it was made for: members' signatures may have changed since.
    pub release: u64,
    /// Sequence number.
    pub sequence: DirectionSequence,
    /// When it was made.
    pub made: UnixSeconds,
    /// Version of the files.
    pub version: u64,
    /// `targets.json`
    pub targets: String,
    /// `snapshot.json`
    pub snapshot: String,
    /// `timestamp.json`
    pub timestamp: String,
}

impl DirectorRow {
    pub(crate) fn fill(&mut self, files: DirectorFiles) {
        let text = |bytes| String::from_utf8(bytes).unwrap_or_default();
        self.version = files.version;
        self.targets = text(files.targets);
        self.snapshot = text(files.snapshot);
        self.timestamp = text(files.timestamp);
    }
}

/// Everything that changes.
#[derive(Debug, Default)]
pub struct State {
    /// Devices.
    pub devices: BTreeMap<DeviceId, DeviceRow>,
    /// Director repositories, per device.
    pub director: BTreeMap<DeviceId, DirectorRow>,
    /// Rollouts, in the order they were started.
    pub rollouts: Vec<Rollout>,
    /// Release metadata by file name, as signed.
    pub release: BTreeMap<String, Vec<u8>>,
    /// The newest audit entry.
    pub last_audit: Option<AuditEntry>,
}

/// A fleet.
#[derive(Debug)]
pub struct Fleet {
    /// Its name.
    pub id: FleetId,
    /// Its one trust anchor.
    pub anchor: FleetAnchor,
    /// Its TLS.
    pub tls: FleetServer,
    /// Last second of the server's certificate.
    pub server_expires: UnixSeconds,
    /// Its device issuer.
    pub issuer: Issuer,
    /// Its online keys.
    pub keys: OnlineKeys,
    /// Its artifacts.
    pub artifacts: Artifacts,
    /// `1.root.json` of both repositories, for vouchers and the director.
    pub release_root: String,
    /// The director's root.
    pub director_root: String,
    /// All roots of the director repository by file name, as the ceremony's folder held them at the start.
    pub director_roots: BTreeMap<String, Vec<u8>>,
    store: Store,
    /// What changes; one writer at a time.
    pub state: Mutex<State>,
}

impl Fleet {
    /// Opens a registered fleet.
    pub async fn open(folder: &Path, id: FleetId, now: UnixSeconds) -> Result<Self, ServerError> {
        let online = folder.join("online");
        let public = folder.join("public");
        let read =
            |path: PathBuf| std::fs::read_to_string(&path).map_err(|error| ServerError::file(&path, &error));
        let identity = |path: &Path| {
            let path = path.display().to_string();
            move |source| ServerError::Identity { path, source }
        };
        let ca = public.join("ca.pem");
        let anchor = FleetAnchor::from_pem(id.clone(), &read(ca.clone())?).map_err(identity(&ca))?;
        let bundle = |name: &str| {
            let path = online.join(name);
            let text = redan_identity::Zeroizing::new(read(path.clone())?);
            pem::read_bundle(&text).map_err(identity(&path))
        };
        let (server_key, server_chain) = bundle("server.pem")?;
        let tls = fleet_server(&anchor, &server_chain, &server_key, now)
            .map_err(identity(&online.join("server.pem")))?;
        let server_expires = check(&anchor, &server_chain, Purpose::Server, now)
            .map_err(identity(&online.join("server.pem")))?
            .expires();
        let (issuer_key, issuer_chain) = bundle("device-issuer.pem")?;
        let certificate = issuer_chain.into_iter().next().ok_or(ServerError::NoFleet)?;
        // The operators' or servers' issuer in its place would be an offline key on this machine.
        let issuer = Issuer::load(IssuerKind::Device, anchor.clone(), issuer_key, certificate)
            .proven(now)
            .map_err(identity(&online.join("device-issuer.pem")))?;
        let key = |name: &str| SigningKey::load(&online.join(format!("{name}.key.json")));
        let keys = OnlineKeys {
            release_timestamp: key("release.timestamp")?,
            director_targets: key("director.targets")?,
            director_snapshot: key("director.snapshot")?,
            director_timestamp: key("director.timestamp")?,
        };
        let release_root = read(public.join("release/1.root.json"))?;
        let director_root = read(public.join("director/1.root.json"))?;
        let mut director_roots = crate::keys::read(&public.join("director"))?;
        director_roots.retain(|name, _| name.ends_with(".root.json"));
        let artifacts_folder = folder.join("artifacts");
        std::fs::create_dir_all(&artifacts_folder)
            .map_err(|error| ServerError::file(&artifacts_folder, &error))?;
        let artifacts = Artifacts::local(&artifacts_folder)?;
        let store = Store::open(&folder.join("fleet.sqlite")).await?;
        let state = load(&store).await?;
        crate::keys::hold(&anchor, &public, &online, &state.release)?;
        let fleet = Self {
            id,
            anchor,
            tls,
            server_expires,
            issuer,
            keys,
            artifacts,
            release_root,
            director_root,
            director_roots,
            store,
            state: Mutex::new(state),
        };
        fleet.first_metadata(&public, now).await?;
        Ok(fleet)
    }

    /// The first time: takes the ceremony's metadata over and signs the first timestamp. Later: the roots that were put there since.
    /// A root that replaces a stolen online key comes with the new key, by hand and with the server down: uploaded to the old one,
    /// the old key would have to sign for it.
    async fn first_metadata(&self, public: &Path, now: UnixSeconds) -> Result<(), ServerError> {
        let mut state = self.state.lock().await;
        let folder = public.join("release");
        let mut files = crate::keys::read(&folder)?;
        if !state.release.is_empty() {
            files.retain(|name, _| name.ends_with(".root.json") && !state.release.contains_key(name));
            if files.is_empty() {
                return Ok(());
            }
        }
        let accepted = crate::release::accept(self, &state.release, files, now).map_err(|refused| {
            let path = folder.display().to_string();
            ServerError::File {
                path,
                what: refused.detail.unwrap_or_else(|| refused.code.to_string()),
            }
        })?;
        let (action, subject) = if state.release.is_empty() {
            (Action::FleetAdded, self.id.to_string())
        } else {
            let names: Vec<&str> = accepted.keys().map(String::as_str).collect();
            (Action::ReleasePublished, names.join(" "))
        };
        let puts = accepted
            .iter()
            .map(|(name, bytes)| Put::bytes("release", name, bytes.clone()))
            .collect();
        self.commit(&mut state, now, "local", puts, &[(action, subject)])
            .await?;
        state.release.extend(accepted);
        Ok(())
    }

    /// Makes a change durable together with what the audit says of it.
    pub async fn commit(
        &self,
        state: &mut State,
        now: UnixSeconds,
        actor: &str,
        puts: Vec<Put>,
        actions: &[(Action, String)],
    ) -> Result<(), StoreError> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for (action, subject) in actions {
            let last = entries.last().or(state.last_audit.as_ref());
            entries.push(AuditEntry::following(last, now, actor, *action, subject));
        }
        self.store.commit(&puts, &entries).await?;
        if let Some(last) = entries.pop() {
            state.last_audit = Some(last);
        }
        Ok(())
    }

    /// The audit log.
    pub async fn audit(&self, from: u64) -> Result<Vec<AuditEntry>, StoreError> {
        self.store.audit(from).await
    }

    /// Whether a key may speak for a device now. Asked for every request, so that a revocation acts on open connections. The first
    /// request under the next key ends the one before (20-identity, life of a certificate).
    pub async fn allows(&self, device: &DeviceId, spki: Digest, now: UnixSeconds) -> Result<(), Refused> {
        let mut state = self.state.lock().await;
        let row = state.devices.get(device).filter(|row| !row.revoked);
        let place = row.and_then(|row| row.keys.iter().position(|key| *key == spki));
        let (Some(row), Some(place)) = (row, place) else {
            // A key that was superseded speaks again: the device was cloned, or its own renewal went wrong.
            tracing::warn!(fleet = %self.id, %device, %spki, "a key that is revoked or superseded was used");
            return Err(Refused::plain(redan_protocol::Code::CertificateRevoked));
        };
        if place > 0 {
            let mut row = row.clone();
            row.keys.drain(..place);
            let put = Put::json("device", device.as_str(), &row)?;
            self.commit(&mut state, now, "server", vec![put], &[]).await?;
            state.devices.insert(device.clone(), row);
        }
        Ok(())
    }
}

async fn load(store: &Store) -> Result<State, ServerError> {
    let by_device = |id: String, kind| DeviceId::parse(&id).map_err(|_| StoreError::Document { kind, id });
    let mut state = State {
        last_audit: store.last_audit().await?,
        ..State::default()
    };
    for (id, row) in store.all::<DeviceRow>("device").await? {
        state.devices.insert(by_device(id, "device")?, row);
    }
    for (id, row) in store.all::<DirectorRow>("director").await? {
        state.director.insert(by_device(id, "director")?, row);
    }
    state.rollouts = store
        .all::<Rollout>("rollout")
        .await?
        .into_iter()
        .map(|(_, rollout)| rollout)
        .collect();
    state.rollouts.sort_by_key(|rollout| rollout.id);
    state.release = store.all_bytes("release").await?.into_iter().collect();
    Ok(state)
}
