//! The HTTP client over a real TLS connection in memory: bodies, limits, deadlines.

use crate::stage::{fleet, now, serving};
use bytes::Bytes;
use redan_identity::client::{ClientError, Connection, STEP_WITHIN};
use redan_identity::tls::{accept, device_client};
use redan_protocol::{ByteCount, Code, UnixSeconds};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio_rustls::server::TlsStream;

/// A connection to a server that plays `script` once the handshake is done.
async fn open<F>(
    script: impl FnOnce(TlsStream<DuplexStream>) -> F + Send + 'static,
) -> (Connection, JoinHandle<F::Output>)
where
    F: Future<Output: Send> + Send + 'static,
{
    let fleet = fleet("plant.example");
    let (key, chain) = fleet.device("press-7");
    let client = device_client(&fleet.anchor, chain, &key, UnixSeconds::default()).unwrap();
    let fleets = serving(&[&fleet]);
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = tokio::spawn(async move { script(accept(&fleets, far, now).await.unwrap().stream).await });
    let connection = Connection::open(near, client, &fleet.control()).await.unwrap();
    (connection, server)
}

/// Reads one request head.
async fn head(stream: &mut TlsStream<DuplexStream>) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_request_names_the_host_and_carries_its_headers_and_body() {
    let (mut connection, server) = open(async |mut stream| {
        let head = head(&mut stream).await;
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        (head, body)
    })
    .await;
    let headers = [("content-type", "text/plain")];
    let answer = connection
        .request("PUT", "/a?b", &headers, Bytes::from("hello"), ByteCount::new(2))
        .await
        .unwrap();
    assert_eq!(
        (answer.status, &answer.body[..], &answer.headers["x-a"]),
        (200, &b"ok"[..], &"b".parse().unwrap())
    );
    let (head, body) = server.await.unwrap();
    assert_eq!(&body, b"hello");
    assert!(head.starts_with("PUT /a?b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: control.plant.example\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain\r\n"), "{head}");
    assert!(head.contains("content-length: 5\r\n"), "{head}");
}

#[tokio::test]
async fn an_answer_one_byte_over_the_limit_is_refused() {
    for (limit, taken) in [(5, true), (4, false)] {
        let (mut connection, _server) = open(async |mut stream| {
            head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
                .await
                .unwrap();
            stream
        })
        .await;
        let answer = connection
            .request("GET", "/", &[], Bytes::new(), ByteCount::new(limit))
            .await;
        let answer = answer.map(|answer| answer.body);
        let over = Err(ClientError::TooLarge(ByteCount::new(limit)));
        assert_eq!(answer, if taken { Ok(Bytes::from("hello")) } else { over });
    }
}

#[tokio::test]
async fn a_large_answer_is_taken_piece_by_piece() {
    const LENGTH: usize = 3 * 1024 * 1024;
    let (mut connection, server) = open(async |mut stream| {
        let head = head(&mut stream).await;
        let answer = format!("HTTP/1.1 206 Partial Content\r\ncontent-length: {LENGTH}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.write_all(&vec![7; LENGTH]).await.unwrap();
        stream.flush().await.unwrap();
        head
    })
    .await;
    let mut download = connection
        .download("/artifacts/x", &[("range", "bytes=10-")])
        .await
        .unwrap();
    assert_eq!(download.status, 206);
    let mut length = 0;
    while let Some(chunk) = download.chunk().await.unwrap() {
        assert!(chunk.iter().all(|byte| *byte == 7));
        assert!(chunk.len() <= 1024 * 1024, "not the whole at once");
        length += chunk.len();
    }
    assert_eq!(length, LENGTH);
    assert!(server.await.unwrap().contains("range: bytes=10-\r\n"));
}

#[tokio::test]
async fn an_answer_that_ends_early_is_no_answer() {
    let (mut connection, _server) = open(async |mut stream| {
        head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let answer = connection
        .request("GET", "/", &[], Bytes::new(), ByteCount::kib(1))
        .await;
    assert_eq!(answer.map(drop), Err(ClientError::Connection));
    // And the connection is over.
    let answer = connection
        .request("GET", "/", &[], Bytes::new(), ByteCount::kib(1))
        .await;
    assert_eq!(answer.map(drop), Err(ClientError::Connection));
}

#[tokio::test]
async fn a_request_that_cannot_be_written_is_refused_before_it_is_sent() {
    let (mut connection, _server) = open(async |stream| stream).await;
    for (method, path, headers) in [
        ("BAD METHOD", "/", vec![]),
        ("GET", "/ /", vec![]),
        ("GET", "/", vec![("bad name", "x")]),
        ("GET", "/", vec![("x", "a\r\nhost: other")]),
    ] {
        let answer = connection
            .request(method, path, &headers, Bytes::new(), ByteCount::kib(1))
            .await;
        assert_eq!(answer.map(drop), Err(ClientError::Request));
    }
    assert_eq!(ClientError::Request.code(), Code::Internal);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let (mut connection, _server) = open(async |stream| stream).await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let answer = connection
        .request("GET", "/", &[], Bytes::new(), ByteCount::kib(1))
        .await;
    assert_eq!(answer.map(drop), Err(ClientError::Timeout));
    assert!(began.elapsed() >= STEP_WITHIN && began.elapsed() < STEP_WITHIN + Duration::from_secs(1));
}

#[tokio::test]
async fn a_large_body_is_given_the_time_of_a_slow_line() {
    let (mut connection, _server) = open(async |stream| stream).await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let body = Bytes::from(vec![0; 1024 * 1024]);
    let answer = connection.request("PUT", "/", &[], body, ByteCount::kib(1)).await;
    assert_eq!(answer.map(drop), Err(ClientError::Timeout));
    let patience = STEP_WITHIN + Duration::from_secs(64);
    assert!(began.elapsed() >= patience && began.elapsed() < patience + Duration::from_secs(1));
}
