//! `wasi:http/service@0.3`: the same bytes to both, the same bytes back.

use crate::services::{Answer, exchange, get, post, read};
use crate::{guest, ours, reference};
use std::sync::OnceLock;

fn servers() -> &'static (reference::Server, ours::Server) {
    static SERVERS: OnceLock<(reference::Server, ours::Server)> = OnceLock::new();
    SERVERS.get_or_init(|| {
        (
            reference::serve(&guest::tasks()),
            ours::serve(&guest::tasks(), "wasi:http/service@0.3"),
        )
    })
}

#[track_caller]
fn same(request: &[u8]) -> Answer {
    let (reference, ours) = servers();
    let expected = read(&exchange(reference.address, request));
    let found = read(&exchange(ours.address, request));
    assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(request));
    found
}

#[test]
fn a_service_of_wasi_0_3_sees_method_target_and_headers_the_same() {
    for method in [
        "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW",
    ] {
        let request = format!(
            "{method} /request?a=b&c=%20d HTTP/1.1\r\nhost: example:80\r\nconnection: close\r\nX-Many: 1\r\nx-many: 2\r\n\
             cookie: a=b\r\naccept: */*\r\n\r\n"
        );
        assert_eq!(same(request.as_bytes()).status, "HTTP/1.1 200 OK", "{method}");
    }
    same(b"GET http://other.example/request HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n");
    same(b"GET /request HTTP/1.0\r\nhost: example\r\n\r\n");
}

#[test]
fn streams_of_wasi_0_3_carry_bodies_the_same() {
    let large = vec![b'x'; 300_000];
    let length = format!("content-length: {}\r\ncontent-type: text/plain\r\n", large.len());
    for path in ["/echo", "/back"] {
        assert_eq!(same(&post(path, &length, &large)).body, large, "{path}");
        let chunked = b"4\r\nabcd\r\n0001;extension=1\r\ne\r\n0\r\n\r\n";
        let answer = same(&post(path, "transfer-encoding: chunked\r\n", chunked));
        assert_eq!(answer.body, b"abcde", "{path}");
        assert_eq!(
            same(&post(path, "content-length: 0\r\n", b"")).body,
            b"",
            "{path}"
        );
    }
    assert_eq!(same(&get("/chunks")).body.len(), 50_000);
    assert_eq!(same(&post("/answers-first", &length, &large)).body, b"300000");
    assert_eq!(same(&get("/gives-no-body")).body, b"");
}

#[test]
fn trailers_of_wasi_0_3_pass_in_both_directions_the_same() {
    let chunked = b"4\r\nabcd\r\n0\r\nsum: 42\r\n\r\n";
    let headers = "transfer-encoding: chunked\r\ntrailer: sum\r\n";
    let answer = same(&post("/body-and-trailers", headers, chunked));
    assert!(answer.body.starts_with(b"4 Some"), "{answer:?}");
    same(&post("/body-and-trailers", "content-length: 3\r\n", b"abc"));
    let request = "GET /trailers HTTP/1.1\r\nhost: example\r\nconnection: close\r\nte: trailers\r\n\r\n";
    assert_eq!(same(request.as_bytes()).trailers, "sum: 42");
    same(&get("/trailers"));
}

#[test]
fn fields_lengths_and_states_of_wasi_0_3_follow_the_same_rules() {
    assert_eq!(same(&get("/headers")).status, "HTTP/1.1 201 Created");
    let fields = String::from_utf8(same(&get("/fields")).body).unwrap();
    assert!(
        fields.contains("Forbidden") && fields.contains("InvalidSyntax"),
        "{fields}"
    );
    for code in [200, 204, 304, 404, 418, 500, 503, 599] {
        let answer = same(&get(&format!("/status?{code}")));
        assert!(answer.status.contains(&code.to_string()), "{answer:?}");
    }
    assert_eq!(same(&get("/length")).body, b"12345");
}

#[test]
fn clocks_and_random_numbers_of_wasi_0_3_are_there() {
    assert_eq!(same(&get("/clocks")).body, b"true true");
    assert_eq!(same(&get("/random")).body, b"32 false");
}
