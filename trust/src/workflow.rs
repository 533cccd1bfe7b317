//! The TUF client workflow (TUF 1.0.34 §5), without I/O: the driver fetches, stores and asks again.
//!
//! ```text
//! loop { match refresh.step(answer)? { Fetch → get it; Store/Remove → make it durable; Done → break } }
//! ```
//!
//! Differences from common loaders, each a regression test: a damaged stored file is an error, never absence; only
//! [`Answer::Absent`] ends the root walk; the walk starts at the persisted root; an unchanged poll stores nothing. Versions are
//! held against [`RoleVersions`], which outlive the files they were learnt from.

use crate::claimed::{Claimed, Signers, TooFewSignatures, Verified};
use crate::error::TufError;
use crate::metadata::{
    MetaEntry, Metadata, RoleKeys, Root, Snapshot, Targets, Timestamp, file_name, fits, limits,
};
use crate::repository::Repository;
use crate::versions::{RoleVersions, named};
use redan_protocol::{ByteCount, UnixSeconds};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Most new roots in one refresh (§5.3.2 leaves the number to us); the next refresh goes on from there.
pub const ROOTS_MAX: u32 = 256;

/// What is stored, byte for byte as it was served.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    /// The newest trusted root.
    pub root: Vec<u8>,
    /// `timestamp.json`
    pub timestamp: Option<Vec<u8>>,
    /// `snapshot.json`
    pub snapshot: Option<Vec<u8>>,
    /// `targets.json` (role `targets`) and delegated roles, by the name they were stored under.
    pub targets: BTreeMap<String, Vec<u8>>,
    /// Floors kept apart from the files. With them the files are mere copies: a damaged one is fetched again, and one that was
    /// removed or replaced brings no older repository back. `None`: the files are all there is, so a damaged one is an error.
    pub versions: Option<RoleVersions>,
}

/// What the driver has to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Fetch a file, at most so long.
    Fetch {
        /// Its path below the repository.
        path: String,
        /// Longest answer that may be taken.
        limit: ByteCount,
    },
    /// Make a role's file durable, replacing the one before, then answer [`Answer::Stored`].
    Store {
        /// `root`, `timestamp`, `snapshot`, `targets`, or a delegated role's name, percent-quoted: always one path segment.
        role: String,
        /// The file.
        bytes: Vec<u8>,
    },
    /// Remove a role's file durably, then answer [`Answer::Stored`].
    Remove {
        /// `timestamp` or `snapshot`.
        role: String,
    },
    /// Nothing more.
    Done,
}

/// What the driver has to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The file.
    Bytes(Vec<u8>),
    /// The server says that it does not exist. A timeout is not that.
    Absent,
    /// Anything else.
    Failed,
    /// The store or removal is durable.
    Stored,
}

/// Where a refresh stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    Root,
    Timestamp,
    Snapshot,
    Targets,
    Done,
}

/// One refresh of one repository.
#[derive(Debug)]
pub struct Refresh {
    now: UnixSeconds,
    at: At,
    waiting: bool,
    queue: VecDeque<Step>,
    roots: u32,
    root: Verified<Root>,
    root_bytes: Vec<u8>,
    stored_timestamp: Option<Vec<u8>>,
    stored_snapshot: Option<Vec<u8>>,
    stored_targets: BTreeMap<String, Vec<u8>>,
    timestamp: Option<Verified<Timestamp>>,
    old_snapshot: Option<Verified<Snapshot>>,
    snapshot: Option<Verified<Snapshot>>,
    targets: Option<Arc<Verified<Targets>>>,
    versions: RoleVersions,
    copies: bool,
    carried: bool,
}

impl Refresh {
    /// Begins from what is stored. `now` is a lower bound of the true time (10-trust, time without a clock).
    pub fn new(trusted: Trusted, now: UnixSeconds) -> Result<Self, TufError> {
        let root = trusted_root(&trusted.root)?;
        Ok(Self {
            now,
            at: At::Root,
            waiting: false,
            queue: VecDeque::new(),
            roots: 0,
            root,
            root_bytes: trusted.root,
            stored_timestamp: trusted.timestamp,
            stored_snapshot: trusted.snapshot,
            stored_targets: trusted.targets,
            timestamp: None,
            old_snapshot: None,
            snapshot: None,
            targets: None,
            copies: trusted.versions.is_some(),
            versions: trusted.versions.unwrap_or_default(),
            carried: false,
        })
    }

    /// The same for a repository that was carried to a device without a network (decision 0007): after the roots comes
    /// `snapshot.json` itself, which people sign, and no timestamp, which a server signs. Expiry and floors hold as ever.
    pub fn carried(trusted: Trusted, now: UnixSeconds) -> Result<Self, TufError> {
        Ok(Self {
            carried: true,
            ..Self::new(trusted, now)?
        })
    }

    /// The floors so far. To be kept with every root that is stored, in one write with it, and when the refresh is over, however
    /// it ended.
    pub fn versions(&self) -> &RoleVersions {
        &self.versions
    }

    /// Takes the answer to the last step and says the next one. After an error the refresh is over; what was stored stays.
    pub fn step(&mut self, answer: Option<Answer>) -> Result<Step, TufError> {
        match (answer, self.queue.front()) {
            (None, None) if !self.waiting => {}
            (Some(Answer::Stored), Some(_)) => {
                self.queue.pop_front();
            }
            (Some(answer), None) if self.waiting => {
                self.waiting = false;
                self.take(answer)?;
            }
            _ => return Err(TufError::Driver),
        }
        loop {
            if let Some(step) = self.queue.front() {
                return Ok(step.clone());
            }
            if let Some(step) = self.next()? {
                return Ok(step);
            }
        }
    }

    /// The verified repository, once [`Step::Done`] was said.
    pub fn finish(self) -> Result<Repository, TufError> {
        let (Some(snapshot), Some(targets), At::Done) = (self.snapshot, self.targets, self.at) else {
            return Err(TufError::Driver);
        };
        let timestamp = self.timestamp.filter(|_| !self.carried);
        if timestamp.is_none() != self.carried {
            return Err(TufError::Driver);
        }
        Ok(Repository {
            now: self.now,
            root: self.root,
            root_bytes: self.root_bytes,
            timestamp,
            snapshot,
            targets,
            stored: self.stored_targets,
        })
    }

    /// The newest root so far, for [`crate::rehearse`].
    pub(crate) fn into_root(self) -> Verified<Root> {
        self.root
    }

    /// What to do where the refresh stands; `None` when that was done from what is stored.
    fn next(&mut self) -> Result<Option<Step>, TufError> {
        match self.at {
            At::Root => {
                let version = self.root.get().version().saturating_add(1);
                if self.roots >= ROOTS_MAX {
                    self.root_walk_ended()?;
                    return Ok(None);
                }
                Ok(Some(self.fetch(file_name("root", Some(version)), limits::ROOT)))
            }
            At::Timestamp => Ok(Some(self.fetch(file_name("timestamp", None), limits::TIMESTAMP))),
            At::Snapshot if self.carried => {
                Ok(Some(self.fetch(file_name("snapshot", None), limits::SNAPSHOT)))
            }
            At::Snapshot => {
                if self.use_stored_snapshot()? {
                    return Ok(None);
                }
                let entry = self.snapshot_entry()?;
                let version = self.root.get().consistent_snapshot.then_some(entry.version);
                let limit = entry
                    .length
                    .map_or(limits::SNAPSHOT, ByteCount::new)
                    .min(limits::SNAPSHOT);
                Ok(Some(self.fetch(file_name("snapshot", version), limit)))
            }
            At::Targets => {
                if let Some(bytes) = self.stored_targets.get("targets")
                    && let Some(targets) = reuse(self.accept_targets(bytes))?
                {
                    self.targets = Some(Arc::new(targets));
                    self.at = At::Done;
                    return Ok(None);
                }
                let entry = listed(self.snapshot_ref()?, "targets")?;
                let version = self.root.get().consistent_snapshot.then_some(entry.version);
                let limit = entry
                    .length
                    .map_or(limits::TARGETS, ByteCount::new)
                    .min(limits::TARGETS);
                Ok(Some(self.fetch(file_name("targets", version), limit)))
            }
            At::Done => Ok(Some(Step::Done)),
        }
    }

    fn fetch(&mut self, path: String, limit: ByteCount) -> Step {
        self.waiting = true;
        Step::Fetch { path, limit }
    }

    fn take(&mut self, answer: Answer) -> Result<(), TufError> {
        match self.at {
            At::Root => self.take_root(answer),
            At::Timestamp => {
                let bytes = bytes(answer, "timestamp.json", limits::TIMESTAMP)?;
                self.take_timestamp(bytes)
            }
            At::Snapshot => {
                let bytes = bytes(answer, "snapshot.json", limits::SNAPSHOT)?;
                let snapshot = if self.carried {
                    self.accept_carried(&bytes)?
                } else {
                    self.accept_snapshot(&bytes)?
                };
                self.versions.snapshot(snapshot.get());
                self.snapshot = Some(snapshot);
                self.queue.push_back(Step::Store {
                    role: "snapshot".into(),
                    bytes,
                });
                self.at = At::Targets;
                Ok(())
            }
            At::Targets => {
                let bytes = bytes(answer, "targets.json", limits::TARGETS)?;
                let targets = self.accept_targets(&bytes)?;
                self.targets = Some(Arc::new(targets));
                self.stored_targets.insert("targets".into(), bytes.clone());
                self.queue.push_back(Step::Store {
                    role: "targets".into(),
                    bytes,
                });
                self.at = At::Done;
                Ok(())
            }
            At::Done => Err(TufError::Driver),
        }
    }

    /// §5.3: signed by the old and by the new root's threshold, exactly the next version.
    fn take_root(&mut self, answer: Answer) -> Result<(), TufError> {
        let wanted = self.root.get().version().saturating_add(1);
        let bytes = match answer {
            Answer::Absent => return self.root_walk_ended(),
            Answer::Bytes(bytes) => within(bytes, "root.json", limits::ROOT)?,
            Answer::Failed => return Err(TufError::RootUnavailable { version: wanted }),
            Answer::Stored => return Err(TufError::Driver),
        };
        let claimed: Claimed<Root> = parse(&bytes, "root")?;
        let (keys, role) = {
            let claims = claimed.claims();
            (claims.keys.clone(), role_of(claims, "root")?)
        };
        let offered = claimed.claims().version();
        let old = Signers::new(&self.root.get().keys, role_of(self.root.get(), "root")?);
        let next = claimed
            .verify_both(&old, &keys, &role)
            .map_err(|source| signatures("root", source))?;
        if offered != wanted {
            return Err(TufError::WrongVersion {
                role: "root".into(),
                wanted,
                offered,
            });
        }
        same_fleet(self.root.get(), next.get())?;
        // §5.3.11, recovery from fast-forward: files of rotated keys go first, so that a power cut between the two steps
        // leaves the old root without them rather than the new root with them.
        if rotated(self.root.get(), next.get(), "timestamp")
            || rotated(self.root.get(), next.get(), "snapshot")
        {
            self.versions = RoleVersions::default();
            for (role, stored) in [
                ("timestamp", &mut self.stored_timestamp),
                ("snapshot", &mut self.stored_snapshot),
            ] {
                if stored.take().is_some() {
                    self.queue.push_back(Step::Remove { role: role.into() });
                }
            }
        }
        if rotated(self.root.get(), next.get(), "targets") {
            self.stored_targets.remove("targets");
        }
        self.queue.push_back(Step::Store {
            role: "root".into(),
            bytes: bytes.clone(),
        });
        self.root = next;
        self.root_bytes = bytes;
        self.roots = self.roots.saturating_add(1);
        Ok(())
    }

    /// §5.3.10: the newest root must not have expired. Then what is stored is read under it.
    fn root_walk_ended(&mut self) -> Result<(), TufError> {
        unexpired(self.root.get(), "root", self.now)?;
        if let Some(bytes) = &self.stored_timestamp {
            self.timestamp = self.read_stored(bytes, "timestamp")?;
        }
        if let Some(bytes) = &self.stored_snapshot {
            self.old_snapshot = self.read_stored(bytes, "snapshot")?;
        }
        if let Some(timestamp) = &self.timestamp {
            self.versions.timestamp(timestamp.get());
        }
        if let Some(snapshot) = &self.old_snapshot {
            self.versions.snapshot(snapshot.get());
        }
        self.at = if self.carried { At::Snapshot } else { At::Timestamp };
        Ok(())
    }

    /// A stored file under the newest root. A damaged one is never absence, unless the floors are kept elsewhere.
    fn read_stored<T: Metadata>(&self, bytes: &[u8], role: &str) -> Result<Option<Verified<T>>, TufError> {
        let claimed: Result<Claimed<T>, TufError> = parse(bytes, role);
        let signers = self.signers(role)?;
        let read = claimed.ok().and_then(|claimed| claimed.verify(&signers).ok());
        if read.is_none() && !self.copies {
            return Err(damaged(role));
        }
        Ok(read)
    }

    /// §5.4
    fn take_timestamp(&mut self, bytes: Vec<u8>) -> Result<(), TufError> {
        if let Some(old) = &self.timestamp
            && self.stored_timestamp.as_ref() == Some(&bytes)
        {
            // The very file that was verified a moment ago, under the same root; somebody may have put an older one there.
            not_below(old.get().version(), self.versions.timestamp, "timestamp")?;
            not_below(named(old.get()), self.versions.snapshot, "snapshot")?;
            unexpired(old.get(), "timestamp", self.now)?;
            self.at = At::Snapshot;
            return Ok(());
        }
        let claimed: Claimed<Timestamp> = parse(&bytes, "timestamp")?;
        let new = claimed
            .verify(&self.signers("timestamp")?)
            .map_err(|source| signatures("timestamp", source))?;
        not_below(new.get().version(), self.versions.timestamp, "timestamp")?;
        let unchanged = self
            .timestamp
            .as_ref()
            .is_some_and(|old| old.get().version() == new.get().version());
        not_below(named(new.get()), self.versions.snapshot, "snapshot")?;
        if unchanged {
            // §5.4.3: the same version is the one we have, whatever bytes came.
            let old = self.timestamp.as_ref().ok_or(TufError::Driver)?;
            unexpired(old.get(), "timestamp", self.now)?;
        } else {
            unexpired(new.get(), "timestamp", self.now)?;
            self.versions.timestamp(new.get());
            self.timestamp = Some(new);
            self.queue.push_back(Step::Store {
                role: "timestamp".into(),
                bytes,
            });
        }
        self.at = At::Snapshot;
        Ok(())
    }

    /// The stored snapshot serves when it is the very file the timestamp names. It was verified under this root when the walk ended.
    fn use_stored_snapshot(&mut self) -> Result<bool, TufError> {
        let entry = self.snapshot_entry()?;
        let (Some(bytes), Some(old)) = (&self.stored_snapshot, &self.old_snapshot) else {
            return Ok(false);
        };
        if old.get().version() != entry.version || !fits(bytes, entry.length, &entry.hashes) {
            return Ok(false);
        }
        unexpired(old.get(), "snapshot", self.now)?;
        self.snapshot = self.old_snapshot.take();
        self.at = At::Targets;
        Ok(true)
    }

    /// §5.5
    fn accept_snapshot(&self, bytes: &[u8]) -> Result<Verified<Snapshot>, TufError> {
        let entry = self.snapshot_entry()?;
        if !fits(bytes, entry.length, &entry.hashes) {
            return Err(TufError::WrongBytes {
                role: "snapshot".into(),
            });
        }
        let new = self.read_snapshot(bytes)?;
        exact(new.get(), "snapshot", entry.version)?;
        self.not_back(new.get())?;
        unexpired(new.get(), "snapshot", self.now)?;
        Ok(new)
    }

    /// §5.5 without a timestamp that names it: its own version must not go back.
    fn accept_carried(&self, bytes: &[u8]) -> Result<Verified<Snapshot>, TufError> {
        let new = self.read_snapshot(bytes)?;
        not_below(new.get().version(), self.versions.snapshot, "snapshot")?;
        self.not_back(new.get())?;
        unexpired(new.get(), "snapshot", self.now)?;
        Ok(new)
    }

    fn read_snapshot(&self, bytes: &[u8]) -> Result<Verified<Snapshot>, TufError> {
        let claimed: Claimed<Snapshot> = parse(bytes, "snapshot")?;
        claimed
            .verify(&self.signers("snapshot")?)
            .map_err(|source| signatures("snapshot", source))
    }

    /// §5.5.5: every file that was ever listed stays listed, and none goes back.
    fn not_back(&self, new: &Snapshot) -> Result<(), TufError> {
        for (file, floor) in &self.versions.files {
            let listed = new.meta.get(file);
            let listed = listed.ok_or_else(|| TufError::Dropped { file: file.clone() })?;
            not_below(listed.version, *floor, file)?;
        }
        Ok(())
    }

    /// §5.6
    fn accept_targets(&self, bytes: &[u8]) -> Result<Verified<Targets>, TufError> {
        let entry = listed(self.snapshot_ref()?, "targets")?;
        accept_targets(bytes, "targets", entry, &self.signers("targets")?, self.now)
    }

    fn signers<T>(&self, role: &str) -> Result<Signers<'_, T>, TufError> {
        Ok(Signers::new(
            &self.root.get().keys,
            role_of(self.root.get(), role)?,
        ))
    }

    fn snapshot_entry(&self) -> Result<&MetaEntry, TufError> {
        self.timestamp
            .as_ref()
            .and_then(|timestamp| timestamp.get().snapshot())
            .ok_or(TufError::Driver)
    }

    fn snapshot_ref(&self) -> Result<&Snapshot, TufError> {
        self.snapshot.as_ref().map(Verified::get).ok_or(TufError::Driver)
    }
}

/// Reads the persisted root: it is trusted because it is ours, and must still be signed by its own threshold.
fn trusted_root(bytes: &[u8]) -> Result<Verified<Root>, TufError> {
    let claimed: Claimed<Root> = parse(bytes, "root").map_err(|_| damaged("root"))?;
    let (keys, role) = (claimed.claims().keys.clone(), role_of(claimed.claims(), "root")?);
    claimed
        .verify(&Signers::new(&keys, role))
        .map_err(|source| signatures("root", source))
}

pub(crate) fn accept_targets(
    bytes: &[u8],
    role: &str,
    entry: &MetaEntry,
    signers: &Signers<'_, Targets>,
    now: UnixSeconds,
) -> Result<Verified<Targets>, TufError> {
    if !fits(bytes, entry.length, &entry.hashes) {
        return Err(TufError::WrongBytes { role: role.into() });
    }
    let claimed: Claimed<Targets> = parse(bytes, role)?;
    let new = claimed
        .verify(signers)
        .map_err(|source| signatures(role, source))?;
    exact(new.get(), role, entry.version)?;
    unexpired(new.get(), role, now)?;
    Ok(new)
}

/// A stored targets file is a copy of what the snapshot lists by version. If it is another file now, or signed by keys that
/// were replaced, the copy on the server is asked for; if it has expired, so has that one.
pub(crate) fn reuse(
    read: Result<Verified<Targets>, TufError>,
) -> Result<Option<Verified<Targets>>, TufError> {
    match read {
        Ok(targets) => Ok(Some(targets)),
        Err(error @ (TufError::Expired { .. } | TufError::Unlisted { .. } | TufError::Driver)) => Err(error),
        Err(_) => Ok(None),
    }
}

pub(crate) fn listed<'a>(snapshot: &'a Snapshot, role: &str) -> Result<&'a MetaEntry, TufError> {
    snapshot
        .meta
        .get(&format!("{role}.json"))
        .ok_or_else(|| TufError::Unlisted { role: role.into() })
}

fn role_of(root: &Root, role: &str) -> Result<RoleKeys, TufError> {
    root.roles
        .get(role)
        .cloned()
        .ok_or_else(|| TufError::Unlisted { role: role.into() })
}

/// A root says once for all whose it is: a development fleet never becomes a production fleet, nor another one.
fn same_fleet(old: &Root, new: &Root) -> Result<(), TufError> {
    if old.fleet == new.fleet && old.profile == new.profile {
        Ok(())
    } else {
        Err(TufError::OtherFleet)
    }
}

/// Whether a role's keys or threshold differ between two roots.
fn rotated(old: &Root, new: &Root, role: &str) -> bool {
    let of = |root: &Root| {
        let keys = root.roles.get(role)?;
        let mut listed: Vec<String> = keys
            .keyids
            .iter()
            .map(|id| format!("{id} {:?}", root.keys.get(id).map(|key| &key.keyval)))
            .collect();
        listed.sort();
        Some((keys.threshold, listed))
    };
    of(old) != of(new)
}

pub(crate) fn bytes(answer: Answer, path: &str, limit: ByteCount) -> Result<Vec<u8>, TufError> {
    match answer {
        Answer::Bytes(bytes) => within(bytes, path, limit),
        Answer::Absent | Answer::Failed => Err(TufError::Unavailable { path: path.into() }),
        Answer::Stored => Err(TufError::Driver),
    }
}

fn within(bytes: Vec<u8>, path: &str, limit: ByteCount) -> Result<Vec<u8>, TufError> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit.get()) {
        return Ok(bytes);
    }
    Err(TufError::TooLong {
        path: path.into(),
        limit,
    })
}

pub(crate) fn parse<T: Metadata>(bytes: &[u8], role: &str) -> Result<Claimed<T>, TufError> {
    Claimed::parse(bytes).map_err(|source| TufError::Malformed {
        role: role.into(),
        source,
    })
}

pub(crate) fn signatures(role: &str, source: TooFewSignatures) -> TufError {
    TufError::Signatures {
        role: role.into(),
        source,
    }
}

fn not_below(offered: u64, trusted: u64, role: &str) -> Result<(), TufError> {
    if offered >= trusted {
        return Ok(());
    }
    Err(TufError::Rollback {
        role: role.into(),
        trusted,
        offered,
    })
}

fn damaged(role: &str) -> TufError {
    TufError::Damaged { role: role.into() }
}

pub(crate) fn exact(metadata: &impl Metadata, role: &str, wanted: u64) -> Result<(), TufError> {
    let offered = metadata.version();
    if offered == wanted {
        Ok(())
    } else {
        Err(TufError::WrongVersion {
            role: role.into(),
            wanted,
            offered,
        })
    }
}

pub(crate) fn unexpired(metadata: &impl Metadata, role: &str, now: UnixSeconds) -> Result<(), TufError> {
    let expired = metadata.expires();
    if now < expired {
        Ok(())
    } else {
        Err(TufError::Expired {
            role: role.into(),
            expired,
            now,
        })
    }
}
