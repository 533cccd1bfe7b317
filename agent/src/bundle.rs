//! A folder that somebody carried here, as `redan bundle` writes it: release metadata and artifacts. It is believed as little as the
//! network: metadata by its signatures, every other byte by its digest.
//!
//! ```text
//! bundle.json          which direction to read: a hint, signed by nobody
//! release/             roots, snapshot.json, targets files
//! blobs/<sha256>       direction, plan, policy, components
//! ```

use crate::disk::{Disk, RealDisk};
use crate::fetch::{Blobs, disk_code};
use redan_protocol::wire::BundleNote;
use redan_protocol::{ByteCount, Code, Digest};
use redan_trust::Answer;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

/// Largest `bundle.json`, bytes: two names and a path.
const NOTE_LEN_MAX: ByteCount = ByteCount::kib(4);
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// An open folder.
#[derive(Clone, Debug)]
pub(crate) struct Bundle(PathBuf);

impl Bundle {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Which direction it is about.
    pub(crate) fn note(&self) -> Result<BundleNote, Code> {
        let read = RealDisk.read(&self.0.join("bundle.json"), NOTE_LEN_MAX);
        let bytes = read.ok().flatten().ok_or(Code::BundleInvalid)?;
        serde_json::from_slice(&bytes).map_err(|_| Code::BundleInvalid)
    }

    /// A file of the release repository. Names come from the workflow and are one segment.
    pub(crate) fn file(&self, name: &str, limit: ByteCount) -> Answer {
        match RealDisk.read(&self.0.join("release").join(name), limit) {
            Ok(Some(bytes)) => Answer::Bytes(bytes),
            Ok(None) => Answer::Absent,
            Err(_) => Answer::Failed,
        }
    }

    /// A small artifact, unchecked.
    pub(crate) fn artifact(&self, digest: Digest, limit: ByteCount) -> Result<Vec<u8>, Code> {
        match RealDisk.read(&self.blob(digest), limit) {
            Ok(bytes) => bytes.ok_or(Code::ArtifactMissing),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(Code::LengthMismatch),
            Err(error) => Err(disk_code(&error)),
        }
    }

    /// Brings an artifact onto the device's own disk, hashed on its way: named there only when its digest is met.
    pub(crate) fn import(&self, blobs: &Blobs, digest: Digest, length: ByteCount) -> Result<(), Code> {
        let here = blobs
            .verified(digest, length)
            .map_err(|error| disk_code(&error))?;
        if here.is_some() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut from = match rustix::fs::open(self.blob(digest), flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::NOENT) => return Err(Code::ArtifactMissing),
            Err(errno) => return Err(disk_code(&errno.into())),
        };
        let mut partial = blobs.resume(digest, length)?;
        // What a broken download left may be another's bytes; the stick has all of it.
        partial.restart()?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = from.read(&mut buffer).map_err(|error| disk_code(&error))?;
            match buffer.get(..count) {
                Some(chunk) if !chunk.is_empty() => partial.push(chunk)?,
                _ => return partial.finish(),
            }
        }
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.0.join("blobs").join(digest.to_string())
    }
}
