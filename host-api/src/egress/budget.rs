//! What a rule's budget has given out. Counted for all versions of a workload that have the rule under one grant.

use redan_policy::grant::{MqttRule, Rate};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What was used of one rule.
#[derive(Default)]
pub(super) struct Spent {
    concurrent: AtomicU32,
    pub(super) requests: Mutex<Window>,
    pub(super) bytes: Mutex<Window>,
}

/// What was used since the span began.
pub(super) struct Window {
    start: Instant,
    used: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            used: 0,
        }
    }
}

impl Window {
    /// Takes an amount, if the rate still has it.
    pub(super) fn take(window: &Mutex<Self>, rate: Option<Rate>, amount: u64) -> bool {
        let Some(rate) = rate else {
            return true;
        };
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.start.elapsed() >= Duration::from_millis(rate.per.get()) {
            *window = Self::default();
        }
        let used = window.used.saturating_add(amount);
        if used > rate.amount {
            return false;
        }
        window.used = used;
        true
    }
}

/// What the rules of publishing have given out.
#[derive(Default)]
pub struct Publishing(Mutex<HashMap<String, Arc<Spent>>>);

impl Publishing {
    /// Whether the budget of a rule admits a message of so many bytes now; then it is spent.
    pub fn admits(&self, rule: &MqttRule, bytes: u64) -> bool {
        let spent = {
            let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(rules.entry(rule.id.clone()).or_default())
        };
        Window::take(&spent.requests, rule.budget.messages, 1)
            && Window::take(&spent.bytes, rule.budget.bytes_out, bytes)
    }
}

/// One of a rule's concurrent requests; given back when the exchange is over.
pub(super) struct Place(Arc<Spent>);

impl Place {
    /// Takes one, if there are any left.
    pub(super) fn take(spent: &Arc<Spent>, most: Option<u32>) -> Option<Self> {
        let before = spent.concurrent.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(spent));
        most.is_none_or(|most| before < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.concurrent.fetch_sub(1, Ordering::Relaxed);
    }
}
