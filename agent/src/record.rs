//! The trust record on the disk, and what makes an older copy of it worth nothing where there is a TPM (decision 21).
//!
//! A record there is `magic ‖ value ‖ owed ‖ MAC ‖ record`: the MAC by the key that the TPM seals, the value that of a counter in the TPM.
//! With `c` for the counter, and `v` for the value of the newest record that is whole and under the MAC:
//!
//! ```text
//! raise:  write v = c + 1 ─▶ count ─▶ write v = c as the other copy too
//! start:  v = c      in force
//!         v = c + 1  the power went before it was counted: it is counted now, and in force
//!         else       an older copy, or a counter that was tampered with: lost
//! ```
//!
//! A value is raised when a floor rises: not for the clocks, which move with every write, nor for a timestamp that names the same
//! snapshot. A TPM's memory wears, and whoever holds the online keys could make floors rise for ever: so the value is raised at most
//! [`RAISES_MAX`] times at once and [`RAISE_EVERY`] in the long run. What rose in between is written under the same value, says so
//! (`owed`), and is bound by the next.

use crate::AgentError;
use crate::disk::Disk;
use crate::pair::{Found, Pair};
use crate::seal::{Purpose, SealKey, TAG_LEN};
use redan_identity::IdentityError;
use redan_identity::tpm::{Counter, TpmError};
use redan_protocol::{Code, Digest, Seconds, SpiffeId, UnixSeconds};
use redan_trust::TrustRecord;
use redan_trust::record::RecordFormat;
use std::path::Path;
use std::rc::Rc;

/// First bytes of a record that is bound to a counter.
const MAGIC: &[u8; 8] = b"RDTRUST1";

/// How often the value is raised at once: a rollout raises it some five times. Tripped by `a_server_that_never_rests_does_not_wear_the_tpm_out`.
pub(crate) const RAISES_MAX: u64 = 16;
/// How often in the long run: 96 times a day are 350 000 in ten years, which is what makers promise for a counter. Tripped by the same.
pub(crate) const RAISE_EVERY: Seconds = Seconds::new(900);

/// A number outside the disk that only grows.
pub(crate) trait Upward {
    /// `None`: there is none, or it never counted.
    fn read(&self) -> Result<Option<u64>, TpmError>;
    /// Its value; made when there is none.
    fn make(&self) -> Result<u64, TpmError>;
    fn increment(&self) -> Result<(), TpmError>;
}

impl Upward for Counter {
    fn read(&self) -> Result<Option<u64>, TpmError> {
        Self::read(self)
    }

    fn make(&self) -> Result<u64, TpmError> {
        Self::make(self)
    }

    fn increment(&self) -> Result<(), TpmError> {
        Self::increment(self)
    }
}

/// What a record is bound to.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) key: Rc<SealKey>,
    pub(crate) counter: Rc<dyn Upward>,
}

/// What was found.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Opened {
    /// Nothing was ever stored.
    Nothing,
    /// The record in force.
    Record(Box<TrustRecord>),
    /// There are files, and none of them counts.
    Lost(Loss),
}

/// Why no record counts. Whoever stands before the device must know which it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Loss {
    #[error("the trust record is lost: both copies are gone, torn, or another device's")]
    Unreadable,
    #[error("the trust record is an older copy: it is number {record}, and the TPM has counted to {counter}")]
    RolledBack { record: u64, counter: u64 },
    #[error(
        "the TPM has no counter for this device's trust record any more: nobody can tell whether it is the newest"
    )]
    NoCounter,
}

/// The two files.
pub(crate) struct RecordFile {
    pair: Pair,
    bound: Option<Bound>,
}

struct Bound {
    guard: Guard,
    /// Of the newest record written, or of the counter when there is none.
    value: u64,
    /// That value was written and perhaps not counted.
    outstanding: bool,
    /// Floors rose and the value did not.
    owed: bool,
    /// A write under the next value failed, and may be on the disk all the same.
    failed: bool,
    floors: Option<Digest>,
    budget: Budget,
}

impl RecordFile {
    /// Reads the newest record; counts on, if the power went before that was done.
    pub(crate) fn open(
        disk: &impl Disk,
        folder: &Path,
        id: &SpiffeId,
        guard: Option<&Guard>,
    ) -> Result<(Self, Opened), AgentError> {
        let Some(guard) = guard else {
            let (pair, found) = Pair::load(disk, folder, |bytes| Some(own(bytes, id)?.generation))
                .map_err(|source| AgentError::file("read", folder, source))?;
            let opened = match found {
                Found::Nothing => Opened::Nothing,
                Found::Lost => Opened::Lost(Loss::Unreadable),
                Found::Record(bytes) => opened(own(&bytes, id)),
            };
            return Ok((Self { pair, bound: None }, opened));
        };
        // The value first: what root custodians gave back begins with another generation.
        let generation = |bytes: &[u8]| {
            let (head, record) = guarded(bytes, id, &guard.key)?;
            Some((head.value, record.generation))
        };
        let (pair, found) = Pair::load(disk, folder, generation)
            .map_err(|source| AgentError::file("read", folder, source))?;
        let mut bound = Bound::new(guard.clone());
        let opened = match found {
            Found::Nothing => Opened::Nothing,
            Found::Lost => Opened::Lost(Loss::Unreadable),
            Found::Record(bytes) => match guarded(&bytes, id, &guard.key) {
                None => Opened::Lost(Loss::Unreadable),
                Some((head, record)) => bound.admit(head, record)?,
            },
        };
        let bound = Some(bound);
        Ok((Self { pair, bound }, opened))
    }

    /// Stores the first record, or the one that root custodians gave back: what the counter says now is where it begins.
    pub(crate) fn begin(&mut self, disk: &impl Disk, record: &TrustRecord) -> Result<(), StoreError> {
        if let Some(bound) = &mut self.bound {
            bound.value = bound.guard.counter.make()?;
            bound.outstanding = false;
            bound.floors = None;
        }
        self.store(disk, record, Seconds::new(0))
    }

    /// Stores a newer record. When this is `Ok`, it is durable, and older ones count no more if it raised a floor. `now` goes on while the
    /// device runs.
    pub(crate) fn store(
        &mut self,
        disk: &impl Disk,
        record: &TrustRecord,
        now: Seconds,
    ) -> Result<(), StoreError> {
        let Some(bound) = &mut self.bound else {
            return Ok(self.pair.store(disk, &record.encode())?);
        };
        // Nothing is written over a record that waits to be counted.
        bound.count()?;
        let floors = floors(record);
        let rose = bound.owed || bound.floors != Some(floors);
        if !rose || !bound.budget.take(now) {
            self.pair.store(disk, &bound.write(bound.value, rose, record))?;
            bound.floors = Some(floors);
            bound.owed = rose;
            return Ok(());
        }
        let value = bound.value.checked_add(1).ok_or(StoreError::Spent)?;
        // Two different records under one value: one more makes the first worth nothing.
        let owed = bound.failed;
        let bytes = bound.write(value, owed, record);
        if let Err(error) = self.pair.store(disk, &bytes) {
            bound.failed = true;
            return Err(error.into());
        }
        bound.value = value;
        bound.outstanding = true;
        bound.floors = Some(floors);
        (bound.owed, bound.failed) = (owed, false);
        bound.count()?;
        // The copy under the value before counts no more. Without this one, a single bad block would lose the state.
        Ok(self.pair.store(disk, &bytes)?)
    }
}

impl Bound {
    fn new(guard: Guard) -> Self {
        Self {
            guard,
            value: 0,
            outstanding: false,
            owed: false,
            failed: false,
            floors: None,
            budget: Budget::default(),
        }
    }

    /// Whether the newest record on the disk is the newest there ever was.
    fn admit(&mut self, head: Head, record: TrustRecord) -> Result<Opened, AgentError> {
        let counter = self.guard.counter.read().map_err(IdentityError::from)?;
        let Some(counter) = counter else {
            return Ok(Opened::Lost(Loss::NoCounter));
        };
        let value = head.value;
        if value != counter && Some(value) != counter.checked_add(1) {
            let record = value;
            return Ok(Opened::Lost(Loss::RolledBack { record, counter }));
        }
        self.value = value;
        self.outstanding = value != counter;
        self.owed = head.owed;
        self.floors = Some(floors(&record));
        self.count().map_err(|error| match error {
            StoreError::Tpm(error) => AgentError::Identity(error.into()),
            // Somebody counted between two looks.
            _ => AgentError::Lost,
        })?;
        Ok(Opened::Record(Box::new(record)))
    }

    /// Has the counter say what was written. Its answer may have been lost: it is looked at before it counts.
    fn count(&mut self) -> Result<(), StoreError> {
        if !self.outstanding {
            return Ok(());
        }
        let counter = &self.guard.counter;
        if counter.read()?.and_then(|counter| counter.checked_add(1)) == Some(self.value) {
            counter.increment()?;
        }
        if counter.read()? != Some(self.value) {
            return Err(StoreError::Counter);
        }
        self.outstanding = false;
        Ok(())
    }

    fn write(&self, value: u64, owed: bool, record: &TrustRecord) -> Vec<u8> {
        let (head, record) = (Head { value, owed }.bytes(), record.encode());
        let tag = self.guard.key.tag(Purpose::TrustRecord, &[&head, &record]);
        [MAGIC.as_slice(), &head, &tag, &record].concat()
    }
}

/// Why a record was not stored, or does not count yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Disk(#[from] std::io::Error),
    #[error(transparent)]
    Tpm(#[from] TpmError),
    #[error("the TPM's counter is not where this device left it")]
    Counter,
    #[error("the TPM's counter is at its end")]
    Spent,
}

impl StoreError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Disk(error) => crate::fetch::disk_code(error),
            Self::Tpm(error) => error.code(),
            Self::Counter => Code::StateLost,
            Self::Spent => Code::TpmFailed,
        }
    }

    pub(crate) fn of(self, folder: &Path) -> AgentError {
        match self {
            Self::Disk(source) => AgentError::file("write", folder, source),
            Self::Tpm(error) => AgentError::Identity(error.into()),
            Self::Counter | Self::Spent => AgentError::Lost,
        }
    }
}

/// How often the value may be raised.
struct Budget {
    left: u64,
    since: Seconds,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: RAISES_MAX,
            since: Seconds::new(0),
        }
    }
}

impl Budget {
    fn take(&mut self, now: Seconds) -> bool {
        let passed = now.get().saturating_sub(self.since.get());
        let gained = passed.checked_div(RAISE_EVERY.get()).unwrap_or(0);
        self.left = self.left.saturating_add(gained).min(RAISES_MAX);
        let since = gained.saturating_mul(RAISE_EVERY.get());
        self.since = Seconds::new(self.since.get().saturating_add(since));
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        true
    }
}

fn opened(record: Option<TrustRecord>) -> Opened {
    record.map_or(Opened::Lost(Loss::Unreadable), |record| {
        Opened::Record(Box::new(record))
    })
}

/// What of a record must never fall.
fn floors(record: &TrustRecord) -> Digest {
    let mut floors = TrustRecord {
        format: RecordFormat::V2,
        generation: 0,
        proven: UnixSeconds::new(0),
        refreshed: None,
        plan_known: Seconds::new(0),
        ..record.clone()
    };
    let (release, director) = (&mut floors.release_versions, &mut floors.director_versions);
    for versions in release.iter_mut().chain(director) {
        versions.timestamp = 0;
    }
    Digest::of(&floors.encode())
}

/// A record this device wrote: one copied from another device knows nothing of what this one committed.
fn own(bytes: &[u8], id: &SpiffeId) -> Option<TrustRecord> {
    TrustRecord::decode(bytes).filter(|record| record.device == *id && record.fleet == *id.fleet())
}

/// The same under a MAC that this device's TPM lets nobody else make, with its value.
fn guarded(bytes: &[u8], id: &SpiffeId, key: &SealKey) -> Option<(Head, TrustRecord)> {
    let (head, tag, record) = parts(bytes)?;
    if !key.is(Purpose::TrustRecord, &[head, record], tag) {
        return None;
    }
    Some((Head::read(head)?, own(record, id)?))
}

/// What the MAC binds to a record.
#[derive(Clone, Copy)]
struct Head {
    value: u64,
    /// Floors in it rose that the value did not rise for.
    owed: bool,
}

impl Head {
    const LEN: usize = 9;

    fn bytes(self) -> Vec<u8> {
        let mut bytes = self.value.to_le_bytes().to_vec();
        bytes.push(u8::from(self.owed));
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (value, owed) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            value: u64::from_le_bytes(*value),
            owed: *owed != [0],
        })
    }
}

/// Head, MAC, record.
fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (head, rest) = bytes.strip_prefix(MAGIC)?.split_at_checked(Head::LEN)?;
    let (tag, record) = rest.split_at_checked(TAG_LEN)?;
    Some((head, tag, record))
}

/// A record as it lies there, bound or not, for who believes what it holds on its own merits.
pub(crate) fn claimed(bytes: &[u8], id: &SpiffeId) -> Option<TrustRecord> {
    own(parts(bytes).map_or(bytes, |(_, _, record)| record), id)
}

#[cfg(test)]
mod tests;
