//! Revocation lists for offline verifiers: a bad one never takes the place of a good one (attacks.md P16).

use crate::openssl;
use crate::stage::{DAY, Fleet, ask, fleet, now, serving};
use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, Issuer as Signer,
    KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams, SerialNumber,
};
use redan_identity::client::ClientError;
use redan_identity::crl::{
    CRL_LEN_MAX, CRL_LIFE_MAX, CRL_LIFE_OFFLINE_MAX, CrlFault, ISSUERS_MAX, LISTS_LEN_MAX, Lists,
    Revocations, RevokedSerial, serial_of, write_lists,
};
use redan_identity::profile::Purpose;
use redan_identity::tls::{Floor, device_client};
use redan_identity::{CertificateDer, IssuerKind};
use redan_protocol::{Code, Seconds, UnixSeconds};
use std::collections::BTreeSet;
use std::sync::Arc;
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

/// The same signature spelt with n−s in the place of s (the order of P-256, SEC 2 §2.4.2): valid as well.
fn respelt(list: &[u8]) -> Vec<u8> {
    use der::{Decode as _, Encode as _};
    let order: [u128; 2] = [
        0xffff_ffff_0000_0000_ffff_ffff_ffff_ffff,
        0xbce6_faad_a717_9e84_f3b9_cac2_fc63_2551,
    ];
    let order = order.map(u128::to_be_bytes).concat();
    let mut read = x509_cert::crl::CertificateList::from_der(list).unwrap();
    let signature = read.signature.raw_bytes().to_vec();
    // SEQUENCE { INTEGER r, INTEGER s }, all lengths below 128.
    let r_end = 4 + usize::from(signature[3]);
    let (r, s) = (&signature[2..r_end], &signature[r_end + 2..]);
    let s = [vec![0; 40], s.to_vec()].concat();
    let (mut other, mut borrow) = (vec![0_u8; 32], 0_i16);
    for at in (0..32).rev() {
        let digit = i16::from(order[at]) - i16::from(s[s.len() - 32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        other[at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    let zeros = other.iter().take_while(|byte| **byte == 0).count();
    let mut other = other.split_off(zeros);
    if other[0] >= 0x80 {
        other.insert(0, 0);
    }
    let body = [r, &[2, u8::try_from(other.len()).unwrap()], &other].concat();
    let again = [&[0x30, u8::try_from(body.len()).unwrap()], &body[..]].concat();
    read.signature = der::asn1::BitString::from_bytes(&again).unwrap();
    read.to_der().unwrap()
}

/// Holds: nothing but the list itself.
#[test]
fn a_list_whose_signature_is_spelt_the_other_way_is_the_same_list() {
    let mut scene = Scene::new();
    let other = respelt(&scene.list);
    assert_ne!(other, scene.list);
    assert_eq!(respelt(&other), scene.list, "there are two spellings");
    assert_eq!(scene.offer(&other), Ok(()));
    scene.holds();
    assert_eq!(scene.offer(&scene.list.clone()), Ok(()));
    scene.holds();
}

#[test]
fn a_list_by_an_offline_issuer_lives_as_long_as_a_servers_leaf_and_no_longer() {
    let fleet = fleet("plant.example");
    let (most, one_more) = (CRL_LIFE_OFFLINE_MAX, Seconds::new(CRL_LIFE_OFFLINE_MAX.get() + 1));
    for (kind, issuer) in [
        (IssuerKind::Server, &fleet.servers),
        (IssuerKind::Operator, &fleet.operators),
    ] {
        let mut known = Revocations::default();
        let mut offer = |life| {
            let list = issuer.crl(1, &BTreeSet::new(), now(), life).unwrap();
            known.offer(&fleet.anchor, kind, issuer.certificate(), &list, now())
        };
        assert_eq!(offer(one_more), Err(CrlFault::Line("its lifetime")));
        assert_eq!(offer(most), Ok(()));
    }
}

/// A published file with list `number` of the servers' issuer, in which these are revoked.
fn servers_file(fleet: &Fleet, number: u64, revoked: &BTreeSet<RevokedSerial>) -> String {
    let list = fleet.servers.crl(number, revoked, now(), LIFE).unwrap();
    write_lists(fleet.servers.certificate(), &list)
}

#[test]
fn a_file_of_lists_is_taken_whole_or_not_at_all_and_kept_over_a_restart() {
    let fleet = fleet("plant.example");
    let chain = fleet.server_chain.clone();
    let mut known = Revocations::default();
    let judge = |known: &Revocations, at| {
        let checked = known.check(&fleet.anchor, &chain, Purpose::Server, at);
        checked.map(drop)
    };
    let none = servers_file(&fleet, 1, &BTreeSet::new());
    let adopt = |known: &mut Revocations, file: &str| {
        known.adopt(&fleet.anchor, IssuerKind::Server, file.as_bytes(), now())
    };
    assert_eq!(adopt(&mut known, &none), Ok(()));
    assert_eq!(judge(&known, now()), Ok(()));
    // The second half is an operators' list: the first half, good as it is, is not taken either.
    let two = servers_file(&fleet, 2, &revoking(&chain));
    let operators = fleet.operators.crl(1, &BTreeSet::new(), now(), LIFE).unwrap();
    let mixed = format!("{two}{}", write_lists(fleet.operators.certificate(), &operators));
    assert!(adopt(&mut known, &mixed).is_err());
    assert_eq!(judge(&known, now()), Ok(()));
    assert_eq!(adopt(&mut known, &two), Ok(()));
    assert_eq!(judge(&known, now()), Err(CrlFault::Revoked));
    // By an authority that is not this fleet's, or no longer: passed over beside a good one, and nothing by itself.
    let gone = servers_file(&crate::stage::fleet("plant.example"), 9, &BTreeSet::new());
    assert_eq!(adopt(&mut known, &gone), Err(CrlFault::OtherIssuer));
    assert_eq!(adopt(&mut known, &format!("{gone}{two}")), Ok(()));
    assert_eq!(judge(&known, now()), Err(CrlFault::Revoked));
    // Over a restart, also when it has run out meanwhile; and the number still counts.
    let mut kept = Revocations::kept(&fleet.anchor, IssuerKind::Server, known.keep().as_bytes()).unwrap();
    assert!(kept.alarm(later(31 * DAY)).is_some());
    assert_eq!(judge(&kept, now()), Err(CrlFault::Revoked));
    let older = CrlFault::Older { offered: 1, known: 2 };
    assert_eq!(adopt(&mut kept, &none), Err(older));
    // Changed on the disk: not read.
    let changed = known.keep().replace('A', "B");
    assert!(Revocations::kept(&fleet.anchor, IssuerKind::Server, changed.as_bytes()).is_err());
}

#[test]
fn a_file_of_lists_over_its_limits_is_not_read() {
    let fleet = fleet("plant.example");
    let mut known = Revocations::default();
    let good = servers_file(&fleet, 1, &BTreeSet::new());
    let mut adopt = |file: String| known.adopt(&fleet.anchor, IssuerKind::Server, file.as_bytes(), now());
    let limit = usize::try_from(LISTS_LEN_MAX.get()).unwrap();
    let filled = |length: usize| format!("{good}{}", " ".repeat(length - good.len()));
    assert_eq!(adopt(filled(limit + 1)), Err(CrlFault::TooLarge));
    assert_eq!(adopt(filled(10 << 20)), Err(CrlFault::TooLarge));
    assert_eq!(adopt(good.repeat(ISSUERS_MAX + 1)), Err(CrlFault::TooLarge));
    for malformed in [
        "",
        "x",
        &good[..good.len() / 2],
        &good.replace("X509 CRL", "CERTIFICATE"),
    ] {
        assert_eq!(
            adopt(malformed.to_owned()),
            Err(CrlFault::Malformed),
            "{malformed}"
        );
    }
    assert_eq!(adopt(filled(limit)), Ok(()));
    assert_eq!(adopt(good.repeat(ISSUERS_MAX)), Ok(()));
}

/// Holds: the key of a server's certificate that was revoked.
#[tokio::test]
async fn a_server_on_the_list_is_refused_in_the_handshake_from_the_moment_the_list_is_known() {
    let fleet = fleet("plant.example");
    let served = serving(&[&fleet]);
    let (key, device) = fleet.device("press-1");
    let lists = Lists::default();
    let floor = Floor::from(UnixSeconds::default()).refusing(lists.clone());
    let client = device_client(&fleet.anchor, device, &key, floor).unwrap();
    let mut known = Revocations::default();
    let refused = ClientError::Refused(Code::CertificateRevoked);
    for (number, revoked, wanted) in [
        (1, BTreeSet::new(), Ok(204)),
        (2, revoking(&fleet.server_chain), Err(refused)),
        (3, BTreeSet::new(), Ok(204)),
    ] {
        let file = servers_file(&fleet, number, &revoked);
        known
            .adopt(&fleet.anchor, IssuerKind::Server, file.as_bytes(), now())
            .unwrap();
        lists.put(known.clone());
        let (_, answer) = ask(&served, Arc::clone(&client), &fleet.control()).await;
        assert_eq!(answer, wanted, "list {number}");
    }
    assert_eq!(refused.code(), Code::ServerRevoked);
}
