//! An HTTP service that attacks its host. The request's path names the attack; `/version` behaves.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Hostile;

impl Guest for Hostile {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match path.as_str() {
            // Well-behaved: which release answers, after the request's body has ended.
            "/version" => {
                read(request);
                let version = std::env::var("VERSION").unwrap_or_default();
                answer(out, 200, Fields::new(), version.as_bytes());
            }
            "/count" => {
                let count = read(request);
                answer(out, 200, Fields::new(), count.to_string().as_bytes());
            }
            "/endless-body" => {
                let body = begin(out, 200, Fields::new());
                let stream = body.write().expect("once");
                while stream.blocking_write_and_flush(&[b'x'; 4_096]).is_ok() {}
            }
            "/empty-writes" => {
                let body = begin(out, 200, Fields::new());
                let stream = body.write().expect("once");
                while stream.blocking_write_and_flush(&[]).is_ok() {}
            }
            "/promises-a-large-body" => {
                let headers = Fields::new();
                headers.set("content-length", &[b"1000000000".to_vec()]).expect("a number");
                let _open = begin(out, 200, headers);
                wait();
            }
            // Over what the wire may carry, below what the host lets a guest collect.
            "/large-headers" => {
                let headers = Fields::new();
                headers.append("large", &vec![b'x'; 20_000]).expect("collected");
                answer(out, 200, headers, b"");
            }
            "/header-bomb" => {
                let headers = Fields::new();
                for n in 0.. {
                    headers.append(&format!("bomb-{n}"), &vec![b'x'; 4_000]).expect("collected");
                }
            }
            // Never sent: it is the host's memory they lie in.
            "/hoards-headers" => {
                let headers = Fields::new();
                for n in 0..25 {
                    headers.append(&format!("hoard-{n}"), &vec![b'x'; 4_000]).expect("collected");
                }
                answer(out, 200, Fields::new(), b"");
            }
            "/many-empty-headers" => {
                let headers = Fields::new();
                for _ in 0.. {
                    headers.append("x", b"").expect("collected");
                }
            }
            "/trailer-bomb" => {
                let headers = Fields::new();
                headers.append("trailer", b"large").expect("allowed");
                let body = begin(out, 200, headers);
                let trailers = Fields::new();
                trailers.append("large", &vec![b'x'; 20_000]).expect("collected");
                let _ = OutgoingBody::finish(body, Some(trailers));
            }
            "/forges-a-code" => {
                let headers = Fields::new();
                let forged = headers.append("redan-code", b"forged").is_ok();
                let hop = headers.append("connection", b"upgrade").is_ok();
                let status = if forged || hop { 500 } else { 200 };
                answer(out, status, headers, b"");
            }
            "/never-answers" => drop(out),
            "/answers-with-an-error" => {
                ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("secret".to_owned()))));
            }
            "/panics" => panic!("as wanted"),
            "/loops" => loop {
                std::hint::black_box(());
            },
            "/loops-after-the-head" => {
                let _open = begin(out, 200, Fields::new());
                loop {
                    std::hint::black_box(());
                }
            }
            // Well-behaved: what became of a request to the one host it may reach.
            "/fetch" => {
                let outcome = if fetch() { "answered" } else { "refused" };
                answer(out, 200, Fields::new(), outcome.as_bytes());
            }
            "/sleeps" => wait(),
            "/fills-memory" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(vec![1_u8; 1 << 20]);
                }
            }
            _ => answer(out, 404, Fields::new(), b""),
        }
    }
}

/// Reads the whole request body; how many bytes there were.
fn read(request: IncomingRequest) -> u64 {
    let body = request.consume().expect("once");
    let stream = body.stream().expect("once");
    let mut count = 0;
    while let Ok(bytes) = stream.blocking_read(65_536) {
        count += bytes.len() as u64;
    }
    drop(stream);
    drop(IncomingBody::finish(body));
    count
}

fn begin(out: ResponseOutparam, status: u16, headers: Fields) -> OutgoingBody {
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("a status");
    let body = response.body().expect("once");
    ResponseOutparam::set(out, Ok(response));
    body
}

fn answer(out: ResponseOutparam, status: u16, headers: Fields, content: &[u8]) {
    let _ = headers.set("content-length", &[content.len().to_string().into_bytes()]);
    let body = begin(out, status, headers);
    let stream = body.write().expect("once");
    let _ = stream.blocking_write_and_flush(content);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn fetch() -> bool {
    use wasip2::http::outgoing_handler::handle;
    use wasip2::http::types::{OutgoingRequest, Scheme};
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some("allowed.example")).expect("an authority");
    request.set_path_with_query(Some("/")).expect("a path");
    let Ok(answer) = handle(request, None) else {
        return false;
    };
    answer.subscribe().block();
    matches!(answer.get(), Some(Ok(Ok(_))))
}

/// For ever.
fn wait() {
    wasip2::clocks::monotonic_clock::subscribe_duration(1 << 60).block();
}

wasip2::http::proxy::export!(Hostile);
