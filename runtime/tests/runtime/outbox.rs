//! An outbox towards HTTP: sent until it is taken, under one name, and only where the present grant says.

use crate::device::Device;
use crate::far_end::FarEnd;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{Clock, Destination, Outbox, World};
use redan_protocol::{ByteCount, Code, Millis};
use redan_runtime::engine::Sizes;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

/// A server that answers with these in turn, then with the last of them; what it was asked.
fn server(statuses: &'static [&'static str]) -> (SocketAddr, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (said, asked) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter().peekable();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = BufReader::new(&stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                request.read_line(&mut line).unwrap();
                if line == "\r\n" {
                    break;
                }
                if let Some(number) = line.strip_prefix("content-length: ") {
                    length = number.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            request.read_exact(&mut body).unwrap();
            let status = statuses.next_if(|_| true).copied();
            let status = status.unwrap_or("200 OK");
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
            if said.send((head, body)).is_err() {
                return;
            }
        }
    });
    (address, asked)
}

fn uploader(target: &str) -> EffectiveGrant {
    let mut grant = grants::bare("acme/uploader", World::Command);
    grant.env.insert("UPLOAD_TO".into(), target.into());
    grant.clock = Some(Clock {
        wall: true,
        resolution: Millis::new(1),
    });
    grant.net_http.push(grants::rule("http", "cloud.example", 80));
    grant.messages.outbox.push(Outbox {
        id: "cloud".into(),
        to: Destination::Http("test".into()),
        bytes: ByteCount::kib(32),
        messages: 100,
        max_age: Millis::seconds(3600),
    });
    grant
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let start = format!("{name}: ");
    head.lines().find_map(|line| line.strip_prefix(&start))
}

#[test]
fn an_item_is_posted_until_it_is_taken_under_one_name() {
    let (address, asked) = server(&["503 Service Unavailable", "429 Too Many Requests"]);
    let mut device = Device::with(&Sizes::default(), FarEnd::answering(move |_| Ok(address)));
    let slot = device
        .load(&guests::uploader(), &uploader("http://cloud.example/v1/readings"))
        .unwrap();
    device.activate(slot);
    assert_eq!(device.run(slot), Ok(()));
    let requests: Vec<_> = asked.iter().take(3).collect();
    for (head, body) in &requests {
        assert!(head.starts_with("POST /v1/readings HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(head, "host"), Some("cloud.example"));
        assert_eq!(header(head, "content-type"), Some("application/json"));
        assert_eq!(
            header(head, "idempotency-key"),
            header(&requests[0].0, "idempotency-key")
        );
        assert!(body.starts_with(b"{\"celsius\":21.5"));
    }
    assert!(header(&requests[0].0, "idempotency-key").is_some_and(|key| key.starts_with("minute-")));
    device.serves_others();
}

#[test]
fn an_item_goes_nowhere_the_grant_does_not_say() {
    let (address, asked) = server(&[]);
    for target in [
        "http://elsewhere.example/v1/readings",
        "http://cloud.example:81/v1/readings",
        "https://cloud.example/v1/readings",
        "http://cloud.example@evil.example/",
        "cloud.example",
        "plant/7/alarm",
    ] {
        let mut device = Device::with(&Sizes::default(), FarEnd::answering(move |_| Ok(address)));
        let slot = device.load(&guests::uploader(), &uploader(target)).unwrap();
        device.activate(slot);
        assert_eq!(device.run(slot), Err(Code::JobFailed), "{target}");
        assert_eq!(device.signals(slot).last, Some(Code::JobFailed));
        assert!(asked.try_recv().is_err(), "{target}");
    }
}

#[test]
fn an_item_that_waits_is_not_sent_under_a_grant_that_no_longer_says_so() {
    let (address, asked) = server(&["404 Not Found"]);
    let mut device = Device::with(&Sizes::default(), FarEnd::answering(move |_| Ok(address)));
    let target = "http://cloud.example/v1/readings";
    let old = device.load(&guests::uploader(), &uploader(target)).unwrap();
    device.activate(old);
    assert_eq!(device.run(old), Ok(()));
    // Passed over, for nothing is there; it waits.
    while device.signals(old).last != Some(Code::EgressDenied) {}
    assert_eq!(asked.iter().take(1).count(), 1);
    let mut narrower = uploader(target);
    narrower.net_http[0].paths = vec![vec!["/v2/...".into()]];
    let new = device.load(&guests::uploader(), &narrower).unwrap();
    device.activate(new);
    assert_eq!(device.run(new), Err(Code::JobFailed), "nor is another one kept");
    device.unload(old, Millis::seconds(60));
    assert!(asked.try_recv().is_err());
}
