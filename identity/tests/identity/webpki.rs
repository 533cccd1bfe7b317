//! What rustls-webpki 0.103 does, by experiment: why the profile has a check of its own. When a line here changes, webpki has changed,
//! and docs/identity.md with it.

use crate::forge::{FLEET, Forge, Forged, NOW, bent, dns, uri};
use crate::profile::rsa;
use rcgen::{ExtendedKeyUsagePurpose, GeneralSubtree, KeyUsagePurpose, NameConstraints};
use redan_identity::profile::{IssuerKind, Purpose};
use rustls::pki_types::UnixTime;
use std::time::Duration;

/// The path alone.
fn webpki(forged: &Forged) -> Result<(), webpki::Error> {
    let entity = webpki::EndEntityCert::try_from(&forged.chain[0])?;
    let usage = match forged.purpose {
        Purpose::Client => webpki::KeyUsage::client_auth(),
        Purpose::Server => webpki::KeyUsage::server_auth(),
    };
    let anchors = [webpki::anchor_from_trusted_cert(&forged.root)?];
    let time = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    entity
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &forged.chain[1..],
            time,
            usage,
            None,
            None,
        )
        .map(drop)
}

/// webpki lets it pass; we do not.
fn only_ours_refuses(what: &str, bend: impl FnOnce(&mut Forge)) {
    let forged = bent(IssuerKind::Device, bend);
    assert_eq!(webpki(&forged), Ok(()), "{what}");
    assert!(forged.check().is_err(), "{what}");
}

#[test]
fn webpki_accepts_what_the_profile_refuses() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    only_ours_refuses("no EKU", |forge| forge.leaf.extended_key_usages.clear());
    only_ours_refuses("both EKUs", |forge| {
        forge.leaf.extended_key_usages = vec![ClientAuth, ServerAuth];
    });
    only_ours_refuses("an issuer without EKU", |forge| {
        forge.issuer.extended_key_usages.clear();
    });
    only_ours_refuses("keyEncipherment only", |forge| {
        forge.leaf.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    });
    only_ours_refuses("an issuer without keyCertSign", |forge| {
        forge.issuer.key_usages = vec![KeyUsagePurpose::CrlSign];
    });
    only_ours_refuses("two URI names", |forge| {
        let second = uri(&format!("spiffe://{FLEET}/device/press-8"));
        forge.leaf.subject_alt_names.push(second);
    });
    only_ours_refuses("no URI name", |forge| {
        drop(forge.leaf.subject_alt_names.remove(0));
    });
    only_ours_refuses("RSA-1024", |forge| forge.leaf_spki = Some(rsa("1024")));
    for name in [
        "Plant.example/device/a",
        "plant.example/device/..",
        "plant.example/device/a?b",
        "plant.example/device/a#b",
    ] {
        only_ours_refuses(name, |forge| {
            forge.leaf.subject_alt_names[0] = uri(&format!("spiffe://{name}"));
        });
    }
}

#[test]
fn a_dns_constraint_binds_no_uri_name() {
    only_ours_refuses("a URI of another fleet", |forge| {
        forge.leaf.subject_alt_names[0] = uri("spiffe://other.example/device/press-7");
    });
    // But it binds DNS names.
    let forged = bent(IssuerKind::Device, |forge| {
        forge.leaf.subject_alt_names[1] = dns("press-7.device.other.example");
    });
    assert_eq!(webpki(&forged), Err(webpki::Error::NameConstraintViolation));
}

#[test]
fn any_uri_constraint_makes_every_spiffe_leaf_fail() {
    let forge = Forge::new(IssuerKind::Device);
    let mut forged = forge.signed();
    assert_eq!(webpki(&forged), Ok(()));
    // NameConstraints { permitted [0] { { [6] "plant.example" } } }; rcgen has no URI subtrees.
    let constraints = {
        use crate::forge::tlv;
        tlv(0x30, &tlv(0xa0, &tlv(0x30, &tlv(0x86, FLEET.as_bytes()))))
    };
    forged.chain[1] = crate::forge::resigned(&forged.chain[1], &forge.root_key, |tbs| {
        let extensions = tbs.extensions.as_mut().unwrap();
        let found = extensions
            .iter_mut()
            .find(|extension| extension.extn_id.to_string() == "2.5.29.30");
        found.unwrap().extn_value = x509_cert::der::asn1::OctetString::new(constraints).unwrap();
    });
    assert_eq!(webpki(&forged), Err(webpki::Error::NameConstraintViolation));
}

#[test]
fn a_constraint_with_nothing_permitted_but_our_names_is_what_issuers_carry() {
    for kind in [IssuerKind::Device, IssuerKind::Server, IssuerKind::Operator] {
        let forge = Forge::new(kind);
        let permitted = |constraints: &NameConstraints| constraints.permitted_subtrees.clone();
        let subtrees = forge.issuer.name_constraints.as_ref().map(permitted).unwrap();
        assert!(matches!(subtrees.as_slice(), [GeneralSubtree::DnsName(_)]));
        assert_eq!(webpki(&forge.signed()), Ok(()), "{kind:?}");
    }
}
