//! Answers with what it saw of a request, in the way the path names: so two hosts that behave alike answer alike.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse,
    ResponseOutparam,
};
use wasip2::io::streams::StreamError;

struct Service;

impl Guest for Service {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        match target.split('?').next().unwrap_or_default() {
            "/request" => answer(out, 200, Fields::new(), seen(&request).as_bytes()),
            "/echo" => echo(request, out),
            "/body-and-trailers" => {
                let (body, trailers) = read(request);
                answer(out, 200, Fields::new(), format!("{} {trailers:?}", body.len()).as_bytes());
            }
            "/trailers" => with_trailers(out),
            "/headers" => headers(out),
            "/fields" => answer(out, 200, Fields::new(), fields().as_bytes()),
            "/status" => {
                let code = target.split('?').nth(1).and_then(|code| code.parse().ok()).unwrap_or(200);
                let response = OutgoingResponse::new(Fields::new());
                let set = response.set_status_code(code);
                let body = response.body().expect("once");
                println!("{set:?} {}", response.status_code());
                ResponseOutparam::set(out, Ok(response));
                let _ = OutgoingBody::finish(body, None);
            }
            "/length" => {
                let headers = Fields::new();
                headers.set("content-length", &[b"5".to_vec()]).expect("a number");
                answer(out, 200, headers, b"12345");
            }
            "/too-short" => {
                let headers = Fields::new();
                headers.set("content-length", &[b"5".to_vec()]).expect("a number");
                let response = OutgoingResponse::new(headers);
                let body = response.body().expect("once");
                ResponseOutparam::set(out, Ok(response));
                let stream = body.write().expect("once");
                let _ = stream.blocking_write_and_flush(b"12");
                drop(stream);
                println!("{}", OutgoingBody::finish(body, None).is_err());
            }
            "/error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("as wanted".to_owned())))),
            "/never" => drop(out),
            "/panics" => panic!("as wanted"),
            "/panics-later" => {
                let response = OutgoingResponse::new(Fields::new());
                let body = response.body().expect("once");
                ResponseOutparam::set(out, Ok(response));
                let stream = body.write().expect("once");
                let _ = stream.blocking_write_and_flush(b"begun");
                panic!("as wanted");
            }
            "/chunks" => {
                let response = OutgoingResponse::new(Fields::new());
                let body = response.body().expect("once");
                ResponseOutparam::set(out, Ok(response));
                let stream = body.write().expect("once");
                for n in 0..50_u8 {
                    if stream.blocking_write_and_flush(&[n; 1_000]).is_err() {
                        return;
                    }
                }
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            "/answers-first" => {
                // The body is read after the answer's head has gone.
                let response = OutgoingResponse::new(Fields::new());
                let sink = response.body().expect("once");
                ResponseOutparam::set(out, Ok(response));
                let (body, _) = read(request);
                let stream = sink.write().expect("once");
                let _ = stream.blocking_write_and_flush(body.len().to_string().as_bytes());
                drop(stream);
                let _ = OutgoingBody::finish(sink, None);
            }
            _ => answer(out, 404, Fields::new(), b""),
        }
    }
}

fn seen(request: &IncomingRequest) -> String {
    let method = match request.method() {
        Method::Other(other) => format!("other {other}"),
        known => format!("{known:?}"),
    };
    let mut headers = request.headers().entries();
    headers.retain(|(name, _)| name != "host");
    headers.sort();
    let headers: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
    format!(
        "{method} {:?} {:?} {} {headers:?}",
        request.path_with_query(),
        request.scheme(),
        request.authority().is_some()
    )
}

fn read(request: IncomingRequest) -> (Vec<u8>, Option<Vec<(String, Vec<u8>)>>) {
    let body = request.consume().expect("once");
    assert!(request.consume().is_err(), "twice");
    let stream = body.stream().expect("once");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(4_096) {
            Ok(more) => bytes.extend(more),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(_)) => panic!("the body failed"),
        }
    }
    drop(stream);
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let trailers = trailers.get().expect("ready").expect("once").expect("well-formed");
    (bytes, trailers.map(|fields| fields.entries()))
}

fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let headers = Fields::new();
    if let Some(kind) = request.headers().get("content-type").first() {
        headers.set("content-type", &[kind.clone()]).expect("allowed");
    }
    let body = request.consume().expect("once");
    let input = body.stream().expect("once");
    let response = OutgoingResponse::new(headers);
    let sink = response.body().expect("once");
    ResponseOutparam::set(out, Ok(response));
    let output = sink.write().expect("once");
    while output.blocking_splice(&input, 8_192).is_ok() {}
    drop((input, output));
    let _ = OutgoingBody::finish(sink, None);
}

fn with_trailers(out: ResponseOutparam) {
    let headers = Fields::new();
    headers.set("trailer", &[b"sum".to_vec()]).expect("allowed");
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("once");
    let _ = stream.blocking_write_and_flush(b"body");
    drop(stream);
    let trailers = Fields::from_list(&[("sum".to_owned(), b"42".to_vec())]).expect("allowed");
    let _ = OutgoingBody::finish(body, Some(trailers));
}

fn headers(out: ResponseOutparam) {
    let headers = Fields::new();
    headers.append("x-two", b"one").expect("allowed");
    headers.append("x-two", b"two").expect("allowed");
    headers.append("X-Case", b"Kept").expect("allowed");
    headers.append("x-bytes", &[0x80, 0xff]).expect("allowed");
    answer(out, 201, headers, b"made");
}

fn fields() -> String {
    let name = |outcome: Result<(), HeaderError>| format!("{outcome:?}");
    let fields = Fields::new();
    let mut lines = vec![
        name(fields.append("good", b"1")),
        name(fields.append("bad name", b"1")),
        name(fields.append("", b"1")),
        name(fields.append("value", b"a\nb")),
        name(fields.append("connection", b"close")),
        name(fields.append("transfer-encoding", b"chunked")),
        name(fields.append("host", b"x")),
        name(fields.set("good", &[b"2".to_vec(), b"3".to_vec()])),
        format!("{:?} {:?}", fields.get("GOOD"), fields.has("absent")),
        name(fields.delete("good")),
        format!("{:?}", fields.entries()),
        format!("{:?}", Fields::from_list(&[("upgrade".to_owned(), b"x".to_vec())]).map(drop)),
    ];
    let copy = fields.clone();
    lines.push(name(copy.append("other", b"1")));
    lines.push(format!("{:?} {:?}", fields.has("other"), copy.entries()));
    let response = OutgoingResponse::new(Fields::new());
    lines.push(name(response.headers().append("late", b"1")));
    lines.push(format!("{:?} {:?}", response.set_status_code(99), response.status_code()));
    lines.join("\n")
}

fn answer(out: ResponseOutparam, status: u16, headers: Fields, body: &[u8]) {
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let sink = response.body().expect("once");
    ResponseOutparam::set(out, Ok(response));
    let stream = sink.write().expect("once");
    for part in body.chunks(4_096) {
        if stream.blocking_write_and_flush(part).is_err() {
            break;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(sink, None);
}

wasip2::http::proxy::export!(Service);
