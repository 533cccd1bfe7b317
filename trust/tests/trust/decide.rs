//! The nine rules, one after another (docs/trust.md). First line of each scene: what is wrong.

use crate::maker::{NOW, Repo, Signer};
use crate::scene::{FLEET, Scene, device, fleet, member, sets};
use redan_policy::grant::World;
use redan_protocol::{
    ComponentName, Digest, DirectionSequence, Permille, ReleaseCounter, Seconds, SpiffeId, UnixSeconds,
};
use redan_trust::custom::{ASK_LEN_MAX, Requirement};
use redan_trust::metadata::Malformed;
use redan_trust::release_set::{MEMBERS_MAX, RINGS_MAX, Ring, bucket};
use redan_trust::{Refusal, TufError};
use serde_json::{Value, json};

fn refused(edit: impl FnOnce(&mut Scene)) -> Refusal {
    let mut scene = Scene::new();
    edit(&mut scene);
    scene.decide().unwrap_err()
}

fn name(text: &str) -> ComponentName {
    ComponentName::parse(text).unwrap()
}

fn thermo() -> ComponentName {
    name("acme/thermo")
}

#[test]
fn a_good_offer_is_planned_whole() {
    let scene = Scene::new();
    let plan = scene.decide().unwrap().unwrap();
    let [only] = plan.members() else {
        panic!("one member")
    };
    assert_eq!((only.record(), only.digest()), (&scene.record, scene.digest()));
    assert_eq!(only.length().get(), 14);
    assert_eq!((plan.set(), plan.policy_serial()), (&scene.set, 4));
    // The fleet policy says 16 MiB, the ask 32.
    assert_eq!(only.grant().limits.memory_total.get(), 16 * 1024 * 1024);
}

#[test]
fn nothing_directed_is_nothing_to_do() {
    let mut scene = Scene::new();
    scene.spoil_director = Box::new(|repo| repo.document("targets")["targets"] = json!({}));
    assert_eq!(scene.decide(), Ok(None));
}

#[test]
fn a_metadata_of_another_device_is_refused_also_when_it_directs_nothing() {
    // The attacker captured what the director signed for press-2.
    let other = SpiffeId::parse("spiffe://plant.example/device/press-2").unwrap();
    let wrong = |named: Option<&SpiffeId>| Refusal::WrongDevice {
        named: named.cloned(),
        device: device(),
    };
    let refusal = refused(|scene| {
        scene.spoil_director = Box::new(|repo| {
            repo.document("targets")["device"] = json!("spiffe://plant.example/device/press-2");
            repo.document("targets")["targets"] = json!({});
        });
    });
    assert_eq!(refusal, wrong(Some(&other)));
    let refusal = refused(|scene| {
        scene.spoil_director = Box::new(|repo| {
            repo.document("targets").as_object_mut().unwrap().remove("device");
        });
    });
    assert_eq!(refusal, wrong(None));
    let refusal = refused(|scene| scene.direction.device = other.clone());
    assert_eq!(refusal, wrong(Some(&other)));
}

#[test]
fn a_another_fleet_is_refused() {
    // The attacker owns another fleet with the same role names.
    let wrong = |found: &str| Refusal::WrongFleet {
        found: found.into(),
        fleet: fleet(FLEET),
    };
    for roots in [["b.example", FLEET], [FLEET, "b.example"]] {
        assert_eq!(refused(|scene| scene.roots = roots), wrong("b.example"));
    }
    assert_eq!(
        refused(|scene| scene.record.fleet = fleet("b.example")),
        wrong("b.example")
    );
}

/// `custom` of the one directed target.
fn only(repo: &mut Repo) -> &mut Value {
    let targets = repo.document("targets")["targets"].as_object_mut().unwrap();
    &mut targets.values_mut().next().unwrap()["custom"]
}

#[test]
fn a_an_unknown_or_missing_custom_field_is_refused() {
    let invalid = Refusal::CustomInvalid {
        path: Scene::new().path(),
    };
    let spoils: [fn(&mut Repo); 3] = [
        |repo| only(repo)["surprise"] = json!(1),
        |repo| only(repo)["direction"]["surprise"] = json!(1),
        |repo| *only(repo) = json!(null),
    ];
    for spoil in spoils {
        assert_eq!(refused(|scene| scene.spoil_director = Box::new(spoil)), invalid);
    }
}

#[test]
fn a_an_older_direction_is_refused() {
    let refusal = refused(|scene| scene.state.sequence = DirectionSequence::new(10));
    let replayed = Refusal::DirectionReplayed {
        offered: DirectionSequence::new(9),
        followed: DirectionSequence::new(10),
    };
    assert_eq!(refusal, replayed);
}

#[test]
fn a_a_direction_holds_from_its_start_to_its_deadline() {
    let at = UnixSeconds::new;
    let refusal = refused(|scene| scene.direction.not_before = at(NOW.get() + 1));
    let not_before = at(NOW.get() + 1);
    assert_eq!(refusal, Refusal::NotYet { not_before, now: NOW });
    let refusal = refused(|scene| scene.direction.deadline = NOW);
    assert_eq!(
        refusal,
        Refusal::DirectionExpired {
            deadline: NOW,
            now: NOW
        }
    );
    let mut scene = Scene::new();
    (scene.direction.not_before, scene.direction.deadline) = (NOW, not_before);
    assert!(scene.decide().is_ok());
}

#[test]
fn b_a_target_that_its_own_role_did_not_release_is_refused() {
    // The attacker holds the director's keys, or those of another role.
    let not_released = Refusal::NotReleased {
        path: Scene::new().path(),
    };
    let refusal = refused(|scene| {
        scene.spoil_release = Box::new(|repo| repo.document("component.acme.thermo")["targets"] = json!({}));
    });
    assert_eq!(refusal, not_released);
    let refusal = refused(|scene| {
        scene.spoil_release = Box::new(|repo| {
            let listed = repo.document("component.acme.thermo")["targets"].take();
            repo.document("targets")["targets"] = listed;
            repo.document("component.acme.thermo")["targets"] = json!({});
        });
    });
    assert_eq!(refusal, not_released, "listed by the top role itself");
}

#[test]
fn b_what_differs_between_the_repositories_is_refused() {
    let mismatch = Refusal::ReleaseMismatch {
        path: Scene::new().path(),
    };
    let spoils: [fn(&mut Value); 5] = [
        |entry| entry["length"] = json!(16),
        |entry| entry["hashes"]["sha256"] = json!("00".repeat(32)),
        |entry| entry["custom"]["match"]["counter"] = json!(6),
        |entry| entry["custom"]["match"]["ask"] = json!(""),
        |entry| entry["custom"]["match"]["hardware"] = json!([]),
    ];
    for (at, spoil) in spoils.into_iter().enumerate() {
        let refusal = refused(|scene| {
            scene.spoil_director = Box::new(move |repo| {
                let targets = repo.document("targets")["targets"].as_object_mut().unwrap();
                spoil(targets.values_mut().next().unwrap());
            });
        });
        assert_eq!(refusal, mismatch, "{at}");
    }
}

#[test]
fn b_a_target_under_any_but_its_one_name_is_refused() {
    for name in [
        "components/acme/thermo/1.0.0/x.wasm",
        "components/acme/thermo/../x.wasm",
        "components/acme/thermo/1.0.0/",
    ] {
        let rename = move |targets: &mut Value| {
            let entry = targets.as_object_mut().unwrap().values().next().unwrap().clone();
            *targets = json!({ name: entry });
        };
        let refusal = refused(|scene| {
            scene.spoil_release = Box::new(move |repo| {
                rename(&mut repo.document("component.acme.thermo")["targets"]);
            });
            scene.spoil_director = Box::new(move |repo| rename(&mut repo.document("targets")["targets"]));
        });
        assert_eq!(refusal, Refusal::ReleaseMismatch { path: name.into() });
    }
}

#[test]
fn b_an_ask_one_byte_over_the_limit_is_refused() {
    let mut scene = Scene::new();
    let spaces = ASK_LEN_MAX - scene.record.ask.len();
    scene.record.ask.push_str(&" ".repeat(spaces));
    assert!(scene.decide().is_ok());
    scene.record.ask.push(' ');
    let path = scene.path();
    assert_eq!(scene.decide(), Err(Refusal::ReleaseMismatch { path }));
}

#[test]
fn c_below_the_signed_floor_is_refused() {
    let refusal = refused(|scene| scene.floor = 6);
    let below = Refusal::BelowFloor {
        component: thermo(),
        offered: ReleaseCounter::new(5),
        floor: ReleaseCounter::new(6),
    };
    assert_eq!(refusal, below);
}

#[test]
fn c_below_what_was_committed_is_refused_but_for_allowed_rollback_sets() {
    let committed = ReleaseCounter::new(6);
    let refusal = refused(|scene| {
        scene.state.committed.insert(thermo(), committed);
    });
    let below = Refusal::BelowCommitted {
        component: thermo(),
        offered: ReleaseCounter::new(5),
        committed,
    };
    assert_eq!(refusal, below);
    let mut scene = Scene::new();
    scene.state.committed.insert(thermo(), committed);
    scene.state.rollback_sets = sets(&["set-1"]);
    assert!(scene.decide().is_ok());
    scene.floor = 6;
    assert!(
        matches!(scene.decide(), Err(Refusal::BelowFloor { .. })),
        "the floor holds for them too"
    );
}

#[test]
fn d_a_set_that_is_not_the_directed_one_is_refused() {
    let set = Scene::new().set.id;
    let invalid = Refusal::SetInvalid { set };
    let ring = |share, opens| Ring {
        share: Permille::new(share).unwrap(),
        opens_after: Seconds::new(opens),
        soak: Seconds::new(0),
    };
    let edits: [&dyn Fn(&mut Scene); 10] = [
        // MEMBERS_MAX and RINGS_MAX, and one.
        &|scene| scene.set.members = vec![scene.set.members[0].clone(); MEMBERS_MAX + 1],
        &|scene| {
            let shares = 1000 - u16::try_from(RINGS_MAX).unwrap()..=1000;
            scene.set.rings = shares.map(|share| ring(share, 0)).collect();
        },
        &|scene| scene.direction.set_digest = Digest::of(b"another"),
        &|scene| scene.set.fleet = fleet("other.example"),
        &|scene| scene.set.members.clear(),
        &|scene| scene.set.rings.clear(),
        &|scene| scene.set.rings = vec![ring(999, 0)],
        &|scene| scene.set.rings = vec![ring(500, 0), ring(500, 1), ring(1000, 2)],
        &|scene| scene.spoil_offer = Box::new(|offered| offered.plan = None),
        &|scene| scene.spoil_offer = Box::new(|offered| offered.plan.as_mut().unwrap().bytes[3] ^= 1),
    ];
    for (at, edit) in edits.into_iter().enumerate() {
        assert_eq!(refused(edit), invalid, "{at}");
    }
}

#[test]
fn d_a_direction_of_a_part_or_of_more_than_the_set_is_refused() {
    let set = Scene::new().set.id;
    let incomplete = Refusal::SetIncomplete { set };
    let mut other = Scene::new().record;
    other.component = name("acme/tick");
    let extra = member(&other, b"tick");
    assert_eq!(refused(|scene| scene.set.members.push(extra.clone())), incomplete);
    assert_eq!(
        refused(|scene| scene.set.members = vec![extra.clone()]),
        incomplete
    );
    assert_eq!(
        refused(|scene| scene.set.members[0].counter = ReleaseCounter::new(4)),
        incomplete
    );
    let twice = |scene: &mut Scene| scene.set.members.push(scene.set.members[0].clone());
    assert_eq!(refused(twice), incomplete);
}

#[test]
fn e_a_ring_opens_by_the_devices_own_clock_since_it_first_verified_the_plan() {
    // The attacker holds all online keys and offers to everybody at once.
    let (opens_after, waited) = (Seconds::new(60), Seconds::new(59));
    let mine = bucket(&Scene::new().set.id, &device());
    let rings = |scene: &mut Scene| {
        let ring = |share, opens_after| Ring {
            share: Permille::new(share).unwrap(),
            opens_after,
            soak: Seconds::new(0),
        };
        scene.set.rings = vec![
            ring(mine, Seconds::new(0)),
            ring(mine + 1, opens_after),
            ring(1000, Seconds::new(61)),
        ];
    };
    let refusal = refused(|scene| {
        rings(scene);
        scene.facts.plan_known = waited;
        scene.facts.now = crate::maker::NOW;
    });
    assert_eq!(refusal, Refusal::RingNotOpen { opens_after, waited });
    let mut scene = Scene::new();
    rings(&mut scene);
    scene.facts.plan_known = opens_after;
    assert!(scene.decide().is_ok());
}

#[test]
fn f_what_does_not_fit_the_device_is_refused() {
    let fit = |edit: fn(&mut Scene)| {
        let mut scene = Scene::new();
        edit(&mut scene);
        scene.resigned().decide().unwrap_err()
    };
    let refusal = fit(|scene| scene.record.hardware = vec!["router".into()]);
    let hardware = "gateway".to_owned();
    assert_eq!(
        refusal,
        Refusal::WrongHardware {
            component: thermo(),
            hardware
        }
    );
    let refusal = fit(|scene| scene.facts.worlds = vec![World::Command]);
    assert_eq!(
        refusal,
        Refusal::WrongWorld {
            component: thermo(),
            world: World::HttpProxy
        }
    );
    let needs: fn(&mut Scene) = |scene| {
        scene.record.requires = vec![Requirement {
            component: name("acme/bus"),
            counter: ReleaseCounter::new(2),
        }];
    };
    let unmet = Refusal::RequiresUnmet {
        component: thermo(),
        required: name("acme/bus"),
        counter: ReleaseCounter::new(2),
    };
    assert_eq!(fit(needs), unmet);
    let older = fit(|scene| {
        scene.record.requires = vec![Requirement {
            component: name("acme/bus"),
            counter: ReleaseCounter::new(2),
        }];
        scene
            .facts
            .installed
            .insert(name("acme/bus"), ReleaseCounter::new(1));
    });
    assert_eq!(older, unmet);
    let refusal = fit(|scene| {
        scene.record.conflicts = vec![name("acme/bus")];
        scene
            .facts
            .installed
            .insert(name("acme/bus"), ReleaseCounter::new(1));
    });
    assert_eq!(
        refusal,
        Refusal::Conflicts {
            component: thermo(),
            present: name("acme/bus")
        }
    );
}

#[test]
fn g_what_policy_does_not_admit_is_refused() {
    let refusal = refused(|scene| scene.names = "acme/other");
    assert!(matches!(refusal, Refusal::PolicyDenied { .. }), "{refusal:?}");
    assert_eq!(refusal.code(), redan_protocol::Code::SubjectNotAllowed);
    let mut scene = Scene::new();
    scene.record.ask = scene.record.ask.replace("\"acme/thermo\"", "\"acme/tick\"");
    let refusal = scene.resigned().decide().unwrap_err();
    assert_eq!(refusal, Refusal::AskMismatch { component: thermo() });
    let mut scene = Scene::new();
    scene.record.ask.push_str("surprise = 1\n");
    let refusal = scene.resigned().decide().unwrap_err();
    assert!(matches!(refusal, Refusal::PolicyInvalid(_)), "{refusal:?}");
}

#[test]
fn g_a_version_below_the_signed_minimum_is_refused() {
    // Nobody attacks: a version turned out to be dangerous, and its counter is above the floor.
    let refusal = refused(|scene| scene.min_version = Some("1.0.1"));
    let source = redan_policy::Denied::Revoked {
        file: redan_trust::POLICY_PATH.into(),
        component: thermo(),
        minimum: Box::new(semver::Version::new(1, 0, 1)),
        offered: Box::new(semver::Version::new(1, 0, 0)),
    };
    let wanted = Refusal::PolicyDenied {
        component: thermo(),
        source,
    };
    assert_eq!(refusal, wanted);
    assert_eq!(refusal.code(), redan_protocol::Code::VersionRevoked);
    for admits in ["1.0.0", "0.9.9", "1.0.0-rc.1"] {
        let mut scene = Scene::new();
        scene.min_version = Some(admits);
        assert!(scene.decide().is_ok(), "{admits}");
    }
}

#[test]
fn g_what_was_signed_too_long_ago_is_refused_by_proven_time() {
    // The attacker holds the director's keys, and an old release that nobody revoked.
    let within = Seconds::new(86_400);
    let day = "[require]\nask_signed_within = \"1d\"\n";
    let signed_before = |seconds: u64| Some(UnixSeconds::new(crate::maker::NOW.get() - seconds));
    for (signed, admitted) in [
        (signed_before(0), true),
        (signed_before(86_400), true),
        (signed_before(86_401), false),
        // Nobody says when: that is no promise that it is young.
        (None, false),
    ] {
        let mut scene = Scene::new();
        scene.more = day;
        scene.record.signed_at = signed;
        let scene = scene.resigned();
        let refusal = Refusal::SignedTooLongAgo {
            component: thermo(),
            signed,
            within,
        };
        assert_eq!(scene.decide().err(), (!admitted).then_some(refusal), "{signed:?}");
    }
    let mut scene = Scene::new();
    scene.record.signed_at = signed_before(86_401);
    assert!(
        scene.resigned().decide().is_ok(),
        "a fleet that does not ask takes it"
    );
}

#[test]
fn g_a_runtime_below_the_signed_minimum_adopts_nothing() {
    let more = "[runtime]\nmin = \"1.0.1\"\n";
    let refusal = refused(|scene| scene.more = more);
    let wanted = Refusal::RuntimeTooOld {
        minimum: semver::Version::new(1, 0, 1),
        runtime: semver::Version::new(1, 0, 0),
    };
    assert_eq!(refusal, wanted);
    let mut scene = Scene::new();
    scene.more = more;
    scene.facts.runtime = semver::Version::new(1, 0, 1);
    assert!(scene.decide().is_ok());
}

#[test]
fn g_an_older_missing_or_changed_fleet_policy_is_refused() {
    let rollback = |known| Refusal::PolicyRollback { known };
    assert_eq!(refused(|scene| scene.state.policy_serial = 5), rollback(5));
    assert_eq!(
        refused(|scene| scene.spoil_offer = Box::new(|offered| offered.policy = None)),
        rollback(0)
    );
    let changed = refused(|scene| {
        scene.spoil_offer = Box::new(|offered| offered.policy.as_mut().unwrap().bytes.push(b'\n'));
    });
    assert_eq!(changed, rollback(0));
    let borrowed =
        refused(|scene| scene.spoil_offer = Box::new(|offered| offered.policy.clone_from(&offered.plan)));
    assert_eq!(borrowed, rollback(0), "a document of another role");
}

#[test]
fn a_plan_carries_the_maximum_of_the_clock_that_its_policy_signers_set() {
    for maximum in [None, Some(2_000_000_000)] {
        let mut scene = Scene::new();
        scene.maximum = maximum;
        let plan = scene.decide().unwrap().unwrap();
        assert_eq!(plan.maximum_time(), maximum.map(UnixSeconds::new));
    }
}

#[test]
fn h_revoked_and_locally_denied_digests_are_refused() {
    let digest = Scene::new().digest();
    assert_eq!(
        refused(|scene| scene.revoked = vec![digest]),
        Refusal::Revoked { digest }
    );
    let denied = Refusal::DeniedAfterTrial { digest };
    assert_eq!(
        refused(|scene| {
            scene.state.denied.insert(digest);
        }),
        denied
    );
    let mut scene = Scene::new();
    scene.state.denied.insert(digest);
    scene.direction.unblocked = vec![digest];
    assert!(scene.decide().is_ok());
    scene.revoked = vec![digest];
    assert_eq!(
        scene.decide(),
        Err(Refusal::Revoked { digest }),
        "nobody who directs unblocks what is revoked"
    );
    scene.revoked = Vec::new();
    scene.state.sequence = scene.direction.sequence;
    assert_eq!(
        scene.decide(),
        Err(denied),
        "unblocked by the direction it failed under"
    );
}

#[test]
fn i_without_a_fresh_statement_about_these_versions_nothing_is_adopted() {
    // The attacker replays metadata and statements of an earlier session.
    let edits: [fn(&mut Scene); 6] = [
        |scene| scene.statement = None,
        |scene| scene.facts.nonce = None,
        |scene| scene.statement.as_mut().unwrap().nonce.0[0] ^= 1,
        |scene| {
            scene.statement.as_mut().unwrap().device =
                SpiffeId::parse("spiffe://plant.example/device/press-2").unwrap();
        },
        |scene| scene.statement.as_mut().unwrap().release = redan_protocol::Version64::new(2),
        |scene| scene.statement.as_mut().unwrap().director = redan_protocol::Version64::new(2),
    ];
    for (at, edit) in edits.into_iter().enumerate() {
        assert_eq!(refused(edit), Refusal::NotFresh, "{at}");
    }
}

#[test]
fn metadata_refusals_pass_through_with_their_code() {
    let refusal = refused(|scene| {
        scene.spoil_release =
            Box::new(|repo| drop(repo.signers.insert("plan".into(), vec![Signer::new("plan")])));
    });
    assert_eq!(refusal.code(), redan_protocol::Code::ThresholdNotMet);
    assert_eq!(refusal.remedy(), redan_protocol::Code::ThresholdNotMet.remedy());
    let refusal = refused(|scene| {
        scene.spoil_release = Box::new(|repo| repo.document("policy")["targets"] = json!(1));
    });
    let malformed = TufError::Malformed {
        role: "policy".into(),
        source: Malformed::Field,
    };
    assert_eq!(refusal, Refusal::Metadata(malformed));
}
