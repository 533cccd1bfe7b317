//! What the broker is told: whose executor asks, what each component may reach, and where nobody may go.

use redan_channel::AsyncChannel;
use redan_policy::grant::HttpRule;
use redan_protocol::ipc::{SlotId, ToBroker};
use redan_protocol::{ComponentName, PublisherName};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use tokio::sync::mpsc;

/// Sends to the broker, in order.
#[derive(Clone)]
pub(crate) struct Broker(mpsc::UnboundedSender<(ToBroker, Option<OwnedFd>)>);

impl Broker {
    /// Takes the channel over.
    pub(crate) fn start(channel: AsyncChannel) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel::<(ToBroker, Option<OwnedFd>)>();
        tokio::task::spawn_local(async move {
            while let Some((message, descriptor)) = receiver.recv().await {
                let beside: Vec<_> = descriptor.as_ref().map(AsFd::as_fd).into_iter().collect();
                if let Err(error) = channel.send(&message, &beside).await {
                    tracing::error!("the broker was not told: {error}");
                }
            }
        });
        Self(sender)
    }

    pub(crate) fn attach(&self, publisher: PublisherName, channel: OwnedFd) {
        drop(self.0.send((ToBroker::Attach { publisher }, Some(channel))));
    }

    pub(crate) fn tell(&self, message: ToBroker) {
        drop(self.0.send((message, None)));
    }
}

/// The egress rules of all linked slots: a component may reach what one of its linked versions was granted; the executor
/// holds each version to its own grant.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    http: BTreeMap<ComponentName, BTreeMap<SlotId, Vec<HttpRule>>>,
    brokers: BTreeMap<ComponentName, BTreeMap<SlotId, Vec<(String, u16)>>>,
}

impl Rules {
    pub(crate) fn add(&mut self, component: &ComponentName, slot: SlotId, rules: Vec<HttpRule>) -> ToBroker {
        self.http
            .entry(component.clone())
            .or_default()
            .insert(slot, rules);
        self.message(component)
    }

    /// The brokers of messages a slot may reach; `None` when that changes nothing.
    pub(crate) fn add_brokers(
        &mut self,
        component: &ComponentName,
        slot: SlotId,
        reached: Vec<(String, u16)>,
    ) -> Option<ToBroker> {
        if reached.is_empty() {
            return None;
        }
        self.brokers
            .entry(component.clone())
            .or_default()
            .insert(slot, reached);
        Some(self.brokers_message(component))
    }

    /// Forgets the brokers of a slot; `None` when it had none.
    pub(crate) fn remove_brokers(&mut self, slot: SlotId) -> Option<ToBroker> {
        let mut known = self.brokers.iter_mut();
        let (component, slots) = known.find(|(_, slots)| slots.contains_key(&slot))?;
        slots.remove(&slot);
        let component = component.clone();
        Some(self.brokers_message(&component))
    }

    fn brokers_message(&self, component: &ComponentName) -> ToBroker {
        let slots = self.brokers.get(component).into_iter().flat_map(BTreeMap::values);
        let reached: BTreeSet<&(String, u16)> = slots.flatten().collect();
        ToBroker::Brokers {
            component: component.clone(),
            brokers: reached.into_iter().cloned().collect(),
        }
    }

    /// Forgets a slot; `None` when it was not known.
    pub(crate) fn remove(&mut self, slot: SlotId) -> Option<ToBroker> {
        let component = self
            .http
            .iter()
            .find(|(_, slots)| slots.contains_key(&slot))?
            .0
            .clone();
        self.http.get_mut(&component)?.remove(&slot);
        Some(self.message(&component))
    }

    fn message(&mut self, component: &ComponentName) -> ToBroker {
        let mut rules: Vec<&HttpRule> = Vec::new();
        for rule in self
            .http
            .get(component)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten()
        {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        match serde_json::to_vec(&rules) {
            Ok(encoded) if !rules.is_empty() => ToBroker::Rules {
                component: component.clone(),
                rules: encoded,
            },
            _ => ToBroker::Remove {
                component: component.clone(),
            },
        }
    }
}
