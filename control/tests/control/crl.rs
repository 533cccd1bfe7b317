//! The revocation list the server makes for offline verifiers.

use crate::release::{offline, publish_policy, store, upload};
use crate::renewal::{STAMP, renew};
use crate::rollouts::published;
use crate::site::{Site, now};
use crate::witness::machine;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser as _;
use redan::bundle;
use redan::sign::Signing;
use redan_identity::crl::{
    CrlFault, OPERATOR_LISTS, Revocations, RevokedSerial, SERVER_LISTS, serial_of, write_lists,
};
use redan_identity::profile::Purpose;
use redan_identity::{Issuer, IssuerKind, KeyFile, est, pem};
use redan_protocol::{Code, DeviceId, Digest, DirectionSequence, Role, Seconds, SetId, UnixSeconds};
use redan_publish::metadata::target;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Has the server make its next list, and reads it as a verifier does that knows the ones before; gives its number.
async fn next(site: &Site, known: &mut Revocations) -> u64 {
    let answer = site.operator().await.post("/v1/crl", &json!({})).await.json();
    let list = STANDARD.decode(answer["crl"].as_str().unwrap()).unwrap();
    let issuer = pem::read_chain(answer["issuer"].as_str().unwrap())
        .unwrap()
        .remove(0);
    known
        .offer(&site.anchor, IssuerKind::Device, &issuer, &list, now())
        .unwrap();
    answer["number"].as_u64().unwrap()
}

fn judged(site: &Site, known: &Revocations, bundle: &Path) -> Result<(), CrlFault> {
    let (_, chain) = pem::load_bundle(bundle).unwrap();
    known
        .check(&site.anchor, &chain, Purpose::Client, now())
        .map(drop)
}

#[tokio::test]
async fn revoked_and_superseded_certificates_are_listed_until_they_expire_and_no_others() {
    let site = Site::open().await;
    let mut known = Revocations::default();
    let (first, other) = (site.enrolled("press-1").await, site.enrolled("press-2").await);
    assert_eq!(next(&site, &mut known).await, 1);
    assert_eq!(judged(&site, &known, &first), Ok(()));
    // Superseded with the first request of the next key.
    let second = renew(&site, &mut site.connect(&first).await.unwrap()).await;
    assert_eq!(next(&site, &mut known).await, 2);
    assert_eq!(judged(&site, &known, &first), Ok(()));
    assert_eq!(site.connect(&second).await.unwrap().get(STAMP).await.status, 200);
    assert_eq!(next(&site, &mut known).await, 3);
    assert_eq!(judged(&site, &known, &first), Err(CrlFault::Revoked));
    assert_eq!(judged(&site, &known, &second), Ok(()));
    // Revoked, and the name given to another machine; the number goes on after a restart.
    site.operator()
        .await
        .post("/v1/devices/press-1/revoke", &json!({}))
        .await
        .json();
    let third = site.enrolled("press-1").await;
    let site = site.restart().await;
    assert_eq!(next(&site, &mut known).await, 4);
    for gone in [&first, &second] {
        assert_eq!(judged(&site, &known, gone), Err(CrlFault::Revoked));
    }
    for good in [&third, &other] {
        assert_eq!(judged(&site, &known, good), Ok(()));
    }
}

#[tokio::test]
async fn a_device_that_enrols_in_a_loop_is_told_to_wait() {
    let site = Site::open().await;
    let key = KeyFile::generate().unwrap();
    site.admit("press-1", &key).await;
    let mut caller = site.enrolling(&key).await;
    let headers = [("content-type", est::PKCS10)];
    let request = est::csr(&key).unwrap();
    for asked in 1..=65 {
        let path = "/.well-known/est/simpleenroll";
        let answer = caller
            .ask_with("POST", path, &headers, request.clone())
            .await
            .unwrap();
        if asked <= 64 {
            assert_eq!(answer.status, 200, "{asked}");
        } else {
            assert_eq!(answer.refusal(), (503, Code::Overloaded));
        }
    }
}

/// List `number` of the operators' issuer, made by custodians then, in which these certificates are taken back.
fn operators_list(site: &Site, number: u64, taken_back: &[&Path], made: UnixSeconds) -> Vec<u8> {
    let text = std::fs::read_to_string(site.founded().join("offline/operator-issuer.pem")).unwrap();
    let (key, chain) = pem::read_bundle(&text).unwrap();
    let issuer = Issuer::load(IssuerKind::Operator, site.anchor.clone(), key, chain[0].clone());
    let entry = |bundle: &&Path| {
        let (_, chain) = pem::load_bundle(bundle).unwrap();
        let serial = serial_of(&chain[0]).unwrap();
        RevokedSerial { serial, at: made }
    };
    let revoked: BTreeSet<RevokedSerial> = taken_back.iter().map(entry).collect();
    let list = issuer.crl(number, &revoked, made, Seconds::new(86_400)).unwrap();
    write_lists(issuer.certificate(), &list).into_bytes()
}

/// What a publication of lists that are not good is answered with.
async fn refused_lists(site: &Site, version: u64, file: &[u8]) -> (u16, Code) {
    store(site, file).await;
    let keys = ["release.policy-1", "release.snapshot-1"].map(|purpose| offline(site, purpose));
    let entries = [(OPERATOR_LISTS, file)];
    let [role, snapped] = crate::release::of_policy(site, version, &entries, &keys[0], &keys[1]);
    let names = [
        format!("{version}.policy.json"),
        format!("{version}.snapshot.json"),
    ];
    let files = [(names[0].as_str(), role), (names[1].as_str(), snapped)];
    let mut operator = site.operator().await;
    operator.post("/v1/release", &upload(&files)).await.refusal()
}

/// Holds: an operator's certificate and key that custodians took back.
#[tokio::test]
async fn an_operators_certificate_on_the_custodians_list_opens_nothing_from_then_on() {
    let site = Site::open().await;
    let ada = site.appointed("ada", Role::Operator).await;
    let mut open = site.connect(&ada).await.unwrap();
    assert_eq!(open.get("/v1/devices").await.status, 200);
    let list = operators_list(&site, 1, &[&ada], now());
    publish_policy(&site, 2, &[(OPERATOR_LISTS, &list)]).await;
    let refusal = (403, Code::CertificateRevoked);
    assert_eq!(
        open.get("/v1/devices").await.refusal(),
        refusal,
        "open since before"
    );
    let mut again = site.connect(&ada).await.unwrap();
    assert_eq!(again.get("/v1/devices").await.refusal(), refusal);
    // Another certificate of the same person, and everybody else, go on.
    let next = site.certified("ada", now());
    assert_eq!(
        site.connect(&next).await.unwrap().get("/v1/devices").await.status,
        200
    );
    let site = site.restart().await;
    let mut again = site.connect(&ada).await.unwrap();
    assert_eq!(again.get("/v1/devices").await.refusal(), refusal, "restarted");
    // Whatever is offered in its place and is not good, the last good one stays.
    let old = UnixSeconds::new(now().get() - 2 * 86_400);
    for (version, file, code) in [
        (
            3,
            operators_list(&site, 1, &[], now()),
            Code::RevocationListRollback,
        ),
        (
            3,
            operators_list(&site, 0, &[], now()),
            Code::RevocationListRollback,
        ),
        (3, operators_list(&site, 2, &[], old), Code::RevocationListExpired),
        (3, b"no list".to_vec(), Code::RevocationListInvalid),
        (3, vec![b' '; 10_000_000], Code::RevocationListInvalid),
    ] {
        assert_eq!(refused_lists(&site, version, &file).await, (400, code));
        assert_eq!(again.get("/v1/devices").await.refusal(), refusal, "{code}");
    }
    let metrics = site.operator().await.get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(metrics.contains("\nredan_operator_list_expired 0\n"), "{metrics}");
    let next = operators_list(&site, 2, &[], now());
    publish_policy(&site, 3, &[(OPERATOR_LISTS, &next)]).await;
    assert_eq!(again.get("/v1/devices").await.status, 200);
}

/// Keys on a command line.
#[derive(clap::Parser)]
struct Holders {
    #[command(flatten)]
    signing: Signing,
}

#[tokio::test]
async fn a_bundle_brings_the_servers_revocation_list_once_there_is_one() {
    let site = Site::open().await;
    let text = std::fs::read_to_string(site.founded().join("offline/server-issuer.pem")).unwrap();
    let (key, chain) = pem::read_bundle(&text).unwrap();
    let issuer = Issuer::load(IssuerKind::Server, site.anchor.clone(), key, chain[0].clone());
    let life = Seconds::new(86_400);
    let list = issuer.crl(1, &BTreeSet::new(), now(), life).unwrap();
    let list = write_lists(issuer.certificate(), &list).into_bytes();
    let own = machine(&site, "ada");
    let place = |purpose: &str| site.founded().join(format!("offline/{purpose}.key.json"));
    let keys = ["release.direction-1", "release.snapshot-1"].map(place);
    let keys = keys.iter().flat_map(|key| ["--key".as_ref(), key.as_os_str()]);
    let holders = Holders::parse_from(std::iter::once("redan".as_ref()).chain(keys));
    let policy: (&str, &[u8]) = ("policy/fleet.toml", b"nobody reads it here");
    publish_policy(&site, 2, &[policy]).await;
    published(&site, &["plant-1"]).await;
    let device = DeviceId::parse("press-1").unwrap();
    let sequence = DirectionSequence::new(7);
    let set = SetId::parse("plant-1").unwrap();
    let span = (life, Vec::new());
    bundle::publish(&own, device.clone(), sequence, set, span, &holders.signing)
        .await
        .unwrap();
    let carried = async |name: &str| {
        let out = site.folder.path().join(name);
        bundle::make(&own, Some((device.clone(), sequence)), &out)
            .await
            .unwrap();
        out.join("blobs").join(Digest::of(&list).to_string())
    };
    assert!(!carried("before").await.exists());
    crate::release::publish(
        &site,
        "policy",
        &BTreeMap::from([
            (policy.0.to_owned(), target(policy.1, None::<&Value>).unwrap()),
            (SERVER_LISTS.to_owned(), {
                store(&site, &list).await;
                target(&list, None::<&Value>).unwrap()
            }),
        ]),
    )
    .await;
    assert_eq!(std::fs::read(carried("after").await).unwrap(), list);
}
