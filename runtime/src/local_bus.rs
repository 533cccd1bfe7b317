//! The local bus: a link for each pair of workloads that may speak, and one message at a time on it.
//!
//! ```text
//! sender's outbox ─▶ its grant ─▶ [`Line`] ══ a pair of sockets the agent made ══▶ [`Ear`] ─▶ both grants ─▶ the handler
//!        settled ◀────────────────────────────── what became of it ◀─────────────────────────── ack, drop, retry
//! ```
//! Whom it believes: the agent, for who is at the far end and what the sender's grant admits. The far end itself is another process and
//! may be in somebody's hands: a message has no sender's name in it, and what the sender should have held against its own grant is held
//! against it here again.
//!
//! Nothing is kept here. A message that is not settled is in its sender's outbox; a link reads the next one when the one before is
//! answered, so a flood waits in its sender's own kernel buffer, and places among calls are given in the order they are asked for.

use crate::message::{handle, noted};
use crate::swap::Pointer;
use redan_channel::{AsyncChannel, ChannelError};
use redan_host_api::bindings::handler;
use redan_host_api::local_bus::Spent;
use redan_host_api::mqtt::codec::Message;
use redan_policy::EffectiveGrant;
use redan_policy::grant::{BusRule, BusTrigger};
use redan_policy::topic;
use redan_protocol::ipc::{BUS_PAYLOAD_MAX, BusAnswer, BusMessage, LinkEnd};
use redan_protocol::{Code, ComponentName};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Longest content type, bytes: what an outbox keeps.
const CONTENT_TYPE_LEN_MAX: usize = 256;

/// All links of one component, whatever versions come and go.
#[derive(Default)]
pub(crate) struct Links {
    ends: Mutex<Ends>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Ends {
    lines: HashMap<ComponentName, Arc<Line>>,
    ears: HashMap<ComponentName, Ear>,
    said: HashMap<String, Arc<Spent>>,
    heard: Arc<Mutex<HashMap<String, Arc<Spent>>>>,
}

impl Links {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent links the component with another. Call inside a runtime.
    pub(crate) fn link(
        &self,
        pointer: &Arc<Pointer>,
        end: LinkEnd,
        socket: OwnedFd,
    ) -> Result<(), ChannelError> {
        let channel = AsyncChannel::new(socket)?;
        let mut ends = self.ends();
        match end {
            LinkEnd::Sends { to } => {
                ends.lines.insert(to, Arc::new(Line::new(channel)));
            }
            LinkEnd::Hears { from, topics } => {
                let heard = Heard {
                    from: from.clone(),
                    topics,
                    pointer: Arc::clone(pointer),
                    spent: Arc::clone(&ends.heard),
                };
                let ear = Ear(tokio::spawn(listen(channel, heard)).abort_handle());
                ends.ears.insert(from, ear);
            }
        }
        drop(ends);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// The agent takes a link away.
    pub(crate) fn unlink(&self, peer: &ComponentName, hears: bool) {
        let mut ends = self.ends();
        if hears {
            ends.ears.remove(peer);
        } else {
            ends.lines.remove(peer);
        }
    }

    /// The way to a receiver, and what its rule has spent.
    pub(crate) fn line(&self, rule: &BusRule) -> Option<(Arc<Line>, Arc<Spent>)> {
        let mut ends = self.ends();
        let line = ends.lines.get(&rule.to).map(Arc::clone)?;
        let spent = ends.said.entry(rule.id.clone()).or_default();
        Some((line, Arc::clone(spent)))
    }

    /// Tells of each new link.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// The end that sends.
pub(crate) struct Line(tokio::sync::Mutex<Open>);

struct Open {
    channel: AsyncChannel,
    last: u32,
}

impl Line {
    fn new(channel: AsyncChannel) -> Self {
        Self(tokio::sync::Mutex::new(Open { channel, last: 0 }))
    }

    /// `Ok` when the receiver has settled it. May be dropped at any time; the message may have been handled all the same.
    pub(crate) async fn say(&self, message: BusMessage) -> Result<(), Code> {
        let mut open = self.0.lock().await;
        let id = open.last.wrapping_add(1);
        open.last = id;
        let message = BusMessage { id, ..message };
        let sent = open.channel.send(&message, &[]).await;
        sent.map_err(|_| Code::BusAbsent)?;
        loop {
            let answer = open.channel.recv::<BusAnswer>().await;
            let answer = answer.map_err(|_| Code::BusAbsent)?.message;
            // An older one's sender did not wait for its answer.
            if answer.id == id {
                return answer.code.map_or(Ok(()), |code| Err(told(code)));
            }
        }
    }
}

/// What a receiver may say of a message: nothing else that comes over a link ends up among this component's codes.
fn told(code: Code) -> Code {
    match code {
        Code::BusUnsettled | Code::BusRefused | Code::BusBudget | Code::BusMessageLimit => code,
        _ => Code::BusAbsent,
    }
}

/// The end that hears; it ends when this is dropped, and a call it began goes on.
struct Ear(AbortHandle);

impl Drop for Ear {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Heard {
    from: ComponentName,
    topics: Vec<Vec<Vec<String>>>,
    pointer: Arc<Pointer>,
    spent: Arc<Mutex<HashMap<String, Arc<Spent>>>>,
}

async fn listen(channel: AsyncChannel, heard: Heard) {
    // What is no message ends the link: descriptors that came with one are closed with it.
    while let Ok(received) = channel.recv::<BusMessage>().await {
        let id = received.message.id;
        let code = heard.take(received.message).await.err();
        // That nobody is there, or that a call failed, is told elsewhere.
        if let Some(code) = code.filter(|code| !matches!(code, Code::BusAbsent | Code::BusUnsettled)) {
            noted(&heard.pointer, code);
        }
        if channel.send(&BusAnswer { id, code }, &[]).await.is_err() {
            return;
        }
    }
}

impl Heard {
    /// `Ok`: it is settled.
    async fn take(&self, message: BusMessage) -> Result<(), Code> {
        let size = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        let line = |text: &str| text.len() <= CONTENT_TYPE_LEN_MAX && !text.chars().any(char::is_control);
        if !topic::is_name(&message.topic) || !line(&message.content_type) {
            return Err(Code::BusRefused);
        }
        if size > BUS_PAYLOAD_MAX.get() {
            return Err(Code::BusMessageLimit);
        }
        let mut admitted = self.topics.iter();
        if !admitted.any(|layers| topic::granted(layers, &message.topic)) {
            return Err(Code::BusRefused);
        }
        let version = self.pointer.lease().ok_or(Code::BusAbsent)?;
        let capabilities = version.capabilities();
        let grant = capabilities.grant();
        let trigger = trigger(grant, &self.from, &message.topic).ok_or(Code::BusRefused)?;
        if size > grant.limits.body_request.get() {
            return Err(Code::BusMessageLimit);
        }
        let named = u64::try_from(message.topic.len()).unwrap_or(u64::MAX);
        if !self
            .spent(trigger)
            .admits(trigger.budget, Instant::now(), size.saturating_add(named))
        {
            return Err(Code::BusBudget);
        }
        let (handed, from) = (message.handed, self.from.clone());
        // A call of its own: a link that ends does not cut it off.
        let outcome = tokio::spawn(async move {
            let message = Message {
                id: None,
                topic: message.topic,
                content_type: Some(message.content_type).filter(|text| !text.is_empty()),
                payload: message.payload,
                retained: false,
            };
            // What was taken while it waited for its place is taken.
            let still = |grant: &EffectiveGrant| self::trigger(grant, &from, &message.topic).is_some();
            handle(&version, &message, still, Code::BusRefused).await
        });
        match outcome.await {
            Ok(Ok(handler::Outcome::Ack)) => Ok(()),
            Ok(Ok(handler::Outcome::Drop)) => {
                noted(&self.pointer, Code::MessageDropped);
                Ok(())
            }
            Ok(Err(Code::BusRefused)) => Err(Code::BusRefused),
            Ok(Ok(handler::Outcome::Retry) | Err(_)) | Err(_)
                if handed.saturating_add(1) >= trigger.handovers =>
            {
                noted(&self.pointer, Code::RetriesExhausted);
                Ok(())
            }
            Ok(Ok(handler::Outcome::Retry) | Err(_)) | Err(_) => Err(Code::BusUnsettled),
        }
    }

    fn spent(&self, trigger: &BusTrigger) -> Arc<Spent> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(spent.entry(trigger.id.clone()).or_default())
    }
}

/// By which of a grant's triggers a topic of a sender is heard.
fn trigger<'g>(grant: &'g EffectiveGrant, from: &ComponentName, name: &str) -> Option<&'g BusTrigger> {
    let mut triggers = grant.messages.bus_trigger.iter();
    triggers.find(|trigger| trigger.from == *from && topic::granted(&trigger.subscribe, name))
}
