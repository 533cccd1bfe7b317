//! Artifacts: bytes by digest, in ranges.

use crate::site::Site;
use redan_protocol::{Code, Digest};

#[tokio::test]
async fn what_was_stored_is_served_whole_and_in_ranges() {
    let site = Site::open().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let digest = Digest::of(&bytes);
    let mut operator = site.operator().await;
    let path = format!("/v1/artifacts/{digest}");
    assert_eq!(operator.ask("PUT", &path, bytes.clone()).await.status, 200);

    let mut device = site.device("press-1").await;
    let path = format!("/artifacts/{digest}");
    let whole = device.get(&path).await;
    assert_eq!((whole.status, &whole.body[..]), (200, &bytes[..]));
    let tag = format!("\"{digest}\"");
    assert_eq!(whole.headers["etag"], tag.as_str());

    let part = device
        .ask_with("GET", &path, &[("range", "bytes=9000-")], "")
        .await
        .unwrap();
    assert_eq!((part.status, &part.body[..]), (206, &bytes[9000..]));
    assert_eq!(part.headers["content-range"], "bytes 9000-9999/10000");

    let beyond = device
        .ask_with("GET", &path, &[("range", "bytes=10000-")], "")
        .await
        .unwrap();
    assert_eq!(beyond.refusal(), (416, Code::RangeInvalid));
    assert_eq!(beyond.headers["content-range"], "bytes */10000");

    // A device goes on with a broken download only if it is still the same bytes (RFC 9110 §13.1.5).
    for (known, status) in [(tag.as_str(), 206), ("\"another\"", 200)] {
        let headers = [("range", "bytes=9000-"), ("if-range", known)];
        let answer = device.ask_with("GET", &path, &headers, "").await.unwrap();
        assert_eq!(answer.status, status, "{known}");
    }
}

#[tokio::test]
async fn bytes_that_do_not_have_the_digest_are_not_stored() {
    let site = Site::open().await;
    let digest = Digest::of(b"what was promised");
    let mut operator = site.operator().await;
    let path = format!("/v1/artifacts/{digest}");
    assert_eq!(
        operator.ask("PUT", &path, "something else").await.refusal(),
        (400, Code::DigestMismatch)
    );
    assert_eq!(operator.get(&path).await.refusal(), (404, Code::ArtifactMissing));
}

#[tokio::test]
async fn an_unknown_artifact_is_missing_and_a_name_that_is_no_digest_is_not_found() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let unknown = format!("/artifacts/{}", Digest::of(b"never stored"));
    assert_eq!(device.get(&unknown).await.refusal(), (404, Code::ArtifactMissing));
    for name in [
        "fleet.sqlite",
        "..",
        "%2e%2e%2fonline",
        &"a".repeat(63),
        &"A".repeat(64),
    ] {
        let answer = device.get(&format!("/artifacts/{name}")).await;
        assert_eq!(answer.refusal(), (404, Code::NotFound), "{name}");
    }
}
