//! What a rule's budget has given out. Counted for all versions of a workload that have the rule under one grant.

use crate::tokens::Tokens;
use redan_policy::grant::{MqttRule, Rate};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What was used of one rule.
#[derive(Default)]
pub(super) struct Spent {
    concurrent: AtomicU32,
    requests: Tokens,
    bytes: Tokens,
}

impl Spent {
    /// Takes one request if the rate still has it.
    pub(super) fn request(&self, rate: Option<Rate>, now: Instant) -> bool {
        rate.is_none_or(|rate| self.requests.take(rate, now, 1))
    }

    /// Takes bytes that go out, if the rate still has them.
    pub(super) fn bytes(&self, rate: Option<Rate>, now: Instant, amount: u64) -> bool {
        rate.is_none_or(|rate| self.bytes.take(rate, now, amount))
    }
}

/// What the rules of publishing have given out.
#[derive(Default)]
pub struct Publishing(Mutex<HashMap<String, Arc<Spent>>>);

impl Publishing {
    /// Whether the budget of a rule admits a message of so many bytes now; then it is spent.
    pub fn admits(&self, rule: &MqttRule, bytes: u64) -> bool {
        self.admits_at(rule, bytes, Instant::now())
    }

    fn admits_at(&self, rule: &MqttRule, bytes: u64, now: Instant) -> bool {
        let spent = {
            let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(rules.entry(rule.id.clone()).or_default())
        };
        let of_bytes = (&spent.bytes, rule.budget.bytes_out);
        spent
            .requests
            .take_with(rule.budget.messages, of_bytes, now, bytes)
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

#[cfg(test)]
mod tests {
    use super::*;
    use redan_policy::grant::PublishBudget;
    use redan_protocol::Millis;
    use std::time::Duration;

    const TEN_A_MINUTE: Rate = Rate {
        amount: 10,
        per: Millis::seconds(60),
    };

    #[test]
    fn the_border_of_a_span_lets_no_second_burst_through() {
        let (spent, start) = (Spent::default(), Instant::now());
        assert!(spent.request(Some(TEN_A_MINUTE), start));
        assert!(spent.bytes(Some(TEN_A_MINUTE), start, 1));
        // The whole budget at the end of the minute that began with the first use, and again at the beginning of the next.
        let at_the_end = start + Duration::from_millis(59_999);
        let behind = start + Duration::from_millis(60_001);
        let through = |now| (0..10).filter(|_| spent.request(Some(TEN_A_MINUTE), now)).count();
        assert_eq!((through(at_the_end), through(behind)), (10, 0));
        assert!(spent.bytes(Some(TEN_A_MINUTE), at_the_end, 10));
        assert!(!spent.bytes(Some(TEN_A_MINUTE), behind, 1));
        // A tenth of the span later there is a tenth of it.
        let later = at_the_end + Duration::from_secs(6);
        assert_eq!(through(later), 1);
        assert!(spent.bytes(Some(TEN_A_MINUTE), later, 1));
        assert!(!spent.bytes(Some(TEN_A_MINUTE), later, 1));
    }

    #[test]
    fn a_rule_without_a_rate_gives_without_end() {
        let (spent, now) = (Spent::default(), Instant::now());
        assert!(spent.request(None, now) && spent.bytes(None, now, u64::MAX));
    }

    #[test]
    fn a_message_that_waits_for_bytes_uses_up_no_messages() {
        let rule = MqttRule {
            id: "alarms".into(),
            broker: "plant-bus".into(),
            publish: vec![],
            budget: PublishBudget {
                bytes_out: Some(TEN_A_MINUTE),
                messages: Some(Rate {
                    amount: 2,
                    ..TEN_A_MINUTE
                }),
            },
        };
        let (given, start) = (Publishing::default(), Instant::now());
        assert!(given.admits_at(&rule, 10, start));
        assert!((0..5).all(|_| !given.admits_at(&rule, 10, start)));
        let later = start + Duration::from_mins(1);
        assert!(given.admits_at(&rule, 5, later));
        assert!(given.admits_at(&rule, 5, later));
        assert!(!given.admits_at(&rule, 0, later), "two messages a minute");
    }
}
