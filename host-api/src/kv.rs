//! Buckets on disk: what `wasi:keyvalue` stores, kept across versions, restarts and power cuts.
//!
//! One append-only file a bucket. A change is one record {length, checksum, operations}, written and synced before the
//! guest hears of it, so it happened whole or not at all; a torn record at the end is cut off when the bucket is
//! opened. When most of the file is history it is rewritten beside itself and renamed over.

use crate::tokens::Tokens;
use redan_policy::grant::Bucket as Quota;
use redan_protocol::{Code, Digest};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest key, bytes.
pub const KEY_LEN_MAX: usize = 1024;
/// Keys in one answer of `list-keys`.
pub const PAGE_LEN: usize = 256;
/// Operations in one batch.
pub const BATCH_LEN_MAX: usize = 1024;
/// History a file may hold beyond its live content before it is rewritten, bytes.
const SLACK: u64 = 256 * 1024;
/// Length and checksum before each record, bytes.
const HEADER_LEN: usize = 12;

/// Why a bucket did not do it.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// Over the bytes or keys of the grant, or a key over [`KEY_LEN_MAX`], or a batch over [`BATCH_LEN_MAX`].
    #[error("the bucket's quota is used up")]
    Quota,
    /// The value is not an integer, or the sum does not fit.
    #[error("the value is not a number that can be incremented")]
    NotANumber,
    /// The disk failed or is full.
    #[error("the bucket's file: {0}")]
    Disk(#[source] io::Error),
}

impl KvError {
    /// The code that leaves the process.
    pub fn code(&self) -> Code {
        match self {
            Self::Quota => Code::KvQuota,
            Self::NotANumber => Code::Trapped,
            Self::Disk(error) if error.kind() == io::ErrorKind::StorageFull => Code::DiskFull,
            Self::Disk(_) => Code::DiskFailed,
        }
    }
}

/// One change of one key.
pub enum Operation {
    /// Stores a value.
    Set(String, Vec<u8>),
    /// Removes a key.
    Delete(String),
}

/// All buckets of one publisher; each file is opened once and shared by every version of its workload.
#[derive(Debug)]
pub struct Stores {
    folder: PathBuf,
    open: Mutex<HashMap<PathBuf, Arc<Bucket>>>,
}

impl Stores {
    /// Buckets below this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            open: Mutex::default(),
        }
    }

    /// The bucket of a workload with this label. The file is named by the label's digest: labels are not file names.
    pub fn bucket(&self, workload: &str, label: &str) -> Result<Arc<Bucket>, KvError> {
        let path = self
            .folder
            .join(workload)
            .join(Digest::of(label.as_bytes()).to_string());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = open.get(&path) {
            return Ok(Arc::clone(bucket));
        }
        let bucket = Arc::new(Bucket::open(&path)?);
        open.insert(path, Arc::clone(&bucket));
        Ok(bucket)
    }
}

/// One bucket.
pub struct Bucket {
    path: PathBuf,
    state: Mutex<State>,
    operations: Tokens,
}

struct State {
    file: File,
    length: u64,
    live: BTreeMap<String, Vec<u8>>,
    bytes: u64,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bucket")
    }
}

impl Bucket {
    /// Bytes and keys it holds.
    pub fn used(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.bytes, u64::try_from(state.live.len()).unwrap_or(u64::MAX))
    }

    /// Opens or creates the file, and cuts off a record that was not finished.
    pub fn open(path: &Path) -> Result<Self, KvError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(KvError::Disk)?;
        }
        let options = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path);
        let mut file = options.map_err(KvError::Disk)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(KvError::Disk)?;
        let mut live = BTreeMap::new();
        let mut rest = content.as_slice();
        while let Some((operations, behind)) = decode(rest) {
            for operation in operations {
                apply(&mut live, operation);
            }
            rest = behind;
        }
        let length = wide(content.len().saturating_sub(rest.len()));
        if !rest.is_empty() {
            file.set_len(length).map_err(KvError::Disk)?;
            file.sync_data().map_err(KvError::Disk)?;
        }
        file.seek(SeekFrom::Start(length)).map_err(KvError::Disk)?;
        let bytes = live.iter().map(|(key, value)| weight(key, value)).sum();
        Ok(Self {
            path: path.to_owned(),
            operations: Tokens::default(),
            state: Mutex::new(State {
                file,
                length,
                live,
                bytes,
            }),
        })
    }

    /// Whether so many operations are within the grant's rate now.
    pub fn admits(&self, quota: &Quota, operations: usize) -> bool {
        let now = std::time::Instant::now();
        quota
            .ops
            .is_none_or(|ops| self.operations.take(ops, now, wide(operations)))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.lock().live.get(key).cloned()
    }

    /// Whether a key is there.
    pub fn exists(&self, key: &str) -> bool {
        self.lock().live.contains_key(key)
    }

    /// A page of keys in order, and where the next one begins.
    pub fn keys(&self, cursor: u64) -> (Vec<String>, Option<u64>) {
        let state = self.lock();
        let start = usize::try_from(cursor).unwrap_or(usize::MAX);
        let keys: Vec<String> = state.live.keys().skip(start).take(PAGE_LEN).cloned().collect();
        let next = start.saturating_add(keys.len());
        let more = next < state.live.len();
        (keys, more.then(|| wide(next)))
    }

    /// Does all of them or none, durably.
    pub fn change(&self, quota: &Quota, operations: Vec<Operation>) -> Result<(), KvError> {
        self.lock().change(&self.path, quota, operations)
    }

    /// Adds to a number kept as eight bytes, least significant first; a missing key counts as 0.
    pub fn increment(&self, quota: &Quota, key: String, delta: u64) -> Result<u64, KvError> {
        let mut state = self.lock();
        let old = match state.live.get(&key) {
            None => 0,
            Some(bytes) => u64::from_le_bytes(bytes.as_slice().try_into().map_err(|_| KvError::NotANumber)?),
        };
        let new = old.checked_add(delta).ok_or(KvError::NotANumber)?;
        let set = Operation::Set(key, new.to_le_bytes().to_vec());
        state.change(&self.path, quota, vec![set])?;
        Ok(new)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic between two changes leaves whole changes behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn change(&mut self, path: &Path, quota: &Quota, operations: Vec<Operation>) -> Result<(), KvError> {
        if operations.len() > BATCH_LEN_MAX {
            return Err(KvError::Quota);
        }
        self.within(quota, &operations)?;
        let record = encode(&operations);
        self.append(&record).map_err(KvError::Disk)?;
        for operation in operations {
            apply(&mut self.live, operation);
        }
        self.bytes = self.live.iter().map(|(key, value)| weight(key, value)).sum();
        if self.length > self.bytes.saturating_mul(2).saturating_add(SLACK) {
            // Failing to shrink loses nothing; the next change tries again.
            let _ = self.rewrite(path);
        }
        Ok(())
    }

    fn within(&self, quota: &Quota, operations: &[Operation]) -> Result<(), KvError> {
        // Old values count until they are replaced, so the sums are those of the moment after.
        let mut after: BTreeMap<&str, u64> = BTreeMap::new();
        for operation in operations {
            let (key, size) = match operation {
                Operation::Set(key, value) => (key, weight(key, value)),
                Operation::Delete(key) => (key, 0),
            };
            if key.len() > KEY_LEN_MAX {
                return Err(KvError::Quota);
            }
            after.insert(key, size);
        }
        let (mut bytes, mut keys) = (self.bytes, wide(self.live.len()));
        for (key, size) in after {
            if let Some(value) = self.live.get(key) {
                bytes = bytes.saturating_sub(weight(key, value));
                keys = keys.saturating_sub(1);
            }
            bytes = bytes.saturating_add(size);
            keys = keys.saturating_add(u64::from(size > 0));
        }
        let grows = bytes > self.bytes || keys > wide(self.live.len());
        if grows && (bytes > quota.bytes.get() || keys > u64::from(quota.keys)) {
            return Err(KvError::Quota);
        }
        Ok(())
    }

    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(record).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Take back what may have been written, so that the next record does not follow half of this one.
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length = self.length.saturating_add(wide(record.len()));
        Ok(())
    }

    fn rewrite(&mut self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&beside)?;
        let mut length = 0_u64;
        for (key, value) in &self.live {
            let record = encode(&[Operation::Set(key.clone(), value.clone())]);
            file.write_all(&record)?;
            length = length.saturating_add(wide(record.len()));
        }
        file.sync_data()?;
        std::fs::rename(&beside, path)?;
        self.file = file;
        self.length = length;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

fn apply(live: &mut BTreeMap<String, Vec<u8>>, operation: Operation) {
    match operation {
        Operation::Set(key, value) => drop(live.insert(key, value)),
        Operation::Delete(key) => drop(live.remove(&key)),
    }
}

/// What an entry counts against the quota: key, value, and its share of the map. Never 0.
fn weight(key: &str, value: &[u8]) -> u64 {
    wide(key.len())
        .saturating_add(wide(value.len()))
        .saturating_add(16)
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn encode(operations: &[Operation]) -> Vec<u8> {
    let mut body = Vec::new();
    for operation in operations {
        match operation {
            Operation::Set(key, value) => {
                body.push(1);
                part(&mut body, key.as_bytes());
                part(&mut body, value);
            }
            Operation::Delete(key) => {
                body.push(0);
                part(&mut body, key.as_bytes());
            }
        }
    }
    let mut record = Vec::with_capacity(body.len().saturating_add(HEADER_LEN));
    record.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    record.extend(checksum(&body));
    record.extend(body);
    record
}

fn part(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    body.extend(bytes);
}

/// Eight bytes of SHA-256: against torn writes, not against an attacker, who owns the disk anyway.
fn checksum(body: &[u8]) -> [u8; 8] {
    let digest = Digest::of(body);
    let mut short = [0; 8];
    for (to, from) in short.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    short
}

/// The next whole record and what follows it; `None` at the end and at a torn record.
fn decode(bytes: &[u8]) -> Option<(Vec<Operation>, &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER_LEN)?;
    let (length, sum) = header.split_at_checked(4)?;
    let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (body, behind) = rest.split_at_checked(length)?;
    if checksum(body) != sum {
        return None;
    }
    let mut operations = Vec::new();
    let mut body = body;
    while let Some((kind, rest)) = body.split_first() {
        let (key, rest) = take(rest)?;
        let key = String::from_utf8(key.to_vec()).ok()?;
        body = if *kind == 1 {
            let (value, rest) = take(rest)?;
            operations.push(Operation::Set(key, value.to_vec()));
            rest
        } else {
            operations.push(Operation::Delete(key));
            rest
        };
    }
    Some((operations, behind))
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests;
