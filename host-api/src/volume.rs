//! Named volumes: where they lie, and how full they are.
//!
//! Bytes and files are reserved before they are written (by `files`), against what was measured when the call
//! began. What guests remove is seen at the next measurement, which is made when there seems to be no room. Somebody
//! else may write into a folder of the device's own: over its quota it is read-only for the next call, and ends one that runs.

use redan_policy::grant::Volume;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Between two measurements while a call runs.
pub const MEASURE_INTERVAL: Duration = Duration::from_millis(100);
/// Deepest folder measured; a deeper one counts as over quota.
const DEPTH_MAX: u32 = 64;

/// A granted volume and its folder on this device.
#[derive(Clone, Debug)]
pub struct Mounted {
    /// What was granted.
    pub granted: Volume,
    /// The folder.
    pub folder: PathBuf,
}

impl Mounted {
    /// Finds or makes the folder: the device's own if it maps one, else one below the workload's data.
    pub fn prepare(granted: &Volume, data: &Path) -> io::Result<Self> {
        let folder = if let Some(folder) = &granted.host {
            PathBuf::from(folder)
        } else {
            // A volume's name is not a path: it must be one plain part of one.
            let name = Path::new(&granted.name);
            if name.file_name() != Some(name.as_os_str()) {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            let folder = data.join(name);
            std::fs::create_dir_all(&folder)?;
            folder
        };
        Ok(Self {
            granted: granted.clone(),
            folder,
        })
    }

    /// Whether bytes or files are over the grant.
    pub fn is_over(&self) -> bool {
        self.measure().is_none()
    }

    /// Bytes and files, unless there are more than the grant has.
    fn measure(&self) -> Option<(u64, u64)> {
        let mut sum = (0_u64, 0_u64);
        let limit = (self.granted.bytes.get(), u64::from(self.granted.files));
        within(&self.folder, limit, &mut sum, DEPTH_MAX).then_some(sum)
    }
}

/// How full a volume is, as its workload's calls know it: never less than what is in it.
#[derive(Debug, Default)]
pub(crate) struct Usage(Mutex<Filled>);

#[derive(Debug, Default)]
struct Filled {
    bytes: u64,
    files: u64,
    /// Bytes and files reserved and perhaps not on disk yet: a measurement may miss them.
    writing: u64,
    making: u64,
    /// Something was reserved or removed since: a measurement may find less.
    stale: bool,
}

impl Usage {
    /// Measures; whether the volume is within its grant.
    pub(crate) fn begin(&self, volume: &Mounted) -> bool {
        let mut filled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        filled.measure(volume)
    }

    /// Room for this much more, reserved; or there is none. It counts as not on disk yet until [`Self::written`].
    pub(crate) fn reserve(&self, volume: &Mounted, bytes: u64, files: u64) -> bool {
        let mut filled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = filled.room(volume, bytes, files)
            || (filled.stale && filled.measure(volume) && filled.room(volume, bytes, files));
        if room {
            filled.bytes = filled.bytes.saturating_add(bytes);
            filled.files = filled.files.saturating_add(files);
            filled.writing = filled.writing.saturating_add(bytes);
            filled.making = filled.making.saturating_add(files);
            filled.stale = true;
        }
        room
    }

    /// What was reserved is on disk, or will never be.
    pub(crate) fn written(&self, bytes: u64, files: u64) {
        let mut filled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        filled.writing = filled.writing.saturating_sub(bytes);
        filled.making = filled.making.saturating_sub(files);
    }

    /// There may be less in it than is known.
    pub(crate) fn removed(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stale = true;
    }
}

impl Filled {
    fn room(&self, volume: &Mounted, bytes: u64, files: u64) -> bool {
        self.bytes.saturating_add(bytes) <= volume.granted.bytes.get()
            && self.files.saturating_add(files) <= u64::from(volume.granted.files)
    }

    fn measure(&mut self, volume: &Mounted) -> bool {
        let Some((bytes, files)) = volume.measure() else {
            return false;
        };
        self.bytes = bytes.saturating_add(self.writing);
        self.files = files.saturating_add(self.making);
        self.stale = self.writing > 0 || self.making > 0;
        true
    }
}

fn within(folder: &Path, limit: (u64, u64), sum: &mut (u64, u64), depth: u32) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        // Gone meanwhile: the guest may remove its own folders.
        return true;
    };
    for entry in entries.flatten() {
        // Of the link itself, never what it points to.
        let Ok(status) = entry.path().symlink_metadata() else {
            continue;
        };
        sum.0 = sum.0.saturating_add(status.len());
        sum.1 = sum.1.saturating_add(1);
        if sum.0 > limit.0 && !status.is_dir() || sum.1 > limit.1 {
            return false;
        }
        if status.is_dir() {
            // The size of a folder's own table depends on the file system: it does not count.
            sum.0 = sum.0.saturating_sub(status.len());
            if !within(&entry.path(), limit, sum, depth) {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_policy::grant::Mode;
    use redan_protocol::ByteCount;

    fn volume(name: &str) -> Volume {
        Volume {
            name: name.to_owned(),
            guest: "/state".to_owned(),
            host: None,
            mode: Mode::ReadWrite,
            bytes: ByteCount::new(10),
            files: 3,
        }
    }

    #[test]
    fn a_volume_over_its_bytes_or_files_is_seen() {
        let data = tempfile::tempdir().unwrap();
        let volume = Mounted::prepare(&volume("state"), data.path()).unwrap();
        std::fs::create_dir(volume.folder.join("inner")).unwrap();
        std::fs::write(volume.folder.join("inner/a"), [0; 10]).unwrap();
        assert!(!volume.is_over());
        std::fs::write(volume.folder.join("b"), [0; 1]).unwrap();
        assert!(volume.is_over());
        std::fs::write(volume.folder.join("inner/a"), []).unwrap();
        assert!(!volume.is_over());
        std::fs::write(volume.folder.join("c"), []).unwrap();
        assert!(volume.is_over());
    }

    #[test]
    fn folders_deeper_than_anybody_measures_are_over_the_quota() {
        let data = tempfile::tempdir().unwrap();
        let mut granted = volume("state");
        granted.files = 1000;
        let volume = Mounted::prepare(&granted, data.path()).unwrap();
        let deep = |levels: u32| (0..levels).map(|_| "d").collect::<PathBuf>();
        std::fs::create_dir_all(volume.folder.join(deep(DEPTH_MAX - 1))).unwrap();
        assert!(!volume.is_over());
        std::fs::create_dir_all(volume.folder.join(deep(DEPTH_MAX))).unwrap();
        assert!(volume.is_over());
    }

    #[test]
    fn room_is_reserved_once_and_comes_back_when_something_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let volume = Mounted::prepare(&volume("state"), data.path()).unwrap();
        let usage = Usage::default();
        assert!(usage.begin(&volume));
        assert!(usage.reserve(&volume, 6, 1));
        assert!(!usage.reserve(&volume, 5, 0), "six of ten are taken");
        assert!(!usage.reserve(&volume, 0, 3), "one of three is taken");
        assert!(!usage.reserve(&volume, 5, 0), "six may still be on their way");
        std::fs::write(volume.folder.join("a"), [0; 6]).unwrap();
        usage.written(6, 1);
        assert!(!usage.reserve(&volume, 5, 0), "six are on disk");
        std::fs::remove_file(volume.folder.join("a")).unwrap();
        usage.removed();
        assert!(usage.reserve(&volume, 10, 3));
        assert!(!usage.reserve(&volume, 1, 0));
    }

    #[test]
    fn a_link_counts_as_itself_and_not_as_what_it_points_to() {
        let data = tempfile::tempdir().unwrap();
        let volume = Mounted::prepare(&volume("state"), data.path()).unwrap();
        std::fs::write(data.path().join("large"), [0; 100]).unwrap();
        std::os::unix::fs::symlink("../large", volume.folder.join("link")).unwrap();
        assert!(!volume.is_over());
    }

    #[test]
    fn a_volume_name_that_is_a_path_is_refused() {
        let data = tempfile::tempdir().unwrap();
        for name in ["../out", "a/b", "/etc", "..", "."] {
            let refused = Mounted::prepare(&volume(name), data.path()).map(|m| m.folder);
            assert_eq!(
                refused.map_err(|e| e.kind()),
                Err(io::ErrorKind::InvalidInput),
                "{name}"
            );
        }
    }
}
