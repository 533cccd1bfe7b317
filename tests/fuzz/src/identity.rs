//! Certificates, requests for them, and the answers.

use crate::Target;
use redan_benches::fleet::NOW;
use redan_identity::crl::{CrlFault, Revocations, RevokedSerial, serial_of};
use redan_identity::profile::{Purpose, check, presented_spki};
use redan_identity::{FleetAnchor, FleetCa, Issuer, IssuerKind, KeyFile, TokenUri, est, pem};
use redan_protocol::{Digest, FleetId, Seconds, SpiffeId};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// A fleet and one of its devices, made once.
struct Fleet {
    anchor: FleetAnchor,
    key: KeyFile,
    chain: Vec<CertificateDer<'static>>,
    issuer: Issuer,
}

fn fleet() -> &'static Fleet {
    static FLEET: OnceLock<Fleet> = OnceLock::new();
    FLEET.get_or_init(|| {
        let ca = FleetCa::found(FleetId::parse("plant.example").unwrap(), NOW).unwrap();
        let issuer = ca.issuer(IssuerKind::Device, NOW).unwrap();
        let key = KeyFile::generate().unwrap();
        let id = device();
        Fleet {
            anchor: ca.anchor().unwrap(),
            chain: issuer.issue_for(&id, &key, NOW).unwrap(),
            key,
            issuer,
        }
    })
}

fn device() -> SpiffeId {
    SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap()
}

pub(crate) const CERTIFICATE: Target = Target {
    name: "certificate",
    seeds: || fleet().chain.iter().take(1).map(|leaf| leaf.to_vec()).collect(),
    run: certificate,
    mutations: 6_000,
};

/// In the place of the leaf: only the issuer's own leaf is believed, whatever bytes are changed.
fn certificate(input: &[u8]) -> bool {
    let fleet = fleet();
    let leaf = CertificateDer::from(input.to_vec());
    drop(presented_spki(&leaf));
    let Some(issuer) = fleet.chain.get(1) else {
        return false;
    };
    // As an issuer too: nobody signed this one.
    if let Some(own) = fleet.chain.first().filter(|own| ***own != *input) {
        assert!(check(&fleet.anchor, &[own.clone(), leaf.clone()], Purpose::Client, NOW).is_err());
    }
    let Ok(identity) = check(&fleet.anchor, &[leaf, issuer.clone()], Purpose::Client, NOW) else {
        return false;
    };
    assert_eq!(identity.id(), &device());
    assert_eq!(identity.spki(), fleet.key.spki_sha256());
    true
}

pub(crate) const CSR: Target = Target {
    name: "csr",
    seeds: || vec![est::csr(&fleet().key).unwrap().into_bytes()],
    run: csr,
    mutations: 4_000,
};

/// A request that is believed was signed by the key in it: of damaged ones, only those that still mean the same.
fn csr(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let Ok(spki) = est::decode_csr(text) else {
        return false;
    };
    assert_eq!(
        Digest::of(&spki),
        fleet().key.spki_sha256(),
        "nobody holds the key of this request"
    );
    let chain = fleet().issuer.issue(&device(), &spki, NOW).unwrap();
    let identity = check(&fleet().anchor, &chain, Purpose::Client, NOW).unwrap();
    assert_eq!(identity.spki(), Digest::of(&spki));
    true
}

pub(crate) const CHAIN: Target = Target {
    name: "chain",
    seeds: || vec![est::encode_certs_only(&fleet().chain).unwrap().into_bytes()],
    run: chain,
    mutations: 4_000,
};

/// An answer to an enrolment. A chain in it that checks is the one that was issued.
fn chain(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let Ok(read) = est::decode_certs_only(text) else {
        return false;
    };
    assert!(!read.is_empty());
    if let Ok(identity) = check(&fleet().anchor, &read, Purpose::Client, NOW) {
        assert_eq!(identity.spki(), fleet().key.spki_sha256());
    }
    true
}

pub(crate) const PEM: Target = Target {
    name: "pem",
    seeds: || {
        let fleet = fleet();
        vec![
            pem::write_bundle(&fleet.key, &fleet.chain).as_bytes().to_vec(),
            pem::write_chain(&fleet.chain).into_bytes(),
        ]
    },
    run: bundle,
    mutations: 4_000,
};

/// A key and a chain that are read belong together, and are written as they are read.
fn bundle(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    if let Ok((key, chain)) = pem::read_bundle(text) {
        let leaf = chain.first().expect("a bundle has a leaf");
        assert_eq!(presented_spki(leaf).unwrap(), key.spki_sha256());
        let (again, same) = pem::read_bundle(&pem::write_bundle(&key, &chain)).unwrap();
        assert_eq!((again.spki_sha256(), same), (key.spki_sha256(), chain));
        return true;
    }
    pem::read_chain(text).is_ok_and(|chain| {
        assert_eq!(pem::read_chain(&pem::write_chain(&chain)).unwrap(), chain);
        true
    })
}

/// The issuer's lists: one of nobody, and the newer one that takes the device's certificate back.
fn lists() -> &'static [Vec<u8>; 2] {
    static LISTS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    LISTS.get_or_init(|| {
        let leaf = fleet().chain.first().unwrap();
        let revoked = RevokedSerial {
            serial: serial_of(leaf).unwrap(),
            at: NOW,
        };
        let list = |number, revoked| {
            let life = Seconds::new(86_400);
            fleet().issuer.crl(number, &revoked, NOW, life).unwrap()
        };
        [list(1, BTreeSet::new()), list(2, BTreeSet::from([revoked]))]
    })
}

pub(crate) const CRL: Target = Target {
    name: "crl",
    seeds: || lists().to_vec(),
    run: revocation_list,
    mutations: 6_000,
};

/// Only what the issuer signed is taken, to the byte; whatever else is offered, who was revoked stays revoked.
fn revocation_list(input: &[u8]) -> bool {
    let (fleet, [_, newest]) = (fleet(), lists());
    let offer = |known: &mut Revocations, list: &[u8]| {
        known.offer(
            &fleet.anchor,
            IssuerKind::Device,
            fleet.issuer.certificate(),
            list,
            NOW,
        )
    };
    let check = |known: &Revocations| known.check(&fleet.anchor, &fleet.chain, Purpose::Client, NOW);
    let mut known = Revocations::default();
    offer(&mut known, newest).unwrap();
    drop(offer(&mut known, input));
    assert_eq!(check(&known).unwrap_err(), CrlFault::Revoked);

    let mut first = Revocations::default();
    if offer(&mut first, input).is_err() {
        assert_eq!(check(&first).unwrap_err(), CrlFault::Missing);
        return false;
    }
    assert!(
        lists().iter().any(|list| list == input),
        "nobody signed this list"
    );
    assert_eq!(check(&first).is_err(), input == newest.as_slice());
    true
}

pub(crate) const PKCS11: Target = Target {
    name: "pkcs11",
    seeds: || {
        [
            "pkcs11:token=plant;object=release.root-1?module-path=/usr/lib/softhsm/libsofthsm2.so",
            "pkcs11:token=a%20b;serial=01;object=k%3B;id=%01%FF;type=private?module-path=/m.so&pin-source=file:///pin",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    run: token_uri,
    mutations: 8_000,
};

/// The name of a key in a token is written as what names the same key, holds no PIN, and leads to files by whole paths.
fn token_uri(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let Ok(read) = TokenUri::parse(text) else {
        return false;
    };
    assert!(TokenUri::is(text));
    assert!(!text.contains("pin-value"));
    assert!(!read.token().is_empty() && !read.object().is_empty());
    assert!(read.pin().is_none_or(std::path::Path::is_absolute));
    let written = read.to_string();
    assert_eq!(TokenUri::parse(&written).as_ref(), Ok(&read), "{written}");
    assert_eq!(TokenUri::parse(&written).unwrap().to_string(), written);
    true
}
