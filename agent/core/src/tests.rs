//! The machine on virtual time: the straight path, every way back, and power cuts after every effect.

mod cadence;
mod defer;
mod power;
mod world;

use crate::{Input, State};
use redan_protocol::report::Phase;
use redan_protocol::{Code, Digest, DirectionSequence, PublisherName};
use world::{Guest, World, member, set};

/// A device that runs `one` (acme/thermo 1, acme/tick 1) for good.
fn settled() -> World {
    let mut world = World::new();
    world.offer(set("one", 1, &[member("acme/thermo", 1), member("acme/tick", 1)]));
    world.run();
    assert_eq!(world.phase(), Phase::Committed);
    world
}

#[test]
fn a_set_is_fetched_linked_probed_tried_and_committed() {
    let world = settled();
    assert_eq!(world.serving(), [("acme/thermo", 1), ("acme/tick", 1)]);
    assert_eq!(world.committed(), Some("one"));
    assert_eq!(world.linked(), 2);
}

#[test]
fn what_is_suspended_has_no_traffic_and_goes_on_where_it_was() {
    let mut world = settled();
    world.input(Input::Suspended(true));
    world.run();
    assert_eq!(world.serving(), []);
    assert_eq!(world.linked(), 2, "stopped, and not taken out");
    assert_eq!(world.committed(), Some("one"));
    world.input(Input::Suspended(false));
    world.run();
    assert_eq!(world.serving(), [("acme/thermo", 1), ("acme/tick", 1)]);
}

#[test]
fn a_trial_that_was_suspended_is_no_failed_trial() {
    let mut world = settled();
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]));
    world.run_until(|world| world.phase() == Phase::Trial && world.serves("acme/thermo", 2));
    world.input(Input::Suspended(true));
    for _ in 0..1_000 {
        world.advance();
    }
    assert_eq!(world.phase(), Phase::Trial);
    assert_eq!(world.serving(), []);
    world.input(Input::Suspended(false));
    world.run();
    assert_eq!(world.committed(), Some("two"));
    assert_eq!(world.machine().denied(), []);
}

#[test]
fn the_version_before_stays_linked_until_the_commit() {
    let mut world = settled();
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]));
    world.run_until(|world| world.phase() == Phase::Trial && world.serves("acme/thermo", 2));
    assert_eq!(world.linked(), 3);
    world.run();
    assert_eq!(world.committed(), Some("two"));
    assert_eq!(world.serving(), [("acme/thermo", 2), ("acme/tick", 1)]);
    assert_eq!(world.linked(), 2);
}

#[test]
fn a_version_that_fails_its_first_probe_never_gets_traffic() {
    let mut world = settled();
    world.guest("acme/thermo", 2, Guest::Unhealthy);
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 2)]));
    world.run();
    assert_eq!(world.phase(), Phase::Reverted);
    assert_eq!(world.machine().view().rollback, Some(Code::Unhealthy));
    assert!(!world.ever_served("acme/thermo", 2));
    assert!(
        !world.ever_served("acme/tick", 2),
        "a set adopts whole or not at all"
    );
    assert_eq!(world.committed(), Some("one"));
    let denied: Vec<Digest> = world
        .machine()
        .denied()
        .iter()
        .map(|denied| denied.digest)
        .collect();
    assert_eq!(
        denied,
        [member("acme/thermo", 2).digest],
        "only the member at fault is denied"
    );
}

#[test]
fn host_signals_outrank_the_word_of_the_guest() {
    let mut world = settled();
    world.guest("acme/thermo", 2, Guest::HealthyButFailing);
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 2)]));
    world.run();
    assert!(world.ever_served("acme/thermo", 2));
    assert_eq!(world.machine().view().rollback, Some(Code::ErrorRate));
    assert_eq!(world.serving(), [("acme/thermo", 1), ("acme/tick", 1)]);
}

/// Attack A04: what makes a device check in before its time is what its updates do (`news` in the agent's main loop), never how much a
/// workload has to do or how often it fails.
#[test]
fn nothing_a_committed_workload_does_or_suffers_is_news() {
    let mut world = settled();
    let news = |world: &World| {
        let view = world.machine().view();
        (view.set.cloned(), view.rollback, view.refusal, view.phase)
    };
    let before = news(&world);
    for guest in [Guest::HealthyButFailing, Guest::Unhealthy, Guest::Healthy] {
        world.guest("acme/thermo", 1, guest);
        world.guest("acme/tick", 1, guest);
        world.run();
        assert_eq!(news(&world), before, "{guest:?}");
    }
    // Positive control: on trial, the same is news.
    world.guest("acme/thermo", 2, Guest::HealthyButFailing);
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]));
    world.run();
    assert_ne!(news(&world), before);
}

#[test]
fn a_denied_digest_is_not_tried_again_unless_a_newer_direction_unblocks_it() {
    let mut world = settled();
    world.guest("acme/thermo", 2, Guest::Unhealthy);
    let two = set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]);
    world.offer(two.clone());
    world.run();
    world.offer(two.clone());
    world.run();
    assert_eq!(world.machine().view().refusal, Some(Code::DeniedAfterTrial));
    world.guest("acme/thermo", 2, Guest::Healthy);
    let mut again = set("two", 3, &[member("acme/thermo", 2), member("acme/tick", 1)]);
    again.unblocked = vec![member("acme/thermo", 2).digest];
    world.offer(again);
    world.run();
    assert_eq!(world.committed(), Some("two"));
}

#[test]
fn what_fails_again_after_it_was_unblocked_is_denied_again_under_the_same_direction() {
    let mut world = settled();
    world.guest("acme/thermo", 2, Guest::Unhealthy);
    let members = [member("acme/thermo", 2), member("acme/tick", 1)];
    world.offer(set("two", 2, &members));
    world.run();
    let mut again = set("two", 3, &members);
    again.unblocked = vec![member("acme/thermo", 2).digest];
    world.offer(again.clone());
    world.run();
    assert_eq!(world.machine().view().rollback, Some(Code::Unhealthy));
    world.guest("acme/thermo", 2, Guest::Healthy);
    world.offer(again);
    world.run();
    assert_eq!(world.machine().view().refusal, Some(Code::DeniedAfterTrial));
    assert_ne!(world.committed(), Some("two"));
}

/// Else the next rollout would halt for what happened in the one before.
#[test]
fn a_rollback_is_no_news_of_a_newer_direction_that_is_refused_or_under_way() {
    let mut world = settled();
    world.guest("acme/thermo", 2, Guest::Unhealthy);
    let members = [member("acme/thermo", 2), member("acme/tick", 1)];
    world.offer(set("two", 2, &members));
    world.run();
    assert_eq!(world.machine().view().rollback, Some(Code::Unhealthy));
    world.offer(set("two", 3, &members));
    world.run();
    let view = world.machine().view();
    assert_eq!(
        (view.refusal, view.rollback),
        (Some(Code::DeniedAfterTrial), None)
    );
    world.offer(set(
        "three",
        4,
        &[member("acme/thermo", 3), member("acme/tick", 1)],
    ));
    world.run_until(|world| matches!(world.state(), State::Stored(_)));
    assert_eq!(world.machine().view().rollback, None);
}

#[test]
fn an_executor_that_dies_during_trial_counts_an_attempt_and_then_reverts() {
    let mut world = settled();
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]));
    for attempt in 1..=2 {
        world.run_until(|world| {
            matches!(world.state(), State::Trial(_, n) if *n == attempt) && world.serves("acme/thermo", 2)
        });
        world.kill(&PublisherName::parse("acme").unwrap());
    }
    world.run();
    assert_eq!(world.machine().view().rollback, Some(Code::TrialAttempts));
    assert_eq!(world.serving(), [("acme/thermo", 1), ("acme/tick", 1)]);
}

#[test]
fn a_committed_workload_is_loaded_again_when_its_executor_dies() {
    let mut world = settled();
    world.kill(&PublisherName::parse("acme").unwrap());
    assert_eq!(world.serving(), []);
    world.run();
    assert_eq!(world.serving(), [("acme/thermo", 1), ("acme/tick", 1)]);
}

#[test]
fn a_newer_direction_cancels_a_set_that_is_not_on_trial_yet() {
    let mut world = settled();
    world.network(Some(Code::Unreachable));
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]));
    world.run_until(|world| world.phase() == Phase::Waiting);
    world.network(None);
    world.offer(set(
        "three",
        3,
        &[member("acme/thermo", 3), member("acme/tick", 1)],
    ));
    world.run();
    assert_eq!(world.committed(), Some("three"));
    assert!(!world.ever_served("acme/thermo", 2));
}

#[test]
fn bytes_that_are_not_the_signed_ones_are_refused_but_not_held_against_the_digest() {
    let mut world = settled();
    world.network(Some(Code::DigestMismatch));
    let two = set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]);
    world.offer(two.clone());
    world.run();
    assert_eq!(world.machine().view().refusal, Some(Code::DigestMismatch));
    assert_eq!(world.phase(), Phase::Committed);
    assert_eq!(world.machine().denied(), []);
    world.network(None);
    world.offer(two);
    world.run();
    assert_eq!(world.committed(), Some("two"));
}

#[test]
fn a_set_of_which_any_one_member_is_withheld_changes_nothing() {
    // The attacker delivers a part of a set; after a power cut, too, nothing of it runs.
    let two = [member("acme/thermo", 2), member("acme/tick", 2)];
    for withheld in &two {
        let mut world = settled();
        world.withhold(std::slice::from_ref(withheld));
        world.offer(set("two", 2, &two));
        world.run();
        assert_eq!(world.machine().view().refusal, Some(Code::ArtifactMissing));
        for _ in 0..2 {
            assert_eq!(world.committed(), Some("one"));
            assert_eq!(world.serving(), [("acme/thermo", 1), ("acme/tick", 1)]);
            assert!(!world.ever_served("acme/thermo", 2) && !world.ever_served("acme/tick", 2));
            world.reboot();
            world.run();
        }
        // The same flow without the attack.
        world.withhold(&[]);
        world.offer(set("two", 3, &two));
        world.run();
        assert_eq!(world.committed(), Some("two"));
        assert_eq!(world.serving(), [("acme/thermo", 2), ("acme/tick", 2)]);
    }
}

#[test]
fn a_refusal_ends_what_is_not_on_trial_and_what_runs_goes_on() {
    let mut world = settled();
    world.network(Some(Code::Unreachable));
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]));
    world.run_until(|world| world.phase() == Phase::Waiting);
    world.input(Input::Refused {
        sequence: DirectionSequence::new(3),
        code: Code::Revoked,
    });
    world.run();
    assert_eq!(world.machine().view().refusal, Some(Code::Revoked));
    assert_eq!(world.serving(), [("acme/thermo", 1), ("acme/tick", 1)]);
}

#[test]
fn going_back_does_not_wait_for_a_full_disk() {
    let mut world = settled();
    world.guest("acme/thermo", 2, Guest::HealthyButFailing);
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]));
    world.run_until(|world| world.serves("acme/thermo", 2));
    world.disk(Some(Code::DiskFull));
    world.run_until(|world| world.serves("acme/thermo", 1));
    world.disk(None);
    world.run();
    assert_eq!(world.phase(), Phase::Reverted);
}

#[test]
fn nothing_new_is_done_while_the_journal_cannot_be_written() {
    let mut world = settled();
    world.disk(Some(Code::DiskFull));
    world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]));
    world.run();
    assert_eq!(world.machine().view().refusal, Some(Code::DiskFull));
    assert!(!world.has_blob("acme/thermo", 2));
    assert_eq!(world.serving(), [("acme/thermo", 1), ("acme/tick", 1)]);
}

#[test]
fn a_component_that_left_the_set_stops_and_one_that_failed_alone_leaves_nothing() {
    let mut world = settled();
    world.offer(set("two", 2, &[member("acme/thermo", 2)]));
    world.run();
    assert_eq!(world.serving(), [("acme/thermo", 2)]);
    let mut empty = World::new();
    empty.guest("acme/thermo", 1, Guest::HealthyButFailing);
    empty.offer(set("one", 1, &[member("acme/thermo", 1)]));
    empty.run();
    assert_eq!(empty.serving(), []);
    assert_eq!(empty.machine().view().rollback, Some(Code::ErrorRate));
}
