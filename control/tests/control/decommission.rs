//! What a device that was decommissioned may still ask for: the order, and what it is signed with.

use crate::release::publish_policy;
use crate::renewal::STAMP;
use crate::site::Site;
use redan_identity::pem;
use redan_protocol::{Code, Digest};
use serde_json::{Value, json};

const PATH: &str = "policy/decommissioned-press-1.json";

async fn revoke(site: &Site, id: &str) {
    let path = format!("/v1/devices/{id}/revoke");
    site.operator().await.post(&path, &json!({})).await.json();
}

async fn seen(site: &Site) -> Value {
    site.operator().await.get("/v1/devices/press-1").await.json()
}

#[tokio::test]
async fn a_decommissioned_device_may_read_its_order_and_nothing_else() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let other = site.enrolled("press-2").await;
    let order = b"whatever the policy signers signed";
    let fetch = format!("/artifacts/{}", Digest::of(order));
    // Revoked, and no order: not a word more than ever.
    revoke(&site, "press-1").await;
    let mut device = site.connect(&bundle).await.unwrap();
    assert_eq!(device.get(STAMP).await.refusal(), (403, Code::CertificateRevoked));
    assert_eq!(seen(&site).await["decommissioned"], false);

    publish_policy(&site, 2, &[(PATH, order)]).await;
    assert_eq!(device.get(STAMP).await.status, 200);
    assert_eq!(device.get("/tuf/release/2.policy.json").await.status, 200);
    for (method, path) in [
        ("POST", "/v1/checkin"),
        ("POST", "/.well-known/est/simplereenroll"),
        ("GET", "/.well-known/est/cacerts"),
        ("GET", "/tuf/director/timestamp.json"),
        (
            "GET",
            "/artifacts/0000000000000000000000000000000000000000000000000000000000000000",
        ),
        ("POST", fetch.as_str()),
        ("POST", STAMP),
        ("GET", "/no/such/route"),
    ] {
        let answer = device.ask(method, path, "").await;
        assert_eq!(answer.refusal(), (403, Code::Decommissioned), "{method} {path}");
    }
    assert_eq!(seen(&site).await["order_fetched"], Value::Null);
    assert_eq!(device.get(&fetch).await.body.as_ref(), order);
    let told = seen(&site).await;
    assert_eq!(
        (&told["decommissioned"], told["order_fetched"].is_u64()),
        (&json!(true), true)
    );
    // It is nobody else's order.
    revoke(&site, "press-2").await;
    let mut other = site.connect(&other).await.unwrap();
    assert_eq!(other.get(STAMP).await.refusal(), (403, Code::CertificateRevoked));
}

#[tokio::test]
async fn a_machine_that_later_gets_the_name_is_a_device_like_any_other() {
    let site = Site::open().await;
    let first = site.enrolled("press-1").await;
    let (key, _) = pem::load_bundle(&first).unwrap();
    assert_eq!(seen(&site).await["keys"], json!([key.spki_sha256()]));
    publish_policy(&site, 2, &[(PATH, b"an order")]).await;
    revoke(&site, "press-1").await;
    let second = site.enrolled("press-1").await;
    let (key, _) = pem::load_bundle(&second).unwrap();
    assert_eq!(seen(&site).await["spki"], json!(key.spki_sha256()));
    let mut device = site.connect(&second).await.unwrap();
    assert_eq!(device.get(STAMP).await.status, 200);
}
