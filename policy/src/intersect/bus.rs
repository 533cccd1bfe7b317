//! Which workloads of the device are heard and sent to. As with brokers: a layer's sections count when they are about the same peer, their
//! filters add up, and a topic must be meant by one filter of each layer. Whether the *other* end agrees is its own grant's matter.

use super::amounts::{min_of, tightest};
use super::messages::{HANDOVERS, filters};
use super::{Layer, Work};
use crate::grant::{BusBudget, BusRule, BusTrigger, Messages, Rate, World};
use crate::schema::{BusBudgetSection, Document, FilterText, PeerText};
use crate::topic::overlap;
use redan_protocol::{ComponentName, Millis};
use std::collections::BTreeSet;

/// What one end gives or takes when nobody names it.
const BUDGET: BusBudget = BusBudget {
    bytes: Rate {
        amount: 1024 * 1024,
        per: Millis::seconds(1),
    },
    messages: Rate {
        amount: 20,
        per: Millis::seconds(1),
    },
};

/// What a document says about one peer.
struct Said<'a> {
    peer: &'a PeerText,
    filters: &'a BTreeSet<FilterText>,
    budget: BusBudgetSection,
    handovers: Option<u32>,
}

fn heard(document: &Document) -> Vec<Said<'_>> {
    let sections = document.trigger.bus.iter();
    let said = sections.map(|section| Said {
        peer: &section.from,
        filters: &section.subscribe,
        budget: section.budget,
        handovers: section.handovers,
    });
    said.collect()
}

fn sent(document: &Document) -> Vec<Said<'_>> {
    let sections = document.net.bus.iter();
    let said = sections.map(|section| Said {
        peer: &section.to,
        filters: &section.publish,
        budget: section.budget,
        handovers: None,
    });
    said.collect()
}

/// What is left of one section of the ask.
struct Left {
    peer: ComponentName,
    layers: Vec<Vec<String>>,
    budget: BusBudget,
    handovers: u32,
}

impl Work<'_> {
    pub(super) fn bus(&mut self, messages: &mut Messages) {
        let ask = &self.ask.document;
        if self.ask.world == World::Messages {
            for (nth, wanted) in ask.trigger.bus.iter().enumerate() {
                match self.left_of_bus(nth, heard) {
                    Ok(left) => messages.bus_trigger.push(BusTrigger {
                        id: wanted.id.clone(),
                        from: left.peer,
                        subscribe: left.layers,
                        handovers: left.handovers,
                        budget: left.budget,
                    }),
                    Err((by, line)) => self.drop("trigger.bus", &wanted.id, by, line, wanted.required),
                }
            }
        }
        for (nth, wanted) in ask.net.bus.iter().enumerate() {
            match self.left_of_bus(nth, sent) {
                Ok(left) => messages.bus.push(BusRule {
                    id: wanted.id.clone(),
                    to: left.peer,
                    publish: left.layers,
                    budget: left.budget,
                }),
                Err((by, line)) => self.drop("net.bus", &wanted.id, by, line, wanted.required),
            }
        }
    }

    fn left_of_bus(
        &self,
        nth: usize,
        sections: fn(&Document) -> Vec<Said<'_>>,
    ) -> Result<Left, (Layer, String)> {
        let asked = sections(&self.ask.document);
        let Some((wanted, PeerText::One(peer))) = asked.get(nth).map(|wanted| (wanted, wanted.peer)) else {
            return Err((Layer::Ask, "name one workload".to_owned()));
        };
        let mut layers = vec![filters(wanted.filters)];
        let mut budgets = vec![wanted.budget];
        let mut handovers = vec![wanted.handovers];
        for (layer, document) in self.above() {
            let mut admitted = BTreeSet::new();
            for said in sections(document) {
                let mut theirs = said.filters.iter();
                let meeting =
                    theirs.any(|theirs| wanted.filters.iter().any(|own| overlap(&own.0, &theirs.0)));
                if said.peer.means(peer) && meeting {
                    admitted.extend(said.filters.iter().cloned());
                    budgets.push(said.budget);
                    handovers.push(said.handovers);
                }
            }
            if admitted.is_empty() {
                let wanted = filters(wanted.filters);
                let line = format!("add: a table of this kind for \"{peer}\" with {wanted:?}");
                return Err((layer, line));
            }
            layers.push(filters(&admitted));
        }
        let bytes = budgets.iter().filter_map(|budget| budget.bytes.map(|r| r.0));
        let messages = budgets.iter().filter_map(|budget| budget.messages.map(|r| r.0));
        Ok(Left {
            peer: peer.clone(),
            layers,
            budget: BusBudget {
                bytes: tightest(bytes).unwrap_or(BUDGET.bytes),
                messages: tightest(messages).unwrap_or(BUDGET.messages),
            },
            handovers: min_of(handovers.into_iter(), HANDOVERS).max(1),
        })
    }
}
