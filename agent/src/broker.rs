//! What the broker is told: whose executor asks, what each component may reach, and where nobody may go.

use redan_channel::AsyncChannel;
use redan_policy::EffectiveGrant;
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
    /// A slot has what its grant gives now; what the broker is told of it, in this order.
    pub(crate) fn set(
        &mut self,
        component: &ComponentName,
        slot: SlotId,
        grant: &EffectiveGrant,
    ) -> Vec<ToBroker> {
        let brokers = grant.messages.brokers.iter();
        let reached: Vec<_> = brokers.map(|broker| (broker.host.clone(), broker.port)).collect();
        let slots = self.brokers.entry(component.clone()).or_default();
        let before = if reached.is_empty() {
            slots.remove(&slot)
        } else {
            slots.insert(slot, reached.clone())
        };
        let changed = before.unwrap_or_default() != reached;
        self.http
            .entry(component.clone())
            .or_default()
            .insert(slot, grant.net_http.clone());
        let brokers = changed.then(|| self.brokers_message(component));
        brokers.into_iter().chain([self.message(component)]).collect()
    }

    /// Forgets a slot; nothing is said of one that was not known.
    pub(crate) fn forget(&mut self, slot: SlotId) -> Vec<ToBroker> {
        let of_brokers = take(&mut self.brokers, slot).map(|component| self.brokers_message(&component));
        let of_http = take(&mut self.http, slot).map(|component| self.message(&component));
        of_brokers.into_iter().chain(of_http).collect()
    }

    fn brokers_message(&self, component: &ComponentName) -> ToBroker {
        let slots = self.brokers.get(component).into_iter().flat_map(BTreeMap::values);
        let reached: BTreeSet<&(String, u16)> = slots.flatten().collect();
        ToBroker::Brokers {
            component: component.clone(),
            brokers: reached.into_iter().cloned().collect(),
        }
    }

    fn message(&self, component: &ComponentName) -> ToBroker {
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

/// Takes a slot out of what is known of all components; whose it was.
fn take<T>(known: &mut BTreeMap<ComponentName, BTreeMap<SlotId, T>>, slot: SlotId) -> Option<ComponentName> {
    let found = known.iter_mut().find(|(_, slots)| slots.contains_key(&slot));
    let (component, slots) = found?;
    slots.remove(&slot);
    Some(component.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_policy::{intersect, parse_ask, parse_device, parse_fleet};

    const ALARM: &str = include_str!("../../policies/ask/alarm.toml");
    const FLEET: &str = include_str!("../../policies/fleet/messages.toml");
    const CEILING: &str = include_str!("../../policies/device/messages.toml");

    fn granted() -> EffectiveGrant {
        let ask = parse_ask("ask", ALARM).unwrap();
        let fleet = parse_fleet("fleet", FLEET).unwrap();
        intersect(&ask, &fleet, &parse_device("device", CEILING).unwrap()).unwrap()
    }

    fn brokers(said: &[ToBroker]) -> Option<Vec<(String, u16)>> {
        said.iter().find_map(|message| match message {
            ToBroker::Brokers { brokers, .. } => Some(brokers.clone()),
            _ => None,
        })
    }

    #[test]
    fn brokers_of_a_component_are_those_its_slots_have_now() {
        let (mut rules, grant) = (Rules::default(), granted());
        let name = grant.component.clone();
        let both = vec![("127.0.0.1".to_owned(), 1883), ("127.0.0.1".to_owned(), 1884)];
        assert_eq!(brokers(&rules.set(&name, SlotId(1), &grant)), Some(both.clone()));
        assert_eq!(
            brokers(&rules.set(&name, SlotId(1), &grant)),
            None,
            "nothing changed, nothing is said"
        );
        let mut less = grant.clone();
        less.messages.brokers.retain(|broker| broker.label == "alarm-bus");
        let said = brokers(&rules.set(&name, SlotId(1), &less));
        assert_eq!(said, Some(vec![("127.0.0.1".to_owned(), 1884)]));
        let said = brokers(&rules.set(&name, SlotId(1), &grant.nothing()));
        assert_eq!(
            said,
            Some(vec![]),
            "said, for the broker process keeps what it heard"
        );
        // Another version of it keeps what it has.
        rules.set(&name, SlotId(2), &grant);
        assert_eq!(brokers(&rules.set(&name, SlotId(1), &less)), Some(both.clone()));
        assert_eq!(
            brokers(&rules.set(&name, SlotId(1), &grant.nothing())),
            Some(both)
        );
        assert_eq!(brokers(&rules.forget(SlotId(2))), Some(vec![]));
        assert_eq!(brokers(&rules.forget(SlotId(2))), None);
    }
}
