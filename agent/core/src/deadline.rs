//! How long each state may last, and how often a fault is tried again.

use crate::SetRecord;
use redan_protocol::Millis;

/// An offer is forgotten when `decide()` never answers: the shell asks again at the next check-in.
pub const OFFERED_DEADLINE: Millis = Millis::seconds(600);
/// For fetching a whole set: 64 MiB over a line of 30 kbit/s takes five hours.
pub const FETCH_DEADLINE: Millis = Millis::seconds(6 * 3600);
/// For compiling, linking and the first probe: an 18 MB component took 8 s on the slowest machine measured; times a hundred.
pub const PREPARE_DEADLINE: Millis = Millis::seconds(900);
/// Beyond the longest probation of the set: after that a version that is never quite well goes back.
pub const TRIAL_SLACK: Millis = Millis::seconds(300);
/// For going back, which is a pointer swap; then what could not be restored is reported as stopped.
pub const REVERT_DEADLINE: Millis = Millis::seconds(60);
/// First wait after a transient fault; doubles with each try.
pub const RETRY_WAIT: Millis = Millis::seconds(1);
/// Longest such wait.
pub const RETRY_WAIT_MAX: Millis = Millis::seconds(900);
/// Most repetitions, whatever budget the direction grants.
pub const RETRY_MAX: u32 = 16;
/// Most restarts of executor or device during one trial, whatever the health contract allows.
pub const TRIAL_RESTARTS_MAX: u32 = 4;
/// For the answer of a version that is asked whether it may end: a call's own limit cuts it off before.
pub const YIELD_WITHIN: Millis = Millis::seconds(15);
/// Longest a version may put an update off, all in all, whatever its grant says.
pub const DEFER_MAX: Millis = Millis::seconds(1800);
/// Wait before a journal record that could not be written is tried again.
pub const JOURNAL_RETRY: Millis = Millis::seconds(5);
/// Most inputs kept while a record is on its way to the disk; beyond that host signals are dropped.
pub const QUEUE_MAX: usize = 1024;

pub(crate) fn budget(set: &SetRecord) -> u32 {
    set.retry_budget.min(RETRY_MAX)
}

pub(crate) fn wait(tries: u32) -> Millis {
    let doubled = RETRY_WAIT
        .get()
        .saturating_mul(1 << tries.saturating_sub(1).min(20));
    Millis::new(doubled.min(RETRY_WAIT_MAX.get()))
}

pub(crate) fn trial_deadline(set: &SetRecord) -> Millis {
    let longest = set
        .members
        .iter()
        .map(|member| member.grant.health.probation.get())
        .max();
    Millis::new(longest.unwrap_or(0).saturating_add(TRIAL_SLACK.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_the_one_before_and_none_is_longer_than_the_longest() {
        assert_eq!(wait(1), RETRY_WAIT);
        for tries in 1..RETRY_MAX {
            let doubled = wait(tries).get().saturating_mul(2).min(RETRY_WAIT_MAX.get());
            assert_eq!(wait(tries.saturating_add(1)).get(), doubled);
        }
        assert_eq!(wait(u32::MAX), RETRY_WAIT_MAX);
    }
}
