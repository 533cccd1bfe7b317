//! Messages in and out, by a handler that does what the message says, with a broker that is a script.

use crate::device::{Device, access, load_order};
use crate::plant::Plant;
use crate::{grants, guests};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{
    Broker, Destination, Log, MqttRule, MqttTrigger, Outbox, Protocol, PublishBudget, Rate, World,
};
use redan_protocol::ipc::{FromExecutor, SlotId, ToExecutor};
use redan_protocol::{ByteCount, Code, Millis};
use redan_runtime::engine::Sizes;
use std::os::fd::AsFd as _;

fn rate(amount: u64) -> Rate {
    Rate {
        amount,
        per: Millis::seconds(3600),
    }
}

/// Hears `plant/…`, publishes `plant/…/alarm` through an outbox.
pub(crate) fn handler() -> EffectiveGrant {
    let mut grant = grants::bare("acme/handler", World::Messages);
    grant.log = Some(Log {
        budget: rate(64 * 1024),
    });
    let filters = |filters: &[&str]| -> Vec<String> { filters.iter().map(|f| (*f).to_owned()).collect() };
    grant.messages.trigger.push(MqttTrigger {
        id: "readings".into(),
        broker: "plant-bus".into(),
        subscribe: vec![
            filters(&["#"]),
            filters(&["plant/#", "office/#"]),
            filters(&["plant/#"]),
        ],
        handovers: 2,
    });
    grant.messages.net.push(MqttRule {
        id: "alarms".into(),
        broker: "plant-bus".into(),
        publish: vec![filters(&["+/+/alarm"]), filters(&["plant/#"])],
        budget: PublishBudget::default(),
    });
    grant.messages.outbox.push(Outbox {
        id: "alarms".into(),
        to: Destination::Mqtt("alarms".into()),
        bytes: ByteCount::kib(32),
        messages: 100,
        max_age: Millis::seconds(3600),
    });
    grant.messages.brokers.push(Broker {
        label: "plant-bus".into(),
        host: "127.0.0.1".into(),
        port: 1883,
        tls: false,
        roots: None,
        credentials: None,
        client_id: None,
        protocol: Protocol::V311,
    });
    grant
}

fn running(grant: &EffectiveGrant) -> (Device, Plant, SlotId) {
    let (mut plant, far_end) = Plant::start();
    let mut device = Device::with(&Sizes::default(), far_end);
    let slot = device.load(&guests::hostile_handler(), grant).unwrap();
    device.activate(slot);
    plant.welcome();
    (device, plant, slot)
}

/// Signals until a code comes up.
fn told(device: &mut Device, slot: SlotId, code: Code) {
    // Other codes come in between; for ever only where this one never does.
    let came = (0..100).any(|_| device.signals(slot).last == Some(code));
    assert!(came, "{code:?} did not come up");
}

#[test]
fn a_message_is_handed_over_and_then_acknowledged() {
    let (mut device, mut plant, slot) = running(&handler());
    plant.settle("plant/7/temp", b"hello");
    assert_eq!(device.log("handler"), ["out plant/7/temp hello"]);
    let signals = device.signals(slot);
    assert_eq!((signals.calls, signals.failures), (1, 0));
    // The session goes on through a connection that breaks.
    plant.hang_up();
    plant.welcome();
    plant.settle("plant/7/temp", b"again");
    device.serves_others();
}

#[test]
fn a_topic_that_one_document_does_not_admit_is_not_handed_over() {
    let (mut device, mut plant, slot) = running(&handler());
    for topic in ["office/7", "elsewhere", "$SYS/uptime", "plant/+"] {
        plant.settle(topic, b"hello");
        told(&mut device, slot, Code::TopicDenied);
    }
    plant.settle("plant/7", b"heard");
    assert_eq!(device.log("handler"), ["out plant/7 heard"]);
}

#[test]
fn a_message_is_handed_over_so_often_and_no_more() {
    let (mut device, mut plant, slot) = running(&handler());
    plant.settle("plant/7", b"retry");
    told(&mut device, slot, Code::RetriesExhausted);
    assert_eq!(device.log("handler").len(), 2);
    plant.settle("plant/7", b"drop");
    told(&mut device, slot, Code::MessageDropped);
    assert_eq!(device.log("handler").len(), 3, "once");
    device.serves_others();
}

#[test]
fn a_handler_that_traps_is_counted_and_its_message_tried_again() {
    let (mut device, mut plant, slot) = running(&handler());
    plant.settle("plant/7", b"trap");
    let (mut failures, mut exhausted) = (0, false);
    while failures < 2 || !exhausted {
        let signals = device.signals(slot);
        failures += signals.failures;
        exhausted |= signals.last == Some(Code::RetriesExhausted);
    }
    assert_eq!(failures, 2);
    plant.settle("plant/7", b"hello");
    device.serves_others();
}

#[test]
fn a_message_over_the_limit_does_not_reach_the_guest() {
    let (mut device, mut plant, slot) = running(&handler());
    plant.settle("plant/7", &vec![b'x'; 100 * 1024 + 1]);
    told(&mut device, slot, Code::MessageLimit);
    plant.settle("plant/7", &vec![b'x'; 100 * 1024]);
    assert_eq!(device.log("handler").len(), 1);
}

#[test]
fn what_a_guest_enqueues_is_published_under_the_grant() {
    let (mut device, mut plant, slot) = running(&handler());
    plant.send("plant/7", b"enqueue alarms plant/7/alarm ok");
    // The acknowledgement and the alarm come in either order.
    let mut alarm = None;
    for _ in 0..2 {
        let packet = plant.packet();
        match packet[0] {
            0x40 => assert_eq!(packet[2..], [0, 1]),
            0x32 => alarm = Some(packet),
            other => panic!("{other:x}"),
        }
    }
    let alarm = alarm.unwrap();
    assert_eq!(&alarm[4..17], b"plant/7/alarm");
    for (order, code) in [
        ("enqueue alarms office/7/log target-denied", Code::TopicDenied),
        ("enqueue alarms plant/7/log target-denied", Code::TopicDenied),
        ("enqueue alarms plant/+/alarm target-denied", Code::TopicInvalid),
        ("enqueue alarms plant/#/alarm target-denied", Code::TopicInvalid),
        ("enqueue alarms $SYS/7/alarm target-denied", Code::TopicInvalid),
        ("nul alarms", Code::TopicInvalid),
        ("large alarms plant/7/alarm", Code::MessageLimit),
    ] {
        plant.settle("plant/7", order.as_bytes());
        told(&mut device, slot, code);
    }
    plant.settle("plant/7", b"enqueue other plant/7/alarm no-such-outbox");
    assert!(
        device
            .log("handler")
            .iter()
            .all(|line| line != "out ok, wanted target-denied")
    );
    device.serves_others();
}

#[test]
fn an_outbox_is_full_at_its_quota_and_says_so() {
    let (mut device, mut plant, slot) = running(&handler());
    // A broker that acknowledges none of ours: the first item is under way, and all of them wait.
    plant.send("plant/7", b"fill alarms plant/7/alarm");
    while plant.packet()[0] != 0x40 {}
    told(&mut device, slot, Code::OutboxFull);
    let log = device.log("handler");
    let kept: u32 = log[1]
        .strip_prefix("out kept ")
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((28..=32).contains(&kept), "32 KiB of items of 1000 bytes: {kept}");
}

#[test]
fn a_budget_of_publishing_is_kept_and_what_is_over_it_waits() {
    let mut grant = handler();
    grant.messages.net[0].budget.messages = Some(rate(1));
    let (mut device, mut plant, slot) = running(&grant);
    plant.send("plant/7", b"enqueue alarms plant/7/alarm ok");
    let one = [plant.packet()[0], plant.packet()[0]];
    assert!(one == [0x32, 0x40] || one == [0x40, 0x32], "{one:x?}");
    plant.acknowledge([0, 2]);
    plant.settle("plant/7", b"enqueue alarms plant/7/alarm ok");
    told(&mut device, slot, Code::PublishBudget);
}

#[test]
fn what_waited_too_long_is_dropped_and_counted() {
    let mut grant = handler();
    grant.messages.net[0].budget.messages = Some(rate(0));
    grant.messages.outbox[0].max_age = Millis::seconds(1);
    let (mut device, mut plant, slot) = running(&grant);
    plant.settle("plant/7", b"enqueue alarms plant/7/alarm ok");
    told(&mut device, slot, Code::OutboxExpired);
}

#[test]
fn what_waits_is_sent_by_the_next_version_under_its_own_grant() {
    let mut grant = handler();
    grant.messages.net[0].budget.messages = Some(rate(0));
    let (mut device, mut plant, old) = running(&grant);
    plant.settle("plant/7", b"enqueue alarms plant/7/alarm ok");
    plant.settle("plant/7", b"enqueue alarms plant/8/alarm ok");
    // The next version may publish, but not for press 8 any more.
    let mut grant = handler();
    grant.messages.net[0].publish.push(vec!["plant/7/#".into()]);
    let new = device.load(&guests::hostile_handler(), &grant).unwrap();
    device.activate(new);
    assert_eq!(plant.published().0, "plant/7/alarm");
    told(&mut device, new, Code::TopicDenied);
    device.unload(old, Millis::seconds(60));
    plant.settle("plant/7", b"heard by the new one, in the same session");
}

#[test]
fn a_version_is_asked_whether_it_may_end_and_what_it_says_costs_nothing() {
    let (_plant, far_end) = Plant::start();
    let mut device = Device::with(&Sizes::default(), far_end);
    for (end, after) in [
        (None, None),
        (Some("5000"), Some(Millis::new(5000))),
        (Some("0"), Some(Millis::new(1))),
        (Some("trap"), None),
        (Some("loop"), None),
    ] {
        let mut grant = handler();
        grant.limits.cpu_per_call = Millis::new(200);
        grant
            .env
            .extend(end.map(|end| ("END".to_owned(), end.to_owned())));
        let slot = device.load(&guests::hostile_handler(), &grant).unwrap();
        let deadline = Millis::seconds(60);
        device.say(&ToExecutor::PrepareStop { slot, deadline }, &[]);
        assert_eq!(device.hear(), FromExecutor::Yields { slot, after }, "{end:?}");
        device.unload(slot, Millis::seconds(60));
    }
    let plain = grants::bare("acme/plain", World::Command);
    let slot = device.load(&guests::harmless("well-behaved"), &plain).unwrap();
    let deadline = Millis::seconds(60);
    device.say(&ToExecutor::PrepareStop { slot, deadline }, &[]);
    assert_eq!(
        device.hear(),
        FromExecutor::Yields { slot, after: None },
        "not exported"
    );
}

#[test]
fn a_file_of_a_broker_over_its_limit_is_refused() {
    let (_plant, far_end) = Plant::start();
    let mut device = Device::with(&Sizes::default(), far_end);
    let folder = tempfile::tempdir().unwrap();
    let grant = handler();
    let native = guests::native(&guests::hostile_handler(), &grant);
    let native = redan_sealed::seal("native", &native).unwrap();
    for (file, outcome) in [
        (Some(b"press-7\nsecret\n".to_vec()), Ok(())),
        (
            Some([b"press-7\n".to_vec(), vec![b'x'; 64 * 1024]].concat()),
            Err(Code::BrokerFile),
        ),
        (Some(b"\n".to_vec()), Err(Code::BrokerFile)),
        (None, Err(Code::BrokerFile)),
    ] {
        let slot = device.fresh_slot();
        let path = folder.path().join("credentials");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            device.say(&access(slot, "plant-bus", true), &[file.as_fd()]);
        }
        device.say(&load_order(slot, &grant), &[native.as_fd()]);
        let answer = match device.hear() {
            FromExecutor::Loaded { .. } => Ok(()),
            FromExecutor::Failed { code, .. } => Err(code),
            other => panic!("{other:?}"),
        };
        assert_eq!(answer, outcome);
    }
}
