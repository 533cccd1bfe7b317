//! Sends requests to the upstream it is told about, one scene after another, and says of each what it saw.
//!
//! A scene's name is its path: so the upstream knows how to answer, and its record can be laid beside this program's.

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

const SECOND: u64 = 1_000_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let upstream = arguments.next().expect("an upstream");
    let closed = arguments.next().expect("a port where nobody listens");
    for (name, method) in [
        ("get", Method::Get),
        ("head", Method::Head),
        ("put", Method::Put),
        ("delete", Method::Delete),
        ("options", Method::Options),
        ("patch", Method::Patch),
        ("trace", Method::Trace),
        ("brew", Method::Other("BREW".to_owned())),
    ] {
        scene(name, || send(&upstream, request(&upstream, name, &method, Fields::new()), &[], None, None));
    }
    // How the upstream answers is in the name.
    for name in [
        "answer-length",
        "answer-chunked",
        "answer-trailers",
        "answer-to-the-end",
        "answer-large",
        "answer-204",
        "answer-304",
        "answer-redirect",
        "answer-500",
        "answer-999",
        "answer-early-hints",
        "answer-many-fields",
        "answer-old",
        "answer-short",
        "answer-cut-chunk",
        "answer-nothing",
        "answer-garbage",
        "answer-bad-length",
        "answer-hop-by-hop",
    ] {
        scene(name, || send(&upstream, request(&upstream, name, &Method::Get, Fields::new()), &[], None, None));
    }
    bodies(&upstream);
    heads(&upstream);
    destinations(&upstream, &closed);
}

fn bodies(upstream: &str) {
    let post = |name: &str, headers: Fields| request(upstream, name, &Method::Post, headers);
    scene("body-empty", || send(upstream, post("body-empty", Fields::new()), &[b""], None, None));
    scene("body-one", || send(upstream, post("body-one", Fields::new()), &[b"hello"], None, None));
    scene("body-parts", || {
        send(upstream, post("body-parts", Fields::new()), &[b"one ", b"two ", b"three"], None, None)
    });
    let large = vec![b'x'; 200_000];
    let parts: Vec<&[u8]> = large.chunks(4_096).collect();
    scene("body-large", || send(upstream, post("body-large", Fields::new()), &parts, None, None));
    for (name, length, body) in [
        ("length-right", "5", &b"12345"[..]),
        ("length-zero", "0", b""),
        ("length-short", "5", b"12"),
        ("length-over", "2", b"12345"),
    ] {
        scene(name, || {
            let headers = fields(&[("content-length", length)]);
            send(upstream, post(name, headers), &[body], None, None)
        });
    }
    scene("length-not-a-number", || match Fields::from_list(&[("content-length".to_owned(), b"x".to_vec())]) {
        Ok(headers) => send(upstream, post("length-not-a-number", headers), &[b"1"], None, None),
        Err(error) => format!("fields: {error:?}"),
    });
    scene("trailers", || {
        let headers = fields(&[("trailer", "sum")]);
        send(upstream, post("trailers", headers), &[b"body"], Some(fields(&[("sum", "42")])), None)
    });
    scene("trailers-unannounced", || {
        send(
            upstream,
            post("trailers-unannounced", Fields::new()),
            &[b"body"],
            Some(fields(&[("sum", "42")])),
            None,
        )
    });
    scene("unfinished", || {
        let request = post("unfinished", Fields::new());
        let body = request.body().expect("once");
        let answer = handle(request, None);
        let stream = body.write().expect("once");
        let written = stream.blocking_write_and_flush(b"begun");
        drop(stream);
        drop(body);
        format!("{written:?} {}", answer.map_or_else(|code| format!("{code:?}"), heard))
    });
}

fn heads(upstream: &str) {
    scene("fields", || {
        let headers = Fields::new();
        for (name, value) in [("x-two", "one"), ("x-two", "two"), ("X-Case", "Kept"), ("empty", "")] {
            headers.append(name, value.as_bytes()).expect("allowed");
        }
        headers.append("x-bytes", &[0x80, 0xff]).expect("allowed");
        send(upstream, request(upstream, "fields", &Method::Get, headers), &[], None, None)
    });
    for name in [
        "host",
        "connection",
        "transfer-encoding",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "te",
        "http2-settings",
        "expect",
        "cookie",
        "authorization",
        "user-agent",
        "accept-encoding",
        "forwarded",
        "origin",
    ] {
        let scene_name = format!("field-{name}");
        scene(&scene_name, || {
            let value = if name == "expect" { "100-continue" } else { "value" };
            match Fields::from_list(&[(name.to_owned(), value.into())]) {
                Ok(headers) => {
                    send(upstream, request(upstream, &scene_name, &Method::Get, headers), &[], None, None)
                }
                Err(error) => format!("fields: {error:?}"),
            }
        });
    }
    scene("target-query", || {
        let request = request(upstream, "target-query", &Method::Get, Fields::new());
        request.set_path_with_query(Some("/target-query?a=b&c=%20d&e=\u{fc}")).map_or_else(
            |()| "refused".to_owned(),
            |()| "taken".to_owned(),
        )
    });
    scene("target-encoded", || {
        let request = request(upstream, "target-encoded", &Method::Get, Fields::new());
        request.set_path_with_query(Some("/target-encoded?a=b&c=%20d&e=%C3%BC&f")).expect("a target");
        send(upstream, request, &[], None, None)
    });
    scene("target-long", || {
        let request = request(upstream, "target-long", &Method::Get, Fields::new());
        let long = format!("/target-long?{}", "x".repeat(5_000));
        request.set_path_with_query(Some(&long)).expect("a target");
        send(upstream, request, &[], None, None)
    });
    scene("length-twice", || {
        let twice = [("content-length".to_owned(), b"5".to_vec()), ("content-length".to_owned(), b"5".to_vec())];
        match Fields::from_list(&twice) {
            Ok(headers) => {
                send(upstream, request(upstream, "length-twice", &Method::Post, headers), &[b"12345"], None, None)
            }
            Err(error) => format!("fields: {error:?}"),
        }
    });
    scene("target-none", || {
        let request = OutgoingRequest::new(Fields::new());
        request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
        request.set_authority(Some(upstream)).expect("an authority");
        send(upstream, request, &[], None, None)
    });
    scene("setters", || {
        let request = OutgoingRequest::new(Fields::new());
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            request.set_method(&Method::Other("NOT A METHOD".to_owned())),
            request.set_scheme(Some(&Scheme::Other("not a scheme".to_owned()))),
            request.set_authority(Some("not an authority")),
            request.set_authority(Some("host:port")),
            request.set_path_with_query(Some("not a path")),
            request.set_path_with_query(Some("")),
        )
    });
    scene("options", || {
        let options = RequestOptions::new();
        for set in [
            options.set_connect_timeout(Some(600 * SECOND)),
            options.set_first_byte_timeout(Some(600 * SECOND)),
            options.set_between_bytes_timeout(Some(600 * SECOND)),
        ] {
            set.expect("supported");
        }
        let request = request(upstream, "options", &Method::Get, Fields::new());
        send(upstream, request, &[], None, Some(options))
    });
    scene("first-byte-too-late", || {
        let options = RequestOptions::new();
        options.set_first_byte_timeout(Some(SECOND / 5)).expect("supported");
        let request = request(upstream, "first-byte-too-late", &Method::Get, Fields::new());
        send(upstream, request, &[], None, Some(options))
    });
}

fn destinations(upstream: &str, closed: &str) {
    scene("nobody-listens", || {
        send(upstream, request(closed, "nobody-listens", &Method::Get, Fields::new()), &[], None, None)
    });
    scene("no-such-name", || {
        send(upstream, request("no such name", "no-such-name", &Method::Get, Fields::new()), &[], None, None)
    });
    scene("no-authority", || {
        let request = OutgoingRequest::new(Fields::new());
        request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
        request.set_path_with_query(Some("/no-authority")).expect("a path");
        send(upstream, request, &[], None, None)
    });
    scene("another-scheme", || {
        let request = request(upstream, "another-scheme", &Method::Get, Fields::new());
        match request.set_scheme(Some(&Scheme::Other("ftp".to_owned()))) {
            Ok(()) => send(upstream, request, &[], None, None),
            Err(()) => "refused".to_owned(),
        }
    });
    scene("user-information", || {
        let request = request(upstream, "user-information", &Method::Get, Fields::new());
        match request.set_authority(Some(&format!("user:word@{upstream}"))) {
            Ok(()) => send(upstream, request, &[], None, None),
            Err(()) => "refused".to_owned(),
        }
    });
}

fn scene(name: &str, plays: impl FnOnce() -> String) {
    println!("== {name}\n{}", plays());
}

fn fields(entries: &[(&str, &str)]) -> Fields {
    let entries: Vec<_> = entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    Fields::from_list(&entries).expect("allowed")
}

fn request(upstream: &str, name: &str, method: &Method, headers: Fields) -> OutgoingRequest {
    let request = OutgoingRequest::new(headers);
    request.set_method(method).expect("a method");
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    if request.set_authority(Some(upstream)).is_err() {
        println!("no authority");
    }
    request.set_path_with_query(Some(&format!("/{name}"))).expect("a path");
    request
}

fn send(
    _upstream: &str,
    request: OutgoingRequest,
    parts: &[&[u8]],
    trailers: Option<Fields>,
    options: Option<RequestOptions>,
) -> String {
    let body = request.body().expect("once");
    let answer = match handle(request, options) {
        Ok(answer) => answer,
        Err(code) => return format!("handle: {}", said(&code)),
    };
    let mut lines = String::new();
    if !parts.is_empty() {
        let stream = body.write().expect("once");
        for part in parts.iter().filter(|part| !part.is_empty()) {
            if stream.blocking_write_and_flush(part).is_err() {
                lines.push_str("write failed\n");
                break;
            }
        }
        drop(stream);
    }
    if let Err(code) = OutgoingBody::finish(body, trailers) {
        lines.push_str(&format!("finish: {}\n", said(&code)));
    }
    lines + &heard(answer)
}

/// An error without texts a host makes up.
fn said(code: &ErrorCode) -> String {
    match code {
        ErrorCode::InternalError(_) => "ErrorCode::InternalError".to_owned(),
        other => format!("{other:?}"),
    }
}

fn heard(answer: FutureIncomingResponse) -> String {
    answer.subscribe().block();
    match answer.get().expect("ready").expect("once") {
        Ok(answer) => read(answer),
        Err(code) => said(&code),
    }
}

fn read(answer: IncomingResponse) -> String {
    let mut headers = answer.headers().entries();
    headers.sort();
    let headers: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
    let status = answer.status();
    let body = answer.consume().expect("once");
    let stream = body.stream().expect("once");
    let mut bytes = Vec::new();
    let end = loop {
        match stream.blocking_read(16_384) {
            Ok(more) => bytes.extend(more),
            Err(StreamError::Closed) => break "whole",
            Err(StreamError::LastOperationFailed(_)) => break "failed",
        }
    };
    drop(stream);
    let text = if bytes.len() > 100 { format!("{} bytes", bytes.len()) } else { format!("{:?}", String::from_utf8_lossy(&bytes)) };
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let trailers = match trailers.get().expect("ready").expect("once") {
        Ok(None) => "no trailers".to_owned(),
        Ok(Some(fields)) => format!("{:?}", fields.entries().iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect::<Vec<_>>()),
        Err(code) => said(&code),
    };
    format!("{status} {headers:?}\n{text} {end}, {trailers}")
}
