//! Clocks as coarse as the grant says, or standing still.

use crate::bench::Bench;
use redan_policy::grant::Clock;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// Wall time in the grant's steps; without a grant for it, 1970-01-01 for ever.
pub(crate) struct Wall(pub(crate) Option<Clock>, pub(crate) Option<Arc<Bench>>);

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        step(self.0)
    }
    fn now(&self) -> Duration {
        if let Some(bench) = &self.1 {
            bench.note(|seen| (seen.clock, seen.wall) = (true, true));
        }
        match self.0 {
            Some(clock) if clock.wall => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                coarse(now, step(self.0))
            }
            _ => Duration::ZERO,
        }
    }
}

/// Monotonic time in the grant's steps; without a grant it stands still.
pub(crate) struct Monotonic(
    pub(crate) Option<Clock>,
    pub(crate) Instant,
    pub(crate) Option<Arc<Bench>>,
);

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        nanos(step(self.0))
    }
    fn now(&self) -> u64 {
        if let Some(bench) = &self.2 {
            bench.note(|seen| seen.clock = true);
        }
        match self.0 {
            Some(_) => nanos(coarse(self.1.elapsed(), step(self.0))),
            None => 0,
        }
    }
}

fn step(clock: Option<Clock>) -> Duration {
    Duration::from_millis(clock.map_or(1, |clock| clock.resolution.get()).max(1))
}

fn coarse(time: Duration, step: Duration) -> Duration {
    let steps = time.as_nanos().checked_div(step.as_nanos()).unwrap_or(0);
    let whole = steps.saturating_mul(step.as_nanos());
    Duration::from_nanos(u64::try_from(whole).unwrap_or(u64::MAX))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_protocol::Millis;

    #[test]
    fn time_moves_in_the_steps_of_the_grant() {
        let step = Duration::from_millis(10);
        assert_eq!(
            coarse(Duration::from_micros(29_999), step),
            Duration::from_millis(20)
        );
        let clock = Clock {
            wall: true,
            resolution: Millis::new(1000),
        };
        assert_eq!(Wall(Some(clock), None).now().subsec_nanos(), 0);
    }

    #[test]
    fn without_a_grant_time_stands_still() {
        assert_eq!(Wall(None, None).now(), Duration::ZERO);
        assert_eq!(Monotonic(None, Instant::now(), None).now(), 0);
    }
}
