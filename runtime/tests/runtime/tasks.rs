//! Services of WASI 0.3: the same limits, the same grant, the same codes; and what is refused because a limit would not hold.

use crate::client::{Client, get, post};
use crate::device::{Device, compile};
use crate::{egress, grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{HttpTrigger, Log, Random, Rate, World};
use redan_protocol::ipc::SlotId;
use redan_protocol::{ByteCount, Code, Millis};
use std::net::SocketAddr;

fn plain() -> EffectiveGrant {
    let mut grant = grants::bare("acme/tasks", World::HttpService);
    grant.trigger_http.push(HttpTrigger {
        route: "/...".to_owned(),
        methods: vec!["GET".to_owned(), "POST".to_owned()],
    });
    grant.denied_optional.push("net.http".to_owned());
    grant
}

fn served(grant: &EffectiveGrant) -> (Device, SlotId, SocketAddr) {
    let mut device = Device::start();
    let (slot, address) = device.serve(&guests::tasks(), grant);
    (device, slot, address)
}

/// The same service answers somebody else, and so does a workload of WASI 0.2.
fn lives_on(mut device: Device, address: SocketAddr) {
    assert_eq!(get(address, "/health").text(), "well\n");
    device.serves_others();
}

fn refused(grant: &EffectiveGrant, path: &str, status: u16, code: Code) {
    let (mut device, slot, address) = served(grant);
    let answer = get(address, path);
    assert_eq!(answer.refusal(), (status, code.name()), "{path}");
    let signals = device.signals(slot);
    assert_eq!((signals.calls, signals.failures), (1, 1), "{path}");
    assert_eq!(signals.last, Some(code), "{path}");
    lives_on(device, address);
}

/// An answer that began and was cut off.
fn cut(grant: &EffectiveGrant, path: &str, code: Code) {
    let (mut device, slot, address) = served(grant);
    let answer = get(address, path);
    assert_eq!((answer.status, answer.whole), (200, false), "{path}");
    assert_eq!(device.signals(slot).last, Some(code), "{path}");
    lives_on(device, address);
}

#[test]
fn a_service_of_wasi_0_3_is_probed_and_answers() {
    let (mut device, slot, address) = served(&plain());
    assert_eq!(device.probe(slot), Ok(()));
    assert_eq!(get(address, "/health").text(), "well\n");
    assert_eq!(
        post(address, "/echo", b"through its memory").text(),
        "through its memory"
    );
    assert_eq!(post(address, "/back", b"as it came").text(), "as it came");
    let signals = device.signals(slot);
    assert_eq!(signals.failures, 0, "{signals:?}");
    lives_on(device, address);
}

#[test]
fn a_guest_of_wasi_0_3_that_loops_or_yields_for_ever_is_cut_off() {
    let mut grant = plain();
    grant.limits.cpu_per_call = Millis::new(100);
    for path in ["/spins", "/yields"] {
        refused(&grant, path, 504, Code::CpuLimit);
    }
    cut(&grant, "/spins-later", Code::CpuLimit);
}

#[test]
fn a_guest_of_wasi_0_3_that_waits_too_long_is_cut_off() {
    let mut grant = plain();
    grant.limits.wall_call = Millis::new(500);
    refused(&grant, "/sleeps", 504, Code::WallLimit);
}

#[test]
fn a_guest_of_wasi_0_3_that_grows_or_recurses_is_stopped() {
    refused(&plain(), "/grows", 500, Code::MemoryLimit);
    refused(&plain(), "/recurses", 500, Code::StackLimit);
}

#[test]
fn streams_futures_and_calls_under_way_are_handles_too() {
    for path in ["/streams", "/futures", "/resources", "/requests", "/waits"] {
        refused(&plain(), path, 500, Code::HandleLimit);
    }
}

#[test]
fn what_one_call_of_wasi_0_3_copies_is_bounded() {
    refused(&plain(), "/huge-value", 500, Code::HostcallLimit);
    refused(&plain(), "/header-bomb", 500, Code::HeaderLimit);
}

#[test]
fn random_bytes_of_wasi_0_3_stop_at_the_grant() {
    let mut grant = plain();
    refused(&grant, "/random", 500, Code::RandomLimit);
    grant.random = Some(Random {
        max_bytes_per_call: ByteCount::kib(64),
    });
    refused(&grant, "/random-much", 500, Code::RandomLimit);
    let (device, _, address) = served(&grant);
    assert_eq!(get(address, "/random").text(), "32 false");
    lives_on(device, address);
}

#[test]
fn bodies_of_wasi_0_3_stop_at_their_limits_in_both_directions() {
    cut(&plain(), "/endless", Code::BodyLimit);
    let (mut device, slot, address) = served(&plain());
    let over = vec![b'x'; 100 * 1024 + 1];
    assert_eq!(post(address, "/echo", &over).refusal(), (413, "body-limit"));
    let whole = &over[1..];
    assert_eq!(post(address, "/echo", whole).body.len(), whole.len());
    let mut client = Client::connect(address);
    client.begin("/body-and-trailers");
    client.send(format!("{:x}\r\n", over.len()).as_bytes());
    client.send(&over);
    client.send(b"\r\n");
    assert_eq!(client.answer().refusal(), (413, "body-limit"));
    assert_eq!(device.signals(slot).last, Some(Code::BodyLimit));
    lives_on(device, address);
}

#[test]
fn a_guest_of_wasi_0_3_that_traps_or_gives_an_error_is_answered_for() {
    // Waiting for nothing that could ever come is a trap too.
    for path in ["/panics", "/error", "/never"] {
        refused(&plain(), path, 500, Code::Trapped);
    }
    cut(&plain(), "/panics-later", Code::Trapped);
}

/// One write of a stream may be all of a guest's memory, and each byte of it a line of its log.
#[test]
fn a_flood_of_lines_in_one_write_is_cut_off_like_any_loop() {
    let mut grant = plain();
    grant.limits.memory_total = ByteCount::mib(64);
    grant.limits.cpu_per_call = Millis::new(100);
    grant.log = Some(Log {
        budget: Rate {
            amount: 4096,
            per: Millis::seconds(3600),
        },
    });
    let (mut device, slot, address) = served(&grant);
    assert_eq!(get(address, "/floods").refusal(), (504, "cpu-limit"));
    let signals = device.signals(slot);
    assert_eq!(signals.last, Some(Code::CpuLimit));
    // Below two seconds of CPU time: all of it at once would be many more.
    assert!(signals.cpu.bits() <= 11, "{signals:?}");
    lives_on(device, address);
}

#[test]
fn without_a_grant_a_guest_of_wasi_0_3_finds_nothing_around_it() {
    let (device, _, address) = served(&plain());
    assert_eq!(get(address, "/around").text(), "[] [] [] Ok(()) [] Ok(()) true");
    assert_eq!(get(address, "/clocks").text(), "false false");
    assert_eq!(get(address, "/claims").text(), "refused");
    lives_on(device, address);
}

#[test]
fn a_request_of_wasi_0_3_goes_where_a_rule_admits_it_and_nowhere_else() {
    let (mut device, asked) = egress::device(egress::ok());
    let mut grant = plain();
    grant.denied_optional.clear();
    grant.net_http.push(grants::rule("http", "allowed.example", 80));
    let (slot, address) = device.serve(&guests::tasks(), &grant);
    let text = get(address, "/send?GET+allowed.example+/path+").text().to_owned();
    assert!(text.starts_with("200 ") && text.contains("\"ok\""), "{text}");
    assert_eq!(device.signals(slot).failures, 0);
    for elsewhere in [
        "/send?GET+denied.example+/path+",
        "/send?GET+allowed.example:81+/path+",
        "/send?PUT+allowed.example+/path+",
    ] {
        assert_eq!(
            get(address, elsewhere).text(),
            "ErrorCode::HttpRequestDenied",
            "{elsewhere}"
        );
    }
    assert_eq!(device.signals(slot).last, Some(Code::EgressDenied));
    assert_eq!(
        asked.lock().unwrap().len(),
        1,
        "the rest did not reach the broker"
    );
    let (stubbed, other) = device.serve(&guests::tasks(), &plain());
    assert_eq!(
        get(other, "/send?GET+allowed.example+/path+").text(),
        "ErrorCode::HttpRequestDenied"
    );
    assert_eq!(device.signals(stubbed).last, Some(Code::EgressDenied));
    lives_on(device, other);
}

#[test]
fn calls_of_wasi_0_3_over_the_concurrency_limit_are_refused() {
    let mut grant = plain();
    grant.limits.concurrency = 1;
    let (device, _, address) = served(&grant);
    let mut first = Client::connect(address);
    first.begin("/body-and-trailers");
    assert_eq!(get(address, "/health").refusal(), (503, "concurrency-limit"));
    assert_eq!(first.end().text(), "0 None");
    lives_on(device, address);
}

#[test]
fn a_version_of_wasi_0_3_that_drains_too_long_is_interrupted() {
    let (mut device, slot, address) = served(&plain());
    let mut client = Client::connect(address);
    client.begin("/body-and-trailers");
    device.unload(slot, Millis::new(0));
    assert_eq!(client.answer().refusal(), (503, "superseded"));
    device.serves_others();
}

#[test]
fn an_executor_that_was_not_switched_to_wasi_0_3_loads_none_of_it() {
    let mut device = Device::switched_off();
    assert_eq!(
        device.load(&guests::tasks(), &plain()),
        Err(Code::WasiSwitchedOff)
    );
    device.serves_others();
}

#[test]
fn code_of_wasi_0_3_and_of_0_2_do_not_pass_for_each_other() {
    let mut device = Device::start();
    let mut other = plain();
    other.world = World::HttpProxy;
    let native = guests::native(&guests::tasks(), &plain());
    assert_eq!(device.load_native(&native, &other), Err(Code::CachePoisoned));
    let native = guests::native(&guests::hostile_service(), &grants::service("1"));
    assert_eq!(device.load_native(&native, &plain()), Err(Code::CachePoisoned));
    device.serves_others();
}

/// Tasks between components inside would have a stack each, and nothing here counts stacks.
#[test]
fn a_component_of_wasi_0_3_with_components_inside_is_refused() {
    let composed = "(component
        (component $inner
            (core module $m (func (export \"f\")))
            (core instance $i (instantiate $m))
            (func $f async (canon lift (core func $i \"f\")))
            (export \"f\" (func $f)))
        (instance $in (instantiate $inner))
        (instance $e (export \"handle\" (func $in \"f\")))
        (export \"wasi:http/handler@0.3.0\" (instance $e)))";
    let wasm = wat::parse_str(composed).unwrap();
    assert_eq!(compile(&wasm, &plain()), Err(Code::WasiComposed));
    let flat = "(component
        (component $inner)
        (core module $m (func (export \"f\")))
        (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i \"f\")))
        (instance $e (export \"handle\" (func $f)))
        (export \"wasi:http/handler@0.3.0\" (instance $e)))";
    let wasm = wat::parse_str(flat).unwrap();
    assert!(compile(&wasm, &plain()).is_ok());
}

#[test]
fn what_of_wasi_0_3_is_not_offered_is_refused_by_name() {
    for interface in [
        "wasi:filesystem/types@0.3.0",
        "wasi:sockets/types@0.3.0",
        "wasi:http/handler@0.3.0",
    ] {
        let text = format!(
            "(component (import \"{interface}\" (instance))
                (core module $m (func (export \"f\")))
                (core instance $i (instantiate $m))
                (func $f (canon lift (core func $i \"f\")))
                (instance $e (export \"handle\" (func $f)))
                (export \"wasi:http/handler@0.3.0\" (instance $e)))"
        );
        let wasm = wat::parse_str(text).unwrap();
        assert_eq!(
            compile(&wasm, &plain()),
            Err(Code::WasiPartNotOffered),
            "{interface}"
        );
    }
}
