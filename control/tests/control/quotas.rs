//! What one fleet may use of the server, each asked for at its limit and one above; the other fleet goes on.

use crate::site::{Door, Site};
use crate::tokens::{join, key, made, used};
use redan_control::config::Config;
use redan_identity::KeyFile;
use redan_identity::client::ClientError;
use redan_protocol::{ByteCount, Code, Digest};
use serde_json::json;

fn settings(config: &mut Config) -> &mut redan_control::config::FleetSettings {
    let fleet = redan_protocol::FleetId::parse("plant.example").unwrap();
    config.fleets.entry(fleet).or_default()
}

async fn admit(door: &Door, id: &str) -> crate::site::Answer {
    let spki = KeyFile::generate().unwrap().spki_sha256();
    let request = json!({"device": id, "spki": spki});
    door.operator().await.post("/v1/devices/admit", &request).await
}

#[tokio::test]
async fn a_fleet_has_no_more_devices_than_its_quota() {
    let (site, other) = Site::two(|config| settings(config).devices_max = 2).await;
    for id in ["press-1", "press-2"] {
        assert_eq!(admit(&site, id).await.status, 200, "{id}");
    }
    assert_eq!(admit(&site, "press-3").await.refusal(), (403, Code::QuotaReached));
    for id in ["press-1", "press-2", "press-3"] {
        assert_eq!(admit(&other, id).await.status, 200, "the other fleet: {id}");
    }
    // A revoked one makes room, once.
    let mut operator = site.operator().await;
    operator
        .post("/v1/devices/press-1/revoke", &json!({}))
        .await
        .json();
    assert_eq!(admit(&site, "press-3").await.status, 200);
    assert_eq!(admit(&site, "press-1").await.refusal(), (403, Code::QuotaReached));
}

async fn put(door: &Door, bytes: &'static [u8]) -> crate::site::Answer {
    let path = format!("/v1/artifacts/{}", Digest::of(bytes));
    door.operator().await.ask("PUT", &path, bytes).await
}

#[tokio::test]
async fn a_fleet_stores_no_more_bytes_than_its_quota() {
    // The policy document of the founding is no artifact of the store: it starts empty.
    let quota = |config: &mut Config| settings(config).artifacts_bytes_max = ByteCount::new(10);
    let (site, other) = Site::two(quota).await;
    assert_eq!(put(&site, b"123456").await.status, 200);
    assert_eq!(put(&site, b"12345").await.refusal(), (403, Code::QuotaReached));
    assert_eq!(put(&site, b"123456").await.status, 200, "what is there already");
    // What was refused for its digest has taken no room.
    let wrong = format!("/v1/artifacts/{}", Digest::of(b"x"));
    let refused = site.operator().await.ask("PUT", &wrong, "1234").await;
    assert_eq!(refused.refusal(), (400, Code::DigestMismatch));
    assert_eq!(put(&site, b"1234").await.status, 200);
    assert_eq!(put(&site, b"x").await.refusal(), (403, Code::QuotaReached));
    assert_eq!(put(&other, b"12345678901").await.status, 200, "the other fleet");
    // Counted anew after a restart.
    let mut config = crate::site::config(site.folder.path());
    quota(&mut config);
    let site = site.restart_with(config).await;
    assert_eq!(put(&site, b"x").await.refusal(), (403, Code::QuotaReached));
}

#[tokio::test]
async fn a_fleets_connections_are_its_own() {
    let (site, other) = Site::two(|config| settings(config).connections_max = 2).await;
    let mut open = [site.operator().await, site.operator().await];
    for caller in &mut open {
        assert_eq!(caller.get("/v1/fleet").await.status, 200);
    }
    let bundle = site.founded().join("operators/admin.pem");
    let third = match site.connect(&bundle).await {
        Err(error) => error,
        // The handshake was done before the fleet's places were asked for.
        Ok(mut caller) => caller.ask_with("GET", "/v1/fleet", &[], "").await.err().unwrap(),
    };
    assert_eq!(third, ClientError::Connection);
    assert_eq!(
        other.operator().await.get("/v1/fleet").await.status,
        200,
        "the other fleet"
    );
    for caller in &mut open {
        assert_eq!(caller.get("/v1/fleet").await.status, 200);
    }
}

/// Holds: a join token with uses left.
#[tokio::test]
async fn a_join_token_lets_nobody_in_beyond_the_fleets_quota_and_loses_no_use_by_it() {
    let (site, other) = Site::two(|config| settings(config).devices_max = 1).await;
    let token = made(&site, json!({})).await;
    let (first, second) = (key(), key());
    assert_eq!(join(&site, &token, "press-1", &first).await.status, 200);
    let refused = join(&site, &token, "press-2", &second).await.refusal();
    assert_eq!(
        (refused, used(&site).await),
        ((403, Code::QuotaReached), json!(1))
    );
    // Who is in asks again, for an answer that was lost; and the other fleet has its own.
    assert_eq!(join(&site, &token, "press-1", &first).await.status, 200);
    let token = made(&other, json!({})).await;
    assert_eq!(join(&other, &token, "press-2", &second).await.status, 200);
}
