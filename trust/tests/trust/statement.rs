//! The director's freshness statement.

use crate::maker::{NOW, Repo, Signer, envelope};
use crate::scene::{FLEET, device};
use redan_trust::claimed::TooFewSignatures;
use redan_trust::metadata::Malformed;
use redan_trust::{Refusal, TufError, verify_statement};
use serde_json::{Value, json};

fn statement() -> Value {
    json!({"_type": "time-statement", "device": device(), "nonce": "07".repeat(16), "time": NOW, "release": 1, "director": 1})
}

#[test]
fn a_statement_is_believed_from_the_directors_timestamp_keys_only() {
    let repo = Repo::of_fleet(FLEET);
    let director = repo.device().refresh(&repo).unwrap();
    let signed = statement();
    let good = verify_statement(&director, &envelope(&signed, &repo.by("timestamp"))).unwrap();
    assert_eq!(good.get().time, NOW);
    let stranger = Signer::new("stranger");
    for by in [vec![], vec![&stranger], repo.by("targets"), repo.by("root")] {
        let refused = Refusal::Metadata(TufError::Signatures {
            role: "time statement".into(),
            source: TooFewSignatures {
                valid: 0,
                threshold: 1,
            },
        });
        assert_eq!(
            verify_statement(&director, &envelope(&signed, &by)).unwrap_err(),
            refused
        );
    }
}

#[test]
fn metadata_is_no_statement_and_unknown_fields_are_refused() {
    let repo = Repo::of_fleet(FLEET);
    let director = repo.device().refresh(&repo).unwrap();
    let mut more = statement();
    more["more"] = json!(1);
    for signed in [repo.timestamp.clone(), more] {
        let refused = Refusal::Metadata(TufError::Malformed {
            role: "time statement".into(),
            source: Malformed::Field,
        });
        let envelope = envelope(&signed, &repo.by("timestamp"));
        assert_eq!(verify_statement(&director, &envelope).unwrap_err(), refused);
    }
}
