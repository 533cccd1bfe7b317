//! Two readers of one repository.

use crate::release::{
    COMPONENT, Files, changed, component_path, device, directed, now, release, release_signed_by, rotated,
    undirected, write,
};
use redan_protocol::{Code, Digest};
use redan_trust::lookup::LookupStep;
use redan_trust::metadata::Metadata as _;
use redan_trust::{Answer, Refresh, Repository, Step, Target, Trusted, TufError};
use serde_json::json;
use std::collections::BTreeMap;
use tough::{RepositoryLoader, TargetName};

fn found(files: &Files, path: &str) -> Answer {
    files
        .get(path)
        .map_or(Answer::Absent, |bytes| Answer::Bytes(bytes.clone()))
}

/// As a device reads it, from the first root.
fn refresh(files: &Files) -> Result<Repository, TufError> {
    let trusted = Trusted {
        root: files["1.root.json"].clone(),
        timestamp: None,
        snapshot: None,
        targets: BTreeMap::new(),
        versions: None,
    };
    let mut refresh = Refresh::new(trusted, now())?;
    let mut answer = None;
    loop {
        match refresh.step(answer.take())? {
            Step::Fetch { path, .. } => answer = Some(found(files, &path)),
            Step::Store { .. } | Step::Remove { .. } => answer = Some(Answer::Stored),
            Step::Done => return refresh.finish(),
        }
    }
}

fn look_up(repository: &mut Repository, files: &Files, path: &str) -> Result<Option<Target>, TufError> {
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

/// As tough reads it, from the same first root.
fn with_tough(files: &Files) -> Result<tough::Repository, tough::error::Error> {
    let folder = tempfile::tempdir().unwrap();
    write(files, folder.path());
    let base = url(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(RepositoryLoader::new(&files["1.root.json"], base.clone(), base).load())
}

fn url(folder: &std::path::Path) -> url::Url {
    url::Url::from_directory_path(folder).unwrap()
}

#[test]
fn devices_find_a_published_component_through_its_own_role() {
    let files = release();
    let mut repository = refresh(&files).unwrap();
    assert_eq!(repository.timestamp_version(), 9);
    assert_eq!(repository.snapshot_version(), 5);
    let target = look_up(&mut repository, &files, &component_path())
        .unwrap()
        .unwrap();
    assert!(target.is(COMPONENT));
    assert_eq!(target.roles, ["targets", "component.acme.thermo"]);
    let other = component_path().replace("thermo", "other");
    assert!(look_up(&mut repository, &files, &other).unwrap().is_none());
}

#[test]
fn tough_finds_the_same_component() {
    let repository = with_tough(&release()).unwrap();
    assert_eq!(repository.timestamp().signed.version.get(), 9);
    assert_eq!(repository.snapshot().signed.version.get(), 5);
    let name = TargetName::new(component_path()).unwrap();
    let (_, target) = repository
        .all_targets()
        .find(|(found, _)| **found == name)
        .unwrap();
    assert_eq!(target.length, u64::try_from(COMPONENT.len()).unwrap());
    assert_eq!(target.hashes.sha256.to_vec(), Digest::of(COMPONENT).as_bytes());
}

#[test]
fn both_read_a_director_repository_that_directs_nothing_and_names_its_device() {
    let files = undirected();
    let repository = refresh(&files).unwrap();
    assert_eq!(repository.targets().device, Some(device()));
    assert!(with_tough(&files).unwrap().all_targets().next().is_none());
}

#[test]
fn both_refuse_a_file_that_was_changed_after_it_was_signed() {
    let files = release();
    let later = changed(&files, "timestamp.json", |signed| signed["version"] = json!(10));
    assert_eq!(refresh(&later).unwrap_err().code(), Code::ThresholdNotMet);
    assert_eq!(
        with_tough(&later).unwrap_err().to_string(),
        "Failed to verify timestamp metadata: Signature threshold of 1 not met for role timestamp (0 valid signatures)"
    );
}

#[test]
fn both_refuse_a_component_role_with_one_signature_of_two() {
    let files = release_signed_by(1);
    let mut repository = refresh(&files).unwrap();
    let refused = look_up(&mut repository, &files, &component_path());
    assert_eq!(refused.unwrap_err().code(), Code::ThresholdNotMet);
    assert_eq!(
        with_tough(&files).unwrap_err().to_string(),
        "Failed to verify targets metadata: Signature threshold of 2 not met for role targets (1 valid signatures)"
    );
}

#[test]
fn both_walk_from_the_first_root_to_the_next_when_both_thresholds_signed_it() {
    let files = rotated(true);
    assert_eq!(refresh(&files).unwrap().root().version(), 2);
    assert_eq!(with_tough(&files).unwrap().root().signed.version.get(), 2);
}

#[test]
fn both_refuse_a_next_root_that_the_first_ones_keys_did_not_sign() {
    let files = rotated(false);
    assert_eq!(refresh(&files).unwrap_err().code(), Code::ThresholdNotMet);
    assert_eq!(
        with_tough(&files).unwrap_err().to_string(),
        "Failed to verify root metadata: Signature threshold of 1 not met for role root (0 valid signatures)"
    );
}

#[test]
fn both_read_a_direction_with_its_record_byte_for_byte() {
    let (files, directed) = directed();
    let repository = refresh(&files).unwrap();
    let entry = repository.top_target(&directed.path).unwrap();
    assert_eq!(
        (entry.length, entry.sha256()),
        (directed.length, Some(directed.sha256))
    );
    let custom = serde_json::to_value(&directed.custom).unwrap();
    assert_eq!(entry.custom, Some(custom.clone()));
    let name = TargetName::new(&directed.path).unwrap();
    let tough = with_tough(&files).unwrap();
    let target = &tough.targets().signed.targets[&name];
    assert_eq!(target.hashes.sha256.to_vec(), directed.sha256.as_bytes());
    assert_eq!(json!(target.custom), custom);
}
