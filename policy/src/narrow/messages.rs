//! Messages of a running workload: subscriptions, publishing and outboxes that both grants give.

use crate::grant::{Destination, HttpRule, Messages, MqttRule, MqttTrigger, Outbox, PublishBudget};
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
    let goes = |to: &Destination| match to {
        Destination::Http(id) => http.iter().any(|rule| rule.id == *id),
        Destination::Mqtt(id) => net.iter().any(|rule| rule.id == *id),
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
        trigger,
        net,
        outbox,
    }
}

/// One filter of each layer of both must mean the topic. The ask comes first and is the same in both.
fn layers(own: &[Vec<String>], later: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut all = own.to_vec();
    all.extend(later.iter().filter(|layer| !own.contains(layer)).cloned());
    all
}
