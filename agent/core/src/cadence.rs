//! When a device speaks with its server.
//!
//! ```text
//!            begins            answered, failed
//! waiting ─────────▶ speaking ─────────────────▶ waiting, for an interval less its jitter
//!    ▲                                              │ hears news
//!    └────────────── soon ──────────────────────────┘
//! ```
//!
//! Whoever watches the wire sees these moments (attack A04). They follow from the interval the server named, from random bytes, from how
//! check-ins ended, and from [`News`], which are facts about updates: nothing a committed workload does or suffers is among its inputs. The
//! exception is named: what an update does is told at once, for a rollout waits for it, and the wire sees that too.

use crate::{Mono, View};
use redan_protocol::report::Phase;
use redan_protocol::{Code, Millis, Seconds, SetId};

/// First wait after a failed check-in; doubles.
const RETRY_MIN: Millis = Millis::seconds(1);
/// Longest such wait, so that a fleet that lost its server finds it again within minutes.
const RETRY_MAX: Millis = Millis::seconds(300);
/// Shortest time between two check-ins, however much happens.
const SPACING: Millis = Millis::new(250);

/// What the server hears of at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct News {
    set: Option<SetId>,
    rollback: Option<Code>,
    refusal: Option<Code>,
    phase: Phase,
}

impl News {
    /// What there is to tell of a device now.
    pub fn of(view: &View<'_>) -> Self {
        Self {
            set: view.set.cloned(),
            rollback: view.rollback,
            refusal: view.refusal,
            phase: view.phase,
        }
    }
}

/// The moments of one device's check-ins. The first is at once.
#[derive(Debug, Default)]
pub struct Cadence {
    last: Mono,
    next: Mono,
    failures: u32,
    told: Option<News>,
}

impl Cadence {
    /// When the next check-in begins.
    pub const fn next(&self) -> Mono {
        self.next
    }

    /// A check-in begins, and tells so much.
    pub fn begins(&mut self, now: Mono, news: News) {
        self.last = now;
        self.told = Some(news);
    }

    /// It was answered, and the server named its interval. `random` spreads a fleet.
    pub fn answered(&mut self, now: Mono, interval: Seconds, random: u8) {
        self.failures = 0;
        self.later(now, Millis::seconds(interval.get().max(1)), random);
    }

    /// It failed.
    pub fn failed(&mut self, now: Mono, random: u8) {
        let doubled = RETRY_MIN.get().saturating_mul(1 << self.failures.min(9));
        self.failures = self.failures.saturating_add(1);
        self.later(now, Millis::new(doubled).min(RETRY_MAX), random);
    }

    /// It cannot be begun.
    pub fn postponed(&mut self, now: Mono) {
        self.later(now, RETRY_MAX, 0);
    }

    /// What there is to tell now: at once, if the last check-in told something else.
    pub fn hears(&mut self, news: &News) {
        if self.told.as_ref().is_some_and(|told| told != news) {
            self.soon();
        }
    }

    /// The next check-in at once, but not faster than the spacing.
    pub fn soon(&mut self) {
        self.next = self.next.min(self.last.after(SPACING));
    }

    /// Three quarters to the whole of the wait, after a failure or a success alike.
    fn later(&mut self, now: Mono, wait: Millis, random: u8) {
        let jitter = wait.get().saturating_mul(u64::from(random)) / 1024;
        let wait = Millis::new(wait.get().saturating_sub(jitter));
        self.next = self.last.max(now).after(wait);
    }
}
