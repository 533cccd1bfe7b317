use super::*;
use crate::disk::faulty::{Cut, FaultyDisk};
use redan_identity::{FleetAnchor, FleetCa, pem};
use redan_protocol::wire::VoucherSchema;
use redan_protocol::{Authority, AuthorityState, DeviceId, Digest, UnixSeconds};
use redan_trust::TrustRecord;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NOW: UnixSeconds = UnixSeconds::new(1_800_000_000);

fn fleet() -> FleetId {
    FleetId::parse("plant.example").unwrap()
}

fn authority() -> FleetAnchor {
    FleetCa::found(fleet(), NOW).unwrap().anchor().unwrap()
}

fn voucher(ca: &FleetAnchor) -> Voucher {
    Voucher {
        schema: VoucherSchema::V1,
        fleet: fleet(),
        device: DeviceId::parse("press-1").unwrap(),
        spki: Digest::of(b"key"),
        ca: pem::write_chain(&[ca.root().clone()]),
        release_root: String::new(),
        director_root: String::new(),
        server: String::new(),
        expires: NOW,
        chain: None,
    }
}

fn list(entries: &[(&FleetAnchor, AuthorityState)]) -> Authorities {
    let one = |(anchor, state): &(&FleetAnchor, AuthorityState)| {
        let certificate = anchor.root().to_vec();
        (
            anchor.sha256(),
            Authority {
                state: *state,
                certificate,
            },
        )
    };
    entries
        .iter()
        .map(one)
        .collect::<BTreeMap<_, _>>()
        .try_into()
        .unwrap()
}

fn listed(root: u64, entries: &[(&FleetAnchor, AuthorityState)]) -> Listed {
    Listed {
        schema: ListedSchema::V1,
        root,
        authorities: list(entries),
    }
}

/// A root as it lies in the trust record, where its signatures were checked before.
fn root(version: u64, listed: Option<&Authorities>) -> String {
    let role = json!({"keyids": ["a"], "threshold": 1});
    let mut signed = json!({
        "_type": "root", "spec_version": "1.0.34", "version": version, "expires": "2030-01-01T00:00:00Z", "keys": {},
        "roles": {"root": role, "timestamp": role, "snapshot": role, "targets": role},
    });
    if let (Some(listed), Value::Object(fields)) = (listed, &mut signed) {
        fields.insert("authorities".into(), json!(listed));
        fields.insert("ca_sha256".into(), json!(listed.active()));
    }
    json!({"signed": signed, "signatures": []}).to_string()
}

/// A trust record that holds this root, written as the agent writes it.
fn record(disk: &FaultyDisk, root: String) {
    let id = SpiffeId::Device(fleet(), DeviceId::parse("press-1").unwrap());
    let generation = |bytes: &[u8]| claimed(bytes, &id).map(|record| record.generation);
    let (mut pair, found) = Pair::load(disk, Path::new("trust"), generation).unwrap();
    let mut record = TrustRecord::enrolled(fleet(), id.clone(), root, String::new());
    if let Found::Record(bytes) = found {
        record.generation = claimed(&bytes, &id).unwrap().generation + 1;
    }
    pair.store(disk, &record.encode()).unwrap();
}

/// What is believed after a start: the digests of authorities, with their states.
fn start(disk: &FaultyDisk, voucher: &Voucher) -> BTreeMap<Digest, AuthorityState> {
    let believed = believed(disk, Path::new(""), voucher).unwrap();
    let anchors = believed.anchors.iter();
    anchors.map(|(state, anchor)| (anchor.sha256(), state)).collect()
}

fn states(entries: &[(&FleetAnchor, AuthorityState)]) -> BTreeMap<Digest, AuthorityState> {
    let each = entries.iter().map(|(anchor, state)| (anchor.sha256(), *state));
    each.collect()
}

use AuthorityState::{Active, Old, Prepared};

#[test]
fn a_device_of_before_believes_the_authority_of_its_voucher() {
    let old = authority();
    let disk = FaultyDisk::default();
    assert_eq!(start(&disk, &voucher(&old)), states(&[(&old, Active)]));
    record(&disk, root(1, None));
    assert_eq!(start(&disk, &voucher(&old)), states(&[(&old, Active)]));
    assert!(read(&disk, Path::new("identity")).unwrap().is_none());
}

#[test]
fn the_newest_list_counts_and_the_voucher_no_more() {
    let (old, new) = (authority(), authority());
    let both = [(&new, Active), (&old, Old)];
    let disk = FaultyDisk::default();
    record(&disk, root(3, Some(&list(&both))));
    assert_eq!(start(&disk, &voucher(&old)), states(&both));
    record(&disk, root(5, Some(&list(&[(&new, Active)]))));
    assert_eq!(start(&disk, &voucher(&old)), states(&[(&new, Active)]));
    // The record is lost, or one of an older root is put in its place: nothing revoked comes back.
    for replaced in [root(3, Some(&list(&both))), root(1, None)] {
        record(&disk, replaced);
        assert_eq!(start(&disk, &voucher(&old)), states(&[(&new, Active)]));
    }
    let without = FaultyDisk::default();
    let kept = read(&disk, Path::new("identity")).unwrap().unwrap();
    kept.keep(&without, Path::new("identity")).unwrap();
    assert_eq!(start(&without, &voucher(&old)), states(&[(&new, Active)]));
}

#[test]
fn a_file_that_does_not_read_is_no_way_back_to_the_voucher() {
    let (old, new) = (authority(), authority());
    let disk = FaultyDisk::default();
    let kept = listed(5, &[(&new, Active)]);
    kept.keep(&disk, Path::new("identity")).unwrap();
    let path = path(Path::new("identity"));
    let text = serde_json::to_string(&kept).unwrap();
    for broken in [
        String::new(),
        text.replace("active", "old"),
        text.replace("redan.authorities/1", "redan.authorities/2"),
        " ".repeat(usize::try_from(FILE_LEN_MAX.get()).unwrap() + 1),
    ] {
        replace(&disk, &path, broken.as_bytes()).unwrap();
        let error = believed(&disk, Path::new(""), &voucher(&old)).unwrap_err();
        assert!(matches!(error, AgentError::File { what: "read", .. }), "{error}");
        // With a record that lists them it is made anew.
        let whole = FaultyDisk::default();
        replace(&whole, &path, broken.as_bytes()).unwrap();
        record(&whole, root(5, Some(&list(&[(&new, Active)]))));
        assert_eq!(start(&whole, &voucher(&old)), states(&[(&new, Active)]));
        assert_eq!(read(&whole, Path::new("identity")).unwrap(), Some(kept.clone()));
    }
}

/// The record is durable first, the file after it; the power goes at each call of the second.
#[test]
fn a_power_cut_at_any_call_of_a_change_leaves_the_list_before_or_the_one_after() {
    let (old, new) = (authority(), authority());
    let before = [(&old, Active), (&new, Prepared)];
    let after = [(&new, Active)];
    let disk = || {
        let disk = FaultyDisk::default();
        record(&disk, root(2, Some(&list(&before))));
        listed(2, &before).keep(&disk, Path::new("identity")).unwrap();
        disk.power_cycle(false)
    };
    let change = |disk: &FaultyDisk| listed(6, &after).keep(disk, Path::new("identity"));
    let whole = disk();
    change(&whole).unwrap();
    let calls = whole.calls();
    assert!(calls >= 4, "write, sync, rename, sync of the folder: {calls}");
    for at in 0..calls {
        for cut in [
            Cut::Before,
            Cut::After,
            Cut::Torn,
            Cut::Error(io::ErrorKind::StorageFull),
        ] {
            for lucky in [false, true] {
                let place = format!("call {at}, {cut:?}, lucky {lucky}");
                // Without the record's help: one of the two, whole.
                let alone = disk().with_fault(at, cut);
                change(&alone).unwrap_err();
                let alone = alone.power_cycle(lucky);
                let found = start(&alone, &voucher(&old));
                assert!(found == states(&before) || found == states(&after), "{place}");
                // With it: what was verified is believed at the next start, and the file says so from then on.
                let behind = disk();
                record(&behind, root(6, Some(&list(&after))));
                let behind = behind.power_cycle(false).with_fault(at, cut);
                change(&behind).unwrap_err();
                let behind = behind.power_cycle(lucky);
                assert_eq!(start(&behind, &voucher(&old)), states(&after), "{place}");
                let kept = read(&behind, Path::new("identity")).unwrap();
                assert_eq!(kept, Some(listed(6, &after)), "{place}");
            }
        }
    }
}

#[test]
fn what_a_voucher_carries_beside_the_active_authority_is_believed_until_a_root_lists_some() {
    let (old, new) = (authority(), authority());
    let both = pem::write_chain(&[old.root().clone(), new.root().clone()]);
    let voucher = Voucher {
        ca: both,
        ..voucher(&old)
    };
    let disk = FaultyDisk::default();
    let carried = states(&[(&old, Active), (&new, Prepared)]);
    assert_eq!(start(&disk, &voucher), carried);
    record(&disk, root(1, None));
    assert_eq!(start(&disk, &voucher), carried);
    // One that was prepared and is wanted no more goes with the first list, and does not come back with the voucher.
    for listed in [Some(list(&[(&old, Active)])), None] {
        record(&disk, root(2, listed.as_ref()));
        assert_eq!(start(&disk, &voucher), states(&[(&old, Active)]));
    }
}
