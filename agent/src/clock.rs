//! The device's clocks: monotonic for spans, proven for dates, the wall clock for nothing that opens anything.

use redan_agent_core::Mono;
use redan_protocol::{Seconds, UnixSeconds};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock since the agent started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Mono {
        Mono::new(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn elapsed(self) -> Seconds {
        Seconds::new(self.0.elapsed().as_secs())
    }

    /// The instant of a moment, to sleep until.
    pub(crate) fn instant(self, at: Mono) -> Instant {
        let span = std::time::Duration::from_millis(at.millis());
        self.0.checked_add(span).unwrap_or(self.0)
    }
}

/// The wall clock, for the expiry of a voucher in front of a person and for nothing else.
pub(crate) fn wall() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixSeconds::new(since.map_or(0, |since| since.as_secs()))
}
