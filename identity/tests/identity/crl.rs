//! Revocation lists for offline verifiers: a bad one never takes the place of a good one (attacks.md P16).

use crate::openssl;
use crate::stage::{DAY, Fleet, fleet, now};
use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, Issuer as Signer,
    KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams, SerialNumber,
};
use redan_identity::crl::{CRL_LEN_MAX, CRL_LIFE_MAX, CrlFault, Revocations, RevokedSerial, serial_of};
use redan_identity::profile::Purpose;
use redan_identity::{CertificateDer, IssuerKind};
use redan_protocol::{Code, Seconds, UnixSeconds};
use std::collections::BTreeSet;
use time::OffsetDateTime;

const LIFE: Seconds = Seconds::new(30 * DAY);

fn later(seconds: u64) -> UnixSeconds {
    UnixSeconds::new(now().get() + seconds)
}

fn revoking(chain: &[CertificateDer<'_>]) -> BTreeSet<RevokedSerial> {
    let serial = serial_of(&chain[0]).unwrap();
    BTreeSet::from([RevokedSerial { serial, at: now() }])
}

/// A verifier that has list 7, in which press-1 is revoked.
struct Scene {
    fleet: Fleet,
    revoked: Vec<CertificateDer<'static>>,
    good: Vec<CertificateDer<'static>>,
    list: Vec<u8>,
    known: Revocations,
}

impl Scene {
    fn new() -> Self {
        let fleet = fleet("plant.example");
        let (_, revoked) = fleet.device("press-1");
        let (_, good) = fleet.device("press-2");
        let list = fleet.devices.crl(7, &revoking(&revoked), now(), LIFE).unwrap();
        let mut scene = Self {
            known: Revocations::default(),
            fleet,
            revoked,
            good,
            list,
        };
        assert_eq!(scene.offer(&scene.list.clone()), Ok(()));
        scene
    }

    fn offer_at(&mut self, list: &[u8], now: UnixSeconds) -> Result<(), CrlFault> {
        let (anchor, issuer) = (
            self.fleet.anchor.clone(),
            self.fleet.devices.certificate().clone(),
        );
        self.known.offer(&anchor, IssuerKind::Device, &issuer, list, now)
    }

    fn offer(&mut self, list: &[u8]) -> Result<(), CrlFault> {
        self.offer_at(list, now())
    }

    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), CrlFault> {
        let checked = self
            .known
            .check(&self.fleet.anchor, chain, Purpose::Client, now());
        checked.map(drop)
    }

    /// Whatever happened, list 7 is what is gone by.
    #[track_caller]
    fn holds(&self) {
        assert_eq!(self.judge(&self.revoked), Err(CrlFault::Revoked));
        assert_eq!(self.judge(&self.good), Ok(()));
    }
}

/// A list by this fleet's device issuer that we would not make.
fn bent(fleet: &Fleet, bend: impl FnOnce(&mut CertificateRevocationListParams)) -> Vec<u8> {
    let date =
        |at: UnixSeconds| OffsetDateTime::from_unix_timestamp(i64::try_from(at.get()).unwrap()).unwrap();
    let mut params = CertificateRevocationListParams {
        this_update: date(now()),
        next_update: date(later(DAY)),
        crl_number: SerialNumber::from(8),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    bend(&mut params);
    let key = KeyPair::from_pem(&fleet.devices.key().to_pem()).unwrap();
    let by = Signer::from_ca_cert_der(fleet.devices.certificate(), key).unwrap();
    params.signed_by(&by).unwrap().der().to_vec()
}

fn entry(reason: Option<RevocationReason>) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from([0x55; 16].to_vec()),
        revocation_time: OffsetDateTime::from_unix_timestamp(1_767_225_600).unwrap(),
        reason_code: reason,
        invalidity_date: None,
    }
}

#[test]
fn a_revoked_certificate_is_refused_offline_and_the_next_list_takes_its_place() {
    let mut scene = Scene::new();
    scene.holds();
    // The same once more is no older one; the next one says something else.
    assert_eq!(scene.offer(&scene.list.clone()), Ok(()));
    let mut both = revoking(&scene.revoked);
    both.extend(revoking(&scene.good));
    let next = scene.fleet.devices.crl(8, &both, now(), LIFE).unwrap();
    assert_eq!(scene.offer(&next), Ok(()));
    assert_eq!(scene.judge(&scene.good), Err(CrlFault::Revoked));
    assert_eq!(CrlFault::Revoked.code(), Code::CertificateRevoked);
}

#[test]
fn openssl_verifies_our_list() {
    let scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    let (list, issuer) = (folder.path().join("list.der"), folder.path().join("issuer.pem"));
    std::fs::write(&list, &scene.list).unwrap();
    let pem = redan_identity::pem::write_chain(&[scene.fleet.devices.certificate().clone()]);
    std::fs::write(&issuer, pem).unwrap();
    let [list, issuer] = [&list, &issuer].map(|path| path.to_str().unwrap());
    let output = openssl::run(
        &[
            "crl", "-inform", "DER", "-in", list, "-CAfile", issuer, "-noout", "-text",
        ],
        b"",
    );
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    for wanted in ["verify OK", "X509v3 CRL Number", "Authority Key Identifier"] {
        assert!(said.contains(wanted), "{wanted} is not in {said}");
    }
    let serial = serial_of(&scene.revoked[0]).unwrap();
    let serial: String = serial
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| {
            char::from_digit(u32::from(digit), 16)
                .unwrap()
                .to_ascii_uppercase()
        })
        .collect();
    assert!(
        said.replace(':', "").contains(&serial),
        "{serial} is not in {said}"
    );
}

#[test]
fn without_any_list_of_its_issuer_nobody_is_believed_offline() {
    let mut scene = Scene::new();
    scene.known = Revocations::default();
    assert_eq!(scene.judge(&scene.good), Err(CrlFault::Missing));
    assert_eq!(CrlFault::Missing.code(), Code::RevocationListMissing);
}

#[test]
fn a_list_that_has_run_out_is_not_taken_and_one_that_runs_out_goes_on_with_an_alarm() {
    let mut scene = Scene::new();
    let until = later(DAY);
    let next = scene
        .fleet
        .devices
        .crl(8, &BTreeSet::new(), now(), Seconds::new(DAY))
        .unwrap();
    let late = UnixSeconds::new(until.get() + 60);
    let refused = scene.offer_at(&next, late).unwrap_err();
    assert!(
        matches!(refused, CrlFault::Expired { now, .. } if now == late),
        "{refused}"
    );
    assert_eq!(refused.code(), Code::RevocationListExpired);
    scene.holds();
    assert_eq!(scene.known.alarm(now()), None);
    let alarm = scene.known.alarm(later(31 * DAY)).unwrap();
    assert_eq!(alarm.code(), Code::RevocationListExpired);
    scene.holds();
}

/// Holds: an old list, rightly signed; or the issuer's key.
#[test]
fn an_older_list_or_another_one_with_the_same_number_is_not_taken() {
    let mut scene = Scene::new();
    for number in [6, 7, 0] {
        let list = scene
            .fleet
            .devices
            .crl(number, &BTreeSet::new(), now(), LIFE)
            .unwrap();
        let wanted = CrlFault::Older {
            offered: number,
            known: 7,
        };
        assert_eq!(scene.offer(&list), Err(wanted.clone()));
        assert_eq!(wanted.code(), Code::RevocationListRollback);
        scene.holds();
    }
}

/// Holds: the keys of other issuers, of this fleet and of another.
#[test]
fn a_list_of_another_issuer_is_not_taken() {
    let mut scene = Scene::new();
    let other = fleet("plant.example");
    let foreign = fleet("other.example");
    for issuer in [
        &scene.fleet.operators,
        &scene.fleet.servers,
        &other.devices,
        &foreign.devices,
    ] {
        let list = issuer.crl(8, &BTreeSet::new(), now(), LIFE).unwrap();
        let (anchor, by) = (&scene.fleet.anchor, scene.fleet.devices.certificate());
        let refused = scene.known.offer(anchor, IssuerKind::Device, by, &list, now());
        assert_eq!(refused, Err(CrlFault::OtherIssuer));
        assert_eq!(CrlFault::OtherIssuer.code(), Code::RevocationListInvalid);
    }
    scene.holds();
    // An issuer that is not this fleet's speaks for nobody here, whatever it signs.
    let list = other.devices.crl(8, &BTreeSet::new(), now(), LIFE).unwrap();
    let by = other.devices.certificate();
    let refused = scene
        .known
        .offer(&scene.fleet.anchor, IssuerKind::Device, by, &list, now());
    assert!(refused.is_err());
    scene.holds();
}

#[test]
fn a_list_one_byte_over_the_limit_is_not_parsed() {
    let mut scene = Scene::new();
    let limit = usize::try_from(CRL_LEN_MAX.get()).unwrap();
    assert_eq!(scene.offer(&vec![0; limit + 1]), Err(CrlFault::TooLarge));
    assert_eq!(scene.offer(&vec![0; limit]), Err(CrlFault::Malformed));
    assert_eq!(scene.offer(&vec![0; 10 << 20]), Err(CrlFault::TooLarge));
    scene.holds();
}

#[test]
fn a_list_with_any_bit_changed_cut_short_or_with_more_after_it_is_not_taken() {
    let mut scene = Scene::new();
    let next = scene.fleet.devices.crl(8, &BTreeSet::new(), now(), LIFE).unwrap();
    for at in 0..next.len() {
        assert!(scene.offer(&next[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut changed = next.clone();
            changed[at] ^= 1 << bit;
            assert!(scene.offer(&changed).is_err(), "bit {bit} of byte {at}");
        }
    }
    assert_eq!(scene.offer(&[&next[..], &[0]].concat()), Err(CrlFault::Malformed));
    assert_eq!(scene.offer(b""), Err(CrlFault::Malformed));
    scene.holds();
    assert_eq!(scene.offer(&next), Ok(()), "positive control");
}

/// What makes of a list one that is wrong in one line.
type Bend = fn(&mut CertificateRevocationListParams);

#[test]
fn a_list_that_breaks_a_line_is_refused() {
    let mut scene = Scene::new();
    let cases: [(&str, Bend); 5] = [
        ("its lifetime", |params| {
            let life = i64::try_from(CRL_LIFE_MAX.get() + 1).unwrap();
            params.next_update = params.this_update + time::Duration::seconds(life);
        }),
        ("its number", |params| {
            params.crl_number = SerialNumber::from([0x7f; 12].to_vec());
        }),
        ("its extensions", |params| {
            params.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint {
                    uris: vec!["https://plant.example/some".to_owned()],
                },
                scope: None,
            });
        }),
        ("an entry's extensions", |params| {
            params.revoked_certs = vec![entry(Some(RevocationReason::RemoveFromCrl))];
        }),
        ("an entry twice", |params| {
            params.revoked_certs = vec![entry(None), entry(None)];
        }),
    ];
    for (line, bend) in cases {
        let list = bent(&scene.fleet, bend);
        assert_eq!(scene.offer(&list), Err(CrlFault::Line(line)));
        scene.holds();
    }
    let list = bent(&scene.fleet, |params| params.revoked_certs = vec![entry(None)]);
    assert_eq!(scene.offer(&list), Ok(()), "positive control");
}

#[test]
fn a_signature_of_a_list_has_no_unused_bits() {
    let mut scene = Scene::new();
    // One whose last bit may be said to be unused.
    let list = loop {
        let list = bent(&scene.fleet, |params| params.revoked_certs = vec![entry(None)]);
        if list.last().unwrap() & 1 == 0 {
            break list;
        }
    };
    let begins = |at: &usize| list[*at..][..3] == [3, u8::try_from(list.len() - at - 2).unwrap_or(0), 0];
    let at = (0..list.len() - 3).rev().find(begins).unwrap();
    let mut other = list.clone();
    other[at + 2] = 1;
    assert_eq!(scene.offer(&other), Err(CrlFault::Malformed));
    scene.holds();
    assert_eq!(scene.offer(&list), Ok(()), "positive control");
}
