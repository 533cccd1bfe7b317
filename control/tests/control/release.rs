//! Uploads of signed metadata: walked as a device would walk them, all or none.

use crate::site::Site;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_protocol::{Code, UnixSeconds};
use redan_publish::SigningKey;
use redan_publish::metadata::{sign, target, targets};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) fn upload(files: &[(&str, Vec<u8>)]) -> Value {
    let files: BTreeMap<&str, String> = files
        .iter()
        .map(|(name, bytes)| (*name, STANDARD.encode(bytes)))
        .collect();
    json!({"files": files})
}

pub(crate) fn offline(site: &Site, purpose: &str) -> SigningKey {
    SigningKey::load(&site.founded().join("offline").join(format!("{purpose}.key.json"))).unwrap()
}

pub(crate) fn present(site: &Site, name: &str) -> Value {
    let bytes = std::fs::read(site.founded().join("public/release").join(name)).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn next_year() -> UnixSeconds {
    UnixSeconds::new(crate::site::now().get() + 80 * 86_400)
}

const DOCUMENT: &[u8] = b"schema = \"redan.policy/1\"";

/// The next policy role and the next snapshot that lists it.
fn next(site: &Site, policy: &SigningKey, snapshot: &SigningKey) -> Vec<(&'static str, Vec<u8>)> {
    let [role, snapped] = of_policy(site, 2, &[("policy/fleet.toml", DOCUMENT)], policy, snapshot);
    vec![("2.policy.json", role), ("2.snapshot.json", snapped)]
}

/// A version of the policy role with these targets, and the snapshot of the same version that lists it.
pub(crate) fn of_policy(
    site: &Site,
    version: u64,
    entries: &[(&str, &[u8])],
    policy: &SigningKey,
    snapshot: &SigningKey,
) -> [Vec<u8>; 2] {
    let none: Option<&Value> = None;
    let entry = |(path, bytes): &(&str, &[u8])| ((*path).to_owned(), target(bytes, none).unwrap());
    let entries: BTreeMap<_, _> = entries.iter().map(entry).collect();
    let role = sign(&targets(version, next_year(), &entries, &[]).unwrap(), &[policy]).unwrap();
    let mut signed = present(site, "1.snapshot.json")["signed"].take();
    signed["version"] = json!(version);
    let digest = redan_protocol::Digest::of(&role);
    signed["meta"]["policy.json"] =
        json!({"version": version, "length": role.len(), "hashes": {"sha256": digest}});
    let snapped = sign(&signed, &[snapshot]).unwrap();
    [role, snapped]
}

/// Publishes targets of the policy role as its signers do, from version 2 on.
pub(crate) async fn publish_policy(site: &Site, version: u64, entries: &[(&str, &[u8])]) {
    for (_, bytes) in entries {
        store(site, bytes).await;
    }
    let keys = ["release.policy-1", "release.snapshot-1"].map(|purpose| offline(site, purpose));
    let [role, snapped] = of_policy(site, version, entries, &keys[0], &keys[1]);
    let names = [
        format!("{version}.policy.json"),
        format!("{version}.snapshot.json"),
    ];
    let files = [(names[0].as_str(), role), (names[1].as_str(), snapped)];
    site.operator()
        .await
        .post("/v1/release", &upload(&files))
        .await
        .json();
}

pub(crate) async fn store(site: &Site, bytes: &[u8]) {
    let path = format!("/v1/artifacts/{}", redan_protocol::Digest::of(bytes));
    assert_eq!(
        site.operator()
            .await
            .ask("PUT", &path, bytes.to_vec())
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn signed_metadata_is_taken_once_its_bytes_are_here_and_served_unchanged() {
    let site = Site::open().await;
    let files = next(
        &site,
        &offline(&site, "release.policy-1"),
        &offline(&site, "release.snapshot-1"),
    );
    let mut operator = site.operator().await;
    let early = operator.post("/v1/release", &upload(&files)).await;
    assert_eq!(early.refusal(), (404, Code::ArtifactMissing));
    store(&site, DOCUMENT).await;
    operator.post("/v1/release", &upload(&files)).await.json();
    let mut device = site.device("press-1").await;
    for (name, bytes) in &files {
        assert_eq!(
            device.get(&format!("/tuf/release/{name}")).await.body,
            bytes[..],
            "{name}"
        );
    }
    let stamp = device.get("/tuf/release/timestamp.json").await.json();
    assert_eq!(stamp["signed"]["meta"]["snapshot.json"]["version"], 2);
    // Once more: nothing newer.
    let again = operator.post("/v1/release", &upload(&files)).await;
    assert_eq!(again.refusal(), (409, Code::Conflict));
}

#[tokio::test]
async fn metadata_signed_by_the_wrong_key_is_refused_and_nothing_changes() {
    let site = Site::open().await;
    store(&site, DOCUMENT).await;
    let (policy, snapshot) = (
        offline(&site, "release.policy-1"),
        offline(&site, "release.snapshot-1"),
    );
    let online = SigningKey::load(&site.founded().join("online/release.timestamp.key.json")).unwrap();
    let mut operator = site.operator().await;
    for (role, files) in [
        ("policy", next(&site, &online, &snapshot)),
        ("snapshot", next(&site, &policy, &online)),
    ] {
        let answer = operator.post("/v1/release", &upload(&files)).await;
        assert_eq!(answer.refusal(), (400, Code::ThresholdNotMet), "{role}");
    }
    let mut device = site.device("press-1").await;
    let stamp = device.get("/tuf/release/timestamp.json").await.json();
    assert_eq!(stamp["signed"]["meta"]["snapshot.json"]["version"], 1);
    operator
        .post("/v1/release", &upload(&next(&site, &policy, &snapshot)))
        .await
        .json();
}

#[tokio::test]
async fn a_role_that_lists_what_is_not_its_own_is_refused() {
    let site = Site::open().await;
    store(&site, DOCUMENT).await;
    let (policy, snapshot) = (
        offline(&site, "release.policy-1"),
        offline(&site, "release.snapshot-1"),
    );
    let none: Option<&Value> = None;
    let digest = redan_protocol::Digest::of(DOCUMENT);
    let path = format!("components/acme/thermo/9.9.9/{digest}.wasm");
    let entries = BTreeMap::from([(path, target(DOCUMENT, none).unwrap())]);
    let role = sign(&targets(2, next_year(), &entries, &[]).unwrap(), &[&policy]).unwrap();
    let mut files = next(&site, &policy, &snapshot);
    let mut signed: Value = serde_json::from_slice::<Value>(&files[1].1).unwrap()["signed"].take();
    signed["meta"]["policy.json"] =
        json!({"version": 2, "length": role.len(), "hashes": {"sha256": redan_protocol::Digest::of(&role)}});
    files = vec![
        ("2.policy.json", role),
        ("2.snapshot.json", sign(&signed, &[&snapshot]).unwrap()),
    ];
    let answer = site.operator().await.post("/v1/release", &upload(&files)).await;
    assert_eq!(answer.refusal(), (400, Code::NotReleased));
}

#[tokio::test]
async fn names_that_are_no_metadata_files_are_refused() {
    let site = Site::open().await;
    let mut operator = site.operator().await;
    for name in [
        "timestamp.json",
        "../online/server.json",
        "a/b.json",
        "root",
        "2.root.json\u{0}",
    ] {
        let answer = operator
            .post("/v1/release", &upload(&[(name, b"{}".to_vec())]))
            .await;
        assert_eq!(answer.refusal(), (400, Code::BadRequest), "{name:?}");
    }
    let bytes = operator
        .post("/v1/release", &upload(&[("1.root.json", b"{}".to_vec())]))
        .await;
    assert_eq!(
        bytes.refusal(),
        (409, Code::Conflict),
        "other bytes under a name that is taken"
    );
    let many: Vec<(String, Vec<u8>)> = (0..65).map(|n| (format!("{n}.x.json"), Vec::new())).collect();
    let many: Vec<(&str, Vec<u8>)> = many
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.clone()))
        .collect();
    assert_eq!(
        operator.post("/v1/release", &upload(&many)).await.refusal(),
        (413, Code::TooLarge)
    );
}

/// The next snapshot that lists this as version 2 of a role.
fn listing(site: &Site, role: &str, bytes: &[u8]) -> Vec<u8> {
    let mut signed = present(site, "1.snapshot.json")["signed"].take();
    signed["version"] = json!(2);
    let digest = redan_protocol::Digest::of(bytes);
    signed["meta"][format!("{role}.json")] =
        json!({"version": 2, "length": bytes.len(), "hashes": {"sha256": digest}});
    sign(&signed, &[&offline(site, "release.snapshot-1")]).unwrap()
}

#[tokio::test]
async fn a_role_that_lists_nothing_must_be_signed_by_its_own_keys_too() {
    let site = Site::open().await;
    let mut operator = site.operator().await;
    let nothing = targets(2, next_year(), &BTreeMap::new(), &[]).unwrap();
    let thief = sign(&nothing, &[&offline(&site, "release.plan-1")]).unwrap();
    let snapshot = listing(&site, "policy", &thief);
    let files = [("2.policy.json", thief), ("2.snapshot.json", snapshot)];
    let answer = operator.post("/v1/release", &upload(&files)).await;
    assert_eq!(answer.refusal(), (400, Code::ThresholdNotMet));
    let own = sign(&nothing, &[&offline(&site, "release.policy-1")]).unwrap();
    let snapshot = listing(&site, "policy", &own);
    let files = [("2.policy.json", own), ("2.snapshot.json", snapshot)];
    operator.post("/v1/release", &upload(&files)).await.json();
}

#[tokio::test]
async fn a_file_nobody_signed_for_takes_no_name() {
    let site = Site::open().await;
    store(&site, DOCUMENT).await;
    let files = next(
        &site,
        &offline(&site, "release.policy-1"),
        &offline(&site, "release.snapshot-1"),
    );
    let mut operator = site.operator().await;
    for name in [
        "3.policy.json",
        "9.root.json",
        "2.plan.json",
        "policy.json",
        "1.snapshot.json",
    ] {
        let mut more = files.clone();
        more.push((name, b"{}".to_vec()));
        let answer = operator.post("/v1/release", &upload(&more)).await;
        let taken = name == "1.snapshot.json";
        let refused = if taken {
            (409, Code::Conflict)
        } else {
            (400, Code::BadRequest)
        };
        assert_eq!(answer.refusal(), refused, "{name}");
    }
    operator.post("/v1/release", &upload(&files)).await.json();
}

#[tokio::test]
async fn a_role_nobody_delegates_to_is_refused() {
    let site = Site::open().await;
    let nothing = targets(2, next_year(), &BTreeMap::new(), &[]).unwrap();
    let stray = sign(&nothing, &[&offline(&site, "release.policy-1")]).unwrap();
    let snapshot = listing(&site, "stray", &stray);
    let files = [("2.stray.json", stray), ("2.snapshot.json", snapshot)];
    let answer = site.operator().await.post("/v1/release", &upload(&files)).await;
    assert_eq!(answer.refusal(), (400, Code::NotReleased));
}

/// Delegates a new component to a key, as a ceremony of the targets role does.
pub(crate) async fn delegate(site: &Site, key: &SigningKey) {
    let role = key.purpose().trim_end_matches("-1").to_owned();
    let mut signed = present(site, "1.targets.json")["signed"].take();
    signed["version"] = json!(2);
    let id = key.public().id;
    signed["delegations"]["keys"][&id] = key.public().tuf();
    let paths = [format!(
        "components/{}/*/*",
        role.trim_start_matches("component.").replace('.', "/")
    )];
    let delegated =
        json!({"name": role, "keyids": [id], "threshold": 1, "terminating": true, "paths": paths});
    signed["delegations"]["roles"]
        .as_array_mut()
        .unwrap()
        .push(delegated);
    let top = sign(&signed, &[&offline(site, "release.targets-1")]).unwrap();
    let files = [
        ("2.targets.json", top.clone()),
        ("2.snapshot.json", listing(site, "targets", &top)),
    ];
    site.operator()
        .await
        .post("/v1/release", &upload(&files))
        .await
        .json();
}

/// Publishes the next version of a role with these targets, whatever is served now.
pub(crate) async fn publish(site: &Site, role: &str, entries: &BTreeMap<String, Value>) {
    let mut operator = site.operator().await;
    let stamp = operator.get("/v1/release/timestamp.json").await.json();
    let version = stamp["signed"]["meta"]["snapshot.json"]["version"]
        .as_u64()
        .unwrap();
    let file = format!("/v1/release/{version}.snapshot.json");
    let mut snapshot = operator.get(&file).await.json()["signed"].take();
    let listed = format!("{role}.json");
    let next = snapshot["meta"][&listed]["version"].as_u64().unwrap() + 1;
    let signed = targets(next, next_year(), entries, &[]).unwrap();
    let bytes = sign(&signed, &[&offline(site, &format!("{}-1", purpose(role)))]).unwrap();
    let digest = redan_protocol::Digest::of(&bytes);
    snapshot["version"] = json!(version + 1);
    snapshot["meta"][&listed] = json!({"version": next, "length": bytes.len(), "hashes": {"sha256": digest}});
    let snapped = sign(&snapshot, &[&offline(site, "release.snapshot-1")]).unwrap();
    let (name, snapshot) = (
        format!("{next}.{listed}"),
        format!("{}.snapshot.json", version + 1),
    );
    let files = upload(&[(&name, bytes), (&snapshot, snapped)]);
    operator.post("/v1/release", &files).await.json();
}

fn purpose(role: &str) -> String {
    if role.starts_with("component.") {
        role.to_owned()
    } else {
        format!("release.{role}")
    }
}
