//! The journal on disk: `redan-agent-core`'s record, under the device-only MAC, in two alternating files.
//!
//! The MAC makes a record that somebody edited (a wider grant, another digest) the same as a torn one: not there.

use crate::disk::Disk;
use crate::pair::{Found, Pair};
use crate::seal::{Purpose, SealKey};
use redan_agent_core::Record;
use redan_protocol::Code;
use std::io;
use std::path::Path;

const TAG_LEN: usize = 32;

/// The open journal.
#[derive(Debug)]
pub(crate) struct Journal(Pair);

/// What a journal started with.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Start {
    /// The newest record, or the empty one of a new device.
    From(Box<Record>),
    /// There was a journal and it is not readable: nothing is run that cannot be proven.
    Lost,
}

impl Journal {
    pub(crate) fn open(disk: &impl Disk, folder: &Path, key: &SealKey) -> io::Result<(Self, Start)> {
        let (pair, found) = Pair::load(disk, folder, |bytes| {
            decode(key, bytes).map(|record| record.seq.0)
        })?;
        let start = match found {
            Found::Nothing => Start::From(Box::default()),
            Found::Record(bytes) => {
                decode(key, &bytes).map_or(Start::Lost, |record| Start::From(Box::new(record)))
            }
            Found::Lost => Start::Lost,
        };
        Ok((Self(pair), start))
    }

    /// Makes a record durable, or says which code tells why not.
    pub(crate) fn write(&mut self, disk: &impl Disk, key: &SealKey, record: &Record) -> Result<(), Code> {
        let body = serde_json::to_vec(record).map_err(|_| Code::Internal)?;
        let mut bytes = key.tag(Purpose::Journal, &[&body]).to_vec();
        bytes.extend(body);
        self.0.store(disk, &bytes).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
            _ => Code::DiskFailed,
        })
    }
}

fn decode(key: &SealKey, bytes: &[u8]) -> Option<Record> {
    let (tag, body) = bytes.split_at_checked(TAG_LEN)?;
    if !key.is(Purpose::Journal, &[body], tag) {
        return None;
    }
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::faulty::{Cut, FaultyDisk};
    use crate::seal::KEY_LEN;
    use redan_agent_core::Seq;

    fn key() -> SealKey {
        SealKey::new(&[1; KEY_LEN])
    }

    fn record(seq: u64) -> Record {
        Record {
            seq: Seq(seq),
            rollback: Some(Code::Unhealthy),
            ..Record::default()
        }
    }

    #[test]
    fn a_record_reads_back_after_a_power_cut_at_any_call_of_the_next() {
        for at in 0..3 {
            for cut in [Cut::Before, Cut::Torn, Cut::After] {
                let disk = FaultyDisk::default();
                let (mut journal, start) = Journal::open(&disk, Path::new("journal"), &key()).unwrap();
                assert_eq!(start, Start::From(Box::default()));
                journal.write(&disk, &key(), &record(1)).unwrap();
                let disk = disk.with_fault(at, cut);
                assert_eq!(journal.write(&disk, &key(), &record(2)), Err(Code::DiskFailed));
                let disk = disk.power_cycle(false);
                let (_, start) = Journal::open(&disk, Path::new("journal"), &key()).unwrap();
                let wanted = [Start::From(Box::new(record(1))), Start::From(Box::new(record(2)))];
                assert!(wanted.contains(&start), "call {at}, {cut:?}: {start:?}");
            }
        }
    }

    #[test]
    fn an_edited_journal_is_not_believed() {
        let disk = FaultyDisk::default();
        let (mut journal, _) = Journal::open(&disk, Path::new("journal"), &key()).unwrap();
        journal.write(&disk, &key(), &record(1)).unwrap();
        disk.flip_a_bit(Path::new("journal/a"), TAG_LEN + 9);
        let (_, start) = Journal::open(&disk, Path::new("journal"), &key()).unwrap();
        assert_eq!(start, Start::Lost);
    }

    #[test]
    fn a_full_disk_has_its_own_code() {
        let disk = FaultyDisk::default().with_fault(0, Cut::Error(io::ErrorKind::StorageFull));
        let (mut journal, _) = Journal::open(&disk, Path::new("journal"), &key()).unwrap();
        assert_eq!(journal.write(&disk, &key(), &record(1)), Err(Code::DiskFull));
    }
}
