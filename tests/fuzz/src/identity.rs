//! Certificates, requests for them, and the answers.

use crate::Target;
use redan_benches::fleet::NOW;
use redan_identity::profile::{Purpose, check, presented_spki};
use redan_identity::{FleetAnchor, FleetCa, Issuer, IssuerKind, KeyFile, est, pem};
use redan_protocol::{Digest, FleetId, SpiffeId};
use rustls_pki_types::CertificateDer;
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
