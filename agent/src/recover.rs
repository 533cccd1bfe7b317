//! The way back from `state-lost` (decision 0006): a request with a nonce that stays here, and an answer signed by the holders of the
//! release root. A running agent goes on with what it has, and takes the new record up by itself.

use crate::AgentError;
use crate::clock::{Clock, Proven};
use crate::disk::{Disk, RealDisk};
use crate::journal::{Journal, Start};
use crate::record::{Opened, RecordFile};
use crate::store::{Identity, Store, random};
use redan_protocol::wire::{Nonce, RecoveryRequest, RecoveryRequestSchema};
use redan_protocol::{ByteCount, SpiffeId};
use redan_trust::TrustRecord;
use redan_trust::recovery::{Asking, RECOVERY_LEN_MAX, recover as verify};
use std::path::Path;
use std::rc::Rc;

/// The request that waits for its answer.
const REQUEST: &str = "trust/recovery-request.json";
/// Largest such file, bytes: two names and a nonce.
const REQUEST_LEN_MAX: ByteCount = ByteCount::kib(4);

/// What this device asks the holders of the release root for. Asking again gives the same request, until it was answered.
pub fn recovery_request(state: &Path) -> Result<RecoveryRequest, AgentError> {
    let (store, identity) = lost(state)?;
    if let Some(waiting) = waiting(&store)? {
        return Ok(waiting);
    }
    let request = RecoveryRequest {
        schema: RecoveryRequestSchema::V1,
        fleet: identity.voucher.fleet.clone(),
        device: identity.id,
        nonce: Nonce(random()?),
    };
    let bytes = serde_json::to_vec(&request).map_err(|_| {
        AgentError::file(
            "write",
            &store.at(REQUEST),
            std::io::ErrorKind::InvalidData.into(),
        )
    })?;
    store.keep(REQUEST, &bytes)?;
    Ok(request)
}

/// Takes the answer: writes a new trust record, and forgets the request so that the answer is good once.
pub fn recover(state: &Path, document: &Path) -> Result<SpiffeId, AgentError> {
    let (store, identity) = lost(state)?;
    let waiting = waiting(&store)?.ok_or(AgentError::Unasked)?;
    let failed = |source| AgentError::file("read", document, source);
    let bytes = match RealDisk.read(document, RECOVERY_LEN_MAX) {
        Ok(bytes) => bytes.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?,
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
            return Err(redan_trust::recovery::RecoveryError::TooLong.into());
        }
        Err(error) => return Err(failed(error)),
    };
    let proven = Proven::new(Clock::start());
    proven.learn(identity.since);
    let asking = Asking {
        device: &identity.id,
        nonce: waiting.nonce,
        release_root: &identity.voucher.release_root,
        director_root: &identity.voucher.director_root,
        now: proven.now(),
    };
    let mut record = verify(&bytes, &asking)?;
    remembered(&store, &mut record)?;
    let folder = store.at("trust");
    let (mut file, _) = open(&store, &identity)?;
    file.begin(&RealDisk, &record)
        .map_err(|error| error.of(&folder))?;
    forget(&store)?;
    Ok(identity.id)
}

/// A request is over once there is a valid record, however it came to be: its answer must not count another day.
pub(crate) fn forget(store: &Store) -> Result<(), AgentError> {
    let path = store.at(REQUEST);
    let failed = |source| AgentError::file("remove", &path, source);
    if !path.try_exists().map_err(failed)? {
        return Ok(());
    }
    RealDisk
        .remove(&path)
        .and_then(|()| RealDisk.sync_folder(&store.at("trust")))
        .map_err(failed)
}

/// The journal is under a MAC that only this device makes: what it knows holds, whatever was signed.
fn remembered(store: &Store, record: &mut TrustRecord) -> Result<(), AgentError> {
    let folder = store.at("journal");
    let (_, start) = Journal::open(&RealDisk, &folder, &store.seal_key()?)
        .map_err(|source| AgentError::file("read", &folder, source))?;
    let Start::From(journal) = start else {
        return Ok(());
    };
    record.denied = journal.denied.iter().map(|denied| denied.digest).collect();
    let Some(set) = &journal.committed else {
        return Ok(());
    };
    record.set = Some(set.id().clone());
    record.sequence = record.sequence.max(set.sequence());
    for member in set.members() {
        let known = record.committed.entry(member.component().clone());
        let known = known.or_insert(member.counter());
        *known = (*known).max(member.counter());
    }
    Ok(())
}

/// The state folder of an enrolled device without a trust record of its own.
fn lost(state: &Path) -> Result<(Store, Identity), AgentError> {
    let store = Store::open(state);
    let not_enrolled = || AgentError::NotEnrolled {
        state: state.to_owned(),
    };
    let identity = store.identity()?.ok_or_else(not_enrolled)?;
    let (_, opened) = open(&store, &identity)?;
    if matches!(opened, Opened::Record(_)) {
        forget(&store)?;
        return Err(AgentError::NotLost);
    }
    Ok((store, identity))
}

fn open(store: &Store, identity: &Identity) -> Result<(RecordFile, Opened), AgentError> {
    let key = Rc::new(store.seal_key()?);
    let guard = store.guard(&identity.id, &key)?;
    RecordFile::open(&RealDisk, &store.at("trust"), &identity.id, guard.as_ref())
}

fn waiting(store: &Store) -> Result<Option<RecoveryRequest>, AgentError> {
    let path = store.at(REQUEST);
    let read = RealDisk
        .read(&path, REQUEST_LEN_MAX)
        .map_err(|source| AgentError::file("read", &path, source))?;
    // One that is torn is none: the next request has another nonce.
    Ok(read.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
