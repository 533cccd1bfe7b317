//! The swap: which version answers a new request, and how the one before it ends, with no request lost.
//!
//! 1. The new version is linked and probed beside the old one; nobody is sent to it ([`Version::link`]).
//! 2. [`Pointer::swap`] changes one pointer. The listener stays open: it does not know versions.
//! 3. Each request takes a [`Lease`] under the pointer's lock, so it has the old version or the new one, never none.
//! 4. [`Pointer::take_out`], then [`Version::drain`]: closed for new calls, waited for, at the deadline interrupted.
//!
//! A closed version gives no lease, whoever still holds it: a timer that was about to fire, a probe on its way.

use crate::version::Version;
use redan_protocol::Millis;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long interrupted calls may take to let go. An epoch, a poll and a drop; a second is generous.
const LET_GO: Duration = Duration::from_secs(1);

/// The one pointer of a component: who answers what comes next.
#[derive(Default)]
pub(crate) struct Pointer(RwLock<Option<Arc<Version>>>);

impl Pointer {
    /// Requests that hold the old version keep it until they end. `None`: nobody answers.
    pub(crate) fn swap(&self, version: Option<Arc<Version>>) -> Option<Arc<Version>> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, version)
    }

    /// Takes the version out if it is this one.
    pub(crate) fn take_out(&self, version: &Arc<Version>) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, version))
        {
            *current = None;
        }
    }

    /// The version that answers now, without a lease: for its grant, not for a call.
    pub(crate) fn present(&self) -> Option<Arc<Version>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this version answers now.
    pub(crate) fn is(&self, version: &Arc<Version>) -> bool {
        self.present()
            .is_some_and(|present| Arc::ptr_eq(&present, version))
    }

    /// The version that answers now, leased under the lock that a swap needs: no call slips between swap and drain.
    pub(crate) fn lease(&self) -> Option<Lease> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().and_then(Version::lease)
    }
}

/// The calls that hold a version.
#[derive(Default)]
pub(crate) struct Leases {
    held: Mutex<Held>,
    idle: Notify,
    stop: watch::Sender<bool>,
}

#[derive(Default)]
struct Held {
    calls: usize,
    closed: bool,
}

impl Leases {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call more; `false` once the version drains.
    fn enter(&self) -> bool {
        let mut held = self.held();
        if !held.closed {
            held.calls = held.calls.saturating_add(1);
        }
        !held.closed
    }

    fn leave(&self) {
        let mut held = self.held();
        held.calls = held.calls.saturating_sub(1);
        if held.calls == 0 {
            self.idle.notify_waiters();
        }
    }

    /// Resolves when calls must end now.
    pub(crate) async fn stopped(&self) {
        // Fails only when the sender is gone, and the sender is `self`.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// Admits no further call, waits for those under way, then interrupts what is left.
    async fn drain(&self, limit: Duration) {
        self.held().closed = true;
        if tokio::time::timeout(limit, self.until_idle()).await.is_err() {
            self.stop.send_replace(true);
            let _ = tokio::time::timeout(LET_GO, self.until_idle()).await;
        }
    }

    /// Waits for the calls under way, then interrupts what is left; the version itself goes on.
    async fn pause(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.until_idle()).await.is_err() {
            self.stop.send_replace(true);
            let _ = tokio::time::timeout(LET_GO, self.until_idle()).await;
            self.stop.send_replace(false);
        }
    }

    async fn until_idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.held().calls == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Version {
    /// A lease: while it lives, the version is not gone. `None` once the version drains.
    pub(crate) fn lease(self: &Arc<Self>) -> Option<Lease> {
        self.leases.enter().then(|| Lease(Arc::clone(self)))
    }

    /// Ends the calls under way and not the version: it may be asked to answer again. Nobody may be sent to it meanwhile.
    pub(crate) async fn pause(&self, limit: Millis) {
        self.leases.pause(Duration::from_millis(limit.get())).await;
    }

    /// Ends the version: see the top of this file.
    pub(crate) async fn drain(&self, limit: Millis) {
        self.leases.drain(Duration::from_millis(limit.get())).await;
    }
}

/// Holds a version while a call uses it.
pub(crate) struct Lease(Arc<Version>);

impl std::ops::Deref for Lease {
    type Target = Version;
    fn deref(&self) -> &Version {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.leases.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_draining_version_takes_no_further_call() {
        let leases = Leases::default();
        assert!(leases.enter());
        let mut drained = Box::pin(leases.drain(Duration::from_mins(1)));
        assert!(drained.as_mut().now_or_never().is_none(), "a call is under way");
        assert!(!leases.enter(), "closed from the first moment of the drain");
        leases.leave();
        drained.await;
        assert!(!leases.enter(), "and for good");
        assert!(
            leases.stopped().now_or_never().is_none(),
            "nobody had to be interrupted"
        );
    }

    #[tokio::test]
    async fn calls_that_outlive_the_drain_are_told_to_end() {
        let leases = Leases::default();
        assert!(leases.enter());
        let call = async {
            leases.stopped().await;
            leases.leave();
        };
        tokio::join!(leases.drain(Duration::ZERO), call);
        assert!(!leases.enter());
    }
}
