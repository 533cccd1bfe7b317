//! Limits, each asked for at its exact size and one above.

use crate::raw::{Raw, status_over_http2};
use crate::site::Site;
use redan_identity::client::ClientError;
use redan_protocol::Code;
use redan_protocol::wire::COMPONENT_LEN_MAX;
use serde_json::json;

/// A request's head is at most so long (docs/control.md).
const HEAD: usize = 16 * 1024;
/// An operator's document is at most so long (docs/control.md).
const DOCUMENT: usize = 16 * 1024 * 1024;

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let start = "GET /tuf/release/timestamp.json HTTP/1.1\r\nhost: control.plant.example\r\nx-long: ";
    for (length, status) in [(HEAD, "200"), (HEAD + 1, "431")] {
        let filler = "x".repeat(length - start.len() - 4);
        let mut raw = Raw::known(&site, &bundle).await;
        raw.send(&format!("{start}{filler}\r\n\r\n")).await;
        assert_eq!(raw.status().await, status, "a head of {length} bytes");
    }
    assert_eq!(status_over_http2(&site, &bundle, HEAD / 2).await, 200);
    assert_eq!(status_over_http2(&site, &bundle, HEAD).await, 431);
}

/// Which protocol is spoken was agreed on in the handshake; the first bytes do not change it.
#[tokio::test]
async fn who_agreed_on_one_protocol_is_not_served_the_other() {
    let site = Site::open().await;
    let bundle = site.founded().join("operators/admin.pem");
    let request = "GET /v1/fleet HTTP/1.1\r\nhost: control.plant.example\r\n\r\n";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut raw = Raw::known(&site, &bundle).await;
    raw.send(request).await;
    assert_eq!(raw.status().await, "200", "positive control");
    let mut raw = Raw::known(&site, &bundle).await;
    raw.send_bytes(preface).await;
    let said = raw.rest().await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said:?}");
    let mut raw = Raw::speaking(&site, &bundle, b"h2").await;
    raw.send_bytes(request.as_bytes()).await;
    let mut kinds = Vec::new();
    while let Some((kind, ..)) = raw.frame().await {
        kinds.push(kind);
    }
    // Its own settings at most, and that the connection ends.
    assert!(kinds.iter().all(|kind| [4, 7].contains(kind)), "{kinds:?}");
}

#[tokio::test]
async fn an_operators_document_one_byte_over_the_limit_is_refused() {
    let site = Site::open().await;
    let mut text = json!({"device": "press-1", "spki": "00".repeat(32)}).to_string();
    text.push_str(&" ".repeat(DOCUMENT - text.len()));
    let mut operator = site.operator().await;
    let whole = operator.ask("POST", "/v1/devices/admit", text).await;
    assert_eq!(whole.status, 200, "positive control");
    for (path, limit) in [
        ("/v1/devices/admit", u64::try_from(DOCUMENT).unwrap()),
        ("/v1/release", u64::try_from(DOCUMENT).unwrap()),
        ("/v1/rollouts", u64::try_from(DOCUMENT).unwrap()),
    ] {
        assert_eq!(
            refused_by_its_length(&site, "POST", path, limit + 1).await,
            "413",
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_component_one_byte_over_the_limit_is_refused_before_it_is_sent() {
    let site = Site::open().await;
    let path = format!("/v1/artifacts/{}", "00".repeat(32));
    let refused = refused_by_its_length(&site, "PUT", &path, COMPONENT_LEN_MAX.get() + 1).await;
    assert_eq!(refused, "413");
}

/// Says how long the body is, waits to be asked for it, and gives the status that came instead.
async fn refused_by_its_length(site: &Site, method: &str, path: &str, length: u64) -> String {
    let mut raw = Raw::known(site, &site.founded().join("operators/admin.pem")).await;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: control.plant.example\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
    );
    raw.send(&head).await;
    raw.status().await
}

#[tokio::test]
async fn a_connection_over_the_limit_is_closed_and_the_others_go_on() {
    let site = Site::with("plant.example", 2).await;
    let bundle = site.founded().join("operators/admin.pem");
    let mut first = site.operator().await;
    let mut second = site.operator().await;
    // A connection has its place only once it was accepted: an answer shows that it was.
    for caller in [&mut first, &mut second] {
        assert_eq!(caller.get("/v1/fleet").await.status, 200);
    }
    let third = site.connect(&bundle).await.err().unwrap();
    assert_eq!(third, ClientError::Connection);
    assert_eq!(third.code(), Code::Unreachable);
    for caller in [&mut first, &mut second] {
        assert_eq!(caller.get("/v1/fleet").await.status, 200);
    }
}
