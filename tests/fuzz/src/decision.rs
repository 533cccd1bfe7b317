//! `decide` over documents that were signed by who may sign them, and say anything.

use crate::Target;
use redan_benches::decision::{DEVICE, Decision, Said, facts};
use redan_benches::fleet::Keys;
use redan_protocol::{Digest, DirectionSequence, ReleaseCounter};
use redan_trust::custom::{DirectorCustom, ReleaseCustom};
use redan_trust::release_set::ReleaseSet;
use redan_trust::{TrustState, decide};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::OnceLock;

/// Keys of the release and of the director repository, made once.
fn keys() -> &'static (Keys, Keys) {
    static KEYS: OnceLock<(Keys, Keys)> = OnceLock::new();
    KEYS.get_or_init(|| (Keys::generate().unwrap(), Keys::generate().unwrap()))
}

pub(crate) const CUSTOM: Target = Target {
    name: "custom",
    seeds: || {
        let said = Said::honest().unwrap();
        let write = |value| serde_json::to_vec(value).unwrap();
        vec![write(&said.release), write(&said.director), said.plan]
    },
    run: custom,
    mutations: 8_000,
};

/// A signed section that is read is read whole: nothing in it goes unnoticed.
fn custom(input: &[u8]) -> bool {
    let read = [
        whole::<ReleaseCustom>(input),
        whole::<DirectorCustom>(input),
        whole::<ReleaseSet>(input),
    ];
    read.contains(&true)
}

fn whole<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(input: &[u8]) -> bool {
    let Ok(read) = serde_json::from_slice::<T>(input) else {
        return false;
    };
    let written = serde_json::to_vec(&read).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), read);
    true
}

pub(crate) const DECIDE: Target = Target {
    name: "decide",
    seeds: || {
        let said = Said::honest().unwrap();
        let write = |value| serde_json::to_vec(value).unwrap();
        let documents = [
            write(&said.release),
            write(&said.director),
            said.plan,
            said.policy,
        ];
        let with = |(place, bytes): (u8, Vec<u8>)| [&[place], bytes.as_slice()].concat();
        (0..).zip(documents).map(with).collect()
    },
    run: decided,
    mutations: 1_500,
};

/// One of the four documents is replaced. What is planned all the same keeps every rule that can be said without the rule's own code.
fn decided(input: &[u8]) -> bool {
    let Some((place, bytes)) = input.split_first() else {
        return false;
    };
    let mut said = Said::honest().unwrap();
    match place {
        0 | 1 => {
            let Ok(value) = serde_json::from_slice(bytes) else {
                return false;
            };
            let custom = if *place == 0 {
                &mut said.release
            } else {
                &mut said.director
            };
            *custom = value;
        }
        2 => said.replan(bytes.to_vec()),
        3 => said.policy = bytes.to_vec(),
        _ => return false,
    }
    let (release, director) = keys();
    // What cannot be signed or does not verify never comes to a decision.
    let Ok(decision) = Decision::on(&said, release, director) else {
        return false;
    };
    let Ok(offered) = decision.offered() else {
        return false;
    };
    let facts = facts().unwrap();
    let Ok(Some(plan)) = decide(&TrustState::default(), &offered, &facts) else {
        return false;
    };
    assert_eq!(plan.direction().device.to_string(), DEVICE);
    assert_eq!(plan.direction().set_digest, Digest::of(&said.plan));
    assert_eq!(plan.members().len(), plan.set().members.len());
    for (planned, member) in plan.members().iter().zip(&plan.set().members) {
        let record = planned.record();
        assert_eq!(
            (&record.component, record.counter),
            (&member.component, member.counter)
        );
        assert_eq!(planned.digest(), member.digest);
        assert!(!plan.revoked().contains(&planned.digest()), "revoked and planned");
        assert!(facts.worlds.contains(&record.world));
        assert!(planned.grant().canonical_json().len() > 2);
    }
    // What was followed once is not followed again in an older direction, and what was committed is not undercut.
    let later = TrustState {
        sequence: DirectionSequence::new(plan.direction().sequence.get().saturating_add(1)),
        ..TrustState::default()
    };
    assert!(
        decide(&later, &offered, &facts).is_err(),
        "an old direction is followed"
    );
    let denied = TrustState {
        denied: plan
            .members()
            .iter()
            .map(redan_trust::PlannedMember::digest)
            .collect(),
        ..TrustState::default()
    };
    let unblocked = &plan.direction().unblocked;
    if !plan
        .members()
        .iter()
        .all(|planned| unblocked.contains(&planned.digest()))
    {
        assert!(
            decide(&denied, &offered, &facts).is_err(),
            "a denied digest is planned"
        );
    }
    let higher = |counter: ReleaseCounter| ReleaseCounter::new(counter.get().saturating_add(1));
    if let Some(planned) = plan
        .members()
        .first()
        .filter(|planned| planned.record().counter.get() < u64::MAX)
    {
        let record = planned.record();
        let committed = TrustState {
            committed: [(record.component.clone(), higher(record.counter))].into(),
            ..TrustState::default()
        };
        assert!(
            decide(&committed, &offered, &facts).is_err(),
            "a committed counter is undercut"
        );
    }
    true
}
