//! Is this version well? The judge of one slot: the guest's own word, and what the host saw, which outranks it.

use crate::Mono;
use redan_policy::grant::HealthContract;
use redan_protocol::ipc::Signals;
use redan_protocol::report::Health;
use redan_protocol::{Code, Millis};

/// Calls seen before an error rate is judged in the middle of a trial: below that one failure would be a high rate.
/// At the end of the trial any number is judged. Tripped by `a_high_error_rate_fails_the_trial_whatever_the_guest_says`.
pub const ERROR_SAMPLE_MIN: u64 = 20;
/// Added to a probe's timeout before its silence counts: the executor's own timer should speak first.
pub const PROBE_GRACE: Millis = Millis::new(1000);
/// Between two probes of a version that says it is starting.
pub const STARTING_INTERVAL: Millis = Millis::new(250);
/// Least time between two probes, whatever the contract says: a signed ask must not keep the device busy probing.
pub const PROBE_INTERVAL_MIN: Millis = Millis::new(100);

/// What the judge says of a version on trial.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Too early to say.
    Pending,
    /// It did well for the whole trial.
    Passed,
    /// It did not.
    Failed(Code),
}

/// Watches one slot.
#[derive(Clone, Debug)]
pub struct Judge {
    contract: HealthContract,
    began: Option<Mono>,
    asked: Option<Mono>,
    next: Mono,
    bad_in_row: u32,
    ever_well: bool,
    health: Health,
    code: Option<Code>,
    calls: u64,
    failures: u64,
}

impl Judge {
    /// A judge that asks for the first probe at once.
    pub fn new(contract: HealthContract, now: Mono) -> Self {
        Self {
            contract,
            began: None,
            asked: None,
            next: now,
            bad_in_row: 0,
            ever_well: false,
            health: Health::Starting,
            code: None,
            calls: 0,
            failures: 0,
        }
    }

    /// The trial begins: what was counted before does not count.
    pub fn begin(&mut self, now: Mono) {
        *self = Self {
            health: self.health,
            code: self.code,
            began: Some(now),
            ..Self::new(self.contract, now)
        };
    }

    /// Whether to send a probe now; counts one that was never answered.
    pub fn due(&mut self, now: Mono) -> bool {
        if let Some(asked) = self.asked {
            if now < self.silence(asked) {
                return false;
            }
            self.asked = None;
            self.bad(Health::Unhealthy, Code::ProbeTimeout);
        }
        if now < self.next {
            return false;
        }
        self.asked = Some(now);
        self.next = now.after(self.contract.interval.max(PROBE_INTERVAL_MIN));
        true
    }

    /// When [`Self::due`] has something to say again.
    pub fn wake(&self) -> Mono {
        self.asked.map_or(self.next, |asked| self.silence(asked))
    }

    fn silence(&self, asked: Mono) -> Mono {
        asked.after(self.contract.timeout).after(PROBE_GRACE)
    }

    /// The guest's own word.
    pub fn probed(&mut self, now: Mono, health: Health, code: Option<Code>) {
        self.asked = None;
        match health {
            Health::Healthy | Health::Degraded => {
                self.bad_in_row = 0;
                self.ever_well = true;
                self.health = health;
                self.code = code;
            }
            Health::Starting => {
                self.health = health;
                self.code = code;
                self.next = now.after(STARTING_INTERVAL);
            }
            Health::Unhealthy | Health::Unknown | Health::Stopped => {
                self.bad(health, code.unwrap_or(Code::Unhealthy));
            }
        }
    }

    fn bad(&mut self, health: Health, code: Code) {
        self.bad_in_row = self.bad_in_row.saturating_add(1);
        self.health = health;
        self.code = Some(code);
    }

    /// What the host saw.
    pub fn saw(&mut self, signals: Signals) {
        self.calls = self.calls.saturating_add(u64::from(signals.calls));
        self.failures = self.failures.saturating_add(u64::from(signals.failures));
    }

    /// Before any traffic: did it answer one probe well?
    pub fn first_word(&self) -> Verdict {
        match self.unhealthy() {
            Some(code) => Verdict::Failed(code),
            None if self.ever_well => Verdict::Passed,
            None => Verdict::Pending,
        }
    }

    /// On trial: host signals first, then the guest's word, then time.
    pub fn verdict(&self, now: Mono) -> Verdict {
        let Some(began) = self.began else {
            return Verdict::Pending;
        };
        let over = now >= began.after(self.contract.probation);
        let share = u64::from(self.contract.max_error_permille);
        let too_many = self.failures.saturating_mul(1000) > self.calls.saturating_mul(share);
        if too_many && (over || self.calls >= ERROR_SAMPLE_MIN) {
            return Verdict::Failed(Code::ErrorRate);
        }
        match self.unhealthy() {
            Some(code) => Verdict::Failed(code),
            None if over && self.ever_well && self.bad_in_row == 0 && self.health != Health::Starting => {
                Verdict::Passed
            }
            None => Verdict::Pending,
        }
    }

    fn unhealthy(&self) -> Option<Code> {
        let limit = self.contract.fail_after.max(1);
        (self.bad_in_row >= limit).then(|| self.code.unwrap_or(Code::Unhealthy))
    }

    /// When the probation is over.
    pub fn over(&self) -> Option<Mono> {
        self.began.map(|began| began.after(self.contract.probation))
    }

    /// How the slot was last seen.
    pub fn health(&self) -> (Health, Option<Code>) {
        (self.health, self.code)
    }

    /// The contract it judges by.
    pub fn contract(&self) -> &HealthContract {
        &self.contract
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_protocol::report::Bucket;

    const START: Mono = Mono::new(1000);

    fn contract() -> HealthContract {
        HealthContract {
            interval: Millis::seconds(1),
            timeout: Millis::new(500),
            fail_after: 3,
            probation: Millis::seconds(10),
            max_error_permille: 50,
            max_restarts: 1,
        }
    }

    fn on_trial() -> Judge {
        let mut judge = Judge::new(contract(), START);
        judge.begin(START);
        judge
    }

    fn signals(calls: u32, failures: u32) -> Signals {
        Signals {
            calls,
            failures,
            last: None,
            cpu: Bucket::default(),
        }
    }

    #[test]
    fn a_well_version_passes_only_when_the_probation_is_over() {
        let mut judge = on_trial();
        assert!(judge.due(START));
        judge.probed(START, Health::Healthy, None);
        assert_eq!(judge.verdict(Mono::new(10_999)), Verdict::Pending);
        assert_eq!(judge.verdict(Mono::new(11_000)), Verdict::Passed);
    }

    #[test]
    fn a_high_error_rate_fails_the_trial_whatever_the_guest_says() {
        let mut judge = on_trial();
        judge.probed(START, Health::Healthy, None);
        judge.saw(signals(19, 2));
        assert_eq!(judge.verdict(START), Verdict::Pending);
        judge.saw(signals(1, 0));
        assert_eq!(judge.verdict(START), Verdict::Failed(Code::ErrorRate));
    }

    #[test]
    fn a_few_failures_are_judged_at_the_end() {
        let mut judge = on_trial();
        judge.probed(START, Health::Healthy, None);
        judge.saw(signals(2, 1));
        assert_eq!(judge.verdict(Mono::new(2000)), Verdict::Pending);
        assert_eq!(judge.verdict(Mono::new(11_000)), Verdict::Failed(Code::ErrorRate));
    }

    #[test]
    fn failed_probes_must_come_in_a_row() {
        let mut judge = on_trial();
        for health in [
            Health::Unhealthy,
            Health::Unhealthy,
            Health::Healthy,
            Health::Unhealthy,
            Health::Unhealthy,
        ] {
            judge.probed(START, health, None);
        }
        assert_eq!(judge.verdict(START), Verdict::Pending);
        judge.probed(START, Health::Unhealthy, Some(Code::Trapped));
        assert_eq!(judge.verdict(START), Verdict::Failed(Code::Trapped));
    }

    #[test]
    fn silence_is_a_failed_probe() {
        let mut judge = Judge::new(contract(), START);
        let mut now = START;
        for _ in 0..3 {
            assert!(judge.due(now));
            now = judge.wake();
        }
        assert!(judge.due(now));
        assert_eq!(judge.first_word(), Verdict::Failed(Code::ProbeTimeout));
    }

    #[test]
    fn a_version_that_only_ever_starts_does_not_pass() {
        let mut judge = on_trial();
        judge.probed(START, Health::Starting, None);
        assert_eq!(judge.verdict(Mono::new(60_000)), Verdict::Pending);
    }
}
