//! Which signed release set a device should run: computed from the rollouts, never stored, so that a pause acts at once.

use crate::rollout::{Outcome, Rollout, State};
use redan_protocol::DeviceId;

/// The rollout whose set a device is directed to; `None`: nothing. `rollouts` in the order they were started.
///
/// A newer rollout of the same set says nothing to a device before it is that device's turn: neither its number nor what it unblocks.
pub fn desired<'a>(rollouts: &'a [Rollout], device: &DeviceId) -> Option<&'a Rollout> {
    rollouts.iter().rev().find(|rollout| wanted_by(rollout, device))
}

/// Whether a rollout has a say for a device: it was offered, and it has not failed there. A rollout that halted or was aborted
/// keeps its say only where it has succeeded; everybody else stays on what an earlier rollout brought.
fn wanted_by(rollout: &Rollout, device: &DeviceId) -> bool {
    match (rollout.state, rollout.offered_to(device)) {
        (State::Running | State::Paused | State::Complete, Some(Outcome::Pending | Outcome::Succeeded))
        | (State::Halted | State::Aborted, Some(Outcome::Succeeded)) => true,
        (_, None | Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Input, Rules};
    use redan_protocol::report::{Phase, Report};
    use redan_protocol::{Code, Digest, DirectionSequence, Seconds, SetId, UnixSeconds};

    fn device(name: &str) -> DeviceId {
        DeviceId::parse(name).unwrap()
    }

    fn rollout(id: u64, set: &str, waves: &[&[&str]]) -> Rollout {
        let rules = Rules {
            failure_threshold: 1,
            soak: Seconds::new(0),
            deadline: Seconds::new(100),
        };
        let waves = waves
            .iter()
            .map(|names| (String::new(), names.iter().map(|name| device(name)).collect()));
        Rollout::start(
            id,
            SetId::parse(set).unwrap(),
            waves.collect(),
            rules,
            UnixSeconds::new(0),
        )
    }

    fn named(rollouts: &[Rollout], device: &DeviceId) -> Option<SetId> {
        desired(rollouts, device).map(|rollout| rollout.set.clone())
    }

    fn set(name: &str) -> SetId {
        SetId::parse(name).unwrap()
    }

    #[test]
    fn the_newest_rollout_that_offers_wins() {
        let rollouts = [
            rollout(1, "one", &[&["a", "b"]]),
            rollout(2, "two", &[&["a"], &["b"]]),
        ];
        assert_eq!(named(&rollouts, &device("a")), Some(set("two")));
        assert_eq!(named(&rollouts, &device("b")), Some(set("one")));
        assert_eq!(named(&rollouts, &device("c")), None);
    }

    #[test]
    fn a_halted_rollout_sends_its_failures_back_to_what_was_before() {
        let mut rollouts = [
            rollout(1, "one", &[&["a", "b"]]),
            rollout(2, "two", &[&["a"], &["b"]]),
        ];
        let report = Report {
            rollback: Some(Code::Unhealthy),
            phase: Phase::Reverted,
            ..Report::default()
        };
        let direction = DirectionSequence::new(0);
        let input = Input::Reported {
            device: &device("a"),
            report: &report,
            direction,
        };
        rollouts[1].step(UnixSeconds::new(1), input).unwrap();
        assert_eq!(rollouts[1].state, State::Halted);
        assert_eq!(named(&rollouts, &device("a")), Some(set("one")));
        assert_eq!(named(&rollouts, &device("b")), Some(set("one")));
    }

    #[test]
    fn what_a_rollout_unblocks_is_said_to_a_device_when_it_is_its_turn() {
        let digest = Digest::of(b"2");
        let mut again = rollout(2, "one", &[&["a"], &["b"]]).unblocking([digest].into());
        let first = rollout(1, "one", &[&["a", "b"]]);
        let said = |rollouts: &[Rollout], name| {
            let found = desired(rollouts, &device(name)).unwrap();
            (found.id, found.unblocked.contains(&digest))
        };
        let rollouts = [first.clone(), again.clone()];
        assert_eq!(said(&rollouts, "a"), (2, true));
        assert_eq!(said(&rollouts, "b"), (1, false));
        again.step(UnixSeconds::new(1), Input::Abort).unwrap();
        assert_eq!(said(&[first, again], "a"), (1, false), "taken back");
    }
}
