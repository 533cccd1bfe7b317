//! Versions that would rather end later.

use super::world::{World, member, set};
use crate::MemberRecord;
use crate::deadline::{DEFER_MAX, YIELD_WITHIN};
use redan_protocol::Millis;
use redan_protocol::report::Phase;

fn patient(version: u64, max_defer: Millis) -> MemberRecord {
    let mut member = member("acme/thermo", version);
    member.grant.upgrade.max_defer = max_defer;
    member
}

/// A device that runs version 1, which may put its end off for so long, and prepared version 2.
fn prepared(max_defer: Millis, defers: &[Millis]) -> World {
    let mut world = World::new();
    world.offer(set("one", 1, &[patient(1, max_defer)]));
    world.run();
    world.defers = defers.iter().map(|defer| Some(*defer)).collect();
    world.offer(set("two", 2, &[patient(2, max_defer)]));
    world.run_until(|world| world.phase() == Phase::Prepared);
    world
}

/// How long it takes until version 2 serves.
fn until_served(world: &mut World) -> Millis {
    let before = world.now;
    world.run_until(|world| world.serves("acme/thermo", 2));
    assert!(world.serves("acme/thermo", 2));
    Millis::new(world.now.millis() - before.millis())
}

#[test]
fn a_version_that_defers_is_waited_for_and_asked_again() {
    let defers = [Millis::seconds(20), Millis::seconds(5)];
    let mut world = prepared(Millis::seconds(60), &defers);
    let waited = until_served(&mut world);
    assert_eq!((waited, world.asked), (Millis::seconds(25), 3));
    world.run();
    assert_eq!(world.committed(), Some("two"));
}

#[test]
fn a_version_that_defers_for_ever_ends_when_its_grant_says() {
    for (max, held) in [
        (Millis::seconds(60), Millis::seconds(60)),
        (Millis::seconds(86_400), DEFER_MAX),
    ] {
        let mut world = prepared(max, &[Millis::seconds(7); 1000]);
        assert_eq!(until_served(&mut world), held);
    }
}

#[test]
fn a_version_that_may_not_defer_is_told_and_not_waited_for() {
    let mut world = prepared(Millis::new(0), &[Millis::seconds(600)]);
    let waited = until_served(&mut world);
    assert_eq!((waited, world.asked), (Millis::new(0), 1));
}

#[test]
fn an_executor_that_never_answers_holds_an_update_up_for_moments() {
    let mut world = World::new();
    world.mute = true;
    world.offer(set("one", 1, &[patient(1, Millis::new(0))]));
    world.run();
    world.offer(set("two", 2, &[patient(2, Millis::new(0))]));
    world.run_until(|world| world.phase() == Phase::Prepared);
    assert_eq!(until_served(&mut world), YIELD_WITHIN);
}

#[test]
fn a_newer_direction_does_not_wait_for_a_version_that_defers() {
    let mut world = prepared(Millis::seconds(600), &[Millis::seconds(600)]);
    world.offer(set("one", 3, &[patient(1, Millis::seconds(600))]));
    world.run();
    assert_eq!(world.committed(), Some("one"));
    assert!(!world.ever_served("acme/thermo", 2));
}

#[test]
fn going_back_asks_nobody() {
    let mut world = prepared(Millis::seconds(600), &[]);
    world.run_until(|world| world.serves("acme/thermo", 2));
    let asked = world.asked;
    world.guest("acme/thermo", 2, super::world::Guest::Unhealthy);
    world.run();
    assert!(world.serves("acme/thermo", 1));
    assert_eq!(world.asked, asked);
}
