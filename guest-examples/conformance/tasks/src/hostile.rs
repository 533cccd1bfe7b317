//! What a service of WASI 0.3 may try, each against one limit.

use crate::{Outcome, answer as plain, no_trailers, streaming};
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::types::{Fields, Request, Response};
use wasip3::wit_bindgen::{spawn_local, yield_async};
use wasip3::wit_stream;

const HOUR: u64 = 3_600_000_000_000;

pub(crate) async fn answer(path: &str) -> Outcome {
    match path {
        "/spins" => spins(),
        "/spins-later" => {
            let (mut body, response) = streaming(Fields::new());
            spawn_local(async move {
                body.write_all(b"begun".to_vec()).await;
                spins();
            });
            return Ok(response);
        }
        // Each turn is short: only their sum is too much.
        "/yields" => loop {
            yield_async().await;
        },
        "/sleeps" => wait_for(HOUR).await,
        "/never" => std::future::pending::<()>().await,
        "/grows" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            loop {
                kept.push(vec![1; 1 << 20]);
            }
        }
        "/recurses" => drop(std::hint::black_box(recurses(1))),
        "/streams" => {
            let mut kept = Vec::new();
            loop {
                kept.push(wit_stream::new::<u8>());
            }
        }
        "/futures" => {
            let mut kept = Vec::new();
            loop {
                kept.push(no_trailers());
            }
        }
        "/fields" | "/resources" => {
            let mut kept = Vec::new();
            loop {
                kept.push(Fields::new());
            }
        }
        "/requests" => {
            let mut kept = Vec::new();
            loop {
                kept.push(Request::new(Fields::new(), None, no_trailers(), None));
            }
        }
        // Calls under way, none of which ends.
        "/waits" => {
            for _ in 0..1_000_000 {
                spawn_local(wait_for(HOUR));
                yield_async().await;
            }
        }
        "/endless" => {
            let (mut body, response) = streaming(Fields::new());
            spawn_local(async move { while body.write_all(vec![b'x'; 1 << 16]).await.is_empty() {} });
            return Ok(response);
        }
        "/header-bomb" => {
            let headers = Fields::new();
            for n in 0..1_000_000 {
                if headers.append(&format!("x-{n}"), &[b'x'; 1_000]).is_err() {
                    break;
                }
            }
            return Ok(plain(200, headers, Vec::new()));
        }
        "/huge-value" => drop(Fields::new().append("x", &vec![b'x'; 2 << 20])),
        "/random-much" => drop(wasip3::random::random::get_random_bytes(1 << 40)),
        // One write, each byte of it a line.
        "/floods" => {
            let (mut out, text) = wit_stream::new();
            let written = wasip3::cli::stdout::write_via_stream(text);
            out.write_all(vec![b'\n'; 24 << 20]).await;
            drop(out);
            let _ = written.await;
        }
        "/claims" => {
            let headers = Fields::new();
            let refused = headers.append("redan-code", b"well").is_err();
            return Ok(plain(
                if refused { 200 } else { 500 },
                headers,
                b"refused".to_vec(),
            ));
        }
        "/gives-no-body" => {
            let (response, _) = Response::new(Fields::new(), None, no_trailers());
            return Ok(response);
        }
        _ => return Ok(plain(404, Fields::new(), Vec::new())),
    }
    Ok(plain(200, Fields::new(), b"done".to_vec()))
}

fn spins() -> ! {
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

/// Without anything in memory: the stack that overflows is the one of calls.
#[inline(never)]
fn recurses(n: u64) -> u64 {
    if n == 0 { 1 } else { recurses(n.wrapping_add(2)).wrapping_mul(n) ^ n.rotate_left(7) }
}
