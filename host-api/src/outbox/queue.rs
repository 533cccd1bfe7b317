//! One outbox on disk: items that wait, kept across versions, restarts and power cuts.
//!
//! One append-only file. A record is {length, checksum, body}; an item is written and synced before anybody hears its number.
//! That an item is gone is written too, and not waited for: after a power cut it is sent once more, which is what *at least
//! once* means. A torn record at the end is cut off when the file is opened. When most of the file is history it is rewritten
//! beside itself and renamed over. Payloads stay on the disk until they are sent; what is in memory is an index.

use redan_policy::grant::Outbox as Quota;
use redan_protocol::{Code, Digest};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What an item costs of its quota beside its own bytes.
const OVERHEAD: u64 = 64;
/// History a file may hold beyond what waits before it is rewritten, bytes.
const SLACK: u64 = 256 * 1024;
/// Length and checksum before each record, bytes.
const HEADER_LEN: usize = 12;
/// Longest body of a record, bytes: an item is at most a request's body and its names. What is larger was never written here.
const BODY_LEN_MAX: usize = 64 << 20;

/// Why an item was not kept.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The quota is used up.
    #[error("the outbox's quota is used up")]
    Full,
    /// The disk failed or is full.
    #[error("the outbox's file: {0}")]
    Disk(#[from] io::Error),
}

impl OutboxError {
    /// The code that leaves the process.
    pub fn code(&self) -> Code {
        match self {
            Self::Full => Code::OutboxFull,
            Self::Disk(error) if error.kind() == io::ErrorKind::StorageFull => Code::DiskFull,
            Self::Disk(_) => Code::DiskFailed,
        }
    }
}

/// What waits, as it was enqueued.
#[derive(Clone, Eq, PartialEq)]
pub struct Item {
    /// When, seconds since 1970 by this device's clock.
    pub at: u64,
    /// Topic or URL.
    pub target: String,
    /// Content type; empty: none.
    pub content_type: String,
    /// The guest's own name for it; empty: none.
    pub dedup: String,
    /// The bytes.
    pub payload: Vec<u8>,
}

impl Item {
    fn weight(&self) -> u64 {
        let parts = [&self.target, &self.content_type, &self.dedup].map(String::len);
        let length = parts
            .iter()
            .fold(self.payload.len(), |sum, part| sum.saturating_add(*part));
        wide(length).saturating_add(OVERHEAD)
    }
}

/// All outboxes of one publisher; each file is opened once and shared by every version of its workload.
#[derive(Debug)]
pub struct Outboxes {
    folder: PathBuf,
    open: Mutex<HashMap<PathBuf, Arc<Queue>>>,
}

impl Outboxes {
    /// Outboxes below this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            open: Mutex::default(),
        }
    }

    /// The outbox of a workload with this name. The file is named by the name's digest: ids are not file names.
    pub fn queue(&self, workload: &str, id: &str) -> Result<Arc<Queue>, OutboxError> {
        let path = self
            .folder
            .join(workload)
            .join(Digest::of(id.as_bytes()).to_string());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = open.get(&path) {
            return Ok(Arc::clone(queue));
        }
        let queue = Arc::new(Queue::open(&path)?);
        open.insert(path, Arc::clone(&queue));
        Ok(queue)
    }
}

/// One outbox.
pub struct Queue {
    path: PathBuf,
    state: Mutex<State>,
    more: Notify,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

struct State {
    file: File,
    length: u64,
    next: u64,
    waiting: BTreeMap<u64, Entry>,
    bytes: u64,
}

/// Where an item is, and what is asked of it without reading it.
struct Entry {
    offset: u64,
    length: usize,
    weight: u64,
    at: u64,
    dedup: String,
}

enum Record {
    Item(u64, Item),
    Done(u64),
    /// Numbers below were given out.
    Next(u64),
}

impl Queue {
    /// Opens or creates the file, and cuts off a record that was not finished.
    pub fn open(path: &Path) -> Result<Self, OutboxError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        let mut state = State {
            file,
            length: 0,
            next: 1,
            waiting: BTreeMap::new(),
            bytes: 0,
        };
        let mut rest = content.as_slice();
        while let Some((record, length, behind)) = decode(rest) {
            let body = state.length.saturating_add(wide(HEADER_LEN));
            state.apply(record, body, length);
            state.length = body.saturating_add(wide(length));
            rest = behind;
        }
        if !rest.is_empty() {
            state.file.set_len(state.length)?;
            state.file.sync_data()?;
        }
        // The name of a new file must survive as well.
        sync_folder(path)?;
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(state),
            more: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an item. When the number is out, the item is on the disk. One that waits under the same `dedup` is not kept twice.
    pub fn push(&self, quota: &Quota, item: Item) -> Result<u64, OutboxError> {
        let mut state = self.state();
        if !item.dedup.is_empty()
            && let Some((id, _)) = state.waiting.iter().find(|(_, entry)| entry.dedup == item.dedup)
        {
            return Ok(*id);
        }
        let over = state.bytes.saturating_add(item.weight()) > quota.bytes.get()
            || state.waiting.len() >= usize::try_from(quota.messages).unwrap_or(usize::MAX);
        if over {
            return Err(OutboxError::Full);
        }
        let id = state.next;
        state.append(Record::Item(id, item), true)?;
        drop(state);
        self.more.notify_one();
        Ok(id)
    }

    /// An item is sent, or given up.
    pub fn done(&self, id: u64) -> Result<(), OutboxError> {
        let mut state = self.state();
        if state.waiting.contains_key(&id) {
            state.append(Record::Done(id), false)?;
        }
        if state.length > state.bytes.saturating_mul(2).saturating_add(SLACK) {
            state.rewrite(&self.path)?;
        }
        Ok(())
    }

    /// How many wait.
    pub fn depth(&self) -> usize {
        self.state().waiting.len()
    }

    /// The first item after a number.
    pub fn after(&self, id: u64) -> Result<Option<(u64, Item)>, OutboxError> {
        let state = self.state();
        let mut later = state.waiting.range(id.saturating_add(1)..);
        let Some((id, entry)) = later.next() else {
            return Ok(None);
        };
        let mut body = vec![0; entry.length];
        state.file.read_exact_at(&mut body, entry.offset)?;
        match parse(&body) {
            Some(Record::Item(found, item)) if found == *id => Ok(Some((*id, item))),
            _ => Err(OutboxError::Disk(io::ErrorKind::InvalidData.into())),
        }
    }

    /// The items that were enqueued before a moment, in seconds since 1970.
    pub fn older(&self, than: u64) -> Vec<u64> {
        let state = self.state();
        let old = state.waiting.iter().filter(|(_, entry)| entry.at < than);
        old.map(|(id, _)| *id).collect()
    }

    /// Until an item is pushed; at once when one was since the last time.
    pub async fn more(&self) {
        self.more.notified().await;
    }
}

impl State {
    fn apply(&mut self, record: Record, offset: u64, length: usize) {
        match record {
            Record::Item(id, item) => {
                let weight = item.weight();
                self.bytes = self.bytes.saturating_add(weight);
                self.next = self.next.max(id.saturating_add(1));
                let entry = Entry {
                    offset,
                    length,
                    weight,
                    at: item.at,
                    dedup: item.dedup,
                };
                self.waiting.insert(id, entry);
            }
            Record::Done(id) => {
                if let Some(entry) = self.waiting.remove(&id) {
                    self.bytes = self.bytes.saturating_sub(entry.weight);
                }
            }
            Record::Next(next) => self.next = self.next.max(next),
        }
    }

    /// Writes a record at the end; a write that failed half way is overwritten by the next one, or cut off at the next start.
    fn append(&mut self, record: Record, sync: bool) -> Result<(), OutboxError> {
        let (bytes, length) = encode(&record);
        self.file.write_all_at(&bytes, self.length)?;
        if sync {
            self.file.sync_data()?;
        }
        let body = self.length.saturating_add(wide(HEADER_LEN));
        self.length = body.saturating_add(wide(length));
        self.apply(record, body, length);
        Ok(())
    }

    fn rewrite(&mut self, path: &Path) -> Result<(), OutboxError> {
        let beside = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&beside)?;
        let (head, _) = encode(&Record::Next(self.next));
        file.write_all(&head)?;
        let mut length = wide(head.len());
        let mut moved = BTreeMap::new();
        for (id, entry) in &self.waiting {
            let mut record = vec![0; entry.length.saturating_add(HEADER_LEN)];
            let from = entry.offset.saturating_sub(wide(HEADER_LEN));
            self.file.read_exact_at(&mut record, from)?;
            file.write_all(&record)?;
            moved.insert(*id, length.saturating_add(wide(HEADER_LEN)));
            length = length.saturating_add(wide(record.len()));
        }
        file.sync_data()?;
        std::fs::rename(&beside, path)?;
        sync_folder(path)?;
        self.file = file;
        self.length = length;
        for (id, entry) in &mut self.waiting {
            entry.offset = moved.get(id).copied().unwrap_or(entry.offset);
        }
        Ok(())
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn encode(record: &Record) -> (Vec<u8>, usize) {
    let mut body = Vec::new();
    match record {
        Record::Item(id, item) => {
            body.push(1);
            body.extend(id.to_le_bytes());
            body.extend(item.at.to_le_bytes());
            for text in [&item.target, &item.content_type, &item.dedup] {
                body.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
                body.extend(text.as_bytes());
            }
            body.extend(&item.payload);
        }
        Record::Done(id) => {
            body.push(2);
            body.extend(id.to_le_bytes());
        }
        Record::Next(next) => {
            body.push(3);
            body.extend(next.to_le_bytes());
        }
    }
    let mut bytes = u32::try_from(body.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes()
        .to_vec();
    bytes.extend(checksum(&body));
    bytes.extend(&body);
    (bytes, body.len())
}

/// The first record, the length of its body, and what is behind it; `None` where none is whole.
fn decode(bytes: &[u8]) -> Option<(Record, usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (body, behind) = rest.split_at_checked(length)?;
    if length > BODY_LEN_MAX || checksum(body) != *sum {
        return None;
    }
    Some((parse(body)?, length, behind))
}

fn parse(body: &[u8]) -> Option<Record> {
    let (kind, rest) = body.split_first()?;
    let (number, mut rest) = rest.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*number);
    match kind {
        1 => {
            let (at, behind) = rest.split_first_chunk::<8>()?;
            rest = behind;
            let mut text = || -> Option<String> {
                let (length, behind) = rest.split_first_chunk::<4>()?;
                let (text, behind) =
                    behind.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
                rest = behind;
                String::from_utf8(text.to_vec()).ok()
            };
            let (target, content_type, dedup) = (text()?, text()?, text()?);
            let item = Item {
                at: u64::from_le_bytes(*at),
                target,
                content_type,
                dedup,
                payload: rest.to_vec(),
            };
            Some(Record::Item(number, item))
        }
        2 if rest.is_empty() => Some(Record::Done(number)),
        3 if rest.is_empty() => Some(Record::Next(number)),
        _ => None,
    }
}

/// Against tearing, not against anybody: whoever can write the file may as well send.
fn checksum(body: &[u8]) -> [u8; 8] {
    let digest = Digest::of(body);
    let mut sum = [0; 8];
    for (to, from) in sum.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    sum
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
