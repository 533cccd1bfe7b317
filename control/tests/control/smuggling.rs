//! Requests that two readers could cut in two different places (attack H05), and heads that are bombs (H02): over raw sockets.
//!
//! Each case ends in one clean refusal or one clean answer. What stands where another reader might see a second request is never one.

use crate::raw::Raw;
use crate::site::Site;
use redan_protocol::Code;
use redan_protocol::report::Report;
use redan_protocol::wire::{CHECKIN_LEN_MAX, CheckIn, Nonce};
use std::fmt::Write as _;

const HOST: &str = "host: control.plant.example\r\n";
const JSON: &str = "content-type: application/json\r\n";

fn check_in(sequence: u64, refusal: Option<Code>) -> String {
    let nonce = Nonce([9; 16]);
    let report = Report {
        sequence,
        refusal,
        ..Report::default()
    };
    let settled = None;
    serde_json::to_string(&CheckIn {
        nonce,
        settled,
        report,
    })
    .unwrap()
}

/// The request nobody must ever read: it would show in what operators see.
fn smuggled() -> String {
    let body = check_in(u64::MAX, Some(Code::DiskFull));
    let length = body.len();
    format!("POST /v1/checkin HTTP/1.1\r\n{HOST}{JSON}content-length: {length}\r\n\r\n{body}")
}

/// An honest request after it, on the same connection, that ends it.
fn probe() -> String {
    format!("GET /.well-known/est/cacerts HTTP/1.1\r\n{HOST}connection: close\r\n\r\n")
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ends {
    /// The connection goes on, and the next request is answered.
    Answered(&'static str),
    /// Refused, and the connection with it.
    Refused,
}

/// What it is, the bytes, and how it ends.
type Case = (&'static str, String, Ends);

/// Bodies whose length is said once.
fn honest(hidden: &str) -> Vec<Case> {
    let own = check_in(1, None);
    let own_length = own.len();
    let length = hidden.len();
    let checkin = format!("POST /v1/checkin HTTP/1.1\r\n{HOST}{JSON}");
    let stamp = "GET /tuf/release/timestamp.json HTTP/1.1\r\n";
    vec![
        (
            "one length",
            format!("{checkin}content-length: {own_length}\r\n\r\n{own}"),
            Ends::Answered("200"),
        ),
        (
            "a body nobody asked for",
            format!("{stamp}{HOST}content-length: {length}\r\n\r\n{hidden}"),
            Ends::Answered("200"),
        ),
    ]
}

/// Chunks, alone and beside a length.
fn chunked(hidden: &str) -> Vec<Case> {
    let own = check_in(1, None);
    let own_length = own.len();
    let length = hidden.len();
    let hex = format!("{:x}", hidden.len());
    let checkin = format!("POST /v1/checkin HTTP/1.1\r\n{HOST}{JSON}");
    vec![
        (
            "length, then chunks",
            format!(
                "{checkin}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
                length + 5
            ),
            Ends::Refused,
        ),
        (
            "chunks, then length",
            format!(
                "{checkin}transfer-encoding: chunked\r\ncontent-length: {}\r\n\r\n0\r\n\r\n{hidden}",
                length + 5
            ),
            Ends::Refused,
        ),
        (
            "a length that ends within the first chunk",
            format!(
                "{checkin}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n"
            ),
            Ends::Refused,
        ),
        (
            "chunks alone",
            format!(
                "{checkin}transfer-encoding: chunked\r\n\r\n{own_length:x}\r\n{own}\r\n0\r\n\r\n{hidden}"
            ),
            Ends::Refused,
        ),
        (
            "an extension of a chunk",
            format!("{checkin}transfer-encoding: chunked\r\n\r\n0;a=\"\r\n\r\n{hidden}\"\r\n\r\n"),
            Ends::Refused,
        ),
        (
            "a trailer",
            format!("{checkin}transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 0\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "chunks in two codings",
            format!("{checkin}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "chunks that are not last",
            format!("{checkin}transfer-encoding: chunked, identity\r\ncontent-length: 0\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "chunks by another name",
            format!("{checkin}transfer-encoding: xchunked\r\ncontent-length: 0\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "a blank before the colon",
            format!("{checkin}transfer-encoding : chunked\r\ncontent-length: {length}\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "chunks of an older version",
            format!(
                "POST /v1/checkin HTTP/1.0\r\n{HOST}{JSON}transfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            Ends::Refused,
        ),
    ]
}

/// Lengths that are said twice, or that are none.
fn measured(hidden: &str) -> Vec<Case> {
    let length = hidden.len();
    let hex = format!("{:x}", hidden.len());
    let checkin = format!("POST /v1/checkin HTTP/1.1\r\n{HOST}{JSON}");
    vec![
        (
            "two lengths",
            format!("{checkin}content-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "two lengths in one",
            format!("{checkin}content-length: 0, {length}\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "a length with a sign",
            format!("{checkin}content-length: +{length}\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "a negative length",
            format!("{checkin}content-length: -1\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "a length in hex",
            format!("{checkin}content-length: 0x{hex}\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "no number",
            format!("{checkin}content-length: \r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "a length beyond all",
            format!("{checkin}content-length: 99999999999999999999999\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
    ]
}

/// Lines that end or begin where they should not.
fn written(hidden: &str) -> Vec<Case> {
    let length = hidden.len();
    let checkin = format!("POST /v1/checkin HTTP/1.1\r\n{HOST}{JSON}");
    let stamp = "GET /tuf/release/timestamp.json HTTP/1.1\r\n";
    vec![
        (
            "a folded field",
            format!("{checkin}x-a: b\r\n content-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "a folded length",
            format!("{checkin}content-length:\r\n {length}\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "a carriage return in a value",
            format!("{checkin}x-a: b\rcontent-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "a zero byte in a name",
            format!("{checkin}x\0a: b\r\ncontent-length: {length}\r\n\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "line feeds alone, and two lengths",
            format!("{stamp}{HOST}x-a: b\ncontent-length: 0\ncontent-length: {length}\n\n{hidden}"),
            Ends::Refused,
        ),
        (
            "line feeds alone",
            format!("{stamp}{HOST}x-a: b\ncontent-length: {length}\n\n{hidden}"),
            Ends::Answered("200"),
        ),
        (
            "blank lines first",
            format!("\r\n\r\n{stamp}{HOST}content-length: {length}\r\n\r\n{hidden}"),
            Ends::Answered("200"),
        ),
        (
            "two hosts",
            format!("{stamp}{HOST}host: control.other.example\r\ncontent-length: {length}\r\n\r\n{hidden}"),
            Ends::Answered("421"),
        ),
        (
            "another authority in the line",
            format!(
                "GET https://control.other.example/tuf/release/timestamp.json HTTP/1.1\r\n{HOST}content-length: {length}\r\n\r\n{hidden}"
            ),
            Ends::Answered("421"),
        ),
        (
            "no version",
            format!("GET /tuf/release/timestamp.json\r\n{HOST}\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "a version of its own",
            format!("GET /tuf/release/timestamp.json HTTP/1.9\r\n{HOST}\r\n{hidden}"),
            Ends::Refused,
        ),
        (
            "a tunnel",
            format!(
                "CONNECT control.plant.example:443 HTTP/1.1\r\n{HOST}content-length: {length}\r\n\r\n{hidden}"
            ),
            Ends::Answered("421"),
        ),
    ]
}

#[tokio::test]
async fn nothing_that_two_readers_cut_differently_is_ever_read_as_a_second_request() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let hidden = smuggled();
    let cases = [honest, chunked, measured, written]
        .map(|cases| cases(&hidden))
        .concat();
    for (what, attack, wanted) in cases {
        let mut raw = Raw::known(&site, &bundle).await;
        raw.send(&format!("{attack}{}", probe())).await;
        let said = raw.rest().await;
        let answers: Vec<&str> = said
            .match_indices("HTTP/1.")
            .map(|(at, _)| &said[at + 9..at + 12])
            .collect();
        match wanted {
            Ends::Answered(status) => assert_eq!(answers, [status, "200"], "{what}: {said}"),
            Ends::Refused => {
                assert!(answers.len() <= 1, "{what}: {said}");
                assert!(
                    answers.iter().all(|status| status.starts_with('4')),
                    "{what}: {said}"
                );
            }
        }
        let seen = site.operator().await.get("/v1/devices/press-1").await.json();
        assert_eq!(seen["refusal"], serde_json::Value::Null, "{what}");
    }
    // The same bytes where they are a request: they are read, and show.
    let mut raw = Raw::known(&site, &bundle).await;
    raw.send(&format!("{hidden}{}", probe())).await;
    assert!(raw.rest().await.starts_with("HTTP/1.1 200"), "positive control");
    let seen = site.operator().await.get("/v1/devices/press-1").await.json();
    assert_eq!(seen["refusal"], "disk-full", "positive control");
}

#[tokio::test]
async fn a_head_with_more_fields_than_the_limit_is_refused() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    for (fields, status) in [(99, "200"), (100, "431"), (1000, "431")] {
        // And the host.
        let mut more = String::new();
        for number in 0..fields {
            write!(more, "x-{number}: y\r\n").unwrap();
        }
        let mut raw = Raw::known(&site, &bundle).await;
        raw.send(&format!(
            "GET /tuf/release/timestamp.json HTTP/1.1\r\n{HOST}{more}\r\n"
        ))
        .await;
        assert_eq!(raw.status().await, status, "{fields}");
    }
}

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;

/// A field that is not indexed, in plain bytes (RFC 7541 §6.2.2); both parts shorter than 127 bytes.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [
        &[0, length(name)],
        name.as_bytes(),
        &[length(value)],
        value.as_bytes(),
    ]
    .concat()
}

/// A `GET` of something that is there: pseudo fields of the static table, and the path.
fn get(authority: &str) -> Vec<u8> {
    let path = "/tuf/release/timestamp.json";
    let literal =
        |index: u8, text: &str| [&[index, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0x82, 0x87], literal(1, authority), literal(4, path)].concat()
}

/// What a server says to a header block on the first stream: a status by its place in the static table, or that it is reset.
async fn said_to(site: &Site, bundle: &std::path::Path, block: &[u8]) -> String {
    let mut raw = Raw::speaking(site, bundle, b"h2").await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    let mut parts = block.chunks(16_384).peekable();
    let (mut kind, mut flags) = (HEADERS, 1);
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            flags |= 4;
        }
        bytes.extend(frame(kind, flags, 1, part));
        (kind, flags) = (9, 0);
    }
    raw.send_bytes(&bytes).await;
    loop {
        let Some((kind, stream, payload)) = raw.frame().await else {
            return "the end".to_owned();
        };
        match (kind, stream) {
            (HEADERS, 1) => {
                return match payload[0] {
                    0x88 => "200".to_owned(),
                    // `:status` with its value: 0x08 or 0x48, length, digits or Huffman-coded ones.
                    _ => format!("{:02x?}", &payload[..payload.len().min(5)]),
                };
            }
            (3, 1) | (7, _) => return "reset".to_owned(),
            _ => {}
        }
    }
}

/// A body in frames, whose end is the end of the stream.
#[tokio::test]
async fn a_checkin_over_http2_that_does_not_say_its_length_is_limited_all_the_same() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let limit = usize::try_from(CHECKIN_LEN_MAX.get()).unwrap();
    for (number, length, taken) in [(1, limit, true), (2, limit + 1, false)] {
        let mut text = check_in(number, None);
        text.push_str(&" ".repeat(length - text.len()));
        let path = [&[4, 11], &b"/v1/checkin"[..]].concat();
        let host = [&[1, 21], &b"control.plant.example"[..]].concat();
        let kind = field("content-type", "application/json");
        let block = [vec![0x83, 0x87], host, path, kind].concat();
        let mut raw = Raw::speaking(&site, &bundle, b"h2").await;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        bytes.extend(frame(HEADERS, 4, 1, &block));
        bytes.extend(frame(0, 1, 1, text.as_bytes()));
        raw.send_bytes(&bytes).await;
        let answer = loop {
            match raw.frame().await.unwrap() {
                (0, 1, payload) if !payload.is_empty() => break String::from_utf8(payload).unwrap(),
                _ => {}
            }
        };
        assert_eq!(answer.contains("statement"), taken, "{length} bytes: {answer}");
        assert_eq!(answer.contains("too-large"), !taken, "{length} bytes: {answer}");
    }
}

/// Holds: a device's key, and a writer of HTTP/2 of its own.
#[tokio::test]
async fn over_http2_no_field_can_carry_a_line_and_no_table_can_be_a_bomb() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let host = "control.plant.example";
    assert_eq!(
        said_to(&site, &bundle, &get(host)).await,
        "200",
        "positive control"
    );
    let plain = [get(host), field("x-a", "b")].concat();
    assert_eq!(said_to(&site, &bundle, &plain).await, "200", "positive control");
    for (what, more) in [
        (
            "a line in a value",
            field("x-a", "b\r\ntransfer-encoding: chunked"),
        ),
        ("a line feed in a value", field("x-a", "b\nc: d")),
        ("a zero byte in a value", field("x-a", "b\0c")),
        ("a line in a name", field("x-a: b\r\nc", "d")),
        ("a capital in a name", field("X-A", "b")),
        ("chunks", field("transfer-encoding", "chunked")),
        ("a connection", field("connection", "transfer-encoding")),
        ("a second path", field(":path", "/v1/checkin")),
        ("a pseudo field nobody knows", field(":admin", "true")),
    ] {
        let said = said_to(&site, &bundle, &[get(host), more].concat()).await;
        assert!(["reset", "the end"].contains(&&*said), "{what}: {said}");
    }
    // One authority in the line, another one in the field.
    let two = [get(host), field("host", "control.other.example")].concat();
    assert_ne!(said_to(&site, &bundle, &two).await, "200");
    assert_ne!(
        said_to(&site, &bundle, &get("control.other.example")).await,
        "200"
    );
    // An entry of 4,000 bytes in the table (§6.2.1), and a block that names it ten thousand times: 40 MB of fields in 14 KB.
    let long = "y".repeat(4000);
    // Length 4000 with a prefix of seven bits: 127 and 3873 (§5.1).
    let entry = [&[0x40, 3], &b"x-a"[..], &[0x7f, 0xa1, 0x1e], long.as_bytes()].concat();
    for (references, fits) in [(2, true), (10_000, false)] {
        let bomb = [get(host), entry.clone(), vec![0xbe; references]].concat();
        let said = said_to(&site, &bundle, &bomb).await;
        assert_eq!(said == "200", fits, "{references}: {said}");
    }
    assert_eq!(
        said_to(&site, &bundle, &get(host)).await,
        "200",
        "the server goes on"
    );
}
