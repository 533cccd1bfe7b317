//! The disk as the agent uses it: few calls, each of which a power cut may follow.
//!
//! A file is replaced in one way only, [`replace`]: write beside it, sync, rename, sync the folder. A record that must
//! survive even a lying rename lives in two alternating files, see `pair`.

use redan_protocol::ByteCount;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::path::Path;

/// Longest file that is overwritten in its place, bytes: twice the largest record of a pair.
const OVERWRITTEN_MAX: ByteCount = ByteCount::mib(16);

/// Every call that changes the disk, so that tests can count them and cut the power at each.
pub(crate) trait Disk {
    /// The whole file; `None` when there is none; an error when it is longer than `limit`.
    fn read(&self, path: &Path, limit: ByteCount) -> io::Result<Option<Vec<u8>>>;
    /// Creates or empties the file, for its owner only, and writes. Not durable yet. What is no file of one name is replaced.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Puts bytes at the beginning of the file, makes it if there is none, and fills with blanks what it was longer by, and up to `room`
    /// where the disk has that much. A file that is there already needs no room as long as `bytes` fit. Not durable yet.
    fn overwrite(&self, path: &Path, bytes: &[u8], room: ByteCount) -> io::Result<()>;
    /// Makes what was written durable (fsync).
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Replaces `to`. Not durable yet.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes renames, creations and removals in the folder durable (fsync of the folder).
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Removes the file, if it is there.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// What fills a file that is longer than its record.
pub(crate) const BLANK: u8 = b' ';

/// A record without the blanks behind it.
pub(crate) fn without_blanks(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != BLANK);
    let end = end.map_or(0, |last| last.saturating_add(1));
    bytes.get(..end).unwrap_or_default()
}

/// Whether an error says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
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

/// What is in a file's place is no file: a symbolic link (also on the way to it), a FIFO, a device, a socket, a folder.
pub(crate) fn is_no_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

/// Opens a plain file. The way to it was made of folders when the store was opened and has no symbolic link since (`openat2(2)`,
/// `RESOLVE_NO_SYMLINKS`): whoever swaps one in gets nothing opened. Nothing is waited for: a FIFO would hold a device for ever.
fn open(path: &Path, flags: OFlags) -> io::Result<(File, Stat)> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = if flags.contains(OFlags::CREATE) {
        Mode::RUSR | Mode::WUSR
    } else {
        Mode::empty()
    };
    let file = open_without_links(path, flags, mode)?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((file, stat))
}

/// Opens a folder, to change or sync what is in it; no link leads there either.
fn open_folder(folder: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    open_without_links(folder, flags, Mode::empty())
}

fn open_without_links(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    let no_links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = match rustix::fs::openat2(CWD, path, flags, mode, no_links) {
        // Kernels before 5.6: the last name is no link at least.
        Err(Errno::NOSYS) => rustix::fs::open(path, flags, mode),
        opened => opened,
    };
    match opened {
        Ok(descriptor) => Ok(File::from(descriptor)),
        // A link; a FIFO nobody reads, a socket; a folder, or none.
        Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR | Errno::NOTDIR) => {
            Err(io::ErrorKind::InvalidInput.into())
        }
        Err(errno) => Err(errno.into()),
    }
}

fn name_of(path: &Path) -> io::Result<&OsStr> {
    path.file_name()
        .ok_or_else(|| io::ErrorKind::InvalidFilename.into())
}

/// Opens a file to write, making it for its owner only. What is there and is no file, or has a second name somewhere else, loses this
/// name first: nothing outside is ever written to.
pub(crate) fn open_to_write(path: &Path, flags: OFlags) -> io::Result<File> {
    match open(path, flags | OFlags::CREATE) {
        Ok((file, stat)) if stat.st_nlink <= 1 => return Ok(file),
        Ok(_) => {}
        Err(error) if is_no_file(&error) => {}
        Err(error) => return Err(error),
    }
    RealDisk.remove(path)?;
    open(path, flags | OFlags::CREATE | OFlags::EXCL).map(|(file, _)| file)
}

fn whole(file: File, limit: ByteCount) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.get().saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit.get() {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Reads a file that nobody else can have written: this process's user owns it, and nobody else has any right to it.
pub(crate) fn read_own(path: &Path, limit: ByteCount) -> io::Result<Option<Vec<u8>>> {
    let (file, stat) = match open(path, OFlags::RDONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let others = Mode::RWXG | Mode::RWXO;
    let foreign = stat.st_uid != rustix::process::geteuid().as_raw();
    if foreign || Mode::from_raw_mode(stat.st_mode).intersects(others) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    whole(file, limit).map(Some)
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path, limit: ByteCount) -> io::Result<Option<Vec<u8>>> {
        match open(path, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => whole(opened?.0, limit).map(Some),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Not emptied before it is known to have no other name.
        let mut file = open_to_write(path, OFlags::WRONLY)?;
        file.set_len(0)?;
        file.write_all(bytes)
    }

    fn overwrite(&self, path: &Path, bytes: &[u8], room: ByteCount) -> io::Result<()> {
        let mut file = open_to_write(path, OFlags::RDWR)?;
        let mut before = Vec::new();
        (&file).take(OVERWRITTEN_MAX.get()).read_to_end(&mut before)?;
        file.rewind()?;
        file.write_all(bytes)?;
        // What is blank already is not written again: flash wears.
        let stale = without_blanks(&before).len().saturating_sub(bytes.len());
        file.write_all(&vec![BLANK; stale])?;
        let end = file.metadata()?.len();
        let missing = usize::try_from(room.get().saturating_sub(end)).unwrap_or(0);
        file.seek(io::SeekFrom::End(0))?;
        match file.write_all(&vec![BLANK; missing]) {
            // There is room for this record, if not for a longer one.
            Err(error) if is_full(&error) => Ok(()),
            written => written,
        }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        open(path, OFlags::RDONLY)?.0.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (near, far) = (open_folder(folder_of(from))?, open_folder(folder_of(to))?);
        Ok(rustix::fs::renameat(near, name_of(from)?, far, name_of(to)?)?)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        open_folder(folder)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let folder = match open_folder(folder_of(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        match rustix::fs::unlinkat(folder, name_of(path)?, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
pub(crate) mod faulty;

#[cfg(test)]
mod tests;
