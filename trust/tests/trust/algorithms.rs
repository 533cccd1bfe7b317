//! Which signatures verify at all (attack T22), and how large a version may be (T06).

use crate::maker::{Repo, Served, Signer, envelope};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use redan_trust::TufError;
use redan_trust::claimed::TooFewSignatures;
use redan_trust::metadata::Malformed;
use serde_json::{Value, json};

/// RSA keys of two lengths and what they signed: no library here makes the shorter one.
const RSA: &str = include_str!("rsa.json");

fn nobody() -> TufError {
    TufError::Signatures {
        role: "timestamp".into(),
        source: TooFewSignatures {
            valid: 0,
            threshold: 1,
        },
    }
}

/// A repository whose timestamp is signed by one key of the given kind.
fn signed_by(key: &Value, envelope: &Value) -> Result<(), TufError> {
    let mut repo = Repo::new();
    repo.hashes = Vec::new();
    repo.publish();
    repo.root["keys"]["it"] = key.clone();
    repo.root["roles"]["timestamp"] = json!({"keyids": ["it"], "threshold": 1});
    repo.publish_root(&[]);
    repo.serve("timestamp.json", envelope);
    repo.device().refresh(&repo).map(drop)
}

#[test]
fn rsa_verifies_from_2048_bits_and_with_pss_only() {
    let fixture: Value = serde_json::from_str(RSA).unwrap();
    let verdict = |keytype: &str, scheme: &str, bits: &str, signature: &str| {
        let key = json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": fixture["keys"][bits]}});
        let signatures = json!([{"keyid": "it", "sig": fixture["signatures"][signature]}]);
        signed_by(
            &key,
            &json!({"signed": fixture["signed"], "signatures": signatures}),
        )
    };
    let pss = "rsassa-pss-sha256";
    assert_eq!(
        verdict("rsa", pss, "2048", "2048-pss"),
        Ok(()),
        "positive control"
    );
    for (keytype, scheme, bits, signature) in [
        ("rsa", pss, "1024", "1024-pss"),
        ("rsa", pss, "2048", "2048-pkcs1v15"),
        ("rsa", pss, "2048", "1024-pss"),
        ("rsa", "rsa-pkcs1v15-sha256", "2048", "2048-pkcs1v15"),
        ("rsa", "rsassa-pkcs1v15-sha256", "2048", "2048-pkcs1v15"),
        ("rsa", "rsassa-pss-sha512", "2048", "2048-pss"),
        ("ed25519", pss, "2048", "2048-pss"),
        ("rsa", "ed25519", "2048", "2048-pss"),
    ] {
        let refused = verdict(keytype, scheme, bits, signature);
        assert_eq!(refused, Err(nobody()), "{keytype} {scheme} {signature}");
    }
}

#[test]
fn a_p256_signature_counts_under_its_own_type_and_scheme_only() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let mut signed = Repo::new().timestamp;
    signed["meta"] = json!({"snapshot.json": {"version": 1}});
    let message = redan_policy::canonical::to_vec(&signed).unwrap();
    let signature = pair.sign(&SystemRandom::new(), &message).unwrap();
    let file =
        json!({"signed": signed, "signatures": [{"keyid": "it", "sig": hex::encode(signature.as_ref())}]});
    for keytype in [
        "ecdsa",
        "ecdsa-sha2-nistp256",
        "ed25519",
        "rsa",
        "ecdsa-sha2-nistp384",
        "ECDSA",
        "",
    ] {
        for scheme in [
            "ecdsa-sha2-nistp256",
            "ed25519",
            "rsassa-pss-sha256",
            "ecdsa-sha2-nistp384",
            "",
        ] {
            let public = hex::encode(pair.public_key().as_ref());
            let key = json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": public}});
            let own = ["ecdsa", "ecdsa-sha2-nistp256"].contains(&keytype) && scheme == "ecdsa-sha2-nistp256";
            let expected = if own { Ok(()) } else { Err(nobody()) };
            assert_eq!(signed_by(&key, &file), expected, "{keytype} {scheme}");
        }
    }
}

#[test]
fn a_version_is_any_whole_number_of_64_bits_and_nothing_else() {
    for role in ["timestamp", "snapshot", "targets"] {
        for version in [(1 << 53) - 1, 1 << 53, (1 << 53) + 1, 1 << 63, u64::MAX] {
            let mut repo = Repo::new();
            repo.document(role)["version"] = json!(version);
            repo.publish();
            let mut device = repo.device();
            device.refresh(&repo).unwrap();
            device.refresh(&repo).unwrap();
            assert_eq!(
                device.stored,
                Vec::<String>::new(),
                "{role} {version} is what it was"
            );
            // As large as it is, it is believed from the role's keys only.
            repo.signers.insert(role.into(), vec![Signer::new(role)]);
            repo.publish();
            let refused = repo.device().refresh(&repo).unwrap_err();
            assert!(matches!(refused, TufError::Signatures { .. }), "{refused}");
        }
    }
    for (text, source) in [
        ("18446744073709551616", Malformed::Json),
        ("1e3", Malformed::Json),
        ("2.0", Malformed::Json),
        ("-1", Malformed::Field),
        ("\"7\"", Malformed::Field),
        ("0", Malformed::Field),
        ("null", Malformed::Field),
    ] {
        let mut repo = Repo::new();
        let file = envelope(&repo.timestamp, &repo.by("timestamp")).to_string();
        let file = file.replace("\"version\":1}", &format!("\"version\":{text}}}"));
        assert!(file.contains(text), "{file}");
        repo.served
            .insert("timestamp.json".into(), Served::Bytes(file.into_bytes()));
        let malformed = TufError::Malformed {
            role: "timestamp".into(),
            source,
        };
        assert_eq!(repo.device().refresh(&repo).unwrap_err(), malformed, "{text}");
    }
}
