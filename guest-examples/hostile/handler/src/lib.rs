//! A handler that does what the message says. `END` in its environment says how it ends.

mod bindings {
    wit_bindgen::generate!({ world: "hostile", path: "wit", generate_all });
}

use bindings::exports::redan::messaging::handler::{Guest as Handler, Message, Outcome};
use bindings::exports::redan::workload::lifecycle::{Guest as Lifecycle, Readiness};
use bindings::redan::outbox::outbox::{self, Error, Item};

struct Hostile;

impl Handler for Hostile {
    fn handle(message: Message) -> Outcome {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        println!("{} {}", message.topic, text.chars().take(40).collect::<String>());
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            ["drop"] => Outcome::Drop,
            ["retry"] => Outcome::Retry,
            ["trap"] => panic!("as wanted"),
            ["loop"] => loop {
                std::hint::black_box(0);
            },
            // Whether the host said no with just this error.
            ["enqueue", outbox, target, wanted] => {
                let kept = outbox::enqueue(&item(outbox, target, b"hot".to_vec()));
                held(&name(kept), wanted)
            }
            ["fill", outbox, target] => {
                let mut kept = 0;
                let full = loop {
                    match outbox::enqueue(&item(outbox, target, vec![b'x'; 1000])) {
                        Ok(_) if kept < 10_000 => kept += 1,
                        Ok(_) => break false,
                        Err(error) => break matches!(error, Error::Full),
                    }
                };
                println!("kept {kept}, depth {}", outbox::depth(outbox).unwrap_or(0));
                if full { Outcome::Ack } else { Outcome::Drop }
            }
            ["large", outbox, target] => {
                held(&name(outbox::enqueue(&item(outbox, target, vec![b'x'; 200_000]))), "too-large")
            }
            ["sized", outbox, target, length, wanted] => {
                let length = length.parse().unwrap_or(0);
                held(&name(outbox::enqueue(&item(outbox, target, vec![b'x'; length]))), wanted)
            }
            // Says the rest to somebody.
            ["pass", outbox, target, rest @ ..] => {
                held(&name(outbox::enqueue(&item(outbox, target, rest.join(" ").into_bytes()))), "ok")
            }
            // Says what was said, for ever.
            ["echo", outbox, target] => {
                let _ = outbox::enqueue(&item(outbox, target, text.clone().into_bytes()));
                Outcome::Ack
            }
            ["nul", outbox] => held(&name(outbox::enqueue(&item(outbox, "plant/7\0/alarm", vec![]))), "target-denied"),
            _ => Outcome::Ack,
        }
    }
}

fn item(outbox: &str, target: &str, payload: Vec<u8>) -> Item {
    Item { outbox: outbox.into(), target: target.into(), content_type: None, payload, dedup: None }
}

fn name(kept: Result<u64, Error>) -> String {
    match kept {
        Ok(_) => "ok",
        Err(Error::NoSuchOutbox) => "no-such-outbox",
        Err(Error::TargetDenied) => "target-denied",
        Err(Error::TooLarge) => "too-large",
        Err(Error::Full) => "full",
        Err(Error::Failed) => "failed",
    }
    .into()
}

fn held(found: &str, wanted: &str) -> Outcome {
    println!("{found}, wanted {wanted}");
    if found == wanted { Outcome::Ack } else { Outcome::Drop }
}

impl Lifecycle for Hostile {
    fn prepare_stop(deadline_ms: u64) -> Readiness {
        println!("stop within {deadline_ms}");
        match std::env::var("END").as_deref() {
            Ok("trap") => panic!("as wanted"),
            Ok("loop") => loop {
                std::hint::black_box(0);
            },
            Ok(millis) => Readiness::Defer(millis.parse().unwrap_or(0)),
            Err(_) => Readiness::Ready,
        }
    }
}

bindings::export!(Hostile with_types_in bindings);
