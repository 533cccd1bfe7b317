use super::*;
use redan_policy::{intersect, parse_ask, parse_device, parse_fleet};

/// What an ask comes to where nobody above it takes anything.
fn grant(name: &str, body: &str) -> EffectiveGrant {
    let head = |kind: &str, rest: &str| format!("schema = \"redan.policy/1\"\nkind = \"{kind}\"\n{rest}");
    let of = |publisher: &str| {
        format!(
            "[[net.bus]]\nid = \"{publisher}\"\nto = \"{publisher}/*\"\npublish = [\"#\"]\n\
             [[trigger.bus]]\nid = \"{publisher}\"\nfrom = \"{publisher}/*\"\nsubscribe = [\"#\"]\n"
        )
    };
    let above = ["acme", "other"].map(of).concat();
    let above = format!("names = [\"acme/*\", \"other/*\"]\n{above}");
    let world = "redan:messaging/handler@0.1";
    let ask = format!("[subject]\nname = \"{name}\"\nversion = \"1.0.0\"\nworld = \"{world}\"\n{body}");
    let fleet =
        format!("serial = 1\n[subject]\npublishers = [\"acme\", \"other\"]\nworlds = [\"{world}\"]\n{above}");
    let device = format!("hardware = \"gateway\"\n[subject]\n{above}");
    intersect(
        &parse_ask("ask", &head("ask", &ask)).unwrap(),
        &parse_fleet("fleet", &head("fleet", &fleet)).unwrap(),
        &parse_device("device", &head("device", &device)).unwrap(),
    )
    .unwrap()
}

fn says(name: &str, to: &str, topic: &str) -> EffectiveGrant {
    grant(
        name,
        &format!("[[net.bus]]\nid = \"a\"\nto = \"{to}\"\npublish = [\"{topic}\"]\n"),
    )
}

fn hears(name: &str, from: &str) -> EffectiveGrant {
    grant(
        name,
        &format!("[[trigger.bus]]\nid = \"a\"\nfrom = \"{from}\"\nsubscribe = [\"plant/#\"]\n"),
    )
}

fn pair(from: &str, to: &str) -> Pair {
    Pair {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
    }
}

fn topics(of: &[&EffectiveGrant]) -> Topics {
    of.iter()
        .map(|grant| grant.messages.bus[0].publish.clone())
        .collect()
}

#[test]
fn two_workloads_are_linked_when_both_grants_say_so_and_not_before() {
    let (sensor, collector) = (
        says("acme/sensor", "other/collector", "plant/temp"),
        hears("other/collector", "acme/sensor"),
    );
    let made = vec![Change::Make(
        pair("acme/sensor", "other/collector"),
        topics(&[&sensor]),
    )];
    for order in [[&sensor, &collector], [&collector, &sensor]] {
        let mut links = Links::default();
        assert_eq!(links.put(SlotId(1), order[0]), []);
        assert_eq!(links.put(SlotId(2), order[1]), made);
        assert_eq!(
            links.put(SlotId(3), order[1]),
            [],
            "a second version changes nothing"
        );
    }
}

#[test]
fn nobody_is_linked_by_a_name_that_is_almost_right_or_by_one_side_alone() {
    let to = "other/collector";
    let sensor = || says("acme/sensor", to, "plant/temp");
    for (one, two) in [
        // The receiver hears somebody else, or nobody.
        (sensor(), hears(to, "acme/sensor2")),
        (sensor(), hears(to, "other/sensor")),
        (sensor(), grant(to, "")),
        // The sender says it to somebody else.
        (
            says("acme/sensor", "acme/collector", "plant/temp"),
            hears(to, "acme/sensor"),
        ),
        (grant("acme/sensor", ""), hears(to, "acme/sensor")),
        // Who says it is not who is heard, whatever its publisher calls it.
        (says("other/sensor", to, "plant/temp"), hears(to, "acme/sensor")),
        // A receiver of that name, of another publisher.
        (sensor(), hears("acme/collector", "acme/sensor")),
        // Both say, both hear: nobody hears what is said.
        (sensor(), says(to, "acme/sensor", "plant/temp")),
        (hears("acme/sensor", to), hears(to, "acme/sensor")),
    ] {
        let mut links = Links::default();
        let mut changes = links.put(SlotId(1), &one);
        changes.extend(links.put(SlotId(2), &two));
        assert_eq!(changes, [], "{} and {}", one.component, two.component);
    }
}

#[test]
fn a_link_ends_with_either_slot_and_with_what_a_policy_takes() {
    let (sensor, collector) = (
        says("acme/sensor", "other/collector", "plant/temp"),
        hears("other/collector", "acme/sensor"),
    );
    let both = pair("acme/sensor", "other/collector");
    let linked = || {
        let mut links = Links::default();
        links.put(SlotId(1), &sensor);
        links.put(SlotId(2), &collector);
        assert!(links.knows(SlotId(1)) && !links.knows(SlotId(3)));
        links
    };
    let cut = vec![Change::Cut(both.clone())];
    for slot in [1, 2] {
        assert_eq!(linked().forget(SlotId(slot)), cut, "uninstalled");
    }
    assert_eq!(linked().put(SlotId(1), &sensor.nothing()), cut, "narrowed");
    assert_eq!(linked().put(SlotId(2), &collector.nothing()), cut, "narrowed");
    // As long as one version is left, it holds.
    let mut links = linked();
    assert_eq!(links.put(SlotId(3), &collector), []);
    assert_eq!(links.forget(SlotId(2)), []);
    assert_eq!(links.forget(SlotId(3)), cut);
    assert_eq!(links.forget(SlotId(3)), [], "once");
}

#[test]
fn a_receiver_is_told_anew_what_its_sender_may_say() {
    let collector = hears("other/collector", "acme/sensor");
    let [old, new] = ["plant/temp", "plant/door"].map(|topic| says("acme/sensor", "other/collector", topic));
    let both = pair("acme/sensor", "other/collector");
    let mut links = Links::default();
    links.put(SlotId(1), &old);
    links.put(SlotId(2), &collector);
    let wider = Change::Make(both.clone(), topics(&[&old, &new]));
    assert_eq!(links.put(SlotId(3), &new), [wider]);
    let narrower = || [Change::Make(both.clone(), topics(&[&new]))];
    assert_eq!(links.forget(SlotId(1)), narrower());
    // A pair that could not be made is tried again with the next change.
    links.failed(&both);
    assert_eq!(links.put(SlotId(4), &collector), narrower());
}
