//! Properties of `decide()` over many offers, against rules written down a second time as plain comparisons.

use crate::maker::NOW;
use crate::scene::{Scene, device, sets};
use proptest::prelude::*;
use redan_protocol::{Code, DirectionSequence, Permille, ReleaseCounter, Seconds, UnixSeconds};
use redan_trust::release_set::{Ring, bucket};
use std::collections::BTreeSet;

/// Everything a rule compares, near its border.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one independent coin")]
struct Case {
    counter: u64,
    floor: u64,
    committed: Option<u64>,
    rollback_allowed: bool,
    sequence: u64,
    followed: u64,
    start: i64,
    deadline: Option<i64>,
    /// Below the device's bucket, its own, above.
    first_share: i32,
    opens_after: u64,
    plan_known: u64,
    policy_serial: u64,
    revoked: bool,
    denied: bool,
    unblocked: bool,
    fresh: bool,
    hardware: bool,
}

prop_compose! {
    fn cases()(
        counters in (4..7_u64, 4..7_u64, proptest::option::of(4..7_u64), any::<bool>()),
        sequences in (1..4_u64, 1..4_u64),
        start in -1..2_i64,
        deadline in proptest::option::of(-1..2_i64),
        ring in (-1..2_i32, 0..3_u64, 0..3_u64),
        policy_serial in 3..6_u64,
        digests in (prop::bool::weighted(0.1), prop::bool::weighted(0.3), any::<bool>()),
        fresh in prop::bool::weighted(0.9),
        hardware in prop::bool::weighted(0.9),
    ) -> Case {
        let (counter, floor, committed, rollback_allowed) = counters;
        let (sequence, followed) = sequences;
        let (first_share, opens_after, plan_known) = ring;
        let (revoked, denied, unblocked) = digests;
        Case {
            counter, floor, committed, rollback_allowed, sequence, followed, start, deadline, first_share,
            opens_after, plan_known, policy_serial, revoked, denied, unblocked, fresh, hardware,
        }
    }
}

fn beside_now(by: i64) -> UnixSeconds {
    UnixSeconds::new(NOW.get().saturating_add_signed(by))
}

impl Case {
    fn scene(&self) -> Scene {
        let mut scene = Scene::new();
        scene.record.counter = ReleaseCounter::new(self.counter);
        if !self.hardware {
            scene.record.hardware = vec!["router".into()];
        }
        let mut scene = scene.resigned();
        scene.floor = self.floor;
        if let Some(committed) = self.committed {
            let component = scene.record.component.clone();
            scene
                .state
                .committed
                .insert(component, ReleaseCounter::new(committed));
        }
        if self.rollback_allowed {
            scene.state.rollback_sets = sets(&["set-1"]);
        }
        scene.direction.sequence = DirectionSequence::new(self.sequence);
        scene.state.sequence = DirectionSequence::new(self.followed);
        scene.direction.not_before = beside_now(self.start);
        scene.direction.deadline = self.deadline.map_or(UnixSeconds::new(0), beside_now);
        let ring = |share: u16, opens_after| Ring {
            share: Permille::new(share).unwrap(),
            opens_after: Seconds::new(opens_after),
            soak: Seconds::new(0),
        };
        let first = (i32::from(bucket(&scene.set.id, &device())) + self.first_share).clamp(1, 999);
        scene.set.rings = vec![
            ring(u16::try_from(first).unwrap(), 0),
            ring(1000, self.opens_after),
        ];
        scene.facts.plan_known = Seconds::new(self.plan_known);
        scene.state.policy_serial = self.policy_serial;
        let digest = scene.digest();
        if self.revoked {
            scene.revoked = vec![digest];
        }
        if self.denied {
            scene.state.denied.insert(digest);
        }
        if self.unblocked {
            scene.direction.unblocked = vec![digest];
        }
        if !self.fresh {
            scene.statement = None;
        }
        scene
    }

    /// Every rule this case breaks.
    fn broken(&self) -> BTreeSet<Code> {
        let in_first_ring = self.first_share > 0;
        let rules = [
            (self.sequence < self.followed, Code::DirectionReplayed),
            (self.start > 0, Code::NotYet),
            (self.deadline.is_some_and(|at| at <= 0), Code::DirectionExpired),
            (self.counter < self.floor, Code::BelowFloor),
            (
                !self.rollback_allowed && self.committed.is_some_and(|committed| self.counter < committed),
                Code::BelowCommitted,
            ),
            (
                !in_first_ring && self.plan_known < self.opens_after,
                Code::RingNotOpen,
            ),
            (self.policy_serial > 4, Code::PolicyRollback),
            (self.revoked, Code::Revoked),
            (
                self.denied && !(self.unblocked && self.sequence > self.followed),
                Code::DeniedAfterTrial,
            ),
            (!self.fresh, Code::NotFresh),
            (!self.hardware, Code::WrongHardware),
        ];
        rules
            .into_iter()
            .filter_map(|(broken, code)| broken.then_some(code))
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn an_offer_is_planned_exactly_when_no_rule_is_broken(case in cases()) {
        let scene = case.scene();
        let broken = case.broken();
        match scene.decide() {
            Ok(Some(plan)) => {
                prop_assert!(broken.is_empty(), "{broken:?}");
                prop_assert_eq!(plan.members().len(), 1);
                prop_assert_eq!(plan.members()[0].digest(), scene.digest());
            }
            Ok(None) => prop_assert!(false, "something was directed"),
            Err(refusal) => prop_assert!(broken.contains(&refusal.code()), "{refusal:?} {broken:?}"),
        }
    }

    #[test]
    fn a_document_with_one_byte_changed_is_never_adopted(at in 0..400_usize, by in 1..=255_u8, policy in any::<bool>()) {
        let mut scene = Scene::new();
        scene.spoil_offer = Box::new(move |offered| {
            let document = if policy { &mut offered.policy } else { &mut offered.plan };
            let bytes = &mut document.as_mut().unwrap().bytes;
            let at = at % bytes.len();
            bytes[at] ^= by;
        });
        let code = scene.decide().unwrap_err().code();
        prop_assert_eq!(code, if policy { Code::PolicyRollback } else { Code::SetInvalid });
    }
}
