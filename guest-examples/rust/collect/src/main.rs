//! A job that uses everything a job can be granted: arguments, environment, configuration, a bucket, two volumes, the clock, random
//! numbers, its log, and HTTP. It fails when one of them is not there, and says which.

mod bindings {
    wit_bindgen::generate!({ world: "collect", path: "wit", generate_all });
}

use bindings::wasi::config::store as config;
use bindings::wasi::keyvalue::{atomics, store};
use std::fs;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, Scheme};
use wasip2::random::random::get_random_bytes;

fn main() -> ExitCode {
    match collect() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(missing) => {
            eprintln!("collect: no {missing}");
            ExitCode::FAILURE
        }
    }
}

fn collect() -> Result<String, &'static str> {
    let once = std::env::args().nth(1).filter(|argument| argument == "--once");
    once.ok_or("argument --once")?;
    let city = std::env::var("CITY").map_err(|_| "variable CITY")?;
    let site = config::get("site").ok().flatten().ok_or("configuration site")?;
    let bucket = store::open("readings").map_err(|_| "bucket readings")?;
    let count = atomics::increment(&bucket, "count", 1).map_err(|_| "room in the bucket")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now < 1_700_000_000 {
        return Err("clock");
    }
    if get_random_bytes(16) == get_random_bytes(16) {
        return Err("random numbers");
    }
    let unit = fs::read_to_string("/seed/unit").map_err(|_| "volume /seed")?;
    let celsius = ask(&site, &Method::Get, "/celsius", b"")?;
    ask(&site, &Method::Post, "/count", count.to_string().as_bytes())?;
    fs::write("/state/last", &celsius).map_err(|_| "volume /state to write")?;
    let last = fs::read_to_string("/state/last").map_err(|_| "volume /state")?;
    Ok(format!("{city} {last}{}", unit.trim()))
}

/// One request over plain HTTP; the body of a good answer.
fn ask(authority: &str, method: &Method, path: &str, content: &[u8]) -> Result<String, &'static str> {
    const FAULT: &str = "answer from the site";
    let request = OutgoingRequest::new(Fields::new());
    request.set_method(method).map_err(|()| FAULT)?;
    request.set_scheme(Some(&Scheme::Http)).map_err(|()| FAULT)?;
    request.set_authority(Some(authority)).map_err(|()| FAULT)?;
    request.set_path_with_query(Some(path)).map_err(|()| FAULT)?;
    let sink = request.body().map_err(|()| FAULT)?;
    let answer = handle(request, None).map_err(|_| FAULT)?;
    if !content.is_empty() {
        let stream = sink.write().map_err(|()| FAULT)?;
        stream.blocking_write_and_flush(content).map_err(|_| FAULT)?;
    }
    OutgoingBody::finish(sink, None).map_err(|_| FAULT)?;
    answer.subscribe().block();
    let answer = answer.get().ok_or(FAULT)?.map_err(|()| FAULT)?.map_err(|_| FAULT)?;
    if answer.status() != 200 {
        return Err(FAULT);
    }
    let body = answer.consume().map_err(|()| FAULT)?;
    let stream = body.stream().map_err(|()| FAULT)?;
    let mut text = Vec::new();
    while let Ok(more) = stream.blocking_read(4_096) {
        text.extend(more);
    }
    String::from_utf8(text).map_err(|_| FAULT)
}
