//! Time without a clock (10-trust): a lower bound that never goes back.
//!
//! What opens something is proven by offline signatures and the device's own monotonic clock; what a server says in a session
//! counts in that session only (corrections 1).

use redan_protocol::{Seconds, UnixSeconds};

/// A lower bound of the true time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProvenTime {
    base: UnixSeconds,
    maximum: Option<UnixSeconds>,
}

impl ProvenTime {
    /// From what was persisted and when this program was built.
    pub fn new(persisted: UnixSeconds, built: UnixSeconds) -> Self {
        Self {
            base: persisted.max(built),
            maximum: None,
        }
    }

    /// A time in something that offline keys signed, seen after so much monotonic time: it is that late at least. Never beyond the
    /// signed maximum, however long the device has been running.
    pub fn learn(&mut self, proven: UnixSeconds, elapsed: Seconds) {
        let proven = self.maximum.map_or(proven, |maximum| proven.min(maximum));
        let began = proven.get().saturating_sub(elapsed.get());
        self.base = self.base.max(UnixSeconds::new(began));
    }

    /// The signed maximum; it bounds what is learnt from now on and takes nothing back.
    pub fn bound(&mut self, maximum: Option<UnixSeconds>) {
        self.maximum = maximum;
    }

    /// The bound after so much monotonic time.
    pub fn after(&self, elapsed: Seconds) -> UnixSeconds {
        self.base.after(elapsed)
    }

    /// What to persist after so much monotonic time.
    #[must_use]
    pub fn advanced(self, elapsed: Seconds) -> Self {
        Self {
            base: self.base.after(elapsed),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proven_time_never_goes_back_and_never_passes_the_signed_maximum() {
        let at = UnixSeconds::new;
        let mut time = ProvenTime::new(at(100), at(50));
        let start = Seconds::new(0);
        time.learn(at(90), start);
        assert_eq!(time.after(start), at(100));
        time.bound(Some(at(200)));
        time.learn(at(u64::MAX), start);
        assert_eq!(time.after(Seconds::new(5)), at(205));
        time.bound(Some(at(10)));
        time.learn(at(300), start);
        assert_eq!(time.after(Seconds::new(0)), at(200));
        assert_eq!(ProvenTime::new(at(0), at(50)).after(Seconds::new(0)), at(50));
    }

    #[test]
    fn a_time_learnt_late_does_not_pass_the_signed_maximum_by_the_time_since_the_start() {
        let at = UnixSeconds::new;
        let day = Seconds::new(86_400);
        let mut time = ProvenTime::new(at(100), at(0));
        time.bound(Some(at(200_000)));
        time.learn(at(u64::MAX), day);
        assert_eq!(time.after(day), at(200_000));
    }
}
