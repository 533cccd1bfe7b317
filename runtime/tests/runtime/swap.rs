//! The swap: no request is lost, and none is answered by a version after it was drained.

use crate::client::{Client, get};
use crate::device::Device;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{TimerTrigger, World};
use redan_protocol::ipc::{FromExecutor, ToExecutor};
use redan_protocol::{Code, Millis};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const SWAPS: u32 = 20;
const CLIENTS: u32 = 6;

#[test]
fn no_request_is_lost_over_twenty_swaps_and_none_reaches_a_drained_version() {
    let mut device = Device::start();
    let guest = guests::hostile_service();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut active = device.load_service(&guest, &grants::service("0"), &listener);
    device.activate(active);
    // Versions below this one were drained before the number was written.
    let oldest = AtomicU32::new(0);
    let answered = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for kept in 0..CLIENTS {
            let (oldest, answered, stop) = (&oldest, &answered, &stop);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::SeqCst) {
                    if kept % 2 == 0 {
                        client = Client::connect(address);
                    }
                    let before = oldest.load(Ordering::SeqCst);
                    let answer = client.get("/version");
                    let version: u32 = answer.text().parse().unwrap();
                    assert!(
                        version >= before,
                        "version {version} answered, below {before} all were drained"
                    );
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let swaps = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for version in 1..=SWAPS {
                let next = device.load_service(&guest, &grants::service(&version.to_string()), &listener);
                assert_eq!(device.probe(next), Ok(()));
                device.activate(next);
                device.unload(active, Millis::seconds(60));
                oldest.store(version, Ordering::SeqCst);
                active = next;
                // Every client was answered since, so that each swap meets traffic.
                let until = answered.load(Ordering::SeqCst) + 2 * CLIENTS;
                while answered.load(Ordering::SeqCst) < until {
                    std::thread::yield_now();
                }
            }
        }));
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = swaps {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(get(address, "/version").text(), SWAPS.to_string());
    device.serves_others();
}

#[test]
fn a_call_under_way_is_answered_by_the_version_that_began_it() {
    let mut device = Device::start();
    let guest = guests::hostile_service();
    let (old, address) = device.serve(&guest, &grants::service("old"));
    let mut client = Client::connect(address);
    client.begin("/version");
    let new = device.load(&guest, &grants::service("new")).unwrap();
    device.activate(new);
    let drain = Millis::seconds(60);
    device.say(&ToExecutor::Unload { slot: old, drain }, &[]);
    assert_eq!(get(address, "/version").text(), "new");
    assert_eq!(client.end().text(), "old");
    assert_eq!(device.hear(), FromExecutor::Unloaded { slot: old });
    // The same connection, now answered by the new one.
    assert_eq!(client.get("/version").text(), "new");
}

#[test]
fn a_call_that_outlives_the_drain_is_interrupted() {
    let mut device = Device::start();
    let guest = guests::hostile_service();
    let (old, address) = device.serve(&guest, &grants::service("old"));
    let mut client = Client::connect(address);
    client.begin("/version");
    let new = device.load(&guest, &grants::service("new")).unwrap();
    device.activate(new);
    device.unload(old, Millis::new(0));
    assert_eq!(client.answer().refusal(), (503, "superseded"));
    assert_eq!(device.signals(old).last, Some(Code::Superseded));
    assert_eq!(get(address, "/version").text(), "new");
}

#[test]
fn a_looping_call_does_not_hold_up_the_drain() {
    let mut device = Device::start();
    let guest = guests::hostile("loops-forever");
    let slot = device
        .load(&guest, &grants::bare("acme/hostile", World::Command))
        .unwrap();
    device.say(&ToExecutor::Run { slot }, &[]);
    let drain = Millis::new(0);
    device.say(&ToExecutor::Unload { slot, drain }, &[]);
    // The run was leased when it was ordered, so it is heard of first.
    assert_eq!(device.probed(slot), Err(Code::Superseded));
    assert_eq!(device.hear(), FromExecutor::Unloaded { slot });
    device.serves_others();
}

#[test]
fn a_job_that_still_runs_is_not_started_beyond_its_concurrency() {
    let mut device = Device::start();
    let mut grant = grants::bare("acme/hostile", World::Command);
    grant.limits.concurrency = 1;
    let slot = device.load(&guests::hostile("loops-forever"), &grant).unwrap();
    device.say(&ToExecutor::Run { slot }, &[]);
    assert_eq!(device.run(slot), Err(Code::ConcurrencyLimit));
    let drain = Millis::new(0);
    device.say(&ToExecutor::Unload { slot, drain }, &[]);
    assert_eq!(device.probed(slot), Err(Code::Superseded));
    assert_eq!(device.hear(), FromExecutor::Unloaded { slot });
    device.serves_others();
}

#[test]
fn taking_out_the_active_version_leaves_nothing_and_an_older_one_can_come_back() {
    let mut device = Device::start();
    let guest = guests::hostile_service();
    let (old, address) = device.serve(&guest, &grants::service("old"));
    let new = device.load(&guest, &grants::service("new")).unwrap();
    device.activate(new);
    device.unload(new, Millis::seconds(60));
    assert_eq!(get(address, "/version").refusal(), (503, "nothing-to-run-safely"));
    device.activate(old);
    assert_eq!(get(address, "/version").text(), "old");
}

#[test]
fn timers_move_with_the_swap() {
    let mut device = Device::start();
    let guest = guests::harmless("well-behaved");
    let timed = |version: &str| -> EffectiveGrant {
        let mut grant = grants::bare("acme/timed", World::Command);
        grant.version = version.parse().unwrap();
        grant.trigger_timer.push(TimerTrigger {
            every: Millis::new(0),
            jitter: Millis::new(0),
        });
        grant
    };
    let old = device.load(&guest, &timed("1.0.0")).unwrap();
    let new = device.load(&guest, &timed("2.0.0")).unwrap();
    device.activate(old);
    assert_eq!(device.signals(old).failures, 0);
    device.activate(new);
    device.unload(old, Millis::seconds(60));
    device.forget_signals();
    assert_eq!(device.signals(new).failures, 0);
    assert_eq!(device.signals(new).failures, 0);
    assert!(!device.signalled(old), "a drained version ran again");
}
