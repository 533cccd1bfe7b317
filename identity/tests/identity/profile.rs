//! The certificate profile, one bent line a test (20-identity, attacks.md P03–P08, P17, P18).

use crate::forge::{
    FLEET, Forge, Forged, NOW, at, bent, dns, fleet, issuer_edited, leaf_edited, p256, resigned,
    resigned_bytes, root_edited, spki_of, uri,
};
use crate::openssl;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
};
use redan_identity::profile::{CERTIFICATE_LEN_MAX, IssuerKind, Presented, Purpose, check, check_client};
use redan_identity::{FleetAnchor, IdentityError, ProfileFault};
use redan_protocol::{Code, FleetId, SpiffeId, UnixSeconds};
use rustls::pki_types::CertificateDer;
use x509_cert::TbsCertificate;

const ALL: [IssuerKind; 3] = [IssuerKind::Device, IssuerKind::Server, IssuerKind::Operator];

/// A bent leaf, a bent issuer, a bent root: what each is refused with.
fn leaf(bend: impl FnOnce(&mut CertificateParams)) -> IdentityError {
    bent(IssuerKind::Device, |forge| bend(&mut forge.leaf))
        .check()
        .unwrap_err()
}

fn issuer(bend: impl FnOnce(&mut CertificateParams)) -> IdentityError {
    bent(IssuerKind::Device, |forge| bend(&mut forge.issuer))
        .check()
        .unwrap_err()
}

fn root(bend: impl FnOnce(&mut CertificateParams)) -> IdentityError {
    let forged = bent(IssuerKind::Device, |forge| bend(&mut forge.root));
    FleetAnchor::new(fleet(), forged.root).unwrap_err()
}

fn foreign() -> IdentityError {
    IdentityError::Foreign { fleet: fleet() }
}

#[test]
fn a_chain_that_follows_every_line_is_known() {
    for (kind, name) in ALL.into_iter().zip(["device/press-7", "control", "operator/ada"]) {
        let identity = Forge::new(kind).signed().check().unwrap();
        assert_eq!(
            identity.id(),
            &SpiffeId::parse(&format!("spiffe://{FLEET}/{name}")).unwrap()
        );
    }
}

// The path.

#[test]
fn a_chain_is_a_leaf_and_one_issuer() {
    let mut forged = Forge::new(IssuerKind::Device).signed();
    let whole = forged.chain.clone();
    let refused: IdentityError = ProfileFault::ChainLength.into();
    for chain in [
        vec![],
        whole[..1].to_vec(),
        vec![whole[0].clone(), whole[1].clone(), forged.root.clone()],
        vec![whole[0].clone(); 100],
    ] {
        forged.chain = chain;
        assert_eq!(forged.check(), Err(refused.clone()));
    }
}

#[test]
fn issuer_and_leaf_in_the_wrong_order_are_refused() {
    let mut forged = Forge::new(IssuerKind::Device).signed();
    forged.chain.reverse();
    assert_eq!(forged.check().unwrap_err(), ProfileFault::Uri.into());
}

#[test]
fn a_leaf_of_another_trust_domain_is_refused_though_our_issuer_signed_it() {
    // The attacker holds our device issuer. webpki lets this pass: a DNS constraint binds no URI.
    let found = "spiffe://other.example/device/press-7";
    let error = leaf(|leaf| leaf.subject_alt_names[0] = uri(found));
    let found = SpiffeId::parse(found).unwrap();
    assert_eq!(
        error,
        IdentityError::WrongFleet {
            fleet: fleet(),
            found
        }
    );
}

#[test]
fn a_ca_with_our_names_and_key_identifiers_is_still_another_ca() {
    let (ours, theirs) = (Forge::new(IssuerKind::Device), Forge::new(IssuerKind::Device));
    let mut forged = theirs.signed();
    forged.root = ours.signed().root;
    assert_eq!(forged.check(), Err(foreign()));
    // Even with the very identifiers of ours.
    let mut theirs = Forge::new(IssuerKind::Device);
    for params in [&mut theirs.root, &mut theirs.issuer] {
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]);
    }
    let mut ours = Forge::new(IssuerKind::Device);
    for params in [&mut ours.root, &mut ours.issuer] {
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![7; 20]);
    }
    assert!(ours.signed().check().is_ok());
    let mut forged = theirs.signed();
    forged.root = ours.signed().root;
    assert_eq!(forged.check(), Err(foreign()));
    // Expired, webpki looks at no signature: it is no device that has expired, but nobody.
    assert!(matches!(
        client_after_expiry(&forged),
        Err(IdentityError::NotNow { .. })
    ));
}

/// As a server judges a client a day after its leaf's last second.
fn client_after_expiry(forged: &Forged) -> Result<Presented, IdentityError> {
    let anchor = FleetAnchor::new(fleet(), forged.root.clone()).unwrap();
    check_client(&anchor, &forged.chain, UnixSeconds::new(NOW + 31 * 86_400))
}

#[test]
fn a_leaf_signed_by_another_key_is_refused() {
    let forge = Forge::new(IssuerKind::Device);
    let mut forged = forge.signed();
    forged.chain[0] = resigned(&forged.chain[0], &p256(), |_| {});
    assert_eq!(forged.check(), Err(foreign()));
    assert!(matches!(
        client_after_expiry(&forged),
        Err(IdentityError::NotNow { .. })
    ));
}

#[test]
fn of_the_expired_only_devices_are_known() {
    let device = Forge::new(IssuerKind::Device).signed();
    assert!(matches!(client_after_expiry(&device), Ok(Presented::Expired(_))));
    let operator = Forge::new(IssuerKind::Operator).signed();
    assert!(matches!(
        client_after_expiry(&operator),
        Err(IdentityError::NotNow { .. })
    ));
}

#[test]
fn every_certificate_is_valid_only_in_its_time() {
    let forged = Forge::new(IssuerKind::Device).signed();
    let (from, to) = (NOW - 300, NOW + 30 * 86_400);
    for now in [from, NOW, to] {
        assert!(forged.check_at(now).is_ok(), "{now}");
    }
    for now in [0, from - 1, to + 1, u64::from(u32::MAX)] {
        let refused = IdentityError::NotNow {
            from: UnixSeconds::new(from),
            to: UnixSeconds::new(to),
            now: UnixSeconds::new(now),
        };
        assert_eq!(refused.code(), Code::CertificateExpired);
        assert_eq!(forged.check_at(now), Err(refused));
    }
}

// All certificates.

#[test]
fn version_1_is_refused() {
    let forged = leaf_edited(IssuerKind::Device, |tbs| tbs.version = x509_cert::Version::V1);
    assert!(matches!(
        forged.check().unwrap_err(),
        IdentityError::Profile(ProfileFault::Version)
            | IdentityError::Malformed {
                what: "a certificate"
            }
    ));
    let forged = leaf_edited(IssuerKind::Device, |tbs| {
        tbs.version = x509_cert::Version::V1;
        tbs.extensions = None;
    });
    // Without extensions it has no name at all.
    assert_eq!(forged.check().unwrap_err(), ProfileFault::UriCount.into());
}

#[test]
fn a_serial_number_has_8_to_20_bytes() {
    for length in [8, 16, 20] {
        let forged = bent(IssuerKind::Device, |forge| {
            forge.leaf.serial_number = Some(SerialNumber::from(vec![0x55; length]));
        });
        assert!(forged.check().is_ok(), "{length}");
    }
    for length in [1, 7, 21] {
        let bend = |params: &mut CertificateParams| {
            params.serial_number = Some(SerialNumber::from(vec![0x55; length]));
        };
        assert_eq!(leaf(bend), ProfileFault::Serial.into(), "{length}");
        assert_eq!(
            issuer(bend),
            IdentityError::Issuer(ProfileFault::Serial),
            "{length}"
        );
        assert_eq!(root(bend), IdentityError::Root(ProfileFault::Serial), "{length}");
    }
}

#[test]
fn a_negative_serial_number_is_refused() {
    let forge = Forge::new(IssuerKind::Device);
    let mut forged = forge.signed();
    forged.chain[0] = resigned_bytes(&forged.chain[0], &forge.issuer_key, |tbs| {
        let at = tbs.windows(16).position(|bytes| bytes == [0x55; 16]).unwrap();
        tbs[at] = 0xd5;
    });
    assert_eq!(forged.check().unwrap_err(), ProfileFault::Serial.into());
}

#[test]
fn nobody_lives_longer_than_the_profile_says() {
    for (kind, days) in ALL.into_iter().zip([30, 90, 7]) {
        let forged = bent(kind, |forge| forge.leaf.not_after = at(NOW + days * 86_400 + 1));
        assert_eq!(
            forged.check().unwrap_err(),
            ProfileFault::Lifetime.into(),
            "{kind:?}"
        );
    }
    let error = issuer(|issuer| issuer.not_after = at(NOW + 365 * 86_400 + 1));
    assert_eq!(error, IdentityError::Issuer(ProfileFault::Lifetime));
    let error = root(|root| root.not_after = at(NOW + 3650 * 86_400 + 1));
    assert_eq!(error, IdentityError::Root(ProfileFault::Lifetime));
}

#[test]
fn a_lifetime_that_ends_before_it_begins_is_refused() {
    let error = leaf(|leaf| leaf.not_after = at(NOW - 301));
    assert_eq!(error, ProfileFault::Lifetime.into());
}

#[test]
fn nobody_outlives_who_signed_them() {
    let error = bent(IssuerKind::Device, |forge| {
        forge.issuer.not_after = at(NOW + 86_400);
    });
    assert_eq!(error.check().unwrap_err(), ProfileFault::Lifetime.into());
    let error = bent(IssuerKind::Device, |forge| {
        forge.root.not_after = at(NOW + 86_400);
    });
    assert_eq!(
        error.check().unwrap_err(),
        IdentityError::Issuer(ProfileFault::Lifetime)
    );
    let error = bent(IssuerKind::Device, |forge| {
        forge.issuer.not_before = at(NOW - 299);
    });
    assert_eq!(error.check().unwrap_err(), ProfileFault::Lifetime.into());
}

#[test]
fn an_extension_the_profile_does_not_know_is_refused() {
    for critical in [false, true] {
        let bend = |params: &mut CertificateParams| {
            let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
            extension.set_criticality(critical);
            params.custom_extensions.push(extension);
        };
        assert_eq!(leaf(bend), ProfileFault::UnknownExtension.into());
        assert_eq!(
            issuer(bend),
            IdentityError::Issuer(ProfileFault::UnknownExtension)
        );
        assert_eq!(root(bend), IdentityError::Root(ProfileFault::UnknownExtension));
    }
}

#[test]
fn an_extension_that_is_there_twice_is_refused() {
    let count = Forge::new(IssuerKind::Device).signed();
    let (_, parsed) = x509_parser::parse_x509_certificate(&count.chain[0]).unwrap();
    for at in 0..parsed.extensions().len() {
        let forged = leaf_edited(IssuerKind::Device, |tbs| {
            let extensions = tbs.extensions.as_mut().unwrap();
            extensions.push(extensions[at].clone());
        });
        let error = forged.check().unwrap_err();
        let names_twice = error == ProfileFault::UriCount.into();
        assert!(
            names_twice || error == ProfileFault::UnknownExtension.into(),
            "{at}: {error}"
        );
    }
}

#[test]
fn what_must_be_understood_must_be_critical() {
    // Basic constraints, key usage, and the names of a leaf without a subject.
    for oid in ["2.5.29.19", "2.5.29.15", "2.5.29.17"] {
        let forged = leaf_edited(IssuerKind::Device, |tbs| not_critical(tbs, oid));
        assert_eq!(
            forged.check().unwrap_err(),
            ProfileFault::NotCritical.into(),
            "{oid}"
        );
    }
    // And the name constraint of an issuer.
    for oid in ["2.5.29.19", "2.5.29.15", "2.5.29.30"] {
        let forged = issuer_edited(IssuerKind::Device, |tbs| not_critical(tbs, oid));
        let refused = IdentityError::Issuer(ProfileFault::NotCritical);
        assert_eq!(forged.check().unwrap_err(), refused, "{oid}");
    }
    for oid in ["2.5.29.19", "2.5.29.15"] {
        let root = root_edited(|tbs| not_critical(tbs, oid));
        let refused = IdentityError::Root(ProfileFault::NotCritical);
        assert_eq!(FleetAnchor::new(fleet(), root).unwrap_err(), refused, "{oid}");
    }
}

fn not_critical(tbs: &mut TbsCertificate, oid: &str) {
    let extensions = tbs.extensions.as_mut().unwrap();
    let found = extensions
        .iter_mut()
        .find(|extension| extension.extn_id.to_string() == oid);
    found.unwrap().critical = false;
}

#[test]
fn key_identifiers_lead_from_the_leaf_to_the_root() {
    let without = |params: &mut CertificateParams| params.use_authority_key_identifier_extension = false;
    assert_eq!(leaf(without), ProfileFault::KeyIdentifiers.into());
    assert_eq!(
        issuer(without),
        IdentityError::Issuer(ProfileFault::KeyIdentifiers)
    );
    let wrong = |tbs: &mut TbsCertificate| {
        let extensions = tbs.extensions.as_mut().unwrap();
        let found = extensions
            .iter_mut()
            .find(|extension| extension.extn_id.to_string() == "2.5.29.35");
        let value = &mut found.unwrap().extn_value;
        let mut bytes = value.as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        *value = x509_cert::der::asn1::OctetString::new(bytes).unwrap();
    };
    let forged = leaf_edited(IssuerKind::Device, wrong);
    assert_eq!(forged.check().unwrap_err(), ProfileFault::KeyIdentifiers.into());
    let forged = issuer_edited(IssuerKind::Device, wrong);
    assert_eq!(
        forged.check().unwrap_err(),
        IdentityError::Issuer(ProfileFault::KeyIdentifiers)
    );
    // A leaf without its own.
    let forged = leaf_edited(IssuerKind::Device, |tbs| {
        let extensions = tbs.extensions.as_mut().unwrap();
        extensions.retain(|extension| extension.extn_id.to_string() != "2.5.29.14");
    });
    assert_eq!(forged.check().unwrap_err(), ProfileFault::KeyIdentifiers.into());
}

#[test]
fn a_certificate_over_the_limit_is_not_parsed() {
    let mut forged = Forge::new(IssuerKind::Device).signed();
    let refused = IdentityError::Malformed {
        what: "a certificate",
    };
    forged.chain[0] = vec![0x30; CERTIFICATE_LEN_MAX + 1].into();
    assert_eq!(forged.check(), Err(refused.clone()));
    let mut longer = Forge::new(IssuerKind::Device).signed();
    let mut bytes = longer.chain[0].to_vec();
    bytes.push(0);
    longer.chain[0] = bytes.into();
    assert_eq!(longer.check(), Err(refused));
}

// Keys.

#[test]
fn a_leaf_key_is_p256() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let forged = bent(IssuerKind::Device, |forge| {
            forge.leaf_key = KeyPair::generate_for(algorithm).unwrap();
        });
        assert_eq!(forged.check().unwrap_err(), ProfileFault::KeyAlgorithm.into());
    }
}

#[test]
fn an_rsa_key_of_any_length_is_refused() {
    for bits in ["1024", "2048"] {
        let forged = bent(IssuerKind::Device, |forge| forge.leaf_spki = Some(rsa(bits)));
        assert_eq!(
            forged.check().unwrap_err(),
            ProfileFault::KeyAlgorithm.into(),
            "{bits}"
        );
    }
}

pub(crate) fn rsa(bits: &str) -> Vec<u8> {
    let bits = format!("rsa_keygen_bits:{bits}");
    let private = openssl::read(&["genpkey", "-algorithm", "RSA", "-pkeyopt", &bits], b"");
    spki_of(&openssl::read(&["pkey", "-pubout"], private.as_bytes()))
}

#[test]
fn a_key_has_one_encoding() {
    // The same key with a compressed point would have a second hash.
    let private = openssl::read(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"], b"");
    let arguments = ["ec", "-pubout", "-conv_form", "compressed"];
    let compressed = spki_of(&openssl::read(&arguments, private.as_bytes()));
    let forged = bent(IssuerKind::Device, |forge| forge.leaf_spki = Some(compressed));
    assert_eq!(forged.check().unwrap_err(), ProfileFault::KeyAlgorithm.into());
}

#[test]
fn issuers_are_p256_and_roots_p384() {
    let forged = bent(IssuerKind::Device, |forge| {
        forge.issuer_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    });
    assert_eq!(
        forged.check().unwrap_err(),
        IdentityError::Issuer(ProfileFault::KeyAlgorithm)
    );
    let forged = bent(IssuerKind::Device, |forge| forge.root_key = p256());
    let refused = IdentityError::Root(ProfileFault::KeyAlgorithm);
    assert_eq!(FleetAnchor::new(fleet(), forged.root).unwrap_err(), refused);
}

// The leaf.

#[test]
fn a_leaf_says_that_it_is_no_authority() {
    assert_eq!(
        leaf(|leaf| leaf.is_ca = IsCa::NoCa),
        ProfileFault::BasicConstraints.into()
    );
    let forged = leaf_edited(IssuerKind::Device, |tbs| {
        let extensions = tbs.extensions.as_mut().unwrap();
        extensions.retain(|extension| extension.extn_id.to_string() != "2.5.29.19");
    });
    assert_eq!(forged.check().unwrap_err(), ProfileFault::BasicConstraints.into());
    for constraints in [BasicConstraints::Unconstrained, BasicConstraints::Constrained(0)] {
        let error = leaf(|leaf| leaf.is_ca = IsCa::Ca(constraints));
        assert_eq!(error, ProfileFault::BasicConstraints.into());
    }
}

#[test]
fn a_leaf_signs_and_does_nothing_else() {
    for usages in [
        vec![],
        vec![KeyUsagePurpose::KeyEncipherment],
        vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
        vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::ContentCommitment,
        ],
    ] {
        let error = leaf(|leaf| leaf.key_usages = usages);
        assert_eq!(error, ProfileFault::KeyUsage.into());
    }
}

#[test]
fn a_leaf_has_exactly_the_one_extended_key_usage() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, Other, ServerAuth};
    for usages in [
        vec![],
        vec![ServerAuth],
        vec![Any],
        vec![ClientAuth, ServerAuth],
        vec![ClientAuth, Any],
        vec![ClientAuth, CodeSigning],
        vec![ClientAuth, Other(vec![1, 3, 6, 1, 4, 1, 99_999])],
    ] {
        let error = leaf(|leaf| leaf.extended_key_usages = usages);
        assert_eq!(error, ProfileFault::ExtendedKeyUsage.into());
    }
    let forged = bent(IssuerKind::Server, |forge| {
        forge.leaf.extended_key_usages = vec![ClientAuth];
    });
    assert_eq!(forged.check().unwrap_err(), ProfileFault::ExtendedKeyUsage.into());
}

#[test]
fn a_client_is_never_a_server_nor_the_other_way_round() {
    for kind in ALL {
        let mut forged = Forge::new(kind).signed();
        forged.purpose = match forged.purpose {
            Purpose::Client => Purpose::Server,
            Purpose::Server => Purpose::Client,
        };
        assert_eq!(forged.check().unwrap_err(), ProfileFault::Uri.into(), "{kind:?}");
    }
}

#[test]
fn a_leaf_has_exactly_one_uri_name() {
    let host = format!("press-7.device.{FLEET}");
    let own = uri(&format!("spiffe://{FLEET}/device/press-7"));
    for names in [
        vec![],
        vec![dns(&host)],
        vec![own.clone(), own.clone(), dns(&host)],
        vec![own, uri(&format!("spiffe://{FLEET}/device/press-8")), dns(&host)],
    ] {
        let error = leaf(|leaf| leaf.subject_alt_names = names);
        assert_eq!(error, ProfileFault::UriCount.into());
    }
}

#[test]
fn a_uri_name_is_read_byte_for_byte() {
    let long = format!("spiffe://{FLEET}/device/{}", "a".repeat(2049));
    for hostile in [
        "spiffe://Plant.example/device/press-7",
        "SPIFFE://plant.example/device/press-7",
        "spiffe://plant.example/device/Press-7",
        "spiffe://plant.example/Device/press-7",
        "spiffe://plant.example/device/press-7/",
        "spiffe://plant.example//device/press-7",
        "spiffe://plant.example/device//press-7",
        "spiffe://plant.example/device/press-7/x",
        "spiffe://plant.example/device/..",
        "spiffe://plant.example/device/../operator/ada",
        "spiffe://plant.example/device/.",
        "spiffe://plant.example/device/%70ress-7",
        "spiffe://plant.example/device/press%2d7",
        "spiffe://plant.example/device/%2e%2e",
        "spiffe://plant.example/device/press-7?x=1",
        "spiffe://plant.example/device/press-7#x",
        "spiffe://plant.example:443/device/press-7",
        "spiffe://u@plant.example/device/press-7",
        "spiffe://u:p@plant.example/device/press-7",
        "spiffe://plant.example./device/press-7",
        "spiffe://.plant.example/device/press-7",
        "spiffe://plant..example/device/press-7",
        "spiffe://[::1]/device/press-7",
        "spiffe:///device/press-7",
        "spiffe://plant.example/device/",
        "spiffe://plant.example/device",
        "spiffe://plant.example/",
        "spiffe://plant.example",
        "spiffe:plant.example/device/press-7",
        "https://plant.example/device/press-7",
        " spiffe://plant.example/device/press-7",
        "spiffe://plant.example/device/press-7 ",
        "spiffe://plant.example/device/press-7\n",
        "spiffe://plant.example/device/press_7",
        "spiffe://plant.example/device/-press",
        "spiffe://plant.example/device/press-",
        "spiffe://plant.example/workload/press-7",
        "spiffe://plant.example/operator/",
        "spiffe://xn--.example/device/press-7\0",
        "",
        &long,
    ] {
        let error = leaf(|leaf| leaf.subject_alt_names[0] = uri(hostile));
        assert_eq!(error, ProfileFault::Uri.into(), "{hostile:?}");
    }
}

#[test]
fn a_uri_name_outside_ascii_is_refused() {
    // IA5 is ASCII; rcgen would not write this.
    let forge = Forge::new(IssuerKind::Device);
    for bad in [0x80, 0xff, 0x00, 0xc3] {
        let mut forged = forge.signed();
        forged.chain[0] = resigned_bytes(&forged.chain[0], &forge.issuer_key, |tbs| {
            let at = tbs
                .windows(9)
                .position(|bytes| bytes == b"/press-7\x82" || bytes == b"e/press-7")
                .unwrap();
            tbs[at + 8] = bad;
        });
        let error = forged.check().unwrap_err();
        let refused = [ProfileFault::Uri.into(), ProfileFault::UriCount.into()];
        assert!(refused.contains(&error), "{bad:#x}: {error}");
    }
}

#[test]
fn the_common_name_is_never_read() {
    // With a subject, and without any names that count.
    let named = |leaf: &mut CertificateParams| {
        let name = format!("spiffe://{FLEET}/operator/ada");
        leaf.distinguished_name.push(rcgen::DnType::CommonName, name);
    };
    let identity = bent(IssuerKind::Device, |forge| named(&mut forge.leaf))
        .check()
        .unwrap();
    assert_eq!(
        identity.id().to_string(),
        format!("spiffe://{FLEET}/device/press-7")
    );
    let error = leaf(|leaf| {
        named(leaf);
        leaf.subject_alt_names.clear();
    });
    assert_eq!(error, ProfileFault::UriCount.into());
}

#[test]
fn dns_names_are_those_of_the_uri() {
    let own = uri(&format!("spiffe://{FLEET}/device/press-7"));
    let host = dns(&format!("press-7.device.{FLEET}"));
    for names in [
        vec![own.clone()],
        vec![own.clone(), dns(&format!("press-8.device.{FLEET}"))],
        vec![own.clone(), dns(&format!("*.device.{FLEET}"))],
        vec![own.clone(), dns(&format!("PRESS-7.device.{FLEET}"))],
        vec![own.clone(), host.clone(), host.clone()],
        vec![own.clone(), host.clone(), dns(&format!("press-8.device.{FLEET}"))],
    ] {
        let error = leaf(|leaf| leaf.subject_alt_names = names.clone());
        assert_eq!(error, ProfileFault::DnsNames.into(), "{names:?}");
    }
    let forged = bent(IssuerKind::Server, |forge| {
        drop(forge.leaf.subject_alt_names.pop());
    });
    assert_eq!(forged.check().unwrap_err(), ProfileFault::DnsNames.into());
}

#[test]
fn names_of_other_kinds_are_refused() {
    for name in [
        SanType::Rfc822Name("ada@plant.example".try_into().unwrap()),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ] {
        let error = leaf(|leaf| leaf.subject_alt_names.push(name));
        assert_eq!(error, ProfileFault::OtherNames.into());
    }
}

#[test]
fn a_leaf_constrains_nobody() {
    let error = leaf(|leaf| {
        leaf.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(FLEET.to_owned())],
            excluded_subtrees: vec![],
        });
    });
    assert_eq!(error, ProfileFault::UnknownExtension.into());
}

// The issuer.

#[test]
fn an_issuer_certifies_and_lists_and_does_nothing_else() {
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign};
    for usages in [
        vec![],
        vec![CrlSign],
        vec![KeyCertSign],
        vec![KeyCertSign, CrlSign, DigitalSignature],
    ] {
        let bend = |params: &mut CertificateParams| params.key_usages.clone_from(&usages);
        assert_eq!(issuer(bend), IdentityError::Issuer(ProfileFault::KeyUsage));
        assert_eq!(root(bend), IdentityError::Root(ProfileFault::KeyUsage));
    }
}

#[test]
fn an_issuer_has_path_length_0() {
    for constraints in [BasicConstraints::Unconstrained, BasicConstraints::Constrained(1)] {
        let error = issuer(|issuer| issuer.is_ca = IsCa::Ca(constraints));
        assert_eq!(error, IdentityError::Issuer(ProfileFault::BasicConstraints));
    }
    for not in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let error = issuer(|issuer| issuer.is_ca = not);
        assert_eq!(error, IdentityError::Issuer(ProfileFault::BasicConstraints));
    }
    let error = root(|root| root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)));
    assert_eq!(error, IdentityError::Root(ProfileFault::BasicConstraints));
}

#[test]
fn an_issuer_has_the_one_extended_key_usage_of_its_leaves() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    for usages in [vec![], vec![ServerAuth], vec![ClientAuth, ServerAuth], vec![Any]] {
        let error = issuer(|issuer| issuer.extended_key_usages = usages);
        assert_eq!(error, IdentityError::Issuer(ProfileFault::ExtendedKeyUsage));
    }
    let error = root(|root| root.extended_key_usages = vec![ClientAuth]);
    assert_eq!(error, IdentityError::Root(ProfileFault::ExtendedKeyUsage));
}

#[test]
fn an_issuer_is_constrained_to_the_names_of_its_leaves() {
    let subtree = |name: &str| vec![GeneralSubtree::DnsName(name.to_owned())];
    let own = format!("device.{FLEET}");
    let two = [subtree(&own), subtree("device.other.example")].concat();
    for (permitted, excluded) in [
        (subtree(FLEET), vec![]),
        (subtree("device.other.example"), vec![]),
        (two, vec![]),
        (subtree(&own), subtree("other.example")),
        (vec![], subtree("other.example")),
    ] {
        let constraints = NameConstraints {
            permitted_subtrees: permitted,
            excluded_subtrees: excluded,
        };
        let error = issuer(|issuer| issuer.name_constraints = Some(constraints));
        assert_eq!(error, IdentityError::Issuer(ProfileFault::NameConstraint));
    }
    let error = issuer(|issuer| issuer.name_constraints = None);
    assert_eq!(error, IdentityError::Issuer(ProfileFault::NameConstraint));
    let error = root(|root| {
        root.name_constraints = Some(NameConstraints {
            permitted_subtrees: subtree(FLEET),
            excluded_subtrees: vec![],
        });
    });
    assert_eq!(error, IdentityError::Root(ProfileFault::NameConstraint));
}

#[test]
fn a_stolen_device_issuer_makes_no_operator() {
    // The attacker holds the control server with its device issuer key: the same EKU as an operator issuer's.
    let operator = Forge::new(IssuerKind::Operator);
    let mut forge = Forge::new(IssuerKind::Device);
    forge.leaf = operator.leaf.clone();
    let refused = IdentityError::Issuer(ProfileFault::NameConstraint);
    assert_eq!(forge.signed().check().unwrap_err(), refused);
    // Not with the DNS name of a device either.
    forge.leaf.subject_alt_names[1] = dns(&format!("ada.device.{FLEET}"));
    assert_eq!(forge.signed().check().unwrap_err(), refused);
}

#[test]
fn an_authority_is_named_by_its_trust_domain() {
    let other: fn(&mut CertificateParams) =
        |params| params.subject_alt_names = vec![uri("spiffe://other.example")];
    assert_eq!(issuer(other), IdentityError::Issuer(ProfileFault::Uri));
    assert_eq!(root(other), IdentityError::Root(ProfileFault::Uri));
    let none: fn(&mut CertificateParams) = |params| params.subject_alt_names.clear();
    assert_eq!(issuer(none), IdentityError::Issuer(ProfileFault::UriCount));
    assert_eq!(root(none), IdentityError::Root(ProfileFault::UriCount));
    let more: fn(&mut CertificateParams) = |params| params.subject_alt_names.push(dns(FLEET));
    assert_eq!(issuer(more), IdentityError::Issuer(ProfileFault::DnsNames));
    assert_eq!(root(more), IdentityError::Root(ProfileFault::DnsNames));
}

// The root.

#[test]
fn one_fleets_root_is_no_anchor_of_another() {
    let root = Forge::new(IssuerKind::Device).signed().root;
    let other = FleetId::parse("other.example").unwrap();
    let refused = IdentityError::Root(ProfileFault::Uri);
    assert_eq!(FleetAnchor::new(other, root).unwrap_err(), refused);
}

#[test]
fn a_root_is_signed_by_its_own_key() {
    let forge = Forge::new(IssuerKind::Device);
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let root = resigned(&forge.signed().root, &other, |_| {});
    let refused = IdentityError::Root(ProfileFault::Signature);
    assert_eq!(FleetAnchor::new(fleet(), root).unwrap_err(), refused);
    let issuer = forge.signed().chain[1].clone();
    assert!(FleetAnchor::new(fleet(), issuer).is_err());
    let renamed = root_edited(|tbs| tbs.issuer = x509_cert::name::Name::default());
    let refused = IdentityError::Root(ProfileFault::ChainLength);
    assert_eq!(FleetAnchor::new(fleet(), renamed).unwrap_err(), refused);
}

// Everything at once.

#[test]
fn no_changed_byte_of_a_chain_is_accepted() {
    let forged = Forge::new(IssuerKind::Device).signed();
    let anchor = FleetAnchor::new(fleet(), forged.root.clone()).unwrap();
    for which in [0, 1] {
        for at in 0..forged.chain[which].len() {
            let mut chain = forged.chain.clone();
            let mut bytes = chain[which].to_vec();
            bytes[at] ^= 1;
            chain[which] = CertificateDer::from(bytes);
            let answer = check(&anchor, &chain, Purpose::Client, UnixSeconds::new(NOW));
            assert!(answer.is_err(), "certificate {which}, byte {at}");
        }
    }
}
