//! `redan:outbox`: what a guest wants sent is held against the grant, then kept on disk until it is sent.
//!
//! The grant is asked twice: here, so that a guest hears at once what can never go; and when an item is sent, because by then
//! another version may run under another grant.

pub mod queue;

use crate::bindings::outbox::outbox::{Error, Host, Item};
use crate::egress::Destination as Url;
use crate::state::GuestState;
use queue::Queue;
use redan_policy::EffectiveGrant;
use redan_policy::grant::{BusRule, Destination, HttpRule, MqttRule, Outbox};
use redan_policy::topic;
use redan_protocol::Code;
use redan_protocol::ipc::BUS_PAYLOAD_MAX;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use wasmtime::Result;

/// How an item goes out, by the grant that holds now.
pub enum Way<'g> {
    /// A `POST`.
    Http(&'g HttpRule),
    /// A message to the broker of this rule.
    Mqtt(&'g MqttRule),
    /// A message to another workload of this device.
    Bus(&'g BusRule),
}

/// Holds a target against the rule an outbox sends to: what `enqueue` asks, and every sending once more.
pub fn way<'g>(
    grant: &'g EffectiveGrant,
    outbox: &Outbox,
    target: &str,
) -> std::result::Result<Way<'g>, Code> {
    match &outbox.to {
        Destination::Http(id) => {
            let uri = target.parse().map_err(|_| Code::EgressDenied)?;
            let to = Url::of(&uri).ok_or(Code::EgressDenied)?;
            let rule = grant.net_http.iter().find(|rule| rule.id == *id);
            let admitted = rule.filter(|rule| {
                redan_policy::egress::admits(rule, "POST", to.https, &to.host, to.port, uri.path())
            });
            admitted.map(Way::Http).ok_or(Code::EgressDenied)
        }
        Destination::Mqtt(id) => {
            if !topic::is_name(target) {
                return Err(Code::TopicInvalid);
            }
            let rule = grant.messages.net.iter().find(|rule| rule.id == *id);
            let admitted = rule.filter(|rule| topic::granted(&rule.publish, target));
            admitted.map(Way::Mqtt).ok_or(Code::TopicDenied)
        }
        Destination::Bus(id) => {
            if !topic::is_name(target) {
                return Err(Code::TopicInvalid);
            }
            let rule = grant.messages.bus.iter().find(|rule| rule.id == *id);
            let admitted = rule.filter(|rule| topic::granted(&rule.publish, target));
            admitted.map(Way::Bus).ok_or(Code::BusRefused)
        }
    }
}

/// Seconds since 1970 by this device's clock: an item's age is all it is asked for.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl GuestState {
    fn outbox(&self, id: &str) -> Option<(Arc<Queue>, Outbox)> {
        let outboxes = &self.capabilities.grant().messages.outbox;
        let outbox = outboxes.iter().find(|outbox| outbox.id == id)?;
        Some((self.capabilities.queue(id)?, outbox.clone()))
    }

    fn not_kept(&self, code: Code, error: Error) -> Error {
        self.verdict.deny(code);
        error
    }
}

impl Host for GuestState {
    async fn enqueue(&mut self, item: Item) -> Result<std::result::Result<u64, Error>> {
        let Some((queue, outbox)) = self.outbox(&item.outbox) else {
            return Ok(Err(Error::NoSuchOutbox));
        };
        let grant = self.capabilities.grant();
        let length = u64::try_from(item.payload.len()).unwrap_or(u64::MAX);
        if length > grant.limits.body_request.get() {
            return Ok(Err(self.not_kept(Code::MessageLimit, Error::TooLarge)));
        }
        let content_type = item.content_type.unwrap_or_default();
        let dedup = item.dedup.unwrap_or_default();
        let line = |text: &str| text.len() <= NAME_LEN_MAX && !text.chars().any(char::is_control);
        if item.target.len() > TARGET_LEN_MAX || !line(&content_type) || !line(&dedup) {
            return Ok(Err(self.not_kept(Code::MessageLimit, Error::TooLarge)));
        }
        match way(grant, &outbox, &item.target) {
            Err(code) => return Ok(Err(self.not_kept(code, Error::TargetDenied))),
            Ok(Way::Bus(_)) if length > BUS_PAYLOAD_MAX.get() => {
                return Ok(Err(self.not_kept(Code::BusMessageLimit, Error::TooLarge)));
            }
            Ok(_) => {}
        }
        let kept = queue::Item {
            at: now(),
            target: item.target,
            content_type,
            dedup,
            payload: item.payload,
        };
        let pushed = tokio::task::spawn_blocking(move || queue.push(&outbox, kept)).await;
        Ok(match pushed {
            Ok(Ok(id)) => Ok(id),
            Ok(Err(error)) => {
                let code = error.code();
                let said = if code == Code::OutboxFull {
                    Error::Full
                } else {
                    Error::Failed
                };
                Err(self.not_kept(code, said))
            }
            Err(_) => Err(Error::Failed),
        })
    }

    async fn depth(&mut self, outbox: String) -> Result<std::result::Result<u64, Error>> {
        let Some((queue, _)) = self.outbox(&outbox) else {
            return Ok(Err(Error::NoSuchOutbox));
        };
        Ok(Ok(u64::try_from(queue.depth()).unwrap_or(u64::MAX)))
    }
}

/// Longest target, bytes.
const TARGET_LEN_MAX: usize = 4096;
/// Longest content type or name, bytes.
const NAME_LEN_MAX: usize = 256;
