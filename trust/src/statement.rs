//! The director's freshness statement: one more signed document, counted by the one threshold function.

use crate::claimed::{Claimed, Verified};
use crate::error::TufError;
use crate::metadata::{Envelope, Malformed};
use crate::refusal::Refusal;
use crate::repository::Repository;
use redan_protocol::wire::Statement;
use serde::Deserialize as _;

/// Name of the statement in errors.
const ROLE: &str = "time statement";

/// Believes a statement if the director's timestamp role signed it. Whom and what it is about is for `decide`.
pub fn verify_statement(
    director: &Repository,
    envelope: &serde_json::Value,
) -> Result<Verified<Statement>, Refusal> {
    let malformed = |source: Malformed| TufError::Malformed {
        role: ROLE.into(),
        source,
    };
    let (envelope, signed) = Envelope::from_value(envelope.clone()).map_err(malformed)?;
    let value = Statement::deserialize(signed).map_err(|_| malformed(Malformed::Field))?;
    let signers = director
        .signers("timestamp")
        .ok_or_else(|| TufError::Unlisted { role: ROLE.into() })?;
    let claimed = Claimed::new(envelope, value);
    claimed.verify(&signers).map_err(|source| {
        TufError::Signatures {
            role: ROLE.into(),
            source,
        }
        .into()
    })
}
