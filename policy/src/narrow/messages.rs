//! Messages of a running workload: subscriptions, publishing and outboxes that both grants give.

use crate::grant::{
    BusBudget, BusRule, BusTrigger, Destination, HttpRule, Messages, MqttRule, MqttTrigger, Outbox,
    PublishBudget,
};
use crate::intersect::amounts::tightest;

/// What is left of messages; `http` are the rules of outgoing HTTP that are left.
pub(super) fn narrowed(own: &Messages, later: &Messages, http: &[HttpRule]) -> Messages {
    // A broker that is mapped elsewhere is another one: what was granted with it is not.
    let brokers: Vec<_> = own
        .brokers
        .iter()
        .filter(|broker| later.brokers.contains(broker))
        .cloned()
        .collect();
    let mapped = |label: &str| brokers.iter().any(|broker| broker.label == label);
    let trigger = own
        .trigger
        .iter()
        .filter(|trigger| mapped(&trigger.broker))
        .filter_map(|trigger| {
            let same = |l: &&MqttTrigger| l.id == trigger.id && l.broker == trigger.broker;
            Some(MqttTrigger {
                subscribe: layers(&trigger.subscribe, &later.trigger.iter().find(same)?.subscribe),
                ..trigger.clone()
            })
        });
    let net = own
        .net
        .iter()
        .filter(|rule| mapped(&rule.broker))
        .filter_map(|rule| {
            let other = later
                .net
                .iter()
                .find(|l| l.id == rule.id && l.broker == rule.broker)?;
            Some(MqttRule {
                publish: layers(&rule.publish, &other.publish),
                budget: PublishBudget {
                    bytes_out: tightest(rule.budget.bytes_out.into_iter().chain(other.budget.bytes_out)),
                    messages: tightest(rule.budget.messages.into_iter().chain(other.budget.messages)),
                },
                ..rule.clone()
            })
        });
    let (trigger, net): (Vec<_>, Vec<MqttRule>) = (trigger.collect(), net.collect());
    let bus = said(&own.bus, &later.bus);
    let goes = |to: &Destination| match to {
        Destination::Http(id) => http.iter().any(|rule| rule.id == *id),
        Destination::Mqtt(id) => net.iter().any(|rule| rule.id == *id),
        Destination::Bus(id) => bus.iter().any(|rule| rule.id == *id),
    };
    let outbox = own
        .outbox
        .iter()
        .filter(|outbox| goes(&outbox.to))
        .filter_map(|outbox| {
            let other = later
                .outbox
                .iter()
                .find(|l| l.id == outbox.id && l.to == outbox.to)?;
            Some(Outbox {
                bytes: outbox.bytes.min(other.bytes),
                messages: outbox.messages.min(other.messages),
                max_age: outbox.max_age.min(other.max_age),
                ..outbox.clone()
            })
        });
    let outbox: Vec<Outbox> = outbox.collect();
    let used = |label: &String| {
        trigger.iter().any(|t: &MqttTrigger| t.broker == *label)
            || net.iter().any(|rule| rule.broker == *label)
    };
    Messages {
        brokers: brokers
            .iter()
            .filter(|broker| used(&broker.label))
            .cloned()
            .collect(),
        bus_trigger: heard(&own.bus_trigger, &later.bus_trigger),
        trigger,
        net,
        bus,
        outbox,
    }
}

fn heard(own: &[BusTrigger], later: &[BusTrigger]) -> Vec<BusTrigger> {
    let both = own.iter().filter_map(|trigger| {
        let same = |l: &&BusTrigger| l.id == trigger.id && l.from == trigger.from;
        let other = later.iter().find(same)?;
        Some(BusTrigger {
            subscribe: layers(&trigger.subscribe, &other.subscribe),
            handovers: trigger.handovers.min(other.handovers),
            budget: lower(trigger.budget, other.budget),
            ..trigger.clone()
        })
    });
    both.collect()
}

fn said(own: &[BusRule], later: &[BusRule]) -> Vec<BusRule> {
    let both = own.iter().filter_map(|rule| {
        let other = later.iter().find(|l| l.id == rule.id && l.to == rule.to)?;
        Some(BusRule {
            publish: layers(&rule.publish, &other.publish),
            budget: lower(rule.budget, other.budget),
            ..rule.clone()
        })
    });
    both.collect()
}

fn lower(own: BusBudget, later: BusBudget) -> BusBudget {
    BusBudget {
        bytes: tightest([own.bytes, later.bytes].into_iter()).unwrap_or(own.bytes),
        messages: tightest([own.messages, later.messages].into_iter()).unwrap_or(own.messages),
    }
}

/// One filter of each layer of both must mean the topic. The ask comes first and is the same in both.
fn layers(own: &[Vec<String>], later: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut all = own.to_vec();
    all.extend(later.iter().filter(|layer| !own.contains(layer)).cloned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Rate;
    use redan_protocol::Millis;

    fn budget(messages: u64) -> BusBudget {
        let rate = |amount| Rate {
            amount,
            per: Millis::seconds(1),
        };
        BusBudget {
            bytes: rate(1000),
            messages: rate(messages),
        }
    }

    fn rule(to: &str, topics: &[&str], messages: u64) -> BusRule {
        BusRule {
            id: "a".into(),
            to: to.parse().unwrap(),
            publish: vec![topics.iter().map(|topic| (*topic).to_owned()).collect()],
            budget: budget(messages),
        }
    }

    fn trigger(from: &str, handovers: u32, messages: u64) -> BusTrigger {
        BusTrigger {
            id: "a".into(),
            from: from.parse().unwrap(),
            subscribe: vec![vec!["plant/#".into()]],
            handovers,
            budget: budget(messages),
        }
    }

    #[test]
    fn workloads_go_on_saying_what_both_grants_let_them_say() {
        let outbox = Outbox {
            id: "out".into(),
            to: Destination::Bus("a".into()),
            bytes: redan_protocol::ByteCount::kib(1),
            messages: 1,
            max_age: Millis::seconds(1),
        };
        let messages = |rule: BusRule, trigger: BusTrigger| Messages {
            bus: vec![rule],
            bus_trigger: vec![trigger],
            outbox: vec![outbox.clone()],
            ..Messages::default()
        };
        let own = messages(
            rule("other/one", &["plant/7", "plant/8"], 5),
            trigger("other/two", 3, 9),
        );
        let later = messages(rule("other/one", &["plant/7"], 9), trigger("other/two", 8, 2));
        let both = narrowed(&own, &later, &[]);
        let topics = |topics: &[&str]| topics.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let wanted = messages(
            BusRule {
                publish: vec![topics(&["plant/7", "plant/8"]), topics(&["plant/7"])],
                ..rule("other/one", &[], 5)
            },
            trigger("other/two", 3, 2),
        );
        assert_eq!(both, wanted);
        assert_eq!(narrowed(&own, &own, &[]), own);
        // A rule of the same name about somebody else is another rule, and its outbox goes with it.
        let elsewhere = messages(rule("other/three", &["#"], 9), trigger("other/three", 8, 9));
        assert_eq!(narrowed(&own, &elsewhere, &[]), Messages::default());
    }
}
