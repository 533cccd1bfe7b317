//! A rollout: waves of devices, one after another, each only when the one before has held.
//!
//! ```text
//! Running(wave 0) → soak → Running(wave 1) → … → Complete
//!    │  failures ≥ threshold, or a device says nothing until the deadline → Halted
//!    │  a second person's agreement is asked for and not given → the wave after the first does not open
//!    └ pause → Paused → resume → Running          abort → Aborted
//! ```

use redan_protocol::report::{Phase, Report};
use redan_protocol::{Code, DeviceId, Digest, DirectionSequence, OperatorName, Seconds, SetId, UnixSeconds};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most waves of a rollout. Tripped by `a_rollout_of_more_waves_than_the_limit_is_refused`.
pub const WAVES_MAX: usize = 16;

/// Most digests a rollout unblocks: as many as a device keeps denied.
/// Tripped by `what_is_unblocked_is_a_member_of_the_set_and_not_more_than_the_limit`.
pub const UNBLOCKED_MAX: usize = 64;

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Offering and soaking.
    Running,
    /// Nothing new is offered.
    Paused,
    /// It stopped itself.
    Halted,
    /// An operator ended it.
    Aborted,
    /// Every wave has held.
    Complete,
}

/// How one device fared.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nothing said yet.
    Pending,
    /// Committed.
    Succeeded,
    /// Rolled back, or silent until the deadline.
    Failed(Code),
}

/// One wave.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// Its name.
    pub name: String,
    /// Its devices and how they fared.
    pub devices: BTreeMap<DeviceId, Outcome>,
    /// When it was first offered.
    pub offered: Option<UnixSeconds>,
    /// When its last device succeeded.
    pub held: Option<UnixSeconds>,
}

/// What an operator set.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// So many failures halt the rollout.
    pub failure_threshold: u32,
    /// How long a wave is watched before the next.
    pub soak: Seconds,
    /// A device that has not committed by then has failed.
    pub deadline: Seconds,
}

/// Whether a second person must agree before anything beyond the first wave is offered.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// Nobody asked for one.
    #[default]
    NotAsked,
    /// Asked for, and not given yet.
    Asked {
        /// Who started the rollout, and cannot be the second person.
        starter: OperatorName,
    },
    /// Given.
    Given {
        /// Who started it.
        starter: OperatorName,
        /// Who agreed.
        by: OperatorName,
    },
}

/// Why somebody's agreement does not count.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoApproval {
    /// Whoever started it.
    #[error("whoever started a rollout cannot agree to it")]
    Own,
    /// Nobody asked for one, or it was given before.
    #[error("the rollout waits for nobody's agreement")]
    NotAsked,
    /// There is nothing left to agree to.
    #[error("the rollout is {0:?}")]
    Ended(State),
}

/// One rollout.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Its number.
    pub id: u64,
    /// The signed set it brings.
    pub set: SetId,
    /// Where it stands.
    pub state: State,
    /// Which wave is offered.
    pub wave: usize,
    /// The waves.
    pub waves: Vec<Wave>,
    /// What the operator set.
    pub rules: Rules,
    /// Why it halted.
    pub halted_because: Option<Code>,
    /// Whether a second person must agree.
    #[serde(default)]
    pub approval: Approval,
    /// Digests that its devices may try again, although they denied them after a failed trial.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unblocked: BTreeSet<Digest>,
}

/// What happens to a rollout.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Time has passed.
    Tick,
    /// A device has reported; it was last directed with this sequence number to this set.
    Reported {
        /// Who.
        device: &'a DeviceId,
        /// What it says.
        report: &'a Report,
        /// The direction it was given for this rollout.
        direction: DirectionSequence,
    },
    /// An operator pauses.
    Pause,
    /// An operator goes on, taking the failures so far for known.
    Resume,
    /// An operator ends it.
    Abort,
}

/// What changed, for the audit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The next wave is offered.
    Advanced,
    /// It halted.
    Halted,
    /// It is complete.
    Completed,
    /// Paused, resumed, aborted.
    Steered,
    /// A device's outcome changed, nothing else.
    Noted,
}

/// A rollout in another state than the input needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the rollout is {0:?}")]
pub struct WrongState(pub State);

impl Rollout {
    /// A rollout whose first wave is offered now.
    pub fn start(
        id: u64,
        set: SetId,
        waves: Vec<(String, Vec<DeviceId>)>,
        rules: Rules,
        now: UnixSeconds,
    ) -> Self {
        let waves = waves.into_iter().map(|(name, devices)| Wave {
            name,
            devices: devices
                .into_iter()
                .map(|device| (device, Outcome::Pending))
                .collect(),
            offered: None,
            held: None,
        });
        let mut rollout = Self {
            id,
            set,
            state: State::Running,
            wave: 0,
            waves: waves.collect(),
            rules,
            halted_because: None,
            approval: Approval::NotAsked,
            unblocked: BTreeSet::new(),
        };
        if let Some(first) = rollout.waves.first_mut() {
            first.offered = Some(now);
        }
        rollout
    }

    /// The same, and nothing beyond the first wave before somebody else than its starter agrees.
    #[must_use]
    pub fn asking(self, starter: OperatorName) -> Self {
        Self {
            approval: Approval::Asked { starter },
            ..self
        }
    }

    /// The same, and its devices may try these once more. What the policy revokes stays revoked: only devices judge that.
    #[must_use]
    pub fn unblocking(self, unblocked: BTreeSet<Digest>) -> Self {
        Self { unblocked, ..self }
    }

    /// A second person agrees.
    pub fn approve(&mut self, by: &OperatorName) -> Result<(), NoApproval> {
        match (&self.approval, self.state) {
            (_, State::Aborted | State::Complete) => Err(NoApproval::Ended(self.state)),
            (Approval::NotAsked | Approval::Given { .. }, _) => Err(NoApproval::NotAsked),
            (Approval::Asked { starter }, _) if starter == by => Err(NoApproval::Own),
            (Approval::Asked { starter }, _) => {
                self.approval = Approval::Given {
                    starter: starter.clone(),
                    by: by.clone(),
                };
                Ok(())
            }
        }
    }

    /// The outcome of a device, if its wave has been offered.
    pub fn offered_to(&self, device: &DeviceId) -> Option<Outcome> {
        let mut offered = self.waves.iter().filter(|wave| wave.offered.is_some());
        offered.find_map(|wave| wave.devices.get(device)).copied()
    }

    /// Failures that count.
    pub fn failures(&self) -> usize {
        let outcomes = self.waves.iter().flat_map(|wave| wave.devices.values());
        outcomes
            .filter(|outcome| matches!(outcome, Outcome::Failed(_)))
            .count()
    }

    /// One step. `Ok(None)`: nothing to tell; that a wave has held, or a device was given up, may be noted all the same.
    pub fn step(&mut self, now: UnixSeconds, input: Input<'_>) -> Result<Option<Event>, WrongState> {
        match (self.state, input) {
            (State::Running, Input::Pause) => Ok(Some(self.steer(State::Paused))),
            (State::Paused | State::Halted, Input::Resume) => {
                self.rules.failure_threshold = self
                    .rules
                    .failure_threshold
                    .saturating_add(u32::try_from(self.failures()).unwrap_or(u32::MAX));
                self.halted_because = None;
                Ok(Some(self.steer(State::Running)))
            }
            (State::Running | State::Paused | State::Halted, Input::Abort) => {
                Ok(Some(self.steer(State::Aborted)))
            }
            (state, Input::Pause | Input::Resume | Input::Abort) => Err(WrongState(state)),
            (
                _,
                Input::Reported {
                    device,
                    report,
                    direction,
                },
            ) => {
                let noted = self.note(device, report, direction);
                let moved = self.advance(now);
                Ok(moved.or(noted))
            }
            (_, Input::Tick) => Ok(self.advance(now)),
        }
    }

    fn steer(&mut self, to: State) -> Event {
        self.state = to;
        Event::Steered
    }

    fn note(&mut self, device: &DeviceId, report: &Report, direction: DirectionSequence) -> Option<Event> {
        let set = self.set.clone();
        let mut offered = self.waves.iter_mut().filter(|wave| wave.offered.is_some());
        let outcome = offered.find_map(|wave| wave.devices.get_mut(device))?;
        let settled = !matches!(report.phase, Phase::Trial | Phase::Reverting);
        // Of all refusals the one that no waiting ends.
        let denied = report.refusal.filter(|code| *code == Code::DeniedAfterTrial);
        let new = if report.set.as_ref() == Some(&set) && settled {
            Outcome::Succeeded
        } else if let Some(code) = report.rollback.or(denied)
            && report.direction == direction
            && *outcome == Outcome::Pending
        {
            Outcome::Failed(code)
        } else {
            return None;
        };
        let changed = *outcome != new;
        *outcome = new;
        changed.then_some(Event::Noted)
    }

    fn advance(&mut self, now: UnixSeconds) -> Option<Event> {
        if self.state != State::Running {
            return None;
        }
        let (soak, deadline, threshold) =
            (self.rules.soak, self.rules.deadline, self.rules.failure_threshold);
        let wave = self.waves.get_mut(self.wave)?;
        let offered = *wave.offered.get_or_insert(now);
        if now >= offered.after(deadline) {
            for outcome in wave
                .devices
                .values_mut()
                .filter(|outcome| **outcome == Outcome::Pending)
            {
                *outcome = Outcome::Failed(Code::DeadlinePassed);
            }
        }
        let pending = wave.devices.values().any(|outcome| *outcome == Outcome::Pending);
        if !pending && wave.held.is_none() {
            wave.held = Some(now);
        }
        let held = wave.held;
        let failed = self.failures();
        if failed >= usize::try_from(threshold.max(1)).unwrap_or(usize::MAX) {
            self.state = State::Halted;
            self.halted_because =
                self.waves
                    .iter()
                    .flat_map(|wave| wave.devices.values())
                    .find_map(|outcome| {
                        if let Outcome::Failed(code) = outcome {
                            Some(*code)
                        } else {
                            None
                        }
                    });
            return Some(Event::Halted);
        }
        if held.is_none_or(|held| now < held.after(soak)) {
            return None;
        }
        if matches!(self.approval, Approval::Asked { .. }) && self.waves.len() > 1 {
            return None;
        }
        self.wave = self.wave.saturating_add(1);
        let Some(next) = self.waves.get_mut(self.wave) else {
            self.state = State::Complete;
            return Some(Event::Completed);
        };
        next.offered = Some(now);
        Some(Event::Advanced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        DeviceId::parse(name).unwrap()
    }

    fn rollout() -> Rollout {
        let rules = Rules {
            failure_threshold: 1,
            soak: Seconds::new(10),
            deadline: Seconds::new(100),
        };
        let waves = vec![
            ("canary".to_owned(), vec![device("a")]),
            ("all".to_owned(), vec![device("b"), device("c")]),
        ];
        Rollout::start(
            1,
            SetId::parse("set-2").unwrap(),
            waves,
            rules,
            UnixSeconds::new(0),
        )
    }

    fn report(set: &str, rollback: Option<Code>) -> Report {
        Report {
            set: Some(SetId::parse(set).unwrap()),
            phase: if rollback.is_some() {
                Phase::Reverted
            } else {
                Phase::Committed
            },
            rollback,
            direction: DirectionSequence::new(7),
            ..Report::default()
        }
    }

    fn says(rollout: &mut Rollout, at: u64, name: &str, report: &Report) -> Option<Event> {
        let input = Input::Reported {
            device: &device(name),
            report,
            direction: DirectionSequence::new(7),
        };
        rollout.step(UnixSeconds::new(at), input).unwrap()
    }

    fn tick(rollout: &mut Rollout, at: u64) -> Option<Event> {
        rollout.step(UnixSeconds::new(at), Input::Tick).unwrap()
    }

    #[test]
    fn a_wave_is_offered_only_when_the_one_before_has_held() {
        let mut rollout = rollout();
        assert_eq!(rollout.offered_to(&device("b")), None);
        assert_eq!(
            says(&mut rollout, 1, "a", &report("set-2", None)),
            Some(Event::Noted)
        );
        assert_eq!(tick(&mut rollout, 10), None);
        assert_eq!(tick(&mut rollout, 11), Some(Event::Advanced));
        assert_eq!(rollout.offered_to(&device("b")), Some(Outcome::Pending));
        says(&mut rollout, 12, "b", &report("set-2", None));
        says(&mut rollout, 13, "c", &report("set-2", None));
        assert_eq!(tick(&mut rollout, 23), Some(Event::Completed));
    }

    #[test]
    fn a_rolled_back_canary_halts_the_rollout_and_the_others_are_never_offered() {
        let mut rollout = rollout();
        let event = says(&mut rollout, 1, "a", &report("set-1", Some(Code::Unhealthy)));
        assert_eq!(event, Some(Event::Halted));
        assert_eq!(rollout.halted_because, Some(Code::Unhealthy));
        assert_eq!(tick(&mut rollout, 1000), None);
        assert_eq!(rollout.offered_to(&device("b")), None);
    }

    #[test]
    fn a_rollback_of_an_earlier_direction_does_not_count() {
        let mut rollout = rollout();
        let old = Report {
            direction: DirectionSequence::new(6),
            ..report("set-1", Some(Code::Unhealthy))
        };
        assert_eq!(says(&mut rollout, 1, "a", &old), None);
        assert_eq!(rollout.state, State::Running);
    }

    #[test]
    fn a_refusal_counts_when_no_waiting_ends_it() {
        let mut rollout = rollout();
        let waits = Report {
            refusal: Some(Code::RingNotOpen),
            ..report("set-1", None)
        };
        assert_eq!(says(&mut rollout, 1, "a", &waits), None);
        let denied = Report {
            refusal: Some(Code::DeniedAfterTrial),
            ..report("set-1", None)
        };
        assert_eq!(says(&mut rollout, 2, "a", &denied), Some(Event::Halted));
        assert_eq!(rollout.halted_because, Some(Code::DeniedAfterTrial));
    }

    #[test]
    fn silence_until_the_deadline_is_a_failure() {
        let mut rollout = rollout();
        assert_eq!(tick(&mut rollout, 99), None);
        assert_eq!(tick(&mut rollout, 100), Some(Event::Halted));
        assert_eq!(rollout.halted_because, Some(Code::DeadlinePassed));
    }

    #[test]
    fn a_paused_rollout_offers_nothing_and_a_resumed_one_goes_on() {
        let mut rollout = rollout();
        rollout.step(UnixSeconds::new(1), Input::Pause).unwrap();
        says(&mut rollout, 2, "a", &report("set-2", None));
        assert_eq!(tick(&mut rollout, 50), None);
        assert_eq!(
            rollout.step(UnixSeconds::new(51), Input::Pause),
            Err(WrongState(State::Paused))
        );
        rollout.step(UnixSeconds::new(51), Input::Resume).unwrap();
        assert_eq!(tick(&mut rollout, 52), None);
        assert_eq!(tick(&mut rollout, 62), Some(Event::Advanced));
    }

    #[test]
    fn an_aborted_rollout_stays_so() {
        let mut rollout = rollout();
        rollout.step(UnixSeconds::new(1), Input::Abort).unwrap();
        assert_eq!(
            rollout.step(UnixSeconds::new(2), Input::Resume),
            Err(WrongState(State::Aborted))
        );
        assert_eq!(tick(&mut rollout, 1000), None);
    }

    fn named(name: &str) -> OperatorName {
        OperatorName::parse(name).unwrap()
    }

    #[test]
    fn nothing_beyond_the_first_wave_is_offered_before_a_second_person_agrees() {
        let mut rollout = rollout().asking(named("alice"));
        let first: Vec<DeviceId> = rollout.waves[0].devices.keys().cloned().collect();
        for outcome in rollout.waves[0].devices.values_mut() {
            *outcome = Outcome::Succeeded;
        }
        assert!(!first.is_empty());
        for at in [1, 50, 1_000_000] {
            rollout.step(UnixSeconds::new(at), Input::Tick).unwrap();
            assert_eq!((rollout.state, rollout.wave), (State::Running, 0), "at {at}");
        }
        assert_eq!(rollout.approve(&named("alice")), Err(NoApproval::Own));
        assert_eq!(rollout.approve(&named("bob")), Ok(()));
        assert_eq!(rollout.approve(&named("carol")), Err(NoApproval::NotAsked));
        let event = rollout.step(UnixSeconds::new(1_000_001), Input::Tick).unwrap();
        assert_eq!((event, rollout.wave), (Some(Event::Advanced), 1));
    }

    #[test]
    fn there_is_nothing_to_agree_to_when_nobody_asked_or_it_has_ended() {
        let mut unasked = rollout();
        assert_eq!(unasked.approve(&named("bob")), Err(NoApproval::NotAsked));
        let mut aborted = rollout().asking(named("alice"));
        aborted.step(UnixSeconds::new(1), Input::Abort).unwrap();
        assert_eq!(
            aborted.approve(&named("bob")),
            Err(NoApproval::Ended(State::Aborted))
        );
    }
}
