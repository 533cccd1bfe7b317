//! Join tokens: what their holder can do, and what whoever holds less cannot (attacks E01, E02, A06).

use crate::site::{Answer, Caller, Door, Site, now};
use redan_identity::join::Asked;
use redan_identity::{KeyFile, est, profile};
use redan_protocol::join::{Claim, JoinToken, Proof, TokenId, TokenSecret};
use redan_protocol::wire::EST_ENROLL;
use redan_protocol::{Code, DeviceId};
use serde_json::{Value, json};

pub(crate) async fn made(door: &Door, more: Value) -> JoinToken {
    let mut request = json!({"uses": 3, "expires_in_seconds": 3600, "prefix": "press-"});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let answer = door.operator().await.post("/v1/tokens", &request).await;
    serde_json::from_value(answer.json()).unwrap()
}

/// What a device sends over a connection: the header field.
fn claim(caller: &Caller, token: &JoinToken, device: &str, csr: &str) -> String {
    let device = DeviceId::parse(device).unwrap();
    let asked = Asked {
        fleet: &token.fleet,
        token: &token.token,
        device: &device,
        csr,
    };
    let proof = asked.prove(&token.secret, caller.binding());
    let token = token.token.clone();
    Claim { token, device, proof }.to_string()
}

async fn send(caller: &mut Caller, claim: &str, csr: &str) -> Answer {
    let headers = [("content-type", est::PKCS10), ("authorization", claim)];
    caller
        .ask_with("POST", EST_ENROLL, &headers, csr.to_owned())
        .await
        .unwrap()
}

/// A device enrols as it should.
pub(crate) async fn join(door: &Door, token: &JoinToken, device: &str, key: &KeyFile) -> Answer {
    let mut caller = door.enrolling(key).await;
    let csr = est::csr(key).unwrap();
    let claim = claim(&caller, token, device, &csr);
    send(&mut caller, &claim, &csr).await
}

#[track_caller]
pub(crate) fn enrolled(door: &Door, answer: &Answer, device: &str, key: &KeyFile) {
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(answer.status, 200, "{text}");
    let chain = est::decode_certs_only(&text).unwrap();
    let (fleet, id, spki) = profile::check_device_leaf(&door.anchor, &chain, now()).unwrap();
    assert_eq!(
        (&fleet, id.as_str(), spki),
        (&door.fleet, device, key.spki_sha256())
    );
}

pub(crate) fn key() -> KeyFile {
    KeyFile::generate().unwrap()
}

pub(crate) async fn used(door: &Door) -> Value {
    door.operator().await.get("/v1/tokens").await.json()[0]["used"].clone()
}

#[tokio::test]
async fn a_token_lets_as_many_devices_in_as_it_has_uses_and_no_more() {
    let site = Site::open().await;
    let token = made(&site, json!({"uses": 2})).await;
    let (first, second, third) = (key(), key(), key());
    enrolled(
        &site,
        &join(&site, &token, "press-1", &first).await,
        "press-1",
        &first,
    );
    enrolled(
        &site,
        &join(&site, &token, "press-2", &second).await,
        "press-2",
        &second,
    );
    let late = join(&site, &token, "press-3", &third).await;
    assert_eq!(late.refusal(), (403, Code::TokenUsedUp));
    // Whose answer was lost asks again, with the same key, without another use; also after a restart.
    let site = site.restart().await;
    enrolled(
        &site,
        &join(&site, &token, "press-2", &second).await,
        "press-2",
        &second,
    );
    assert_eq!(used(&site).await, 2);
    // The same name with another key, or the same key with another name, is somebody else.
    assert_eq!(
        join(&site, &token, "press-2", &third).await.refusal(),
        (403, Code::TokenUsedUp)
    );
    let log = site.operator().await.get("/v1/audit").await.json();
    let last = log.as_array().unwrap().last().unwrap();
    assert_eq!(last["subject"], format!("press-2 token {}", token.token));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_devices_with_the_last_use_at_once_one_enrols() {
    let site = Site::with("plant.example", 256).await;
    let token = made(&site, json!({"uses": 1})).await;
    let mut racers = Vec::new();
    for number in 0..100 {
        let key = key();
        let mut caller = site.enrolling(&key).await;
        let csr = est::csr(&key).unwrap();
        let claim = claim(&caller, &token, &format!("press-{number}"), &csr);
        racers.push(async move { send(&mut caller, &claim, &csr).await.status });
    }
    // All connected, each with its proof: now all at once.
    let mut racing = tokio::task::JoinSet::new();
    for racer in racers {
        racing.spawn(racer);
    }
    let statuses = racing.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 99);
    let devices = site.operator().await.get("/v1/devices").await.json();
    assert_eq!(devices.as_array().unwrap().len(), 1);
}

/// The attacker saw a whole request, or is in the middle of one connection and opens another.
#[tokio::test]
async fn a_captured_request_is_worth_nothing_on_another_connection() {
    let site = Site::open().await;
    let token = made(&site, json!({})).await;
    let key = key();
    let csr = est::csr(&key).unwrap();
    let (mut first, mut second) = (site.enrolling(&key).await, site.enrolling(&key).await);
    let captured = claim(&first, &token, "press-1", &csr);
    // Even with the device's own key.
    assert_eq!(
        send(&mut second, &captured, &csr).await.refusal(),
        (403, Code::TokenInvalid)
    );
    // For another request, or another name.
    let thief = est::csr(&KeyFile::generate().unwrap()).unwrap();
    assert_eq!(
        send(&mut first, &captured, &thief).await.refusal(),
        (403, Code::TokenInvalid)
    );
    let renamed = captured.replace("press-1", "press-2");
    assert_eq!(
        send(&mut first, &renamed, &csr).await.refusal(),
        (403, Code::TokenInvalid)
    );
    assert_eq!(used(&site).await, 0, "nothing was used up");
    enrolled(&site, &send(&mut first, &captured, &csr).await, "press-1", &key);
}

/// The attacker knows a token's id and not its secret, or guesses.
#[tokio::test]
async fn without_the_secret_a_token_that_is_there_is_refused_like_one_that_is_not() {
    let site = Site::open().await;
    let token = made(&site, json!({})).await;
    let key = key();
    let csr = est::csr(&key).unwrap();
    let mut caller = site.enrolling(&key).await;
    let device = DeviceId::parse("press-1").unwrap();
    let zeros = Claim {
        token: token.token.clone(),
        device,
        proof: Proof::from_bytes([0; 32]),
    };
    let guessed = JoinToken {
        secret: TokenSecret::from_bytes([0; 32]),
        ..token.clone()
    };
    let invented = JoinToken {
        token: TokenId::from_bytes([9; 16]),
        ..token.clone()
    };
    let mut bodies = Vec::new();
    for claim in [
        zeros.to_string(),
        claim(&caller, &guessed, "press-1", &csr),
        claim(&caller, &invented, "press-1", &csr),
        "Redan-Join x.y.z".to_owned(),
        "Basic YWRtaW46YWRtaW4=".to_owned(),
    ] {
        let answer = send(&mut caller, &claim, &csr).await;
        assert_eq!(answer.refusal(), (403, Code::TokenInvalid), "{claim}");
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one and the same answer");
    assert_eq!(used(&site).await, 0);
    // Nor does a refused token fall back to what a voucher would give.
    let good = claim(&caller, &token, "press-1", &csr);
    enrolled(&site, &send(&mut caller, &good, &csr).await, "press-1", &key);
}

#[tokio::test]
async fn an_expired_a_revoked_and_another_fleets_token_let_nobody_in() {
    let (site, other) = Site::two(|_| ()).await;
    let token = made(&site, json!({})).await;
    let foreign = made(&other, json!({})).await;
    let first = key();
    enrolled(
        &site,
        &join(&site, &token, "press-1", &first).await,
        "press-1",
        &first,
    );
    let answer = join(&site, &foreign, "press-2", &key()).await;
    assert_eq!(answer.refusal(), (403, Code::TokenInvalid));
    let revoke = format!("/v1/tokens/{}/revoke", token.token);
    site.operator().await.post(&revoke, &json!({})).await.json();
    for (device, key) in [("press-2", &key()), ("press-1", &first)] {
        let answer = join(&site, &token, device, key).await;
        assert_eq!(answer.refusal(), (403, Code::TokenRevoked), "{device}");
    }
    let listed = site.operator().await.get("/v1/tokens").await.json();
    assert_eq!(
        (&listed[0]["ended"], &listed[0]["used"]),
        (&json!("token-revoked"), &json!(1))
    );
    let site = site
        .restart_after("UPDATE documents SET body = json_set(body, '$.expires', 1, '$.revoked', json('false')) WHERE kind = 'token'")
        .await;
    let answer = join(&site, &token, "press-2", &key()).await;
    assert_eq!(answer.refusal(), (403, Code::TokenExpired));
}

#[tokio::test]
async fn a_token_gives_free_names_with_its_prefix_and_no_others() {
    let site = Site::open().await;
    let token = made(&site, json!({})).await;
    site.enrolled("press-1").await;
    let revoked = site.enrolled("press-2").await;
    let mut operator = site.operator().await;
    operator
        .post("/v1/devices/press-2/revoke", &json!({}))
        .await
        .json();
    let known = redan_identity::pem::load_bundle(&revoked).unwrap().0;
    for (device, key) in [
        ("oven-1", key()),
        ("press-1", key()),
        // A revoked device's name is not up for grabs, nor is its key.
        ("press-2", key()),
        ("press-3", known),
    ] {
        let answer = join(&site, &token, device, &key).await;
        assert_eq!(answer.refusal(), (403, Code::NameRefused), "{device}");
    }
    assert_eq!(used(&site).await, 0);
    let fresh = key();
    enrolled(
        &site,
        &join(&site, &token, "press-3", &fresh).await,
        "press-3",
        &fresh,
    );
}

#[tokio::test]
async fn a_request_for_another_key_than_the_connections_is_refused() {
    let site = Site::open().await;
    let token = made(&site, json!({})).await;
    let (own, other) = (key(), key());
    let mut caller = site.enrolling(&own).await;
    let csr = est::csr(&other).unwrap();
    let claim = claim(&caller, &token, "press-1", &csr);
    assert_eq!(
        send(&mut caller, &claim, &csr).await.refusal(),
        (400, Code::CsrInvalid)
    );
    assert_eq!(used(&site).await, 0);
}

#[tokio::test]
async fn a_token_counts_on_the_enrolment_name_only() {
    let site = Site::open().await;
    let token = made(&site, json!({})).await;
    let mut device = site.device("press-9").await;
    let csr = est::csr(&key()).unwrap();
    let claim = claim(&device, &token, "press-1", &csr);
    let answer = send(&mut device, &claim, &csr).await;
    assert_ne!(answer.status, 200);
    assert_eq!(used(&site).await, 0);
}

/// The attacker holds a copy of the database and nothing else.
#[tokio::test]
async fn a_thief_of_the_database_cannot_use_a_token() {
    let site = Site::open().await;
    let token = made(&site, json!({})).await;
    let secret: String = token.secret.clone().into();
    for file in std::fs::read_dir(site.kept()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(&secret), "{}", path.display());
            let raw = token.secret.as_bytes();
            assert!(
                !bytes.windows(32).any(|window| window == raw),
                "{}",
                path.display()
            );
        }
    }
    // The same rows under another key, as on a machine that restored the database alone.
    let kept = site.kept();
    let (folder, running) = site.stopping();
    running.await.unwrap().unwrap();
    std::fs::remove_file(kept.join("join.key")).unwrap();
    let site = Site::again(folder, token.fleet.clone()).await;
    assert_eq!(
        join(&site, &token, "press-1", &key()).await.refusal(),
        (403, Code::TokenInvalid)
    );
}

#[tokio::test]
async fn a_token_beyond_the_limits_is_not_made() {
    let site = Site::open().await;
    let mut operator = site.operator().await;
    let most = json!({"uses": 1000, "expires_in_seconds": 86_400, "label": "x".repeat(100)});
    assert_eq!(operator.post("/v1/tokens", &most).await.status, 200);
    for (field, value) in [
        ("uses", json!(0)),
        ("uses", json!(1001)),
        ("expires_in_seconds", json!(0)),
        ("expires_in_seconds", json!(86_401)),
        ("label", json!("x".repeat(101))),
        ("prefix", json!("Press-")),
        ("prefix", json!("a".repeat(49))),
        ("secret", json!("00")),
    ] {
        let mut request = most.clone();
        request[field] = value;
        let answer = operator.post("/v1/tokens", &request).await;
        assert_eq!(answer.refusal(), (400, Code::BadRequest), "{field}");
    }
}

#[tokio::test]
async fn a_fleet_has_no_more_open_tokens_than_the_limit() {
    let site = Site::open().await;
    let mut operator = site.operator().await;
    let request = json!({"uses": 1, "expires_in_seconds": 60});
    for _ in 0..redan_control::tokens::OPEN_MAX {
        assert_eq!(operator.post("/v1/tokens", &request).await.status, 200);
    }
    let over = operator.post("/v1/tokens", &request).await;
    assert_eq!(over.refusal(), (403, Code::QuotaReached));
    let first = operator.get("/v1/tokens").await.json()[0]["token"].clone();
    let revoke = format!("/v1/tokens/{}/revoke", first.as_str().unwrap());
    operator.post(&revoke, &json!({})).await.json();
    assert_eq!(operator.post("/v1/tokens", &request).await.status, 200);
}

#[tokio::test]
async fn a_token_carries_everything_a_device_pins() {
    let site = Site::open().await;
    let token = made(&site, json!({})).await;
    let read = |name: &str| std::fs::read_to_string(site.founded().join("public").join(name)).unwrap();
    assert_eq!(token.release_root, read("release/1.root.json"));
    assert_eq!(token.director_root, read("director/1.root.json"));
    assert_eq!(token.ca, read("ca.pem"));
    assert_eq!(token.server, site.address.to_string());
    // What is listed later says no secret.
    let listed = site.operator().await.get("/v1/tokens").await;
    let secret: String = token.secret.clone().into();
    assert!(!String::from_utf8_lossy(&listed.body).contains(&secret));
}
