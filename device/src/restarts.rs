//! How often a device whose agent or broker died begins again by itself, and after which pauses
//! (docs/decisions/0028-the-supervisor-begins-again.md).
//!
//! Sans I/O: time and randomness are arguments. Whoever asks once too often is told no, and leaves the rest to the service manager.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most deaths within [`WINDOW`] after which it is begun again. An agent that dies at every start is given up within a minute; one
/// that a rare fault kills never is. Tripped by `a_device_that_dies_once_too_often_is_left_to_the_service_manager`.
pub(crate) const RESTARTS_MAX: usize = 5;
/// How long a death counts.
pub(crate) const WINDOW: Duration = Duration::from_mins(10);
/// First pause; doubles with every death that counts. Short: what the device serves is not served meanwhile.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before its jitter, so that the watchdog of the service manager (90 s) never mistakes a pause for a hang.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The deaths that count.
#[derive(Debug, Default)]
pub(crate) struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// Somebody died. How long to wait before it is all begun again; `None`: not any more.
    ///
    /// `random` spreads the pauses of a fleet whose devices one answer killed together: half of the pause to one and a half.
    pub(crate) fn after_death(&mut self, now: Instant, random: u32) -> Option<Duration> {
        self.0
            .retain(|death| now.saturating_duration_since(*death) < WINDOW);
        let before = self.0.len();
        if before >= RESTARTS_MAX {
            return None;
        }
        self.0.push_back(now);
        let doubled = u32::try_from(before)
            .ok()
            .and_then(|before| 2_u32.checked_pow(before));
        let pause = PAUSE_MIN
            .saturating_mul(doubled.unwrap_or(u32::MAX))
            .min(PAUSE_MAX);
        let spread = pause.mul_f64(f64::from(random) / f64::from(u32::MAX));
        Some((pause / 2).saturating_add(spread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_dies_once_too_often_is_left_to_the_service_manager() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        for death in 0..RESTARTS_MAX {
            let now = start + Duration::from_secs(death.try_into().unwrap());
            assert!(restarts.after_death(now, 0).is_some(), "death {death}");
        }
        let last = start + WINDOW.saturating_sub(Duration::from_millis(1));
        assert_eq!(restarts.after_death(last, 0), None);
        assert_eq!(
            restarts.after_death(last, 0),
            None,
            "asking again changes nothing"
        );
    }

    #[test]
    fn a_death_counts_for_as_long_as_the_window_and_no_longer() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        for day in 0..1000 {
            let now = start + WINDOW * day;
            assert_eq!(
                restarts.after_death(now, 0),
                Some(PAUSE_MIN / 2),
                "a rare fault, each time the first"
            );
        }
    }

    #[test]
    fn pauses_double_are_spread_and_end_somewhere() {
        let pauses = |random| {
            let mut restarts = Restarts::default();
            let now = Instant::now();
            std::iter::from_fn(move || restarts.after_death(now, random)).collect::<Vec<_>>()
        };
        let millis = |pauses: Vec<Duration>| pauses.iter().map(Duration::as_millis).collect::<Vec<_>>();
        assert_eq!(millis(pauses(0)), [50, 100, 200, 400, 800]);
        assert_eq!(millis(pauses(u32::MAX)), [150, 300, 600, 1200, 2400]);
        assert!(pauses(u32::MAX).into_iter().max() <= Some(PAUSE_MAX * 3 / 2));
    }
}
