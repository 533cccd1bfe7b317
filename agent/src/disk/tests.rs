//! What stands in the place of a file (attack D03), and links on the way to it (attack D01).

use super::faulty::{Cut, FaultyDisk};
use super::{Disk as _, RealDisk, is_no_file, read_own, replace};
use redan_protocol::ByteCount;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const LIMIT: ByteCount = ByteCount::kib(1);

/// A state folder with a file in it, and a folder of somebody else beside it.
fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    let (state, elsewhere) = (base.join("state"), base.join("elsewhere"));
    for folder in [&state, &elsewhere] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(elsewhere.join("file"), "theirs").unwrap();
    RealDisk.write(&state.join("file"), b"ours").unwrap();
    (folder, state, elsewhere)
}

type Plant = fn(&Path, &Path);

/// Everything that can stand where a file belongs.
const KINDS: &[(&str, Plant)] = &[
    ("link", |at, elsewhere| {
        symlink(elsewhere.join("file"), at).unwrap();
    }),
    ("dangling link", |at, elsewhere| {
        symlink(elsewhere.join("none"), at).unwrap();
    }),
    ("link to a device", |at, _| symlink("/dev/zero", at).unwrap()),
    ("FIFO", |at, _| {
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at, kind, 0o600.into(), 0).unwrap();
    }),
    ("socket", |at, _| drop(UnixListener::bind(at).unwrap())),
];

#[test]
fn what_is_no_file_is_neither_read_nor_waited_for_and_is_replaced_by_one() {
    for (kind, plant) in KINDS {
        let (_folder, state, elsewhere) = folders();
        let at = state.join("file");
        std::fs::remove_file(&at).unwrap();
        plant(&at, &elsewhere);
        let error = RealDisk.read(&at, LIMIT).unwrap_err();
        assert!(is_no_file(&error), "{kind}: {error}");
        assert!(read_own(&at, LIMIT).is_err(), "{kind}");
        RealDisk.write(&at, b"new").unwrap();
        RealDisk.sync(&at).unwrap();
        assert_eq!(
            RealDisk.read(&at, LIMIT).unwrap().as_deref(),
            Some(&b"new"[..]),
            "{kind}"
        );
        assert_eq!(
            std::fs::read(elsewhere.join("file")).unwrap(),
            b"theirs",
            "{kind}"
        );
        assert!(!elsewhere.join("none").exists(), "{kind}");
    }
}

#[test]
fn a_file_with_a_second_name_is_not_written_through() {
    let (_folder, state, elsewhere) = folders();
    let (at, other) = (state.join("linked"), elsewhere.join("file"));
    std::fs::hard_link(&other, &at).unwrap();
    RealDisk.write(&at, b"ours").unwrap();
    assert_eq!(std::fs::read(&other).unwrap(), b"theirs");
    assert_eq!(std::fs::read(&at).unwrap(), b"ours");
    // What is only read may have one: backups are made so.
    std::fs::remove_file(&at).unwrap();
    std::fs::hard_link(&other, &at).unwrap();
    assert_eq!(
        RealDisk.read(&at, LIMIT).unwrap().as_deref(),
        Some(&b"theirs"[..])
    );
}

#[test]
fn a_folder_swapped_for_a_link_on_the_way_leads_nowhere() {
    let (folder, state, elsewhere) = folders();
    let base = folder.path().canonicalize().unwrap();
    std::fs::rename(&state, base.join("away")).unwrap();
    symlink(&elsewhere, &state).unwrap();
    let at = state.join("file");
    assert!(is_no_file(&RealDisk.read(&at, LIMIT).unwrap_err()));
    assert!(is_no_file(&RealDisk.sync(&at).unwrap_err()));
    assert!(is_no_file(&RealDisk.write(&at, b"x").unwrap_err()));
    assert!(is_no_file(&replace(&RealDisk, &at, b"x").unwrap_err()));
    assert_eq!(std::fs::read(elsewhere.join("file")).unwrap(), b"theirs");
}

/// Somebody swaps a file for a link and back, all the time: either ours is read, or nothing.
#[test]
fn whoever_swaps_links_while_a_file_is_read_never_hands_in_his_own() {
    let (_folder, state, elsewhere) = folders();
    let (at, aside, link) = (state.join("file"), state.join("aside"), state.join("link"));
    symlink(elsewhere.join("file"), &link).unwrap();
    let swapping = {
        let at = at.clone();
        std::thread::spawn(move || {
            for _ in 0..20_000 {
                std::fs::rename(&at, &aside).unwrap();
                std::fs::rename(&link, &at).unwrap();
                std::fs::rename(&at, &link).unwrap();
                std::fs::rename(&aside, &at).unwrap();
            }
        })
    };
    let mut seen = [0; 3];
    while !swapping.is_finished() {
        match RealDisk.read(&at, LIMIT) {
            Ok(Some(bytes)) => {
                assert_eq!(bytes, b"ours");
                seen[0] += 1;
            }
            Ok(None) => seen[1] += 1,
            Err(error) => {
                assert!(is_no_file(&error), "{error}");
                seen[2] += 1;
            }
        }
    }
    swapping.join().unwrap();
    assert_eq!(
        RealDisk.read(&at, LIMIT).unwrap().as_deref(),
        Some(&b"ours"[..]),
        "{seen:?}"
    );
}

#[test]
fn a_file_that_others_can_touch_is_not_one_of_our_own() {
    let (_folder, state, _) = folders();
    let at = state.join("file");
    assert_eq!(read_own(&at, LIMIT).unwrap().as_deref(), Some(&b"ours"[..]));
    assert_eq!(read_own(&state.join("none"), LIMIT).unwrap(), None);
    for mode in [0o604, 0o640, 0o602, 0o620, 0o610, 0o777] {
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = read_own(&at, LIMIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{mode:o}");
    }
    std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&at, Some(61_234), None).unwrap();
        let error = read_own(&at, LIMIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    } else {
        eprintln!("left out: a file of another user (only root can make one)");
    }
}

/// Attack D05: a disk that writes what was not synced in an order of its own, or not at all, when the power goes.
#[test]
fn a_file_is_replaced_whole_in_whatever_order_the_disk_writes() {
    let path = Path::new("metadata/snapshot.json");
    let disk_with = |count: usize| {
        let disk = FaultyDisk::default();
        for content in &CONTENTS[..count] {
            replace(&disk, path, content).unwrap();
        }
        disk
    };
    let calls = disk_with(2).calls() - disk_with(1).calls();
    let mut orders = 0;
    for held in 1..3 {
        for at in 0..calls {
            for cut in [Cut::Before, Cut::After, Cut::Torn] {
                let disk = disk_with(held).with_fault(at, cut);
                replace(&disk, path, CONTENTS[held]).unwrap_err();
                for disk in disk.every_order() {
                    let found = disk.read(path, LIMIT).unwrap();
                    let found = found.as_deref();
                    assert!(
                        found == Some(CONTENTS[held - 1]) || found == Some(CONTENTS[held]),
                        "call {at}, {cut:?}: {found:?}"
                    );
                    orders += 1;
                }
            }
        }
    }
    assert!(orders > 40, "{orders}");
}

const CONTENTS: [&[u8]; 3] = [b"the first one", b"the second one, longer", b"the third"];
