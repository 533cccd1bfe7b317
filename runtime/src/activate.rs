//! Who answers for a component from now on.
//!
//! `swap`: one pointer changes, and calls of the version before end beside the new one's. `stop-start`: first nobody answers, then the
//! calls of the version before end, and only then the new one answers: the two never run at the same time.

use crate::executor::{Running, State, unknown};
use crate::job;
use crate::version::Version;
use redan_policy::grant::Strategy;
use redan_protocol::Code;
use redan_protocol::ipc::{FromExecutor, SlotId};
use std::sync::Arc;

impl Running {
    pub(crate) async fn activate(self: &Arc<Self>, slot: SlotId) {
        let Some(version) = self.state().slots.get(&slot).cloned() else {
            self.say(unknown(slot)).await;
            return;
        };
        let strategy = version.capabilities().grant().upgrade.strategy;
        let turn = self.state().turn(&version.component);
        match strategy {
            Strategy::Swap => {
                self.begin(&version);
                self.say(FromExecutor::Activated { slot }).await;
            }
            Strategy::StopStart => {
                // Now, so that whoever gives the next order finds it done.
                let before = self.take_traffic(&version);
                let executor = Arc::clone(self);
                // Takes as long as the calls under way: the next order must not wait for it.
                tokio::spawn(async move { executor.stop_then_start(before, &version, turn).await });
            }
        }
    }

    /// The new version answers, and its timers run.
    fn begin(&self, version: &Arc<Version>) {
        let mut state = self.state();
        if let Some(service) = state.services.get(&version.component) {
            service.pointer.swap(Some(Arc::clone(version)));
        }
        self.correspond(&mut state, version);
        state.stop_timers(&version.component);
        let timers = job::start_timers(version);
        state
            .timers
            .insert(version.component.clone(), (version.slot, timers));
    }

    /// Sessions with brokers, subscriptions and couriers are those of what the version that answers is granted now.
    pub(crate) fn correspond(&self, state: &mut State, version: &Arc<Version>) {
        let known = state.exchanges.contains_key(&version.component);
        if known || !version.capabilities().grant().messages.is_empty() {
            let exchange = state.exchanges.entry(version.component.clone()).or_default();
            exchange.activate(version, &self.outside.dial);
        }
    }

    async fn stop_then_start(&self, before: Vec<Arc<Version>>, version: &Arc<Version>, turn: u64) {
        let slot = version.slot;
        for before in before {
            before.pause(before.capabilities().grant().upgrade.drain).await;
        }
        let current = {
            let state = self.state();
            state.turns.get(&version.component) == Some(&turn) && state.slots.contains_key(&slot)
        };
        // A later order about the component came meanwhile, or the slot is gone.
        if !current {
            let code = Code::Superseded;
            self.say(FromExecutor::Failed { slot, code }).await;
            return;
        }
        self.begin(version);
        self.say(FromExecutor::Activated { slot }).await;
    }

    /// Nobody answers for the component any more; gives the other versions that did.
    fn take_traffic(&self, version: &Version) -> Vec<Arc<Version>> {
        let mut state = self.state();
        let component = &version.component;
        let answered = state
            .services
            .get(component)
            .and_then(|service| service.pointer.swap(None));
        let timed = state.timers.get(component).map(|(slot, _)| *slot);
        let timed = timed.and_then(|slot| state.slots.get(&slot).cloned());
        state.stop_timers(component);
        let heard = state.exchanges.get(component).and_then(|exchange| {
            let version = exchange.pointer.present();
            exchange.stop();
            version
        });
        let others = answered.into_iter().chain(timed).chain(heard);
        others.filter(|other| other.slot != version.slot).collect()
    }
}
