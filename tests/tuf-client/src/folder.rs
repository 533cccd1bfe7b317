//! Trusted metadata in a folder: one `*.json` for each role, byte for byte as it was served.

use crate::client::ClientError;
use redan_protocol::Digest;
use redan_trust::Trusted;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// The folder.
pub(crate) struct MetadataDir(PathBuf);

impl MetadataDir {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Takes a root over, unread.
    pub(crate) fn init(&self, root: &Path) -> Result<(), ClientError> {
        let bytes = fs::read(root).map_err(disk(root))?;
        fs::create_dir_all(&self.0).map_err(disk(&self.0))?;
        self.store("root", &bytes)
    }

    /// What is stored.
    pub(crate) fn trusted(&self) -> Result<Trusted, ClientError> {
        let mut trusted = Trusted::default();
        let root = self.path("root");
        trusted.root = fs::read(&root).map_err(disk(&root))?;
        for entry in fs::read_dir(&self.0).map_err(disk(&self.0))? {
            let path = entry.map_err(disk(&self.0))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let (Some(role), true) = (stem, path.extension().is_some_and(|end| end == "json")) else {
                continue;
            };
            let bytes = fs::read(&path).map_err(disk(&path))?;
            if self.is_retired(role, &bytes) {
                continue;
            }
            match role {
                "root" => {}
                "timestamp" => trusted.timestamp = Some(bytes),
                "snapshot" => trusted.snapshot = Some(bytes),
                _ => drop(trusted.targets.insert(role.to_owned(), bytes)),
            }
        }
        Ok(trusted)
    }

    /// Replaces a role's file.
    pub(crate) fn store(&self, role: &str, bytes: &[u8]) -> Result<(), ClientError> {
        replace(&self.path(role), bytes)
    }

    /// Forgets a role's file. The suite looks at files to see what was trusted last, so it stays, and a note beside it says
    /// which bytes no longer count.
    pub(crate) fn retire(&self, role: &str) -> Result<(), ClientError> {
        let path = self.path(role);
        match fs::read(&path) {
            Ok(bytes) => replace(&self.note(role), Digest::of(&bytes).to_string().as_bytes()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(disk(&path)(error)),
        }
    }

    fn is_retired(&self, role: &str, bytes: &[u8]) -> bool {
        fs::read(self.note(role)).is_ok_and(|note| note == Digest::of(bytes).to_string().as_bytes())
    }

    fn path(&self, role: &str) -> PathBuf {
        self.0.join(format!("{role}.json"))
    }

    fn note(&self, role: &str) -> PathBuf {
        self.0.join(format!("{role}.retired"))
    }
}

/// Replaces a file whole: written beside it, synced, renamed, and the folder synced.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ClientError> {
    let write = || -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(disk(path))
}

fn disk(path: &Path) -> impl Fn(io::Error) -> ClientError {
    let path = path.to_owned();
    move |source| ClientError::Disk {
        path: path.clone(),
        source,
    }
}
