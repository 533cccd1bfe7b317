//! Hostile services, and hostile clients of services.

use crate::client::{Client, get, post};
use crate::device::Device;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_protocol::ipc::{SlotId, ToExecutor};
use redan_protocol::{ByteCount, Code, Millis};
use std::net::{SocketAddr, TcpListener};

fn served(grant: &EffectiveGrant) -> (Device, SlotId, SocketAddr) {
    let mut device = Device::start();
    let (slot, address) = device.serve(&guests::hostile_service(), grant);
    (device, slot, address)
}

fn plain() -> EffectiveGrant {
    grants::service("1")
}

/// The same service answers somebody else, and so does another workload.
fn lives_on(mut device: Device, address: SocketAddr) {
    assert_eq!(get(address, "/version").text(), "1");
    device.serves_others();
}

/// The refusal of one path, and what the host counted.
fn refusal(grant: &EffectiveGrant, path: &str) -> (u16, String, Option<Code>) {
    let (mut device, slot, address) = served(grant);
    let answer = get(address, path);
    let signals = device.signals(slot);
    assert_eq!((signals.calls, signals.failures), (1, 1), "{path}");
    let (status, code) = answer.refusal();
    let refusal = (status, code.to_owned(), signals.last);
    lives_on(device, address);
    refusal
}

fn refused(grant: &EffectiveGrant, path: &str, status: u16, code: Code) {
    let wanted = (status, code.name().to_owned(), Some(code));
    assert_eq!(refusal(grant, path), wanted, "{path}");
}

#[test]
fn a_service_that_traps_or_never_answers_is_an_error_of_its_own() {
    for path in ["/panics", "/never-answers", "/answers-with-an-error"] {
        refused(&plain(), path, 500, Code::Trapped);
    }
}

#[test]
fn a_service_that_loops_is_cut_off() {
    let mut grant = plain();
    grant.limits.cpu_per_call = Millis::new(100);
    refused(&grant, "/loops", 504, Code::CpuLimit);
}

#[test]
fn a_service_that_sleeps_is_cut_off() {
    let mut grant = plain();
    grant.limits.wall_call = Millis::new(500);
    refused(&grant, "/sleeps", 504, Code::WallLimit);
}

#[test]
fn a_service_that_fills_its_memory_is_stopped() {
    refused(&plain(), "/fills-memory", 500, Code::MemoryLimit);
}

#[test]
fn a_service_that_loops_after_its_head_leaves_a_cut_body() {
    let mut grant = plain();
    grant.limits.cpu_per_call = Millis::new(100);
    let (mut device, slot, address) = served(&grant);
    let answer = get(address, "/loops-after-the-head");
    assert_eq!((answer.status, answer.whole), (200, false));
    assert_eq!(device.signals(slot).last, Some(Code::CpuLimit));
    lives_on(device, address);
}

#[test]
fn header_bombs_of_a_service_do_not_leave_it() {
    for path in [
        "/large-headers",
        "/header-bomb",
        "/hoards-headers",
        "/many-empty-headers",
    ] {
        refused(&plain(), path, 500, Code::HeaderLimit);
    }
}

#[test]
fn a_body_promised_over_the_limit_is_refused() {
    refused(&plain(), "/promises-a-large-body", 413, Code::BodyLimit);
}

#[test]
fn an_endless_body_is_cut_at_its_limit() {
    let (mut device, slot, address) = served(&plain());
    let answer = get(address, "/endless-body");
    assert!(!answer.whole);
    assert!(
        answer.body.len() <= 100 * 1024,
        "{} bytes came",
        answer.body.len()
    );
    let signals = device.signals(slot);
    assert_eq!((signals.failures, signals.last), (1, Some(Code::BodyLimit)));
    lives_on(device, address);
}

#[test]
fn empty_writes_for_ever_are_a_body_over_its_limit() {
    let (mut device, slot, address) = served(&plain());
    let answer = get(address, "/empty-writes");
    assert_eq!((answer.whole, answer.body.len()), (false, 0));
    let signals = device.signals(slot);
    assert_eq!((signals.failures, signals.last), (1, Some(Code::BodyLimit)));
    lives_on(device, address);
}

#[test]
fn trailers_count_as_body() {
    let mut grant = plain();
    grant.limits.body_response = ByteCount::kib(10);
    let (mut device, slot, address) = served(&grant);
    let mut client = Client::connect(address);
    client.send(b"GET /trailer-bomb HTTP/1.1\r\nhost: device\r\nte: trailers\r\n\r\n");
    assert!(!client.hears_all().contains("xxxxxxxx"), "trailers came through");
    let signals = device.signals(slot);
    assert_eq!((signals.failures, signals.last), (1, Some(Code::BodyLimit)));
    lives_on(device, address);
}

#[test]
fn a_service_cannot_speak_for_the_host() {
    let (device, _, address) = served(&plain());
    let answer = get(address, "/forges-a-code");
    assert_eq!((answer.status, answer.header("redan-code")), (200, None));
    lives_on(device, address);
}

#[test]
fn a_request_body_of_exactly_its_limit_passes_and_a_larger_one_does_not() {
    let (mut device, slot, address) = served(&plain());
    let exactly = vec![b'x'; 100 * 1024];
    assert_eq!(post(address, "/count", &exactly).text(), "102400");
    let over = vec![b'x'; 100 * 1024 + 1];
    assert_eq!(post(address, "/count", &over).refusal(), (413, "body-limit"));
    assert_eq!(device.signals(slot).last, None, "the guest never saw it");
    lives_on(device, address);
}

#[test]
fn a_request_body_that_hides_its_length_stops_at_the_limit() {
    let (mut device, slot, address) = served(&plain());
    let mut client = Client::connect(address);
    client.begin("/count");
    for _ in 0..200 {
        client.send(format!("400\r\n{}\r\n", "x".repeat(1024)).as_bytes());
    }
    let seen: usize = client.end().text().parse().unwrap();
    assert!(seen <= 100 * 1024, "the guest saw {seen} bytes");
    let signals = device.signals(slot);
    assert_eq!((signals.failures, signals.last), (1, Some(Code::BodyLimit)));
    lives_on(device, address);
}

#[test]
fn a_request_head_over_the_limit_is_refused() {
    let (device, _, address) = served(&plain());
    for (size, status, code) in [(16_000, 200, "none"), (16_500, 431, "header-limit")] {
        let mut client = Client::connect(address);
        let padding = "x".repeat(size);
        client
            .send(format!("GET /version HTTP/1.1\r\nhost: device\r\npadding: {padding}\r\n\r\n").as_bytes());
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("redan-code").unwrap_or("none")),
            (status, code)
        );
    }
    // Exactly what the host reads of a head, and no end yet.
    let mut client = Client::connect(address);
    let begin = "GET /version HTTP/1.1\r\nhost: device\r\npadding: ";
    client.send(format!("{begin}{}", "x".repeat(128 * 1024 - begin.len())).as_bytes());
    assert_eq!(client.answer().refusal(), (431, "none"));
    lives_on(device, address);
}

#[test]
fn requests_nobody_granted_reach_no_guest() {
    let mut grant = plain();
    grant.trigger_http[0].route = "/version".to_owned();
    grant.trigger_http[0].methods = vec!["GET".to_owned()];
    let (mut device, slot, address) = served(&grant);
    assert_eq!(get(address, "/panics").refusal(), (404, "not-found"));
    assert_eq!(get(address, "/version/more").refusal(), (404, "not-found"));
    assert_eq!(post(address, "/version", b"").refusal(), (405, "wrong-method"));
    let mut client = Client::connect(address);
    client.send(b"GET /version HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer().refusal(), (400, "bad-request"));
    assert_eq!(get(address, "/version").text(), "1");
    // The one without a host was counted: it came as far as the guest's door.
    let signals = device.signals(slot);
    assert_eq!((signals.calls, signals.last), (2, Some(Code::BadRequest)));
}

#[test]
fn calls_over_the_concurrency_limit_are_refused_and_the_first_goes_on() {
    let mut grant = plain();
    grant.limits.concurrency = 1;
    let (mut device, slot, address) = served(&grant);
    let mut first = Client::connect(address);
    first.begin("/version");
    assert_eq!(get(address, "/version").refusal(), (503, "concurrency-limit"));
    assert_eq!(first.end().text(), "1");
    let signals = device.signals(slot);
    assert_eq!(
        (signals.failures, signals.last),
        (1, Some(Code::ConcurrencyLimit))
    );
    lives_on(device, address);
}

#[test]
fn a_client_that_goes_away_takes_its_call_with_it() {
    let mut grant = plain();
    grant.limits.concurrency = 1;
    let (device, _, address) = served(&grant);
    let mut first = Client::connect(address);
    first.begin("/version");
    drop(first);
    // The place comes back as soon as the host sees the end of the connection.
    while get(address, "/version").status != 200 {}
    lives_on(device, address);
}

#[test]
fn a_client_that_does_not_read_holds_no_place_and_is_disconnected() {
    let mut grant = plain();
    grant.limits.concurrency = 1;
    grant.limits.wall_call = Millis::new(500);
    grant.limits.body_response = ByteCount::mib(1024);
    let (device, _, address) = served(&grant);
    let mut stalled = Client::connect(address);
    stalled.send(b"GET /endless-body HTTP/1.1\r\nhost: device\r\n\r\n");
    stalled.hears_head();
    while get(address, "/version").status != 200 {}
    assert!(
        stalled.is_open(),
        "its place came back before its connection ended"
    );
    assert!(stalled.is_dropped(), "it is still connected");
    lives_on(device, address);
}

#[test]
fn a_client_that_never_finishes_its_head_is_disconnected() {
    let (device, _, address) = served(&plain());
    let mut slow = Client::connect(address);
    slow.send(b"GET /version HTTP/1.1\r\nhost: dev");
    assert_eq!(slow.hears_all(), "", "it is refused without an answer");
    lives_on(device, address);
}

#[test]
fn instances_over_the_pool_are_refused_and_come_back() {
    let sizes = redan_runtime::engine::Sizes {
        instances: 1,
        memory_max: ByteCount::mib(32),
        keep_resident: ByteCount::kib(64),
    };
    let mut device = Device::with(&sizes, crate::far_end::FarEnd::refusing());
    let (_, address) = device.serve(&guests::hostile_service(), &plain());
    let mut first = Client::connect(address);
    first.begin("/version");
    assert_eq!(get(address, "/version").refusal(), (503, "instance-limit"));
    assert_eq!(first.end().text(), "1");
    // The first instance goes back to the pool when its call is over, which its client may see a moment earlier.
    while get(address, "/version").status != 200 {}
    lives_on(device, address);
}

#[test]
fn connections_over_the_limit_wait_for_their_turn() {
    let (device, _, address) = served(&plain());
    let mut clients: Vec<_> = (0..512).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/nothing").status, 404);
    }
    let mut waiting = Client::connect(address);
    waiting.send(b"GET /version HTTP/1.1\r\nhost: device\r\n\r\n");
    for client in clients.iter_mut().take(50) {
        assert_eq!(client.get("/nothing").status, 404);
    }
    assert!(waiting.is_silent(), "connection 513 is served beside 512 others");
    drop(clients);
    assert_eq!(waiting.answer().text(), "1");
    lives_on(device, address);
}

#[test]
fn without_an_active_version_the_answer_is_503() {
    let mut device = Device::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let slot = device.load_service(&guests::hostile_service(), &plain(), &listener);
    let nothing = (503, "nothing-to-run-safely");
    assert_eq!(get(address, "/version").refusal(), nothing);
    device.activate(slot);
    assert_eq!(get(address, "/version").text(), "1");
    let component = plain().component;
    device.say(&ToExecutor::Deactivate { component }, &[]);
    // No answer to that order: the next one shows that it was obeyed.
    assert_eq!(device.probe(slot), Ok(()));
    assert_eq!(get(address, "/version").refusal(), nothing);
    device.activate(slot);
    lives_on(device, address);
}
