//! A connection that rests between two requests: what it kept for the next one is put away, and nobody notices.

use crate::raw::Raw;
use crate::site::{Caller, Site};
use std::time::Duration;

const ASK: &str = "GET /.well-known/est/cacerts HTTP/1.1\r\nhost: control.plant.example\r\n\r\n";
/// Longer than a connection takes to count as waiting, shorter than it may wait.
const WHILE: Duration = Duration::from_millis(1200);

/// How many connections wait.
async fn waiting(operator: &mut Caller) -> String {
    let metrics = String::from_utf8(operator.get("/metrics").await.body.to_vec()).unwrap();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("redan_connections_waiting "));
    line.unwrap().to_owned()
}

/// Time passes, for everybody who waits for it, until so many connections wait beside the operator's own.
async fn until_waiting(operator: &mut Caller, wanted: &str) {
    while waiting(operator).await != wanted {
        tokio::time::pause();
        tokio::time::advance(WHILE / 4).await;
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_connection_that_rested_answers_whatever_comes_next_and_in_whatever_pieces() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let mut operator = site.operator().await;
    let mut raw = Raw::known(&site, &bundle).await;
    raw.send(ASK).await;
    assert_eq!(raw.answer().await, "200");
    let (first, second) = ASK.split_at(9);
    let (two, one_and_more) = (format!("{ASK}{ASK}"), format!("{ASK}{first}"));
    for (pieces, answers) in [
        (vec![ASK], 1),
        (vec![first, second], 1),
        (vec![&two], 2),
        (vec![&one_and_more, second], 2),
    ] {
        until_waiting(&mut operator, "1").await;
        for piece in pieces {
            raw.send(piece).await;
        }
        for _ in 0..answers {
            assert_eq!(raw.answer().await, "200");
        }
        assert_eq!(waiting(&mut operator).await, "0");
    }
}

/// What was read ahead of the rest is not forgotten, and whoever stops in the middle of a head is not waited for longer than before.
#[tokio::test]
async fn a_connection_that_is_owed_something_does_not_rest() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let mut operator = site.operator().await;
    // Refused before its body came: where the next request begins is not known.
    let unread = "POST /v1/checkin HTTP/1.1\r\nhost: control.plant.example\r\ncontent-length: 20\r\n\r\n";
    // Nothing asked yet; and an old protocol, whose connection ends by itself.
    let silent = Raw::known(&site, &bundle).await;
    let mut refused = Raw::known(&site, &bundle).await;
    refused.send(unread).await;
    assert_eq!(refused.answer().await, "415");
    let mut rests = Raw::known(&site, &bundle).await;
    rests.send(ASK).await;
    assert_eq!(rests.answer().await, "200");
    until_waiting(&mut operator, "1").await;
    tokio::time::pause();
    tokio::time::advance(WHILE).await;
    tokio::time::resume();
    assert_eq!(
        waiting(&mut operator).await,
        "1",
        "only the one that is owed nothing"
    );
    drop(silent);
    // The body that comes after all is no request, whatever it looks like.
    refused.send_bytes(b"GET / HTTP/1.1\r\n\r\n\r\n").await;
    let said = refused.rest().await;
    assert!(
        !said.contains("HTTP/1.1 2") && !said.contains("HTTP/1.1 404"),
        "{said}"
    );
}

#[tokio::test]
async fn a_connection_that_rests_is_cut_with_its_device_and_ends_with_its_time() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let other = site.enrolled("press-2").await;
    let mut operator = site.operator().await;
    let mut revoked = Raw::known(&site, &bundle).await;
    let mut silent = Raw::known(&site, &other).await;
    for raw in [&mut revoked, &mut silent] {
        raw.send(ASK).await;
        assert_eq!(raw.answer().await, "200");
    }
    until_waiting(&mut operator, "2").await;
    let answer = operator
        .post("/v1/devices/press-1/revoke", &serde_json::json!({}))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(revoked.rest().await, "");
    assert_eq!(waiting(&mut operator).await, "1");
    until_waiting(&mut operator, "0").await;
    assert_eq!(silent.rest().await, "");
}
