//! What this machine has seen of each fleet's audit log (decision 0022). The server alone could write its history anew, chain and all;
//! somebody else who holds one head of it makes that show. So every command that reaches a server holds the log to the head kept here,
//! and keeps the newer one.

use crate::error::CliError;
use redan_identity::key::write_private;
use redan_protocol::audit::{Head, Walk};
use redan_protocol::wire::AUDIT_PAGE_MAX;
use redan_protocol::{ByteCount, Digest, FleetId, Seconds, UnixSeconds};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Largest kept head, bytes: what is written has under half of it.
const HEAD_LEN_MAX: ByteCount = ByteCount::kib(1);
/// A log that does not fit into one page is walked from its first entry no more often than this, and in between from the kept head on.
/// Old entries may then have been edited for so long before it shows.
const WALK_EVERY: Seconds = Seconds::new(86_400);
/// Digits of the first root's hash in a file's name: fleets of one name that were founded anew have a head each.
const ROOT_DIGITS: usize = 16;

/// The one schema of a kept head.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
enum Schema {
    #[serde(rename = "redan.head/1")]
    V1,
}

/// A kept head as it is on the disk.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    schema: Schema,
    fleet: FleetId,
    /// SHA-256 of the first release root: which fleet of that name.
    root: Digest,
    head: Head,
    /// When the log was last walked from its first entry.
    walked: UnixSeconds,
}

/// What is kept of one fleet.
#[derive(Debug)]
pub struct Witness {
    file: PathBuf,
    fleet: FleetId,
    root: Digest,
    kept: Option<Kept>,
}

/// Where heads are kept, if nobody says otherwise (XDG Base Directory Specification 0.8).
pub fn folder() -> Result<PathBuf, CliError> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("redan"))
        .ok_or_else(|| CliError::Usage {
            what: "there is no place to keep what was seen of the fleet's audit log".to_owned(),
            remedy: "give --state-dir, or set REDAN_STATE or HOME",
        })
}

impl Witness {
    /// Reads what is kept. A file that does not read is not taken for none: what the server did since it was whole would not show.
    pub fn open(folder: &Path, fleet: &FleetId, root: &[u8]) -> Result<Self, CliError> {
        let mut witness = Self::fresh(folder, fleet, root);
        witness.kept = witness.read()?;
        Ok(witness)
    }

    /// As if nothing was kept.
    pub fn fresh(folder: &Path, fleet: &FleetId, root: &[u8]) -> Self {
        let root = Digest::of(root);
        let digits = root.to_string();
        let digits = digits.get(..ROOT_DIGITS).unwrap_or_default();
        Self {
            file: folder.join(format!("{fleet}-{digits}.json")),
            fleet: fleet.clone(),
            root,
            kept: None,
        }
    }

    fn read(&self) -> Result<Option<Kept>, CliError> {
        let unreadable = || CliError::Head {
            path: self.file.display().to_string(),
        };
        let length = match self.file.symlink_metadata() {
            Ok(found) if found.is_file() => found.len(),
            Ok(_) => return Err(unreadable()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::file(&self.file, &error)),
        };
        if length > HEAD_LEN_MAX.get() {
            return Err(unreadable());
        }
        let bytes = std::fs::read(&self.file).map_err(|error| CliError::file(&self.file, &error))?;
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
        if kept.fleet != self.fleet || kept.root != self.root {
            return Err(unreadable());
        }
        Ok(Some(kept))
    }

    /// The newest head that was seen.
    pub fn head(&self) -> Option<Head> {
        self.kept.as_ref().map(|kept| kept.head)
    }

    /// Where it is kept.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How the log is looked at now, and whether from its first entry.
    pub fn walk(&self, now: UnixSeconds) -> (Walk, bool) {
        let on = self.kept.as_ref().filter(|kept| {
            // A clock that was set back is no reason to look away for longer.
            let lately = kept.walked <= now && now < kept.walked.after(WALK_EVERY);
            kept.head.index >= AUDIT_PAGE_MAX && lately
        });
        on.map_or((Walk::whole(self.head()), true), |kept| {
            (Walk::from(kept.head), false)
        })
    }

    /// Keeps a newer head. `walked`: it was reached from the first entry, just now. Another command may have kept a newer one still.
    pub fn keep(&mut self, head: Head, walked: Option<UnixSeconds>) -> Result<(), CliError> {
        let before = self.kept.as_ref();
        if before.is_some_and(|kept| kept.head == head && walked.is_none()) {
            return Ok(());
        }
        let _lock = self.lock()?;
        // Read once more: it may be another's. One that does not read is not ours to write over.
        let there = self.read()?;
        let newer = there.filter(|there| there.head.index > head.index);
        let head = newer.as_ref().map_or(head, |there| there.head);
        let last = newer
            .as_ref()
            .or(before)
            .map_or_else(UnixSeconds::default, |kept| kept.walked);
        self.write(head, walked.unwrap_or(last))
    }

    /// Takes a head in the place of one that no longer holds, and leaves that beside it.
    pub fn replace(&mut self, head: Head, now: UnixSeconds) -> Result<Option<PathBuf>, CliError> {
        let _lock = self.lock()?;
        let mut aside = None;
        if self.file.symlink_metadata().is_ok() {
            let path = self.file.with_extension(format!("replaced-{now}.json"));
            std::fs::rename(&self.file, &path).map_err(|error| CliError::file(&path, &error))?;
            aside = Some(path);
        }
        self.write(head, now)?;
        Ok(aside)
    }

    fn write(&mut self, head: Head, walked: UnixSeconds) -> Result<(), CliError> {
        let kept = Kept {
            schema: Schema::V1,
            fleet: self.fleet.clone(),
            root: self.root,
            head,
            walked,
        };
        let text = serde_json::to_vec(&kept).map_err(|_| CliError::Answer("a head to keep"))?;
        write_private(&self.file, &text)?;
        self.kept = Some(kept);
        Ok(())
    }

    /// Held by one command at a time; let go with the file.
    fn lock(&self) -> Result<File, CliError> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let path = folder.join("lock");
        let opened = (|| {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            let lock = File::options().create(true).append(true).open(&path)?;
            lock.lock()?;
            Ok(lock)
        })();
        opened.map_err(|error| CliError::file(&path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: UnixSeconds = UnixSeconds::new(1_800_000_000);

    fn fleet() -> FleetId {
        FleetId::parse("plant.example").unwrap()
    }

    fn head(index: u64) -> Head {
        Head {
            index,
            hash: Digest::of(&index.to_be_bytes()),
        }
    }

    fn opened(folder: &Path) -> Result<Witness, CliError> {
        Witness::open(folder, &fleet(), b"root")
    }

    #[test]
    fn a_head_is_kept_where_its_owner_alone_reads_it_and_for_one_fleet_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state/redan");
        let mut witness = opened(&folder).unwrap();
        assert_eq!(witness.head(), None);
        witness.keep(head(3), Some(NOW)).unwrap();
        let again = opened(&folder).unwrap();
        assert_eq!(again.head(), Some(head(3)));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(again.file()), mode(&folder)), (0o600, 0o700));
        // The same name founded anew, and another name: nothing was seen of them.
        assert_eq!(Witness::open(&folder, &fleet(), b"other").unwrap().head(), None);
        let other = FleetId::parse("other.example").unwrap();
        assert_eq!(Witness::open(&folder, &other, b"root").unwrap().head(), None);
    }

    #[test]
    fn of_two_commands_at_once_the_newer_head_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (mut slow, mut fast) = (opened(folder.path()).unwrap(), opened(folder.path()).unwrap());
        fast.keep(head(9), Some(NOW)).unwrap();
        slow.keep(head(5), Some(NOW)).unwrap();
        assert_eq!(opened(folder.path()).unwrap().head(), Some(head(9)));
    }

    #[test]
    fn a_kept_head_that_is_torn_anywhere_or_anothers_is_no_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut witness = opened(folder.path()).unwrap();
        witness.keep(head(3), Some(NOW)).unwrap();
        let file = witness.file().to_owned();
        let whole = std::fs::read(&file).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            let error = opened(folder.path()).unwrap_err();
            assert_eq!(error.because(), "head-unreadable");
            assert!(error.to_string().contains("plant.example"), "{error}");
            // Nor is it written over by a command that began before it was torn.
            let mut begun = Witness::fresh(folder.path(), &fleet(), b"root");
            assert_eq!(
                begun.keep(head(4), None).unwrap_err().because(),
                "head-unreadable"
            );
        };
        for length in 0..whole.len() {
            refused(&whole[..length]);
        }
        let mut more = whole.clone();
        more.insert(whole.len() - 1, b' ');
        more.extend(vec![b' '; usize::try_from(HEAD_LEN_MAX.get()).unwrap()]);
        refused(&more);
        let text = String::from_utf8(whole.clone()).unwrap();
        refused(text.replace("plant.example", "plant.another").as_bytes());
        refused(text.replacen('{', "{\"more\":1,", 1).as_bytes());
        refused(text.replace("redan.head/1", "redan.head/2").as_bytes());
        // A left-over of a power cut beside the whole one is nothing.
        std::fs::write(&file, &whole).unwrap();
        std::fs::write(file.with_extension("json.new"), &whole[..9]).unwrap();
        let mut witness = opened(folder.path()).unwrap();
        witness.keep(head(4), None).unwrap();
        assert_eq!(opened(folder.path()).unwrap().head(), Some(head(4)));
    }

    #[test]
    fn a_long_log_is_walked_whole_once_a_day_and_a_short_one_always() {
        let folder = tempfile::tempdir().unwrap();
        let mut witness = opened(folder.path()).unwrap();
        assert!(witness.walk(NOW).1, "the first time");
        witness.keep(head(AUDIT_PAGE_MAX - 1), Some(NOW)).unwrap();
        assert!(witness.walk(NOW).1, "a page holds it");
        witness.keep(head(AUDIT_PAGE_MAX), None).unwrap();
        let whole = |at: u64| opened(folder.path()).unwrap().walk(UnixSeconds::new(at)).1;
        assert!(!whole(NOW.get()) && !whole(NOW.get() + 86_399));
        assert!(whole(NOW.get() + 86_400));
        assert!(whole(NOW.get() - 1), "by a clock that was set back");
    }

    #[test]
    fn what_is_replaced_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut witness = opened(folder.path()).unwrap();
        witness.keep(head(9), Some(NOW)).unwrap();
        let before = std::fs::read(witness.file()).unwrap();
        let aside = witness.replace(head(2), NOW).unwrap().unwrap();
        assert_eq!(std::fs::read(aside).unwrap(), before);
        assert_eq!(opened(folder.path()).unwrap().head(), Some(head(2)));
    }
}
