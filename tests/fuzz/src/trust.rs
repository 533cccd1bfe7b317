//! Metadata, the trust record, and whole refreshes over damaged repositories.

use crate::Target;
use redan_benches::fleet::{self, Files, Keys};
use redan_protocol::{DirectionSequence, FleetId, SpiffeId};
use redan_publish::metadata::target;
use redan_trust::metadata::{Metadata, Root, Snapshot, Targets, Timestamp};
use redan_trust::{Claimed, TrustRecord, newest_valid};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// A repository whose keys are made once: damage is what differs.
fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let listed = BTreeMap::from([(
            "components/acme/a b/1.0.0/x.wasm".to_owned(),
            target(b"x", None::<&()>).unwrap(),
        )]);
        let role = fleet::Role {
            name: "acme.thermo".into(),
            paths: vec!["components/acme/*/*/*".into()],
            targets: listed.clone(),
        };
        fleet::repository(&Keys::generate().unwrap(), &listed, vec![role]).unwrap()
    })
}

pub(crate) const METADATA: Target = Target {
    name: "metadata",
    seeds: || files().values().cloned().collect(),
    run: metadata,
    mutations: 6_000,
};

/// What is read is read as one thing: a second, lenient reader of the same bytes sees the same value, no key twice.
fn metadata(input: &[u8]) -> bool {
    let read = [
        one::<Root>(input),
        one::<Timestamp>(input),
        one::<Snapshot>(input),
        one::<Targets>(input),
    ];
    // A file is of one type.
    assert!(
        read.iter().filter(|read| **read).count() <= 1,
        "read as two types"
    );
    read.contains(&true)
}

fn one<T: Metadata>(input: &[u8]) -> bool {
    let Ok(claimed) = Claimed::<T>::parse(input) else {
        return false;
    };
    let value: Value =
        serde_json::from_slice(input).expect("a strict reader takes no more than a lenient one");
    let says = |name| value.pointer(name).cloned();
    assert_eq!(says("/signed/_type"), Some(T::TYPE.into()));
    assert_eq!(says("/signed/version"), Some(claimed.peek().version().into()));
    assert_ne!(claimed.peek().version(), 0);
    // Written again, it is what it was.
    let again = serde_json::to_vec(&value).unwrap();
    let again = Claimed::<T>::parse(&again).expect("what was read reads again");
    assert_eq!(again.peek().expires(), claimed.peek().expires());
    true
}

pub(crate) const RECORD: Target = Target {
    name: "record",
    seeds: || vec![record().encode()],
    run: trust_record,
    mutations: 6_000,
};

fn record() -> TrustRecord {
    let mut record = TrustRecord::enrolled(
        FleetId::parse("plant.example").unwrap(),
        SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap(),
        "{}".into(),
        "{}".into(),
    );
    record.sequence = DirectionSequence::new(7);
    record
}

/// A record is whole or it is nothing; damaged bytes never win over a valid copy.
fn trust_record(input: &[u8]) -> bool {
    let good = record();
    let (good_bytes, decoded) = (good.encode(), TrustRecord::decode(input));
    let chosen = newest_valid(Some(input), Some(&good_bytes)).expect("one copy is valid");
    match decoded {
        None => {
            assert_eq!(chosen, good);
            false
        }
        Some(read) => {
            assert_eq!(TrustRecord::decode(&read.encode()).as_ref(), Some(&read));
            assert!(chosen.generation >= good.generation);
            true
        }
    }
}

pub(crate) const WORKFLOW: Target = Target {
    name: "workflow",
    seeds: || {
        let place = |number: usize| u8::try_from(number).unwrap();
        let with = |(number, bytes): (usize, &Vec<u8>)| [&[place(number)], bytes.as_slice()].concat();
        files().values().enumerate().map(with).collect()
    },
    run: workflow,
    mutations: 3_000,
};

/// The server replaces one file. Either the refresh fails, or what is trusted is, to the byte of its meaning, what its signers signed.
fn workflow(input: &[u8]) -> bool {
    let Some((place, bytes)) = input.split_first() else {
        return false;
    };
    let honest = files();
    let Some(name) = honest.keys().nth(usize::from(*place)) else {
        return false;
    };
    let mut served = honest.clone();
    served.insert(name.clone(), bytes.to_vec());
    let pinned = fleet::pinned(honest).unwrap();
    let refreshed = fleet::refresh(pinned, |step| fleet::serve(&served, step));
    let Ok(mut repository) = refreshed else {
        return false;
    };
    let path = "components/acme/a b/1.0.0/x.wasm";
    let top = repository.top_target(path).expect("what was signed is there");
    assert_eq!(top.length, 1);
    assert_eq!(repository.targets().targets.len(), 1);
    assert_eq!(
        (repository.timestamp_version(), repository.snapshot_version()),
        (1, 1)
    );
    let found = fleet::find(&served, &mut repository, path);
    if let Ok(found) = found {
        assert_eq!(found.expect("the top role lists it").entry.length, 1);
    }
    true
}
