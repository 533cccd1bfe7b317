//! A timer job: hands one reading to the outbox `cloud`. Whether there is a network is not its affair.

mod bindings {
    wit_bindgen::generate!({ world: "uploader", path: "wit", generate_all });
}

use bindings::redan::outbox::outbox::{self, Error, Item};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    let Ok(target) = std::env::var("UPLOAD_TO") else {
        println!("UPLOAD_TO is not set");
        return ExitCode::FAILURE;
    };
    let minute = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 60);
    let reading = Item {
        outbox: "cloud".into(),
        target,
        content_type: Some("application/json".into()),
        payload: format!("{{\"celsius\":21.5,\"minute\":{minute}}}").into_bytes(),
        // One a minute is enough, however often the job runs.
        dedup: Some(format!("minute-{minute}")),
    };
    match outbox::enqueue(&reading) {
        Ok(number) => println!("kept as {number}, {} wait", outbox::depth("cloud").unwrap_or(0)),
        // The oldest readings are worth more than this one: it is left out.
        Err(Error::Full) => println!("the outbox is full"),
        Err(error) => {
            println!("not kept: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
