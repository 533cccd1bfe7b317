//! Founding a fleet, and what its issuers refuse to sign.

use crate::openssl;
use crate::stage::{DAY, fleet, now};
use redan_identity::profile::{Purpose, check, check_device_leaf, latest_not_before};
use redan_identity::{
    FleetAnchor, FleetCa, IdentityError, Issuer, IssuerKind, KeyFile, KeyProvider, ProfileFault, pem,
};
use redan_protocol::{DeviceId, FleetId, OperatorName, SpiffeId, UnixSeconds};
use x509_parser::prelude::FromDer as _;

#[test]
fn an_issuer_issues_only_its_own_kind_and_fleet() {
    let fleet = fleet("plant.example");
    let key = KeyFile::generate().unwrap();
    let operator = SpiffeId::Operator(fleet.id(), OperatorName::parse("ada").unwrap());
    let device = SpiffeId::Device(fleet.id(), DeviceId::parse("press-7").unwrap());
    let control = SpiffeId::Control(fleet.id());
    let other = SpiffeId::Device(
        FleetId::parse("other.example").unwrap(),
        DeviceId::parse("press-7").unwrap(),
    );
    for (issuer, own) in [
        (&fleet.devices, &device),
        (&fleet.operators, &operator),
        (&fleet.servers, &control),
    ] {
        for id in [&operator, &device, &control, &other] {
            let answer = issuer.issue_for(id, &key, now());
            if id == own {
                assert!(answer.is_ok(), "{issuer:?} {id}");
            } else {
                let refused = IdentityError::WrongFleet {
                    fleet: fleet.id(),
                    found: id.clone(),
                };
                assert_eq!(answer, Err(refused), "{issuer:?} {id}");
            }
        }
    }
}

#[test]
fn the_longest_names_can_be_issued() {
    let name = [&"a".repeat(60); 3].map(String::as_str).join(".");
    let fleet = fleet(&name[..180]);
    let key = KeyFile::generate().unwrap();
    let id = SpiffeId::Device(fleet.id(), DeviceId::parse(&"d".repeat(63)).unwrap());
    let chain = fleet.devices.issue_for(&id, &key, now()).unwrap();
    assert_eq!(
        check(&fleet.anchor, &chain, Purpose::Client, now()).unwrap().id(),
        &id
    );
}

#[test]
fn a_leaf_ends_no_later_than_its_issuer() {
    let fleet = fleet("plant.example");
    let late = UnixSeconds::new(now().get() + 350 * DAY);
    let (_, chain) = fleet.device_at("press-7", late);
    let ends = |der: &[u8]| {
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(der).unwrap();
        parsed.validity().not_after.timestamp()
    };
    assert_eq!(ends(&chain[0]), ends(&chain[1]));
    // And an issuer that has ended issues nothing.
    let over = UnixSeconds::new(now().get() + 366 * DAY);
    let key = KeyFile::generate().unwrap();
    let id = SpiffeId::Device(fleet.id(), DeviceId::parse("press-7").unwrap());
    assert!(fleet.devices.issue_for(&id, &key, over).is_err());
}

#[test]
fn a_key_of_an_authority_gets_no_leaf() {
    let fleet = fleet("plant.example");
    let id = SpiffeId::Device(fleet.id(), DeviceId::parse("press-7").unwrap());
    let spki = fleet.devices.key().spki();
    assert_eq!(fleet.devices.issue(&id, &spki, now()), Err(IdentityError::Csr));
}

#[test]
fn a_key_that_is_not_p256_gets_no_leaf() {
    let fleet = fleet("plant.example");
    let id = SpiffeId::Device(fleet.id(), DeviceId::parse("press-7").unwrap());
    let mut trailing = KeyFile::generate().unwrap().spki();
    trailing.push(0);
    for spki in [crate::profile::rsa("2048"), trailing, vec![], vec![0x30, 0]] {
        assert_eq!(fleet.devices.issue(&id, &spki, now()), Err(IdentityError::Csr));
    }
}

#[test]
fn every_serial_number_is_new() {
    let fleet = fleet("plant.example");
    let serial = || {
        let (_, chain) = fleet.device("press-7");
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&chain[0]).unwrap();
        parsed.raw_serial().to_vec()
    };
    let (first, second) = (serial(), serial());
    assert_eq!((first.len(), second.len()), (16, 16));
    assert_ne!(first, second);
}

#[test]
fn openssl_takes_every_chain_in_its_strictest_mode() {
    let fleet = fleet("plant.example");
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("ca.pem");
    std::fs::write(&root, pem::write_chain(&[fleet.anchor.root().clone()])).unwrap();
    let (_, device) = fleet.device("press-7");
    let (_, operator) = fleet.operator("ada");
    for (chain, purpose) in [
        (&device, "sslclient"),
        (&operator, "sslclient"),
        (&fleet.server_chain, "sslserver"),
    ] {
        let issuer = folder.path().join("issuer.pem");
        std::fs::write(&issuer, pem::write_chain(&chain[1..])).unwrap();
        let leaf = folder.path().join("leaf.pem");
        std::fs::write(&leaf, pem::write_chain(&chain[..1])).unwrap();
        let [root, issuer, leaf] = [&root, &issuer, &leaf].map(|path| path.to_str().unwrap());
        let arguments = [
            "verify",
            "-x509_strict",
            "-CAfile",
            root,
            "-untrusted",
            issuer,
            "-purpose",
            purpose,
            leaf,
        ];
        let said = openssl::read(&arguments, b"");
        assert!(said.ends_with(": OK\n"), "{said}");
    }
}

#[test]
fn a_root_is_loaded_again_for_the_next_years_issuers() {
    let fleet = fleet("plant.example");
    let pem = fleet.ca.key_pem();
    let ca = FleetCa::load(fleet.anchor.clone(), &pem).unwrap();
    let later = UnixSeconds::new(now().get() + 200 * DAY);
    let issuer = ca.issuer(IssuerKind::Device, later).unwrap();
    let id = SpiffeId::Device(fleet.id(), DeviceId::parse("press-7").unwrap());
    let chain = issuer
        .issue_for(&id, &KeyFile::generate().unwrap(), later)
        .unwrap();
    assert!(check(&fleet.anchor, &chain, Purpose::Client, later).is_ok());
    // With another fleet's anchor, or another kind of key.
    let other = crate::stage::fleet("other.example");
    assert_eq!(
        FleetCa::load(other.anchor, &pem).unwrap_err(),
        IdentityError::KeyMismatch
    );
    let p256 = KeyFile::generate().unwrap().to_pem();
    let refused = IdentityError::Malformed {
        what: "a P-384 private key in PEM (PKCS#8)",
    };
    assert_eq!(FleetCa::load(fleet.anchor, &p256).unwrap_err(), refused);
}

#[test]
fn an_issuer_that_could_not_issue_is_found_at_start() {
    let (ours, theirs) = (fleet("plant.example"), fleet("plant.example"));
    let again = |kind, anchor: &FleetAnchor, of: &Issuer, key: KeyFile| {
        Issuer::load(kind, anchor.clone(), key, of.certificate().clone())
    };
    let copy = |issuer: &Issuer| KeyFile::from_pem(&issuer.key().to_pem()).unwrap();
    let proven = |issuer: Issuer, when| issuer.proven(when).map(drop);
    let own = || {
        again(
            IssuerKind::Device,
            &ours.anchor,
            &ours.devices,
            copy(&ours.devices),
        )
    };
    assert_eq!(proven(own(), now()), Ok(()));
    let wrong_kind = again(
        IssuerKind::Device,
        &ours.anchor,
        &ours.operators,
        copy(&ours.operators),
    );
    assert_eq!(
        proven(wrong_kind, now()),
        Err(IdentityError::Issuer(ProfileFault::NameConstraint))
    );
    let wrong_key = again(
        IssuerKind::Device,
        &ours.anchor,
        &ours.devices,
        KeyFile::generate().unwrap(),
    );
    assert_eq!(proven(wrong_key, now()), Err(IdentityError::KeyMismatch));
    let wrong_root = again(
        IssuerKind::Device,
        &theirs.anchor,
        &ours.devices,
        copy(&ours.devices),
    );
    assert_eq!(
        proven(wrong_root, now()),
        Err(IdentityError::Issuer(ProfileFault::KeyIdentifiers))
    );
    let late = UnixSeconds::new(now().get() + 366 * DAY);
    let error = proven(own(), late).unwrap_err();
    assert_eq!(error.code(), redan_protocol::Code::CertificateExpired);
}

#[test]
fn a_device_leaf_is_a_devices() {
    let fleet = fleet("plant.example");
    let (key, chain) = fleet.device("press-7");
    let answer = check_device_leaf(&fleet.anchor, &chain, latest_not_before(&chain));
    let device = DeviceId::parse("press-7").unwrap();
    assert_eq!(answer, Ok((fleet.id(), device, key.spki_sha256())));
    let (_, chain) = fleet.operator("ada");
    assert_eq!(
        check_device_leaf(&fleet.anchor, &chain, now()),
        Err(ProfileFault::Uri.into())
    );
}

#[test]
fn a_bundle_keeps_key_and_chain_together() {
    let fleet = fleet("plant.example");
    let (key, chain) = fleet.operator("ada");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ada.pem");
    redan_identity::key::write_private(&path, pem::write_bundle(&key, &chain).as_bytes()).unwrap();
    let (read_key, read_chain) = pem::load_bundle(&path).unwrap();
    assert_eq!((read_key.spki(), read_chain), (key.spki(), chain.clone()));
    // In the other order too: people assemble these by hand.
    let swapped = format!("{}{}", pem::write_chain(&chain), key.to_pem().as_str());
    assert_eq!(pem::read_bundle(&swapped).unwrap().1, chain);
    assert_eq!(pem::read_held(&swapped).unwrap().0.spki(), key.spki());
    // Issuers are read by the one, everybody else by the other, which takes names of keys in tokens too.
    let both = |text: &str, refused: &IdentityError| {
        assert_eq!(&pem::read_bundle(text).unwrap_err(), refused);
        assert_eq!(&pem::read_held(text).unwrap_err(), refused);
    };
    let other = pem::write_bundle(&KeyFile::generate().unwrap(), &chain);
    both(&other, &IdentityError::KeyMismatch);
    let refused = IdentityError::Malformed {
        what: "a P-256 private key in PEM (PKCS#8)",
    };
    both(&pem::write_chain(&chain), &refused);
    let refused = IdentityError::Malformed {
        what: "a certificate in PEM",
    };
    both(&key.to_pem(), &refused);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let refused = IdentityError::KeyMode {
        path: path.display().to_string(),
        mode: 0o644,
    };
    assert_eq!(pem::load_bundle(&path).unwrap_err(), refused);
    assert_eq!(pem::load_held(&path).unwrap_err(), refused);
}

#[test]
fn openssl_reads_and_writes_our_keys() {
    let key = KeyFile::generate().unwrap();
    let public = openssl::read(&["pkey", "-pubout"], key.to_pem().as_bytes());
    assert_eq!(crate::forge::spki_of(&public), key.spki());
    let theirs = openssl::read(
        &[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ],
        b"",
    );
    let read = KeyFile::from_pem(&theirs).unwrap();
    let public = openssl::read(&["pkey", "-pubout"], theirs.as_bytes());
    assert_eq!(crate::forge::spki_of(&public), read.spki());
}

/// A key that is somewhere else: all this crate gets of it is signatures.
#[derive(Clone, Debug)]
struct Token(std::sync::Arc<KeyFile>);

impl KeyProvider for Token {
    fn spki(&self) -> Vec<u8> {
        self.0.spki()
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.0.sign(message)
    }
    fn share(&self) -> std::sync::Arc<dyn KeyProvider> {
        std::sync::Arc::new(self.clone())
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_exported_enrols_and_opens_connections() {
    use redan_identity::tls::{Peer, device_client, enrolment_client};
    let fleet = fleet("plant.example");
    let token = Token(std::sync::Arc::new(KeyFile::generate().unwrap()));
    let served = crate::stage::serving(&[&fleet]);
    let client = enrolment_client(&fleet.anchor, &token, UnixSeconds::default()).unwrap();
    let (seen, _) = crate::stage::ask(&served, client, &fleet.enrol()).await;
    let spki = token.spki_sha256();
    assert_eq!(seen, Ok((Peer::Enrolling { spki }, fleet.enrol())));
    let request = redan_identity::est::csr(&token).unwrap();
    let request = redan_identity::est::decode_csr(&request).unwrap();
    let id = SpiffeId::Device(fleet.id(), DeviceId::parse("press-7").unwrap());
    let chain = fleet.devices.issue(&id, &request, now()).unwrap();
    let client = device_client(&fleet.anchor, chain, &token, UnixSeconds::default()).unwrap();
    let (_, answer) = crate::stage::ask(&served, client, &fleet.control()).await;
    assert_eq!(answer, Ok(204));
}
