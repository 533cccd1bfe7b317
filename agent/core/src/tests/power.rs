//! Power is cut after every effect of a whole update, once, and then at random, again and again.

use super::world::{Guest, Work, World, member, set};
use proptest::prelude::*;
use redan_protocol::report::Phase;

/// One, then two; `two` does well or not.
fn update(guest: Guest) -> World {
    let mut world = World::new();
    world.offer(set("one", 1, &[member("acme/thermo", 1), member("acme/tick", 1)]));
    world.run();
    world.guest("acme/thermo", 2, guest);
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 2)]));
    world
}

/// The director's word comes again at every check-in, until the device has settled.
fn recover(world: &mut World) {
    for _ in 0..4 {
        world.run();
        assert!(world.committed().is_some(), "the committed set is lost");
        assert!(
            matches!(world.phase(), Phase::Committed | Phase::Reverted),
            "{:?}",
            world.state()
        );
        let serving = world.serving();
        match world.committed() {
            Some("one") => assert_eq!(serving, [("acme/thermo", 1), ("acme/tick", 1)]),
            _ => assert_eq!(serving, [("acme/thermo", 2), ("acme/tick", 2)]),
        }
        world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 2)]));
    }
    world.run();
}

fn settled_as(world: &World, guest: Guest, cuts: usize) {
    let trial_was_cut = world
        .machine()
        .denied()
        .iter()
        .any(|denied| denied.code == redan_protocol::Code::TrialAttempts);
    let expected = if guest == Guest::Healthy && !trial_was_cut {
        "two"
    } else {
        "one"
    };
    assert_eq!(world.committed(), Some(expected), "after {cuts} cuts");
    if guest == Guest::Healthy {
        assert!(
            cuts > 1 || !trial_was_cut,
            "one cut is within the budget of a trial"
        );
    }
}

#[test]
fn a_power_cut_after_any_effect_is_recovered_from() {
    for guest in [Guest::Healthy, Guest::Unhealthy, Guest::HealthyButFailing] {
        let mut whole = update(guest);
        let start = whole.performed;
        recover(&mut whole);
        let effects = whole.performed - start;
        for cut in 0..effects {
            let mut world = update(guest);
            for _ in 0..cut {
                world.advance();
            }
            world.reboot();
            recover(&mut world);
            settled_as(&world, guest, 1);
        }
    }
}

/// Attack D05, which wants a device back within two seconds. How long a start takes, a machine decides; how much it does is decided here:
/// before everything serves, each of the two sets' members is linked once at most and one record written; no probe and no download is
/// waited for, but one download that was cut off may begin beside it.
#[test]
fn the_work_of_a_start_after_a_power_cut_is_bounded_by_its_slots_wherever_power_was_cut() {
    const MEMBERS: usize = 2;
    let mut most = Work::default();
    for guest in [Guest::Healthy, Guest::Unhealthy, Guest::HealthyButFailing] {
        let mut whole = update(guest);
        let start = whole.performed;
        recover(&mut whole);
        let effects = whole.performed - start;
        for cut in 0..effects {
            let mut world = update(guest);
            for _ in 0..cut {
                world.advance();
            }
            world.network(Some(redan_protocol::Code::Unreachable));
            world.reboot();
            world.run_until(|world| world.serving().len() == MEMBERS);
            assert_eq!(world.serving().len(), MEMBERS, "{guest:?}, cut {cut}");
            most = Work {
                loads: most.loads.max(world.work.loads),
                records: most.records.max(world.work.records),
                fetches: most.fetches.max(world.work.fetches),
                probes: most.probes.max(world.work.probes),
            };
        }
    }
    let bound = Work {
        loads: 2 * MEMBERS,
        records: 1,
        fetches: 1,
        probes: 0,
    };
    assert_eq!(most, bound);
}

#[test]
fn what_was_committed_runs_again_with_no_network_and_no_director() {
    let mut world = update(Guest::Healthy);
    world.run();
    world.network(Some(redan_protocol::Code::Unreachable));
    world.reboot();
    world.run();
    assert_eq!(world.serving(), [("acme/thermo", 2), ("acme/tick", 2)]);
    assert_eq!(world.phase(), Phase::Committed);
}

#[test]
fn an_unchanged_boot_writes_nothing() {
    let mut world = update(Guest::Healthy);
    world.run();
    let before = world.journal.clone();
    world.reboot();
    world.run();
    assert_eq!(world.journal, before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_number_of_power_cuts_at_any_place_is_recovered_from(
        cuts in prop::collection::vec(0_usize..40, 1..8),
        which in 0_usize..3,
    ) {
        let guest = [Guest::Healthy, Guest::Unhealthy, Guest::HealthyButFailing][which];
        let mut world = update(guest);
        for cut in &cuts {
            for _ in 0..*cut {
                world.advance();
            }
            world.reboot();
        }
        recover(&mut world);
        settled_as(&world, guest, cuts.len());
    }
}
