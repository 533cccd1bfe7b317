//! Named volumes: where they lie, and how full they are.
//!
//! wasmtime's `wasi:filesystem` has no quota, so a volume is measured: before a call, and while one runs. Over its
//! quota it is read-only for the next call and ends a running one; what a guest can write between two measurements is
//! bounded by the disk and the interval, not by the quota. That is a bound, and weaker than the others.

use redan_policy::grant::Volume;
use std::io;
use std::path::{Path, PathBuf};
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
        let mut sum = (0_u64, 0_u64);
        let limit = (self.granted.bytes.get(), u64::from(self.granted.files));
        !within(&self.folder, limit, &mut sum, DEPTH_MAX)
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
