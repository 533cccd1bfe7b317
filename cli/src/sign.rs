//! A new version of one role and a new snapshot: fetched, verified, changed, signed, uploaded together, and made again when somebody
//! else was first.

use crate::access::{Server, now};
use crate::draft::{self, Draft};
use crate::error::CliError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use redan_protocol::{Code, Seconds};
use redan_publish::metadata::{sign, snapshot, targets};
use redan_publish::{Passphrase, PublicKey, SigningKey};
use redan_trust::listed::TargetMap;
use redan_trust::metadata::{DelegatedRole, Root, TargetEntry, Targets, file_name};
use redan_trust::{Claimed, Repository};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A release snapshot lives 90 days (10-trust).
pub(crate) const SNAPSHOT_LIFE: Seconds = Seconds::new(90 * 86_400);

/// How often a publication is made again because somebody else was first. Each time at least one of those who race is done; a CI that
/// publishes thirty components at once still gets through; whoever never does is kept out on purpose.
const REBASES_MAX: u32 = 64;

/// The key files of who signs, and the files with their passphrases.
#[derive(Args, Clone, Debug)]
pub struct Keys {
    /// Key file of the signed role or of the snapshot role, or the pkcs11: URI of one in a token; may be given several times.
    #[arg(long = "key", required = true)]
    keys: Vec<PathBuf>,
    /// File with the passphrase of wrapped keys, of one line and mode 0600; may be given several times, each key is tried with each.
    #[arg(long = "passphrase-file")]
    passphrases: Vec<PathBuf>,
}

impl Keys {
    /// Reads them.
    pub fn open(&self) -> Result<Vec<SigningKey>, CliError> {
        let read: Result<Vec<_>, _> = self
            .passphrases
            .iter()
            .map(|path| Passphrase::read(path))
            .collect();
        let passphrases = read?;
        let open = |path: &PathBuf| SigningKey::open(path, &passphrases);
        Ok(self.keys.iter().map(open).collect::<Result<_, _>>()?)
    }
}

/// Who signs, and where it goes when they are too few.
#[derive(Args, Clone, Debug)]
pub struct Signing {
    /// Who signs.
    #[command(flatten)]
    pub keys: Keys,
    /// Leave a draft in this new file for other holders to inspect and sign, and publish nothing yet: for a key that is not enough alone,
    /// such as CI's. Go on with `redan draft`.
    #[arg(long)]
    pub draft: Option<PathBuf>,
}

impl Signing {
    /// Adds where the draft is to what a command says.
    pub(crate) fn say(&self, said: &mut Value, published: bool) {
        if let (Value::Object(said), Some(draft), false) = (said, &self.draft, published) {
            said.insert("draft".into(), draft.display().to_string().into());
        }
    }
}

/// Those of the keys that a role of a root names.
pub(crate) fn root_signers<'a>(
    keys: &'a [SigningKey],
    root: &Root,
    role: &str,
) -> Result<Vec<&'a SigningKey>, CliError> {
    let named = root.roles.get(role).ok_or_else(|| {
        CliError::Metadata(redan_trust::TufError::Unlisted {
            role: role.to_owned(),
        })
    })?;
    signers(keys, &publics(&named.keyids, &root.keys), named.threshold, role)
}

/// Those of the keys that a role names; an error when there are too few for its threshold.
fn signers<'a>(
    keys: &'a [SigningKey],
    publics: &[PublicKey],
    threshold: u32,
    role: &str,
) -> Result<Vec<&'a SigningKey>, CliError> {
    let fitting = named(keys, publics);
    if u32::try_from(fitting.len()).unwrap_or(0) < threshold || fitting.is_empty() {
        return Err(CliError::Key {
            role: role.to_owned(),
        });
    }
    Ok(fitting)
}

fn named<'a>(keys: &'a [SigningKey], publics: &[PublicKey]) -> Vec<&'a SigningKey> {
    let may = |key: &&SigningKey| {
        let public = key.public().public;
        publics.iter().any(|named| named.public == public)
    };
    keys.iter().filter(may).collect()
}

fn publics(ids: &[String], keys: &BTreeMap<String, redan_trust::metadata::Key>) -> Vec<PublicKey> {
    let public = |id: &String| {
        Some(PublicKey {
            id: id.clone(),
            public: keys.get(id)?.keyval.get("public")?.as_str()?.to_owned(),
        })
    };
    ids.iter().filter_map(public).collect()
}

/// The server's present metadata, verified, as the next file of a role is made from it.
pub(crate) struct Base {
    release: Repository,
    role: String,
    delegated: DelegatedRole,
    holders: Vec<PublicKey>,
    files: BTreeMap<String, (u64, Vec<u8>)>,
    version: u64,
    targets: TargetMap,
}

impl Base {
    /// Fetches and verifies it.
    pub(crate) async fn fetch(server: &mut Server, role: &str) -> Result<Self, CliError> {
        let release = server.release().await?;
        let unlisted = || {
            CliError::Metadata(redan_trust::TufError::Unlisted {
                role: role.to_owned(),
            })
        };
        let delegations = release.targets().delegations.as_ref().ok_or_else(unlisted)?;
        let delegated = delegations.roles.iter().find(|delegated| delegated.name == role);
        let delegated = delegated.ok_or_else(unlisted)?.clone();
        let holders = publics(&delegated.keyids, &delegations.keys);
        let mut files = BTreeMap::new();
        for file in release.snapshot().meta.keys() {
            let name = file.trim_end_matches(".json");
            files.insert(file.clone(), server.role(&release, name).await?);
        }
        // A component that was delegated after the founding signs its first file here.
        let (version, targets) = match files.get(&format!("{role}.json")) {
            Some((version, old)) => {
                let old = Claimed::<Targets>::parse(old).map_err(|_| CliError::Answer("a targets role"))?;
                (*version, old.into_peeked().targets)
            }
            None => (0, TargetMap::default()),
        };
        let role = role.to_owned();
        Ok(Self {
            release,
            role,
            delegated,
            holders,
            files,
            version,
            targets,
        })
    }

    /// The role's present version; 0 before its first file.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// What it lists now.
    pub(crate) fn targets(&self) -> &TargetMap {
        &self.targets
    }

    /// Who may sign it.
    pub(crate) fn holders(&self) -> &[PublicKey] {
        &self.holders
    }

    /// How many of them must.
    pub(crate) fn threshold(&self) -> u32 {
        self.delegated.threshold
    }

    /// Whether the role may list a path.
    pub(crate) fn covers(&self, path: &str) -> bool {
        self.delegated.covers(path)
    }

    /// Those of the keys that may sign it.
    pub(crate) fn named<'a>(&self, keys: &'a [SigningKey]) -> Vec<&'a SigningKey> {
        named(keys, &self.holders)
    }

    /// Refuses a component whose counter is not above all that were published: devices that run the last would never take it.
    pub(crate) fn grows(&self, entry: &TargetEntry) -> Result<(), CliError> {
        match (draft::counter(entry), draft::highest(&self.targets)) {
            (Some(offered), Some(there)) if offered <= there => Err(CliError::Counter { offered, there }),
            _ => Ok(()),
        }
    }

    /// The role's next file with one more target, unsigned.
    fn next(&self, life: Seconds, path: &str, entry: &Value) -> Result<Value, CliError> {
        if !self.covers(path) {
            return Err(CliError::Metadata(redan_trust::TufError::Unlisted {
                role: self.role.clone(),
            }));
        }
        if let Ok(entry) = serde_json::from_value::<TargetEntry>(entry.clone()) {
            self.grows(&entry)?;
        }
        let mut entries: BTreeMap<String, Value> = BTreeMap::new();
        for (path, entry) in self.targets.iter() {
            let mut value = json!({"length": entry.length, "hashes": entry.hashes});
            if let (Some(custom), Value::Object(map)) = (&entry.custom, &mut value) {
                map.insert("custom".into(), custom.clone());
            }
            entries.insert(path.clone(), value);
        }
        entries.insert(path.to_owned(), entry.clone());
        let version = self.version.saturating_add(1);
        Ok(targets(version, now().after(life), &entries, &[])?)
    }

    /// What is uploaded: the role's next file, and a snapshot that lists it beside everything that is there.
    fn upload(mut self, signed: &[u8], keys: &[SigningKey]) -> Result<Value, CliError> {
        let snapshot_signers = root_signers(keys, self.release.root(), "snapshot")?;
        let version = self.version.saturating_add(1);
        self.files
            .insert(format!("{}.json", self.role), (version, signed.to_vec()));
        let snapshot_version = self.release.snapshot_version().saturating_add(1);
        let new = snapshot(snapshot_version, now().after(SNAPSHOT_LIFE), &self.files)?;
        let new = sign(&new, &snapshot_signers)?;
        Ok(json!({"files": {
            file_name(&self.role, Some(version)): STANDARD.encode(signed),
            file_name("snapshot", Some(snapshot_version)): STANDARD.encode(&new),
        }}))
    }
}

/// Makes a role's next file and a snapshot over the present metadata and uploads both. When somebody else was first, all of it is made
/// again over what they published: nothing of either is lost, for the server takes no version twice.
pub(crate) async fn rebased(
    server: &mut Server,
    role: &str,
    keys: &[SigningKey],
    mut make: impl FnMut(&Base) -> Result<Vec<u8>, CliError>,
) -> Result<(), CliError> {
    unless_raced(async || {
        let base = Base::fetch(server, role).await?;
        let signed = make(&base)?;
        let body = base.upload(&signed, keys)?;
        server.post("/v1/release", &body).await.map(drop)
    })
    .await
}

/// Attempts it again while somebody else is first each time, at most [`REBASES_MAX`] times in all.
async fn unless_raced(mut attempt: impl AsyncFnMut() -> Result<(), CliError>) -> Result<(), CliError> {
    let mut raced = None;
    for _ in 0..REBASES_MAX {
        match attempt().await {
            Err(CliError::Server(problem)) if problem.code == Code::Conflict => raced = Some(problem),
            other => return other,
        }
    }
    Err(raced.map_or(CliError::Answer("a conflict"), CliError::Server))
}

/// Adds a target to a delegated role, signs role and snapshot, and uploads both; or, with too few keys for the role, leaves a draft for
/// others to sign in the file `draft`. Says whether it is published.
pub async fn publish_target(
    server: &mut Server,
    role: &str,
    life: Seconds,
    (path, entry): (&str, Value),
    keys: &[SigningKey],
    draft: Option<&Path>,
) -> Result<bool, CliError> {
    if let Some(out) = draft {
        let base = Base::fetch(server, role).await?;
        let payload = base.next(life, path, &entry)?;
        let own = base.named(keys);
        if own.is_empty() {
            return Err(CliError::Key {
                role: role.to_owned(),
            });
        }
        Draft::begin(&server.fleet, role, &payload, &own)?.write(out)?;
        return Ok(false);
    }
    rebased(server, role, keys, |base| {
        let role_signers = signers(keys, base.holders(), base.threshold(), role)?;
        Ok(sign(&base.next(life, path, &entry)?, &role_signers)?)
    })
    .await?;
    Ok(true)
}

/// Stores bytes under their digest.
pub async fn upload(server: &mut Server, bytes: Vec<u8>) -> Result<(), CliError> {
    let digest = redan_protocol::Digest::of(&bytes);
    let _: Value = server
        .call("PUT", &format!("/v1/artifacts/{digest}"), bytes)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_protocol::wire::Problem;

    fn problem(code: Code) -> CliError {
        CliError::Server(Problem {
            kind: code.name().to_owned(),
            title: code.name().to_owned(),
            status: 409,
            code,
            detail: None,
            remedy: String::new(),
        })
    }

    /// How often it is attempted when somebody else is first so many times, and how it ends.
    fn raced(times: u32, then: impl Fn() -> Result<(), CliError>) -> (u32, Result<(), String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut attempts = 0;
        let ended = runtime.block_on(unless_raced(async || {
            attempts += 1;
            if attempts <= times {
                Err(problem(Code::Conflict))
            } else {
                then()
            }
        }));
        (attempts, ended.map_err(|error| error.to_string()))
    }

    #[test]
    fn a_publication_that_others_are_always_first_with_is_given_up_at_the_limit() {
        let conflict = Err(problem(Code::Conflict).to_string());
        assert_eq!(raced(REBASES_MAX - 1, || Ok(())), (REBASES_MAX, Ok(())));
        assert_eq!(raced(REBASES_MAX, || Ok(())), (REBASES_MAX, conflict.clone()));
        assert_eq!(raced(u32::MAX, || Ok(())), (REBASES_MAX, conflict));
    }

    #[test]
    fn a_refusal_that_is_no_race_is_not_tried_again() {
        let refused = || Err(problem(Code::ThresholdNotMet));
        let said = Err(problem(Code::ThresholdNotMet).to_string());
        assert_eq!(raced(0, refused), (1, said.clone()));
        assert_eq!(raced(2, refused), (3, said));
    }
}
