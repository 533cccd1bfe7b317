//! Enrolment by voucher over EST.

use crate::site::{Caller, Site};
use redan_identity::{KeyFile, est};
use redan_protocol::Code;
use redan_protocol::wire::CSR_LEN_MAX;
use serde_json::json;

const ENROLL: &str = "/.well-known/est/simpleenroll";

async fn enroll(caller: &mut Caller, request: impl Into<bytes::Bytes>) -> crate::site::Answer {
    caller
        .ask_with("POST", ENROLL, &[("content-type", est::PKCS10)], request)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_key_nobody_admitted_gets_no_certificate() {
    let site = Site::open().await;
    let key = KeyFile::generate().unwrap();
    let mut caller = site.enrolling(&key).await;
    let request = est::csr(&key).unwrap();
    assert_eq!(
        enroll(&mut caller, request.clone()).await.refusal(),
        (403, Code::NotAdmitted)
    );
    site.admit("press-1", &key).await;
    assert_eq!(enroll(&mut caller, request).await.status, 200, "positive control");
}

#[tokio::test]
async fn an_expired_voucher_admits_nobody() {
    let site = Site::open().await;
    let (late, early) = (KeyFile::generate().unwrap(), KeyFile::generate().unwrap());
    site.admit("press-1", &late).await;
    site.admit("press-2", &early).await;
    let request = est::csr(&early).unwrap();
    assert_eq!(
        enroll(&mut site.enrolling(&early).await, request.clone())
            .await
            .status,
        200
    );
    // A week goes by.
    let site = site
        .restart_after(
            "UPDATE documents SET body = json_set(body, '$.voucher_expires', 1) WHERE kind = 'device'",
        )
        .await;
    let answer = enroll(&mut site.enrolling(&late).await, est::csr(&late).unwrap()).await;
    assert_eq!(answer.refusal(), (403, Code::VoucherInvalid));
    let again = enroll(&mut site.enrolling(&early).await, request).await;
    assert_eq!(
        again.refusal(),
        (403, Code::VoucherInvalid),
        "who has enrolled renews"
    );
    // An operator may always admit the key once more.
    site.admit("press-2", &early).await;
    let again = enroll(&mut site.enrolling(&early).await, est::csr(&early).unwrap()).await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn the_requests_key_must_be_the_connections() {
    let site = Site::open().await;
    let (admitted, thief) = (KeyFile::generate().unwrap(), KeyFile::generate().unwrap());
    site.admit("press-1", &admitted).await;
    // The thief saw the device's request and sends it over a connection of his own.
    let mut caller = site.enrolling(&thief).await;
    let answer = enroll(&mut caller, est::csr(&admitted).unwrap()).await;
    assert_eq!(answer.refusal(), (400, Code::CsrInvalid));
}

#[tokio::test]
async fn enrolling_twice_is_harmless() {
    let site = Site::open().await;
    let key = KeyFile::generate().unwrap();
    site.admit("press-1", &key).await;
    let mut caller = site.enrolling(&key).await;
    let request = est::csr(&key).unwrap();
    for _ in 0..2 {
        let answer = enroll(&mut caller, request.clone()).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let chain = est::decode_certs_only(&text).unwrap();
        let (fleet, device, spki) =
            redan_identity::profile::check_device_leaf(&site.anchor, &chain, crate::site::now()).unwrap();
        assert_eq!(
            (fleet, device.as_str(), spki),
            (site.fleet.clone(), "press-1", key.spki_sha256())
        );
    }
    let seen = site.operator().await.get("/v1/devices").await.json();
    assert_eq!(seen.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_request_one_byte_over_the_limit_is_refused() {
    let site = Site::open().await;
    let key = KeyFile::generate().unwrap();
    site.admit("press-1", &key).await;
    let mut caller = site.enrolling(&key).await;
    let limit = usize::try_from(CSR_LEN_MAX.get()).unwrap();
    assert_eq!(
        enroll(&mut caller, "A".repeat(limit + 1)).await.refusal(),
        (413, Code::TooLarge)
    );
    assert_eq!(
        enroll(&mut caller, "A".repeat(limit)).await.refusal(),
        (400, Code::CsrInvalid)
    );
}

#[tokio::test]
async fn one_key_is_one_device_and_one_device_one_key() {
    let site = Site::open().await;
    let (first, second) = (KeyFile::generate().unwrap(), KeyFile::generate().unwrap());
    site.admit("press-1", &first).await;
    let mut operator = site.operator().await;
    for request in [
        json!({"device": "press-2", "spki": first.spki_sha256()}),
        json!({"device": "press-1", "spki": second.spki_sha256()}),
    ] {
        let answer = operator.post("/v1/devices/admit", &request).await;
        assert_eq!(answer.refusal(), (409, Code::Conflict), "{request}");
    }
    // A device that lost its key: revoked, then admitted anew.
    assert_eq!(
        operator
            .post("/v1/devices/press-1/revoke", &json!({}))
            .await
            .status,
        200
    );
    site.admit("press-1", &second).await;
}

#[tokio::test]
async fn a_voucher_carries_everything_a_device_pins() {
    let site = Site::open().await;
    let key = KeyFile::generate().unwrap();
    let voucher = site.admit("press-1", &key).await;
    let read = |name: &str| std::fs::read_to_string(site.founded().join("public").join(name)).unwrap();
    assert_eq!(voucher.release_root, read("release/1.root.json"));
    assert_eq!(voucher.director_root, read("director/1.root.json"));
    assert_eq!(voucher.ca, read("ca.pem"));
    assert_eq!(voucher.server, site.address.to_string());
    assert_eq!(voucher.spki, key.spki_sha256());
}

#[tokio::test]
async fn a_revoked_key_is_not_enrolled_again() {
    let site = Site::open().await;
    let key = KeyFile::generate().unwrap();
    site.admit("press-1", &key).await;
    let mut operator = site.operator().await;
    assert_eq!(
        operator
            .post("/v1/devices/press-1/revoke", &json!({}))
            .await
            .status,
        200
    );
    let mut caller = site.enrolling(&key).await;
    let answer = enroll(&mut caller, est::csr(&key).unwrap()).await;
    assert_eq!(answer.refusal(), (403, Code::NotAdmitted));
}
