//! The executor's side of the broker channel: asks for a connected socket, gets the descriptor.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redan_channel::{AsyncChannel, ChannelError};
use redan_host_api::egress::Dial;
use redan_protocol::ipc::{Connect, Connected};
use redan_protocol::{Code, ComponentName};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Questions to the broker that may wait for an answer at once, all workloads of this executor together.
pub(crate) const PENDING_MAX: usize = 256;

type Pending = Mutex<HashMap<u32, oneshot::Sender<Result<OwnedFd, Code>>>>;

/// A channel to the broker. Made once an executor.
pub(crate) struct Broker {
    channel: Arc<AsyncChannel>,
    pending: Arc<Pending>,
    next: AtomicU32,
}

impl Broker {
    /// Registers the channel and starts listening for answers. Call inside a runtime.
    pub(crate) fn start(channel: OwnedFd) -> Result<Arc<Self>, ChannelError> {
        let channel = Arc::new(AsyncChannel::new(channel)?);
        let pending = Arc::<Pending>::default();
        tokio::spawn(answers(Arc::clone(&channel), Arc::clone(&pending)));
        Ok(Arc::new(Self {
            channel,
            pending,
            next: AtomicU32::new(1),
        }))
    }
}

async fn answers(channel: Arc<AsyncChannel>, pending: Arc<Pending>) {
    while let Ok(received) = channel.recv::<Connected>().await {
        let (id, answer) = match received.message {
            Connected::Yes { id } => {
                // Exactly one descriptor: any other number is no answer of ours.
                let [socket] =
                    <[OwnedFd; 1]>::try_from(received.descriptors).map_or([None], |[fd]| [Some(fd)]);
                (id, socket.ok_or(Code::EgressUnreachable))
            }
            Connected::No { id, code } => (id, Err(code)),
        };
        let waiting = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(waiting) = waiting {
            // A call that gave up closes the descriptor by dropping it.
            let _ = waiting.send(answer);
        }
    }
    // The broker is gone: nobody will answer.
    pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Takes a question back when the call stops waiting.
struct Asked {
    id: u32,
    pending: Arc<Pending>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

impl Dial for Broker {
    fn dial(
        &self,
        component: &ComponentName,
        https: bool,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<OwnedFd, Code>> {
        self.ask(component, https, host, port, false)
    }

    fn dial_broker(
        &self,
        component: &ComponentName,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<OwnedFd, Code>> {
        self.ask(component, false, host, port, true)
    }
}

impl Broker {
    fn ask(
        &self,
        component: &ComponentName,
        https: bool,
        host: &str,
        port: u16,
        messages: bool,
    ) -> BoxFuture<'static, Result<OwnedFd, Code>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.len() >= PENDING_MAX {
                return async { Err(Code::EgressBudget) }.boxed();
            }
            pending.insert(id, sender);
        }
        let asked = Asked {
            id,
            pending: Arc::clone(&self.pending),
        };
        let channel = Arc::clone(&self.channel);
        let question = Connect {
            id,
            component: component.clone(),
            https,
            host: host.to_owned(),
            port,
            messages,
        };
        async move {
            let _asked = asked;
            let sent = channel.send(&question, &[]).await;
            sent.map_err(|_| Code::EgressUnreachable)?;
            answer.await.unwrap_or(Err(Code::EgressUnreachable))
        }
        .boxed()
    }
}
