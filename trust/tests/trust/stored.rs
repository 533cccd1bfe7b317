//! Stored metadata that is garbled (attack T11): whatever is read, no older repository is believed.

use crate::maker::Repo;
use redan_trust::TufError;

#[test]
fn a_stored_file_with_any_byte_changed_brings_no_old_repository_back() {
    // The attacker changes one byte of the device's files, then replays an older repository.
    let mut repo = Repo::new();
    let old = repo.served.clone();
    repo.publish_next();
    let mut whole = repo.device();
    whole.refresh(&repo).unwrap();
    let new = std::mem::replace(&mut repo.served, old);
    let files = [
        whole.trusted.root.clone(),
        whole.trusted.timestamp.clone().unwrap(),
        whole.trusted.snapshot.clone().unwrap(),
    ];
    for (role, file) in files.iter().enumerate() {
        for at in 0..file.len() {
            let mut garbled = file.clone();
            garbled[at] ^= 1;
            let mut device = whole.clone();
            match role {
                0 => device.trusted.root = garbled,
                1 => {
                    // With the snapshot garbled as well: each would be a floor without the other.
                    device.trusted.timestamp = Some(garbled);
                    device.trusted.snapshot.as_mut().unwrap()[1] ^= 1;
                }
                _ => device.trusted.snapshot = Some(garbled),
            }
            let refused = device.refresh(&repo).unwrap_err();
            // Where the byte says nothing, the file is what it was, and the old repository is a rollback.
            let expected = matches!(
                refused,
                TufError::Damaged { .. } | TufError::Signatures { .. } | TufError::Rollback { .. }
            );
            assert!(expected, "file {role}, byte {at}: {refused}");
        }
    }
    repo.served = new;
    whole.refresh(&repo).unwrap();
}
