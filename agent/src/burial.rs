//! What a decommissioned device does: wipes its state folder and leaves a tombstone (decision 0011).
//!
//! ```text
//! begin: tombstone durable ─▶ keys, then all else, entry by entry ─▶ tombstone and lock are left
//!                         ▲                                   │
//!                         └── next start, after a power cut ──┘
//! ```
//!
//! Nothing is removed before the tombstone is durable, and from then on nothing but removing is done: `run`, `status`, `init` and
//! `enrol` say what happened. Links are removed and never followed, so nothing outside the folder is touched.

use crate::AgentError;
use crate::disk::{Disk, RealDisk, is_full, replace};
use crate::held::{Tokens, Vault, token_of, tpm_of};
use crate::lock::StateLock;
use redan_identity::Zeroizing;
use redan_identity::tpm::Counter;
use redan_protocol::{ByteCount, Digest, SpiffeId};
use redan_trust::Decommissioned;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The tombstone, in the state folder.
const TOMBSTONE: &str = "decommissioned.json";
/// Where its room is kept: a file of blanks.
const ROOM: &str = "reserve";
/// What stays: the tombstone, and the lock that says that somebody is at work here.
const STAYS: [&str; 2] = [TOMBSTONE, "lock"];
/// What goes first: the keys.
const FIRST: &str = "identity";
/// Largest file that holds a key or names one, bytes.
const KEY_LEN_MAX: ByteCount = ByteCount::kib(64);
/// Largest tombstone, bytes.
const TOMBSTONE_LEN_MAX: ByteCount = ByteCount::kib(4);

/// What is left to be said.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tombstone {
    schema: TombstoneSchema,
    /// Who the device was.
    id: SpiffeId,
    /// SHA-256 of the order.
    order: Digest,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
enum TombstoneSchema {
    #[serde(rename = "redan.tombstone/1")]
    V1,
}

/// Ends this device. Only with the policy signers' proof. The caller holds the folder's lock.
pub(crate) fn begin(state: &Path, proof: &Decommissioned) -> AgentError {
    tracing::error!(id = %proof.device(), order = %proof.order(), "decommissioned by the fleet's policy signers: wiping this device");
    let tombstone = Tombstone {
        schema: TombstoneSchema::V1,
        id: proof.device().clone(),
        order: proof.order(),
    };
    let path = state.join(TOMBSTONE);
    let written = serde_json::to_vec(&tombstone)
        .map_err(io::Error::from)
        .and_then(|bytes| put(&RealDisk, state, &bytes));
    if let Err(source) = written {
        return AgentError::file("write", &path, source);
    }
    uncount(state, &tombstone.id);
    if let Err(error) = wipe(state, &Tokens, &mut remove) {
        return error;
    }
    gone(state, tombstone)
}

/// Makes the room that a tombstone takes, while there is some. A disk that others fill up later keeps no device from its end (attack
/// D04).
pub(crate) fn make_room(disk: &impl Disk, state: &Path) -> io::Result<()> {
    let path = state.join(ROOM);
    disk.overwrite(&path, &[], TOMBSTONE_LEN_MAX)?;
    disk.sync(&path)
}

/// Makes a tombstone durable; on a full disk in the room that was made for it.
fn put(disk: &impl Disk, state: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = state.join(TOMBSTONE);
    match replace(disk, &path, bytes) {
        Err(error) if is_full(&error) => {
            let room = state.join(ROOM);
            disk.overwrite(&room, bytes, ByteCount::new(0))?;
            disk.sync(&room)?;
            disk.rename(&room, &path)?;
            disk.sync_folder(state)
        }
        written => written,
    }
}

/// Whether this folder is that of a decommissioned device; changes nothing.
pub(crate) fn look(state: &Path) -> Result<(), AgentError> {
    match read(state)? {
        Some(tombstone) => Err(gone(state, tombstone)),
        None => Ok(()),
    }
}

/// Refuses to start a device that was decommissioned, and finishes what a power cut or a process that still wrote left of it. To be
/// called when none of its processes runs.
pub fn refuse_decommissioned(state: &Path) -> Result<(), AgentError> {
    let Some(tombstone) = read(state)? else {
        return Ok(());
    };
    let _lock = StateLock::take(state)?;
    uncount(state, &tombstone.id);
    wipe(state, &Tokens, &mut remove)?;
    Err(gone(state, tombstone))
}

fn gone(state: &Path, tombstone: Tombstone) -> AgentError {
    AgentError::Decommissioned {
        state: state.to_owned(),
        id: tombstone.id,
    }
}

fn read(state: &Path) -> Result<Option<Tombstone>, AgentError> {
    let path = state.join(TOMBSTONE);
    let failed = |source| AgentError::file("read", &path, source);
    let bytes = match RealDisk.read(&path, TOMBSTONE_LEN_MAX) {
        // No state folder at all is no tombstone either.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
        other => other.map_err(failed)?,
    };
    let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes));
    parsed
        .transpose()
        .map_err(|_| failed(io::ErrorKind::InvalidData.into()))
}

/// One removal of a file, a link or an empty folder: what a power cut may fall between.
type Remove<'a> = &'a mut dyn FnMut(&Path, bool) -> io::Result<()>;

fn remove(path: &Path, folder: bool) -> io::Result<()> {
    if folder {
        std::fs::remove_dir(path)
    } else {
        std::fs::remove_file(path)
    }
}

/// Gives the TPM the room of the counter back. Keys and secrets are not in it, and a counter is none: a TPM that is gone holds nothing up.
fn uncount(state: &Path, id: &SpiffeId) {
    let text = RealDisk.read(&state.join("identity/key.pem"), KEY_LEN_MAX);
    let text = text
        .ok()
        .flatten()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.map(Zeroizing::new);
    let Some(address) = text.and_then(|text| tpm_of(&text).ok().flatten()) else {
        return;
    };
    if let Err(error) = Counter::of(&address, &id.to_string()).remove() {
        tracing::warn!(
            code = error.code().name(),
            "the counter stays in the TPM: {error}"
        );
    }
}

/// Destroys the keys that are in a token. They go before their names do, or nobody would find them again.
fn destroy(state: &Path, vault: &impl Vault) -> Result<(), AgentError> {
    for name in ["identity/key.pem", "identity/next/key.pem", "identity/replaced"] {
        let path = state.join(name);
        let bytes = RealDisk.read(&path, KEY_LEN_MAX);
        let bytes = bytes.map_err(|source| AgentError::file("read", &path, source))?;
        let text = bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(Zeroizing::new);
        // A file that names no key names none to destroy.
        let Some(uri) = text.and_then(|text| token_of(&text).ok().flatten()) else {
            continue;
        };
        vault.destroy(&uri)?;
    }
    Ok(())
}

fn wipe(state: &Path, vault: &impl Vault, remove: Remove<'_>) -> Result<(), AgentError> {
    // A token that is not there does not keep the rest alive; its keys' names stay, and the next start asks it again.
    let destroyed = destroy(state, vault);
    let failed = |source| AgentError::file("wipe", state, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(state).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.retain(|name| !STAYS.iter().any(|stays| name == stays));
    names.retain(|name| destroyed.is_ok() || name != FIRST);
    names.sort_by_key(|name| name != FIRST);
    for name in names {
        let path = state.join(name);
        clear(&path, remove).map_err(|source| AgentError::file("wipe", &path, source))?;
        RealDisk.sync_folder(state).map_err(failed)?;
    }
    destroyed
}

/// Removes a file, a link as what it is, or a folder with all in it.
fn clear(path: &Path, remove: Remove<'_>) -> io::Result<()> {
    let folder = std::fs::symlink_metadata(path)?.is_dir();
    if folder {
        for entry in std::fs::read_dir(path)? {
            clear(&entry?.path(), remove)?;
        }
    }
    remove(path, folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::faulty::FaultyDisk;
    use crate::disk::without_blanks;
    use crate::store::Store;
    use redan_identity::{IdentityError, KeyProvider, TokenUri};
    use std::cell::RefCell;
    use std::sync::Arc;

    /// Somebody fills the disk before any call of the burial.
    #[test]
    fn a_full_disk_keeps_no_device_from_its_end() {
        let state = Path::new("state");
        let tombstone = br#"{"schema":"redan.tombstone/1"}"#;
        for at in 0..8 {
            let disk = FaultyDisk::default();
            make_room(&disk, state).unwrap();
            make_room(&disk, state).unwrap();
            let disk = disk.full_from(at);
            put(&disk, state, tombstone).unwrap();
            let disk = disk.power_cycle(false);
            let kept = disk.read(&state.join(TOMBSTONE), TOMBSTONE_LEN_MAX).unwrap();
            let kept = kept.unwrap();
            assert_eq!(without_blanks(&kept), tombstone, "call {at}");
            assert!(
                serde_json::from_slice::<serde_json::Value>(&kept).is_ok(),
                "blanks are no JSON"
            );
        }
        let disk = FaultyDisk::default().full_from(0);
        let error = put(&disk, state, tombstone).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "without the room");
    }

    /// A device's folder with a bit of everything, and a link that leads out of it.
    fn lived_in(outside: &Path) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        store.key().unwrap();
        store.seal_key().unwrap();
        for file in [
            "trust/a",
            "journal/b",
            "blobs/x",
            "metadata/release/root.json",
            "admin.sock",
            "lock",
        ] {
            store.keep(file, b"x").unwrap();
        }
        std::fs::create_dir_all(store.at("data/acme/kv")).unwrap();
        store.keep("data/acme/kv/readings", b"secret").unwrap();
        std::os::unix::fs::symlink(outside, store.at("data/acme/away")).unwrap();
        std::os::unix::fs::symlink(outside.join("file"), store.at("blobs/link")).unwrap();
        folder
    }

    fn left(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn bury(folder: &Path) {
        let tombstone = Tombstone {
            schema: TombstoneSchema::V1,
            id: SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap(),
            order: Digest::of(b"order"),
        };
        let bytes = serde_json::to_vec(&tombstone).unwrap();
        replace(&RealDisk, &folder.join(TOMBSTONE), &bytes).unwrap();
    }

    #[test]
    fn a_wipe_that_is_cut_anywhere_is_finished_at_the_next_start_and_touches_nothing_outside() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("file"), b"not ours").unwrap();
        let mut cuts = 0;
        for cut in 0.. {
            let folder = lived_in(outside.path());
            bury(folder.path());
            let mut calls = 0;
            let mut until = |path: &Path, is_folder: bool| {
                calls += 1;
                if calls > cut {
                    return Err(io::Error::other("power cut"));
                }
                remove(path, is_folder)
            };
            let whole = wipe(folder.path(), &Tokens, &mut until).is_ok();
            if cut >= 5 {
                assert!(
                    !folder.path().join("identity/key.pem").exists(),
                    "the keys go first"
                );
            }
            assert!(matches!(
                look(folder.path()),
                Err(AgentError::Decommissioned { .. })
            ));
            let error = refuse_decommissioned(folder.path()).unwrap_err();
            assert!(matches!(error, AgentError::Decommissioned { .. }), "{error}");
            assert_eq!(left(folder.path()), ["decommissioned.json", "lock"]);
            assert_eq!(std::fs::read(outside.path().join("file")).unwrap(), b"not ours");
            cuts = cut;
            if whole {
                break;
            }
        }
        assert!(cuts > 15, "{cuts} removals");
    }

    #[test]
    fn a_tpm_that_is_gone_does_not_keep_what_it_sealed_alive() {
        let outside = tempfile::tempdir().unwrap();
        let folder = lived_in(outside.path());
        bury(folder.path());
        let blob = "tpm:/nowhere?public=00&private=00\n";
        std::fs::write(folder.path().join("identity/key.pem"), blob).unwrap();
        let error = refuse_decommissioned(folder.path()).unwrap_err();
        assert!(matches!(error, AgentError::Decommissioned { .. }), "{error}");
        assert_eq!(left(folder.path()), ["decommissioned.json", "lock"]);
    }

    #[test]
    fn without_a_tombstone_nothing_is_wiped() {
        let outside = tempfile::tempdir().unwrap();
        let folder = lived_in(outside.path());
        let before = left(folder.path());
        refuse_decommissioned(folder.path()).unwrap();
        look(folder.path()).unwrap();
        assert_eq!(left(folder.path()), before);
        refuse_decommissioned(&folder.path().join("nowhere")).unwrap();
    }

    /// A token: what was destroyed in it, and whether it is plugged in.
    #[derive(Default)]
    struct Token {
        there: bool,
        destroyed: RefCell<Vec<String>>,
    }

    impl Vault for Token {
        fn open(&self, _: &TokenUri) -> Result<Arc<dyn KeyProvider>, IdentityError> {
            Err(IdentityError::KeyMismatch)
        }

        fn make(&self, _: &TokenUri) -> Result<Arc<dyn KeyProvider>, IdentityError> {
            Err(IdentityError::KeyMismatch)
        }

        fn destroy(&self, uri: &TokenUri) -> Result<(), IdentityError> {
            if !self.there {
                return Err(IdentityError::KeyMismatch);
            }
            self.destroyed.borrow_mut().push(uri.object().to_owned());
            Ok(())
        }
    }

    #[test]
    fn keys_in_a_token_are_destroyed_before_their_names_go() {
        let outside = tempfile::tempdir().unwrap();
        let folder = lived_in(outside.path());
        bury(folder.path());
        for (file, object) in [
            ("key.pem", "press"),
            ("next/key.pem", "press~2"),
            ("replaced", "press~1"),
        ] {
            let uri = format!("pkcs11:token=t;object={object}?module-path=/m.so&pin-source=file:/pin\n");
            std::fs::write(folder.path().join("identity").join(file), uri).unwrap();
        }
        let mut token = Token::default();
        let error = wipe(folder.path(), &token, &mut remove).unwrap_err();
        assert!(
            matches!(error, AgentError::Identity(IdentityError::KeyMismatch)),
            "{error}"
        );
        assert_eq!(left(folder.path()), ["decommissioned.json", "identity", "lock"]);
        token.there = true;
        wipe(folder.path(), &token, &mut remove).unwrap();
        assert_eq!(*token.destroyed.borrow(), ["press", "press~2", "press~1"]);
        assert_eq!(left(folder.path()), ["decommissioned.json", "lock"]);
    }

    #[test]
    fn a_tombstone_that_does_not_read_starts_nothing_and_wipes_nothing() {
        let outside = tempfile::tempdir().unwrap();
        let folder = lived_in(outside.path());
        std::fs::write(folder.path().join(TOMBSTONE), b"{}").unwrap();
        let error = refuse_decommissioned(folder.path()).unwrap_err();
        assert!(matches!(error, AgentError::File { what: "read", .. }), "{error}");
        assert!(folder.path().join("identity/key.pem").exists());
    }
}
