//! How many certificates are signed in a time, and how much of that one source may have (attack E06).
//!
//! A token bucket in its scheduling form, the generic cell rate algorithm (ITU-T I.371): of a bucket only the moment is known when it is
//! full again. So there is nothing to fill while nobody asks, and a source whose bucket is full needs no place.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

/// So many in a minute. All of them may come at once, so in the minute after a quiet one there may be twice as many.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, serde::Deserialize)]
#[serde(transparent)]
pub struct PerMinute(NonZeroU32);

impl PerMinute {
    /// A rate.
    pub const fn new(most: NonZeroU32) -> Self {
        Self(most)
    }

    /// Half of it, and at least one: what a single source may have, so that it alone never takes all.
    #[must_use]
    pub fn half(self) -> Self {
        let half = self.0.get().checked_div(2).and_then(NonZeroU32::new);
        Self(half.unwrap_or(NonZeroU32::MIN))
    }

    /// From one to the next.
    fn each(self) -> Duration {
        MINUTE.checked_div(self.0.get()).unwrap_or(MINUTE)
    }
}

/// What a rate is counted by, and the depth of a bucket.
const MINUTE: Duration = Duration::from_mins(1);

/// When a bucket is full again, on whatever clock the caller has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Bucket(Duration);

impl Bucket {
    /// The bucket with one less in it, or how long until there is one.
    fn less(self, rate: PerMinute, now: Duration) -> Result<Self, Duration> {
        let full = self.0.max(now).saturating_add(rate.each());
        match full.checked_sub(now.saturating_add(MINUTE)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(Self(full)),
        }
    }
}

/// A limit for all, and within it one for each source.
#[derive(Clone, Debug)]
pub struct Pace<S> {
    rate: PerMinute,
    all: Bucket,
    /// Those that had one within the last minute: never more than were granted in it.
    sources: BTreeMap<S, Bucket>,
}

impl<S: Ord> Pace<S> {
    /// Full for everybody.
    pub const fn new(rate: PerMinute) -> Self {
        Self {
            rate,
            all: Bucket(Duration::ZERO),
            sources: BTreeMap::new(),
        }
    }

    /// One for this source, or how long until there is one for it. Who is refused takes nothing. `now` never goes back.
    pub fn take(&mut self, source: S, now: Duration) -> Result<(), Duration> {
        self.sources.retain(|_, bucket| bucket.0 > now);
        let own = self.sources.get(&source).copied().unwrap_or_default();
        let own = own.less(self.rate.half(), now);
        match (own, self.all.less(self.rate, now)) {
            (Ok(own), Ok(all)) => {
                self.all = all;
                self.sources.insert(source, own);
                Ok(())
            }
            (Err(own), Err(all)) => Err(own.max(all)),
            (Err(wait), Ok(_)) | (Ok(_), Err(wait)) => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(most: u32) -> Pace<&'static str> {
        Pace::new(PerMinute::new(NonZeroU32::new(most).unwrap()))
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_source_has_half_of_what_all_have_and_is_told_how_long_to_wait() {
        let mut pace = pace(6);
        for _ in 0..3 {
            assert_eq!(pace.take("a", at(0)), Ok(()));
        }
        // Three a minute: the next one in twenty seconds, and not a moment before.
        assert_eq!(pace.take("a", at(0)), Err(at(20)));
        assert_eq!(pace.take("a", at(19)), Err(at(1)));
        assert_eq!(pace.take("a", at(20)), Ok(()));
        assert_eq!(pace.take("a", at(20)), Err(at(20)));
    }

    #[test]
    fn all_sources_together_have_no_more_than_the_rate() {
        let mut pace = pace(6);
        let first = ["a", "a", "a", "b", "b", "c"];
        assert!(first.iter().all(|source| pace.take(source, at(0)) == Ok(())));
        for source in ["b", "c", "new"] {
            assert_eq!(pace.take(source, at(0)), Err(at(10)), "{source}");
        }
        // Who is refused has taken nothing: it is there when it was said.
        assert_eq!(pace.take("new", at(10)), Ok(()));
        assert_eq!(pace.take("c", at(10)), Err(at(10)));
        // In any hour no more than a full bucket and what flowed in.
        let mut granted = 0;
        for second in 11..3_611 {
            for source in ["a", "b", "c", "d"] {
                granted += usize::from(pace.take(source, at(second)).is_ok());
            }
        }
        assert_eq!(granted, 360);
    }

    #[test]
    fn a_source_that_asks_no_more_is_forgotten_and_a_flood_of_sources_takes_no_more_places_than_it_got_certificates()
     {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let mut pace = pace(4);
        for name in names {
            assert_eq!(pace.take(name, at(0)).is_ok(), name < "e", "{name}");
        }
        assert_eq!(pace.sources.len(), 4);
        assert_eq!(pace.take("z", at(61)), Ok(()));
        assert_eq!(pace.sources.len(), 1);
    }

    #[test]
    fn a_rate_of_one_lets_one_through_a_minute() {
        let mut pace = pace(1);
        assert_eq!(pace.take("a", at(5)), Ok(()));
        assert_eq!(pace.take("b", at(5)), Err(at(60)));
        assert_eq!(pace.take("b", at(65)), Ok(()));
    }
}
