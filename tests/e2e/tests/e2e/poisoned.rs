//! The cache of native code in an attacker's hands (attack D02): whatever he leaves in an entry's place is refused and set aside, the
//! component is compiled again, and its clients notice nothing but a start that took longer.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use anyhow::{Context as _, Result, ensure};
use redan_kit::stage::await_that;
use redan_kit::traffic::get;
use redan_kit::{Programs, Stage};
use redan_protocol::Digest;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
/// Where an entry names its component, and where engine, length, MAC and code begin.
const COMPONENT: std::ops::Range<usize> = 8..40;
const ENGINE: usize = 40;
const LENGTH: usize = 72;
const MAC: usize = 80;
const CODE: usize = 112;

/// What an attacker has to work with.
struct Loot {
    /// The service's entry, as the device left it.
    good: Vec<u8>,
    /// The other component's.
    other: Vec<u8>,
    /// The same component's, of another device.
    foreign: Vec<u8>,
    /// A folder of his own.
    own: PathBuf,
}

type Poison = fn(&Path, &Loot);

fn flip(at: &Path, loot: &Loot, byte: usize) {
    let mut bytes = loot.good.clone();
    bytes[byte] ^= 0x10;
    fs::write(at, bytes).unwrap();
}

fn instead(at: &Path, what: impl FnOnce(&Path)) {
    fs::remove_file(at).unwrap();
    what(at);
}

const WAYS: &[(&str, Poison)] = &[
    ("a bit of the magic", |at, loot| flip(at, loot, 0)),
    ("another component", |at, loot| flip(at, loot, COMPONENT.start)),
    ("another version, configuration or CPU", |at, loot| {
        flip(at, loot, ENGINE);
    }),
    ("another length", |at, loot| flip(at, loot, LENGTH)),
    ("a bit of the MAC", |at, loot| flip(at, loot, MAC)),
    ("the first byte of the code", |at, loot| flip(at, loot, CODE)),
    ("a byte in its middle", |at, loot| {
        flip(at, loot, loot.good.len() / 2);
    }),
    ("its last byte", |at, loot| flip(at, loot, loot.good.len() - 1)),
    ("nothing", |at, _| fs::write(at, []).unwrap()),
    ("a header alone", |at, loot| {
        fs::write(at, &loot.good[..CODE]).unwrap();
    }),
    ("half of it", |at, loot| {
        fs::write(at, &loot.good[..loot.good.len() / 2]).unwrap();
    }),
    ("a byte too many", |at, loot| {
        fs::write(at, [&loot.good[..], &[0]].concat()).unwrap();
    }),
    ("bare native code", |at, loot| {
        fs::write(at, &loot.good[CODE..]).unwrap();
    }),
    ("another device's entry", |at, loot| {
        fs::write(at, &loot.foreign).unwrap();
    }),
    ("another component's entry", |at, loot| {
        fs::write(at, &loot.other).unwrap();
    }),
    ("a link to a good copy", |at, loot| {
        let copy = loot.own.join("copy");
        fs::write(&copy, &loot.good).unwrap();
        instead(at, |at| symlink(copy, at).unwrap());
    }),
    ("a link to an endless device", |at, _| {
        instead(at, |at| symlink("/dev/zero", at).unwrap());
    }),
    ("a FIFO", |at, _| {
        instead(at, |at| {
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, at, kind, 0o600.into(), 0).unwrap();
        });
    }),
    ("a folder with something in it", |at, _| {
        instead(at, |at| fs::create_dir_all(at.join("something")).unwrap());
    }),
    ("a file of 600 MiB", |at, _| {
        fs::File::options()
            .write(true)
            .open(at)
            .unwrap()
            .set_len(600 << 20)
            .unwrap();
    }),
    ("a good one that others can write", |at, _| {
        fs::set_permissions(at, Permissions::from_mode(0o620)).unwrap();
    }),
    ("a good one that others can read", |at, _| {
        fs::set_permissions(at, Permissions::from_mode(0o604)).unwrap();
    }),
];

/// The entry of the first device's cache that names a component.
fn entry(home: &Path, component: &[u8]) -> Result<(PathBuf, Vec<u8>)> {
    let digest = Digest::of(component);
    for file in fs::read_dir(home.join("native"))? {
        let path = file?.path();
        let bytes = fs::read(&path)?;
        if bytes.get(COMPONENT) == Some(digest.as_bytes()) {
            return Ok((path, bytes));
        }
    }
    anyhow::bail!("no entry names {digest}")
}

#[test]
fn a_poisoned_cache_is_refused_whatever_the_poison_and_the_component_is_compiled_and_served_again()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1", "press-2"])?;
    let wasm = |name: &str| anyhow::Ok(fs::read(stage.programs.guest(name, "1.0.0")?)?);
    let (service, job) = (wasm("thermo")?, wasm("tick")?);
    let home = stage.device("press-1")?.state.clone();
    let (at, good) = entry(&home, &service)?;
    let loot = Loot {
        foreign: entry(&stage.device("press-2")?.state, &service)?.1,
        other: entry(&home, &job)?.1,
        own: folder.path().to_owned(),
        good,
    };
    ensure!(
        loot.good[CODE..] == loot.foreign[CODE..],
        "both compiled the same"
    );
    let log = folder.path().join("devices/press-1/device.log");
    let mut ways = WAYS.to_vec();
    if rustix::process::geteuid().is_root() {
        ways.push(("a good one of another user", |at, _| {
            chown(at, Some(61_234), None).unwrap();
        }));
    } else {
        eprintln!("left out: an entry of another user (only root can make one)");
    }
    for (way, poison) in ways {
        stage.device_mut("press-1")?.stop()?;
        let said = fs::read_to_string(&log)?.len();
        poison(&at, &loot);
        stage.start_device("press-1")?;
        serves(&stage).context(way)?;
        let said = fs::read_to_string(&log)?.split_off(said);
        ensure!(said.contains("cache-poisoned"), "{way}: {said}");
        if way.contains("folder") {
            // What cannot be moved away is compiled around.
            fs::remove_dir_all(&at)?;
            fs::write(&at, &loot.good)?;
            fs::set_permissions(&at, Permissions::from_mode(0o600))?;
            continue;
        }
        let now = fs::symlink_metadata(&at)?;
        ensure!(
            now.is_file() && now.permissions().mode() & 0o7777 == 0o600,
            "{way}: {now:?}"
        );
        ensure!(fs::read(&at)? == loot.good, "{way}: it was not compiled again");
        // What was refused is out of the way, and only the last of it is kept.
        let kept = fs::read_dir(home.join("native"))?.count();
        ensure!(kept <= 3, "{way}: {kept} files");
    }
    // Positive control: what nobody touched is taken as it is.
    stage.device_mut("press-1")?.stop()?;
    let said = fs::read_to_string(&log)?.len();
    let before = fs::metadata(&at)?.modified()?;
    stage.start_device("press-1")?;
    serves(&stage)?;
    let said = fs::read_to_string(&log)?.split_off(said);
    ensure!(
        !said.contains("cache-poisoned") && fs::metadata(&at)?.modified()? == before,
        "{said}"
    );
    stage.stop()
}

fn serves(stage: &Stage) -> Result<()> {
    let service = stage.device("press-1")?.service;
    await_that("the service to answer", SOON, || {
        Ok(match get(service, "/thermo/") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
}
