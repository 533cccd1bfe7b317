//! A device: it stores what it trusts, and takes what `redan-trust` takes.

use crate::room::Room;
use redan_protocol::UnixSeconds;
use redan_publish::SigningKey;
use redan_publish::metadata::{sign, timestamp};
use redan_trust::lookup::LookupStep;
use redan_trust::{Answer, Refresh, Repository, Step, Target, Trusted, TufError};
use std::collections::BTreeMap;

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) struct Device {
    trusted: Trusted,
}

pub(crate) fn now() -> UnixSeconds {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixSeconds::new(now.unwrap().as_secs())
}

pub(crate) fn tomorrow() -> UnixSeconds {
    UnixSeconds::new(now().get() + 86_400)
}

/// What a server has: the ceremony's release files, and a timestamp it signs with a key for a snapshot.
pub(crate) fn served(room: &Room, key: &SigningKey, version: u64, snapshot: u64) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(room.path("fleet/public/release")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        files.insert(name, std::fs::read(&path).unwrap());
    }
    let named = &files[&format!("{snapshot}.snapshot.json")];
    let signed = timestamp(version, tomorrow(), (snapshot, named)).unwrap();
    files.insert("timestamp.json".into(), sign(&signed, &[key]).unwrap());
    files
}

impl Device {
    /// One that was enrolled with the first root.
    pub(crate) fn enrolled(first: Vec<u8>) -> Self {
        let trusted = Trusted {
            root: first,
            ..Trusted::default()
        };
        Self { trusted }
    }

    pub(crate) fn refresh(&mut self, files: &Files) -> Result<Repository, TufError> {
        self.walk(Refresh::new(self.trusted.clone(), now())?, files)
    }

    /// The same from a folder that was carried to it (decision 0007).
    pub(crate) fn refresh_from_stick(&mut self, files: &Files) -> Result<Repository, TufError> {
        self.walk(Refresh::carried(self.trusted.clone(), now())?, files)
    }

    fn walk(&mut self, mut refresh: Refresh, files: &Files) -> Result<Repository, TufError> {
        let mut answer = None;
        loop {
            match refresh.step(answer.take())? {
                Step::Fetch { path, .. } => answer = Some(found(files, &path)),
                Step::Store { role, bytes } => {
                    match role.as_str() {
                        "root" => self.trusted.root = bytes,
                        "timestamp" => self.trusted.timestamp = Some(bytes),
                        "snapshot" => self.trusted.snapshot = Some(bytes),
                        _ => drop(self.trusted.targets.insert(role, bytes)),
                    }
                    answer = Some(Answer::Stored);
                }
                Step::Remove { role } => {
                    match role.as_str() {
                        "timestamp" => self.trusted.timestamp = None,
                        _ => self.trusted.snapshot = None,
                    }
                    answer = Some(Answer::Stored);
                }
                Step::Done => return refresh.finish(),
            }
        }
    }
}

pub(crate) fn target(repository: &mut Repository, files: &Files, path: &str) -> Option<Target> {
    let mut lookup = repository.lookup(path);
    let mut answer = None;
    loop {
        match lookup.step(answer.take()).unwrap() {
            LookupStep::Do(Step::Fetch { path, .. }) => answer = Some(found(files, &path)),
            LookupStep::Do(_) => answer = Some(Answer::Stored),
            LookupStep::Found(target) => return Some(target),
            LookupStep::NotFound => return None,
        }
    }
}

fn found(files: &Files, path: &str) -> Answer {
    files
        .get(path)
        .map_or(Answer::Absent, |bytes| Answer::Bytes(bytes.clone()))
}
