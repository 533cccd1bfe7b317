//! Messages: sessions with brokers, each message's way through the version that handles it, and what becomes of it.
//!
//! A message is acknowledged once it is settled: the handler said `ack` or `drop`, or it was handed over as often as one is. Which
//! version handles it is asked for each handing over, so a message that a draining version did not finish goes to the new one.

use crate::courier;
use crate::local_bus::Links;
use crate::swap::{Lease, Pointer};
use crate::version::{Call, Entry, Version};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redan_host_api::bindings::handler;
use redan_host_api::egress::Dial;
use redan_host_api::mqtt::bus::{self, spread};
use redan_host_api::mqtt::codec::Message;
use redan_host_api::mqtt::{Access, Bus, Receive, Settings};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{Broker, MqttTrigger};
use redan_policy::topic;
use redan_protocol::Code;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;

/// First wait before a message is handed over again; doubles.
const AGAIN_MIN: Duration = Duration::from_millis(500);
/// Longest such wait.
const AGAIN_MAX: Duration = Duration::from_mins(1);

/// The messages of one component, whatever version handles them.
#[derive(Default)]
pub(crate) struct Exchange {
    /// Which version handles what comes next, and under whose grant is sent what goes out.
    pub(crate) pointer: Arc<Pointer>,
    /// Other workloads of this device: what the agent linked stays linked while versions come and go.
    pub(crate) links: Links,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    buses: HashMap<String, (Settings, Arc<Bus>)>,
    couriers: HashMap<String, AbortHandle>,
}

impl Exchange {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages go to this version from now on, as far as it is granted them now. A session whose settings do not change goes on
    /// undisturbed; one with a broker that is not granted is closed.
    pub(crate) fn activate(self: &Arc<Self>, version: &Arc<Version>, dial: &Arc<dyn Dial>) {
        self.pointer.swap(Some(Arc::clone(version)));
        let capabilities = version.capabilities();
        let grant = capabilities.grant();
        let mut running = self.running();
        let mut before = std::mem::take(&mut running.buses);
        for broker in &grant.messages.brokers {
            let Some(access) = version.access.get(&broker.label) else {
                continue;
            };
            let mut settings = settings(grant, broker, access);
            let old = before.remove(&broker.label);
            if let Some((old, bus)) = old.filter(|(old, _)| {
                let same = settings.same(old);
                // What the one before had no time to leave is left now.
                let before: BTreeSet<&String> = old.subscribe.iter().chain(&old.leave).collect();
                let gone = before.into_iter();
                settings.leave = gone
                    .filter(|filter| !settings.subscribe.contains(filter))
                    .cloned()
                    .collect();
                same
            }) {
                running.buses.insert(broker.label.clone(), (old, bus));
                continue;
            }
            let inbox = Inbox {
                pointer: Arc::clone(&self.pointer),
                broker: broker.label.clone(),
            };
            let bus = Bus::start(settings.clone(), Arc::clone(dial), Arc::new(inbox));
            running
                .buses
                .insert(broker.label.clone(), (settings, Arc::new(bus)));
        }
        drop(before);
        let wanted: BTreeSet<&String> = grant.messages.outbox.iter().map(|outbox| &outbox.id).collect();
        running.couriers.retain(|id, courier| {
            let stays = wanted.contains(id);
            if !stays {
                courier.abort();
            }
            stays
        });
        for outbox in &grant.messages.outbox {
            if !running.couriers.contains_key(&outbox.id)
                && let Some(queue) = capabilities.queue(&outbox.id)
            {
                let carrying = courier::carry(Arc::downgrade(self), outbox.id.clone(), queue);
                let courier = tokio::spawn(carrying).abort_handle();
                running.couriers.insert(outbox.id.clone(), courier);
            }
        }
    }

    /// Nobody handles messages any more: sessions end, and brokers keep what comes.
    pub(crate) fn stop(&self) {
        self.pointer.swap(None);
        let mut running = self.running();
        running.buses.clear();
        for (_, courier) in running.couriers.drain() {
            courier.abort();
        }
    }

    /// The session with a broker.
    pub(crate) fn bus(&self, label: &str) -> Option<Arc<Bus>> {
        let running = self.running();
        running.buses.get(label).map(|(_, bus)| Arc::clone(bus))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop();
    }
}

fn settings(grant: &EffectiveGrant, broker: &Broker, access: &Access) -> Settings {
    let triggers = grant.messages.trigger.iter();
    let subscribe: BTreeSet<&String> = triggers
        .filter(|trigger| trigger.broker == broker.label)
        .flat_map(wanted)
        .collect();
    let most = |amount: u64| usize::try_from(amount).unwrap_or(usize::MAX);
    Settings {
        component: grant.component.clone(),
        broker: broker.clone(),
        access: access.clone(),
        subscribe: subscribe.into_iter().cloned().collect(),
        leave: Vec::new(),
        window: most(u64::from(grant.limits.concurrency)),
        patience: bus::ANSWER_WITHIN,
        payload_max: most(grant.limits.body_request.get()),
    }
}

/// What a trigger subscribes to: the ask's filters, but for those of which no other document admits any topic.
fn wanted(trigger: &MqttTrigger) -> impl Iterator<Item = &String> {
    let (asked, others) = trigger.subscribe.split_first().unzip();
    let others = others.unwrap_or_default();
    let admitted = move |filter: &&String| {
        let meets = |layer: &Vec<String>| layer.iter().any(|other| topic::overlap(filter, other));
        others.iter().all(meets)
    };
    asked.into_iter().flatten().filter(admitted)
}

/// Takes the messages of one broker.
struct Inbox {
    pointer: Arc<Pointer>,
    broker: String,
}

impl Receive for Inbox {
    fn receive(&self, message: Message) -> BoxFuture<'static, ()> {
        settle(Arc::clone(&self.pointer), self.broker.clone(), message).boxed()
    }

    fn note(&self, code: Code) {
        if let Some(version) = self.pointer.present() {
            version.note(code);
        }
    }
}

/// Hands a message over until it is settled.
async fn settle(pointer: Arc<Pointer>, broker: String, message: Message) {
    let message = Arc::new(message);
    for handover in 0_u32.. {
        let Some(version) = pointer.lease() else {
            // The session ends with the last version; until then the broker keeps the message.
            return std::future::pending().await;
        };
        // By the grant of the version that would get it, not the one that subscribed.
        let Some(most) = handovers(version.capabilities().grant(), &broker, &message.topic) else {
            return version.note(Code::TopicDenied);
        };
        // A call of its own: a connection that breaks does not cut it off.
        let (handed, label) = (Arc::clone(&message), broker.clone());
        let outcome = tokio::spawn(async move {
            let still = |grant: &EffectiveGrant| handovers(grant, &label, &handed.topic).is_some();
            handle(&version, &handed, still, Code::TopicDenied).await
        })
        .await;
        match outcome {
            Ok(Ok(handler::Outcome::Ack)) => return,
            Ok(Ok(handler::Outcome::Drop)) => return noted(&pointer, Code::MessageDropped),
            Ok(Ok(handler::Outcome::Retry) | Err(_)) | Err(_) => {}
        }
        let wait = AGAIN_MIN.saturating_mul(1 << handover.min(10)).min(AGAIN_MAX);
        if handover.saturating_add(1) >= most {
            return noted(&pointer, Code::RetriesExhausted);
        }
        tokio::time::sleep(spread(wait)).await;
    }
}

/// Something worth a code happened to a message.
pub(crate) fn noted(pointer: &Pointer, code: Code) {
    if let Some(version) = pointer.present() {
        version.note(code);
    }
}

/// How often a message of a topic is handed over; `None`: it is granted to nobody.
fn handovers(grant: &EffectiveGrant, broker: &str, topic: &str) -> Option<u32> {
    let mut triggers = grant.messages.trigger.iter();
    let trigger =
        triggers.find(|trigger| trigger.broker == broker && topic::granted(&trigger.subscribe, topic))?;
    Some(trigger.handovers)
}

/// Hands a message over once, if the grant that holds when its turn comes `still` admits it; else that is no call, and `denied` is said.
pub(crate) async fn handle(
    version: &Lease,
    message: &Message,
    still: impl FnOnce(&EffectiveGrant) -> bool,
    denied: Code,
) -> Result<handler::Outcome, Code> {
    let Entry::Message(entry) = &version.entry else {
        return Err(Code::Internal);
    };
    let place = Arc::clone(&version.places).acquire_owned().await;
    let call = Call::new(version);
    if !still(call.capabilities.grant()) {
        return Err(denied);
    }
    let outcome = match (place, call.store(version)) {
        (Err(_), _) => Err(Code::ConcurrencyLimit),
        (Ok(_), Err(code)) => Err(code),
        (Ok(_place), Ok(mut store)) => {
            let message = handler::Message {
                topic: message.topic.clone(),
                content_type: message.content_type.clone(),
                payload: message.payload.clone(),
                retained: message.retained,
            };
            let guest = async {
                let instance = entry.instantiate_async(&mut store).await?;
                instance
                    .redan_messaging_handler()
                    .call_handle(&mut store, &message)
                    .await
            };
            call.run(version, call.limits().wall_call, guest).await
        }
    };
    let failure = outcome.as_ref().err().copied();
    version.record(failure, call.verdict.noted(), call.cpu.used_millis());
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_subscribed_to_of_which_another_document_admits_no_topic() {
        let layer = |filters: &[&str]| -> Vec<String> { filters.iter().map(|f| (*f).to_owned()).collect() };
        let mut trigger = MqttTrigger {
            id: "readings".into(),
            broker: "plant-bus".into(),
            subscribe: vec![
                layer(&["plant/+/temp", "office/#"]),
                layer(&["plant/#", "office/#"]),
            ],
            handovers: 2,
        };
        assert_eq!(wanted(&trigger).collect::<Vec<_>>(), ["plant/+/temp", "office/#"]);
        trigger.subscribe.push(layer(&["plant/7/#"]));
        assert_eq!(wanted(&trigger).collect::<Vec<_>>(), ["plant/+/temp"]);
        trigger.subscribe.push(layer(&[]));
        assert_eq!(wanted(&trigger).count(), 0);
        trigger.subscribe.clear();
        assert_eq!(wanted(&trigger).count(), 0);
    }
}
