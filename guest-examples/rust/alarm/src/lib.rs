//! A handler of messages: a reading of 80 degrees or more becomes an alarm, published beside it.
//!
//! A message may come twice, and so may an alarm: it carries the reading it is about.

mod bindings {
    wit_bindgen::generate!({ world: "alarm", path: "wit", generate_all });
}

use bindings::exports::redan::messaging::handler::{Guest as Handler, Message, Outcome};
use bindings::exports::redan::workload::lifecycle::{Guest as Lifecycle, Readiness};
use bindings::redan::outbox::outbox::{self, Error, Item};

/// Which release this is; the build says so.
const VERSION: &str = match option_env!("GUEST_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
/// From here on it is too hot.
const LIMIT: f64 = 80.0;

struct Alarm;

impl Handler for Alarm {
    fn handle(message: Message) -> Outcome {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        println!("{} {text}", message.topic);
        // `91.5` or `91.5 of 7`: what comes after the number is whose reading it is.
        let Some(celsius) = text.split(' ').next().and_then(|number| number.parse::<f64>().ok()) else {
            return Outcome::Drop;
        };
        if celsius < LIMIT {
            return Outcome::Ack;
        }
        let place = message.topic.rsplit_once('/').map_or(message.topic.as_str(), |(place, _)| place);
        let alarm = Item {
            outbox: "alarms".into(),
            target: format!("{place}/alarm"),
            content_type: Some("text/plain".into()),
            payload: format!("{text} (alarm {VERSION})").into_bytes(),
            dedup: None,
        };
        match outbox::enqueue(&alarm) {
            // On the disk: the reading may be forgotten.
            Ok(_) => Outcome::Ack,
            // It drains when the broker is back; until then the reading waits where it is.
            Err(Error::Full | Error::Failed) => Outcome::Retry,
            Err(Error::NoSuchOutbox | Error::TargetDenied | Error::TooLarge) => Outcome::Drop,
        }
    }
}

impl Lifecycle for Alarm {
    fn prepare_stop(_deadline_ms: u64) -> Readiness {
        // Nothing is kept between two messages but what is in the outbox.
        Readiness::Ready
    }
}

bindings::export!(Alarm with_types_in bindings);
