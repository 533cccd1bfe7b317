//! Outgoing HTTP: what no rule admits does not even reach the broker, and budgets hold.

use crate::device::Device;
use crate::far_end::{Asked, FarEnd};
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::Rate;
use redan_protocol::{Code, Millis};
use redan_runtime::engine::Sizes;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

/// A server on loopback that gives every connection the same answer once its request is there, then closes.
fn server(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = BufReader::new(&stream);
            // The head, then the chunks if there are any: each ends with an empty line.
            let mut line = String::new();
            let mut chunked = false;
            while request.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
                chunked |= line.starts_with("transfer-encoding");
                line.clear();
            }
            while chunked && !line.starts_with("0\r\n") {
                line.clear();
                if request.read_line(&mut line).is_ok_and(|read| read == 0) {
                    break;
                }
            }
            // The guest may have been cut off already.
            let _ = stream.write_all(&answer);
        }
    });
    address
}

pub(crate) fn ok() -> SocketAddr {
    server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".to_vec())
}

/// A device whose broker dials the address for every question.
pub(crate) fn device(to: SocketAddr) -> (Device, Asked) {
    brokered(FarEnd::answering(move |_| Ok(to)))
}

pub(crate) fn brokered(far_end: (FarEnd, OwnedFd)) -> (Device, Asked) {
    let asked = Arc::clone(&far_end.0.asked);
    (Device::with(&Sizes::default(), far_end), asked)
}

pub(crate) fn fetching(target: &str) -> EffectiveGrant {
    let mut grant = grants::job("fetch");
    grant.env.insert("TARGET".to_owned(), target.to_owned());
    grant
}

/// With a body: `GET` sends none.
pub(crate) fn posting(bytes: u32) -> EffectiveGrant {
    let mut grant = fetching(ALLOWED);
    grant.env.insert("METHOD".to_owned(), "POST".to_owned());
    grant.env.insert("UPLOAD".to_owned(), bytes.to_string());
    grant
}

pub(crate) fn fetch(device: &mut Device, grant: &EffectiveGrant) -> Result<(), Code> {
    let outcome = device.outcome(&guests::hostile_job(), grant);
    device.serves_others();
    outcome
}

pub(crate) const ALLOWED: &str = "http://allowed.example/path";

#[test]
fn what_a_rule_admits_is_dialled_by_the_broker() {
    let (mut device, asked) = device(ok());
    assert_eq!(fetch(&mut device, &fetching(ALLOWED)), Ok(()));
    let asked = asked.lock().unwrap();
    let [question] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!(question.component.to_string(), "acme/hostile");
    assert_eq!(
        (question.https, question.host.as_str(), question.port),
        (false, "allowed.example", 80)
    );
}

#[test]
fn what_no_rule_admits_does_not_reach_the_broker() {
    let (mut device, asked) = device(ok());
    for target in [
        "http://denied.example/",
        "http://allowed.example:81/",
        "https://allowed.example/",
        "http://allowed.example.evil.example/",
        "http://127.0.0.1/",
        "http://[::1]/",
    ] {
        assert_eq!(
            fetch(&mut device, &fetching(target)),
            Err(Code::EgressDenied),
            "{target}"
        );
    }
    let mut grant = fetching(ALLOWED);
    grant.env.insert("METHOD".to_owned(), "DELETE".to_owned());
    assert_eq!(fetch(&mut device, &grant), Err(Code::EgressDenied));
    let mut grant = fetching(ALLOWED);
    grant.net_http[0].paths = vec![vec!["/other".to_owned()]];
    assert_eq!(fetch(&mut device, &grant), Err(Code::EgressDenied));
    let mut grant = fetching(ALLOWED);
    grant.net_http.clear();
    grant.denied_optional.push("net.http".to_owned());
    assert_eq!(fetch(&mut device, &grant), Err(Code::EgressDenied), "a stub");
    assert_eq!(asked.lock().unwrap().len(), 0);
}

#[test]
fn what_the_broker_refuses_is_refused_with_its_code() {
    for code in [
        Code::EgressDenied,
        Code::EgressAddressDenied,
        Code::EgressNameUnknown,
        Code::EgressUnreachable,
    ] {
        let (mut device, _) = brokered(FarEnd::answering(move |_| Err(code)));
        assert_eq!(fetch(&mut device, &fetching(ALLOWED)), Err(code));
    }
}

#[test]
fn without_a_broker_nothing_is_reached() {
    let (mut device, _) = brokered(FarEnd::gone());
    assert_eq!(
        fetch(&mut device, &fetching(ALLOWED)),
        Err(Code::EgressUnreachable)
    );
}

#[test]
fn an_answer_without_body_on_a_closing_connection_is_an_answer() {
    let empty = server(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_vec());
    let (mut device, _) = device(empty);
    assert_eq!(fetch(&mut device, &fetching(ALLOWED)), Ok(()));
}

#[test]
fn an_answer_over_the_body_limit_is_cut() {
    let mut answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    answer.extend(vec![b'x'; 200 * 1024]);
    let (mut device, _) = device(server(answer));
    assert_eq!(fetch(&mut device, &fetching(ALLOWED)), Err(Code::BodyLimit));
}

#[test]
fn a_request_over_its_limits_is_not_sent() {
    let (mut device, asked) = device(ok());
    let mut grant = fetching(ALLOWED);
    grant.env.insert("PADDING".to_owned(), "17000".to_owned());
    assert_eq!(fetch(&mut device, &grant), Err(Code::HeaderLimit));
    assert_eq!(asked.lock().unwrap().len(), 0);
    assert_eq!(fetch(&mut device, &posting(60_000)), Ok(()));
    assert_eq!(fetch(&mut device, &posting(200_000)), Err(Code::BodyLimit));
}

#[test]
fn budgets_of_a_rule_hold_over_calls() {
    let (mut device, asked) = device(ok());
    let hour = |amount| {
        Some(Rate {
            amount,
            per: Millis::seconds(3600),
        })
    };
    let mut grant = fetching(ALLOWED);
    grant.net_http[0].budget.requests = hour(2);
    let slot = device.load(&guests::hostile_job(), &grant).unwrap();
    let outcomes = [device.run(slot), device.run(slot), device.run(slot)];
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(Code::EgressBudget)]);
    assert_eq!(asked.lock().unwrap().len(), 2);
    let mut grant = fetching(ALLOWED);
    grant.net_http[0].budget.bytes_out = hour(10);
    assert_eq!(
        fetch(&mut device, &grant),
        Err(Code::EgressBudget),
        "the head alone is more"
    );
    let mut grant = posting(60_000);
    grant.net_http[0].budget.bytes_out = hour(50_000);
    assert_eq!(fetch(&mut device, &grant), Err(Code::EgressBudget));
    let mut grant = fetching(ALLOWED);
    grant.net_http[0].budget.concurrent = Some(0);
    assert_eq!(fetch(&mut device, &grant), Err(Code::EgressBudget));
}

#[test]
fn outgoing_connections_of_a_workload_are_counted() {
    let (over, until_over) = mpsc::channel::<()>();
    // Silent until the test is over.
    let (mut device, _) = brokered(FarEnd::answering(move |_| {
        let _ = until_over.recv();
        Err(Code::EgressUnreachable)
    }));
    let mut grant = grants::job("fetch-many");
    grant.limits.handles = 5_000;
    assert_eq!(fetch(&mut device, &grant), Err(Code::SocketLimit));
    drop(over);
}

#[test]
fn questions_to_the_broker_are_bounded() {
    let (over, until_over) = mpsc::channel::<()>();
    // Silent until the test is over.
    let (mut device, _) = brokered(FarEnd::answering(move |_| {
        let _ = until_over.recv();
        Err(Code::EgressUnreachable)
    }));
    let mut grant = grants::job("fetch-many");
    grant.limits.handles = 5_000;
    grant.limits.sockets = 1_000;
    assert_eq!(fetch(&mut device, &grant), Err(Code::EgressBudget));
    drop(over);
}

#[test]
fn a_server_that_never_answers_ends_with_the_call() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut device, _) = device(silent.local_addr().unwrap());
    let mut grant = fetching(ALLOWED);
    grant.limits.wall_call = Millis::new(500);
    assert_eq!(fetch(&mut device, &grant), Err(Code::WallLimit));
}

#[test]
fn an_answer_of_the_broker_has_exactly_one_socket() {
    for (sockets, outcome) in [
        (1, Ok(())),
        (0, Err(Code::EgressUnreachable)),
        (2, Err(Code::EgressUnreachable)),
    ] {
        let (mut device, _) = brokered(FarEnd::with_sockets(sockets, ok()));
        assert_eq!(
            fetch(&mut device, &fetching(ALLOWED)),
            outcome,
            "{sockets} sockets"
        );
    }
}
