//! Drives `redan-trust`: what the device's agent does, with other wires.

use crate::folder::{MetadataDir, replace};
use crate::http::{self, Fetched};
use redan_protocol::{ByteCount, Code, UnixSeconds};
use redan_trust::metadata::file_stem;
use redan_trust::{Answer, LookupStep, Refresh, Repository, Step, Target, TufError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Why it did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The repository is not believed.
    #[error(transparent)]
    Tuf(#[from] TufError),
    /// Nobody who is trusted for the name lists it.
    #[error("no trusted role lists the target {name:?}")]
    NotListed {
        /// The target.
        name: String,
    },
    /// What was served is not the target.
    #[error("what is served for {name:?} is not the signed target")]
    NotTheTarget {
        /// The target.
        name: String,
    },
    /// The target could not be fetched.
    #[error("the target {name:?} could not be fetched")]
    NotFetched {
        /// The target.
        name: String,
    },
    /// An option is missing.
    #[error("{option} is needed for this")]
    Missing {
        /// Which.
        option: &'static str,
    },
    /// The disk.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl ClientError {
    /// The code of the refusal.
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Tuf(error) => error.code(),
            Self::NotListed { .. } => Code::NotReleased,
            Self::NotTheTarget { .. } => Code::DigestMismatch,
            Self::NotFetched { .. } => Code::ArtifactMissing,
            Self::Missing { .. } => Code::BadRequest,
            Self::Disk { .. } => Code::DiskFailed,
        }
    }
}

/// Gets current.
pub(crate) async fn refresh(folder: &MetadataDir, url: &str) -> Result<Repository, ClientError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = UnixSeconds::new(now.map_or(0, |since| since.as_secs()));
    let mut refresh = Refresh::new(folder.trusted()?, now)?;
    let mut answer = None;
    loop {
        let step = refresh.step(answer.take())?;
        if step == Step::Done {
            return Ok(refresh.finish()?);
        }
        answer = Some(perform(folder, url, step).await?);
    }
}

/// Gets current, then downloads targets in order.
pub(crate) async fn download(
    folder: &MetadataDir,
    url: &str,
    names: &[String],
    base: &str,
    into: &Path,
) -> Result<(), ClientError> {
    let mut repository = refresh(folder, url).await?;
    let consistent = repository.root().consistent_snapshot;
    for name in names {
        let target = look_up(folder, url, &mut repository, name)
            .await?
            .ok_or_else(|| ClientError::NotListed { name: name.clone() })?;
        fetch(
            &target,
            &format!(
                "{}/{}",
                base.trim_end_matches('/'),
                quoted(&target.file(consistent))
            ),
            into,
        )
        .await?;
    }
    Ok(())
}

async fn look_up(
    folder: &MetadataDir,
    url: &str,
    repository: &mut Repository,
    name: &str,
) -> Result<Option<Target>, ClientError> {
    let mut lookup = repository.lookup(name);
    let mut answer = None;
    loop {
        match lookup.step(answer.take())? {
            LookupStep::Found(target) => return Ok(Some(target)),
            LookupStep::NotFound => return Ok(None),
            LookupStep::Do(step) => answer = Some(perform(folder, url, step).await?),
        }
    }
}

async fn perform(folder: &MetadataDir, url: &str, step: Step) -> Result<Answer, ClientError> {
    match step {
        Step::Fetch { path, limit } => {
            let url = format!("{}/{path}", url.trim_end_matches('/'));
            Ok(match http::get(&url, limit).await {
                Fetched::Body(bytes) => Answer::Bytes(bytes),
                Fetched::NotFound => Answer::Absent,
                Fetched::Failed => Answer::Failed,
            })
        }
        Step::Store { role, bytes } => folder.store(&role, &bytes).map(|()| Answer::Stored),
        Step::Remove { role } => folder.retire(&role).map(|()| Answer::Stored),
        Step::Done => Err(TufError::Driver.into()),
    }
}

/// Fetches one target, unless it is there already.
async fn fetch(target: &Target, url: &str, into: &Path) -> Result<(), ClientError> {
    let name = || target.path.clone();
    // The name of a file, never a path: what a target is called decides nothing about where it lies.
    let path = into.join(match target.path.as_str() {
        "." | ".." => target.path.replace('.', "%2E"),
        name => file_stem(name),
    });
    if std::fs::read(&path).is_ok_and(|bytes| target.is(&bytes)) {
        return Ok(());
    }
    match http::get(url, ByteCount::new(target.entry.length)).await {
        Fetched::Body(bytes) if target.is(&bytes) => replace(&path, &bytes),
        Fetched::Body(_) => Err(ClientError::NotTheTarget { name: name() }),
        Fetched::NotFound | Fetched::Failed => Err(ClientError::NotFetched { name: name() }),
    }
}

/// A path with every segment quoted.
fn quoted(path: &str) -> String {
    let segments: Vec<String> = path.split('/').map(file_stem).collect();
    segments.join("/")
}
