//! What devices, operators and the device's own processes say to each other.

use crate::Target;
use redan_protocol::ipc::{
    Connect, FromExecutor, FromSupervisor, SlotId, ToBroker, ToExecutor, ToSupervisor, WorkloadKind,
};
use redan_protocol::join::{DevicePrefix, JoinToken, TokenId, TokenSchema, TokenSecret};
use redan_protocol::report::Report;
use redan_protocol::wire::{
    AdmissionRequest, CheckIn, CheckInReply, Nonce, Problem, Statement, Versions, Voucher, VoucherSchema,
};
use redan_protocol::{ComponentName, DeviceId, Digest, FleetId, UnixSeconds, Version64};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) const VOUCHER: Target = Target {
    name: "voucher",
    seeds: || {
        let device = DeviceId::parse("press-1").unwrap();
        let voucher = Voucher {
            schema: VoucherSchema::V1,
            fleet: FleetId::parse("plant.example").unwrap(),
            device: device.clone(),
            spki: Digest::of(b"key"),
            ca: "-----BEGIN CERTIFICATE-----".into(),
            release_root: "{}".into(),
            director_root: "{}".into(),
            server: "control.plant.example:8443".into(),
            expires: UnixSeconds::new(1_800_000_000),
            chain: Some("-----BEGIN CERTIFICATE-----".into()),
        };
        let request = AdmissionRequest {
            device,
            spki: Digest::of(b"key"),
            csr: Some("MIIB".into()),
        };
        vec![
            serde_json::to_vec(&voucher).unwrap(),
            serde_json::to_vec(&request).unwrap(),
        ]
    },
    run: |input| json::<Voucher>(input) | json::<AdmissionRequest>(input),
    mutations: 8_000,
};

pub(crate) const CHECK_IN: Target = Target {
    name: "check-in",
    seeds: || {
        let check_in = CheckIn {
            nonce: Nonce([7; 16]),
            settled: Some(Versions {
                release: Version64::new(3),
                director: Version64::new(4),
            }),
            report: Report::default(),
        };
        vec![serde_json::to_vec(&check_in).unwrap()]
    },
    run: |input| {
        json::<CheckIn>(input)
            | json::<CheckInReply>(input)
            | json::<Statement>(input)
            | json::<Problem>(input)
    },
    mutations: 8_000,
};

/// What is read is written as what reads the same.
pub(crate) fn json<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(input: &[u8]) -> bool {
    let Ok(read) = serde_json::from_slice::<T>(input) else {
        return false;
    };
    let written = serde_json::to_vec(&read).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), read);
    true
}

pub(crate) const IPC: Target = Target {
    name: "ipc",
    seeds: || {
        let load = ToExecutor::Load {
            slot: SlotId(7),
            component: ComponentName::parse("acme/thermo").unwrap(),
            digest: Digest::of(b"component"),
            kind: WorkloadKind::Service,
            grant: b"{}".to_vec(),
        };
        vec![
            postcard::to_allocvec(&FromExecutor::Loaded { slot: SlotId(7) }).unwrap(),
            postcard::to_allocvec(&load).unwrap(),
        ]
    },
    run: |input| {
        message::<ToExecutor>(input)
            | message::<FromExecutor>(input)
            | message::<ToSupervisor>(input)
            | message::<FromSupervisor>(input)
            | message::<ToBroker>(input)
            | message::<Connect>(input)
    },
    mutations: 8_000,
};

/// A message of a process that may be the enemy's: read or refused, and never larger than what came.
fn message<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(input: &[u8]) -> bool {
    let Ok(read) = postcard::from_bytes::<T>(input) else {
        return false;
    };
    let written = postcard::to_allocvec(&read).unwrap();
    assert_eq!(postcard::from_bytes::<T>(&written).unwrap(), read);
    true
}

pub(crate) const TOKEN: Target = Target {
    name: "join-token",
    seeds: || {
        let token = JoinToken {
            schema: TokenSchema::V1,
            fleet: FleetId::parse("plant.example").unwrap(),
            token: TokenId::from_bytes([1; 16]),
            secret: TokenSecret::from_bytes([0xab; 32]),
            prefix: DevicePrefix::parse("press-").unwrap(),
            ca: "-----BEGIN CERTIFICATE-----".into(),
            release_root: "{}".into(),
            director_root: "{}".into(),
            server: "control.plant.example:8443".into(),
            expires: UnixSeconds::new(1_800_000_000),
        };
        vec![serde_json::to_vec(&token).unwrap()]
    },
    run: token,
    mutations: 8_000,
};

/// A token that is read reads back, gives no name outside its prefix, and shows its secret to nobody.
fn token(input: &[u8]) -> bool {
    let Ok(read) = serde_json::from_slice::<JoinToken>(input) else {
        return false;
    };
    let secret = String::from(read.secret.clone());
    assert!(
        !format!("{:?}", read.secret).contains(&secret),
        "the secret is shown"
    );
    if let Ok(name) = read.prefix.name_for(Digest::of(input)) {
        assert!(read.prefix.fits(&name), "{name} is not the token's to give");
    }
    json::<JoinToken>(input)
}
