//! Which workloads of this device are linked with each other: those whose grants *both* say so.
//!
//! The agent decides and makes the pair of sockets; each executor gets an end, and the agent keeps none. So no message passes here, and
//! who is at the far end of a link is what this process says, by the names of verified components. An end that hears is told too what
//! the sender's grants admit: a sender's executor that is in somebody's hands gets no further than its grant.

use crate::executor::Command;
use crate::main_loop::Agent;
use redan_policy::EffectiveGrant;
use redan_protocol::ComponentName;
use redan_protocol::ipc::{LinkEnd, SlotId, ToExecutor};
use std::collections::{BTreeMap, BTreeSet};

/// The layers of filters of each rule of a sender about one receiver.
type Topics = BTreeSet<Vec<Vec<String>>>;

/// What the linked slots' grants say, and which links stand. A component may say and hear what one of its slots may; the executor holds
/// each version to its own grant.
#[derive(Debug, Default)]
pub(crate) struct Links {
    slots: BTreeMap<SlotId, Said>,
    made: BTreeMap<Pair, Topics>,
}

#[derive(Debug)]
struct Said {
    component: ComponentName,
    says: Vec<(ComponentName, Vec<Vec<String>>)>,
    hears: BTreeSet<ComponentName>,
}

/// A sender and a receiver.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) struct Pair {
    from: ComponentName,
    to: ComponentName,
}

/// What is to be done about a pair.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Make(Pair, Topics),
    Cut(Pair),
}

impl Links {
    /// A slot is about to be loaded, or has less than before.
    pub(crate) fn put(&mut self, slot: SlotId, grant: &EffectiveGrant) -> Vec<Change> {
        let messages = &grant.messages;
        let says = messages.bus.iter();
        let said = Said {
            component: grant.component.clone(),
            says: says.map(|rule| (rule.to.clone(), rule.publish.clone())).collect(),
            hears: messages.bus_trigger.iter().map(|t| t.from.clone()).collect(),
        };
        self.slots.insert(slot, said);
        self.settle()
    }

    pub(crate) fn knows(&self, slot: SlotId) -> bool {
        self.slots.contains_key(&slot)
    }

    /// A slot is gone.
    pub(crate) fn forget(&mut self, slot: SlotId) -> Vec<Change> {
        self.slots.remove(&slot);
        self.settle()
    }

    /// A pair that could not be made: the next change tries again.
    fn failed(&mut self, pair: &Pair) {
        self.made.remove(pair);
    }

    fn settle(&mut self) -> Vec<Change> {
        let wanted = self.wanted();
        let gone = self.made.keys().filter(|pair| !wanted.contains_key(*pair));
        let mut changes: Vec<Change> = gone.cloned().map(Change::Cut).collect();
        for (pair, topics) in &wanted {
            if self.made.get(pair) != Some(topics) {
                changes.push(Change::Make(pair.clone(), topics.clone()));
            }
        }
        self.made = wanted;
        changes
    }

    /// Every pair of which some slot of the one says it to the other, and some slot of the other hears the one.
    fn wanted(&self) -> BTreeMap<Pair, Topics> {
        let mut wanted: BTreeMap<Pair, Topics> = BTreeMap::new();
        for sender in self.slots.values() {
            for (to, layers) in &sender.says {
                let mut receivers = self.slots.values().filter(|slot| slot.component == *to);
                if receivers.any(|receiver| receiver.hears.contains(&sender.component)) {
                    let pair = Pair {
                        from: sender.component.clone(),
                        to: to.clone(),
                    };
                    wanted.entry(pair).or_default().insert(layers.clone());
                }
            }
        }
        wanted
    }
}

impl Agent {
    /// Hands the ends of new links to their executors, and takes away what is linked no longer.
    pub(crate) fn relink(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Cut(Pair { from, to }) => {
                    let hears = |hears, component: ComponentName, peer| ToExecutor::Unlink {
                        component,
                        peer,
                        hears,
                    };
                    self.give(&to, Command::Tell(None, hears(true, to.clone(), from.clone())));
                    self.give(&from, Command::Tell(None, hears(false, from.clone(), to.clone())));
                }
                Change::Make(pair, topics) => match redan_channel::pair() {
                    Ok((near, far)) => {
                        let hears = ToExecutor::Link {
                            component: pair.to.clone(),
                            end: LinkEnd::Hears {
                                from: pair.from.clone(),
                                topics: topics.into_iter().collect(),
                            },
                        };
                        let sends = ToExecutor::Link {
                            component: pair.from.clone(),
                            end: LinkEnd::Sends { to: pair.to.clone() },
                        };
                        self.give(&pair.to, Command::Link(Box::new(hears), far));
                        self.give(&pair.from, Command::Link(Box::new(sends), near));
                    }
                    Err(error) => {
                        tracing::error!(from = %pair.from, to = %pair.to, "two workloads were not linked: {error}");
                        self.links.failed(&pair);
                    }
                },
            }
        }
    }

    fn give(&self, component: &ComponentName, command: Command) {
        if let Some(executor) = self.executors.get(component.publisher()) {
            executor.tell(command);
        }
    }
}

#[cfg(test)]
mod tests;
