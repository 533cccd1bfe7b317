//! Enrolment by voucher over EST.

use crate::site::{Caller, Site};
use crate::tokens::{join, made};
use redan_identity::{KeyFile, est, pem};
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

/// How often the audit log says that a key turned up for a second device, and the metrics.
async fn alarms(site: &Site) -> (usize, String) {
    let mut operator = site.operator().await;
    let audit = operator.get("/v1/audit").await.json();
    let entries = audit.as_array().unwrap().iter();
    let told = entries.filter(|entry| entry["action"] == "key-twice").count();
    let metrics = String::from_utf8(operator.get("/metrics").await.body.to_vec()).unwrap();
    let line = metrics.lines().find(|line| line.starts_with("redan_keys_twice"));
    (told, line.unwrap().to_owned())
}

/// Holds: the key of one device, and a right to ask for another name.
#[tokio::test]
async fn a_key_that_turns_up_for_a_second_device_is_refused_with_an_alarm_wherever_it_does() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let other = site.enrolled("press-2").await;
    let (first, _) = pem::load_bundle(&bundle).unwrap();
    assert_eq!(alarms(&site).await, (0, "redan_keys_twice 0".to_owned()));
    let mut operator = site.operator().await;
    let admit = json!({"device": "press-3", "spki": first.spki_sha256()});
    let answer = operator.post("/v1/devices/admit", &admit).await;
    assert_eq!(answer.refusal(), (409, Code::Conflict));
    assert_eq!(alarms(&site).await, (1, "redan_keys_twice 1".to_owned()));
    // By a renewal.
    let mut caller = site.connect(&other).await.unwrap();
    let headers = [("content-type", est::PKCS10)];
    let path = "/.well-known/est/simplereenroll";
    let request = est::csr(&first).unwrap();
    let answer = caller.ask_with("POST", path, &headers, request).await.unwrap();
    assert_eq!(answer.refusal(), (403, Code::CertificateRevoked));
    assert_eq!(
        alarms(&site).await,
        (1, "redan_keys_twice 2".to_owned()),
        "told once an hour"
    );
    // A key that the device has left behind is still nobody else's.
    let next = crate::renewal::renew(&site, &mut site.connect(&bundle).await.unwrap()).await;
    let mut renewed = site.connect(&next).await.unwrap();
    assert_eq!(renewed.get(crate::renewal::STAMP).await.status, 200);
    let answer = operator.post("/v1/devices/admit", &admit).await;
    assert_eq!(answer.refusal(), (409, Code::Conflict));
    let site = site.restart().await;
    assert_eq!(alarms(&site).await.1, "redan_keys_twice 3");
    assert_eq!(
        site.connect(&next)
            .await
            .unwrap()
            .get(crate::renewal::STAMP)
            .await
            .status,
        200
    );
    // With a join token, whatever it is good for.
    let token = made(&site, json!({})).await;
    let answer = join(&site, &token, "press-9", &first).await;
    assert_eq!(answer.refusal(), (403, Code::NameRefused));
    assert_eq!(alarms(&site).await.1, "redan_keys_twice 4");
}

/// Holds: everything that a device sent and got at its enrolment, and a key of its own (E02). The connection's handshake is the nonce.
#[tokio::test]
async fn a_recorded_request_and_its_answer_are_worth_nothing_without_the_key() {
    let site = Site::open().await;
    let (device, thief) = (KeyFile::generate().unwrap(), KeyFile::generate().unwrap());
    site.admit("press-1", &device).await;
    let request = est::csr(&device).unwrap();
    let first = enroll(&mut site.enrolling(&device).await, request.clone()).await;
    assert_eq!(first.status, 200);
    // The request again, to the letter, by whoever else connects; also as a renewal by another device.
    let mut caller = site.enrolling(&thief).await;
    assert_eq!(
        enroll(&mut caller, request.clone()).await.refusal(),
        (400, Code::CsrInvalid)
    );
    let headers = [("content-type", est::PKCS10)];
    let mut other = site.device("press-2").await;
    let path = "/.well-known/est/simplereenroll";
    let answer = other
        .ask_with("POST", path, &headers, request.clone())
        .await
        .unwrap();
    assert_eq!(answer.refusal(), (403, Code::CertificateRevoked));
    // The answer again: a certificate, and no key to shake hands with.
    let text = String::from_utf8(first.body.to_vec()).unwrap();
    let chain = est::decode_certs_only(&text).unwrap();
    assert!(
        redan_identity::tls::device_client(&site.anchor, chain.clone(), &thief, crate::site::now()).is_err()
    );
    // By the device itself it is harmless: the same name and the same key.
    let again = enroll(&mut site.enrolling(&device).await, request).await;
    assert_eq!(again.status, 200);
    let bundle = site.keep("press-1", &device, &chain);
    let mut caller = site.connect(&bundle).await.unwrap();
    assert_eq!(
        caller.get(crate::renewal::STAMP).await.status,
        200,
        "positive control"
    );
}

/// A certificate in a voucher is for the key that is admitted: the request's signature stands for the connection.
#[tokio::test]
async fn a_voucher_holds_no_certificate_for_another_key_than_the_admitted_one() {
    let site = Site::open().await;
    let (own, other) = (KeyFile::generate().unwrap(), KeyFile::generate().unwrap());
    let mut operator = site.operator().await;
    let asked = |csr: &KeyFile| json!({"device": "press-1", "spki": own.spki_sha256(), "csr": est::csr(csr).unwrap()});
    let refused = operator.post("/v1/devices/admit", &asked(&other)).await;
    assert_eq!(refused.refusal(), (400, Code::CsrInvalid));
    let nobody = operator.get("/v1/devices/press-1").await;
    assert_eq!(
        nobody.refusal(),
        (404, Code::NotFound),
        "nor is anything admitted by it"
    );
    let answer = operator.post("/v1/devices/admit", &asked(&own)).await;
    assert_eq!(answer.status, 200, "positive control");
}
