//! Files that the device's ceiling names, outside of the device's own folders: root's or this process's own.

use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Opens one to be read, and says what it is: judged is what was opened, so nobody exchanges it between look and use. A pipe in its place is
/// not waited for. `more`: further flags.
pub(crate) fn open(path: &Path, more: OFlags) -> io::Result<(File, Metadata)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | more;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if found.is_file() {
        Ok((file, found))
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// Whether nobody but root and this process's user decides what is in it and who may read it.
pub(crate) fn is_ours(found: &Metadata) -> bool {
    found.uid() == 0 || found.uid() == rustix::process::geteuid().as_raw()
}
