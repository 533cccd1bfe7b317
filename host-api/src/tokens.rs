//! Rates as buckets of tokens: what was not used is kept for one span, what was used too much is paid back first.

use redan_policy::grant::Rate;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long somebody waits who has a share of nothing: longer than any wall-clock limit, which ends the wait.
const NEVER: Duration = Duration::from_hours(1);

/// One bucket. The rate is said with each use: versions of a workload share a bucket and may differ in their rate.
///
/// The clock is an argument, so that tests need none. Levels are kept multiplied by the rate's span: nothing is rounded away.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<Option<Level>>);

#[derive(Clone, Copy, Debug)]
struct Level {
    scaled: i128,
    at: Instant,
}

impl Tokens {
    /// How long to wait until there is something in it; `None`: there is.
    pub(crate) fn wait(&self, rate: Rate, now: Instant) -> Option<Duration> {
        let level = self.with(rate, now, |level| *level);
        if level > 0 {
            return None;
        }
        let missing = level.saturating_neg().saturating_add(1);
        let nanos = missing
            .checked_div(i128::from(rate.amount))
            .map(|whole| whole.saturating_add(1));
        Some(nanos.map_or(NEVER, |nanos| {
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(NEVER)
        }))
    }

    /// Takes what was used already, also what is not there.
    pub(crate) fn charge(&self, rate: Rate, now: Instant, amount: u64) {
        self.with(rate, now, |level| {
            *level = level.saturating_sub(scaled(rate, amount));
        });
    }

    /// Takes it if it is there.
    pub(crate) fn take(&self, rate: Rate, now: Instant, amount: u64) -> bool {
        self.with(rate, now, |level| {
            let left = level.saturating_sub(scaled(rate, amount));
            if left < 0 {
                return false;
            }
            *level = left;
            true
        })
    }

    /// One of this, and so much of another bucket, or nothing of either: what waits and is tried again must not use up the one.
    pub(crate) fn take_with(
        &self,
        rate: Option<Rate>,
        (other, others): (&Self, Option<Rate>),
        now: Instant,
        amount: u64,
    ) -> bool {
        if !rate.is_none_or(|rate| self.take(rate, now, 1)) {
            return false;
        }
        let whole = others.is_none_or(|rate| other.take(rate, now, amount));
        if let Some(rate) = rate.filter(|_| !whole) {
            self.give_back(rate, now, 1);
        }
        whole
    }

    /// What was taken for nothing.
    fn give_back(&self, rate: Rate, now: Instant, amount: u64) {
        let full = scaled(rate, rate.amount);
        self.with(rate, now, |level| {
            *level = level.saturating_add(scaled(rate, amount)).min(full);
        });
    }

    fn with<T>(&self, rate: Rate, now: Instant, change: impl FnOnce(&mut i128) -> T) -> T {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = scaled(rate, rate.amount);
        let level = bucket.get_or_insert(Level {
            scaled: full,
            at: now,
        });
        let passed = now.saturating_duration_since(level.at).as_nanos();
        let gained = i128::try_from(passed)
            .unwrap_or(i128::MAX)
            .saturating_mul(i128::from(rate.amount));
        level.scaled = level.scaled.saturating_add(gained).min(full);
        level.at = level.at.max(now);
        change(&mut level.scaled)
    }
}

fn scaled(rate: Rate, amount: u64) -> i128 {
    let span = i128::from(rate.per.get()).saturating_mul(1_000_000);
    i128::from(amount).saturating_mul(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_protocol::Millis;

    const TEN_A_SECOND: Rate = Rate {
        amount: 10,
        per: Millis::seconds(1),
    };

    #[test]
    fn a_bucket_gives_its_amount_at_once_and_then_as_fast_as_it_fills() {
        let (bucket, start) = (Tokens::default(), Instant::now());
        assert!(bucket.take(TEN_A_SECOND, start, 10));
        assert!(!bucket.take(TEN_A_SECOND, start, 1));
        let later = start + Duration::from_millis(99);
        assert!(!bucket.take(TEN_A_SECOND, later, 1));
        let later = start + Duration::from_millis(100);
        assert!(bucket.take(TEN_A_SECOND, later, 1));
        assert!(!bucket.take(TEN_A_SECOND, later, 1));
    }

    #[test]
    fn what_is_not_used_is_kept_for_one_span_only() {
        let (bucket, start) = (Tokens::default(), Instant::now());
        assert!(bucket.take(TEN_A_SECOND, start, 0));
        let later = start + Duration::from_hours(1);
        assert!(!bucket.take(TEN_A_SECOND, later, 11));
        assert!(bucket.take(TEN_A_SECOND, later, 10));
    }

    #[test]
    fn what_was_used_too_much_is_waited_for() {
        let (bucket, start) = (Tokens::default(), Instant::now());
        assert_eq!(bucket.wait(TEN_A_SECOND, start), None);
        bucket.charge(TEN_A_SECOND, start, 15);
        let wait = bucket.wait(TEN_A_SECOND, start).unwrap();
        assert!(wait >= Duration::from_millis(500), "{wait:?}");
        let before = start + Duration::from_millis(500);
        assert!(bucket.wait(TEN_A_SECOND, before).is_some());
        assert_eq!(bucket.wait(TEN_A_SECOND, start + wait), None);
    }

    #[test]
    fn a_clock_that_stands_still_or_a_rate_of_nothing_gives_nothing() {
        let (bucket, start) = (Tokens::default(), Instant::now());
        let nothing = Rate {
            amount: 0,
            ..TEN_A_SECOND
        };
        assert_eq!(bucket.wait(nothing, start), Some(NEVER));
        assert!(!bucket.take(nothing, start + NEVER, 1));
    }
}
