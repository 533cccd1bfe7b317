//! The driver of `redan-trust`'s TUF workflow: fetches over one connection, makes durable, answers.

use crate::bundle::Bundle;
use crate::disk::{Disk, RealDisk, is_full, is_no_file, replace};
use crate::fetch::disk_code;
use crate::main_loop::Event;
use crate::patience::request;
use crate::session::Stopped;
use bytes::Bytes;
use redan_identity::client::Connection;
use redan_protocol::{ByteCount, Code, Digest, UnixSeconds};
use redan_trust::{
    Answer, LookupStep, Refresh, Refusal, Repository, RoleVersions, Step, Target, TrustRecord, Trusted,
};
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};

/// Largest stored metadata file, bytes: that of targets.
const FILE_LEN_MAX: ByteCount = ByteCount::mib(8);

/// Which of the two repositories.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Which {
    Release,
    Director,
}

impl Which {
    fn url(self, file: &str) -> String {
        match self {
            Self::Release => format!("/tuf/release/{file}"),
            Self::Director => format!("/tuf/director/{file}"),
        }
    }
}

/// Where a repository's files and artifacts come from.
pub(crate) enum Source<'a> {
    /// The control server.
    Server(&'a mut Connection),
    /// A folder that somebody carried here.
    Folder(&'a Bundle),
}

impl Source<'_> {
    async fn file(&mut self, which: Which, path: &str, limit: ByteCount) -> Answer {
        match self {
            Self::Server(connection) => get(connection, which, path, limit).await,
            Self::Folder(bundle) => bundle.file(path, limit),
        }
    }

    /// A small artifact whole; its digest is for `decide` to check.
    pub(crate) async fn artifact(&mut self, digest: Digest, limit: ByteCount) -> Result<Vec<u8>, Code> {
        let connection = match self {
            Self::Server(connection) => connection,
            Self::Folder(bundle) => return bundle.artifact(digest, limit),
        };
        let path = format!("/artifacts/{digest}");
        let response = request(connection, "GET", &path, &[], Bytes::new(), limit)
            .await
            .map_err(|error| error.code())?;
        match response.status {
            200 => Ok(response.body.to_vec()),
            404 => Err(Code::ArtifactMissing),
            _ => Err(Code::Unreachable),
        }
    }
}

/// The stored metadata of one repository, one file for each role. Roots are in the trust record.
#[derive(Clone, Debug)]
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    fn path(&self, role: &str) -> PathBuf {
        self.0.join(redan_trust::metadata::file_name(role, None))
    }

    /// What is stored, to start a refresh from.
    pub(crate) fn trusted(&self, which: Which, record: &TrustRecord) -> Result<Trusted, Code> {
        let (root, versions) = match which {
            Which::Release => (&record.release_root, &record.release_versions),
            Which::Director => (&record.director_root, &record.director_versions),
        };
        let mut trusted = Trusted {
            root: root.as_bytes().to_vec(),
            versions: versions.clone(),
            ..Trusted::default()
        };
        let failed = |error: std::io::Error| disk_code(&error);
        for entry in std::fs::read_dir(&self.0).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let (Some(role), Some("json")) = (
                path.file_stem().and_then(|stem| stem.to_str()),
                path.extension().and_then(|extension| extension.to_str()),
            ) else {
                continue;
            };
            let bytes = match RealDisk.read(&path, FILE_LEN_MAX) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                // No copy: it is fetched again, and replaced.
                Err(error) if is_no_file(&error) || error.kind() == std::io::ErrorKind::FileTooLarge => {
                    continue;
                }
                Err(error) => return Err(disk_code(&error)),
            };
            match unescape(role).as_str() {
                "timestamp" => trusted.timestamp = Some(bytes),
                "snapshot" => trusted.snapshot = Some(bytes),
                role => {
                    trusted.targets.insert(role.to_owned(), bytes);
                }
            }
        }
        Ok(trusted)
    }

    /// The version of the stored timestamp, only to be shown.
    pub(crate) fn timestamp_version(&self) -> u64 {
        let bytes = RealDisk
            .read(&self.path("timestamp"), FILE_LEN_MAX)
            .ok()
            .flatten();
        let value = bytes.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let version = value.as_ref().and_then(|value| value.pointer("/signed/version"));
        version.and_then(serde_json::Value::as_u64).unwrap_or(0)
    }

    /// Keeps a copy. What a full disk does not take is fetched again next time, and judged all the same: what revokes, narrows or ends
    /// must arrive. What the trust record keeps of it is kept ([`crate::pair::RESERVE`]).
    fn store(&self, role: &str, bytes: &[u8]) -> Result<(), Code> {
        match replace(&RealDisk, &self.path(role), bytes) {
            Err(error) if is_full(&error) => {
                tracing::warn!(code = Code::DiskFull.name(), "a copy of metadata is not kept");
                Ok(())
            }
            kept => kept.map_err(|error| disk_code(&error)),
        }
    }

    fn remove(&self, role: &str) -> Result<(), Code> {
        RealDisk
            .remove(&self.path(role))
            .and_then(|()| RealDisk.sync_folder(&self.0))
            .map_err(|error| disk_code(&error))
    }
}

/// The role a file name was made for.
fn unescape(name: &str) -> String {
    let mut parts = name.split('%');
    let mut role = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (byte, rest) = part.split_at_checked(2).unwrap_or(("", part));
        role.extend(hex::decode(byte).unwrap_or_default());
        role.extend(rest.as_bytes());
    }
    String::from_utf8_lossy(&role).into_owned()
}

/// Refreshes one repository. New roots and the versions of its roles go into the trust record, which the main loop owns; they are
/// durable before anything is decided from what came.
pub(crate) async fn refresh(
    source: &mut Source<'_>,
    files: &Files,
    which: Which,
    trusted: Trusted,
    now: UnixSeconds,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<Repository, Code> {
    let failed = |error: redan_trust::TufError| {
        tracing::warn!(code = error.code().name(), ?which, "metadata: {error}");
        error.code()
    };
    let refresh = match source {
        Source::Server(_) => Refresh::new(trusted, now),
        Source::Folder(_) => Refresh::carried(trusted, now),
    };
    let mut refresh = refresh.map_err(failed)?;
    let done = drive(source, files, which, &mut refresh, events).await;
    // Also of a refresh that failed: what it verified on its way is known from now on.
    remember(events, which, None, refresh.versions().clone()).await?;
    match done {
        Ok(()) => refresh.finish().map_err(failed),
        Err(Stopped::Network(code)) => Err(code),
        Err(Stopped::Refused(Refusal::Metadata(error))) => Err(failed(error)),
        Err(Stopped::Refused(refusal)) => Err(refusal.code()),
    }
}

/// Walks the roots of the release repository in a folder, as far as they go, and leaves the rest.
pub(crate) async fn roots(
    source: &mut Source<'_>,
    files: &Files,
    trusted: Trusted,
    now: UnixSeconds,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<(), Code> {
    let failed = |error: redan_trust::TufError| {
        tracing::warn!(code = error.code().name(), "roots: {error}");
        error.code()
    };
    let mut refresh = Refresh::carried(trusted, now).map_err(failed)?;
    let mut answer = None;
    loop {
        answer = match refresh.step(answer.take()).map_err(failed)? {
            Step::Fetch { path, limit } if path.ends_with(".root.json") => {
                Some(source.file(Which::Release, &path, limit).await)
            }
            Step::Store { role, bytes } if role == "root" => {
                let versions = refresh.versions().clone();
                remember(events, Which::Release, Some(bytes), versions).await?;
                Some(Answer::Stored)
            }
            Step::Remove { role } => {
                files.remove(&role)?;
                Some(Answer::Stored)
            }
            // What comes after the roots is not what this is about.
            Step::Fetch { .. } | Step::Store { .. } | Step::Done => return Ok(()),
        };
    }
}

async fn drive(
    source: &mut Source<'_>,
    files: &Files,
    which: Which,
    refresh: &mut Refresh,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<(), Stopped> {
    let mut answer = None;
    loop {
        answer = match refresh.step(answer.take())? {
            Step::Fetch { path, limit } => Some(source.file(which, &path, limit).await),
            Step::Store { role, bytes } if role == "root" => {
                let versions = refresh.versions().clone();
                let kept = remember(events, which, Some(bytes), versions).await;
                kept.map_err(Stopped::Network)?;
                Some(Answer::Stored)
            }
            Step::Store { role, bytes } => {
                files.store(&role, &bytes).map_err(Stopped::Network)?;
                Some(Answer::Stored)
            }
            Step::Remove { role } => {
                files.remove(&role).map_err(Stopped::Network)?;
                Some(Answer::Stored)
            }
            Step::Done => return Ok(()),
        };
    }
}

/// Has the main loop keep it; returns when it is durable.
async fn remember(
    events: &mpsc::UnboundedSender<Event>,
    which: Which,
    root: Option<Vec<u8>>,
    versions: RoleVersions,
) -> Result<(), Code> {
    let (done, kept) = oneshot::channel();
    let event = Event::Verified {
        which,
        root,
        versions,
        done,
    };
    events.send(event).map_err(|_| Code::Internal)?;
    kept.await.map_err(|_| Code::Internal)?
}

/// Finds one target in the release repository.
pub(crate) async fn lookup(
    source: &mut Source<'_>,
    files: &Files,
    release: &mut Repository,
    path: &str,
) -> Result<Option<Target>, Stopped> {
    let mut lookup = release.lookup(path);
    let mut answer = None;
    loop {
        answer = match lookup.step(answer.take()).map_err(Refusal::from)? {
            LookupStep::Found(target) => return Ok(Some(target)),
            LookupStep::NotFound => return Ok(None),
            LookupStep::Do(Step::Fetch { path, limit }) => {
                Some(source.file(Which::Release, &path, limit).await)
            }
            LookupStep::Do(Step::Store { role, bytes }) => {
                files.store(&role, &bytes).map_err(Stopped::Network)?;
                Some(Answer::Stored)
            }
            LookupStep::Do(Step::Remove { role }) => {
                files.remove(&role).map_err(Stopped::Network)?;
                Some(Answer::Stored)
            }
            LookupStep::Do(Step::Done) => return Err(Stopped::Network(Code::Internal)),
        };
    }
}

pub(crate) async fn get(connection: &mut Connection, which: Which, path: &str, limit: ByteCount) -> Answer {
    let url = which.url(path);
    match request(connection, "GET", &url, &[], Bytes::new(), limit).await {
        Ok(response) if response.status == 200 => Answer::Bytes(response.body.to_vec()),
        Ok(response) if response.status == 404 => Answer::Absent,
        _ => Answer::Failed,
    }
}
