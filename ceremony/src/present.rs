//! A repository as a custodian's folder holds it: files by name, believed only as far as a walk from the first root leads.

use crate::error::CeremonyError;
use clap::ValueEnum;
use redan_protocol::UnixSeconds;
use redan_publish::PublicKey;
use redan_trust::metadata::{Key, Metadata, Root, Targets, file_name, file_stem};
use redan_trust::{TufError, Verified, rehearse};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longest file read, bytes: the longest metadata a device takes.
pub(crate) const FILE_LEN_MAX: u64 = 8 * 1024 * 1024;

/// One of a fleet's two repositories.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RepositoryName {
    /// What exists and who made it.
    Release,
    /// Which device runs what.
    Director,
}

impl RepositoryName {
    /// Its folder below `public/`.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Director => "director",
        }
    }

    /// The roles of its root that the control server signs unattended.
    pub const fn online(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["timestamp"],
            Self::Director => &["targets", "snapshot", "timestamp"],
        }
    }
}

impl std::fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.folder())
    }
}

/// The files of one repository.
#[derive(Clone, Debug)]
pub struct Present {
    /// Which.
    pub name: RepositoryName,
    /// Its folder.
    pub folder: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
}

impl Present {
    /// The public folder it is in.
    pub(crate) fn public(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// Reads the repository's folder below a fleet's public/ folder.
    pub fn read(public: &Path, name: RepositoryName) -> Result<Self, CeremonyError> {
        let folder = public.join(name.folder());
        let fault = |error| CeremonyError::file(&folder, &error);
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(fault)? {
            let path = entry.map_err(fault)?.path();
            let named = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if named.to_ascii_lowercase().ends_with(".json") {
                files.insert(named.to_owned(), bytes(&path)?);
            }
        }
        Ok(Self { name, folder, files })
    }

    /// A file.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// The same repository with one more file.
    #[must_use]
    pub fn with(&self, name: String, bytes: Vec<u8>) -> Self {
        let mut with = self.clone();
        with.files.insert(name, bytes);
        with
    }

    /// The newest version of a role's file, by file names: 0 when there is none.
    pub fn newest(&self, role: &str) -> u64 {
        let stem = file_stem(role);
        let versions = self.files.keys().filter_map(|name| {
            let version = name
                .strip_suffix(".json")?
                .strip_suffix(&stem)?
                .strip_suffix('.')?;
            version.parse::<u64>().ok()
        });
        versions.max().unwrap_or(0)
    }

    /// What is signed in the newest file of a role, as a value to change.
    pub fn signed(&self, role: &str) -> Result<Value, CeremonyError> {
        let name = file_name(role, Some(self.newest(role)));
        let missing = || self.refuse(TufError::Unavailable { path: name.clone() });
        let bytes = self.file(&name).ok_or_else(missing)?;
        let mut file: Value = serde_json::from_slice(bytes).map_err(|_| missing())?;
        Ok(file.get_mut("signed").ok_or_else(missing)?.take())
    }

    /// Walks the roots as a device does that has only the first.
    pub fn root(&self, now: UnixSeconds) -> Result<Verified<Root>, CeremonyError> {
        self.roots(u64::MAX, now)
    }

    /// The same up to a version.
    fn roots(&self, last: u64, now: UnixSeconds) -> Result<Verified<Root>, CeremonyError> {
        let name = file_name("root", Some(1));
        let first = self.file(&name).map(<[u8]>::to_vec);
        let first = first.ok_or_else(|| self.refuse(TufError::Unavailable { path: name }))?;
        let beyond = last
            .checked_add(1)
            .map(|version| file_name("root", Some(version)));
        let next = |path: &str| {
            if Some(path) == beyond.as_deref() {
                return None;
            }
            self.file(path).map(<[u8]>::to_vec)
        };
        let root = rehearse::roots(first, next, now).map_err(|error| self.refuse(error))?;
        let (walked, named) = (root.get().version(), self.newest("root"));
        // A root nobody can walk to is a gap or a forgery; a device would stay below it without a word.
        if last == u64::MAX && walked != named {
            return Err(self.refuse(TufError::WrongVersion {
                role: "root".into(),
                wanted: walked.saturating_add(1),
                offered: named,
            }));
        }
        Ok(root)
    }

    /// The newest targets file, believed under the newest root.
    pub fn targets(
        &self,
        root: &Verified<Root>,
        now: UnixSeconds,
    ) -> Result<Verified<Targets>, CeremonyError> {
        let version = self.newest("targets");
        let name = file_name("targets", Some(version));
        let missing = || self.refuse(TufError::Unavailable { path: name.clone() });
        let bytes = self.file(&name).ok_or_else(missing)?;
        let signers = root.signers("targets").ok_or_else(missing)?;
        rehearse::accept(bytes, "targets", version, &signers, now).map_err(|error| self.refuse(error))
    }

    /// The newest targets file, believed under some root of the walk: what a rotation of its holders starts from.
    pub fn targets_of_any_root(&self, root: &Verified<Root>) -> Result<Verified<Targets>, CeremonyError> {
        let newest = self.targets(root, UnixSeconds::new(0));
        let Err(error) = newest else { return newest };
        for version in (1..root.get().version()).rev() {
            let older = self.roots(version, UnixSeconds::new(0))?;
            if let Ok(targets) = self.targets(&older, UnixSeconds::new(0)) {
                return Ok(targets);
            }
        }
        Err(error)
    }

    pub(crate) fn refuse(&self, source: TufError) -> CeremonyError {
        CeremonyError::Walk {
            repository: self.name,
            source,
        }
    }
}

/// The ed25519 keys a role names; a signer with a key of another kind cannot sign here.
pub(crate) fn publics(ids: &[String], keys: &BTreeMap<String, Key>) -> Vec<PublicKey> {
    let public = |id: &String| {
        let key = keys.get(id)?;
        let known = key.keytype == "ed25519" && key.scheme == "ed25519";
        known.then_some(PublicKey {
            id: id.clone(),
            public: key.keyval.get("public")?.as_str()?.to_owned(),
        })
    };
    ids.iter().filter_map(public).collect()
}

/// Reads a file of bounded length.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>, CeremonyError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_LEN_MAX.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| CeremonyError::file(path, &error))?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > FILE_LEN_MAX) {
        return Err(CeremonyError::TooLong {
            path: path.display().to_string(),
        });
    }
    Ok(bytes)
}

/// Writes a file that is not there yet, durably or not at all.
pub fn put_new(path: &Path, bytes: &[u8]) -> Result<(), CeremonyError> {
    use std::io::Write as _;
    let exists = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CeremonyError::Exists {
            path: path.display().to_string(),
        },
        _ => CeremonyError::file(path, &error),
    };
    let mut file = std::fs::File::create_new(path).map_err(exists)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a file would keep its name from the whole one.
        drop(std::fs::remove_file(path));
        CeremonyError::file(path, &error)
    })
}
