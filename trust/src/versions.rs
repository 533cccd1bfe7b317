//! Versions of a repository's roles that were verified once: nothing older is believed, whatever happens to the stored files.

use crate::metadata::{Metadata as _, Snapshot, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The floors of one repository. Zero and absence say nothing. The root's own version is in its bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleVersions {
    /// Of the timestamp (TUF 1.0.34 §5.4.3.1).
    pub timestamp: u64,
    /// Of the snapshot that a verified timestamp named (§5.4.3.2).
    pub snapshot: u64,
    /// Of every file that a verified snapshot listed, by its name there (§5.5.5): targets and all delegated roles.
    pub files: BTreeMap<String, u64>,
}

impl RoleVersions {
    /// What a verified timestamp teaches.
    pub(crate) fn timestamp(&mut self, timestamp: &Timestamp) {
        self.timestamp = self.timestamp.max(timestamp.version());
        self.snapshot = self.snapshot.max(named(timestamp));
    }

    /// What a verified snapshot teaches.
    pub(crate) fn snapshot(&mut self, snapshot: &Snapshot) {
        self.snapshot = self.snapshot.max(snapshot.version());
        for (file, entry) in &snapshot.meta {
            match self.files.get_mut(file) {
                Some(known) => *known = entry.version.max(*known),
                None => drop(self.files.insert(file.clone(), entry.version)),
            }
        }
    }

    /// Keeps whatever is higher, of two records of one device.
    pub fn raise(&mut self, other: &Self) {
        self.timestamp = self.timestamp.max(other.timestamp);
        self.snapshot = self.snapshot.max(other.snapshot);
        for (file, version) in &other.files {
            let known = self.files.entry(file.clone()).or_default();
            *known = (*known).max(*version);
        }
    }
}

/// Version of the snapshot that a timestamp names.
pub(crate) fn named(timestamp: &Timestamp) -> u64 {
    timestamp.snapshot().map_or(0, |entry| entry.version)
}
