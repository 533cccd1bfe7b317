//! The revocation list the server makes for offline verifiers.

use crate::renewal::{STAMP, renew};
use crate::site::{Site, now};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_identity::crl::{CrlFault, Revocations};
use redan_identity::profile::Purpose;
use redan_identity::{IssuerKind, KeyFile, est, pem};
use redan_protocol::Code;
use serde_json::json;
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
