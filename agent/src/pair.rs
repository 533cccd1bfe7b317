//! Two alternating files that hold one record (10-trust, trust store): write the other one, sync it, sync the folder.
//!
//! The newest valid of the two is the record. A torn, flipped or lost write leaves the one before.
//!
//! A file never gets shorter: it is overwritten in its place, and has blanks behind its record. So a disk that others fill up takes no
//! record's room (attack D04): room that was set free for a moment would be theirs. File systems that write every change to a new place
//! (btrfs, ZFS, F2FS) do not promise that.

use crate::disk::{Disk, is_no_file, without_blanks};
use redan_protocol::ByteCount;
use std::io;
use std::path::{Path, PathBuf};

/// Largest record of a pair, bytes: two roots, or a set of 32 members with a grant of 64 KiB each; and what stands before one that is
/// bound to a counter.
pub(crate) const RECORD_LEN_MAX: ByteCount = ByteCount::new(8 * 1024 * 1024 + 64);

/// Largest file of a pair, bytes: its record and the room behind it.
const FILE_LEN_MAX: ByteCount = ByteCount::new(RECORD_LEN_MAX.get() + 2 * RESERVE.get());

/// Room a file has for longer records than its present one, bytes, at least an eighth of this; its length is a multiple. A record
/// that tells of a refusal, a rollback or the way back is longer by codes and digests, and not by members. Tripped by
/// `a_pair_takes_records_of_the_usual_length_while_the_disk_is_full`.
pub(crate) const RESERVE: ByteCount = ByteCount::kib(64);

/// Which of the two files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    A,
    B,
}

/// The two files `a` and `b` in one folder, and which one is in force.
#[derive(Debug)]
pub(crate) struct Pair {
    folder: PathBuf,
    current: Option<Side>,
}

/// What was found in a pair.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// Neither file is there: nothing was ever stored.
    Nothing,
    /// The newest valid record.
    Record(Vec<u8>),
    /// There are files, and none of them is valid: the state is lost.
    Lost,
}

impl Pair {
    /// Reads both files. `generation` says whether bytes are a valid record, and which of two is newer. A record does not end with a blank.
    pub(crate) fn load<G: Ord>(
        disk: &impl Disk,
        folder: &Path,
        generation: impl Fn(&[u8]) -> Option<G>,
    ) -> io::Result<(Self, Found)> {
        // What is there and is no file, or no file of ours by its length, is there and is no record.
        let read = |name| match disk.read(&folder.join(name), FILE_LEN_MAX) {
            Err(error) if is_no_file(&error) || error.kind() == io::ErrorKind::FileTooLarge => {
                Ok(Some(Vec::new()))
            }
            read => read,
        };
        let (a, b) = (read("a")?, read("b")?);
        let any = a.is_some() || b.is_some();
        let valid = |bytes: Option<Vec<u8>>, side| {
            let mut bytes = bytes?;
            bytes.truncate(without_blanks(&bytes).len());
            generation(&bytes).map(|generation| (generation, side, bytes))
        };
        let newest = match (valid(a, Side::A), valid(b, Side::B)) {
            (Some(a), Some(b)) => Some(if b.0 > a.0 { b } else { a }),
            (a, b) => a.or(b),
        };
        let folder = folder.to_owned();
        Ok(match newest {
            Some((_, side, bytes)) => (
                Self {
                    folder,
                    current: Some(side),
                },
                Found::Record(bytes),
            ),
            None => (
                Self {
                    folder,
                    current: None,
                },
                if any { Found::Lost } else { Found::Nothing },
            ),
        })
    }

    /// Stores a newer record. When this returns `Ok`, it is durable; otherwise the one before is.
    pub(crate) fn store(&mut self, disk: &impl Disk, bytes: &[u8]) -> io::Result<()> {
        let side = match self.current {
            Some(Side::A) => Side::B,
            Some(Side::B) | None => Side::A,
        };
        let path = self.folder.join(match side {
            Side::A => "a",
            Side::B => "b",
        });
        disk.overwrite(&path, bytes, room(bytes.len()))?;
        disk.sync(&path)?;
        disk.sync_folder(&self.folder)?;
        self.current = Some(side);
        Ok(())
    }
}

/// How long the file of a record is.
fn room(length: usize) -> ByteCount {
    let reserve = RESERVE.get();
    let least = u64::try_from(length)
        .unwrap_or(u64::MAX)
        .saturating_add(reserve / 8);
    ByteCount::new(least.div_ceil(reserve).saturating_mul(reserve))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::faulty::{Cut, FaultyDisk};
    use redan_protocol::Digest;

    /// generation (8) ‖ sha256 of generation and text (32) ‖ text
    fn record(generation: u64, text: &str) -> Vec<u8> {
        let mut body = generation.to_le_bytes().to_vec();
        body.extend(text.as_bytes());
        let mut all = Digest::of(&body).as_bytes().to_vec();
        all.extend(body);
        all
    }

    fn generation(bytes: &[u8]) -> Option<u64> {
        let (hash, body) = bytes.split_at_checked(32)?;
        let number = body.get(..8)?;
        (Digest::of(body).as_bytes() == hash).then(|| u64::from_le_bytes(number.try_into().unwrap()))
    }

    fn stored(disk: &FaultyDisk) -> (Pair, Found) {
        Pair::load(disk, Path::new("trust"), generation).unwrap()
    }

    /// A disk that holds generations up to `count`, so that both sides have been in force.
    fn disk_with(count: u64) -> FaultyDisk {
        let disk = FaultyDisk::default();
        let (mut pair, found) = stored(&disk);
        assert_eq!(found, Found::Nothing);
        for number in 1..=count {
            pair.store(&disk, &record(number, "record")).unwrap();
        }
        disk
    }

    #[test]
    fn a_power_cut_at_any_call_of_a_commit_leaves_the_old_or_the_new_record() {
        let before = disk_with(1).calls();
        let calls = disk_with(2).calls() - before;
        assert_eq!(calls, 3, "write, sync, sync of the folder");
        for held in 1..=3 {
            for at in 0..calls {
                for cut in [Cut::Before, Cut::After, Cut::Torn] {
                    for lucky in [false, true] {
                        let disk = disk_with(held).power_cycle(false).with_fault(at, cut);
                        let (mut pair, _) = stored(&disk);
                        pair.store(&disk, &record(held + 1, "newer")).unwrap_err();
                        let disk = disk.power_cycle(lucky);
                        let (mut pair, found) = stored(&disk);
                        // However the cut left it, finding the record is no more work than this (attack D05).
                        assert_eq!((disk.reads(), disk.calls()), (2, 0));
                        let old = Found::Record(record(held, "record"));
                        let new = Found::Record(record(held + 1, "newer"));
                        assert!(
                            found == old || found == new,
                            "held {held}, call {at}, {cut:?}: {found:?}"
                        );
                        pair.store(&disk, &record(held + 2, "after")).unwrap();
                        let (_, found) = stored(&disk.power_cycle(false));
                        assert_eq!(found, Found::Record(record(held + 2, "after")));
                    }
                }
            }
        }
    }

    #[test]
    fn a_commit_leaves_the_old_or_the_new_record_in_whatever_order_the_disk_writes() {
        for held in 1..=3 {
            for at in 0..3 {
                for cut in [Cut::Before, Cut::After, Cut::Torn] {
                    let disk = disk_with(held).with_fault(at, cut);
                    let (mut pair, _) = stored(&disk);
                    pair.store(&disk, &record(held + 1, "newer")).unwrap_err();
                    for disk in disk.every_order() {
                        let (mut pair, found) = stored(&disk);
                        let old = Found::Record(record(held, "record"));
                        let new = Found::Record(record(held + 1, "newer"));
                        assert!(found == old || found == new, "call {at}, {cut:?}: {found:?}");
                        pair.store(&disk, &record(held + 2, "after")).unwrap();
                        for disk in disk.every_order() {
                            assert_eq!(stored(&disk).1, Found::Record(record(held + 2, "after")));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_full_disk_leaves_the_record_before_in_force() {
        for at in 0..3 {
            let disk = disk_with(2).with_fault(at, Cut::Error(io::ErrorKind::StorageFull));
            let (mut pair, _) = stored(&disk);
            let error = pair.store(&disk, &record(3, "newer")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            pair.store(&disk, &record(3, "newer")).unwrap();
            assert_eq!(
                stored(&disk.power_cycle(false)).1,
                Found::Record(record(3, "newer"))
            );
        }
    }

    /// Somebody fills the disk before any call of a record, and it stays full.
    #[test]
    fn a_pair_takes_records_of_the_usual_length_while_the_disk_is_full() {
        for held in 2..=3 {
            for at in 0..3 {
                let disk = disk_with(held).full_from(at);
                let (mut pair, _) = stored(&disk);
                let longer = "r".repeat(4000);
                for number in 1..=4 {
                    pair.store(&disk, &record(held + number, &longer)).unwrap();
                    assert_eq!(stored(&disk).1, Found::Record(record(held + number, &longer)));
                }
                // What is longer than the room is refused, and changes nothing.
                let large = "r".repeat(usize::try_from(RESERVE.get()).unwrap());
                let error = pair.store(&disk, &record(held + 5, &large)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::StorageFull, "call {at}");
                assert_eq!(stored(&disk).1, Found::Record(record(held + 4, &longer)));
                let disk = disk.emptied();
                pair.store(&disk, &record(held + 5, &large)).unwrap();
                let short = record(held + 6, "short");
                pair.store(&disk, &record(held + 6, "short")).unwrap();
                assert_eq!(stored(&disk.power_cycle(false)).1, Found::Record(short));
            }
        }
    }

    /// The same with the kernel's files: the length stays, the record is the last one, blanks are no part of it.
    #[test]
    fn a_file_of_a_pair_is_overwritten_in_its_place_and_never_gets_shorter() {
        use crate::disk::RealDisk;
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let at = |name| std::fs::metadata(folder.join(name)).unwrap();
        let (mut pair, _) = Pair::load(&RealDisk, &folder, generation).unwrap();
        pair.store(&RealDisk, &record(1, &"long".repeat(5000))).unwrap();
        pair.store(&RealDisk, &record(2, &"long".repeat(20000))).unwrap();
        let before = [at("a"), at("b")];
        assert_eq!(
            before.each_ref().map(std::fs::Metadata::len),
            [64 << 10, 128 << 10]
        );
        // Blocks, not holes.
        assert!(
            before.iter().all(|of| of.blocks() * 512 >= of.len()),
            "{before:?}"
        );
        for number in 3..=6 {
            let record = record(number, &"short".repeat(8 - usize::try_from(number).unwrap()));
            pair.store(&RealDisk, &record).unwrap();
            let (_, found) = Pair::load(&RealDisk, &folder, generation).unwrap();
            assert_eq!(found, Found::Record(record));
        }
        let after = [at("a"), at("b")];
        let same = |of: &std::fs::Metadata| (of.ino(), of.len(), of.blocks());
        assert_eq!(after.each_ref().map(same), before.each_ref().map(same));
    }

    #[test]
    fn a_flipped_bit_falls_back_to_the_other_file_and_two_mean_lost() {
        let disk = disk_with(2);
        disk.flip_a_bit(Path::new("trust/b"), 40);
        assert_eq!(stored(&disk).1, Found::Record(record(1, "record")));
        disk.flip_a_bit(Path::new("trust/a"), 40);
        assert_eq!(stored(&disk).1, Found::Lost);
    }
}
