//! The device's clocks: monotonic for spans, proven for dates, the wall clock for nothing that opens anything.

use redan_agent_core::Mono;
use redan_identity::crl::Lists;
use redan_identity::tls::Floor;
use redan_protocol::{Seconds, UnixSeconds};
use redan_trust::ProvenTime;
use std::sync::{Arc, Mutex, PoisonError};
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

/// The time this device has proof of. One for the trust record, the sessions and every handshake: what one of them learns, all of
/// them hold others to from then on, without a restart. And whom they refuse although its time has not passed.
#[derive(Clone, Debug)]
pub(crate) struct Proven {
    time: Arc<Mutex<ProvenTime>>,
    clock: Clock,
    lists: Lists,
}

impl Proven {
    pub(crate) fn new(clock: Clock) -> Self {
        let time = ProvenTime::new(UnixSeconds::default(), UnixSeconds::default());
        Self {
            time: Arc::new(Mutex::new(time)),
            clock,
            lists: Lists::default(),
        }
    }

    /// Lower bound of the true time.
    pub(crate) fn now(&self) -> UnixSeconds {
        let time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.after(self.clock.elapsed())
    }

    /// It is that late at least: signed by offline keys, or proven before this start.
    pub(crate) fn learn(&self, proven: UnixSeconds) {
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.learn(proven, self.clock.elapsed());
    }

    /// The maximum that the believed policy sets; it takes nothing back.
    pub(crate) fn bound(&self, maximum: Option<UnixSeconds>) {
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.bound(maximum);
    }

    /// What handshakes ask, and what they teach.
    pub(crate) fn floor(&self) -> Floor {
        let (asked, taught) = (self.clone(), self.clone());
        let floor = Floor::learning(move || asked.now(), move |proven| taught.learn(proven));
        floor.refusing(self.lists.clone())
    }

    /// The servers that handshakes refuse.
    pub(crate) fn lists(&self) -> &Lists {
        &self.lists
    }
}

/// The wall clock, for the expiry of a voucher in front of a person and for nothing else.
pub(crate) fn wall() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixSeconds::new(since.map_or(0, |since| since.as_secs()))
}
