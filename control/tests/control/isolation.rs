//! Two fleets on one server: nobody of the one learns or changes anything of the other (attacks P02, A04).

use crate::lineage::expired;
use crate::probe::{ZEROS, filled};
use crate::raw::{Seen, seen, self_signed};
use crate::renewal::{STAMP, renew};
use crate::site::{Caller, Door, Site, now};
use bytes::Bytes;
use redan_control::register;
use redan_control::server::Reloaded;
use redan_control::table::{Op, ROUTES, Route};
use redan_identity::{Issuer, IssuerKind, KeyFile, pem};
use redan_protocol::{Code, DeviceId, Digest, Role, SpiffeId};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio_rustls::rustls::AlertDescription;

const BYTES: &[u8] = b"an artifact";

/// Every route of the server's table, once with something that is there and once with something that is not, and a path of nobody.
fn requests() -> Vec<(String, String)> {
    let parts = |route: &Route| match route.op {
        Op::Artifact | Op::PutArtifact => [Digest::of(BYTES).to_string(), ZEROS.to_owned()],
        Op::ReleaseFile | Op::DirectorFile => ["timestamp.json".to_owned(), "9.root.json".to_owned()],
        Op::SetRole | Op::RemoveOperator => ["admin".to_owned(), "nobody".to_owned()],
        _ => ["press-1".to_owned(), "press-9".to_owned()],
    };
    let of_route =
        |route: &Route| parts(route).map(|part| (route.method.to_string(), filled(route.path, &part)));
    let nowhere = ["GET", "POST", "DELETE"].map(|method| (method.to_owned(), "/no/such/route".to_owned()));
    ROUTES.iter().flat_map(of_route).chain(nowhere).collect()
}

/// Fills a fleet with something to be found.
async fn filled_in(door: &Door) {
    let mut operator = door.operator().await;
    let path = format!("/v1/artifacts/{}", Digest::of(BYTES));
    assert_eq!(operator.ask("PUT", &path, BYTES).await.status, 200);
}

/// Somebody's key under a certificate by this fleet's own device issuer, whom the server's store does not know.
fn unknown_device(door: &Door) -> PathBuf {
    let text = std::fs::read_to_string(door.founded().join("online/device-issuer.pem")).unwrap();
    let (by, chain) = pem::read_bundle(&text).unwrap();
    let issuer = Issuer::load(IssuerKind::Device, door.anchor.clone(), by, chain[0].clone());
    let id = SpiffeId::Device(door.fleet.clone(), DeviceId::parse("press-1").unwrap());
    let key = KeyFile::generate().unwrap();
    let chain = issuer.issue_for(&id, &key, now()).unwrap();
    door.keep("unknown", &key, &chain)
}

#[tokio::test]
async fn every_foreign_certificate_ends_in_the_handshake_whatever_it_asks_for() {
    let (site, other) = Site::two(|_| ()).await;
    let stranger = Site::of("plant.example").await;
    site.enrolled("press-1").await;
    filled_in(&site).await;
    let by_itself = site.founded().join("self-signed.pem");
    std::fs::write(&by_itself, self_signed(&KeyFile::generate().unwrap())).unwrap();
    let foreign = [
        (Some(other.enrolled("press-1").await), AlertDescription::UnknownCA),
        (
            Some(other.founded().join("operators/admin.pem")),
            AlertDescription::UnknownCA,
        ),
        // Another authority with our names.
        (
            Some(stranger.enrolled("press-1").await),
            AlertDescription::UnknownCA,
        ),
        (
            Some(stranger.founded().join("operators/admin.pem")),
            AlertDescription::UnknownCA,
        ),
        (Some(by_itself), AlertDescription::CertificateUnknown),
        (
            Some(site.founded().join("online/server.pem")),
            AlertDescription::CertificateUnknown,
        ),
        (None, AlertDescription::CertificateRequired),
    ];
    for (who, alert) in &foreign {
        for (method, path) in requests() {
            let seen = seen(&site, who.as_deref(), &method, &path).await;
            assert_eq!(seen, Seen::Alert(*alert), "{who:?} {method} {path}");
        }
    }
}

/// Status, header fields without the date, and body.
type Whole = (u16, BTreeMap<String, String>, Bytes);

async fn whole(caller: &mut Caller, method: &str, path: &str) -> Whole {
    let headers = [("content-type", "application/json")];
    let answer = caller.ask_with(method, path, &headers, "{}").await.unwrap();
    let fields = answer.headers.iter().filter(|(name, _)| name.as_str() != "date");
    let fields = fields.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    (answer.status, fields.collect(), answer.body)
}

/// The attacker is, or was, of this fleet: a certificate that verifies and counts no longer.
#[tokio::test]
async fn whoever_counts_no_longer_is_refused_alike_whether_or_not_the_thing_is_there() {
    let (site, _) = Site::two(|_| ()).await;
    filled_in(&site).await;
    let bundle = site.enrolled("press-1").await;
    let gone = site.enrolled("press-2").await;
    let mut admin = site.operator().await;
    admin.post("/v1/devices/press-2/revoke", &json!({})).await.json();
    let bob = site.appointed("bob", Role::Admin).await;
    admin.post("/v1/operators/bob/remove", &json!({})).await.json();
    let lapsed = expired(&site, &bundle, "device", "press-1");
    let mut old = site.connect(&bundle).await.unwrap();
    let renewed = renew(&site, &mut old).await;
    site.connect(&renewed).await.unwrap().get(STAMP).await;
    for (bundle, code) in [
        (gone, Code::CertificateRevoked),
        (unknown_device(&site), Code::CertificateRevoked),
        (bundle, Code::KeySuperseded),
        (lapsed, Code::KeySuperseded),
        (bob, Code::NotAuthorised),
    ] {
        let mut caller = site.connect(&bundle).await.unwrap();
        let mut first = None;
        for (method, path) in requests() {
            let said = whole(&mut caller, &method, &path).await;
            assert_eq!(said.0, 403, "{bundle:?} {method} {path}");
            let problem: serde_json::Value = serde_json::from_slice(&said.2).unwrap();
            assert_eq!(
                problem["code"],
                json!(code.number()),
                "{bundle:?} {method} {path}"
            );
            assert_eq!(
                first.get_or_insert_with(|| said.clone()),
                &said,
                "{bundle:?} {method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn an_expired_device_is_refused_alike_on_every_route_but_the_renewal() {
    let site = Site::open().await;
    filled_in(&site).await;
    let bundle = expired(&site, &site.enrolled("press-1").await, "device", "press-1");
    let mut caller = site.connect(&bundle).await.unwrap();
    let mut first = None;
    for (method, path) in requests() {
        let said = whole(&mut caller, &method, &path).await;
        if path.ends_with("simplereenroll") {
            assert_eq!(said.0, 415, "it may ask; what it asks is no request");
            continue;
        }
        assert_eq!(said.0, 403);
        assert_eq!(
            first.get_or_insert_with(|| said.clone()),
            &said,
            "{method} {path}"
        );
    }
}

/// The attacker holds a device of the neighbour fleet and asks for digests: is this one known anywhere?
#[tokio::test]
async fn a_digest_of_the_other_fleet_is_answered_like_one_of_nobody() {
    let (site, other) = Site::two(|_| ()).await;
    filled_in(&other).await;
    let own = Digest::of(BYTES);
    let mut theirs = other.connect(&other.enrolled("press-1").await).await.unwrap();
    let found = theirs.get(&format!("/artifacts/{own}")).await;
    assert_eq!(found.status, 200, "positive control");
    let mut device = site.connect(&site.enrolled("press-1").await).await.unwrap();
    let there = whole(&mut device, "GET", &format!("/artifacts/{own}")).await;
    let nowhere = whole(&mut device, "GET", &format!("/artifacts/{ZEROS}")).await;
    assert_eq!(there, nowhere);
    let mut operator = site.operator().await;
    let there = whole(&mut operator, "GET", &format!("/v1/artifacts/{own}")).await;
    let nowhere = whole(&mut operator, "GET", &format!("/v1/artifacts/{ZEROS}")).await;
    assert_eq!(there, nowhere);
}

/// Every file below a folder, with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

#[tokio::test]
async fn what_one_fleet_does_changes_no_byte_of_the_other() {
    let (site, other) = Site::two(|_| ()).await;
    let mut device = site.connect(&site.enrolled("press-1").await).await.unwrap();
    assert_eq!(device.get(STAMP).await.status, 200);
    let before = files(&site.kept());
    filled_in(&other).await;
    let bundle = other.enrolled("press-1").await;
    other
        .connect(&bundle)
        .await
        .unwrap()
        .check_in(redan_protocol::report::Report::default())
        .await;
    other.appointed("bob", Role::Admin).await;
    other
        .operator()
        .await
        .post("/v1/devices/press-1/revoke", &json!({}))
        .await
        .json();
    assert_eq!(files(&site.kept()), before);
    // The device of the same name goes on: its own fleet revoked nothing.
    assert_eq!(device.get(STAMP).await.status, 200);
    let log = site.operator().await.get("/v1/audit").await.json();
    assert_eq!(log.as_array().unwrap().len(), 4, "{log}");
}

#[tokio::test]
async fn removing_a_fleet_touches_no_byte_of_the_other_and_drops_none_of_its_connections() {
    let (site, other) = Site::two(|_| ()).await;
    let mut device = site.connect(&site.enrolled("press-1").await).await.unwrap();
    assert_eq!(device.get(STAMP).await.status, 200);
    let gone = other.enrolled("press-1").await;
    let mut theirs = other.connect(&gone).await.unwrap();
    let mut enrolling = other.enrolling(&KeyFile::generate().unwrap()).await;
    assert_eq!(theirs.get(STAMP).await.status, 200);
    let (before, whole) = (files(&site.kept()), files(&other.kept()));
    let config = crate::site::config(site.folder.path());
    let aside = register::remove(&config, &other.fleet).unwrap();
    let dropped = site.reloader.reload().await;
    let dropped: Vec<_> = dropped
        .into_iter()
        .map(|(id, outcome)| (id, outcome.unwrap()))
        .collect();
    assert_eq!(
        dropped,
        [
            (other.fleet.clone(), Reloaded::Dropped),
            (site.fleet.clone(), Reloaded::Served)
        ]
    );
    assert_eq!(files(&site.kept()), before);
    assert_eq!(files(&aside).len(), whole.len(), "nothing of it is lost");
    assert!(theirs.ask_with("GET", STAMP, &[], "").await.is_err(), "closed");
    let late = enrolling.get("/.well-known/est/cacerts").await;
    assert_eq!(late.refusal(), (421, Code::MisdirectedRequest));
    assert!(other.connect(&gone).await.is_err(), "nobody answers to its names");
    assert_eq!(
        device.get(STAMP).await.status,
        200,
        "the same connection as before"
    );
    let twice = register::remove(&config, &other.fleet).unwrap_err();
    assert_eq!(
        twice.to_string(),
        "fleet other.example is not registered with this server"
    );
    // And after a start.
    let site = site.restart().await;
    assert_eq!(site.operator().await.get("/v1/fleet").await.status, 200);
}
