//! The local bus: workloads that speak with each other, and links whose far end is this test, which keeps no rule of anybody's.

use crate::device::{Device, PATIENCE};
use crate::{grants, guests};
use redan_channel::ChannelError;
use redan_policy::EffectiveGrant;
use redan_policy::grant::{BusBudget, BusRule, BusTrigger, Destination, Log, Outbox, Rate, World};
use redan_protocol::ipc::{BusAnswer, BusMessage, LinkEnd, SlotId, ToExecutor};
use redan_protocol::{ByteCount, Code, Millis};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

fn hourly(amount: u64) -> Rate {
    Rate {
        amount,
        per: Millis::seconds(3600),
    }
}

/// More than any test says.
fn plenty() -> BusBudget {
    BusBudget {
        bytes: hourly(1 << 40),
        messages: hourly(1 << 20),
    }
}

fn filters(filters: &[&str]) -> Vec<String> {
    filters.iter().map(|filter| (*filter).to_owned()).collect()
}

/// A workload that hears `from` on these topics.
fn hears(component: &str, from: &str, topics: &[&str]) -> EffectiveGrant {
    let mut grant = grants::bare(component, World::Messages);
    grant.log = Some(Log {
        budget: hourly(1 << 20),
    });
    // Imported by the guest; `says` grants it.
    grant.denied_optional.push("outbox".to_owned());
    grant.messages.bus_trigger.push(trigger(from, topics));
    grant
}

fn trigger(from: &str, topics: &[&str]) -> BusTrigger {
    BusTrigger {
        id: from.replace('/', "-"),
        from: from.parse().unwrap(),
        subscribe: vec![filters(&["#"]), filters(topics)],
        handovers: 2,
        budget: plenty(),
    }
}

/// It says these topics to `to` as well, through its outbox `out`.
fn says(mut grant: EffectiveGrant, to: &str, topics: &[&str]) -> EffectiveGrant {
    grant.denied_optional.clear();
    grant.messages.bus.push(BusRule {
        id: "rule".to_owned(),
        to: to.parse().unwrap(),
        publish: vec![filters(&["#"]), filters(topics)],
        budget: plenty(),
    });
    grant.messages.outbox.push(Outbox {
        id: "out".to_owned(),
        to: Destination::Bus("rule".to_owned()),
        bytes: ByteCount::mib(1),
        messages: 100,
        max_age: Millis::seconds(3600),
    });
    grant
}

/// A sensor that does what the test says, and says `plant/…` to a collector.
fn sensor() -> EffectiveGrant {
    says(
        hears("acme/sensor", "test/driver", &["#"]),
        "other/collector",
        &["plant/#"],
    )
}

fn collector() -> EffectiveGrant {
    hears("other/collector", "acme/sensor", &["plant/#"])
}

fn run(device: &mut Device, grant: &EffectiveGrant) -> SlotId {
    let slot = device.load(&guests::hostile_handler(), grant).unwrap();
    device.activate(slot);
    slot
}

fn narrow(device: &mut Device, slot: SlotId, grant: &EffectiveGrant) {
    let grant = grant.canonical_json();
    device.say(&ToExecutor::Narrow { slot, grant }, &[]);
    // Orders are obeyed one after the other, and this one has an answer.
    assert_eq!(device.probe(slot), Ok(()));
}

/// Signals until a code comes up.
fn told(device: &mut Device, slot: SlotId, code: Code) {
    while device.signals(slot).last != Some(code) {}
}

/// Signals until there were so many calls.
fn called(device: &mut Device, slot: SlotId, calls: u32) {
    let mut seen = 0;
    while seen < calls {
        seen += device.signals(slot).calls;
    }
    assert_eq!(seen, calls);
}

fn hearing(from: &str, to: &str, topics: &[&str]) -> ToExecutor {
    ToExecutor::Link {
        component: to.parse().unwrap(),
        end: LinkEnd::Hears {
            from: from.parse().unwrap(),
            topics: vec![vec![filters(topics)]],
        },
    }
}

fn sending(from: &str, to: &str) -> ToExecutor {
    ToExecutor::Link {
        component: from.parse().unwrap(),
        end: LinkEnd::Sends {
            to: to.parse().unwrap(),
        },
    }
}

/// As the agent links the sensor with the collector.
fn link(sender: &Device, receiver: &Device) {
    let (near, far) = redan_channel::pair().unwrap();
    receiver.say(
        &hearing("acme/sensor", "other/collector", &["plant/#"]),
        &[far.as_fd()],
    );
    sender.say(&sending("acme/sensor", "other/collector"), &[near.as_fd()]);
}

/// A sender's executor in somebody's hands: it says what it likes over the link it has.
struct Captured(OwnedFd);

impl Captured {
    /// Of this name, to a component, and with a grant of these topics, as the agent tells the receiver.
    fn link(device: &Device, from: &str, to: &str, topics: &[&str]) -> Self {
        let (near, far) = redan_channel::pair().unwrap();
        set_socket_timeout(&near, Timeout::Recv, Some(PATIENCE)).unwrap();
        device.say(&hearing(from, to, topics), &[far.as_fd()]);
        Self(near)
    }

    fn send(&self, message: &BusMessage, beside: &[BorrowedFd<'_>]) {
        redan_channel::send(&self.0, message, beside).unwrap();
    }

    fn answer(&self) -> Result<BusAnswer, ChannelError> {
        let received = redan_channel::recv::<BusAnswer>(&self.0)?;
        assert!(received.descriptors.is_empty());
        Ok(received.message)
    }

    /// `None`: settled.
    fn says(&self, message: &BusMessage) -> Option<Code> {
        self.send(message, &[]);
        let answer = self.answer().unwrap();
        assert_eq!(answer.id, message.id);
        answer.code
    }

    fn say(&self, topic: &str, payload: &str) -> Option<Code> {
        self.says(&message(topic, payload.as_bytes()))
    }
}

fn message(topic: &str, payload: &[u8]) -> BusMessage {
    BusMessage {
        id: 7,
        handed: 0,
        topic: topic.to_owned(),
        content_type: String::new(),
        payload: payload.to_vec(),
    }
}

/// Who makes the sensor say something.
fn driver(device: &Device) -> Captured {
    Captured::link(device, "test/driver", "acme/sensor", &["#"])
}

#[test]
fn what_a_workload_says_reaches_the_one_that_hears_it_in_another_process() {
    let (mut one, mut two) = (Device::start(), Device::start());
    let sensor = run(&mut one, &sensor());
    let collector = run(&mut two, &collector());
    link(&one, &two);
    let driver = driver(&one);
    assert_eq!(driver.say("go", "pass out plant/7/temp one"), None);
    assert_eq!(driver.say("go", "pass out plant/7/door two"), None);
    called(&mut two, collector, 2);
    assert_eq!(
        two.log("collector"),
        ["out plant/7/temp one", "out plant/7/door two"],
        "each once, in order"
    );
    called(&mut one, sensor, 2);
    one.serves_others();
    two.serves_others();
}

#[test]
fn a_message_that_only_one_end_admits_is_not_handed_over() {
    let mut device = Device::start();
    let slot = run(&mut device, &collector());
    for (from, granted, topic) in [
        // The sender's grant admits it, and the receiver's does not: of another workload, or about something else.
        ("other/sensor", "#", "plant/7"),
        ("acme/sensor2", "#", "plant/7"),
        ("acme/sensor", "#", "office/7"),
        ("acme/sensor", "#", "plant7"),
        // The receiver's admits it, and the sender's does not: its executor says it all the same.
        ("acme/sensor", "plant/8", "plant/7"),
        ("acme/sensor", "office/#", "plant/7"),
        // What names no topic.
        ("acme/sensor", "#", "plant/+"),
        ("acme/sensor", "#", "plant/#"),
        ("acme/sensor", "#", "plant/7\0"),
        ("acme/sensor", "#", ""),
    ] {
        let captured = Captured::link(&device, from, "other/collector", &[granted]);
        assert_eq!(
            captured.say(topic, "no"),
            Some(Code::BusRefused),
            "{from} {granted} {topic}"
        );
        told(&mut device, slot, Code::BusRefused);
    }
    let nothing = Captured::link(&device, "acme/sensor", "other/collector", &[]);
    assert_eq!(nothing.say("plant/7", "no"), Some(Code::BusRefused));
    let captured = Captured::link(&device, "acme/sensor", "other/collector", &["plant/#"]);
    let split = BusMessage {
        content_type: "text/plain\r\nx: y".to_owned(),
        ..message("plant/7", b"no")
    };
    assert_eq!(captured.says(&split), Some(Code::BusRefused));
    assert_eq!(captured.say("plant/7", "yes"), None);
    assert_eq!(device.log("collector"), ["out plant/7 yes"]);
    device.serves_others();
}

#[test]
fn a_guest_hears_at_once_what_its_own_grant_does_not_let_it_say() {
    let mut device = Device::start();
    let slot = run(&mut device, &sensor());
    let driver = driver(&device);
    for (order, code) in [
        ("enqueue out office/7 target-denied", Code::BusRefused),
        ("enqueue out plant/+ target-denied", Code::TopicInvalid),
    ] {
        assert_eq!(driver.say("go", order), None);
        told(&mut device, slot, code);
    }
    assert_eq!(driver.say("go", "enqueue other plant/7 no-such-outbox"), None);
    let log = device.log("sensor");
    let held = |line: &&String| line.contains("wanted");
    assert_eq!(
        log.iter().filter(held).collect::<Vec<_>>(),
        [
            "out target-denied, wanted target-denied",
            "out target-denied, wanted target-denied",
            "out no-such-outbox, wanted no-such-outbox"
        ]
    );
}

#[test]
fn what_nobody_takes_waits_through_a_restart_until_somebody_does() {
    let mut one = Device::start();
    let slot = run(&mut one, &sensor());
    assert_eq!(driver(&one).say("go", "pass out plant/7/temp kept"), None);
    told(&mut one, slot, Code::BusAbsent);
    let (mut one, mut two) = (one.restarted(), Device::start());
    run(&mut one, &sensor());
    // Linked before the receiver's version answers: it waits on.
    link(&one, &two);
    let grant = collector();
    let collector = two.load(&guests::hostile_handler(), &grant).unwrap();
    two.activate(collector);
    called(&mut two, collector, 1);
    assert_eq!(two.log("collector"), ["out plant/7/temp kept"]);
}

#[test]
fn what_waits_is_sent_under_the_grant_that_holds_then() {
    let (mut one, mut two) = (Device::start(), Device::start());
    let grant = sensor();
    let sensor = run(&mut one, &grant);
    let driver = driver(&one);
    assert_eq!(driver.say("go", "pass out plant/7/temp no"), None);
    assert_eq!(driver.say("go", "pass out plant/8/temp yes"), None);
    told(&mut one, sensor, Code::BusAbsent);
    // While they wait, somebody takes plant 7 from the sender.
    let mut narrower = grant.clone();
    narrower.messages.bus[0].publish.push(filters(&["plant/8/#"]));
    narrow(&mut one, sensor, &narrower);
    let collector = run(&mut two, &collector());
    link(&one, &two);
    told(&mut one, sensor, Code::BusRefused);
    called(&mut two, collector, 1);
    assert_eq!(two.log("collector"), ["out plant/8/temp yes"]);
}

#[test]
fn a_receiver_hears_what_its_present_grant_says_and_nobody_once_it_is_gone() {
    let mut device = Device::start();
    let grant = collector();
    let slot = run(&mut device, &grant);
    let captured = Captured::link(&device, "acme/sensor", "other/collector", &["#"]);
    assert_eq!(captured.say("plant/7", "one"), None);
    let mut narrower = grant.clone();
    narrower.messages.bus_trigger[0]
        .subscribe
        .push(filters(&["plant/8"]));
    narrow(&mut device, slot, &narrower);
    assert_eq!(captured.say("plant/7", "no"), Some(Code::BusRefused));
    assert_eq!(captured.say("plant/8", "two"), None);
    narrow(&mut device, slot, &grant.nothing());
    assert_eq!(captured.say("plant/8", "no"), Some(Code::BusRefused));
    // The next version hears over the same link.
    let next = run(&mut device, &grant);
    device.unload(slot, Millis::seconds(60));
    assert_eq!(captured.say("plant/7", "three"), None);
    let component = grant.component.clone();
    device.say(&ToExecutor::Deactivate { component }, &[]);
    assert_eq!(device.probe(next), Ok(()), "and so it is deactivated");
    assert_eq!(captured.say("plant/7", "no"), Some(Code::BusAbsent));
    device.unload(next, Millis::seconds(60));
    assert_eq!(captured.say("plant/7", "no"), Some(Code::BusAbsent));
    assert_eq!(
        device.log("collector"),
        ["out plant/7 one", "out plant/8 two", "out plant/7 three"]
    );
    let unlink = ToExecutor::Unlink {
        component: grant.component.clone(),
        peer: "acme/sensor".parse().unwrap(),
        hears: true,
    };
    device.say(&unlink, &[]);
    assert_eq!(captured.answer(), Err(ChannelError::Closed));
}

#[test]
fn a_sender_whose_link_is_taken_away_keeps_what_it_has() {
    let (mut one, mut two) = (Device::start(), Device::start());
    let sensor = run(&mut one, &sensor());
    let collector = run(&mut two, &collector());
    link(&one, &two);
    let driver = driver(&one);
    assert_eq!(driver.say("go", "pass out plant/7 one"), None);
    called(&mut two, collector, 1);
    let unlink = ToExecutor::Unlink {
        component: "acme/sensor".parse().unwrap(),
        peer: "other/collector".parse().unwrap(),
        hears: false,
    };
    one.say(&unlink, &[]);
    assert_eq!(driver.say("go", "pass out plant/7 two"), None);
    told(&mut one, sensor, Code::BusAbsent);
    // The receiver's executor ends, another one begins, and the agent links them again.
    let mut two = two.restarted();
    let grant = self::collector();
    let collector = run(&mut two, &grant);
    link(&one, &two);
    called(&mut two, collector, 1);
    assert_eq!(two.log("collector"), ["out plant/7 one", "out plant/7 two"]);
}

#[test]
fn a_message_of_the_bus_is_handed_over_so_often_and_then_the_next_one_is() {
    let (mut one, mut two) = (Device::start(), Device::start());
    run(&mut one, &sensor());
    let collector = run(&mut two, &collector());
    link(&one, &two);
    let driver = driver(&one);
    for said in ["retry", "trap", "drop", "hello"] {
        assert_eq!(driver.say("go", &format!("pass out plant/7 {said}")), None);
    }
    let (mut calls, mut failures) = (0, 0);
    while calls < 6 {
        let signals = two.signals(collector);
        (calls, failures) = (calls + signals.calls, failures + signals.failures);
    }
    assert_eq!(failures, 2, "only a trap is a failure");
    let heard = ["retry", "retry", "trap", "trap", "drop", "hello"];
    let log = two.log("collector");
    let log: Vec<&String> = log.iter().filter(|line| line.starts_with("out ")).collect();
    assert_eq!(log, heard.map(|said| format!("out plant/7 {said}")).each_ref());
    // What each comes to, as the receiver says it.
    let captured = Captured::link(&two, "acme/sensor", "other/collector", &["#"]);
    assert_eq!(captured.say("plant/7", "retry"), Some(Code::BusUnsettled));
    assert_eq!(captured.say("plant/7", "trap"), Some(Code::BusUnsettled));
    let last = BusMessage {
        handed: 1,
        ..message("plant/7", b"retry")
    };
    two.forget_signals();
    assert_eq!(captured.says(&last), None);
    told(&mut two, collector, Code::RetriesExhausted);
    assert_eq!(captured.say("plant/7", "drop"), None);
    told(&mut two, collector, Code::MessageDropped);
    two.serves_others();
}

#[test]
fn budgets_hold_at_both_ends_and_what_is_over_them_waits() {
    let (mut one, mut two) = (Device::start(), Device::start());
    let mut grant = sensor();
    grant.messages.bus[0].budget.messages = hourly(1);
    let sensor = run(&mut one, &grant);
    let mut grant = collector();
    grant.messages.bus_trigger[0].budget.bytes = hourly(20);
    let collector = run(&mut two, &grant);
    link(&one, &two);
    let driver = driver(&one);
    assert_eq!(driver.say("go", "pass out plant/7 one"), None);
    called(&mut two, collector, 1);
    assert_eq!(driver.say("go", "pass out plant/7 two"), None);
    told(&mut one, sensor, Code::BusBudget);
    // The receiver counts for itself, topics too: 10 bytes are left.
    let captured = Captured::link(&two, "acme/sensor", "other/collector", &["#"]);
    assert_eq!(captured.say("plant/7", "four"), Some(Code::BusBudget));
    told(&mut two, collector, Code::BusBudget);
    assert_eq!(captured.say("plant/7", "six"), None);
    assert_eq!(captured.say("plant/7", ""), Some(Code::BusBudget));
    assert_eq!(two.log("collector").len(), 2);
}

#[test]
fn two_workloads_that_answer_each_other_end_at_their_budgets() {
    let mut device = Device::start();
    let mut pair = [("acme/one", "acme/two"), ("acme/two", "acme/one")].map(|(own, other)| {
        let mut grant = says(hears(own, other, &["#"]), other, &["#"]);
        grant.messages.bus[0].budget.messages = hourly(5);
        grant
    });
    pair[0].messages.bus_trigger.push(trigger("test/driver", &["#"]));
    let slots = [0, 1].map(|nth| run(&mut device, &pair[nth]));
    for (from, to) in [("acme/one", "acme/two"), ("acme/two", "acme/one")] {
        let (near, far) = redan_channel::pair().unwrap();
        device.say(&hearing(from, to, &["#"]), &[far.as_fd()]);
        device.say(&sending(from, to), &[near.as_fd()]);
    }
    let driver = Captured::link(&device, "test/driver", "acme/one", &["#"]);
    assert_eq!(driver.say("go", "echo out ball"), None);
    told(&mut device, slots[0], Code::BusBudget);
    assert_eq!(device.log("one").len(), 6, "the driver's, and five of the other");
    assert_eq!(device.log("two").len(), 5);
}

#[test]
fn what_is_too_large_for_the_bus_is_told_at_once() {
    let mut device = Device::start();
    let slot = run(&mut device, &sensor());
    let driver = driver(&device);
    assert_eq!(driver.say("go", "sized out plant/7 65537 too-large"), None);
    told(&mut device, slot, Code::BusMessageLimit);
    assert_eq!(driver.say("go", "sized out plant/7 65536 ok"), None);
    let log = device.log("sensor");
    assert_eq!(log[1], "out too-large, wanted too-large");
    assert_eq!(log[3], "out ok, wanted ok");
}

#[test]
fn a_sender_that_keeps_no_rule_is_held_by_its_receiver() {
    let mut device = Device::start();
    let mut grant = collector();
    let slot = run(&mut device, &grant);
    let captured = Captured::link(&device, "acme/sensor", "other/collector", &["#"]);
    let sized = |length: usize| message("plant/7", &vec![b'x'; length]);
    assert_eq!(captured.says(&sized(64 * 1024)), None);
    assert_eq!(captured.says(&sized(64 * 1024 + 1)), Some(Code::BusMessageLimit));
    told(&mut device, slot, Code::BusMessageLimit);
    grant.limits.body_request = ByteCount::new(100);
    narrow(&mut device, slot, &grant);
    assert_eq!(captured.says(&sized(100)), None);
    assert_eq!(captured.says(&sized(101)), Some(Code::BusMessageLimit));
    // Descriptors that come with a message are nobody's.
    let file = std::fs::File::open("/dev/null").unwrap();
    captured.send(&message("plant/7", b"hello"), &[file.as_fd()]);
    assert_eq!(captured.answer(), Ok(BusAnswer { id: 7, code: None }));
    // What is no message ends the link, and nothing else.
    redan_channel::send(&captured.0, &"what?", &[]).unwrap();
    assert!(matches!(
        captured.answer(),
        Err(ChannelError::Closed | ChannelError::Os(_))
    ));
    let captured = Captured::link(&device, "acme/sensor", "other/collector", &["#"]);
    assert_eq!(captured.say("plant/7", "hello"), None);
    device.serves_others();
}

#[test]
fn a_flood_waits_with_its_sender_and_others_have_their_turn() {
    let mut device = Device::start();
    let mut grant = collector();
    grant.limits.concurrency = 1;
    grant.messages.bus_trigger.push(trigger("acme/flood", &["#"]));
    let slot = run(&mut device, &grant);
    let flood = Captured::link(&device, "acme/flood", "other/collector", &["#"]);
    rustix::io::ioctl_fionbio(&flood.0, true).unwrap();
    // It never reads an answer. What it may have on the way is what its own socket holds.
    let payload = vec![b'x'; 60 * 1024];
    let mut accepted = 0;
    while redan_channel::send(&flood.0, &message("plant/7", &payload), &[]).is_ok() {
        accepted += 1;
        assert!(accepted < 10_000, "a flood without end was taken");
    }
    let captured = Captured::link(&device, "acme/sensor", "other/collector", &["#"]);
    for said in ["one", "two", "three"] {
        assert_eq!(captured.say("plant/7", said), None);
    }
    assert!(device.logged("collector", "out plant/7 three"));
    device.unload(slot, Millis::seconds(60));
    device.serves_others();
}

#[test]
fn what_was_taken_while_a_message_waited_for_its_place_is_not_handed_over() {
    let mut device = Device::start();
    let mut grant = collector();
    grant.limits.concurrency = 1;
    grant.limits.cpu_per_call = Millis::seconds(2);
    grant.messages.bus_trigger.push(trigger("acme/other", &["#"]));
    let slot = run(&mut device, &grant);
    let [first, second] =
        ["acme/sensor", "acme/other"].map(|from| Captured::link(&device, from, "other/collector", &["#"]));
    first.send(&message("plant/7", b"loop"), &[]);
    // The only place is taken once the guest says so.
    while !device.logged("collector", "out plant/7 loop") {
        assert_eq!(device.probe(slot), Ok(()));
    }
    second.send(&message("plant/7", b"late"), &[]);
    assert_eq!(device.probe(slot), Ok(()));
    let mut narrower = grant.clone();
    narrower.messages.bus_trigger.pop();
    narrow(&mut device, slot, &narrower);
    let refused = Some(Code::BusRefused);
    assert_eq!(second.answer().map(|answer| answer.code), Ok(refused));
    assert_eq!(
        first.answer().map(|answer| answer.code),
        Ok(Some(Code::BusUnsettled))
    );
    assert!(!device.logged("collector", "out plant/7 late"));
    device.serves_others();
}
