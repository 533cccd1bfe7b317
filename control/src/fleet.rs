//! One fleet on this server: its keys, its database, its artifacts, and what is known of its devices. Opened for a fleet, so
//! that rows of two fleets cannot meet.

use crate::artifacts::Artifacts;
use crate::config::FleetSettings;
use crate::crl::Leaf;
use crate::error::{ServerError, StoreError};
use crate::lineage::CloneAlarm;
use crate::live::Live;
use crate::operators::OperatorRow;
use crate::store::{Put, Store};
use crate::tokens::TokenRow;
use redan_control_core::Rollout;
use redan_identity::join::JoinKey;
use redan_identity::profile::{Purpose, check, valid_between};
use redan_identity::tls::{FleetServer, KeyExchange, fleet_server_with};
use redan_identity::{CertificateDer, FleetAnchor, IdentityError, Issuer, IssuerKind, KeyFile, pem};
use redan_protocol::audit::{Action, AuditEntry};
use redan_protocol::join::TokenId;
use redan_protocol::report::Report;
use redan_protocol::{
    DeviceId, Digest, DirectionSequence, FleetId, OperatorName, Seconds, SetId, UnixSeconds,
};
use redan_publish::{DirectorFiles, PublishError, SigningKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::{Mutex, Semaphore};

/// When a server's certificate ought to be replaced: a third of its 90 days before its end.
const SERVER_SPARE: Seconds = Seconds::new(30 * 86_400);
/// When an issuer or the root ought to be: two lives of what it issues and the grace of devices that are away (20-identity).
const AUTHORITY_SPARE: Seconds = Seconds::new(182 * 86_400);

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
    /// Keys it used before, or was to use: nobody may any more.
    #[serde(default)]
    pub superseded: Vec<Digest>,
    /// The last certificate that was issued for renewal, for a device that did not get the answer.
    #[serde(default)]
    pub renewal: Option<Issued>,
    /// When certificates for new keys were issued, as far as that still counts against its budget.
    #[serde(default)]
    pub renewed: Vec<UnixSeconds>,
    /// A superseded key spoke again.
    #[serde(default)]
    pub clone_alarm: Option<CloneAlarm>,
    /// Labels for waves.
    pub labels: BTreeMap<String, String>,
    /// The token it enrolled with, if no voucher.
    #[serde(default)]
    pub token: Option<TokenId>,
    /// Its voucher's last second, or its token's.
    pub voucher_expires: UnixSeconds,
    /// When it enrolled.
    pub enrolled: Option<UnixSeconds>,
    /// Leaves it was given that have not expired.
    #[serde(default)]
    pub leaves: Vec<Leaf>,
    /// Revoked.
    pub revoked: bool,
    /// When it first fetched the order that decommissions it.
    #[serde(default)]
    pub ordered: Option<UnixSeconds>,
    /// When it last checked in.
    pub last_seen: Option<UnixSeconds>,
    /// What it said then.
    pub report: Option<Report>,
}

impl DeviceRow {
    /// How long it has not checked in; `None`: it never has.
    pub(crate) fn silent(&self, now: UnixSeconds) -> Option<u64> {
        let last = self.last_seen?;
        Some(now.get().saturating_sub(last.get()))
    }
}

/// An answer to a request for renewal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// For which key.
    pub spki: Digest,
    /// The answer, as it was given.
    pub answer: String,
    /// How long the same request gets the same answer.
    pub until: UnixSeconds,
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
    /// Operators, also who was removed.
    pub operators: BTreeMap<OperatorName, OperatorRow>,
    /// Devices.
    pub devices: BTreeMap<DeviceId, DeviceRow>,
    /// Join tokens, also those that can be used no longer.
    pub tokens: BTreeMap<TokenId, TokenRow>,
    /// Director repositories, per device.
    pub director: BTreeMap<DeviceId, DirectorRow>,
    /// Rollouts, in the order they were started.
    pub rollouts: Vec<Rollout>,
    /// Artifacts, also those that are being stored, with their lengths.
    pub artifacts: BTreeMap<Digest, u64>,
    /// Release metadata by file name, as signed.
    pub release: BTreeMap<String, Vec<u8>>,
    /// Number of the newest revocation list; 0: none was made.
    pub crl_number: u64,
    /// When a device's newest key spoke for the first time, in this run of the server.
    pub superseded_at: BTreeMap<DeviceId, Instant>,
    /// Who claimed an identity, and when the audit log was told, in this run of the server.
    pub claims: BTreeMap<String, UnixSeconds>,
    /// The newest audit entry.
    pub last_audit: Option<AuditEntry>,
}

/// A fleet.
#[derive(Debug)]
pub struct Fleet {
    /// Its name.
    pub id: FleetId,
    /// What this server's configuration says of it.
    pub settings: FleetSettings,
    /// Its one trust anchor.
    pub anchor: FleetAnchor,
    /// Its online keys' folder: `server.pem` is read from it again when it was replaced.
    online: PathBuf,
    /// Last second of the server's certificate and of its issuer's.
    server: RwLock<(UnixSeconds, UnixSeconds)>,
    /// Its device issuer.
    pub issuer: Issuer,
    /// Its online keys.
    pub keys: OnlineKeys,
    /// What its tokens' secrets are made of.
    pub join_key: JoinKey,
    /// Its artifacts.
    pub artifacts: Artifacts,
    /// `1.root.json` of both repositories, for vouchers and the director.
    pub release_root: String,
    /// The director's root.
    pub director_root: String,
    /// All roots of the director repository by file name, as the ceremony's folder held them at the start.
    pub director_roots: BTreeMap<String, Vec<u8>>,
    store: Store,
    /// Set aside: nothing is answered for it any more.
    pub(crate) gone: AtomicBool,
    /// Places for its connections.
    pub(crate) places: Arc<Semaphore>,
    /// Open connections of its devices and operators.
    pub(crate) live: Live,
    /// What changes; one writer at a time.
    pub state: Mutex<State>,
}

impl State {
    /// Devices that count against the fleet's quota.
    pub(crate) fn admitted(&self) -> usize {
        self.devices.values().filter(|row| !row.revoked).count()
    }
}

impl Fleet {
    /// Opens a registered fleet; also gives what its names are served with.
    pub async fn open(
        folder: &Path,
        id: FleetId,
        now: UnixSeconds,
    ) -> Result<(Self, FleetServer), ServerError> {
        Self::open_with(folder, id, FleetSettings::default(), now).await
    }

    /// The same with settings of its own.
    pub async fn open_with(
        folder: &Path,
        id: FleetId,
        settings: FleetSettings,
        now: UnixSeconds,
    ) -> Result<(Self, FleetServer), ServerError> {
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
        let (tls, server) = server_certificate(settings.key_exchange.into(), &anchor, &online, now)?;
        let (issuer_key, issuer_chain) = bundle(&online.join("device-issuer.pem"))?;
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
        let token = folder.join("join.key");
        let join_key = JoinKey::open(&token).map_err(identity(&token))?;
        let release_root = read(public.join("release/1.root.json"))?;
        let director_root = read(public.join("director/1.root.json"))?;
        let mut director_roots = crate::keys::read(&public.join("director"))?;
        director_roots.retain(|name, _| name.ends_with(".root.json"));
        let artifacts_folder = folder.join("artifacts");
        std::fs::create_dir_all(&artifacts_folder)
            .map_err(|error| ServerError::file(&artifacts_folder, &error))?;
        let artifacts = Artifacts::local(&artifacts_folder)?;
        let store = Store::open(&folder.join("fleet.sqlite")).await?;
        let mut state = load(&store).await?;
        state.artifacts = artifacts.all().await?;
        crate::keys::hold(&anchor, &public, &online, &state.release)?;
        let places = Arc::new(Semaphore::new(settings.connections_max));
        let fleet = Self {
            id,
            settings,
            anchor,
            online: online.clone(),
            server: RwLock::new(server),
            issuer,
            keys,
            join_key,
            artifacts,
            release_root,
            director_root,
            director_roots,
            store,
            gone: AtomicBool::new(false),
            places,
            live: Live::default(),
            state: Mutex::new(state),
        };
        fleet.first_metadata(&public, now).await?;
        fleet.first_admin(now).await?;
        Ok((fleet, tls))
    }

    /// Whether its folder is where it was.
    pub(crate) fn is_here(&self) -> bool {
        self.online.is_dir()
    }

    /// Reads `server.pem` once more and holds it to what it was held to at start; what is served does not change before that.
    pub fn reload_server(&self, now: UnixSeconds) -> Result<FleetServer, ServerError> {
        let (tls, server) =
            server_certificate(self.settings.key_exchange.into(), &self.anchor, &self.online, now)?;
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(tls)
    }

    /// The certificates this server depends on, with their last second.
    pub fn certificates(&self) -> Vec<(&'static str, UnixSeconds)> {
        let (server, issuer) = *self.server.read().unwrap_or_else(PoisonError::into_inner);
        let last =
            |certificate| valid_between(certificate).map_or_else(|_| UnixSeconds::default(), |(_, to)| to);
        vec![
            ("certificate.server", server),
            ("certificate.server-issuer", issuer),
            ("certificate.device-issuer", last(self.issuer.certificate())),
            ("certificate.ca", last(self.anchor.root())),
        ]
    }

    /// Those of them that ought to be replaced now, with their last second.
    pub fn expiring(&self, now: UnixSeconds) -> Vec<(&'static str, UnixSeconds)> {
        let soon = |(name, to): &(&'static str, UnixSeconds)| {
            let spare = if *name == "certificate.server" {
                SERVER_SPARE
            } else {
                AUTHORITY_SPARE
            };
            now.after(spare) >= *to
        };
        self.certificates().into_iter().filter(soon).collect()
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
}

fn bundle(path: &Path) -> Result<(KeyFile, Vec<CertificateDer<'static>>), ServerError> {
    pem::load_bundle(path).map_err(|source| named(path, source))
}

/// An error with the file it is about.
fn named(path: &Path, source: IdentityError) -> ServerError {
    match source {
        // These name the file themselves.
        IdentityError::KeyMode { path, mode } => PublishError::KeyMode { path, mode }.into(),
        IdentityError::File { path, source } => ServerError::File {
            path,
            what: source.to_string(),
        },
        source => ServerError::Identity {
            path: path.display().to_string(),
            source,
        },
    }
}

/// `server.pem`: what the fleet's names are served with, and the last second of leaf and issuer.
fn server_certificate(
    exchange: KeyExchange,
    anchor: &FleetAnchor,
    online: &Path,
    now: UnixSeconds,
) -> Result<(FleetServer, (UnixSeconds, UnixSeconds)), ServerError> {
    let path = online.join("server.pem");
    let (key, chain) = pem::load_held(&path).map_err(|source| named(&path, source))?;
    let checked = || {
        let tls = fleet_server_with(exchange, anchor, &chain, key.as_ref(), now)?;
        let leaf = check(anchor, &chain, Purpose::Server, now)?.expires();
        let issuer = chain.last().map(valid_between).transpose()?;
        Ok((tls, (leaf, issuer.map_or(leaf, |(_, to)| to))))
    };
    checked().map_err(|source| ServerError::Identity {
        path: path.display().to_string(),
        source,
    })
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
    for (id, row) in store.all::<TokenRow>("token").await? {
        let token = TokenId::parse(&id).map_err(|_| StoreError::Document { kind: "token", id })?;
        state.tokens.insert(token, row);
    }
    for (id, row) in store.all::<OperatorRow>("operator").await? {
        let name = OperatorName::parse(&id);
        let name = name.map_err(|_| StoreError::Document { kind: "operator", id })?;
        state.operators.insert(name, row);
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
    let numbers = store.all::<u64>("crl").await?;
    state.crl_number = numbers.first().map_or(0, |(_, number)| *number);
    state.release = store.all_bytes("release").await?.into_iter().collect();
    Ok(state)
}
