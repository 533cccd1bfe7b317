//! An HTTP service that repeats whatever it hears, everywhere it can: nothing of it may leave the device.
//!
//! The second segment of the path says how the call ends; header fields `x-…` say what goes where.

mod bindings {
    wit_bindgen::generate!({ world: "canary", path: "wit", generate_all });
}

use bindings::exports::redan::workload::health::{Guest as Health, State, Status};
use bindings::redan::outbox::outbox::{self, Item};
use bindings::wasi::config::store as config;
use bindings::wasi::keyvalue::store;
use bindings::wasi::logging::logging::{Level, log};
use wasip2::exports::http::incoming_handler::Guest as Handler;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};

struct Canary;

/// A request, as text.
struct Heard {
    path: String,
    headers: Vec<(String, String)>,
    rest: String,
}

impl Heard {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value)
    }

    fn all(&self) -> String {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        format!("{} {} {}", self.path, headers.join(" "), self.rest)
    }
}

impl Handler for Canary {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let heard = hear(request);
        let own = own();
        let said = format!("{} {own}", heard.all());
        println!("{said}");
        eprintln!("{said}");
        log(Level::Critical, heard.header("x-context"), &said);
        let kept = keep(&heard);
        match heard.path.split('/').nth(2).unwrap_or_default() {
            "panics" => panic!("{said}"),
            "fails" => {
                ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some(said))));
            }
            "loops" => loop {
                std::hint::black_box(());
            },
            "hoards" => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(said.repeat(1_000));
                }
            }
            "breaks-off" => {
                let body = begin(out, &heard);
                write(&body, &said);
                panic!("{said}");
            }
            "asks" => {
                let answer = ask(&heard);
                println!("{answer}");
                answer_with(out, &heard, &answer);
            }
            _ => answer_with(out, &heard, &format!("{said} {kept}")),
        }
    }
}

impl Health for Canary {
    fn check() -> Status {
        let own = own();
        println!("{own}");
        log(Level::Error, &own, &own);
        let state = if cfg!(feature = "unhealthy") { State::Unhealthy } else { State::Healthy };
        // The one number a guest may choose: of its secret, too.
        let code = own.bytes().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Status { state, code }
    }
}

/// What the device told it: environment, configuration, and what others left in its folder.
fn own() -> String {
    let environment = std::env::vars().map(|(name, value)| format!("{name}={value}"));
    let configuration = config::get_all().unwrap_or_default().into_iter();
    let configuration = configuration.map(|(key, value)| format!("{key}={value}"));
    let files = std::fs::read_dir("/state").into_iter().flatten().flatten();
    let files = files.map(|file| {
        let content = std::fs::read_to_string(file.path()).unwrap_or_default();
        format!("{}={content}", file.path().display())
    });
    environment.chain(configuration).chain(files).collect::<Vec<_>>().join(" ")
}

fn hear(request: IncomingRequest) -> Heard {
    let path = request.path_with_query().unwrap_or_default();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let fields = |fields: &Fields| -> Vec<_> {
        fields.entries().into_iter().map(|(name, value)| (name, text(value))).collect()
    };
    let mut headers = fields(&request.headers());
    headers.push(("authority".to_owned(), request.authority().unwrap_or_default()));
    let body = request.consume().expect("once");
    let stream = body.stream().expect("once");
    let mut rest = Vec::new();
    while let Ok(bytes) = stream.blocking_read(65_536) {
        rest.extend(bytes);
    }
    drop(stream);
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let trailers = match trailers.get() {
        Some(Ok(Ok(Some(trailers)))) => format!("{:?}", fields(&trailers)),
        _ => String::new(),
    };
    Heard { path, headers, rest: format!("{} {trailers}", text(rest)) }
}

/// Into its bucket and its folder, and out of them again.
fn keep(heard: &Heard) -> String {
    let (key, file) = (heard.header("x-key"), heard.header("x-file"));
    let bucket = store::open("default").expect("the grant has it");
    if !key.is_empty() {
        bucket.set(key, heard.header("x-value").as_bytes()).expect("within the quota");
    }
    if !file.is_empty() {
        std::fs::write(format!("/state/{file}"), heard.header("x-content")).expect("within the quota");
    }
    let topic = heard.header("x-topic");
    if !topic.is_empty() {
        // To another workload, which says it again.
        let item = Item {
            outbox: "bus".to_owned(),
            target: format!("plant/{topic}"),
            content_type: Some(heard.header("x-type").to_owned()),
            payload: heard.header("x-said").as_bytes().to_vec(),
            dedup: Some(heard.header("x-name").to_owned()),
        };
        outbox::enqueue(&item).expect("within the quota");
    }
    let keys = bucket.list_keys(None).map(|list| list.keys).unwrap_or_default();
    format!("{keys:?}")
}

/// Asks somebody else, and repeats the answer.
fn ask(heard: &Heard) -> String {
    let headers = Fields::new();
    headers.append("x-sent", heard.header("x-send-header").as_bytes()).expect("a header");
    let request = OutgoingRequest::new(headers);
    request.set_method(&Method::Post).expect("a method");
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some(heard.header("x-authority"))).expect("an authority");
    let path = format!("/{}", heard.header("x-send-path"));
    request.set_path_with_query(Some(&path)).expect("a path");
    let body = request.body().expect("once");
    let answer = match outgoing_handler::handle(request, None) {
        Ok(answer) => answer,
        Err(error) => return format!("{error:?}"),
    };
    write(&body, heard.header("x-send-body"));
    let _ = OutgoingBody::finish(body, None);
    answer.subscribe().block();
    let answer = match answer.get().expect("ready").expect("once") {
        Ok(answer) => answer,
        // The words of whoever refused it, to be repeated.
        Err(error) => panic!("{error:?} {}", heard.all()),
    };
    let headers = answer.headers().entries();
    let headers = headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)));
    let headers: Vec<_> = headers.collect();
    let body = answer.consume().expect("once");
    let stream = body.stream().expect("once");
    let mut content = Vec::new();
    while let Ok(bytes) = stream.blocking_read(4_096) {
        content.extend(bytes);
    }
    format!("{} {}", headers.join(" "), String::from_utf8_lossy(&content))
}

fn begin(out: ResponseOutparam, heard: &Heard) -> OutgoingBody {
    let headers = Fields::new();
    headers.append("x-answer", heard.header("x-answer").as_bytes()).expect("a header");
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("once");
    ResponseOutparam::set(out, Ok(response));
    body
}

fn answer_with(out: ResponseOutparam, heard: &Heard, content: &str) {
    let body = begin(out, heard);
    write(&body, content);
    let trailers = Fields::new();
    trailers.append("x-trailer", heard.header("x-answer").as_bytes()).expect("a trailer");
    let _ = OutgoingBody::finish(body, Some(trailers));
}

/// The device may end the call: then nobody reads what is written.
fn write(body: &OutgoingBody, content: &str) {
    let stream = body.write().expect("once");
    for piece in content.as_bytes().chunks(4_096) {
        if stream.blocking_write_and_flush(piece).is_err() {
            break;
        }
    }
}

wasip2::http::proxy::export!(Canary);
bindings::export!(Canary with_types_in bindings);
