//! The release repository as this server keeps it: signed by others, served byte for byte; only the timestamp is its own.

use crate::error::Refused;
use crate::fleet::{Fleet, State};
use redan_protocol::{Code, Seconds, UnixSeconds};
use redan_publish::SigningKey;
use redan_publish::metadata::{sign, timestamp};
use redan_trust::lookup::LookupStep;
use redan_trust::metadata::{Metadata as _, Snapshot, Targets, file_name};
use redan_trust::{Answer, Claimed, Refresh, Repository, Step, Target, Trusted};
use std::collections::{BTreeMap, BTreeSet};

/// Release timestamps live 48 hours (10-trust), and are made anew after a quarter of that.
const TIMESTAMP_LIFE: Seconds = Seconds::new(48 * 3600);
/// Age at which a timestamp is made anew.
const TIMESTAMP_RENEW: Seconds = Seconds::new(12 * 3600);
/// Most files in one upload. Tripped by `names_that_are_no_metadata_files_are_refused`.
pub const FILES_MAX: usize = 64;

/// Metadata by file name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What an upload is walked from, and who signs the timestamp for it.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'a> {
    /// The pinned root: `1.root.json`.
    pub first_root: &'a str,
    /// The timestamp's key.
    pub timestamp: &'a SigningKey,
}

/// Verifies an upload as a device would, from the pinned root, with the timestamp this server would sign for it. Gives all files
/// to store, the new timestamp among them; nothing was changed yet.
pub fn accept(by: Signing<'_>, present: &Files, uploaded: Files, now: UnixSeconds) -> Result<Files, Refused> {
    for name in uploaded.keys() {
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-%".contains(&b));
        if !plain || name.strip_suffix(".json").is_none() || name == "timestamp.json" || name.contains("..") {
            return Err(Refused::because(
                Code::BadRequest,
                format!("{name:?} is not a metadata file to upload"),
            ));
        }
        if let Some(old) = present.get(name)
            && Some(old) != uploaded.get(name)
        {
            let detail = format!("{name} exists with other bytes; sign a higher version");
            return Err(Refused::because(Code::Conflict, detail));
        }
    }
    let newest = |files: &Files| -> Option<(u64, Vec<u8>)> {
        let snapshots = files.iter().filter_map(|(name, bytes)| {
            let version = name.strip_suffix(".snapshot.json")?.parse::<u64>().ok()?;
            Some((version, bytes.clone()))
        });
        snapshots.max_by_key(|(version, _)| *version)
    };
    let mut files = present.clone();
    files.extend(uploaded.clone());
    let (version, snapshot) = newest(&files).ok_or_else(|| {
        Refused::because(
            Code::BadRequest,
            "the upload has no snapshot and there is none yet",
        )
    })?;
    // A new root needs no new snapshot, unless it changes whose signature that needs: then the walk says so.
    let new_root = uploaded
        .keys()
        .any(|name| name.ends_with(".root.json") && !present.contains_key(name));
    if !new_root && newest(present).is_some_and(|(old, _)| old >= version) {
        let detail = "the upload has no newer snapshot; fetch the present metadata and sign again";
        return Err(Refused::because(Code::Conflict, detail));
    }
    let bytes = next_timestamp(by, present, (version, &snapshot), now)?;
    files.insert("timestamp.json".into(), bytes.clone());
    verify(by, present, &files, &uploaded, now)?;
    let mut accepted = uploaded;
    accepted.insert("timestamp.json".into(), bytes);
    Ok(accepted)
}

/// What the served timestamp says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamp {
    /// Its version; 0 before the first.
    pub(crate) version: u64,
    expires: UnixSeconds,
    snapshot: Option<u64>,
}

impl State {
    /// Reads the served timestamp, once for each: every check-in asks.
    pub(crate) fn stamp(&mut self) -> Stamp {
        let Some(bytes) = self.release.get("timestamp.json") else {
            return Stamp::default();
        };
        if let Some((read, stamp)) = &self.stamp
            && read == bytes
        {
            return *stamp;
        }
        let parsed = Claimed::<redan_trust::metadata::Timestamp>::parse(bytes);
        let stamp = parsed.map_or_else(
            |_| Stamp::default(),
            |claimed| Stamp {
                version: claimed.peek().version(),
                expires: claimed.peek().expires(),
                snapshot: claimed.peek().snapshot().map(|entry| entry.version),
            },
        );
        self.stamp = Some((bytes.clone(), stamp));
        stamp
    }
}

/// A timestamp that is due to be made anew.
pub fn renewed(fleet: &Fleet, state: &mut State, now: UnixSeconds) -> Option<Result<Vec<u8>, Refused>> {
    let stamp = state.stamp();
    let left = stamp.expires.get().saturating_sub(now.get());
    if left > TIMESTAMP_LIFE.get().saturating_sub(TIMESTAMP_RENEW.get()) {
        return None;
    }
    let version = stamp.snapshot?;
    let snapshot = state.release.get(&file_name("snapshot", Some(version)))?;
    let held = fleet.held();
    Some(next_timestamp(
        fleet.signing(&held.keys),
        &state.release,
        (version, snapshot),
        now,
    ))
}

fn next_timestamp(
    by: Signing<'_>,
    present: &Files,
    snapshot: (u64, &[u8]),
    now: UnixSeconds,
) -> Result<Vec<u8>, Refused> {
    let version = timestamp_version(present).saturating_add(1);
    let signed = timestamp(version, now.after(TIMESTAMP_LIFE), snapshot)?;
    Ok(sign(&signed, &[by.timestamp])?)
}

/// Version of the timestamp that is served; 0 before the first.
pub fn timestamp_version(files: &Files) -> u64 {
    let parsed = files
        .get("timestamp.json")
        .map(|bytes| Claimed::<redan_trust::metadata::Timestamp>::parse(bytes));
    parsed
        .and_then(Result::ok)
        .map_or(0, |claimed| claimed.peek().version())
}

/// The newest version of a role's file that the served snapshot lists.
pub fn current_role(files: &Files, role: &str) -> Option<(u64, Targets)> {
    let timestamp = Claimed::<redan_trust::metadata::Timestamp>::parse(files.get("timestamp.json")?).ok()?;
    let version = timestamp.peek().snapshot()?.version;
    let snapshot = Claimed::<Snapshot>::parse(files.get(&file_name("snapshot", Some(version)))?).ok()?;
    let version = snapshot.peek().meta.get(&format!("{role}.json"))?.version;
    let targets = Claimed::<Targets>::parse(files.get(&file_name(role, Some(version)))?).ok()?;
    Some((version, targets.into_peeked()))
}

/// Walks the whole repository over the files at hand: roots, timestamp, snapshot, targets, and every delegated role that was
/// uploaded, through the very lookups devices make.
fn verify(
    by: Signing<'_>,
    present: &Files,
    files: &Files,
    uploaded: &Files,
    now: UnixSeconds,
) -> Result<(), Refused> {
    let refuse = |error: redan_trust::TufError| Refused::because(error.code(), error.to_string());
    let old_snapshot = present
        .get("timestamp.json")
        .and_then(|bytes| Claimed::<redan_trust::metadata::Timestamp>::parse(bytes).ok())
        .and_then(|claimed| Some(claimed.peek().snapshot()?.version))
        .and_then(|version| present.get(&file_name("snapshot", Some(version))).cloned());
    let trusted = Trusted {
        root: by.first_root.as_bytes().to_vec(),
        timestamp: present.get("timestamp.json").cloned(),
        snapshot: old_snapshot,
        targets: BTreeMap::new(),
        versions: None,
    };
    let mut refresh = Refresh::new(trusted, now).map_err(refuse)?;
    let mut answer = None;
    loop {
        match refresh.step(answer.take()).map_err(refuse)? {
            Step::Fetch { path, .. } => answer = Some(found(files, &path)),
            Step::Store { .. } | Step::Remove { .. } => answer = Some(Answer::Stored),
            Step::Done => break,
        }
    }
    let mut repository = refresh.finish().map_err(refuse)?;
    refuse_unnamed(&repository, present, uploaded)?;
    let listed: Vec<String> = repository.snapshot().meta.keys().cloned().collect();
    for file in listed {
        let role = file.trim_end_matches(".json");
        if role == "targets" {
            continue;
        }
        let Some((version, targets)) = current_role(files, role) else {
            return Err(Refused::because(
                Code::MetadataInvalid,
                format!("{file} is listed but was not uploaded"),
            ));
        };
        let new = uploaded.contains_key(&file_name(role, Some(version)));
        let probe = probe(&repository, role)?;
        match search(&mut repository, files, &probe) {
            // A role that ran out stops its own paths; it must not stop everybody else's uploads too.
            Err(redan_trust::TufError::Expired { .. }) if !new => continue,
            searched => searched.map_err(refuse)?,
        };
        for path in targets.targets.keys().filter(|_| new) {
            let target = search(&mut repository, files, path).map_err(refuse)?;
            if target.is_none_or(|target| target.roles.last().is_none_or(|last| last != role)) {
                let detail = format!("{path} is listed by role {role}, which is not trusted for it");
                return Err(Refused::because(Code::NotReleased, detail));
            }
        }
    }
    Ok(())
}

/// A file nobody's signature leads to would keep its name from the file that is signed for it later.
fn refuse_unnamed(repository: &Repository, present: &Files, uploaded: &Files) -> Result<(), Refused> {
    let mut named: BTreeSet<String> = (1..=repository.root().version())
        .map(|version| file_name("root", Some(version)))
        .collect();
    named.insert(file_name("snapshot", Some(repository.snapshot_version())));
    for (file, entry) in &repository.snapshot().meta {
        let role = file.trim_end_matches(".json");
        named.insert(file_name(role, Some(entry.version)));
    }
    let stray = uploaded
        .keys()
        .find(|name| !named.contains(*name) && !present.contains_key(*name));
    match stray {
        Some(name) => {
            let detail = format!("{name} is not named by the roots and the snapshot of this upload");
            Err(Refused::because(Code::BadRequest, detail))
        }
        None => Ok(()),
    }
}

/// A path a role is trusted for: looking it up verifies the role's own signatures, also when it lists nothing.
fn probe(repository: &Repository, role: &str) -> Result<String, Refused> {
    let delegations = repository.targets().delegations.as_ref();
    let delegated =
        delegations.and_then(|delegations| delegations.roles.iter().find(|delegated| delegated.name == role));
    let pattern = delegated.and_then(|delegated| delegated.paths.as_ref()?.first());
    let nobody = || {
        let detail = format!("role {role} is listed, but the targets role delegates no paths to it");
        Refused::because(Code::NotReleased, detail)
    };
    Ok(pattern.ok_or_else(nobody)?.replace(['*', '?'], "x"))
}

/// Looks a target up as devices do.
fn search(
    repository: &mut Repository,
    files: &Files,
    path: &str,
) -> Result<Option<Target>, redan_trust::TufError> {
    let mut lookup = repository.lookup(path);
    let mut answer = None;
    loop {
        match lookup.step(answer.take())? {
            LookupStep::Do(Step::Fetch { path, .. }) => answer = Some(found(files, &path)),
            LookupStep::Do(_) => answer = Some(Answer::Stored),
            LookupStep::Found(target) => return Ok(Some(target)),
            LookupStep::NotFound => return Ok(None),
        }
    }
}

fn found(files: &Files, path: &str) -> Answer {
    files
        .get(path)
        .map_or(Answer::Absent, |bytes| Answer::Bytes(bytes.clone()))
}
