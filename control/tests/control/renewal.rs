//! Renewal: a new key for a device that has one, and the end of the old one.

use crate::site::{Answer, Caller, Site, now};
use redan_control::error::Refused;
use redan_control::est::reenroll as reenroll_at;
use redan_control::fleet::Fleet;
use redan_identity::{KeyFile, est, pem, profile};
use redan_protocol::{Code, DeviceId};
use serde_json::json;
use std::path::PathBuf;

pub(crate) const STAMP: &str = "/tuf/release/timestamp.json";

/// Renews over a connection that is there; gives the new key and certificate as a file.
pub(crate) async fn renew(site: &Site, caller: &mut Caller) -> PathBuf {
    let key = KeyFile::generate().unwrap();
    let headers = [("content-type", est::PKCS10)];
    let request = est::csr(&key).unwrap();
    let answer = caller
        .ask_with("POST", "/.well-known/est/simplereenroll", &headers, request)
        .await
        .unwrap();
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(answer.status, 200, "{text}");
    let chain = est::decode_certs_only(&text).unwrap();
    let (_, device, spki) = profile::check_device_leaf(&site.anchor, &chain, now()).unwrap();
    assert_eq!((device.as_str(), spki), ("press-1", key.spki_sha256()));
    let bundle = site.folder.path().join(format!("{spki}.pem"));
    redan_identity::key::write_private(&bundle, pem::write_bundle(&key, &chain).as_bytes()).unwrap();
    bundle
}

#[tokio::test]
async fn both_keys_speak_until_the_new_one_has_and_then_the_old_one_is_refused() {
    let site = Site::open().await;
    let mut old = site.device("press-1").await;
    let bundle = renew(&site, &mut old).await;
    assert_eq!(old.get(STAMP).await.status, 200, "the new key has not spoken yet");
    let mut new = site.connect(&bundle).await.unwrap();
    assert_eq!(new.get(STAMP).await.status, 200);
    assert_eq!(old.get(STAMP).await.refusal(), (403, Code::KeySuperseded));
    let site = site.restart().await;
    let mut new = site.connect(&bundle).await.unwrap();
    assert_eq!(new.get(STAMP).await.status, 200);
}

#[tokio::test]
async fn a_device_renews_again_and_again() {
    let site = Site::open().await;
    let mut caller = site.device("press-1").await;
    for round in 0..3 {
        let bundle = renew(&site, &mut caller).await;
        caller = site.connect(&bundle).await.unwrap();
        assert_eq!(caller.get(STAMP).await.status, 200, "round {round}");
    }
}

#[tokio::test]
async fn a_device_that_renews_in_a_loop_is_told_to_wait() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let mut caller = site.connect(&bundle).await.unwrap();
    for _ in 0..8 {
        renew(&site, &mut caller).await;
    }
    // Kept over a restart, and its own affair.
    let site = site.restart().await;
    let mut caller = site.connect(&bundle).await.unwrap();
    let mut other = site.device("press-2").await;
    let answer = reenroll(&mut caller).await;
    assert_eq!(answer.refusal(), (503, Code::Overloaded));
    assert_eq!(reenroll(&mut other).await.status, 200);
    assert_eq!(caller.get(STAMP).await.status, 200, "it is refused nothing else");
}

pub(crate) async fn reenroll(caller: &mut Caller) -> Answer {
    let headers = [("content-type", est::PKCS10)];
    let request = est::csr(&KeyFile::generate().unwrap()).unwrap();
    let answer = caller.ask_with("POST", "/.well-known/est/simplereenroll", &headers, request);
    answer.await.unwrap()
}

#[tokio::test]
async fn of_two_new_keys_that_never_spoke_the_later_one_counts() {
    let site = Site::open().await;
    let mut old = site.device("press-1").await;
    let lost = renew(&site, &mut old).await;
    let kept = renew(&site, &mut old).await;
    let mut lost = site.connect(&lost).await.unwrap();
    assert_eq!(lost.get(STAMP).await.refusal(), (403, Code::KeySuperseded));
    let mut kept = site.connect(&kept).await.unwrap();
    assert_eq!(kept.get(STAMP).await.status, 200);
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_also_after_a_restart_until_the_key_speaks() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let key = KeyFile::generate().unwrap();
    let ask = async |caller: &mut Caller| {
        let headers = [("content-type", est::PKCS10)];
        let request = est::csr(&key).unwrap();
        let answer = caller.ask_with("POST", "/.well-known/est/simplereenroll", &headers, request);
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body.to_vec()).unwrap()
    };
    let first = ask(&mut site.connect(&bundle).await.unwrap()).await;
    let second = ask(&mut site.connect(&bundle).await.unwrap()).await;
    assert_eq!(first, second);
    let site = site.restart().await;
    assert_eq!(ask(&mut site.connect(&bundle).await.unwrap()).await, first);
    let audit = site.operator().await.get("/v1/audit").await.json();
    let renewed = audit.as_array().unwrap().iter();
    assert_eq!(
        renewed
            .filter(|entry| entry["action"] == "device-renewed")
            .count(),
        1
    );
    // Another key: another answer.
    let mut caller = site.connect(&bundle).await.unwrap();
    let other = renew(&site, &mut caller).await;
    let (_, chain) = pem::load_bundle(&other).unwrap();
    assert!(!est::decode_certs_only(&first).unwrap().contains(&chain[0]));
}

#[tokio::test]
async fn a_superseded_key_is_nobodys_next_key() {
    let site = Site::open().await;
    let first = site.enrolled("press-1").await;
    let (key, _) = pem::load_bundle(&first).unwrap();
    let second = renew(&site, &mut site.connect(&first).await.unwrap()).await;
    let mut second = site.connect(&second).await.unwrap();
    assert_eq!(second.get(STAMP).await.status, 200);
    let mut other = site.device("press-2").await;
    for (caller, code) in [
        (&mut second, Code::KeySuperseded),
        (&mut other, Code::CertificateRevoked),
    ] {
        let headers = [("content-type", est::PKCS10)];
        let request = est::csr(&key).unwrap();
        let answer = caller.ask_with("POST", "/.well-known/est/simplereenroll", &headers, request);
        assert_eq!(answer.await.unwrap().refusal(), (403, code));
    }
}

#[tokio::test]
async fn a_device_does_not_renew_with_the_key_of_another() {
    let site = Site::open().await;
    let other = KeyFile::generate().unwrap();
    site.admit("press-2", &other).await;
    let mut caller = site.device("press-1").await;
    let headers = [("content-type", est::PKCS10)];
    let request = est::csr(&other).unwrap();
    let answer = caller
        .ask_with("POST", "/.well-known/est/simplereenroll", &headers, request)
        .await
        .unwrap();
    assert_eq!(answer.refusal(), (403, Code::CertificateRevoked));
}

#[tokio::test]
async fn admitting_the_same_key_again_renews_the_voucher_and_forgets_nothing() {
    let site = Site::open().await;
    let key = KeyFile::generate().unwrap();
    site.admit("press-1", &key).await;
    let mut caller = site.enrolling(&key).await;
    let headers = [("content-type", est::PKCS10)];
    let request = est::csr(&key).unwrap();
    let enrolled = caller
        .ask_with("POST", "/.well-known/est/simpleenroll", &headers, request)
        .await
        .unwrap();
    assert_eq!(enrolled.status, 200);
    let mut operator = site.operator().await;
    let before = operator.get("/v1/devices/press-1").await.json();
    assert!(before["enrolled"].is_u64(), "{before}");
    let again = json!({"device": "press-1", "spki": key.spki_sha256(), "labels": {"hall": "2"}});
    operator.post("/v1/devices/admit", &again).await.json();
    let after = operator.get("/v1/devices/press-1").await.json();
    assert_eq!(after["enrolled"], before["enrolled"]);
    assert_eq!(after["labels"], json!({"hall": "2"}));
}

/// Between the question whether a key may speak and the renewal it asked for, another request may end it.
#[tokio::test]
async fn a_key_that_was_superseded_while_its_request_was_under_way_renews_nothing() {
    let site = Site::open().await;
    let first = site.enrolled("press-1").await;
    let second = renew(&site, &mut site.connect(&first).await.unwrap()).await;
    let mut speaks = site.connect(&second).await.unwrap();
    assert_eq!(speaks.get(STAMP).await.status, 200);
    drop(speaks);
    let spki = |bundle: &PathBuf| pem::load_bundle(bundle).unwrap().0.spki_sha256();
    let [old, new] = [spki(&first), spki(&second)];
    let (id, kept) = (site.fleet.clone(), site.kept());
    let (_folder, stopped) = site.stopping();
    stopped.await.unwrap().unwrap();
    let (fleet, _) = Fleet::open(&kept, id, now()).await.unwrap();
    let device = DeviceId::parse("press-1").unwrap();
    let request = est::csr(&KeyFile::generate().unwrap()).unwrap();
    let refused = reenroll_at(&fleet, &device, old, &request, now()).await;
    assert_eq!(refused, Err(Refused::plain(Code::CertificateRevoked)));
    assert!(
        reenroll_at(&fleet, &device, new, &request, now()).await.is_ok(),
        "positive control"
    );
}
