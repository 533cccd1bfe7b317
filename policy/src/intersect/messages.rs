//! Which messages come in, which go out, and what is kept meanwhile.
//!
//! As with origins, a layer's sections count when they are about the same broker; their filters add up, and a topic must be meant
//! by one filter of each layer. Which overlap at all is asked here, pair by pair, so that what can never come is dropped and named;
//! whether one topic passes is asked of the topic itself ([`crate::topic::granted`]).

use super::amounts::{min_of, min_span, tightest};
use super::{Layer, Work};
use crate::grant::{
    Broker, Destination, EffectiveGrant, Messages, MqttRule, MqttTrigger, Outbox, PublishBudget, World,
};
use crate::schema::{BrokerLabel, Document, FilterText, PublishBudgetSection};
use crate::topic::overlap;
use redan_protocol::{ByteCount, Millis};
use std::collections::BTreeSet;

/// How often a message is handed over when nobody says it: the last time after a minute and a half.
pub(super) const HANDOVERS: u32 = 8;
/// Waiting bytes of an outbox when nobody names them.
const OUTBOX_BYTES: ByteCount = ByteCount::mib(1);
/// Waiting items of an outbox when nobody names them.
const OUTBOX_MESSAGES: u32 = 1_000;
/// How long an item waits when nobody names it: a week, a line that was cut on a Friday is mended by then.
const OUTBOX_AGE: Millis = Millis::seconds(7 * 86_400);

/// Where a grant's outboxes may send to.
pub(super) fn destinations(grant: &EffectiveGrant) -> Vec<Destination> {
    let messages = &grant.messages;
    let http = grant
        .net_http
        .iter()
        .map(|rule| Destination::Http(rule.id.clone()));
    let mqtt = messages.net.iter().map(|rule| Destination::Mqtt(rule.id.clone()));
    let bus = messages.bus.iter().map(|rule| Destination::Bus(rule.id.clone()));
    http.chain(mqtt).chain(bus).collect()
}

/// The filters as a grant holds them.
pub(super) fn filters(texts: &BTreeSet<FilterText>) -> Vec<String> {
    texts.iter().map(|filter| filter.0.clone()).collect()
}

/// What a document says about one broker.
struct Said<'a> {
    broker: Option<&'a BrokerLabel>,
    filters: &'a BTreeSet<FilterText>,
    budget: PublishBudgetSection,
    handovers: Option<u32>,
}

fn subscribed(document: &Document) -> Vec<Said<'_>> {
    let sections = document.trigger.mqtt.iter();
    let said = sections.map(|section| Said {
        broker: section.broker.as_ref(),
        filters: &section.subscribe,
        budget: PublishBudgetSection::default(),
        handovers: section.handovers,
    });
    said.collect()
}

fn published(document: &Document) -> Vec<Said<'_>> {
    let sections = document.net.mqtt.iter();
    let said = sections.map(|section| Said {
        broker: section.broker.as_ref(),
        filters: &section.publish,
        budget: section.budget,
        handovers: None,
    });
    said.collect()
}

/// What is left of one section of the ask.
struct Left {
    broker: String,
    layers: Vec<Vec<String>>,
    budget: PublishBudget,
    handovers: u32,
}

impl Work<'_> {
    pub(super) fn messages(&mut self) -> Messages {
        let ask = &self.ask.document;
        let mut messages = Messages::default();
        if self.ask.world == World::Messages {
            for (nth, wanted) in ask.trigger.mqtt.iter().enumerate() {
                let left = self.left(nth, subscribed);
                if let Some(Left {
                    broker,
                    layers,
                    handovers,
                    ..
                }) = self.keep("trigger.mqtt", &wanted.id, wanted.required, left)
                {
                    messages.trigger.push(MqttTrigger {
                        id: wanted.id.clone(),
                        broker,
                        subscribe: layers,
                        handovers,
                    });
                }
            }
        }
        for (nth, wanted) in ask.net.mqtt.iter().enumerate() {
            let left = self.left(nth, published);
            if let Some(Left {
                broker,
                layers,
                budget,
                ..
            }) = self.keep("net.mqtt", &wanted.id, wanted.required, left)
            {
                messages.net.push(MqttRule {
                    id: wanted.id.clone(),
                    broker,
                    publish: layers,
                    budget,
                });
            }
        }
        let named: BTreeSet<&String> = messages
            .trigger
            .iter()
            .map(|trigger| &trigger.broker)
            .chain(messages.net.iter().map(|rule| &rule.broker))
            .collect();
        let sections = self.device.document.broker.iter();
        let mapped = sections.filter(|section| named.contains(&section.label));
        messages.brokers = mapped
            .map(|section| Broker {
                label: section.label.clone(),
                host: section.address.host.clone(),
                port: section.address.port,
                tls: section.address.tls,
                roots: section.roots.clone(),
                credentials: section.credentials.clone(),
                client_id: section.client_id.clone(),
                protocol: section.protocol,
            })
            .collect();
        self.bus(&mut messages);
        messages
    }

    fn keep(
        &mut self,
        section: &'static str,
        item: &str,
        required: bool,
        left: Result<Left, (Layer, String)>,
    ) -> Option<Left> {
        match left {
            Ok(left) => Some(left),
            Err((by, line)) => {
                self.drop(section, item, by, line, required);
                None
            }
        }
    }

    fn left(&self, nth: usize, sections: fn(&Document) -> Vec<Said<'_>>) -> Result<Left, (Layer, String)> {
        let asked = sections(&self.ask.document);
        let Some((wanted, broker)) = asked
            .get(nth)
            .and_then(|wanted| wanted.broker.map(|broker| (wanted, broker)))
        else {
            return Err((Layer::Ask, "name its `broker`".to_owned()));
        };
        let mut layers = vec![filters(wanted.filters)];
        let mut budgets = vec![wanted.budget];
        let mut handovers = vec![wanted.handovers];
        for (layer, document) in self.above() {
            let mut admitted = BTreeSet::new();
            for said in sections(document) {
                let about = said.broker.is_none_or(|label| label == broker);
                let meeting = said
                    .filters
                    .iter()
                    .any(|theirs| wanted.filters.iter().any(|own| overlap(&own.0, &theirs.0)));
                if about && meeting {
                    admitted.extend(said.filters.iter().cloned());
                    budgets.push(said.budget);
                    handovers.push(said.handovers);
                }
            }
            if admitted.is_empty() {
                let wanted: Vec<&String> = wanted.filters.iter().map(|filter| &filter.0).collect();
                return Err((
                    layer,
                    format!(
                        "add: a table of this kind for \"label:{}\" with {wanted:?}",
                        broker.0
                    ),
                ));
            }
            layers.push(filters(&admitted));
        }
        let mapped = &self.device.document.broker;
        if !mapped.iter().any(|section| section.label == broker.0) {
            let line = format!("add: [[broker]] label = {:?}, address = \"mqtts://…\"", broker.0);
            return Err((Layer::Device, line));
        }
        Ok(Left {
            broker: broker.0.clone(),
            layers,
            handovers: min_of(handovers.into_iter(), HANDOVERS).max(1),
            budget: PublishBudget {
                bytes_out: tightest(budgets.iter().filter_map(|budget| budget.bytes_out.map(|r| r.0))),
                messages: tightest(budgets.iter().filter_map(|budget| budget.messages.map(|r| r.0))),
            },
        })
    }

    /// Outboxes, after everything they may send to is settled.
    pub(super) fn outbox(&mut self, rules: &[Destination]) -> Vec<Outbox> {
        let mut granted = Vec::new();
        for wanted in &self.ask.document.outbox {
            let to = wanted.to.clone().unwrap_or_default();
            let mut found = vec![wanted];
            let mut refused = None;
            for (layer, document) in self.above() {
                match document.outbox.iter().find(|section| section.id == wanted.id) {
                    Some(section) => found.push(section),
                    None => refused = refused.or(Some(layer)),
                }
            }
            let destination = rules.iter().find(|rule| rule.id() == to).cloned();
            let (Some(to), None) = (destination, refused) else {
                let (by, line) = refused.map_or_else(
                    || {
                        let of = self.dropped.iter().find(|dropped| dropped.item == to);
                        (
                            of.map_or(Layer::Ask, |of| of.by),
                            format!("grant {to:?}, where it sends to"),
                        )
                    },
                    |layer| (layer, format!("add: [[outbox]] id = {:?}", wanted.id)),
                );
                self.drop("outbox", &wanted.id, by, line, wanted.required);
                continue;
            };
            let spans = |nth: usize| found.get(nth).and_then(|section| section.max_age);
            granted.push(Outbox {
                id: wanted.id.clone(),
                to,
                bytes: min_of(found.iter().map(|s| s.quota.bytes.map(|b| b.0)), OUTBOX_BYTES),
                messages: min_of(found.iter().map(|s| s.quota.messages), OUTBOX_MESSAGES),
                max_age: min_span([spans(0), spans(1), spans(2)], OUTBOX_AGE),
            });
        }
        granted
    }
}
