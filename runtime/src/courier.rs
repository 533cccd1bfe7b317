//! Sends what waits in an outbox: in order, at least once, under the grant that holds when it is sent.
//!
//! What the present grant does not admit, and what its receiver will never take, is passed over and stays until it is too old: the
//! next version, or the next policy, may send it. What failed for now ends the round, and the next begins after a wait.

use crate::message::Exchange;
use crate::version::Version;
use redan_host_api::mqtt::bus::spread;
use redan_host_api::outbox::queue::{Item, Queue};
use redan_host_api::outbox::{Way, now, way};
use redan_policy::grant::{BusRule, Outbox};
use redan_protocol::Code;
use redan_protocol::ipc::{BUS_PAYLOAD_MAX, BusMessage};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// First wait after a round that did not send everything; doubles.
const AGAIN_MIN: Duration = Duration::from_millis(500);
/// Longest such wait; also how often the age of what waits is looked at.
const AGAIN_MAX: Duration = Duration::from_mins(1);
/// For one item.
const SEND_WITHIN: Duration = Duration::from_mins(1);

/// Why an item is still there.
enum Kept {
    /// It does not go; others may.
    This(Code),
    /// Nothing goes now.
    All(Code),
}

/// How often the item that comes next was handed to a workload that did not settle it.
#[derive(Default)]
struct Handed {
    number: u64,
    times: u32,
}

/// Carries one outbox until the exchange is gone.
pub(crate) async fn carry(exchange: Weak<Exchange>, id: String, queue: Arc<Queue>) {
    let mut tries = 0_u32;
    let mut handed = Handed::default();
    let Some(mut links) = exchange.upgrade().map(|held| held.links.changes()) else {
        return;
    };
    loop {
        let Some(held) = exchange.upgrade() else { return };
        links.mark_unchanged();
        let finished = round(&held, &id, &queue, &mut handed).await;
        drop(held);
        tries = if finished { 0 } else { tries.saturating_add(1) };
        let wait = spread(AGAIN_MIN.saturating_mul(1 << tries.min(10)).min(AGAIN_MAX));
        if finished && queue.depth() == 0 {
            queue.more().await;
        } else if finished {
            // Something waits that does not go now: something new may, or somebody new may take it.
            tokio::select! {
                () = queue.more() => {}
                _ = links.changed() => {}
                () = tokio::time::sleep(AGAIN_MAX) => {}
            }
        } else {
            tokio::select! {
                _ = links.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// Offers each item once. Whether all that can go has gone.
async fn round(exchange: &Exchange, id: &str, queue: &Arc<Queue>, handed: &mut Handed) -> bool {
    let mut last = 0;
    loop {
        let Some(version) = exchange.pointer.present() else {
            return false;
        };
        let capabilities = version.capabilities();
        let outboxes = &capabilities.grant().messages.outbox;
        let Some(outbox) = outboxes.iter().find(|outbox| outbox.id == id) else {
            return true;
        };
        expire(&version, outbox, queue).await;
        let next = on_disk(queue, move |queue| queue.after(last)).await;
        let (number, item) = match next {
            Some(Ok(Some(found))) => found,
            Some(Ok(None)) => return true,
            Some(Err(error)) => {
                version.note(error.code());
                return false;
            }
            None => return false,
        };
        last = number;
        let sending = send(exchange, &version, outbox, (number, item), handed);
        let sent = tokio::time::timeout(SEND_WITHIN, sending).await;
        match sent.unwrap_or(Err(Kept::All(Code::EgressUnreachable))) {
            Ok(()) => drop(on_disk(queue, move |queue| queue.done(number)).await),
            Err(Kept::This(code)) => version.note(code),
            Err(Kept::All(code)) => {
                version.note(code);
                return false;
            }
        }
    }
}

async fn on_disk<T: Send + 'static>(
    queue: &Arc<Queue>,
    work: impl FnOnce(&Queue) -> T + Send + 'static,
) -> Option<T> {
    let queue = Arc::clone(queue);
    tokio::task::spawn_blocking(move || work(&queue)).await.ok()
}

/// Gives up what is too old. A clock that went back makes nothing old.
async fn expire(version: &Version, outbox: &Outbox, queue: &Arc<Queue>) {
    let oldest = now().saturating_sub(outbox.max_age.get() / 1000);
    let old = queue.older(oldest);
    if !old.is_empty() {
        version.note(Code::OutboxExpired);
        drop(
            on_disk(queue, move |queue| {
                old.into_iter().try_for_each(|number| queue.done(number))
            })
            .await,
        );
    }
}

async fn send(
    exchange: &Exchange,
    version: &Version,
    outbox: &Outbox,
    (number, item): (u64, Item),
    handed: &mut Handed,
) -> Result<(), Kept> {
    let capabilities = version.capabilities();
    match way(capabilities.grant(), outbox, &item.target).map_err(Kept::This)? {
        Way::Http(_) => {
            let egress = capabilities.egress().ok_or(Kept::This(Code::EgressDenied))?;
            let key = if item.dedup.is_empty() {
                format!("{}-{number}", outbox.id)
            } else {
                item.dedup
            };
            match egress
                .post(&item.target, &item.content_type, &key, item.payload)
                .await
            {
                Ok(200..=299) => Ok(()),
                // What the receiver will not take however often it comes (RFC 9110 §15.5), but for those that say: later.
                Ok(status @ 400..=499) if !matches!(status, 401 | 403 | 408 | 425 | 429) => {
                    Err(Kept::This(Code::EgressDenied))
                }
                Ok(_) => Err(Kept::All(Code::EgressUnreachable)),
                Err(code @ Code::EgressDenied) => Err(Kept::This(code)),
                Err(code) => Err(Kept::All(code)),
            }
        }
        Way::Mqtt(rule) => {
            let length = item.target.len().saturating_add(item.payload.len());
            if !version
                .publishing
                .admits(rule, u64::try_from(length).unwrap_or(u64::MAX))
            {
                return Err(Kept::All(Code::PublishBudget));
            }
            let bus = exchange
                .bus(&rule.broker)
                .ok_or(Kept::All(Code::BrokerUnreachable))?;
            let content_type = Some(item.content_type).filter(|text| !text.is_empty());
            match bus.publish(item.target, content_type, item.payload).await {
                Ok(()) => Ok(()),
                Err(code @ (Code::MessageLimit | Code::BrokerRefused)) => Err(Kept::This(code)),
                Err(code) => Err(Kept::All(code)),
            }
        }
        Way::Bus(rule) => {
            if u64::try_from(item.payload.len()).unwrap_or(u64::MAX) > BUS_PAYLOAD_MAX.get() {
                return Err(Kept::This(Code::BusMessageLimit));
            }
            say(exchange, rule, (number, item), handed).await
        }
    }
}

/// Says an item to the workload of a rule. One that was not settled keeps its place; how often it may be handed over, the receiver says.
async fn say(
    exchange: &Exchange,
    rule: &BusRule,
    (number, item): (u64, Item),
    handed: &mut Handed,
) -> Result<(), Kept> {
    let (line, spent) = exchange.links.line(rule).ok_or(Kept::All(Code::BusAbsent))?;
    let length = item.target.len().saturating_add(item.payload.len());
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    if !spent.admits(rule.budget, Instant::now(), length) {
        return Err(Kept::All(Code::BusBudget));
    }
    let before = if handed.number == number { handed.times } else { 0 };
    // Counted first: a handler that is not done in time has had it as well.
    let times = before.saturating_add(1);
    *handed = Handed { number, times };
    let message = BusMessage {
        id: 0,
        handed: before,
        topic: item.target,
        content_type: item.content_type,
        payload: item.payload,
    };
    match line.say(message).await {
        Ok(()) => Ok(()),
        Err(code @ Code::BusUnsettled) => Err(Kept::All(code)),
        Err(code) => {
            handed.times = before;
            Err(match code {
                Code::BusRefused | Code::BusMessageLimit => Kept::This(code),
                _ => Kept::All(code),
            })
        }
    }
}
