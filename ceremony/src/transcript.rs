//! What was decided, in order (`redan.transcript/1`): one JSON object a line, each naming the hash of the one before. A line that was
//! changed, moved or taken out breaks the chain; whoever keeps the last hash notices a shortened one too.

use crate::error::CeremonyError;
use crate::present::bytes;
use redan_protocol::{Digest, UnixSeconds};
use redan_publish::metadata::canonical;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};

const SCHEMA: &str = "redan.transcript/1";
const GENESIS: Digest = Digest::from_bytes([0; 32]);

/// One decision.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    schema: String,
    /// When, by this machine's clock.
    pub time: UnixSeconds,
    /// The command.
    pub command: String,
    /// What was requested, signed or assembled.
    pub payload_sha256: Option<Digest>,
    /// What was decided.
    pub decided: String,
    /// Hash of the line before; zeros for the first.
    pub previous: Digest,
    /// SHA-256 of the canonical JSON of all of the above.
    pub hash: Digest,
}

impl Entry {
    fn computed(&self) -> Result<Digest, CeremonyError> {
        let mut value = serde_json::to_value(self).map_err(|_| CeremonyError::Bug)?;
        if let Some(map) = value.as_object_mut() {
            map.remove("hash");
        }
        Ok(Digest::of(&canonical(&value)?))
    }
}

/// A transcript that is written to.
#[derive(Clone, Debug)]
pub struct Transcript {
    path: PathBuf,
    last: Digest,
}

impl Transcript {
    /// Opens one; it need not be there yet. One whose chain is broken is not written on.
    pub fn open(path: &Path) -> Result<Self, CeremonyError> {
        let there = path.symlink_metadata().is_ok();
        let last = if there {
            Self::read(path)?.last().map(|entry| entry.hash)
        } else {
            None
        };
        Ok(Self {
            path: path.to_owned(),
            last: last.unwrap_or(GENESIS),
        })
    }

    /// Reads all entries, and names the first line that does not follow.
    pub fn read(path: &Path) -> Result<Vec<Entry>, CeremonyError> {
        let broken = |at: usize| CeremonyError::Transcript {
            path: path.display().to_string(),
            line: at.saturating_add(1),
        };
        let bytes = bytes(path)?;
        let mut entries: Vec<Entry> = Vec::new();
        for (at, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let entry: Entry = serde_json::from_slice(line).map_err(|_| broken(at))?;
            let previous = entries.last().map_or(GENESIS, |last| last.hash);
            let follows = entry.schema == SCHEMA && entry.previous == previous;
            // A line without its end was cut off while it was written.
            if !follows || entry.hash != entry.computed()? || !line.ends_with(b"\n") {
                return Err(broken(at));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Writes down a decision, durably, before it takes effect.
    pub fn note(
        &mut self,
        now: UnixSeconds,
        command: &str,
        payload: Option<Digest>,
        decided: &str,
    ) -> Result<(), CeremonyError> {
        let mut entry = Entry {
            schema: SCHEMA.into(),
            time: now,
            command: command.to_owned(),
            payload_sha256: payload,
            decided: crate::difference::clean(decided),
            previous: self.last,
            hash: GENESIS,
        };
        entry.hash = entry.computed()?;
        let mut line = serde_json::to_vec(&entry).map_err(|_| CeremonyError::Bug)?;
        line.push(b'\n');
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(&line).and_then(|()| file.sync_all()))
            .map_err(|error| CeremonyError::file(&self.path, &error))?;
        self.last = entry.hash;
        Ok(())
    }
}
