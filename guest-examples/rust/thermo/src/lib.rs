//! An HTTP service: answers `GET /thermo/` with its version, a reading and a counter that survives updates.

mod bindings {
    wit_bindgen::generate!({ world: "thermo", path: "wit", generate_all });
}

use bindings::exports::redan::workload::health::{Guest as Health, State, Status};
use bindings::wasi::keyvalue::{atomics, store};
use wasip2::exports::http::incoming_handler::Guest as Handler;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

/// Which release this is; the build says so.
const VERSION: &str = match option_env!("GUEST_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

struct Thermo;

impl Handler for Thermo {
    fn handle(_request: IncomingRequest, out: ResponseOutparam) {
        let (status, body) = match count() {
            Ok(readings) => {
                (200, format!("{{\"version\":\"{VERSION}\",\"celsius\":21.5,\"readings\":{readings}}}\n"))
            }
            Err(_) => (500, format!("{{\"version\":\"{VERSION}\",\"error\":\"no bucket\"}}\n")),
        };
        let headers = Fields::new();
        let _ = headers.set("content-type", &[b"application/json".to_vec()]);
        let response = OutgoingResponse::new(headers);
        let _ = response.set_status_code(status);
        let sink = response.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(response));
        let stream = sink.write().expect("the stream is taken once");
        // The device may end the call: then nobody reads the answer.
        let _ = stream.blocking_write_and_flush(body.as_bytes());
        drop(stream);
        let _ = OutgoingBody::finish(sink, None);
    }
}

impl Health for Thermo {
    fn check() -> Status {
        let state = if cfg!(feature = "unhealthy") { State::Unhealthy } else { State::Healthy };
        Status { state, code: 0 }
    }
}

/// Counts this reading.
fn count() -> Result<i64, store::Error> {
    let bucket = store::open("default")?;
    atomics::increment(&bucket, "readings", 1).map(|count| count as i64)
}

wasip2::http::proxy::export!(Thermo);
bindings::export!(Thermo with_types_in bindings);
