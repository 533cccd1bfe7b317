//! What a fleet is served and signed with: certificates, online keys and roots, read from its folder and held against each other.
//! Taken over as a whole or not at all, at start and while the server runs.

use crate::authorities::{anchors, file_under};
use crate::error::ServerError;
use crate::keys;
use crate::release::Files;
use redan_identity::profile::{Purpose, valid_between};
use redan_identity::tls::{FleetServer, KeyExchange, ServerChain, fleet_server_of};
use redan_identity::{Anchors, CertificateDer, IdentityError, Issuer, IssuerKind, KeyFile, pem};
use redan_protocol::{AuthorityState, Digest, FleetId, UnixSeconds};
use redan_publish::{PublishError, SigningKey};
use redan_trust::metadata::file_name;
use redan_trust::{TufError, rehearse};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Online keys and certificates.
const ONLINE: &str = "online";
/// Roots and the ceremony's metadata.
const PUBLIC: &str = "public";

/// A fleet's folder; while a replacement is proven, with the files that would take others' places laid over it.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    own: PathBuf,
    over: BTreeMap<&'static str, PathBuf>,
}

impl Folder {
    /// As it is.
    pub(crate) fn new(own: &Path) -> Self {
        let own = own.to_owned();
        let over = BTreeMap::new();
        Self { own, over }
    }

    /// With a folder of online keys and certificates over its own.
    pub(crate) fn with_online(mut self, folder: &Path) -> Self {
        self.over.insert(ONLINE, folder.to_owned());
        self
    }

    /// With a ceremony's public folder over its own.
    pub(crate) fn with_public(mut self, folder: &Path) -> Self {
        self.over.insert(PUBLIC, folder.to_owned());
        self
    }

    pub(crate) fn online(&self, name: &str) -> PathBuf {
        self.path(ONLINE, name)
    }

    pub(crate) fn public(&self, name: &str) -> PathBuf {
        self.path(PUBLIC, name)
    }

    fn path(&self, part: &'static str, name: &str) -> PathBuf {
        let over = self.over.get(part).map(|folder| folder.join(name));
        over.filter(|path| path.symlink_metadata().is_ok())
            .unwrap_or_else(|| self.own.join(part).join(name))
    }

    /// Every file of online keys and certificates, where it is.
    pub(crate) fn all_online(&self) -> Result<Vec<PathBuf>, ServerError> {
        let names = self.names(ONLINE, "")?;
        Ok(names.iter().map(|name| self.online(name)).collect())
    }

    /// A repository as the ceremony's folder holds it.
    pub(crate) fn repository(&self, name: &str) -> Result<Files, ServerError> {
        let mut files = Files::new();
        for file in self.names(PUBLIC, name)? {
            let path = self.public(&format!("{name}/{file}"));
            let bytes = std::fs::read(&path).map_err(|error| ServerError::file(&path, &error))?;
            files.insert(file, bytes);
        }
        Ok(files)
    }

    fn names(&self, part: &'static str, below: &str) -> Result<BTreeSet<String>, ServerError> {
        let mut names = listed(&self.own.join(part).join(below))?;
        if let Some(over) = self.over.get(part).map(|over| over.join(below)) {
            let mut laid = listed(&over)?;
            // Public halves lie beside the keys that custodians bring; nobody needs them here.
            laid.retain(|name| part == PUBLIC || !is_public_half(name));
            names.extend(laid);
        }
        Ok(names)
    }
}

/// `<purpose>.public.json` of `redan-ceremony key`.
pub(crate) fn is_public_half(name: &str) -> bool {
    name.ends_with(".public.json")
}

/// The names in a folder.
pub(crate) fn listed(folder: &Path) -> Result<BTreeSet<String>, ServerError> {
    let fault = |error| ServerError::file(folder, &error);
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let name = entry.map_err(fault)?.file_name();
        names.insert(name.to_string_lossy().into_owned());
    }
    Ok(names)
}

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

/// What fits together.
#[derive(Debug)]
pub struct Held {
    /// Online keys.
    pub keys: OnlineKeys,
    /// Whom the fleet believes.
    pub anchors: Anchors,
    /// Issues devices' certificates, under the active authority.
    pub issuer: Issuer,
    /// All roots of the director repository by file name.
    pub director_roots: Files,
    /// All roots of the release repository by file name, as far as they are in the ceremony's folder.
    pub release_roots: Files,
    /// Last second of the server's certificate and of its issuer's.
    server: (UnixSeconds, UnixSeconds),
}

impl Held {
    /// Reads it, and refuses what does not fit: keys that the roots do not name, keys that sign offline, certificates that devices would
    /// refuse, roots that devices would not walk to. `uploaded`: the release metadata that is served. Also gives what the fleet's
    /// names are served with.
    pub(crate) fn read(
        exchange: KeyExchange,
        fleet: &FleetId,
        folder: &Folder,
        uploaded: &Files,
        now: UnixSeconds,
    ) -> Result<(Self, FleetServer), ServerError> {
        let anchors = anchors(folder, fleet, uploaded)?;
        let (tls, server) = server_certificates(exchange, &anchors, folder, now)?;
        let issuing = folder.online("device-issuer.pem");
        let (issuer_key, issuer_chain) = bundle(&issuing)?;
        let certificate = issuer_chain.into_iter().next().ok_or(ServerError::NoFleet)?;
        // The operators' or servers' issuer in its place would be an offline key on this machine.
        active(&anchors, &certificate, &issuing)?;
        let root = anchors.active().clone();
        let issuer = Issuer::load(IssuerKind::Device, root, issuer_key, certificate)
            .proven(now)
            .map_err(|source| ServerError::Identity {
                path: issuing.display().to_string(),
                source,
            })?;
        let key = |name: &str| SigningKey::load(&folder.online(&format!("{name}.key.json")));
        let keys = OnlineKeys {
            release_timestamp: key("release.timestamp")?,
            director_targets: key("director.targets")?,
            director_snapshot: key("director.snapshot")?,
            director_timestamp: key("director.timestamp")?,
        };
        keys::hold(&anchors, folder, uploaded)?;
        let roots = |name: &'static str| -> Result<Files, ServerError> {
            let mut files = folder.repository(name)?;
            files.retain(|file, _| file.ends_with(".root.json"));
            Ok(files)
        };
        let director_roots = roots("director")?;
        walk(&director_roots)?;
        let held = Self {
            keys,
            anchors,
            issuer,
            director_roots,
            release_roots: roots("release")?,
            server,
        };
        Ok((held, tls))
    }

    /// The certificates the server depends on, with their last second.
    pub(crate) fn certificates(&self) -> Vec<(String, UnixSeconds)> {
        let (server, issuer) = self.server;
        let last =
            |certificate| valid_between(certificate).map_or_else(|_| UnixSeconds::default(), |(_, to)| to);
        let mut all = vec![
            ("certificate.server".to_owned(), server),
            ("certificate.server-issuer".to_owned(), issuer),
            (
                "certificate.device-issuer".to_owned(),
                last(self.issuer.certificate()),
            ),
        ];
        for (state, anchor) in self.anchors.iter() {
            let name = match state {
                AuthorityState::Active => "certificate.ca".to_owned(),
                other => format!("certificate.ca-{other}-{}", short(anchor.sha256())),
            };
            all.push((name, last(anchor.root())));
        }
        all
    }

    /// Release roots that are not served yet.
    pub(crate) fn new_roots(&self, served: &Files) -> Files {
        let mut roots = self.release_roots.clone();
        roots.retain(|name, _| !served.contains_key(name));
        roots
    }

    /// What signs and issues here, by its public half: what the audit log says was replaced.
    pub(crate) fn named(&self) -> BTreeMap<&'static str, Digest> {
        let of = |key: &SigningKey| Digest::of(key.public().public.as_bytes());
        BTreeMap::from([
            ("release.timestamp", of(&self.keys.release_timestamp)),
            ("director.targets", of(&self.keys.director_targets)),
            ("director.snapshot", of(&self.keys.director_snapshot)),
            ("director.timestamp", of(&self.keys.director_timestamp)),
            ("device-issuer", Digest::of(self.issuer.certificate())),
        ])
    }
}

/// Walks the director's roots as a device does that has only the first: one that devices would not take would leave every device
/// below it. When they expire is no reason not to serve them.
fn walk(roots: &Files) -> Result<(), ServerError> {
    let first = file_name("root", Some(1));
    let missing = || TufError::Unavailable { path: first.clone() };
    let first = roots.get(&first).cloned().ok_or_else(missing)?;
    let root = rehearse::roots(first, |name| roots.get(name).cloned(), UnixSeconds::new(0))?;
    let walked = redan_trust::metadata::Metadata::version(root.get());
    let stray = roots.keys().find_map(|name| {
        let version = name.strip_suffix(".root.json")?.parse::<u64>().ok()?;
        (version > walked).then_some(version)
    });
    match stray {
        Some(offered) => Err(ServerError::Metadata(TufError::WrongVersion {
            role: "root".into(),
            wanted: walked.saturating_add(1),
            offered,
        })),
        None => Ok(()),
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

/// First digits of a digest: enough to tell a fleet's authorities apart.
fn short(digest: Digest) -> String {
    digest.to_string().get(..8).unwrap_or_default().to_owned()
}

/// A certificate that must be under the active authority; whether it is under any is for whoever uses it to say.
fn active(anchors: &Anchors, issuer: &CertificateDer<'_>, path: &Path) -> Result<(), ServerError> {
    match anchors.signer_of(issuer) {
        Some(anchor) if anchor.sha256() != anchors.active().sha256() => Err(ServerError::Inactive {
            path: path.display().to_string(),
            authority: anchor.sha256(),
        }),
        _ => Ok(()),
    }
}

/// What the fleet's names are served with, and the last second of leaf and issuer under the active authority: `server.pem`, and for
/// devices that do not know that authority yet `server-<authority>.pem` under another that they do.
fn server_certificates(
    exchange: KeyExchange,
    anchors: &Anchors,
    folder: &Folder,
    now: UnixSeconds,
) -> Result<(FleetServer, (UnixSeconds, UnixSeconds)), ServerError> {
    let path = folder.online("server.pem");
    let (key, chain) = pem::load_held(&path).map_err(|source| named(&path, source))?;
    if let Some(issuer) = chain.last() {
        active(anchors, issuer, &path)?;
    }
    let mut chains = vec![ServerChain {
        chain: chain.clone(),
        key,
    }];
    for (state, anchor) in anchors.iter() {
        let path = folder.online(&file_under(anchor.sha256()));
        if state == AuthorityState::Active || path.symlink_metadata().is_err() {
            continue;
        }
        let (key, chain) = pem::load_held(&path).map_err(|source| named(&path, source))?;
        match anchors.check(&chain, Purpose::Server, now) {
            // The change takes longer than it lives; whoever needs it comes back by a bundle.
            Err(IdentityError::NotNow { to, .. }) => {
                tracing::warn!(path = %path.display(), %to, "the server's certificate under another authority is not valid now");
            }
            checked => {
                checked.map_err(|source| named(&path, source))?;
                chains.push(ServerChain { chain, key });
            }
        }
    }
    let checked = || {
        let tls = fleet_server_of(exchange, anchors, &chains, now)?;
        let leaf = anchors.check(&chain, Purpose::Server, now)?.expires();
        let issuer = chain.last().map(valid_between).transpose()?;
        Ok((tls, (leaf, issuer.map_or(leaf, |(_, to)| to))))
    };
    checked().map_err(|source| ServerError::Identity {
        path: path.display().to_string(),
        source,
    })
}
