//! `wasi:http/proxy`: the same bytes to both, the same bytes back.

use crate::{guest, ours, reference};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);

fn servers() -> &'static (reference::Server, ours::Server) {
    static SERVERS: OnceLock<(reference::Server, ours::Server)> = OnceLock::new();
    SERVERS.get_or_init(|| {
        (
            reference::serve(&guest::service()),
            ours::serve(&guest::service(), "wasi:http/proxy@0.2"),
        )
    })
}

/// Everything a connection answers, after a request is sent whole.
pub(crate) fn exchange(to: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut client = TcpStream::connect(to).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has said what it said.
    drop(client.read_to_end(&mut answer));
    drop(client.shutdown(Shutdown::Both));
    answer
}

/// The head without what differs by nature, sorted; and the body as the client puts it together, and its trailers.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
    pub(crate) whole: bool,
}

pub(crate) fn read(raw: &[u8]) -> Answer {
    let end = raw
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(raw)));
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = head.split("\r\n").map(str::to_owned);
    let status = lines.next().unwrap();
    let mut headers: Vec<String> = lines.filter(|line| !line.starts_with("date:")).collect();
    headers.sort();
    let mut rest = &raw[end + 4..];
    if !headers.iter().any(|line| line == "transfer-encoding: chunked") {
        return Answer {
            status,
            headers,
            body: rest.to_vec(),
            trailers: String::new(),
            whole: true,
        };
    }
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|window| window == b"\r\n") else {
            return Answer {
                status,
                headers,
                body,
                trailers: String::new(),
                whole: false,
            };
        };
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest = &rest[line + 2..];
        if length == 0 {
            let trailers = String::from_utf8_lossy(rest).trim().to_owned();
            return Answer {
                status,
                headers,
                body,
                trailers,
                whole: true,
            };
        }
        body.extend(&rest[..length.min(rest.len())]);
        rest = rest.get(length + 2..).unwrap_or_default();
    }
}

fn both(request: &[u8]) -> (Answer, Answer) {
    let (reference, ours) = servers();
    (
        read(&exchange(reference.address, request)),
        read(&exchange(ours.address, request)),
    )
}

#[track_caller]
fn same(request: &[u8]) -> Answer {
    let (expected, found) = both(request);
    assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(request));
    found
}

pub(crate) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n").into_bytes()
}

pub(crate) fn post(target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nhost: example\r\nconnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn a_service_sees_method_target_and_headers_the_same() {
    for method in [
        "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW",
    ] {
        let request = format!(
            "{method} /request?a=b&c=%20d HTTP/1.1\r\nhost: example:80\r\nconnection: close\r\nX-Many: 1\r\nx-many: 2\r\n\
             cookie: a=b\r\naccept: */*\r\n\r\n"
        );
        let answer = same(request.as_bytes());
        assert_eq!(answer.status, "HTTP/1.1 200 OK", "{method}");
    }
    let answer = same(&get("/request"));
    assert!(
        answer
            .body
            .starts_with(b"Method::Get Some(\"/request\") Some(Scheme::Http) true"),
        "{answer:?}"
    );
    same(b"GET http://other.example/request HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n");
    same(b"GET /request HTTP/1.0\r\nhost: example\r\n\r\n");
}

#[test]
fn bodies_stream_in_both_directions_the_same() {
    let large = vec![b'x'; 300_000];
    let length = format!("content-length: {}\r\ncontent-type: text/plain\r\n", large.len());
    let answer = same(&post("/echo", &length, &large));
    assert_eq!(answer.body, large);
    let chunked = b"4\r\nabcd\r\n0001;extension=1\r\ne\r\n0\r\n\r\n";
    let answer = same(&post("/echo", "transfer-encoding: chunked\r\n", chunked));
    assert_eq!(answer.body, b"abcde");
    assert_eq!(same(&post("/echo", "content-length: 0\r\n", b"")).body, b"");
    assert_eq!(same(&get("/chunks")).body.len(), 50_000);
    let answer = same(&post("/answers-first", &length, &large));
    assert_eq!(answer.body, b"300000");
}

#[test]
fn trailers_pass_in_both_directions_the_same() {
    let chunked = b"4\r\nabcd\r\n0\r\nsum: 42\r\n\r\n";
    let answer = same(&post(
        "/body-and-trailers",
        "transfer-encoding: chunked\r\ntrailer: sum\r\n",
        chunked,
    ));
    assert!(answer.body.starts_with(b"4 "), "{answer:?}");
    same(&post("/body-and-trailers", "content-length: 3\r\n", b"abc"));
    let request = "GET /trailers HTTP/1.1\r\nhost: example\r\nconnection: close\r\nte: trailers\r\n\r\n";
    assert_eq!(same(request.as_bytes()).trailers, "sum: 42");
    same(&get("/trailers"));
}

#[test]
fn headers_and_fields_follow_the_same_rules() {
    let answer = same(&get("/headers"));
    assert_eq!(answer.status, "HTTP/1.1 201 Created");
    assert!(answer.headers.contains(&"x-case: Kept".to_owned()), "{answer:?}");
    let fields = same(&get("/fields"));
    let text = String::from_utf8(fields.body).unwrap();
    assert!(
        text.contains("Forbidden") && text.contains("Immutable") && text.contains("InvalidSyntax"),
        "{text}"
    );
}

#[test]
fn every_status_passes() {
    for code in [200, 204, 304, 404, 418, 500, 503, 599] {
        let answer = same(&get(&format!("/status?{code}")));
        assert!(answer.status.contains(&code.to_string()), "{answer:?}");
    }
}

#[test]
fn a_declared_length_is_sent_as_declared() {
    assert_eq!(same(&get("/length")).body, b"12345");
}

/// The reference ends a broken answer as if it were whole, now and then: this one never does. How much of it leaves before the
/// connection does is a matter of time.
#[test]
fn an_answer_that_breaks_off_does_not_look_whole() {
    let (_, ours) = servers();
    let raw = exchange(ours.address, &get("/panics-later"));
    assert!(raw.is_empty() || !read(&raw).whole, "the client is told");
    let raw = exchange(ours.address, &get("/too-short"));
    assert!(
        raw.is_empty() || read(&raw).body.len() < 5,
        "fewer than the five bytes it declared"
    );
    assert!(read(&exchange(ours.address, &get("/length"))).whole);
}

/// Differs on purpose: the reference closes the connection or says 500, here the client is also told which rule said no.
#[test]
fn a_service_that_gives_no_answer_is_answered_for_it_with_a_code() {
    let (_, ours) = servers();
    for path in ["/never", "/panics", "/error"] {
        let answer = read(&exchange(ours.address, &get(path)));
        assert_eq!(answer.status, "HTTP/1.1 500 Internal Server Error", "{path}");
        assert!(
            answer.headers.contains(&"redan-code: trapped".to_owned()),
            "{path} {answer:?}"
        );
    }
}
