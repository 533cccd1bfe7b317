//! `stop-start`: the new version answers once the old one's calls have ended, and never beside them.

use crate::client::{Client, get};
use crate::device::Device;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::Strategy;
use redan_protocol::ipc::{FromExecutor, SlotId, ToExecutor};
use redan_protocol::{Code, Millis};
use std::net::{SocketAddr, TcpListener};

fn exclusive(version: &str, drain: Millis) -> EffectiveGrant {
    let mut grant = grants::service(version);
    grant.upgrade.strategy = Strategy::StopStart;
    grant.upgrade.drain = drain;
    grant
}

/// An old version that answers, with a call of it under way, and a new one beside it.
struct Scene {
    device: Device,
    address: SocketAddr,
    old: SlotId,
    new: SlotId,
    under_way: Client,
}

impl Scene {
    fn new(drain: Millis) -> Self {
        let mut device = Device::start();
        let guest = guests::hostile_service();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let old = device.load_service(&guest, &exclusive("old", drain), &listener);
        device.activate(old);
        let new = device.load_service(&guest, &exclusive("new", drain), &listener);
        let mut under_way = Client::connect(address);
        under_way.begin("/version");
        Self {
            device,
            address,
            old,
            new,
            under_way,
        }
    }
}

#[test]
fn the_new_version_answers_when_the_last_call_of_the_old_one_has_ended() {
    let Scene {
        mut device,
        address,
        new,
        mut under_way,
        ..
    } = Scene::new(Millis::seconds(60));
    device.say(&ToExecutor::Activate { slot: new }, &[]);
    // Nobody answers while the call lasts; a probe of the new one is an order obeyed after the activation began.
    assert_eq!(device.probe(new), Ok(()));
    assert_eq!(get(address, "/version").refusal(), (503, "nothing-to-run-safely"));
    assert_eq!(
        under_way.end().text(),
        "old",
        "the call under way was not cut off"
    );
    assert_eq!(device.hear(), FromExecutor::Activated { slot: new });
    assert_eq!(get(address, "/version").text(), "new");
}

#[test]
fn calls_that_outlive_the_drain_are_cut_off_and_the_old_version_can_come_back() {
    let Scene {
        mut device,
        address,
        old,
        new,
        mut under_way,
    } = Scene::new(Millis::new(50));
    device.activate(new);
    assert_eq!(under_way.answer().refusal(), (503, "superseded"));
    assert_eq!(get(address, "/version").text(), "new");
    // A rollback: the same order for the version before.
    device.activate(old);
    assert_eq!(get(address, "/version").text(), "old");
}

#[test]
fn a_later_order_wins_over_an_activation_that_waits() {
    let Scene {
        mut device,
        address,
        new,
        mut under_way,
        ..
    } = Scene::new(Millis::seconds(60));
    device.say(&ToExecutor::Activate { slot: new }, &[]);
    assert_eq!(device.probe(new), Ok(()));
    let component = "acme/hostile-service".parse().unwrap();
    device.say(&ToExecutor::Deactivate { component }, &[]);
    assert_eq!(device.probe(new), Ok(()));
    assert_eq!(under_way.end().text(), "old");
    let superseded = FromExecutor::Failed {
        slot: new,
        code: Code::Superseded,
    };
    assert_eq!(device.hear(), superseded);
    assert_eq!(get(address, "/version").refusal(), (503, "nothing-to-run-safely"));
}
