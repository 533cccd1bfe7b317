//! Many who read while one publishes (attack T25), and what holds on every route and stream (H08, P06).

use crate::raw::Streams;
use crate::release::{offline, present, store, upload};
use crate::site::{Caller, Site, now};
use redan_protocol::{Code, Digest, UnixSeconds};
use redan_publish::metadata::{sign, target, targets};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const READERS: usize = 100;
const PUBLICATIONS: u64 = 8;
const DOCUMENT: &[u8] = b"schema = \"redan.policy/1\"";

/// One publication: the policy role and the snapshot that lists it, both in this version.
fn publication(site: &Site, version: u64) -> Value {
    let soon = UnixSeconds::new(now().get() + 80 * 86_400);
    let none: Option<&Value> = None;
    let entries = BTreeMap::from([("policy/fleet.toml".to_owned(), target(DOCUMENT, none).unwrap())]);
    let policy = offline(site, "release.policy-1");
    let role = sign(&targets(version, soon, &entries, &[]).unwrap(), &[&policy]).unwrap();
    let mut signed = present(site, "1.snapshot.json")["signed"].take();
    signed["version"] = json!(version);
    let digest = Digest::of(&role);
    signed["meta"]["policy.json"] =
        json!({"version": version, "length": role.len(), "hashes": {"sha256": digest}});
    let snapshot = sign(&signed, &[&offline(site, "release.snapshot-1")]).unwrap();
    let names = [
        format!("{version}.policy.json"),
        format!("{version}.snapshot.json"),
    ];
    upload(&[(&names[0], role), (&names[1], snapshot)])
}

/// A file of the release repository, which must be the very bytes its parent names, when it names any.
async fn read(caller: &mut Caller, role: &str, entry: &Value) -> Value {
    let path = format!("/tuf/release/{}.{role}.json", entry["version"]);
    let answer = caller.get(&path).await;
    assert_eq!(answer.status, 200, "{path}");
    if let Some(named) = entry["hashes"]["sha256"].as_str() {
        assert_eq!(Digest::of(&answer.body).to_string(), named, "{path}");
    }
    let file: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(file["signed"]["version"], entry["version"], "{path}");
    file
}

/// Follows the publications to the last one; gives the versions it saw.
async fn follow(mut caller: Caller) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&PUBLICATIONS) {
        let stamp = caller.get("/tuf/release/timestamp.json").await.json();
        let snapshot = read(&mut caller, "snapshot", &stamp["signed"]["meta"]["snapshot.json"]).await;
        let policy = read(&mut caller, "policy", &snapshot["signed"]["meta"]["policy.json"]).await;
        assert_eq!(policy["signed"]["version"], snapshot["signed"]["version"]);
        seen.push(snapshot["signed"]["version"].as_u64().unwrap());
    }
    seen
}

#[tokio::test]
async fn a_hundred_readers_see_whole_publications_and_no_mixture() {
    let site = Site::with("plant.example", READERS + 8).await;
    store(&site, DOCUMENT).await;
    let bundle = site.enrolled("press-1").await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let caller = site.connect(&bundle).await.unwrap();
        readers.push(tokio::spawn(follow(caller)));
    }
    let mut operator = site.operator().await;
    for version in 2..=PUBLICATIONS {
        operator
            .post("/v1/release", &publication(&site, version))
            .await
            .json();
    }
    for reader in readers {
        let seen = reader.await.unwrap();
        assert!(seen.is_sorted(), "nothing goes back: {seen:?}");
    }
}

#[tokio::test]
async fn no_content_encoding_is_taken_on_any_route() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let mut operator = site.operator().await;
    let artifact = format!("/v1/artifacts/{}", Digest::of(b"x"));
    for encoding in ["gzip", "br", "zstd", "deflate", "identity", "gzip, br"] {
        let headers = [
            ("content-type", "application/json"),
            ("content-encoding", encoding),
        ];
        for (method, path) in [
            ("POST", "/v1/devices/admit"),
            ("POST", "/v1/release"),
            ("POST", "/v1/rollouts"),
            ("PUT", artifact.as_str()),
            ("GET", "/v1/devices"),
        ] {
            let answer = operator.ask_with(method, path, &headers, "x").await.unwrap();
            assert_eq!(
                answer.refusal(),
                (415, Code::WrongContentType),
                "{path} {encoding}"
            );
        }
        for (method, path) in [
            ("POST", "/v1/checkin"),
            ("POST", "/.well-known/est/simplereenroll"),
            ("GET", "/tuf/release/timestamp.json"),
        ] {
            let answer = device.ask_with(method, path, &headers, "x").await.unwrap();
            assert_eq!(
                answer.refusal(),
                (415, Code::WrongContentType),
                "{path} {encoding}"
            );
        }
    }
    // The same without an encoding.
    assert_eq!(operator.ask("PUT", &artifact, "x").await.status, 200);
    assert_eq!(device.get("/tuf/release/timestamp.json").await.status, 200);
}

#[tokio::test]
async fn a_revoked_devices_streams_are_closed_and_its_new_connections_refused() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let path = "/tuf/release/timestamp.json";
    let mut streams = Streams::open(&site, &bundle).await;
    assert_eq!(streams.status(path).await, 200, "positive control");
    let revoked = site
        .operator()
        .await
        .post("/v1/devices/press-1/revoke", &json!({}))
        .await;
    assert_eq!(revoked.status, 200);
    // The connection with all its streams is gone, not only refused.
    streams.closed().await;
    assert_eq!(Streams::open(&site, &bundle).await.status(path).await, 403);
    let mut again = site.connect(&bundle).await.unwrap();
    assert_eq!(again.get(path).await.refusal(), (403, Code::CertificateRevoked));
}
