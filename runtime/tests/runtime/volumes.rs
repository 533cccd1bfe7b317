//! Volumes: quota, mode, and no way out.

use crate::device::Device;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::Mode;
use redan_protocol::ipc::ToExecutor;
use redan_protocol::{Code, Millis};
use rustix::fs::FileType;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

fn with_volume(attack: &str, mode: Mode) -> EffectiveGrant {
    let mut grant = grants::job(attack);
    grant.fs.push(grants::volume(mode));
    grant
}

#[test]
fn a_volume_over_its_bytes_or_files_ends_the_call_and_is_read_only_afterwards() {
    let mut device = Device::start();
    let job = guests::hostile_job();
    let volume = device.volume("hostile");
    // The grant has 64 KiB and 16 files; somebody else wrote more.
    std::fs::write(volume.join("foreign"), vec![0; (64 << 10) + 1]).unwrap();
    let more = with_volume("write-volume", Mode::ReadWrite);
    assert_eq!(device.outcome(&job, &more), Err(Code::JobFailed));
    assert!(!volume.join("more").exists());
    std::fs::remove_file(volume.join("foreign")).unwrap();
    // And while a call runs.
    let mut sleeps = with_volume("sleep", Mode::ReadWrite);
    sleeps.limits.wall_call = Millis::seconds(120);
    let slot = device.load(&job, &sleeps).unwrap();
    device.say(&ToExecutor::Run { slot }, &[]);
    // Only once the order is obeyed: the next one is answered after it.
    assert_eq!(device.probe(slot), Ok(()));
    (0..17).for_each(|n| std::fs::write(volume.join(n.to_string()), []).unwrap());
    assert_eq!(device.probed(slot), Err(Code::VolumeQuota));
    std::fs::remove_dir_all(&volume).unwrap();
    device.volume("hostile");
    assert_eq!(device.outcome(&job, &more), Ok(()));
    device.serves_others();
}

/// Bytes and files below a folder, as quotas count them.
fn content(folder: &Path) -> (u64, usize) {
    let (mut bytes, mut files) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let status = entry.unwrap().path().symlink_metadata().unwrap();
        bytes += if status.is_dir() { 0 } else { status.len() };
        files += 1;
    }
    (bytes, files)
}

#[test]
fn no_write_goes_over_a_volumes_quota_by_one_byte_or_file() {
    for (attack, filled) in [
        ("fill-volume", (64 << 10, 1)),
        ("fill-volume-by-growing", (64 << 10, 1)),
        ("many-files", (0, 16)),
        ("many-folders", (0, 16)),
        ("many-links", (60 << 10, 6)),
    ] {
        let mut device = Device::start();
        let outcome = device.outcome(&guests::hostile_job(), &with_volume(attack, Mode::ReadWrite));
        assert_eq!(outcome, Err(Code::VolumeQuota), "{attack}");
        assert_eq!(content(&device.volume("hostile")), filled, "{attack}");
        device.serves_others();
    }
}

#[test]
fn nothing_moves_from_one_quota_to_another() {
    let mut device = Device::start();
    let mut grant = with_volume("between-volumes", Mode::ReadWrite);
    let mut other = grants::volume(Mode::ReadWrite);
    other.name = "other".to_owned();
    other.guest = "/other".to_owned();
    // Room for no file: whatever arrives there is over its quota.
    other.files = 0;
    grant.fs.push(other);
    assert_eq!(device.outcome(&guests::hostile_job(), &grant), Ok(()));
    let state = device.volume("hostile");
    assert_eq!(content(&state), (1, 1));
    assert_eq!(content(&state.with_file_name("other")), (0, 0));
}

#[test]
fn calls_at_once_share_one_quota() {
    let mut device = Device::start();
    let grant = with_volume("many-files", Mode::ReadWrite);
    let slot = device.load(&guests::hostile_job(), &grant).unwrap();
    (0..8).for_each(|_| device.say(&ToExecutor::Run { slot }, &[]));
    (0..8).for_each(|_| assert_eq!(device.probed(slot), Err(Code::VolumeQuota)));
    assert_eq!(content(&device.volume("hostile")), (0, 16));
    device.serves_others();
}

#[test]
fn room_that_a_guest_makes_is_there_again() {
    let mut device = Device::start();
    let grant = with_volume("volume-comes-back", Mode::ReadWrite);
    assert_eq!(device.outcome(&guests::hostile_job(), &grant), Ok(()));
    assert_eq!(content(&device.volume("hostile")), (64 << 10, 1));
    device.serves_others();
}

#[test]
fn files_and_folders_open_at_once_are_counted() {
    let mut device = Device::start();
    let job = guests::hostile_job();
    for attack in ["open-many-files", "open-many-folders", "keep-files-by-streams"] {
        let mut grant = with_volume(attack, Mode::ReadWrite);
        grant.limits.descriptors = 10;
        assert_eq!(
            device.outcome(&job, &grant),
            Err(Code::DescriptorLimit),
            "{attack}"
        );
        grant.env.insert("TARGET".to_owned(), "10".to_owned());
        if attack != "keep-files-by-streams" {
            assert_eq!(
                device.outcome(&job, &grant),
                Ok(()),
                "{attack}: what was open was closed"
            );
        }
    }
    device.serves_others();
}

#[test]
fn the_executors_own_descriptors_are_never_reached() {
    let mut device = Device::start();
    let mut grant = with_volume("open-many-files", Mode::ReadWrite);
    grant.limits.descriptors = u32::MAX;
    grant.limits.handles = u32::MAX;
    assert_eq!(
        device.outcome(&guests::hostile_job(), &grant),
        Err(Code::DescriptorLimit)
    );
    device.serves_others();
}

#[test]
fn a_read_only_volume_is_not_written() {
    let mut device = Device::start();
    let kept = device.volume("hostile").join("kept");
    std::fs::write(&kept, "kept").unwrap();
    let grant = with_volume("write-read-only", Mode::Read);
    assert_eq!(device.outcome(&guests::hostile_job(), &grant), Ok(()));
    assert_eq!(std::fs::read(&kept).unwrap(), b"kept");
    assert_eq!(std::fs::read_dir(device.volume("hostile")).unwrap().count(), 1);
    let writable = with_volume("write-read-only", Mode::ReadWrite);
    let outcome = device.outcome(&guests::hostile_job(), &writable);
    assert_eq!(
        outcome,
        Err(Code::JobFailed),
        "the attack itself succeeds where it may"
    );
}

#[test]
fn no_path_leads_out_of_a_volume() {
    let mut device = Device::start();
    let volume = device.volume("hostile");
    let outside = volume.parent().unwrap().join("secret");
    std::fs::write(&outside, "secret").unwrap();
    std::fs::write(volume.join("kept"), "kept").unwrap();
    std::fs::create_dir(volume.join("folder")).unwrap();
    symlink("kept", volume.join("planted-inside")).unwrap();
    symlink("../secret", volume.join("planted-relative")).unwrap();
    symlink(&outside, volume.join("planted-absolute")).unwrap();
    symlink("..", volume.join("planted-folder")).unwrap();
    symlink("/", volume.join("planted-root")).unwrap();
    let mut grant = with_volume("escape", Mode::ReadWrite);
    let target = outside.canonicalize().unwrap();
    grant
        .env
        .insert("TARGET".to_owned(), target.to_str().unwrap().to_owned());
    assert_eq!(device.outcome(&guests::hostile_job(), &grant), Ok(()));
    assert_eq!(std::fs::read(&outside).unwrap(), b"secret");
    let mut beside: Vec<_> = std::fs::read_dir(volume.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    beside.sort();
    assert_eq!(beside, ["secret", "state"], "nothing was made or moved outside");
    device.serves_others();
}

/// Somebody else puts things into a folder that the ceiling maps as a volume: one of each kind that is no file, what leads to them, and
/// a second name of a file of his. (The outcome is the call's own: one that waits for a FIFO ends as `wall-limit` instead.)
#[test]
fn what_is_no_file_in_a_folder_of_the_devices_own_is_neither_opened_nor_waited_for() {
    let mut device = Device::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().join("mapped");
    std::fs::create_dir(&folder).unwrap();
    let theirs = elsewhere.path().join("theirs");
    std::fs::write(&theirs, "theirs").unwrap();
    std::fs::write(folder.join("kept"), "kept").unwrap();
    let node = |name: &str, kind, number| {
        rustix::fs::mknodat(rustix::fs::CWD, folder.join(name), kind, 0o666.into(), number)
    };
    node("fifo", FileType::Fifo, 0).unwrap();
    symlink("fifo", folder.join("link-to-fifo")).unwrap();
    drop(UnixListener::bind(folder.join("socket")).unwrap());
    symlink("/dev/zero", folder.join("link-to-device")).unwrap();
    symlink("../theirs", folder.join("link")).unwrap();
    std::fs::hard_link(&theirs, folder.join("second-name")).unwrap();
    // Only root makes devices; everything else is there for everybody.
    let device_node = node("device", FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    assert!(device_node.is_ok() || !rustix::process::geteuid().is_root());
    if device_node.is_ok() {
        symlink("device", folder.join("link-to-device-inside")).unwrap();
    }
    let planted = std::fs::read_dir(&folder).unwrap().count() - 1;
    let mut grant = with_volume("open-what-is-no-file", Mode::ReadWrite);
    grant.fs[0].host = Some(folder.to_str().unwrap().to_owned());
    grant.env.insert("TARGET".to_owned(), planted.to_string());
    assert_eq!(device.outcome(&guests::hostile_job(), &grant), Ok(()));
    assert_eq!(std::fs::read(&theirs).unwrap(), b"theirs");
    assert_eq!(std::fs::read(folder.join("new")).unwrap(), b"x");
    device.serves_others();
    // Nothing of it is left waiting.
    device.end();
}
