//! Power cuts between any two steps, copies of any age, and counters that are gone.

use super::*;
use crate::disk::faulty::{Cut, FaultyDisk};
use crate::seal::KEY_LEN;
use redan_trust::RoleVersions;
use std::cell::{Cell, RefCell};
use std::io;

const FOLDER: &str = "trust";
const NOW: Seconds = Seconds::new(0);

/// When a TPM fails, once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Gone {
    Not,
    /// It did not count.
    Before,
    /// It counted, and its answer was lost.
    After,
}

struct Fake {
    value: RefCell<Option<u64>>,
    gone: Cell<Gone>,
}

fn silent() -> TpmError {
    TpmError::Silent {
        path: "/dev/tpmrm0".into(),
        command: "TPM2_NV_Increment",
    }
}

impl Upward for Fake {
    fn read(&self) -> Result<Option<u64>, TpmError> {
        Ok(*self.value.borrow())
    }

    fn make(&self) -> Result<u64, TpmError> {
        Ok(*self.value.borrow_mut().get_or_insert(41))
    }

    fn increment(&self) -> Result<(), TpmError> {
        let gone = self.gone.replace(Gone::Not);
        if gone != Gone::Before {
            let mut value = self.value.borrow_mut();
            *value = Some(value.unwrap() + 1);
        }
        if gone == Gone::Not { Ok(()) } else { Err(silent()) }
    }
}

struct Device {
    counter: Rc<Fake>,
    guard: Guard,
}

impl Device {
    fn new() -> Self {
        let counter = Rc::new(Fake {
            value: RefCell::new(None),
            gone: Cell::new(Gone::Not),
        });
        let upward: Rc<dyn Upward> = counter.clone();
        Self {
            guard: Guard {
                key: Rc::new(SealKey::new(&[7; KEY_LEN])),
                counter: upward,
            },
            counter,
        }
    }

    /// A device that has enrolled, and raised its floor `serial` times since.
    fn at(serial: u64) -> (Self, FaultyDisk) {
        let (device, disk) = (Self::new(), FaultyDisk::default());
        let (mut file, opened) = device.open(&disk);
        assert_eq!(opened, Opened::Nothing);
        file.begin(&disk, &record(0)).unwrap();
        for serial in 1..=serial {
            file.store(&disk, &record(serial), NOW).unwrap();
        }
        (device, disk)
    }

    fn open(&self, disk: &FaultyDisk) -> (RecordFile, Opened) {
        RecordFile::open(disk, Path::new(FOLDER), &id(), Some(&self.guard)).unwrap()
    }

    fn counted(&self) -> u64 {
        self.counter.value.borrow().unwrap()
    }
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap()
}

/// A record with a floor of this height; newer ones have higher floors.
fn record(serial: u64) -> TrustRecord {
    TrustRecord {
        generation: serial + 1,
        policy_serial: serial,
        ..TrustRecord::enrolled(id().fleet().clone(), id(), "{}".into(), "{}".into())
    }
}

fn found(serial: u64) -> Opened {
    Opened::Record(Box::new(record(serial)))
}

/// Both files.
fn copy(disk: &FaultyDisk) -> [Option<Vec<u8>>; 2] {
    ["a", "b"].map(|name| {
        disk.read(&Path::new(FOLDER).join(name), crate::pair::RECORD_LEN_MAX)
            .unwrap()
    })
}

fn put_back(disk: &FaultyDisk, copy: &[Option<Vec<u8>>; 2]) {
    for (name, bytes) in ["a", "b"].iter().zip(copy) {
        let path = Path::new(FOLDER).join(name);
        match bytes {
            Some(bytes) => {
                disk.write(&path, bytes).unwrap();
                disk.sync(&path).unwrap();
            }
            None => disk.remove(&path).unwrap(),
        }
    }
    disk.sync_folder(Path::new(FOLDER)).unwrap();
}

#[test]
fn a_copy_of_an_older_record_is_refused_and_the_newest_is_not() {
    // What the attacker holds: the device, and a copy of its whole disk from before each update.
    let (device, disk) = Device::at(0);
    let mut copies = vec![copy(&disk)];
    for serial in 1..=4 {
        let (mut file, opened) = device.open(&disk);
        assert_eq!(opened, found(serial - 1));
        file.store(&disk, &record(serial), NOW).unwrap();
        copies.push(copy(&disk));
    }
    let newest = copies.pop().unwrap();
    let counter = device.counted();
    for (age, copy) in copies.iter().rev().enumerate() {
        put_back(&disk, copy);
        let record = counter - 1 - u64::try_from(age).unwrap();
        let lost = Loss::RolledBack { record, counter };
        assert_eq!(device.open(&disk).1, Opened::Lost(lost), "{age}");
    }
    // Nor one of the two files beside an empty place.
    for copy in &copies {
        put_back(&disk, &[copy[0].clone(), None]);
        assert!(matches!(device.open(&disk).1, Opened::Lost(_)));
    }
    put_back(&disk, &newest);
    assert_eq!(device.open(&disk).1, found(4), "positive control");
    assert_eq!(device.counted(), counter, "looking counts nothing");
}

#[test]
fn a_power_cut_at_any_step_leaves_the_old_or_the_new_record_in_force() {
    for serial in 0..3 {
        let before = Device::at(serial).1.calls();
        let calls = Device::at(serial + 1).1.calls() - before;
        assert_eq!(calls, 6, "two copies");
        for at in 0..calls {
            for cut in [Cut::Before, Cut::After, Cut::Torn] {
                for lucky in [false, true] {
                    let (device, disk) = Device::at(serial);
                    let disk = disk.power_cycle(false).with_fault(at, cut);
                    let (mut file, _) = device.open(&disk);
                    file.store(&disk, &record(serial + 1), NOW).unwrap_err();
                    let disk = disk.power_cycle(lucky);
                    let (mut file, opened) = device.open(&disk);
                    let either = opened == found(serial) || opened == found(serial + 1);
                    assert!(either, "call {at}, {cut:?}, {lucky}: {opened:?}");
                    // It goes on from there, and what is older is gone for good.
                    let old = copy(&disk);
                    file.store(&disk, &record(serial + 2), NOW).unwrap();
                    let disk = disk.power_cycle(false);
                    assert_eq!(device.open(&disk).1, found(serial + 2));
                    put_back(&disk, &old);
                    assert!(matches!(
                        device.open(&disk).1,
                        Opened::Lost(Loss::RolledBack { .. })
                    ));
                }
            }
        }
    }
}

#[test]
fn a_tpm_that_fails_at_its_step_is_asked_again_and_nothing_is_written_meanwhile() {
    for gone in [Gone::Before, Gone::After] {
        for restarted in [false, true] {
            let (device, disk) = Device::at(2);
            let counted = device.counted();
            let (mut file, _) = device.open(&disk);
            device.counter.gone.set(gone);
            let error = file.store(&disk, &record(3), NOW).unwrap_err();
            assert_eq!(error.code(), Code::TpmMissing);
            if restarted {
                let opened;
                (file, opened) = device.open(&disk);
                assert_eq!(opened, found(3), "it was durable before it was counted");
                assert_eq!(device.counted(), counted + 1, "{gone:?}");
            } else {
                device
                    .counter
                    .gone
                    .set(if gone == Gone::After { Gone::Not } else { gone });
                let again = file.store(&disk, &record(4), NOW);
                assert_eq!(again.is_err(), gone == Gone::Before);
                let third = Pair::load(&disk, Path::new(FOLDER), |bytes| {
                    Some(guarded(bytes, &id(), &device.guard.key)?.1.generation)
                });
                let Found::Record(bytes) = third.unwrap().1 else {
                    panic!("no record")
                };
                let newest = claimed(&bytes, &id()).unwrap();
                assert_eq!(newest.policy_serial, if again.is_err() { 3 } else { 4 });
            }
            file.store(&disk, &record(5), NOW).unwrap();
            assert_eq!(device.open(&disk).1, found(5));
        }
    }
}

#[test]
fn a_counter_that_is_gone_or_moved_is_no_reason_to_believe_the_disk() {
    let (device, disk) = Device::at(2);
    let counted = device.counted();
    device.counter.value.replace(None);
    assert_eq!(device.open(&disk).1, Opened::Lost(Loss::NoCounter));
    for (counter, good) in [
        (counted - 1, true),
        (counted + 1, false),
        (counted - 2, false),
        (0, false),
    ] {
        device.counter.value.replace(Some(counter));
        let lost = Loss::RolledBack {
            record: counted,
            counter,
        };
        let expected = if good { found(2) } else { Opened::Lost(lost) };
        assert_eq!(device.open(&disk).1, expected, "{counter}");
    }
    // What root custodians give back begins where the counter is.
    device.counter.value.replace(Some(counted + 7));
    let back = TrustRecord {
        generation: 1,
        ..record(9)
    };
    for at in 0..7 {
        let old = copy(&disk);
        let disk = FaultyDisk::default();
        put_back(&disk, &old);
        device.counter.value.replace(Some(counted + 7));
        let disk = disk.power_cycle(false).with_fault(at, Cut::Before);
        let (mut file, opened) = device.open(&disk);
        assert!(matches!(opened, Opened::Lost(_)));
        let done = file.begin(&disk, &back).is_ok();
        assert_eq!(done, at == 6, "two copies are six calls");
        let disk = disk.power_cycle(false);
        // Lost as before, or back: never an older one.
        let (_, opened) = device.open(&disk);
        let whole = opened == Opened::Record(Box::new(back.clone()));
        assert!(
            whole || matches!(opened, Opened::Lost(_)),
            "call {at}: {opened:?}"
        );
        assert!(whole || at < 3, "call {at}: what was stored is lost");
        assert_eq!(device.counted(), counted + if whole { 8 } else { 7 });
    }
}

#[test]
fn a_record_that_this_devices_tpm_did_not_seal_is_none() {
    let (device, disk) = Device::at(2);
    let lost = Opened::Lost(Loss::Unreadable);
    let [whole, _] = copy(&disk);
    let whole = whole.unwrap();
    let put = |bytes: &[u8]| put_back(&disk, &[Some(bytes.to_vec()), None]);
    // The attacker knows the counter, and writes a record of their own under it.
    put(&record(1).encode());
    assert_eq!(device.open(&disk).1, lost, "without a MAC");
    let mut forged = whole.clone();
    let record_at = MAGIC.len() + Head::LEN + TAG_LEN;
    forged.splice(record_at.., record(1).encode());
    put(&forged);
    assert_eq!(device.open(&disk).1, lost, "another record under the same MAC");
    for at in 0..record_at + 20 {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        put(&changed);
        assert_eq!(device.open(&disk).1, lost, "byte {at}");
    }
    for length in 0..record_at {
        put(&whole[..length]);
        assert_eq!(device.open(&disk).1, lost);
    }
    put(&whole);
    assert_eq!(device.open(&disk).1, found(2), "positive control");
    // And the other way round: a record that is bound is none of a device without a TPM.
    let (_, opened) = RecordFile::open(&disk, Path::new(FOLDER), &id(), None).unwrap();
    assert_eq!(opened, lost);
    assert_eq!(claimed(&whole, &id()), Some(record(2)));
    let other = SpiffeId::parse("spiffe://plant.example/device/press-2").unwrap();
    let (_, opened) = RecordFile::open(&disk, Path::new(FOLDER), &other, Some(&device.guard)).unwrap();
    assert_eq!(opened, lost);
}

#[test]
fn clocks_and_timestamps_do_not_wear_the_tpm() {
    let (device, disk) = Device::at(1);
    let counted = device.counted();
    let (mut file, _) = device.open(&disk);
    let mut later = record(1);
    for write in 1..=50 {
        later.generation += 1;
        later.proven = UnixSeconds::new(write);
        later.plan_known = Seconds::new(write);
        later.refreshed = Some(UnixSeconds::new(write));
        later.release_versions = Some(RoleVersions {
            timestamp: write,
            ..RoleVersions::default()
        });
        file.store(&disk, &later, NOW).unwrap();
    }
    assert_eq!(device.counted(), counted);
    assert_eq!(device.open(&disk).1, Opened::Record(Box::new(later.clone())));
    later.generation += 1;
    later.release_versions.as_mut().unwrap().snapshot = 1;
    file.store(&disk, &later, NOW).unwrap();
    assert_eq!(device.counted(), counted + 1, "a snapshot is a floor");
}

#[test]
fn a_server_that_never_rests_does_not_wear_the_tpm_out() {
    // What the attacker holds: the online keys. Each check-in brings another direction.
    let (device, disk) = Device::at(0);
    let counted = device.counted();
    let (mut file, _) = device.open(&disk);
    for serial in 1..=100 {
        file.store(&disk, &record(serial), NOW).unwrap();
    }
    // The one of the beginning was of another start.
    assert_eq!(device.counted(), counted + RAISES_MAX);
    // What is owed is not forgotten over a restart, and is paid when it is time, though no floor rises any more.
    let old = copy(&disk);
    let (mut file, opened) = device.open(&disk);
    assert_eq!(opened, found(100));
    file.store(
        &disk,
        &TrustRecord {
            generation: 200,
            ..record(100)
        },
        NOW,
    )
    .unwrap();
    assert_eq!(device.counted(), counted + RAISES_MAX + 1);
    put_back(&disk, &old);
    assert!(matches!(
        device.open(&disk).1,
        Opened::Lost(Loss::RolledBack { .. })
    ));

    let mut budget = Budget::default();
    let taken = |budget: &mut Budget, now: u64| (0..100).filter(|_| budget.take(Seconds::new(now))).count();
    let every = RAISE_EVERY.get();
    assert_eq!(taken(&mut budget, 0), usize::try_from(RAISES_MAX).unwrap());
    assert_eq!(taken(&mut budget, every - 1), 0);
    assert_eq!(taken(&mut budget, every), 1);
    assert_eq!(taken(&mut budget, every * 2 + 1), 1);
    assert_eq!(
        taken(&mut budget, every * 1000),
        usize::try_from(RAISES_MAX).unwrap()
    );
}

#[test]
fn what_a_failed_write_left_behind_is_worth_nothing_once_the_next_is_stored() {
    // The disk said that it was full, and had written it all the same.
    let (device, disk) = Device::at(1);
    let disk = disk.with_fault(1, Cut::Error(io::ErrorKind::StorageFull));
    let (mut file, _) = device.open(&disk);
    assert_eq!(
        file.store(&disk, &record(2), NOW).unwrap_err().code(),
        Code::DiskFull
    );
    let left = copy(&disk);
    file.store(&disk, &record(3), NOW).unwrap();
    file.store(
        &disk,
        &TrustRecord {
            generation: 9,
            ..record(3)
        },
        NOW,
    )
    .unwrap();
    put_back(&disk, &left);
    assert!(matches!(
        device.open(&disk).1,
        Opened::Lost(Loss::RolledBack { .. })
    ));
}
