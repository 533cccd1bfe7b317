//! The disk as the agent uses it: few calls, each of which a power cut may follow.
//!
//! A file is replaced in one way only, [`replace`]: write beside it, sync, rename, sync the folder. A record that must
//! survive even a lying rename lives in two alternating files, see `pair`.

use redan_protocol::ByteCount;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Every call that changes the disk, so that tests can count them and cut the power at each.
pub(crate) trait Disk {
    /// The whole file; `None` when there is none; an error when it is longer than `limit`.
    fn read(&self, path: &Path, limit: ByteCount) -> io::Result<Option<Vec<u8>>>;
    /// Creates or empties the file, for its owner only, and writes. Not durable yet. Follows no symlink.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable (fsync).
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Replaces `to`. Not durable yet.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes renames, creations and removals in the folder durable (fsync of the folder).
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Removes the file, if it is there.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// Replaces a file whole: after a power cut it has its old or its new content, never a part.
pub(crate) fn replace(disk: &impl Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    if let Err(error) = disk.write(&beside, bytes).and_then(|()| disk.sync(&beside)) {
        // A full disk is left as it was; if even this fails, the next replacement overwrites the rest.
        disk.remove(&beside).ok();
        return Err(error);
    }
    disk.rename(&beside, path)?;
    disk.sync_folder(folder_of(path))
}

/// The folder a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path, limit: ByteCount) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut bytes = Vec::new();
        file.take(limit.get().saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit.get() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(bytes))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
pub(crate) mod faulty;
