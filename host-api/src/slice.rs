//! How much of the CPU a thread gave to a stretch of a call, without asking the kernel for every stretch.
//!
//! A thread's own clock is a system call of half a microsecond, two of them were a tenth of a whole call. The monotonic clock is read
//! without the kernel. No thread uses more CPU time than passes: so a stretch shorter than [`SHORT`] is charged what passed, at most
//! that much too much where the thread was interrupted meanwhile. A longer one is charged what the thread's clock says.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Up to so long a stretch is charged what passed, nanoseconds. The system's own slices are 3 ms: whoever lost the CPU meanwhile was away
/// for longer than this, and the thread's clock is asked.
const SHORT: u64 = 100_000;
/// How old a reading of the thread's clock may be when a stretch begins with it, nanoseconds: what the thread did since counts as the
/// call's, where the clock is asked at all. Limits and shares are in milliseconds.
const FRESH: u64 = 1_000_000;

thread_local! {
    /// When this thread's clock was asked last, and what it said.
    static KNOWN: Cell<Reading> = const { Cell::new(Reading { at: 0, used: 0 }) };
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: u64,
    used: u64,
}

/// A stretch of a call on one thread. Never charged less than the thread used.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    at: AtomicU64,
    /// What the thread had used then, or a little before: never more.
    used: AtomicU64,
}

impl Slice {
    /// The thread turns to the call.
    pub(crate) fn begin(&self) {
        let at = passed(ClockId::Monotonic);
        let mut known = KNOWN.get();
        if at.saturating_sub(known.at) > FRESH {
            known = read(at);
        }
        self.at.store(at, Ordering::Relaxed);
        self.used.store(known.used, Ordering::Relaxed);
    }

    /// What the stretch comes to now. On the thread that began it.
    pub(crate) fn nanos(&self) -> u64 {
        let now = passed(ClockId::Monotonic);
        let longest = now.saturating_sub(self.at.load(Ordering::Relaxed));
        if longest <= SHORT {
            return longest;
        }
        let used = read(now).used.saturating_sub(self.used.load(Ordering::Relaxed));
        used.min(longest)
    }
}

/// Asks this thread's clock (`clock_gettime(2)`, `CLOCK_THREAD_CPUTIME_ID`).
fn read(at: u64) -> Reading {
    let reading = Reading {
        at,
        used: passed(ClockId::ThreadCPUTime),
    };
    KNOWN.set(reading);
    reading
}

/// What a clock says, nanoseconds.
fn passed(clock: ClockId) -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    let seconds = u64::try_from(tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    fn used() -> u64 {
        passed(ClockId::ThreadCPUTime)
    }

    fn use_up(nanos: u64) {
        let start = used();
        while used().saturating_sub(start) < nanos {}
    }

    #[test]
    fn no_stretch_is_charged_less_than_its_thread_used() {
        for nanos in [20_000, 80_000, 150_000, 500_000, 2_000_000, 5_000_000] {
            for _ in 0..20 {
                let slice = Slice::default();
                slice.begin();
                let start = used();
                use_up(nanos);
                let used = used().saturating_sub(start);
                assert!(slice.nanos() >= used);
            }
        }
    }

    #[test]
    fn what_a_thread_waits_is_not_charged() {
        let slice = Slice::default();
        // A thread's first stretch asks its clock.
        let start = used();
        slice.begin();
        let (_open, nothing) = channel::<()>();
        assert!(nothing.recv_timeout(Duration::from_millis(5)).is_err());
        let charged = slice.nanos();
        assert!(charged <= used().saturating_sub(start));
    }

    #[test]
    fn what_a_thread_used_long_before_is_not_charged() {
        Slice::default().begin();
        use_up(3 * FRESH);
        let start = used();
        let slice = Slice::default();
        slice.begin();
        use_up(3 * SHORT);
        let charged = slice.nanos();
        assert!(charged <= used().saturating_sub(start));
    }

    #[test]
    fn a_stretch_that_never_began_is_all_that_its_thread_used() {
        let start = used();
        assert!(Slice::default().nanos() >= start);
    }
}
