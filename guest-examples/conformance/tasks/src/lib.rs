//! A service of WASI 0.3. It answers with what it saw of a request, in the way the path names, and misbehaves where the path says so.

mod hostile;

use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, HeaderError, Method, Request, Response, Scheme, Trailers};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult, spawn_local};
use wasip3::{wit_future, wit_stream};

struct Service;

wasip3::http::service::export!(Service);

pub(crate) type Outcome = Result<Response, ErrorCode>;

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Outcome {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/request" => Ok(answer(200, Fields::new(), seen(&request).into_bytes())),
            "/echo" => Ok(echo(request)),
            "/back" => Ok(back(request)),
            "/body-and-trailers" => {
                let (body, trailers) = read(request).await;
                Ok(answer(
                    200,
                    Fields::new(),
                    format!("{} {trailers:?}", body.len()).into_bytes(),
                ))
            }
            "/trailers" => Ok(with_trailers()),
            "/headers" => {
                let headers = Fields::new();
                headers.append("x-two", b"one").expect("allowed");
                headers.append("x-two", b"two").expect("allowed");
                headers.append("X-Case", b"Kept").expect("allowed");
                headers.append("x-bytes", &[0x80, 0xff]).expect("allowed");
                Ok(answer(201, headers, b"made".to_vec()))
            }
            "/fields" => Ok(answer(200, Fields::new(), fields().into_bytes())),
            "/status" => Ok(answer(query.parse().unwrap_or(200), Fields::new(), Vec::new())),
            "/length" => Ok(declared(b"12345")),
            "/too-short" => Ok(declared(b"12")),
            "/error" => Err(ErrorCode::InternalError(Some("as wanted".to_owned()))),
            "/panics" => panic!("as wanted"),
            "/panics-later" => {
                let (mut body, response) = streaming(Fields::new());
                spawn_local(async move {
                    body.write_all(b"begun".to_vec()).await;
                    panic!("as wanted");
                });
                Ok(response)
            }
            "/chunks" => {
                let (mut body, response) = streaming(Fields::new());
                spawn_local(async move {
                    for n in 0..50_u8 {
                        body.write_all(vec![n; 1_000]).await;
                    }
                });
                Ok(response)
            }
            "/answers-first" => {
                let (mut body, response) = streaming(Fields::new());
                spawn_local(async move {
                    let (read, _) = read(request).await;
                    body.write_all(read.len().to_string().into_bytes()).await;
                });
                Ok(response)
            }
            "/around" => Ok(answer(200, Fields::new(), around().await.into_bytes())),
            "/clocks" => Ok(answer(200, Fields::new(), clocks().await.into_bytes())),
            "/random" => {
                let bytes = wasip3::random::random::get_random_bytes(32);
                let other = wasip3::random::insecure::get_insecure_random_bytes(32);
                Ok(answer(
                    200,
                    Fields::new(),
                    format!("{} {}", bytes.len(), bytes == other).into_bytes(),
                ))
            }
            "/send" => Ok(send(query).await),
            "/" | "/health" => Ok(answer(200, Fields::new(), b"well\n".to_vec())),
            other => hostile::answer(other).await,
        }
    }
}

fn seen(request: &Request) -> String {
    let method = match request.get_method() {
        Method::Other(other) => format!("other {other}"),
        known => format!("{known:?}"),
    };
    let mut headers = request.get_headers().copy_all();
    headers.retain(|(name, _)| name != "host");
    headers.sort();
    let headers: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)))
        .collect();
    format!("{method} {:?} {headers:?}", request.get_path_with_query())
}

/// Says of a body that it was read well.
fn read_well() -> FutureReader<Result<(), ErrorCode>> {
    let (done, outcome) = wit_future::new(|| Ok(()));
    drop(done);
    outcome
}

pub(crate) fn no_trailers() -> FutureReader<Result<Option<Trailers>, ErrorCode>> {
    let (none, trailers) = wit_future::new(|| Ok(None));
    drop(none);
    trailers
}

async fn read(request: Request) -> (Vec<u8>, Option<Vec<(String, Vec<u8>)>>) {
    let (body, trailers) = Request::consume_body(request, read_well());
    let bytes = all(body).await;
    let trailers = trailers.await.expect("well-formed");
    (bytes, trailers.map(|fields| fields.copy_all()))
}

async fn all(mut body: StreamReader<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let (outcome, more) = body.read(Vec::with_capacity(4_096)).await;
        bytes.extend(more);
        if !matches!(outcome, StreamResult::Complete(_)) {
            return bytes;
        }
    }
}

/// Through the guest's own memory.
fn echo(request: Request) -> Response {
    let headers = Fields::new();
    let kind = request.get_headers().get("content-type");
    if let Some(kind) = kind.first() {
        headers.set("content-type", &[kind.clone()]).expect("allowed");
    }
    let (mut body, response) = streaming(headers);
    let (mut input, _) = Request::consume_body(request, read_well());
    spawn_local(async move {
        loop {
            let (outcome, more) = input.read(Vec::with_capacity(8_192)).await;
            if !more.is_empty() && !body.write_all(more).await.is_empty() {
                return;
            }
            if !matches!(outcome, StreamResult::Complete(_)) {
                return;
            }
        }
    });
    response
}

/// The stream itself goes back; no byte of it passes the guest.
fn back(request: Request) -> Response {
    let (input, trailers) = Request::consume_body(request, read_well());
    Response::new(Fields::new(), Some(input), trailers).0
}

pub(crate) fn streaming(headers: Fields) -> (wasip3::wit_bindgen::StreamWriter<u8>, Response) {
    let (writer, body) = wit_stream::new();
    let (response, _) = Response::new(headers, Some(body), no_trailers());
    (writer, response)
}

fn with_trailers() -> Response {
    let headers = Fields::new();
    headers.set("trailer", &[b"sum".to_vec()]).expect("allowed");
    let (mut writer, body) = wit_stream::new();
    let (sum, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(headers, Some(body), trailers);
    spawn_local(async move {
        writer.write_all(b"body".to_vec()).await;
        drop(writer);
        let fields = Fields::from_list(&[("sum".to_owned(), b"42".to_vec())]).expect("allowed");
        let _ = sum.write(Ok(Some(fields))).await;
    });
    response
}

fn declared(body: &'static [u8]) -> Response {
    let headers = Fields::new();
    headers.set("content-length", &[b"5".to_vec()]).expect("a number");
    answer(200, headers, body.to_vec())
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
        format!("{:?}", fields.copy_all()),
        format!(
            "{:?}",
            Fields::from_list(&[("upgrade".to_owned(), b"x".to_vec())]).map(drop)
        ),
    ];
    let copy = fields.clone();
    lines.push(name(copy.append("other", b"1")));
    lines.push(format!("{:?} {:?}", fields.has("other"), copy.copy_all()));
    lines.join("\n")
}

/// What a program finds around itself, by the names of both versions.
async fn around() -> String {
    println!("by 0.2");
    let (mut out, text) = wit_stream::new();
    let written = wasip3::cli::stdout::write_via_stream(text);
    out.write_all(b"by 0.3\n".to_vec()).await;
    drop(out);
    let written = written.await;
    let (input, ended) = wasip3::cli::stdin::read_via_stream();
    let input = all(input).await;
    format!(
        "{:?} {:?} {:?} {written:?} {input:?} {:?} {:?}",
        std::env::vars().collect::<Vec<_>>(),
        wasip3::cli::environment::get_environment(),
        wasip3::cli::environment::get_arguments(),
        ended.await,
        std::fs::read_dir("/").map(drop).is_err(),
    )
}

async fn clocks() -> String {
    use wasip3::clocks::{monotonic_clock, system_clock};
    let before = monotonic_clock::now();
    monotonic_clock::wait_for(2_000_000).await;
    monotonic_clock::wait_until(before).await;
    let after = monotonic_clock::now();
    format!(
        "{} {}",
        after > before,
        system_clock::now().seconds > 1_600_000_000
    )
}

/// Sends what the query says: `METHOD AUTHORITY PATH BODY`, by `+`.
async fn send(query: &str) -> Response {
    let parts: Vec<&str> = query.split('+').collect();
    let &[method, authority, path, text] = parts.as_slice() else {
        return answer(400, Fields::new(), Vec::new());
    };
    let headers = Fields::from_list(&[("x-from".to_owned(), b"guest".to_vec())]).expect("allowed");
    let (mut writer, body) = wit_stream::new();
    let body = (!text.is_empty()).then_some(body);
    let (request, sent) = Request::new(headers, body, no_trailers(), None);
    let method = match method {
        "GET" => Method::Get,
        "POST" => Method::Post,
        other => Method::Other(other.to_owned()),
    };
    request.set_method(&method).expect("a method");
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(path)).expect("a path");
    let text = text.as_bytes().to_vec();
    spawn_local(async move {
        writer.write_all(text).await;
    });
    let line = match client::send(request).await {
        Err(code) => format!("{code:?}"),
        Ok(found) => {
            let status = found.get_status_code();
            let mut headers = found.get_headers().copy_all();
            headers.sort();
            let (body, trailers) = Response::consume_body(found, read_well());
            let body = all(body).await;
            let trailers = trailers
                .await
                .map(|fields| fields.map(|fields| fields.copy_all()));
            format!(
                "{status} {headers:?} {:?} {trailers:?} {:?}",
                String::from_utf8_lossy(&body),
                sent.await
            )
        }
    };
    answer(200, Fields::new(), line.into_bytes())
}

pub(crate) fn answer(status: u16, headers: Fields, body: Vec<u8>) -> Response {
    let (mut writer, response) = streaming(headers);
    if response.set_status_code(status).is_err() {
        response.set_status_code(500).expect("a status");
    }
    spawn_local(async move {
        writer.write_all(body).await;
    });
    response
}
