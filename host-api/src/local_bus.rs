//! The local bus, as far as it is capabilities: what one end of it has spent of its budget.

use crate::tokens::Tokens;
use redan_policy::grant::BusBudget;
use std::time::Instant;

/// What was spent of one end's budget; kept for as long as the component is here, whatever versions come and go.
#[derive(Debug, Default)]
pub struct Spent {
    messages: Tokens,
    bytes: Tokens,
}

impl Spent {
    /// Whether the budget admits a message of so many bytes now; then it is spent.
    pub fn admits(&self, budget: BusBudget, now: Instant, bytes: u64) -> bool {
        let of_bytes = (&self.bytes, Some(budget.bytes));
        self.messages
            .take_with(Some(budget.messages), of_bytes, now, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_policy::grant::Rate;
    use redan_protocol::Millis;
    use std::time::Duration;

    #[test]
    fn a_message_takes_of_both_amounts_or_of_none() {
        let rate = |amount| Rate {
            amount,
            per: Millis::seconds(1),
        };
        let budget = BusBudget {
            bytes: rate(100),
            messages: rate(2),
        };
        let (spent, start) = (Spent::default(), Instant::now());
        assert!(
            !spent.admits(budget, start, 101),
            "more bytes than there ever are"
        );
        assert!(spent.admits(budget, start, 60));
        assert!(!spent.admits(budget, start, 60), "too many bytes");
        assert!(spent.admits(budget, start, 40), "and no message was taken for it");
        assert!(!spent.admits(budget, start, 0), "too many messages");
        assert!(spent.admits(budget, start + Duration::from_secs(1), 100));
    }
}
