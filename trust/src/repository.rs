//! A repository, verified: what a refresh ends with and decisions begin with.

use crate::claimed::{Signers, Verified};
use crate::metadata::{Metadata as _, Root, Snapshot, TargetEntry, Targets, Timestamp};
use redan_protocol::UnixSeconds;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A repository whose metadata is verified, as of one moment.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) now: UnixSeconds,
    pub(crate) root: Verified<Root>,
    pub(crate) root_bytes: Vec<u8>,
    /// `None`: it was carried here, and no server said that it is current.
    pub(crate) timestamp: Option<Verified<Timestamp>>,
    pub(crate) snapshot: Verified<Snapshot>,
    pub(crate) targets: Arc<Verified<Targets>>,
    pub(crate) stored: BTreeMap<String, Vec<u8>>,
}

impl Repository {
    /// The root.
    pub fn root(&self) -> &Root {
        self.root.get()
    }

    /// The root's bytes.
    pub fn root_bytes(&self) -> &[u8] {
        &self.root_bytes
    }

    /// Version of the timestamp; zero, which no timestamp has, when the repository was carried here.
    pub fn timestamp_version(&self) -> u64 {
        self.timestamp
            .as_ref()
            .map_or(0, |timestamp| timestamp.get().version())
    }

    /// Version of the snapshot.
    pub fn snapshot_version(&self) -> u64 {
        self.snapshot.get().version()
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        self.snapshot.get()
    }

    /// Until when it is good: when the first of root, timestamp, snapshot and top-level targets expires.
    pub fn expires(&self) -> UnixSeconds {
        let people = self.root.get().expires().min(self.targets.get().expires());
        let all = people.min(self.snapshot.get().expires());
        let online = self.timestamp.as_ref().map(|timestamp| timestamp.get().expires());
        online.map_or(all, |online| online.min(all))
    }

    /// The top-level targets role.
    pub fn targets(&self) -> &Targets {
        self.targets.get()
    }

    /// Who may sign a role of the root.
    pub fn signers<T>(&self, role: &str) -> Option<Signers<'_, T>> {
        let keys = self.root.get().roles.get(role)?;
        Some(Signers::new(&self.root.get().keys, keys.clone()))
    }

    /// Keys and role of the root, for those who only count.
    pub(crate) fn root_keys(&self) -> &Root {
        self.root.get()
    }

    /// A target of the top-level role by its path.
    pub fn top_target(&self, path: &str) -> Option<&TargetEntry> {
        self.targets.get().targets.get(path)
    }
}
