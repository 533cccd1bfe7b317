//! Volumes: quota, mode, and no way out.

use crate::device::Device;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::Mode;
use redan_protocol::Code;
use std::os::unix::fs::symlink;

fn with_volume(attack: &str, mode: Mode) -> EffectiveGrant {
    let mut grant = grants::job(attack);
    grant.fs.push(grants::volume(mode));
    grant
}

#[test]
fn a_volume_over_its_bytes_or_files_ends_the_call_and_is_read_only_afterwards() {
    for attack in ["fill-volume", "many-files"] {
        let mut device = Device::start();
        let job = guests::hostile_job();
        let outcome = device.outcome(&job, &with_volume(attack, Mode::ReadWrite));
        assert_eq!(outcome, Err(Code::VolumeQuota), "{attack}");
        let more = with_volume("write-volume", Mode::ReadWrite);
        assert_eq!(device.outcome(&job, &more), Err(Code::JobFailed), "{attack}");
        assert!(!device.volume("hostile").join("more").exists());
        std::fs::remove_dir_all(device.volume("hostile")).unwrap();
        device.volume("hostile");
        assert_eq!(device.outcome(&job, &more), Ok(()), "{attack}");
        device.serves_others();
    }
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
