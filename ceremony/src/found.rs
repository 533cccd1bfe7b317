//! Founding a fleet: keys, roots, CA, first metadata. Everything or nothing is written.

use crate::custody::Custody;
use crate::error::CeremonyError;
use crate::transcript::Transcript;
use redan_identity::key::write_private;
use redan_identity::{FleetAnchor, FleetCa, Issuer, IssuerKind, KeyFile, pem};
use redan_protocol::{
    ComponentName, Digest, FleetId, OperatorName, PublisherName, Seconds, SpiffeId, UnixSeconds,
};
use redan_publish::metadata::{root, sign, snapshot, targets};
use redan_publish::{Profile, PublicKey, RootSpec, Signers, SigningKey};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Lifetimes of 10-trust's table.
const YEAR: Seconds = Seconds::new(365 * 86_400);
const HALF_YEAR: Seconds = Seconds::new(180 * 86_400);
const QUARTER: Seconds = Seconds::new(90 * 86_400);

/// What to found.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The fleet.
    pub fleet: FleetId,
    /// For real or not.
    pub profile: Profile,
    /// Publishers; components must be theirs.
    pub publishers: Vec<PublisherName>,
    /// Components to delegate from the start.
    pub components: Vec<ComponentName>,
    /// Keys and threshold of every offline role.
    pub holders: u32,
    /// How many of them must sign.
    pub threshold: u32,
    /// Now.
    pub now: UnixSeconds,
}

/// The folders of a fleet.
struct Folders {
    offline: PathBuf,
    online: PathBuf,
    public: PathBuf,
    operators: PathBuf,
}

/// Keys that holders brought in tokens, by role and holder: `release.root-1`.
pub type Tokens = BTreeMap<String, SigningKey>;

/// The keys of one role: the private halves for its holders, and how they sign.
struct Role {
    keys: Vec<SigningKey>,
    threshold: u32,
}

impl Role {
    /// Keys of holders who brought a token are there already; the others' are made here.
    fn make(purpose: &str, holders: u32, threshold: u32, tokens: &mut Tokens) -> Result<Self, CeremonyError> {
        let keys: Result<_, _> = (1..=holders)
            .map(|n| {
                let name = format!("{purpose}-{n}");
                tokens
                    .remove(&name)
                    .map_or_else(|| SigningKey::generate(&name), Ok)
            })
            .collect();
        Ok(Self {
            keys: keys?,
            threshold,
        })
    }

    fn online(purpose: &str) -> Result<Self, CeremonyError> {
        Ok(Self {
            keys: vec![SigningKey::generate(purpose)?],
            threshold: 1,
        })
    }

    fn signers(&self) -> Signers {
        let keys: Vec<PublicKey> = self.keys.iter().map(SigningKey::public).collect();
        Signers {
            keys,
            threshold: self.threshold,
        }
    }

    fn all(&self) -> Vec<&SigningKey> {
        self.keys.iter().collect()
    }

    fn save(&self, folder: &Path, custody: &Custody) -> Result<(), CeremonyError> {
        for (holder, key) in (1..).zip(&self.keys) {
            if key.is_in_token() {
                key.save_public(&folder.join(format!("{}.public.json", key.purpose())))?;
                continue;
            }
            custody.save(key, holder, &folder.join(format!("{}.key.json", key.purpose())))?;
        }
        Ok(())
    }
}

/// The release repository's offline roles and its online timestamp.
struct Release {
    root: Role,
    targets: Role,
    plan: Role,
    direction: Role,
    policy: Role,
    snapshot: Role,
    timestamp: Role,
    components: Vec<(ComponentName, Role)>,
}

/// Founds a fleet in `out`, which must not exist. Offline keys are kept as `custody` says, the server's as they are.
pub fn found(founding: &Founding, custody: &Custody, out: &Path) -> Result<(), CeremonyError> {
    found_with(founding, custody, Tokens::new(), out)
}

/// The same with keys that some holders brought in tokens: these stay there.
pub fn found_with(
    founding: &Founding,
    custody: &Custody,
    mut tokens: Tokens,
    out: &Path,
) -> Result<(), CeremonyError> {
    if founding.profile == Profile::Production && matches!(custody, Custody::Plain) {
        return Err(CeremonyError::PlainKeys);
    }
    for component in &founding.components {
        if !founding.publishers.contains(component.publisher()) {
            return Err(CeremonyError::Publisher {
                component: component.clone(),
            });
        }
    }
    if out.exists() {
        return Err(CeremonyError::Exists {
            path: out.display().to_string(),
        });
    }
    let mut half = out.as_os_str().to_owned();
    half.push(".unfinished");
    let half = PathBuf::from(half);
    if half.exists() {
        std::fs::remove_dir_all(&half).map_err(|error| CeremonyError::file(&half, &error))?;
    }
    let written = write(founding, custody, &mut tokens, &half);
    if let Err(error) = written {
        // Nothing half-applied: what was written so far goes with the error.
        drop(std::fs::remove_dir_all(&half));
        return Err(error);
    }
    std::fs::rename(&half, out).map_err(|error| CeremonyError::file(out, &error))
}

fn write(
    founding: &Founding,
    custody: &Custody,
    tokens: &mut Tokens,
    out: &Path,
) -> Result<(), CeremonyError> {
    let folders = Folders {
        offline: out.join("offline"),
        online: out.join("online"),
        public: out.join("public"),
        operators: out.join("operators"),
    };
    for folder in [
        &folders.offline,
        &folders.online,
        &folders.public.join("release"),
        &folders.public.join("director"),
        &folders.operators,
    ] {
        std::fs::create_dir_all(folder).map_err(|error| CeremonyError::file(folder, &error))?;
    }
    let ca = certificates(founding, custody, &folders)?;
    release(founding, ca, custody, tokens, &folders)?;
    director(founding, ca, custody, tokens, &folders)?;
    // A key that would sign nothing was meant for something.
    if let Some(purpose) = tokens.keys().next() {
        return Err(CeremonyError::NoSuchHolder {
            purpose: purpose.clone(),
        });
    }
    let fleet = json!({
        "schema": "redan.fleet/1",
        "fleet": founding.fleet,
        "profile": founding.profile,
        "ca_sha256": ca,
        "founded": founding.now,
    });
    put(&folders.public.join("fleet.json"), fleet.to_string().as_bytes())?;
    let decided = format!(
        "founded fleet {} with {} holders, of whom {} must sign",
        founding.fleet, founding.holders, founding.threshold
    );
    Transcript::open(&folders.public.join("transcript.jsonl"))?.note(founding.now, "init", None, &decided)
}

/// The fleet CA, its issuers, the server's first certificate, the first administrator's.
fn certificates(founding: &Founding, custody: &Custody, folders: &Folders) -> Result<Digest, CeremonyError> {
    let (fleet, now) = (&founding.fleet, founding.now);
    let places = (folders.offline.as_path(), folders.online.as_path());
    let (anchor, operators) = issuers(fleet, custody, places, now)?;
    put(
        &folders.public.join("ca.pem"),
        pem::write_chain(&[anchor.root().clone()]).as_bytes(),
    )?;
    let key = KeyFile::generate()?;
    let admin = SpiffeId::Operator(
        fleet.clone(),
        OperatorName::parse("admin").map_err(|_| CeremonyError::Bug)?,
    );
    let chain = operators.issue_for(&admin, &key, now)?;
    bundle(&folders.operators.join("admin.pem"), &key, &chain)?;
    Ok(anchor.sha256())
}

/// An authority with its issuers and the server's first certificate under it. Also gives the operators' issuer.
pub(crate) fn issuers(
    fleet: &FleetId,
    custody: &Custody,
    (offline, online): (&Path, &Path),
    now: UnixSeconds,
) -> Result<(FleetAnchor, Issuer), CeremonyError> {
    let ca = FleetCa::found(fleet.clone(), now)?;
    custody.save_text(offline, "fleet-ca.key.pem", &ca.key_pem())?;
    let devices = ca.issuer(IssuerKind::Device, now)?;
    bundle(
        &online.join("device-issuer.pem"),
        devices.key(),
        &[devices.certificate().clone()],
    )?;
    let servers = ca.issuer(IssuerKind::Server, now)?;
    let text = pem::write_bundle(servers.key(), &[servers.certificate().clone()]);
    custody.save_text(offline, "server-issuer.pem", &text)?;
    let operators = ca.issuer(IssuerKind::Operator, now)?;
    let text = pem::write_bundle(operators.key(), &[operators.certificate().clone()]);
    custody.save_text(offline, "operator-issuer.pem", &text)?;
    let key = KeyFile::generate()?;
    let chain = servers.issue_for(&SpiffeId::Control(fleet.clone()), &key, now)?;
    bundle(&online.join("server.pem"), &key, &chain)?;
    Ok((ca.anchor()?, operators))
}

fn release(
    founding: &Founding,
    ca: Digest,
    custody: &Custody,
    tokens: &mut Tokens,
    folders: &Folders,
) -> Result<(), CeremonyError> {
    let mut offline = |purpose: &str| Role::make(purpose, founding.holders, founding.threshold, tokens);
    let components: Result<Vec<_>, CeremonyError> = founding
        .components
        .iter()
        .map(|name| Ok((name.clone(), offline(&name.role())?)))
        .collect();
    let (root_keys, targets_keys) = (offline("release.root")?, offline("release.targets")?);
    let (plan, policy) = (offline("release.plan")?, offline("release.policy")?);
    let keys = Release {
        root: root_keys,
        targets: targets_keys,
        plan,
        direction: offline("release.direction")?,
        policy,
        // People, threshold one of several (10-trust).
        snapshot: Role::make("release.snapshot", founding.holders, 1, tokens)?,
        timestamp: Role::online("release.timestamp")?,
        components: components?,
    };
    let now = founding.now;
    let spec = RootSpec {
        version: 1,
        expires: now.after(YEAR),
        fleet: founding.fleet.clone(),
        profile: founding.profile,
        ca_sha256: ca,
        roles: BTreeMap::from([
            ("root", keys.root.signers()),
            ("targets", keys.targets.signers()),
            ("snapshot", keys.snapshot.signers()),
            ("timestamp", keys.timestamp.signers()),
        ]),
    };
    let folder = folders.public.join("release");
    put(
        &folder.join("1.root.json"),
        &sign(&root(&spec)?, &keys.root.all())?,
    )?;

    let mut delegations = vec![
        crate::delegate::documents("plan", "plans/*", keys.plan.signers()),
        crate::delegate::documents("policy", "policy/*", keys.policy.signers()),
        crate::delegate::direction(keys.direction.signers()),
    ];
    let component = |(name, role): &(ComponentName, Role)| crate::delegate::component(name, role.signers());
    delegations.extend(keys.components.iter().map(component));
    let nothing = BTreeMap::new();
    let top = sign(
        &targets(1, now.after(YEAR), &nothing, &delegations)?,
        &keys.targets.all(),
    )?;
    let mut files = BTreeMap::from([("targets.json".to_owned(), (1, top))]);
    let mut roles: Vec<(String, &Role, Seconds)> = vec![
        ("plan".into(), &keys.plan, QUARTER),
        ("direction".into(), &keys.direction, QUARTER),
        ("policy".into(), &keys.policy, YEAR),
    ];
    roles.extend(
        keys.components
            .iter()
            .map(|(name, role)| (name.role(), role, HALF_YEAR)),
    );
    for (name, role, life) in roles {
        let empty = sign(&targets(1, now.after(life), &nothing, &[])?, &role.all())?;
        files.insert(format!("{name}.json"), (1, empty));
    }
    for (name, (_, bytes)) in &files {
        put(&folder.join(format!("1.{name}")), bytes)?;
    }
    let signer = keys.snapshot.keys.first().ok_or(CeremonyError::Bug)?;
    put(
        &folder.join("1.snapshot.json"),
        &sign(&snapshot(1, now.after(QUARTER), &files)?, &[signer])?,
    )?;

    for role in [
        &keys.root,
        &keys.targets,
        &keys.plan,
        &keys.direction,
        &keys.policy,
        &keys.snapshot,
    ] {
        role.save(&folders.offline, custody)?;
    }
    for (_, role) in &keys.components {
        role.save(&folders.offline, custody)?;
    }
    keys.timestamp.save(&folders.online, &Custody::Plain)
}

fn director(
    founding: &Founding,
    ca: Digest,
    custody: &Custody,
    tokens: &mut Tokens,
    folders: &Folders,
) -> Result<(), CeremonyError> {
    let keys = Role::make("director.root", founding.holders, founding.threshold, tokens)?;
    let online = [
        ("targets", Role::online("director.targets")?),
        ("snapshot", Role::online("director.snapshot")?),
        ("timestamp", Role::online("director.timestamp")?),
    ];
    let mut roles = BTreeMap::from([("root", keys.signers())]);
    for (name, role) in &online {
        roles.insert(name, role.signers());
        role.save(&folders.online, &Custody::Plain)?;
    }
    let spec = RootSpec {
        version: 1,
        expires: founding.now.after(YEAR),
        fleet: founding.fleet.clone(),
        profile: founding.profile,
        ca_sha256: ca,
        roles,
    };
    put(
        &folders.public.join("director").join("1.root.json"),
        &sign(&root(&spec)?, &keys.all())?,
    )?;
    keys.save(&folders.offline, custody)
}

fn bundle(
    path: &Path,
    key: &KeyFile,
    chain: &[rustls_pki_types::CertificateDer<'static>],
) -> Result<(), CeremonyError> {
    Ok(write_private(path, pem::write_bundle(key, chain).as_bytes())?)
}

pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<(), CeremonyError> {
    std::fs::write(path, bytes).map_err(|error| CeremonyError::file(path, &error))
}
