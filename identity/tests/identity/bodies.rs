//! The bodies of EST, read and written by us and by `openssl` (attacks.md E03, E04).

use crate::forge::tlv;
use crate::openssl::{self, block};
use crate::stage::fleet;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_identity::est::{csr, decode_certs_only, decode_csr, encode_certs_only};
use redan_identity::{IdentityError, KeyFile};
use redan_protocol::wire::CSR_LEN_MAX;

#[test]
fn openssl_verifies_our_request() {
    let key = KeyFile::generate().unwrap();
    let body = csr(&key).unwrap();
    let pem = block("CERTIFICATE REQUEST", &body);
    let text = openssl::read(&["req", "-verify", "-noout", "-text"], &pem);
    assert!(text.contains("prime256v1"), "{text}");
    assert!(
        text.contains("Subject: \n") || text.contains("Subject:\n"),
        "{text}"
    );
    let public = openssl::read(&["req", "-noout", "-pubkey"], &pem);
    assert_eq!(crate::forge::spki_of(&public), key.spki());
    assert_eq!(decode_csr(&body), Ok(key.spki()));
}

/// The base64 body of a request made by `openssl`.
fn foreign_request(algorithm: &[&str], more: &[&str]) -> (Vec<u8>, String) {
    let private = openssl::read(&[&["genpkey"], algorithm].concat(), b"");
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    std::fs::write(&key, &private).unwrap();
    let arguments = [&["req", "-new", "-key", key.to_str().unwrap()], more].concat();
    let pem = openssl::read(&arguments, b"");
    let body = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect::<Vec<_>>()
        .join("\n");
    let public = openssl::read(&["pkey", "-pubout"], private.as_bytes());
    (crate::forge::spki_of(&public), body)
}

const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    // It asks for another name, to be an authority, and to be a server.
    let greedy = [
        "-subj",
        "/CN=spiffe:\\/\\/plant.example\\/operator\\/ada",
        "-addext",
        "subjectAltName=URI:spiffe://plant.example/operator/ada,DNS:control.plant.example",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=keyCertSign",
        "-addext",
        "extendedKeyUsage=serverAuth",
    ];
    let (spki, body) = foreign_request(&P256, &greedy);
    assert_eq!(decode_csr(&body), Ok(spki.clone()));
    let fleet = fleet("plant.example");
    let (_, plain) = fleet.device("press-7");
    let id = redan_identity::profile::check(
        &fleet.anchor,
        &plain,
        redan_identity::profile::Purpose::Client,
        crate::stage::now(),
    );
    let id = id.unwrap().id().clone();
    let chain = fleet.devices.issue(&id, &spki, crate::stage::now()).unwrap();
    // Byte for byte as long as one for a plain request: nothing of it got in.
    let length = |der: &[u8]| i64::try_from(der.len()).unwrap();
    assert!(
        (length(&chain[0]) - length(&plain[0])).abs() <= 3,
        "only the signatures differ in length"
    );
}

#[test]
fn a_request_with_another_kind_of_key_is_refused() {
    for algorithm in [
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"][..],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
        &["-algorithm", "ED25519"],
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    ] {
        let (_, body) = foreign_request(algorithm, &["-subj", "/CN=x"]);
        assert_eq!(decode_csr(&body), Err(IdentityError::Csr), "{algorithm:?}");
    }
}

#[test]
fn a_request_that_proves_no_possession_is_refused() {
    let (mine, theirs) = (KeyFile::generate().unwrap(), KeyFile::generate().unwrap());
    let der = STANDARD.decode(csr(&mine).unwrap().replace("\r\n", "")).unwrap();
    // Their key under my signature.
    let at = der
        .windows(mine.spki().len())
        .position(|bytes| bytes == mine.spki())
        .unwrap();
    let mut swapped = der.clone();
    swapped.splice(at..at + mine.spki().len(), theirs.spki());
    assert_eq!(decode_csr(&STANDARD.encode(swapped)), Err(IdentityError::Csr));
    // Any byte changed, anything after the end, anything missing.
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        assert_eq!(
            decode_csr(&STANDARD.encode(changed)),
            Err(IdentityError::Csr),
            "byte {at}"
        );
        assert_eq!(
            decode_csr(&STANDARD.encode(&der[..at])),
            Err(IdentityError::Csr),
            "cut at {at}"
        );
    }
    let mut longer = der.clone();
    longer.push(0);
    assert_eq!(decode_csr(&STANDARD.encode(longer)), Err(IdentityError::Csr));
    assert_eq!(decode_csr("not base64!"), Err(IdentityError::Csr));
    assert_eq!(decode_csr(""), Err(IdentityError::Csr));
}

#[test]
fn a_request_over_the_limit_is_not_read() {
    let limit = usize::try_from(CSR_LEN_MAX.get()).unwrap();
    let key = KeyFile::generate().unwrap();
    let mut body = csr(&key).unwrap();
    body.push_str(&" ".repeat(limit - body.len()));
    assert_eq!(decode_csr(&body), Ok(key.spki()));
    body.push(' ');
    assert_eq!(decode_csr(&body), Err(IdentityError::Csr));
}

#[test]
fn openssl_reads_our_answer() {
    let fleet = fleet("plant.example");
    let (_, chain) = fleet.device("press-7");
    let body = encode_certs_only(&chain).unwrap();
    let text = openssl::read(&["pkcs7", "-print_certs", "-noout"], &block("PKCS7", &body));
    assert!(text.contains("plant.example device issuer"), "{text}");
    assert_eq!(text.matches("issuer=").count(), 2, "{text}");
    assert_eq!(decode_certs_only(&body).unwrap(), chain);
}

#[test]
fn we_read_the_answer_of_openssl() {
    let fleet = fleet("plant.example");
    let (_, chain) = fleet.device("press-7");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.pem");
    // Issuer first: a set has no order, and the leaf is found all the same.
    let swapped = [chain[1].clone(), chain[0].clone()];
    std::fs::write(&path, redan_identity::pem::write_chain(&swapped)).unwrap();
    let arguments = ["crl2pkcs7", "-nocrl", "-certfile", path.to_str().unwrap()];
    let pem = openssl::read(&arguments, b"");
    let body = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(decode_certs_only(&body).unwrap(), chain);
}

#[test]
fn an_answer_that_is_not_certs_only_is_refused() {
    let fleet = fleet("plant.example");
    let (_, chain) = fleet.device("press-7");
    let malformed = Err(IdentityError::Malformed {
        what: "a certs-only PKCS#7",
    });
    let body = encode_certs_only(&chain).unwrap();
    let der = STANDARD.decode(body.replace("\r\n", "")).unwrap();
    for at in 0..der.len() {
        assert_eq!(
            decode_certs_only(&STANDARD.encode(&der[..at])),
            malformed,
            "cut at {at}"
        );
    }
    let mut longer = der.clone();
    longer.push(0);
    assert_eq!(decode_certs_only(&STANDARD.encode(longer)), malformed);
    assert_eq!(decode_certs_only(&STANDARD.encode(tlv(0x30, &[]))), malformed);
    assert_eq!(decode_certs_only(&STANDARD.encode(&chain[0])), malformed);
    assert_eq!(decode_certs_only("%"), malformed);
    assert_eq!(decode_certs_only(&encode_certs_only(&[]).unwrap()), malformed);
}

#[test]
fn an_answer_has_at_most_eight_certificates() {
    let fleet = fleet("plant.example");
    let leaves: Vec<_> = (0..9)
        .map(|n| fleet.device(&format!("press-{n}")).1.remove(0))
        .collect();
    assert_eq!(
        decode_certs_only(&encode_certs_only(&leaves[..8]).unwrap())
            .unwrap()
            .len(),
        8
    );
    let malformed = Err(IdentityError::Malformed {
        what: "a certs-only PKCS#7",
    });
    assert_eq!(decode_certs_only(&encode_certs_only(&leaves).unwrap()), malformed);
}
