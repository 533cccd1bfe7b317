//! One fleet on this server: its keys, its database, its artifacts, and what is known of its devices. Opened for a fleet, so
//! that rows of two fleets cannot meet.

use crate::artifacts::Artifacts;
use crate::config::FleetSettings;
use crate::crl::Leaf;
use crate::error::{ServerError, StoreError};
use crate::held::{Folder, Held, OnlineKeys};
use crate::issuing::Issuing;
use crate::lineage::CloneAlarm;
use crate::live::Live;
use crate::operators::OperatorRow;
use crate::release::{Files, Signing, Stamp, accept};
use crate::store::{Put, Store};
use crate::tokens::TokenRow;
use redan_control_core::Rollout;
use redan_identity::crl::Revocations;
use redan_identity::join::JoinKey;
use redan_identity::tls::FleetServer;
use redan_identity::{Anchors, IssuerKind};
use redan_protocol::audit::{Action, AuditEntry};
use redan_protocol::join::TokenId;
use redan_protocol::report::Report;
use redan_protocol::wire::{AUDIT_PAGE_MAX, Nonce};
use redan_protocol::{DeviceId, Digest, DirectionSequence, FleetId, OperatorName, SetId, UnixSeconds};
use redan_publish::DirectorFiles;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Instant;
use tokio::sync::{Mutex, Semaphore};

/// The fleet's database, in its folder.
pub(crate) const DATABASE: &str = "fleet.sqlite";

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
    /// Two seem to speak as this device.
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
    /// The authority of the certificate it last checked in with.
    #[serde(default)]
    pub authority: Option<Digest>,
    /// When it last checked in.
    pub last_seen: Option<UnixSeconds>,
    /// What it said then.
    pub report: Option<Report>,
    /// The nonce it said it with.
    #[serde(default)]
    pub nonce: Option<Nonce>,
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
    /// Whose keys it was found signed by: every check-in asks.
    #[serde(skip)]
    pub(crate) by: Weak<Held>,
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
    /// Operators' certificates that custodians took back.
    pub operator_lists: Revocations,
    /// Devices of which more is known than the database has: when they were last seen, and their last number.
    pub unsaved: BTreeSet<DeviceId>,
    /// When the database last had all of it.
    pub saved: UnixSeconds,
    /// The release timestamp that was read last, with what it says.
    pub(crate) stamp: Option<(Vec<u8>, Stamp)>,
    /// How often a key turned up for a second device.
    pub keys_twice: u64,
    /// When the audit log was last told so of a device's keys, in this run of the server.
    pub twice_told: BTreeMap<DeviceId, UnixSeconds>,
    /// When a device's newest report came, in this run of the server.
    pub reported_at: BTreeMap<DeviceId, Instant>,
    /// When a device's newest key spoke for the first time, in this run of the server.
    pub superseded_at: BTreeMap<DeviceId, Instant>,
    /// Who claimed an identity, and when the audit log was told, in this run of the server.
    pub claims: BTreeMap<String, UnixSeconds>,
    /// The newest audit entry.
    pub last_audit: Option<AuditEntry>,
    /// What signs and issues here, as the audit log knows it.
    pub named: Option<BTreeMap<String, Digest>>,
    /// When the log was last told what expires soon.
    pub warned: Option<UnixSeconds>,
}

/// A fleet.
#[derive(Debug)]
pub struct Fleet {
    /// Its name.
    pub id: FleetId,
    /// What this server's configuration says of it.
    pub settings: FleetSettings,
    /// Its folder.
    folder: PathBuf,
    /// What it is served and signed with. Replaced under the lock of `state`: whoever has that lock sees one and the same.
    held: RwLock<Arc<Held>>,
    /// What its tokens' secrets are made of.
    pub join_key: JoinKey,
    /// Its artifacts.
    pub artifacts: Artifacts,
    /// `1.root.json` of both repositories, for vouchers and the director.
    pub release_root: String,
    /// The director's root.
    pub director_root: String,
    store: Store,
    /// Set aside: nothing is answered for it any more.
    pub(crate) gone: AtomicBool,
    /// Places for its connections.
    pub(crate) places: Arc<Semaphore>,
    /// Open connections of its devices and operators.
    pub(crate) live: Live,
    /// How fast certificates are signed.
    pub(crate) issuing: Issuing,
    /// How many of them have rested, and keep no more than they need to wait.
    pub(crate) waiting: AtomicUsize,
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
        // A replacement that was decided before the power went.
        crate::replacement::finish(folder)?;
        crate::keys::sweep(&folder.join("online"))?;
        let public = folder.join("public");
        let token = folder.join("join.key");
        let join_key = JoinKey::open(&token).map_err(|source| ServerError::Identity {
            path: token.display().to_string(),
            source,
        })?;
        let release_root = read(&public.join("release/1.root.json"))?;
        let director_root = read(&public.join("director/1.root.json"))?;
        let artifacts_folder = folder.join("artifacts");
        std::fs::create_dir_all(&artifacts_folder)
            .map_err(|error| ServerError::file(&artifacts_folder, &error))?;
        let artifacts = Artifacts::local(&artifacts_folder)?;
        let store = Store::open(&folder.join(DATABASE)).await?;
        let mut state = load(&store).await?;
        state.artifacts = artifacts.all().await?;
        let exchange = settings.key_exchange.into();
        let own = Folder::new(folder);
        let (held, tls) = Held::read(exchange, &id, &own, &state.release, now)?;
        let held = Arc::new(held);
        state.operator_lists = kept_lists(&store, &held.anchors).await?;
        let places = Arc::new(Semaphore::new(settings.connections_max));
        let issuing = Issuing::new(&settings);
        let fleet = Self {
            id,
            settings,
            folder: folder.to_owned(),
            held: RwLock::new(Arc::clone(&held)),
            join_key,
            artifacts,
            release_root,
            director_root,
            store,
            gone: AtomicBool::new(false),
            places,
            live: Live::default(),
            issuing,
            waiting: AtomicUsize::new(0),
            state: Mutex::new(state),
        };
        let mut state = fleet.state.lock().await;
        fleet.adopt(&mut state, &held, now).await?;
        drop(state);
        crate::authorities::sweep(&folder.join("online"), &held.anchors)?;
        fleet.first_admin(now).await?;
        Ok((fleet, tls))
    }

    /// Whether its folder is where it was.
    pub(crate) fn is_here(&self) -> bool {
        self.folder.join("online").is_dir()
    }

    /// What it is served and signed with now.
    pub fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads its folder once more and holds everything to what it is held to at start: keys, certificates and roots. Taken over as a
    /// whole; a check that fails changes nothing.
    pub async fn reload(&self, now: UnixSeconds) -> Result<FleetServer, ServerError> {
        let mut state = self.state.lock().await;
        crate::replacement::finish(&self.folder)?;
        let exchange = self.settings.key_exchange.into();
        let own = Folder::new(&self.folder);
        let (held, tls) = Held::read(exchange, &self.id, &own, &state.release, now)?;
        self.adopt(&mut state, &held, now).await?;
        let held = Arc::new(held);
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&held);
        drop(state);
        // It is no more than untidy if that fails: what is there is not presented.
        if let Err(error) = crate::authorities::sweep(&self.folder.join("online"), &held.anchors) {
            tracing::warn!(code = error.code().name(), "{error}");
        }
        Ok(tls)
    }

    /// Makes durable what comes with keys and roots. The first time: the ceremony's metadata and the first timestamp. Later: the release
    /// roots that were put there since, with a timestamp by the new key, and what the audit says of keys that were replaced.
    /// A root that replaces a stolen online key comes with the new key, on the server's own host: uploaded to the old one, the old key
    /// would have to sign for it.
    async fn adopt(&self, state: &mut State, held: &Held, now: UnixSeconds) -> Result<(), ServerError> {
        let first = state.release.is_empty();
        let release = self.folder.join("public/release");
        let files = if first {
            Folder::new(&self.folder).repository("release")?
        } else {
            held.new_roots(&state.release)
        };
        let mut accepted = Files::new();
        let mut actions = Vec::new();
        if !files.is_empty() {
            let signing = self.signing(&held.keys);
            accepted = accept(signing, &state.release, files, now).map_err(|refused| ServerError::File {
                path: release.display().to_string(),
                what: refused.detail.unwrap_or_else(|| refused.code.to_string()),
            })?;
            actions.push(if first {
                (Action::FleetAdded, self.id.to_string())
            } else {
                let names: Vec<&str> = accepted.keys().map(String::as_str).collect();
                (Action::ReleasePublished, names.join(" "))
            });
        }
        let named = held.named();
        let known = state.named.clone();
        let before = |name: &str| known.as_ref().and_then(|known| known.get(name));
        let changed = |(name, key): &(&&'static str, &Digest)| before(name) != Some(*key);
        let replaced: Vec<&str> = named.iter().filter(changed).map(|(name, _)| *name).collect();
        let mut puts: Vec<Put> = accepted
            .iter()
            .map(|(name, bytes)| Put::bytes("release", name, bytes.clone()))
            .collect();
        if !replaced.is_empty() {
            puts.push(Put::json("held", "keys", &named)?);
            if known.is_some() {
                actions.push((Action::OnlineKeysReplaced, replaced.join(" ")));
            }
        }
        if !puts.is_empty() {
            self.commit(state, now, "local", puts, &actions).await?;
        }
        state.release.extend(accepted);
        state.named = Some(
            named
                .into_iter()
                .map(|(name, key)| (name.to_owned(), key))
                .collect(),
        );
        Ok(())
    }

    /// What release metadata is walked from and stamped with.
    pub(crate) fn signing<'a>(&'a self, keys: &'a OnlineKeys) -> Signing<'a> {
        Signing {
            first_root: &self.release_root,
            timestamp: &keys.release_timestamp,
        }
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
        self.store.audit(from, u64::MAX).await
    }

    /// A page of it.
    pub(crate) async fn audit_page(&self, from: u64) -> Result<Vec<AuditEntry>, StoreError> {
        self.store.audit(from, AUDIT_PAGE_MAX).await
    }
}

fn read(path: &Path) -> Result<String, ServerError> {
    std::fs::read_to_string(path).map_err(|error| ServerError::file(path, &error))
}

/// The lists of operators' certificates as they were kept. One that does not read is not taken for none: nobody's certificate would be
/// taken back any more.
async fn kept_lists(store: &Store, anchors: &Anchors) -> Result<Revocations, StoreError> {
    let mut kept = store.all_bytes("revocations").await?.into_iter();
    let Some((id, bytes)) = kept.next() else {
        return Ok(Revocations::default());
    };
    let kind = "revocations";
    Revocations::kept(anchors, IssuerKind::Operator, &bytes).map_err(|_| StoreError::Document { kind, id })
}

async fn load(store: &Store) -> Result<State, ServerError> {
    let by_device = |id: String, kind| DeviceId::parse(&id).map_err(|_| StoreError::Document { kind, id });
    let mut state = State {
        last_audit: store.last_audit().await?,
        named: store.document("held", "keys").await?,
        keys_twice: store.document("alarm", "keys-twice").await?.unwrap_or(0),
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
