//! Sets of several members (attack U03), what outlives a reboot (T10), and names that want to be paths (T20).

use crate::maker::Repo;
use crate::scene::Scene;
use redan_protocol::{ComponentName, DirectionSequence, ReleaseCounter};
use redan_trust::custom::{ComponentRecord, Requirement};
use redan_trust::{Refusal, TrustRecord, TrustState};
use serde_json::{Value, json};

fn name(text: &str) -> ComponentName {
    ComponentName::parse(text).unwrap()
}

/// acme/tick beside acme/thermo, at counter 5 like it.
fn tick(scene: &Scene) -> ComponentRecord {
    let mut tick = scene.record.clone();
    tick.component = name("acme/tick");
    tick.ask = tick.ask.replace("\"acme/thermo\"", "\"acme/tick\"");
    tick
}

#[test]
fn a_set_is_adopted_whole_or_refused_whole_by_what_its_members_require_and_exclude() {
    for required in [
        None,
        Some(("acme/thermo", 4)),
        Some(("acme/thermo", 5)),
        Some(("acme/thermo", 6)),
        Some(("acme/bus", 1)),
    ] {
        for excluded in [None, Some("acme/thermo"), Some("acme/bus")] {
            for first in [true, false] {
                let mut scene = Scene::new();
                let mut tick = tick(&scene);
                tick.requires = required
                    .map(|(component, counter)| Requirement {
                        component: name(component),
                        counter: ReleaseCounter::new(counter),
                    })
                    .into_iter()
                    .collect();
                tick.conflicts = excluded.map(name).into_iter().collect();
                scene.others = vec![(tick, b"\0asm tick".to_vec())];
                let mut scene = scene.resigned();
                if first {
                    scene.set.members.reverse();
                }
                let unmet =
                    required.filter(|(component, counter)| *component != "acme/thermo" || *counter > 5);
                let verdict = scene.decide();
                match (unmet, excluded) {
                    (Some((component, counter)), _) => {
                        let refusal = Refusal::RequiresUnmet {
                            component: name("acme/tick"),
                            required: name(component),
                            counter: ReleaseCounter::new(counter),
                        };
                        assert_eq!(verdict, Err(refusal));
                    }
                    (None, Some("acme/thermo")) => {
                        let refusal = Refusal::Conflicts {
                            component: name("acme/tick"),
                            present: name("acme/thermo"),
                        };
                        assert_eq!(verdict, Err(refusal));
                    }
                    (None, _) => assert_eq!(verdict.unwrap().unwrap().members().len(), 2),
                }
            }
        }
    }
}

#[test]
fn floors_outlive_a_reboot() {
    // What was committed goes through the bytes that are on the disk, then the attacker replays counter 5 and direction 9.
    let scene = Scene::new();
    let device = crate::scene::device();
    let mut record = TrustRecord::enrolled(device.fleet().clone(), device, "{}".into(), "{}".into());
    let mut decide = |edit: fn(&mut TrustRecord)| {
        edit(&mut record);
        let read = TrustRecord::decode(&record.encode()).unwrap();
        let mut scene = Scene::new();
        scene.state = TrustState {
            committed: read.committed,
            rollback_sets: read.rollback_sets,
            sequence: read.sequence,
            policy_serial: read.policy_serial,
            denied: read.denied,
        };
        scene.decide().map(|plan| plan.is_some())
    };
    // The very version that is committed may be installed again.
    let again = decide(|record| {
        record
            .committed
            .insert(name("acme/thermo"), ReleaseCounter::new(5));
        record.sequence = DirectionSequence::new(9);
    });
    assert_eq!(again, Ok(true), "positive control");
    let below = Refusal::BelowCommitted {
        component: name("acme/thermo"),
        offered: ReleaseCounter::new(5),
        committed: ReleaseCounter::new(6),
    };
    let committed = decide(|record| {
        record
            .committed
            .insert(name("acme/thermo"), ReleaseCounter::new(6));
    });
    assert_eq!(committed, Err(below));
    let policy = decide(|record| {
        record.committed.clear();
        record.policy_serial = 5;
    });
    assert_eq!(policy, Err(Refusal::PolicyRollback { known: 5 }));
    let replayed = Refusal::DirectionReplayed {
        offered: scene.direction.sequence,
        followed: DirectionSequence::new(10),
    };
    assert_eq!(
        decide(|record| record.sequence = DirectionSequence::new(10)),
        Err(replayed)
    );
}

#[test]
fn a_target_has_one_name_and_no_name_is_a_path() {
    // The attacker holds the component's keys and the director's, and lists the same bytes under a name of his choice.
    let own = Scene::new().path();
    let (folder, file) = own.rsplit_once('/').unwrap();
    let up = file.to_uppercase();
    let names = [
        String::new(),
        "..".into(),
        "../x".into(),
        "/etc/passwd".into(),
        format!("/{own}"),
        format!("{own}/"),
        format!("./{own}"),
        format!("{folder}/./{file}"),
        format!("{folder}//{file}"),
        format!("{folder}/../{file}"),
        format!("{folder}/{up}"),
        format!("{folder}/%2e%2e"),
        format!("{folder}/..\\{file}"),
        format!("{folder}/{file}\0"),
        format!("{folder}/e\u{301}.wasm"),
        format!("{folder}/\u{e9}.wasm"),
        format!("{folder}/{}", "x".repeat(4096)),
        own.replace("acme", "Acme"),
        own.replace("acme/thermo", "acme/Thermo"),
        own.replace("acme/thermo", "acme/tick"),
        own.replace("1.0.0", "1.0.1"),
        own.replace("1.0.0", ".."),
        own.replace("components", "plans"),
    ];
    for chosen in names {
        let rename = |targets: &mut Value, name: &str| {
            let entry = targets.as_object_mut().unwrap().values().next().unwrap().clone();
            *targets = json!({ name: entry });
        };
        let mut scene = Scene::new();
        let (released, directed) = (chosen.clone(), chosen.clone());
        scene.spoil_release = Box::new(move |repo: &mut Repo| {
            rename(&mut repo.document("component.acme.thermo")["targets"], &released);
        });
        scene.spoil_director =
            Box::new(move |repo| rename(&mut repo.document("targets")["targets"], &directed));
        let refusal = scene.decide().unwrap_err();
        let path = chosen.clone();
        // Outside of what the role was given nobody finds it; inside, the record says another name.
        let expected = [
            Refusal::NotReleased { path: path.clone() },
            Refusal::ReleaseMismatch { path },
        ];
        assert!(expected.contains(&refusal), "{chosen:?}: {refusal}");
    }
    assert!(Scene::new().decide().unwrap().is_some(), "positive control");
}
